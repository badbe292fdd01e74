"""Laws that a loss keeps whatever its formula: each a few small batches, and what is wrong with them, or `None`.

A law reads nothing but what a function returns, so that it judges losses nobody has a reference for. Where a published
loss has a reason to break one, an `Objective` declares it and a function's author says so (`except_for`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.objectives import Objective
from testbed.testing.losses import (
    AnyLoss,
    Evaluation,
    Form,
    NoGradientError,
    asked_fields,
    call,
    close,
    gradient_of,
)
from testbed.testing.probes import Probe, make_probe, probes

__all__ = ["LAWS", "Law", "Subject", "Violation"]

RTOL = 1e-6
"""Relative difference that counts as rounding: some losses add 1e-8 to what they divide by."""


@dataclass(frozen=True)
class Subject:
    """A loss, and how it is given its advantages.

    Attributes:
        loss: an `Objective` or a function.
        form: of the advantages.
    """

    loss: AnyLoss
    form: Form

    @property
    def declared(self) -> Objective | None:
        """The loss where it declares its exceptions."""
        return self.loss if isinstance(self.loss, Objective) else None

    def asks_for(self, *names: str) -> bool:
        """Whether it reads one of these fields."""
        if self.declared is not None:
            return any(name in self.declared.needs for name in names)
        return any(name in asked_fields(self.loss) for name in names)

    def judge(self, fields: Mapping[str, Tensor]) -> Evaluation:
        """The loss and its gradient, 0 where it has none; token losses are added up."""
        # Copies, because a loss that writes to its inputs must not change the next batch.
        given = {name: value.detach().clone() for name, value in fields.items()}
        leaf = given["log_probs"].requires_grad_()
        loss, token_loss = self._loss(given)
        try:
            gradient = gradient_of(loss, leaf)
        except NoGradientError:
            gradient = torch.zeros_like(leaf)
        return Evaluation(loss.detach(), gradient, None if token_loss is None else token_loss.detach())

    def _loss(self, given: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        if self.declared is not None:
            return self.declared.loss(TokenBatch(**given)), None
        returned = call(self.loss, given, self.form)
        if returned.dim() == 0:
            return returned, None
        kept = returned.where(given["mask"], 0)
        return kept.sum(), kept


@dataclass(frozen=True)
class Violation:
    """Where a law is broken.

    Attributes:
        where: the smallest input, in words.
        compared: what was looked at, with the loss's own value and the one that the law expects.
        mistake: what was probably done, or an empty string.
    """

    where: str
    compared: tuple[tuple[str, str, str], ...]
    mistake: str = ""


@dataclass(frozen=True)
class Law:
    """One statement about every loss.

    Attributes:
        name: a word or two.
        statement: what has to hold, a clause without a full stop.
        check: what is wrong with a loss, or `None`.
        exempt: whether an objective declares that the law does not bind it.
        strict: whether the law is one of those that a trainer can keep in the loss's place.
    """

    name: str
    statement: str
    check: Callable[[Subject], Violation | None]
    exempt: Callable[[Objective], bool] = lambda objective: False
    strict: bool = False


def _number(value: Tensor | float) -> str:
    # A zero without a sign.
    return f"{float(value) + 0.0:.6g}"


def _difference(
    probe: Probe, yours: Evaluation, expected: Evaluation, rtol: float = RTOL
) -> tuple[str, tuple[tuple[str, str, str], ...]] | None:
    """Where two outcomes on a probe differ most, with the loss and the gradient there; `None` where they agree."""
    if close(yours.gradient, expected.gradient, rtol) and close(yours.loss, expected.loss, rtol):
        return None
    gap = torch.nan_to_num((yours.gradient - expected.gradient).abs(), nan=math.inf)
    row, column = divmod(int(gap.argmax()), gap.shape[-1])
    pairs = (("loss", yours.loss, expected.loss), ("d loss/d log p", yours.gradient[row, column], None))
    return probe.describe((row, column)), tuple(
        (name, _number(mine), _number(expected.gradient[row, column] if theirs is None else theirs))
        for name, mine, theirs in pairs
    )


def _with(probe: Probe, **changes: Tensor) -> Probe:
    return Probe({**probe.fields, **changes})


# -- batches ---------------------------------------------------------------------------------------------------------

_PAIR = make_probe([[1.05, 0.98], [1.03, 1.5]], [[1.0] * 2, [-0.6] * 2], [[True, True], [True, False]])
_THREE = make_probe(
    [[1.05, 0.6, 1.4, 0.97], [1.3, 0.7, 3.0, 2.0], [1.1, 1.0, 9.0, 9.0]],
    [[1.2] * 4, [-0.8] * 4, [-0.3] * 4],
    [[True] * 4, [True, True, False, False], [True, False, False, False]],
)


def _padded() -> Iterator[Probe]:
    """Responses beside padding, the smallest first."""
    yield make_probe([[1.05, 1.0]], [[1.0] * 2], [[True, False]])
    yield make_probe([[0.9, 1.0]], [[-0.7] * 2], [[True, False]])
    yield _PAIR
    yield _THREE


def _on_policy() -> Iterator[Probe]:
    """All policies agree."""
    for advantage in (1.0, -0.7):
        yield _agreeing(make_probe([[1.0]], [[advantage]], [[True]]))
    for advantage in (1.0, -1.0):
        yield _agreeing(make_probe([[1.0, 1.0]], [[advantage] * 2], [[True, True]]))
    for probe in (_PAIR, _THREE):
        yield _agreeing(probe)


def _agreeing(probe: Probe) -> Probe:
    """The probe with current policy, sampler and reference equal to the old policy."""
    old = probe.fields["old_log_probs"]
    same = {name: old.clone() for name in ("log_probs", "sampler_log_probs", "ref_log_probs")}
    return _with(probe, **same, entropies=probe.fields["old_entropies"].clone())


# -- what the batch must not decide ----------------------------------------------------------------------------------


def _gradient(subject: Subject) -> Violation | None:
    moved = False
    for probe in probes():
        found = subject.judge(probe.fields)
        if not bool(found.loss.isfinite()) or not bool(found.gradient.isfinite().all()):
            return Violation(
                probe.describe((0, 0)),
                (
                    ("loss", _number(found.loss), "a finite number"),
                    ("d loss/d log p", _number(found.gradient.sum()), "a finite number"),
                ),
            )
        moved |= bool(found.gradient.any())
    if moved:
        return None
    return Violation(
        f"every one of {len(probes())} batches, {probes()[0].describe((0, 0))} among them",
        (("d loss/d log p", "0", "something"),),
        "the loss has no gradient: it is detached, computed under no_grad, or made of the old log-probabilities alone",
    )


def _purity(subject: Subject) -> Violation | None:
    for probe in (probes()[0], _PAIR, _THREE):
        given = {name: value.clone() for name, value in probe.fields.items()}
        if subject.declared is None:
            # A tensor that is no leaf, as in a trainer: writing into it raises nothing.
            given["log_probs"] = given["log_probs"].requires_grad_() + 0
            call(subject.loss, given, subject.form)
        else:
            subject.declared.loss(TokenBatch(**given))
        changed = [name for name, value in probe.fields.items() if not torch.equal(given[name].detach(), value)]
        if changed:
            name = changed[0]
            now, before = given[name].detach().flatten(), probe.fields[name].flatten()
            place = int((now != before).int().argmax())
            return Violation(
                probe.describe((0, 0)),
                ((f"{name} after the call", _number(now[place]), _number(before[place])),),
                f"{name} is written to in place",
            )
        first, second = subject.judge(probe.fields), subject.judge(probe.fields)
        difference = _difference(probe, second, first, 0.0)
        if difference is not None:
            return Violation(*difference, "the loss keeps something from one call to the next, or draws random numbers")
    return None


def _mask(subject: Subject) -> Violation | None:
    for probe in _padded():
        outside = ~probe.fields["mask"]
        expected = subject.judge(probe.fields)
        # Zeros are what most collators write; 30 nats are far, and finite in any precision.
        for shift in (0.5, -2.0, 30.0, None):
            changes = {
                name: torch.where(outside, torch.zeros_like(value) if shift is None else value + shift, value)
                for name, value in probe.fields.items()
                if name in ("log_probs", "old_log_probs", "sampler_log_probs", "ref_log_probs", "entropies")
            }
            changes["old_log_probs"] = probe.fields["old_log_probs"]
            found = subject.judge({**probe.fields, **changes})
            leak = found.gradient.where(outside, 0)
            inside = Evaluation(found.loss, found.gradient - leak)
            difference = _difference(probe, inside, Evaluation(expected.loss, expected.gradient.where(~outside, 0)))
            what = (
                "zeros" if shift is None else f"log_probs that are {abs(shift):g} {'higher' if shift > 0 else 'lower'}"
            )
            if difference is not None:
                where, compared = difference
                return Violation(f"{where}; padding holds {what}", compared, _leak(subject))
            if bool(leak.any()):
                row, column = divmod(int(leak.abs().argmax()), leak.shape[-1])
                return Violation(
                    f"{probe.describe((row, column))}; this token is padding",
                    (("d loss/d log p", _number(leak[row, column]), "0"),),
                    _leak(subject),
                )
    return None


def _leak(subject: Subject) -> str:
    """Why padding is read: the mask is forgotten, or a token reads the log-probability of the next one."""
    probe = make_probe([[1.0, 1.0, 1.0]], [[1.0] * 3], [[True] * 3])
    old = probe.fields["old_log_probs"]
    loss = {by: subject.judge(_with(probe, log_probs=old.roll(by, -1)).fields).loss for by in (-1, 0, 1)}
    one = subject.judge(make_probe([[1.0]], [[1.0]], [[True]]).fields).loss
    for by in (-1, 1):
        aligned = close(loss[by] / 3, one, RTOL) or close(loss[by], one, RTOL)
        if aligned and not close(loss[by], loss[0], RTOL):
            return "a token is given its neighbour's probability: log_probs are shifted by one"
    return "the mask is forgotten: padding takes part in the loss, or in its divisor"


def _width(subject: Subject) -> Violation | None:
    one = make_probe([[1.05]], [[1.0]], [[True]])
    for probe in (one, _PAIR, _THREE):
        expected = subject.judge(probe.fields)
        wider = {
            name: torch.nn.functional.pad(value, (0, value.shape[-1]), value=False if name == "mask" else 0.0)
            for name, value in probe.fields.items()
        }
        found = subject.judge(wider)
        width = probe.fields["mask"].shape[-1]
        kept = Evaluation(found.loss, found.gradient[:, :width])
        difference = _difference(probe, kept, expected)
        if difference is not None:
            where, compared = difference
            return Violation(
                f"{where}; padded to twice the width",
                compared,
                "the mean is over the padded width, not over the response tokens",
            )
    return None


def _other_responses(subject: Subject) -> Violation | None:
    for probe in (_PAIR, _THREE):
        expected = subject.judge(probe.fields)
        for name in ("advantages", "log_probs", "old_log_probs"):
            value = probe.fields[name].clone()
            value[1:] = -3 * value[1:] if name == "advantages" else value[1:] + 0.7
            found = subject.judge(_with(probe, **{name: value}).fields)
            mine, theirs = (Evaluation(item.gradient[0].sum(), item.gradient[:1]) for item in (found, expected))
            difference = _difference(probe, mine, theirs)
            if difference is not None:
                where, compared = difference
                return Violation(
                    f"{where}; {name} of the other response{'s' * (len(value) > 2)} changed",
                    compared[1:],
                    _why_others_matter(subject) if name == "advantages" else "",
                )
    return None


def _why_others_matter(subject: Subject) -> str:
    once, twice = (
        subject.judge(_with(_THREE, advantages=factor * _THREE.fields["advantages"]).fields) for factor in (1, 2)
    )
    if close(once.gradient, twice.gradient, 1e-3):
        return "advantages are standardised once more: with all of them doubled, nothing changes"
    own = _THREE.fields["advantages"].clone()
    own[0] *= 2
    found = subject.judge(_with(_THREE, advantages=own).fields)
    if close(found.gradient[0], once.gradient[0], RTOL):
        return "a response is given its neighbour's advantage"
    return ""


def _order(subject: Subject) -> Violation | None:
    for probe, order in ((_PAIR, [1, 0]), (_THREE, [2, 0, 1])):
        expected = subject.judge(probe.fields)
        found = subject.judge({name: value[order] for name, value in probe.fields.items()})
        back = torch.tensor(order).argsort()
        difference = _difference(probe, Evaluation(found.loss, found.gradient[back]), expected)
        if difference is not None:
            where, compared = difference
            return Violation(f"{where}; responses in another order", compared)
    return None


def _micro_batches(subject: Subject) -> Violation | None:
    if subject.declared is None and not subject.asks_for("token_count", "sequence_count"):
        return None
    for probe in (_PAIR, _THREE):
        mask = probe.fields["mask"]
        counts = {"token_count": mask.sum(), "sequence_count": mask.any(-1).sum()}
        whole = subject.judge({**probe.fields, **counts})
        rows = [slice(0, 1), slice(1, None)]
        parts = [subject.judge({**_rows(probe, part), **counts}) for part in rows]
        found = Evaluation(sum(part.loss for part in parts), torch.cat([part.gradient for part in parts]))  # type: ignore[arg-type]
        difference = _difference(probe, found, whole)
        if difference is not None:
            own = [subject.judge(_rows(probe, part)) for part in rows]
            ignored = all(close(one.loss, two.loss, RTOL) for one, two in zip(own, parts, strict=True))
            where, compared = difference
            return Violation(
                f"{where}; in two parts with the counts of the whole",
                compared,
                "each part is divided by its own count, not by that of the step" if ignored else "",
            )
    return None


def _rows(probe: Probe, rows: slice) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in probe.fields.items()}


# -- the mathematics -------------------------------------------------------------------------------------------------


def _old_policy(subject: Subject) -> Violation | None:
    cases = [make_probe([[ratio]], [[1.0]], [[True]]) for ratio in (1.0, 1.05, 0.5, 1.9)]
    first, *others = [subject.judge(probe.fields) for probe in cases]
    if not bool(first.gradient.any()):
        return None
    if any(_difference(cases[0], found, first) is not None for found in others):
        return None
    return Violation(
        cases[-1].describe((0, 0)),
        (("loss", _number(others[-1].loss), f"other than the {_number(first.loss)} at ratio 1"),),
        "the ratio is taken against itself: log_probs.detach() stands for old_log_probs, so nothing is ever clipped",
    )


def _direction(subject: Subject) -> Violation | None:
    of_one: float | None = None
    for probe in _on_policy():
        mask, advantages = probe.fields["mask"], probe.fields["advantages"]
        found = subject.judge(probe.fields)
        weights = -found.gradient / advantages
        for row, inside in enumerate(mask):
            of_row = weights[row][inside]
            # A mean has a divisor, which may be any; but it is that of the whole response, and of either sign of A.
            level = 1.0 if found.token_loss is not None else float(of_row.mean())
            if mask.numel() == 1:
                level = of_one = level if of_one is None else of_one
            expected = torch.full_like(of_row, level if level > 0 else 1.0)
            if close(of_row, expected, RTOL):
                continue
            column = int(torch.nan_to_num((of_row - expected).abs(), nan=math.inf).argmax())
            wanted = -advantages[row, column] * expected[column]
            return Violation(
                probe.describe((row, column)),
                (("d loss/d log p", _number(found.gradient[row, column]), _number(wanted)),),
                _why_off(subject),
            )
    return None


def _why_off(subject: Subject) -> str:
    """What is probably wrong with a gradient at ratio 1 that is not -A, by what it is for either sign of A."""

    def weight(advantage: float, shift: float = 0.0) -> tuple[float, float]:
        probe = _agreeing(make_probe([[1.0]], [[advantage]], [[True]]))
        moved = {name: value + shift for name, value in probe.fields.items() if name.endswith("log_probs")}
        found = subject.judge(_with(probe, **moved).fields)
        return -float(found.gradient[0, 0]) / advantage, float(found.loss)

    (up, value), (down, _) = weight(1.0), weight(-1.0)
    further, _ = weight(1.0, -1.0)
    if abs(further - up) > RTOL:
        return "a stop-gradient is missing: the weight of the score takes part in the gradient"
    if abs(up + 1) < RTOL and abs(down + 1) < RTOL:
        if value < 0:
            return "the ratio is upside down: old over new"
        return "the sign: what should be minimised is maximised"
    if abs(up + down) < RTOL and up != 0:
        return "the sign of the advantage is lost"
    if abs(up) < RTOL and abs(down) < RTOL:
        return "nothing is left of the gradient where the policies agree: the bounds do not contain a ratio of 1"
    if abs(up) < RTOL or abs(down) < RTOL:
        return "the log-ratio stands where the ratio belongs: exp is missing, and 0 lies outside of the bounds"
    if up > 0 and abs(up - down) < RTOL:
        return f"a bound is taken for the ratio itself: {up:g} instead of 1 + {up:g}"
    return ""


def _mean(subject: Subject) -> Violation | None:
    for probe in list(_on_policy())[-2:]:
        mask, advantages = probe.fields["mask"], probe.fields["advantages"]
        found = subject.judge(probe.fields)
        if found.token_loss is not None:
            return None
        lengths = mask.sum(-1).to(found.gradient.dtype)
        weights = (-found.gradient / advantages)[:, 0]
        relative = weights / weights[0]
        known = [torch.ones_like(lengths), lengths[0] / lengths]
        if not any(close(relative, expected, RTOL) for expected in known):
            row = int((relative - known[0]).abs().argmax())
            twice = close(relative, known[1] ** 2, RTOL)
            return Violation(
                probe.describe((row, 0)),
                (
                    (
                        "weight beside response 0",
                        _number(relative[row]),
                        f"1, or {_number(known[1][row])} where a response is averaged first",
                    ),
                ),
                "divided by the length of the response twice" if twice else "",
            )
        doubled = subject.judge({name: torch.cat([value, value]) for name, value in probe.fields.items()})
        factor = float(-doubled.gradient[0, 0] / advantages[0, 0] / weights[0])
        if min(abs(factor - 0.5), abs(factor - 1)) > RTOL:
            return Violation(
                f"{probe.describe((0, 0))}; the batch twice over",
                (("weight beside that in the batch alone", _number(factor), "0.5 for a mean, 1 for a sum"),),
                "divided by the size of the batch twice" if abs(factor - 0.25) < RTOL else "",
            )
    return None


def _zero_advantage(subject: Subject) -> Violation | None:
    if subject.declared is None and subject.asks_for("ref_log_probs"):
        return None
    # A reward for entropy has a value without an advantage, and no gradient for log p.
    reads_entropies = subject.declared is None and subject.asks_for("entropies")
    for probe in (*probes()[:6], _PAIR, _THREE):
        found = subject.judge(_with(probe, advantages=torch.zeros_like(probe.fields["advantages"])).fields)
        left = float(found.gradient.abs().max())
        value = 0.0 if reads_entropies else float(found.loss.abs())
        if max(left, value) > 1e-9:
            row, column = divmod(int(found.gradient.abs().argmax()), found.gradient.shape[-1])
            return Violation(
                f"{probe.describe((row, column))}; but every advantage is 0",
                (
                    ("loss", _number(found.loss), "0"),
                    ("d loss/d log p", _number(found.gradient[row, column]), "0"),
                ),
                "a penalty or a bonus is part of the loss; where that is meant, except_for=('zero advantage',)",
            )
    return None


def _way_back(subject: Subject) -> Violation | None:
    for ratio, advantage in ((0.5, 1.0), (1.9, -0.7)):
        probe = make_probe([[ratio]], [[advantage]], [[True]])
        # The entropy is as it was: masks that watch it have no reason to act.
        probe = _with(probe, entropies=probe.fields["old_entropies"].clone())
        found = subject.judge(probe.fields)
        gradient = float(found.gradient[0, 0])
        if gradient * advantage < 0:
            continue
        runaway = make_probe([[1.9]], [[1.0]], [[True]])
        if bool(subject.judge(runaway.fields).gradient.any()):
            mistake = "the wrong side of the minimum: the maximum of the free and the clipped term is taken"
        elif bool(found.loss.any()):
            mistake = "the clipped ratio alone, without the minimum: tokens that went the wrong way are held too"
        else:
            mistake = "every token outside the interval is dropped, whatever the sign of its advantage"
        return Violation(
            probe.describe((0, 0)),
            (("d loss/d log p", _number(gradient), f"{'below' if advantage > 0 else 'above'} 0"),),
            mistake,
        )
    return None


def _reference(subject: Subject) -> Violation | None:
    if subject.declared is not None or not subject.asks_for("ref_log_probs"):
        return None
    for shift in (0.3, -0.3):
        probe = make_probe([[1.0]], [[0.0]], [[True]])
        probe = _with(probe, ref_log_probs=probe.fields["old_log_probs"] + shift)
        gradient = float(subject.judge(probe.fields).gradient[0, 0])
        if gradient * shift > 1e-12:
            return Violation(
                f"{probe.describe((0, 0))}, ref_log_probs {abs(shift):g} {'higher' if shift > 0 else 'lower'}",
                (("d loss/d log p", _number(gradient), f"{'below' if shift > 0 else 'above'} 0"),),
                "the penalty pushes away from the reference: its sign, or log p in the place of ref_log_probs",
            )
    return None


# -- numbers ---------------------------------------------------------------------------------------------------------


def _extreme() -> Iterator[tuple[str, Probe]]:
    far = math.exp(20.0)
    for ratios in ([far], [1 / far], [far, 1 / far]):
        for advantage in (1.0, -1.0):
            size = len(ratios)
            yield "", make_probe([ratios], [[advantage] * size], [[True] * size])
    for advantage in (1e3, -1e3):
        yield "", make_probe([[1.5]], [[advantage]], [[True]])
    one = make_probe([[0.9]], [[1.0]], [[True]])
    unlikely = {name: value - 1e3 for name, value in one.fields.items() if name.endswith("log_probs")}
    yield "; all probabilities e^-1000 times as large", _with(one, **unlikely)
    certain = {name: torch.zeros_like(value) for name, value in one.fields.items() if name.endswith("log_probs")}
    nothing = {name: torch.zeros_like(one.fields[name]) for name in ("entropies", "old_entropies")}
    yield "; a certain token", _with(one, **certain, **nothing)


def _extremes(subject: Subject) -> Violation | None:
    return _finite(subject, _extreme())


def _finite(subject: Subject, cases: Iterator[tuple[str, Probe]]) -> Violation | None:
    for words, probe in cases:
        found = subject.judge(probe.fields)
        inside = found.gradient.where(probe.fields["mask"], 0)
        if not bool(found.loss.isfinite()) or not bool(inside.isfinite().all()):
            place = int((~inside.isfinite()).flatten().int().argmax())
            row, column = divmod(place, inside.shape[-1])
            return Violation(
                f"{probe.describe((row, column))}{words}",
                (
                    ("loss", _number(found.loss), "a finite number"),
                    ("d loss/d log p", _number(found.gradient[row, column]), "a finite number"),
                ),
            )
    return None


def _single_precision(subject: Subject) -> Violation | None:
    for probe in (probes()[0], _PAIR, _THREE):
        single = {name: value.float() if value.is_floating_point() else value for name, value in probe.fields.items()}
        found, expected = subject.judge(single), subject.judge(probe.fields)
        if found.loss.dtype != torch.float32:
            return Violation(
                f"{probe.describe((0, 0))}; in single precision",
                (("dtype of the loss", str(found.loss.dtype), "torch.float32"),),
                "a number of the loss is made in double precision",
            )
        difference = _difference(probe, Evaluation(found.loss.double(), found.gradient.double()), expected, 1e-4)
        if difference is not None:
            where, compared = difference
            return Violation(f"{where}; in single precision", compared)
    return None


def _constants(subject: Subject) -> Violation | None:
    if subject.declared is not None:
        return None
    for name in ("old_log_probs", "advantages"):
        given = {**_PAIR.fields, "log_probs": _PAIR.leaf()}
        given[name] = leaf = given[name].clone().requires_grad_()
        returned = call(subject.loss, given, subject.form).sum()
        if not returned.requires_grad:
            continue
        (gradient,) = torch.autograd.grad(returned, leaf, allow_unused=True)
        if gradient is not None and bool(gradient.any()):
            row, column = divmod(int(gradient.abs().argmax()), gradient.shape[-1])
            return Violation(
                _PAIR.describe((row, column)),
                ((f"d loss/d {name}", _number(gradient[row, column]), "0"),),
                f"a stop-gradient is missing: {name} is not detached, and a caller may pass a tensor with a graph",
            )
    return None


def _empty_response(subject: Subject) -> Violation | None:
    mask = _PAIR.fields["mask"].clone()
    mask[1] = False
    return _finite(subject, iter([("; response 1 is empty", _with(_PAIR, mask=mask))]))


def _far() -> Iterator[tuple[str, Probe]]:
    for sign in (1.0, -1.0):
        for advantage in (1.0, -1.0):
            probe = make_probe([[1.0]], [[advantage]], [[True]])
            moved = probe.fields["old_log_probs"] + sign * 1e4
            yield f"; log_probs {'raised' if sign > 0 else 'lowered'} by 10,000", _with(probe, log_probs=moved)
    for value in (math.nan, math.inf):
        probe = next(_padded())
        outside = ~probe.fields["mask"]
        filled = {
            name: given.masked_fill(outside, value)
            for name, given in probe.fields.items()
            if name in ("log_probs", "old_log_probs")
        }
        yield f"; padding holds {value}", _with(probe, **filled)


def _far_values(subject: Subject) -> Violation | None:
    return _finite(subject, _far())


def _divides_by_width(objective: Objective) -> bool:
    constant = bool(torch.as_tensor(objective.max_length_or(1) == objective.max_length_or(2)).all())
    return objective.reduction.endswith("_norm") and not constant


def _reads_others(objective: Objective) -> bool:
    return objective.needs_whole_batch or objective.compares_responses


LAWS: tuple[Law, ...] = (
    Law("gradient", "ordinary batches give a finite loss with a gradient", _gradient),
    Law("purity", "a call changes nothing: its inputs are as they were, and a second call gives the same", _purity),
    Law("mask", "what stands at padding is not read and has no gradient", _mask),
    Law("width", "how far a batch is padded does not matter", _width, _divides_by_width),
    Law(
        "other responses",
        "the gradient of a response's tokens does not read other responses",
        _other_responses,
        _reads_others,
    ),
    Law("order", "the order of the responses does not matter", _order),
    Law("old policy", "a token's loss depends on its probabilities", _old_policy),
    Law(
        "on policy",
        "where old and current policy agree, the gradient is -A times a weight that A does not change",
        _direction,
        lambda objective: bool(objective.exact_on_policy or objective.acts_without_advantage),
    ),
    Law(
        "mean",
        "a token weighs as any other, or as one over the length of its response",
        _mean,
        lambda objective: bool(objective.exact_on_policy or objective.acts_without_advantage),
    ),
    Law(
        "zero advantage",
        "without an advantage there is neither loss nor gradient",
        _zero_advantage,
        lambda objective: bool(objective.acts_without_advantage),
    ),
    Law(
        "way back",
        "a token that moved against its advantage is pulled back",
        _way_back,
        lambda objective: bool(objective.exact_on_policy or objective.acts_without_advantage),
    ),
    Law("reference", "with A = 0 a penalty pulls towards the reference", _reference),
    Law(
        "micro-batches",
        "parts of a batch, given the counts of the whole, add up to it",
        _micro_batches,
        _reads_others,
    ),
    Law("extremes", "ratios of e^20, large advantages, improbable and certain tokens give finite numbers", _extremes),
    Law("single precision", "float32 gives float32, and the same to four digits", _single_precision),
    Law("constants", "no gradient reaches old_log_probs or advantages", _constants, strict=True),
    Law("empty response", "a response without tokens leaves the loss finite", _empty_response, strict=True),
    Law(
        "far values",
        "log-ratios of 10,000 and NaN at padding leave loss and gradient finite",
        _far_values,
        strict=True,
    ),
)
"""In the order in which they are checked: what rests on a broken one means nothing."""
