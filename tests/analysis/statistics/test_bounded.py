"""Bounds that know the support, against the definition of the exact binomial interval and another sampler."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import interval, judge
from analysis.statistics.bounded import (
    check_support,
    clopper_pearson,
    of_equal_values,
    share_left_open,
    within_support,
)
from testbed.errors import ConfigError


@pytest.mark.parametrize(("successes", "seeds"), [(3, 20), (1, 5), (19, 20)])
def test_clopper_pearson_by_its_definition(successes, seeds):
    # Each end is the probability at which so many successes, or so few, have probability α.
    low, high = clopper_pearson(successes, seeds, 0.99)
    assert stats.binom.sf(successes - 1, seeds, low) == pytest.approx(0.005, rel=1e-9)
    assert stats.binom.cdf(successes, seeds, high) == pytest.approx(0.005, rel=1e-9)


def test_what_equal_values_leave_open_by_hand():
    # A share s elsewhere is missed by all n seeds with probability (1 - s)ⁿ.
    share = share_left_open(20, 0.99)
    assert (1 - share) ** 20 == pytest.approx(0.005, rel=1e-12)
    # 1.2 in [1.2, 3.0]: nothing below, at most 1.8 above.
    low, high = of_equal_values(1.2, 20, (1.2, 3.0), 0.99)
    assert low == 1.2
    assert high == pytest.approx(1.2 + 1.8 * (1 - 0.005 ** (1 / 20)), rel=1e-12)
    # 0 in [-1, 2]: the share at -1, or at 2.
    low, high = of_equal_values(0.0, 20, (-1.0, 2.0), 0.99)
    assert (low, high) == pytest.approx((-share, 2 * share), rel=1e-12)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-2.0, 3.0)])
def test_values_at_the_ends_are_a_binomial(low, high):
    values = np.array([high] * 3 + [low] * 17)
    found = within_support(values, (low, high), 1000, 0)(0.95)
    share = stats.binomtest(3, 20).proportion_ci(0.95, method="exact")
    assert found == (
        pytest.approx(low + (high - low) * share.low),
        pytest.approx(low + (high - low) * share.high),
        "exact binomial",
    )


def test_gaffkes_bound_of_two_values_is_the_exact_one_at_an_end():
    # 0 is an end of [0, 2] and 1 is not: the weight of the five ones is Beta(5, 16), whose quantile is the exact
    # binomial lower bound of 5 in 20. 10 000 draws place the quantile 0.05 within 4 √(0.05 · 0.95 / 10 000) = 0.009.
    found, _, method = within_support(np.array([0.0] * 15 + [1.0] * 5), (0.0, 2.0), 10_000, 0)(0.9)
    assert stats.beta(5, 16).ppf(0.041) <= found <= stats.beta(5, 16).ppf(0.059)
    assert method == "Gaffke's bound"


def test_gaffkes_bound_against_another_sampler():
    values = np.array([0.0] * 9 + [0.3, 0.4, 0.8])
    weights = np.random.default_rng(7).dirichlet(np.ones(13), 200_000)
    upper = np.sort(weights @ np.append(values, 1.0))
    found = within_support(values, (0.0, 1.0), 10_000, 0)(0.9)[1]
    assert upper[int(0.941 * 200_000)] <= found <= upper[int(0.959 * 200_000)]


def test_mirrored_values_have_mirrored_bounds():
    values = np.array([0.0] * 9 + [0.3, 0.4, 0.8])
    low, high, _ = within_support(values, (0.0, 1.0), 2000, 0)(0.99)
    mirrored_low, mirrored_high, _ = within_support(1 - values, (0.0, 1.0), 2000, 0)(0.99)
    assert (1 - mirrored_high, 1 - mirrored_low) == pytest.approx((low, high), rel=1e-9)


def test_five_ones_do_not_show_a_mean_above_095():
    assert judge(np.ones(5), "greater", 0.95, 0.99).verdict == "inconclusive"
    known = judge(np.ones(5), "greater", 0.95, 0.99, support=(0.0, 1.0))
    # 0.95¹⁰³ = 0.0051 > 0.005 > 0.95¹⁰⁴.
    assert (known.verdict, known.seeds_needed) == ("inconclusive", 104)
    assert known.low == pytest.approx(0.005**0.2, rel=1e-12)
    assert known.high == 1.0
    assert judge(np.ones(103), "greater", 0.95, 0.99, support=(0.0, 1.0)).verdict == "inconclusive"
    assert judge(np.ones(104), "greater", 0.95, 0.99, support=(0.0, 1.0)).verdict == "reproduced"


def test_a_paired_difference_of_0_in_every_seed_needs_its_support():
    # At most a share s of the seeds differs, by at most 1: below 0.01 from 528 seeds on, 0.99⁵²⁷ = 0.00501.
    assert judge(np.zeros(32), "less", -0.01, 0.99, support=(-1.0, 1.0)).seeds_needed == 528
    assert judge(np.zeros(527), "less", -0.01, 0.99, support=(-1.0, 1.0)).verdict == "inconclusive"
    assert judge(np.zeros(528), "less", -0.01, 0.99, support=(-1.0, 1.0)).verdict == "refuted"


def test_bounds_never_leave_the_support():
    values = np.array([0.0, 0.02, 0.1, 0.03, 0.2, 0.9, 0.4, 0.01])
    free = interval(values, 0.99)
    kept = interval(values, 0.99, support=(0.0, 1.0))
    assert free.low < 0.0 < 1.0 < free.high
    assert (kept.low, kept.high) == (0.0, 1.0)


def test_mostly_equal_values_within_a_support_are_bounded():
    # Seven of twelve equal but for rounding: more than half.
    values = np.array([0.3] * 4 + [0.1 + 0.2] * 3 + [0.5, 0.1, 0.2, 0.9, 0.7])
    assert interval(values, support=(0.0, 1.0)).method == "Gaffke's bound"
    assert interval(values[1:], support=(0.0, 1.0)).method == "Gaffke's bound"
    assert interval(values[2:], support=(0.0, 1.0)).method == "wider of t and studentised bootstrap"


@pytest.mark.parametrize("share", [0.9, 0.97])
@pytest.mark.parametrize("seeds", [8, 32])
def test_false_verdicts_on_two_values_are_rare(share, seeds):
    # The truth is on the threshold. 400 sets: 99.9 % of binomial(400, 0.01) lies below 12.
    rng = np.random.default_rng(seeds)
    for support in (None, (0.0, 1.0)):
        verdicts = [
            judge((rng.random(seeds) < share).astype(float), "greater", share, 0.99, support=support).verdict
            for _ in range(400)
        ]
        assert len(verdicts) - verdicts.count("inconclusive") < 12


@pytest.mark.parametrize(
    ("support", "message"),
    [
        ((1.0, 0.0), r"support is \(1.0, 0.0\); expected two finite numbers"),
        ((0.0, np.inf), "expected two finite numbers"),
        ((0.0, 0.5), r"values reach from 0.2 to 0.7, outside the support \[0, 0.5\]"),
        ((0.3, 1.0), r"values reach from 0.2 to 0.7, outside the support \[0.3, 1\]"),
    ],
)
def test_a_support_that_cannot_be_is_refused(support, message):
    with pytest.raises(ConfigError, match=message):
        interval([0.2, 0.3, 0.4, 0.5, 0.7], support=support)


def test_rounding_beyond_the_support_is_not_outside():
    assert check_support(np.array([1 + 1e-12, -1e-12, 0.5]), (0.0, 1.0)).tolist() == [1.0, 0.0, 0.5]
