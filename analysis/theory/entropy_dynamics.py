"""How one update moves the entropy of a softmax policy: the gated covariance rule and the exact sign threshold.

**Gradient.** With H = -Σ π log π, u_a = log π_a + H and ∂π_j/∂z_k = π_j (1[j=k] - π_k),

    ∂H/∂z_k = -Σ_j (log π_j + 1) π_j (1[j=k] - π_k) = -π_k (log π_k + H) = -π_k u_k,     Σ_k π_k u_k = 0

**Population form.** Actions are drawn from the old policy q and weighted by F·A = r X A. Summing over
actions,

    dz_k/dt = Σ_a q_a r_a X_a A_a (1[a=k] - π_k) = π_k x_k - π_k Σ_a π_a x_a,     x = X·A
    dH/dt   = Σ_k (-π_k u_k) dz_k/dt = -Σ_k φ_k π_k x_k = -Cov_π(φ, x),           φ_a = π_a u_a

where Σ π u = 0 removes the second term up to E[φ]E[x], which is what makes it a covariance. Without a gate a
baseline cancels on its own, as the logit step is then centred; with a gate, X·(A - b) ≠ X·A - b, so the
baseline matters.

**One sampled token.** The step η w (e_a - π) moves the entropy by

    dH_a = -η w (φ_a - κ),    κ = Σ_k π_k φ_k = Cov_π(π, log π) ≥ 0

so a positive weight raises H iff φ_a < κ. The function p (log p + H) is negative below e^{-H} and increasing
above e^{-H-1}, hence it crosses κ ≥ 0 once, and solving p (log p + H) = κ with s = log p + H, s e^s = κ e^H,
gives

    p* = exp(W₀(κ e^H) - H) ≥ e^{-H}     (Lambert's W)

"Surprisal above the entropy", p < e^{-H}, is therefore sufficient but not necessary; it is exact for a logit
step of the one-hot form e_a only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import lambertw, log_softmax

from analysis.theory._prediction import Prediction, register
from analysis.theory.gradient_weights import Tokens, autograd_update, gradient_weight
from testbed.objectives import Objective, make_objective, objective_names

__all__ = [
    "BanditState",
    "entropy",
    "entropy_gradient",
    "entropy_rate",
    "finite_step_order",
    "gated_advantages",
    "naive_threshold",
    "raises_entropy",
    "raising_threshold",
    "random_state",
    "sampled_entropy_change",
]

FloatArray = NDArray[np.float64]


def entropy(logits: ArrayLike) -> FloatArray:
    """H = -Σ π log π in nats; logits `(..., K)`, result `(...,)`.

    >>> round(float(entropy([0.0, 0.0])), 6)
    0.693147
    """
    log_policy = log_softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    return np.asarray(-(np.exp(log_policy) * log_policy).sum(-1))


def entropy_gradient(logits: ArrayLike) -> FloatArray:
    """∂H/∂z = -π (log π + H), `(..., K)`, in nats per unit of logit; it sums to 0.

    >>> entropy_gradient(np.log([0.8, 0.2])).round(6).tolist()  # -0.8 (ln 0.8 + 0.500402), and its opposite
    [-0.221807, 0.221807]
    """
    log_policy = log_softmax(np.asarray(logits, dtype=np.float64), axis=-1)
    return np.asarray(-np.exp(log_policy) * (log_policy + entropy(logits)[..., None]))


def entropy_rate(logits: ArrayLike, gated_advantage: ArrayLike) -> FloatArray:
    """dH/dt = -Cov_π(π (log π + H), X·A): entropy change per unit of learning rate, in nats.

    Args:
        logits: `(..., K)`, current policy.
        gated_advantage: `(..., K)`, x = X·A of every action: its advantage times its gate X = F/r.

    >>> round(float(entropy_rate(np.log([0.8, 0.2]), [1.0, 0.0])), 6)  # φ = ±0.221807: -0.8 φ + 0.8 (0.6 φ)
    -0.070978
    """
    policy = np.exp(log_softmax(np.asarray(logits, dtype=np.float64), axis=-1))
    phi, gated = -entropy_gradient(logits), np.asarray(gated_advantage, dtype=np.float64)
    centred = gated - (policy * gated).sum(-1, keepdims=True)
    return np.asarray(-(policy * phi * centred).sum(-1))


def sampled_entropy_change(logits: ArrayLike) -> FloatArray:
    """κ - φ_a `(..., K)`: change of H per unit of η·w if action a alone is sampled, to first order.

    >>> sampled_entropy_change(np.log([0.5, 0.5])).round(6).tolist()
    [0.0, 0.0]
    """
    policy = np.exp(log_softmax(np.asarray(logits, dtype=np.float64), axis=-1))
    phi = -entropy_gradient(logits)
    return np.asarray((policy * phi).sum(-1, keepdims=True) - phi)


def raising_threshold(logits: ArrayLike) -> FloatArray:
    """p* = exp(W₀(κ e^H) - H), `(...,)`: sampled with A > 0, exactly the tokens below it raise the entropy.

    >>> float(raising_threshold(np.zeros(4)))  # uniform: every token sits on it
    0.25
    """
    policy = np.exp(log_softmax(np.asarray(logits, dtype=np.float64), axis=-1))
    entropies = entropy(logits)
    # Rounding can make κ of a uniform policy slightly negative; W₀ is steep there only below -1/e.
    kappa = (policy * -entropy_gradient(logits)).sum(-1)
    return np.asarray(np.exp(lambertw(kappa * np.exp(entropies)).real - entropies))


def naive_threshold(logits: ArrayLike) -> FloatArray:
    """e^{-H}, `(...,)`: the "surprisal above entropy" rule, a lower bound of `raising_threshold`.

    >>> float(naive_threshold(np.zeros(4)))
    0.25
    """
    return np.asarray(np.exp(-entropy(logits)))


def raises_entropy(logits: ArrayLike, advantages: ArrayLike) -> NDArray[np.bool_]:
    """Whether sampling each action raises H to first order: A > 0 below p*, A < 0 above it; `(..., K)`.

    >>> raises_entropy(np.log([0.9, 0.1]), [1.0, 1.0]).tolist()
    [False, True]
    """
    policy = np.exp(log_softmax(np.asarray(logits, dtype=np.float64), axis=-1))
    below = policy < raising_threshold(logits)[..., None]
    sign = np.asarray(advantages)
    return np.where(sign > 0, below, (sign < 0) & ~below)


# -- the same through a shipped objective --------------------------------------------------------------------


class BanditState:
    """A K-armed bandit between two updates: old and current logits, and an advantage per arm.

    It is also one batch of K responses of one token, response a being arm a with advantage q_a·A_a, so that a
    plain sum over the batch is the expectation over arms drawn from q.
    """

    def __init__(self, old_logits: ArrayLike, logits: ArrayLike, advantages: ArrayLike) -> None:
        self.logits = np.asarray(logits, dtype=np.float64)
        self.old_log_policy = log_softmax(np.asarray(old_logits, dtype=np.float64))
        self.advantages = np.asarray(advantages, dtype=np.float64)
        self.old_entropy = float(entropy(self.old_log_policy))

    def tokens(self) -> Tokens:
        """The batch, `(K, 1)`."""
        column = np.ones((self.logits.size, 1))
        return Tokens(
            log_probs=log_softmax(self.logits)[:, None],
            old_log_probs=self.old_log_policy[:, None],
            advantages=(np.exp(self.old_log_policy) * self.advantages)[:, None],
            mask=column.astype(bool),
            entropies=column * float(entropy(self.logits)),
            old_entropies=column * self.old_entropy,
        )

    def logit_step(self, objective: str | Objective) -> FloatArray:
        """Expected dz `(K,)` per unit of learning rate: autograd through the shipped loss and the softmax."""
        settings = make_objective(objective)
        weights = torch.tensor(autograd_update(settings, self.tokens())[:, 0])
        # A mean over K one-token responses; DCPO's reduction is a sum.
        weights = weights * (1 if settings.reduction == "seq_sum_token_mean" else self.logits.size)
        logits = torch.tensor(self.logits, requires_grad=True)
        (step,) = torch.autograd.grad((weights * torch.log_softmax(logits, 0)).sum(), logits)
        return step.numpy()


def gated_advantages(objective: str | Objective, state: BanditState) -> FloatArray:
    """Gated advantage x = X·A of every arm `(K,)`, with the gate X = F/r from the closed-form weight of the objective.

    >>> state = BanditState([0.0, 0.0], [0.0, 0.0], [1.0, -1.0])
    >>> gated_advantages("ppo", state).tolist()
    [1.0, -1.0]
    """
    tokens = state.tokens()
    return (gradient_weight(objective, tokens) / tokens.ratio)[:, 0] * state.advantages


def random_state(seed: int, arms: int = 50, drift: float = 0.3) -> BanditState:
    """A bandit whose current policy has drifted from the old one, so that gates are partly shut.

    Args:
        seed: of the generator.
        arms: K.
        drift: standard deviation of the logit change since sampling.

    >>> random_state(0, arms=3).logits.shape
    (3,)
    """
    generator = np.random.default_rng(seed)
    old = 1.5 * generator.normal(size=arms)
    return BanditState(old, old + drift * generator.normal(size=arms), generator.normal(size=arms))


def finite_step_order(objective: str | Objective, steps: Sequence[float] = (1e-2, 1e-3, 1e-4), seed: int = 0) -> float:
    """Slope of log |(H(z + η dz) - H(z))/η - dH/dt| over log η: 1 if the rate is right.

    The direction dz is that of the state itself, so no gate changes within a step.

    Args:
        objective: any objective.
        steps: learning rates η, in descending order.
        seed: of the random state.
    """
    state = random_state(seed)
    step = state.logit_step(objective)
    rate = float(entropy_rate(state.logits, gated_advantages(objective, state)))
    start = float(entropy(state.logits))
    errors = [abs((float(entropy(state.logits + eta * step)) - start) / eta - rate) for eta in steps]
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


# -- predictions ---------------------------------------------------------------------------------------------

# GSPO at a clip of a token objective's size; at its own every drifted arm would be clipped.
_GATED = (
    "reinforce",
    "ppo",
    "dapo",
    "gppo",
    "ce_gppo",
    "dcpo",
    "bapo",
    "sapo",
    "erc",
    "gspo(clip_low=0.2,clip_high=0.2)",
)
_SEEDS = range(10)
_DRIFTS = (0.02, 0.3, 1.0)


def _gated() -> list[str]:
    return [name for name in _GATED if name.partition("(")[0] in objective_names()]


def _states() -> list[BanditState]:
    return [random_state(seed, drift=drift) for seed in _SEEDS for drift in _DRIFTS]


def _autograd_rate(objective: str, state: BanditState) -> float:
    logits = torch.tensor(state.logits, requires_grad=True)
    log_policy = torch.log_softmax(logits, 0)
    (gradient,) = torch.autograd.grad(-(log_policy.exp() * log_policy).sum(), logits)
    return float(gradient.numpy() @ state.logit_step(objective))


def _policies() -> list[FloatArray]:
    """Spread and peaked logits over four sizes; the threshold is compared on every token of every one."""
    generator = np.random.default_rng(4)
    return [
        scale * generator.normal(size=arms)
        for arms in (3, 10, 100, 1000)
        for scale in (0.5, 1.0, 2.0, 3.0)
        for _ in range(20)
    ]


def _directional_signs(logits: FloatArray) -> NDArray[np.bool_]:
    """Whether H rises along e_a - π for every a, from the autograd Jacobian of the entropy."""
    point = torch.tensor(logits, requires_grad=True)
    log_policy = torch.log_softmax(point, 0)
    (gradient,) = torch.autograd.grad(-(log_policy.exp() * log_policy).sum(), point)
    directions = torch.eye(logits.size, dtype=torch.float64) - log_policy.exp().detach()
    return (directions @ gradient > 0).numpy()


register(
    Prediction(
        id="T3",
        name="entropy-rate",
        statement="Every gated objective moves the entropy at the rate -Cov(π(log π + H), X·A).",
        route="autograd of the shipped loss through the softmax, times autograd of the entropy",
        unit="nats per unit of learning rate",
        tolerance=1e-14,
        predict=lambda: [
            [float(entropy_rate(state.logits, gated_advantages(name, state))) for state in _states()]
            for name in _gated()
        ],
        measure=lambda: [[_autograd_rate(name, state) for state in _states()] for name in _gated()],
    )
)
register(
    Prediction(
        id="T3",
        name="entropy-rate-order",
        statement="A finite step departs from the entropy rate in first order of the learning rate.",
        route="finite steps of three sizes along the shipped gradient, slope of the error on log-log axes",
        unit="order",
        # The next term of the expansion contributes up to a few per cent at the largest step.
        tolerance=0.05,
        predict=lambda: np.ones(len(_gated())),
        measure=lambda: [finite_step_order(name) for name in _gated()],
    )
)
register(
    Prediction(
        id="T4",
        name="raising-threshold",
        statement="Sampled with A > 0, exactly the tokens below p* = exp(W(κ e^H) - H) raise the entropy.",
        route="sign of the autograd directional derivative of H, for every token of 320 policies",
        unit="tokens that disagree",
        tolerance=0.0,
        predict=lambda: np.zeros(4),
        measure=lambda: [
            sum(
                int((raises_entropy(z, np.ones(z.size)) != _directional_signs(z)).sum())
                for z in _policies()
                if z.size == arms
            )
            for arms in (3, 10, 100, 1000)
        ],
    )
)
