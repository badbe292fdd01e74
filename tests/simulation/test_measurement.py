"""Exact metrics by hand, on a bandit of two arms whose policy is moved by hand."""

from __future__ import annotations

import math

import pytest
import torch

from envs import make_spec
from models import make_policy
from testbed.simulation.measurement import ExactMeasurement


def moved_to(policy, *probabilities: float) -> None:
    policy.parameters[0].copy_(torch.tensor(probabilities, dtype=torch.float64).log().view(1, 1, -1))


@pytest.fixture
def bandit():
    """Arm rewards 1 and 0.2, of which the first is the success or the second, as the seed has it."""
    spec = make_spec("RareArm-v1(arms=2,contexts=1,rare_probability=0.5)").for_seeds([0])
    return spec, make_policy("tabular", spec.initial_logits)


def test_value_success_and_entropy(bandit) -> None:
    spec, policy = bandit
    measure = ExactMeasurement(spec, policy)
    rare = int(spec.success[0, 0].argmax())
    moved_to(policy, *([0.75, 0.25] if rare == 0 else [0.25, 0.75]))
    found = {name: value.item() for name, value in measure.after(policy, every_step=True).items()}
    assert found["exact/return"] == pytest.approx(0.75 + 0.25 * 0.2, rel=1e-12)
    # The optimum pulls the rare arm: 1.
    assert found["exact/regret"] == pytest.approx(1 - 0.8, rel=1e-12)
    assert found["exact/success"] == pytest.approx(0.75, rel=1e-12)
    assert found["exact/entropy"] == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25), rel=1e-12)


def test_directions_of_the_divergences(bandit) -> None:
    spec, policy = bandit
    measure = ExactMeasurement(spec, policy)
    start = measure.after(policy, every_step=True)
    assert start["exact/kl_step"].isnan().all()
    assert start["exact/kl_cumulative"].item() == 0
    measure.before(policy)
    moved_to(policy, 0.75, 0.25)
    first = {name: value.item() for name, value in measure.after(policy, every_step=True).items()}
    # KL(before ‖ after) = ½ log(½/¾) + ½ log(½/¼), KL(after ‖ initial) = ¾ log(¾/½) + ¼ log(¼/½).
    step = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    assert first["exact/kl_step"] == pytest.approx(step, rel=1e-12)
    assert first["exact/kl_initial"] == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-12)
    assert first["exact/tv_step"] == pytest.approx(0.25, rel=1e-12)
    assert first["exact/kl_cumulative"] == pytest.approx(step, rel=1e-12)

    measure.before(policy)
    moved_to(policy, 0.875, 0.125)
    second = {name: value.item() for name, value in measure.after(policy, every_step=True).items()}
    again = 0.75 * math.log(0.75 / 0.875) + 0.25 * math.log(0.25 / 0.125)
    assert second["exact/kl_step"] == pytest.approx(again, rel=1e-12)
    assert second["exact/kl_cumulative"] == pytest.approx(step + again, rel=1e-12)
    assert second["exact/tv_step"] == pytest.approx(0.125, rel=1e-12)
    assert second["exact/kl_initial"] == pytest.approx(
        0.875 * math.log(0.875 / 0.5) + 0.125 * math.log(0.125 / 0.5), rel=1e-12
    )


def test_entropy_of_a_token_is_that_of_a_response_per_token() -> None:
    spec = make_spec("ModularSum-v1(length=3,vocabulary=4,modulus=2,prompts=2,initial=uniform)").for_seeds([0])
    found = ExactMeasurement(spec, policy := make_policy("tabular", spec.initial_logits)).after(policy, every_step=True)
    assert found["exact/entropy"].item() == pytest.approx(3 * math.log(4), rel=1e-12)
    assert found["exact/token_entropy"].item() == pytest.approx(math.log(4), rel=1e-12)
