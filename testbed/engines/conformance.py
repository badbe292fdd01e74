"""Does an engine's loss agree with ours? Its own functions and ours, on the same random batches.

Each engine is a file `conformance_<engine>.py` of this package that registers its table; the engine is imported when a
loss of it is first called. A comparison that differs says why, shows the smallest input on which it does, and names the
setting on our side that reproduces the engine.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import itertools
import math
import pkgutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd
import torch
from torch import Tensor

import testbed.engines
from testbed.batch import TokenBatch
from testbed.errors import ConfigError, TestbedWarning
from testbed.objectives import make_objective, objective_names
from testbed.registry import Registry, parse_call

__all__ = [
    "AGREEMENT",
    "Comparison",
    "Engine",
    "conformance_table",
    "deferred",
    "engine_names",
    "engines",
    "format_conformance",
]

AGREEMENT = 1e-9
"""Largest relative difference that counts as the same mathematics, in float64."""

EngineLoss = Callable[[TokenBatch], Tensor]
"""An engine's scalar loss of a batch, differentiable in `batch.log_probs`."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One loss of an engine beside one of ours."""

    objective: str
    """Ours: a name or `name(key=value,…)`."""
    setting: str
    """The engine's, in its own words."""
    loss: EngineLoss
    """Calls the engine."""
    because: str = ""
    """Why the two differ, a sentence without a full stop; empty where they are expected to agree."""
    reproduced_by: str = ""
    """Ours with the setting that gives the engine's numbers; empty where there is none."""
    token_advantages: bool = False
    """Whether tokens of a response have advantages of their own; only some engines take them."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine and the losses of it that have a counterpart here."""

    name: str
    """What the command line calls it; also its distribution on the package index."""
    tested: str
    """The versions the comparisons were written against, as a prefix: "1.16"."""
    comparisons: Sequence[Comparison]
    """The table; a loss imports the engine when it is first called."""
    module: str = ""
    """Its package; empty: that of the name."""
    extra: str = ""
    """The optional dependency of this project that installs it; empty: it wants an environment of its own."""
    agreement: float = AGREEMENT
    """Largest relative difference that counts as the same mathematics; larger where the engine itself rounds."""

    @property
    def package(self) -> str:
        """What is imported."""
        return self.module or self.name

    @property
    def installed(self) -> bool:
        """Whether its package is there; it may still lack one that it needs."""
        return importlib.util.find_spec(self.package) is not None


engines: Registry[Engine] = Registry("engine")


def deferred(build: Callable[[], EngineLoss]) -> EngineLoss:
    """The loss that `build` makes, made when it is first called: a table can be read without its engine."""
    made = cache(build)
    return lambda batch: made()(batch)


def engine_names() -> list[str]:
    """Every engine that can be compared with, installed or not.

    >>> engine_names()
    ['areal', 'liger-kernel', 'ms-swift', 'openrlhf', 'skyrl', 'trinity-rft', 'trl', 'verl']
    """
    prefix = "conformance_"
    for module in pkgutil.iter_modules(testbed.engines.__path__):
        if module.name.startswith(prefix):
            importlib.import_module(f"{testbed.engines.__name__}.{module.name}")
    return engines.names()


def conformance_table(engine: str, seed: int = 0) -> pd.DataFrame:
    """Compare every loss of an installed engine that has a counterpart here.

    Args:
        engine: a name of `engine_names`.
        seed: of the random batches.

    Returns:
        One row a comparison: `objective` (ours), `setting` (theirs), `loss` and `gradient` (largest relative difference
        over the batches; of the gradient, relative to its largest entry), `differs` (empty, or why, with the
        smallest input that shows it), `reproduced_by`, `reproduced_loss`, `reproduced_gradient`, and `as_expected`
        (whether it agrees where it should, and where not is reproduced), `engine`, `version` and an `id` that stays the
        same while the two settings do. Objectives the engine does not have follow with missing numbers.

    Raises:
        UnknownNameError: no such engine.
        ConfigError: the engine is not installed; the message names the extra to install.

    Warns:
        TestbedWarning: the installed version was not tested; the comparison runs all the same.
    """
    engine_names()
    chosen = engines[engine]
    _check_installed(chosen)
    rows = [_row(comparison, seed, chosen.agreement) for comparison in chosen.comparisons]
    compared = {
        parse_call(name)[0] for item in chosen.comparisons for name in (item.objective, item.reproduced_by) if name
    }
    rows += [_BLANK | {"objective": name, "setting": "absent"} for name in objective_names() if name not in compared]
    version = importlib.metadata.version(chosen.name)
    for row in rows:
        # Letters and digits of what is compared, so that an id outlives versions and the order of the table.
        written = f"{row['objective']}|{row['setting']}"
        mark = hashlib.sha256(written.encode()).hexdigest()[:6]
        row |= {"engine": chosen.name, "version": version, "id": f"{chosen.name}-{mark}"}
    return pd.DataFrame(rows).astype({"as_expected": "boolean"})


