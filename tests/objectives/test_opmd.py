from __future__ import annotations

import math

import pytest

from testbed.errors import ConfigError
from testbed.objectives import make_objective


def test_value_by_hand(tokens, check):
    # p = ½·¼ and 2·¼; ℓ = -A log p / 3 at τ = 2, whatever the ratio.
    check(
        "opmd(tau=2.0)",
        tokens([[0.5, 2.0], [1.0, None]], [3.0, -1.5]),
        token_loss=[[math.log(8), math.log(2)], [-0.5 * math.log(4), 0.0]],
        gradient=[[-1.0, -1.0], [0.5, 0.0]],
        loss=(3 * math.log(2) + math.log(2) - math.log(2)) / 3,
    )


def push(tokens, objective):
    return tokens.advantages / (1 + objective.tau)


def mutate(monkeypatch):
    """Multiplied by 1 + τ instead of divided."""
    from testbed.objectives.opmd import OPMD

    monkeypatch.setattr(OPMD, "token_loss", lambda self, batch: -batch.advantages * batch.log_probs * (1 + self.tau))


def test_no_temperature_is_reinforce(tokens):
    batch = tokens([[0.5, 2.0]], [3.0])
    assert make_objective("opmd", tau=0.0)(batch).loss == make_objective("reinforce")(batch).loss


def test_rejects():
    with pytest.raises(ConfigError, match=r"opmd: tau is -1\.0; expected a value in \[0, inf\)"):
        make_objective("opmd", tau=-1.0)
