r"""Mathematics as a tree, by a grammar that refuses what it does not know or what can be read in two ways.

A tree is nested tuples whose first member says what it is: `("n", Fraction)`, `("s", name)` for a symbol, `("c", name)`
for π, e and i, `("inf", 1)`, `("f", name, argument, ...)`, and `+ * / ^ -` with their operands.

What the grammar decides:
    1. `2e3` is a number in scientific notation; `e` elsewhere is Euler's number, `i` the imaginary unit.
    2. A whole number before a proper fraction is a mixed number: `1 1/2`, `11\frac{5}{6}`.
    3. `2 3/2`, `1/2x`, `a/b/c`, `\frac123` and two numbers side by side are open, therefore refused.
    4. Letters side by side are a product (`2xy`) if there are at most three and they are no word.
    5. `\log` without a base is neither the natural nor the decimal one: it equals itself.
    6. An odd root of a negative number is the real one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from envs.answers.words import DOUBTFUL, listed

__all__ = [
    "DEEPEST",
    "Decimal",
    "Tree",
    "Unreadable",
    "exact_value",
    "has_symbols",
    "parse_expression",
    "read_decimal",
    "tokens",
]

Tree = tuple[Any, ...]

DEEPEST = 30
"""Brackets, exponents and functions in each other; far beyond any answer, far below Python's stack."""
_MOST_BITS = 8_000
_LARGEST_EXPONENT = 2_000


class Unreadable(Exception):
    """Text that is not mathematics, or is in more than one way."""

    def __init__(self, *, ambiguous: bool = False) -> None:
        super().__init__()
        self.ambiguous = ambiguous


@dataclass(frozen=True)
class Decimal:
    """A number as it is written: its exact value, and how far it is written out."""

    value: Fraction
    place: int
    """The power of ten of its last digit."""
    significant: int
    """Digits from the first that is not zero."""


_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<repeating>[0-9]*\.[0-9]*\([0-9]+\))"
    r"|(?P<grouped>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9]|,[0-9]))"
    r"|(?P<spaced>[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?(?! ?[0-9]))"
    r"|(?P<scientific>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][+-]?[0-9]+(?![A-Za-z0-9.]))"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"|(?P<command>\\(?:[A-Za-z]+|[{}|]))"
    r"|(?P<name>[A-Za-z]+)"
    r"|(?P<sign>\*\*|<=|>=|!=|[-+*/^_!|()\[\]{}<>=,;:'])"
    r")"
)


@dataclass(frozen=True)
class Token:
    """A piece of plain text."""

    kind: str
    text: str
    spaced: bool
    """Whether a space precedes it."""


def tokens(text: str) -> list[Token]:
    """The pieces of plain text.

    Raises:
        Unreadable: a character belongs to no mathematics.
    """
    found: list[Token] = []
    position, depth = 0, 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise Unreadable
        kind, piece = match.lastgroup, match[match.lastgroup]
        if kind == "grouped" and depth:
            # Inside brackets a comma separates: (1,234) is a pair.
            piece = re.match(r"[0-9]+", piece)[0]  # type: ignore[index]
            kind = "number"
        start = match.start(match.lastgroup)
        depth += (piece in ("(", "[", "\\{", "{")) - (piece in (")", "]", "\\}", "}"))
        found.append(Token(kind, piece, start > position))
        position = start + len(piece)
    return found


def read_decimal(kind: str, text: str) -> Decimal:
    """A number token's value and how far it is written out."""
    if kind == "repeating":
        head, _, cycle = text.rstrip(")").partition("(")
        whole, _, decimals = head.partition(".")
        value = Fraction(int(whole + decimals + "0") // 10 if whole + decimals else 0, 10 ** len(decimals))
        value += Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(decimals))
        return Decimal(value, 0, 0)
    mantissa, _, exponent = text.replace(",", "").replace(" ", "").lower().partition("e")
    power = int(exponent) if len(exponent.lstrip("+-0")) <= 6 and exponent else 0
    if len(exponent.lstrip("+-0")) > 6 or abs(power) > _LARGEST_EXPONENT:
        raise Unreadable
    whole, _, decimals = mantissa.partition(".")
    digits = (whole + decimals) or "0"
    place = power - len(decimals)
    value = Fraction(int(digits)) * (Fraction(10) ** place)
    return Decimal(value, place, len(digits.lstrip("0")))


