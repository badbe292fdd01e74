"""Gradient flows of a bandit in closed form: the needle's escape, its regret, and the replicator equation.

**Gradients.** J = Σ π R has ∂J/∂z_k = π_k (R_k - J) = π_k A_k, and the Fisher matrix F = diag(π) - ππᵀ maps A
to πA, so the natural gradient is A up to a constant that softmax ignores. Along either flow J grows at the
rate

    vanilla  dJ/dt = Σ π² A²          natural  dJ/dt = Σ π A² = Var_π(R)

**Needle, vanilla flow.** One good arm with gap Δ, the other K-1 arms equal in reward and in initial logit.
They stay equal, so d = z_good - z_other is the whole state. With p = e^d/(e^d + K-1), z'_good = p·Δ(1-p) and
z'_other = -((1-p)/(K-1))·Δp,

    d' = Δ p (1-p) K/(K-1) = K Δ e^d/(e^d + K-1)²

which separates. Dividing and integrating (e^d + K-1)² e^{-d} = e^d + 2(K-1) + (K-1)² e^{-d},

    e^d + 2(K-1) d - (K-1)² e^{-d} = the same at t = 0 + K Δ t

with a left side that grows in d, so there is one root. For K = 2 it is d + sinh d = d₀ + sinh d₀ + Δ t.

**Regret.** ∫ Δ(1-p) dt = ∫ Δ(1-p)/d' dd, and Δ(1-p)/d' = ((K-1)/K)(1 + (K-1)e^{-d}), hence

    regret(t) = ((K-1)/K) [ d - d₀ + (K-1)(e^{-d₀} - e^{-d}) ]

The first part is logarithmic in t, the second is the price of escaping a small p₀, at most ((K-1)/K)/p₀,
whatever Δ. The time to escape is about ((K-1)/K)/(p₀ Δ), and Δ(1-p) falls like ((K-1)/K)/t afterwards.

**Natural flow.** z' = A gives π(t) ∝ π(0) e^{R t}, the replicator equation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from scipy.optimize.elementwise import find_root
from scipy.special import log_softmax, softmax

from analysis.theory._prediction import Prediction, register
from testbed.errors import ConfigError

__all__ = [
    "escape_time",
    "improvement_rate",
    "natural_improvement_rate",
    "needle_gap",
    "needle_probability",
    "needle_regret",
    "policy_gradient",
    "replicator",
]

FloatArray = NDArray[np.float64]


def policy_gradient(logits: ArrayLike, rewards: ArrayLike) -> FloatArray:
    """∂J/∂z = π (R - J), `(..., K)`, in reward per unit of logit.

    >>> policy_gradient([0.0, 0.0], [1.0, 0.0]).tolist()
    [0.25, -0.25]
    """
    policy, reward = softmax(np.asarray(logits, dtype=np.float64), axis=-1), np.asarray(rewards, dtype=np.float64)
    return np.asarray(policy * (reward - (policy * reward).sum(-1, keepdims=True)))


def improvement_rate(logits: ArrayLike, rewards: ArrayLike) -> FloatArray:
    """dJ/dt = Σ π² A² `(...,)` along the vanilla policy-gradient flow.

    >>> float(improvement_rate([0.0, 0.0], [1.0, 0.0]))
    0.125
    """
    return np.asarray((policy_gradient(logits, rewards) ** 2).sum(-1))


def natural_improvement_rate(logits: ArrayLike, rewards: ArrayLike) -> FloatArray:
    """dJ/dt = Var_π(R) `(...,)` along the natural policy-gradient flow.

    >>> float(natural_improvement_rate([0.0, 0.0], [1.0, 0.0]))
    0.25
    """
    policy, reward = softmax(np.asarray(logits, dtype=np.float64), axis=-1), np.asarray(rewards, dtype=np.float64)
    mean = (policy * reward).sum(-1, keepdims=True)
    return np.asarray((policy * (reward - mean) ** 2).sum(-1))


def needle_gap(times: ArrayLike, arms: int, advantage_gap: float, initial: float) -> FloatArray:
    """d(t) = z_good - z_other on the needle bandit, the root of e^d + 2(K-1)d - (K-1)²e^{-d} = const + KΔt.

    Args:
        times: any shape, ≥ 0, learning rate times number of exact-gradient steps.
        arms: K ≥ 2.
        advantage_gap: Δ > 0, reward of the good arm minus that of every other.
        initial: d₀, e.g. log((K-1) p₀/(1-p₀)).

    Raises:
        ConfigError: fewer than two arms, a gap that is not positive, or a negative time.

    >>> needle_gap([0.0], 2, 0.3, -3.0).tolist()
    [-3.0]
    """
    instants = np.asarray(times, dtype=np.float64)
    if arms < 2 or not advantage_gap > 0 or not (instants >= 0).all():
        raise ConfigError(
            f"arms {arms}, advantage_gap {advantage_gap}, times from {instants.min()}; expected at least 2 arms, a "
            "positive gap and times ≥ 0"
        )
    others = float(arms - 1)

    # expm1 keeps the difference from d₀ accurate where the terms themselves are large.
    def excess(d: FloatArray, right: FloatArray) -> FloatArray:
        grown = np.exp(initial) * np.expm1(d - initial)
        faded = others**2 * np.exp(-initial) * -np.expm1(initial - d)
        return grown + 2 * others * (d - initial) + faded - right

    right = arms * advantage_gap * instants
    # Two bounds on d': KΔ/(4(K-1)) by the inequality of means, and KΔe^{-d}.
    linear = initial + right / (4 * others)
    logarithmic = np.logaddexp(initial, np.log(np.maximum(right, 1e-300)))
    upper = np.minimum(linear, logarithmic) + 1e-9
    root = find_root(excess, (np.full_like(instants, initial), upper), args=(right,))
    return np.asarray(root.x)


def needle_probability(gap: ArrayLike, arms: int) -> FloatArray:
    """Probability of the good arm, p = 1/(1 + (K-1)e^{-d}); any shape.

    >>> float(needle_probability(0.0, 4))
    0.25
    """
    return np.asarray(1 / (1 + (arms - 1) * np.exp(-np.asarray(gap, dtype=np.float64))))


def needle_regret(times: ArrayLike, arms: int, advantage_gap: float, initial: float) -> FloatArray:
    """∫₀ᵗ Δ(1-p) ds = ((K-1)/K)[d - d₀ + (K-1)(e^{-d₀} - e^{-d})], in reward times time.

    Args: as `needle_gap`.

    >>> needle_regret([0.0], 2, 0.3, -3.0).tolist()
    [0.0]
    """
    gap = needle_gap(times, arms, advantage_gap, initial)
    escape = (arms - 1) * np.exp(-initial) * -np.expm1(initial - gap)
    return np.asarray((arms - 1) / arms * (gap - initial + escape))


def escape_time(initial_probability: float, arms: int, advantage_gap: float) -> float:
    """Time until d = log(K-1), where the good arm has probability one half, exactly.

    From the implicit solution with odds = p₀/(1-p₀): K Δ t = (K-1)(1/odds - odds - 2 log odds). For a small
    p₀ the first term dominates and t ≈ ((K-1)/K)/(p₀ Δ).

    >>> round(escape_time(0.5, 10, 1.0), 12)
    0.0
    """
    odds = initial_probability / (1 - initial_probability)
    others = arms - 1
    # e^d = K-1 at one half and e^{d₀} = (K-1)·odds at the start.
    return float(others * (1 / odds - odds - 2 * np.log(odds)) / (arms * advantage_gap))


def replicator(initial_logits: ArrayLike, rewards: ArrayLike, time: float) -> FloatArray:
    """π(t) ∝ π(0)·exp(R t), `(..., K)`: the natural-gradient flow.

    >>> replicator([0.0, 0.0], [1.0, 0.0], 0.0).tolist()
    [0.5, 0.5]
    """
    logits = log_softmax(np.asarray(initial_logits, dtype=np.float64), axis=-1)
    return np.asarray(softmax(logits + time * np.asarray(rewards, dtype=np.float64), axis=-1))


# -- predictions ---------------------------------------------------------------------------------------------

_CASES = ((2, 0.3, -3.0), (10, 0.5, -2.0), (1000, 1.0, 0.0))
_TIMES = np.array([1.0, 10.0, 100.0, 1000.0, 10000.0])


def _integrate(arms: int, gap: float, initial: float) -> FloatArray:
    """(d, regret) at `_TIMES` from the flow of the two distinct logits, `(2, times)`."""
    others = arms - 1

    def flow(_: float, state: FloatArray) -> list[float]:
        policy = softmax(np.concatenate(([state[0]], np.full(others, state[1]))))
        mean = gap * policy[0]
        return [policy[0] * (gap - mean), policy[1] * -mean, gap - mean]

    solution = solve_ivp(
        flow, (0, _TIMES[-1]), [initial, 0.0, 0.0], method="LSODA", t_eval=_TIMES, rtol=1e-11, atol=1e-12
    )
    return np.stack([solution.y[0] - solution.y[1], solution.y[2]])


def _integrate_natural() -> FloatArray:
    """The natural flow with the Fisher matrix inverted numerically, `(K,)` at t = 3."""
    generator = np.random.default_rng(0)
    logits, rewards = generator.normal(size=6), generator.normal(size=6)

    def flow(_: float, state: FloatArray) -> FloatArray:
        policy = softmax(state)
        fisher = np.diag(policy) - np.outer(policy, policy)
        return np.asarray(np.linalg.pinv(fisher) @ policy_gradient(state, rewards))

    solution = solve_ivp(flow, (0, 3.0), logits, method="DOP853", rtol=1e-12, atol=1e-12)
    return np.asarray(softmax(solution.y[:, -1]))


def _predict_natural() -> FloatArray:
    generator = np.random.default_rng(0)
    logits, rewards = generator.normal(size=6), generator.normal(size=6)
    return replicator(logits, rewards, 3.0)


register(
    Prediction(
        id="T5",
        name="needle-flow",
        statement="The needle bandit's logit gap follows the implicit closed form for every K, gap and start.",
        route="LSODA (rtol 1e-11) on the softmax policy-gradient flow, K = 2, 10, 1000, up to t = 10 000",
        unit="logit",
        tolerance=1e-7,
        predict=lambda: [needle_gap(_TIMES, *case) for case in _CASES],
        measure=lambda: [_integrate(*case)[0] for case in _CASES],
    )
)
register(
    Prediction(
        id="T5",
        name="needle-regret",
        statement="Its regret is ((K-1)/K) [d - d₀ + (K-1)(e^{-d₀} - e^{-d})].",
        route="the same integration with the regret as a further state",
        unit="reward x time",
        # The integrator's relative error (1e-11 a step) accumulates on regrets of up to 1e3.
        tolerance=1e-6,
        predict=lambda: [needle_regret(_TIMES, *case) for case in _CASES],
        measure=lambda: [_integrate(*case)[1] for case in _CASES],
    )
)
register(
    Prediction(
        id="T5",
        name="replicator",
        statement="The natural-gradient flow is the replicator equation, π(t) ∝ π(0) exp(R t).",
        route="DOP853 (rtol 1e-12) on the flow with a numerically inverted Fisher matrix",
        unit="probability",
        tolerance=1e-10,
        predict=_predict_natural,
        measure=_integrate_natural,
    )
)
