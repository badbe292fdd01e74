from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from testbed import TokenBatch
from testbed.diagnostics import (
    GLOSSARY,
    ClipInterval,
    batch_metrics,
    effective_sample_size,
    glossary_table,
    length_bias,
    metric_info,
    token_average,
)
from testbed.errors import ConfigError
from testbed.objectives import make_objective, objective_names
from testbed.reductions import token_weights

# Ratios 2 and ½ with A = 1, ratio 1 with A = -2, and a response of A = 0 with ratio 4; the last column is padding.
RATIOS = torch.tensor([[2.0, 0.5, 1.0], [1.0, 1.0, 1.0], [4.0, 1.0, 1.0]], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [True, False, False], [True, False, False]])
ADVANTAGES = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
LOG2 = math.log(2)


def batch(**optional):
    return TokenBatch(
        log_probs=RATIOS.log() - 1,
        old_log_probs=torch.full_like(RATIOS, -1),
        advantages=ADVANTAGES,
        mask=MASK,
        **{name: torch.tensor(value, dtype=torch.float64) for name, value in optional.items()},
    )


def measure(interval=None, **optional):
    return {name: value.item() for name, value in batch_metrics(batch(**optional), interval).items()}


def test_likely_tokens_are_those_above_nine_tenths_when_they_were_sampled() -> None:
    # Of three response tokens with q = 0.95, 0.9 and 0.5 one is above 0.9; what the current policy says is no matter.
    old = torch.tensor([[0.95, 0.9, 0.5, 0.99]], dtype=torch.float64).log()
    mask = torch.tensor([[True, True, True, False]])
    given = TokenBatch(log_probs=old - 1, old_log_probs=old, advantages=torch.ones(1), mask=mask)
    assert batch_metrics(given, None)["probability/likely_fraction"].item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Over the four response tokens: ratios 2, ½, 1, 4.
        ("ratio/mean", 7.5 / 4),
        ("ratio/min", 0.5),
        ("ratio/max", 4.0),
        ("ratio/log_abs_mean", (LOG2 + LOG2 + 0 + 2 * LOG2) / 4),
        ("ratio/one_fraction", 1 / 4),
        ("advantage/mean", (1 + 1 - 2 + 0) / 4),
        ("advantage/nonzero_fraction", 2 / 3),
        ("advantage/positive_token_fraction", 2 / 4),
        # rA: 2, ½, -2, 0.
        ("advantage/positive_loss_fraction", 2.5 / 4.5),
        ("kl/old", -(LOG2 - LOG2 + 0 + 2 * LOG2) / 4),
        # r - 1 - log r summed: 3.5 less the logs, 2 log 2.
        ("kl/old_k3", (3.5 - 2 * LOG2) / 4),
    ],
)
def test_metrics_of_every_batch_by_hand(name, expected):
    assert measure()[name] == pytest.approx(expected, rel=1e-12)


def test_metrics_without_data_are_nan():
    values = measure()
    for name in (
        "entropy/mean",
        "entropy/ratio_mean",
        "kl/ref",
        "kl/sampler",
        "clip/fraction",
        "band/outside_fraction",
    ):
        assert math.isnan(values[name])


def test_optional_fields_by_hand():
    padding = 99.0
    values = measure(
        entropies=[[1.0, 2.0, padding], [3.0, padding, padding], [0.5, padding, padding]],
        old_entropies=[[2.0, 2.0, padding], [1.0, padding, padding], [0.0, padding, padding]],
        ref_log_probs=[[LOG2 - 1, -LOG2 - 1, padding], [LOG2 - 1, padding, padding], [2 * LOG2 - 1, padding, padding]],
        sampler_log_probs=[[-1.5, -1.0, padding], [-0.5, padding, padding], [-2.0, padding, padding]],
    )
    assert values["entropy/mean"] == pytest.approx(6.5 / 4, rel=1e-12)
    # The token whose old entropy is 0 has no ratio: ½, 1, 3.
    assert values["entropy/ratio_mean"] == pytest.approx(4.5 / 3, rel=1e-12)
    # d = log p_ref - log p: 0, 0, log 2, 0; e^d - d - 1 = 1 - log 2 for the third.
    assert values["kl/ref"] == pytest.approx((1 - LOG2) / 4, rel=1e-12)
    # sampler - old: -½, 0, ½, -1.
    assert values["kl/sampler"] == pytest.approx(-1 / 4, rel=1e-12)


