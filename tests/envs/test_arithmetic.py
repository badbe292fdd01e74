from __future__ import annotations

import math
import re

import pytest

from envs import exact, make_spec
from envs.arithmetic import LEVELS, CharacterTokenizer, Problem, generate_problems, verify
from envs.catalogue import ENVIRONMENTS
from testbed.errors import ConfigError

PATTERNS = {
    1: r"\d\+\d",
    2: r"\d{1,2}[+-]\d{1,2}",
    3: r"\d{1,2}[+-]\d{1,2}[+-]\d{1,2}",
    4: r"[2-9]\*[2-9][+-]\d{1,2}",
    5: r"[2-9]\*\(\d{1,2}[+-]\d{1,2}\)",
}


@pytest.mark.parametrize("level", LEVELS)
def test_answers_are_the_values_of_their_expressions(level):
    problems = generate_problems(80, level, seed=5)
    assert len({problem.expression for problem in problems}) == 80
    for problem in problems:
        assert re.fullmatch(PATTERNS[level], problem.expression)
        # Python's own parser is the second opinion; the pattern above says what it is given.
        assert problem.answer == eval(problem.expression, {"__builtins__": {}})
        assert problem.level == level


def test_problems_depend_on_the_seed_and_extend():
    assert generate_problems(5, 3, seed=1) != generate_problems(5, 3, seed=2)
    assert generate_problems(5, 3, seed=1) == generate_problems(50, 3, seed=1)[:5]
    # Every sum of two digits.
    assert len({problem.expression for problem in generate_problems(100, 1)}) == 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 6), "level is 6; expected one of 1, 2, 3, 4, 5"),
        ((101, 1), "count is 101, but level 1 .* has only 100 different problems"),
    ],
)
def test_generator_rejects(arguments, message):
    with pytest.raises(ConfigError, match=message):
        generate_problems(*arguments)


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        (14, ["14", "014", "0000014", " 14", "14\n"], ["-14", "1", "140", "14.0", "+14", "1 4", "14 apples", "", "١٤"]),
        (-7, ["-7", "-07", " -7 "], ["7", "- 7", "--7", "-", "-70"]),
        (0, ["0", "000", "-0", "-000"], ["", "-", "1", "0x0"]),
    ],
)
def test_verifier(answer, right, wrong):
    problem = Problem("?", answer, 1)
    assert all(verify(problem, text) for text in right)
    assert not any(verify(problem, text) for text in wrong)


def test_verifier_takes_very_long_answers():
    # Python refuses to convert texts of more than 4300 digits to a number.
    assert verify(Problem("1+1", 2, 1), "0" * 10_000 + "2")
    assert not verify(Problem("1+1", 2, 1), "2" * 10_000)


def test_tokenizer_round_trip():
    tokenizer = CharacterTokenizer()
    for problem in generate_problems(30, 5):
        tokens = tokenizer.encode(problem.expression)
        assert tokenizer.decode([*tokens, tokenizer.end_of_sequence, 0, 1]) == problem.expression
    assert tokenizer.vocabulary == len(tokenizer.alphabet) + 1
    assert tokenizer.encode("") == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CharacterTokenizer("aa"), "alphabet is 'aa'; expected at least one character and none twice"),
        (lambda: CharacterTokenizer(""), "alphabet is ''"),
        (lambda: CharacterTokenizer("ab").encode("abc"), "cannot encode 'c' in 'abc'; the alphabet is 'ab'"),
        (lambda: CharacterTokenizer("ab").decode([3]), "cannot decode token 3; expected 0 to 2"),
        (lambda: CharacterTokenizer("ab").decode([-1]), "cannot decode token -1"),
    ],
)
def test_tokenizer_rejects(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(("level", "length"), [(1, 4), (2, 4), (3, 4)])
def test_automaton_pays_what_the_verifier_says_of_the_text(level, length, enumerated):
    # Every text of up to three characters; the seed of the class gives positive, negative and zero answers somewhere.
    parameters = {"prompts": 4, "level": level, "length": length}
    spec = make_spec("Arithmetic-v1", **parameters)
    problems = ENVIRONMENTS["Arithmetic-v1"](**parameters).problems
    assert spec.prompt_texts == tuple(f"{problem.expression}=" for problem in problems)
    responses = enumerated(spec)
    rewards = responses.endings(spec.rewards).tolist()
    assert len(rewards) == 4 * (sum(11**k for k in range(length)) + 11**length)
    for prompt, tokens, reward in zip(responses.prompts, responses.tokens, rewards, strict=True):
        text = "".join("0123456789-"[token] for token in tokens if token < 11)
        complete = tokens[-1] == 11
        # An independent reading: Python's int, on texts it would take that are plain digits with an optional minus.
        plain = re.fullmatch(r"-?[0-9]+", text) is not None
        assert reward == float(complete and plain and int(text) == problems[prompt].answer), text


def test_zero_and_negative_answers_in_the_automaton(enumerated):
    arithmetic = ENVIRONMENTS["Arithmetic-v1"](prompts=100, level=1)
    zero = [problem.answer for problem in arithmetic.problems].index(0)
    best = exact.maximum_entropy_optimum(make_spec("Arithmetic-v1", prompts=zero + 1, length=5))
    answers = [problem.answer for problem in arithmetic.problems[: zero + 1]]
    # An answer of n characters has `length - n` texts, and 0 has 2·length - 3.
    counts = [7 if answer == 0 else 5 - len(str(answer)) for answer in answers]
    assert best.entropy == pytest.approx(math.fsum(map(math.log, counts)) / len(counts), rel=1e-12)
    assert any(problem.answer < 0 for problem in ENVIRONMENTS["Arithmetic-v1"](level=2).problems)


def test_level_raises_the_difficulty():
    rates = []
    for level in LEVELS:
        spec = make_spec("Arithmetic-v1", level=level, initial="uniform")
        rates.append(exact.evaluate(spec, spec.initial_logits.log_softmax(-1)).value)
    # One answer digit costs a factor of 12.
    assert rates[0] > 3 * rates[1]
    assert min(rates[:2]) > max(rates[3:])
