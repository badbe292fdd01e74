"""Numbers on their way into TRL's log and from there to trackers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from torch import Tensor

__all__ = ["Recorder", "without_missing"]


class Recorder:
    """Adds numbers to TRL's tables, which it averages whenever it logs.

    Args:
        table: the one numbers go to at the moment, that of training or of evaluation; name to list.
    """

    def __init__(self, table: Callable[[], MutableMapping[str, list[float]]]) -> None:
        self._table = table

    def __call__(self, name: str, value: Any) -> None:
        """Add one number."""
        self._table()[name].append(float(value))

    def every(self, metrics: Mapping[str, Tensor]) -> None:
        """Add every metric of an objective."""
        for name, value in metrics.items():
            self(name, value)


def without_missing() -> Any:
    """Trackers get numbers only; that a metric had no data is in the trainer's own history, as TRL writes it, None."""
    from transformers import TrainerCallback

    class WithoutMissing(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            logs: dict[str, Any] = given["logs"]
            for name in [name for name, value in logs.items() if value is None]:
                del logs[name]

    return WithoutMissing()
