"""`assert_lawful`: a loss keeps the laws that need no reference, or the smallest input says which it breaks."""

from __future__ import annotations

from collections.abc import Collection
from typing import get_args

from testbed.errors import ConfigError, UnknownNameError
from testbed.objectives import Objective
from testbed.testing.laws import LAWS, Law, Subject, Violation
from testbed.testing.losses import AnyLoss, Form

__all__ = ["assert_lawful", "exempt_laws", "law_names"]


def law_names() -> list[str]:
    """The laws, in the order in which they are checked; the last three are those of `strict=True`.

    >>> law_names()[-3:]
    ['constants', 'empty response', 'far values']
    """
    return [law.name for law in LAWS]


def exempt_laws(objective: Objective) -> list[str]:
    """The laws that an objective declares not to keep, so that a loss which is to be that objective need not either.

    >>> from testbed.objectives import make_objective
    >>> exempt_laws(make_objective("top_entropy"))
    ['other responses', 'on policy', 'mean', 'way back', 'micro-batches']
    """
    return [law.name for law in LAWS if law.exempt(objective)]


def assert_lawful(loss: AnyLoss, *, except_for: Collection[str] = (), strict: bool = False) -> None:
    """Fail unless a loss keeps the laws that hold whatever its formula; no reference is needed.

    Padding is not read, one response does not decide another's gradient, at ratio 1 the gradient is -A, a token that
    went the wrong way is pulled back, A = 0 gives nothing, inputs are not written to, and so on: `law_names`. Takes a
    fraction of a second. A loss that keeps them may still not be the published one: `assert_conforms` says that.

    Args:
        loss: as for `assert_conforms`. A function that asks for `token_count` or `sequence_count`, those of the whole
            step, is also judged on parts of a batch; an `Objective` is let off the laws it declares not to keep.
        except_for: laws that are not meant to hold, such as `("zero advantage",)` of a loss with a penalty.
        strict: also what a caller can see to instead: constants are detached, an empty response, log-ratios of 10,000
            and NaN at padding give finite numbers.

    Raises:
        AssertionError: a law is broken. The message has the smallest input, both values, and the likely mistake.
        ConfigError: the loss cannot be called so, or returns neither token losses nor a number.
        UnknownNameError: `except_for` names no law.

    Example:
        >>> import torch
        >>> def without_mask(log_probs, old_log_probs, advantages, mask):
        ...     return -(torch.exp(log_probs - old_log_probs) * advantages).mean()
        >>> assert_lawful(without_mask)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        AssertionError: the loss breaks the law "mask"
    """
    if isinstance(except_for, str):
        raise ConfigError(f"except_for is {except_for!r}; expected several names, such as ({except_for!r},)")
    for name in except_for:
        if name not in law_names():
            raise UnknownNameError("law", name, law_names())
    exempt = {*except_for, *(exempt_laws(loss) if isinstance(loss, Objective) else ())}
    laws = [law for law in LAWS if law.name not in exempt and (strict or not law.strict)]
    forms = get_args(Form)[:1] if isinstance(loss, Objective) else get_args(Form)
    outcomes = [_first_broken(Subject(loss, form), laws) for form in forms]
    if None in outcomes:
        return
    broken = [outcome for outcome in outcomes if isinstance(outcome, tuple)]
    if not broken:
        raise next(outcome for outcome in outcomes if isinstance(outcome, Exception))
    # The way of calling that was meant is the one that keeps more laws.
    place, violation = max(broken, key=lambda outcome: outcome[0])
    raise AssertionError(_message(laws[place], violation))


def _first_broken(subject: Subject, laws: list[Law]) -> tuple[int, Violation] | Exception | None:
    for place, law in enumerate(laws):
        try:
            violation = law.check(subject)
        except Exception as error:
            return error
        if violation is not None:
            return place, violation
    return None


def _message(law: Law, violation: Violation) -> str:
    width = max(15, *(len(name) for name, *_ in violation.compared))
    return "\n".join(
        [
            f'the loss breaks the law "{law.name}": {law.statement}',
            f"smallest input: {violation.where}",
            *(f"  {name:<{width}} yours {yours}, expected {expected}" for name, yours, expected in violation.compared),
            f"likely mistake: {violation.mistake}" if violation.mistake else "no known mistake explains it",
        ]
    )
