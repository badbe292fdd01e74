"""Simulated runs as canonical rows: what a toy measures, and beside it what only a language model has, drawn."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from testbed.simulation import simulate

__all__ = ["Plan", "Rows", "lengths", "runs", "sampler"]

Rows = dict[str, np.ndarray]
"""Canonical name to one value a row; NaN where a row does not have it."""

_FROM_TABLE = {
    "reward/mean": "reward/mean",
    "exact/token_entropy": "entropy/mean",
    "clip/high_fraction": "clip/high_fraction",
    "clip/low_fraction": "clip/low_fraction",
    "clip/ceiling_fraction": "clip/ceiling_fraction",
    "clip/fraction": "clip/fraction",
    "band/outside_fraction": "band/outside_fraction",
    "kl/old": "kl/old",
    "ratio/mean": "ratio/mean",
    "ratio/max": "ratio/max",
    "ratio/min": "ratio/min",
    "gradient/norm": "gradient/norm",
    "group/zero_variance_fraction": "group/zero_variance_fraction",
    "advantage/nonzero_fraction": "advantage/nonzero_fraction",
    "advantage/positive_token_fraction": "advantage/positive_token_fraction",
}


@dataclass(frozen=True)
class Plan:
    """Settings of a simulated run, without its seed.

    Attributes:
        objective, env: as `simulate` takes them.
        settings: its other settings.
    """

    objective: str
    env: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def updates(self) -> int:
        """Updates per rollout."""
        return int(self.settings.get("epochs", 4)) * int(self.settings.get("minibatches", 1))


def runs(plan: Plan, seeds: int, seed: int) -> list[Rows]:
    """Canonical rows of a plan for several seeds."""
    made = _runs(plan.objective, plan.env, tuple(sorted(plan.settings.items())), seeds, seed)
    return [{name: values.copy() for name, values in rows.items()} for rows in made]


@cache
def _runs(objective: str, env: str, settings: tuple[tuple[str, Any], ...], seeds: int, seed: int) -> list[Rows]:
    with warnings.catch_warnings():
        # A run of one update per rollout says that it cannot tell objectives apart; here that is the point.
        warnings.simplefilter("ignore")
        table = simulate(objective, env, seeds=seeds, seed=seed, **dict(settings)).table
    made = []
    for number in range(seeds):
        part = table[(table["replica"] == number) & (table["step"] > 0)]
        rows: Rows = {"step": part["step"].to_numpy(float)}
        for column, name in _FROM_TABLE.items():
            values = part[column].to_numpy(float)
            if np.isfinite(values).any():
                rows[name] = values
        made.append(_dressed(rows, np.random.default_rng([seed, number, len(rows)]), dict(settings)))
    return made


def _dressed(rows: Rows, draw: np.random.Generator, settings: Mapping[str, Any]) -> Rows:
    """What an engine logs besides: step size, loss, advantages' extremes, lengths, a sound sampler, an evaluation."""
    n = len(rows["step"])
    group = int(settings.get("group_size", 16))
    rows["learning_rate"] = np.full(n, 1e-6)
    rows["loss"] = draw.normal(0, 0.01, n)
    largest = (group - 1) / np.sqrt(group)
    rows["advantage/max"] = np.minimum(largest * draw.uniform(0.8, 1.0, n), largest)
    rows["advantage/min"] = -np.minimum(largest * draw.uniform(0.8, 1.0, n), largest)
    rows["advantage/mean"] = draw.normal(0, 0.01, n)
    dead = rows.get("group/zero_variance_fraction")
    if dead is not None:
        reward = np.clip(rows["reward/mean"], 0, 1)
        # A dead group is all right with the chance a right response has, roughly.
        easy = dead * reward**2 / np.maximum(reward**2 + (1 - reward) ** 2, 1e-9)
        rows["group/too_easy_fraction"], rows["group/too_hard_fraction"] = easy, dead - easy
        rows["group/mixed_fraction"] = 1 - dead
    rows |= lengths(draw, np.linspace(300, 330, n), limit=2048)
    rows |= sampler(draw, np.full(n, 0.012))
    rows["time/step"] = np.abs(draw.normal(45, 4, n))
    rows["kl/ref"] = 0.02 * np.linspace(0, 1, n) * np.exp(draw.normal(0, 0.1, n))
    rows["evaluation/reward"] = np.where(
        np.arange(n) % 10 == 9, rows["reward/mean"] - 0.05 + draw.normal(0, 0.015, n), np.nan
    )
    return rows


