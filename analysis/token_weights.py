"""What a token weighs in a step, by the mean and by how the step was split: the picture to `testbed.token_weights`.

`python -m analysis.token_weights` draws the one of the documentation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from analysis.plots import curve_figure, svg_source
from testbed.reductions import Accumulation, reduction_names, token_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_picture", "picture_signature", "token_weight_figure"]

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "token_weights.svg"
LENGTHS = (1, 2, 4, 6, 8, 12, 16, 24)
"""Tokens of the responses of the documentation's picture."""
PARTS = (4, 4)
"""Its micro-batches: the short responses, then the long ones."""
_SPLITS: tuple[tuple[Accumulation, str], ...] = (("global", "counts of the step"), ("mean", "own counts, averaged"))


def token_weight_figure(lengths: Sequence[int] = LENGTHS, parts: Sequence[int] = PARTS) -> Figure:
    """A panel a mean: the weight of one token over the length of its response, whole and in micro-batches.

    Weights are relative to that of a token under `token_mean` over the whole step, so that 1 is no bias at all.

    Args:
        lengths: tokens of each response.
        parts: responses of each micro-batch, in order.

    Example:
        >>> token_weight_figure().axes[-1].get_title(loc="left")
        'token_mean'
    """
    found = _weights(lengths, parts)
    return curve_figure(
        [
            {
                "title": name,
                "x_label": "length of the response (tokens)",
                "y_label": "weight of a token (1/N)",
                "series": [
                    {"label": words, "x": list(lengths), "mean": values.tolist()}
                    for (_, words), values in zip(_SPLITS, of_name, strict=True)
                ],
            }
            for name, of_name in zip(reduction_names(), found, strict=True)
        ]
    )


def _weights(lengths: Sequence[int], parts: Sequence[int]) -> np.ndarray:
    """`(reduction, split, response)`: a token's weight times N."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(-1)
    return np.array(
        [
            [
                (token_weights(mask, name, parts=parts, accumulation=split)[:, 0] * mask.sum()).numpy()
                for split, _ in _SPLITS
            ]
            for name in reduction_names()
        ]
    )


def picture_signature() -> str:
    """A digest of what the documentation's picture shows, which is written into it."""
    return hashlib.sha256(np.round(_weights(LENGTHS, PARTS), 6).tobytes()).hexdigest()[:16]


def draw_picture() -> Path:
    """Draw the picture of the documentation; returns its file."""
    text = f"{svg_source(token_weight_figure()).rstrip()}\n<!-- {picture_signature()} -->\n"
    PICTURE.write_text(text, encoding="utf-8")
    return PICTURE


if __name__ == "__main__":
    print(draw_picture())
