"""Fast paths against the paths they replace, and numbers that do not depend on how the replicas were cut."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from envs import make_spec
from models import make_policy
from testbed import TokenBatch
from testbed.objectives import Objective, make_objective, objective_names
from testbed.objectives.ppo import PPO
from testbed.simulation import simulate
from testbed.simulation.gradients import LossGradient
from testbed.simulation.settings import Settings
from testbed.simulation.training import Training

R, B, T = 3, 16, 5
CLOSED = [name for name in objective_names() if make_objective(name).has_closed_form]


def random_batch(make: Callable[..., TokenBatch] = TokenBatch, *, padded: bool = True) -> TokenBatch:
    """Ratios from e^-30 to e^30 around 1 and every sign of advantage; some responses are shorter than others."""
    generator = torch.Generator().manual_seed(0)

    def normal(scale: float = 1.0) -> Tensor:
        return scale * torch.randn(R, B, T, generator=generator, dtype=torch.float64)

    old = -normal().exp()
    far = torch.rand(R, B, T, generator=generator) < 0.1
    log_probs = old + torch.where(far, normal(20.0), normal(0.4))
    advantages = normal()[..., 0]
    advantages[:, 0] = 0.0
    lengths = torch.randint(1, T + 1, (R, B, 1), generator=generator) if padded else T
    entropies = normal().abs()
    return make(
        log_probs=log_probs,
        old_log_probs=old,
        advantages=advantages,
        mask=(torch.arange(T) < lengths).expand(R, B, T),
        entropies=entropies * (1 + normal(0.05)),
        old_entropies=entropies,
        ref_log_probs=old - 0.1,
        sampler_log_probs=old + 0.1,
    )


def variants(name: str) -> list[Objective]:
    """The defaults, a hyper-parameter of its own for every replica, and a dual clip where there is one."""
    found = [make_objective(name)]
    if hasattr(found[0], "clip_low"):
        found.append(make_objective(name, clip_low=torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).view(R, 1, 1)))
    if hasattr(found[0], "dual_clip"):
        found.append(make_objective(name, dual_clip=3.0))
    return found


def test_the_common_objectives_have_a_closed_form() -> None:
    assert set(CLOSED) >= {"ppo", "grpo", "dapo", "dr_grpo", "gppo", "ce_gppo", "sapo", "dcpo", "erc", "reinforce"}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", CLOSED)
def test_closed_form_equals_automatic_differentiation(name: str, padded: bool) -> None:
    batch = random_batch(padded=padded)
    for objective in variants(name):
        weights, entropy_weights = LossGradient(objective)(batch)
        expected, _ = LossGradient(objective, closed_form=False)(batch)
        assert bool((expected != 0).any())
        assert entropy_weights is None
        torch.testing.assert_close(weights, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CLOSED)
def test_training_by_closed_form_equals_training_by_graph(name: str) -> None:
    def trained(closed_form: bool) -> Tensor:
        spec = make_spec("ModularSum-v1", prompts=2, length=3, vocabulary=4, modulus=2).for_seeds([0, 1])
        policy = make_policy("tabular", spec.initial_logits)
        training = Training(make_objective(name), spec, policy, Settings(steps=3, group_size=8), [0, 1], 0)
        training._loss_gradient = LossGradient(training.objective, closed_form=closed_form)
        for _ in training.run():
            pass
        assert not torch.equal(policy.parameters[0], spec.initial_logits)
        return policy.parameters[0]

    torch.testing.assert_close(trained(True), trained(False), rtol=1e-12, atol=1e-12)


def test_replaced_token_loss_is_differentiated() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Doubled(PPO):
        def token_loss(self, batch: TokenBatch) -> Tensor:
            return 2 * super().token_loss(batch)

    batch, doubled = random_batch(), Doubled()
    assert not doubled.has_closed_form
    wrapped = make_objective("erc", base=doubled, beta_low=0.9, beta_high=9.0)
    for objective, original in (
        (doubled, PPO()),
        (wrapped, make_objective("erc", base=PPO(), beta_low=0.9, beta_high=9.0)),
    ):
        torch.testing.assert_close(LossGradient(objective)(batch)[0], 2 * LossGradient(original)(batch)[0])


def test_entropy_enters_the_gradient() -> None:
    # dL/dH = -α/N for the N response tokens of a token mean.
    batch = random_batch()
    _, weights = LossGradient(make_objective("entropy_bonus", base="ppo", coefficient=0.5))(batch)
    assert weights is not None
    expected = -0.5 * batch.mask.double() / batch.mask.sum((-2, -1), keepdim=True)
    torch.testing.assert_close(weights, expected, rtol=1e-12, atol=0.0)


def test_trusted_batch_equals_checked_batch() -> None:
    checked, trusted = random_batch(), random_batch(TokenBatch.trusted)
    for name in ("log_probs", "old_log_probs", "advantages", "mask", "entropies", "ref_log_probs", "lengths"):
        assert torch.equal(getattr(checked, name), getattr(trusted, name)), name
    assert trusted.token_count is None


def test_policy_follows_every_step_of_its_logits() -> None:
    # The table is kept between calls; a stale one would show in the log-probabilities or in the gradient.
    spec = make_spec("ModularSum-v1", prompts=2, length=2, vocabulary=3, modulus=3)
    policy = make_policy("tabular", spec.initial_logits.expand(2, -1, -1))
    (logits,) = policy.parameters
    generator = torch.Generator().manual_seed(0)
    for entropies in (False, True, False):
        uniforms = torch.rand(2, 4, 2, generator=generator, dtype=torch.float64)
        samples = policy.sample(spec.initial_states.repeat(2), spec.step, uniforms, entropies=entropies)
        for _ in range(2):
            v = torch.randn(2, 4, 2, generator=generator, dtype=torch.float64)
            leaf = logits.clone().requires_grad_()
            index = samples.states * 3 + samples.tokens
            log_policy = torch.log_softmax(leaf, -1)
            state_entropy = -(log_policy.exp() * log_policy).sum(-1)
            expected = log_policy.flatten(-2).gather(-1, index.flatten(-2)).view_as(v)
            log_probs, found = policy.evaluate(samples, entropies=entropies)
            torch.testing.assert_close(log_probs, expected.detach(), rtol=1e-12, atol=0.0)
            total = (expected * v).sum()
            if entropies:
                chosen = state_entropy.gather(-1, samples.states.flatten(-2)).view_as(v)
                torch.testing.assert_close(found, chosen.detach(), rtol=1e-12, atol=0.0)
                total = total + (chosen * v).sum()
            (gradient,) = torch.autograd.grad(total, leaf)
            (ours,) = policy.gradient(samples, v, v if entropies else None)
            torch.testing.assert_close(ours, gradient, rtol=1e-12, atol=1e-14)
            logits.sub_(gradient)


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 5, 16, 100])
def test_draws_invert_the_distribution_function(vocabulary: int) -> None:
    # The search against numpy's, one row after the other, also at the steps themselves and next to them.
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 2, vocabulary, generator=generator, dtype=torch.float64)
    policy = make_policy("tabular", logits)
    # The policy's own probabilities, for their last bit decides next to a step.
    probabilities = policy._current().policy
    torch.testing.assert_close(probabilities, logits.softmax(-1), rtol=1e-14, atol=0.0)
    steps = probabilities.cumsum(-1)[:, 1]
    near = [steps, steps.nextafter(torch.zeros(())), steps.nextafter(torch.ones(()) * 2)]
    uniforms = torch.cat([*near, torch.rand(3, 50, generator=generator, dtype=torch.float64)], -1).clamp(0, 1 - 1e-16)
    ends = torch.full((3, 2), -1)
    samples = policy.sample(
        torch.ones(uniforms.shape[1], dtype=torch.int64), lambda s, a: ends, uniforms.unsqueeze(-1), entropies=False
    )
    for row, sought, tokens in zip(steps.numpy(), uniforms.numpy(), samples.tokens[..., 0].numpy(), strict=True):
        expected = np.searchsorted(row[:-1], sought, side="right")
        np.testing.assert_array_equal(tokens, expected)


def test_copies_do_not_share_buffers() -> None:
    spec = make_spec("NeedleBandit-v1", arms=3, contexts=1)
    for model in ("tabular", "low_rank"):
        policy = make_policy(model, spec.initial_logits.unsqueeze(0).view(1, spec.states, spec.vocabulary))
        uniforms = torch.rand(1, 4, 1, dtype=torch.float64)
        samples = policy.sample(spec.initial_states.repeat(4), spec.step, uniforms, entropies=False)
        before = policy.evaluate(samples, entropies=False)[0].clone()
        other = policy.snapshot()
        other.parameters[-1].add_(torch.arange(3.0, dtype=torch.float64))
        other.evaluate(samples, entropies=False)
        assert torch.equal(policy.evaluate(samples, entropies=False)[0], before)


@pytest.mark.parametrize(
    "settings",
    [
        {"env": "NullBandit-v1(arms=23,contexts=1)", "objective": ["dapo", "sapo"]},
        {"env": "NullBandit-v1(arms=10,contexts=3)", "objective": "erc(base=gppo)", "optimizer": "adam"},
        {"env": "ModularSum-v1(length=3,vocabulary=3,modulus=2)", "objective": ["gspo", "dcpo"], "minibatches": 2},
        {"env": "VariableLength-v1", "objective": "ce_gppo", "staleness": 2, "max_grad_norm": 0.1},
    ],
    ids=lambda settings: str(settings["env"]).partition("-")[0],
)
def test_chunks_do_not_change_a_bit(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def table(elements: int) -> pd.DataFrame:
        monkeypatch.setattr(sys.modules["testbed.simulation.blocks"], "CHUNK_ELEMENTS", elements)
        run = simulate(**settings, seeds=5, steps=3, group_size=4, epochs=2, learning_rate=2.0)
        return run.table.sort_values(["replica", "step"], ignore_index=True)

    whole = table(1 << 20)
    assert whole["exact/entropy"].nunique() > 5
    for elements in (1, 150):
        pd.testing.assert_frame_equal(table(elements), whole, check_exact=True)
