"""The one vocabulary: what each canonical name means, and how an engine's key stands for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from testbed.glossary import GLOSSARY

__all__ = ["CORE", "NAMES", "Key", "KeyTable", "Name", "UnionTable", "describe"]


class Name(NamedTuple):
    """What a canonical name stands for: its formula and unit."""

    formula: str
    unit: str = "1"


NAMES: dict[str, Name] = {
    "loss": Name("the loss that is minimised"),
    "learning_rate": Name("step size of the optimiser"),
    "reward/penalised": Name("mean reward after a KL penalty", "reward"),
    "reward/std": Name("standard deviation of rewards over the whole batch", "reward"),
    "reward/group_std": Name("mean standard deviation of rewards within a group", "reward"),
    "reward/max": Name("largest reward of the batch", "reward"),
    "reward/min": Name("smallest reward of the batch", "reward"),
    "reward/function": Name("mean of one of several reward functions", "reward"),
    "evaluation/reward": Name("reward or accuracy on held-out problems", "reward"),
    "group/too_easy_fraction": Name("share of groups in which every response is right"),
    "group/too_hard_fraction": Name("share of groups in which every response is wrong"),
    "group/mixed_fraction": Name("share of groups whose rewards differ"),
    "advantage/zero_fraction": Name("share of responses whose advantage is 0"),
    "advantage/max": Name("largest advantage of the batch"),
    "advantage/min": Name("smallest advantage of the batch"),
    "advantage/abs_mean": Name("mean |A|"),
    "advantage/std": Name("standard deviation of advantages"),
    "entropy/max": Name("largest entropy of the batch", "nats"),
    "entropy/min": Name("smallest entropy of the batch", "nats"),
    "weight/capped_fraction": Name("share of tokens whose weight is at its cap, their gradient kept"),
    "band/low_fraction": Name("share of tokens with the ratio below the interval, whatever A"),
    "band/high_fraction": Name("share of tokens with the ratio above the interval, whatever A"),
    "kl/old_k2": Name("mean of (log r)²/2: the k2 estimate of KL(old ‖ current)", "nats per token"),
    "length/mean": Name("mean response length", "tokens"),
    "length/max": Name("longest response", "tokens"),
    "length/min": Name("shortest response", "tokens"),
    "length/terminated_mean": Name("mean length of the responses that ended by themselves", "tokens"),
    "length/right_mean": Name("mean length of right responses", "tokens"),
    "length/wrong_mean": Name("mean length of wrong responses", "tokens"),
    "length/truncated_fraction": Name("share of responses cut off at the length limit"),
    "length/natural_fraction": Name("share of responses that ended by themselves"),
    "sampler/log_abs_mean": Name("mean |log p_sampler - log p_trainer| of sampled tokens", "nats"),
    "sampler/log_abs_max": Name("largest |log p_sampler - log p_trainer|", "nats"),
    "sampler/kl_k3": Name("k3 estimate of KL(sampler ‖ trainer)", "nats per token"),
    "sampler/probability_abs_mean": Name("mean |p_sampler - p_trainer| of sampled tokens"),
    "sampler/probability_correlation": Name("correlation of p_sampler and p_trainer over sampled tokens"),
    "sampler/error": Name("mean of exp |log p_sampler - log p_trainer|"),
    "sampler/ratio_mean": Name("mean p_trainer / p_sampler of sampled tokens, without a limit"),
    "sampler/ratio_min": Name("smallest p_trainer / p_sampler, without a limit"),
    "sampler/ratio_max": Name("largest p_trainer / p_sampler, without a limit"),
    "sampler/weight_min": Name("smallest weight p_trainer / p_sampler, after its limit"),
    "sampler/weight_max": Name("largest weight p_trainer / p_sampler, after its limit"),
    "sampler/rejected_fraction": Name("share of responses or tokens left out for their weight"),
    "sampler/effective_fraction": Name("effective sample size of the weights over their number"),
    "staleness/mean": Name("mean age of a response in policy versions", "versions"),
    "staleness/max": Name("largest age of a response in policy versions", "versions"),
    "time/step": Name("duration of a step", "s"),
    "time/elapsed": Name("time since the start", "s"),
    "time/clock": Name("time of day of the row", "s"),
}
"""Names of quantities that engines log and the project's own glossary lacks."""

CORE = frozenset(
    {
        "loss",
        "gradient/norm",
        "entropy/mean",
        "kl/old",
        "kl/old_k2",
        "kl/old_k3",
        "kl/ref",
        "ratio/mean",
        "ratio/max",
        "sampler/kl_k3",
        "kl/sampler",
    }
)
"""Quantities of which there is always one, so that an explicit null stands for a number that was not finite."""


def describe(name: str) -> Name:
    """What a canonical name means."""
    if name in NAMES:
        return NAMES[name]
    info = GLOSSARY[name]
    return Name(info.formula, info.unit)


@dataclass(frozen=True)
class Key:
    """What an engine means by a key.

    Attributes:
        key: as the engine writes it; `<x>` stands for any run of characters.
        name: canonical name, empty where the key is known and has none.
        sign: -1 where the engine logs the negative.
        kind: `sign-aware` or `band` for shares of tokens outside an interval; empty where that does not apply.
        estimate: `sampled` where an entropy or divergence is estimated from sampled tokens alone.
        scope: `batch` or `group`, for spreads.
        by_loss: what the key means under other losses, `None`: nothing.
        note: what a reader of the number has to know.
    """

    key: str
    name: str
    sign: float = 1.0
    kind: str = ""
    estimate: str = ""
    scope: str = ""
    by_loss: Mapping[str, str | None] = field(default_factory=dict)
    note: str = ""


class KeyTable:
    """The keys of one engine, looked up as a log spells them.

    Args:
        keys: in order of preference where several stand for one name.
        prefixes: what a tracker may put in front of every key, such as `train/`.
    """

    def __init__(self, keys: tuple[Key, ...], prefixes: tuple[str, ...] = ()) -> None:
        self.keys = keys
        self.prefixes = prefixes
        self._exact = {item.key: rank for rank, item in reversed(list(enumerate(keys))) if "<" not in item.key}
        self._patterns = [
            (re.compile("(.+)".join(map(re.escape, re.split(r"<\w+>", item.key)))), rank)
            for rank, item in enumerate(keys)
            if "<" in item.key
        ]

    def find(self, key: str) -> int | None:
        """The rank of the entry a key belongs to; `None`: this engine has no such key."""
        found = self._find(key)
        if found is None:
            for prefix in self.prefixes:
                if key.startswith(prefix):
                    found = self._find(key[len(prefix) :])
                    if found is not None:
                        break
        return found

    def _find(self, key: str) -> int | None:
        if key in self._exact:
            return self._exact[key]
        if len(key) < 200:
            for pattern, rank in self._patterns:
                if pattern.fullmatch(key):
                    return rank
        return None


class UnionTable:
    """Whether any of several tables knows a key, in one look: a log may have a hundred thousand that none does."""

    def __init__(self, tables: Sequence[KeyTable]) -> None:
        self._exact = {
            f"{prefix}{item.key}" for table in tables for prefix in ("", *table.prefixes) for item in table.keys
        }
        patterns = {
            re.escape(prefix) + "(?:.+)".join(map(re.escape, re.split(r"<\w+>", item.key)))
            for table in tables
            for prefix in ("", *table.prefixes)
            for item in table.keys
            if "<" in item.key
        }
        self._pattern = re.compile("|".join(sorted(patterns)))

    def __contains__(self, key: str) -> bool:
        return key in self._exact or (len(key) < 200 and self._pattern.fullmatch(key) is not None)
