from __future__ import annotations

import math

import pytest
import torch

from testbed import TokenBatch
from testbed.errors import BatchError


def fields(shape=(2, 3), **changes):
    base = {
        "log_probs": torch.full(shape, -1.0),
        "old_log_probs": torch.full(shape, -1.0),
        "advantages": torch.ones(shape[:-1]),
        "mask": torch.ones(shape, dtype=torch.bool),
    }
    return base | changes


# -- what is accepted ----------------------------------------------------------------------------------------


def test_one_advantage_per_response_is_one_per_token():
    batch = TokenBatch(**fields(advantages=torch.tensor([2.0, -1.0])))
    assert batch.advantages.tolist() == [[2.0, 2.0, 2.0], [-1.0, -1.0, -1.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    batch = TokenBatch(**fields(log_probs=torch.full((2, 3), -1.0, dtype=dtype)))
    assert batch.log_probs.dtype == torch.float32
    assert batch.ratio.dtype == torch.float32


def test_padding_may_hold_anything():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    garbage = torch.where(mask, -1.0, torch.tensor([math.nan, math.inf, -math.inf]))
    log_probs = garbage.clone().requires_grad_()
    batch = TokenBatch(**fields(log_probs=log_probs, old_log_probs=garbage, advantages=garbage, mask=mask))
    assert batch.log_probs.tolist() == [[-1.0, -1.0, 0.0], [-1.0, 0.0, 0.0]]
    assert batch.ratio.tolist() == [[1.0, 1.0, 1.0]] * 2
    (gradient,) = torch.autograd.grad(batch.log_probs.sum(), log_probs)
    assert gradient.tolist() == mask.float().tolist()


def test_one_advantage_per_response_is_kept_beside_the_tokens():
    mask = torch.tensor([[True, True, False], [False, False, False]])
    given = TokenBatch(**fields(mask=mask, advantages=torch.tensor([2.0, math.nan])))
    assert given.response_advantages.tolist() == [[2.0], [0.0]]
    assert given.at_response_tokens(given.response_advantages).tolist() == given.advantages.tolist()
    assert given.trimmed().response_advantages.tolist() == [[2.0], [0.0]]
    assert TokenBatch(**fields(advantages=torch.ones(2, 3))).response_advantages is None


def test_half_precision_advantages_are_widened_in_both_forms():
    batch = TokenBatch(**fields(advantages=torch.ones(2, dtype=torch.bfloat16)))
    assert batch.advantages.dtype == batch.response_advantages.dtype == torch.float32


def test_a_sum_that_overflows_is_not_taken_for_an_infinity():
    largest = torch.finfo(torch.float32).max
    batch = TokenBatch(**fields(log_probs=torch.full((2, 3), -largest)))
    assert batch.log_probs.sum().isinf()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masking_changes_no_bit_of_what_it_keeps(dtype):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, 7, generator=generator, dtype=dtype)
    values[0, 0] = -0.0
    mask = torch.rand(50, 7, generator=generator) > 0.3
    mask[0, 0] = True
    batch = TokenBatch(log_probs=values, old_log_probs=values, advantages=values, mask=mask)
    expected = values.masked_fill(~mask, 0)
    assert torch.equal(batch.log_probs, expected)
    assert torch.equal(batch.log_probs.signbit(), expected.signbit())


def test_masking_survives_functional_transforms():
    mask = torch.tensor([[True, False]])

    def total(log_probs):
        return TokenBatch(**fields((1, 2), log_probs=log_probs, mask=mask)).log_probs.sum()

    assert torch.func.grad(total)(torch.tensor([[-1.0, -2.0]])).tolist() == [[1.0, 0.0]]


def test_masking_has_a_second_derivative():
    mask = torch.tensor([[True, False]])
    log_probs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    batch = TokenBatch(**fields((1, 2), log_probs=log_probs, mask=mask))
    (first,) = torch.autograd.grad(batch.log_probs.square().sum(), log_probs, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), log_probs)
    assert second.tolist() == [[2.0, 0.0]]


# -- derived quantities --------------------------------------------------------------------------------------


