from __future__ import annotations

import math

import pytest
import torch

from envs import exact, make_spec
from envs.automaton import TERMINAL, Automaton
from testbed.errors import BatchError, ConfigError

TIGHT = {"rtol": 1e-12, "atol": 1e-14}


def log(*rows):
    return torch.tensor(rows, dtype=torch.float64).log()


@pytest.fixture
def walk():
    """Token 0 ends with reward 1; token 1 goes on to where token 0 pays 3 and token 1 pays 0, both successes."""
    return Automaton(
        name="Walk-v1",
        transitions=torch.tensor([[TERMINAL, 1], [TERMINAL, TERMINAL]]),
        initial_states=torch.tensor([0]),
        # 99 stands where the episode goes on, and must never be read.
        rewards=torch.tensor([[1.0, 99.0], [3.0, 0.0]], dtype=torch.float64),
        success=torch.tensor([[0.0, 0.5], [1.0, 1.0]], dtype=torch.float64),
        initial_logits=torch.zeros(2, 2, dtype=torch.float64),
    )


def test_evaluation_by_hand(walk):
    # Responses: "0" with 3/4, "10" with 1/4·1/3, "11" with 1/4·2/3.
    result = exact.evaluate(walk, log([3 / 4, 1 / 4], [1 / 3, 2 / 3]))
    assert isinstance(result.value, float)
    assert result.value == pytest.approx(3 / 4 * 1 + 1 / 12 * 3, rel=1e-14)
    assert result.success.tolist() == pytest.approx([1 / 4], rel=1e-14)
    assert result.length == pytest.approx(5 / 4, rel=1e-14)
    assert result.occupancy.tolist() == pytest.approx([1, 1 / 4], rel=1e-14)
    entropy = -(3 / 4 * math.log(3 / 4) + 1 / 12 * math.log(1 / 12) + 1 / 6 * math.log(1 / 6))
    assert result.entropy == pytest.approx(entropy, rel=1e-14)
    assert result.token_entropy == pytest.approx(entropy / (5 / 4), rel=1e-14)
    assert result.collision == pytest.approx((3 / 4) ** 2 + (1 / 12) ** 2 + (1 / 6) ** 2, rel=1e-14)
    assert result.pass_at(2) == pytest.approx(1 - (3 / 4) ** 2, rel=1e-14)
    second = -(1 / 3 * math.log(1 / 3) + 2 / 3 * math.log(2 / 3))
    assert result.state_entropy[1].item() == pytest.approx(second, rel=1e-14)