def format_conformance(table: pd.DataFrame) -> str:
    """A conformance table as plain text: a line a comparison, followed by why it differs and what reproduces it."""
    present = table[table["setting"] != "absent"]
    names, settings = (present[column].str.len().max() for column in ("objective", "setting"))
    lines = [f"{'objective':{names}}  {'engine':{settings}}  loss agrees to  gradient agrees to"]
    for row in present.to_dict("records"):
        numbers = f"{_digits(row['loss']):14}  {_digits(row['gradient'])}"
        lines.append(f"{row['objective']:{names}}  {row['setting']:{settings}}  {numbers}")
        if row["differs"]:
            lines.append(f"    differs because {row['differs']}")
        if row["reproduced_by"]:
            found = f"{_digits(row['reproduced_loss'])} and {_digits(row['reproduced_gradient'])}"
            lines.append(f"    reproduced by {row['reproduced_by']}: {found}")
    absent = table.loc[table["setting"] == "absent", "objective"]
    if len(absent):
        lines.append(f"not in this engine: {', '.join(absent)}")
    return "\n".join(lines)


_BLANK: dict[str, object] = {
    "objective": "",
    "setting": "",
    "loss": math.nan,
    "gradient": math.nan,
    "differs": "",
    "reproduced_by": "",
    "reproduced_loss": math.nan,
    "reproduced_gradient": math.nan,
    "as_expected": pd.NA,
}


def _check_installed(engine: Engine) -> None:
    if not engine.installed:
        how = (
            f'pip install "policy-objective-testbed[{engine.extra}]"'
            if engine.extra
            else f'pip install --no-deps "{engine.name}=={engine.tested}.*", in an environment of its own'
        )
        raise ConfigError(f"{engine.name} is not installed; {how}")
    version = importlib.metadata.version(engine.name)
    if not f"{version}.".startswith(f"{engine.tested}."):
        warnings.warn(
            f"{engine.name} {version} is outside the tested range {engine.tested}.*; the comparison runs, and a "
            "difference may be a change of the engine",
            TestbedWarning,
            stacklevel=3,
        )


def _digits(difference: float) -> str:
    """The power of ten below which two numbers agree, or "differs".

    >>> _digits(3e-13), _digits(0.0), _digits(0.2)
    ('1e-12', '1e-16', 'differs')
    """
    if not difference <= 1e-6:
        return "differs"
    return f"1e{max(math.ceil(math.log10(difference)), -16) if difference > 0 else -16:d}"


# -- measuring -----------------------------------------------------------------------------------------------


def _row(comparison: Comparison, seed: int, agreement: float) -> dict[str, object]:
    loss, gradient = _difference(
        comparison.objective, comparison.loss, _random_batches(seed, comparison.token_advantages)
    )
    agrees = max(loss, gradient) <= agreement
    row = _BLANK | {
        "objective": comparison.objective,
        "setting": comparison.setting,
        "loss": loss,
        "gradient": gradient,
        "as_expected": agrees == (not comparison.because),
    }
    if not agrees:
        why = comparison.because or "of a reason unknown to this table"
        row["differs"] = f"{why}; {_smallest_difference(comparison, agreement)}"
    if comparison.reproduced_by:
        batches = _random_batches(seed, comparison.token_advantages)
        again = _difference(comparison.reproduced_by, comparison.loss, batches)
        row |= {
            "reproduced_by": comparison.reproduced_by,
            "reproduced_loss": again[0],
            "reproduced_gradient": again[1],
            "as_expected": row["as_expected"] and max(again) <= agreement,
        }
    return row


def _difference(objective: str, theirs: EngineLoss, batches: Iterator[TokenBatch]) -> tuple[float, float]:
    """Largest relative difference of loss and gradient; infinite where one of them is not a number."""
    differences = [_compare(objective, theirs, batch)[:2] for batch in batches]
    loss, gradient = (max(column) for column in zip(*differences, strict=True))
    return loss, gradient


def _compare(name: str, theirs: EngineLoss, batch: TokenBatch) -> tuple[float, float, Sequence[Tensor]]:
    objective = make_objective(name)
    output = objective(batch)
    losses = [output.loss, theirs(batch)]
    gradients = [
        torch.autograd.grad(loss, batch.log_probs, retain_graph=True, materialize_grads=True)[0].where(batch.mask, 0)
        for loss in losses
    ]
    # A sum that cancels is measured against the sum of its absolute terms.
    weights = objective.reduction_weights(batch)
    size = max(float((weights * output.token_loss).abs().sum()), float(losses[1].detach().abs()))
    loss_error = _relative(float((losses[0] - losses[1]).detach().abs()), size)
    largest = max(float(gradient.abs().max()) for gradient in gradients)
    gradient_error = _relative(float((gradients[0] - gradients[1]).abs().max()), largest)
    return loss_error, gradient_error, [loss.detach() for loss in losses] + gradients


def _relative(difference: float, size: float) -> float:
    if math.isnan(difference):
        return math.inf
    return difference / size if size else difference


