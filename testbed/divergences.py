"""Distances between policies: estimates from sampled tokens, exact values from whole distributions.

The order of the arguments is that of the divergence: `kl(log_p, log_q)` is KL(p ‖ q).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from testbed.errors import ConfigError
from testbed.masking import MAX_LOG_RATIO

__all__ = [
    "binary_kl",
    "binary_total_variation",
    "kl",
    "kl_estimate",
    "kl_estimates",
    "total_variation",
]

# d = log q - log p at a token sampled from p. Every estimate has the mean KL(p ‖ q) or, for k2, nearly so.
kl_estimates: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda d: -d,
    "k2": lambda d: d.square() / 2,
    "k3": lambda d: d.expm1() - d,
}
"""Schulman's estimators, as functions of d = log q - log p: k1 unbiased, k2 of low variance, k3 both and never < 0."""


def kl_estimate(kind: str, log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) estimated at each token sampled from p; any shape, nats, differentiable in both.

    d = log q - log p is clamped to ±20, with zero gradient beyond.

    Args:
        kind: "k1", "k2" or "k3".
        log_p: log-probability of the token under the policy it was sampled from.
        log_q: the same under the other policy.

    Raises:
        ConfigError: no such estimator.

    Example:
        >>> half, quarter = torch.tensor(0.5).log(), torch.tensor(0.25).log()
        >>> [round(kl_estimate(kind, half, quarter).item(), 4) for kind in ("k1", "k2", "k3")]  # d = -log 2
        [0.6931, 0.2402, 0.1931]
    """
    if kind not in kl_estimates:
        raise ConfigError(f"KL estimator is {kind!r}; expected one of {', '.join(kl_estimates)}")
    return kl_estimates[kind]((log_q - log_p).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ_v p (log p - log q) over the last dimension, nats; 0·log 0 = 0, infinite where only q is 0.

    Summed as Σ_v p·k3 with k3 = q/p - 1 - log(q/p), which is the same for distributions that sum to 1: its terms are
    not negative and of the size of the result, so that single precision keeps the digits of policies that are close.

    Example:
        >>> kl(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()).item()  # ½ log(4/3)
        0.1438410...
    """
    return _kl_terms(log_p.exp(), log_q.exp(), log_q - log_p).sum(-1)


def total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """½ Σ_v |p - q| over the last dimension; in [0, 1].

    Example:
        >>> total_variation(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()).item()
        0.25
    """
    return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


def binary_total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """|p - q|: total variation of the split into "this token" and "any other", element by element.

    A lower bound of the total variation of the whole distributions.
    """
    return (log_p.exp() - log_q.exp()).abs()


def binary_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """P log(p/q) + (1-p) log((1-p)/(1-q)), element by element, nats: the KL of the same split.

    A lower bound of the KL of the whole distributions. Log-probabilities above 0 count as 0. Summed as `kl` is.

    Example:
        >>> binary_kl(torch.tensor(0.5).log(), torch.tensor(0.25).log()).item()  # ½ log(4/3)
        0.1438410...
    """
    log_p, log_q = log_p.clamp(max=0), log_q.clamp(max=0)
    p, q, d = log_p.exp(), log_q.exp(), log_q - log_p
    other_p, other_q = -log_p.expm1(), -log_q.expm1()
    # (1-q)/(1-p) = 1 - (q-p)/(1-p), and q - p from the difference of the logarithms.
    gain = torch.where(d < 0, p * d.expm1(), -q * (-d).expm1())
    other_d = torch.log1p(-gain / other_p)
    return _kl_terms(p, q, d) + _kl_terms(other_p, other_q, other_d)


def _kl_terms(p: Tensor, q: Tensor, d: Tensor) -> Tensor:
    """P (e^d - 1 - d) with d = log q - log p: what an outcome adds to KL(p ‖ q); q where p is 0."""
    # Where q is much larger than p, e^d could overflow and nothing cancels.
    difference = torch.where(d < 1, p * d.clamp(max=1).expm1(), q - p)
    return torch.where(p > 0, difference - p * d, q)
