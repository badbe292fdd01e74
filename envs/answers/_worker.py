"""The process in which trees are evaluated; `envs.answers.evaluation` starts it and kills it when it overruns.

Run as a file, so that it loads mpmath and nothing of this project. Arguments: the memory limit in megabytes, and the
seconds after which the kernel ends a worker whose parent is no longer there to do it. One JSON line in, a tree; one
out: the values at `POINTS` points (one where the tree has no symbol), each `[real part, imaginary part]` in decimal,
or null where the tree has none.

Two expressions are taken for equal if their values agree to `DIGITS` digits at all points. The points are fixed
transcendental-looking numbers of both signs, so that √x² is not x, and no two expressions of a sane length agree there
by accident. A value that cancels below the working precision is 0; a term too small to be seen in its sum is refused,
as is a number of more digits than are compared, and one beyond all reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from typing import Any

__all__ = ["DIGITS", "POINTS", "evaluate", "main"]

POINTS = 6
DIGITS = 50
"""Decimal digits that are compared."""
LARGEST_EXPONENT = 20_000
"""Powers of two beyond which a value is not told apart from another."""
_WORKING = 120


class Undefined(Exception):
    """A tree has no value, or none that `DIGITS` digits show."""


def evaluate(tree: list[Any]) -> list[list[str] | None]:
    """The values of a tree at the points."""
    import mpmath

    values: list[list[str] | None] = []
    for point in range(POINTS if _has_symbols(tree) else 1):
        with mpmath.workdps(_WORKING):
            try:
                value = mpmath.mpc(_Evaluation(point).value(tree))
                if not mpmath.isfinite(value) or abs(mpmath.mag(abs(value) or 1)) > LARGEST_EXPONENT:
                    raise Undefined
            except (Undefined, ArithmeticError, ValueError):
                values.append(None)
            else:
                parts = [mpmath.nstr(part, DIGITS + 10, min_fixed=1, max_fixed=0) for part in (value.real, value.imag)]
                values.append(parts)
    return values


def _has_symbols(tree: list[Any]) -> bool:
    return tree[0] == "s" or any(_has_symbols(part) for part in tree[1:] if isinstance(part, list))


class _Evaluation:
    """Values at one point."""

    def __init__(self, point: int) -> None:
        import mpmath

        self.mp: Any = mpmath
        self.point = point

    def value(self, tree: list[Any]) -> Any:
        """The value of a tree at the point."""
        kind, parts = tree[0], tree[1:]
        if kind == "n":
            return self.number(parts[0])
        if kind == "s":
            return self.symbol(parts[0])
        if kind == "c":
            return {"pi": self.mp.pi, "e": self.mp.e, "i": self.mp.mpc(0, 1)}[parts[0]] * 1
        if kind == "f":
            return self.function(parts[0], [self.value(part) for part in parts[1:]])
        if kind not in ("+", "*", "-", "/", "^"):
            # Infinity inside an expression.
            raise Undefined
        values = [self.value(part) for part in parts]
        if kind == "+":
            return self.sum(values)
        if kind == "*":
            return self.mp.fprod(values)
        if kind == "-":
            return -values[0]
        if kind == "/":
            return values[0] / values[1]
        return self.power(*values)

    def number(self, text: str) -> Any:
        above, _, below = text.partition("/")
        if max(len(above.rstrip("0")), len(below.rstrip("0"))) > DIGITS:
            raise Undefined
        return self.mp.mpf(int(above)) / int(below or 1)

    def symbol(self, name: str) -> Any:
        """A number between 0.4 and 2.4 of either sign that the name and the point determine."""
        digest = hashlib.sha256(f"{name} {self.point}".encode()).digest()
        size = self.mp.mpf(int.from_bytes(digest[:24], "big")) / 2**192 * 2 + self.mp.mpf(2) / 5
        # The first point is positive for all, the second negative for all: half of the rest is either.
        negative = self.point == 1 or (self.point > 1 and digest[31] % 2)
        return -size if negative else size

    def sum(self, values: list[Any]) -> Any:
        total = self.mp.fsum(values)
        largest = max(map(abs, values))
        if abs(total) <= largest * self.mp.mpf(10) ** (20 - _WORKING):
            return self.mp.mpf(0)
        smallest = min((abs(value) for value in values if value != 0), default=largest)
        if smallest < largest * self.mp.mpf(10) ** (10 - DIGITS) or abs(total) < largest * self.mp.mpf(10) ** (-DIGITS):
            raise Undefined
        return total

    def power(self, base: Any, exponent: Any) -> Any:
        if base == 0 and not self.mp.re(exponent) > 0:
            raise Undefined
        if self.mp.im(base) == 0 and self.mp.re(base) < 0 and self.mp.im(exponent) == 0:
            real = self.odd_root(self.mp.re(base), self.mp.re(exponent))
            if real is not None:
                return real
        return self.mp.power(base, exponent)

    def odd_root(self, base: Any, exponent: Any) -> Any:
        """The real value of a negative number to a fraction with a small odd denominator."""
        for degree in range(3, 16, 2):
            above = exponent * degree
            if abs(above - self.mp.nint(above)) < self.mp.mpf(10) ** (20 - _WORKING) and not self.mp.isint(exponent):
                size = self.mp.power(-base, exponent)
                return -size if int(self.mp.nint(above)) % 2 else size
        return None

    def function(self, name: str, values: list[Any]) -> Any:
        mp, first = self.mp, values[0]
        if name == "root":
            degree = values[1]
            if not mp.isint(degree) or degree < 2:
                raise Undefined
            return self.power(first, 1 / mp.mpf(degree)) if degree != 2 else mp.sqrt(first)
        if name == "log":
            # Without a base: some logarithm, ours and nobody's.
            base = values[1] if len(values) > 1 else self.symbol("the base of a logarithm")
            return mp.log(first) / mp.log(abs(base) if len(values) == 1 else base)
        if name in ("floor", "ceil") and mp.im(first) != 0:
            raise Undefined
        if name == "factorial" and mp.re(first) < 0 and mp.isint(first):
            raise Undefined
        if name == "lg":
            return mp.log(first) / mp.log(10)
        own = {"ln": "ln", "abs": "fabs", "arcsin": "asin", "arccos": "acos", "arctan": "atan"}
        return getattr(mp, own.get(name, name))(*values)


def limit_memory(megabytes: int) -> None:
    """Bound the address space of this process, where the operating system can."""
    try:
        import resource
    except ImportError:  # Windows: the time limit remains
        return
    size = megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(megabytes: int, orphan_seconds: float) -> None:
    """Answer requests until the input ends."""
    # The pipe is for answers only: whatever a library prints goes elsewhere.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    evaluate(["f", "sin", ["s", "x"]])  # mpmath builds its constants on first use
    limit_memory(megabytes)
    answers.write("ready\n")
    answers.flush()
    alarm: Any = getattr(signal, "setitimer", None)
    for line in sys.stdin:
        tree = json.loads(line)
        if alarm is not None:
            # Left at its default action, SIGALRM ends the process whatever it is computing.
            alarm(signal.ITIMER_REAL, orphan_seconds)
        values = evaluate(tree)
        if alarm is not None:
            alarm(signal.ITIMER_REAL, 0.0)
        answers.write(json.dumps(values) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
