"""What the two rules on entropy share: the cause of a trend by the class of tokens that the settings remove."""

from __future__ import annotations

import math

from analysis.diagnose.rule import Case, shown

CLASSES = (
    "The upper bound removes tokens with A > 0 above it, which are mostly improbable ones whose promotion raises "
    "entropy; the lower bound removes tokens with A < 0 below it, whose demotion lowers entropy."
)


def cause(case: Case, falling: bool) -> tuple[str, str, list[str]]:
    """Likely cause, remedy and what is missing, from the shares of clipped tokens and the settings."""
    high, low = case.recent("clip/high_fraction"), case.recent("clip/low_fraction")
    upper, lower = case.number("clip_high"), case.number("clip_low")
    needs: list[str] = []
    said: list[str] = []
    remedy: list[str] = []
    if not math.isnan(high) and not math.isnan(low):
        if max(high, low) <= 0:
            said.append("Neither bound removes a token, so clipping is not the cause")
        elif falling and high > 1.5 * low:
            said.append(
                f"The upper bound removes {shown(100 * high)} % of the tokens and the lower one {shown(100 * low)} %: "
                "more is taken from what raises entropy"
            )
            remedy.append(f"Raise the upper bound{_now(upper)}")
        elif not falling and low > 1.5 * high:
            said.append(
                f"The lower bound removes {shown(100 * low)} % of the tokens and the upper one {shown(100 * high)} %: "
                "more is taken from what lowers entropy"
            )
            remedy.append(f"Widen the lower bound{_now(lower)} or narrow the upper one")
        else:
            said.append(
                f"The bounds remove {shown(100 * high)} % above and {shown(100 * low)} % below, which does not favour "
                f"this direction: look at the signal and the step size"
            )
    else:
        if upper is not None and lower is not None:
            if falling and upper <= lower:
                said.append(
                    f"The bounds are {shown(lower)} below and {shown(upper)} above 1; a symmetric interval takes away "
                    "more of what raises entropy, because improbable tokens leave it upwards first"
                )
                remedy.append("Raise the upper bound (0.28 in DAPO)")
            elif not falling and upper > lower:
                said.append(
                    f"The upper bound {shown(upper)} is wider than the lower {shown(lower)}, which favours a rise"
                )
                remedy.append("Bring the upper bound closer to the lower one")
        needs.append("the clipped share by side, which is not logged")
        if upper is None:
            needs += case.takes("clip_low", "clip_high")
    bonus = case.number("entropy_coefficient")
    if bonus is not None and bonus > 0 and not falling:
        said.append(f"an entropy bonus of {shown(bonus)} pushes upwards")
        remedy.append("Set the entropy bonus to 0")
    return "; ".join(said), ". ".join(remedy), needs


def _now(bound: float | None) -> str:
    return "" if bound is None else f" (now {shown(bound)})"