def test_engine_names_are_those_of_the_same_quantity():
    # Read in the source of TRL 1.16.0, transformers 5.23.0 and verl 0.9.1.
    found = {name: (info.verl, info.trl) for name, info in GLOSSARY.items() if info.verl or info.trl}
    assert found == {
        "advantage/mean": ("critic/advantages/mean", ""),
        "clip/ceiling_fraction": ("actor/pg_clipfrac_lower", ""),
        "clip/fraction": ("", "clip_ratio/region_mean"),
        "clip/high_fraction": ("", "clip_ratio/high_mean"),
        "clip/low_fraction": ("", "clip_ratio/low_mean"),
        "entropy/mean": ("actor/entropy_loss", "entropy"),
        "gradient/norm": ("actor/grad_norm", "grad_norm"),
        "group/zero_variance_fraction": ("", "frac_reward_zero_std"),
        "kl/old": ("actor/ppo_kl", ""),
        "kl/sampler": ("rollout_corr/kl", ""),
        "reward/mean": ("critic/score/mean", "reward"),
    }
    # TRL multiplies it by the ratio unless told otherwise, verl's is whichever estimate was asked for.
    assert "`kl`" in GLOSSARY["kl/ref"].apart
    assert "`actor/kl_loss`" in GLOSSARY["kl/ref"].apart


def test_interval_separates_clipped_from_outside():
    values = measure(ClipInterval(0.8, 1.2))
    # A = 1 at ratio 2 is clipped; at ½ it is outside and keeps its gradient; so does A = 0 at ratio 4.
    assert values["clip/high_fraction"] == 1 / 4
    assert values["clip/low_fraction"] == 0
    assert values["clip/ceiling_fraction"] == 0
    assert values["clip/fraction"] == 1 / 4
    assert values["clip/gradient_mass_fraction"] == pytest.approx(2 / 4.5, rel=1e-12)
    assert values["band/outside_fraction"] == 3 / 4


def test_tokens_outside_and_inside_the_interval_by_hand():
    old = torch.tensor([[0.1, 0.3, 0.9], [0.8, 0.9, 0.9], [0.2, 0.9, 0.9]], dtype=torch.float64).log()
    tokens = TokenBatch(
        log_probs=old + RATIOS.log(),
        old_log_probs=old,
        advantages=ADVANTAGES,
        mask=MASK,
        old_entropies=torch.tensor([[1.0, 2.0, 9.0], [0.5, 9.0, 9.0], [6.0, 9.0, 9.0]], dtype=torch.float64),
    )
    values = batch_metrics(tokens, ClipInterval(0.8, 1.2))
    # Ratios 2, ½ and 4 are outside, 1 is inside.
    assert values["band/outside_probability"].item() == pytest.approx(0.6 / 3, rel=1e-12)
    assert values["band/inside_probability"].item() == pytest.approx(0.8, rel=1e-12)
    assert values["band/outside_entropy"].item() == pytest.approx(9 / 3, rel=1e-12)
    assert values["band/inside_entropy"].item() == pytest.approx(0.5, rel=1e-12)
    nobody_outside = batch_metrics(tokens, ClipInterval(0.1, 9.0))
    assert nobody_outside["band/outside_probability"].isnan()
    assert math.isnan(measure(ClipInterval(0.8, 1.2))["band/inside_entropy"])


def test_interval_that_keeps_the_gradient_clips_nothing():
    values = measure(ClipInterval(0.8, 1.2, keeps_gradient=True))
    assert values["clip/fraction"] == 0
    assert values["band/outside_fraction"] == 3 / 4


def test_interval_of_another_ratio_and_a_ceiling():
    other = torch.full_like(RATIOS, 5.0)
    values = measure(ClipInterval(0.8, 6.0, ceiling=4.0, ratio=other))
    # 5 is inside, but above the ceiling for the one token with A < 0.
    assert values["clip/ceiling_fraction"] == 1 / 4
    assert values["band/outside_fraction"] == 0


def test_bounds_per_replica():
    two = TokenBatch(
        log_probs=torch.stack([RATIOS.log(), RATIOS.log()]),
        old_log_probs=torch.zeros(2, 3, 3, dtype=torch.float64),
        advantages=torch.stack([ADVANTAGES, ADVANTAGES]),
        mask=torch.stack([MASK, MASK]),
    )
    high = torch.tensor([1.2, 3.0], dtype=torch.float64).view(2, 1, 1)
    metrics = batch_metrics(two, ClipInterval(0.1, high))
    assert metrics["clip/high_fraction"].tolist() == [1 / 4, 0]


def test_token_average_of_nothing_is_nan():
    empty = TokenBatch(
        log_probs=torch.zeros(1, 2),
        old_log_probs=torch.zeros(1, 2),
        advantages=torch.zeros(1),
        mask=torch.zeros(1, 2, dtype=torch.bool),
        token_count=2,
        sequence_count=1,
    )
    assert token_average(torch.ones(1, 2), empty).isnan()


@pytest.mark.parametrize("name", objective_names())
def test_every_metric_is_in_the_glossary(name):
    full = batch(
        **{field: [[0.5, 0.4, 0.3]] * 3 for field in ("entropies", "old_entropies", "old_kappas")},
        **{field: [[-0.5, -0.4, -0.3]] * 3 for field in ("ref_log_probs", "sampler_log_probs")},
    )
    assert set(make_objective(name)(full).metrics) <= set(GLOSSARY)


def test_glossary_entries_are_complete_and_named_group_slash_name():
    for name, info in GLOSSARY.items():
        assert re.fullmatch(r"[a-z]+/[a-z0-9_]+", name)
        assert info.formula
        assert info.unit


