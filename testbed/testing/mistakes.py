"""What people get wrong in a loss, each as a way to compute an objective wrongly; an outcome is compared with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.errors import TestbedError
from testbed.objectives import Objective, Wrapper, make_objective, objective_names
from testbed.reductions import reductions
from testbed.testing.losses import Evaluation
from testbed.testing.probes import Probe, probes

__all__ = ["Mistake", "likely_mistake"]

Wrong = Callable[[Objective, Probe], Evaluation]


@dataclass(frozen=True)
class Mistake:
    """One way to compute an objective wrongly.

    Attributes:
        sentence: what was done, to follow "likely mistake: ".
        evaluate: the outcome of the objective computed so.
    """

    sentence: str
    evaluate: Wrong


def likely_mistake(objective: Objective, found: list[tuple[Probe, Evaluation]], rtol: float) -> str | None:
    """The mistake that explains every outcome of a loss, or `None`.

    Args:
        objective: what the loss was meant to be.
        found: probes with what the loss said about them.
        rtol: as in `Evaluation.disagreement`.
    """
    for mistake in _mistakes(objective):
        try:
            if all(outcome.disagreement(mistake.evaluate(objective, probe), rtol) is None for probe, outcome in found):
                return mistake.sentence
        except (TestbedError, RuntimeError):
            # This mistake cannot be made with this objective.
            continue
    return None


def _mistakes(objective: Objective) -> Iterator[Mistake]:
    yield from _COMMON
    if objective.clip_interval(probes()[0].batch(probes()[0].leaf())) is not None:
        yield _WRONG_SIDE
    yield from _of_means(objective)
    yield from _of_settings(objective)
    yield from _of_ceilings()
    if isinstance(objective, Wrapper):
        yield from _of_wrappers(objective)
    yield from _others(objective)


def _of_tokens(wrong: Callable[[Objective, TokenBatch], Tensor]) -> Wrong:
    """An outcome from token losses, reduced as the objective reduces its own."""

    def evaluate(objective: Objective, probe: Probe) -> Evaluation:
        leaf = probe.leaf()
        batch = probe.batch(leaf)
        token_loss = wrong(objective, batch).where(batch.mask, 0)
        return _evaluation((token_loss * objective.reduction_weights(batch)).sum(), leaf, token_loss)

    return evaluate


def _of_batch(change: Callable[[Probe, Tensor], dict[str, Tensor]], sign: float = 1.0) -> Wrong:
    """The objective's own outcome on a batch with some fields replaced."""

    def evaluate(objective: Objective, probe: Probe) -> Evaluation:
        leaf = probe.leaf()
        batch = probe.batch(leaf, **change(probe, leaf))
        output = objective.token_loss(batch)
        right = probe.batch(leaf)
        weights = objective.reduction_weights(batch if batch.mask is not right.mask else right)
        token_loss = sign * output
        return _evaluation((token_loss * weights).sum(), leaf, token_loss.where(right.mask, 0))

    return evaluate


