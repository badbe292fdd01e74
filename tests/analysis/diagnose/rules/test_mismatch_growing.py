from __future__ import annotations

import numpy as np


def test_growth_is_found_with_its_onset(findings, noise):
    level = np.r_[np.full(30, 0.01), np.linspace(0.01, 0.3, 30)] * np.exp(0.05 * noise(size=60))
    (found,) = findings("mismatch-growing", {"sampler/log_abs_mean": level})
    assert found.level == "problem"
    assert 26 <= found.since <= 40


def test_a_level_that_stays_is_none_however_high(findings, noise):
    assert findings("mismatch-growing", {"sampler/kl_k3": 0.05 * np.exp(0.1 * noise(size=60))}) == []


def test_growth_that_stays_tiny_is_none(findings, noise):
    tiny = np.linspace(0.0005, 0.005, 60) * np.exp(0.05 * noise(size=60))
    assert findings("mismatch-growing", {"sampler/log_abs_mean": tiny}) == []


def test_an_error_of_one_is_no_mismatch_and_its_excess_is_what_grows(findings, noise):
    # 1.01 to 1.06: the excess grows sixfold although the number itself grows by a twentieth.
    error = 1 + np.linspace(0.01, 0.06, 60) * np.exp(0.05 * noise(size=60))
    (found,) = findings("mismatch-growing", {"sampler/error": error})
    assert found.level == "warning"
