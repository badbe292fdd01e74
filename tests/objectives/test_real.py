from __future__ import annotations

import math

import pytest
import torch

from testbed.errors import BatchError, ConfigError
from testbed.objectives import make_objective

E = math.e


def test_value_by_hand(tokens, check):
    # τ = 1. σ = 1 (right, two tokens of z = 1), -1 (wrong) and 0 (wrong).
    # ℓ = log(1 + e^-1 + 1) + log(1 + e^-1), the mean over one group.
    wrong, right = 2 + math.exp(-1), 1 + math.exp(-1)
    check(
        "real(tau=1.0)",
        tokens([[E, E], [1 / E, None], [1.0, None]], [2.0, -1.0, -1.0]),
        loss=math.log(wrong) + math.log(right),
    )


def test_value_of_the_gradient(tokens):
    batch = tokens([[E, E], [1 / E, None], [1.0, None]], [2.0, -1.0, -1.0])
    (gradient,) = torch.autograd.grad(make_objective("real", tau=1.0)(batch).loss, batch.log_probs)
    # Right: -(1/n)·e^-1/(1 + e^-1) at each of two tokens. Wrong: e^σ/(1 + Σ).
    right, wrong = math.exp(-1) / (1 + math.exp(-1)), 2 + math.exp(-1)
    expected = [-right / 2, -right / 2, math.exp(-1) / wrong, 0.0, 1 / wrong, 0.0]
    assert gradient.masked_fill(~batch.mask, 0).flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_value_of_ten_responses(tokens):
    # All at ratio 1, three right: log(1 + 7) + log(1 + 3). A tenth is no number of any precision.
    batch = tokens([[1.0]] * 10, [1.0] * 3 + [-1.0] * 7)
    assert make_objective("real")(batch).loss.item() == pytest.approx(math.log(32), rel=1e-14)


def test_value_over_groups(tokens):
    # Group 7: a right and a wrong response at ratio 1, 2 log 2. Group 3: right ones alone give 0 and count.
    batch = tokens([[1.0], [1.0], [1.0], [E]], [1.0, 1.0, -1.0, 1.0], groups=[7, 3, 7, 3])
    assert make_objective("real")(batch).loss.item() == pytest.approx(math.log(2), rel=1e-12)


def mutate(monkeypatch):
    """All responses in one group."""
    from testbed.objectives.real import REAL

    honest = REAL.token_loss

    def pooled(self, batch):
        sizes = torch.arange(1, batch.mask.shape[-2] + 1, dtype=batch.log_probs.dtype)[:, None]
        return honest(self, batch) * sizes

    monkeypatch.setattr(REAL, "token_loss", pooled)


def test_a_lone_right_response_weighs_four_times_a_wrong_one(tokens):
    # At ratio 1: 1/(τ(1 + n_side)) = 1 for one right, ¼ for each of seven wrong ones, at τ = ½.
    batch = tokens([[1.0]] * 8, [7.0] + [-1.0] * 7)
    make_objective("real")(batch).loss.backward()
    assert batch.log_probs.grad.flatten().tolist() == pytest.approx([-1.0] + [0.25] * 7, rel=1e-12)


def test_the_size_of_the_advantage_plays_no_part(tokens):
    losses = [make_objective("real")(tokens([[1.5], [0.7]], [size, -size])).loss.item() for size in (0.1, 3.0)]
    assert losses[0] == losses[1]


def test_groups_of_different_sizes_count_alike(tokens):
    # Each at ratio 1: log(1 + 1) + log(1 + 2) and 2 log 2.
    batch = tokens([[1.0]] * 5, [1.0, 1.0, -1.0, 1.0, -1.0], groups=[0, 0, 0, 1, 1])
    expected = (math.log(2) + math.log(3) + 2 * math.log(2)) / 2
    assert make_objective("real")(batch).loss.item() == pytest.approx(expected, rel=1e-12)


def test_rejects_groups_of_another_kind(tokens):
    with pytest.raises(BatchError, match=r"groups is a torch\.int64 tensor of shape \(1,\); expected integers"):
        tokens([[1.0], [1.0]], [1.0, -1.0], groups=[0])


def test_rejects():
    with pytest.raises(ConfigError, match=r"real: tau is 0\.0; expected a value in \(0, inf"):
        make_objective("real", tau=0.0)


def test_a_tiny_temperature_overflows_nothing(tokens):
    # σ/τ = log(1.5)/1e-6: e^405,465. The wrong response's term is its exponent, the right one's is 0.
    batch = tokens([[1.5], [1.5]], [1.0, -1.0])
    loss = make_objective("real", tau=1e-6)(batch).loss
    assert loss.item() == pytest.approx(math.log(1.5) / 1e-6, rel=1e-9)