def _evaluation(loss: Tensor, leaf: Tensor, token_loss: Tensor | None = None) -> Evaluation:
    (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    return Evaluation(
        loss.detach(),
        torch.zeros_like(leaf) if gradient is None else gradient,
        None if token_loss is None else token_loss.detach(),
    )


# -- mistakes that any objective can be computed with ----------------------------------------------------------------


def _masked_in(objective: Objective, probe: Probe) -> Evaluation:
    leaf = probe.leaf()
    batch = probe.batch(leaf, mask=torch.ones_like(probe.fields["mask"]))
    loss = objective.loss(batch)
    return _evaluation(loss, leaf)


def _interval(objective: Objective, batch: TokenBatch) -> tuple[Tensor, float | Tensor, float | Tensor]:
    interval = objective.clip_interval(batch)
    if interval is None:
        raise TestbedError(f"{objective.name} has no interval")
    return batch.ratio if interval.ratio is None else interval.ratio, interval.low, interval.high


def _clip_alone(objective: Objective, batch: TokenBatch) -> Tensor:
    ratio, low, high = _interval(objective, batch)
    low, high = torch.as_tensor(low, dtype=ratio.dtype), torch.as_tensor(high, dtype=ratio.dtype)
    return -ratio.clamp(low, high) * batch.advantages


def _clip_never(objective: Objective, batch: TokenBatch) -> Tensor:
    ratio, *_ = _interval(objective, batch)
    return -ratio * batch.advantages


def _both_sides(objective: Objective, batch: TokenBatch) -> Tensor:
    ratio, low, high = _interval(objective, batch)
    outside = (ratio < low) | (ratio > high)
    return (-ratio * batch.advantages).masked_fill(outside, 0)


def _clip_absolute(objective: Objective, batch: TokenBatch) -> Tensor:
    ratio, low, high = _interval(objective, batch)
    low, high = 1 - torch.as_tensor(low, dtype=ratio.dtype), torch.as_tensor(high, dtype=ratio.dtype) - 1
    free, held = ratio * batch.advantages, ratio.clamp(low, high) * batch.advantages
    return -torch.minimum(free, held)


def _ceiling_of_score(objective: Objective, batch: TokenBatch) -> Tensor:
    ratio, _, high = _interval(objective, batch)
    limit = torch.as_tensor(high, dtype=ratio.dtype) - 1
    return -ratio.clamp(max=limit).detach() * batch.advantages * batch.log_probs


def _ceiling_on_both_signs(ceiling: float) -> Callable[[Objective, TokenBatch], Tensor]:
    def wrong(objective: Objective, batch: TokenBatch) -> Tensor:
        cap = ceiling * batch.advantages.abs()
        return objective.token_loss(batch).clamp(-cap, cap)

    return wrong


def _upper_alone(objective: Objective, batch: TokenBatch) -> Tensor:
    ratio, _, high = _interval(objective, batch)
    free = ratio * batch.advantages
    return -torch.minimum(free, ratio.clamp(max=torch.as_tensor(high, dtype=ratio.dtype)) * batch.advantages)


def _lower_alone(objective: Objective, batch: TokenBatch) -> Tensor:
    ratio, low, _ = _interval(objective, batch)
    free = ratio * batch.advantages
    return -torch.minimum(free, ratio.clamp(min=torch.as_tensor(low, dtype=ratio.dtype)) * batch.advantages)


def _log_ratio_for_ratio(objective: Objective, batch: TokenBatch) -> Tensor:
    ratio, low, high = _interval(objective, batch)
    z = ratio.log()
    low, high = torch.as_tensor(low, dtype=z.dtype), torch.as_tensor(high, dtype=z.dtype)
    return -torch.minimum(z * batch.advantages, z.clamp(low, high) * batch.advantages)


def _arithmetic_mean(objective: Objective, batch: TokenBatch) -> Tensor:
    ratio, low, high = _interval(objective, batch)
    if ratio.shape[-1] != 1 and ratio.shape == batch.mask.shape and not bool((ratio == ratio[..., :1]).all()):
        raise TestbedError(f"{objective.name} has a ratio per token")
    mean = batch.sequence_mean(batch.ratio.where(batch.mask, 0)).expand_as(batch.mask)
    low, high = torch.as_tensor(low, dtype=mean.dtype), torch.as_tensor(high, dtype=mean.dtype)
    return -torch.minimum(mean * batch.advantages, mean.clamp(low, high) * batch.advantages)


def _token_ratio(objective: Objective, batch: TokenBatch) -> Tensor:
    _, low, high = _interval(objective, batch)
    ratio = batch.ratio
    low, high = torch.as_tensor(low, dtype=ratio.dtype), torch.as_tensor(high, dtype=ratio.dtype)
    return -torch.minimum(ratio * batch.advantages, ratio.clamp(low, high) * batch.advantages)


@contextmanager
def _without_stop_gradient() -> Iterator[None]:
    with mock.patch.object(Tensor, "detach", lambda self: self):
        yield


def _no_stop_gradient(objective: Objective, batch: TokenBatch) -> Tensor:
    with _without_stop_gradient():
        return objective.token_loss(batch)


def _whitened(over: str, epsilon: float = 1e-8, correction: int = 1) -> Wrong:
    def change(probe: Probe, leaf: Tensor) -> dict[str, Tensor]:
        advantages, mask = probe.fields["advantages"], probe.fields["mask"]
        values = advantages[mask] if over == "tokens" else advantages[:, 0]
        if len(values) < 2:
            return {}
        return {"advantages": (advantages - values.mean()) / (values.std(correction=correction) + epsilon)}

    return _of_batch(change)


def _divided_twice(objective: Objective, batch: TokenBatch) -> Tensor:
    return objective.token_loss(batch) / batch.lengths.unsqueeze(-1)


def _times_score(objective: Objective, batch: TokenBatch) -> Tensor:
    return objective.token_loss(batch).detach() * batch.log_probs


_COMMON = (
    Mistake("the sign: what should be minimised is maximised", _of_tokens(lambda o, b: -o.token_loss(b))),
    Mistake(
        "the mask is forgotten: padding takes part in the loss, and in its divisor",
        _masked_in,
    ),
    Mistake(
        "the ratio is taken against itself: log_probs.detach() stands for old_log_probs, so nothing is ever clipped",
        _of_batch(lambda probe, leaf: {"old_log_probs": leaf.detach()}),
    ),
    Mistake(
        "the clipped ratio alone, without the minimum: tokens that went the wrong way are held too",
        _of_tokens(_clip_alone),
    ),
    Mistake("every token outside the interval is dropped, whatever the sign of its advantage", _of_tokens(_both_sides)),
    Mistake("nothing is clipped", _of_tokens(_clip_never)),
    Mistake("only the upper bound is applied", _of_tokens(_upper_alone)),
    Mistake("only the lower bound is applied", _of_tokens(_lower_alone)),
    Mistake("a bound is taken for the ratio itself: 0.2 instead of 1 + 0.2", _of_tokens(_clip_absolute)),
    Mistake(
        "a bound is taken for the ratio itself: weights are capped at 0.2 instead of 1 + 0.2",
        _of_tokens(_ceiling_of_score),
    ),
    Mistake("the log-ratio stands where the ratio belongs: exp is missing", _of_tokens(_log_ratio_for_ratio)),
    Mistake("the arithmetic mean of the ratios stands where the geometric one belongs", _of_tokens(_arithmetic_mean)),
    Mistake("the token's own ratio stands where that of the response belongs", _of_tokens(_token_ratio)),
    Mistake(
        "the ratio is upside down: old over new",
        _of_batch(lambda probe, leaf: {"log_probs": 2 * probe.fields["old_log_probs"] - leaf}),
    ),
    Mistake(
        "a stop-gradient is missing: the weight of the score takes part in the gradient", _of_tokens(_no_stop_gradient)
    ),
    Mistake("the loss is detached and multiplied by log p", _of_tokens(_times_score)),
    *(
        Mistake(f"advantages are standardised once more, over the {over} of the batch", _whitened(over, *details))
        for over in ("tokens", "responses")
        for details in ((1e-8, 1), (1e-8, 0), (1e-4, 1), (1e-6, 1))
    ),
    Mistake(
        "the sign of the advantage is lost", _of_batch(lambda p, leaf: {"advantages": p.fields["advantages"].abs()})
    ),
    Mistake(
        "a response is given its neighbour's advantage",
        _of_batch(lambda p, leaf: {"advantages": p.fields["advantages"].roll(1, 0)}),
    ),
    Mistake(
        "a token is given its neighbour's probability: log_probs are shifted by one",
        _of_batch(lambda p, leaf: {"log_probs": leaf.roll(1, -1)}),
    ),
    Mistake("divided by the length of the response twice", _of_tokens(_divided_twice)),
)


_WRONG_SIDE = Mistake(
    "the wrong side of the minimum: the maximum of the free and the clipped term is taken",
    _of_batch(lambda probe, leaf: {"advantages": -probe.fields["advantages"]}, sign=-1.0),
)


# -- mistakes of the mean --------------------------------------------------------------------------------------------


def _of_means(objective: Objective) -> Iterator[Mistake]:
    yield Mistake("the mean is over the padded width, not over the response tokens", _reduced(lambda t, b: t.mean()))
    yield Mistake("token losses are added up, and not averaged", _reduced(lambda t, b: t.sum()))
    yield Mistake(
        "a mean over the padded width of each response, then over responses and once more by the number of them",
        _reduced(lambda t, b: t.mean() / t.shape[0]),
    )
    yield Mistake(
        "divided by the number of tokens twice",
        _reduced(lambda t, b: t.sum() / b.mask.sum() ** 2),
    )
    yield Mistake(
        "the mean over tokens is divided by the number of responses as well",
        _reduced(lambda t, b: t.sum() / b.mask.sum() / t.shape[0]),
    )
    for name in reductions.names():
        if name != objective.reduction:
            other = dataclasses.replace(objective, reduction=name)
            yield Mistake(
                f"another mean: token losses are averaged by {name} instead of {objective.reduction}",
                partial(_as, _whole, other),
            )


def _as(evaluate: Wrong, other: Objective, _: Objective, probe: Probe) -> Evaluation:
    return evaluate(other, probe)


def _whole(objective: Objective, probe: Probe) -> Evaluation:
    leaf = probe.leaf()
    return _evaluation(objective.loss(probe.batch(leaf)), leaf)


def _reduced(reduce: Callable[[Tensor, TokenBatch], Tensor]) -> Wrong:
    def evaluate(objective: Objective, probe: Probe) -> Evaluation:
        leaf = probe.leaf()
        batch = probe.batch(leaf)
        return _evaluation(reduce(objective.token_loss(batch).where(batch.mask, 0), batch), leaf)

    return evaluate


# -- mistakes of the settings ----------------------------------------------------------------------------------------


def _of_settings(objective: Objective) -> Iterator[Mistake]:
    values = {item.name: getattr(objective, item.name) for item in dataclasses.fields(objective)}
    numbers = {
        name: value for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }
    pairs = [(low, low.replace("low", "high")) for low in numbers if "low" in low]
    for low, high in (*pairs, ("beta1", "beta2"), ("tau_pos", "tau_neg")):
        if low in numbers and high in numbers and numbers[low] != numbers[high]:
            yield _setting(objective, f"{low} and {high} are swapped", {low: numbers[high], high: numbers[low]})
            yield _setting(objective, f"{low} is used on both sides", {high: numbers[low]})
            yield _setting(objective, f"{high} is used on both sides", {low: numbers[high]})
    for name, value in numbers.items():
        for other in (-value, 0.0, 0.2, 0.28, 2 * value, value / 2):
            yield _setting(objective, f"{name} is {other:g} instead of {value:g}", {name: other})
    if values.get("dual_clip", 0) is None:
        for ceiling in (3.0, 10.0, 5.0, 2.0):
            yield _setting(objective, f"a dual clip at {ceiling:g} that was not asked for", {"dual_clip": ceiling})
    elif isinstance(values.get("dual_clip"), float):
        yield _setting(objective, "the dual clip is missing", {"dual_clip": None})


def _setting(objective: Objective, sentence: str, changes: dict[str, Any]) -> Mistake:
    def evaluate(_: Objective, probe: Probe) -> Evaluation:
        leaf = probe.leaf()
        output = dataclasses.replace(objective, **changes)(probe.batch(leaf))
        return _evaluation(output.loss, leaf, output.token_loss)

    return Mistake(sentence, evaluate)


def _of_ceilings() -> Iterator[Mistake]:
    for ceiling in (3.0, 10.0, 5.0, 2.0):
        sentence = f"the dual clip at {ceiling:g} is applied whatever the sign of the advantage"
        yield Mistake(sentence, _of_tokens(_ceiling_on_both_signs(ceiling)))


def _of_wrappers(objective: Wrapper) -> Iterator[Mistake]:
    base = objective.wrapped
    yield Mistake(f"what {objective.name} adds is missing: it is {base.label()}", partial(_as, _all_of, base))
    yield Mistake(
        f"what {objective.name} adds has the wrong sign",
        _of_tokens(lambda _, batch: 2 * base.token_loss(batch) - objective.token_loss(batch)),
    )


def _others(objective: Objective) -> Iterator[Mistake]:
    """Other registered objectives, with the mean of this one and with their own."""
    for name in objective_names():
        other = make_objective(name)
        if other.label() == objective.label():
            continue
        same_mean = dataclasses.replace(other, reduction=objective.reduction)
        for reading, words in (
            (same_mean, f"it is {name}, with the mean of {objective.name}"),
            (other, f"it is {name}"),
        ):
            yield Mistake(words, partial(_as, _all_of, reading))


def _all_of(objective: Objective, probe: Probe) -> Evaluation:
    leaf = probe.leaf()
    output = objective(probe.batch(leaf))
    return _evaluation(output.loss, leaf, output.token_loss)
