"""A question as the user's turn of a conversation, in the words of a tokenizer's chat template."""

from __future__ import annotations

from typing import Any, Protocol

from testbed.configuration import shown
from testbed.errors import ConfigError

__all__ = ["ChatTokenizer", "chat_prompt"]


class ChatTokenizer(Protocol):
    """What is asked of a tokenizer: a chat template, as those of transformers have it."""

    chat_template: Any

    def apply_chat_template(self, conversation: list[dict[str, Any]], **settings: Any) -> Any:
        """The text of a conversation."""


def chat_prompt(tokenizer: ChatTokenizer, question: str, system: str | None = None, *, system_turn: bool = True) -> str:
    """The text of a conversation up to where the answer begins.

    A start token that the template writes and the tokenizer puts before every text as well is left to the tokenizer,
    so that the text has the template's own tokens.

    Args:
        tokenizer: one of transformers' with a chat template.
        question: the user's turn.
        system: what precedes it; `None`: nothing, or what the template itself puts there.
        system_turn: False: nothing precedes it, even where the template puts a turn of its own there.

    Raises:
        ConfigError: the template refuses the conversation, or leaves the question out; or a system's turn is both
            given and unwanted.
    """
    if not system_turn:
        if system is not None:
            raise ConfigError(f"system is {shown(system)} and system_turn is False; leave one of them out")
        return _without_system(tokenizer, question)
    first = [] if system is None else [("system", system)]
    turns = [*first, ("user", question)]
    # Templates of models that also see images expect parts, and pass over plain text without a word.
    for content in (lambda text: text, lambda text: [{"type": "text", "text": text}]):
        conversation = [{"role": role, "content": content(text)} for role, text in turns]
        try:
            written = str(tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True))
        except Exception as error:
            # A template is a program of its own and raises what it likes.
            refusal = f"it raises {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        if all(text.strip() in written for _, text in turns):
            return _without_doubled_start(tokenizer, written)
        refusal = f"it leaves the question out of {shown(written)}"
    roles = "a system's and a user's turn" if first else "a single user's turn"
    advice = "Leave system out, or set" if first else "Use a plain template, or set"
    raise ConfigError(f"the chat template cannot write {roles}: {refusal}. {advice} tokenizer.chat_template")


def _without_system(tokenizer: ChatTokenizer, question: str) -> str:
    """The user's turn alone: what a template writes behind a system's turn that it was given."""
    plain = chat_prompt(tokenizer, question)
    marker = "system"
    try:
        alone = str(tokenizer.apply_chat_template([{"role": "system", "content": marker}], tokenize=False))
        both = chat_prompt(tokenizer, question, marker)
    except Exception:
        # A template that knows no system's turn writes none.
        return plain
    alone = _without_doubled_start(tokenizer, alone)
    return both[len(alone) :] if both.startswith(alone) else plain


def _without_doubled_start(tokenizer: Any, text: str) -> str:
    start = getattr(tokenizer, "bos_token", None)
    if not start or not text.startswith(start):
        return text
    added = tokenizer("0").input_ids[:1] == [tokenizer.bos_token_id]
    return text[len(start) :] if added else text