# -- the grammar ---------------------------------------------------------------------------------------------------

_NUMBERS = ("number", "grouped", "spaced", "scientific", "repeating")
_CONSTANTS = {"pi": ("c", "pi"), "e": ("c", "e"), "i": ("c", "i")}
_FUNCTIONS = {
    name: name
    for name in (
        listed(
            """
        sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp sqrt cbrt abs floor ceil
        """
        )
    )
} | {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "lg"}
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
_GREEK = frozenset(
    listed(
        """
        alpha beta gamma delta epsilon zeta eta theta iota kappa mu nu xi rho sigma tau phi chi psi omega Gamma Delta
        Theta Xi Pi Sigma Phi Psi Omega
        """
    )
)
_INFINITIES = ("infty", "infinity", "inf")
# Short words that are no products of letters.
_SHORT_WORDS = DOUBTFUL | frozenset(
    listed(
        """
        one two six ten all any new odd day yes man men boy red fun sum lot her him his our out who how why let end
        ago far few get got job key log low old own pay per put ran run saw say see set sit ten too try use way yet so
        go up on by at if as my me us hi ok oh vs ft mi cm mm km kg lb oz hr hrs yr yrs mph rpm deg min sec
        """
    )
)


def parse_expression(text: str) -> Tree:
    """The tree of an expression in plain text.

    Raises:
        Unreadable: it is none, or it can be read in more than one way.

    >>> parse_expression("2x^2")
    ('*', ('n', Fraction(2, 1)), ('^', ('s', 'x'), ('n', Fraction(2, 1))))
    """
    parser = _Parser(tokens(text))
    tree = parser.sum()
    if parser.rest:
        raise Unreadable
    return tree


