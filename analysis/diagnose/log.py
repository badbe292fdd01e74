"""A run's log under canonical names: files are read, the engine is recognised, every key is given its meaning."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from analysis.diagnose.configuration import Configuration, known_beside, read_configuration
from analysis.diagnose.engine import Engine, engines
from analysis.diagnose.names import CORE, Key, KeyTable, UnionTable
from analysis.diagnose.reader import Reader, find_reader
from analysis.diagnose.series import NULL, Block, Recording, Series
from analysis.diagnose.source import Found, Source
from testbed.errors import ConfigError

__all__ = ["Ambiguity", "Collector", "Log", "Unrecognised", "named", "read_log"]

MOST_KEYS = 2000
"""Recognised keys of which points are kept."""

MOST_POINTS = 4096
"""Points of a series that rules look at; the extremes of what is averaged are kept."""

_MOST_FILES = 200
_SHOWN = 50

_STEP_KEYS = (
    "step",
    "train/global_step",
    "trainer/global_step",
    "training/global_step",
    "global_step",
    "train/step",
    "rollout/step",
    "eval/step",
    "global_step/max_steps",
    "Step",
    "progress/batch",
    "eval/global_step",
    "_step",
)
"""Keys that hold a row's step, the first one that a row has counts; slime has three axes, a row of it one."""

_ANY_ENGINE = KeyTable(
    (
        Key("_runtime", "time/elapsed"),
        Key("_timestamp", "time/clock"),
        Key("timestamp", ""),
        Key("created_at", ""),
        Key("run_name", ""),
        Key("id", ""),
        Key("_wandb/<any>", ""),
        Key("_wandb", ""),
        Key("epoch", ""),
        Key("train/epoch", ""),
        *(Key(key, "") for key in _STEP_KEYS),
    )
)

_SUPERVISED = re.compile(
    r"(?:^|/)(?:eval[_/])?(?:mean_token_accuracy|token_acc|perplexity|ppl|train_loss|val_loss|eval_loss|samples_per_second)$"
)
_REINFORCEMENT = re.compile(
    r"reward|advantage|clip_?ratio|clipfrac|ppo|\bkl\b|kl_|completions?/|response_length|rollout|ratio|entropy|score|policy"
)


@dataclass(frozen=True)
class Unrecognised:
    """A key that no table holds, and the nearest one that the engine's does."""

    key: str
    nearest: str | None


@dataclass(frozen=True)
class Ambiguity:
    """A key whose meaning depends on something that is not known."""

    key: str
    meanings: tuple[str, ...]
    needs: str


@dataclass
class Log:
    """What is known of a run.

    Attributes:
        name: where it was read from.
        files: file and reader of every part.
        engine: the engine whose table gave the keys their meaning.
        rows: rows read.
        series: canonical name to its points.
        keys: canonical name to the table's entry of the key that gave it.
        functions: reward functions, where there are several.
        unrecognised: keys without a meaning, the first of them.
        unrecognised_count: how many there are.
        ambiguous: keys with more than one meaning.
        configuration: canonical settings.
        notes: sentences about how it was read.
        raw: every recognised key to its points.
    """

    name: str
    engine: Engine
    files: list[tuple[str, str]] = field(default_factory=list)
    rows: int = 0
    series: dict[str, Series] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    functions: list[Series] = field(default_factory=list)
    unrecognised: list[Unrecognised] = field(default_factory=list)
    unrecognised_count: int = 0
    ambiguous: list[Ambiguity] = field(default_factory=list)
    configuration: Configuration = field(default_factory=Configuration)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Series] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[float, float] | None:
        """First and last step that has a number; `None`: there is none."""
        ends = [(item.steps[0], item.steps[-1]) for item in self.series.values() if len(item)]
        return (min(first for first, _ in ends), max(last for _, last in ends)) if ends else None


