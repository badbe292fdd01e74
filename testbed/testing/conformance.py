"""`assert_conforms`: a loss equals a published objective, or the smallest input says where it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch

from testbed.objectives import Objective, make_objective
from testbed.testing.losses import AnyLoss, Evaluation, Form, NoGradientError, evaluate
from testbed.testing.mistakes import likely_mistake
from testbed.testing.probes import Probe, probes

__all__ = ["assert_conforms"]


def assert_conforms(loss: AnyLoss, objective: str | Objective, *, rtol: float = 1e-6) -> None:
    """Fail unless a loss has the value and the gradient of a registered objective on batches that meet every branch.

    Takes a fraction of a second. A function of advantages `(B, T)` and one of advantages `(B,)` are both understood.
    One that returns token losses is compared token by token and averaged like the objective; one that returns a number
    has to have the objective's mean as well.

    Args:
        loss: `loss(log_probs, old_log_probs, advantages, mask)` of float64 tensors `(B, T)` and a bool mask, returning
            token losses `(B, T)` or a single number; further parameters named like fields of `TokenBatch` are given.
            An objective of this package will do as well.
        objective: a name, `name(key=value,…)`, or an `Objective`.
        rtol: the difference allowed, relative to the largest entry.

    Raises:
        AssertionError: they differ. The message has the smallest input, both values, and the likely mistake.
        ConfigError: the loss cannot be called so, or returns neither token losses nor a number.
        UnknownNameError: no such objective.

    Example:
        >>> import torch
        >>> def without_minimum(log_probs, old_log_probs, advantages, mask):
        ...     return -torch.exp(log_probs - old_log_probs).clamp(0.8, 1.2) * advantages
        >>> assert_conforms(without_minimum, "grpo")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        AssertionError: the loss is not grpo
    """
    wanted = make_objective(objective)
    outcomes = [_compared(loss, wanted, rtol, form) for form in get_args(Form)]
    if None in outcomes:
        return
    first, second = outcomes
    # Where one way of calling does not even run, the other one is what was meant.
    chosen = second if isinstance(first, Exception) and not isinstance(second, Exception) else first
    if isinstance(chosen, Exception):
        raise chosen
    assert chosen is not None
    raise AssertionError(_message(wanted, chosen, rtol))


@dataclass(frozen=True)
class _Difference:
    """Where a loss differs first, and everything it said."""

    probe: Probe
    outcome: Evaluation
    expected: Evaluation
    part: str
    found: list[tuple[Probe, Evaluation]]


def _compared(loss: AnyLoss, objective: Objective, rtol: float, form: Form) -> _Difference | Exception | None:
    found: list[tuple[Probe, Evaluation]] = []
    first: tuple[Probe, Evaluation, Evaluation, str] | None = None
    for probe in probes():
        try:
            outcome = evaluate(loss, probe, objective, form)
        except NoGradientError as error:
            return AssertionError(f"the loss is not {objective.label()}: {error}")
        except Exception as error:
            return error
        expected = evaluate(objective, probe, objective)
        found.append((probe, outcome))
        part = outcome.disagreement(expected, rtol)
        if part is not None and first is None:
            first = (probe, outcome, expected, part)
    return None if first is None else _Difference(*first, found)


def _message(objective: Objective, difference: _Difference, rtol: float) -> str:
    outcome, expected, part = difference.outcome, difference.expected, difference.part
    place = _place(outcome, expected, part)
    compared = [("loss", outcome.loss, expected.loss)]
    if part == "token_loss" and outcome.token_loss is not None and expected.token_loss is not None:
        compared.append(("token's loss", outcome.token_loss[place], expected.token_loss[place]))
    compared.append(("d loss/d log p", outcome.gradient[place], expected.gradient[place]))
    mistake = likely_mistake(objective, difference.found, rtol)
    return "\n".join(
        [
            f"the loss is not {objective.label()}",
            f"smallest input: {difference.probe.describe(place)}",
            *(f"  {name:<15} yours {yours.item():.9g}, expected {ours.item():.9g}" for name, yours, ours in compared),
            *(["  the gradients agree, the values do not"] if part != "gradient" else []),
            f"likely mistake: {mistake}" if mistake else "no known mistake explains all of the differences",
        ]
    )


def _place(outcome: Evaluation, expected: Evaluation, part: str) -> tuple[int, int]:
    if part == "token_loss" and outcome.token_loss is not None and expected.token_loss is not None:
        difference = outcome.token_loss - expected.token_loss
    else:
        difference = outcome.gradient - expected.gradient
    index = int(torch.nan_to_num(difference.abs(), nan=float("inf")).argmax())
    return divmod(index, difference.shape[-1])
