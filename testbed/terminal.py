"""What a terminal or a pipe can show: letters that its encoding lacks get an ASCII stand-in."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import unicodedata

__all__ = ["make_printable", "printable", "silence_output"]

STAND_INS = {
    "✓": "+",
    "✗": "x",
    "∅": "0",
    "→": "->",
    "←": "<-",
    "↔": "<->",
    "⇒": "=>",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "≈": "~",
    "∼": "~",
    "±": "+-",
    "−": "-",
    "–": "-",
    "—": "-",
    "·": "*",
    "×": "x",
    "÷": "/",
    "⁄": "/",
    "∞": "inf",
    "√": "sqrt",
    "∑": "sum",
    "Σ": "sum",
    "∏": "prod",
    "∂": "d",
    "∇": "grad",
    "∫": "integral",
    "∈": "in",
    "∉": "not in",
    "⊙": "*",
    "‖": "||",
    "‹": "<",
    "›": ">",
    "«": "<<",
    "»": ">>",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "…": "...",
    "\u00a0": " ",
    "ß": "ss",
}
"""What is written for a character; Greek letters go by their names, and accents are left out."""
_HANDLER = "testbed.stand_in"


def make_printable() -> None:
    """Have standard output and error write a stand-in where they cannot write a character."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def printable(text: str) -> str:
    """The text as standard output will show it."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, _HANDLER).decode(encoding)


def silence_output() -> None:
    """Give up standard output, whose reader has gone, so that closing it is no second error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stand_in(character: str) -> str:
    """ASCII for one character.

    >>> [stand_in(character) for character in "≤ε½é₂語"]
    ['<=', 'epsilon', '1/2', 'e', '2', '?']
    """
    if character in STAND_INS:
        return STAND_INS[character]
    name = unicodedata.name(character, "")
    if name.startswith("GREEK") and "LETTER" in name:
        letter = name.split("LETTER ")[1].split(" ")[0].lower()
        return letter.capitalize() if "CAPITAL" in name else letter
    parts = unicodedata.normalize("NFKD", character)
    plain = "".join(STAND_INS.get(part, part) for part in parts)
    return "".join(letter for letter in plain if letter.isascii()) or "?"


def _handle(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(stand_in, error.object[error.start : error.end])), error.end


codecs.register_error(_HANDLER, _handle)
