"""rLLM: what it adds to whichever engine trains below it."""

from __future__ import annotations

from analysis.diagnose.engine import Engine, engine_named
from analysis.diagnose.names import Key, KeyTable

__all__ = ["RLLM"]

RLLM = engine_named(
    Engine(
        name="rllm",
        title="rLLM",
        table=KeyTable(
            (
                Key("reward/<role>/mean", "reward/mean"),
                Key("reward/<role>/std", "reward/std"),
                Key("advantage/<role>/mean", "advantage/mean"),
                Key("advantage/<role>/std", "advantage/std"),
                Key("advantage/<role>/fraction_zero", "advantage/zero_fraction"),
                Key("batch/<role>/fractions/effective", "group/mixed_fraction"),
                Key("batch/<role>/fractions/too_easy", "group/too_easy_fraction"),
                Key("batch/<role>/fractions/too_hard", "group/too_hard_fraction"),
            )
        ),
    )
)
