"""avg@k, pass@k and greedy of a model whose answers are known."""

from __future__ import annotations

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
    assert 0.09 < difference.low <= 0.12 <= difference.high < 0.2


def test_no_interval_where_there_is_no_spread() -> None:
    difference = paired_difference([0.25, 0.25], [0.5, 0.5])
    assert difference.value == 0.25
    assert difference.low != difference.low


def test_a_difference_is_not_a_share() -> None:
    # Nothing changed: as a share of problems that got better this would be 0 to 40 %, and say that nothing got worse.
    difference = paired_difference([0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0])
    assert difference.value == 0
    assert difference.low != difference.low
    assert difference.high != difference.high
    # And all better is no less certain than all worse.
    better, worse = paired_difference([0, 0, 0, 1], [1, 0, 1, 1]), paired_difference([1, 0, 1, 1], [0, 0, 0, 1])
    assert better.value == 0.5
    assert (better.low, better.high) == pytest.approx((-worse.high, -worse.low), abs=1e-12)


def test_rejects_other_problems() -> None:
    with pytest.raises(ConfigError, match="2 problems before and 1 after"):
        paired_difference([0.0, 1.0], [1.0])


def test_rejects_nothing_to_ask() -> None:
    with pytest.raises(ConfigError, match="got 0 problems"):
        evaluate(None, None, [], grade, samples=1, max_new_tokens=1)
