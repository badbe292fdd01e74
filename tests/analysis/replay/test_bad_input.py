"""What is wrong with a record is one sentence and exit code 2, from every command that reads one; never a number."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from testbed import TokenBatch
from testbed.cli import app
from testbed.records import RecordWriter
from testbed.records import writer as writing


@pytest.fixture(autouse=True)
def one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a busy machine takes over a test."""
    monkeypatch.setattr(writing, "_SHARD_SECONDS", math.inf)


def write(folder: Path) -> Path:
    old = torch.full((2, 3), -1.0)
    batch = TokenBatch(log_probs=old - 0.1, old_log_probs=old, advantages=torch.tensor([1.0, -1.0]), mask=old < 0)
    with RecordWriter(folder, objective="dapo") as writer:
        for step in (1, 2):
            for update in range(2):
                writer.add(batch, step=step, update=update, prompts=["a", "a"], rewards=[1.0, 0.0])
    return folder


def shard(folder: Path) -> Path:
    return next(folder.glob("*.parquet"))


def rewritten(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = shard(folder)
    pq.write_table(change(pq.read_table(path)), path)


def with_column(name: str, values: Callable[[list], list], kind: pa.DataType | None = None) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        def change(table: pa.Table) -> pa.Table:
            index = table.column_names.index(name)
            given = pa.array(values(table.column(name).to_pylist()), type=kind or table.schema.field(name).type)
            return table.set_column(index, name, given)

        rewritten(folder, change)

    return spoil


def with_manifest(**changes: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def truncate(folder: Path) -> None:
    shard(folder).write_bytes(shard(folder).read_bytes()[:-50])


def empty(folder: Path) -> None:
    shard(folder).unlink()


def no_record(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def one_endless_response(folder: Path) -> None:
    table = pq.read_table(shard(folder)).slice(0, 1)
    endless = pa.ListArray.from_arrays(
        pa.array([0, 10_000_000], pa.int32()), pa.array(np.zeros(10_000_000, np.float32))
    )
    for name in ("log_probs", "old_log_probs"):
        table = table.set_column(table.column_names.index(name), name, endless)
    pq.write_table(table, shard(folder))


def first_is(value: float) -> Callable[[list], list]:
    return lambda values: [[value, *values[0][1:]], *values[1:]]


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "a truncated shard": (truncate, "cannot be read: "),
    "another schema version": (with_manifest(schema=2), "has schema 2; this version of the package reads schema 1"),
    "an earlier version of the package": (
        lambda folder: (folder / "manifest.json").write_text('{"objective": "dapo"}'),
        "has schema None; this version of the package reads schema 1. Read it with the version that wrote it",
    ),
    "rows out of order": (
        lambda folder: rewritten(folder, lambda table: table.take(list(range(table.num_rows))[::-1])),
        "is out of order",
    ),
    "NaN": (with_column("log_probs", first_is(math.nan)), "step 1, update 0 is not a batch: log_probs holds NaN"),
    "an infinite advantage": (
        with_column("advantage", lambda values: [math.inf, *values[1:]]),
        "step 1, update 0 is not a batch: advantages holds NaN or infinity",
    ),
    "a divisor of 0": (
        with_column("token_count", lambda values: [0.0] * len(values)),
        "step 1, update 0 is not a batch: token_count is",
    ),
    "a missing number": (with_column("step", lambda values: [None, *values[1:]]), "step is missing in 1 rows"),
    "a column of another kind": (
        with_column("log_probs", lambda values: [row[0] for row in values], pa.float32()),
        "log_probs is float; expected list<item: float>",
    ),
    "text for numbers": (with_column("step", lambda values: list(map(str, values)), pa.string()), "step is string"),
    "zero rollouts": (empty, "holds no rollout; the run ended before its first one was recorded"),
    "no record": (no_record, "is no record: it has no readable manifest.json"),
    "ten million tokens in a response": (
        one_endless_response,
        "holds a response of 10,000,000 tokens; expected at most",
    ),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("command", [["replay"], ["verify", "dcpo", "--on"]])
def test_a_bad_record_is_one_sentence(tmp_path: Path, what: str, command: list[str]) -> None:
    spoil, said = BAD[what]
    folder = write(tmp_path / "record")
    spoil(folder)
    result = CliRunner().invoke(app, [*command, str(folder), "--out", str(tmp_path / "out")])
    assert_refused(result, said)
    assert not (tmp_path / "out").exists()


def assert_refused(result: object, said: str) -> None:
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("testbed: ")
    assert said in lines[0]
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["erc"],
            "has no entropies (the current policy's entropy) and old_entropies (the entropy at sampling time); erc",
        ),
        (["reference_kl"], "has no ref_log_probs (the reference policy's log-probability); "),
        (["clip_v"], "and old_kappas (κ at sampling time); clip_v"),
        (["dapo", "--advantage", "remax"], "remax cannot be estimated at step 1, update 0"),
        (["dapo", "--advantage", "grop"], "grop"),
        (["dappo"], "did you mean"),
        (["dapo(clip_high=-2)"], "clip_high"),
    ],
)
def test_what_an_objective_needs_and_the_record_lacks(tmp_path: Path, arguments: list[str], said: str) -> None:
    assert_refused(CliRunner().invoke(app, ["replay", str(write(tmp_path / "record")), *arguments]), said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["theory/gibbs-optimum"], "theory/gibbs-optimum is not about the tokens of a run"),
        (["dcop"], "did you mean"),
        (["--seeds", "5"], "--seeds would have no effect with --on"),
        (["--tier", "full"], "--tier would have no effect with --on"),
    ],
)
def test_what_cannot_be_judged_on_a_record(tmp_path: Path, arguments: list[str], said: str) -> None:
    given = ["verify", *arguments, "--on", str(write(tmp_path / "record")), "--out", str(tmp_path / "out")]
    assert_refused(CliRunner().invoke(app, given), said)


def test_a_folder_that_holds_something_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "record")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    for command in (["replay", str(folder)], ["verify", "--on", str(folder)]):
        assert_refused(CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")]), "already holds something")
