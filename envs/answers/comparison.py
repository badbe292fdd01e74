"""When two answers are equal. In doubt they are not, and the reason says that it was doubt.

Exact values are compared exactly. A decimal equals a number that is no decimal (1/3, π) if it is that number rounded
to the digits it is written with, six of them at least. Order counts in tuples and not in sets and bare lists; none of
these kinds equals another, except that a bare list without repetition equals the set of its items.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal as Number
from fractions import Fraction
from typing import Literal, TypeVar

from envs.answers.characters import squeezed
from envs.answers.evaluation import Value, values_agree
from envs.answers.expressions import Decimal, Tree, has_symbols
from envs.answers.reading import (
    Based,
    Chain,
    Equation,
    Inequality,
    Interval,
    Matrix,
    Named,
    Quantity,
    Reading,
    Reals,
    Series,
    Text,
)
from envs.answers.units import PERCENT, agree

__all__ = ["FEWEST_DIGITS", "Verdict", "compare"]

Verdict = Literal["equal", "different", "unit", "unclear", "unparsable"]
Values = Callable[[Tree], tuple[Value, ...]]
Item = TypeVar("Item", Reading, Interval)

FEWEST_DIGITS = 6
"""Significant digits a decimal needs to stand for a number that it only approximates."""


def compare(answer: Reading, reference: Reading, values: Values) -> Verdict:
    """Whether an answer says what the reference says.

    Args:
        answer: what was read in the response.
        reference: the right answer.
        values: gives the values of an expression at the points of comparison.
    """
    if isinstance(answer, Text) or isinstance(reference, Text):
        return _texts(answer, reference)
    if isinstance(answer, Named) and isinstance(reference, Named) and answer.name != reference.name:
        return "different"
    if isinstance(answer, Named):
        return compare(answer.value, reference.value if isinstance(reference, Named) else reference, values)
    if isinstance(reference, Named):
        return compare(answer, reference.value, values)
    if isinstance(answer, Chain):
        verdicts = [compare(member, reference, values) for member in answer.members]
        return next((verdict for verdict in verdicts if verdict != "equal"), "equal")
    if isinstance(reference, Chain):
        return _all(compare(answer, member, values) for member in reference.members)
    if isinstance(answer, Quantity) and isinstance(reference, Quantity):
        return _quantities(answer, reference, values)
    if isinstance(answer, Series) and isinstance(reference, Series):
        return _series(answer, reference, values)
    if isinstance(answer, Reals) or isinstance(reference, Reals):
        pieces, right = _pieces(answer), _pieces(reference)
        if pieces is None or right is None:
            return "different"
        return _matched(pieces, right, lambda one, other: _intervals(one, other, values))
    if isinstance(answer, Based) and isinstance(reference, Based):
        return "equal" if answer == reference else "different"
    if isinstance(answer, Matrix) and isinstance(reference, Matrix):
        if [len(row) for row in answer.rows] != [len(row) for row in reference.rows]:
            return "different"
        cells = zip(sum(answer.rows, ()), sum(reference.rows, ()), strict=True)
        return _all(_quantities(one, other, values) for one, other in cells)
    if isinstance(answer, Equation) and isinstance(reference, Equation):
        return _equations(answer, reference, values)
    if isinstance(answer, Inequality) and isinstance(reference, Inequality):
        if answer.relation != reference.relation:
            return "different"
        sides = ((answer.left, reference.left), (answer.right, reference.right))
        return _all(_quantities(one, other, values) for one, other in sides)
    return "different"


def _texts(answer: Reading, reference: Reading) -> Verdict:
    if isinstance(answer, Text) and isinstance(reference, Text):
        one, other = squeezed(answer.text), squeezed(reference.text)
        if one == other:
            return "equal"
        if answer.why == reference.why == "words":
            return "equal" if one.casefold() == other.casefold() else "different"
    if isinstance(answer, Text) and answer.why != "words":
        return answer.why
    return "different" if isinstance(reference, Text) else "unparsable"


def _all(verdicts: Iterable[Verdict]) -> Verdict:
    return next((verdict for verdict in verdicts if verdict != "equal"), "equal")


# -- quantities ----------------------------------------------------------------------------------------------------


def _quantities(answer: Quantity, reference: Quantity, values: Values) -> Verdict:
    mine, yours = _is_percent(answer), _is_percent(reference)
    if _same_value(answer, reference, values):
        if mine != yours and (answer if yours else reference).unit is None and not _is_more_than_one(answer):
            # Half a percent is not a half, and who drops the sign means the latter.
            return "unclear"
        if answer.unit is None:
            return "equal"
        if reference.unit is None:
            return "unclear" if answer.unit.multiplies else "equal"
        return "equal" if agree(answer.unit, reference.unit) else "unit"
    if mine != yours and (answer if yours else reference).unit is None:
        # 50 % is half, and fifty where percent are asked for.
        share = [_hundredth(side) if _is_percent(side) else side for side in (answer, reference)]
        if _same_value(share[0], share[1], values):
            return "equal"
    has_value = answer.infinite or answer.exact is not None or any(values(answer.tree))
    return "different" if has_value else "unparsable"


def _is_more_than_one(quantity: Quantity) -> bool:
    return quantity.exact is not None and abs(quantity.exact) > 1


def _is_percent(quantity: Quantity) -> bool:
    return quantity.unit is not None and quantity.unit.factors == PERCENT


def _hundredth(quantity: Quantity) -> Quantity:
    number = quantity.decimal
    return Quantity(
        ("/", quantity.tree, ("n", Fraction(100))),
        None if quantity.exact is None else quantity.exact / 100,
        None if number is None else Decimal(number.value / 100, number.place - 2, number.significant),
    )


def _same_value(one: Quantity, other: Quantity, values: Values) -> bool:
    if one.infinite or other.infinite:
        return one.infinite == other.infinite
    if one.exact is not None and other.exact is not None:
        if one.exact == other.exact:
            return True
        return _rounds(one, other.exact, other) or _rounds(other, one.exact, one)
    if one.tree == other.tree:
        return any(value is not None for value in values(one.tree))
    mine, yours = values(one.tree), values(other.tree)
    if values_agree(mine, yours):
        return True
    for decimal, approximated, found in ((one, other, yours), (other, one, mine)):
        if decimal.decimal is not None and not has_symbols(approximated.tree) and found[0] and found[0][1] == 0:
            return _rounds(decimal, Fraction(found[0][0]), approximated)
    return False


def _rounds(decimal: Quantity, value: Fraction, approximated: Quantity) -> bool:
    """Whether a decimal is a number, itself no decimal, rounded to the digits it is written with."""
    written = decimal.decimal
    if written is None or approximated.decimal is not None or written.significant < FEWEST_DIGITS:
        return False
    if written.place == 0:
        # A whole number is meant as one.
        return False
    return abs(value - written.value) <= Fraction(10) ** written.place / 2


# -- several answers -----------------------------------------------------------------------------------------------


def _series(answer: Series, reference: Series, values: Values) -> Verdict:
    kinds = {answer.kind, reference.kind}
    if len(kinds) > 1 and kinds != {"set", "bare"}:
        return "different"
    # x = 1, y = 2 is not answered by 1, 2: which is which?
    named = [{item.name if isinstance(item, Named) else None for item in side.items} for side in (answer, reference)]
    if any(len(names) > 1 for names in named) and named[0] != named[1]:
        return "different"
    if kinds == {"set"}:
        one, other = (_distinct(side.items, values) for side in (answer, reference))
        return _matched(one, other, lambda mine, yours: compare(mine, yours, values))
    if len(answer.items) != len(reference.items):
        return "different"
    if kinds <= {"set", "bare"}:
        if len(kinds) == 2 and any(
            len(_distinct(side.items, values)) < len(side.items) for side in (answer, reference)
        ):
            return "different"
        return _matched(answer.items, reference.items, lambda mine, yours: compare(mine, yours, values))
    return _all(compare(mine, yours, values) for mine, yours in zip(answer.items, reference.items, strict=True))


def _distinct(items: tuple[Reading, ...], values: Values) -> tuple[Reading, ...]:
    kept: list[Reading] = []
    for item in items:
        if not any(compare(item, other, values) == "equal" for other in kept):
            kept.append(item)
    return tuple(kept)


def _matched(answer: tuple[Item, ...], reference: tuple[Item, ...], equal: Callable[[Item, Item], Verdict]) -> Verdict:
    """Whether two collections hold the same, in whatever order."""
    if len(answer) != len(reference):
        return "different"
    left = list(reference)
    for item in answer:
        place = next((place for place, other in enumerate(left) if equal(item, other) == "equal"), None)
        if place is None:
            return "different"
        del left[place]
    return "equal"


def _pieces(reading: Reading) -> tuple[Interval, ...] | None:
    if isinstance(reading, Reals):
        return reading.pieces
    if isinstance(reading, Series) and reading.kind in ("tuple", "brackets") and len(reading.items) == 2:
        low, high = reading.items
        if isinstance(low, Quantity) and isinstance(high, Quantity):
            closed = reading.kind == "brackets"
            return (Interval(low, closed, high, closed),)
    return None


def _intervals(one: Interval, other: Interval, values: Values) -> Verdict:
    if (one.low_closed, one.high_closed) != (other.low_closed, other.high_closed):
        return "different"
    return _all(_quantities(mine, yours, values) for mine, yours in ((one.low, other.low), (one.high, other.high)))


# -- equations -----------------------------------------------------------------------------------------------------


def _equations(answer: Equation, reference: Equation, values: Values) -> Verdict:
    """The same equation, also rearranged or multiplied, where it has two letters; 2x = 6 does not yet say x = 3."""
    mine, yours = (("+", side.left.tree, ("-", side.right.tree)) for side in (answer, reference))
    straight = ((answer.left, reference.left), (answer.right, reference.right))
    crossed = ((answer.left, reference.right), (answer.right, reference.left))
    for sides in (straight, crossed):
        if all(_quantities(one, other, values) == "equal" for one, other in sides):
            return "equal"
    measured = any(side.unit for equation in (answer, reference) for side in (equation.left, equation.right))
    if measured or len(_letters(mine)) < 2 or _letters(mine) != _letters(yours):
        return "different"
    ratios = [
        _ratio(first, second) for first, second in zip(values(mine), values(yours), strict=True) if first and second
    ]
    if len(ratios) < 3 or any(ratio is None for ratio in ratios):
        return "different"
    first = ratios[0]
    assert first is not None
    close = all(ratio is not None and abs(ratio - first) <= abs(first) * Number("1e-24") for ratio in ratios)
    return "equal" if close and first else "different"


def _ratio(one: tuple[Number, Number], other: tuple[Number, Number]) -> Number | None:
    return one[0] / other[0] if one[1] == other[1] == 0 and other[0] != 0 else None


def _letters(tree: Tree) -> set[str]:
    if tree[0] == "s":
        return {re.split("'", tree[1])[0]}
    return set().union(*(_letters(part) for part in tree[1:] if isinstance(part, tuple)), set())
