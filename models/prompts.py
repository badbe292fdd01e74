"""Prompts to tokens, and which tokens end an answer: what differs between tokenizers, in one place.

Training, evaluation and warm start all come through here, so that a model reads the same tokens in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testbed.configuration import shown
from testbed.errors import ConfigError

__all__ = ["adopt_tokens", "check_text", "encode_prompts", "encode_solutions", "end_tokens", "plain_prompt", "turn_end"]


def plain_prompt(prompt: Any) -> Any:
    """A prompt without content parts: the text of its parts, or the conversation with texts as content.

    Args:
        prompt: text; a list of parts such as `{"type": "text", "text": …}`; or a conversation, a list of messages with
            `role` and `content`, where the content is either.

    Raises:
        ConfigError: it is none of these, a part is no text, or there is a lone surrogate in it.

    Example:
        >>> plain_prompt([{"type": "text", "text": "1+1="}])
        '1+1='
        >>> plain_prompt([{"role": "user", "content": [{"type": "text", "text": "1+1="}]}])
        [{'role': 'user', 'content': '1+1='}]
    """
    if isinstance(prompt, str):
        check_text(prompt)
        return prompt
    if isinstance(prompt, Sequence) and prompt and all(isinstance(item, Mapping) for item in prompt):
        if all(item.get("role") is not None for item in prompt):
            return [
                {**item, "content": plain_prompt(item["content"])} if item.get("content") is not None else dict(item)
                for item in prompt
            ]
        return "\n".join(_part(item) for item in prompt)
    raise ConfigError(f"a prompt is {shown(prompt)}; expected text, a list of text parts, or a conversation")


def _part(part: Mapping[str, Any]) -> str:
    # A table of parts of several types has every column in every row.
    text = part.get("text")
    if part.get("type") != "text" or not isinstance(text, str):
        raise ConfigError(
            f"a part of a prompt is {shown(dict(part))}; a tokenizer reads parts such as "
            "{'type': 'text', 'text': …} only. Leave others out, or use a model with a processor for them"
        )
    check_text(text)
    return text


def check_text(text: str) -> None:
    """Refuse a text with a lone surrogate, half of a character that UTF-16 writes in two.

    Raises:
        ConfigError: there is one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"the text {shown(text)} has a lone surrogate ({text[error.start]!a}) at position {error.start}, which no "
            "tokenizer can read; repair or drop it"
        ) from error


def encode_prompts(tokenizer: Any, prompts: Sequence[str], vocabulary: int | None = None) -> list[list[int]]:
    """The tokens of prompts that an answer is to follow, without padding.

    What the tokenizer puts before every text (a start token) stands there once: not again where the text has it
    already, and not at all before a text that its chat template wrote, because a template alone decides how a
    conversation begins. What it puts behind a text (an end token) is left out: the answer is still to come.

    Args:
        tokenizer: one of transformers'.
        prompts: texts, special tokens in them understood.
        vocabulary: number of tokens the model knows; `None`: not checked.

    Raises:
        ConfigError: a prompt is no text, has a lone surrogate, gives no token, or gives one the model does not know.

    Example:
        >>> from models.causal_lm import load_tokenizer
        >>> encode_prompts(load_tokenizer("character"), ["1+1"])
        [[19, 13, 19]]
    """
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ConfigError(f"a prompt is {shown(prompt)}; expected text")
        check_text(prompt)
    start = _added_before(tokenizer)
    openings = _openings(tokenizer) if start else []
    rows = []
    for text, plain in zip(prompts, tokenizer(list(prompts), add_special_tokens=False).input_ids, strict=True):
        has_start = plain[: len(start)] == start or any(text.startswith(opening) for opening in openings)
        rows.append(list(plain) if has_start else start + list(plain))
    for text, row in zip(prompts, rows, strict=True):
        if not row:
            raise ConfigError(f"the prompt {shown(text)} has no token; expected at least one that an answer can follow")
        _check_known(tokenizer, text, row, vocabulary)
    return rows


