from __future__ import annotations

import math

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("name", "value", "level"),
    [
        ("sampler/log_abs_mean", 0.03, None),
        ("sampler/log_abs_mean", 0.06, "warning"),
        ("sampler/log_abs_mean", 0.3, "problem"),
        ("sampler/kl_k3", 0.001, None),
        ("sampler/kl_k3", 0.045, "problem"),
        ("sampler/error", 1.02, None),
        ("sampler/error", 1.06, "warning"),
        ("sampler/error", 1.3, "problem"),
        ("sampler/probability_abs_mean", 0.005, None),
        ("sampler/probability_abs_mean", 0.1, "problem"),
        ("sampler/probability_correlation", 0.999, None),
        ("sampler/probability_correlation", 0.9, "problem"),
        ("kl/sampler", -0.0005, None),
        ("kl/sampler", -0.03, "problem"),
    ],
)
def test_every_measure_has_its_level(findings, name, value, level):
    found = findings("mismatch", {name: np.full(20, value)})
    assert [item.level for item in found] == ([] if level is None else [level])


def test_the_scale_is_that_of_a_normal_difference(noise):
    # Measured on a million normal differences of standard deviation 0.1 with mean -s²/2, as the sampler sees them.
    from analysis.diagnose.rules._mismatch import SCALES

    s = 0.1
    difference = s * noise(size=1_000_000) - s**2 / 2
    # rtol 2 %: expansions to second order in s.
    assert SCALES["sampler/log_abs_mean"](np.abs(difference).mean()) == pytest.approx(s, rel=0.02)
    assert SCALES["sampler/kl_k3"]((np.exp(difference) - 1 - difference).mean()) == pytest.approx(s, rel=0.02)
    assert SCALES["sampler/error"](np.exp(np.abs(difference)).mean()) == pytest.approx(s, rel=0.02)
    assert SCALES["kl/sampler"](-difference.mean()) == pytest.approx(s, rel=0.02)
    assert math.isclose(SCALES["sampler/error"](1.0), 0.0, abs_tol=1e-12)


def test_one_that_grows_is_judged_by_its_start(findings, noise):
    grows = np.linspace(0.005, 0.4, 60) * np.exp(0.05 * noise(size=60))
    assert findings("mismatch", {"sampler/log_abs_mean": grows}) == []
