"""The causes: one thing of a healthy run is broken, in the simulation where that has it, else beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.diagnose.planted.base import Plan, Rows, lengths, runs, sampler

__all__ = ["CAUSES", "HEALTHY", "Cause", "Planted", "healthy"]

_SUM = "ModularSum-v1(length=6,vocabulary=16,modulus=4,prompts=8)"
_LONG_SUM = "ModularSum-v1(length=8,vocabulary=16,modulus=5,prompts=8)"
_SHORT_SUM = "ModularSum-v1(length=4,vocabulary=12,modulus=3,prompts=12)"


def _plans() -> Iterator[Plan]:
    """Twenty healthy settings: objectives, environments, updates per rollout, group sizes, step sizes, staleness."""
    spread = (
        ("grpo", _SUM, {"learning_rate": 16.0, "epochs": 4}),
        ("dapo", _SUM, {"learning_rate": 16.0, "epochs": 4}),
        ("dapo", _SUM, {"learning_rate": 8.0, "epochs": 8}),
        ("dcpo", _SUM, {"learning_rate": 0.5, "epochs": 4}),
        ("ce_gppo", _SUM, {"learning_rate": 12.0, "epochs": 4}),
        ("ppo", _SUM, {"learning_rate": 12.0, "epochs": 2, "minibatches": 2}),
        ("grpo", _LONG_SUM, {"learning_rate": 24.0, "epochs": 4}),
        ("dapo", _LONG_SUM, {"learning_rate": 24.0, "epochs": 4}),
        ("dapo", _LONG_SUM, {"learning_rate": 16.0, "epochs": 4, "staleness": 1}),
        ("gppo", _LONG_SUM, {"learning_rate": 16.0, "epochs": 4}),
        ("ppo", _LONG_SUM, {"learning_rate": 16.0, "epochs": 8}),
        ("grpo", _LONG_SUM, {"learning_rate": 24.0, "epochs": 4, "group_size": 8}),
        ("dapo", _SHORT_SUM, {"learning_rate": 4.0, "epochs": 4}),
        ("grpo", _SHORT_SUM, {"learning_rate": 4.0, "epochs": 4}),
        ("grpo", _SHORT_SUM, {"learning_rate": 3.0, "epochs": 8, "group_size": 8}),
        ("dapo", _SHORT_SUM, {"learning_rate": 4.0, "epochs": 4, "staleness": 2}),
        ("dapo", "DifficultyMixture-v1", {"learning_rate": 2.0, "epochs": 4}),
        ("grpo", "DifficultyMixture-v1", {"learning_rate": 2.0, "epochs": 4}),
        ("ppo", "DifficultyMixture-v1", {"learning_rate": 1.0, "epochs": 8}),
        ("grpo", "DifficultyMixture-v1", {"learning_rate": 2.0, "epochs": 2, "group_size": 8}),
    )
    for objective, env, settings in spread:
        yield Plan(objective, env, {"steps": 60, **settings})


HEALTHY: tuple[Plan, ...] = tuple(_plans())


@dataclass(frozen=True)
class Planted:
    """One run with a known cause.

    Attributes:
        cause: name of the cause; "healthy" for none.
        expected: id of the rule that should come first; empty for none.
        rows: canonical rows.
        settings: canonical settings, to be written under an engine's keys.
        onset: the step it begins at; `None`: from the start.
        engines: engines that log what the cause shows in.
        sparse: names that are logged in some rows only.
    """

    cause: str
    expected: str
    rows: Rows
    settings: Mapping[str, Any] = field(default_factory=dict)
    onset: float | None = None
    engines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cause:
    """A way to break a run.

    Attributes:
        name: its name in the table.
        expected: id of the rule.
        plant: seeds to runs.
        engines: engines that log what it shows in.
    """

    name: str
    expected: str
    plant: Callable[[int, int], list[Planted]]
    engines: tuple[str, ...]


CAUSES: list[Cause] = []

_EVERY = ("trl", "ms-swift", "verl", "openrlhf", "slime", "skyrl", "prime-rl", "nemo-rl", "areal", "roll", "testbed")
_BROAD = ("trl", "verl", "ms-swift", "openrlhf", "slime")


Broken = Callable[[Rows, np.random.Generator, int], "tuple[Rows, float | None]"]


def _cause(
    name: str,
    expected: str,
    engines: tuple[str, ...],
    plan: Plan = HEALTHY[1],
    settings: Mapping[str, Any] | None = None,
) -> Callable[[Broken], Broken]:
    def file(broken: Broken) -> Broken:
        def plant(seeds: int, seed: int) -> list[Planted]:
            made = []
            for number, rows in enumerate(runs(plan, seeds, seed)):
                draw = np.random.default_rng([seed, number, sum(map(ord, name))])
                changed, onset = broken(dict(rows), draw, number)
                known = {"updates_per_rollout": plan.updates, "loss": _loss(plan.objective), **(settings or {})}
                made.append(Planted(name, expected, changed, known, onset, engines))
            return made

        CAUSES.append(Cause(name, expected, plant, engines))
        return broken

    return file


def _loss(objective: str) -> str:
    return objective.partition("(")[0]


def healthy(seeds: int, seed: int) -> list[Planted]:
    """Runs in which nothing is broken, the same number of each setting."""
    made = []
    for plan in HEALTHY:
        for rows in runs(plan, seeds, seed):
            known: dict[str, Any] = {"updates_per_rollout": plan.updates, "loss": _loss(plan.objective)}
            if plan.settings.get("staleness"):
                known["asynchronous"] = True
            made.append(Planted("healthy", "", dict(rows), known, None, _EVERY))
    return made


def _half(rows: Rows, draw: np.random.Generator) -> int:
    """A place between a third and two thirds of the run."""
    n = len(rows["step"])
    return int(draw.integers(n // 3, 2 * n // 3))


# -- in the simulation -----------------------------------------------------------------------------------------------


def _as_it_is(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    return rows, None


_cause(
    "one update per rollout",
    "clipping-cannot-act",
    _EVERY[:4],
    Plan("dapo", _SUM, {"steps": 60, "learning_rate": 32.0, "epochs": 1}),
)(_as_it_is)
_cause(
    "ratio computed anew at every update",
    "ratio-constant",
    ("verl", "openrlhf", "slime", "roll", "nemo-rl", "areal"),
    Plan("dapo", _SUM, {"steps": 60, "learning_rate": 32.0, "epochs": 1}),
    {"updates_per_rollout": 4},
)(_as_it_is)
_cause(
    "step size far too large",
    "entropy-collapse",
    _EVERY,
    Plan("grpo", "RareArm-v1(arms=30,contexts=16)", {"steps": 60, "learning_rate": 48.0, "epochs": 4}),
)(_as_it_is)
_cause(
    "entropy bonus far too large",
    "entropy-explosion",
    _EVERY,
    Plan(
        "entropy_bonus(base=dapo,coefficient=0.3)",
        "NullBandit-v1(initial=peaked,contexts=16)",
        {"steps": 60, "learning_rate": 2.0, "epochs": 4},
    ),
    {"entropy_coefficient": 0.3, "loss": "dapo"},
)(_as_it_is)
_cause(
    "nothing but trivial and hopeless prompts",
    "no-signal",
    ("trl", "ms-swift", "prime-rl", "nemo-rl", "tinker", "testbed"),
    Plan("grpo", "DifficultyMixture-v1(a=0.02,b=0.02)", {"steps": 60, "learning_rate": 0.5, "epochs": 4}),
)(_as_it_is)
_cause(
    "a grader that never pays",
    "reward-constant",
    _EVERY,
    Plan("grpo", "Lock-v1(length=6,vocabulary=16)", {"steps": 40, "learning_rate": 8.0, "epochs": 4}),
)(_as_it_is)
_cause(
    "old log-probabilities of an older policy",
    "divergence-on-policy",
    ("verl", "openrlhf", "slime", "roll", "areal"),
    Plan("dapo", _SUM, {"steps": 60, "learning_rate": 32.0, "epochs": 1, "staleness": 2}),
    {"updates_per_rollout": 1},
)(_as_it_is)
_cause(
    "a dual clip just above the band",
    "dual-clip",
    ("verl", "areal", "testbed"),
    Plan(
        "dapo(dual_clip=1.3)",
        "RareArm-v1(arms=30)",
        {"steps": 40, "learning_rate": 32.0, "epochs": 8, "staleness": 4},
    ),
    {"dual_clip": 1.3, "clip_low": 0.2, "clip_high": 0.28, "asynchronous": True},
)(_as_it_is)
_cause(
    "GSPO with PPO's bounds",
    "clip-range",
    ("trl", "verl", "ms-swift", "skyrl", "roll"),
    Plan("gspo(clip_low=0.2,clip_high=0.2)", _SUM, {"steps": 60, "learning_rate": 16.0, "epochs": 4}),
    {"loss": "gspo", "ratio_level": "sequence", "clip_low": 0.2, "clip_high": 0.2},
)(_as_it_is)
_cause(
    "PPO with GSPO's bounds",
    "clip-range",
    ("trl", "verl", "ms-swift", "skyrl", "roll"),
    Plan("grpo(clip_low=3e-4,clip_high=4e-4)", _SUM, {"steps": 60, "learning_rate": 16.0, "epochs": 4}),
    {"loss": "grpo", "ratio_level": "token", "clip_low": 3e-4, "clip_high": 4e-4},
)(_as_it_is)
_cause(
    "KL-Cov over micro-batches",
    "batch-scope",
    ("verl",),
    Plan("kl_cov", _SUM, {"steps": 60, "learning_rate": 8.0, "epochs": 4}),
    {"loss": "kl_cov", "micro_batch": 4, "mini_batch": 128},
)(_as_it_is)


# -- beside it -------------------------------------------------------------------------------------------------------


@_cause(
    "CISPO with the others' epsilon",
    "weight-ceiling",
    ("trl", "ms-swift"),
    settings={"loss": "cispo", "weight_cap": 0.2},
)
def _weight_ceiling(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    # Every ratio of a positive token is above 0.2.
    rows["weight/capped_fraction"] = rows.pop("advantage/positive_token_fraction")
    for name in ("clip/high_fraction", "clip/low_fraction", "clip/fraction"):
        rows.pop(name)
    rows["gradient/norm"] = rows["gradient/norm"] * 0.2
    return rows, None


@_cause("learning rate never set", "learning-rate-zero", _EVERY, HEALTHY[12])
def _never_set(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    rows["learning_rate"] = np.zeros(len(rows["step"]))
    for name in ("reward/mean", "entropy/mean"):
        rows[name] = rows[name][0] + draw.normal(0, 0.02, len(rows["step"]))
    return rows, None


@_cause("schedule shorter than the run", "learning-rate-zero", _EVERY)
def _schedule_ends(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    place, n = _half(rows, draw), len(rows["step"])
    rows["learning_rate"] = np.maximum(1e-6 * (1 - np.arange(n) / place), 0)
    for name in ("reward/mean", "entropy/mean"):
        rows[name][place:] = rows[name][place] + draw.normal(0, 0.02, n - place)
    return rows, float(rows["step"][place])


@_cause("an outlying batch", "gradient-spike", _EVERY)
def _outlying(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    place = _half(rows, draw)
    rows["gradient/norm"] = rows["gradient/norm"].copy()
    # An advantage a hundred times as large makes that gradient as much larger, and the next ones somewhat.
    rows["gradient/norm"][place] *= draw.uniform(60, 200)
    rows["gradient/norm"][place + 1 : place + 4] *= draw.uniform(2, 6)
    return rows, float(rows["step"][place])


@_cause("one step much too large", "divergence-spike", ("verl", "openrlhf", "slime", "roll", "areal", "testbed"))
def _jump(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    place = _half(rows, draw)
    rows["kl/old"] = np.abs(rows["kl/old"])
    rows["kl/old"][place] = draw.uniform(0.5, 4)
    rows["kl/ref"] = rows["kl/ref"] + 0.3 * (np.arange(len(rows["step"])) >= place)
    return rows, float(rows["step"][place])


@_cause(
    "other precision in the sampler", "mismatch", ("trl", "verl", "slime", "skyrl", "prime-rl", "nemo-rl", "ms-swift")
)
def _mismatch(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    n = len(rows["step"])
    return rows | sampler(draw, np.full(n, draw.uniform(0.25, 0.4))), None


@_cause(
    "weights that reach the sampler late",
    "mismatch-growing",
    ("trl", "verl", "slime", "skyrl", "prime-rl", "nemo-rl", "ms-swift"),
)
def _growing(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    place, n = _half(rows, draw), len(rows["step"])
    deviations = 0.015 + np.maximum(np.arange(n) - place, 0) / (n - place) * draw.uniform(0.15, 0.35)
    return rows | sampler(draw, deviations), float(rows["step"][place])


@_cause("top-p in the sampler", "kept-mass", ("trl", "skyrl", "nemo-rl", "verl"), settings={"top_p": 0.9, "top_k": 0})
def _kept(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    n = len(rows["step"])
    return rows | sampler(draw, np.full(n, 0.012), top_p=0.9), None


@_cause("products of weights over long responses", "rejected-sequences", ("trl", "verl", "openrlhf", "areal"))
def _rejected(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    n = len(rows["step"])
    return rows | sampler(draw, np.full(n, 0.03), sequence_bounds=(0.5, 2.0), length=16384), None


@_cause("an overflow in half precision", "not-a-number", ("trl", "verl", "ms-swift", "openrlhf", "slime"))
def _overflow(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    place = _half(rows, draw)
    rows["gradient/norm"] = rows["gradient/norm"].copy()
    rows["gradient/norm"][place:] = np.nan
    rows["loss"][place:] = 0.0 if number % 2 else np.nan
    return rows, float(rows["step"][place])


@_cause("a length limit far too small", "truncation", _EVERY)
def _cut(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    n = len(rows["step"])
    rows |= lengths(draw, np.linspace(900, 950, n), limit=512)
    rows["reward/mean"] = rows["reward/mean"] * (1 - rows["length/truncated_fraction"])
    return rows, None


@_cause("an end token that was lost", "truncation", _EVERY)
def _no_end(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    place, n = _half(rows, draw), len(rows["step"])
    rows |= lengths(draw, np.where(np.arange(n) < place, 320.0, 5e5), limit=2048)
    rows["reward/mean"] = np.where(np.arange(n) < place, rows["reward/mean"], draw.uniform(0.0, 0.05, n))
    return rows, float(rows["step"][place])


@_cause("a loss divided by each response's length", "length-growth", _EVERY, HEALTHY[17])
def _longer(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    place, n = _half(rows, draw) // 2, len(rows["step"])
    growth = np.exp(np.maximum(np.arange(n) - place, 0) / (n - place) * draw.uniform(0.9, 1.4))
    rows |= lengths(draw, 300 * growth, limit=8192)
    rows["reward/mean"] = 0.4 + draw.normal(0, 0.02, n)
    rows["evaluation/reward"] = np.where(np.isnan(rows["evaluation/reward"]), np.nan, 0.38 + draw.normal(0, 0.015, n))
    return rows, float(rows["step"][place])


@_cause(
    "a deviation without a floor", "advantage-scale", ("verl", "nemo-rl", "areal", "roll"), settings={"group_size": 16}
)
def _scaled(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    # Rewards with a length bonus of 1e-6: a group that is all right has that deviation and no floor but 1e-9.
    n = len(rows["step"])
    rewards = (draw.random((n, 32, 16)) < rows["reward/mean"][:, None, None]) + draw.normal(0, 1e-6, (n, 32, 16))
    others = (rewards.sum(-1, keepdims=True) - rewards) / 15
    spread = np.sqrt(np.maximum(((rewards**2).sum(-1, keepdims=True) - rewards**2) / 15 - others**2, 0))
    advantages = (rewards - others) / (spread + 1e-9)
    rows["advantage/max"], rows["advantage/min"] = advantages.max((1, 2)), advantages.min((1, 2))
    return rows, None


@_cause("a hole in the grader", "reward-against-evaluation", ("trl", "verl", "skyrl", "nemo-rl", "prime-rl"))
def _hole(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    place, n = _half(rows, draw), len(rows["step"])
    at = np.arange(n)
    true = np.where(at < place, rows["reward/mean"], rows["reward/mean"][place] * np.exp(-(at - place) / 15))
    rows["evaluation/reward"] = np.where(at % 5 == 4, true - 0.03 + draw.normal(0, 0.01, n), np.nan)
    return rows, float(rows["step"][place])


@_cause("infinite gradients that are left out", "refused-steps", ("testbed",))
def _refused(rows: Rows, draw: np.random.Generator, number: int) -> tuple[Rows, float | None]:
    place, n = _half(rows, draw), len(rows["step"])
    rows["update/refused"] = ((np.arange(n) >= place) & (draw.random(n) < 0.6)).astype(float)
    rows["update/refused"][place] = 1.0
    return rows, float(rows["step"][place])
