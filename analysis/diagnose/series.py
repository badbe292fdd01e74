"""One logged quantity over a run, and how a million rows of it fit into bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

__all__ = ["NULL", "Block", "Recording", "Series", "block_of_rows"]

NULL = float(np.finfo(np.float64).min)
"""What a reader puts where a log has an explicit null: it may stand for NaN or for "nothing to report"."""

CAPACITY = 32_768
"""Points of a series kept one by one; beyond, neighbours are merged into averages that remember their extremes."""


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a log, by column.

    Attributes:
        rows: how many rows.
        columns: key to row numbers and values; a row that lacks the key is not among them, a logged NaN is a NaN, an
            explicit null is `NULL`.
        texts: key to the row numbers and values of what is no number, such as "5/3766".
    """

    rows: int
    columns: Mapping[str, tuple[np.ndarray, np.ndarray]]
    texts: Mapping[str, tuple[np.ndarray, list[str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Series:
    """A quantity over steps, sorted by step, one point per step.

    Attributes:
        key: the key it was logged under.
        steps: steps, increasing, float.
        values: finite values or NaN; means where points were merged.
        low, high: extremes of merged points; elsewhere the value itself.
        bad: how many non-finite values were logged at that point.
        counts: how many rows were merged into it.
    """

    key: str
    steps: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    bad: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    @classmethod
    def of(cls, key: str, steps: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray) -> Series:
        """A series of given points, sorted by step; of several points of one step the last counts.

        >>> Series.of("loss", [2, 1, 2], [5.0, 1.0, 3.0]).values.tolist()
        [1.0, 3.0]
        """
        at, given = np.asarray(steps, float), np.asarray(values, float)
        bad = ~np.isfinite(given)
        finite = np.where(bad, np.nan, given)
        made = cls(key, at, finite, finite, finite, bad.astype(int), np.ones(len(at), int))
        return made._sorted()

    def scaled(self, factor: float) -> Series:
        """Every value times `factor`."""
        if factor == 1:
            return self
        low, high = self.low * factor, self.high * factor
        if factor < 0:
            low, high = high, low
        return Series(self.key, self.steps, self.values * factor, low, high, self.bad, self.counts)

    def finite(self) -> Series:
        """Only the points that have a finite value."""
        return self._take(np.isfinite(self.values))

    def after(self, step: float) -> Series:
        """Only the points from `step` on."""
        return self._take(self.steps >= step)

    def _take(self, chosen: np.ndarray) -> Series:
        arrays = (self.steps, self.values, self.low, self.high, self.bad, self.counts)
        return Series(self.key, *(array[chosen] for array in arrays))

    def _sorted(self) -> Series:
        if len(self.steps) < 2 or bool((self.steps[1:] > self.steps[:-1]).all()):
            return self
        order = np.argsort(self.steps, kind="stable")
        steps = self.steps[order]
        last = np.append(steps[1:] != steps[:-1], True)
        return self._take(order[last])

    def merged(self, most: int) -> Series:
        """At most `most` points: neighbours become their mean, with their extremes kept."""
        groups = -(-len(self) // most)
        if groups <= 1:
            return self
        starts = np.arange(0, len(self), groups)
        weights = np.where(np.isfinite(self.values), self.counts - self.bad, 0)
        total = np.add.reduceat(weights, starts)
        summed = np.add.reduceat(np.where(weights > 0, self.values, 0.0) * weights, starts)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.where(total > 0, summed / total, np.nan)
        low = np.minimum.reduceat(np.where(np.isfinite(self.low), self.low, np.inf), starts)
        high = np.maximum.reduceat(np.where(np.isfinite(self.high), self.high, -np.inf), starts)
        empty = total == 0
        return Series(
            self.key,
            self.steps[np.append(starts[1:], len(self)) - 1],
            values,
            np.where(empty, np.nan, low),
            np.where(empty, np.nan, high),
            np.add.reduceat(self.bad, starts),
            np.add.reduceat(self.counts, starts),
        )


class Recording:
    """Points of one key as they come in, merged once there are too many to keep one by one."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.points = 0
        self.nulls = 0
        self.backward = False
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._pending = 0
        self._merged: Series | None = None
        self._latest = -np.inf

    def add(self, steps: np.ndarray, values: np.ndarray) -> None:
        """Take more points; `NULL` values are set aside until it is known what they mean."""
        if not len(steps):
            return
        self.points += len(steps)
        self.nulls += int((values == NULL).sum())
        self.backward |= bool(steps[0] < self._latest) or bool((steps[1:] < steps[:-1]).any())
        self._latest = max(self._latest, float(steps.max()))
        self._parts.append((steps, values))
        self._pending += len(steps)
        if self._pending > CAPACITY:
            self._merge()

    def _merge(self) -> None:
        self._merged = self._all(null_is_bad=self.nulls < self.points).merged(CAPACITY // 2)
        self._parts, self._pending = [], 0

    def _all(self, null_is_bad: bool) -> Series:
        steps = np.concatenate([part[0] for part in self._parts]) if self._parts else np.zeros(0)
        values = np.concatenate([part[1] for part in self._parts]) if self._parts else np.zeros(0)
        null = values == NULL
        if null.any():
            if null_is_bad:
                values = np.where(null, np.nan, values)
            else:
                steps, values = steps[~null], values[~null]
        fresh = Series.of(self.key, steps, values)
        if self._merged is None:
            return fresh
        before = self._merged
        if len(fresh) and len(before) and fresh.steps[0] <= before.steps[-1]:
            # Resumed: what was written again replaces what it repeats, even where that is merged already.
            before = before._take((before.steps < fresh.steps[0]) | (before.steps > fresh.steps[-1]))
        arrays = [
            np.concatenate([getattr(before, name), getattr(fresh, name)])
            for name in ("steps", "values", "low", "high", "bad", "counts")
        ]
        return Series(self.key, *arrays)._sorted()

    def series(self, *, null_is_bad: bool) -> Series:
        """What was recorded, sorted by step.

        Args:
            null_is_bad: whether an explicit null stands for a number that was not finite.
        """
        return self._all(null_is_bad)


def block_of_rows(rows: Sequence[Mapping[str, object]], unknown: Set[str] = frozenset()) -> Block:
    """Rows as a block: numbers, texts that are numbers, NaN, null and nested groups; anything else is text.

    Args:
        rows: the rows.
        unknown: keys to leave out.

    >>> block = block_of_rows([{"step": 1, "data": {"a": "0.5"}}, {"step": 2, "b": None}])
    >>> {key: (at.tolist(), values.tolist()) for key, (at, values) in block.columns.items()}["a"]
    ([0], [0.5])
    """
    places: dict[str, list[int]] = {}
    numbers: dict[str, list[float]] = {}
    text_places: dict[str, list[int]] = {}
    texts: dict[str, list[str]] = {}
    for index, row in enumerate(rows):
        items = _flat(row)
        # A row that is mostly null is one of a table that was joined from several: it lacks these, they are not NaN.
        joined = 2 * sum(value is None for _, value in items) > len(items)
        for key, value in items:
            if key in unknown or (joined and value is None):
                continue
            if isinstance(value, bool):
                number: float | None = float(value)
            elif isinstance(value, int | float):
                number = _float(value)
            elif value is None:
                number = NULL
            elif isinstance(value, str):
                number = _number(value)
                if number is None:
                    text_places.setdefault(key, []).append(index)
                    texts.setdefault(key, []).append(value)
                    continue
            else:
                continue
            places.setdefault(key, []).append(index)
            numbers.setdefault(key, []).append(number if number is not None else np.nan)
    return Block(
        len(rows),
        {key: (np.asarray(at), np.asarray(numbers[key], float)) for key, at in places.items()},
        {key: (np.asarray(at), texts[key]) for key, at in text_places.items()},
    )


_GROUPS = frozenset({"data", "metrics"})
"""Containers that hold a row's numbers one level down, without becoming part of their keys."""


def _flat(row: Mapping[str, object]) -> list[tuple[str, object]]:
    items: list[tuple[str, object]] = []
    for key, value in row.items():
        if isinstance(value, dict):
            inside = _flat(value) if len(value) else []
            prefix = "" if key in _GROUPS else f"{key}/"
            items += [(f"{prefix}{name}", item) for name, item in inside]
        else:
            items.append((key if isinstance(key, str) else str(key), value))
    return items


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _number(text: str) -> float | None:
    """A number written as text; `np.float64(0.3)` and `tensor(0.3)` are numbers as well."""
    text = text.strip()
    if text.endswith(")") and "(" in text and len(text) < 80:
        text = text[text.index("(") + 1 : -1].split(",")[0].strip()
    if not text or len(text) > 60 or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None
