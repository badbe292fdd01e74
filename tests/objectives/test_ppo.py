from __future__ import annotations

import pytest
import torch

from testbed.errors import ConfigError
from testbed.objectives import make_objective


def test_value_by_hand(tokens, check):
    # Interval [0.8, 1.2]. A = 2: min(2r, 2 clip r) = 1 at r = 0.5 (unclipped is smaller), 2.2, and 2.4 at r = 1.5
    # (held at the bound, gradient 0). A = -2: -1.6 at r = 0.5 (held), -2.2, and -3 at r = 1.5 (not held).
    batch = tokens([[0.5, 1.1, 1.5], [0.5, 1.1, 1.5]], [2.0, -2.0])
    check(
        "ppo",
        batch,
        token_loss=[[-1.0, -2.2, -2.4], [1.6, 2.2, 3.0]],
        gradient=[[-1.0, -2.2, 0.0], [0.0, 2.2, 3.0]],
        loss=(-5.6 + 6.8) / 6,
    )


def test_value_of_separate_bounds_and_dual_clip(tokens, check):
    # [0.7, 1.4]: r = 0.75 and 1.3 are now inside; c = 1.35 caps the loss of A = -1 at 1.35 where r = 1.5.
    check(
        "ppo(clip_low=0.3,clip_high=0.4,dual_clip=1.35)",
        tokens([[0.6, 0.75, 1.3, 1.5], [0.6, 0.75, 1.3, 1.5]], [1.0, -1.0]),
        token_loss=[[-0.6, -0.75, -1.3, -1.4], [0.7, 0.75, 1.3, 1.35]],
        gradient=[[-0.6, -0.75, -1.3, 0.0], [0.0, 0.75, 1.3, 0.0]],
    )


def mutate(monkeypatch):
    """The larger of the two surrogates instead of the smaller."""

    def optimistic(ratio, advantages, low, high, ceiling=None):
        return -torch.maximum(ratio * advantages, ratio.clamp(low, high) * advantages)

    monkeypatch.setattr("testbed.objectives._base.clipped_surrogate", optimistic)


def test_ratio_on_a_bound_has_the_gradient_of_the_inside(tokens):
    # Bounds of ½ and 2 and ratios of the same binary fractions, so that equality is exact.
    batch = tokens([[2.0, 0.5], [2.0, 0.5]], [1.0, -1.0], old=1.0)
    objective = make_objective("ppo", clip_low=0.5, clip_high=1.0)
    (gradient,) = torch.autograd.grad(objective.token_loss(batch).sum(), batch.log_probs)
    assert torch.equal(batch.ratio.detach(), torch.tensor([[2.0, 0.5], [2.0, 0.5]], dtype=torch.float64))
    assert gradient.tolist() == [[-2.0, -0.5], [2.0, 0.5]]


def test_no_clip_is_the_importance_weighted_policy_gradient(tokens, check):
    batch = tokens([[0.01, 1.0, 100.0]], [1.5])
    check(
        "ppo(clip_low=1.0,clip_high=1e9)",
        batch,
        token_loss=[[-0.015, -1.5, -150.0]],
        gradient=[[-0.015, -1.5, -150.0]],
    )


def test_metrics_count_each_kind_of_clipping(tokens):
    # Interval [0.8, 1.2], c = 3; A > 0: 0.5 stays, 1.5 is high. A < 0: 0.5 is low, 1.5 stays, 4 is the ceiling.
    metrics = make_objective("ppo", dual_clip=3.0)(
        tokens([[0.5, 1.0, 1.5, None], [0.5, 1.0, 1.5, 4.0]], [1.0, -1.0])
    ).metrics
    assert metrics["clip/high_fraction"].item() == pytest.approx(1 / 7, rel=1e-12)
    assert metrics["clip/low_fraction"].item() == pytest.approx(1 / 7, rel=1e-12)
    assert metrics["clip/ceiling_fraction"].item() == pytest.approx(1 / 7, rel=1e-12)
    assert metrics["clip/fraction"].item() == pytest.approx(3 / 7, rel=1e-12)
    # Outside the interval whatever the sign: 0.5 and 1.5 twice, and 4.
    assert metrics["band/outside_fraction"].item() == pytest.approx(5 / 7, rel=1e-12)
    # |rA| of the clipped: 1.5 + 0.5 + 4; of all: 0.5 + 1 + 1.5, twice, and 4.
    assert metrics["clip/gradient_mass_fraction"].item() == pytest.approx(6 / 10, rel=1e-12)


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"clip_low": -0.1}, r"ppo: clip_low is -0\.1; expected a value in \[0, inf\)"),
        ({"clip_high": -0.1}, r"ppo: clip_high is -0\.1; expected a value in \[0, inf\)"),
        ({"dual_clip": 1.0}, r"ppo: dual_clip is 1\.0; expected a value in \(1, inf\)"),
        ({"clip_low": "wide"}, r"ppo: clip_low is 'wide'; expected a number or a tensor"),
        ({"clip_low": True}, r"ppo: clip_low is True; expected a number or a tensor"),
        ({"clip_high": torch.tensor([0.1, -0.2])}, r"ppo: clip_high is \[0\.1\d*, -0\.2\d*\]; expected a value in \[0"),
        ({"clip_high": float("nan")}, r"ppo: clip_high is nan; expected a value in \[0, inf\)"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("ppo", **hyper_parameters)
