"""Numbers as a reader wants them: as many digits as are known, a true minus sign, the unit, "missing" when missing."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["MISSING", "duration", "finite", "interval", "is_missing", "measured", "number", "text"]

MISSING = "missing"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def finite(value: Any) -> float | None:
    """`value` as a float, or None where it is missing: None, not a number, or infinite."""
    if value is None or isinstance(value, str | bool) or not math.isfinite(float(value)):
        return None
    return float(value)


def is_missing(value: Any) -> bool:
    """Whether there is no finite number."""
    return finite(value) is None


def number(value: Any, *, width: float | None = None) -> str:
    r"""A number to three significant digits, or as finely as an interval of that `width` makes sensible.

    >>> number(0.123456), number(-12345.6), number(3.2e-16), number(None)
    ('0.123', '−12,346', '3.2\xa0×\xa010⁻¹⁶', 'missing')
    >>> number(0.99963, width=0.0021)
    '0.9996'
    """
    if is_missing(value):
        return MISSING
    value = float(value)
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    reference = abs(value) if width is None or is_missing(width) or width <= 0 else max(abs(value), width)
    if not 1e-4 <= reference < 1e6:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".").replace("-", "−")
        power = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
        return power if mantissa == "1" else f"{mantissa}\u00a0×\u00a0{power}"
    digits = 2 - magnitude
    if width is not None and not is_missing(width) and width > 0:
        digits = 1 - math.floor(math.log10(width))
        # An interval of almost no width says nothing about how many digits a reader can use.
        digits = min(digits, 6 - magnitude)
    digits = min(max(digits, 0), 9)
    shown = f"{value:,.{digits}f}"
    if width is None and "." in shown:
        shown = shown.rstrip("0").rstrip(".")
    return shown.replace("-", "−")


def measured(value: Any, unit: Any, *, width: float | None = None) -> str:
    r"""A number with its unit.

    >>> measured(0.25, "nats")
    '0.25\xa0nats'
    """
    shown = number(value, width=width)
    return shown if shown == MISSING or not unit else f"{shown}\u00a0{unit}"


def interval(pair: Any) -> str:
    """Both ends of an interval, equally fine; a missing one of two is a side without a bound.

    >>> interval([0.1234, 0.1891]), interval(None), interval([0.5, None])
    ('[0.123, 0.189]', 'missing', '[0.5, ∞)')
    """
    if not isinstance(pair, list | tuple) or len(pair) != 2 or (is_missing(pair[0]) and is_missing(pair[1])):
        return MISSING
    if is_missing(pair[0]) or is_missing(pair[1]):
        return f"[{number(pair[0])}, ∞)" if is_missing(pair[1]) else f"(−∞, {number(pair[1])}]"
    width = abs(pair[1] - pair[0])
    return f"[{number(pair[0], width=width)}, {number(pair[1], width=width)}]"


def duration(seconds: Any) -> str:
    """A time span.

    >>> duration(0.0312), duration(3.21), duration(154)
    ('31 ms', '3.2 s', '2 min 34 s')
    """
    if is_missing(seconds):
        return MISSING
    seconds = float(seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def text(value: Any) -> str:
    """Any JSON value as a reader sees it."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value}".replace("-", "−")
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value) if value else "none"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {text(item)}" for key, item in value.items()) if value else "none"
    return str(value)
