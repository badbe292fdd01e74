from __future__ import annotations

import pytest
import torch

from analysis.theory.gradient_weights import Tokens, gradient_weight
from analysis.theory.population_update import gated_advantages, population_update
from envs import exact, make_spec
from testbed.errors import ConfigError
from testbed.objectives import make_objective


def tables(*shape, drift=0.6):
    generator = torch.Generator().manual_seed(3)
    start, move, advantages = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    return (start + drift * move).log_softmax(-1), start.log_softmax(-1), advantages


@pytest.mark.parametrize("name", ["ppo", "dapo", "ce_gppo", "dcpo", "sapo", "erc", "cispo"])
def test_gate_is_the_published_weight(name):
    # The closed forms in numpy, which share no code with the losses.
    new, old, advantages = tables(2, 5, 4)
    flat = [table.reshape(-1, 1).numpy() for table in (new, old, advantages)]
    entropies = [
        -(table.exp() * table).sum(-1, keepdim=True).expand_as(table).reshape(-1, 1).numpy() for table in (new, old)
    ]
    tokens = Tokens(flat[0], flat[1], flat[2], flat[2] == flat[2], *entropies)
    expected = gradient_weight(name, tokens).reshape(2, 5, 4) * advantages.numpy() / (new - old).exp().numpy()
    found = gated_advantages(name, new, old, advantages)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-12, atol=1e-14)
    assert not torch.allclose(found, advantages)


def test_replicas_are_independent():
    spec = make_spec("VariableLength-v1", length=3, vocabulary=3, prompts=2)
    new, old, advantages = tables(3, spec.states, spec.vocabulary)
    together = population_update("dapo", spec, new, old, advantages)
    for replica in range(3):
        alone = population_update("dapo", spec, new[replica], old[replica], advantages[replica])
        torch.testing.assert_close(together[replica], alone, rtol=1e-12, atol=1e-15)


def test_the_advantage_of_an_open_gate_needs_no_baseline():
    # REINFORCE off policy: F = 1, x = A/r, and the mean is d_q (q A - π Σ q A) with A = Q - V, Σ q A = 0.
    spec = make_spec("ModularSum-v1", prompts=2, length=3, vocabulary=4, modulus=2)
    new, old, _ = tables(spec.states, spec.vocabulary)
    values = exact.action_values(spec, old)
    advantages = values - (old.exp() * values).sum(-1, keepdim=True)
    visits = exact.evaluate(spec, old).occupancy.unsqueeze(-1)
    found = population_update("reinforce", spec, new, old)
    torch.testing.assert_close(found, visits * old.exp() * advantages, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gspo", "depends on the rest of the response"),
        ("gmpo", "depends on the rest of the response"),
        ("kl_cov", "statistic of the whole batch"),
        ("reference_kl", "reads ref_log_probs"),
        ("entropy_bonus", "does not pass through"),
    ],
)
def test_refuses_what_is_no_objective_of_single_tokens(name, message):
    with pytest.raises(ConfigError, match=message):
        gated_advantages(name, *tables(5, 4))


def test_refusal_names_the_objective():
    with pytest.raises(ConfigError, match=r"luspo has no population update"):
        gated_advantages(make_objective("luspo"), *tables(5, 4))
