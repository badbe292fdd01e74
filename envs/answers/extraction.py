r"""The part of a response that is its answer, in time linear in the response.

1. Of several answers in one response the one that *starts* last decides; the others are not looked at.
2. A response without `\boxed{}` or `####` is an answer only if it is nothing but one: a single short line.
3. A box that is never closed is no answer: the response was cut off in it.
4. Tokens that end a sequence (`</s>`, `<|im_end|>`) and closing tags at the end are not part of an answer.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

__all__ = ["LONGEST_LINE", "Extracted", "extract_answer"]

LONGEST_LINE = 100
"""Characters a response without a box or #### may have and still be taken for an answer."""


@dataclass(frozen=True)
class Extracted:
    """What a response gives as its answer."""

    answer: str | None
    """The text that decides, or `None`."""
    reason: str
    """If there is no answer, the reason of the grade that says why; else empty."""


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BOX = re.compile(r"\\f?boxed\s*\{")
_ENDS = re.compile(
    r"(?:<(?:/?s|/[a-z_]{1,20}|eos|pad|end|stop|end_of_turn|endoftext|im_end|[|｜][^<>\s]{1,40}[|｜])>"
    r"|\[(?:/?INST|END|EOS|DONE)\])$"
)


def extract_answer(response: str) -> Extracted:
    r"""The part of a response that is its answer.

    >>> extract_answer(r"maybe \boxed{3}, no: \boxed{\frac{1}{2}}").answer
    '\\frac{1}{2}'
    >>> extract_answer("8 + 10 = 18\n#### 18</s>").answer
    '18'
    >>> extract_answer("It is 18.\nOr is it 20?").reason
    'no answer'
    """
    hashes = response.rfind("####")
    boxes = deque(_BOX.finditer(response, max(hashes, 0)), maxlen=1)
    if boxes:
        return _inside_braces(response, boxes[0].end())
    if hashes >= 0:
        tail = response[hashes + 4 :].lstrip("#").strip()
        return _present(tail.split("\n", 1)[0])
    line = response.strip()
    if line and (len(line) > LONGEST_LINE or "\n" in line):
        return Extracted(None, "no answer")
    return _present(line)


def _inside_braces(text: str, start: int) -> Extracted:
    depth = 1
    for brace in _BRACE.finditer(text, start):
        # An escaped brace is a character of the answer; the first alternative passes over it.
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return _present(text[start : brace.start()])
    return Extracted(None, "unfinished")


def _present(text: str) -> Extracted:
    text = text.strip().rstrip("✓✔✅🎉").rstrip()
    while text.endswith((">", "]")) and (end := _ENDS.search(text, max(len(text) - 60, 0))):
        text = text[: end.start()].rstrip()
    return Extracted(text, "") if text else Extracted(None, "empty")
