"""S4. Routing replay on a mixture of experts."""

from __future__ import annotations

from analysis.claims.sapo import CITATION, CLOSED_GATE, EXPERTS, GRPO, PAPER, ROUTED, ROUTED_SCOPE, SAPO
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, contrast, difference, final
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="S4",
        source=PAPER,
        statement="SAPO needs no routing replay on a mixture of experts.",
        status="small",
        configuration="On language models: `testbed finetune cpu-moe.yaml` with `objective: sapo` and `grpo`, with and "
        "without `routing_replay`.",
        reason="One block of eight small experts; a language model has dozens of layers of them.",
    )
)

REPLAY = {"model": f"moe({EXPERTS},replay=old)"}

register(
    StatisticalClaim(
        id="sapo/replay-narrows-ratios",
        paper=PAPER,
        judges=("S4", "M9", "M16", "S3"),
        title="Routing replay narrows the ratios",
        source=f"{CITATION}, statement S4; mechanism M16",
        statement="Replaying the experts chosen by the old policy makes the mean |log-ratio| at least a tenth smaller.",
        scope=ROUTED_SCOPE,
        unit="nats",
        setting=ROUTED,
        arms={"replay": SAPO | REPLAY, "own routing": SAPO},
        estimand=contrast(average("ratio/log_abs_mean"), of="replay", minus="own routing", times=0.9),
        direction="less",
        threshold=0.0,
        planted=-0.01,
        curves=("ratio/log_abs_mean", "ratio/max", "exact/return"),
        falsifier=Falsifier("Nothing is replayed.", {"replay": SAPO}),
        recorded="reproduced",
        tier="networks",
        seeds=240,
    )
)

register(
    StatisticalClaim(
        id="sapo/needs-no-replay",
        paper=PAPER,
        judges=("S4", "M16"),
        title="SAPO needs no routing replay",
        source=f"{CITATION}, statement S4",
        statement="Without routing replay SAPO's final reward is at most 0.05 lower than with it.",
        scope=ROUTED_SCOPE,
        unit="reward",
        setting=ROUTED,
        arms={"sapo": SAPO, "replay": SAPO | REPLAY},
        estimand=difference(final("exact/return"), of="sapo", minus="replay"),
        direction="greater",
        threshold=-0.05,
        planted=0.0,
        curves=("exact/return", "ratio/log_abs_mean"),
        falsifier=CLOSED_GATE,
        recorded="reproduced",
        tier="networks",
        seeds=240,
    )
)

register(
    StatisticalClaim(
        id="sapo/grpo-needs-replay",
        paper=PAPER,
        judges=("S4", "M16"),
        title="GRPO needs routing replay",
        source=f"{CITATION}, statements S1 and S4; mechanism M16",
        statement="Without routing replay GRPO's final reward is at least 0.05 lower than with it.",
        scope=ROUTED_SCOPE,
        unit="reward",
        setting=ROUTED,
        arms={"own routing": GRPO, "replay": GRPO | REPLAY},
        estimand=difference(final("exact/return"), of="own routing", minus="replay"),
        direction="less",
        threshold=-0.05,
        acts=(("own routing", "clip/fraction"),),
        curves=("exact/return", "ratio/log_abs_mean"),
        falsifier=Falsifier("Both arms replay.", {"own routing": GRPO | REPLAY}),
        recorded="refuted",
        tier="networks",
        seeds=240,
    )
)
