"""The contract every registered policy keeps: gradients, independence of replicas, snapshots, continuation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from models.policy import Distortion, Episodes, Policy, Samples, make_policy, policies, policy_names
from testbed.errors import BatchError, ConfigError, UnknownNameError

MODELS = (
    "tabular",
    "low_rank(rank=2)",
    "transformer(layers=2,width=8,heads=2)",
    "moe(layers=2,width=8,heads=2,experts=3,active=2)",
    "moe(layers=2,width=8,heads=2,experts=3,active=1,replay='old')",
)
Make = Callable[..., Policy]
Draw = Callable[..., Samples]

every_model = pytest.mark.parametrize("name", MODELS)


def test_every_registered_policy_is_tested() -> None:
    registered_here = {name for name in policy_names() if policies[name].__module__.startswith("models.")}
    assert registered_here <= {name.partition("(")[0] for name in MODELS}


def weights_like(values: Tensor, seed: int) -> Tensor:
    return torch.randn(values.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_model
def test_sampled_numbers_are_those_of_evaluate(name: str, make: Make, draw: Draw) -> None:
    # Two routes to one number: token by token while sampling, and the whole response at once.
    policy = make(name)
    samples = draw(policy)
    assert samples.mask.any(-1).all()
    assert not samples.mask.all()  # early endings are among them
    log_probs, entropies = policy.evaluate(samples, entropies=True)
    assert entropies is not None
    assert samples.entropies is not None
    mask = samples.mask
    torch.testing.assert_close(samples.log_probs[mask], log_probs[mask], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(samples.entropies[mask], entropies[mask], rtol=1e-9, atol=1e-12)


@every_model
def test_first_tokens_have_the_frequencies_of_their_probabilities(name: str, make: Make, draw: Draw) -> None:
    policy = make(name, replicas=1)
    samples = draw(policy, sequences=8000)
    for prompt in (0, 1):
        tokens = samples.tokens[0, prompt::2, 0]
        for token in range(3):
            hit = tokens == token
            probability = float(samples.log_probs[0, prompt::2, 0][hit][0].exp())
            # 4000 draws: five standard errors of a share.
            error = 5 * (probability * (1 - probability) / 4000) ** 0.5
            assert float(hit.double().mean()) == pytest.approx(probability, abs=error)


@every_model
def test_gradient_against_central_differences(name: str, make: Make, draw: Draw) -> None:
    policy = make(name, replicas=1)
    samples = draw(policy)
    weights, entropy_weights = (weights_like(samples.log_probs, seed) * samples.mask for seed in (1, 2))

    def value() -> float:
        log_probs, entropies = policy.evaluate(samples, entropies=True)
        assert entropies is not None
        return float((weights * log_probs + entropy_weights * entropies).sum())

    policy.evaluate(samples, entropies=True)
    gradients = [gradient.clone() for gradient in policy.gradient(samples, weights, entropy_weights)]
    largest = 0.0
    for number, (parameter, gradient) in enumerate(zip(policy.parameters, gradients, strict=True)):
        direction = weights_like(parameter, 10 + number)
        direction /= direction.norm()
        expected = float((gradient * direction).sum())
        # Error of a central difference: O(h²) truncation and O(1e-16/h) rounding, both near 1e-10 at h = 1e-6.
        parameter.add_(direction, alpha=1e-6)
        above = value()
        parameter.add_(direction, alpha=-2e-6)
        below = value()
        parameter.add_(direction, alpha=1e-6)
        assert (above - below) / 2e-6 == pytest.approx(expected, rel=1e-6, abs=1e-7)
        largest = max(largest, abs(expected))
    assert largest > 1e-2


@every_model
def test_gradient_without_entropy_weights_is_that_with_zero_ones(name: str, make: Make, draw: Draw) -> None:
    policy = make(name)
    samples = draw(policy)
    weights = weights_like(samples.log_probs, 1) * samples.mask
    policy.evaluate(samples, entropies=True)
    with_zeros = [gradient.clone() for gradient in policy.gradient(samples, weights, torch.zeros_like(weights))]
    policy.evaluate(samples, entropies=True)
    without = policy.gradient(samples, weights, None)
    for first, second in zip(with_zeros, without, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-12)


@every_model
def test_a_replica_alone_equals_it_among_others(name: str, make: Make, draw: Draw) -> None:
    # Bit for bit: every product is a batched one, whose matrices do not meet.
    alone, among = make(name, replicas=1), make(name, replicas=3)
    first, batch = draw(alone), draw(among)
    for field in fields(Samples):
        one, many = getattr(first, field.name), getattr(batch, field.name)
        assert (one is None and many is None) or torch.equal(one, many[:1])
    weights = weights_like(batch.log_probs, 1)
    gradients = []
    for policy, samples in ((alone, first), (among, batch)):
        policy.evaluate(samples, entropies=True)
        rows = weights[: policy.shape[0]]
        gradients.append([gradient[:1].clone() for gradient in policy.gradient(samples, rows, rows)])
    for one, many in zip(*gradients, strict=True):
        assert torch.equal(one, many)


@every_model
def test_a_gradient_of_one_replica_leaves_the_others_alone(name: str, make: Make, draw: Draw) -> None:
    policy = make(name)
    samples = draw(policy)
    weights = samples.mask.double()
    weights[0] = 0
    policy.evaluate(samples, entropies=False)
    gradients = policy.gradient(samples, weights, None)
    assert all(not gradient[0].any() for gradient in gradients)
    assert any(gradient[1].any() for gradient in gradients)


@every_model
def test_a_snapshot_and_its_policy_do_not_share_parameters(name: str, make: Make, draw: Draw) -> None:
    policy = make(name)
    samples = draw(policy)
    before, _ = policy.evaluate(samples, entropies=False)
    before = before.clone()
    snapshot = policy.snapshot()
    for parameter in policy.parameters:
        parameter.add_(torch.arange(parameter.shape[-1], dtype=torch.float64))
    changed, _ = policy.evaluate(samples, entropies=False)
    kept, _ = snapshot.evaluate(samples, entropies=False)
    assert torch.equal(kept, before)
    assert not torch.allclose(changed, before)
    for parameter in snapshot.parameters:
        parameter.zero_()
    assert torch.equal(policy.evaluate(samples, entropies=False)[0], changed)


@every_model
def test_sampling_is_bitwise_reproducible(name: str, make: Make, draw: Draw) -> None:
    first, second = draw(make(name)), draw(make(name))
    for field in fields(Samples):
        one, other = getattr(first, field.name), getattr(second, field.name)
        assert (one is None and other is None) or torch.equal(one, other)


@every_model
@pytest.mark.parametrize("cut", [1, 3])
def test_a_response_continued_by_its_own_writer_is_the_whole_response(
    name: str, cut: int, make: Make, draw: Draw
) -> None:
    policy = make(name)
    whole = draw(policy)
    parts = draw(policy, prefix=draw(policy, horizon=cut))
    for field in fields(Samples):
        one, other = getattr(whole, field.name), getattr(parts, field.name)
        if one is None:
            assert other is None
        elif one.is_floating_point():
            torch.testing.assert_close(one[whole.mask], other[whole.mask], rtol=1e-9, atol=1e-12)
        elif field.name == "routing":
            assert torch.equal(one[whole.mask], other[whole.mask])
        else:
            assert torch.equal(one, other)


@every_model
def test_a_newer_policy_continues_with_its_own_log_probs(name: str, make: Make, draw: Draw) -> None:
    older, newer = make(name), make(name)
    for number, parameter in enumerate(newer.parameters):
        parameter.add_(weights_like(parameter, number))
    start = draw(older, horizon=2)
    mixed = draw(newer, prefix=start)
    assert torch.equal(mixed.tokens[..., :2], start.tokens)
    by_older, _ = older.evaluate(mixed, entropies=False)
    by_newer, _ = newer.evaluate(mixed, entropies=False)
    early, late = mixed.mask[..., :2], mixed.mask[..., 2:]
    assert late.any()
    torch.testing.assert_close(mixed.log_probs[..., :2][early], by_older[..., :2][early], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(mixed.log_probs[..., 2:][late], by_newer[..., 2:][late], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(by_older[..., 2:][late], by_newer[..., 2:][late])


@every_model
def test_noise_on_log_probs_is_that_of_the_state(name: str, make: Make, draw: Draw) -> None:
    # Noise so large on one token of every state that it is always drawn; the sampler then reports log(1) = 0.
    policy = make(name)
    noise = torch.zeros(policy.shape, dtype=torch.float64)
    noise[:, ::2, 0] = noise[:, 1::2, 1] = 1e3
    samples = draw(policy, distortion=Distortion(noise=noise))
    assert torch.equal(samples.tokens[samples.mask], (samples.states % 2)[samples.mask])
    assert float(samples.log_probs[samples.mask].abs().max()) == 0
    # The policy itself did not change.
    assert float(policy.recompute(samples, entropies=False).log_probs[samples.mask].max()) < -1e-3


def test_rounded_logits(draw: Draw) -> None:
    # 1 + 2^-9 rounds to 1 in bfloat16 (seven fraction bits), so both tokens of the pair become equally likely.
    logits = torch.tensor([1.0, 1 + 2**-9, -50.0], dtype=torch.float64).expand(1, 6, 3)
    rounded = Distortion(dtype=torch.bfloat16)
    samples = draw(make_policy("tabular", logits), distortion=rounded)
    torch.testing.assert_close(samples.log_probs.exp(), torch.full_like(samples.log_probs, 0.5), rtol=1e-12, atol=0)
    assert rounded.of_rows(logits[:, :2], torch.tensor([[0, 1]]))[0].tolist() == [[1.0, 1.0, -50.0]] * 2


@pytest.mark.parametrize("name", MODELS[2:])
def test_a_sampler_with_rounded_logits_reports_rounded_probabilities(name: str, make: Make, draw: Draw) -> None:
    policy = make(name)
    samples = draw(policy, distortion=Distortion(dtype=torch.bfloat16))
    recomputed = policy.recompute(samples, entropies=False)
    gap = (samples.log_probs - recomputed.log_probs)[samples.mask].abs()
    # Logits here are below 8 in size: half a unit in the last of eight bits is 2^-6 at most, and two logits matter.
    assert 1e-5 < float(gap.max()) < 2 * 2**-6


def test_one_update_on_one_prompt_moves_the_other_only_where_parameters_are_shared(make: Make, draw: Draw) -> None:
    # One pass without reuse: mini-batches over prompts. The ratio on prompt 1 after an update on prompt 0 is 1 for a
    # table, and is not for shared parameters. States of the two prompts overlap from the second token on, so look at
    # the first.
    for name, moved in zip(MODELS, (False, True, True, True, True), strict=True):
        policy = make(name)
        samples = draw(policy)
        before, _ = policy.evaluate(samples, entropies=False)
        weights = torch.zeros_like(before)
        weights[:, ::2, 0] = 1.0
        for parameter, gradient in zip(policy.parameters, policy.gradient(samples, weights, None), strict=True):
            parameter.add_(gradient, alpha=0.1)
        after, _ = policy.evaluate(samples, entropies=False)
        ratios = (after - before)[:, 1::2, 0].exp()
        assert bool((ratios != 1).any()) is moved, name
        if moved:
            assert float((ratios - 1).abs().max()) > 1e-3, name
        assert bool((after != before)[:, ::2, 0].any())


@pytest.mark.parametrize("name", MODELS[2:])
def test_probabilities_of_all_responses_sum_to_one(name: str, make: Make) -> None:
    policy = make(name)
    total = torch.zeros(policy.shape[0], dtype=torch.float64)
    for tokens in itertools.product(range(3), repeat=3):
        log_prob = torch.zeros_like(total)
        for position, token in enumerate(tokens):
            prefix = torch.tensor([tokens[:position]], dtype=torch.int64).view(1, position)
            log_prob += policy.next_log_probs(torch.tensor([1]), prefix)[:, 0, token]
        total += log_prob.exp()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", MODELS[2:])
def test_next_log_probs_are_those_of_evaluate(name: str, make: Make, draw: Draw) -> None:
    policy = make(name.replace(",replay='old'", ""), replicas=1)
    samples = draw(policy)
    log_probs, _ = policy.evaluate(samples, entropies=False)
    for position in range(samples.tokens.shape[-1]):
        rows = policy.next_log_probs(samples.states[0, :, 0], samples.tokens[0, :, :position])
        chosen = rows.gather(-1, samples.tokens[..., position, None]).squeeze(-1)
        torch.testing.assert_close(chosen, log_probs[..., position], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "logits", "message"),
    [
        ("tabular", torch.zeros(3, 4), r"logits has shape \(3, 4\).*replicas, states, vocabulary"),
        ("transformer", torch.zeros(1, 3, 4, dtype=torch.int64), "logits has shape.*int64.*floating-point"),
        ("low_rank", torch.full((1, 2, 2), torch.nan), "logits holds NaN"),
        ("low_rank(rank=0)", torch.zeros(1, 2, 2), "rank is 0.*at least 1"),
        ("low_rank(width=3)", torch.zeros(1, 2, 2), "low_rank.*width.*Its settings: rank, seed"),
        ("transformer(width=10,heads=4)", torch.zeros(1, 2, 2), "width is 10 with 4 heads"),
        ("transformer(layers=0)", torch.zeros(1, 2, 2), "layers is 0.*at least 1"),
        ("transformer(pretraining=-1)", torch.zeros(1, 2, 2), "pretraining is -1"),
        ("moe(experts=2,active=3)", torch.zeros(1, 2, 2), "active is 3.*experts, 2"),
        ("moe(replay='new')", torch.zeros(1, 2, 2), "replay is 'new'.*'old' or 'sampler'"),
    ],
)
def test_bad_settings(name: str, logits: Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy(name, logits)


def test_an_unknown_model_is_told_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'transformer'"):
        make_policy("transfrmer", torch.zeros(1, 2, 2))


@pytest.mark.parametrize(
    "name", ["low_rank(rank=99999999999)", "transformer(width=99999999999)", "moe(experts=99999999999)"]
)
def test_sizes_beyond_reason_are_refused_before_memory_is_asked_for(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is 9+.*; expected at most 1,024, these are toy policies"):
        make_policy(name, torch.zeros(1, 2, 2))


def test_a_prompt_outside_the_embedding_is_an_error() -> None:
    policy = make_policy("transformer(width=8)", torch.zeros(1, 3, 2))
    with pytest.raises(BatchError, match=r"initial_states holds 3; expected states in 0\.\.2"):
        policy.next_log_probs(torch.tensor([3]), torch.empty(1, 0, dtype=torch.int64))


def test_samples_of_other_replicas_are_an_error(make: Make, draw: Draw) -> None:
    samples = draw(make(MODELS[2], replicas=3))
    policy = make(MODELS[2], replicas=2)
    with pytest.raises(BatchError, match=r"samples.tokens has shape \(3, 6, 4\); expected 2 replicas"):
        policy.evaluate(samples, entropies=False)


def test_a_policy_that_starts_from_its_constructor_needs_no_environment() -> None:
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name in ("tabular", "low_rank(rank=3)"):
        policy = make_policy(name, logits, Episodes(torch.tensor([0]), lambda states, tokens: states, 2))
        log_policy = policy.log_policy()
        assert log_policy is not None
        torch.testing.assert_close(log_policy, logits.log_softmax(-1), rtol=1e-12, atol=1e-14)
