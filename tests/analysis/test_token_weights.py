from __future__ import annotations

import pytest

from analysis.token_weights import PICTURE, picture_signature, token_weight_figure
from testbed.reductions import reduction_names


def lines(figure, title):
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left") == title]
    return [line.get_ydata().tolist() for line in axes.get_lines()]


def test_weights_by_hand():
    # Responses of 1 and 3 tokens, N = 4 and B = 2, each alone in a micro-batch.
    figure = token_weight_figure([1, 3], [1, 1])
    assert len(figure.axes) == len(reduction_names())
    # token_mean: 1/N; and 1/1 and 1/3, halved, times 4.
    whole, split = lines(figure, "token_mean")
    assert whole == pytest.approx([1.0, 1.0])
    assert split == pytest.approx([2.0, 2 / 3])
    # seq_mean_token_mean: 1/(2·1) and 1/(2·3), times 4, however it is split.
    whole, split = lines(figure, "seq_mean_token_mean")
    assert whole == pytest.approx([2.0, 2 / 3])
    assert split == pytest.approx([2.0, 2 / 3])


def test_the_picture_of_the_documentation_is_of_these_weights():
    assert picture_signature() in PICTURE.read_text(encoding="utf-8")
