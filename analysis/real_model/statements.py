"""The statements about tokens, each as one number per recorded run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from analysis.replay.walk import Replay
from analysis.statistics import Direction, Support
from testbed.objectives import make_objective

__all__ = ["OBJECTIVES", "STATEMENTS", "Statement", "label"]

OBJECTIVES = {
    "grpo": "grpo(reduction=token_mean)",
    "dapo": "dapo",
    "dcpo": "dcpo(reduction=token_mean)",
    "ce_gppo": "ce_gppo(reduction=token_mean)",
    "erc": "erc(base=dapo)",
    "bapo": "bapo(reduction=token_mean)",
    "sapo": "sapo(reduction=token_mean)",
    "gspo": "gspo",
}
"""The objectives that are laid over the tokens of every run, at their published offsets and with one reduction."""


def label(objective: str) -> str:
    """The name of one of `OBJECTIVES` in the tables of a replay."""
    return make_objective(OBJECTIVES[objective]).label()


LAST = 2
"""Rollouts at the end of a run that stand for its end."""


@dataclass(frozen=True)
class Statement:
    """A statement of the ledger, asked of a recorded run."""

    number: str
    """In the ledger."""
    sentence: str
    """What is judged."""
    value: Callable[[Replay], float]
    """One number per run."""
    formula: str
    """What that number is."""
    direction: Direction
    threshold: float
    unit: str
    support: Support | None = None
    """What the number can be at most, where that is known."""


def _mean(done: Replay, objective: str, column: str) -> float:
    """Mean over the updates whose ratios are not 1 by construction."""
    return float(done.summary()[column][label(objective)])


def _likely_at_the_end(done: Replay) -> float:
    rows = done.table[done.table["objective"] == label("grpo")]
    last = sorted(rows["step"].unique())[-LAST:]
    return float(rows[rows["step"].isin(last)]["probability/likely_fraction"].mean())


STATEMENTS = (
    Statement(
        "D5",
        "GRPO's token clipping ratio exceeds five times DCPO's.",
        lambda done: _mean(done, "grpo", "clip/fraction") - 5 * _mean(done, "dcpo", "clip/fraction"),
        "clip/fraction of grpo less five times that of dcpo",
        "greater",
        0.0,
        "share of response tokens",
        (-5.0, 1.0),
    ),
    Statement(
        "D9",
        "At the end more than 95 % of the sampled tokens have an old probability above 0.9.",
        _likely_at_the_end,
        f"probability/likely_fraction of the last {LAST} rollouts",
        "greater",
        0.95,
        "share of response tokens",
        (0.0, 1.0),
    ),
    Statement(
        "E2",
        "ERC masks more than ten times as many tokens as the ratio clip of its base objective clips.",
        lambda done: _mean(done, "erc", "erc/masked_fraction") - 10 * _mean(done, "dapo", "clip/fraction"),
        "erc/masked_fraction less ten times clip/fraction of dapo",
        "greater",
        0.0,
        "share of response tokens",
        (-10.0, 1.0),
    ),
    Statement(
        "E3",
        "The tokens ERC masks have a mean old entropy at least a tenth below that of the tokens it keeps.",
        lambda done: _mean(done, "erc", "erc/masked_entropy") - 0.9 * _mean(done, "erc", "erc/kept_entropy"),
        "erc/masked_entropy less 0.9 times erc/kept_entropy",
        "less",
        0.0,
        "nats",
    ),
    Statement(
        "C7",
        "The tokens outside GRPO's interval had less than half the mean probability of those inside.",
        lambda done: (
            _mean(done, "grpo", "band/outside_probability") - 0.5 * _mean(done, "grpo", "band/inside_probability")
        ),
        "band/outside_probability less half of band/inside_probability",
        "less",
        0.0,
        "probability",
        (-0.5, 1.0),
    ),
    Statement(
        "B5",
        "The states of tokens outside GRPO's interval have a mean entropy at least a tenth above that of the others.",
        lambda done: _mean(done, "grpo", "band/outside_entropy") - 1.1 * _mean(done, "grpo", "band/inside_entropy"),
        "band/outside_entropy less 1.1 times band/inside_entropy",
        "greater",
        0.0,
        "nats",
    ),
)
