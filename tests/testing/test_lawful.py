from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from testbed.errors import ConfigError, UnknownNameError
from testbed.objectives import make_objective, objective_names
from testbed.testing import assert_lawful, exempt_laws, law_names

specification = importlib.util.spec_from_file_location("wrong_losses", Path(__file__).parent / "wrong_losses.py")
assert specification is not None
assert specification.loader is not None
wrong_losses = importlib.util.module_from_spec(specification)
specification.loader.exec_module(wrong_losses)

BROKEN = {
    "sign": ("on policy", "the sign: what should be minimised"),
    "wrong side of the minimum": ("way back", "wrong side of the minimum"),
    "no minimum": ("way back", "without the minimum"),
    "band whatever the sign": ("way back", "whatever the sign of its advantage"),
    "ratio against itself": ("old policy", "against itself"),
    "ratio upside down": ("on policy", "upside down"),
    "exponential forgotten": ("on policy", "exp is missing"),
    "mask forgotten": ("mask", "the mask is forgotten"),
    "padded width": ("width", "padded width"),
    "divided by length twice": ("mean", "length of the response twice"),
    "divided by responses too": ("mean", "size of the batch twice"),
    "local whitening": ("other responses", "standardised once more"),
    "sign of the advantage lost": ("on policy", "sign of the advantage is lost"),
    "neighbour's advantage": ("other responses", "neighbour's advantage"),
    "shifted by one": ("mask", "shifted by one"),
    "no stop-gradient": ("on policy", "stop-gradient is missing"),
    "absolute ceiling": ("on policy", "0.2 instead of 1 + 0.2"),
    "penalty of the wrong sign": ("reference", "away from the reference"),
    "detached": ("gradient", "no gradient"),
}
"""What the laws alone say of the wrong losses. The others are losses that somebody published, under another name."""


def surrogate(log_probs, old_log_probs, advantages):
    ratio = torch.exp(log_probs - old_log_probs)
    return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)


def grpo(log_probs, old_log_probs, advantages, mask):
    return surrogate(log_probs, old_log_probs, advantages)


def dapo(log_probs, old_log_probs, advantages, mask):
    return (surrogate(log_probs, old_log_probs, advantages) * mask).sum() / mask.sum()


def with_counts(log_probs, old_log_probs, advantages, mask, token_count):
    return (surrogate(log_probs, old_log_probs, advantages) * mask).sum() / token_count


def per_response(log_probs, old_log_probs, advantages, mask):
    losses = surrogate(log_probs, old_log_probs, advantages.unsqueeze(1))
    return ((losses * mask).sum(-1) / mask.sum(-1)).mean()


def with_penalty(log_probs, old_log_probs, advantages, mask, ref_log_probs):
    difference = ref_log_probs - log_probs
    return grpo(log_probs, old_log_probs, advantages, mask) + 0.04 * (difference.exp() - difference - 1)


def careful(log_probs, old_log_probs, advantages, mask):
    # Padding is replaced before it is computed with, constants are detached, far ratios are clamped.
    difference = (log_probs - old_log_probs.detach()).masked_fill(~mask, 0).clamp(-20, 20)
    losses = surrogate(difference, torch.zeros_like(difference), advantages.detach())
    return (losses * mask).sum() / mask.sum().clamp(min=1)


@pytest.mark.parametrize("name", objective_names())
def test_every_objective_keeps_the_laws_it_does_not_declare_to_break(name):
    assert_lawful(make_objective(name), strict=True)


@pytest.mark.parametrize("loss", [grpo, dapo, with_counts, per_response, with_penalty])
def test_a_right_loss_is_lawful(loss):
    assert_lawful(loss)


def test_a_careful_loss_keeps_the_strict_laws_too():
    assert_lawful(careful, strict=True)


