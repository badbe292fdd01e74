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


@pytest.mark.parametrize("changed", [{"highest": 3.0}, {"lowest": 0.0}, {"mean": 0.999}])
def test_weights_at_their_limit_zeros_and_a_mean_of_one_are_something_else(findings, noise, changed):
    assert findings("kept-mass", weights(noise, **changed)) == []


def test_noise_of_the_engines_lifts_single_weights_above_one(findings, noise):
    # Measured with vLLM at top-p 0.8: the mean is the mass that was kept, single quotients well above 1.
    columns = weights(noise, mean=0.92) | {
        "sampler/weight_max": 1.6 + 0.1 * noise(size=30),
        "sampler/log_abs_mean": np.full(30, 0.09),
    }
    (found,) = findings("kept-mass", columns)
    assert found.level == "warning"
    columns["sampler/log_abs_mean"] = np.full(30, 0.01)
    assert findings("kept-mass", columns) == []


def test_products_over_a_response_are_almost_nothing(findings, noise):
    given = {"actor_rollout_ref.rollout.top_k": 20}
    columns = {"sampler/weight_mean": np.full(30, 1e-5), "sampler/weight_min": np.zeros(30)}
    (found,) = findings("kept-mass", columns, **given)
    assert found.level == "problem"


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
