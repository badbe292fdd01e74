"""From one number per seed to an interval, and from the interval to a verdict.

The unit is the seed; of one recorded run it is the rollout, in blocks where rollouts are correlated. Steps, tokens and
prompts inside a run are never samples, so every function here takes one number per seed, and a paired comparison passes
the differences over seeds that shared their random numbers.

The rules, in one place:

* An interval at `level` leaves α = (1 - level)/2 on each side. Verdicts are judged at `VERDICT_LEVEL`.
* On each side it is the wider of Student's t and a bootstrap, below 20 seeds made at a fifth of α; below 5 seeds there
  is none, and so no verdict.
* Values without spread say little: equal ones have bounds where the support is declared, and none otherwise until there
  are so many that at most one seed in a hundred can differ; two-valued outcomes have the exact binomial interval.
* `decide` is the only place where an interval becomes a verdict. Claims never judge themselves.
* A probability is `proportion_interval`, a waiting time is `survival`, an order is `smallest_step`; all
  return an `Interval`, and `decide` judges it like any other.

Sample sizes are fixed before the run; nothing here corrects for looking early.
"""

from __future__ import annotations

from analysis.statistics.blocks import block_length, block_means
from analysis.statistics.intervals import interquartile_mean, interval, p_value
from analysis.statistics.multiplicity import benjamini_hochberg, holm
from analysis.statistics.orders import monotone_trend, order_p_value, smallest_step
from analysis.statistics.shares import probability_of_improvement, proportion_interval
from analysis.statistics.types import (
    MINIMUM_SEEDS,
    VERDICT_LEVEL,
    Direction,
    Estimator,
    Interval,
    Judgement,
    Support,
    Verdict,
)
from analysis.statistics.verdicts import decide, judge, judge_identity, seeds_needed
from analysis.statistics.waiting_times import Survival, survival

__all__ = [
    "MINIMUM_SEEDS",
    "VERDICT_LEVEL",
    "Direction",
    "Estimator",
    "Interval",
    "Judgement",
    "Support",
    "Survival",
    "Verdict",
    "benjamini_hochberg",
    "block_length",
    "block_means",
    "decide",
    "holm",
    "interquartile_mean",
    "interval",
    "judge",
    "judge_identity",
    "monotone_trend",
    "order_p_value",
    "p_value",
    "probability_of_improvement",
    "proportion_interval",
    "seeds_needed",
    "smallest_step",
    "survival",
]
