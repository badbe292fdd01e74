"""TRL's classes, or `object` in their place: tools that import every module to read it work without TRL."""

from __future__ import annotations

from testbed.errors import ConfigError

try:
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer
    from trl.trainer.utils import FusedCausalLMOutput, RepeatSampler
except ModuleNotFoundError as error:
    if error.name not in ("trl", "transformers"):
        raise
    GRPOConfig = GRPOTrainer = FusedCausalLMOutput = RepeatSampler = object
    TrainerCallback = object  # type: ignore[assignment,misc]

__all__ = ["FusedCausalLMOutput", "GRPOConfig", "GRPOTrainer", "RepeatSampler", "TrainerCallback", "require_trl"]


def require_trl() -> None:
    """Say what to install where training cannot work.

    Raises:
        ConfigError: TRL is not there, or transformers is too old.
    """
    if GRPOTrainer is object:
        raise ConfigError("TRL is not installed; install this package with its llm extra, or trl==1.16.*")
    if not hasattr(GRPOTrainer, "_get_grad_norm"):
        raise ConfigError(
            "this release of transformers offers no place to refuse a bad step before it reaches the weights; "
            "install transformers 5.23 or newer"
        )
