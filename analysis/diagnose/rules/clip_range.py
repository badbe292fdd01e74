"""Bounds of a token's ratio used for a sequence's, and the reverse."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.diagnose.rule import Case, Finding, Rule, rule, shown

__all__ = ["CLIP_RANGE"]

_TOKEN_LIKE, _SEQUENCE_LIKE = 0.03, 0.01


def _check(case: Case) -> Iterator[Finding]:
    sequence = case.sequence_ratio
    bounds = {name: case.number(name) for name in ("clip_low", "clip_high")}
    known = {name: value for name, value in bounds.items() if value is not None}
    if sequence is None or not known:
        return
    loss = str(case.setting("loss") or "").lower()
    if loss in {"gmpo", "geo_mean", "cispo", "sapo", "vespo", "dppo", "topr", "reinforce"}:
        return
    stated = " and ".join(f"{case.source(name)} = {shown(value)}" for name, value in known.items())
    share = case.recent("clip/fraction")
    seen = f" {case.key('clip/fraction')} is {shown(share)}." if share == share else ""
    largest, smallest = max(known.values()), min(known.values())
    if sequence and largest >= _TOKEN_LIKE:
        yield CLIP_RANGE.finding(
            "problem",
            "The ratio is a sequence's, whose logarithm is a mean over tokens, and the bounds are a token's: "
            f"{stated}.{seen} "
            "They are hundreds of times too wide to act (3e-4 and 4e-4 in the paper).",
            title="GSPO with PPO's bounds",
            evidence=case.evidence("clip/fraction", "clip/high_fraction", "clip/low_fraction")[:2],
            remedy="Set the bounds to 3e-4 and 4e-4, and see that some sequences are clipped.",
            explains=("ratio-constant", "clipping-cannot-act"),
        )
    elif not sequence and largest <= _SEQUENCE_LIKE and smallest > 0:
        yield CLIP_RANGE.finding(
            "problem",
            f"The ratio is a token's and the bounds are a sequence's: {stated}.{seen} Almost every token whose "
            "probability "
            "moves at all is cut off.",
            title="PPO with GSPO's bounds",
            evidence=case.evidence("clip/fraction", "clip/high_fraction", "clip/low_fraction")[:2],
            remedy="Set the bounds to about 0.2, or use the sequence's ratio.",
            explains=("entropy-collapse",),
        )


CLIP_RANGE = rule(
    Rule(
        id="clip-range",
        title="The bounds do not fit the ratio",
        mechanism="A sequence's ratio is the geometric mean over its tokens and stays within a thousandth of 1 where "
        "single "
        "tokens move by a fifth. Bounds of one are meaningless for the other.",
        reads=(),
        threshold="bounds of 0.03 and more for a sequence's ratio, or of 0.01 and less for a token's",
        remedy="About 3e-4 and 4e-4 for a sequence's ratio, 0.2 for a token's.",
        silent="where the configuration does not say both the level of the ratio and the bounds",
        check=_check,
        rank=5,
        settings=("ratio_level", "loss", "clip_low", "clip_high"),
    )
)