def test_one_engine_name_never_stands_for_two_formulas():
    for engine in ("verl", "trl"):
        names = [getattr(info, engine) for info in GLOSSARY.values() if getattr(info, engine)]
        assert len(names) == len(set(names))


def test_glossary_table_has_a_row_for_each_metric():
    lines = glossary_table().splitlines()
    assert lines[0] == "| metric | formula | unit | verl | TRL | where theirs differ |"
    assert len(lines) == 2 + len(GLOSSARY)
    assert any(line.startswith("| `clip/high_fraction` | ") and "`clip_ratio/high_mean`" in line for line in lines)


def test_unknown_metric_is_explained():
    with pytest.raises(ConfigError, match=r"metric 'clip/frac' is not in the glossary; add its formula"):
        metric_info("clip/frac")


def test_divergences_of_close_policies_keep_their_digits_in_single_precision():
    # 1e-4 apart the k3 estimate is 5e-9. The rounding of two log-probabilities of up to 5 moves a difference by 3e-7,
    # that is each estimate by about half a percent, and the mean of 8,192 by that over √8192: 1e-4.
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(64, 128, generator=generator, dtype=torch.float64) * 5
    new = old + 1e-4 * torch.randn(64, 128, generator=generator, dtype=torch.float64)
    found = {}
    for dtype in (torch.float64, torch.float32):
        close = TokenBatch(
            log_probs=new.to(dtype),
            old_log_probs=old.to(dtype),
            ref_log_probs=old.to(dtype),
            advantages=torch.ones(64, dtype=dtype),
            mask=torch.ones(64, 128, dtype=torch.bool),
        )
        found[dtype] = batch_metrics(close, None)
    half_square = ((new - old) ** 2).mean().item() / 2
    for name in ("kl/old_k3", "kl/ref"):
        assert found[torch.float64][name].item() == pytest.approx(half_square, rel=1e-3)
        assert found[torch.float32][name].item() == pytest.approx(found[torch.float64][name].item(), rel=2e-4)


def test_effective_sample_size_by_hand():
    # Weights 2 and ½ of one response, 1 and 4 of the others: (7.5)² / (4 + 0.25 + 1 + 16).
    found = effective_sample_size(batch().log_ratio, batch().mask)
    assert found.item() == pytest.approx(7.5**2 / 21.25, rel=1e-15)


def test_effective_sample_size_of_weights_that_overflow():
    # Two equal weights of e^2000 and one that is nothing beside them; the fourth is outside the mask.
    weights = torch.tensor([[2000.0, 2000.0, -2000.0, 3000.0]], dtype=torch.float64)
    assert effective_sample_size(weights, torch.tensor([[True, True, True, False]])).item() == 2.0


def test_effective_sample_size_of_nothing_is_missing():
    assert effective_sample_size(torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool)).isnan()


LONG = torch.arange(6) < torch.tensor([[6], [1], [4], [2], [0]])


@pytest.mark.parametrize(
    ("reduction", "slope"),
    [
        ("token_mean", 1.0),
        ("seq_mean_token_sum", 1.0),
        ("seq_mean_token_sum_norm", 1.0),
        ("seq_mean_token_mean", 0.0),
        ("seq_sum_token_mean", 0.0),
    ],
)
def test_length_bias_of_a_mean_alone(reduction, slope):
    found = length_bias(token_weights(LONG, reduction), LONG)
    assert found.slope.item() == pytest.approx(slope, abs=1e-15)
    assert found.standard_error.item() == pytest.approx(0.0, abs=1e-15)


def test_length_bias_and_its_error_are_those_of_the_sandwich():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    found = length_bias(weights, LONG.expand(2, 5, 6))
    for replica in range(2):
        present = LONG.any(-1).numpy()
        x = LONG.sum(-1).double().numpy()[present]
        y = (weights[replica].abs() * LONG).sum(-1).numpy()[present]
        x, y = x / x.mean(), y / y.mean()
        design = np.stack([np.ones_like(x), x], -1)
        inverse = np.linalg.inv(design.T @ design)
        coefficients = inverse @ design.T @ y
        leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
        residual = (y - design @ coefficients) / (1 - leverage)
        sandwich = inverse @ (design.T * residual**2) @ design @ inverse
        assert found.slope[replica].item() == pytest.approx(coefficients[1], rel=1e-12)
        assert found.standard_error[replica].item() == pytest.approx(np.sqrt(sandwich[1, 1]), rel=1e-12)


def test_length_bias_of_equal_lengths_is_missing():
    mask = torch.ones(3, 2, dtype=torch.bool)
    assert length_bias(token_weights(mask, "token_mean"), mask).slope.isnan()


def test_the_scatter_of_a_length_that_occurs_once_is_unknown():
    mask = torch.arange(4) < torch.tensor([[4], [2], [2], [2]])
    found = length_bias(token_weights(mask, "token_mean"), mask)
    assert found.slope.item() == pytest.approx(1.0)
    assert found.standard_error.isnan()
