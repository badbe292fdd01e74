"""Objectives inside TRL: `ObjectiveTrainer` is its `GRPOTrainer` with loss, advantages and selection from this project.

`trainer` says which of TRL's methods do something else here; what they do instead is an object each: `prompts` (reading
and numbering), `rounds` (sampling until groups are informative, advantages), `step` (one optimiser step: counts, loss,
refusal), `checkpoint`, `metrics`, `head` (log-probabilities without logits), `shared_prefixes` (a prompt run once for
all of its responses), `routing` (mixtures of experts), `settings` (what contradicts what), `recording` (every update
written down; `RecordCallback` for TRL's own losses).
"""

from __future__ import annotations

from testbed.engines.trl.recording import RecordCallback
from testbed.engines.trl.rewards import overlong_reward
from testbed.engines.trl.settings import check_settings
from testbed.engines.trl.trainer import ObjectiveTrainer

__all__ = ["ObjectiveTrainer", "RecordCallback", "check_settings", "overlong_reward"]
