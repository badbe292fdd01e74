"""Shares of seeds against the definition of the exact binomial interval."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import decide, probability_of_improvement, proportion_interval
from testbed.errors import ConfigError


def test_the_share_is_bounded_exactly():
    # At the lower end 3 or more of 20 have probability 0.05, at the upper one 3 or fewer.
    bounds = proportion_interval([True] * 3 + [False] * 17)
    assert bounds.estimate == 3 / 20
    assert stats.binom.sf(2, 20, bounds.low) == pytest.approx(0.05, rel=1e-9)
    assert stats.binom.cdf(3, 20, bounds.high) == pytest.approx(0.05, rel=1e-9)


def test_proportion_of_none_is_not_zero_for_sure():
    bounds = proportion_interval(np.zeros(20))
    assert bounds.low == 0.0
    # (1 - high)²⁰ = 0.05.
    assert bounds.high == pytest.approx(1 - 0.05**0.05, rel=1e-12)
    # Below 0.1 from 29 on: 0.9²⁸ = 0.0523, 0.9²⁹ = 0.0471.
    assert decide(bounds, "less", 0.1).seeds_needed == 29


def test_proportion_rejects_other_numbers():
    with pytest.raises(ConfigError, match=r"outcomes holds 0.5; expected 0 or 1"):
        proportion_interval([0.0, 0.5, 1.0])


def test_probability_of_improvement_with_and_without_ties():
    without = probability_of_improvement([1.0] * 15 + [-1.0] * 5)
    share = proportion_interval([1] * 15 + [0] * 5)
    assert (without.estimate, without.low, without.high) == (share.estimate, share.low, share.high)
    ties = probability_of_improvement([1.0] * 13 + [0.0] * 4 + [-1.0] * 3)
    assert ties.estimate == 0.75
    # Ties fail below and improve above.
    assert ties.low == proportion_interval([1] * 13 + [0] * 7).low
    assert ties.high == proportion_interval([1] * 17 + [0] * 3).high
