"""The numbered statements of ERC (Su et al., arXiv 2512.05591); its figures are known from third parties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.judging.claim import Falsifier
from analysis.judging.estimands import roughness
from analysis.judging.settings import MODULAR_SUM

PAPER = "ERC"
CITATION = "Su et al., arXiv 2512.05591"
PEAKED = MODULAR_SUM | {"env": "ModularSum-v1(initial=peaked)"}
PEAKED_NULL = {"env": "NullBandit-v1(initial=peaked)"}
PEAKED_SCOPE = "Tabular policy on modular sum, every state starting with one token of probability 0.9"
UNMASKED = "erc(beta_low=0.999,beta_high=1000.0)"
UNMASKED_GPPO = "erc(base=gppo,beta_low=0.999,beta_high=1000.0)"
Arms = Mapping[str, Mapping[str, Any]]
"""Arms of a claim: name to arguments of `simulate`."""
NO_BAND = Falsifier("The band is opened so far that nothing is ever masked.", {"erc": {"objective": UNMASKED}})
ARMS = {"erc": {"objective": "erc"}, "dapo": {"objective": "dapo"}}
GPPO_ARMS = {"erc": {"objective": "erc(base=gppo)"}, "gppo": {"objective": "gppo"}}

NO_BAND_GPPO = Falsifier(NO_BAND.description, {"erc": {"objective": UNMASKED_GPPO}})

ACTS = (("erc", "erc/masked_fraction"),)

# At these learning rates ERC's mean divergence per rollout is that of its base at 16: 0.0072 and 0.0070 nats on DAPO,
# 0.0119 on GPPO, found on seeds that judge nothing. Without it every comparison is one of step sizes.
SAME_MOVEMENT = {"learning_rate": 36.0}

SAME_MOVEMENT_GPPO = {"learning_rate": 54.0}

SAME_MOVEMENT_SCOPE = (
    f"{PEAKED_SCOPE}. ERC at learning rate 36, where its divergence per rollout is on average that of its base at 16."
)

ROUGHNESS_SCOPE = (
    "Roughness is the standard deviation of the curve's second difference, which a steady decline does not have."
)

ENTROPY_ROUGHNESS = roughness("exact/token_entropy")

FINETUNE = (
    "`testbed finetune` with `qwen2.5-1.5b-math.yaml` and `objective: {erc}` against `{base}`, several updates a "
    "rollout, 8 responses a prompt, and each objective's learning rate chosen from one grid. Smallest honest version: "
    "`qwen2.5-0.5b-gsm8k.yaml`, 200 steps, five seeds an arm, avg@32 with an interval."
)
