"""The numbered statements of SAPO (Gao et al., arXiv 2511.20347v2): a smooth gate on every token."""

from __future__ import annotations

from typing import Any

from analysis.judging.claim import Falsifier, Tuning
from analysis.judging.estimands import final

PAPER = "SAPO"
CITATION = "Gao et al., arXiv 2511.20347v2"
SAPO, GSPO, GRPO = {"objective": "sapo"}, {"objective": "gspo"}, {"objective": "grpo"}
WIDE_GSPO = {"objective": "gspo(clip_low=0.1,clip_high=0.1)"}
EQUAL_BUDGET = Tuning((16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0), final("exact/return"))

CLOSED_SAPO = "sapo(tau_pos=1000.0,tau_neg=1000.0)"
CLOSED_GATE = Falsifier(
    "SAPO's gate is closed at the smallest deviation: τ = 1000 for both signs.",
    {"sapo": {"objective": CLOSED_SAPO}},
)

SHARED: dict[str, Any] = {
    "env": "ModularSum-v1(prompts=2,length=4,vocabulary=4)",
    "model": "transformer(layers=1,width=16,pretraining=100)",
    "steps": 60,
    "learning_rate": 0.2,
    "group_size": 16,
    "epochs": 1,
    "minibatches": 4,
    "advantage": "group_standardised",
    "metrics_every": 4,
}

SHARED_SCOPE = (
    "A transformer with one layer of width 16 on modular sum with four tokens; one pass over each rollout in four "
    "mini-batches, as in the paper."
)

SHARED_BUDGET = Tuning((0.2, 0.4, 0.8, 1.6, 3.2), final("exact/return"))
EXPERTS = "layers=1,width=16,pretraining=100,experts=8,active=1"
ROUTED = SHARED | {"model": f"moe({EXPERTS})", "mismatch": "router(scale=1.0)", "steps": 40}

ROUTED_SCOPE = (
    "A transformer block whose feed-forward part is one of eight experts, on modular sum with four tokens; four "
    "mini-batches per rollout, learning rate 0.2; the sampler's router is off by noise of standard deviation 1."
)
