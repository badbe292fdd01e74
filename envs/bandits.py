"""One-token environments: a prompt is a context, a token is an arm, and the reward comes at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from envs.automaton import TERMINAL, Automaton, RewardKind, Tables, check_size
from envs.catalogue import Environment, choice, environment, real, whole
from envs.starting_policy import STARTING_POLICIES, StartingPolicy
from testbed.errors import shown

__all__ = ["DifficultyMixture", "MultiCorrectBandit", "NeedleBandit", "NullBandit", "RareArm"]

NOISY_REWARDS = ("bernoulli", "gaussian")
REWARDS = ("bernoulli", "gaussian", "deterministic")


@dataclass(frozen=True, kw_only=True)
class _Bandit(Environment, ABC):
    """A contextual bandit: contexts are states, and every transition ends the episode."""

    longest: ClassVar[int] = 1

    arms: int = whole(100, low=2)
    """Number of arms K."""
    contexts: int = whole(16, low=1)
    """Number of contexts, each a prompt with its own arms."""
    reward: str = choice("deterministic", REWARDS)
    """How a reward scatters around its expectation."""
    noise: float = real(1.0, low=0.0)
    """Standard deviation of a `gaussian` reward."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(
            f"{self.name}: contexts is {shown(self.contexts)} and arms is {shown(self.arms)}",
            self.contexts * self.arms,
            "one of them",
        )
        if self.reward == "bernoulli":
            for parameter in self.reward_parameters():
                if not 0 <= getattr(self, parameter) <= 1:
                    raise self.refuse(
                        parameter, "a probability, because the reward is bernoulli; or choose reward='gaussian'"
                    )

    @abstractmethod
    def reward_parameters(self) -> tuple[str, ...]:
        """Parameters that are themselves the expected reward of some arm."""

    def automaton(self) -> Automaton:
        return self.assemble(
            torch.full((self.contexts, self.arms), TERMINAL),
            torch.arange(self.contexts),
            reward_kind=cast(RewardKind, self.reward),
            reward_scale=self.noise if self.reward == "gaussian" else 0.0,
        )

    def one_arm_each(self, generator: np.random.Generator) -> Tensor:
        """One random arm per context, as a mask: bool `(contexts, arms)`."""
        chosen = generator.integers(self.arms, size=(self.contexts, 1))
        return torch.from_numpy(np.arange(self.arms) == chosen)


