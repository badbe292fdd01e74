"""S2. The temperature of negative tokens."""

from __future__ import annotations

from analysis.claims.sapo import CITATION, PAPER
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, contrast, in_order
from analysis.judging.settings import STALE
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="S2",
        source=PAPER,
        statement="τ_neg = 1.05 is more stable than 1.0, and 1.0 more stable than 0.95, at τ_pos = 1.",
        status="toy",
        reason="The published three values differ by a few percent of a gate that is nearly flat; the order shows over "
        "a range eight times as wide and at large updates. A large vocabulary of irrelevant tokens, the paper's reason "
        "for the asymmetry, is not simulated.",
    )
)

register(
    StatisticalClaim(
        id="sapo/tau-order",
        paper=PAPER,
        judges=("S2", "M13"),
        title="A larger τ for negatives is more stable",
        source=f"{CITATION}, statement S2",
        statement="With τ_neg = 0.95 the divergence per iteration is at least two percent larger than with 1.05.",
        scope="Tabular policy on modular sum with 12 tokens and rollouts eight iterations old. A vocabulary of "
        "16 has no "
        "tail of irrelevant tokens, which is the paper's reason for the asymmetry.",
        unit="nats per response",
        setting=STALE,
        arms={"τ_neg 0.95": {"objective": "sapo(tau_neg=0.95)"}, "τ_neg 1.05": {"objective": "sapo(tau_neg=1.05)"}},
        estimand=contrast(average("exact/kl_step"), of="τ_neg 0.95", minus="τ_neg 1.05", times=1.02),
        direction="greater",
        threshold=0.0,
        planted=0.001,
        curves=("exact/kl_step", "exact/regret"),
        falsifier=Falsifier(
            "The first arm's τ_neg is raised to 4.", {"τ_neg 0.95": {"objective": "sapo(tau_neg=4.0)"}}
        ),
        recorded="refuted",
        notes=("The two gates differ by 2.3 % at a ratio of 2 and by less closer to 1.",),
        seeds=56,
    )
)

TAUS = {f"τ_neg {tau:g}": {"objective": f"sapo(tau_neg={tau})"} for tau in (0.5, 1.0, 2.0, 4.0)}

register(
    StatisticalClaim(
        id="sapo/tau-order-wide",
        paper=PAPER,
        judges=("S2", "M13"),
        title="The order of τ_neg over a wide range",
        source=f"{CITATION}, statement S2",
        statement="Each doubling of τ_neg from 0.5 to 4 lowers the divergence per iteration by at least 0.001 nats.",
        scope="Tabular policy on modular sum with 12 tokens, learning rate 64, rollouts eight iterations old. "
        "Stability is measured as divergence, not as the absence of a collapse: none of these runs collapses.",
        unit="nats per response",
        setting=STALE | {"learning_rate": 64.0},
        arms=TAUS,
        estimand=in_order(average("exact/kl_step"), list(TAUS)),
        statistic="smallest step",
        direction="less",
        threshold=-0.001,
        curves=("exact/kl_step", "exact/regret"),
        falsifier=Falsifier("The largest τ_neg is replaced by the smallest.", {"τ_neg 4": TAUS["τ_neg 0.5"]}),
        recorded="reproduced",
        tier="full",
        notes=(
            "At a quarter of the rate ratios stay where all these gates are flat, and the first step is below noise.",
        ),
        # Steps scatter by 0.007 from seed to seed, and one of 0.002 is to be told from one of 0.001.
        seeds=1440,
    )
)
