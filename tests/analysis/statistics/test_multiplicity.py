"""Adjusted p-values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.statistics import benjamini_hochberg, holm
from testbed.errors import ConfigError


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, made monotone: .02 .03 .06 .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02], rel=1e-12)
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_holm_keeps_the_family_error():
    # 4000 families of five true nulls; any rejection at 0.05 has probability at most 0.05 + 3.3 standard errors.
    p = np.random.default_rng(0).uniform(size=(4000, 5))
    any_rejected = np.mean([(holm(row) <= 0.05).any() for row in p])
    assert 0.035 < any_rejected < 0.0615


def test_benjamini_hochberg_by_hand():
    # Sorted .005 .01 .03 .04 times 4/rank: .02 .02 .04 .04.
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02], rel=1e-12)


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_adjustment_rejects_missing(adjust):
    with pytest.raises(ConfigError, match=r"every entry in \[0, 1\]"):
        adjust([0.1, math.nan])
