"""Exact statements: what can be proved and is checked to a tolerance, with the claims that use it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from analysis.judging.claim import ExactClaim, Falsifier
from analysis.judging.on_record import OnRecord
from analysis.theory import predictions

PAPER = "Theory"


def _deviation(identifier: str) -> Callable[[], float]:
    """Largest error over the predictions filed under a number, each in multiples of its own tolerance."""

    def measure() -> float:
        compared = [item.compare() for item in predictions() if item.id == identifier]
        # numpy's maximum hands a NaN on, where Python's might hide it. Where nothing is allowed, anything is too much.
        return float(
            np.max(
                [found.error / found.tolerance if found.tolerance else found.error and math.inf for found in compared]
            )
        )

    return measure


def exact_statement(
    name: str,
    *,
    number: str,
    title: str,
    source: str,
    statement: str,
    sabotage: str,
    measure: Callable[[], float],
    also: tuple[str, ...] = (),
    on_record: OnRecord | None = None,
) -> ExactClaim:
    """A claim that every prediction filed under a number agrees with what is measured.

    Args:
        name: of the claim, below `theory/`.
        number: of the statement, and of its predictions in `analysis.theory`.
        title: see `Claim`.
        source: see `Claim`.
        statement: see `Claim`.
        sabotage: what the falsifier changes.
        measure: its error, in multiples of the tolerance.
        also: numbers of other statements it judges.
        on_record: how it is judged on a recorded run.
    """
    return ExactClaim(
        id=f"theory/{name}",
        paper=PAPER,
        judges=(number, *also),
        title=title,
        source=source,
        statement=statement,
        scope="Exact, in float64, for the objectives of this project; no environment or model enters.",
        unit="multiples of each comparison's tolerance",
        measure=_deviation(number),
        tolerance=1.0,
        falsifier=Falsifier(sabotage, measure=measure),
        recorded="reproduced",
        on_record=on_record,
    )