class _Parser:
    """Recursive descent over tokens; each method reads as much as belongs to it."""

    def __init__(self, found: list[Token]) -> None:
        self.tokens = found
        self.position = 0
        self.depth = 0
        self.bars = 0

    @property
    def rest(self) -> list[Token]:
        return self.tokens[self.position :]

    def peek(self, ahead: int = 0) -> Token | None:
        place = self.position + ahead
        return self.tokens[place] if place < len(self.tokens) else None

    def at(self, *texts: str) -> bool:
        token = self.peek()
        return token is not None and token.text in texts

    def take(self, *texts: str) -> Token:
        token = self.peek()
        if token is None or (texts and token.text not in texts):
            raise Unreadable
        self.position += 1
        return token

    def sum(self) -> Tree:
        terms = [self.product()]
        while self.at("+", "-", "\\pm"):
            sign = self.take().text
            # Two signs in a row are a slip, not a sum.
            if self.at("+", "-"):
                raise Unreadable
            term = self.product()
            terms.append(term if sign == "+" else ("pm", term) if sign == "\\pm" else ("-", term))
        return terms[0] if len(terms) == 1 else ("+", *terms)

    def product(self) -> Tree:
        if self.at("-", "+", "\\pm"):
            sign = self.take().text
            if self.at("-", "+", "\\pm"):
                raise Unreadable
            tree = self.product()
            return tree if sign == "+" else ("pm", tree) if sign == "\\pm" else ("-", tree)
        tree = self.power()
        divided = False
        while True:
            if self.at("*", "\\cdot", "\\times"):
                self.take()
                tree = _product(tree, self.signed())
                divided = False
            elif self.at("/"):
                if divided:
                    raise Unreadable(ambiguous=True)
                self.take()
                tree = ("/", tree, self.signed())
                divided = True
            elif self.begins_factor():
                if divided:
                    raise Unreadable(ambiguous=True)
                tree = _product(tree, self.power())
            else:
                return tree

    def signed(self) -> Tree:
        if self.at("-"):
            self.take()
            return ("-", self.power())
        return self.power()

    def begins_factor(self) -> bool:
        token = self.peek()
        if token is None:
            return False
        if token.kind in _NUMBERS:
            raise Unreadable(ambiguous=True)
        if token.kind == "name" or token.text in ("(", "{"):
            return True
        if token.text == "|":
            return not self.bars
        return token.kind == "command" and (
            token.text in ("\\frac", "\\sqrt", "\\root", "\\binom", "\\lfloor", "\\lceil")
            or token.text[1:] in _FUNCTIONS
            or token.text[1:] in _CONSTANTS
            or token.text[1:] in _GREEK
            or token.text[1:] in _INFINITIES
        )

    def power(self) -> Tree:
        tree = self.postfix()
        if self.at("^", "**"):
            self.take()
            tree = ("^", tree, self.exponent())
        return tree

    def exponent(self) -> Tree:
        with self.deeper():
            return self.raised()

    def raised(self) -> Tree:
        if self.at("-"):
            self.take()
            return ("-", self.exponent())
        if self.at("{"):
            return self.group("{", "}")
        tree = self.postfix()
        if self.at("^", "**"):
            self.take()
            return ("^", tree, self.exponent())
        return tree

    def postfix(self) -> Tree:
        tree = self.atom()
        while self.at("!", "\\degree"):
            if self.take().text == "!":
                if self.at("!"):
                    raise Unreadable
                tree = ("f", "factorial", tree)
            else:
                tree = ("*", tree, ("/", ("c", "pi"), ("n", Fraction(180))))
        return tree

    def group(self, opening: str, closing: str) -> Tree:
        self.take(opening)
        tree = self.sum()
        self.take(closing)
        return tree

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """One level further down; the text says how deep it goes, Python's stack does not."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable
        yield
        self.depth -= 1

    def atom(self) -> Tree:
        with self.deeper():
            return self.indivisible()

    def indivisible(self) -> Tree:
        token = self.peek()
        if token is None:
            raise Unreadable
        if token.kind in _NUMBERS:
            return self.number()
        if token.kind == "name":
            return self.name()
        if token.text == "(":
            return self.group("(", ")")
        if token.text == "{":
            return self.group("{", "}")
        if token.text == "|":
            self.take()
            self.bars += 1
            tree = self.sum()
            self.bars -= 1
            self.take("|")
            return ("f", "abs", tree)
        if token.kind == "command":
            return self.command()
        raise Unreadable

    def number(self) -> Tree:
        token = self.take()
        tree: Tree = ("n", read_decimal(token.kind, token.text).value)
        if token.kind != "number" or "." in token.text:
            return tree
        following = self.peek()
        if following is not None and following.text == "\\frac":
            begun = self.position
            fraction = self.command()
            if not all(part[0] == "n" and part[1].denominator == 1 for part in fraction[1:]):
                self.position = begun
                return tree
            return self.mixed(tree[1], *(part[1] for part in fraction[1:]))
        if following is not None and following.kind == "number" and following.spaced:
            slash, below = self.peek(1), self.peek(2)
            if slash is None or slash.text != "/" or below is None or below.kind != "number":
                raise Unreadable(ambiguous=True)
            self.position += 3
            if "." in following.text + below.text:
                raise Unreadable(ambiguous=True)
            return self.mixed(tree[1], Fraction(int(following.text)), Fraction(int(below.text)))
        return tree

    def mixed(self, whole: Fraction, above: Fraction, below: Fraction) -> Tree:
        # 2 3/2 may be a product, and what follows a mixed number directly may belong to its fraction alone.
        if not 0 < above < below or self.at("^", "**", "!", "/") or self.begins_factor():
            raise Unreadable(ambiguous=True)
        return ("n", whole + above / below)

    def name(self) -> Tree:
        token = self.take()
        text = token.text
        if text in _CONSTANTS and not self.at("_"):
            return _CONSTANTS[text]
        if text in _FUNCTIONS and len(text) > 1:
            return self.function(_FUNCTIONS[text])
        if text in _GREEK:
            return self.symbol("\\" + text)
        if text in _INFINITIES:
            return ("inf", 1)
        if len(text) == 1:
            return self.symbol(text)
        if len(text) > 3 or text.lower() in _SHORT_WORDS or len(set(text)) < len(text):
            raise Unreadable
        # The last letter takes what follows, an index or an exponent: ab^2.
        letters = [_CONSTANTS.get(letter, ("s", letter)) for letter in text]
        last: Tree = self.symbol(text[-1]) if letters[-1][0] == "s" else letters[-1]
        if self.at("^", "**"):
            self.take()
            last = ("^", last, self.exponent())
        return ("*", *letters[:-1], last)

    def symbol(self, name: str) -> Tree:
        if self.at("_"):
            self.take()
            if self.at("{"):
                self.take()
                inside = []
                while not self.at("}"):
                    token = self.take()
                    if token.text in ("{", "^"):
                        raise Unreadable
                    inside.append(token.text)
                self.take("}")
                name += "_" + "".join(inside)
            else:
                token = self.take()
                if token.kind not in ("number", "name"):
                    raise Unreadable
                name += "_" + token.text
        while self.at("'"):
            name += self.take().text
        return ("s", name)

    def command(self) -> Tree:
        name = self.take().text[1:]
        if name == "frac":
            above, below = self.digit_or_group(), self.digit_or_group()
            return ("/", above, below)
        if name == "binom":
            return ("f", "binomial", self.digit_or_group(), self.digit_or_group())
        if name == "sqrt":
            if not self.at("["):
                return ("f", "root", self.radicand(), ("n", Fraction(2)))
            degree = self.group("[", "]")
            return ("f", "root", self.radicand(), degree)
        if name == "root":
            return ("f", "root", self.radicand(), ("n", Fraction(2)))
        if name in ("lfloor", "lceil"):
            tree = self.sum()
            self.take("\\r" + name[1:])
            return ("f", name[1:], tree)
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name in _INFINITIES:
            return ("inf", 1)
        if name in _GREEK:
            return self.symbol("\\" + name)
        if name in _FUNCTIONS:
            return self.function(_FUNCTIONS[name])
        raise Unreadable

    def digit_or_group(self) -> Tree:
        r"""An argument of \frac: a group, or what TeX takes without braces, a single digit or letter."""
        if self.at("{"):
            return self.group("{", "}")
        token = self.peek()
        if token is None or token.kind not in ("number", "name", "command"):
            raise Unreadable
        if token.kind == "number":
            # \frac12 is a half; with more digits TeX and the writer's mind may differ.
            following = self.peek(1)
            if len(token.text) == 2 and token.text.isdigit() and (following is None or following.kind != "number"):
                self.tokens[self.position : self.position + 1] = [
                    Token("number", token.text[0], token.spaced),
                    Token("number", token.text[1], False),
                ]
            elif len(token.text) != 1:
                raise Unreadable(ambiguous=True)
            return ("n", Fraction(int(self.take().text)))
        if token.kind == "name" and len(token.text) != 1:
            raise Unreadable(ambiguous=True)
        return self.atom()

    def radicand(self) -> Tree:
        if self.at("{"):
            return self.group("{", "}")
        if self.at("("):
            return self.group("(", ")")
        token = self.peek()
        if token is None or token.text in ("\\sqrt", "\\root"):
            raise Unreadable
        return self.atom()

    def function(self, name: str) -> Tree:
        power: Tree | None = None
        base: Tree | None = None
        if name == "log" and self.at("_"):
            self.take()
            base = self.group("{", "}") if self.at("{") else self.digit()
        if self.at("^"):
            self.take()
            power = self.group("{", "}") if self.at("{") else self.signed()
            if power == ("-", ("n", Fraction(1))) and name in _INVERSES:
                name, power = _INVERSES[name], None
            elif exact_value(power) is None or (exact_value(power) or 0) <= 0:
                raise Unreadable(ambiguous=True)
        argument = self.argument(name)
        tree: Tree
        if name in ("sqrt", "cbrt"):
            tree = ("f", "root", argument, ("n", Fraction(2 if name == "sqrt" else 3)))
        elif base is not None:
            tree = ("f", "log", argument, base)
        else:
            tree = ("f", name, argument)
        return tree if power is None else ("^", tree, power)

    def digit(self) -> Tree:
        """A base without braces: `log_2 8`, also `log_10 100`."""
        token = self.take()
        if token.kind == "number" and "." not in token.text:
            return ("n", Fraction(int(token.text)))
        if token.kind == "name" and len(token.text) == 1:
            return _CONSTANTS.get(token.text, ("s", token.text))
        raise Unreadable

    def argument(self, name: str) -> Tree:
        if self.at("("):
            return self.group("(", ")")
        if self.at("{"):
            return self.group("{", "}")
        if name in ("sqrt", "cbrt", "exp", "abs", "floor", "ceil"):
            raise Unreadable(ambiguous=True)
        tree = self.power()
        while self.begins_argument():
            tree = _product(tree, self.power())
        return tree

    def begins_argument(self) -> bool:
        token = self.peek()
        if token is None or token.text in ("(", "{", "|"):
            return False
        return self.begins_factor() and token.text.lstrip("\\") not in _FUNCTIONS


def _product(left: Tree, right: Tree) -> Tree:
    return (*left, right) if left[0] == "*" else ("*", left, right)


# -- exact values --------------------------------------------------------------------------------------------------


def has_symbols(tree: Tree) -> bool:
    """Whether a tree has a letter that stands for any number."""
    return tree[0] == "s" or any(has_symbols(part) for part in tree[1:] if isinstance(part, tuple))


def exact_value(tree: Tree) -> Fraction | None:
    """The value of a tree if it is a fraction of reasonable size, found without a float.

    Raises:
        Unreadable: it divides by zero.

    >>> exact_value(parse_expression("1/3 + 2^{-1}"))
    Fraction(5, 6)
    """
    kind = tree[0]
    if kind == "n":
        value: Fraction = tree[1]
        return value
    if kind not in _EXACT:
        return None
    name, parts = (tree[1], tree[2:]) if kind == "f" else (kind, tree[1:])
    values = [exact_value(part) for part in parts]
    if any(value is None for value in values):
        return None
    found = _operate(name, [value for value in values if value is not None])
    return None if found is None or _is_large(found) else found


def _is_large(value: Fraction) -> bool:
    return max(value.numerator.bit_length(), value.denominator.bit_length()) > _MOST_BITS


_EXACT = frozenset(["+", "*", "/", "-", "^", "f"])


def _operate(name: str, values: list[Fraction]) -> Fraction | None:
    first = values[0]
    if name in ("+", "*"):
        total = first
        for value in values[1:]:
            # A long sum of unlike fractions would take seconds.
            if _is_large(total):
                return None
            total = total + value if name == "+" else total * value
        return total
    if name == "-":
        return -first
    if name == "/":
        if values[1] == 0:
            raise Unreadable
        return first / values[1]
    if name == "^":
        return _raise(first, values[1])
    if name == "root":
        degree = values[1]
        if degree.denominator != 1 or degree < 2:
            raise Unreadable
        return _raise(first, 1 / degree)
    if name == "abs":
        return abs(first)
    if name == "floor":
        return Fraction(math.floor(first))
    if name == "ceil":
        return Fraction(math.ceil(first))
    if name == "factorial" and first.denominator == 1 and 0 <= first <= 1000:
        return Fraction(math.factorial(int(first)))
    if name == "binomial" and all(value.denominator == 1 and 0 <= value <= 1000 for value in values):
        return Fraction(math.comb(int(first), int(values[1])))
    return None


def _raise(base: Fraction, exponent: Fraction) -> Fraction | None:
    if base == 0:
        if exponent <= 0:
            raise Unreadable
        return base
    if exponent.denominator > 1:
        if exponent.denominator > 64:
            return None
        roots = [_whole_root(part, exponent.denominator) for part in (base.numerator, base.denominator)]
        if roots[0] is None or roots[1] is None:
            return None
        base, exponent = Fraction(roots[0], roots[1]), Fraction(exponent.numerator)
    bits = max(abs(base.numerator), base.denominator).bit_length()
    if abs(exponent) * (bits - 1) > _MOST_BITS:
        return None
    return base**exponent.numerator


def _whole_root(number: int, degree: int) -> int | None:
    if number < 0:
        root = _whole_root(-number, degree) if degree % 2 else None
        return None if root is None else -root
    if number.bit_length() > _MOST_BITS:
        return None
    root = math.isqrt(number) if degree == 2 else _bisected_root(number, degree)
    return root if root**degree == number else None


def _bisected_root(number: int, degree: int) -> int:
    low, high = 0, 1 << (number.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**degree <= number else (low, middle - 1)
    return low
