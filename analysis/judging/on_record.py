"""How a claim about tokens is judged on a recorded run: by one number per rollout instead of one per seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from analysis.judging.estimands import Estimand
from analysis.statistics import Direction
from testbed.batch import TokenBatch
from testbed.errors import ConfigError
from testbed.objectives import Objective, make_objective

__all__ = ["TRAINED", "OnRecord", "TokenMeasure"]

TRAINED = "trained"
"""As an arm: the objective that the record says it was trained with."""

TokenMeasure = Callable[[Objective, TokenBatch, Tensor], Tensor]
"""(objective, batches `(N, B, T)`, ∂ℓ/∂log p of every token `(N, B, T)`) to one number per batch, `(N,)`, or NaN."""


@dataclass(frozen=True, kw_only=True)
class OnRecord:
    """A claim's reading of a recorded run.

    Its estimands are those of any claim: what is a step of training for a toy is an update on a rollout here, and what
    is a seed is a rollout. `average(…)` therefore leaves out the first update of each rollout, whose ratios are 1.

    Raises:
        ConfigError: an arm is no objective, or neither an interval nor a tolerance could judge.
    """

    arms: Mapping[str, str]
    """Name to the objective under which the record is replayed, or `TRAINED`."""
    sabotaged: Mapping[str, str] = field(default_factory=dict)
    """Arms that take the place of those of the same name, as in the claim's falsifier."""
    estimand: Estimand | None = None
    """One number per rollout; `None`: the claim's own, of the metrics that a replay has."""
    sabotaged_estimand: Estimand | None = None
    """What the falsifier reads; `None`: the same of the sabotaged arms."""
    statement: str = ""
    """What is judged, where it is not word for word the claim's."""
    sabotage: str = ""
    """What was sabotaged, where it is not what the claim's falsifier says."""
    unit: str = ""
    """Of the estimand; empty: the claim's."""
    direction: Direction | None = None
    """`None`: the claim's."""
    threshold: float | None = None
    """`None`: the claim's."""
    tolerance: float | None = None
    """Of an identity, which has to hold in every rollout to this; `None`: an interval of the mean judges."""
    measures: Mapping[str, TokenMeasure] = field(default_factory=dict)
    """Columns that no other claim reads, by name."""
    readings: tuple[Estimand, ...] = ()
    """Other numbers of the same rollouts, reported without a verdict."""
    reads: tuple[str, ...] = ()
    """Columns of the record that are needed beside those of the objectives."""
    acts: tuple[tuple[str, str], ...] = ()
    """(arm, metric) pairs that must be above 0 somewhere: otherwise the mechanism never acted in this run."""

    def __post_init__(self) -> None:
        if not self.arms:
            raise ConfigError("on_record has no arms; name an objective at least")
        for text in (*self.arms.values(), *self.sabotaged.values()):
            if text != TRAINED:
                make_objective(text)
        unknown = set(self.sabotaged) - set(self.arms)
        if unknown:
            raise ConfigError(f"on_record sabotages {sorted(unknown)}; its arms are {sorted(self.arms)}")
        if not self.sabotaged and self.sabotaged_estimand is None:
            raise ConfigError("on_record sabotages nothing; a claim that cannot fail is rejected")