def _batch(ratios: Tensor, advantages: Tensor, mask: Tensor, old: Tensor, **optional: Tensor) -> TokenBatch:
    return TokenBatch(
        log_probs=(old + ratios.log()).requires_grad_(),
        old_log_probs=old,
        advantages=advantages,
        mask=mask,
        **optional,
    )


def _random_batches(seed: int, token_advantages: bool = False) -> Iterator[TokenBatch]:
    """Ratios spread widely, narrowly enough for sequence-level bounds, and all exactly 1; 64 tokens in 10 responses."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([12, 11, 9, 8, 7, 6, 5, 3, 2, 1])
    shape = (10, 12)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    for spread in (0.8, 1e-3, 0.0):
        order = torch.randperm(shape[0], generator=generator)
        old = -0.05 - 4 * torch.rand(shape, generator=generator, dtype=torch.float64)
        new = old + spread * (normal(*shape) + 0.5 * normal(shape[0], 1))
        # Probabilities below 1, and no two alike: a choice by rank has no right answer among equals.
        new = new.where(new < -0.01, 0.01 * old)
        entropies = 0.1 + 2 * torch.rand(shape, generator=generator, dtype=torch.float64)
        yield _batch(
            (new - old).exp(),
            normal(*shape) if token_advantages else normal(shape[0]),
            torch.arange(shape[1]) < lengths[order].unsqueeze(-1),
            old,
            entropies=entropies,
            old_entropies=entropies * (0.05 * normal(*shape)).exp(),
            sampler_log_probs=old + 0.5 * normal(*shape),
            # Far enough that an engine's limit on the penalty is met.
            ref_log_probs=old + 2 * normal(*shape),
        )


def _smallest_difference(comparison: Comparison, agreement: float) -> str:
    """The smallest of a list of simple batches on which the two differ, with both results."""
    for ratios, advantages in _simple_inputs(comparison.token_advantages):
        batch = _simple_batch(ratios, advantages)
        loss, gradient, (ours, theirs, our_gradient, their_gradient) = _compare(
            comparison.objective, comparison.loss, batch
        )
        error = max(loss, gradient)
        if error > 2 * agreement:
            # As many digits as it takes to tell the two apart.
            digits = max(4, 2 - math.floor(math.log10(min(error, 1))))
            responses = "; ".join(
                f"ratio{'s' if len(row) > 1 else ''} {', '.join(f'{r:g}' for r in row)} with A = "
                f"{', '.join(f'{a:g}' for a in dict.fromkeys(of_row))}"
                for row, of_row in zip(ratios, advantages, strict=True)
            )
            return (
                f"smallest: {responses} (q = 0.25): loss {float(ours):.{digits}g} here, {float(theirs):.{digits}g} "
                f"there, gradient {_numbers(our_gradient, batch.mask, digits)} here, "
                f"{_numbers(their_gradient, batch.mask, digits)} there"
            )
    return f"no simple batch shows it, the random ones do by {agreement:g} or more"


def _simple_inputs(token_advantages: bool) -> Iterator[tuple[list[list[float]], list[list[float]]]]:
    """Ratios and advantages of one token, of two in one response, of two and of three in two responses."""
    ratios, advantages = (1.0, 1.5, 0.5, 4.0, 0.05), (1.0, -1.0)
    if token_advantages:
        for first, second, advantage in itertools.product(ratios, ratios, advantages):
            yield [[first, second]], [[advantage, -advantage]]
    for first, advantage in itertools.product(ratios, advantages):
        yield [[first]], [[advantage]]
    for first, second, advantage in itertools.product(ratios, ratios, advantages):
        yield [[first, second]], [[advantage] * 2]
    for first, second, pair in itertools.product(ratios, ratios, itertools.product(advantages, advantages)):
        yield [[first], [second]], [[advantage] for advantage in pair]
    for first, second, pair in itertools.product(ratios, ratios, itertools.product(advantages, advantages)):
        yield [[first, first], [second]], [[pair[0]] * 2, [pair[1]]]


def _simple_batch(ratios: list[list[float]], advantages: list[list[float]]) -> TokenBatch:
    width = max(len(row) for row in ratios)
    filled, known = (
        torch.tensor([row + row[-1:] * (width - len(row)) for row in rows], dtype=torch.float64)
        for rows in (ratios, advantages)
    )
    mask = torch.tensor([[column < len(row) for column in range(width)] for row in ratios])
    old = torch.full(filled.shape, 0.25, dtype=torch.float64).log()
    entropies = 1.0 + torch.arange(width, dtype=torch.float64).expand_as(old)
    return _batch(
        filled,
        known,
        mask,
        old,
        entropies=entropies,
        old_entropies=entropies,
        # Twice as likely under the reference, a third as likely for the sampler.
        ref_log_probs=old + math.log(2),
        sampler_log_probs=old - math.log(3),
    )


def _numbers(values: Tensor, mask: Tensor, digits: int) -> str:
    return ", ".join(f"{value:.{digits}g}" for value in (values[mask] + 0.0).tolist())
