"""Strings that end an answer, for models that do not end it by themselves: a newline, the next question."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from testbed.configuration import shown
from testbed.errors import ConfigError

__all__ = ["StopStrings"]


class StopStrings:
    r"""Ends an answer at the token that completes one of a few strings.

    That token is the answer's last: the policy chose it, and what would follow was never written. The text that is
    graded ends before the string.

    Args:
        tokenizer: one of transformers'.
        strings: what ends an answer; none: nothing but the model's end tokens does.

    Raises:
        ConfigError: a string is empty or no text.

    Example:
        >>> from models.causal_lm import load_tokenizer
        >>> tokenizer = load_tokenizer("character")
        >>> stop = StopStrings(tokenizer, ["\n", "Question"])
        >>> stop.length(tokenizer("12\n34").input_ids), stop.length(tokenizer("12").input_ids)
        (3, None)
        >>> stop.before("12\n34")
        '12'
    """

    def __init__(self, tokenizer: Any, strings: Sequence[str]) -> None:
        for text in strings:
            if not isinstance(text, str) or not text:
                raise ConfigError(f"a stop string is {shown(text)}; expected text of at least one character")
        self._tokenizer, self.strings = tokenizer, tuple(strings)
        # A token has at least one byte, but for those that only end or pad.
        self._longest = max((len(text.encode()) for text in strings), default=0)

    def __bool__(self) -> bool:
        return bool(self.strings)

    def length(self, tokens: Sequence[int]) -> int | None:
        """Tokens of an answer up to and with the one that completes the first stop string; `None` without any."""
        if not self._ends(self._tokenizer.decode(tokens)):
            return None
        written = range(1, len(tokens) + 1)
        return written[bisect.bisect_left(written, True, key=lambda n: self._ends(self._tokenizer.decode(tokens[:n])))]

    def before(self, text: str) -> str:
        """What stands before the first stop string; all of it without any."""
        found = [place for place in map(text.find, self.strings) if place >= 0]
        return text[: min(found)] if found else text

    def criteria(self, prompt: int) -> Any:
        """What `generate` asks after every token.

        Args:
            prompt: tokens of the prompts, padding included.
        """
        from transformers import StoppingCriteria

        stop = self

        class Ended(StoppingCriteria):
            def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
                latest = input_ids[:, max(prompt, input_ids.shape[1] - stop._longest) :]
                texts = stop._tokenizer.batch_decode(latest)
                return torch.tensor([stop._ends(text) for text in texts], device=input_ids.device)

        return Ended()

    def _ends(self, text: str) -> bool:
        return any(string in text for string in self.strings)
