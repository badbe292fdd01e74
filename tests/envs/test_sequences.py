"""The rule of every task, checked on every response by code that knows the rule and no automaton."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from envs import exact, make_spec
from envs.catalogue import ENVIRONMENTS
from envs.sequences import distinct_strings


def verdicts(spec, responses):
    """What the automaton pays for every response, keyed by prompt and tokens."""
    rewards = responses.endings(spec.rewards).tolist()
    assert rewards == responses.endings(spec.success).tolist()
    return dict(zip(zip(responses.prompts, responses.tokens, strict=True), rewards, strict=True))


def test_modular_sum_rule(enumerated):
    spec = make_spec("ModularSum-v1", prompts=5, length=3, vocabulary=5, modulus=3)
    found = verdicts(spec, enumerated(spec))
    assert len(found) == 5 * 5**3
    for (prompt, digits), reward in found.items():
        assert reward == float(sum(digits) % 3 == prompt % 3)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ModularSum-v1", {"prompts": 3, "length": 4, "vocabulary": 5, "modulus": 3}),
        ("ModularSum-v1", {"length": 1}),
        ("Copy-v1", {"prompts": 3, "length": 4, "vocabulary": 3}),
        ("Reverse-v1", {"prompts": 2, "length": 1, "vocabulary": 3}),
        ("Lock-v1", {"prompts": 2, "length": 5, "vocabulary": 2}),
        ("VariableLength-v1", {"prompts": 2, "length": 6, "vocabulary": 4}),
        # Every pair of two digits: no two prompts differ in what they hold of their last digits.
        ("DigitAddition-v1", {"prompts": 10_000, "digits": 2, "base": 10}),
    ],
)
def test_size_is_known_before_the_tables(name, parameters):
    assert ENVIRONMENTS[name](**parameters).size == make_spec(name, **parameters).transitions.numel()


@pytest.mark.parametrize(("prompts", "digits", "base"), [(32, 2, 10), (1, 1, 2), (500, 3, 3)])
def test_size_of_additions_is_a_bound(prompts, digits, base):
    parameters = {"prompts": prompts, "digits": digits, "base": base}
    size = ENVIRONMENTS["DigitAddition-v1"](**parameters).size
    assert size / 3 < make_spec("DigitAddition-v1", **parameters).transitions.numel() <= size


def test_modular_sum_has_its_closed_forms():
    spec = make_spec("ModularSum-v1")
    # Four prompts in the first layer, four sums for each in the five others.
    assert spec.states == 4 + 5 * 16
    uniform = torch.full((spec.states, 16), 1 / 16, dtype=torch.float64).log()
    assert exact.evaluate(spec, uniform).success.tolist() == pytest.approx([0.25] * 4, rel=1e-13)
    expected = 5 * math.log(16) + math.log(16 / 4)
    assert exact.maximum_entropy_optimum(spec).entropy == pytest.approx(expected, rel=1e-14)
    assert exact.optimum(spec).entropy == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("name", ["Copy-v1", "Reverse-v1"])
def test_copy_and_reverse_rules(name, enumerated):
    spec = make_spec(name, prompts=4, length=3, vocabulary=3)
    texts = [tuple(map(int, text.split())) for text in spec.prompt_texts]
    assert len(set(texts)) == 4
    for (prompt, said), reward in verdicts(spec, enumerated(spec)).items():
        assert reward == float(said == (texts[prompt] if name == "Copy-v1" else texts[prompt][::-1]))


def test_copy_and_reverse_read_the_same_prompts():
    assert make_spec("Copy-v1").prompt_texts == make_spec("Reverse-v1").prompt_texts
    assert any(text != text[::-1] for text in make_spec("Copy-v1").prompt_texts)


def test_lock_has_one_password(enumerated):
    spec = make_spec("Lock-v1", length=4, vocabulary=3, prompts=2)
    found = verdicts(spec, enumerated(spec))
    assert sum(reward for (prompt, _), reward in found.items() if prompt == 0) == 1
    assert sum(found.values()) == 2
    # The starting policy is uniform.
    result = exact.evaluate(spec, spec.initial_logits.log_softmax(-1))
    assert result.success.tolist() == pytest.approx([3**-4] * 2, rel=1e-13)
    assert result.entropy == pytest.approx(4 * math.log(3), rel=1e-13)


@pytest.mark.parametrize("name", ["Copy-v1", "Reverse-v1", "Lock-v1", "DigitAddition-v1"])
def test_one_answer_means_no_entropy(name):
    best = exact.maximum_entropy_optimum(make_spec(name))
    assert (best.value, best.entropy) == (1.0, 0.0)


def test_variable_length_rule(enumerated):
    length, vocabulary, end = 4, 4, 3
    spec = make_spec("VariableLength-v1", prompts=3, length=length, vocabulary=vocabulary, fraction=1 / 3)
    found = verdicts(spec, enumerated(spec))
    # Responses: k < length ordinary tokens and an end, or length ordinary tokens.
    assert len(found) == 3 * (sum(3**k for k in range(length)) + 3**length)
    for (prompt, tokens), reward in found.items():
        assert end not in tokens[:-1]
        # One of three ordinary tokens is right: the one numbered as the prompt.
        assert reward == float(len(tokens) >= 2 and tokens[-1] == end and tokens[0] == prompt)


def test_variable_length_starts_with_its_lengths():
    # Length after the answer is geometric: 1 + 1/rate tokens on average, if the cut is far away.
    spec = make_spec("VariableLength-v1", length=200, right_length=4.0, wrong_length=9.0)
    log_policy = spec.initial_logits.log_softmax(-1)
    keys = ENVIRONMENTS["VariableLength-v1"](length=200, right_length=4.0, wrong_length=9.0).unfolded.keys
    ends = log_policy.exp()[:, -1]
    for right, mean in ((True, 4.0), (False, 9.0)):
        rows = torch.tensor([key[1] is right for key in keys])
        torch.testing.assert_close(ends[rows], torch.full((int(rows.sum()),), 1 / (mean - 1)).double())
    # Of the first tokens: right ones, wrong ones, and the end of an empty response, of length 1.
    first = log_policy.exp()[:4]
    right = torch.stack([(torch.arange(7) - prompt) % 7 < 2 for prompt in range(4)])
    p_right = (first[:, :7] * right).sum(-1)
    p_wrong = (first[:, :7] * ~right).sum(-1)
    expected = (4 * p_right + 9 * p_wrong + first[:, 7]).mean()
    # (1 - 1/8)^198 of the wrong responses are cut.
    assert exact.evaluate(spec, log_policy).length == pytest.approx(float(expected), rel=1e-9)
    torch.testing.assert_close(exact.evaluate(spec, log_policy).success, p_right, rtol=1e-12, atol=0.0)


def test_digit_addition_rule(enumerated):
    base, digits = 4, 2
    spec = make_spec("DigitAddition-v1", prompts=7, digits=digits, base=base)
    problems = [tuple(int(number, base) for number in text.split("+")) for text in spec.prompt_texts]
    assert len(set(problems)) == 7
    for (prompt, said), reward in verdicts(spec, enumerated(spec)).items():
        total = sum(digit * base**place for place, digit in enumerate(said))
        assert reward == float(total == sum(problems[prompt]))


def test_digit_addition_needs_the_carry():
    spec = make_spec("DigitAddition-v1", prompts=256, digits=2, base=4)
    carries = [sum(int(number[-1]) for number in text.split("+")) >= 4 for text in spec.prompt_texts]
    # Of 16 pairs of last digits 6 carry, and all 256 prompts are there.
    assert sum(carries) == 6 * 16
    # States are shared: every pair of first digits, carry or not, right or not, instead of one path per prompt.
    assert spec.layers[1].stop - spec.layers[1].start == 16 * 2 * 2
    assert spec.layers[2].stop - spec.layers[2].start == 2 * 2


def test_distinct_strings_are_distinct_and_stable():
    strings = distinct_strings(16, 2, 4)
    assert set(strings) == set(itertools.product(range(4), repeat=2))
    assert distinct_strings(5, 2, 4) == strings[:5]


def test_digits_above_nine_are_told_apart():
    texts = make_spec("DigitAddition-v1", base=16, prompts=64).prompt_texts
    assert len(set(texts)) == 64
