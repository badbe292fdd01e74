"""What an objective does to a token, as a picture: its gradient weight F over the ratio, beside PPO's.

F is taken by autograd from the shipped loss, for a response of one token alone in its batch, so any objective can be
drawn, also one that is registered nowhere. dL/dlog p = -F·A, except where a penalty adds to it: what is drawn is
-(dL/dlog p)/A with A = ±1.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.plots import curve_figure
from testbed.batch import TokenBatch
from testbed.objectives import Objective, make_objective

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Curve",
    "describe",
    "draw_weights",
    "gradient_weight_curves",
    "gradient_weight_figure",
    "gradient_weight_panels",
]

LARGEST_RATIO = 4.0
"""Right end of the ratio axis, and top of the weight axis."""
# Between the multiples of 1/80, so that no bound of any objective falls on a point.
RATIOS: NDArray[np.float64] = (np.arange(320) + 0.5) / 80

_USUAL: Mapping[str, float] = {"q": 0.1, "entropy": 1.0, "sampler": 1.0, "reference": 1.0}


class _Axis(NamedTuple):
    key: str
    field: str
    """The optional field of a batch that an objective has to read for the axis to matter."""
    written: str
    values: tuple[float, ...]


_AXES = (
    _Axis("q", "", "q = {:g}", (0.01, 0.1, 0.5, 0.9)),
    _Axis("entropy", "old_entropies", "H/H_old = {:g}", (0.9, 1.1)),
    _Axis("sampler", "sampler_log_probs", "q/p_sampler = {:g}", (0.5, 4.0)),
    _Axis("reference", "ref_log_probs", "p_ref/q = {:g}", (0.5, 2.0)),
)


@dataclass(frozen=True)
class Curve:
    """F over `RATIOS` for one sign of the advantage."""

    label: str
    """What distinguishes it from the other curves of the figure."""
    positive: NDArray[np.float64]
    """F for A > 0; NaN where the probability would exceed 1."""
    negative: NDArray[np.float64]
    """F for A < 0, likewise."""


def gradient_weight_curves(objective: str | Objective) -> list[Curve]:
    """F of an objective, PPO's first; one curve for each old probability and side condition that changes it.

    Args:
        objective: a name, `name(key=value,…)`, or an objective with float hyper-parameters.

    Example:
        >>> ppo, sapo = gradient_weight_curves("sapo")
        >>> float(ppo.positive[160]), round(float(sapo.positive[160]), 4)  # r = 2.00625: 0, and r·sech²((r-1)/2)
        (0.0, 1.5732)
    """
    chosen = make_objective(objective)
    reference = _curve(make_objective("ppo"), "ppo, for comparison", _USUAL)
    by_probability = _distinct(_curve(chosen, label, condition) for label, condition in _conditions("q"))
    read = [axis for axis in _AXES if axis.field in chosen.needs]
    if len(by_probability) == 1:
        # The old probability does not matter: name the curve by the conditions that do.
        usual = ", ".join(axis.written.format(_USUAL[axis.key]) for axis in read) or chosen.label()
        by_probability = [Curve(usual, by_probability[0].positive, by_probability[0].negative)]
    others = (_curve(chosen, *change) for axis in read for change in _conditions(axis.key))
    return [reference, *_distinct([*by_probability, *others])]


def gradient_weight_panels(objective: str | Objective) -> list[dict[str, Any]]:
    """The curves of `gradient_weight_curves` as two panels, A > 0 and A < 0, for `analysis.plots.curve_figure`."""
    chosen = make_objective(objective)
    curves = gradient_weight_curves(chosen)
    return [
        {
            "title": f"{chosen.label()}, A {sign} 0",
            "x_label": "ratio r = p/q (1)",
            "y_label": "gradient weight F (1)",
            "series": [
                {"label": curve.label, "x": RATIOS.tolist(), "mean": values.tolist()} for curve, values in panel
            ],
        }
        for sign, panel in (
            (">", [(curve, curve.positive) for curve in curves]),
            ("<", [(curve, curve.negative) for curve in curves]),
        )
    ]


def gradient_weight_figure(objective: str | Objective) -> Figure:
    """The panels of `gradient_weight_panels`, drawn."""
    return draw_weights(gradient_weight_panels(objective))


def draw_weights(panels: Sequence[Mapping[str, Any]]) -> Figure:
    """Panels of gradient weights, with one ratio axis, and a weight axis that no single token stretches."""
    figure = curve_figure(panels)
    for axes, panel in zip(figure.axes, panels, strict=True):
        axes.set_xlim(0, LARGEST_RATIO)
        # A penalty can point against A, and without limit where the ratio vanishes.
        known = [value for series in panel["series"] for value in series["mean"] if value is not None]
        axes.set_ylim(max(min(0.0, float(np.nanmin(known))), -1.0) - 0.1, LARGEST_RATIO)
    return figure


def describe(objective: str | Objective) -> str:
    """What the docstring of an objective says up to its example: formula, reference, departures, gradient.

    Example:
        >>> print(describe("reinforce").splitlines()[2])
            ℓ = -A · log p          F = 1
    """
    text = inspect.getdoc(type(make_objective(objective))) or ""
    return text.split("\nRaises:")[0].split("\nExample:")[0].rstrip()


def _conditions(key: str) -> Iterator[tuple[str, Mapping[str, float]]]:
    """The usual conditions with one of them changed."""
    axis = next(axis for axis in _AXES if axis.key == key)
    for value in axis.values:
        yield axis.written.format(value), {**_USUAL, key: value}


def _distinct(curves: Iterable[Curve]) -> list[Curve]:
    kept: list[Curve] = []
    for curve in curves:
        if not any(_same(curve, other) for other in kept):
            kept.append(curve)
    return kept


def _same(first: Curve, second: Curve) -> bool:
    """Whether the two agree wherever both are possible."""
    return all(
        np.allclose(a[both], b[both], rtol=1e-9, atol=1e-12)
        for a, b in ((first.positive, second.positive), (first.negative, second.negative))
        if (both := ~(np.isnan(a) | np.isnan(b))).any()
    )


def _curve(objective: Objective, label: str, condition: Mapping[str, float]) -> Curve:
    positive, negative = (_weights(objective, sign, condition) for sign in (1.0, -1.0))
    return Curve(label, positive, negative)


def _weights(objective: Objective, sign: float, condition: Mapping[str, float]) -> NDArray[np.float64]:
    # Every ratio is a replica of one response of one token: batch statistics see nothing but that token.
    ratios = torch.from_numpy(RATIOS).view(-1, 1, 1)
    old = torch.full_like(ratios, math.log(condition["q"]))
    log_probs = (old + ratios.log()).requires_grad_()
    optional: dict[str, Any] = {
        "entropies": torch.full_like(ratios, condition["entropy"]),
        "old_entropies": torch.ones_like(ratios),
        "old_kappas": torch.zeros_like(ratios),
        "sampler_log_probs": old - math.log(condition["sampler"]),
        "ref_log_probs": old + math.log(condition["reference"]),
    }
    batch = TokenBatch(
        log_probs=log_probs,
        old_log_probs=old,
        advantages=torch.full_like(ratios, sign),
        mask=torch.ones_like(ratios, dtype=torch.bool),
        **optional,
    )
    (gradient,) = torch.autograd.grad(objective.token_loss(batch).sum(), log_probs)
    # Adding 0 makes one of the two zeros.
    weights = (-gradient / sign).flatten().numpy() + 0.0
    possible: NDArray[np.float64] = np.where(RATIOS * condition["q"] <= 1, weights, np.nan)
    return possible
