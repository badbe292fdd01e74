from __future__ import annotations

import numpy as np


def test_a_jump_is_found_at_its_step(findings, noise):
    divergence = 0.002 * np.exp(0.3 * noise(size=60))
    divergence[40] = 2.5
    (found,) = findings("divergence-spike", {"kl/old": divergence})
    assert (found.level, found.since) == ("problem", 41)


def test_the_sign_of_an_estimate_does_not_matter(findings, noise):
    divergence = -0.002 * np.exp(0.3 * noise(size=60))
    divergence[40] = -0.3
    (found,) = findings("divergence-spike", {"kl/old": divergence})
    assert (found.level, found.since) == ("warning", 41)


def test_a_tiny_jump_is_none(findings, noise):
    divergence = 1e-5 * np.exp(0.3 * noise(size=60))
    divergence[40] = 1e-3
    assert findings("divergence-spike", {"kl/old": divergence}) == []


def test_a_slow_rise_is_none(findings):
    assert findings("divergence-spike", {"kl/ref": np.linspace(0, 1, 200)}) == []
