from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

from testbed import TokenBatch
from testbed.objectives import make_objective, objective_names

MASK = torch.tensor([[True, True, False], [True, False, False]])


def batch(**changes) -> TokenBatch:
    numbers = torch.full((2, 3), -1.0)
    given = {
        "log_probs": numbers,
        "old_log_probs": numbers,
        "advantages": torch.tensor([1.0, -1.0]),
        "mask": MASK,
        "groups": torch.tensor([7, 8]),
        **dict.fromkeys(("entropies", "old_entropies", "sampler_log_probs", "ref_log_probs"), numbers),
    }
    return TokenBatch(**given | changes)


def test_batches_that_differ_in_the_policy_share_one_rollout():
    first = batch()
    second = first.with_current(first.log_probs - 1)
    assert second.rollout is first.rollout
    assert second.opposite_advantages is first.opposite_advantages
    assert second.lengths is first.lengths


def test_a_mask_taken_over_is_not_looked_at_again():
    first = batch()
    fields = {name: getattr(first, name) for name in ("log_probs", "old_log_probs", "advantages", "mask")}
    assert TokenBatch.trusted(like=first, **fields).rollout.mask is first.rollout.mask
    assert TokenBatch.trusted(like=first, **fields | {"mask": MASK.clone()}).rollout.mask is not first.rollout.mask


def test_trimming_is_done_once_and_leaves_what_has_no_columns():
    first = batch()
    trimmed = first.trimmed()
    assert trimmed.rollout is first.with_current(first.log_probs).trimmed().rollout
    assert trimmed.log_probs.shape == (2, 2)
    assert trimmed.groups.tolist() == [7, 8]
    assert (trimmed.padded_width, trimmed.trimmed().padded_width) == (3, 3)
    assert trimmed.response_advantages.tolist() == [[1.0], [-1.0]]


def test_a_batch_is_frozen():
    first = batch()
    with pytest.raises(FrozenInstanceError):
        first.mask = ~MASK
    with pytest.raises(FrozenInstanceError):
        first.rollout = None


@pytest.mark.parametrize("name", objective_names())
def test_evaluation_leaves_the_fields_alone(name):
    objective = make_objective(name)
    if not {"old_kappas"}.isdisjoint(objective.needs):
        pytest.skip("reads what this batch does not hold")
    for given in (batch(), batch().with_current(torch.full((2, 3), -1.5))):
        before = {name: value for name, value in vars(given).items() if not name.startswith("_")}
        _ = objective(given).metrics
        after = {name: value for name, value in vars(given).items() if not name.startswith("_")}
        assert before.keys() == after.keys()
        assert all(after[name] is value for name, value in before.items())


def test_a_first_reader_without_a_graph_does_not_take_it_from_the_others():
    leaf = torch.full((2, 3), -1.5, requires_grad=True)
    other = batch().with_current(leaf)
    with torch.no_grad():
        assert other.log_probs.requires_grad
    other.log_ratio.sum().backward()
    assert torch.equal(leaf.grad, MASK.float())
