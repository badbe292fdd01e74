from __future__ import annotations

import pytest
import torch

from testbed import TokenBatch
from testbed.errors import ConfigError
from testbed.objectives import make_objective
from testbed.objectives.dr_grpo import DrGRPO


def test_value_by_hand(tokens, check):
    # Token losses as PPO; their sum -2.8 + 3.8 = 1 is divided by 2 responses and the width of 4, or by max_length.
    batch = tokens([[1.1, 1.5, 0.5, None], [0.5, 3.0, None, None]], [1.0, -1.0])
    check(
        "dr_grpo",
        batch,
        token_loss=[[-1.1, -1.2, -0.5, 0.0], [0.8, 3.0, 0.0, 0.0]],
        gradient=[[-1.1, 0.0, -0.5, 0.0], [0.0, 3.0, 0.0, 0.0]],
        loss=1.0 / (2 * 4),
    )
    check("dr_grpo(max_length=10)", batch, loss=1.0 / (2 * 10))


def mutate(monkeypatch):
    """The divisor is the longest response instead of the constant."""
    monkeypatch.setattr(DrGRPO, "max_length_or", lambda self, padded_width: 3.0)


def test_uses_centred_advantages():
    assert make_objective("dr_grpo").advantage == "group_centred"


def test_rejects_a_length_of_zero():
    with pytest.raises(ConfigError, match=r"dr_grpo: max_length is 0; expected a value in \(0, inf\)"):
        make_objective("dr_grpo", max_length=0)


def test_one_length_per_replica(tokens):
    # The loss at max_length=10 is 1/20, see above; it is inversely proportional to the length.
    one = tokens([[1.1, 1.5, 0.5, None], [0.5, 3.0, None, None]], [1.0, -1.0])
    batch = TokenBatch(
        log_probs=one.log_probs.expand(3, 2, 4),
        old_log_probs=one.old_log_probs.expand(3, 2, 4),
        advantages=one.advantages.expand(3, 2, 4),
        mask=one.mask.expand(3, 2, 4),
    )
    lengths = torch.tensor([10.0, 20.0, 5.0], dtype=torch.float64)
    loss = make_objective("dr_grpo", max_length=lengths.view(3, 1, 1))(batch).loss
    torch.testing.assert_close(loss, 0.5 / lengths, rtol=1e-9, atol=0)
