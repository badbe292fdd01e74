r"""The kinds of answers, and which kind a text is.

`read` gives a `Quantity` (a number or an expression, with its unit), a `Named` value (`x = 3`), an `Equation`, an
`Inequality`, a set of `Reals` (intervals, unions, solved inequalities), a `Series` (tuple, set, bare list, ratio), a
`Matrix`, a number in a base, or a `Text` of words. Where a text is none of these or could be two, it is a `Text` that
equals only itself, and `Text.why` says which of the two.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from envs.answers.characters import plain
from envs.answers.expressions import (
    DEEPEST,
    Decimal,
    Token,
    Tree,
    Unreadable,
    exact_value,
    has_symbols,
    parse_expression,
    read_decimal,
    tokens,
)
from envs.answers.units import CURRENCIES, PERCENT, Unit, read_unit
from envs.answers.words import DOUBTFUL, PARTS, SCALES, number_in_words

__all__ = [
    "Based",
    "Chain",
    "Equation",
    "Inequality",
    "Interval",
    "Matrix",
    "Named",
    "Quantity",
    "Reading",
    "Reals",
    "Series",
    "Text",
    "is_mere_unit",
    "read",
]


@dataclass(frozen=True)
class Quantity:
    """A number or an expression, with a unit or without."""

    tree: Tree
    exact: Fraction | None = None
    """The value where it is a fraction."""
    decimal: Decimal | None = None
    """The number as it is written, where it is a decimal and nothing else."""
    unit: Unit | None = None

    @property
    def infinite(self) -> int:
        """1 and -1 for the infinities, else 0."""
        if self.tree[0] == "inf":
            return 1
        return -1 if self.tree[0] == "-" and self.tree[1][0] == "inf" else 0


@dataclass(frozen=True)
class Named:
    """A symbol and what it equals, or is in."""

    name: str
    value: Reading


@dataclass(frozen=True)
class Chain:
    """Several constants said to be equal to each other."""

    members: tuple[Quantity, ...]


@dataclass(frozen=True)
class Equation:
    """An equation that is not solved for anything."""

    left: Quantity
    right: Quantity


@dataclass(frozen=True)
class Inequality:
    """left < right, left ≤ right or left ≠ right, not solved for anything."""

    relation: Literal["<", "<=", "!="]
    left: Quantity
    right: Quantity


@dataclass(frozen=True)
class Interval:
    """Between two ends."""

    low: Quantity
    low_closed: bool
    high: Quantity
    high_closed: bool


@dataclass(frozen=True)
class Reals:
    """A union of intervals."""

    pieces: tuple[Interval, ...]


@dataclass(frozen=True)
class Series:
    """Several answers in one, the order of which counts in all but sets and bare lists."""

    kind: Literal["tuple", "brackets", "vector", "set", "bare", "ratio"]
    items: tuple[Reading, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of expressions."""

    rows: tuple[tuple[Quantity, ...], ...]


@dataclass(frozen=True)
class Based:
    """Digits in a base that is named: no number, for the question was how it is written."""

    digits: str
    base: int


@dataclass(frozen=True)
class Text:
    """Words, or what cannot be read as anything else."""

    text: str
    why: Literal["words", "unparsable", "unclear"]


Reading = Quantity | Named | Chain | Equation | Inequality | Reals | Series | Matrix | Based | Text

_LABEL = re.compile(
    r"(?:so|thus|hence|therefore|and)?,?\s*(?:the |my |our )?(?:final |correct |right |exact )?"
    r"(?:answer|ans|result|solution|total|sum|value|amount|(?:total )?(?:cost|price))"
    r"(?: is(?=[ :])|\s*:|\s*=)\s*:?\s*",
    re.IGNORECASE,
)
_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "\\le": "<=", "\\ge": ">=", "!=": "!=", "\\ne": "!=",
    "\\in": "in",
}  # fmt: skip
_OPENING, _CLOSING = ("(", "[", "{", "\\{", "⟨"), (")", "]", "}", "\\}", "⟩")
_CHOICE = re.compile(r"([A-Za-z])\)|\(([A-Za-z])\)")
_WORDS_ALONE = re.compile(r"[A-Za-z][A-Za-z' ,.\-/&]*")
_BASES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "sixteen": 16,
}  # fmt: skip
_BASED = re.compile(
    r"\(?\s*([0-9A-Z]+)\s*\)?\s*(?:_\s*\{?\s*([0-9]{1,2}|[a-z]+)\s*\}?|,?\s*\(?(?:in )?base[ -]([0-9]{1,2}|[a-z]+)\)?)"
)
_MATRIX = re.compile(r"\\begin\s*\{([pbBv]?matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\s*\{\1\}", re.DOTALL)