def test_ratio_by_hand_and_clamped():
    new = torch.tensor([[math.log(0.5), 30.0, -30.0]], dtype=torch.float64, requires_grad=True)
    batch = TokenBatch(**fields((1, 3), log_probs=new, old_log_probs=torch.zeros(1, 3, dtype=torch.float64)))
    assert batch.log_ratio[0, 1:].tolist() == [20.0, -20.0]
    assert batch.ratio[0, 0].item() == pytest.approx(0.5, rel=1e-15)
    (gradient,) = torch.autograd.grad(batch.log_ratio.sum(), new)
    assert gradient.tolist() == [[1.0, 0.0, 0.0]]


def test_unclamped_log_ratios_keep_value_and_gradient_but_for_padding():
    new = torch.tensor([[-60.0, 10.0, torch.nan]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    batch = TokenBatch(**fields((1, 3), log_probs=new, old_log_probs=torch.zeros(1, 3), mask=mask))
    for given in (batch, batch.with_current(new)):
        assert given.unclamped_log_ratio.tolist() == [[-60.0, 10.0, 0.0]]
        (gradient,) = torch.autograd.grad(given.unclamped_log_ratio.sum(), new)
        assert gradient.tolist() == [[1.0, 1.0, 0.0]]


def test_counts_skip_padding_and_empty_responses():
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    batch = TokenBatch(**fields((3, 3), mask=mask))
    assert batch.lengths.tolist() == [2, 0, 3]
    assert batch.total_tokens().item() == 5
    assert batch.total_sequences().item() == 2
    # Means of 2/2, nothing and 6/3.
    means = batch.sequence_mean(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]))
    assert means.tolist() == [[1.0], [0.0], [2.0]]


def test_given_counts_take_precedence():
    batch = TokenBatch(**fields(token_count=100, sequence_count=torch.tensor(20)))
    assert batch.total_tokens().item() == 100
    assert batch.total_sequences().item() == 20
    assert batch.total_sequences().dtype == batch.log_probs.dtype


def test_counts_per_replica():
    batch = TokenBatch(**fields((2, 2, 3), token_count=torch.tensor([7, 9])))
    assert batch.total_tokens().tolist() == [7, 9]
    assert batch.total_sequences().tolist() == [2, 2]


def test_trimmed_drops_the_columns_that_are_padding_everywhere():
    mask = torch.tensor([[True, False, False, False], [True, True, False, False]])
    batch = TokenBatch(**fields((2, 4), mask=mask, entropies=torch.ones(2, 4)))
    trimmed = batch.trimmed()
    assert batch.width == trimmed.width == 2
    for name in ("log_probs", "old_log_probs", "advantages", "mask", "entropies"):
        assert getattr(trimmed, name).shape == (2, 2)
    assert trimmed.ref_log_probs is None
    assert trimmed.lengths.tolist() == [1, 2]


def test_trimmed_keeps_columns_with_a_gap():
    mask = torch.tensor([[False, True, False, True, False]])
    assert TokenBatch(**fields((1, 5), mask=mask)).width == 4


def test_trimmed_computes_each_ratio_once():
    batch = TokenBatch(**fields())
    assert batch.ratio is not batch.ratio
    trimmed = batch.trimmed()
    assert trimmed.ratio is trimmed.ratio
    assert trimmed.with_current(batch.log_probs - 1).ratio is not trimmed.ratio


def test_trimmed_ratio_has_a_gradient_even_when_a_metric_reads_it_first():
    log_probs = torch.zeros(2, 3, requires_grad=True)
    trimmed = TokenBatch(**fields(log_probs=log_probs)).trimmed()
    with torch.no_grad():
        assert trimmed.ratio.requires_grad


