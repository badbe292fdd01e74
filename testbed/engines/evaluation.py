"""How often a language model is right: avg@k, pass@k and greedy, with intervals over problems."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy
from numpy.typing import NDArray

from models.causal_lm import Completion, complete
from testbed.errors import ConfigError

__all__ = ["Estimate", "Evaluation", "Sample", "evaluate", "paired_difference"]

LEVEL = 0.90
"""Coverage of every interval."""
RESAMPLES = 5000
FEW_CHANGES = 20
"""With fewer problems that changed, resamples show too little of how changes spread."""


class Verdict(Protocol):
    """What a grader says of one response; `envs.grading.Grade` is one."""

    @property
    def correct(self) -> bool:
        """Whether the answer is right."""

    @property
    def parsed(self) -> bool:
        """Whether there was an answer at all."""


class Question(Protocol):
    """A prompt with its answer; `envs.math_tasks.Problem` is one."""

    @property
    def prompt(self) -> str:
        """What the model reads."""

    @property
    def answer(self) -> str:
        """The right answer."""


Grade = Callable[[Sequence[str], Sequence[str]], Sequence[Verdict]]
"""(responses, right answers) to one verdict each."""


class Estimate(NamedTuple):
    """A mean over problems with its 90 % interval."""

    value: float
    """Between 0 and 1, or -1 and 1 for a difference."""
    low: float
    """Lower bound."""
    high: float
    """Upper bound."""


class Sample(NamedTuple):
    """One response and its verdict."""

    prompt: str
    answer: str
    response: str
    correct: bool
    parsed: bool
    finished: bool


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured; the problem is the unit of every interval."""

    average: Estimate
    """avg@k: share of right answers among k sampled responses."""
    any_right: Estimate
    """pass@k: share of problems with at least one right answer among k sampled responses."""
    greedy: Estimate
    """Share of right answers with the most probable token at every position."""
    k: int
    """Responses sampled per problem."""
    problems: int
    """Problems asked."""
    unparsed: float
    """Share of sampled responses without an answer that could be read."""
    unfinished: float
    """Share of sampled responses cut off at the limit."""
    tokens: float
    """Mean length of a sampled response, end token included."""
    per_problem: tuple[float, ...]
    """avg@k of each problem, in order."""
    samples: tuple[Sample, ...]
    """The greedy response to each problem."""

    def facts(self) -> dict[str, Any]:
        """Everything but the samples, for JSON."""
        described = asdict(self)
        del described["samples"]
        for name in ("average", "any_right", "greedy"):
            described[name] = getattr(self, name)._asdict()
        return described


def evaluate(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Question],
    grade: Grade,
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    stop: Sequence[str] = (),
) -> Evaluation:
    """Ask every problem `samples` times and once greedily.

    Args:
        model: a causal language model.
        tokenizer: the one that goes with it.
        problems: what is asked.
        grade: the grader.
        samples: k, at least 1.
        max_new_tokens: limit on the length of a response.
        temperature: of the sampled responses, above 0.
        seed: of the sampling.
        batch_size: responses per forward pass.
        stop: strings that end a response.

    Raises:
        ConfigError: there are no problems, or `samples` is below 1.
    """
    if not problems or samples < 1:
        raise ConfigError(f"got {len(problems)} problems and samples={samples}; expected at least one of each")
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "stop": stop}
    asked = [problem for problem in problems for _ in range(samples)]
    prompts = [problem.prompt for problem in asked]
    written = complete(model, tokenizer, prompts, temperature=temperature, seed=seed, **settings)
    drawn = _graded(asked, written, grade)
    most_probable = complete(model, tokenizer, prompts[::samples], temperature=0.0, **settings)
    greedy = _graded(list(problems), most_probable, grade)

    right = np.array([sample.correct for sample in drawn], dtype=float).reshape(len(problems), samples)
    return Evaluation(
        average=_estimate(right.mean(1)),
        any_right=_estimate(right.max(1)),
        greedy=_estimate(np.array([sample.correct for sample in greedy], dtype=float)),
        k=samples,
        problems=len(problems),
        unparsed=float(np.mean([not sample.parsed for sample in drawn])),
        unfinished=float(np.mean([not sample.finished for sample in drawn])),
        tokens=float(np.mean([completion.tokens for completion in written])),
        per_problem=tuple(right.mean(1).tolist()),
        samples=tuple(greedy),
    )


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """Mean of after - before over the same problems.

    Either sign is possible whatever was seen, so the interval has room on both sides of 0 where few problems changed:

    * None of n changed: ±u with (1 - u)^n = 0.1. Were the mean beyond that, more than the share u of all problems would
      change, and none of n with less than 10 % probability.
    * All changes are from wrong to right or from right to wrong: Wald's interval after one more problem of each kind
      (Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
      data", 2012).
    * Otherwise the BCa bootstrap; where fewer than 20 problems changed, on each side the wider of it and Student's t;
      none where all changed by the same part.

    Raises:
        ConfigError: the numbers of problems differ.

    Example:
        >>> paired_difference([0.0, 0.5], [0.5, 1.0]).value
        0.5
        >>> [round(number, 3) for number in paired_difference([0.0] * 4, [0.0] * 4)]
        [0.0, -0.438, 0.438]
    """
    if len(before) != len(after):
        raise ConfigError(f"{len(before)} problems before and {len(after)} after; expected the same problems")
    changes = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if not changes.any():
        bound = 1 - (1 - LEVEL) ** (1 / len(changes))
        return Estimate(0.0, -bound, bound)
    if np.isin(changes, (-1.0, 0.0, 1.0)).all():
        seen = np.append(changes, (1.0, -1.0))
        half = scipy.stats.norm.ppf((1 + LEVEL) / 2) * seen.std() / np.sqrt(len(seen))
        low, high = seen.mean() - half, seen.mean() + half
    else:
        mean, low, high = _mean(changes)
        if np.count_nonzero(changes) < FEW_CHANGES and len(changes) > 1:
            half = scipy.stats.t.ppf((1 + LEVEL) / 2, len(changes) - 1) * scipy.stats.sem(changes)
            low, high = np.minimum(low, mean - half), np.maximum(high, mean + half)
    return Estimate(float(changes.mean()), *np.clip((low, high), -1.0, 1.0).tolist())


def _graded(problems: Sequence[Question], written: Sequence[Completion], grade: Grade) -> list[Sample]:
    verdicts = grade([completion.text for completion in written], [problem.answer for problem in problems])
    return [
        Sample(problem.prompt, problem.answer, completion.text, verdict.correct, verdict.parsed, completion.finished)
        for problem, completion, verdict in zip(problems, written, verdicts, strict=True)
    ]


def _estimate(values: NDArray[np.float64]) -> Estimate:
    """Wilson's interval for right and wrong, the BCa bootstrap for other numbers."""
    if not np.isin(values, (0.0, 1.0)).all():
        return _mean(values)
    bounds = scipy.stats.binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL, method="wilson")
    return Estimate(float(values.mean()), float(bounds.low), float(bounds.high))


def _mean(values: NDArray[np.float64]) -> Estimate:
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        # One value, however often, says nothing of the spread.
        return Estimate(mean, float("nan"), float("nan"))
    with warnings.catch_warnings():
        # Where the acceleration is 0/0 the bounds are NaN, which is what they should be.
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        bounds = scipy.stats.bootstrap(
            (values,), np.mean, confidence_level=LEVEL, n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        ).confidence_interval
    return Estimate(mean, float(bounds.low), float(bounds.high))
