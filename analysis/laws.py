"""What has to hold for every objective, whatever its formula: the laws, and a check of each.

A check draws batches in which every branch of an objective is met, and returns what it found wrong, or `None`. Where a
class declares an exception (`exact_on_policy`, `needs_whole_batch`, …) the objective is exempt, with the reason; a
declaration that is not true is a finding like any other. A law whose check means nothing while another law is broken
is not checked then, so that one mistake is one finding. The same checks judge the registered objectives in the tests
and an unpublished one in `analysis.audit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.errors import BatchError
from testbed.objectives import Objective

__all__ = ["LAWS", "Drawn", "Finding", "Law", "check_laws", "draw", "loss_and_gradient"]

Outcome = Literal["holds", "exempt", "broken", "unchecked"]
PRECISION = 1e-12
"""Relative to the largest entry: sums over thousands of terms cancel."""
OPTIONAL = ("entropies", "old_entropies", "old_kappas", "sampler_log_probs", "ref_log_probs")


@dataclass(frozen=True)
class Law:
    """One statement about every objective.

    Attributes:
        name: a word or two.
        statement: what has to hold, in a sentence.
        check: what is wrong with an objective, or `None`.
        exempt: why the law does not bind an objective, or an empty string. The check then has to confirm it.
        rests_on: laws without which this one's check means nothing.
    """

    name: str
    statement: str
    check: Callable[[Objective], str | None]
    exempt: Callable[[Objective], str] = lambda objective: ""
    rests_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What a law said about an objective.

    Attributes:
        law: the law's name.
        statement: what has to hold.
        outcome: `holds`, `exempt` (the class declares an exception, and it is real), `broken`, or `unchecked` (a law it
            rests on is broken).
        detail: the reason of the exception, or what is wrong; empty where the law holds.
        cause: of an unchecked law, the broken one.
    """

    law: str
    statement: str
    outcome: Outcome
    detail: str
    cause: str = ""


def check_laws(objective: Objective, laws: Sequence[Law] | None = None) -> list[Finding]:
    """The finding of every law, or of `laws`, in their order. An error the objective raises is a finding.

    What rests on a broken law is not checked; a law that is not among `laws` counts as kept.

    >>> from testbed.objectives import make_objective
    >>> {finding.outcome for finding in check_laws(make_objective("dapo"))}
    {'holds'}
    >>> [finding.law for finding in check_laws(make_objective("bapo")) if finding.outcome == "exempt"]
    ['other responses', 'own advantage', 'micro-batches', 'closed form']
    """
    causes: dict[str, str] = {}
    findings = []
    for law in LAWS if laws is None else laws:
        cause = next((causes[name] for name in law.rests_on if name in causes), "")
        if cause:
            finding = Finding(
                law.name, law.statement, "unchecked", f"it means nothing while {cause!r} is broken", cause
            )
        else:
            finding = _find(law, objective)
        if finding.outcome in ("broken", "unchecked"):
            causes[law.name] = cause or law.name
        findings.append(finding)
    return findings


def _find(law: Law, objective: Objective) -> Finding:
    try:
        wrong = law.check(objective)
    except Exception as error:
        # Somebody else's code may raise anything.
        wrong = f"it raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    if wrong is not None:
        return Finding(law.name, law.statement, "broken", wrong)
    reason = law.exempt(objective)
    return Finding(law.name, law.statement, "exempt" if reason else "holds", reason)


# -- batches ---------------------------------------------------------------------------------------------------------


