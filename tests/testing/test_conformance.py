from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from testbed.errors import ConfigError, UnknownNameError
from testbed.objectives import make_objective, objective_names
from testbed.testing import assert_conforms

specification = importlib.util.spec_from_file_location("wrong_losses", Path(__file__).parent / "wrong_losses.py")
assert specification is not None
assert specification.loader is not None
wrong_losses = importlib.util.module_from_spec(specification)
specification.loader.exec_module(wrong_losses)


def ratio(log_probs, old_log_probs):
    return torch.exp(log_probs - old_log_probs)


def grpo(log_probs, old_log_probs, advantages, mask):
    r = ratio(log_probs, old_log_probs)
    return torch.maximum(-r * advantages, -r.clamp(0.8, 1.2) * advantages)


def grpo_per_response(log_probs, old_log_probs, advantages, mask):
    return grpo(log_probs, old_log_probs, advantages.unsqueeze(1), mask)


def grpo_mean(log_probs, old_log_probs, advantages, mask):
    losses = grpo(log_probs, old_log_probs, advantages, mask)
    return (losses.masked_fill(~mask, 0).sum(-1) / mask.sum(-1)).mean()


def gspo(log_probs, old_log_probs, advantages, mask):
    z = ((log_probs - old_log_probs) * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)
    s = z.exp()
    return torch.maximum(-s * advantages, -s.clamp(1 - 3e-4, 1 + 4e-4) * advantages)


def cispo(log_probs, old_log_probs, advantages, mask):
    return -ratio(log_probs, old_log_probs).clamp(max=1.2).detach() * advantages * log_probs


def erc(log_probs, old_log_probs, advantages, mask, entropies, old_entropies):
    r = ratio(log_probs, old_log_probs)
    losses = torch.maximum(-r * advantages, -r.clamp(0.8, 1.28) * advantages)
    change = entropies / old_entropies
    return losses.where((change > 0.95) & (change < 1.05), 0)


def with_penalty(log_probs, old_log_probs, advantages, mask, ref_log_probs):
    d = ref_log_probs - log_probs
    return grpo(log_probs, old_log_probs, advantages, mask) + 0.04 * (d.exp() - d - 1)


@pytest.mark.parametrize(
    ("loss", "objective"),
    [
        (grpo, "grpo"),
        (grpo_per_response, "grpo"),
        (grpo_mean, "grpo"),
        (grpo, "ppo"),
        (gspo, "gspo"),
        (cispo, "cispo"),
        (erc, "erc"),
        (with_penalty, "reference_kl(base=grpo,coefficient=0.04)"),
        (grpo, make_objective("dapo", clip_high=0.2)),
    ],
)
def test_a_right_loss_conforms(loss, objective):
    assert_conforms(loss, objective)


@pytest.mark.parametrize("name", objective_names())
def test_every_objective_conforms_to_itself(name):
    assert_conforms(make_objective(name), name)


@pytest.mark.parametrize("wrong", wrong_losses.WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_loss_is_told_what_is_wrong(wrong):
    with pytest.raises(AssertionError) as failure:
        assert_conforms(wrong.loss, wrong.objective)
    assert wrong.mistake in str(failure.value)


def test_there_are_as_many_wrong_losses_as_promised():
    assert len(wrong_losses.WRONG) >= 24


def test_the_smallest_input_is_one_token():
    # A ratio of 0.5 with A > 0 is the first on which the minimum decides: free -0.5, held -0.8.
    message = (
        r"the loss is not grpo\n"
        r"smallest input: 1 response of 1 token: ratio 0\.5 \(log_probs -3\.35\d+, old_log_probs -2\.65\d+\), "
        r"advantage 1\n"
        r"  loss            yours -0\.8, expected -0\.5\n"
        r"  d loss/d log p  yours 0, expected -0\.5\n"
        r"likely mistake: the clipped ratio alone"
    )
    with pytest.raises(AssertionError, match=message):
        assert_conforms(wrong_losses.no_minimum, "grpo")


def test_a_difference_nobody_knows_is_still_a_failure():
    def odd(log_probs, old_log_probs, advantages, mask):
        return grpo(log_probs, old_log_probs, advantages, mask) * 1.01 + 0.001 * log_probs

    with pytest.raises(AssertionError, match="no known mistake explains all of the differences"):
        assert_conforms(odd, "grpo")


def test_a_value_alone_that_differs_says_that_the_gradient_is_right():
    def shifted(log_probs, old_log_probs, advantages, mask):
        return grpo(log_probs, old_log_probs, advantages, mask) + 1

    with pytest.raises(AssertionError, match="the gradients agree, the values do not"):
        assert_conforms(shifted, "grpo")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda log_probs, old_log_probs, advantages, mask: 1.0, "returned a float; expected a tensor"),
        (
            lambda log_probs, old_log_probs, advantages, mask: log_probs[:, 0:1].expand(-1, 7),
            r"returned a tensor of shape \(1, 7\); expected \(1, 1\)",
        ),
        (lambda log_probs, old_log_probs, advantages, mask, beta: log_probs, "takes 'beta', which no batch has"),
    ],
)
def test_rejects(loss, message):
    with pytest.raises(ConfigError, match=message):
        assert_conforms(loss, "grpo")


def test_what_the_loss_raises_is_not_hidden():
    def broken(log_probs, old_log_probs, advantages, mask):
        raise ZeroDivisionError("as its author wrote it")

    with pytest.raises(ZeroDivisionError, match="as its author wrote it"):
        assert_conforms(broken, "grpo")


def test_an_unknown_objective_is_named():
    with pytest.raises(UnknownNameError, match="unknown objective 'grppo'"):
        assert_conforms(grpo, "grppo")
