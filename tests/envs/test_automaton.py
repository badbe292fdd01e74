from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from envs import automaton
from envs.automaton import TERMINAL, Automaton, Ending, unfold
from testbed.errors import ConfigError


def chain(**changes):
    """Two layers of one state: tokens 0 and 1, then the end."""
    tables = {
        "name": "Chain-v1",
        "transitions": torch.tensor([[1, 1], [TERMINAL, TERMINAL]]),
        "initial_states": torch.tensor([0]),
        "rewards": torch.tensor([[0.0, 0.0], [0.25, 1.0]], dtype=torch.float64),
        "success": torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=torch.float64),
        "initial_logits": torch.zeros(2, 2, dtype=torch.float64),
    }
    return Automaton(**(tables | changes))


def test_sizes():
    spec = chain()
    assert (spec.states, spec.vocabulary, spec.prompts, spec.horizon) == (2, 2, 1, 2)
    assert spec.layers == (slice(0, 1), slice(1, 2))
    assert spec.replica_shape == ()


def test_step_follows_the_table():
    states, tokens = torch.tensor([[0, 1], [0, 1]]), torch.tensor([[0, 1], [1, 0]])
    assert chain().step(states, tokens).tolist() == [[1, TERMINAL], [1, TERMINAL]]


def test_for_seeds_repeats_what_is_not_random():
    spec = chain().for_seeds([3, 1])
    assert spec.replica_shape == (2,)
    assert torch.equal(spec.rewards[0], spec.rewards[1])


def test_deterministic_reward_is_its_expectation():
    states, tokens = torch.tensor([1, 1]), torch.tensor([0, 1])
    assert chain().draw_rewards(states, tokens, torch.tensor([0.9, 0.9])).tolist() == [0.25, 1.0]


def test_bernoulli_reward_is_one_below_its_probability():
    states, tokens = torch.tensor([1, 1, 1]), torch.tensor([0, 0, 1])
    drawn = chain(reward_kind="bernoulli").draw_rewards(states, tokens, torch.tensor([0.2499, 0.25, 0.9999]))
    assert drawn.tolist() == [1.0, 0.0, 1.0]


def test_gaussian_reward_has_normal_quantiles():
    # Φ(1) = 0.8413447460685429: this uniform lies one standard deviation above the mean of 0.25; 0.5 lies on it.
    spec = chain(reward_kind="gaussian", reward_scale=2.0)
    uniforms = torch.tensor([0.8413447460685429, 0.5, 0.0], dtype=torch.float64)
    drawn = spec.draw_rewards(torch.tensor([1, 1, 1]), torch.tensor([0, 0, 0]), uniforms)
    torch.testing.assert_close(drawn[:2], torch.tensor([2.25, 0.25], dtype=torch.float64), rtol=1e-9, atol=1e-9)
    assert torch.isfinite(drawn[2])


def test_draws_use_each_replica_s_own_table():
    spec = chain(
        rewards=torch.stack([torch.zeros(2, 2), torch.ones(2, 2)]).double(),
        success=torch.zeros(2, 2, 2).double(),
        initial_logits=torch.zeros(2, 2, 2).double(),
    )
    ones = torch.ones(2, 3, dtype=torch.int64)
    assert spec.draw_rewards(ones, ones, torch.zeros(2, 3)).tolist() == [[0.0] * 3, [1.0] * 3]


def test_success_of_a_bernoulli_reward_is_the_reward():
    spec = chain(reward_kind="bernoulli", success=chain().rewards)
    uniforms = torch.rand(500, generator=torch.Generator().manual_seed(0))
    states, tokens = torch.ones(500, dtype=torch.int64), torch.zeros(500, dtype=torch.int64)
    success = spec.draw_success(states, tokens, uniforms)
    assert torch.equal(success.double(), spec.draw_rewards(states, tokens, uniforms))
    assert 0 < success.sum() < 500


def test_unfold_shares_states_within_a_layer_only():
    # The parity of two bits: two keys after one bit, and the key 0 of depth 0 is not the key 0 of depth 1.
    found = unfold([0], 2, lambda key, token, depth: Ending(key ^ token, 0.0) if depth else key ^ token)
    assert found.keys == (0, 0, 1)
    assert found.transitions.tolist() == [[1, 2], [TERMINAL] * 2, [TERMINAL] * 2]
    assert found.rewards.tolist() == [[0, 0], [0, 1], [1, 0]]


def test_unfold_lets_prompts_share_a_state():
    found = unfold(["same", "other", "same"], 2, lambda key, token, depth: Ending(0.0, 0.0))
    assert found.initial_states.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transitions": torch.tensor([[1, 2], [-1, -1]])}, r"transitions\[0, 1\] is 2; expected a state in 0..1"),
        ({"transitions": torch.tensor([[1, -2], [-1, -1]])}, r"transitions\[0, 1\] is -2"),
        (
            {"transitions": torch.tensor([[1.0, 1.0], [-1.0, -1.0]])},
            "transitions has shape .* expected a non-empty int64",
        ),
        ({"transitions": torch.tensor([[1, 1], [1, -1]])}, "must lead from layer to layer"),
        ({"transitions": torch.tensor([[-1, -1], [-1, -1]])}, "1 of 2 states cannot be reached"),
        ({"initial_states": torch.tensor([1])}, "states must be numbered by depth"),
        ({"initial_states": torch.tensor([], dtype=torch.int64)}, "initial_states has shape"),
        ({"initial_states": torch.tensor([0, 7])}, r"initial_states\[1\] is 7; expected a state in 0..1"),
        ({"rewards": torch.tensor([[0.0, 0.0], [float("nan"), 1.0]]).double()}, "rewards holds NaN or infinity"),
        ({"rewards": torch.zeros(2, 3).double()}, r"rewards has shape \(2, 3\); expected \(..., 2, 2\)"),
        ({"success": torch.zeros(4, 2, 2).double()}, r"success has shape \(4, 2, 2\)"),
        ({"success": torch.full((2, 2), 1.5).double()}, r"success holds a value outside \[0, 1\]"),
        ({"initial_logits": torch.full((2, 2), float("inf")).double()}, "initial_logits holds NaN or infinity"),
        ({"reward_kind": "bernoulli", "rewards": torch.full((2, 2), 2.0).double()}, "rewards holds a value outside"),
        ({"reward_kind": "poisson"}, "reward_kind is 'poisson'; expected one of bernoulli, gaussian, deterministic"),
        (
            {"reward_kind": "gaussian", "reward_scale": -1.0},
            "reward_scale is -1.0; expected a finite number of at least 0",
        ),
        ({"token_texts": ("a",)}, "token_texts has 1 entries; expected 2 or none"),
    ],
)
def test_rejects(changes, message):
    with pytest.raises(ConfigError, match=message):
        chain(**changes)


def test_error_names_the_environment():
    with pytest.raises(ConfigError, match=re.escape("Chain-v1: success")):
        replace(chain(), success=torch.full((2, 2), -0.5).double())


def test_unfold_stops_before_a_table_that_does_not_fit(monkeypatch):
    # A counter without end: after t tokens t+1 states with 2 tokens each, one too many at the sixth.
    monkeypatch.setattr(automaton, "MOST_TRANSITIONS", 10)
    with pytest.raises(ConfigError, match="after 5 tokens there are 6 states with 2 tokens each; expected at"):
        unfold([0], 2, lambda key, token, depth: key + 1)
