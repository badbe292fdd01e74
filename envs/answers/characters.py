r"""One spelling for what Unicode, LaTeX and Markdown write in many ways; nothing here decides what an answer means.

`plain` returns text in which minus signs are `-`, superscripts `^{...}`, fractions `\frac`, words stand without
`\text`, degrees are `\degree`, a repeating decimal is `0.1(6)`, and layout commands are gone.
"""

from __future__ import annotations

import re
import unicodedata

from envs.answers.words import listed

__all__ = ["plain", "squeezed"]

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₐₑₙₓ", "0123456789+-()aenx", strict=True))
_RAISED = re.compile(f"[{re.escape(''.join(_SUPERSCRIPTS))}]+")
_LOWERED = re.compile(f"[{re.escape(''.join(_SUBSCRIPTS))}]+")
# Seven eighths in small digits, and a millionth before a unit.
_STACKED = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹]+)[⁄∕/]([₀₁₂₃₄₅₆₇₈₉]+)")
_MICRO = re.compile("(?<=[0-9 ])[μµ](?=[A-Za-z])")
_GREEK = {
    unicodedata.lookup(f"GREEK {size} LETTER {name.upper()}"): f"\\{name if size == 'SMALL' else name.title()} "
    for size, names in {
        "SMALL": "alpha beta gamma delta epsilon zeta eta theta iota kappa mu nu xi pi rho sigma tau phi chi psi omega",
        "CAPITAL": "gamma delta theta xi pi sigma phi psi omega",
    }.items()
    for name in names.split()
}
_CHARACTERS = str.maketrans(
    {
        **_GREEK,
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u2061\u2062\u2063\u2064"),
        **dict.fromkeys(
            "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "
        ),
        **dict.fromkeys("−–—‒―‐‑﹣", "-"),
        **dict.fromkeys("⁄∕÷", "/"),
        **dict.fromkeys("·⋅∙•", "\\cdot "),
        **dict.fromkeys("’‘′", "'"),
        **dict.fromkeys("“”", '"'),
        **dict.fromkeys("°º˚", "\\degree "),
        "×": "\\times ",
        "✕": "\\times ",
        "≤": "\\le ",
        "⩽": "\\le ",
        "≥": "\\ge ",
        "⩾": "\\ge ",
        "≠": "\\ne ",
        "∞": "\\infty ",
        "±": "\\pm ",
        "∪": "\\cup ",
        "∈": "\\in ",
        "∅": "\\emptyset ",
        "ℝ": "\\reals ",
        "√": "\\root ",
        "∛": "\\sqrt[3]",
        "℃": "\\degree C",
        "℉": "\\degree F",
        "µ": "u",
        "％": "%",
    }
)
# A dash of these between two digits may be a range (3–5) as well as a minus sign.
_RANGE = re.compile(r"[0-9]\s*[–—‒―]\s*[0-9]")

_NOTHING = listed(
    """
        left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle limits
        nolimits rm bf it mathstrut strut
        """
)
_COMMANDS = {
    **dict.fromkeys(_NOTHING, ""),
    **dict.fromkeys(("quad", "qquad", "thinspace", "enspace", "space", "nobreakspace"), " "),
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "\\frac "),
    **dict.fromkeys(("dbinom", "tbinom"), "\\binom "),
    **dict.fromkeys(("leq", "leqslant", "leqq"), "\\le "),
    **dict.fromkeys(("geq", "geqslant", "geqq"), "\\ge "),
    **dict.fromkeys(("neq", "not="), "\\ne "),
    **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"),
    **dict.fromkeys(("varnothing", "empty"), "\\emptyset "),
    **dict.fromkeys(("lor", "vee"), " or "),
    "infin": "\\infty ",
    "ast": "\\cdot ",
    "lbrace": "\\{",
    "rbrace": "\\}",
    "lbrack": "[",
    "rbrack": "]",
    "langle": "⟨",
    "rangle": "⟩",
    "lt": "<",
    "gt": ">",
    "div": "/",
    "colon": ":",
    "varphi": "\\phi ",
    "varepsilon": "\\epsilon ",
    "vartheta": "\\theta ",
    "degree": "\\degree ",
    "textdegree": "\\degree ",
    "pounds": "£",
    "textsterling": "£",
    "euro": "€",
    "texteuro": "€",
    "yen": "¥",
    "cent": "¢",
    "textdollar": "＄",
    "dots": "...",
    "ldots": "...",
    "cdots": "...",
    ",": " ",
    ";": " ",
    ":": " ",
    " ": " ",
    ">": " ",
    "!": "",
    "%": "%",
    "$": "＄",
    "#": "#",
    "&": "&",
    "_": "_",
}
_COMMAND = re.compile(r"\\\\|\\([A-Za-z]+(?: (?=[A-Za-z{\\]))?|[^A-Za-z\\{}|()\[\]])")
_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|textup|emph|mbox|hbox|mathrm|mathbf|mathit|mathsf|mathtt"
    r"|operatorname|boldsymbol|bm)\*?\s*\{([^{}]*)\}"
)
_CIRCLE = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))")
_REPEATING = re.compile(r"([0-9]*\.[0-9]*)\\(?:overline|bar|dot)\s*(?:\{([0-9]+)\}|([0-9]))")
_FORMULA = re.compile(r"\$([^\s$](?:[^$]*[^\s$+*/=<>-])?)\$")
_BOLD = re.compile(r"(?<![\w)}\]])\*\*([^*]+)\*\*(?!\w)")
# One sign ends a sentence; three dots leave something out. A backslash at the end was one before a space.
_ENDED = re.compile(r"(?<![.,;:])[.,;:]\s*$|(?<!\\)\\$")
_GROUPED = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!|\\!,|\\!,\\!)(?=[0-9]{3}(?![0-9]))")


