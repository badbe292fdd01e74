"""Mixtures of experts: every token goes to the experts the old policy chose (routing replay, R2)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from torch import Tensor

__all__ = ["RoutingReplay"]

_EXPERTS = "experts"


class RoutingReplay:
    """Records the choice of experts beside the old policy's log-probabilities, and holds to it in training.

    Args:
        model: gives the model itself, without what data parallelism wraps around it.
        enabled: whether anything is recorded; what was not recorded is not replayed.
    """

    def __init__(self, model: Callable[[], Any], enabled: bool) -> None:
        self._model, self._enabled = model, enabled

    @contextlib.contextmanager
    def recording(self, noted: MutableMapping[str, Tensor]) -> Iterator[None]:
        """Note the experts of the forward passes inside the `with`."""
        if not self._enabled:
            yield
            return
        from models.causal_lm import record_routing

        with record_routing(self._model()) as routing:
            yield
        noted[_EXPERTS] = routing.experts

    def replaying(self, inputs: Mapping[str, Any]) -> contextlib.AbstractContextManager[None]:
        """Hold to the experts that came with a micro-batch, if any did."""
        if _EXPERTS not in inputs:
            return contextlib.nullcontext()
        from models.causal_lm import replay_routing

        return replay_routing(self._model(), inputs[_EXPERTS])