@lru_cache(maxsize=65536)
def read(answer: str) -> Reading:
    r"""What an answer says.

    >>> read("1 1/2 cups").exact, read("2e3").exact, read("7 thousand").exact
    (Fraction(3, 2), Fraction(2000, 1), Fraction(7000, 1))
    >>> read("13 is not the answer").why, read("1/2x").why, read("Tuesday").why
    ('unclear', 'unclear', 'words')
    """
    text = plain(answer)
    label = _LABEL.match(text)
    if label and label.end() < len(text):
        text = plain(text[label.end() :])
    text = text.removeprefix("=").strip() if text.startswith("= ") else text
    text = re.sub(r"(?<=[0-9a-z}]) is (?:the|my|our) (?:final |correct |right )?answer$", "", text)
    text = re.sub(r"(?<=^[A-Za-z]) in (?=[\[(])", r" \\in ", text)
    try:
        if _depth(text) > DEEPEST:
            raise Unreadable
        return _read(text)
    except Unreadable as error:
        return Text(text, "unclear" if error.ambiguous else _why(text))


def _depth(text: str) -> int:
    """How deep brackets stand in each other."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _why(text: str) -> Literal["words", "unparsable", "unclear"]:
    """Why a text that is no mathematics is none."""
    words = re.findall(r"(?<![A-Za-z\\])[A-Za-z][A-Za-z']+", text)
    if _WORDS_ALONE.fullmatch(text) and words and "\\" not in text:
        return "words"
    if any(word.lower() in DOUBTFUL for word in words) and any(character.isdigit() for character in text):
        return "unclear"
    return "words" if words and not re.search(r"[\\^_=<>{}|+*]", text) else "unparsable"


def _read(text: str) -> Reading:
    if not text:
        raise Unreadable
    choice = _CHOICE.fullmatch(text)
    if choice:
        text = choice[1] or choice[2]
    for reader in (_plain_decimal, _based, _matrix, _words, _several):
        found = reader(text)
        if found is not None:
            return found
    return _single(text)


_DECIMAL = re.compile(r"[+-]? ?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")


def _plain_decimal(text: str) -> Quantity | None:
    if not _DECIMAL.fullmatch(text):
        return None
    return _constant(text.removesuffix("."))


def _based(text: str) -> Reading | None:
    found = _BASED.fullmatch(text)
    if found is None:
        return None
    digits, name = found[1], found[2] or found[3]
    base = int(name) if name.isdigit() else _BASES.get(name)
    if not any(digit.isdigit() for digit in digits) and (base is None or base < 11 or len(digits) < 2):
        return None
    # An index that is no base: A_1 is a symbol, 12_{total} and 2010_2 are nothing.
    if base is None or not 2 <= base <= 36 or not all(int(digit, 36) < base for digit in digits):
        raise Unreadable(ambiguous=True)
    return Based(digits.lstrip("0") or "0", base)


def _matrix(text: str) -> Reading | None:
    found = _MATRIX.fullmatch(text)
    if found is None:
        if "\\begin" in text or "&" in text:
            raise Unreadable
        return None
    if found[1] == "vmatrix":
        raise Unreadable(ambiguous=True)
    rows = [row.split("&") for row in re.split(r"\\\\", found[2]) if row.strip()]
    if not rows or len({len(row) for row in rows}) > 1:
        raise Unreadable
    return Matrix(tuple(tuple(_expression(cell.strip()) for cell in row) for row in rows))


def _words(text: str) -> Reading | None:
    """A number in words with what it counts, or words that are no mathematics."""
    if not _WORDS_ALONE.fullmatch(text):
        signed = re.fullmatch(r"(?:negative|minus) (.*)", text, re.IGNORECASE)
        if signed and signed[1][:1].isdigit():
            inner = _single(signed[1])
            if isinstance(inner, Quantity) and inner.exact is not None:
                return _negated(inner)
        return None
    if re.fullmatch("[A-Za-z](?: [A-Za-z])+", text):
        return Text(text, "words")
    pieces = text.replace("-", " ").replace(",", " ").lower().split()
    sign = -1 if pieces[0] in ("negative", "minus") else 1
    pieces = pieces[1:] if sign < 0 else pieces
    for count in range(min(len(pieces), 12), 0, -1):
        value = number_in_words(pieces[:count])
        if value is not None:
            number = Quantity(("n", sign * value), sign * value)
            return _with_unit(number, " ".join(pieces[count:])) if count < len(pieces) else number
    runs = re.findall("[A-Za-z]+", text)
    if re.search("[-/]", text) and max(map(len, runs)) < 3:
        return None
    if any(len(word) > 1 and not _is_mathematics(word) for word in runs):
        if re.search(r"(?:^|\s)(?:and|or)(?:\s|$)", text) or "," in text:
            items = _split_list(text)
            if all(len(item) == 1 for item in items):
                return None
        return Text(text, "words")
    return None


def _is_mathematics(word: str) -> bool:
    """Whether a word stands for a constant, a function or a Greek letter."""
    try:
        tree = parse_expression(word)
    except Unreadable as error:
        return error.ambiguous
    return tree[0] in ("c", "inf") or (tree[0] == "s" and tree[1].startswith("\\"))


def _negated(number: Quantity) -> Quantity:
    assert number.exact is not None
    decimal = number.decimal
    if decimal is not None:
        decimal = dataclasses.replace(decimal, value=-decimal.value)
    return dataclasses.replace(number, tree=("-", number.tree), exact=-number.exact, decimal=decimal)


# -- several answers -----------------------------------------------------------------------------------------------


def _split(text: str, separator: Callable[[str, int], int]) -> list[str]:
    """Parts of a text between separators outside all brackets; `separator` gives the length of one at a place, or 0."""
    parts, depth, begun, place = [], 0, 0, 0
    while place < len(text):
        piece = text[place : place + 2] if text[place] == "\\" else text[place]
        if piece in _OPENING:
            depth += 1
        elif piece in _CLOSING:
            depth -= 1
            if depth < 0:
                raise Unreadable
        elif depth == 0:
            length = separator(text, place)
            if length:
                parts.append(text[begun:place])
                place += length
                begun = place
                continue
        place += len(piece)
    if depth:
        raise Unreadable
    parts.append(text[begun:])
    return [part.strip() for part in parts]


_CONJUNCTION = re.compile(r"(?:,|;)?\s*\b(?:and|or)\b\s*|;\s*|,\s+|,(?=[^0-9])|(?<=[^0-9]),")
_THOUSANDS = re.compile(r"(?<![0-9,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")


def _conjunction(text: str, place: int) -> int:
    found = _CONJUNCTION.match(text, place)
    if found:
        return found.end() - place
    # A comma between digits divides a list unless it groups thousands.
    return int(text[place] == "," and not any(g.start() < place < g.end() for g in _THOUSANDS.finditer(text)))


def _split_list(text: str) -> list[str]:
    if not any(sign in text for sign in (",", ";", "and", "or")):
        return [text]
    return _split(text, _conjunction)


def _comma(text: str, place: int) -> int:
    return int(text[place] in ",;")


def _bracketed(text: str) -> tuple[str, str, str] | None:
    """The brackets around a whole text and what is between them."""
    for opening in ("\\{", "(", "[", "{", "⟨"):
        if text.startswith(opening):
            break
    else:
        return None
    depth, place = 0, 0
    while place < len(text):
        piece = text[place : place + 2] if text[place] == "\\" else text[place]
        depth += (piece in _OPENING) - (piece in _CLOSING)
        place += len(piece)
        if depth == 0:
            return (opening, text[len(opening) : place - len(piece)].strip(), piece) if place == len(text) else None
    raise Unreadable


def _several(text: str) -> Reading | None:
    if text in ("\\emptyset", "\\{\\}", "\\{ \\}"):
        return Series("set", ())
    if text == "\\reals":
        return Reals((Interval(_INFINITE[-1], False, _INFINITE[1], False),))
    union = _split(text, lambda whole, place: 4 if re.match(r"\\cup(?![A-Za-z])", whole[place:]) else 0)
    if len(union) > 1:
        pieces = [_as_reals(_read(part)) for part in union]
        return Reals(tuple(piece for part in pieces for piece in part.pieces))
    parts = _split_list(text)
    if len(parts) > 1:
        if not all(parts):
            raise Unreadable
        items = tuple(_read(part) for part in parts)
        if any(isinstance(item, Text) for item in items):
            return Text(text, "words" if all(isinstance(item, Text) for item in items) else "unclear")
        names = {item.name for item in items if isinstance(item, Named) and isinstance(item.value, Reals)}
        if len(names) == 1 and all(isinstance(item, Named) and isinstance(item.value, Reals) for item in items):
            return Named(names.pop(), _combined(text, [_as_reals(item) for item in items]))
        return _one_name(items)
    brackets = _bracketed(text)
    if brackets is not None:
        opening, inside, closing = brackets
        built = _BUILDER.fullmatch(inside) if opening == "\\{" else None
        if built:
            return _item(built[2]) if _name(built[1]) else _item(inside)
        items_inside = _split(inside, _comma) if inside else []
        if len(items_inside) > 1 or opening in ("\\{", "[", "⟨"):
            return _collection(opening, items_inside, closing)
    plus_minus = _plus_minus(text)
    if plus_minus is not None:
        return plus_minus
    if _TIME_OF_DAY.fullmatch(text):
        return Text(text, "words")
    ratio = _split(text, lambda whole, place: int(whole[place] == ":"))
    if len(ratio) > 1:
        if not all(re.fullmatch(r"[0-9A-Za-z.]+|\(.*\)", part) for part in ratio):
            raise Unreadable
        # 10:05 is not 10:5: a time of day keeps its zeros.
        if any(re.match("0[0-9]", part) for part in ratio):
            return Text(":".join(ratio), "words")
        return Series("ratio", tuple(_expression(part) for part in ratio))
    return None


def _one_name(items: tuple[Reading, ...]) -> Reading:
    """Several answers; where they are all of one letter, as in `x = 1, x = 2` and `x = 1, 2`, under its name."""
    first = items[0]
    if isinstance(first, Named) and isinstance(first.value, Quantity):
        values = [first.value]
        for item in items[1:]:
            value = item.value if isinstance(item, Named) and item.name == first.name else item
            if isinstance(value, Quantity):
                values.append(value)
        if len(values) == len(items):
            return Named(first.name, Series("bare", tuple(values)))
    return Series("bare", items)


def _combined(text: str, parts: list[Reals]) -> Reals:
    """What `x < 2 or x > 5` and `x > 2 and x < 5` leave of the line."""
    pieces = [piece for part in parts for piece in part.pieces]
    if re.search(r"\bor\b", text):
        return Reals(tuple(pieces))
    if len(pieces) == len(parts) == 2 and re.search(r"\band\b|,", text):
        for below, above in (pieces, pieces[::-1]):
            if below.low.infinite < 0 and above.high.infinite > 0:
                low, high = above.low.exact, below.high.exact
                if low is not None and high is not None and low < high:
                    return Reals((Interval(above.low, above.low_closed, below.high, below.high_closed),))
    raise Unreadable(ambiguous=True)


_BUILDER = re.compile(r"([A-Za-z])\s*(?:\\in\s*\\reals\s*)?[|:]\s*(\1.*|[^|:]*[<>=]\s*\1.*|[^|:]*\\[lg]e\s*\1.*)")
_TIME_OF_DAY = re.compile(r"[0-9]{1,2}:[0-9]{2} ?\(?[ap]\.?m\.?\)?", re.IGNORECASE)
_INFINITE = {
    1: Quantity(("inf", 1)),
    -1: Quantity(("-", ("inf", 1))),
}


def _collection(opening: str, parts: list[str], closing: str) -> Reading:
    if not all(parts):
        raise Unreadable
    items = tuple(_item(part) for part in parts)
    pair = opening + closing
    if pair in ("\\{\\}", "{}"):
        return Series("set", items)
    if pair == "()":
        return Series("tuple", items)
    if pair == "[]":
        return Series("brackets", items)
    if pair == "⟨⟩":
        return Series("vector", items)
    if pair in ("[)", "(]") and len(items) == 2:
        low, high = items
        if isinstance(low, Quantity) and isinstance(high, Quantity):
            return Reals((Interval(low, opening == "[", high, closing == "]"),))
    raise Unreadable


def _item(text: str) -> Reading:
    found = _read(text)
    if isinstance(found, Text):
        raise Unreadable(ambiguous=found.why == "unclear")
    return found


def _as_reals(reading: Reading) -> Reals:
    if isinstance(reading, Named):
        return _as_reals(reading.value)
    if isinstance(reading, Reals):
        return reading
    if isinstance(reading, Series) and reading.kind in ("tuple", "brackets") and len(reading.items) == 2:
        low, high = reading.items
        if isinstance(low, Quantity) and isinstance(high, Quantity):
            closed = reading.kind == "brackets"
            return Reals((Interval(low, closed, high, closed),))
    raise Unreadable


def _plus_minus(text: str) -> Reading | None:
    if text.count("\\pm") != 1 or any(relation in text for relation in ("=", "<", ">", "\\le", "\\ge", "\\in")):
        return None
    tree = parse_expression(text)
    return Series("bare", tuple(_from_tree(_choose(tree, sign)) for sign in (1, -1)))


def _choose(tree: Tree, sign: int) -> Tree:
    if tree[0] == "pm":
        return _choose(tree[1], sign) if sign > 0 else ("-", _choose(tree[1], sign))
    return tuple(_choose(part, sign) if isinstance(part, tuple) else part for part in tree)


# -- one answer ----------------------------------------------------------------------------------------------------


def _single(text: str) -> Reading:
    relations, sides = _relations(text)
    if relations:
        return _relation(relations, sides)
    return _quantity(text)


_RELATION = re.compile(r"<=|>=|!=|[=<>]|\\(?:le|ge|ne|in)(?![A-Za-z])")


def _relations(text: str) -> tuple[list[str], list[str]]:
    found: list[str] = []

    def separator(whole: str, place: int) -> int:
        match = _RELATION.match(whole, place)
        if match is None:
            return 0
        found.append(_RELATIONS[match.group()])
        return match.end() - place

    sides = _split(text, separator)
    if not all(sides):
        raise Unreadable
    return found, sides


_NAME = re.compile(
    r"(?:[A-Za-z]|\\[A-Za-z]+)\s*(?:_\s*(?:[A-Za-z0-9]|\{[A-Za-z0-9 ]+\}))?'*\s*"
    r"(?:\(\s*[A-Za-z0-9](?:\s*,\s*[A-Za-z])*\s*\))?"
)
_TITLE = re.compile(r"[A-Za-z]{2,20}")


def _relation(relations: list[str], sides: list[str]) -> Reading:
    if set(relations) == {"="}:
        return _equality(sides)
    if relations == ["in"]:
        name = _name(sides[0])
        if name is None:
            raise Unreadable
        inside = _read(sides[1])
        if isinstance(inside, Series) and inside.kind == "set":
            return Named(name, inside)
        return Named(name, _as_reals(inside))
    if "in" in relations or "=" in relations or len(relations) > 2:
        raise Unreadable
    return _inequality(relations, sides)


def _name(side: str) -> str | None:
    if not _NAME.fullmatch(side) or side in ("e", "i", "\\pi", "\\infty"):
        return None
    if side.startswith("\\") and not _is_mathematics(re.match(r"\\[A-Za-z]+", side)[0]):  # type: ignore[index]
        return None
    return re.sub(r"[{}\s]", "", side)


def _equality(sides: list[str]) -> Reading:
    name = _name(sides[0])
    title = _TITLE.fullmatch(sides[0])
    if name is None and title and sides[0].lower() not in DOUBTFUL and not _is_mathematics(sides[0]):
        try:
            parse_expression(sides[0])
        except Unreadable:
            # Area = 12: a heading, not mathematics.
            return _read(sides[1]) if len(sides) == 2 else _chain(sides[1:])
    if name is not None:
        if len(sides) > 2:
            return Named(name, _chain(sides[1:]))
        value = _read(sides[1])
        if isinstance(value, Text):
            raise Unreadable(ambiguous=value.why == "unclear")
        if not isinstance(value, Quantity) or not _mentions(value.tree, name):
            return Named(name, value)
    if len(sides) > 2:
        return _chain(sides)
    if name is None and _name(sides[1]) is not None:
        value = _read(sides[0])
        if isinstance(value, Quantity) and not _mentions(value.tree, _name(sides[1]) or ""):
            return Named(_name(sides[1]) or "", value)
    left, right = _quantity(sides[0]), _quantity(sides[1])
    if isinstance(left, Text) or isinstance(right, Text):
        raise Unreadable(ambiguous=True)
    if not has_symbols(left.tree) and not has_symbols(right.tree):
        return Chain((left, right))
    return Equation(left, right)


def _chain(sides: list[str]) -> Reading:
    members = tuple(member for side in sides if isinstance(member := _quantity(side), Quantity))
    if len(members) < len(sides) or any(has_symbols(member.tree) for member in members):
        raise Unreadable(ambiguous=True)
    return Chain(members) if len(members) > 1 else members[0]


def _mentions(tree: Tree, name: str) -> bool:
    letter = re.split(r"[_'(]", name)[0]
    return (tree[0] == "s" and re.split(r"[_']", tree[1])[0] == letter) or any(
        _mentions(part, name) for part in tree[1:] if isinstance(part, tuple)
    )


def _inequality(relations: list[str], sides: list[str]) -> Reading:
    names = [_name(side) for side in sides]
    values = [None if name else _expression(side) for name, side in zip(names, sides, strict=True)]
    constant = [value is not None and not has_symbols(value.tree) for value in values]
    if len(relations) == 2:
        if relations[0] == "!=" or relations[1] == "!=" or relations[0][0] != relations[1][0]:
            raise Unreadable
        low, middle, high = (0, 1, 2) if relations[0][0] == "<" else (2, 1, 0)
        first, second = relations if low == 0 else relations[::-1]
        if not (constant[low] and names[middle] and constant[high]):
            raise Unreadable
        piece = Interval(_known(values[low]), "=" in first, _known(values[high]), "=" in second)
        return Named(names[middle] or "", Reals((piece,)))
    relation = relations[0]
    if relation[0] == ">":
        relation, sides, names = "<" + relation[1:], sides[::-1], names[::-1]
        values, constant = values[::-1], constant[::-1]
    closed = "=" in relation and relation != "!="
    if names[0] and constant[1]:
        bound = _known(values[1])
        below = Interval(_INFINITE[-1], False, bound, closed)
        above = Interval(bound, False, _INFINITE[1], False)
        return Named(names[0], Reals((below, above) if relation == "!=" else (below,)))
    if constant[0] and names[1] and relation != "!=":
        return Named(names[1], Reals((Interval(_known(values[0]), closed, _INFINITE[1], False),)))
    kind: Literal["<", "<=", "!="] = "!=" if relation == "!=" else "<=" if closed else "<"
    return Inequality(kind, _expression(sides[0]), _expression(sides[1]))


def _known(value: Quantity | None) -> Quantity:
    if value is None:
        raise Unreadable
    return value


# -- quantities ----------------------------------------------------------------------------------------------------


def _from_tree(tree: Tree, decimal: Decimal | None = None) -> Quantity:
    return Quantity(tree, exact_value(tree), decimal)


def _expression(text: str) -> Quantity:
    return _from_tree(parse_expression(text), _decimal(text))


def _constant(text: str) -> Quantity | None:
    """The quantity of an expression without letters, or `None`."""
    tree = parse_expression(text)
    return None if has_symbols(tree) else _from_tree(tree, _decimal(text))


def _decimal(text: str) -> Decimal | None:
    """The number that a text is, with its sign and a power of ten, if it is nothing else."""
    found = tokens(text)
    sign = 1
    if found and found[0].text in ("-", "+"):
        sign = -1 if found[0].text == "-" else 1
        found = found[1:]
    if not found or found[0].kind not in ("number", "grouped", "spaced", "scientific"):
        return None
    number = read_decimal(found[0].kind, found[0].text)
    power = 0
    if len(found) > 1:
        shifted = _power_of_ten(found[1:])
        if shifted is None:
            return None
        power = shifted
    return Decimal(sign * number.value * Fraction(10) ** power, number.place + power, number.significant)


def _power_of_ten(found: list[Token]) -> int | None:
    text = "".join(token.text for token in found)
    match = re.fullmatch(r"(?:\*|\\cdot|\\times)10(?:\^|\*\*)[{(]?([+-]?[0-9]{1,4})[})]?", text)
    return int(match[1]) if match else None


_TIMES_TEN = re.compile(r"(?<=[0-9])\s*[xX]\s*(?=10\s*(?:\^|\*\*))")
_SPACED_AND_SLASH = re.compile(r"[0-9] [0-9]{3}\s*/")
_WORD_START = re.compile(rf"(?<![A-Za-z\\])(?=[A-Za-z%¢{CURRENCIES}])|(?=\\degree)|(?=\\Omega)|(?=/\s*[A-Za-z]{{2}})")
_DEGREES = re.compile(r"([^A-Za-z]+|[^a-z]*\\(?:frac|pi)[^A-Za-z]*)(\\degree(?: ?[CFK])?)")
_REMARK = re.compile(r"(.*[^\s(])\s+\(([^()]*)\)|(.*[0-9}])\(([A-Za-z][A-Za-z -]*)\)")
_CURRENCY_FIRST = re.compile(
    rf"([+-]?)\s*(US|C|A|CA|AU|HK)?([{CURRENCIES}]|USD|EUR|GBP|CHF|Rs\.?)\s*([+-]?)\s*(?=[0-9.\\])(.*)"
)


def _quantity(text: str) -> Quantity | Text:
    text = _TIMES_TEN.sub("\\\\times ", text)
    if _SPACED_AND_SLASH.search(text):
        raise Unreadable(ambiguous=True)
    money = _CURRENCY_FIRST.fullmatch(text)
    if money:
        return _money(*money.groups(default=""))
    degrees = _DEGREES.fullmatch(text)
    if degrees:
        number = _constant(degrees[1])
        if number is not None:
            return _with_unit(number, degrees[2])
    remark = _REMARK.fullmatch(text)
    if remark:
        found = _remarked(remark[1] or remark[3], (remark[2] or remark[4] or "").strip())
        if found is not None:
            return found
    try:
        tree = parse_expression(text)
    except Unreadable as error:
        return _measured(text, error)
    # A known unit after a space is a unit: 5 m, 3 in. Without the space 5m is a product, but 5m/s is a speed.
    if has_symbols(tree) and re.match(r"[+-]?\s*(?:[0-9]|\\frac|\.)", text):
        starts = [place for place in _starts(text) if text[place - 1] == " "]
        speeds = [place for place in _starts(text)[:1] if re.fullmatch(r"[A-Za-z]+/[A-Za-z]+(?:\^.*)?", text[place:])]
        for start in (starts or speeds)[:1]:
            try:
                number = _constant(text[:start].strip())
            except Unreadable:
                number = None
            unit = read_unit(text[start:], number.exact) if number else None
            if number is not None and unit is not None and unit.factors:
                return dataclasses.replace(number, unit=unit)
    return _from_tree(tree, _decimal(text))


def _starts(text: str) -> list[int]:
    """Places where a unit may begin: before a word or a sign, behind a number."""
    return [match.start() for match in _WORD_START.finditer(text) if match.start() > 0]


def _measured(text: str, error: Unreadable) -> Quantity | Text:
    """A constant and its unit; the unit is the longest that leaves a constant."""
    doubt: Unreadable | None = None
    for start in _starts(text)[:12]:
        number_text = text[:start].strip()
        spaced = text[start - 1] == " " or not text[start].isalpha() or text[start:].startswith("\\")
        try:
            number = _constant(number_text)
        except Unreadable:
            continue
        if number is None:
            continue
        phrase = text[start:].strip()
        if not spaced and len(re.match("[A-Za-z]*", phrase).group()) < 2:  # type: ignore[union-attr]
            continue
        try:
            return _with_unit(number, phrase)
        except Unreadable as worse:
            doubt = doubt or worse
    raise doubt or error


def _with_unit(number: Quantity, phrase: str) -> Quantity:
    """A number with the scale and the unit that follow it.

    Raises:
        Unreadable: the words may change what the number says.
    """
    first, _, rest = phrase.partition(" ")
    scale = SCALES.get(first.lower()) or PARTS.get(first.lower())
    if scale is not None:
        if number.exact is None or (number.exact.denominator > 1 and isinstance(scale, Fraction)):
            raise Unreadable(ambiguous=True)
        value = number.exact * scale
        decimal = number.decimal
        if decimal is not None:
            decimal = None if isinstance(scale, Fraction) else dataclasses.replace(decimal, value=value, place=0)
        number = Quantity(("n", value), value, decimal)
        if not rest:
            return number
        if isinstance(scale, Fraction):
            raise Unreadable(ambiguous=True)
        phrase = rest
    unit = read_unit(phrase, number.exact)
    if unit is None:
        raise Unreadable(ambiguous=True)
    return dataclasses.replace(number, unit=unit) if unit.factors else number


@lru_cache(maxsize=4096)
def is_mere_unit(phrase: str, singular: bool) -> bool:
    """Whether words after a plain number say what it counts and nothing else, so that the number alone decides.

    >>> [is_mere_unit(words, False) for words in ("dollars", "red apples", "thousand", "pairs", "percent", "less")]
    [True, True, False, False, False, False]
    """
    first = phrase.partition(" ")[0].lower()
    unit = None if first in SCALES or first in PARTS else read_unit(phrase, 1 if singular else 2)
    return unit is not None and not unit.multiplies and unit.factors != PERCENT


def _money(sign: str, country: str, currency: str, second_sign: str, rest: str) -> Quantity:
    if sign and second_sign:
        raise Unreadable
    found = _quantity(rest)
    if isinstance(found, Text) or found.exact is None:
        raise Unreadable(ambiguous=True)
    name = {"US": "", "": ""}.get(country, country.lower()) + currency.rstrip(".")
    unit = read_unit(currency.rstrip("."), 2)
    if name != currency.rstrip("."):
        unit = Unit(((name, 1),))
    if unit is None:
        raise Unreadable
    if found.unit is not None:
        # $5 per hour, $5 dollars
        powers = dict(found.unit.factors)
        if not all(power < 0 for power in powers.values()) and found.unit.factors != unit.factors:
            raise Unreadable(ambiguous=True)
        if found.unit.factors != unit.factors:
            unit = Unit(tuple(sorted([*found.unit.factors, *unit.factors])))
    found = _negated(found) if "-" in (sign, second_sign) else found
    return dataclasses.replace(found, unit=unit)


def _remarked(text: str, remark: str) -> Quantity | None:
    """A constant with a unit in parentheses, or with the same number in words; `None`: the parentheses are a factor."""
    if not re.search(rf"[A-Za-z]{{2}}|\\degree|[%{CURRENCIES}]|^[a-zA-Z]$", remark):
        return None
    try:
        number = _constant(text)
    except Unreadable:
        return None
    if number is None:
        return None
    spoken = number_in_words(remark.lower().replace("-", " ").replace(",", " ").split())
    if spoken is not None:
        if spoken != number.exact:
            raise Unreadable(ambiguous=True)
        return number
    if remark[0].isdigit():
        repeated = _quantity(remark)
        if isinstance(repeated, Text) or repeated.exact is None or repeated.exact != number.exact:
            raise Unreadable(ambiguous=True)
        return dataclasses.replace(number, unit=repeated.unit)
    unit = read_unit(remark, number.exact, enclosed=True)
    if unit is None:
        try:
            parse_expression(remark)
        except Unreadable:
            raise Unreadable(ambiguous=True) from None
        return None
    return dataclasses.replace(number, unit=unit)