class Drawn(dict[str, Any]):
    """The fields of a batch; `batch()` builds it on a fresh leaf, the caller's tensor that gradients are taken of."""

    def batch(self, **changes: Any) -> tuple[TokenBatch, Tensor]:
        """A batch with some fields replaced, and the leaf behind its `log_probs`."""
        given = {**self, **changes}
        given["log_probs"] = given["log_probs"].detach().requires_grad_()
        return TokenBatch(**given), given["log_probs"]

    def map(self, function: Callable[[Any], Any]) -> Drawn:
        """The same fields, each through `function`."""
        return Drawn({name: function(value) for name, value in self.items()})

    def at(self, index: int | slice) -> Drawn:
        """The same fields, each at an index of its first dimension."""
        return self.map(lambda value: value[index])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Drawn:
    """Random fields of shape `(..., B, T)`.

    Old probabilities span three decades. Log-ratios are small in some responses and large in others, so that
    sequence-level ratios fall on both sides of their bounds too. Every tenth response has no advantage. Lengths vary,
    one response is empty.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float32)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float32)

    sequences, width = shape[-2:]
    rows = (*shape[:-1], 1)
    old = -6.9 * uniform(*shape)
    scale = torch.tensor([1e-3, 1e-2, 0.1, 0.5, 1.0])[torch.arange(sequences) % 5].view(sequences, 1)
    log_ratio = scale * (normal(*shape) + 0.3 * normal(*rows))
    place = torch.arange(sequences * width).view(sequences, width)
    # Nine of ten tokens are as surprising as expected, so that the others stand out in what they do to entropy.
    entropies = torch.where(place % 10 > 0, -old, 2 * uniform(*shape)) + 0.05
    lengths = (uniform(*rows) * (width + 1)).floor().clamp(1, width)
    lengths[..., 0, 0] = width
    lengths[..., -1, 0] = 0
    advantages = normal(*shape[:-1])
    advantages[..., ::10] = 0
    drawn = {
        "log_probs": old + log_ratio,
        "old_log_probs": old,
        "advantages": advantages,
        "entropies": entropies,
        "old_entropies": entropies * (0.05 * normal(*shape)).exp(),
        "old_kappas": torch.where(place % 500 == 3, 3.0, 0.1).expand(shape),
        "sampler_log_probs": old + 0.3 * normal(*shape),
        "ref_log_probs": old + 0.3 * normal(*shape),
    }
    # Drawn in single precision, so that both precisions start from the same numbers.
    return Drawn({name: value.to(dtype) for name, value in drawn.items()}, mask=torch.arange(width) < lengths)


@cache
def _wide() -> Drawn:
    """Two replicas of 160 responses: enough tokens for a fraction of 2e-4 of them to be one."""
    return draw(2, 160, 64)


def loss_and_gradient(objective: Objective, built: tuple[TokenBatch, Tensor]) -> tuple[Tensor, Tensor]:
    """The detached loss of a batch, and the gradient of its sum over replicas with respect to the leaf."""
    batch, leaf = built
    loss = objective.loss(batch)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), gradient


def _differ(name: str, actual: Tensor, expected: Tensor, precision: float = PRECISION) -> str | None:
    """What to say where two tensors are further apart than `precision` of the largest expected entry."""
    if actual.shape != expected.shape:
        return f"the {name} has shape {tuple(actual.shape)} instead of {tuple(expected.shape)}"
    error = float((actual.detach() - expected.detach()).abs().max())
    allowed = precision * float(expected.detach().abs().max())
    # Written so that NaN is a difference.
    return None if error <= allowed else f"the {name} differs by {error:.1e}, where {allowed:.1e} is rounding"


def _first(*found: str | None) -> str | None:
    return next((item for item in found if item is not None), None)


# -- what the batch must not decide ----------------------------------------------------------------------------------


def _gradient(objective: Objective) -> str | None:
    batch, leaf = _wide().batch()
    loss = objective.loss(batch)
    if loss.shape != leaf.shape[:-2]:
        return f"the loss has shape {tuple(loss.shape)} instead of {tuple(leaf.shape[:-2])}, one per replica"
    if not bool(loss.isfinite().all()):
        return "the loss of an ordinary batch is not finite"
    if not loss.requires_grad:
        return (
            "the loss has no gradient: nothing in it depends on log_probs. Is the ratio detached, or the "
            "log-probability that it weighs forgotten?"
        )
    (gradient,) = torch.autograd.grad(loss.sum(), leaf, allow_unused=True)
    if gradient is None or not bool(gradient.any()):
        return "the gradient is zero for every token"
    return None if bool(gradient.isfinite().all()) else "the gradient of an ordinary batch is not finite"


def _shape(objective: Objective) -> str | None:
    batch, leaf = _wide().batch()
    token_loss = objective(batch).token_loss
    if token_loss.shape != leaf.shape:
        return f"token_loss has shape {tuple(token_loss.shape)} instead of {tuple(leaf.shape)}"
    return "token_loss is not 0 outside the mask" if bool(token_loss[~batch.mask].any()) else None


def _pure(objective: Objective) -> str | None:
    batch, leaf = _wide().batch()
    names = ("log_probs", "old_log_probs", "advantages", "mask", *OPTIONAL)
    before = {name: getattr(batch, name).detach().clone() for name in names}
    first, first_gradient = loss_and_gradient(objective, (batch, leaf))
    changed = [name for name, value in before.items() if not torch.equal(getattr(batch, name), value)]
    if changed:
        return f"calling it changes {', '.join(changed)} of the batch"
    second, second_gradient = loss_and_gradient(objective, (batch, leaf))
    if not torch.equal(first, second) or not torch.equal(first_gradient, second_gradient):
        return "two calls on one batch give different numbers"
    return None


def _padding(objective: Objective) -> str | None:
    given = draw(2, 160, 64)
    garbage = {"log_probs": float("nan"), "old_log_probs": float("inf"), "entropies": -1.0}

    def pad(name: str, value: Tensor) -> Tensor:
        if name == "advantages":
            return value
        return torch.nn.functional.pad(value, (0, 64), value=False if name == "mask" else garbage.get(name, 1e4))

    padded = Drawn({name: pad(name, value) for name, value in given.items()})
    loss, gradient = loss_and_gradient(objective, given.batch())
    padded_loss, padded_gradient = loss_and_gradient(objective, padded.batch())
    if _divides_by_width(objective):
        # The divisor is declared to be the padded width, twice as much now: a power of two changes no bit.
        padded_loss, padded_gradient = 2 * padded_loss, 2 * padded_gradient
    if not torch.equal(loss, padded_loss):
        return "the loss depends on the padding"
    if not torch.equal(gradient, padded_gradient[..., :64]) or bool(padded_gradient[..., 64:].any()):
        return "the gradient depends on the padding, or reaches it"
    output = objective(padded.batch()[0]).token_loss
    if not torch.equal(output[..., :64], objective(given.batch()[0]).token_loss) or bool(output[..., 64:].any()):
        return "token_loss depends on the padding, or is not 0 there"
    return None


def _divides_by_width(objective: Objective) -> bool:
    return objective.reduction.endswith("_norm") and bool(
        torch.as_tensor(objective.max_length_or(64) != objective.max_length_or(128)).any()
    )


def _own_advantage(objective: Objective) -> str | None:
    given = draw(2, 40, 8)
    generator = torch.Generator().manual_seed(4)
    advantages = torch.randn(2, 40, 8, generator=generator, dtype=torch.float64)
    mixed = False
    for column in (0, 3, 7):
        # Larger than any of before and often of the other sign: means, maxima and signs of the response all move.
        others = 20 * torch.randn(2, 40, 8, generator=generator, dtype=torch.float64)
        others[..., column] = advantages[..., column]
        before, after = (
            _token_losses(objective, given.batch(advantages=values), slice(None), column)
            for values in (advantages, others)
        )
        wrong = _first(
            _differ("token_loss", after[0], before[0]), _differ("gradient of token_loss", after[1], before[1])
        )
        if wrong is not None and not objective.mixes_advantages and not objective.needs_whole_batch:
            return f"where other tokens have another advantage, {wrong}; declare mixes_advantages if that is meant"
        mixed |= wrong is not None
    if objective.mixes_advantages and not mixed:
        return "it declares mixes_advantages, but a token's loss reads its own alone"
    return None


def _mixed_advantages(objective: Objective) -> str:
    return objective.mixes_advantages or _whole_batch(objective)


_EXTREMES: tuple[tuple[str, float], ...] = (
    *(("log_probs", size) for size in (18.0, -18.0, 1e4, -1e4)),
    *(("advantages", size) for size in (50.0, -50.0)),
    *(("entropies", size) for size in (0.0, 30.0)),
    *(("old_entropies", size) for size in (1e-6, 30.0)),
    *(("sampler_log_probs", size) for size in (9.0, -9.0)),
    *(("ref_log_probs", size) for size in (9.0, -9.0)),
    ("old_log_probs", -60.0),
    ("mask", 1.0),
)
"""What responses are given: log-probabilities so far from the old ones, or both so small, other fields so large, or a
single token."""


def _other_responses(objective: Objective) -> str | None:
    if objective.needs_whole_batch:
        # Confirmed by the law of micro-batches.
        return None
    given = draw(2, 40, 8)
    for moved, kept in ((_ONE, _OTHERS), (_OTHERS, _ONE)):
        before = _token_losses(objective, given.batch(), kept, slice(None))
        for name, size in _EXTREMES:
            after = _token_losses(objective, _with_extreme(given, name, size, moved).batch(), kept, slice(None))
            found = zip(("token_loss", "gradient of token_loss"), after, before, strict=True)
            wrong = _first(*(_differ(f"{what} of the others", new, old) for what, new, old in found))
            if wrong is not None:
                where = "one response has" if moved is _ONE else "all but one response have"
                what = "length" if name == "mask" else name
                return f"where {where} an extreme {what}, {wrong}; declare needs_whole_batch if that is meant"
    return None


_ONE = [3]
_OTHERS = [row for row in range(40) if row not in _ONE]


def _with_extreme(given: Drawn, name: str, size: float, rows: Sequence[int]) -> Drawn:
    """The fields with some responses of the second replica changed; the first replica is as it was."""
    changed = given.map(torch.clone)
    chosen = (1, list(rows))
    if name == "log_probs":
        changed[name][chosen] = given["old_log_probs"][chosen] + size
    elif name == "old_log_probs":
        for field in ("log_probs", "old_log_probs", "sampler_log_probs", "ref_log_probs"):
            changed[field][chosen] += size
    elif name.endswith("log_probs"):
        changed[name][chosen] += size
    elif name == "mask":
        changed[name][chosen] = torch.arange(8) < size
    else:
        changed[name][chosen] = size
    return changed


def _token_losses(
    objective: Objective, built: tuple[TokenBatch, Tensor], rows: slice | list[int], columns: slice | int
) -> tuple[Tensor, Tensor]:
    """Token losses of some rows and columns of every replica, and the gradient of their sum."""
    batch, leaf = built
    chosen = objective.token_loss(batch)[:, rows][..., columns]
    (gradient,) = torch.autograd.grad(chosen.sum(), leaf)
    return chosen.detach(), gradient


def _order(objective: Objective) -> str | None:
    given = _wide()
    order = torch.randperm(160, generator=torch.Generator().manual_seed(1))
    loss, gradient = loss_and_gradient(objective, given.batch())
    shuffled, shuffled_gradient = loss_and_gradient(objective, given.map(lambda value: value[:, order]).batch())
    return _first(_differ("loss", shuffled, loss), _differ("gradient", shuffled_gradient, gradient[:, order]))


def _replicas(objective: Objective) -> str | None:
    given = _wide()
    loss, gradient = loss_and_gradient(objective, given.batch())
    metrics = objective(given.batch()[0]).metrics
    for replica in range(2):
        alone = given.at(replica)
        alone_loss, alone_gradient = loss_and_gradient(objective, alone.batch())
        wrong = _first(
            _differ("loss", loss[replica], alone_loss), _differ("gradient", gradient[replica], alone_gradient)
        )
        if wrong is not None:
            return f"beside another replica, {wrong}"
        for name, value in objective(alone.batch()[0]).metrics.items():
            if not torch.allclose(metrics[name][replica], value, rtol=1e-12, atol=1e-12, equal_nan=True):
                return f"metric {name} is {float(metrics[name][replica])} beside another replica, {float(value)} alone"
    return "two different replicas have the same loss" if torch.equal(loss[0], loss[1]) else None


def _micro_batches(objective: Objective) -> str | None:
    whole = _wide().at(0)
    loss, gradient = loss_and_gradient(objective, whole.batch())
    counts = {"token_count": int(whole["mask"].sum()), "sequence_count": int(whole["mask"].any(-1).sum())}
    parts = [
        loss_and_gradient(objective, whole.at(rows).batch(**counts))
        for rows in (slice(0, 7), slice(7, 100), slice(100, 160))
    ]
    joined, total = torch.cat([part for _, part in parts]), torch.stack([part for part, _ in parts]).sum(0)
    if objective.needs_whole_batch:
        split = not torch.allclose(joined, gradient, rtol=1e-9, atol=1e-15)
        return None if split else "it declares needs_whole_batch, but parts of the batch add up to the whole"
    wrong = _first(_differ("sum of the losses", total, loss), _differ("gradient", joined, gradient))
    return None if wrong is None else f"over three parts with the step's counts, {wrong}; declare needs_whole_batch"


def _needs(objective: Objective) -> str | None:
    given = _wide()
    expected, _ = loss_and_gradient(objective, given.batch())
    spare = {name: None for name in OPTIONAL if name not in objective.needs}
    if not torch.equal(loss_and_gradient(objective, given.batch(**spare))[0], expected):
        return f"the loss changes without {', '.join(spare)}, which `needs` does not name"
    for name in objective.needs:
        batch, _ = given.batch(**{name: None})
        try:
            objective(batch)
        except BatchError:
            continue
        return f"`needs` names {name}, but a batch without it is accepted"
    return None


# -- the mathematics -------------------------------------------------------------------------------------------------


def _on_policy(objective: Objective) -> str | None:
    # Two steps over three letters: all nine sequences, each weighted with its probability through its advantage.
    summed = replace(objective, reduction="seq_mean_token_sum")
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
    second = torch.randn(3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    rewards = torch.randn(9, generator=generator, dtype=torch.float64)
    # What is declared has to show: a reference and a sampler that are the policy itself would hide it.
    elsewhere = torch.randn(9, 2, generator=generator, dtype=torch.float64) * bool(objective.exact_on_policy)
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
        # κ = Σ_v p_v²(log p_v + H) at both positions.
        old_kappas=torch.stack([_kappa(steps[0]).expand(9), _kappa(steps[1]).repeat_interleave(3)], -1),
        sampler_log_probs=log_probs.detach() + elsewhere,
        ref_log_probs=log_probs.detach() - elsewhere,
    )
    ours = torch.autograd.grad(-summed.loss(batch), [first, second])
    wrong = _first(*(_differ("gradient", actual, wanted) for actual, wanted in zip(ours, exact, strict=True)))
    if objective.exact_on_policy:
        # A share of the tokens of a whole batch can be none of these eighteen.
        confirmed = wrong is not None or objective.needs_whole_batch
        return None if confirmed else "it declares that its gradient at ratio 1 is not the policy gradient, but it is"
    return None if wrong is None else f"at ratio 1, {wrong}; declare exact_on_policy"


def _kappa(log_policy: Tensor) -> Tensor:
    policy = log_policy.exp()
    entropy = -(policy * log_policy).sum(-1, keepdim=True)
    return (policy.square() * (log_policy + entropy)).sum(-1)


def _no_advantage(objective: Objective) -> str | None:
    given, remains = _wide(), False
    for size in (1.0, 1e4):
        moved = given["old_log_probs"] + size * (given["log_probs"] - 1).sign()
        nothing = torch.zeros(2, 160, dtype=torch.float64)
        loss, gradient = loss_and_gradient(objective, given.batch(log_probs=moved, advantages=nothing))
        if not bool(loss.isfinite().all() and gradient.isfinite().all()):
            return f"with A = 0 and log-ratios of {size:g} the loss or its gradient is not finite"
        remains |= bool(loss.any() or gradient.any())
    if objective.acts_without_advantage:
        return None if remains else "it declares a term that acts without advantage, but there is none"
    return "with A = 0 there is a loss or a gradient left; declare acts_without_advantage" if remains else None


def _extremes(objective: Objective) -> str | None:
    for dtype in (torch.float32, torch.float64):
        given = draw(30, 6, dtype=dtype)
        signs = torch.where(torch.arange(6) % 2 == 0, 1e4, -1e4).to(dtype)
        shifts = {
            "log_probs": (signs, signs.abs(), -signs.abs()),
            "ref_log_probs": (signs,),
            "sampler_log_probs": (signs,),
        }
        for name, sizes in shifts.items():
            start = given["old_log_probs"] if name == "log_probs" else given[name]
            for shift in sizes:
                loss, gradient = loss_and_gradient(objective, given.batch(**{name: start + shift}))
                if not bool(loss.isfinite().all() and gradient.isfinite().all()):
                    return f"{name} 10⁴ nats away gives a loss or gradient that is not finite, in {dtype}"
    return None


def _single_precision(objective: Objective) -> str | None:
    given = _wide()
    single = given.map(lambda value: value.float() if value.is_floating_point() else value)
    loss, gradient = loss_and_gradient(objective, given.batch())
    single_loss, single_gradient = loss_and_gradient(objective, single.batch())
    if single_loss.dtype != torch.float32:
        return f"a batch in torch.float32 gives a loss in {single_loss.dtype}"
    # Sums that cancel are measured against the sum of the absolute token losses.
    batch = given.batch()[0]
    unit = (objective.reduction_weights(batch) * objective(batch).token_loss.abs()).sum((-2, -1))
    largest = gradient.abs().amax((-2, -1), keepdim=True)
    if not bool(((single_loss.double() - loss).abs() <= 2e-5 * unit).all()):
        return "in float32 more than five digits of the loss are lost"
    if not bool(((single_gradient.double() - gradient).abs() <= 2e-5 * largest).all()):
        return "in float32 more than five digits of the gradient are lost"
    return None


def _derivative(objective: Objective) -> str | None:
    given = draw(12, 4)
    # One advantage per token: with one per response, a stop-gradient on the sequence's ratio can leave the gradient.
    generator = torch.Generator().manual_seed(1)
    batch, leaf = given.batch(advantages=torch.randn(12, 4, generator=generator, dtype=torch.float64))

    def loss(log_probs: Tensor) -> Tensor:
        return objective.loss(batch.with_current(log_probs))

    agrees = torch.autograd.gradcheck(loss, leaf, eps=1e-7, atol=1e-6, raise_exception=False)
    if objective.cuts_gradient:
        return "it declares a stop-gradient, but its gradient is the derivative of its loss" if agrees else None
    return None if agrees else "the gradient is not the derivative of the loss; declare cuts_gradient"


def _closed_form(objective: Objective) -> str | None:
    if not objective.has_closed_form:
        return None
    given = draw(2, 40, 16)
    # Some tokens beyond the clamp of the log-ratio, where the gradient is zero.
    given["old_log_probs"][..., ::5] -= 30.0 * (torch.arange(4) % 2)
    batch, leaf = given.batch()
    closed = objective.log_prob_gradient(batch)
    if closed is None:
        return "has_closed_form is true, but log_prob_gradient returns None"
    (expected,) = torch.autograd.grad(objective.token_loss(batch).sum(), leaf)
    wrong = _first(
        _differ("closed form", closed.masked_fill(~batch.mask, 0), expected),
        _differ(
            "closed form times the reduction's weights",
            (objective.reduction_weights(batch) * closed).masked_fill(~batch.mask, 0),
            loss_and_gradient(objective, (batch, leaf))[1],
        ),
    )
    return None if wrong is None else f"against autograd, {wrong}"


def _hyper_parameters(objective: Objective) -> str | None:
    whole = _wide().at(0)
    for name, value in _tensor_hyper_parameters(objective).items():

        def given_as(number: Any, name: str = name) -> Objective:
            return replace(objective, **{name: number})

        values = [value, 0.75 * value, 1.1 * value]
        together = given_as(torch.tensor(values, dtype=torch.float64).view(3, 1, 1))
        replicas = whole.map(lambda given: given.expand(3, *given.shape))
        stacked, stacked_gradient = loss_and_gradient(together, replicas.batch())
        shared = together.loss(whole.batch()[0]).detach()
        if shared.shape != (3,):
            return f"with three values of {name}, a batch they share gives a loss of shape {tuple(shared.shape)}"
        for index, alone_value in enumerate(values):
            alone, gradient = loss_and_gradient(given_as(alone_value), whole.batch())
            wrong = _first(
                _differ("loss", stacked[index], alone),
                _differ("gradient", stacked_gradient[index], gradient),
                _differ("loss over a shared batch", shared[index], alone),
            )
            if wrong is not None:
                return f"with a tensor of {name}, {wrong}"
    return None


def _tensor_hyper_parameters(objective: Objective) -> Mapping[str, float]:
    """The fields that may be tensors and hold a number."""
    return {
        item.name: value
        for item in fields(objective)
        if "Hyper" in str(item.type) and isinstance(value := getattr(objective, item.name), float)
    }


def _no_tensors(objective: Objective) -> str:
    return "" if _tensor_hyper_parameters(objective) else "no hyper-parameter of it may be a tensor"


def _whole_batch(objective: Objective) -> str:
    return "a statistic of the whole batch decides a token's loss" * objective.needs_whole_batch


_SOUND = ("gradient", "purity")
LAWS: tuple[Law, ...] = (
    Law("gradient", "An ordinary batch gives a finite loss per replica, with a gradient", _gradient),
    Law("purity", "Two calls give the same bits, and the batch is not changed", _pure, rests_on=("gradient",)),
    Law("shapes", "A loss per token, which is 0 outside the mask", _shape, rests_on=("gradient",)),
    Law(
        "padding",
        "What stands in masked positions and how far a collator padded changes no bit",
        _padding,
        rests_on=_SOUND,
    ),
    Law(
        "other responses",
        "Nothing in one response, however extreme, changes the token losses of another",
        _other_responses,
        _whole_batch,
        rests_on=_SOUND,
    ),
    Law(
        "own advantage",
        "A token's loss and its gradient read the advantage of that token, and of no other",
        _own_advantage,
        _mixed_advantages,
        rests_on=(*_SOUND, "other responses"),
    ),
    Law(
        "order",
        "The order of the responses does not matter",
        _order,
        rests_on=(*_SOUND, "other responses"),
    ),
    Law(
        "replicas",
        "A replica's loss, gradient and metrics do not depend on the replicas beside it",
        _replicas,
        rests_on=(*_SOUND, "other responses"),
    ),
    Law(
        "micro-batches",
        "Parts of a batch, given the counts of the whole, add up to its loss and gradient",
        _micro_batches,
        _whole_batch,
        rests_on=(*_SOUND, "padding", "other responses", "order"),
    ),
    Law(
        "needs",
        "It reads the optional fields it declares and no other, and asks for those by name",
        _needs,
        rests_on=_SOUND,
    ),
    Law(
        "on-policy",
        "At ratio 1, summed over all sequences, its gradient is the exact policy gradient",
        _on_policy,
        lambda objective: objective.exact_on_policy,
        rests_on=(*_SOUND, "own advantage", "other responses"),
    ),
    Law(
        "no advantage",
        "With A = 0 loss and gradient are exactly 0, however large the ratio",
        _no_advantage,
        lambda objective: objective.acts_without_advantage,
        rests_on=(*_SOUND, "shapes", "other responses"),
    ),
    Law(
        "extremes",
        "Log-ratios of ±10⁴ leave loss and gradient finite, in float32 too",
        _extremes,
        rests_on=("gradient",),
    ),
    Law("single precision", "Float32 loses at most two of its seven digits", _single_precision, rests_on=_SOUND),
    Law(
        "derivative",
        "The gradient is the derivative of the loss",
        _derivative,
        lambda objective: objective.cuts_gradient,
        rests_on=(*_SOUND, "other responses", "own advantage"),
    ),
    Law(
        "closed form",
        "The stated closed form of the gradient is that of autograd",
        _closed_form,
        lambda objective: (
            "" if objective.has_closed_form else "it states none; loops over replicas differentiate instead"
        ),
        rests_on=_SOUND,
    ),
    Law(
        "hyper-parameters",
        "A tensor of hyper-parameters, one per replica, equals a loop over numbers",
        _hyper_parameters,
        _no_tensors,
        rests_on=(*_SOUND, "replicas"),
    ),
)
"""Every law; one that others rest on comes before them."""
