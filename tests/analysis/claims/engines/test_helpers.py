"""The enumerations behind the exact claims, against brute force and numbers by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from analysis.claims.engines import expected_factor, gradient, rewards_by_count
from analysis.claims.engines.q5_bandpo import _reach
from analysis.claims.engines.q9_real import _weights
from analysis.claims.engines.q15_maxrl import _maxrl
from analysis.claims.engines.q19_gdpo import _collisions, _summed
from analysis.claims.engines.q21_batch_deviation import _relative_weight
from testbed.advantages import group_centred, group_standardised, make_advantage_estimator


def test_expected_factor_is_the_sum_over_all_groups():
    # Two arms with success rate p: the score of the logit is 1 - p for a success, -p for a failure, and ∇p = p(1-p).
    rate, size = 0.3, 3
    estimator = make_advantage_estimator("group_standardised")
    total = 0.0
    for outcome in itertools.product((1.0, 0.0), repeat=size):
        advantages = estimator(torch.tensor([outcome], dtype=torch.float64))[0].numpy()
        scores = np.where(np.array(outcome) == 1, 1 - rate, -rate)
        chance = np.prod(np.where(np.array(outcome) == 1, rate, 1 - rate))
        total += chance * (advantages * scores).mean()
    assert expected_factor(estimator, rate, size) == pytest.approx(total / (rate * (1 - rate)), rel=1e-12)


def test_a_group_mean_costs_one_response():
    assert expected_factor(group_centred, 0.2, 4) == pytest.approx(3 / 4, rel=1e-12)


def test_maxrl_by_hand():
    # G = 2: only mixed groups count, A = ±1, so P(mixed)·(1/2)(1/p + 1/(1-p)) = 1 for every p.
    assert _maxrl(0.1, 2) == pytest.approx(1.0, rel=1e-12)
    # 1 + 0.9 + 0.81 at G = 4.
    assert _maxrl(0.1, 4) == pytest.approx(2.71, rel=1e-12)


def test_groups_are_one_per_number_of_successes():
    assert rewards_by_count(2).tolist() == [[0, 0], [1, 0], [1, 1]]


def test_gradient_by_hand():
    # PPO at ratio 1.1 with A = 1: -1.1.
    one = torch.ones(1, 1, dtype=torch.float64)
    assert gradient("ppo", 1.1 * one, one, -one).item() == pytest.approx(-1.1, rel=1e-12)


def test_reach_of_total_variation_is_its_threshold():
    assert _reach("bandpo").numpy() == pytest.approx(0.05, rel=1e-9)


def test_weights_of_real_at_ratio_one():
    # 1/(τ(1 + n)): 1 for the lone right response of eight, 1/(0.5·8) for each of seven wrong ones.
    found = _weights(torch.zeros(8, dtype=torch.float64), torch.arange(8) < 1)
    assert found.tolist() == pytest.approx([1.0] + 7 * [0.25], rel=1e-9)


def test_the_sum_merges_one_reward_and_the_other():
    # Of all 4^4 groups those without (1, 0) beside (0, 1) are 3^4 + 3^4 - 2^4 = 146. Of the others a constant sum,
    # 2^4 - 2 = 14 of them, merges them as well.
    assert _collisions(_summed) == pytest.approx((256 - 146) / 256)


def test_weight_beside_another_prompt_by_brute_force():
    rates, size = (0.25, 0.5), 2
    total = np.zeros(2)
    for outcome in itertools.product((1.0, 0.0), repeat=2 * size):
        rewards = torch.tensor(outcome, dtype=torch.float64).view(2, size)
        advantages = group_standardised(rewards).numpy()
        rate = np.array(rates)[:, None]
        scores = np.where(rewards.numpy() == 1, 1 - rate, -rate)
        chance = np.prod(np.where(rewards.numpy() == 1, rate, 1 - rate))
        total += chance * (advantages * scores).mean(-1) / (rate * (1 - rate))[:, 0]
    # Groups of two have one deviation: c_2(p) = 1 whatever p.
    assert total[0] / total[1] == pytest.approx(1.0)
    assert _relative_weight("group_centred", 0.02) == pytest.approx(1.0, rel=1e-12)
