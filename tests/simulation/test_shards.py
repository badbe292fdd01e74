"""A sweep cut into shards, spread over processes, killed, damaged and resumed: the same bytes or a clear message."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError

from testbed.errors import ConfigError, RunExistsError, StorageError
from testbed.simulation.axes import Axis
from testbed.simulation.folder import Plan, StorageWarning, read_block, write_block
from testbed.simulation.run import Run
from testbed.simulation.shards import Shard, WorkerError, merge, parse_shard, run_sweep
from testbed.simulation.storage import hold, write_atomically, write_sealed
from testbed.simulation.sweep import Sweep
from tests.extras import needs

SETTINGS: dict[str, Any] = {
    "objective": "dapo",
    "env": "NullBandit-v1(arms=6,contexts=2)",
    "vary": ["clip_low=0.1,0.2", "learning_rate=0.5,2"],
    "seeds": 3,
    "steps": 4,
    "group_size": 4,
    "chunk": 2,
}


def small(**changes: Any) -> Sweep:
    return Sweep(**SETTINGS | changes)


def contents(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "table.parquet").read_bytes(), (folder / "run.json").read_bytes()


def block_files(folder: Path) -> list[Path]:
    return sorted((folder / "blocks").glob("block-*.parquet"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted sweep of six blocks."""
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    assert run_sweep(small(), folder) is not None
    assert len(block_files(folder)) == 6
    return folder


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same sweep, stopped by a full disk while its third block was written."""
    folder = tmp_path / "sweep"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk_after(6))
        with pytest.raises(StorageError, match=r"No space left on device.*finished before is safe"):
            run_sweep(small(), folder)
    return folder


def full_disk_after(calls: int) -> Callable[[int], None]:
    """A replacement for `os.fsync`; every file costs two calls, one for its bytes and one for its folder."""
    made = iter(range(calls))

    def fsync(descriptor: int) -> None:
        if next(made, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fsync


# -- the cut -----------------------------------------------------------------------------------------------------------


def test_folder_holds_the_run(whole: Path) -> None:
    kept, direct = Run.load(whole), run_sweep(small())
    assert direct is not None
    pd.testing.assert_frame_equal(kept.table, direct.table, check_exact=True)
    assert kept.facts == json.loads(json.dumps(direct.facts))


@pytest.mark.parametrize("of", [2, 3, 6, 7])
def test_shards_do_not_change_a_byte(whole: Path, tmp_path: Path, of: int) -> None:
    folder = tmp_path / "sweep"
    for number in range(of, 1, -1):
        assert run_sweep(small(), folder, shard=Shard(number, of)) is None
    assert run_sweep(small(), folder, shard=f"1/{of}") is not None
    assert contents(folder) == contents(whole)


def test_shards_in_folders_of_their_own(whole: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for number, folder in enumerate(folders, start=1):
        assert run_sweep(small(), folder, shard=Shard(number, 2)) is None
    merge(folders, tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(whole)


@pytest.mark.slow
def test_processes_do_not_change_a_bit(whole: Path, tmp_path: Path) -> None:
    run_sweep(small(), tmp_path / "sweep", jobs=2)
    assert contents(tmp_path / "sweep") == contents(whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_ray_does_not_change_a_bit(whole: Path, tmp_path: Path) -> None:
    ray = needs("ray")

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        run_sweep(small(), tmp_path / "sweep", jobs=2, backend="ray")
    finally:
        ray.shutdown()
    assert contents(tmp_path / "sweep") == contents(whole)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_ray_must_be_installed() -> None:
    with pytest.raises(ConfigError, match="Ray is not installed; install the extra 'ray'"):
        run_sweep(small(), backend="ray")


# -- interruptions -----------------------------------------------------------------------------------------------------


def test_resume_after_a_full_disk_gives_the_same_bytes(whole: Path, interrupted: Path) -> None:
    # Six calls: sweep.json and two blocks.
    assert len(block_files(interrupted)) == 2
    assert not list(interrupted.rglob("*.tmp"))
    kept = [path.stat().st_mtime_ns for path in block_files(interrupted)]
    run_sweep(small(), interrupted, resume=True)
    assert [path.stat().st_mtime_ns for path in block_files(interrupted)[:2]] == kept
    assert contents(interrupted) == contents(whole)


_CHILD = """
import sys
from testbed.simulation.shards import run_sweep
from testbed.simulation.sweep import Sweep
run_sweep(Sweep(**{settings!r}), sys.argv[1])
"""


@pytest.mark.slow
def test_resume_after_kill_9_gives_the_same_bytes(tmp_path: Path) -> None:
    longer = {**SETTINGS, "steps": 150, "chunk": 1}
    folder = tmp_path / "killed"
    child = subprocess.Popen([sys.executable, "-c", _CHILD.format(settings=longer), str(folder)])
    deadline = time.monotonic() + 120
    while len(block_files(folder)) < 3:
        assert child.poll() is None, "the child ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    # While it runs nobody else may write there.
    with pytest.raises(StorageError, match=r"another process is writing to .* as shard 1 of 1"):
        run_sweep(Sweep(**longer), folder, resume=True)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert 3 <= len(block_files(folder)) < 12
    run_sweep(Sweep(**longer), folder, resume=True)
    run_sweep(Sweep(**longer), tmp_path / "whole")
    assert contents(folder) == contents(tmp_path / "whole")


def test_killed_worker_is_a_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(pool: joblib.Parallel, tasks: Any) -> Any:
        raise TerminatedWorkerError("exit codes {SIGKILL(-9)}")

    monkeypatch.setattr(joblib.Parallel, "__call__", killed)
    with pytest.raises(WorkerError, match=r"a worker process was killed.*continue with resume"):
        run_sweep(small(), jobs=2)


def test_half_written_file_is_ignored(whole: Path, interrupted: Path) -> None:
    stem = block_files(interrupted)[0]
    (stem.parent / f".{stem.name}.abc.tmp").write_bytes(stem.read_bytes()[:100])
    run_sweep(small(), interrupted, resume=True)
    assert contents(interrupted) == contents(whole)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied"])
def test_damaged_block_is_found_and_computed_again(whole: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "sweep"
    run_sweep(small(), folder)
    victim = block_files(folder)[2]
    original = victim.read_bytes()
    middle = len(original) // 2
    victim.write_bytes(
        {
            "truncated": original[:middle],
            "flipped": original[:middle] + bytes([original[middle] ^ 1]) + original[middle + 1 :],
            "emptied": b"",
        }[damage]
    )
    with pytest.raises(StorageError, match=f"{victim.name} is damaged: .* Run its shard again with resume"):
        merge([folder])
    with pytest.warns(StorageWarning, match=r"renamed .*\.damaged and is computed again"):
        run_sweep(small(), folder, resume=True)
    assert victim.read_bytes() == original
    assert victim.with_suffix(".damaged").is_file()
    assert contents(folder) == contents(whole)


def test_damaged_configuration(interrupted: Path) -> None:
    path = interrupted / "sweep.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(StorageError, match=r"sweep.json is damaged"):
        run_sweep(small(), interrupted, resume=True)


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_refuses_to_begin_again(interrupted: Path) -> None:
    with pytest.raises(RunExistsError, match="already holds this sweep; continue with resume"):
        run_sweep(small(), interrupted)


def test_refuses_to_begin_a_shard_again(tmp_path: Path) -> None:
    run_sweep(small(), tmp_path, shard="1/2")
    with pytest.raises(RunExistsError, match="already holds blocks of this sweep's shard 1/2; continue with resume"):
        run_sweep(small(), tmp_path, shard="1/2")


def test_refuses_a_changed_configuration(interrupted: Path) -> None:
    before = contents_of_blocks(interrupted)
    with pytest.raises(
        ConfigError, match=r"another configuration: learning_rate was 1.0 and is 3.0; seeds was 3 and is 4"
    ):
        run_sweep(small(seeds=4, learning_rate=3.0, vary=["clip_low=0.1,0.2"]), interrupted, resume=True)
    assert contents_of_blocks(interrupted) == before


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["clip_low=0.1,0.2"], "learning_rate was varied over 0.5, 2 and is not varied. Choose"),
        (["clip_low=0.1,0.2", "learning_rate=0.5,4"], "learning_rate was varied over 0.5, 2 and is varied over 0.5, 4"),
        (["clip_low=0.1,0.2", "learning_rate=0.5,2", "epochs=4"], "epochs was not varied and is varied over 4"),
        (
            ["learning_rate=0.5,2", "clip_low=0.1,0.2"],
            "vary was clip_low, learning_rate and is learning_rate, clip_low",
        ),
    ],
)
def test_a_changed_axis_is_named(interrupted: Path, vary: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"another configuration: {message}"):
        run_sweep(small(vary=vary), interrupted, resume=True)


def test_a_changed_axis_of_many_values_is_short(tmp_path: Path) -> None:
    values = [value / 2000 for value in range(2000)]
    run_sweep(small(vary=[Axis("clip_low", tuple(values))]), tmp_path, shard="1/900000")
    values[1000] = 0.50001
    for changed, message in (
        (values, r"value 1001 of clip_low was 0\.5 and is 0\.50001\. Choose"),
        (
            values[:3],
            r"clip_low was varied over 0\.0, 0\.0005, 0\.001, … 0\.9995 \(2,000 values\) and is",
        ),
    ):
        with pytest.raises(ConfigError, match=message) as refused:
            run_sweep(small(vary=[Axis("clip_low", tuple(changed))]), tmp_path, resume=True)
        assert len(str(refused.value)) < 1000


def contents_of_blocks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in block_files(folder)}


def test_refuses_a_folder_with_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunExistsError, match=r"already holds thesis.tex; nothing was written"):
        run_sweep(small(), tmp_path)


def test_refuses_a_second_process(tmp_path: Path) -> None:
    run_sweep(small(), tmp_path, shard="1/2")
    with (
        hold(tmp_path / ".locks", "shard 2 of 2", "2"),
        pytest.raises(StorageError, match=r"another process is writing to .* as shard 2 of 2; wait for it"),
    ):
        run_sweep(small(), tmp_path, shard="2/2")
    # One that cuts the sweep differently would compute the same blocks.
    with (
        hold(tmp_path / ".locks", "shard 2 of 2", "2"),
        pytest.raises(StorageError, match=r"another process is writing to .* as shard 2 of 2"),
    ):
        run_sweep(small(), tmp_path, resume=True)
    # Its neighbour does not disturb.
    with hold(tmp_path / ".locks", "shard 1 of 2", "2"):
        run_sweep(small(), tmp_path, shard="2/2")


def test_merge_names_what_is_missing(interrupted: Path) -> None:
    with pytest.raises(StorageError, match="4 of 6 blocks are missing, the first is number 2"):
        merge([interrupted])


def test_merge_refuses_a_folder_of_another_sweep(whole: Path, tmp_path: Path) -> None:
    run_sweep(small(seed=1), tmp_path, shard="1/2")
    with pytest.raises(StorageError, match=f"{tmp_path} holds another sweep than {whole}"):
        merge([whole, tmp_path])


def test_merge_refuses_a_block_of_another_sweep(interrupted: Path, tmp_path: Path) -> None:
    run_sweep(small(seed=1), tmp_path / "other")
    stranger = block_files(tmp_path / "other")[4]
    (interrupted / "blocks" / stranger.name).write_bytes(stranger.read_bytes())
    with pytest.raises(StorageError, match=f"{stranger.name} is a block of another sweep"):
        merge([interrupted])


def test_merge_refuses_two_versions_of_a_block(whole: Path, tmp_path: Path) -> None:
    # The same block, written by a program that rounds differently.
    run_sweep(small(), tmp_path, shard="1/2")
    plan = Plan.read(whole)
    _, table = read_block(block_files(whole)[1], plan)
    table["exact/entropy"] += 1e-12
    write_block(tmp_path, plan, 1, table)
    with pytest.raises(StorageError, match="are the same block with different content"):
        merge([whole, tmp_path])
    # Nor may both lie in one folder.
    shutil.copy(block_files(whole)[1], tmp_path / "blocks")
    with pytest.raises(StorageError, match="are the same block with different content"):
        merge([tmp_path])


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def test_merge_refuses_a_plan_that_was_changed(whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path / "sweep")
    content = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(content | {"blocks": 2}))
    with pytest.raises(StorageError, match=r"sweep.json is damaged: a plan of 2 blocks .* does not have the checksum"):
        merge([folder])
    (folder / "sweep.json").write_text(json.dumps(content | {"sweep": content["sweep"] | {"seeds": 2}}))
    with pytest.raises(StorageError, match=r"sweep.json is damaged"):
        merge([folder])


@pytest.mark.parametrize("blocks", [2, 60])
def test_merge_refuses_blocks_of_another_plan(whole: Path, tmp_path: Path, blocks: int) -> None:
    # The plan's own checksum is right, but the blocks were computed for another one.
    folder = copied(whole, tmp_path / "sweep")
    Plan(Plan.read(whole).configuration, blocks).write(folder)
    with pytest.raises(StorageError, match="is a block of another sweep, or of a plan with other blocks"):
        merge([folder])
    with pytest.raises(ConfigError, match=f"it has {blocks} blocks and now 6"):
        run_sweep(small(), folder, resume=True)


def test_merge_refuses_a_block_too_many(whole: Path, tmp_path: Path) -> None:
    folder, plan = copied(whole, tmp_path / "sweep"), Plan.read(whole)
    superfluous = write_block(folder, plan, 6, read_block(block_files(whole)[5], plan)[1])
    with pytest.raises(StorageError, match=f"{superfluous.name} holds block 6 of a sweep of 6, numbered from 0"):
        merge([folder])


def test_merge_refuses_a_block_under_another_number(whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path / "sweep")
    block_files(folder)[4].unlink()
    third = block_files(folder)[3]
    shutil.copy(third, third.with_name(third.name.replace("000003", "000004")))
    with pytest.raises(StorageError, match="holds block 3 of a sweep of 6, numbered from 0, which is not what its"):
        merge([folder])


def test_merge_refuses_a_sealed_file_that_is_no_block(whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path / "sweep")
    write_sealed(folder / "blocks", "block-000000", ".parquet", b"not Parquet")
    with pytest.raises(StorageError, match="is no block of a sweep"):
        merge([folder])


def test_merge_refuses_an_out_that_holds_something(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(b"precious")
    with pytest.raises(RunExistsError, match="already holds something"):
        merge([whole], tmp_path)
    assert (tmp_path / "table.parquet").read_bytes() == b"precious"


def test_merge_may_write_into_one_of_its_folders(whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path / "sweep")
    merge([whole, folder], folder)
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"[" * 100_000, b"\xff", b'{"blocks": 1}', b'{"blocks": "1", "checksum": "", "sweep": {}}', b"null"],
)
def test_damaged_plans(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sweep.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"sweep.json is damaged.*; restore it, or begin in another folder"):
        merge([tmp_path])


def test_merge_refuses_what_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no sweep"):
        merge([tmp_path])


def test_merge_refuses_nothing() -> None:
    with pytest.raises(ConfigError, match="merge got no folder"):
        merge([])


@pytest.mark.parametrize(
    "text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "²/4", "1/²", f"{'9' * 5000}/4", "1/2/3", "", "/", "1/\0"]
)
def test_refuses_a_shard(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected i/n with i from 1 to n"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"jobs": 0}, "jobs is 0; expected a number of processes"),
        ({"backend": "dask"}, "backend is 'dask'; expected one of loky, ray"),
        ({"resume": True}, "need a folder"),
        ({"shard": "1/2"}, "need a folder"),
    ],
)
def test_refuses_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_sweep(small(), **arguments)


# -- files -------------------------------------------------------------------------------------------------------------


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_atomically(tmp_path / "file", b"old")
    monkeypatch.setattr(os, "fsync", full_disk_after(0))
    with pytest.raises(StorageError, match=r"cannot write .*file: No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot create"):
        run_sweep(small(), tmp_path / "file" / "sweep")
