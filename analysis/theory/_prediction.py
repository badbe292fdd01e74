"""What a prediction is, and the list every file of this package adds its own to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from testbed.errors import ConfigError
from testbed.registry import Registry

__all__ = ["Comparison", "Measurement", "Prediction", "register", "registry"]

Scale = Literal["absolute", "relative", "standard errors"]


class Measurement(NamedTuple):
    """What a random experiment found, with its own uncertainty.

    Attributes:
        value: the estimates, any shape.
        standard_error: of each estimate, same shape, positive.
    """

    value: ArrayLike
    standard_error: ArrayLike


@dataclass(frozen=True)
class Comparison:
    """A prediction beside its measurement, where the two differ most."""

    predicted: float
    """The predicted number with the largest error."""
    measured: float
    """The measurement of that number."""
    error: float
    """Largest error over all numbers compared, on the prediction's scale; NaN if one is missing."""
    tolerance: float
    """Largest error allowed."""
    holds: bool
    """True iff the error is a number and within the tolerance."""
    numbers: int
    """How many numbers were compared."""


@dataclass(frozen=True)
class Prediction:
    """A statement that can be computed in closed form and found again by another route.

    Raises:
        ConfigError: the tolerance is negative or not finite, the id is not of the form T1, T2, …, or a text
            is empty.
    """

    id: str
    """Which exact statement it belongs to: T1, T2, …; several predictions may share one."""
    name: str
    """Short unique name, words joined by hyphens."""
    statement: str
    """What is claimed, in one sentence."""
    route: str
    """How the measurement is made, and why that is another way than the prediction's."""
    unit: str
    """Unit of the predicted numbers."""
    tolerance: float
    """Largest error allowed, on `scale`."""
    predict: Callable[[], ArrayLike]
    """The closed form: an array of any shape."""
    measure: Callable[[], ArrayLike | Measurement]
    """The same numbers by the other route: an array of the same shape, or a `Measurement`."""
    scale: Scale = "absolute"
    """What the tolerance is counted in: the unit itself, the prediction's size, or standard errors."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ConfigError(f"{self.name}: tolerance is {self.tolerance}; expected a finite number, not negative")
        if not (self.id.startswith("T") and self.id[1:].isdigit()):
            raise ConfigError(f"{self.name}: id is {self.id!r}; expected T and a number, such as 'T5'")
        for field in ("name", "statement", "route", "unit"):
            if not getattr(self, field).strip():
                raise ConfigError(f"prediction {self.name or self.id}: {field} is empty; say it in words")

    def compare(self) -> Comparison:
        """Run both routes and report where they differ most.

        Raises:
            ConfigError: the two routes returned different shapes, or a standard error where none belongs.
        """
        found = self.measure()
        random = isinstance(found, Measurement)
        if random != (self.scale == "standard errors"):
            raise ConfigError(
                f"{self.name}: a Measurement with its standard errors belongs to the scale 'standard errors' and to "
                f"no other; the scale is {self.scale!r}"
            )
        predicted = np.asarray(self.predict(), dtype=np.float64)
        measured = np.asarray(found.value if isinstance(found, Measurement) else found, dtype=np.float64)
        if predicted.shape != measured.shape or predicted.size == 0:
            raise ConfigError(
                f"{self.name}: predicted shape {predicted.shape}, measured shape {measured.shape}; expected the same, "
                "with at least one number"
            )
        unit: NDArray[np.float64] = np.ones_like(predicted)
        if self.scale == "relative":
            unit = np.abs(predicted)
        elif isinstance(found, Measurement):
            unit = np.asarray(found.standard_error, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Equal numbers have no error, whatever the unit; infinity predicted and found is equal too.
            errors = np.where(predicted == measured, 0.0, np.abs(predicted - measured) / unit)
        worst = int(np.argmax(errors))  # argmax returns the first NaN if there is one
        error = float(errors.flat[worst])
        return Comparison(
            predicted=float(predicted.flat[worst]),
            measured=float(measured.flat[worst]),
            error=error,
            tolerance=self.tolerance,
            holds=error <= self.tolerance,
            numbers=predicted.size,
        )


registry: Registry[Prediction] = Registry("prediction", package="analysis.theory")


def register(prediction: Prediction) -> Prediction:
    """File a prediction under its name; every public file of this package is read for them."""
    return registry.register(prediction.name)(prediction)