def encode_solutions(
    tokenizer: Any, problems: Sequence[tuple[str, str]], vocabulary: int | None = None
) -> list[list[int]]:
    """The tokens of worked solutions with the token that ends an answer, as they follow the tokens of their prompts.

    Behind a prompt that the tokenizer's chat template wrote, an answer ends as the template ends an assistant's turn.

    Args:
        tokenizer: one of transformers', with an end token.
        problems: prompt and solution of each.
        vocabulary: number of tokens the model knows; `None`: not checked.

    Raises:
        ConfigError: a solution has a lone surrogate, or gives a token the model does not know.

    Example:
        >>> from models.causal_lm import load_tokenizer
        >>> encode_solutions(load_tokenizer("character"), [("1+1=", "2")])
        [[20, 2]]
    """
    for _, solution in problems:
        check_text(solution)
    openings = [text.removeprefix(tokenizer.bos_token or "") for text in _openings(tokenizer)]
    of_turn = turn_end(tokenizer)
    rows = []
    texts = [solution for _, solution in problems]
    for (prompt, text), tokens in zip(problems, tokenizer(texts, add_special_tokens=False).input_ids, strict=True):
        conversation = of_turn is not None and any(prompt.startswith(opening) for opening in openings if opening)
        rows.append([*tokens, of_turn if conversation else tokenizer.eos_token_id])
        _check_known(tokenizer, text, rows[-1], vocabulary)
    return rows


def _check_known(tokenizer: Any, text: str, tokens: list[int], vocabulary: int | None) -> None:
    if vocabulary is not None and max(tokens) >= vocabulary:
        raise ConfigError(
            f"the text {shown(text)} has the token {max(tokens)} ({tokenizer.convert_ids_to_tokens(max(tokens))!r}), "
            f"and the model knows {vocabulary}: model and tokenizer do not belong together. Resize the model's "
            "embeddings, or use the model's own tokenizer"
        )


def _added_before(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before a text."""
    with_added, plain = tokenizer("0").input_ids, tokenizer("0", add_special_tokens=False).input_ids
    for place in range(len(with_added) - len(plain) + 1):
        if with_added[place : place + len(plain)] == plain:
            return list(with_added[:place])
    return []


def _openings(tokenizer: Any) -> list[str]:
    """How texts of the tokenizer's chat template begin, with a system's turn and without one."""
    first, other = ({"role": "user", "content": letter} for letter in "AB")
    texts = []
    for turns in ([[first], [other]], [[first | {"role": "system"}, first], [other | {"role": "system"}, first]]):
        written = [_conversation(tokenizer, turn) for turn in turns]
        if None not in written:
            one, two = map(str, written)
            same = next((place for place, pair in enumerate(zip(one, two)) if pair[0] != pair[1]), 0)  # noqa: B905
            texts.append(one[:same])
    return [text for text in texts if text]


def _conversation(tokenizer: Any, turns: list[dict[str, str]], **settings: Any) -> str | None:
    """The text of a conversation; `None` where the template refuses it or there is none."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **settings))
    except Exception:
        # A template is a program of its own and raises what it likes.
        return None


def turn_end(tokenizer: Any) -> int | None:
    """The special token that the chat template writes behind an assistant's answer; `None` if there is none.

    >>> from models.causal_lm import load_tokenizer
    >>> turn_end(load_tokenizer("character"))
    2
    """
    answer = "0123456789"
    text = _conversation(tokenizer, [{"role": "user", "content": "A"}, {"role": "assistant", "content": answer}])
    if text is None or answer not in text:
        return None
    following = tokenizer(text.rpartition(answer)[2], add_special_tokens=False).input_ids
    special = set(tokenizer.all_special_ids) | {
        number for number, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special
    }
    return int(following[0]) if following and following[0] in special else None


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the tokenizer's, all those the model's configurations declare, the template's.

    Raises:
        ConfigError: there is none.
    """
    found: list[Any] = []
    text_configuration = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    for declared in (
        tokenizer.eos_token_id,
        getattr(getattr(model, "generation_config", None), "eos_token_id", None),
        getattr(text_configuration, "eos_token_id", None),
        turn_end(tokenizer),
    ):
        found += declared if isinstance(declared, list | tuple) else [declared]
    known = [
        number
        for number in dict.fromkeys(found)
        if isinstance(number, int) and tokenizer.convert_ids_to_tokens(number) is not None
    ]
    if not known:
        raise ConfigError(
            "nothing says which token ends an answer: the tokenizer has no eos_token, and the model's configuration "
            "and generation configuration have no eos_token_id. Set tokenizer.eos_token, or save the model with it"
        )
    return known


def adopt_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Give a tokenizer without an end or a padding token those of its model; returns `end_tokens`.

    Padding is outside every mask, so that an end token serves where there is no other.

    Raises:
        ConfigError: no end token is known.
    """
    ends = end_tokens(model, tokenizer)
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    if tokenizer.pad_token_id is None:
        declared = getattr(getattr(model, "generation_config", None), "pad_token_id", None)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(ends[0] if declared is None else declared)
    return ends