def plain(text: str) -> str:
    r"""The text in one spelling.

    >>> plain(r"$\dfrac{1}{2}\text{ cup}$"), plain("–3×10⁻⁵"), plain(r"0.1\overline{6}")
    ('\\frac {1}{2} cup', '-3\\times 10^{-5}', '0.1(6)')
    """
    if not text.isascii():
        text = _from_unicode(text)
    if "\\" in text or "{,}" in text:
        text = _from_latex(text)
    text = _unwrapped(text)
    return " ".join(text.replace("＄", "$").split())


_LAYOUT = re.compile(r" (?=[-+*/^_=<>|{}\\])|(?<=[-+*/^_=<>|{}]) |(?<=[0-9]) (?=[A-Za-z])")


def squeezed(text: str) -> str:
    """Plain text without the spaces that only lay it out: those around an operator, and between number and letter.

    A space between two numbers, behind a comma or before a parenthesis may mean something.
    """
    return _LAYOUT.sub("", text)


def _from_unicode(text: str) -> str:
    if _RANGE.search(text):
        text = re.sub("[–—‒―]", " \\\\dash ", text)
    text = _MICRO.sub("u", text)
    text = _STACKED.sub(lambda found: f"\\frac{{{_unraised(found[1])}}}{{{_unraised(found[2])}}}", text)
    text = _RAISED.sub(lambda run: "^{" + "".join(_SUPERSCRIPTS[sign] for sign in run.group()) + "}", text)
    text = _LOWERED.sub(lambda run: "_{" + "".join(_SUBSCRIPTS[sign] for sign in run.group()) + "}", text)
    return "".join(map(_character, text)).translate(_CHARACTERS)


def _unraised(digits: str) -> str:
    return "".join(_SUPERSCRIPTS.get(digit, _SUBSCRIPTS.get(digit, digit)) for digit in digits)


def _character(character: str) -> str:
    if character.isascii():
        return character
    if "FRACTION" in unicodedata.name(character, "") and unicodedata.category(character) == "No":
        numerator, _, denominator = unicodedata.normalize("NFKC", character).partition("\u2044")
        return f"\\frac{{{numerator}}}{{{denominator}}}"
    # Full-width forms and mathematical alphabets are letters and digits in another shape.
    if "\uff01" <= character <= "\uff5e" or "\U0001d400" <= character <= "\U0001d7ff":
        return "＄" if character == "＄" else unicodedata.normalize("NFKC", character)
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.decimal(character))
    return character


def _from_latex(text: str) -> str:
    for mark, end in (("\\(", "\\)"), ("\\[", "\\]")):
        if text.strip().startswith(mark) and text.strip().endswith(end):
            text = text.strip()[2:-2]
    text = re.sub(r"(?<!^)~", " ", text)
    text = text.replace("\\left.", "").replace("\\right.", "")
    text = _GROUPED.sub("", text)
    text = _REPEATING.sub(lambda found: f"{found[1]}({found[2] or found[3]})", text)
    text = text.replace("\\mathbb{R}", "\\reals ").replace("\\mathbb R", "\\reals ")
    while (flat := _WRAPPED.sub(r" \1 ", text)) != text:
        text = flat
    text = _CIRCLE.sub("\\\\degree ", text)
    return _COMMAND.sub(_replacement, text)


def _replacement(found: re.Match[str]) -> str:
    # Two backslashes end a row of a matrix; the second begins no command.
    return found.group() if found[1] is None else _COMMANDS.get(found[1].strip() or " ", found.group())


_APOSTROPHES = re.compile(r"(?<=[0-9])'(?=[0-9]{3}(?![0-9]))")


def _unwrapped(text: str) -> str:
    """Without what surrounds an answer in prose: Markdown, dollar signs of formulas, quotation marks, the full stop."""
    text = text.strip()
    if "'" in text:
        text = _APOSTROPHES.sub("", text)
    if "**" in text:
        text = _BOLD.sub(r"\1", text).strip()
    for mark in ("`", '"', "'", "__", "_", "*", "$$", "$"):
        inside = text[len(mark) : -len(mark)]
        if inside.strip() and text.startswith(mark) and text.endswith(mark) and mark not in inside:
            text = inside.strip()
    text = _ENDED.sub("", text)
    if text.count("$") > 1:
        text = _ENDED.sub("", _FORMULA.sub(r"\1", text.replace("$$", "$")).strip())
    return text