def test_with_current_masks_the_new_policy_and_keeps_the_rest():
    mask = torch.tensor([[True, False, True]])
    batch = TokenBatch(**fields((1, 3), mask=mask, entropies=torch.ones(1, 3)))
    other = batch.with_current(torch.tensor([[-2.0, math.nan, -3.0]]), torch.tensor([[0.5, math.nan, 0.25]]))
    assert other.log_probs.tolist() == [[-2.0, 0.0, -3.0]]
    assert other.entropies.tolist() == [[0.5, 0.0, 0.25]]
    assert other.old_log_probs is batch.old_log_probs
    assert batch.log_probs.tolist() == [[-1.0, 0.0, -1.0]]


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_probs": torch.zeros(3)}, r"log_probs is a torch\.float32 tensor of shape \(3,\); expected a floating"),
        ({"log_probs": torch.zeros(2, 3, dtype=torch.int64)}, r"log_probs is a torch\.int64 tensor.*\(\.\.\., B, T\)"),
        ({"log_probs": [[0.0]]}, r"log_probs is a list; expected a floating-point tensor"),
        ({"mask": torch.ones(2, 3)}, r"mask is a torch\.float32 tensor.*; expected a bool tensor.*mask\.bool\(\)"),
        ({"mask": None}, r"mask is a NoneType; expected a bool tensor"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, r"mask has shape \(2, 4\); expected \(2, 3\) as log_probs"),
        ({"mask": torch.zeros(2, 3, dtype=torch.bool)}, r"mask marks no response token in at least one batch; a mean"),
        ({"old_log_probs": torch.zeros(2, 4)}, r"old_log_probs has shape \(2, 4\); expected \(2, 3\) as log_probs"),
        ({"old_log_probs": [[0.0] * 3] * 2}, r"old_log_probs is a list; expected a floating-point tensor"),
        ({"advantages": torch.ones(3)}, r"advantages has shape \(3,\); expected \(2,\) \(one value per response\) or"),
        ({"advantages": torch.ones(2, 2)}, r"advantages has shape \(2, 2\); expected \(2, 3\).* shifted by one"),
        ({"advantages": torch.ones(2, dtype=torch.int64)}, r"advantages is a torch\.int64 tensor of shape \(2,\)"),
        ({"entropies": torch.zeros(2, 2)}, r"entropies has shape \(2, 2\); expected \(2, 3\)"),
        ({"ref_log_probs": torch.zeros(3, 2)}, r"ref_log_probs has shape \(3, 2\); expected \(2, 3\)"),
        ({"sampler_log_probs": torch.zeros(2)}, r"sampler_log_probs has shape \(2,\); expected \(2, 3\)"),
        ({"log_probs": torch.full((2, 3), math.nan)}, r"log_probs holds NaN or infinity at a response token; expected"),
        ({"old_log_probs": torch.full((2, 3), -math.inf)}, r"old_log_probs holds NaN or infinity.*log\(0\)"),
        ({"old_entropies": torch.full((2, 3), math.inf)}, r"old_entropies holds NaN or infinity"),
        ({"token_count": 0}, r"token_count is 0; expected what the whole optimiser step has, at least 1"),
        ({"token_count": math.nan}, r"token_count is nan; expected what the whole optimiser step has"),
        ({"token_count": True}, r"token_count is True; expected a number"),
        ({"token_count": torch.tensor([6, 6])}, r"token_count has shape \(2,\); expected a number, or one per replica"),
        ({"sequence_count": -2}, r"sequence_count is -2; expected what the whole optimiser step has"),
        ({"sequence_count": "two"}, r"sequence_count is 'two'; expected a number"),
    ],
)
def test_rejects(changes, message):
    arguments = fields(**changes)
    with pytest.raises(BatchError, match=message):
        TokenBatch(**arguments)


def test_rejects_a_replica_without_tokens():
    mask = torch.ones(2, 2, 3, dtype=torch.bool)
    mask[1] = False
    with pytest.raises(BatchError, match=r"mask marks no response token in at least one batch"):
        TokenBatch(**fields((2, 2, 3), mask=mask))


def test_an_empty_micro_batch_is_fine_when_the_step_is_counted_elsewhere():
    batch = TokenBatch(**fields(mask=torch.zeros(2, 3, dtype=torch.bool), token_count=6, sequence_count=2))
    assert batch.lengths.tolist() == [0, 0]


def test_require_names_what_is_missing_and_returns_the_rest():
    batch = TokenBatch(**fields(entropies=torch.ones(2, 3)))
    assert batch.require("entropies", reason="a test reads it")[0] is batch.entropies
    with pytest.raises(
        BatchError,
        match=r"old_entropies and ref_log_probs missing from the batch; a test reads them\. "
        r"Pass old_entropies=\(\.\.\., B, T\), ref_log_probs=\(\.\.\., B, T\) to TokenBatch",
    ):
        batch.require("entropies", "old_entropies", "ref_log_probs", reason="a test reads them")
