from __future__ import annotations

import math

import pytest
import torch

from envs import make_spec


def policy(**parameters):
    return make_spec("NullBandit-v1", arms=50, contexts=6, **parameters).initial_logits.softmax(-1)


def test_uniform():
    torch.testing.assert_close(policy(initial="uniform"), torch.full((6, 50), 0.02, dtype=torch.float64))


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_zipf_probabilities_fall_with_the_rank(exponent):
    rows = policy(initial="zipf", exponent=exponent)
    sizes = [rank**-exponent for rank in range(1, 51)]
    expected = torch.tensor(sizes, dtype=torch.float64) / math.fsum(sizes)
    torch.testing.assert_close(rows.sort(-1, descending=True).values, expected.expand(6, 50), rtol=1e-12, atol=0.0)


def test_peaked_gives_one_token_its_probability():
    rows = policy(initial="peaked", peak=0.7)
    torch.testing.assert_close(rows.amax(-1), torch.full((6,), 0.7, dtype=torch.float64), rtol=1e-12, atol=0.0)
    # The rest is a softmax of N(0, 1): the sample deviation of 49 logits is within 5 standard errors (1/√98) of 1.
    rest = rows.log().sort(-1).values[:, :-1]
    assert ((rest.std(-1) - 1).abs() < 5 / math.sqrt(98)).all()


def test_normal_logits_have_their_scale():
    logits = make_spec("NullBandit-v1", arms=500, contexts=20, initial="normal", scale=3.0).initial_logits
    # 10,000 draws: standard errors 0.03 of the mean and 0.021 of the deviation, five of each.
    assert abs(float(logits.mean())) < 0.15
    assert float(logits.std()) == pytest.approx(3.0, abs=0.11)


@pytest.mark.parametrize("initial", ["normal", "zipf", "peaked"])
def test_states_and_seeds_draw_their_own(initial):
    spec = make_spec("NullBandit-v1", arms=50, contexts=6, initial=initial).for_seeds([0, 1])
    rows = spec.initial_logits.flatten(0, 1)
    assert len({tuple(row.tolist()) for row in rows}) == 12
