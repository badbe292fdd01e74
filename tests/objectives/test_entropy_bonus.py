from __future__ import annotations

import pytest
import torch

from testbed.errors import BatchError, ConfigError, UnknownNameError
from testbed.objectives import make_objective, objective_names
from testbed.reductions import reduction_names


def test_value_by_hand(tokens, check):
    # PPO's -1.1 and -1.2 (held), minus 0.5 times entropies 1 and 3; mean over two tokens.
    batch = tokens([[1.1, 1.5, None]], [1.0], entropies=[[1.0, 3.0, float("nan")]])
    check(
        "entropy_bonus(coefficient=0.5)",
        batch,
        token_loss=[[-1.6, -2.7, 0.0]],
        gradient=[[-1.1, 0.0, 0.0]],
        loss=-4.3 / 2,
    )


def mutate(monkeypatch):
    """The bonus becomes a penalty."""
    from testbed.objectives.entropy_bonus import EntropyBonus

    monkeypatch.setattr(
        EntropyBonus,
        "token_loss",
        lambda self, batch: self.wrapped.token_loss(batch) + self.coefficient * batch.entropies,
    )


def test_gradient_of_the_entropy_flows(tokens):
    entropies = torch.tensor([[1.0, 3.0], [2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    batch = tokens([[1.1, 1.5], [1.0, None]], [1.0, 1.0], entropies=entropies)
    (gradient,) = torch.autograd.grad(make_objective("entropy_bonus", coefficient=0.6)(batch).loss, entropies)
    # -0.6/3 at each of three response tokens, nothing at padding.
    expected = torch.tensor([[-0.2, -0.2], [-0.2, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


BASES = [
    name
    for name in objective_names()
    if {"ref_log_probs", "sampler_log_probs", "old_kappas"}.isdisjoint(make_objective(name).needs)
]


@pytest.mark.parametrize(
    "base", [make_objective(name) for name in BASES if name != "entropy_bonus"], ids=lambda base: base.name
)
def test_a_mean_of_its_own_gives_the_coefficient_one_meaning(base, tokens):
    # Entropies 1, 3, 2 at three response tokens: the mean is 2, whatever the mean of the base. One column is padding in
    # every response, and the optimiser step has two micro-batches.
    entropies = [[1.0, 3.0, 9.0], [2.0, 9.0, 9.0]]
    batch = tokens(
        [[1.1, 1.5, None], [1.0, None, None]],
        [1.0, -1.0],
        entropies=entropies,
        old_entropies=entropies,
        token_count=6,
        sequence_count=4,
    )
    plain = base(batch)
    output = make_objective("entropy_bonus", base=base, coefficient=0.5, entropy_reduction="token_mean")(batch)
    assert (output.loss - plain.loss).item() == pytest.approx(-0.5 * 6 / 6, rel=1e-12)
    # Otherwise it is what the base's mean makes of it: (1/B)Σ(1/n_i)ΣH = (4/2 + 2)/4 with `grpo`.
    assert make_objective("entropy_bonus", base=base, coefficient=0.5)(batch).loss.item() == pytest.approx(
        (plain.loss - 0.5 * (base.reduction_weights(batch) * batch.entropies).sum()).item(), rel=1e-12
    )


def test_the_coefficient_follows_the_mean_of_the_base(tokens):
    batch = tokens([[1.0, 1.0], [1.0, None]], [0.0, 0.0], entropies=[[1.0, 3.0], [2.0, 9.0]])
    found = {
        name: -make_objective("entropy_bonus", base=f"ppo(reduction={name})", coefficient=1.0)(batch).loss.item()
        for name in reduction_names()
    }
    # B = 2 responses of 2 and 1 tokens, padded to 2.
    assert found == pytest.approx(
        {
            "token_mean": 6 / 3,
            "seq_mean_token_mean": (2 + 2) / 2,
            "seq_mean_token_sum": 6 / 2,
            "seq_mean_token_sum_norm": 6 / (2 * 2),
            "seq_sum_token_mean": 2 + 2,
        },
        rel=1e-12,
    )


def test_rejects_an_unknown_mean():
    with pytest.raises(UnknownNameError, match="unknown reduction 'tokenmean'; did you mean 'token_mean'"):
        make_objective("entropy_bonus", entropy_reduction="tokenmean")


def test_needs_the_entropies(tokens):
    with pytest.raises(BatchError, match=r"entropies missing from the batch; entropy_bonus reads it"):
        make_objective("entropy_bonus")(tokens([[1.0]], [1.0]))


def test_rejects_a_negative_coefficient():
    with pytest.raises(ConfigError, match=r"entropy_bonus: coefficient is -1; expected a value in \[0, inf\)"):
        make_objective("entropy_bonus", coefficient=-1)