class Collector:
    """Points by key, of however many rows and files."""

    def __init__(self) -> None:
        self.rows = 0
        self.recordings: dict[str, Recording] = {}
        self.unknown: dict[str, None] = {}
        self.unknown_count = 0
        self.overflow = 0
        self._first, self._last, self._real_axis = 0, 0.0, False
        self._known: dict[str, bool] = {}
        self._unknown: set[str] = set()
        self._tables = UnionTable([*(engines[name].table for name in engines.names()), _ANY_ENGINE])

    def add(self, kind: Reader, source: Source, found: Found) -> None:
        """Take the rows of one file."""
        found.unknown = self._unknown
        self._first, self._last, self._real_axis = self.rows, 0.0, False
        for block in kind.blocks(source, found):
            self.take(block)

    def take(self, block: Block) -> None:
        """Take the next rows of a file."""
        if not block.rows:
            return
        steps, self._real_axis, had = _steps(block, self._last, self._real_axis)
        if not had and self._last == 0.0:
            steps = np.arange(self.rows - self._first, self.rows - self._first + block.rows, dtype=float)
        elif len(steps):
            self._last = float(steps[-1])
        self.rows += block.rows
        for key, (at, values) in block.columns.items():
            recording = self._recording(key)
            if recording is not None:
                recording.add(steps[at], values)

    def _recording(self, key: str) -> Recording | None:
        found = self.recordings.get(key)
        if found is not None:
            return found
        known = self._known.get(key)
        if known is None:
            known = key in self._tables
            if len(self._known) < 1_000_000:
                self._known[key] = known
            if not known and len(self._unknown) < 1_000_000:
                self._unknown.add(key)
            if not known:
                self.unknown_count += 1
                if len(self.unknown) < 100_000:
                    self.unknown[key] = None
        if not known:
            return None
        if len(self.recordings) >= MOST_KEYS:
            self.overflow += 1
            return None
        made = self.recordings[key] = Recording(key)
        return made


def _steps(block: Block, last: float, real_axis: bool) -> tuple[np.ndarray, bool, bool]:
    """A step for each row: its own, else that of the row before it."""
    steps = np.full(block.rows, np.nan)
    had = False
    for key in _STEP_KEYS:
        if key == "_step" and real_axis:
            # A tracker's own counter counts calls; a row without the trainer's step belongs to the step before it.
            continue
        if key in block.columns:
            at, values = block.columns[key]
            usable = np.isfinite(values) & (values != NULL)
            at, values = at[usable], values[usable]
        elif key in block.texts:
            at, given = block.texts[key]
            values = np.array([_first_number(text) for text in given])
            at, values = at[np.isfinite(values)], values[np.isfinite(values)]
        else:
            continue
        free = np.isnan(steps[at])
        steps[at[free]] = values[free]
        had = had or bool(len(at))
        real_axis = real_axis or (bool(len(at)) and key != "_step")
    missing = np.isnan(steps)
    if missing.any():
        places = np.where(missing, -1, np.arange(block.rows))
        filled = np.maximum.accumulate(places)
        steps = np.where(filled >= 0, steps[np.maximum(filled, 0)], last)
    return steps, real_axis, had


def _first_number(text: str) -> float:
    found = re.match(r"\s*(\d+)\s*/", text)
    return float(found[1]) if found else float("nan")


def read_log(
    log: str | Path | Sequence[str | Path], config: str | Path | None = None, *, standard_input: object = None
) -> Log:
    """Read a log and give every key its meaning.

    Args:
        log: a file, a folder, several of either, or "-" for standard input.
        config: a configuration file, a command line, or `None`: what lies beside the log under a known name.
        standard_input: where "-" is read from.

    Raises:
        ConfigError: there is nothing to read, nothing is recognised, or it is a log of supervised training.
    """
    given = [log] if isinstance(log, str | Path) else list(log)
    if not given:
        raise ConfigError("no log was given; expected a file, a folder, or - for standard input")
    collector, found = Collector(), Found()
    files: list[tuple[str, str]] = []
    hints: list[str] = []
    for source, kind in _sources(given, standard_input):
        try:
            collector.add(kind, source, found)
        finally:
            source.close()
        files.append((source.name, kind.title))
        if kind.engine:
            hints.append(kind.engine)
    name = ", ".join("standard input" if str(item) == "-" else str(item) for item in given)
    if not collector.rows:
        raise ConfigError(f"{name} holds no row of metrics; expected the log of a training run")
    beside = None if config is not None else known_beside(given)
    configuration = read_configuration(config if config is not None else beside, found.configuration)
    if beside is not None:
        found.notes.append(f"settings were read from {beside}, which lies beside the log")
    if found.skipped:
        noun = "line is" if found.skipped == 1 else "lines are"
        found.notes.append(f"{found.skipped} {noun} no row of metrics and left out")
    return named(name, collector, configuration, hints=hints, files=files, notes=found.notes)


