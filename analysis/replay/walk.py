"""Walking a record: every update under every objective, as one tidy table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analysis.judging.on_record import TokenMeasure
from analysis.replay.measures import measure, tokens_of
from analysis.replay.rewards import Reestimated
from analysis.replay.tallies import Densities, Tallies
from testbed.errors import ConfigError, StorageError, TestbedError
from testbed.objectives import Objective, make_objective, objective_names
from testbed.records import Record, RecordedUpdate, read_record, stacked

__all__ = ["Replay", "replay", "replayable"]

_TOGETHER = 1 << 18
"""Padded tokens that are evaluated at once: some hundred thousand keep the overhead of small operations small."""
_OF_HEAVIEST = [
    "objective", "step", "update", "replica", "prompt", "response", "position", "weight", "probability", "entropy",
    "advantage", "ratio",
]  # fmt: skip
_ROWS_AT_FIRST = 512
_LARGEST = 20
"""Tokens with the largest weights that are kept for each objective."""


@dataclass(frozen=True)
class Replay:
    """A record under several objectives.

    Attributes:
        record: what was read.
        table: one row per objective, step, update and replica: the columns of `measures.MEASURES`, shares or sums over
            the recorded tokens, the objective's own metrics, and `tokens`.
        largest: the tokens with the largest weights under each objective: where they stand, their probability, entropy,
            ratio and advantage, and their weight |∂L/∂log p| divided by the mean of their update.
        rollouts: one row per step and replica: mean entropy at sampling time, its change to the next recorded rollout,
            mean reward and length.
        mismatch: trainer against sampler by probability, see `Tallies.mismatch`.
        lengths: what responses of a length weigh under each reduction, see `Tallies.lengths`.
        densities: where the tokens lie, see `Densities`.
        skipped: objectives that cannot be evaluated on this record, and why.
    """

    record: Record
    table: pd.DataFrame
    largest: pd.DataFrame
    rollouts: pd.DataFrame
    mismatch: pd.DataFrame
    lengths: pd.DataFrame
    densities: Densities
    skipped: dict[str, str]

    @property
    def tokens(self) -> int:
        """Token-updates that were read."""
        return int(self.table.groupby("objective")["tokens"].sum().max())

    def summary(self) -> pd.DataFrame:
        """Each measure's mean over updates, one row per objective; updates at ratio 1 are left out of what is stopped.

        The first update of a rollout has no ratio other than 1, so nothing can be stopped there; counting it would make
        shares of runs with different numbers of updates incomparable.
        """
        numbers = self.table.drop(columns=["step", "update", "replica"])
        later = numbers[self.table["update"] > 0] if (self.table["update"] > 0).any() else numbers
        means = numbers.groupby("objective", sort=False).mean()
        acted = [name for name in means.columns if name.startswith(("stopped", "clip/", "band/", "mask/", "erc/"))]
        means[acted] = later.groupby("objective", sort=False)[acted].mean()
        return means

    def prediction(self) -> pd.DataFrame:
        """Predicted first-order change of entropy of each rollout, over its updates, beside the change that followed.

        The formula is exact for a table and an approximation for shared parameters, so how well the two go together is
        a result of its own; see `correlations`.
        """
        rollout = ["objective", "step", "replica"]
        predicted = self.table.groupby(rollout, sort=False)["entropy/predicted"].sum(min_count=1).reset_index()
        return predicted.merge(self.rollouts[["step", "replica", "entropy/change"]], on=["step", "replica"])

    def correlations(self) -> pd.Series:
        """Correlation over rollouts of the predicted with the measured change of entropy, by objective.

        NaN where the record has no κ, or fewer than three rollouts.
        """
        rows = self.prediction().dropna()
        found = {}
        for name in self.table["objective"].unique():
            own = rows[rows["objective"] == name]
            varies = len(own) >= 3 and own["entropy/predicted"].std() > 0 and own["entropy/change"].std() > 0
            found[name] = own["entropy/predicted"].corr(own["entropy/change"]) if varies else np.nan
        return pd.Series(found, name="correlation")


def replayable(record: Record) -> tuple[list[str], dict[str, str]]:
    """The registered objectives that can be evaluated on a record, and the others with the column they lack."""
    able, missing = [], {}
    for name in objective_names():
        lacking = [field for field in make_objective(name).needs if field not in record.columns]
        if lacking:
            missing[name] = f"the record has no {' and '.join(lacking)}"
        else:
            able.append(name)
    return able, missing


def replay(
    path: str | Path,
    objectives: Sequence[str | Objective] | None = None,
    *,
    advantage: str | None = None,
    measures: Mapping[str, Mapping[str, TokenMeasure]] | None = None,
) -> Replay:
    """Evaluate objectives on every update of a record, each as training would have.

    Args:
        path: the record's folder.
        objectives: names, `name(key=value,…)` or objects; `None`: every registered objective that the record allows.
        advantage: estimator to compute the advantages with again, from the rewards of whole groups of a rollout;
            `None`: as recorded.
        measures: further columns of the table, by name, for the objectives with these labels.

    Raises:
        StorageError: the folder is no record, is damaged, or lacks what a named objective needs.
        UnknownNameError, ConfigError: no such objective or estimator, or a hyper-parameter out of its range.

    Example:
        >>> import tempfile, torch
        >>> from testbed import TokenBatch
        >>> from testbed.records import RecordWriter
        >>> old = torch.full((2, 1), -1.0)
        >>> new = old + torch.tensor([[0.5], [0.0]])  # ratios 1.65 and 1
        >>> batch = TokenBatch(log_probs=new, old_log_probs=old, advantages=torch.tensor([1.0, -1.0]), mask=old < 0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with RecordWriter(folder) as writer:
        ...         writer.add(batch, step=1, update=1, prompts=["a", "a"], rewards=[1.0, 0.0])
        ...     replay(folder, ["ppo", "reinforce"]).table.set_index("objective")["stopped"].to_dict()
        {'ppo': 0.5, 'reinforce': 0.0}
    """
    record = read_record(path)
    if objectives is None:
        names, skipped = replayable(record)
        chosen = [make_objective(name) for name in names]
    else:
        chosen, skipped = [make_objective(item) for item in objectives], {}
        if not chosen:
            raise ConfigError("objectives is empty; expected at least one name, or None for all that the record allows")
        for item in chosen:
            record.require(*item.needs, reason=f"{item.label()} reads {'it' if len(item.needs) == 1 else 'them'}")
    given = record.updates() if advantage is None else Reestimated(advantage).updates(record.updates())
    tallies = Tallies(record.rollouts())
    tables = {item.label(): _Rows() for item in chosen}
    largest: dict[str, list[dict[str, Any]]] = {item.label(): [] for item in chosen}
    rollouts: list[dict[str, float | bool]] = []
    for updates in _chunks(given):
        rollouts += [_rollout(update) for update in updates]
        tokens = tokens_of(stacked(updates))
        tallies.add(tokens.batch, [update.step for update in updates])
        places = {
            "step": [update.step for update in updates],
            "update": [update.update for update in updates],
            "replica": [update.replica for update in updates],
            "tokens": [update.tokens for update in updates],
        }
        for item in chosen:
            try:
                found, of_loss, of_tokens = measure(item, tokens)
                for name, read in (measures or {}).get(item.label(), {}).items():
                    found[name] = read(item, tokens.batch, of_tokens)
                own = {name: value for name, value in item(tokens.batch).metrics.items() if name not in found}
            except TestbedError as error:
                raise StorageError(f"{item.label()} cannot be evaluated on {record.path}: {error}") from error
            columns = {name: _column(value, len(updates)) for name, value in {**found, **own}.items()}
            label = item.label()
            tables[label].add({**places, **columns}, len(updates))
            heaviest = [*largest[label], *_heaviest(label, of_loss, tokens.probabilities, updates)]
            largest[label] = sorted(heaviest, key=lambda row: -row["weight"])[:_LARGEST]
    return Replay(
        record,
        _table(tables),
        pd.DataFrame([row for rows in largest.values() for row in rows], columns=_OF_HEAVIEST),
        _changes(pd.DataFrame(rollouts)),
        tallies.mismatch(),
        tallies.lengths(),
        tallies.densities,
        skipped,
    )


class _Rows:
    """Rows of numbers in columns that grow by doubling.

    Small arrays that stay, made between large ones that go, would leave holes in the process's memory of which each is
    too small for the next large one: memory would grow with the record.
    """

    def __init__(self) -> None:
        self._columns: dict[str, np.ndarray] = {}
        self._count, self._room = 0, _ROWS_AT_FIRST

    def add(self, columns: Mapping[str, Any], count: int) -> None:
        """Add so many rows; a column that was not there before, or is not now, is missing in the others."""
        while self._count + count > self._room:
            self._room *= 2
            self._columns = {name: self._grown(values) for name, values in self._columns.items()}
        for name, values in columns.items():
            if name not in self._columns:
                self._columns[name] = np.full(self._room, np.nan)
            self._columns[name][self._count : self._count + count] = values
        self._count += count

    def frame(self) -> pd.DataFrame:
        """All rows."""
        return pd.DataFrame({name: values[: self._count] for name, values in self._columns.items()})

    def _grown(self, values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.full(self._room - len(values), np.nan)])


def _table(rows: Mapping[str, _Rows]) -> pd.DataFrame:
    frames = [own.frame().assign(objective=label) for label, own in rows.items()]
    whole = pd.concat(frames, ignore_index=True)
    whole = whole.astype(dict.fromkeys(("step", "update", "replica", "tokens"), np.int64))
    whole.insert(0, "objective", whole.pop("objective"))
    return whole.sort_values(["objective", "step", "update", "replica"], kind="stable")


def _column(value: Tensor, count: int) -> np.ndarray:
    return value.detach().double().expand(count).numpy()


def _chunks(updates: Iterator[RecordedUpdate]) -> Iterator[list[RecordedUpdate]]:
    """Updates that are evaluated together: consecutive ones, while the padded batch stays small."""
    waiting: list[RecordedUpdate] = []
    most = width = 0
    for update in updates:
        longest = int(update.lengths.max(initial=1))
        rows, columns = max(most, len(update.lengths)), max(width, longest)
        per_token = update.advantages.shape != update.lengths.shape
        alike = not waiting or (waiting[0].advantages.shape != waiting[0].lengths.shape) == per_token
        if waiting and (not alike or (len(waiting) + 1) * rows * columns > _TOGETHER):
            yield waiting
            waiting, rows, columns = [], len(update.lengths), longest
        waiting.append(update)
        most, width = rows, columns
    if waiting:
        yield waiting


def _rollout(update: RecordedUpdate) -> dict[str, float | bool]:
    numbers = update.numbers.get("old_entropies", update.numbers.get("entropies"))
    return {
        "step": update.step,
        "update": update.update,
        "replica": update.replica,
        "at_sampling": "old_entropies" in update.numbers,
        "entropy/sampled": float("nan") if numbers is None else float(numbers.mean(dtype=np.float64)),
        "reward/mean": float(np.nanmean(update.rewards)) if np.isfinite(update.rewards).any() else float("nan"),
        "length/mean": float(update.lengths.mean()),
    }


def _changes(rollouts: pd.DataFrame) -> pd.DataFrame:
    """One row per rollout and replica, in order, with the change of entropy to the next one that was recorded.

    Entropies at sampling time are those of every update. Where they were not recorded, those of the first update stand
    for them: the policy that makes it is the one that wrote the tokens, unless the rollout was stale.
    """
    first = rollouts.groupby(["step", "replica"])["update"].transform("min") == rollouts["update"]
    known = rollouts["at_sampling"] | first
    rollouts = rollouts.assign(**{"entropy/sampled": rollouts["entropy/sampled"].where(known)})
    rollouts = rollouts.drop(columns=["update", "at_sampling"]).groupby(["step", "replica"], as_index=False).mean()
    following = rollouts.groupby("replica")["entropy/sampled"].shift(-1)
    return rollouts.assign(**{"entropy/change": following - rollouts["entropy/sampled"]})


def _heaviest(
    label: str, weights: Tensor, probabilities: Tensor, updates: Sequence[RecordedUpdate]
) -> list[dict[str, Any]]:
    """The tokens of a chunk with the largest |∂L/∂log p|, in units of their update's mean."""
    mean = weights.abs().sum((-2, -1)) / torch.tensor([max(update.tokens, 1) for update in updates])
    relative = weights.abs() / mean.clamp(min=torch.finfo(weights.dtype).tiny)[:, None, None]
    best = relative.flatten().topk(min(_LARGEST, relative.numel()))
    rows = []
    for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        number, response, position = (int(item) for item in np.unravel_index(index, relative.shape))
        update = updates[number]
        if value == 0 or response >= len(update.lengths) or position >= update.lengths[response]:
            continue
        place = int(update.lengths[:response].sum()) + position
        entropies = update.numbers.get("entropies")
        per_response = update.advantages.shape == update.lengths.shape
        rows.append(
            {
                "objective": label,
                "step": update.step,
                "update": update.update,
                "replica": update.replica,
                "prompt": update.prompts[response],
                "response": int(update.responses[response]),
                "position": position,
                "weight": value,
                "probability": float(probabilities[number, response, position]),
                "entropy": float("nan") if entropies is None else float(entropies[place]),
                "advantage": float(update.advantages[response if per_response else place]),
                "ratio": float(np.exp(update.numbers["log_probs"][place] - update.numbers["old_log_probs"][place])),
            }
        )
    return rows