def test_policy_gradient_by_hand(walk):
    # V(1) = 1 and Q(0, ·) = (1, 1): the first choice does not matter, the second does by d·p·(1-p)·3 = 1/4·2/9·3.
    gradient = exact.policy_gradient(walk, log([3 / 4, 1 / 4], [1 / 3, 2 / 3]))
    expected = torch.tensor([[0.0, 0.0], [1 / 6, -1 / 6]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, **TIGHT)


def test_action_values_by_hand(walk):
    policy = log([3 / 4, 1 / 4], [1 / 3, 2 / 3])
    expected = torch.tensor([[1.0, 1.0], [3.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(exact.action_values(walk, policy), expected, **TIGHT)
    expected = torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(exact.action_values(walk, policy, of="success"), expected, **TIGHT)


def test_kl_and_tv_by_hand(walk):
    p, q = log([1 / 2, 1 / 2], [1 / 4, 3 / 4]), log([1 / 4, 3 / 4], [1 / 2, 1 / 2])
    first = 1 / 2 * math.log(2) + 1 / 2 * math.log(2 / 3)
    second = 1 / 4 * math.log(1 / 2) + 3 / 4 * math.log(3 / 2)
    assert exact.kl(walk, p, q) == pytest.approx(first + second / 2, rel=1e-13)
    # Token TV is 1/4 in both states, whatever their weight.
    assert exact.tv(walk, p, q) == pytest.approx(1 / 4, rel=1e-14)
    assert exact.kl(walk, p, p) == 0.0


def test_kl_where_a_probability_is_zero(walk):
    sure, spread = log([1.0, 0.0], [1 / 2, 1 / 2]), log([1 / 2, 1 / 2], [1 / 2, 1 / 2])
    assert exact.kl(walk, sure, spread) == pytest.approx(math.log(2), rel=1e-14)
    assert exact.kl(walk, spread, sure) == math.inf
    assert exact.kl(walk, sure, sure) == 0.0


def test_zero_probabilities_are_fine_everywhere(walk):
    result = exact.evaluate(walk, log([1.0, 0.0], [0.0, 1.0]))
    assert (result.value, result.entropy, result.length, result.collision) == (1.0, 0.0, 1.0, 1.0)


def test_greedy_optimum_by_hand(walk):
    best = exact.optimum(walk)
    assert (best.value, best.reward, best.entropy) == (3.0, 3.0, 0.0)
    assert best.log_policy.exp().tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_equal_sharing_is_not_always_the_most_random():
    # Token 0 ends, token 1 leads on to two more endings; all pay 1. Equal sharing gives (1/2, 1/4, 1/4).
    spec = Automaton(
        name="Fork-v1",
        transitions=torch.tensor([[TERMINAL, 1], [TERMINAL, TERMINAL]]),
        initial_states=torch.tensor([0]),
        rewards=torch.ones(2, 2, dtype=torch.float64),
        success=torch.ones(2, 2, dtype=torch.float64),
        initial_logits=torch.zeros(2, 2, dtype=torch.float64),
    )
    assert exact.optimum(spec).entropy == pytest.approx(1.5 * math.log(2), rel=1e-14)
    most = exact.maximum_entropy_optimum(spec)
    assert most.entropy == pytest.approx(math.log(3), rel=1e-14)
    torch.testing.assert_close(most.log_policy, log([1 / 3, 2 / 3], [1 / 2, 1 / 2]), **TIGHT)


def test_entropy_regularised_optimum_by_hand(walk):
    # U(1) = log(e³ + 1) and U(0) = log(e + e³ + 1): the responses have weights e, e³ and 1.
    best = exact.optimum(walk, temperature=1.0)
    z = math.e + math.e**3 + 1
    assert best.value == pytest.approx(math.log(z), rel=1e-14)
    assert best.reward == pytest.approx((math.e + 3 * math.e**3) / z, rel=1e-14)
    assert best.log_policy[0, 0].exp().item() == pytest.approx(math.e / z, rel=1e-14)


def test_gibbs_optimum_is_stationary(random_policy):
    # Nothing is left to gain in J - β KL: autograd through the enumerable one-token case.
    spec = make_spec("MultiCorrectBandit-v1", arms=7, contexts=2, fraction=0.3)
    reference, beta = random_policy(spec), 0.5
    logits = exact.optimum(spec, beta, reference).log_policy.requires_grad_()
    log_policy = logits.log_softmax(-1)
    objective = (log_policy.exp() * (spec.rewards - beta * (log_policy - reference))).sum(-1).mean()
    (gradient,) = torch.autograd.grad(objective, logits)
    assert float(gradient.abs().max()) < 1e-15


def test_temperature_towards_zero_is_the_most_random_optimum():
    spec = make_spec("VariableLength-v1", prompts=2, length=4, vocabulary=4)
    cold, limit = exact.optimum(spec, temperature=1e-3), exact.maximum_entropy_optimum(spec)
    # exp(-1/β) underflows, so the limit is reached to rounding.
    assert cold.entropy == pytest.approx(limit.entropy, rel=1e-9)
    assert cold.reward == pytest.approx(1.0, rel=1e-12)
    assert exact.optimum(spec).entropy < limit.entropy


def test_replicas_broadcast_and_are_independent(random_policy):
    spec = make_spec("RareArm-v1", arms=5, contexts=3).for_seeds([0, 1, 2, 3])
    policies = random_policy(spec, 2, 1)
    result = exact.evaluate(spec, policies)
    assert result.value.shape == (2, 4)
    assert result.success.shape == (2, 4, 3)
    alone = exact.evaluate(make_spec("RareArm-v1", arms=5, contexts=3).for_seeds([2]), policies[1])
    assert result.value[1, 2] == alone.value[0]
    assert exact.policy_gradient(spec, policies).shape == (2, 4, 3, 5)
    assert exact.optimum(spec).value.tolist() == [1.0] * 4
    assert exact.kl(spec, policies, policies[0]).shape == (2, 1)


def test_float32_policies_are_computed_in_float64(random_policy):
    spec = make_spec("ModularSum-v1")
    log_policy = random_policy(spec).float()
    result = exact.evaluate(spec, log_policy)
    assert result.success.dtype == torch.float64
    assert result.value == exact.evaluate(spec, log_policy.double()).value


def test_evaluation_survives_a_change_in_place(random_policy):
    spec = make_spec("ModularSum-v1")
    log_policy = random_policy(spec)
    expected = exact.evaluate(spec, log_policy).entropy
    result = exact.evaluate(spec, log_policy)
    log_policy.zero_()
    assert result.entropy == expected


def test_pass_at_keeps_the_digits_of_small_rates():
    # 1 - (1-q)^2 = 2q - q²; at q = 1e-12 the naive formula has four digits left.
    spec = make_spec("NeedleBandit-v1", arms=2, contexts=1)
    needle = spec.success.bool()
    small, large = torch.tensor([math.log(1e-12), math.log1p(-1e-12)], dtype=torch.float64)
    log_policy = torch.where(needle, small, large)
    assert exact.evaluate(spec, log_policy).pass_at(2) == pytest.approx(2e-12 - 1e-24, rel=1e-12, abs=0.0)


# -- expected update -----------------------------------------------------------------------------------------


def test_open_gate_gives_the_policy_gradient(random_policy):
    spec = make_spec("ModularSum-v1", length=3).for_seeds([0, 1])
    log_policy = random_policy(spec, 2)
    values = exact.action_values(spec, log_policy)
    expected = exact.policy_gradient(spec, log_policy)
    torch.testing.assert_close(exact.expected_update(spec, log_policy, values), expected, **TIGHT)


@pytest.mark.parametrize("name", ["MultiCorrectBandit-v1", "ModularSum-v1", "VariableLength-v1"])
def test_expected_update_is_the_gradient_of_the_clipped_surrogate(name, enumerated, random_policy):
    # Independent route: write out every token of every response under the behaviour policy, form
    # Σ_y q(y) Σ_t min(r_t A_t, clip(r_t) A_t) with A a fixed function of the last (state, token), and differentiate.
    small = {"MultiCorrectBandit-v1": {"arms": 6, "contexts": 2}}.get(
        name, {"length": 3, "vocabulary": 4, "prompts": 2}
    )
    spec = make_spec(name, **small)
    responses = enumerated(spec)
    behaviour = random_policy(spec, seed=1)
    logits = (behaviour + 0.5 * random_policy(spec, seed=2)).requires_grad_()
    log_policy = logits.log_softmax(-1)
    advantages = exact.action_values(spec, behaviour) - 0.3
    ratio = (log_policy - behaviour).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    padded = torch.cat([surrogate.flatten(), surrogate.new_zeros(1)])
    weighted = responses.log_probs(behaviour).exp() * padded[responses.steps].sum(-1)
    (expected,) = torch.autograd.grad(responses.mean(weighted), logits)

    shut = ((advantages > 0) & (ratio > 1.2)) | ((advantages < 0) & (ratio < 0.8))
    assert 0 < shut.sum() < shut.numel()
    weights = torch.where(shut, 0.0, advantages)
    found = exact.expected_update(spec, log_policy, weights, behaviour=behaviour)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-14)
    # The gate and the behaviour policy both matter.
    assert not torch.allclose(exact.expected_update(spec, log_policy, advantages, behaviour), expected)
    assert spec.horizon == 1 or not torch.allclose(exact.expected_update(spec, log_policy, weights), expected)


def test_expected_update_is_the_mean_of_sampled_updates(random_policy):
    # A shut gate makes the baseline matter: with X = 1 a constant weight moves nothing.
    spec = make_spec("NeedleBandit-v1", arms=3, contexts=1)
    log_policy = random_policy(spec)
    ones = torch.ones(1, 3, dtype=torch.float64)
    torch.testing.assert_close(exact.expected_update(spec, log_policy, ones), torch.zeros_like(ones), **TIGHT)
    gated = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
    p = log_policy.exp()[0]
    # Σ_a p_a x_a (e_a - p), written out for the middle arm: -p₁ (p₀ + p₂).
    assert exact.expected_update(spec, log_policy, gated)[0, 1].item() == pytest.approx(
        float(-p[1] * (p[0] + p[2])), rel=1e-12
    )


# -- frontier ------------------------------------------------------------------------------------------------


def test_frontier_by_hand():
    # p0 = 1/4 to p = 1/2: ½ log 2 + ½ log(2/3) = ½ log(4/3); to p = 1: log 4; no change costs nothing.
    spec = make_spec("MultiCorrectBandit-v1", arms=4, fraction=0.25, contexts=1)
    uniform = log([1 / 4] * 4)
    rates = torch.tensor([[0.5], [1.0], [0.25]], dtype=torch.float64)
    expected = torch.tensor([[math.log(4 / 3) / 2], [math.log(4)], [0.0]], dtype=torch.float64)
    torch.testing.assert_close(exact.frontier(spec, uniform, rates), expected, **TIGHT)


def test_frontier_of_an_impossible_task_is_infinite():
    spec = make_spec("MultiCorrectBandit-v1", arms=2, fraction=0.5, contexts=1)
    never = torch.where(spec.success.bool(), -math.inf, 0.0).double()
    assert exact.frontier(spec, never, torch.tensor([0.5])).tolist() == [math.inf]
    assert exact.frontier(spec, never, torch.tensor([0.0])).tolist() == [0.0]


@pytest.mark.parametrize("name", ["MultiCorrectBandit-v1", "ModularSum-v1", "VariableLength-v1", "Arithmetic-v1"])
def test_gibbs_policies_lie_on_the_frontier_and_no_policy_below(name, random_policy):
    spec = make_spec(name)
    reference = random_policy(spec, seed=1)
    base = exact.evaluate(spec, reference).success
    for beta in (0.2, 1.0, 5.0):
        best = exact.optimum(spec, beta, reference)
        assert abs(exact.wasted_drift(spec, best.log_policy, reference)) < 1e-12
        # p* = p0 e^{1/β} / (p0 e^{1/β} + 1 - p0), the closed form of two reweighted blocks.
        boosted = base * math.exp(1 / beta)
        rate = boosted / (boosted + 1 - base)
        torch.testing.assert_close(exact.evaluate(spec, best.log_policy).success, rate, rtol=1e-12, atol=0.0)
    others = random_policy(spec, 200, seed=2)
    assert float(exact.wasted_drift(spec, others, reference).min()) > 0


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (torch.zeros(2, 3), r"log_policy has shape \(2, 3\).*expected a float table \(..., 2, 2\)"),
        (torch.zeros(2), r"log_policy has shape \(2,\)"),
        (torch.zeros(2, 2, dtype=torch.int64), "dtype torch.int64; expected a float table"),
        (torch.zeros(2, 2), "miss a sum of 1 by 1; expected normalised log-probabilities"),
        (torch.full((2, 2), float("nan")), "miss a sum of 1 by nan"),
        ([[0.0, 0.0], [0.0, 0.0]], r"log_policy is a list; expected a float tensor \(..., 2, 2\)"),
    ],
)
def test_rejects_what_is_no_policy(walk, table, message):
    with pytest.raises(BatchError, match=message):
        exact.evaluate(walk, table)


def test_rejects_replicas_that_do_not_fit(random_policy):
    spec = make_spec("RareArm-v1").for_seeds([0, 1])
    with pytest.raises(BatchError, match=r"log_policy has replica dimensions \(3,\); expected .*\(2,\)"):
        exact.evaluate(spec, random_policy(spec, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda spec, p: exact.kl(spec, p, p[:1]), "log_q has shape"),
        (lambda spec, p: exact.tv(spec, p[:1], p), "log_p has shape"),
        (lambda spec, p: exact.policy_gradient(spec, p[:1]), "log_policy has shape"),
        (lambda spec, p: exact.optimum(spec, 1.0, p[:1]), "reference has shape"),
        (lambda spec, p: exact.expected_update(spec, p, p[:1]), "weights has shape"),
        (lambda spec, p: exact.expected_update(spec, p, p * math.nan), "weights holds NaN"),
        (lambda spec, p: exact.expected_update(spec, p, p, p[:1]), "behaviour has shape"),
        (lambda spec, p: exact.frontier(spec, p, torch.ones(3)), r"success has shape \(3,\); expected \(..., 2\)"),
    ],
)
def test_errors_name_the_table(call, message, random_policy):
    spec = make_spec("MultiCorrectBandit-v1", arms=4, contexts=2)
    with pytest.raises(BatchError, match=message):
        call(spec, random_policy(spec))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda spec, p: exact.optimum(spec, -1.0), "temperature is -1.0; expected a finite number of at least 0"),
        (lambda spec, p: exact.optimum(spec, math.nan), "temperature is nan"),
        (lambda spec, p: exact.optimum(spec, 0.0, p), "a reference needs a temperature above 0"),
        (lambda spec, p: exact.evaluate(spec, p).pass_at(0), "k is 0; expected a whole number"),
        (lambda spec, p: exact.evaluate(spec, p).pass_at(1.5), "k is 1.5; expected a whole number"),
        (lambda spec, p: exact.action_values(spec, p, of="luck"), "of is 'luck'; expected 'reward' or 'success'"),
        (lambda spec, p: exact.frontier(spec, p, torch.full((8,), 1.5)), r"outside \[0, 1\]"),
    ],
)
def test_errors_name_the_setting(call, message, random_policy):
    spec = make_spec("MultiCorrectBandit-v1", arms=4, contexts=8)
    with pytest.raises(ConfigError, match=message):
        call(spec, random_policy(spec))


def test_frontier_needs_a_verifiable_task(random_policy):
    spec = make_spec("NullBandit-v1")
    with pytest.raises(ConfigError, match="NullBandit-v1 has responses that are right only sometimes"):
        exact.wasted_drift(spec, random_policy(spec), random_policy(spec))
