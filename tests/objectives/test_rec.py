from __future__ import annotations

import math

import numpy as np
import pytest

from testbed.errors import ConfigError
from testbed.objectives import make_objective

Q = 0.25
RATIOS = [[0.5, 0.9, 1.5, 2.0], [0.5, 0.9, 1.1, 1.5]]


def test_value_by_hand(tokens, check):
    # A = 1 drops 1.5 and 2.0, A = -1 drops 0.5. ℓ = -A log p with p = r/4.
    logs = [[math.log(ratio * Q) for ratio in row] for row in RATIOS]
    check(
        "rec",
        tokens(RATIOS, [1.0, -1.0]),
        token_loss=[[-logs[0][0], -logs[0][1], 0.0, 0.0], [0.0, *logs[1][1:]]],
        gradient=[[-1.0, -1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]],
        loss=(sum(logs[1][1:]) - sum(logs[0][:2])) / 8,
    )


@pytest.mark.parametrize(
    ("clip", "gradient"),
    [
        ("two_side", [[0.0, -1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]]),
        # A = 1: 0.5 ≤ 1 - 0.4 comes back. A = -1: 1.5 ≥ 1 + 0.4 does.
        ("ring", [[-1.0, -1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]]),
        ("none", [[-1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0]]),
        # Geometric means (0.5·0.9·1.5·2)^¼ = 1.35^¼ = 1.078 and (0.5·0.9·1.1·1.5)^¼ = 0.928: both inside.
        ("gspo_one_side", [[-1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0]]),
    ],
)
def test_what_is_kept(clip, gradient, tokens, check):
    check(f'rec(clip="{clip}")', tokens(RATIOS, [1.0, -1.0]), gradient=gradient)


def test_value_of_the_ratio_weight(tokens, check):
    check('rec(weight="ratio")', tokens(RATIOS, [1.0, -1.0]), gradient=[[-0.5, -0.9, 0.0, 0.0], [0.0, 0.9, 1.1, 1.5]])


def test_value_of_the_sequence_weight(tokens, check):
    s = 1.35**0.25
    check('rec(clip="none",weight="sequence")', tokens(RATIOS[:1], [1.0]), gradient=[[-s, -s, -s, -s]])


def test_value_of_the_advantage_weight(tokens, check):
    # -A e^A with A = 2.
    check('rec(clip="none",weight="advantage")', tokens([[1.0]], [2.0]), gradient=[[-2 * math.exp(2)]])


def test_value_of_the_penalty(tokens, check):
    # The dropped token pays too: 2c·log 2 with c = 3.
    check("rec(penalty=3.0)", tokens([[2.0]], [1.0]), gradient=[[6 * math.log(2)]], loss=3 * math.log(2) ** 2)


def push(tokens, objective):
    up, down = tokens.advantages > 0, tokens.advantages < 0
    dropped = (up & (tokens.ratio > 1 + objective.clip_high)) | (down & (tokens.ratio < 1 - objective.clip_low))
    return np.where(dropped, 0, tokens.advantages)


def mutate(monkeypatch):
    """The sides of the one-sided clip are swapped."""
    import dataclasses

    from testbed.objectives.rec import REC

    honest = REC.kept
    monkeypatch.setattr(
        REC, "kept", lambda self, batch: honest(self, dataclasses.replace(batch, advantages=-batch.advantages))
    )


def test_one_side_with_the_ratio_has_the_gradient_of_ppo(tokens):
    gradients = []
    for name in ('rec(weight="ratio")', "ppo"):
        batch = tokens(RATIOS, [1.0, -1.0])
        make_objective(name)(batch).loss.backward()
        gradients.append(batch.log_probs.grad)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-15
    assert gradients[0].any()


def test_masked_share(tokens):
    metrics = make_objective("rec")(tokens([[0.5, 2.0], [0.5, None]], [1.0, -1.0])).metrics
    assert metrics["mask/fraction"].item() == pytest.approx(2 / 3, rel=1e-12)


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"clip": "both"}, r"rec: clip is 'both'; expected 'one_side' or 'two_side' or 'ring'"),
        ({"weight": "is"}, r"rec: weight is 'is'; expected 'none' or 'ratio' or 'sequence' or 'advantage'"),
        ({"ring_low": -1.0}, r"rec: ring_low is -1\.0; expected a value in \[0, inf"),
        ({"penalty": -1.0}, r"rec: penalty is -1\.0; expected a value in \[0, inf"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("rec", **hyper_parameters)
