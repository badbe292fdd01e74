"""What a sweep varies: grids, logarithmic grids, lists and ranges, written `name=…`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from testbed.configuration import LARGEST_NUMBER
from testbed.errors import ConfigError, shown
from testbed.reading import parse_literal

__all__ = ["Axis", "Range", "parse_axis", "shortened", "sobol"]

_MOST_POINTS = 1_000_000
"""More grid points than this are a slip."""
_SHOWN = 8
"""More values than this do not help in a message."""

_FORMS = (
    "name=low:high:count (grid), name=low:high:count:log (logarithmic grid), name=a,b,c (list), or name=low:high and "
    "name=low:high:log with --samples (Sobol points)"
)


@dataclass(frozen=True)
class Axis:
    """A parameter and the values it takes, one after the other."""

    name: str
    """The parameter."""
    values: tuple[Any, ...]
    """At least one number, word, truth value or None; all different."""

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigError(f"{self.name} is varied over no values; give at least one")
        for given in self.values:
            if not (given is None or isinstance(given, int | float | str)) or (
                isinstance(given, int) and abs(given) >= LARGEST_NUMBER
            ):
                raise ConfigError(
                    f"{self.name} is varied over {shown(given)}; expected numbers below 2^64, words, true, false, none"
                )
        value, times = Counter(map(repr, self.values)).most_common(1)[0]
        if times > 1:
            raise ConfigError(
                f"{self.name} is varied over {shortened(self.values)}, where {value} repeats; give each value once"
            )


@dataclass(frozen=True)
class Range:
    """A parameter and the interval its Sobol points are spread over."""

    name: str
    """The parameter."""
    low: float
    """Lower end."""
    high: float
    """Upper end, above the lower."""
    logarithmic: bool = False
    """Whether the logarithm is spread evenly instead of the value."""

    def __post_init__(self) -> None:
        _check_ends(self.name, self.low, self.high, logarithmic=self.logarithmic)


def shortened(values: Sequence[Any]) -> str:
    """The values as they are written, the middle of a long list left out.

    >>> shortened([0.1, 0.2]), shortened(range(2000))
    ('0.1, 0.2', '0, 1, 2, … 1999 (2,000 values)')
    """
    if len(values) <= _SHOWN:
        return ", ".join(map(str, values))
    return f"{', '.join(map(str, values[:3]))}, … {values[-1]} ({len(values):,} values)"


def parse_axis(text: str) -> Axis | Range:
    """Read one `--vary`.

    Raises:
        ConfigError: the text has none of the forms, the ends are out of order, or a value repeats.

    Example:
        >>> parse_axis("clip_low=0.1:0.3:3")
        Axis(name='clip_low', values=(0.1, 0.2, 0.3))
        >>> parse_axis("learning_rate=0.01:1:3:log").values
        (0.01, 0.1, 1.0)
        >>> parse_axis("optimizer=sgd,adam").values
        ('sgd', 'adam')
        >>> parse_axis("clip_high=0.1:0.5")
        Range(name='clip_high', low=0.1, high=0.5, logarithmic=False)
    """
    name, equals, rest = (part.strip() for part in text.partition("="))
    if not equals or not rest or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"cannot read --vary {shown(text)}; expected {_FORMS}")
    if ":" not in rest or "(" in rest:
        return Axis(name, tuple(_value(item) for item in _split(rest)))
    *numbers, last = rest.split(":")
    logarithmic = last.strip() == "log"
    if not logarithmic:
        numbers.append(last)
    try:
        low, high, *count = (float(number) for number in numbers)
        points = [int(number) for number in numbers[2:]]
    except ValueError:
        raise ConfigError(f"cannot read --vary {shown(text)}; expected {_FORMS}") from None
    if len(count) > 1:
        raise ConfigError(f"cannot read --vary {shown(text)}; expected {_FORMS}")
    if not points:
        return Range(name, low, high, logarithmic)
    return Axis(name, grid(name, low, high, points[0], logarithmic=logarithmic))


def grid(name: str, low: float, high: float, count: int, *, logarithmic: bool = False) -> tuple[float, ...]:
    """`count` values from `low` to `high`, both included, evenly spaced in the value or in its logarithm.

    Raises:
        ConfigError: fewer than two points, or ends out of order.
    """
    _check_ends(name, low, high, logarithmic=logarithmic)
    if not 2 <= count <= _MOST_POINTS:
        raise ConfigError(
            f"{name} is varied over {shown(count)} points from {low:g} to {high:g}; give at least 2 and at most "
            f"{_MOST_POINTS:,}"
        )
    spaced = np.geomspace(low, high, count) if logarithmic else np.linspace(low, high, count)
    # Twelve digits: 0.1 + 2·0.1 is 0.3 in a label, and the same grid point however it was reached.
    return tuple(float(f"{value:.12g}") for value in spaced)


def sobol(ranges: Sequence[Range], samples: int, seed: int) -> list[dict[str, float]]:
    """Scrambled Sobol points in the box of `ranges`; the first ones stay the same when more are asked for.

    Args:
        ranges: the sides of the box.
        samples: number of points; powers of two fill the box most evenly.
        seed: of the scrambling.
    """
    # Powers of two are drawn, as the sequence is built for; a prefix of them is used.
    drawn = scipy.stats.qmc.Sobol(len(ranges), seed=seed).random_base2(max(1, math.ceil(math.log2(samples))))[:samples]
    points = []
    for row in drawn.tolist():
        point = {}
        for side, share in zip(ranges, row, strict=True):
            low, high = (math.log(side.low), math.log(side.high)) if side.logarithmic else (side.low, side.high)
            value = low + share * (high - low)
            point[side.name] = float(f"{math.exp(value) if side.logarithmic else value:.12g}")
        points.append(point)
    return points


def _check_ends(name: str, low: float, high: float, *, logarithmic: bool) -> None:
    if not (low < high and math.isfinite(high - low)):
        raise ConfigError(f"{name} is varied from {low:g} to {high:g}; expected two finite numbers, the smaller first")
    if logarithmic and low <= 0:
        raise ConfigError(f"{name} is varied on a logarithmic scale from {low:g}; expected a positive lower end")


def _split(text: str) -> list[str]:
    """At commas outside brackets, so that `objective=dapo(clip_low=0.1,clip_high=0.2),ppo` is two items."""
    items, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            items.append("")
        else:
            items[-1] += character
    return [item.strip() for item in items if item.strip()]


def _value(text: str) -> Any:
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    value = parse_literal(text)
    # Brackets and braces stay text for whoever resolves that name.
    return value if isinstance(value, int | float | str) else text