def named(
    name: str,
    collector: Collector,
    configuration: Configuration,
    *,
    hints: Sequence[str] = (),
    files: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
) -> Log:
    """What was collected, under canonical names.

    Args:
        name: what the log is called.
        collector: its rows.
        configuration: of the run; it is read by the table of the engine that is found.
        hints: engines that alone write a container that was read.
        files: file and reader of every part.
        notes: sentences about how it was read.

    Raises:
        ConfigError: no key has a meaning that says anything about reinforcement learning.
    """
    engine = _engine(collector, hints, configuration)
    if engine is None:
        raise _nothing_known(name, collector)
    configuration.resolve(engine)
    made = Log(name, engine, list(files), collector.rows, configuration=configuration, notes=list(notes))
    _name_keys(made, collector)
    if not made.series or set(made.series) <= _NEUTRAL:
        raise _nothing_known(name, collector)
    repeated = [key for key, item in collector.recordings.items() if item.backward and key in made.raw]
    if repeated:
        made.notes.append(
            "steps go back at least once, as after a resume; where a step was logged twice, the later row counts"
        )
    if collector.overflow:
        made.notes.append(f"more than {MOST_KEYS} known keys; the first of them were read")
    return made


_NEUTRAL = {"loss", "learning_rate", "gradient/norm", "time/step", "time/elapsed", "time/clock"}
"""What any training logs; alone it says nothing about reinforcement learning."""


def _nothing_known(name: str, collector: Collector) -> ConfigError:
    keys = [*collector.recordings, *collector.unknown]
    if any(_SUPERVISED.search(key) for key in keys) or {"loss", "train/loss"} & set(keys):
        logged = [key for key in keys if "step" not in key.lower()][:5]
        if not any(_REINFORCEMENT.search(key) for key in keys):
            return ConfigError(
                f"{name} is a log of supervised training ({', '.join(map(_short, logged))}; no reward, advantage, "
                "ratio "
                "or entropy): the doctor knows reinforcement learning; expected such a log"
            )
    if not keys:
        return ConfigError(f"{name} has rows without numbers; expected the log of a training run")
    shown = ", ".join(_short(key) for key in keys[:5])
    return ConfigError(
        f"{name} has {len(keys)} keys, none of which an engine is known to log "
        f"({shown}{', …' if len(keys) > 5 else ''}); "
        "expected the keys of TRL, verl or another engine of docs/diagnose.md"
    )


def _short(key: str) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in key)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


def _sources(given: Sequence[str | Path], standard_input: object) -> Iterator[tuple[Source, Reader]]:
    for item in given:
        if str(item) == "-":
            stream = standard_input if standard_input is not None else sys.stdin.buffer
            source = Source("-", stream)  # type: ignore[arg-type]
            try:
                kind = find_reader(source)
            except ConfigError:
                source.close()
                raise
            yield source, kind
            continue
        path = Path(item)
        if path.is_dir():
            yield from _folder(path)
        elif path.is_file():
            if _pickled(path):
                raise ConfigError(f"{path} is a pickle, which is never loaded; expected a log of numbers")
            source = Source(path)
            yield source, find_reader(source)
        else:
            raise ConfigError(f"there is no file {str(path)!r}; expected a log, a folder, or - for standard input")


def _pickled(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4)
    return head[:2] in {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"} or (
        head == b"PK\x03\x04" and path.suffix in {".bin", ".pt", ".pth"}
    )