def lengths(draw: np.random.Generator, means: np.ndarray, limit: int, responses: int = 512) -> Rows:
    """Lengths of log-normal responses of those means, cut off at a limit."""
    spread = 0.45
    drawn = np.exp(draw.normal(np.log(means)[:, None] - spread**2 / 2, spread, (len(means), responses)))
    cut = drawn > limit
    kept = np.minimum(drawn, limit)
    ended = np.where(cut, np.nan, drawn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        terminated = np.nan_to_num(np.nanmean(ended, axis=1))
    return {
        "length/mean": kept.mean(1),
        "length/max": kept.max(1),
        "length/min": kept.min(1),
        "length/terminated_mean": terminated,
        "length/truncated_fraction": cut.mean(1),
        "length/natural_fraction": 1 - cut.mean(1),
    }


def sampler(
    draw: np.random.Generator,
    deviations: np.ndarray,
    *,
    top_p: float | None = None,
    sequence_bounds: tuple[float, float] | None = None,
    tokens: int = 4096,
    length: int = 1024,
) -> Rows:
    """How a sampler differs from the trainer, token by token, as engines measure it.

    Args:
        draw: random numbers.
        deviations: standard deviation of log p_trainer - log p_sampler, one a row.
        top_p: the sampler keeps that much mass and renormalises.
        sequence_bounds: a response keeps its product of quotients between these, and gets weight 0 otherwise.
        tokens: tokens of a batch that are drawn.
        length: tokens of a response, for products.
    """
    made: dict[str, list[float]] = {}
    for deviation in deviations:
        probabilities = draw.beta(4, 1, tokens)
        difference = draw.normal(-(deviation**2) / 2, deviation, tokens)
        if top_p is not None:
            kept = _kept_mass(draw, top_p, tokens)
            difference = difference * 0.02 + np.log(kept)
        ratio = np.exp(difference)
        other = np.clip(probabilities / ratio, 0, 1)
        weights = ratio
        rejected = 0.0
        if sequence_bounds is not None:
            products = np.exp(draw.normal(-length * deviation**2 / 2, deviation * np.sqrt(length), 512))
            inside = (products >= sequence_bounds[0]) & (products <= sequence_bounds[1])
            weights, rejected = np.where(inside, products, 0.0), float(1 - inside.mean())
        values = {
            "sampler/log_abs_mean": np.abs(difference).mean(),
            "sampler/log_abs_max": np.abs(difference).max(),
            "kl/sampler": -difference.mean(),
            "sampler/kl_k3": (ratio - 1 - difference).mean(),
            "sampler/error": np.exp(np.abs(difference)).mean(),
            "sampler/probability_abs_mean": np.abs(probabilities - other).mean(),
            "sampler/probability_correlation": np.corrcoef(probabilities, other)[0, 1],
            "sampler/ratio_mean": ratio.mean(),
            "sampler/ratio_min": ratio.min(),
            "sampler/ratio_max": ratio.max(),
            "sampler/weight_mean": weights.mean(),
            "sampler/weight_min": weights.min(),
            "sampler/weight_max": weights.max(),
            "sampler/rejected_fraction": rejected,
        }
        for name, value in values.items():
            made.setdefault(name, []).append(float(value))
    return {name: np.array(values) for name, values in made.items()}


def _kept_mass(draw: np.random.Generator, top_p: float, tokens: int) -> np.ndarray:
    """The mass that top-p keeps of next-token distributions with a Zipf tail behind a confident head."""
    distributions = 64
    ranks = np.arange(1, 2001)
    exponents = draw.uniform(1.1, 2.5, distributions)
    mass = ranks[None, :] ** -exponents[:, None]
    mass /= mass.sum(1, keepdims=True)
    cumulative = mass.cumsum(1)
    count = (cumulative < top_p).sum(1)
    kept = cumulative[np.arange(distributions), np.minimum(count, len(ranks) - 1)]
    return kept[draw.integers(0, distributions, tokens)]
