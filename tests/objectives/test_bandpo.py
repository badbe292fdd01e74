from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from testbed.divergences import binary_kl
from testbed.errors import ConfigError
from testbed.objectives import make_objective


def test_value_by_hand(tokens, check):
    # q = ¼, δ = 0.05: the bounds are 1 ∓ 0.2. A = 1 is held at 1.2 above, A = -1 at 0.8 below.
    check(
        "bandpo",
        tokens([[1.5, 0.5, 1.1], [1.5, 0.5, None]], [1.0, -1.0]),
        token_loss=[[-1.2, -0.5, -1.1], [1.5, 0.8, 0.0]],
        gradient=[[0.0, -0.5, -1.1], [1.5, 0.0, 0.0]],
        loss=(-2.8 / 3 + 2.3 / 2) / 2,
    )


def push(tokens, objective):
    # As DPPO's total variation: stopped once |p - q| > δ along A. The cap of 100 is out of reach here.
    moved = np.exp(tokens.log_probs) - np.exp(tokens.old_log_probs)
    stopped = np.where(tokens.advantages > 0, moved > objective.delta, moved < -objective.delta)
    return np.where(stopped, 0, tokens.ratio * tokens.advantages)


def mutate(monkeypatch):
    """The bounds of a likely token for an unlikely one: 1 - q in place of q."""
    from testbed.objectives.bandpo import BandPO

    honest = BandPO.bounds
    monkeypatch.setattr(BandPO, "bounds", lambda self, probability: honest(self, 1 - probability))


@pytest.mark.parametrize(
    ("divergence", "low", "high"),
    [
        ("tv", 0.5, 1.5),  # 1 ∓ 0.05/0.1
        ("chi2", 1 - math.sqrt(0.45), 1 + math.sqrt(0.45)),  # √(0.05·0.9/0.1)
    ],
)
def test_bounds_in_closed_form(divergence, low, high):
    bounds = make_objective("bandpo", divergence=divergence).bounds(torch.tensor(0.1, dtype=torch.float64))
    assert [bound.item() for bound in bounds] == pytest.approx([low, high], rel=1e-12)


@pytest.mark.parametrize("q", [0.01, 0.1, 0.5, 0.9])
def test_the_divergence_at_the_bounds_is_delta(q):
    # By another formula than the bisection's. Where even r = 100 stays below δ the cap is the bound; below 1e-9 the
    # bisection ends before the root, at a ratio that no token has.
    old = torch.tensor(q, dtype=torch.float64)
    low, high = make_objective("bandpo", divergence="kl").bounds(old)
    for ratio in (low, high):
        if 1e-9 < ratio < 100:
            assert binary_kl(old.log(), (ratio * old).log()).item() == pytest.approx(0.05, rel=1e-9)
    assert low < 1 < high


@pytest.mark.parametrize(
    ("divergence", "q", "low", "high"),
    [
        ("tv", 1.0, 0.95, 1.0),
        ("kl", 1.0, math.exp(-0.05), 1.0),
        ("chi2", 1.0, 1.0, 1.0),
        ("tv", 1e-9, 0.0, 100.0),
        ("chi2", 1e-9, 0.0, 100.0),
        ("kl", 1e-9, 0.0, 100.0),
        ("tv", 0.98, 1 - 0.05 / 0.98, 1 / 0.98),
    ],
)
def test_certain_and_impossible_tokens(divergence, q, low, high):
    bounds = make_objective("bandpo", divergence=divergence).bounds(torch.tensor(q, dtype=torch.float64))
    assert [bound.item() for bound in bounds] == pytest.approx([low, high], rel=1e-12)


@pytest.mark.parametrize(("divergence", "threshold"), [("tv", 0.05), ("kl", 0.05)])
def test_the_gradient_is_that_of_dppo(divergence, threshold, tokens):
    gradients = []
    for name, size in (("bandpo", "delta"), ("dppo", "threshold")):
        batch = tokens([[1.5, 0.5, 1.08, 1.02], [1.5, 0.5, 0.92, 0.99]], [1.0, -1.0], old=[0.01, 0.3, 0.5, 0.9])
        make_objective(name, divergence=divergence, reduction="token_mean", **{size: threshold})(batch).loss.backward()
        gradients.append(batch.log_probs.grad)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-15
    assert (gradients[0] == 0).any()
    assert (gradients[0] != 0).any()


def test_relaxed_bounds_are_never_tighter_than_clip_higher():
    low, high = make_objective("bandpo", relax=True).bounds(torch.tensor([0.01, 0.9], dtype=torch.float64))
    assert low.tolist() == pytest.approx([0.0, 0.8], rel=1e-12)
    assert high.tolist() == pytest.approx([6.0, 1.28], rel=1e-12)


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"divergence": "js"}, r"bandpo: divergence is 'js'; expected 'tv' or 'chi2' or 'kl'"),
        ({"delta": -0.1}, r"bandpo: delta is -0\.1; expected a value in \[0, inf"),
        ({"relax": 1}, r"bandpo: relax is 1; expected True or False"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("bandpo", **hyper_parameters)
