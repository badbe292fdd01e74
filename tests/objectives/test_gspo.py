from __future__ import annotations

import math

import pytest

from testbed.errors import ConfigError
from testbed.objectives import make_objective
from testbed.objectives.gspo import GSPO


def test_value_by_hand(tokens, check):
    # s = (2·½)^½ = 1, (4·1)^½ = 2 and (⅛·1·1)^⅓ = ½. Interval [0.6, 1.5].
    # A > 0: s = 1 inside, -1 per token; s = 2 held at 1.5, no gradient; s = ½ goes the wrong way, -½ per token.
    # Each token's gradient of Σ_t ℓ_it is n·(1/n)·s·A = s·A.
    batch = tokens([[2.0, 0.5, None], [4.0, 1.0, None], [0.125, 1.0, 1.0]], [1.0, 1.0, 1.0])
    check(
        "gspo(clip_low=0.4,clip_high=0.5)",
        batch,
        token_loss=[[-1.0, -1.0, 0.0], [-1.5, -1.5, 0.0], [-0.5, -0.5, -0.5]],
        gradient=[[-1.0, -1.0, 0.0], [0.0, 0.0, 0.0], [-0.5, -0.5, -0.5]],
        loss=-3.0 / 3,
    )


def test_value_for_negative_advantages(tokens, check):
    # A = -2: s = 1 inside; s = 2 goes the wrong way, +4; s = ½ is held at 0.6, +1.2 without gradient.
    batch = tokens([[2.0, 0.5, None], [4.0, 1.0, None], [0.125, 1.0, 1.0]], [-2.0, -2.0, -2.0])
    check(
        "gspo(clip_low=0.4,clip_high=0.5)",
        batch,
        token_loss=[[2.0, 2.0, 0.0], [4.0, 4.0, 0.0], [1.2, 1.2, 1.2]],
        gradient=[[2.0, 2.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 0.0]],
        loss=7.2 / 3,
    )


@pytest.mark.parametrize("name", ["gspo", "gspo_token", "luspo"])
def test_a_far_token_is_not_clamped_before_the_mean(name, far):
    # z = (-30, 10): s = exp(-20/2) = e^-10, and every token's gradient of Σ_t ℓ_it is -s. Held at -20 before the mean,
    # the first would have given e^-5 and no gradient.
    (loss, gradient) = far(f"{name}(clip_low=1,clip_high=1,reduction=seq_mean_token_sum)", [-30.0, 10.0])
    assert loss == pytest.approx(-2 * math.exp(-10), rel=1e-12)
    assert gradient == pytest.approx([-math.exp(-10)] * 2, rel=1e-12)


def test_one_far_token_in_a_thousand(far):
    # exp(-60/1000)
    (loss, gradient) = far("gspo(clip_low=1,clip_high=1)", [-60.0] + [0.0] * 999)
    assert loss == pytest.approx(-math.exp(-0.06), rel=1e-12)
    assert gradient == pytest.approx([-math.exp(-0.06) / 1000] * 1000, rel=1e-12)


@pytest.mark.parametrize("name", ["gspo", "gspo_token", "luspo"])
def test_a_response_beyond_the_clamp_has_no_gradient(name, far):
    # The mean of z is -45 and is held at -20.
    (loss, gradient) = far(f"{name}(clip_low=1,clip_high=1,reduction=seq_mean_token_mean)", [-80.0, -10.0])
    assert loss == pytest.approx(-math.exp(-20), rel=1e-12)
    assert gradient == [0.0, 0.0]


def mutate(monkeypatch):
    """The ratio of the response is the product of its tokens' instead of their geometric mean."""
    monkeypatch.setattr(
        GSPO, "sequence_ratio", lambda self, batch: batch.unclamped_log_ratio.sum(-1, keepdim=True).exp()
    )


def test_clip_share_counts_whole_responses(tokens):
    batch = tokens([[2.0, 0.5, None], [4.0, 1.0, None], [0.125, 1.0, 1.0]], [1.0, 1.0, -1.0])
    metrics = make_objective("gspo", clip_low=0.4, clip_high=0.5)(batch).metrics
    assert metrics["clip/high_fraction"].item() == pytest.approx(2 / 7, rel=1e-12)
    assert metrics["clip/low_fraction"].item() == pytest.approx(3 / 7, rel=1e-12)


def test_rejects_a_negative_offset():
    with pytest.raises(ConfigError, match=r"gspo: clip_low is -1; expected a value in \[0, inf\)"):
        make_objective("gspo", clip_low=-1)
