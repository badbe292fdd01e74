"""What holds for every registered objective, whatever its name: driven by what its class declares."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis.laws import LAWS, Law, check_laws, draw, loss_and_gradient
from analysis.theory.gradient_weights import (
    autograd_update,
    objectives_with_closed_form,
    random_tokens,
    reduction_coefficient,
    token_update,
)
from testbed.objectives import Wrapper, make_objective, objective_names


def file_of_tests(name: str) -> ModuleType:
    """The objective's own test file, which may state its gradient as `push`: F·A of every token `(B, T)`, in numpy."""
    path = Path(__file__).parents[1] / "objectives" / f"test_{name}.py"
    specification = importlib.util.spec_from_file_location(f"push_of_{name}", path)
    assert specification is not None, path
    assert specification.loader is not None, path
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


every_objective = pytest.mark.parametrize("name", objective_names())


def close(actual: Tensor, expected: Tensor, rtol: float = 1e-12) -> None:
    # Sums over thousands of terms cancel: the absolute error is measured against the largest of them.
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol * float(expected.abs().max()))


@every_objective
@pytest.mark.parametrize("law", LAWS, ids=[law.name for law in LAWS])
def test_the_law_holds(name: str, law: Law) -> None:
    finding = next(finding for finding in check_laws(make_objective(name), [law]))
    if finding.outcome == "exempt":
        pytest.skip(f"exempt: {finding.detail}")
    assert finding.outcome == "holds", finding.detail


@every_objective
def test_only_the_current_policy_gets_a_gradient(name: str) -> None:
    # The batch sees to it: whatever else a caller's graph reaches is a constant.
    given = draw(2, 160, 64)
    constants = ("old_log_probs", "advantages", "old_entropies", "sampler_log_probs", "ref_log_probs")
    leaves = {field: given[field].clone().requires_grad_() for field in constants}
    batch, log_probs = given.batch(**leaves)
    loss = make_objective(name)(batch).loss.sum()
    gradients = torch.autograd.grad(loss, [log_probs, *leaves.values()], allow_unused=True)
    assert gradients[0].any()
    assert gradients[1:] == (None,) * len(constants)


@every_objective
@pytest.mark.parametrize("seed", range(3))
def test_gradient_is_the_published_weight(name: str, seed: int) -> None:
    objective, tokens = make_objective(name), random_tokens(seed)
    stated = getattr(file_of_tests(name), "push", None)
    if stated is not None:
        coefficient = reduction_coefficient(objective.reduction, tokens.mask)
        expected = np.where(tokens.mask, coefficient * stated(tokens, objective), 0.0)
    elif name in objectives_with_closed_form():
        expected = token_update(name, tokens)
    else:
        declared = objective.needs_whole_batch or isinstance(objective, Wrapper)
        assert declared, (
            f"{name} has no closed form; give test_{name}.py a function push(tokens, objective), F·A in numpy"
        )
        pytest.skip("decided by a rank over the batch, or the sum of a base and a penalty; see the objective's tests")
    actual = autograd_update(name, tokens)
    close(torch.from_numpy(actual), torch.from_numpy(expected))
    assert (expected != 0).any()


# The compiler looks at attributes whose access warns, and breaks the graph where a value decides.
@pytest.mark.filterwarnings("ignore")
@every_objective
def test_works_under_torch_compile(name: str) -> None:
    objective, given = make_objective(name), draw(20, 6)
    expected, expected_gradient = loss_and_gradient(objective, given.batch())
    batch, leaf = given.batch()
    # The eager backend runs what the compiler traced, without needing a C++ tool chain.
    torch.compiler.reset()
    compiled = torch.compile(lambda log_probs: objective.loss(batch.with_current(log_probs)), backend="eager")
    loss = compiled(leaf)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    close(loss.detach(), expected)
    close(gradient, expected_gradient)


@every_objective
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_works_on_cuda(name: str) -> None:
    objective, wide = make_objective(name), draw(2, 160, 64)
    expected, expected_gradient = loss_and_gradient(objective, wide.batch())
    loss, gradient = loss_and_gradient(objective, wide.map(lambda value: value.cuda()).batch())
    close(loss.cpu(), expected, rtol=1e-9)
    close(gradient.cpu(), expected_gradient, rtol=1e-9)
    assert all(value.is_cuda for value in objective(wide.map(lambda v: v.cuda()).batch()[0]).metrics.values())
