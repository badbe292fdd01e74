from __future__ import annotations

import math

import pytest
import torch

from envs import exact, make_spec, prefix_tree
from testbed.errors import BatchError, ConfigError


def echo(prompts, prefixes):
    """Repeats its last token with probability 3/4; the first token is a fair coin."""
    if prefixes.shape[1] == 0:
        return torch.full((len(prompts), 2), 0.5, dtype=torch.float64).log()
    repeated = torch.nn.functional.one_hot(prefixes[:, -1], 2).double()
    return (0.25 + 0.5 * repeated).log()


def test_policy_with_memory_by_hand():
    # Sum of two bits even: 00 or 11, each 1/2 · 3/4. A table over running sums could not do this from one token on.
    spec = make_spec("ModularSum-v1", prompts=1, length=2, vocabulary=2, modulus=2)
    result = prefix_tree.evaluate(spec, echo)
    assert result.value == pytest.approx(3 / 4, rel=1e-15)
    per_token = -(3 / 4 * math.log(3 / 4) + 1 / 4 * math.log(1 / 4))
    assert result.entropy == pytest.approx(math.log(2) + per_token, rel=1e-15)


def test_memory_is_what_a_table_over_states_lacks():
    # Three bits: 000, 110, 101, 011 are even: ½(9/16 + 3/16 + 1/16 + 3/16) = 1/2.
    spec = make_spec("ModularSum-v1", prompts=1, length=3, vocabulary=2, modulus=2)
    result = prefix_tree.evaluate(spec, echo)
    assert result.value == pytest.approx(1 / 2, rel=1e-15)
    # Σ π(y)²: two responses each with 9/32, 3/32, 1/32, 3/32.
    assert result.collision == pytest.approx(2 * (81 + 9 + 1 + 9) / 1024, rel=1e-15)


def test_policy_is_asked_once_per_depth_and_sees_prompts():
    asked = []

    def uniform(prompts, prefixes):
        asked.append((prompts.unique().tolist(), tuple(prefixes.shape)))
        return torch.full((len(prompts), 3), 1 / 3, dtype=torch.float64).log()

    spec = make_spec("Copy-v1", prompts=2, length=3, vocabulary=3)
    assert prefix_tree.evaluate(spec, uniform).value == pytest.approx(1 / 27, rel=1e-14)
    assert asked == [([0, 1], (2, 0)), ([0, 1], (6, 1)), ([0, 1], (18, 2))]


def test_prefixes_are_the_paths_to_their_states():
    spec = make_spec("VariableLength-v1", prompts=2, length=3, vocabulary=4)
    tree = prefix_tree.unroll(spec)
    for layer, prefixes in zip(tree.spec.layers, tree.prefixes, strict=True):
        for index, prefix in enumerate(prefixes.tolist(), start=layer.start):
            state = int(spec.initial_states[tree.prompts[index]])
            for token in prefix:
                state = int(spec.transitions[state, token])
            assert state == int(tree.origins[index])


def test_several_policies_at_once():
    spec = make_spec("Lock-v1", length=2, vocabulary=2)
    rates = torch.tensor([0.5, 0.9], dtype=torch.float64)

    def biased(prompts, prefixes):
        row = torch.stack([rates, 1 - rates], -1)
        return row.log().unsqueeze(-2).expand(-1, len(prompts), -1)

    ones = sum(token == 1 for token in _password(spec))
    expected = rates ** (2 - ones) * (1 - rates) ** ones
    torch.testing.assert_close(prefix_tree.evaluate(spec, biased).value, expected, rtol=1e-14, atol=0.0)


def _password(spec):
    best = exact.optimum(spec).log_policy.argmax(-1)
    state, password = int(spec.initial_states[0]), []
    while state >= 0:
        password.append(int(best[state]))
        state = int(spec.transitions[state, password[-1]])
    return password


def test_sequence_tv_by_hand():
    # Two independent fair bits against two that are 1 with 3/4: ½(3/16 + 1/16 + 1/16 + 5/16) = 5/16; per token 1/4.
    spec = make_spec("Lock-v1", length=2, vocabulary=2)
    p = torch.full((spec.states, 2), 0.5, dtype=torch.float64).log()
    q = torch.tensor([0.25, 0.75], dtype=torch.float64).log().expand(spec.states, 2)
    assert prefix_tree.sequence_tv(spec, p, q) == pytest.approx(5 / 16, rel=1e-14)
    assert exact.tv(spec, p, q) == pytest.approx(1 / 4, rel=1e-14)
    assert prefix_tree.sequence_tv(spec, p, p) == 0.0


def test_sequence_tv_of_one_token_is_tv(random_policy):
    spec = make_spec("RareArm-v1", arms=9, contexts=4).for_seeds([0, 1])
    p, q = random_policy(spec, 2, seed=1), random_policy(spec, 2, seed=2)
    torch.testing.assert_close(prefix_tree.sequence_tv(spec, p, q), exact.tv(spec, p, q), rtol=1e-13, atol=0.0)


def test_counts():
    # Per prompt: 1 + 4 + 16 + 64 prefixes before the fourth token, 4^4 responses.
    spec = make_spec("ModularSum-v1", prompts=3, length=4, vocabulary=4, modulus=2)
    assert prefix_tree.count_responses(spec) == 3 * 4**4
    assert prefix_tree.count_prefixes(spec) == prefix_tree.unroll(spec).spec.states == 3 * (1 + 4 + 16 + 64)
    # Beyond 64 bits.
    assert prefix_tree.count_responses(make_spec("ModularSum-v1", length=32)) == 4 * 16**32


def test_refuses_what_would_not_fit():
    spec = make_spec("ModularSum-v1", prompts=1, length=12, vocabulary=16)
    with pytest.raises(ConfigError, match=r"has 281,474,976,710,656 responses.*For a tabular policy use envs.exact"):
        prefix_tree.unroll(spec)


def test_guard_counts_replicas():
    spec = make_spec("Copy-v1", length=4, vocabulary=8).for_seeds(range(300))
    with pytest.raises(ConfigError, match="table entries, more than the limit"):
        prefix_tree.unroll(spec)


def test_rejects_policies_of_the_wrong_shape():
    spec = make_spec("Lock-v1", length=3, vocabulary=2)
    with pytest.raises(BatchError, match=r"returned shape \(1, 3\) for 1 prefixes of 0 tokens; expected \(..., 1, 2\)"):
        prefix_tree.evaluate(spec, lambda prompts, prefixes: torch.zeros(len(prompts), 3))


def test_rejects_tables_of_the_wrong_shape():
    spec = make_spec("Lock-v1", length=3, vocabulary=2)
    table = torch.full((2, 2), 0.5).log()
    with pytest.raises(BatchError, match=r"the table has shape \(2, 2\); expected \(..., 5, 2\)"):
        prefix_tree.sequence_tv(spec, table, table)
