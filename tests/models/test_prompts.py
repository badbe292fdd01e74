"""Prompts to tokens with the tokenizers people have: one start token, every end token, one sentence otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.causal_lm import WorkedProblem, complete, load_causal_lm, load_tokenizer, warm_start
from models.prompts import adopt_tokens, encode_prompts, encode_solutions, end_tokens, plain_prompt, turn_end
from testbed.errors import ConfigError

# 1 is <|im_start|>, 2 is <|im_end|>; "1+1" is 19 13 19, as every byte has one token.
START, END, SUM = 1, 2, [19, 13, 19]
TURNS = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ close }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
OPEN = TURNS.replace("{{ close }}", "")
CLOSED = TURNS.replace("{{ close }}", "<|im_end|>")
WITH_START = "{{ bos_token }}" + OPEN
Make = Callable[..., Any]


# -- start tokens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adds", "text", "expected"),
    [
        ("$A", "1+1", SUM),
        ("<|im_start|> $A", "1+1", [START, *SUM]),
        ("<|im_start|> $A", "<|im_start|>1+1", [START, *SUM]),  # a template, or whoever wrote the text, was first
        ("$A", "<|im_start|>1+1", [START, *SUM]),
        ("$A <|im_end|>", "1+1", SUM),  # an answer is to follow
        ("<|im_start|> $A <|im_end|>", "1+1", [START, *SUM]),
        ("<|im_start|> <|im_start|> $A", "1+1", [START, START, *SUM]),
    ],
)
def test_a_prompt_starts_once_and_does_not_end(stranger: Make, adds: str, text: str, expected: list[int]) -> None:
    assert encode_prompts(stranger(adds, bos="<|im_start|>"), [text]) == [expected]


@pytest.mark.parametrize("adds", ["$A", "<|im_start|> $A", "$A <|im_end|>", "<|im_start|> $A <|im_end|>"])
@pytest.mark.parametrize("template", [OPEN, CLOSED, WITH_START])
@pytest.mark.parametrize("system", [False, True])
def test_a_conversation_has_the_tokens_of_its_template(stranger: Make, adds: str, template: str, system: bool) -> None:
    tokenizer = stranger(adds, template, bos="<|im_start|>")
    turns = [{"role": "system", "content": "Be brief."}] * system + [{"role": "user", "content": "1+1"}]
    settings = {"add_generation_prompt": True}
    expected = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, **settings)
    text = tokenizer.apply_chat_template(turns, tokenize=False, **settings)
    assert encode_prompts(tokenizer, [text]) == [expected]
    assert expected.count(START) == (template == WITH_START)


# -- end tokens ------------------------------------------------------------------------------------------------------


def test_every_declared_token_ends_an_answer(stranger: Make) -> None:
    model = load_causal_lm("qwen2-0.1m").model
    model.config.eos_token_id, model.generation_config.eos_token_id = 7, [2, 5]
    assert end_tokens(model, stranger()) == [2, 5, 7]
    # A base model's tokenizer knows the end of a text only, its template the end of a turn.
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    other = stranger("$A", CLOSED, eos="!")
    assert end_tokens(model, other) == [other.convert_tokens_to_ids("!"), END]


@pytest.mark.parametrize(("template", "expected"), [(None, None), (OPEN, None), (CLOSED, END), ("{{ 1/0 }}", None)])
def test_a_template_may_end_a_turn(stranger: Make, template: str | None, expected: int | None) -> None:
    assert turn_end(stranger(template=template)) == expected


def test_the_first_of_several_ends_counts() -> None:
    model, tokenizer = load_causal_lm("qwen2-0.1m")
    # Of 259 tokens a random model writes the 57 from 3 to 59 once in five tokens.
    model.generation_config.eos_token_id = [2, *range(3, 60)]
    ends = {tokenizer.decode([token]) for token in range(3, 60)}
    written = complete(model, tokenizer, ["1+1="] * 64, max_new_tokens=24, seed=0)
    assert sum(completion.finished for completion in written) > 48
    for completion in written:
        assert not ends & set(completion.text.replace("<|im_start|>", "").replace("<|pad|>", ""))
        assert completion.finished or completion.tokens == 24


def test_an_end_token_of_the_model_alone_is_the_tokenizers(stranger: Make) -> None:
    model, tokenizer = load_causal_lm("qwen2-0.1m").model, stranger(eos=None)
    assert adopt_tokens(model, tokenizer) == [END]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (END, 0)
    assert complete(model, tokenizer, ["1+1="], max_new_tokens=4)


def test_padding_that_is_the_end_token_changes_nothing(stranger: Make) -> None:
    model, usual = load_causal_lm("qwen2-0.1m")
    prompts = ["1+1=", "1234567+1="] * 4
    expected = complete(model, usual, prompts, max_new_tokens=12, seed=3)
    assert complete(model, stranger(), prompts, max_new_tokens=12, seed=3) == expected


def test_says_when_nothing_ends_an_answer(stranger: Make) -> None:
    model, tokenizer = load_causal_lm("qwen2-0.1m").model, stranger(eos=None)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    with pytest.raises(ConfigError, match=r"nothing says which token ends an answer.*Set tokenizer\.eos_token"):
        complete(model, tokenizer, ["1+1="], max_new_tokens=4)


# -- worked solutions ------------------------------------------------------------------------------------------------


def test_a_solution_ends_as_its_prompt_asks_for(stranger: Make) -> None:
    tokenizer = stranger("<|im_start|> $A", CLOSED, bos="<|im_start|>", eos="!")
    # 3 is "!": what ends a text, not a turn.
    (text, turn) = encode_solutions(tokenizer, [("1+1=", "2"), ("user: 1+1\nassistant: ", "2")])
    assert text == [20, tokenizer.eos_token_id]
    assert turn == [20, END]


class Worked:
    prompt, answer, solution = "1+1", "2", "2"


def test_a_warm_start_reads_what_an_evaluation_reads(stranger: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    model, tokenizer = load_causal_lm("qwen2-0.1m").model, stranger("<|im_start|> $A <|im_end|>", bos="<|im_start|>")
    forward = model.forward

    def note(*arguments: Any, **settings: Any) -> Any:
        seen.append(settings["input_ids"])
        return forward(*arguments, **settings)

    monkeypatch.setattr(model, "forward", note)
    problems: list[WorkedProblem] = [Worked()]
    warm_start(
        model,
        tokenizer,
        problems,
        correct=lambda texts, answers: [True, False] * (len(texts) // 2),
        max_steps=1,
        batch_size=1,
        max_new_tokens=1,
        ceiling=0.9,
    )
    # One supervised step with solution and end, then the probe.
    assert [row[0].tolist() for row in seen] == [[START, *SUM, 20, END], [START, *SUM]]


# -- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("1+1\ud83d", r"'1\+1\\ud83d' has a lone surrogate \('\\ud83d'\) at position 3, which no tokenizer can read"),
        ("", "the prompt '' has no token"),
        (7, "a prompt is 7; expected text"),
        ([{"type": "text", "text": "1+1"}], "a prompt is .*; expected text"),
        ("<think>", r"has the token 259 \('<think>'\), and the model knows 259: model and tokenizer do not belong"),
    ],
)
def test_rejects_what_cannot_be_read(prompt: Any, message: str) -> None:
    tokenizer = load_tokenizer("character")
    tokenizer.add_special_tokens({"extra_special_tokens": ["<think>"]})
    with pytest.raises(ConfigError, match=message):
        encode_prompts(tokenizer, [prompt], 259)


def test_rejects_a_solution_that_cannot_be_read() -> None:
    with pytest.raises(ConfigError, match="lone surrogate"):
        encode_solutions(load_tokenizer("character"), [("1+1=", "\udc00")])


PART = {"type": "text", "text": "1+1="}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("1+1=", "1+1="),
        ([PART], "1+1="),
        # A table has every column in every row.
        ([PART | {"image": None}, {"type": "text", "text": "?"}], "1+1=\n?"),
        ([{"role": "user", "content": [PART]}], [{"role": "user", "content": "1+1="}]),
        (
            [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": None, "tool_calls": []}],
            [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": None, "tool_calls": []}],
        ),
    ],
)
def test_content_parts_are_their_text(prompt: Any, expected: Any) -> None:
    assert plain_prompt(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([{"type": "image", "image": "a.png"}], r"a part of a prompt is .*'image'.*Leave others out"),
        ([{"type": "text"}], "a part of a prompt is"),
        ([PART, "?"], "expected text, a list of text parts, or a conversation"),
        ([], "expected text, a list of text parts, or a conversation"),
        (None, "a prompt is None"),
        ([{"role": "user", "content": [PART | {"text": "\ud83d"}]}], "lone surrogate"),
    ],
)
def test_rejects_prompts_that_are_no_text(prompt: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plain_prompt(prompt)