@environment("NullBandit-v1")
@dataclass(frozen=True, kw_only=True)
class NullBandit(_Bandit, StartingPolicy):
    """A bandit in which nothing can be learnt: every arm pays the same coin.

    ## Description
    Each context has its own arms and starting policy; the reward is independent of both. The control of every
    statement about entropy: whatever a learner does here is not learning.

    ## Action Space
    `Discrete(arms)`: the arm.

    ## Observation Space
    `Discrete(contexts + 1)`: the context; the last value means the episode is over.

    ## Starting State
    A context, uniformly, or `reset(options={"prompt": i})`.

    ## Reward
    Bernoulli(1/2), or Normal(1/2, noise²), whatever the arm.

    ## Episode End
    After one token.

    ## Information
    `prompt` on reset; `success` with the reward: a coin of probability 1/2, the reward itself if Bernoulli.

    ## Exact Solution
    Every policy has value 1/2 and gradient 0. The most random optimum is uniform, H* = log arms.

    ## What It Is Built to Reveal
    Entropy that moves without signal: neutral drift (down from spread policies, up from peaked ones) and the
    asymmetry of clip bounds under noise.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    contexts: int = whole(8, low=1)
    """Number of contexts, each a prompt with its own arms."""
    reward: str = choice("bernoulli", NOISY_REWARDS)
    """How a reward scatters around 1/2; without scatter there would be no advantage at all."""
    noise: float = real(0.5, low=0.0)
    """Standard deviation of a `gaussian` reward; 0.5 is that of the coin."""
    initial: str = choice("zipf", STARTING_POLICIES)
    """Starting policy, see `StartingPolicy`."""

    def reward_parameters(self) -> tuple[str, ...]:
        return ()

    def draw_tables(self, generator: np.random.Generator) -> Tables:
        half = torch.full((self.contexts, self.arms), 0.5, dtype=torch.float64)
        return Tables(half, half, self.draw_initial_logits(generator, self.contexts, self.arms))


@environment("NeedleBandit-v1")
@dataclass(frozen=True, kw_only=True)
class NeedleBandit(_Bandit):
    """One good arm among equals, so that the whole learning curve has a closed form.

    ## Description
    In each context one random arm, the needle, pays `gap` more than the others. All other arms are equal in reward
    and in initial logit, except for the decoys: arms that pay a little more than the rest and may start likelier.

    ## Action Space
    `Discrete(arms)`: the arm.

    ## Observation Space
    `Discrete(contexts + 1)`: the context; the last value means the episode is over.

    ## Starting State
    A context, uniformly, or `reset(options={"prompt": i})`.

    ## Reward
    Expectation `base + gap` for the needle, `base + decoy_gap` for a decoy, `base` for the rest.

    ## Episode End
    After one token.

    ## Information
    `prompt` on reset; `success` with the reward: whether the arm is the needle.

    ## Exact Solution
    The optimum pulls the needle: value `base + gap`, H* = 0. Without decoys the gradient flow of the exact policy
    gradient moves only d = z_needle - z_other, with K arms and gap D by d' = K D e^d / (e^d + K - 1)², hence

        e^d + 2(K-1) d - (K-1)² e^(-d) = const + K D t.

    ## What It Is Built to Reveal
    The plateau of softmax policy gradients and its escape time, about (K-1)/(K p₀ D), against which any loop can
    be regression-tested; with decoys, lock-in on the second best.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    small: ClassVar[dict[str, Any]] = {"arms": 6, "contexts": 3, "decoys": 2, "decoy_gap": 0.25, "decoy_logit": 1.0}

    contexts: int = whole(8, low=1)
    """Number of contexts, each a prompt with its own needle."""
    reward: str = choice("bernoulli", REWARDS)
    """How a reward scatters around its expectation."""
    base: float = real(0.25)
    """Expected reward of an ordinary arm."""
    gap: float = real(0.5, low=0.0, exclusive=True)
    """Advantage D of the needle over an ordinary arm."""
    needle_logit: float = real(0.0)
    """Initial logit of the needle minus that of an ordinary arm, d(0)."""
    decoys: int = whole(0, low=0)
    """Number of decoys in each context."""
    decoy_gap: float = real(0.0, low=0.0)
    """Advantage of a decoy over an ordinary arm, less than `gap`."""
    decoy_logit: float = real(0.0)
    """Initial logit of a decoy minus that of an ordinary arm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoys >= self.arms:
            raise self.refuse("decoys", f"fewer than the {self.arms} arms, one of which is the needle")
        if self.decoy_gap >= self.gap:
            raise self.refuse("decoy_gap", f"less than the needle's gap of {self.gap}")
        if self.reward == "bernoulli" and self.base + self.gap > 1:
            raise self.refuse("gap", f"base + gap of at most 1 for a bernoulli reward; base is {self.base}")

    def reward_parameters(self) -> tuple[str, ...]:
        return ("base",)

    def draw_tables(self, generator: np.random.Generator) -> Tables:
        # A random order of the arms: the needle first, then the decoys, then the rest.
        order = torch.from_numpy(generator.permuted(np.tile(np.arange(self.arms), (self.contexts, 1)), axis=1))
        needle, decoy = order == 0, (order > 0) & (order <= self.decoys)
        rewards = self.base + self.gap * needle.double() + self.decoy_gap * decoy.double()
        logits = self.needle_logit * needle.double() + self.decoy_logit * decoy.double()
        return Tables(rewards, needle.double(), logits)


@environment("MultiCorrectBandit-v1")
@dataclass(frozen=True, kw_only=True)
class MultiCorrectBandit(_Bandit, StartingPolicy):
    """Several arms are right, and a good learner need not choose between them.

    ## Description
    In each context a random share of the arms is correct; which ones differs from seed to seed.

    ## Action Space
    `Discrete(arms)`: the arm.

    ## Observation Space
    `Discrete(contexts + 1)`: the context; the last value means the episode is over.

    ## Starting State
    A context, uniformly, or `reset(options={"prompt": i})`.

    ## Reward
    Expectation `correct_reward` for a correct arm, `wrong_reward` for another.

    ## Episode End
    After one token.

    ## Information
    `prompt` on reset; `success` with the reward: whether the arm is correct.

    ## Exact Solution
    Value `correct_reward` for every policy that lives on the correct arms. The most random one is uniform over
    them: H* = log(number of correct arms).

    ## What It Is Built to Reveal
    Unnecessary loss of diversity: H* - H is the entropy a learner gave away without gaining reward.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    fraction: float = real(0.1, low=0.0, high=1.0, exclusive=True)
    """Share of the arms that are correct, rounded to a whole number of arms, at least one."""
    correct_reward: float = real(1.0)
    """Expected reward of a correct arm."""
    wrong_reward: float = real(0.0)
    """Expected reward of a wrong arm."""

    @property
    def correct_arms(self) -> int:
        """Number of correct arms in each context."""
        return max(1, round(self.fraction * self.arms))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.correct_arms >= self.arms:
            raise self.refuse("fraction", f"one that leaves at least one of the {self.arms} arms wrong")
        if self.wrong_reward >= self.correct_reward:
            raise self.refuse("wrong_reward", f"less than the correct_reward of {self.correct_reward}")

    def reward_parameters(self) -> tuple[str, ...]:
        return ("correct_reward", "wrong_reward")

    def draw_tables(self, generator: np.random.Generator) -> Tables:
        order = torch.from_numpy(generator.permuted(np.tile(np.arange(self.arms), (self.contexts, 1)), axis=1))
        correct = (order < self.correct_arms).double()
        rewards = self.wrong_reward + (self.correct_reward - self.wrong_reward) * correct
        return Tables(rewards, correct, self.draw_initial_logits(generator, self.contexts, self.arms))


