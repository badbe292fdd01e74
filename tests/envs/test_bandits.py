from __future__ import annotations

import math

import pytest
import torch
from scipy.special import beta as beta_function

from envs import exact, make_spec
from testbed.errors import ConfigError

SEEDS = range(20)


def start(spec):
    return spec.initial_logits.log_softmax(-1)


def test_null_bandit_teaches_nothing():
    spec = make_spec("NullBandit-v1").for_seeds(SEEDS)
    assert (spec.rewards == 0.5).all()
    assert spec.reward_kind == "bernoulli"
    assert float(exact.policy_gradient(spec, start(spec)).abs().max()) < 1e-16
    assert exact.maximum_entropy_optimum(spec).entropy.tolist() == pytest.approx([math.log(100)] * 20, rel=1e-14)


def test_gaussian_null_bandit_has_its_noise():
    spec = make_spec("NullBandit-v1", reward="gaussian", noise=2.0)
    assert (spec.reward_kind, spec.reward_scale) == ("gaussian", 2.0)


def test_needle_bandit_tables():
    spec = make_spec(
        "NeedleBandit-v1", arms=9, base=0.1, gap=0.6, needle_logit=-1.5, decoys=3, decoy_gap=0.2, decoy_logit=2.0
    ).for_seeds(SEEDS)
    rewards = spec.rewards.sort(-1).values
    expected = torch.tensor([0.1] * 5 + [0.3] * 3 + [0.7], dtype=torch.float64)
    torch.testing.assert_close(rewards, expected.expand_as(rewards), rtol=1e-14, atol=0.0)
    needle = spec.success.bool()
    assert (needle.sum(-1) == 1).all()
    assert torch.equal(needle, spec.rewards == spec.rewards.amax(-1, keepdim=True))
    assert (spec.initial_logits[needle] == -1.5).all()
    assert (spec.initial_logits[(spec.rewards > 0.2) & ~needle] == 2.0).all()
    assert (spec.initial_logits[spec.rewards < 0.2] == 0.0).all()


def test_needles_are_spread_over_the_arms():
    spec = make_spec("NeedleBandit-v1", arms=4, contexts=50).for_seeds(SEEDS)
    counts = spec.success.sum((0, 1))
    # 1000 needles, 250 an arm with a standard deviation of 13.7; five of them.
    assert ((counts - 250).abs() < 69).all()


def test_needle_gradient_obeys_its_flow():
    # d' = K D e^d / (e^d + K - 1)², from the gradient of one context (the solver averages over contexts).
    arms, gap, d = 7, 0.4, -0.8
    spec = make_spec("NeedleBandit-v1", arms=arms, contexts=1, gap=gap, needle_logit=d)
    gradient = exact.policy_gradient(spec, start(spec))[0]
    needle = spec.success[0].bool()
    speed = float(gradient[needle]) - float(gradient[~needle][0])
    assert speed == pytest.approx(arms * gap * math.exp(d) / (math.exp(d) + arms - 1) ** 2, rel=1e-13)


@pytest.mark.parametrize(("arms", "fraction", "correct"), [(100, 0.1, 10), (10, 0.25, 2), (10, 0.01, 1)])
def test_multi_correct_bandit_has_its_share(arms, fraction, correct):
    spec = make_spec("MultiCorrectBandit-v1", arms=arms, fraction=fraction).for_seeds(SEEDS)
    assert (spec.success.sum(-1) == correct).all()
    assert torch.equal(spec.rewards, spec.success)
    best = exact.maximum_entropy_optimum(spec)
    assert best.entropy.tolist() == pytest.approx([math.log(correct)] * 20, abs=1e-14)
    assert not torch.equal(spec.success[0], spec.success[1])


def test_multi_correct_bandit_rewards():
    spec = make_spec("MultiCorrectBandit-v1", correct_reward=0.8, wrong_reward=0.3, reward="bernoulli")
    assert set(spec.rewards.unique().tolist()) == {0.3, 0.8}
    assert spec.reward_kind == "bernoulli"
    assert exact.optimum(spec).value == pytest.approx(0.8, rel=1e-14)


@pytest.mark.parametrize("initial", ["normal", "uniform", "zipf", "peaked"])
@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_rare_arm_starts_rare(initial, rate):
    spec = make_spec("RareArm-v1", rare_probability=rate, initial=initial).for_seeds(SEEDS)
    result = exact.evaluate(spec, start(spec))
    torch.testing.assert_close(result.success, torch.full_like(result.success, rate), rtol=1e-12, atol=0.0)
    # 0.2 + 0.8 q
    torch.testing.assert_close(result.value, torch.full_like(result.value, 0.2 + 0.8 * rate), rtol=1e-12, atol=0.0)


def test_difficulty_mixture_is_beta():
    spec = make_spec("DifficultyMixture-v1", a=0.5, b=2.0).for_seeds(range(100))
    rates = exact.evaluate(spec, start(spec)).success
    # Mean a/(a+b) = 0.2, variance ab/((a+b)²(a+b+1)) = 0.0457; 6400 draws, so the standard error is 0.0027.
    assert float(rates.mean()) == pytest.approx(0.2, abs=5 * 0.0027)
    assert float(rates.var()) == pytest.approx(0.0457, abs=0.005)


def test_difficulty_mixture_has_the_stated_share_of_degenerate_groups():
    a, b, group = 0.5, 0.5, 16
    spec = make_spec("DifficultyMixture-v1", a=a, b=b).for_seeds(range(200))
    rates = exact.evaluate(spec, start(spec)).success
    shares = rates**group + (1 - rates) ** group
    expected = (beta_function(a + group, b) + beta_function(a, b + group)) / beta_function(a, b)
    # 12,800 prompts; a share in [0, 1] has a standard error of at most 0.5/√12800 = 0.0044.
    assert float(shares.mean()) == pytest.approx(expected, abs=5 * 0.0044)


def test_wrong_arms_of_the_mixture_share_equally():
    spec = make_spec("DifficultyMixture-v1", arms=5, contexts=3)
    wrong = spec.initial_logits[~spec.success.bool()].reshape(3, 4)
    assert (wrong == wrong[:, :1]).all()


@pytest.mark.parametrize("name", ["NullBandit-v1", "NeedleBandit-v1", "RareArm-v1", "DifficultyMixture-v1"])
@pytest.mark.parametrize("parameters", [{"arms": 10**9, "contexts": 8}, {"arms": 2, "contexts": 10_000_001}])
def test_a_table_that_does_not_fit_is_refused(name, parameters):
    message = (
        f"{name}: contexts is {parameters['contexts']} and arms is {parameters['arms']}; expected at most 20,000,000"
    )
    with pytest.raises(ConfigError, match=message):
        make_spec(name, **parameters)
