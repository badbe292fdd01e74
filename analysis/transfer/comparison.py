"""What is compared: a toy claim beside the same claim about a language model, and how large that model is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from analysis.claims import StatisticalClaim
from testbed.errors import ConfigError
from testbed.finetune import EvaluationSettings, FinetuneSettings, TaskSettings, WarmStartSettings
from testbed.objectives import make_objective

__all__ = ["Arm", "LanguageModelClaim", "Scale", "TransferClaim"]

WARM_UP = 8
"""Optimiser steps over which the learning rate rises to its value."""
Family = Literal["dense", "experts"]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Models and task of the language-model side. One for each kind of device: what fits it is what it is asked."""

    device: Literal["cpu", "cuda"]
    """Where it runs."""
    models: Mapping[Family, str]
    """A dense model and a mixture of experts, of `models.causal_lm.SIZES`."""
    warm_starts: Mapping[Family, WarmStartSettings]
    """How each learns the task before reinforcement learning."""
    learning_rates: Mapping[Family, float]
    """Adam's learning rate of an arm with `rate` 1."""
    train: TaskSettings
    """Problems learned from."""
    test: TaskSettings
    """Problems the success before and after is measured on."""
    responses: int
    """Responses per optimiser step."""
    length: int
    """Most tokens of a response."""
    group_size: int = 8
    """Responses per prompt."""
    samples: int = 8
    """Responses per problem of the evaluations."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One training of a language model; the fields are what a claim's setting and arms may say."""

    objective: str
    """An objective of this project."""
    model: Family = "dense"
    """Which of the scale's models."""
    updates: int = 48
    """Optimiser steps."""
    passes: int = 4
    """Passes over each rollout."""
    minibatches: int = 1
    """Optimiser steps per pass, each on responses of its own."""
    share: float = 1.0
    """Responses per optimiser step, in units of the scale's."""
    rate: float = 1.0
    """Learning rate, in units of the scale's."""
    advantage: str | None = "group_standardised"
    """Advantage estimator; `None`: the objective's own."""

    def __post_init__(self) -> None:
        if self.updates % (self.passes * self.minibatches):
            raise ConfigError(
                f"{self.updates} updates are no whole number of rollouts of {self.passes} passes with "
                f"{self.minibatches} mini-batches"
            )

    @property
    def updates_per_rollout(self) -> int:
        """How many optimiser steps one rollout serves."""
        return self.passes * self.minibatches

    def settings(self, scale: Scale, seed: int) -> FinetuneSettings:
        """The fine-tuning run of this arm."""
        return FinetuneSettings(
            model=scale.models[self.model],
            train=scale.train,
            test=scale.test,
            objective=self.objective,
            advantage=self.advantage,
            warm_start=scale.warm_starts[self.model],
            evaluation=EvaluationSettings(samples=scale.samples),
            seed=seed,
            device=scale.device,
            trainer={
                "max_steps": self.updates,
                "per_device_train_batch_size": round(self.share * scale.responses),
                "steps_per_generation": self.minibatches,
                "num_iterations": self.passes,
                "num_generations": scale.group_size,
                "max_completion_length": scale.length,
                "learning_rate": self.rate * scale.learning_rates[self.model],
                # Adam's first steps are as large as its later ones however small the gradient.
                "lr_scheduler_type": "constant_with_warmup",
                "warmup_steps": WARM_UP,
                "bf16": False,
                "save_strategy": "no",
                # The load-balancing loss is off, so that nothing but the objective moves the weights.
                "router_aux_loss_coef": 0.0,
            },
        )


@dataclass(frozen=True, kw_only=True)
class LanguageModelClaim(StatisticalClaim):
    """A statement about expectations over seeds of a language model; everything but the trainer is as in a toy claim.

    `setting` and the arms hold fields of `Arm`. A seed decides the initial weights, the warm start, the order of the
    problems and all sampling, so that arms are paired by it as far as their policies agree.
    """

    level: float = 0.90
    """Less than a toy claim asks for: a seed costs minutes."""

    def check_experiment(self) -> None:
        """Refuse an arm that is none of `Arm`, or whose objective does not exist."""
        for arm in (*self.arms.values(), *self.falsifier.arms.values()):
            make_objective(self.arm(arm).objective)

    def arm(self, changes: Mapping[str, Any]) -> Arm:
        """The training of an arm."""
        try:
            return Arm(**{**self.setting, **changes})
        except TypeError as error:
            raise ConfigError(f"{error}; an arm has the fields of Arm") from error


@dataclass(frozen=True, kw_only=True)
class TransferClaim:
    """A toy claim and the same claim about a language model."""

    name: str
    """A few words without spaces, for the command line."""
    toy: str | StatisticalClaim
    """The id of a registered claim, or a claim made for this comparison."""
    language_model: LanguageModelClaim
    """The other side."""
    difference: str
    """What differs between the two sides beside the model, which any disagreement may be due to."""