def _folder(folder: Path) -> Iterator[tuple[Source, Reader]]:
    """The logs of a folder: of several states of one trainer the last one, of everything else all."""
    states: list[tuple[int, Path]] = []
    others: list[Path] = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.stat().st_size == 0 or len(others) > 20_000:
            continue
        if path.name == "trainer_state.json":
            states.append((_global_step(path), path))
        elif path.suffix in _LOGS or "tfevents" in path.name:
            others.append(path)
    candidates = ([max(states)[1]] if states else []) + others
    count = 0
    for path in candidates:
        if path.name in _NO_LOGS or path.parent.name == "completions":
            continue
        try:
            source = Source(path)
            kind = find_reader(source)
        except (ConfigError, OSError):
            continue
        count += 1
        if count > _MOST_FILES:
            return
        yield source, kind
    if not count:
        raise ConfigError(f"{folder} holds no log that a reader knows; expected a folder of one run")


_LOGS = {".json", ".jsonl", ".csv", ".tsv", ".parquet", ".log", ".txt", ".out"}
_NO_LOGS = {
    "samples.jsonl",
    "evaluation.json",
    "report.html",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "args.json",
    "special_tokens_map.json",
    "requirements.txt",
}


def _global_step(path: Path) -> int:
    with path.open("rb") as file:
        found = re.search(rb'"global_step"\s*:\s*(\d+)', file.read(1 << 16))
    return int(found[1]) if found else 0


def _engine(collector: Collector, hints: Sequence[str], configuration: Configuration) -> Engine | None:
    """The engine that knows most of the keys that few engines know."""
    votes = dict.fromkeys(engines.names(), 0.0)
    for key in collector.recordings:
        knowing = []
        for name in votes:
            rank = engines[name].table.find(key)
            if rank is not None:
                entry = engines[name].table.keys[rank]
                # A pattern that takes everything is no sign of an engine.
                weight = (0.5 if entry.name else 0.0) if "<" in entry.key else (1.0 if entry.name else 0.5)
                if weight:
                    knowing.append((name, weight))
        for name, weight in knowing:
            votes[name] += weight / len(knowing)
    if not any(votes.values()):
        return None
    for name in hints:
        votes[name] += 2.0
    for name in configuration.engines():
        votes[name] += 0.5 if votes[name] > 0 else 0.0
    best = max(votes.values())
    order = {name: place for place, name in enumerate(_PREFERRED)}
    tied = [name for name, vote in votes.items() if vote > best - 1e-9]
    return engines[min(tied, key=lambda name: order.get(name, len(order)))]


_PREFERRED = (
    "trl",
    "verl",
    "testbed",
    "ms-swift",
    "openrlhf",
    "slime",
    "skyrl",
    "prime-rl",
    "nemo-rl",
    "areal",
    "roll",
)
"""Which of two engines is named where a log cannot tell them apart."""


def _entry(engine: Engine, key: str) -> tuple[Key, int] | None:
    for rank_offset, table in enumerate((engine.table, engines["rllm"].table, _ANY_ENGINE)):
        rank = table.find(key)
        if rank is not None:
            return table.keys[rank], rank + 10_000 * rank_offset
    meanings = {}
    for name in engines.names():
        rank = engines[name].table.find(key)
        if rank is not None:
            entry = engines[name].table.keys[rank]
            meanings[entry.name, entry.sign] = entry
    if len(meanings) == 1:
        return next(iter(meanings.values())), 100_000
    return None


