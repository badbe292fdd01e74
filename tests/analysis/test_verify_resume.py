"""An interrupted verification: what was judged is kept, the rest is judged, and nothing is lost or mixed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from analysis import verify as module
from analysis.claims import ClaimResult
from analysis.verify import verify
from testbed.errors import ConfigError, RunExistsError, StorageError
from testbed.simulation.folder import StorageWarning
from testbed.simulation.storage import hold

VERIFY = sys.modules[module.__module__] if callable(module) else module
CLAIMS = ["theory/sapo-gate", "ce-gppo/zero-betas-are-ppo", "theory/on-policy-identity"]


def rows(folder: Path) -> list[dict[str, Any]]:
    """The claims of `results.json` without how long they took."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))["claims"]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "verdicts").glob("*.json"))


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A verification that was stopped by hand during its third claim."""
    folder, real, judged = tmp_path / "run", VERIFY._run_one, []

    def stopped(*arguments: Any) -> ClaimResult:
        judged.append(arguments[0])
        if len(judged) == len(CLAIMS):
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(VERIFY, "_run_one", stopped)
        with pytest.raises(KeyboardInterrupt):
            verify(CLAIMS, out=folder, jobs=1)
    assert len(kept(folder)) == len(CLAIMS) - 1
    assert not (folder / "results.json").exists()
    return folder


def test_resume_judges_the_rest_and_gives_the_same_results(
    interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in kept(interrupted)}
    real, judged = VERIFY._run_one, []

    def counted(*arguments: Any) -> ClaimResult:
        judged.append(arguments[0])
        return real(*arguments)

    monkeypatch.setattr(VERIFY, "_run_one", counted)
    resumed = verify(CLAIMS, out=interrupted, jobs=1, resume=True)
    assert len(judged) == 1
    assert all(path.read_bytes() == content for path, content in before.items())
    whole = verify(CLAIMS, out=tmp_path / "whole", jobs=1)
    assert rows(interrupted) == rows(tmp_path / "whole")
    assert [item.claim.id for item in resumed.results] == [item.claim.id for item in whole.results] == CLAIMS
    assert resumed.report.is_file()


def test_resume_of_a_finished_run_judges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A verdict that was read back is the row it was written from, missing numbers and curves included.
    names = [CLAIMS[0], "dcpo/token-clip-ratio"]
    verify(names, out=tmp_path / "run", jobs=1, seeds=5)
    before = (tmp_path / "run" / "results.json").read_bytes()
    monkeypatch.setattr(VERIFY, "_run_one", None)
    verify(names, out=tmp_path / "run", jobs=1, seeds=5, resume=True)
    after = (tmp_path / "run" / "results.json").read_bytes()
    assert json.loads(after)["claims"] == json.loads(before)["claims"]


def test_resume_begins_where_nothing_was_begun(tmp_path: Path) -> None:
    assert len(verify(CLAIMS[:1], out=tmp_path / "run", jobs=1, resume=True).results) == 1


def test_refuses_to_begin_again(interrupted: Path) -> None:
    with pytest.raises(RunExistsError, match="already holds something; nothing was written"):
        verify(CLAIMS, out=interrupted, jobs=1)


def test_refuses_to_resume_nowhere() -> None:
    with pytest.raises(ConfigError, match="resume needs the folder of the interrupted verification"):
        verify(CLAIMS, resume=True)


def test_refuses_to_resume_into_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunExistsError, match="already holds something"):
        verify(CLAIMS, out=tmp_path, jobs=1, resume=True)


def test_refuses_a_changed_configuration(interrupted: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"another configuration: claims was .*; seed was \d+ and is 12345\. Choose another"
    ):
        verify(CLAIMS, out=interrupted, jobs=1, seed=12345, resume=True)
    assert len(kept(interrupted)) == len(CLAIMS) - 1


def test_refuses_a_second_process(interrupted: Path) -> None:
    with (
        hold(interrupted / ".locks", "verification", "verification"),
        pytest.raises(StorageError, match=r"another process is writing to .* as verification"),
    ):
        verify(CLAIMS, out=interrupted, jobs=1, resume=True)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_verdict_is_judged_again(interrupted: Path, tmp_path: Path, damage: str) -> None:
    victim = kept(interrupted)[0]
    content = victim.read_bytes()
    victim.write_bytes(content[:99] if damage == "truncated" else content.replace(b"reproduced", b"refutedxxx"))
    with pytest.warns(StorageWarning, match=r"is damaged: .* renamed .*\.damaged and the claim is judged again"):
        verify(CLAIMS, out=interrupted, jobs=1, resume=True)
    verify(CLAIMS, out=tmp_path / "whole", jobs=1)
    assert rows(interrupted) == rows(tmp_path / "whole")


def test_verdict_of_another_verification_is_refused(interrupted: Path, tmp_path: Path) -> None:
    verify(CLAIMS[:1], out=tmp_path / "other", jobs=1)
    (stranger,) = kept(tmp_path / "other")
    (interrupted / "verdicts" / stranger.name).write_bytes(stranger.read_bytes())
    with pytest.raises(StorageError, match="is a verdict of another verification; remove it"):
        verify(CLAIMS, out=interrupted, jobs=1, resume=True)


@pytest.mark.slow
def test_resume_after_kill_9(tmp_path: Path) -> None:
    names = [*CLAIMS, "dcpo/token-clip-ratio"]
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "testbed", "verify", *names, "--out", str(folder), "--jobs", "1"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not kept(folder):
        assert child.poll() is None, "the child ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (folder / "results.json").exists()
    verify(names, out=folder, jobs=1, resume=True)
    verify(names, out=tmp_path / "whole", jobs=1)
    assert rows(folder) == rows(tmp_path / "whole")