@environment("RareArm-v1")
@dataclass(frozen=True, kw_only=True)
class RareArm(_Bandit, StartingPolicy):
    """The best arm is seldom tried: discovery against lock-in.

    ## Description
    In each context one random arm pays 1 but starts with a small probability; the others pay 0.2 now and then, enough
    to be reinforced by luck before the rare arm has been seen.

    ## Action Space
    `Discrete(arms)`: the arm.

    ## Observation Space
    `Discrete(contexts + 1)`: the context; the last value means the episode is over.

    ## Starting State
    A context, uniformly, or `reset(options={"prompt": i})`.

    ## Reward
    Expectation `rare_reward` for the rare arm, `common_reward` for the others.

    ## Episode End
    After one token.

    ## Information
    `prompt` on reset; `success` with the reward: whether the arm is the rare one.

    ## Exact Solution
    The optimum pulls the rare arm: value `rare_reward`, H* = 0. The starting policy has value
    `common_reward + (rare_reward - common_reward)·rare_probability`.

    ## What It Is Built to Reveal
    How fast an objective can raise a token of small probability once it is sampled (the upper clip bound decides), and
    whether it first commits to a common arm for good.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    reward: str = choice("bernoulli", REWARDS)
    """How a reward scatters around its expectation; without scatter nothing moves until the rare arm is drawn."""
    rare_probability: float = real(1e-2, low=0.0, high=1.0, exclusive=True)
    """Initial probability of the rare arm, q."""
    rare_reward: float = real(1.0)
    """Expected reward of the rare arm."""
    common_reward: float = real(0.2)
    """Expected reward of every other arm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.common_reward >= self.rare_reward:
            raise self.refuse("common_reward", f"less than the rare_reward of {self.rare_reward}")

    def reward_parameters(self) -> tuple[str, ...]:
        return ("rare_reward", "common_reward")

    def draw_tables(self, generator: np.random.Generator) -> Tables:
        rare = self.one_arm_each(generator)
        others = self.draw_initial_logits(generator, self.contexts, self.arms).masked_fill(rare, -np.inf)
        logits = np.log1p(-self.rare_probability) + others.log_softmax(-1)
        logits = logits.masked_fill(rare, float(np.log(self.rare_probability)))
        rewards = self.common_reward + (self.rare_reward - self.common_reward) * rare.double()
        return Tables(rewards, rare.double(), logits)


@environment("DifficultyMixture-v1")
@dataclass(frozen=True, kw_only=True)
class DifficultyMixture(_Bandit):
    """Prompts from hopeless to trivial: the initial success rate of each is drawn from Beta(a, b).

    ## Description
    Each prompt has one right arm. Its initial probability p is a draw from Beta(a, b), new for every prompt and seed;
    the wrong arms share the rest equally.

    ## Action Space
    `Discrete(arms)`: the arm.

    ## Observation Space
    `Discrete(contexts + 1)`: the prompt; the last value means the episode is over.

    ## Starting State
    A prompt, uniformly, or `reset(options={"prompt": i})`.

    ## Reward
    1 for the right arm, else 0.

    ## Episode End
    After one token.

    ## Information
    `prompt` on reset; `success` with the reward.

    ## Exact Solution
    Optimal value 1, H* = 0. Under the starting policy a group of G answers to a random prompt is all right or all
    wrong with probability [B(a+G, b) + B(a, b+G)] / B(a, b), B the beta function.

    ## What It Is Built to Reveal
    Groups without contrast: how much of a batch carries a gradient, what smoothing over visits adds, and what
    dynamic sampling costs.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    arms: int = whole(8, low=2)
    """Number of arms, one of them right."""
    contexts: int = whole(64, low=1)
    """Number of prompts."""
    a: float = real(0.5, low=0.0, exclusive=True)
    """First shape parameter of the Beta distribution; below 1 there are many hopeless prompts."""
    b: float = real(0.5, low=0.0, exclusive=True)
    """Second shape parameter; below 1 there are many trivial prompts."""

    def reward_parameters(self) -> tuple[str, ...]:
        return ()

    def draw_tables(self, generator: np.random.Generator) -> Tables:
        right = self.one_arm_each(generator)
        # Logits must be finite; a success rate this close to 0 or 1 is never told apart from it by sampling.
        rates = np.clip(generator.beta(self.a, self.b, size=(self.contexts, 1)), 1e-12, 1 - 1e-12)
        share = torch.from_numpy(np.log1p(-rates) - np.log(self.arms - 1)).expand(-1, self.arms)
        logits = torch.where(right, torch.from_numpy(np.log(rates)), share)
        return Tables(right.double(), right.double(), logits)