def _name_keys(log: Log, collector: Collector) -> None:
    loss = log.configuration.get("loss")
    variant = _variant(log.engine, collector)
    chosen: dict[str, tuple[int, int, str, Key]] = {}
    elsewhere: list[str] = []
    for key, recording in collector.recordings.items():
        found = _entry(log.engine, key)
        if found is None:
            elsewhere.append(key)
            continue
        entry, rank = found
        name: str | None = entry.name
        if entry.by_loss:
            given = variant or (None if loss is None else str(loss))
            if given is not None and given in entry.by_loss:
                name = entry.by_loss[given]
            elif given is None and log.engine.name != "trl":
                meanings = (entry.name, *(meaning or "nothing" for meaning in entry.by_loss.values()))
                needs = ", ".join(log.engine.settings.get("loss", ("the loss",))[:1])
                log.ambiguous.append(Ambiguity(key, tuple(dict.fromkeys(meanings)), needs))
        # This project writes null where a metric has no data, everybody else where a number was not finite.
        null_is_bad = name in CORE and recording.nulls < recording.points and log.engine.name != "testbed"
        series = recording.series(null_is_bad=null_is_bad)
        if not len(series):
            continue
        series = series.merged(MOST_POINTS)
        log.raw[key] = series
        if not name:
            continue
        series = series.scaled(entry.sign)
        if name == "reward/function":
            log.functions.append(series)
            continue
        # Of several keys of one name the preferred one, unless it hardly says anything.
        usable = int(np.isfinite(series.values).sum())
        preference = (0 if usable or series.bad.any() else 1, rank)
        if name == "evaluation/reward":
            preference = (0, -usable)
        if name not in chosen or preference < chosen[name][:2]:
            chosen[name] = (*preference, key, entry)
            log.series[name] = series
            log.keys[name] = entry
    _derive(log)
    names = [item.key for item in log.engine.table.keys]
    log.unrecognised_count = collector.unknown_count + len(elsewhere)
    for key in [*elsewhere, *list(collector.unknown)[:_SHOWN]][:_SHOWN]:
        close = difflib.get_close_matches(key[:120], names, n=1, cutoff=0.6) if len(key) < 200 else []
        log.unrecognised.append(Unrecognised(key, close[0] if close else None))


def _variant(engine: Engine, collector: Collector) -> str | None:
    """TRL's AsyncGRPO logs another divergence under `kl`; it alone logs these keys."""
    alone = {"ratio", "sample/staleness_mean", "batch/masked_token_frac"}
    keys = {key.removeprefix("train/") for key in collector.recordings}
    return "async_grpo" if engine.name == "trl" and alone & keys else None


def _derive(log: Log) -> None:
    """Names that follow from others by arithmetic alone."""
    series = log.series
    easy, hard, mixed = (series.get(f"group/{name}_fraction") for name in ("too_easy", "too_hard", "mixed"))
    if easy is not None and hard is not None and len(easy) == len(hard):
        total = easy.values + hard.values + (mixed.values if mixed is not None and len(mixed) == len(easy) else 0.0)
        if np.nanmax(total, initial=0.0) > 1.000001:
            # Counts, not shares: only their sum makes them shares.
            for name in ("too_easy", "too_hard", "mixed"):
                item = series.pop(f"group/{name}_fraction", None)
                if item is not None and mixed is not None and len(mixed) == len(easy):
                    with np.errstate(invalid="ignore", divide="ignore"):
                        series[f"group/{name}_fraction"] = Series.of(item.key, item.steps, item.values / total)
            easy, hard = series.get("group/too_easy_fraction"), series.get("group/too_hard_fraction")
    if "group/zero_variance_fraction" not in series:
        if easy is not None and hard is not None and len(easy) == len(hard):
            made = Series.of(f"{easy.key} + {hard.key}", easy.steps, easy.values + hard.values)
            series["group/zero_variance_fraction"] = made
        elif mixed is not None:
            series["group/zero_variance_fraction"] = _complement(mixed)
        elif "group/informative_fraction" in series:
            series["group/zero_variance_fraction"] = _complement(series["group/informative_fraction"])
    if "advantage/zero_fraction" in series and "advantage/nonzero_fraction" not in series:
        series["advantage/nonzero_fraction"] = _complement(series["advantage/zero_fraction"])
    if "length/truncated_fraction" not in series and "length/natural_fraction" in series:
        series["length/truncated_fraction"] = _complement(series["length/natural_fraction"])
    if log.configuration.get("standardise") == "batch" and log.engine.name == "trl":
        blind = series.pop("group/zero_variance_fraction", None)
        if blind is not None:
            log.notes.append(
                f"{blind.key} tests the spread of the whole batch with this configuration and cannot see dead groups; "
                "it was not used"
            )


def _complement(item: Series) -> Series:
    return Series.of(f"1 - {item.key}", item.steps, 1 - item.values)
