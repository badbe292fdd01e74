"""avg@k, pass@k and greedy of a model whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from scipy import stats

from models.causal_lm import Completion
from testbed.engines import evaluation
from testbed.engines.evaluation import Estimate, evaluate, paired_difference
from testbed.errors import ConfigError


class Question(NamedTuple):
    prompt: str
    answer: str


class Verdict(NamedTuple):
    correct: bool
    parsed: bool


PROBLEMS = [Question("a", "1"), Question("b", "2"), Question("c", "3")]


def grade(responses: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
    return [Verdict(response == answer, response != "?") for response, answer in zip(responses, answers, strict=True)]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that answers a with 1, 1, 9; b with ?, 2, 9; c never right; and greedily 1, 9, 9."""

    def complete(
        model: Any, tokenizer: Any, prompts: Sequence[str], *, temperature: float, **_: Any
    ) -> list[Completion]:
        if temperature == 0:
            return [Completion({"a": "1"}.get(prompt, "9"), 1, True) for prompt in prompts]
        answers = {"a": ["1", "1", "9"], "b": ["?", "2", "9"], "c": ["9", "9", "9"]}
        return [Completion(answers[prompt].pop(0), 2, prompt != "c") for prompt in prompts]

    monkeypatch.setattr(evaluation, "complete", complete)


@pytest.mark.usefixtures("scripted")
def test_measures_by_hand() -> None:
    measured = evaluate(None, None, PROBLEMS, grade, samples=3, max_new_tokens=4)
    assert measured.per_problem == (2 / 3, 1 / 3, 0.0)
    assert measured.average.value == pytest.approx(1 / 3)
    assert measured.any_right.value == pytest.approx(2 / 3)
    assert measured.greedy.value == pytest.approx(1 / 3)
    assert (measured.unparsed, measured.unfinished, measured.tokens) == (
        pytest.approx(1 / 9),
        pytest.approx(1 / 3),
        2.0,
    )
    assert [sample.correct for sample in measured.samples] == [True, False, False]
    # Wilson's interval: (p + z²/2n ± z√(p(1-p)/n + z²/4n²))/(1 + z²/n) with p = 1/3, n = 3.
    z, p, n = stats.norm.ppf(0.95), 1 / 3, 3
    centre, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert measured.greedy.low == pytest.approx((centre - half) / (1 + z**2 / n))
    assert measured.greedy.high == pytest.approx((centre + half) / (1 + z**2 / n))


@pytest.mark.usefixtures("scripted")
def test_facts_are_ready_for_json() -> None:
    facts = evaluate(None, None, PROBLEMS, grade, samples=3, max_new_tokens=4).facts()
    assert set(facts["average"]) == set(Estimate._fields)
    assert "samples" not in facts


def test_the_difference_is_taken_problem_by_problem() -> None:
    # Problems differ widely, their change does not: the paired interval is narrow.
    before = [0.0, 0.2, 0.4, 0.6, 0.8]
    after = [value + change for value, change in zip(before, [0.1, 0.1, 0.1, 0.1, 0.2], strict=True)]
    difference = paired_difference(before, after)
    assert difference.value == pytest.approx(0.12)
    # Student's t with 4 degrees of freedom: 0.12 ± 2.132·0.0447/√5, of which the lower end is the wider one.
    assert difference.low == pytest.approx(0.12 - 2.132 * 0.02, abs=1e-4)
    assert 0.12 + 2.132 * 0.02 - 1e-4 < difference.high < 0.2


def changes(better: int, worse: int, same: int) -> Estimate:
    before = [0.0] * better + [1.0] * worse + [0.0] * same
    return paired_difference(before, [1.0] * better + [0.0] * worse + [0.0] * same)


@pytest.mark.parametrize(("better", "worse", "same"), [(1, 0, 3), (3, 0, 13), (2, 1, 5), (4, 0, 0)])
def test_a_difference_of_right_and_wrong_may_have_either_sign(better: int, worse: int, same: int) -> None:
    found, mirrored = changes(better, worse, same), changes(worse, better, same)
    # Bonett and Price (2012): p = (b+1)/(n+2), q = (c+1)/(n+2), p - q ± z√((p + q - (p - q)²)/(n+2)).
    n = better + worse + same
    p, q = (better + 1) / (n + 2), (worse + 1) / (n + 2)
    half = stats.norm.ppf(0.95) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    assert found == pytest.approx(((better - worse) / n, p - q - half, min(1.0, p - q + half)), rel=1e-12)
    assert mirrored == pytest.approx((-found.value, -found.high, -found.low), rel=1e-12)


@pytest.mark.parametrize("same", [1, 4, 64])
def test_nothing_changed_says_what_a_larger_change_would_have_shown(same: int) -> None:
    # If all problems that change get right, and a share u does: none of n is seen to change with probability (1 - u)^n.
    for found in (changes(0, 0, same), paired_difference([0.375] * same, [0.375] * same)):
        assert found.value == 0
        assert found.low == -found.high
        assert stats.binom.pmf(0, same, found.high) == pytest.approx(0.1, rel=1e-9)


@pytest.mark.parametrize("problems", [4, 10, 20])
def test_the_interval_of_a_difference_covers_it(problems: int) -> None:
    intervals = {
        (better, worse): changes(better, worse, problems - better - worse)
        for better in range(problems + 1)
        for worse in range(problems + 1 - better)
    }
    for up, down in ((0.02, 0.02), (0.1, 0.0), (0.2, 0.05), (0.3, 0.3), (0.5, 0.1), (0.8, 0.1)):
        covered = sum(
            float(
                stats.multinomial.pmf([better, worse, problems - better - worse], problems, [up, down, 1 - up - down])
            )
            for (better, worse), found in intervals.items()
            if found.low <= up - down <= found.high
        )
        assert covered > 0.9


def test_few_parts_of_changes_leave_room_on_both_sides() -> None:
    # A resample of the 16 problems holds neither changed one with probability (14/16)^16 = 0.12: the bootstrap alone
    # would end at 0.
    difference = paired_difference([0.0] * 16, [0.125] * 2 + [0.0] * 14)
    assert difference.low < 0 < difference.value < difference.high


def test_no_interval_where_there_is_no_spread() -> None:
    difference = paired_difference([0.25, 0.25], [0.5, 0.5])
    assert difference.value == 0.25
    assert difference.low != difference.low


def test_rejects_other_problems() -> None:
    with pytest.raises(ConfigError, match="2 problems before and 1 after"):
        paired_difference([0.0, 1.0], [1.0])


def test_rejects_nothing_to_ask() -> None:
    with pytest.raises(ConfigError, match="got 0 problems"):
        evaluate(None, None, [], grade, samples=1, max_new_tokens=1)
