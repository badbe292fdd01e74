from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

LOSSES = """
import pytest
import torch


def surrogate(log_probs, old_log_probs, advantages, high):
    ratio = torch.exp(log_probs - old_log_probs)
    return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1 + high) * advantages)


def grpo(log_probs, old_log_probs, advantages, mask):
    return surrogate(log_probs, old_log_probs, advantages, 0.2)


def with_penalty(log_probs, old_log_probs, advantages, mask, ref_log_probs):
    d = ref_log_probs - log_probs
    return grpo(log_probs, old_log_probs, advantages, mask) + 0.04 * (d.exp() - d - 1)


def nearly(log_probs, old_log_probs, advantages, mask):
    return surrogate(log_probs, old_log_probs, advantages, 0.2001)
"""


@pytest.fixture
def run(pytester):
    """Runs a test of the losses above with the plugin."""

    def run(test, *options):
        pytester.makepyfile(LOSSES + test)
        return pytester.runpytest_inprocess("--strict-markers", *options)

    return run


def test_the_marked_objective_is_compared_with(run):
    outcome = run(
        """
@pytest.mark.objective("dapo", clip_high=0.2)
def test_equal(judge_loss):
    judge_loss(grpo)


@pytest.mark.objective("dapo")
def test_other(judge_loss):
    judge_loss(grpo)
"""
    )
    outcome.assert_outcomes(passed=1, failed=1)
    outcome.stdout.fnmatch_lines(["*AssertionError: the loss is not dapo*", "*likely mistake: clip_low is used on*"])


def test_what_the_objective_may_the_loss_may_too(run):
    run(
        """
@pytest.mark.objective("reference_kl", base="grpo", coefficient=0.04)
def test_penalty(judge_loss):
    judge_loss(with_penalty)
"""
    ).assert_outcomes(passed=1)


def test_without_a_marker_the_laws_alone_count(run):
    outcome = run(
        """
def test_lawful(judge_loss):
    judge_loss(nearly)


def test_unlawful(judge_loss):
    judge_loss(lambda *given: -grpo(*given))


@pytest.mark.objective(except_for=["on policy"])
def test_excepted(judge_loss):
    judge_loss(lambda *given: 0.5 * grpo(*given))
"""
    )
    outcome.assert_outcomes(passed=2, failed=1)


MARKED = """
@pytest.mark.objective("grpo")
def test_nearly(judge_loss):
    judge_loss(nearly)
"""


def test_the_tolerance_is_an_option(run):
    run(MARKED).assert_outcomes(failed=1)
    run(MARKED, "--loss-rtol", "1e-3").assert_outcomes(passed=1)


def test_strict_laws_are_an_option(run):
    outcome = run("\n\ndef test_strict(judge_loss):\n    judge_loss(grpo)\n", "--loss-strict")
    outcome.assert_outcomes(failed=1)
    outcome.stdout.fnmatch_lines(['*breaks the law "constants"*'])


def test_a_tolerance_that_accepts_everything_is_refused(run):
    outcome = run(MARKED, "--loss-rtol", "1e6")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["*--loss-rtol is 1e+06; expected a number in (0, 0.01]*"])


def test_options_and_marker_are_listed(run):
    run("", "--help").stdout.fnmatch_lines(["*--loss-rtol=R*", "*--loss-strict*"])
    run("", "--markers").stdout.fnmatch_lines(["*objective(name, except_for=(), *"])
