from __future__ import annotations

import numpy as np
import pytest


def weights(noise, mean=0.93, highest=1.0, lowest=0.7, rows=30):
    return {
        "sampler/weight_mean": mean + 0.002 * noise(size=rows),
        "sampler/weight_max": np.full(rows, highest),
        "sampler/weight_min": np.full(rows, lowest),
    }


def test_no_weight_above_one_is_kept_mass(findings, noise):
    (found,) = findings("kept-mass", weights(noise))
    assert found.level == "warning"
    assert found.needs
    assert "mismatch" in found.explains


def test_the_configuration_makes_it_sure(findings, noise):
    (found,) = findings("kept-mass", weights(noise, mean=0.8), **{"actor_rollout_ref.rollout.top_p": 0.9})
    assert (found.level, found.needs) == ("problem", [])


def test_a_sampler_that_cuts_nothing_has_none(findings, noise):
    given = {"actor_rollout_ref.rollout.top_p": 1.0, "actor_rollout_ref.rollout.top_k": -1}
    assert findings("kept-mass", weights(noise), **given) == []


@pytest.mark.parametrize("changed", [{"highest": 2.0}, {"lowest": 0.0}, {"mean": 0.999}])
def test_weights_above_one_zeros_and_a_mean_of_one_are_something_else(findings, noise, changed):
    assert findings("kept-mass", weights(noise, **changed)) == []


def test_a_mean_alone_has_to_be_steady(findings, noise):
    (found,) = findings("kept-mass", {"sampler/ratio_mean": 0.93 + 0.003 * noise(size=30)})
    assert found.level == "note"
    assert findings("kept-mass", {"sampler/ratio_mean": 0.93 + 0.1 * noise(size=30)}) == []


def test_the_mean_of_the_quotient_is_the_mass_that_was_kept():
    # Exactly: sum over the kept tokens of q·p/q with q = p/S is S.
    p = np.array([0.5, 0.3, 0.15, 0.05])
    kept = p[:3]
    q = kept / kept.sum()
    assert (q * kept / q).sum() == pytest.approx(0.95, rel=1e-12)
