from __future__ import annotations

import math

import pytest
import torch
from scipy.special import rel_entr

from testbed.divergences import (
    binary_kl,
    binary_total_variation,
    kl,
    kl_estimate,
    kl_estimates,
    total_variation,
)
from testbed.errors import ConfigError


def random_policies(count=50, letters=6):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, count, letters, generator=generator, dtype=torch.float64)
    return logits.log_softmax(-1).unbind(0)


def test_kl_agrees_with_scipy():
    log_p, log_q = random_policies()
    expected = rel_entr(log_p.exp().numpy(), log_q.exp().numpy()).sum(-1)
    torch.testing.assert_close(kl(log_p, log_q), torch.from_numpy(expected), rtol=1e-12, atol=1e-15)


def test_kl_of_a_letter_that_cannot_occur():
    certain = torch.tensor([1.0, 0.0], dtype=torch.float64).log()
    even = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    assert kl(certain, even).item() == pytest.approx(math.log(2), rel=1e-15)
    assert kl(even, certain).item() == math.inf
    assert kl(certain, certain).item() == 0


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_unbiased_estimators_have_the_exact_mean(kind):
    # Enumerated: Σ_v p(v)·k(v) over all six letters.
    log_p, log_q = random_policies()
    mean = (log_p.exp() * kl_estimate(kind, log_p, log_q)).sum(-1)
    torch.testing.assert_close(mean, kl(log_p, log_q), rtol=1e-12, atol=1e-15)


def test_k2_is_biased_by_the_third_order_only():
    # Policies ε apart: KL is of order ε², the mean of k2 misses it by order ε³.
    log_p, log_q = random_policies()
    gaps = []
    for step in (1e-2, 1e-3):
        near = (log_p + step * (log_q - log_p)).log_softmax(-1)
        mean = (log_p.exp() * kl_estimate("k2", log_p, near)).sum(-1)
        gaps.append((mean - kl(log_p, near)).abs().max().item())
    assert gaps[1] < gaps[0] / 900


def test_k3_is_never_negative_and_k2_neither():
    log_p, log_q = random_policies()
    for kind in ("k2", "k3"):
        assert (kl_estimate(kind, log_p, log_q) >= 0).all()


def test_k3_keeps_its_digits_near_zero():
    # d²/2 + d³/6 for d = 1e-7, where e^d - d - 1 would lose everything.
    d = torch.tensor(1e-7, dtype=torch.float64)
    assert kl_estimate("k3", torch.zeros_like(d), d).item() == pytest.approx(0.5e-14, rel=1e-6)


def test_estimates_are_clamped():
    far = torch.tensor(1e4, dtype=torch.float64)
    assert all(kl_estimate(kind, 0 * far, far).isfinite() for kind in kl_estimates)


@pytest.mark.parametrize("divergence", [kl, binary_kl])
@pytest.mark.parametrize("step", [1e-2, 1e-4])
def test_single_precision_keeps_the_digits_of_policies_that_are_close(divergence, step):
    # Σ p (log p - log q) in single precision is off by more than its value at a step of 1e-4: its terms are of order
    # 1e-4 and cancel to 5e-9. What remains here is the rounding of the log-probabilities: 1e-7 of each difference.
    log_p, log_q = random_policies()
    near = (log_p + step * log_q).log_softmax(-1)
    first, second = (log_p, near) if divergence is kl else (log_p[:, 0], near[:, 0])
    exact, single = divergence(first, second), divergence(first.float(), second.float())
    assert (single >= 0).all()
    torch.testing.assert_close(single.double().mean(), exact.mean(), rtol=1e-6 / step, atol=0)


def test_single_precision_does_not_overflow_far_apart():
    # p = e^-90 and q = 1/2: KL = p·(log p - log q) + (1-p)·log((1-p)/(1-q)) = log 2 up to 1e-38.
    rare, even = torch.tensor(-90.0), torch.tensor(0.5).log()
    assert binary_kl(rare, even).item() == pytest.approx(math.log(2), rel=1e-6)


def test_unknown_estimator_is_explained():
    with pytest.raises(ConfigError, match=r"KL estimator is 'k4'; expected one of k1, k2, k3"):
        kl_estimate("k4", torch.zeros(1), torch.zeros(1))


def test_total_variation_by_hand_and_bounds():
    # ½(|0.5 - 0.1| + |0.3 - 0.3| + |0.2 - 0.6|) = 0.4
    first, second = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]], dtype=torch.float64).log()
    assert total_variation(first, second).item() == pytest.approx(0.4, rel=1e-12)
    log_p, log_q = random_policies()
    # Pinsker's inequality.
    assert (total_variation(log_p, log_q) <= (kl(log_p, log_q) / 2).sqrt()).all()


def test_binary_divergences_are_those_of_the_two_way_split():
    log_p, log_q = random_policies()
    for letter in range(6):
        p, q = log_p[:, letter], log_q[:, letter]
        split_p, split_q = (torch.stack([x, torch.log1p(-x.exp())], -1) for x in (p, q))
        torch.testing.assert_close(binary_kl(p, q), kl(split_p, split_q), rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(
            binary_total_variation(p, q), total_variation(split_p, split_q), rtol=1e-9, atol=1e-15
        )
        # Merging letters loses information.
        assert (binary_kl(p, q) <= kl(log_p, log_q) + 1e-12).all()
        assert (binary_total_variation(p, q) <= total_variation(log_p, log_q) + 1e-12).all()


@pytest.mark.parametrize(("p", "q", "expected"), [(1.0, 1.0, 0.0), (1.0, 0.5, math.log(2)), (0.5, 1.0, math.inf)])
def test_binary_kl_of_certainty(p, q, expected):
    log_p, log_q = torch.tensor([p, q], dtype=torch.float64).log()
    assert binary_kl(log_p, log_q).item() == pytest.approx(expected, rel=1e-15)
