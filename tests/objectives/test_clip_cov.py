from __future__ import annotations

import pytest
import torch
from scipy import stats

from testbed import TokenBatch
from testbed.errors import ConfigError
from testbed.objectives import make_objective
from testbed.objectives._covariance import draw, token_covariance


def spread(tokens, **optional):
    """Four tokens with log p = 0, -1, -2, -3 and A = 3, 1, -1, -3: deviations ±1.5, ±0.5 and 3, 1, -1, -3."""
    old = torch.tensor([[0.0, -1.0], [-2.0, -3.0]], dtype=torch.float64).exp()
    return tokens([[1.0, 1.0], [1.0, 1.0]], [[3.0, 1.0], [-1.0, -3.0]], old=old, **optional)


def test_value_by_hand(tokens, check):
    # Cov = 1.5·3 = 4.5, 0.5·1 = 0.5, 0.5, 4.5. Between 1 and 5: the first and the last, both removed by ρ = ½.
    check(
        "clip_cov(fraction=0.5)",
        spread(tokens),
        token_loss=[[0.0, -1.0], [1.0, 0.0]],
        gradient=[[0.0, -1.0], [1.0, 0.0]],
        loss=0.0,
    )


def test_value_without_candidates_is_unclipped(tokens, check):
    # Above 4.6 there is none; r = 3 keeps its weight on either side: no ratio is clipped.
    check(
        "clip_cov(fraction=1.0,cov_low=4.6)",
        tokens([[3.0, 0.2], [3.0, 0.2]], [1.0, -1.0]),
        token_loss=[[-3.0, -0.2], [3.0, 0.2]],
        gradient=[[-3.0, -0.2], [3.0, 0.2]],
    )


def test_value_with_a_ratio_clip(tokens, check):
    # Clipped tokens are not candidates: with every Cov admitted, only the two unclipped ones can be drawn.
    check(
        "clip_cov(fraction=1.0,cov_low=-100,cov_high=100,clip_low=0.2,clip_high=0.2)",
        tokens([[3.0, 0.2], [3.0, 0.2]], [1.0, -1.0]),
        token_loss=[[-1.2, 0.0], [0.0, 0.8]],
        gradient=[[0.0, 0.0], [0.0, 0.0]],
    )


def mutate(monkeypatch):
    """Tokens of low covariance are removed instead of high ones."""
    import testbed.objectives.clip_cov as module

    monkeypatch.setattr(module, "token_covariance", lambda batch: 5 - token_covariance(batch))


def test_covariance_by_hand(tokens):
    batch = spread(tokens)
    expected = torch.tensor([[4.5, 0.5], [0.5, 4.5]], dtype=torch.float64)
    torch.testing.assert_close(token_covariance(batch), expected, rtol=1e-12, atol=0)
    metrics = make_objective("clip_cov", fraction=0.25)(batch).metrics
    assert metrics["cov/mean"].item() == pytest.approx(10 / 4, rel=1e-12)
    assert metrics["cov/selected_fraction"].item() == pytest.approx(1 / 4, rel=1e-12)


def test_number_of_tokens_is_rounded_down(tokens):
    # ρN = 0.7·4 = 2.8, and 0.5·2 = 1 of the response tokens; padding does not count.
    wide = {"cov_low": -100.0, "cov_high": 100.0}
    assert make_objective("clip_cov", fraction=0.7, **wide).selected(spread(tokens)).sum() == 2
    padded = tokens([[1.0, 1.0, None, None]], [1.0])
    assert make_objective("clip_cov", fraction=0.5, **wide).selected(padded).sum() == 1
    assert make_objective("clip_cov", fraction=0.49, **wide).selected(padded).sum() == 0


def test_product_that_falls_short_in_binary_still_counts(tokens):
    # 0.29·100 = 28.999999999999996 in binary.
    batch = tokens([[1.0] * 100], [1.0])
    assert make_objective("clip_cov", fraction=0.29, cov_low=-1.0).selected(batch).sum() == 29


def one_row(log_probs: torch.Tensor) -> TokenBatch:
    return TokenBatch(
        log_probs=log_probs,
        old_log_probs=log_probs,
        advantages=torch.ones(1, dtype=log_probs.dtype),
        mask=torch.ones(log_probs.shape, dtype=torch.bool),
    )


@pytest.mark.parametrize("distinct", [True, False])
def test_draw_is_uniform_for_different_and_for_equal_tokens(distinct):
    # Kolmogorov-Smirnov against the uniform distribution; p below 1e-3 would be suspicious, and the draw is fixed.
    generator = torch.Generator().manual_seed(0)
    log_probs = -torch.rand(1, 20_000, generator=generator) if distinct else torch.full((1, 20_000), -0.5)
    numbers = draw(one_row(log_probs)).flatten()
    assert numbers.unique().numel() > 19_990
    assert stats.kstest(numbers.numpy(), "uniform").pvalue > 1e-3


def test_draw_changes_with_the_policy():
    # Two draws of the same tokens under slightly different policies are unrelated: rank correlation of 20 000 pairs.
    generator = torch.Generator().manual_seed(0)
    log_probs = -torch.rand(1, 20_000, generator=generator)
    first, second = (draw(one_row(values)).flatten().numpy() for values in (log_probs, log_probs * 1.000001))
    assert abs(stats.spearmanr(first, second).statistic) < 0.03


def test_one_fraction_per_replica(tokens):
    fractions = torch.tensor([0.0, 0.25, 1.0]).view(3, 1, 1)
    objective = make_objective("clip_cov", fraction=fractions, cov_low=-100.0, cov_high=100.0)
    assert objective.selected(spread(tokens)).sum((-2, -1)).tolist() == [0, 1, 4]


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_rejects_a_fraction_outside_its_range(fraction):
    with pytest.raises(ConfigError, match=rf"clip_cov: fraction is {fraction}; expected a value in \[0, 1\]"):
        make_objective("clip_cov", fraction=fraction)


def test_rejects_an_empty_interval_of_covariances():
    with pytest.raises(ConfigError, match=r"cov_low is 5\.0 and cov_high 1\.0; expected cov_low <= cov_high"):
        make_objective("clip_cov", cov_low=5.0, cov_high=1.0)
