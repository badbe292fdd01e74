"""Strings that end an answer: where it is cut, and that a model which is told to stop writes no further."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.causal_lm import complete, load_causal_lm, load_tokenizer
from models.stopping import StopStrings
from testbed.errors import ConfigError

TOKENIZER = load_tokenizer("bpe")


@pytest.mark.parametrize(
    ("text", "before"),
    [("12\n34", "12"), ("12", "12"), ("\n", ""), ("1Question: 2\n", "1"), ("Quest", "Quest"), ("é\nQuestion", "é")],
)
def test_an_answer_ends_before_the_first_stop_string(text: str, before: str) -> None:
    stop = StopStrings(TOKENIZER, ["\n", "Question"])
    assert stop.before(text) == before
    tokens = TOKENIZER(text).input_ids
    length = stop.length(tokens)
    if before == text:
        assert length is None
    else:
        # Complete with its last token, and not a token earlier.
        assert length is not None
        assert stop.before(TOKENIZER.decode(tokens[:length])) == before
        assert stop.length(tokens[: length - 1]) is None


def test_without_strings_nothing_is_cut() -> None:
    stop = StopStrings(TOKENIZER, [])
    assert not stop
    assert stop.length(TOKENIZER("1\n2").input_ids) is None
    assert stop.before("1\n2") == "1\n2"


def test_the_criterion_looks_at_the_answer_alone() -> None:
    # The prompt has the string in it; only the second row's answer has it too.
    rows = [TOKENIZER("a\nb").input_ids + TOKENIZER(text).input_ids for text in ("12", "\n2")]
    prompt = len(TOKENIZER("a\nb").input_ids)
    ended = StopStrings(TOKENIZER, ["\n"]).criteria(prompt)(torch.tensor([row[: prompt + 1] for row in rows]), None)
    assert ended.tolist() == [False, True]
    # Half of a string in the prompt and half in the answer is no end.
    row = load_tokenizer("character")("abb").input_ids
    across = StopStrings(load_tokenizer("character"), ["bb"]).criteria(2)(torch.tensor([row]), None)
    assert across.tolist() == [False]


@pytest.mark.parametrize("strings", [[""], [3]])
def test_rejects_what_can_end_nothing(strings: list[Any]) -> None:
    with pytest.raises(ConfigError, match="expected text of at least one character"):
        StopStrings(TOKENIZER, strings)


def test_a_model_stops_where_it_is_told() -> None:
    # Random weights write any of the 259 tokens: "a" ends an answer long before its end token does.
    model, tokenizer = load_causal_lm("qwen2-0.1m(initializer_range=0.001)")
    stop = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
    free = complete(model, tokenizer, ["1+1="] * 32, max_new_tokens=48)
    stopped = complete(model, tokenizer, ["1+1="] * 32, max_new_tokens=48, stop=stop)
    assert sum(done.finished for done in stopped) > sum(done.finished for done in free)
    for done in stopped:
        assert not any(letter in done.text for letter in stop)
        # One token per byte, the end token or the letter included.
        if done.finished:
            assert done.tokens <= 48
    assert {done.finished for done in stopped if done.tokens < 48} == {True}
    # Row by row the same numbers are drawn until an answer ends.
    strings = StopStrings(tokenizer, stop)
    first = stopped[0]
    assert strings.before(free[0].text)[: len(first.text)] == first.text
