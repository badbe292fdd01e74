"""The numbered statements of BAPO (Xi et al., arXiv 2510.18927v1; B6 and B9 from a later version, by third parties)."""

from __future__ import annotations

from analysis.judging.settings import MODULAR_SUM

PAPER = "BAPO"
CITATION = "Xi et al., arXiv 2510.18927v1"
SCOPE = "Tabular policy on modular sum, learning rate 16, four passes over each rollout."

LONG_SCOPE = (
    "Tabular policy on VariableLength-v1, wrong responses about twice as long as right ones, learning rate 16, four "
    "passes over each rollout, token mean."
)

AT_90 = "Entropy of a response where the exact return first reaches 0.9."
PPO = {"objective": "ppo"}
GRPO = {"objective": "grpo(reduction=token_mean)"}
LONGER_WHEN_WRONG = MODULAR_SUM | {"env": "VariableLength-v1", "steps": 40}

FINETUNE = (
    "`testbed finetune` with `qwen2.5-1.5b-math.yaml` and `objective: bapo` against `grpo` and `dapo`, the same "
    "`reduction`, each objective's learning rate chosen from one grid."
)

SMALLEST = "Smallest honest version: `qwen2.5-0.5b-gsm8k.yaml`, 200 steps, five seeds an arm, avg@32 with an interval."


def bapo(**changes: object) -> dict[str, str]:
    """An arm: BAPO by token mean, with these hyper-parameters."""
    written = "".join(f",{name}={value}" for name, value in changes.items())
    return {"objective": f"bapo(reduction=token_mean{written})"}