@pytest.mark.parametrize("wrong", wrong_losses.WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_loss_breaks_the_law_of_its_mistake(wrong):
    if wrong.name not in BROKEN:
        assert_lawful(wrong.loss)
        return
    law, mistake = BROKEN[wrong.name]
    with pytest.raises(AssertionError) as failure:
        assert_lawful(wrong.loss)
    assert f'breaks the law "{law}"' in str(failure.value)
    assert mistake in str(failure.value)


def written_to(log_probs, old_log_probs, advantages, mask):
    advantages -= 0.1
    return surrogate(log_probs, old_log_probs, advantages)


class Counter:
    calls = 0

    def __call__(self, log_probs, old_log_probs, advantages, mask):
        self.calls += 1
        return self.calls * surrogate(log_probs, old_log_probs, advantages)


def first_counts_double(log_probs, old_log_probs, advantages, mask):
    losses = surrogate(log_probs, old_log_probs, advantages) * mask
    return (losses.sum() + losses[0].sum()) / mask.sum()


def own_counts(log_probs, old_log_probs, advantages, mask, token_count):
    return dapo(log_probs, old_log_probs, advantages, mask)


def overflows(log_probs, old_log_probs, advantages, mask):
    return dapo(log_probs, old_log_probs, advantages, mask) + 0 * (40 * (log_probs - old_log_probs) * mask).exp().sum()


def infinite_ratio_of_probabilities(log_probs, old_log_probs, advantages, mask):
    return -log_probs.exp() / old_log_probs.exp() * advantages


def doubled_precision(log_probs, old_log_probs, advantages, mask):
    return dapo(log_probs.double(), old_log_probs.double(), advantages.double(), mask)


def three_digits(log_probs, old_log_probs, advantages, mask):
    rough = log_probs.bfloat16().to(log_probs) if log_probs.dtype == torch.float32 else log_probs
    return dapo(log_probs + (rough - log_probs).detach(), old_log_probs, advantages, mask)


def with_bonus(log_probs, old_log_probs, advantages, mask):
    return surrogate(log_probs, old_log_probs, advantages) - 0.1 * (log_probs - old_log_probs) ** 2


def far_is_infinite(log_probs, old_log_probs, advantages, mask):
    return dapo(log_probs, old_log_probs.detach(), advantages.detach(), mask)


def without_the_empty(log_probs, old_log_probs, advantages, mask):
    losses = surrogate((log_probs - old_log_probs.detach()).clamp(-20, 20), torch.zeros(()), advantages.detach())
    return ((losses * mask).sum(-1) / mask.sum(-1)).mean()


@pytest.mark.parametrize(
    ("loss", "law", "words"),
    [
        (written_to, "purity", r"advantages after the call +yours 0\.9, expected 1"),
        (Counter(), "purity", "keeps something from one call to the next"),
        (first_counts_double, "order", "responses in another order"),
        (own_counts, "micro-batches", "divided by its own count"),
        (overflows, "extremes", "yours nan, expected a finite number"),
        (infinite_ratio_of_probabilities, "extremes", "e\\^-1000 times as large"),
        (doubled_precision, "single precision", r"yours torch\.float64, expected torch\.float32"),
        (three_digits, "single precision", "in single precision"),
        (with_bonus, "zero advantage", r"except_for=\('zero advantage',\)"),
    ],
)
def test_every_other_law_is_broken_by_something(loss, law, words):
    with pytest.raises(AssertionError, match=rf'(?s)breaks the law "{law}".*{words}'):
        assert_lawful(loss)


@pytest.mark.parametrize(
    ("loss", "law", "words"),
    [
        (grpo, "constants", "old_log_probs is not detached"),
        (without_the_empty, "empty response", "response 1 is empty"),
        (far_is_infinite, "far values", "raised by 10,000"),
    ],
)
def test_strict_laws_are_broken_by_what_others_allow(loss, law, words):
    assert_lawful(loss)
    with pytest.raises(AssertionError, match=rf'(?s)breaks the law "{law}".*{words}'):
        assert_lawful(loss, strict=True)


def test_the_message_names_the_smallest_input_and_both_values():
    # A ratio of 0.5 with A > 0 keeps its gradient: -A·r. The clipped ratio alone has none.
    message = (
        r'the loss breaks the law "way back": a token that moved against its advantage is pulled back\n'
        r"smallest input: 1 response of 1 token: ratio 0\.5 \(log_probs -3\.35\d+, old_log_probs -2\.65\d+\), "
        r"advantage 1\n"
        r"  d loss/d log p  yours 0, expected below 0\n"
        r"likely mistake: the clipped ratio alone"
    )
    with pytest.raises(AssertionError, match=message):
        assert_lawful(wrong_losses.no_minimum)


def test_a_law_that_is_excepted_is_not_checked():
    assert_lawful(with_bonus, except_for=["zero advantage"])


def test_an_objective_declares_its_exceptions():
    assert exempt_laws(make_objective("grpo")) == []
    assert "zero advantage" in exempt_laws(make_objective("reference_kl"))
    assert "width" in exempt_laws(make_objective("dr_grpo"))
    assert "width" not in exempt_laws(make_objective("dr_grpo", max_length=8))


def test_an_unknown_law_is_named():
    with pytest.raises(UnknownNameError, match="unknown law 'zero advantages'; did you mean 'zero advantage'"):
        assert_lawful(grpo, except_for=["zero advantages"])


def test_a_single_word_is_not_several():
    with pytest.raises(ConfigError, match="expected several names"):
        assert_lawful(grpo, except_for="mask")


def test_what_the_loss_raises_is_not_hidden():
    def broken(log_probs, old_log_probs, advantages, mask):
        raise ZeroDivisionError("as its author wrote it")

    with pytest.raises(ZeroDivisionError, match="as its author wrote it"):
        assert_lawful(broken)


def test_names_are_unique():
    assert len(set(law_names())) == len(law_names())


def test_the_package_is_imported_without_torch():
    program = "import sys, testbed.testing, testbed.testing.pytest_plugin; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "False"
