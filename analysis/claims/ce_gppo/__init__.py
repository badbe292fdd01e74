"""The numbered statements of CE-GPPO (Su et al., arXiv 2509.20712v5): gradients kept at the bounds steer entropy."""

from __future__ import annotations

from analysis.judging.settings import MODULAR_SUM

PAPER = "CE-GPPO"
CITATION = "Su et al., arXiv 2509.20712v5"
SCOPE = "Tabular policy on modular sum, learning rate 16, four passes over each rollout."

BOTH, NO_BETA1, NO_BETA2 = (
    "ce_gppo(beta1=1.0,beta2=1.0)",
    "ce_gppo(beta1=0.0,beta2=1.0)",
    "ce_gppo(beta1=1.0,beta2=0.0)",
)

PPO = {"objective": "ppo"}
RARE_ARM = MODULAR_SUM | {"env": "RareArm-v1", "steps": 100}

FINETUNE = (
    "`testbed finetune` with `qwen2.5-1.5b-math.yaml` and `objective: ce_gppo(beta1=0.5,beta2=1.0)` against `dapo` and "
    "`grpo`, several updates a rollout, each objective's learning rate chosen from one grid."
)

SMALLEST = "Smallest honest version: `qwen2.5-0.5b-gsm8k.yaml`, 200 steps, five seeds an arm, avg@32 with an interval."


def betas(below: float, above: float) -> dict[str, str]:
    """An arm with these (β₁, β₂)."""
    return {"objective": f"ce_gppo(beta1={below},beta2={above})"}
