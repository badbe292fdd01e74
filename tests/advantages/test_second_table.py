"""What the estimators of the second table promise beyond their numbers, and what they refuse."""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import pytest
import torch
from torch import Tensor

from testbed.advantages import check_group_size, estimate, make_advantage_estimator
from testbed.advantages.asymmetric import asymmetric
from testbed.advantages.batch_standardised import batch_standardised
from testbed.advantages.gdpo import gdpo
from testbed.advantages.log_mean_exp import log_mean_exp
from testbed.advantages.maxrl import maxrl
from testbed.advantages.opo import opo
from testbed.advantages.pass_at_k import pass_at_k
from testbed.advantages.reinforce_plus_plus import reinforce_plus_plus
from testbed.advantages.remax import remax
from testbed.advantages.token_baseline import optimal_token_baseline
from testbed.errors import BatchError, ConfigError


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def expected_weight(estimator, size: int, p: float) -> float:
    """E[Σ_i A_i (y_i - p)]/(G p (1-p)) over all outcomes of G Bernoulli(p) responses: the weight of ∇p."""
    total = 0.0
    for outcome in product((0.0, 1.0), repeat=size):
        rewards = double([outcome])
        chance = p ** sum(outcome) * (1 - p) ** (size - sum(outcome))
        total += chance * float((estimator(rewards) * (rewards - p)).sum())
    return total / (size * p * (1 - p))


@pytest.mark.parametrize(("size", "p"), [(2, 0.3), (4, 0.1), (6, 0.5)])
def test_maxrl_is_the_log_likelihood_cut_at_one_order_below_the_group(size, p):
    # d/dp of -Σ_{k=1}^{G-1} (1-p)^k/k = Σ_{k=0}^{G-2} (1-p)^k; the full series is 1/p.
    assert expected_weight(maxrl, size, p) == pytest.approx(sum((1 - p) ** k for k in range(size - 1)), rel=1e-9)


@pytest.mark.parametrize(("size", "k", "p"), [(4, 2, 0.3), (5, 3, 0.1)])
def test_the_unbiased_form_is_the_gradient_of_pass_at_k(size, k, p):
    # The mean of the transformed rewards is pass@k, whose derivative is k (1-p)^{k-1}; G times the mean is their sum.
    weight = expected_weight(lambda rewards: size * pass_at_k(rewards, k=k, form="unbiased"), size, p)
    assert weight == pytest.approx(k * (1 - p) ** (k - 1), rel=1e-9)


@pytest.mark.parametrize(("size", "right", "k"), [(6, 2, 3), (5, 1, 2), (6, 4, 2)])
def test_the_analytic_form_against_all_subsets(size, right, k):
    # Every subset of k has reward 1 if one of it is right; a response's advantage is the mean over its subsets of the
    # standardised reward.
    solved = [any(item < right for item in subset) for subset in combinations(range(size), k)]
    mean = sum(solved) / comb(size, k)
    deviation = (mean * (1 - mean)) ** 0.5
    expected = []
    for response in range(size):
        own = [any(item < right for item in subset) for subset in combinations(range(size), k) if response in subset]
        expected.append((sum(own) / len(own) - mean) / deviation)
    rewards = double([[1.0] * right + [0.0] * (size - right)])
    assert pass_at_k(rewards, k=k)[0].tolist() == pytest.approx(expected, rel=1e-9)


def test_best_minus_second_gives_ties_nothing():
    assert pass_at_k(double([[2.0, 2.0, 0.0], [3.0, 1.0, 0.5]]), form="best_minus_second").tolist() == [
        [0.0, 0.0, 0.0],
        [2.0, 0.0, 0.0],
    ]


def test_the_batch_decides_the_unit():
    # The second group is twice as wide, and so are its advantages; a group's own unit would make them equal.
    found = batch_standardised(double([[1.0, 0.0], [2.0, 0.0]]))
    assert (found[1] / found[0]).tolist() == pytest.approx([2.0, 2.0], rel=1e-12)


def test_the_baseline_approaches_the_best_reward_as_tau_falls():
    assert log_mean_exp(double([[1.0, 0.0]]), tau=1e-3)[0].tolist() == pytest.approx([0.0, -1.0], abs=1e-3)
    assert log_mean_exp(double([[1.0, 0.0]]), tau=1e3)[0].tolist() == pytest.approx([0.5, -0.5], abs=1e-3)


def test_a_group_without_variance_is_pushed_up_by_an_asymmetric_baseline():
    assert asymmetric(double([[0.0, 0.0]])).tolist() == [[0.1, 0.1]]


