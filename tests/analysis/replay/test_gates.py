from __future__ import annotations

import numpy as np
import pytest

from analysis.replay.gates import entropy_gates, ratio_gates
from analysis.replay.tallies import ENTROPY_RATIO, PROBABILITY, RATIO
from testbed.objectives import make_objective, objective_names

RATIOS = np.sqrt(RATIO.edges[1:] * RATIO.edges[:-1])
ENTROPY_RATIOS = np.sqrt(ENTROPY_RATIO.edges[1:] * ENTROPY_RATIO.edges[:-1])


def test_the_clip_by_hand():
    # At small probabilities: A > 0 is stopped above 1.28, A < 0 below 0.8, and nothing else.
    (gate,) = ratio_gates([make_objective("dapo")])
    np.testing.assert_allclose(gate.positive[0], RATIOS <= 1.28)
    np.testing.assert_allclose(gate.negative[0], RATIOS >= 0.8)
    # A new probability above 1 is nowhere.
    assert np.isnan(gate.positive[-1, -1])
    assert gate.acts


def test_objectives_with_one_gate_share_it():
    names = ["grpo", "ppo", "dapo", "cispo(clip_high=9.0)"]
    gates = ratio_gates([make_objective(name) for name in names])
    assert [gate.labels for gate in gates][:2] == [("grpo", "ppo"), ("dapo",)]
    assert [gate.acts for gate in gates] == [True, True, False]


def test_the_entropy_band_by_hand():
    (gate,) = entropy_gates([make_objective("erc(beta_low=0.2,beta_high=0.1)"), make_objective("dapo")])
    assert gate.labels == (make_objective("erc(beta_low=0.2,beta_high=0.1)").label(),)
    # Entropies of some nats: the 1e-8 that keeps a state without entropy finite does not show.
    np.testing.assert_allclose(gate.positive[-1], (ENTROPY_RATIOS > 0.8) & (ENTROPY_RATIOS < 1.1))


@pytest.mark.parametrize("name", objective_names())
def test_every_objective_has_a_picture_or_none(name):
    for gate in ratio_gates([make_objective(name)]):
        assert gate.positive.shape == (PROBABILITY.bins, RATIO.bins)
