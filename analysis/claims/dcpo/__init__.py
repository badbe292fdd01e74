"""The numbered statements of DCPO (Yang et al., arXiv 2509.02333v2): adaptive bounds, smooth advantages, token mean."""

from __future__ import annotations

from analysis.judging.claim import Falsifier

PAPER = "DCPO"
CITATION = "Yang et al., arXiv 2509.02333v2"
GRPO, DCPO = "grpo(reduction=token_mean)", "dcpo(reduction=token_mean)"

CAPPED_DCPO = "dcpo(reduction=token_mean,ratio_max=1.05)"
CAPPED = Falsifier(
    "The cap on the upper bound is lowered to 1.05, which takes away the room that rare tokens are given.",
    {"dcpo": {"objective": CAPPED_DCPO}},
)

FINETUNE = (
    "`testbed finetune` with `qwen2.5-1.5b-math.yaml` and `objective: dcpo` against `grpo` and `dapo`, the same "
    "`reduction`, 8 responses a prompt, and each objective's learning rate chosen from one grid."
)

SMALLEST = "Smallest honest version: `qwen2.5-0.5b-gsm8k.yaml`, 200 steps, five seeds an arm, avg@32 with an interval."

MECHANISM = (
    "The scores themselves need the paper's models and data; the claims judge the mechanism behind them, the reach for "
    "rare tokens."
)
