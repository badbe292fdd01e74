from __future__ import annotations

import numpy as np
import pytest
import torch

from testbed.errors import BatchError, ConfigError
from testbed.objectives import make_objective


def test_value_by_hand(tokens, check):
    # Five entropies; the 0.6-quantile lies at place 2.4: between 0.3 and 0.4, at 0.34. Two of five are kept.
    check(
        "top_entropy(base=ppo,share=0.4)",
        tokens([[1.1, 1.1, 1.1], [1.1, 1.5, None]], [1.0, 1.0], entropies=[[0.1, 0.5, 0.2], [0.3, 0.4, 9.0]]),
        token_loss=[[0.0, -1.1, 0.0], [0.0, -1.2, 0.0]],
        gradient=[[0.0, -1.1, 0.0], [0.0, 0.0, 0.0]],
        loss=-2.3 / 5,
    )


def mutate(monkeypatch):
    """The tokens of lowest entropy."""
    from testbed.objectives.top_entropy import TopEntropy

    honest = TopEntropy.kept
    monkeypatch.setattr(TopEntropy, "kept", lambda self, batch: batch.mask & ~honest(self, batch))


@pytest.mark.parametrize("share", [0.2, 0.37, 0.5, 0.9])
def test_the_threshold_is_the_interpolated_quantile(share, tokens):
    entropies = np.random.default_rng(0).random((4, 7))
    batch = tokens(np.ones((4, 7)).tolist(), [1.0] * 4, entropies=entropies.tolist())
    expected = entropies >= np.quantile(entropies, 1 - share)
    assert make_objective("top_entropy", share=share).kept(batch).tolist() == expected.tolist()


def test_ties_are_kept(tokens):
    batch = tokens([[1.0, 1.0, 1.0]], [1.0], entropies=[[0.7, 0.7, 0.7]])
    assert make_objective("top_entropy").kept(batch).all()


def test_a_share_of_one_is_the_base(tokens):
    batch = tokens([[1.1, 0.7]], [1.0], entropies=[[0.2, 0.7]])
    assert make_objective("top_entropy", share=1.0)(batch).loss == make_objective("dapo")(batch).loss


def test_one_share_per_replica(tokens):
    batch = tokens([[1.0, 1.0, 1.0]], [1.0], entropies=[[0.1, 0.2, 0.3]])
    kept = make_objective("top_entropy", share=torch.tensor([0.5, 1.0])[:, None, None]).kept(batch)
    assert kept.tolist() == [[[False, True, True]], [[True, True, True]]]


def test_needs_entropies(tokens):
    with pytest.raises(BatchError, match="entropies missing from the batch; top_entropy reads it"):
        make_objective("top_entropy")(tokens([[1.0]], [1.0]))


def test_rejects():
    with pytest.raises(ConfigError, match=r"top_entropy: share is 0\.0; expected a value in \(0, 1\]"):
        make_objective("top_entropy", share=0.0)
