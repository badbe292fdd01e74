"""What holds for every registered objective, whatever its name: driven by what its class declares."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from analysis.theory.gradient_weights import autograd_update, objectives_with_closed_form, random_tokens, token_update
from testbed import TokenBatch
from testbed.errors import BatchError
from testbed.objectives import Objective, make_objective, objective_names
from testbed.objectives._base import Wrapper

every_objective = pytest.mark.parametrize("name", objective_names())


def loss_and_gradient(objective: Objective, built: tuple[TokenBatch, Tensor]) -> tuple[Tensor, Tensor]:
    batch, leaf = built
    loss = objective.loss(batch)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), gradient


def close(actual: Tensor, expected: Tensor, rtol: float = 1e-12) -> None:
    # Sums over thousands of terms cancel: the absolute error is measured against the largest of them.
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol * float(expected.abs().max()))


# -- the batch: padding, order, replicas, micro-batches, constants -------------------------------------------


@every_objective
def test_padding_never_matters(name: str, drawn: Any) -> None:
    objective, given = make_objective(name), drawn(2, 160, 64)
    garbage = {"log_probs": float("nan"), "old_log_probs": float("inf"), "entropies": -1.0}

    def pad(field: str, value: Tensor) -> Tensor:
        if field == "advantages":
            return value
        return torch.nn.functional.pad(value, (0, 64), value=False if field == "mask" else garbage.get(field, 1e4))

    padded = type(given)({field: pad(field, value) for field, value in given.items()})
    loss, gradient = loss_and_gradient(objective, given.batch())
    padded_loss, padded_gradient = loss_and_gradient(objective, padded.batch())
    if objective.max_length_or(64) != objective.max_length_or(128) and objective.reduction.endswith("_norm"):
        # The divisor is declared to be the padded width, twice as much now: a power of two changes no bit.
        padded_loss, padded_gradient = 2 * padded_loss, 2 * padded_gradient
    assert torch.equal(loss, padded_loss)
    assert torch.equal(gradient, padded_gradient[..., :64])
    assert not padded_gradient[..., 64:].any()
    assert gradient.any()
    output = objective(padded.batch()[0])
    assert torch.equal(output.token_loss[..., :64], objective(given.batch()[0]).token_loss)
    assert not output.token_loss[..., 64:].any()


@every_objective
def test_order_of_sequences_never_matters(name: str, wide: Any) -> None:
    objective = make_objective(name)
    order = torch.randperm(160, generator=torch.Generator().manual_seed(1))
    shuffled = type(wide)({field: value[:, order] for field, value in wide.items()})
    loss, gradient = loss_and_gradient(objective, wide.batch())
    shuffled_loss, shuffled_gradient = loss_and_gradient(objective, shuffled.batch())
    close(shuffled_loss, loss)
    close(shuffled_gradient, gradient[:, order])


@every_objective
def test_replicas_are_independent(name: str, wide: Any) -> None:
    objective = make_objective(name)
    loss, gradient = loss_and_gradient(objective, wide.batch())
    metrics = objective(wide.batch()[0]).metrics
    for replica in range(2):
        alone = wide.map(lambda value, replica=replica: value[replica])
        alone_loss, alone_gradient = loss_and_gradient(objective, alone.batch())
        close(loss[replica], alone_loss)
        close(gradient[replica], alone_gradient)
        for key, value in objective(alone.batch()[0]).metrics.items():
            torch.testing.assert_close(metrics[key][replica], value, rtol=1e-12, atol=1e-12, equal_nan=True)
    assert not torch.equal(loss[0], loss[1])


@every_objective
def test_micro_batches_with_global_counts_equal_the_whole(name: str, wide: Any) -> None:
    objective = make_objective(name)
    whole = wide.map(lambda value: value[0])
    loss, gradient = loss_and_gradient(objective, whole.batch())
    counts = {"token_count": int(whole["mask"].sum()), "sequence_count": int(whole["mask"].any(-1).sum())}
    parts = []
    for rows in (slice(0, 7), slice(7, 100), slice(100, 160)):
        part = whole.map(lambda value, rows=rows: value[rows])
        parts.append(loss_and_gradient(objective, part.batch(**counts)))
    joined, total = torch.cat([part for _, part in parts]), sum(part for part, _ in parts)
    if objective.needs_whole_batch:
        # The declaration is not a mere excuse.
        assert not torch.allclose(joined, gradient, rtol=1e-9, atol=1e-15)
    else:
        close(total, loss)
        close(joined, gradient)


@every_objective
def test_only_the_current_policy_gets_a_gradient(name: str, wide: Any) -> None:
    objective = make_objective(name)
    constants = ("old_log_probs", "advantages", "old_entropies", "sampler_log_probs", "ref_log_probs")
    leaves = {field: wide[field].clone().requires_grad_() for field in constants}
    batch, log_probs = wide.batch(**leaves)
    gradients = torch.autograd.grad(objective(batch).loss.sum(), [log_probs, *leaves.values()], allow_unused=True)
    assert gradients[0].any()
    assert gradients[1:] == (None,) * len(constants)


@every_objective
def test_needs_exactly_the_optional_fields_it_declares(name: str, wide: Any) -> None:
    objective = make_objective(name)
    optional = ("entropies", "old_entropies", "sampler_log_probs", "ref_log_probs")
    expected, _ = loss_and_gradient(objective, wide.batch())
    spare = {field: None for field in optional if field not in objective.needs}
    assert torch.equal(loss_and_gradient(objective, wide.batch(**spare))[0], expected)
    for field in objective.needs:
        batch, _ = wide.batch(**{field: None})
        with pytest.raises(BatchError, match=rf"{field} missing from the batch; {name} reads"):
            objective(batch)


# -- the mathematics -----------------------------------------------------------------------------------------


@every_objective
def test_on_policy_gradient_is_the_exact_policy_gradient(name: str) -> None:
    # Two steps over three letters: all nine sequences, each weighted with its probability through its advantage.
    objective = make_objective(name, reduction="seq_mean_token_sum")
    if objective.exact_on_policy:
        pytest.skip(f"declared: {objective.exact_on_policy}")
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
    second = torch.randn(3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    rewards = torch.randn(9, generator=generator, dtype=torch.float64)
    steps = [first.log_softmax(-1), second.log_softmax(-1)]
    log_probs = torch.stack([steps[0].repeat_interleave(3), steps[1].flatten()], -1)
    entropy = [-(step.exp() * step).sum(-1) for step in steps]
    entropies = torch.stack([entropy[0].expand(9), entropy[1].repeat_interleave(3)], -1)
    probabilities = log_probs.sum(-1).exp()
    exact = torch.autograd.grad((probabilities * rewards).sum(), [first, second], retain_graph=True)
    batch = TokenBatch(
        log_probs=log_probs,
        old_log_probs=log_probs,
        advantages=9 * probabilities.detach() * rewards,
        mask=torch.ones(9, 2, dtype=torch.bool),
        entropies=entropies,
        old_entropies=entropies,
        sampler_log_probs=log_probs,
        ref_log_probs=log_probs,
    )
    ours = torch.autograd.grad(-objective(batch).loss, [first, second])
    for actual, expected in zip(ours, exact, strict=True):
        close(actual, expected)
        assert expected.any()


@every_objective
def test_without_advantage_there_is_no_loss_and_no_gradient(name: str, wide: Any) -> None:
    objective = make_objective(name)
    for size in (1.0, 1e4):
        given = {"advantages": torch.zeros(2, 160, dtype=torch.float64)}
        batch, leaf = wide.batch(log_probs=wide["old_log_probs"] + size * (wide["log_probs"] - 1).sign(), **given)
        loss, gradient = loss_and_gradient(objective, (batch, leaf))
        if objective.acts_without_advantage:
            assert loss.any()
            assert loss.isfinite().all()
            assert gradient.isfinite().all()
        else:
            assert not loss.any()
            assert not gradient.any()


@every_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_log_ratios_stay_finite(name: str, dtype: torch.dtype, drawn: Any) -> None:
    objective, given = make_objective(name), drawn(30, 6, dtype=dtype)
    signs = torch.where(torch.arange(6) % 2 == 0, 1e4, -1e4).to(dtype)
    for shift in (signs, signs.abs(), -signs.abs()):
        loss, gradient = loss_and_gradient(objective, given.batch(log_probs=given["old_log_probs"] + shift))
        assert loss.isfinite().all()
        assert gradient.isfinite().all()
    # A reference or a sampler that disagrees as much.
    far = {field: given[field] + 1e4 * signs.sign() for field in ("ref_log_probs", "sampler_log_probs")}
    loss, gradient = loss_and_gradient(objective, given.batch(**far))
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


@every_objective
def test_single_precision_loses_five_digits_at_most(name: str, wide: Any) -> None:
    # Float32 has seven digits; an exponential of a sum of log-ratios loses one or two of them.
    objective = make_objective(name)
    single = wide.map(lambda value: value.float() if value.is_floating_point() else value)
    loss, gradient = loss_and_gradient(objective, wide.batch())
    single_loss, single_gradient = loss_and_gradient(objective, single.batch())
    assert single_loss.dtype == single_gradient.dtype == torch.float32
    # Sums that cancel are measured against the sum of the absolute token losses.
    batch = wide.batch()[0]
    unit = objective._reduce(objective(batch).token_loss.abs(), batch, 64)
    assert ((single_loss.double() - loss).abs() <= 2e-5 * unit).all()
    assert ((single_gradient.double() - gradient).abs() <= 2e-5 * gradient.abs().amax((-2, -1), keepdim=True)).all()


@every_objective
@pytest.mark.parametrize("seed", range(3))
def test_gradient_is_the_published_weight(name: str, seed: int) -> None:
    if name not in objectives_with_closed_form():
        objective = make_objective(name)
        assert objective.needs_whole_batch or isinstance(objective, Wrapper), f"{name} has no closed form"
        pytest.skip("decided by a rank over the batch, or the sum of a base and a penalty; see the objective's tests")
    tokens = random_tokens(seed)
    expected, actual = token_update(name, tokens), autograd_update(name, tokens)
    close(torch.from_numpy(actual), torch.from_numpy(expected))
    assert (expected != 0).any()


@every_objective
def test_closed_form_of_the_gradient_is_that_of_autograd(name: str, drawn: Any) -> None:
    objective, given = make_objective(name), drawn(2, 40, 16)
    if not objective.has_closed_form:
        pytest.skip("states none")
    # Some tokens beyond the clamp of the log-ratio, where the gradient is zero.
    given["old_log_probs"][..., ::5] -= 30.0 * (torch.arange(4) % 2)
    batch, leaf = given.batch()
    closed = objective.log_prob_gradient(batch)
    assert closed is not None
    (expected,) = torch.autograd.grad(objective.token_loss(batch).sum(), leaf)
    close(closed.masked_fill(~batch.mask, 0), expected)
    assert expected.any()
    weights = objective.reduction_weights(batch)
    close((weights * closed).masked_fill(~batch.mask, 0), loss_and_gradient(objective, (batch, leaf))[1])


@every_objective
def test_gradient_is_the_derivative_unless_declared(name: str, drawn: Any) -> None:
    objective, given = make_objective(name), drawn(12, 4)
    # One advantage per token: with one per response, GSPO-token's stop-gradient leaves the gradient as it is.
    generator = torch.Generator().manual_seed(1)
    batch, leaf = given.batch(advantages=torch.randn(12, 4, generator=generator, dtype=torch.float64))

    def loss(log_probs: Tensor) -> Tensor:
        return objective.loss(batch.with_current(log_probs))

    agrees = torch.autograd.gradcheck(loss, leaf, eps=1e-7, atol=1e-6, raise_exception=False)
    assert agrees == (not objective.cuts_gradient), objective.cuts_gradient or "undeclared stop-gradient"


# -- hyper-parameters and devices ----------------------------------------------------------------------------


def tensor_hyper_parameters(objective: Objective) -> dict[str, float]:
    """The fields that may be tensors and have a number as default."""
    return {
        item.name: item.default
        for item in fields(objective)
        if "Hyper" in str(item.type) and isinstance(item.default, float)
    }


@every_objective
def test_a_tensor_of_hyper_parameters_equals_a_loop_over_floats(name: str, wide: Any) -> None:
    objective = make_objective(name)
    whole = wide.map(lambda value: value[0])
    for key, default in tensor_hyper_parameters(objective).items():
        values = [default, 0.75 * default, 1.1 * default]
        together = replace(objective, **{key: torch.tensor(values, dtype=torch.float64).view(3, 1, 1)})
        replicas = whole.map(lambda value: value.expand(3, *value.shape))
        stacked, stacked_gradient = loss_and_gradient(together, replicas.batch())
        shared = together(whole.batch()[0])
        for index, value in enumerate(values):
            alone, gradient = loss_and_gradient(replace(objective, **{key: value}), whole.batch())
            close(stacked[index], alone)
            close(stacked_gradient[index], gradient)
            close(shared.loss[index].detach(), alone)


# The compiler looks at attributes whose access warns, and breaks the graph where a value decides.
@pytest.mark.filterwarnings("ignore")
@every_objective
def test_works_under_torch_compile(name: str, drawn: Any) -> None:
    objective, given = make_objective(name), drawn(20, 6)
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
def test_works_on_cuda(name: str, wide: Any) -> None:
    objective = make_objective(name)
    expected, expected_gradient = loss_and_gradient(objective, wide.batch())
    loss, gradient = loss_and_gradient(objective, wide.map(lambda value: value.cuda()).batch())
    close(loss.cpu(), expected, rtol=1e-9)
    close(gradient.cpu(), expected_gradient, rtol=1e-9)
    assert all(value.is_cuda for value in objective(wide.map(lambda v: v.cuda()).batch()[0]).metrics.values())
