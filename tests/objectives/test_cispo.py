from __future__ import annotations

import math

import pytest

from testbed.errors import ConfigError
from testbed.objectives import make_objective

HALF = math.log(0.5)


def test_value_by_hand(tokens, check):
    # Weights min(r, 1.2): ½, 1, 1.2. log p = log(r/4): log ⅛ = 3 log ½, log ¼ = 2 log ½, log ½. ℓ = -w A log p.
    batch = tokens([[0.5, 1.0, 2.0], [0.5, 1.0, 2.0]], [1.0, -2.0])
    check(
        "cispo",
        batch,
        token_loss=[[-1.5 * HALF, -2 * HALF, -1.2 * HALF], [3 * HALF, 4 * HALF, 2.4 * HALF]],
        gradient=[[-0.5, -1.0, -1.2], [1.0, 2.0, 2.4]],
        loss=(-4.7 + 9.4) * HALF / 6,
    )


def test_value_with_a_lower_bound(tokens, check):
    # Weights in [0.8, 1.2], whatever the sign of A.
    check(
        "cispo(clip_low=0.2)",
        tokens([[0.5, 2.0], [0.5, 2.0]], [1.0, -1.0]),
        token_loss=[[-0.8 * 3 * HALF, -1.2 * HALF], [0.8 * 3 * HALF, 1.2 * HALF]],
        gradient=[[-0.8, -1.2], [0.8, 1.2]],
    )


def test_value_of_an_absolute_ceiling(tokens, check):
    # TRL's epsilon_high = 0.2 caps the weight at 0.2: even at ratio 1 the step shrinks to a fifth.
    check("cispo(clip_high=-0.8)", tokens([[0.1, 1.0, 2.0]], [1.0]), gradient=[[-0.1, -0.2, -0.2]])


def mutate(monkeypatch):
    """The weight is not held constant, so that clipped tokens lose their gradient."""
    monkeypatch.setattr(
        "testbed.objectives.cispo.CISPO.token_loss", lambda self, batch: -batch.ratio.clamp(max=1.2) * batch.advantages
    )


def test_nothing_is_clipped(tokens):
    metrics = make_objective("cispo")(tokens([[0.5, 1.0, 2.0]], [1.0])).metrics
    assert metrics["clip/fraction"].item() == 0
    assert metrics["band/outside_fraction"].item() == pytest.approx(1 / 3, rel=1e-12)


def test_rejects_a_ceiling_of_zero():
    with pytest.raises(ConfigError, match=r"cispo: clip_high is -1\.0; expected a value in \(-1, inf\)"):
        make_objective("cispo", clip_high=-1.0)
