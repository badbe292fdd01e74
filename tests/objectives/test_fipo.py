from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from testbed.errors import ConfigError
from testbed.objectives import make_objective

E = math.e
FIRST = "fipo(half_life=1.0,influence_low=0.1,influence_high=10.0)"


def test_value_by_hand(tokens, check):
    # γ = ½. z = 0, 0.2, 0.4: K = 0 + 0.1 + 0.1, 0.2 + 0.2, 0.4. r = 1, e^0.2 = 1.221, e^0.4 = 1.49 > 1.28: held.
    z = [0.0, 0.2, 0.4]
    f = [math.exp(0.2), math.exp(0.4), math.exp(0.4)]
    check(
        FIRST,
        tokens([[math.exp(value) for value in z]], [1.0]),
        token_loss=[[-f[0], -f[1] * math.exp(0.2), -f[2] * 1.28]],
        gradient=[[-f[0], -f[1] * math.exp(0.2), 0.0]],
    )


def test_value_of_the_bounds_on_the_influence(tokens, check):
    # By default 1 ≤ f ≤ 1.2: falling probabilities do not damp, rising ones by 1.2 at most.
    check("fipo", tokens([[0.9, 0.9], [1.15, 1.15]], [1.0, 1.0]), gradient=[[-0.9, -0.9], [-1.38, -(1.15**2)]])


def test_value_beyond_the_limits(tokens, check):
    # c = 2: r = 3 counts in no K and, A being negative, has no gradient. r = 1.9 > safety: not amplified.
    check(
        "fipo(half_life=1.0,influence_high=10.0,dual_clip=2.0,safety=1.5)",
        tokens([[1.4, 3.0, 1.9]], [-1.0]),
        gradient=[[1.4 * 1.4 * 1.9**0.25, 0.0, 1.9]],
    )


def push(tokens, objective):
    ratio, changes = tokens.ratio, np.log(tokens.ratio)
    changes = np.where(ratio > objective.dual_clip, 0, changes)
    future = np.zeros_like(changes)
    for place in reversed(range(changes.shape[1])):
        later = future[:, place + 1] if place + 1 < changes.shape[1] else 0
        future[:, place] = changes[:, place] + 2 ** (-1 / objective.half_life) * later
    weight = np.clip(np.exp(future), objective.influence_low, objective.influence_high)
    up, down = tokens.advantages > 0, tokens.advantages < 0
    weight = np.where(down & (ratio > objective.safety), np.clip(weight, 0.8, 1), weight)
    stopped = (up & (ratio > 1 + objective.clip_high)) | (down & (ratio < 1 - objective.clip_low))
    stopped |= down & (ratio > objective.dual_clip)
    return np.where(stopped, 0, weight * ratio * tokens.advantages)


def mutate(monkeypatch):
    """The past instead of the future."""
    from testbed.objectives.fipo import FIPO

    honest = FIPO.influence
    monkeypatch.setattr(FIPO, "influence", lambda self, batch: honest(self, batch).flip(-1))


def test_many_tokens_against_the_plain_sum(tokens):
    log_ratios = torch.linspace(-0.3, 0.3, 23, dtype=torch.float64)
    batch = tokens([log_ratios.exp().tolist()], [1.0])
    objective = make_objective("fipo", half_life=3.0, influence_low=0.0, influence_high=1e9)
    gamma = 2 ** (-1 / 3)
    plain = [sum(gamma ** (k - t) * log_ratios[k].item() for k in range(t, 23)) for t in range(23)]
    assert objective.influence(batch).log()[0].tolist() == pytest.approx(plain, rel=1e-9, abs=1e-12)


def test_padding_counts_for_nothing(tokens):
    alone, padded = tokens([[1.1, 1.2]], [1.0]), tokens([[1.1, 1.2, None], [1.0, 1.0, 1.0]], [1.0, 1.0])
    objective = make_objective("fipo")
    assert objective.influence(padded)[0, :2].tolist() == objective.influence(alone)[0].tolist()


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"half_life": 0.0}, r"fipo: half_life is 0\.0; expected a value in \(0, inf"),
        ({"half_life": torch.ones(2, 1, 1)}, "fipo: half_life is a tensor; expected one number for all replicas"),
        ({"influence_low": -0.5}, r"fipo: influence_low is -0\.5; expected a value in \[0, inf"),
        ({"dual_clip": 1.0}, r"fipo: dual_clip is 1\.0; expected a value in \(1, inf"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("fipo", **hyper_parameters)
