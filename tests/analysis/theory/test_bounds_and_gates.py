"""DCPO's bounds and SAPO's gate against worked numbers and the tables derived from them."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.theory.dcpo_bounds import largest_gain, lower_bound, promotion_iterations, upper_bound
from analysis.theory.sapo_gate import gate, peak, sequence_gap, sequence_gap_bound


def test_bounds_where_the_root_is_rational():
    # 1 + 0.8/q is a square: q = 0.1 (9), 0.8/3 (4), 0.8/24 (25). 1 - 0.64/q: q = 1 (0.36), 0.64 (0).
    assert upper_bound([0.1, 0.8 / 3, 0.8 / 24]) == pytest.approx([2.0, 1.5, 3.0], rel=1e-12)
    assert lower_bound([1.0, 0.64, 0.1]) == pytest.approx([0.8, 0.5, 0.5], rel=1e-12)


def test_cap_binds_below_one_in_450():
    assert upper_bound([1 / 451, 1e-9]).tolist() == [10.0, 10.0]
    assert float(upper_bound(1 / 449)) < 10.0


def test_dynamic_bound_is_the_tighter_one_for_probable_tokens():
    probable, rare = np.linspace(0.56, 0.99, 20), np.geomspace(1e-4, 0.55, 20)
    assert (upper_bound(probable) < 1.28).all()
    assert (upper_bound(rare) > 1.28).all()
    assert (lower_bound(np.linspace(0.01, 0.999, 50)) < 0.8).all()


def test_gain_scales_like_the_root_of_the_probability():
    probabilities = np.array([0.004, 0.016])
    # √(ε q) up to a relative √(q/ε)/2: quadrupling q doubles the gain; a fixed bound would quadruple it.
    assert np.divide(*largest_gain(probabilities)[::-1]) == pytest.approx(2.0, rel=0.1)
    assert float(largest_gain(0.9)) == pytest.approx(0.1, rel=1e-12)


@pytest.mark.parametrize(
    ("start", "fixed", "higher", "dynamic"), [(1e-2, 22, 16, 5), (1e-3, 35, 26, 6), (1e-4, 47, 35, 7)]
)
def test_promotion(start, fixed, higher, dynamic):
    # A fixed bound needs ⌈log(½/q)/log(1 + e)⌉ iterations.
    assert promotion_iterations(start, fixed_high=0.2) == fixed == np.ceil(np.log(0.5 / start) / np.log(1.2))
    assert promotion_iterations(start, fixed_high=0.28) == higher == np.ceil(np.log(0.5 / start) / np.log(1.28))
    assert promotion_iterations(start) == dynamic


def test_gate_is_the_derivative_of_the_soft_surrogate():
    ratio, step = np.array([0.3, 0.9, 1.7, 3.0]), 1e-6
    for tau in (1.0, 1.05, 4.0):

        def surrogate(r, tau=tau):
            return 4 / tau / (1 + np.exp(-tau * (r - 1)))

        numeric = (surrogate(ratio + step) - surrogate(ratio - step)) / (2 * step)
        assert gate(ratio, tau) == pytest.approx(numeric, abs=1e-9)  # differences
        assert float(gate(1.0, tau)) == 1.0


def test_gate_by_hand():
    # σ(1) = e/(1 + e): 4e/(1 + e)² at r = 2, τ = 1. Half weight at |r - 1| = 2 arccosh(√2)/τ.
    assert float(gate(2.0, 1.0)) == pytest.approx(4 * np.e / (1 + np.e) ** 2, rel=1e-12)
    assert float(gate(1 + 2 * np.arccosh(np.sqrt(2)) / 3, 3.0)) == pytest.approx(0.5, rel=1e-12)


def test_peak_is_a_maximum():
    for tau in (0.5, 1.0, 2.0, 5.0):
        ratio, weight = peak(tau)
        grid = np.linspace(0, 20, 100_001)
        assert (grid * gate(grid, tau)).max() == pytest.approx(weight, abs=1e-7)  # grid spacing squared
        assert ratio > 1


def test_sequence_gap_of_an_outlier():
    # Ratios 1.02, 1.01, 0.99 and 2.5 at τ = 1: 0.03239 within 0.03882, to the digits given.
    logs = np.log([1.02, 1.01, 0.99, 2.5])
    assert float(sequence_gap(logs, 1.0)) == pytest.approx(0.03239, abs=5e-6)
    assert float(sequence_gap_bound(logs, 1.0)) == pytest.approx(0.03882, abs=5e-6)