def test_without_reward_there_is_no_unit():
    assert batch_standardised(torch.ones(2, 3)).count_nonzero() == 0
    assert reinforce_plus_plus(torch.ones(2, 3), torch.ones(2, 3)).count_nonzero() == 0
    assert gdpo([torch.ones(2, 3), torch.zeros(2, 3)]).count_nonzero() == 0


def test_on_one_prompt_the_two_forms_of_reinforce_plus_plus_coincide():
    rewards, lengths = double([[1.0, 0.0, 0.5]]), double([[3, 1, 2]])
    plain, centred = (reinforce_plus_plus(rewards, lengths, baseline=baseline) for baseline in (False, True))
    assert plain.tolist()[0] == pytest.approx(centred.tolist()[0], rel=1e-12)


def test_a_response_alone_in_its_group_has_no_token_baseline():
    returns = double([[2.0, 2.0], [1.0, 1.0], [0.0, 0.0]])
    half = torch.full((3, 2), 0.5, dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, True], [True, False]])
    found = optimal_token_baseline(returns, half.log(), half, mask, torch.tensor([0, 1, 1]))
    # Alone: 2 throughout. At the first position ½ is the mean; at the second one response is left of the pair.
    assert found.tolist() == [[2.0, 2.0], [0.5, 1.0], [-0.5, 0.0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: opo(torch.zeros(1, 2), torch.ones(2)), r"opo got lengths of shape \(2,\); expected \(1, 2\)"),
        (lambda: opo(torch.zeros(1, 2), torch.zeros(1, 2)), "opo got a negative length or a group without a token"),
        (lambda: opo(torch.zeros(1, 1), torch.ones(1, 1)), "opo got groups of one response"),
        (lambda: maxrl(torch.zeros(1, 1)), "maxrl got groups of one response"),
        (
            lambda: remax(torch.zeros(1, 2), torch.zeros(2)),
            r"remax got greedy_rewards of shape \(2,\); expected \(1,\)",
        ),
        (lambda: pass_at_k(torch.zeros(1, 3), k=4), "pass_at_k got groups of 3; expected at least k = 4"),
        (lambda: pass_at_k(torch.tensor([[0.5, 1.0]])), "got rewards other than 0 and 1; use form='best_minus_second'"),
        (lambda: gdpo([]), r"gdpo got rewards of shapes \[\]; expected at least one"),
        (lambda: gdpo([torch.zeros(1, 2), torch.zeros(1, 3)]), r"shapes \[\(1, 2\), \(1, 3\)\]"),
        (lambda: gdpo([torch.zeros(1, 2)], [1.0, 2.0]), "gdpo got 2 weights for 1 rewards"),
        (
            lambda: optimal_token_baseline(torch.zeros(2, 1), *[torch.zeros(2, 1)] * 3, torch.zeros(3)),
            r"groups is a torch\.float32 tensor of shape \(3,\); expected integers \(2,\)",
        ),
        (
            lambda: optimal_token_baseline(torch.zeros(2, 1), *[torch.zeros(1, 1)] * 3, torch.zeros(2).long()),
            r"old_log_probs has shape \(1, 1\); expected \(2, 1\)",
        ),
    ],
)
def test_a_wrong_batch_is_refused(call, message):
    with pytest.raises(BatchError, match=message):
        call()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log_mean_exp(tau=0)", "tau is 0; expected a positive number"),
        ("asymmetric(shift=nan)", "shift is"),
        ("pass_at_k(k=0)", "k is 0; expected a positive whole number"),
        ("pass_at_k(form=all)", "form is 'all'; expected 'analytic' or 'unbiased' or 'best_minus_second'"),
        ("batch_standardised(ddof=3)", "ddof is 3; expected 0 or 1"),
        ("reinforce_plus_plus(epsilon=-1)", "epsilon is -1; expected a number of at least 0"),
    ],
)
def test_a_parameter_out_of_its_range_is_refused_before_any_reward(text, message):
    with pytest.raises(ConfigError, match=message):
        make_advantage_estimator(text)


def test_what_is_not_at_hand_is_named():
    with pytest.raises(BatchError, match="reads greedy_rewards, which is not at hand here"):
        estimate(make_advantage_estimator("remax"), torch.zeros(1, 2))
    with pytest.raises(ConfigError, match=r"group_size is 2 with the remax advantage, .* greedy_rewards"):
        check_group_size("remax", 2)
