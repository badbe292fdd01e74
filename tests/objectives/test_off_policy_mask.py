from __future__ import annotations

import math

import pytest

from testbed.errors import ConfigError
from testbed.objectives import make_objective


def test_value_by_hand(tokens, check):
    # Mean falls of log p: log 2, log 2, (log 2)/2 and -log 2 against δ = 0.5; A < 0 in the last three.
    check(
        "off_policy_mask(base=reinforce)",
        tokens([[0.5, 0.5], [0.5, None], [0.5, 1.0], [2.0, 2.0]], [1.0, -1.0, -1.0, -1.0]),
        token_loss=[
            [math.log(8), math.log(8)],
            [0.0, 0.0],
            [-math.log(8), -math.log(4)],
            [-math.log(2), -math.log(2)],
        ],
        gradient=[[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]],
        loss=-2 * math.log(2) / 7 + (2 * math.log(8) - math.log(8) - math.log(4)) / 7,
    )


def test_value_against_the_sampler(tokens, check):
    # p = q = ¼, but the sampler had said ½: a fall of log 2.
    check(
        "off_policy_mask(base=reinforce)",
        tokens([[1.0], [1.0]], [-1.0, -1.0], sampler_log_probs=[[math.log(0.5)], [math.log(0.25)]]),
        gradient=[[0.0], [1.0]],
    )


def mutate(monkeypatch):
    """Right responses are dropped instead of wrong ones."""
    import dataclasses

    from testbed.objectives.off_policy_mask import OffPolicyMask

    honest = OffPolicyMask.dropped
    monkeypatch.setattr(
        OffPolicyMask,
        "dropped",
        lambda self, batch: honest(self, dataclasses.replace(batch, advantages=-batch.advantages)),
    )


def test_masked_share(tokens):
    metrics = make_objective("off_policy_mask")(tokens([[0.5, 0.5], [0.5, None]], [1.0, -1.0])).metrics
    assert metrics["mask/fraction"].item() == pytest.approx(1 / 3, rel=1e-12)


def test_rejects():
    with pytest.raises(ConfigError, match=r"off_policy_mask: threshold is -1\.0; expected a value in \[0, inf"):
        make_objective("off_policy_mask", threshold=-1.0)
