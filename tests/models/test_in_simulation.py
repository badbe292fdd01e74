"""Every model inside the training loop: whole runs, exact metrics, mismatch and partial rollouts."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pandas as pd
import pytest
import torch

from envs import make_spec
from models import make_policy
from testbed.errors import ConfigError
from testbed.objectives import make_objective
from testbed.simulation import SimulationWarning, simulate
from testbed.simulation.measurement import ExactMeasurement
from testbed.simulation.settings import Settings
from testbed.simulation.training import Training

ENV = "ModularSum-v1(length=3,prompts=2,vocabulary=3,modulus=3)"
MODELS = (
    "tabular",
    "low_rank(rank=4)",
    "transformer(layers=1,width=8,pretraining=5)",
    "moe(layers=1,width=8,experts=3,active=1,pretraining=5)",
    "moe(layers=1,width=8,experts=3,active=1,replay='old',pretraining=5)",
)
SMALL: dict[str, Any] = {"seeds": 2, "steps": 3, "group_size": 8, "epochs": 2}


@functools.cache
def plain_run(model: str) -> pd.DataFrame:
    return simulate("dapo", ENV, model=model, **SMALL).table


@pytest.mark.parametrize("model", MODELS)
def test_a_run_is_bitwise_reproducible_and_a_seed_does_not_depend_on_the_others(model: str) -> None:
    first, again = plain_run(model), simulate("dapo", ENV, model=model, **SMALL).table
    assert first.equals(again)
    alone = simulate("dapo", ENV, model=model, **SMALL | {"seeds": 1}).table
    among = first[first["seed"] == 0].reset_index(drop=True)
    assert among.equals(alone)
    assert first["exact/return"].notna().all()
    assert (first.loc[first["step"] == 3, "exact/kl_initial"] > 1e-6).all()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "setting",
    [
        {"mismatch": "bf16"},
        {"mismatch": "noise(scale=0.2)"},
        {"mismatch": "stale(iterations=1)"},
        {"mismatch": "router(scale=0.5)"},
        {"partial": 1},
        {"partial": 2, "staleness": 1},
    ],
    ids=str,
)
def test_settings_of_the_sampler(model: str, setting: dict[str, Any]) -> None:
    if "router" in str(setting) and not model.startswith("moe"):
        with pytest.raises(ConfigError, match="has no router"):
            simulate("dapo", ENV, model=model, **SMALL, **setting)
        return
    plain = plain_run(model)
    table = simulate("dapo", ENV, model=model, **SMALL, **setting).table
    for name in ("exact/return", "exact/kl_cumulative"):
        assert table[name].notna().all()
    assert table.loc[table["step"] > 0, "kl/sampler"].notna().all() == ("mismatch" in setting)
    # Rounding to eight bits may leave every drawn token as it was.
    if setting != {"mismatch": "bf16"}:
        assert not table["gradient/norm"].equals(plain["gradient/norm"])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("setting", [{}, {"mismatch": "bf16"}, {"partial": 2}], ids=str)
def test_responses_of_different_lengths(model: str, setting: dict[str, Any]) -> None:
    table = simulate("erc", "VariableLength-v1", model=model, **SMALL, **setting).table
    last = table[table["step"] == 3]
    assert last["gradient/norm"].gt(0).all()
    assert last["ratio/log_abs_mean"].gt(0).all()


def test_a_number_is_noise_of_that_scale() -> None:
    one, other = (simulate("dapo", ENV, mismatch=given, **SMALL).table for given in (0.3, "noise(scale=0.3)"))
    assert one.equals(other)


def test_learning_improves_a_transformer() -> None:
    run = simulate(
        "dapo", ENV, model="transformer(layers=1,width=16,pretraining=50)", seeds=4, steps=40, learning_rate=0.5
    )
    start, end = (run.table.loc[run.table["step"] == step, "exact/return"].mean() for step in (0, 40))
    assert end > start + 0.2


def test_exact_metrics_of_a_transformer_against_all_responses() -> None:
    spec = make_spec("ModularSum-v1", length=2, prompts=2, vocabulary=3, modulus=3).for_seeds([0, 1])
    logits = torch.zeros(2, spec.states, 3, dtype=torch.float64)
    policy = make_policy("transformer(width=8)", logits)
    for parameter in policy.parameters:
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.5)
    metrics = ExactMeasurement(spec, policy).after(policy, every_step=True)
    value, entropy = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for prompt, (first, second) in itertools.product(range(2), itertools.product(range(3), repeat=2)):
        initial = spec.initial_states[prompt : prompt + 1]
        log_prob = policy.next_log_probs(initial, torch.empty(1, 0, dtype=torch.int64))[:, 0, first]
        log_prob = log_prob + policy.next_log_probs(initial, torch.tensor([[first]]))[:, 0, second]
        state = spec.step(initial, torch.tensor([first]))
        value += log_prob.exp() * spec.rewards[:, state, second].squeeze(-1) / 2
        entropy -= log_prob.exp() * log_prob / 2
    torch.testing.assert_close(metrics["exact/return"], value, rtol=1e-9, atol=0)
    torch.testing.assert_close(metrics["exact/entropy"], entropy, rtol=1e-9, atol=0)
    torch.testing.assert_close(metrics["exact/kl_initial"], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_tree_too_large_leaves_exact_metrics_out() -> None:
    spec = make_spec("ModularSum-v1", length=9, vocabulary=4, modulus=2).for_seeds([0])
    policy = make_policy("transformer(width=8)", spec.initial_logits)
    assert ExactMeasurement(spec, policy).after(policy, every_step=True) == {}


@pytest.mark.parametrize(("partial", "staleness"), [(None, 0), (None, 2), (2, 0), (3, 1), (1, 1)])
def test_every_token_carries_the_log_prob_of_its_writer(partial: int | None, staleness: int) -> None:
    spec = make_spec("ModularSum-v1", length=4, vocabulary=3, modulus=3, prompts=2).for_seeds([0])
    policy = make_policy("transformer(layers=1,width=8,pretraining=0)", spec.initial_logits)
    settings = Settings(group_size=2, partial=partial, staleness=staleness)
    training = Training(make_objective("grpo"), spec, policy, settings, [0], 0)
    segment = partial or 4
    writers = -(-4 // segment)
    past = []
    for rollout in range(6):
        past.append(policy.snapshot())
        uniforms = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(rollout), dtype=torch.float64)
        samples, sampler_log_probs, _ = training._rollout(uniforms)
        assert sampler_log_probs is None
        for position in range(4):
            # The last writer is the policy of `staleness` rollouts ago, each earlier segment's is one rollout older.
            age = staleness + writers - 1 - position // segment
            writer = past[max(0, rollout - age)]
            expected = writer.evaluate(samples, entropies=False)[0][..., position]
            torch.testing.assert_close(samples.log_probs[..., position], expected, rtol=1e-9, atol=1e-12)
        for number, parameter in enumerate(policy.parameters):
            generator = torch.Generator().manual_seed(100 * rollout + number)
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype), alpha=0.2)


def test_the_denominator_is_the_trainers_and_the_sampler_is_kept_beside_it() -> None:
    spec = make_spec("ModularSum-v1", length=3, vocabulary=3, modulus=3).for_seeds([0, 1])
    policy = make_policy("tabular", spec.initial_logits)
    training = Training(make_objective("grpo"), spec, policy, Settings(group_size=2, mismatch=1.0), [0, 1], 0)
    uniforms = torch.rand(2, 2 * spec.prompts, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples, sampler_log_probs, _ = training._rollout(uniforms)
    assert sampler_log_probs is not None
    assert torch.equal(samples.log_probs, policy.evaluate(samples, entropies=False)[0])
    assert float((samples.log_probs - sampler_log_probs).abs().max()) > 0.1


@pytest.mark.parametrize("model", MODELS)
def test_one_update_per_rollout_cannot_tell_objectives_apart(model: str) -> None:
    # A policy with a cache computes a sample's probability by two routes; rounding must not pass for a ratio.
    with pytest.warns(SimulationWarning, match="every probability ratio"):
        simulate("dapo", ENV, model=model, **SMALL | {"epochs": 1})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"partial": 0}, "partial is 0; expected a whole number of tokens"),
        ({"partial": 1.5}, "partial is 1.5"),
        ({"partial": 1, "mismatch": 0.1}, "partial is 1 and mismatch is 0.1"),
        ({"mismatch": "noise(scale=-1)"}, "scale is -1"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0"),
    ],
)
def test_bad_settings(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**setting)


def test_episodes_reach_the_policy_through_simulate() -> None:
    # Row 0 of a pre-trained transformer is near the environment's initial policy, that of a table is the policy.
    exactly, nearly, uniform = (
        simulate("dapo", ENV, model=model, **SMALL | {"steps": 1}).table.iloc[0]["exact/entropy"]
        for model in ("tabular", "transformer(layers=1,width=16,pretraining=200)", "transformer(pretraining=0)")
    )
    assert abs(nearly - exactly) < 0.1 * abs(uniform - exactly)
