from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from analysis.replay.tallies import ENTROPY_RATIO, PROBABILITY, RATIO, Axis, Tallies
from testbed import TokenBatch


def stack(ratios, q=0.5, **more) -> TokenBatch:
    """One batch `(1, B, T)` of these ratios; 0 stands for padding."""
    ratios = torch.tensor([ratios])
    old = torch.full_like(ratios, q).log()
    return TokenBatch(
        log_probs=old + ratios.clamp(min=1e-3).log(),
        old_log_probs=old,
        advantages=torch.ones(ratios.shape[:-1]),
        mask=ratios > 0,
        **{name: torch.full_like(ratios, value) for name, value in more.items()},
    )


def test_an_axis_by_hand():
    axis = Axis("x", math.log(0.25), math.log(4.0), bins=4)
    # Edges ¼, ½, 1, 2, 4; what lies beyond is in the last bin.
    np.testing.assert_allclose(axis.edges, [0.25, 0.5, 1, 2, 4])
    assert axis.place(torch.tensor([0.01, 0.3, 0.7, 1.5, 3.0, 99.0]).log()).tolist() == [0, 0, 1, 2, 3, 3]


def test_densities_count_the_tokens_that_moved_by_thirds_of_the_run():
    tallies = Tallies(range(1, 7))
    tallies.add(stack([[1.0, 1.2, 0.0], [0.8, 1.2, 1.2]], entropies=0.9, old_entropies=1.0), [5])
    densities = tallies.densities
    assert densities.rollouts.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert densities.probability.sum((1, 2)).tolist() == [0, 0, 4]
    row = int(PROBABILITY.place(torch.tensor([0.5]).log()))
    columns = RATIO.place(torch.tensor([1.2, 0.8]).log()).tolist()
    assert densities.probability[2, row, columns].tolist() == [3, 1]
    assert densities.entropy.sum() == 4
    assert densities.entropy[2, :, int(ENTROPY_RATIO.place(torch.tensor([0.9]).log()))].sum() == 4


def test_without_entropies_there_is_no_such_picture():
    tallies = Tallies([1])
    tallies.add(stack([[1.2]]), [1])
    assert tallies.densities.entropy is None


def test_mismatch_by_probability():
    tallies = Tallies([1])
    for q, sampler in ((0.05, 0.06), (0.05, 0.05), (0.95, 0.94)):
        tallies.add(stack([[1.0]], q=q, sampler_log_probs=math.log(sampler)), [1])
    found = tallies.mismatch().set_index("from")
    assert found["tokens"].to_dict() == {0.0: 0, 0.001: 0, 0.01: 2, 0.1: 0, 0.5: 0, 0.9: 1, 0.99: 0}
    # log(0.06/0.05) and 0, on average 0.0912; log(0.94/0.95).
    assert found.loc[0.01, "difference"] == pytest.approx(math.log(1.2) / 2, rel=1e-5)
    assert found.loc[0.9, "size"] == pytest.approx(math.log(0.95 / 0.94), rel=1e-4)
    # k3 = e^-d - 1 + d.
    assert found.loc[0.01, "k3"] == pytest.approx((1 / 1.2 - 1 + math.log(1.2)) / 2, rel=1e-4)
    assert math.isnan(found.loc[0.1, "difference"])


def test_no_sampler_no_mismatch():
    tallies = Tallies([1])
    tallies.add(stack([[1.0]]), [1])
    assert tallies.mismatch().empty


def test_what_responses_of_a_length_weigh():
    tallies = Tallies([1])
    # Lengths 1 and 3: under a token mean they weigh ¼ and ¾, in units of their mean 0.5 and 1.5.
    tallies.add(stack([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), [1])
    found = tallies.lengths().set_index(["reduction", "from"])
    assert found.loc[("token_mean", 1), ["weight", "token_weight"]].tolist() == pytest.approx([0.5, 1.0])
    assert found.loc[("token_mean", 2), ["weight", "token_weight"]].tolist() == pytest.approx([1.5, 1.0])
    # Under a mean over responses ½ and ½; a token of the short one weighs ½, of the long one 1/6, on average ¼.
    assert found.loc[("seq_mean_token_mean", 1), ["weight", "token_weight"]].tolist() == pytest.approx([1.0, 2.0])
    assert found.loc[("seq_mean_token_mean", 2), ["weight", "token_weight"]].tolist() == pytest.approx([1.0, 2 / 3])
    assert found["responses"].tolist() == [1, 1] * 5
