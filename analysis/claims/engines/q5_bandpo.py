"""Q5. BandPO's bounds and rare tokens."""

from __future__ import annotations

import torch

from analysis.claims.engines import PAPER, gradient
from analysis.judging.claim import ExactClaim, Falsifier, StatisticalClaim, register
from analysis.judging.estimands import average, difference
from analysis.judging.settings import MODULAR_SUM
from analysis.ledger.entry import Entry, file_entry
from testbed.objectives import make_objective

SOURCE = "BandPO, arXiv 2603.04918, abstract; bounds of the authors' code"

file_entry(
    Entry(
        number="Q5",
        source=PAPER,
        statement="BandPO: under fixed bounds a token gains at most ε·q, so that rare tokens of high advantage are the "
        "clipped ones and entropy collapses; bounds aware of the probability beat the canonical clip and clip-higher "
        "and keep entropy.",
        status="toy",
    )
)

_RARE = torch.logspace(-3, -1.31, 60, dtype=torch.float64)
"""Old probabilities from 0.001 to 0.049."""


def _reach(objective: str) -> torch.Tensor:
    """By how much a token's probability may rise before its gradient is zero, for every rare q."""
    chosen = make_objective(objective)
    _, high = chosen.bounds(_RARE)  # type: ignore[attr-defined]
    return _RARE * (torch.as_tensor(high) - 1)


def _shortfall(objective: str) -> float:
    """How much less far than DCPO's its band lets the worst-off rare token rise."""
    return float((_reach("dcpo") - _reach(objective)).clamp(min=0).max())


register(
    ExactClaim(
        id="engines/bandpo-reaches-further-than-dcpo",
        paper=PAPER,
        judges=("Q5",),
        title="BandPO lets rare tokens rise further than DCPO",
        source=f"{SOURCE}; DCPO, arXiv 2509.02333, eq. 4",
        statement="At the published settings BandPO's KL bound lets every token of old probability 0.001 to 0.049 rise "
        "at least as far as DCPO's bound does.",
        scope="Exact, in float64: δ = 0.05 without relaxation against ε_high = 0.2 with the cap of 10. Both are bounds "
        "on q(r - 1) that differ in what they hold constant.",
        unit="probability",
        measure=lambda: _shortfall('bandpo(divergence="kl")'),
        tolerance=0.0,
        falsifier=Falsifier(
            "BandPO's δ is a hundred times smaller.", measure=lambda: _shortfall('bandpo(divergence="kl",delta=0.0005)')
        ),
        recorded="reproduced",
    )
)


def _gap_to_dppo(divergence: str, relax: bool = False) -> float:
    """Largest difference between the gradients of bandpo and dppo on random tokens of every probability."""
    generator = torch.Generator().manual_seed(2)
    old = -6.9 * torch.rand(40, 30, generator=generator, dtype=torch.float64) - 0.02
    new = torch.minimum(
        old + torch.randn(40, 30, generator=generator, dtype=torch.float64), -0.5 * old.abs().clamp(max=1e-2)
    )
    advantages = torch.randn(40, 30, generator=generator, dtype=torch.float64)
    written = f'bandpo(divergence="{divergence}",delta=0.05,relax={relax},reduction=token_mean)'
    ours = gradient(written, (new - old).exp(), advantages, old)
    theirs = gradient(
        f'dppo(divergence="{divergence}",threshold=0.05,reduction=token_mean)', (new - old).exp(), advantages, old
    )
    return float((ours - theirs).abs().max() / theirs.abs().max())


register(
    ExactClaim(
        id="engines/bandpo-is-dppo",
        paper=PAPER,
        judges=("Q5",),
        title="BandPO's bands are DPPO's masks",
        source=f"{SOURCE}; DPPO, arXiv 2602.04879; follows by calculation",
        statement="Without relaxation BandPO's gradient under total variation and under KL is DPPO's at the same "
        "threshold.",
        scope="Exact, in float64, for old probabilities of 0.001 to 0.98. Loss values differ; BandPO's χ² band has no "
        "counterpart.",
        unit="share of the largest entry",
        measure=lambda: max(_gap_to_dppo("tv"), _gap_to_dppo("kl")),
        tolerance=1e-12,
        falsifier=Falsifier("BandPO relaxes its bands to [0.8, 1.28].", measure=lambda: _gap_to_dppo("tv", relax=True)),
        recorded="reproduced",
    )
)

register(
    StatisticalClaim(
        id="engines/bandpo-finds-rare-arms-sooner",
        paper=PAPER,
        judges=("Q5",),
        title="Bounds aware of the probability beat clip-higher on rare arms",
        source=SOURCE,
        statement="BandPO's mean regret is at least 0.05 below that of clip-higher.",
        scope="RareArm-v1: 16 contexts, 100 arms, the best arm with initial probability 0.01, tabular policy, learning "
        "rate 16, one mean over tokens for both. Total variation, δ = 0.05, without relaxation.",
        unit="reward",
        setting=MODULAR_SUM | {"env": "RareArm-v1", "steps": 100},
        arms={"bandpo": {"objective": "bandpo(reduction=token_mean)"}, "clip-higher": {"objective": "dapo"}},
        estimand=difference(average("exact/regret"), of="bandpo", minus="clip-higher"),
        direction="less",
        threshold=-0.05,
        acts=(("bandpo", "clip/fraction"),),
        curves=("exact/regret", "clip/fraction"),
        falsifier=Falsifier(
            "The band is fifty times as narrow.", {"bandpo": {"objective": "bandpo(delta=0.001,reduction=token_mean)"}}
        ),
        recorded="reproduced",
        seeds=24,
    )
)
