from __future__ import annotations

import math

import numpy as np
import pytest

from testbed.errors import ConfigError
from testbed.objectives import make_objective

UP, DOWN, NEAR = math.log(1.5) ** 2, math.log(0.5) ** 2, math.log(1.1) ** 2


def test_value_by_hand(tokens, check):
    # q = ½, δ = 0.2: ratios 1.5, ½, 1.1 move p by 0.25, -0.25, 0.05. A = 1 stops the first, A = -1 the second.
    # ℓ = -M r A + z² at κ = 1; gradient -M r A + 2z.
    check(
        "prime(penalty=1.0)",
        tokens([[1.5, 0.5, 1.1], [1.5, 0.5, 1.1]], [1.0, -1.0], old=0.5),
        token_loss=[[UP, DOWN - 0.5, NEAR - 1.1], [UP + 1.5, DOWN, NEAR + 1.1]],
        gradient=[
            [2 * math.log(1.5), 2 * math.log(0.5) - 0.5, 2 * math.log(1.1) - 1.1],
            [2 * math.log(1.5) + 1.5, 2 * math.log(0.5), 2 * math.log(1.1) + 1.1],
        ],
    )


def test_value_of_the_mask_on_both_sides(tokens, check):
    # δ = 0.1: the first two are stopped whatever the sign of A.
    check(
        'prime(preset="ipo",penalty=0.0)',
        tokens([[1.5, 0.5, 1.1], [1.5, 0.5, 1.1]], [1.0, -1.0], old=0.5),
        gradient=[[0.0, 0.0, -1.1], [0.0, 0.0, 1.1]],
    )


def push(tokens, objective):
    moved = np.exp(tokens.log_probs) - np.exp(tokens.old_log_probs)
    stopped = np.where(tokens.advantages > 0, moved > objective.threshold, moved < -objective.threshold)
    return np.where(stopped, 0, tokens.ratio * tokens.advantages) - 2 * objective.penalty * np.log(tokens.ratio)


def mutate(monkeypatch):
    """A masked token does not pay either."""
    from testbed.objectives.prime import Prime

    honest = Prime.token_loss
    monkeypatch.setattr(Prime, "token_loss", lambda self, batch: honest(self, batch).masked_fill(self.masked(batch), 0))


def test_without_the_penalty_the_gradient_is_that_of_dppo(tokens):
    gradients = []
    for objective in (make_objective("prime", penalty=0.0, threshold=0.15), make_objective("dppo")):
        batch = tokens([[1.5, 0.5, 1.1], [1.5, 0.5, 1.1]], [1.0, -1.0], old=0.5)
        objective(batch).loss.backward()
        gradients.append(batch.log_probs.grad)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-15
    assert gradients[0].any()


def test_masked_share(tokens):
    metrics = make_objective("prime")(tokens([[1.5, 0.5, None], [1.5, 0.5, 1.1]], [1.0, -1.0], old=0.5)).metrics
    assert metrics["mask/fraction"].item() == pytest.approx(2 / 5, rel=1e-12)


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"mask": "both"}, r"prime: mask is 'both'; expected 'default' or 'ipo'"),
        ({"threshold": -0.1}, r"prime: threshold is -0\.1; expected a value in \[0, inf"),
        ({"penalty": -1.0}, r"prime: penalty is -1\.0; expected a value in \[0, inf"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("prime", **hyper_parameters)
