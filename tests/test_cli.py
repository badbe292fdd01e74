from __future__ import annotations

import dataclasses
import errno
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import testbed
from analysis import gradient_weights
from analysis.ledger import entries
from testbed import cli
from testbed.engines import conformance


def run(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "testbed", *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['testbed', '--help']\n"
        "from testbed.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'scipy', 'transformers', 'matplotlib', 'gymnasium'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "verify" in done.stdout


COMMANDS = ["list", "show", "compare", "sweep", "verify", "claims", "conformance", "theory", "audit", "finetune"]


@pytest.mark.parametrize("command", [*COMMANDS, "report"])
def test_every_command_takes_a_seed_and_a_place_for_its_output(command: str) -> None:
    done = CliRunner().invoke(cli.app, [command, "--help"])
    assert done.exit_code == 0, done.output
    assert "--seed" in done.output
    assert "--out" in done.output


def test_finetune_takes_its_seed_from_the_option_or_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    from testbed import finetune

    started = []
    stopped = SimpleNamespace(main_process=False)
    monkeypatch.setattr(
        finetune, "run_finetune", lambda settings, **options: started.append((settings, options)) or stopped
    )
    for seed in ([], ["--seed", "7"]):
        assert CliRunner().invoke(cli.app, ["finetune", "cpu-smoke", *seed]).exit_code == 0
    (plain, options), (seeded, _) = started
    assert plain == finetune.load_settings("cpu-smoke")
    assert options["out"] == Path("runs/finetune/cpu-smoke")
    assert seeded == dataclasses.replace(plain, seed=7)


def test_list_writes_what_it_prints(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["list", "--json", "--seed", "3", "--out", str(tmp_path / "new" / "names.json")])
    assert (tmp_path / "new" / "names.json").read_text(encoding="utf-8") == done.stdout


def test_list_as_json_holds_the_registries() -> None:
    done = CliRunner().invoke(cli.app, ["list", "--json"])
    names = json.loads(done.stdout)
    assert {"dcpo", "erc", "ce_gppo", "bapo", "sapo"} <= set(names["objectives"])
    assert "RareArm-v1" in names["environments"]
    assert "tabular" in names["models"]


def test_claims_as_json_is_the_ledger_with_its_claims() -> None:
    printed = json.loads(CliRunner().invoke(cli.app, ["claims", "--json"]).stdout)
    assert {row["recorded"] for row in printed["claims"]} >= {"reproduced", "refuted"}
    assert all(row["source"] for row in printed["claims"])
    rows = {row["number"]: row for row in printed["ledger"]}
    assert list(rows) == [entry.number for entry in entries()]
    # Statements that no claim of their own judges are there as well, with what would test them or why nothing can.
    assert rows["B8"]["verdicts"] == {}
    assert "testbed finetune" in rows["B8"]["configuration"]
    assert rows["S5"]["status"] == "out of reach"
    assert rows["S5"]["reason"]
    assert rows["D2"]["verdicts"]["dcpo/rare-arm-regret-tuned"] == "refuted"


def test_verify_exits_0_when_every_verdict_is_on_record(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["verify", "theory/sapo-gate", "--out", str(tmp_path / "r"), "--jobs", "1"])
    assert done.exit_code == 0, done.output
    assert "1 reproduced" in done.output
    assert str(tmp_path / "r" / "report.html") in done.output.replace("\n", "")


def test_verify_exits_1_when_a_verdict_differs(tmp_path: Path) -> None:
    # Four seeds give no verdict, which is not what is on record.
    done = CliRunner().invoke(
        cli.app, ["verify", "dcpo/response-utilisation", "--seeds", "4", "--out", str(tmp_path / "r"), "--jobs", "1"]
    )
    assert done.exit_code == 1
    assert "dcpo/response-utilisation (reproduced → inconclusive)" in done.output


def test_report_compares_two_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        CliRunner().invoke(cli.app, ["verify", "theory/sapo-gate", "--out", str(tmp_path / name), "--jobs", "1"])
    done = CliRunner().invoke(cli.app, ["report", str(tmp_path / "b"), "--against", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    page = tmp_path / "elsewhere" / "page.html"
    for code in (0, 2):  # The second time the page is there, and stays.
        again = run("report", str(tmp_path / "b"), "--against", str(tmp_path / "a"), "--out", str(page))
        assert again.returncode == code, again.stderr
        assert page.read_bytes() == (tmp_path / "b" / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "grop", "--env", "rare-arm", "--out", "{out}"], "unknown objective 'grop'; did you mean 'grpo'?"),
        (["compare", "grpo", "--env", "rare-arn", "--out", "{out}"], "did you mean 'RareArm-v1'?"),
        (["compare", "grpo(clip=1)", "--env", "rare-arm", "--out", "{out}"], "did you mean 'clip_low'?"),
        (["compare", "ppo(clip_low=-1)", "--env", "rare-arm", "--out", "{out}"], "clip_low is -1; expected a value in"),
        (["compare", "erc(base=gppo", "--env", "rare-arm", "--out", "{out}"], "expected name or name(key=value,…)"),
        (["verify", "dcpo/token-clip"], "did you mean 'dcpo/token-clip-ratio'?"),
        (["verify", "dcop"], "unknown claim or paper 'dcop'; did you mean 'dcpo'?"),
        (["verify", "--tier", "slow"], "tier is 'slow'"),
        (["verify", "theory", "--jobs", "0"], "jobs is 0; expected a number of processes, or -1"),
        (["compare", "grpo", "--env", "rare-arm", "--seed", "-1", "--out", "{out}"], "Invalid value for '--seed'"),
        (["compare", "grpo", "--env", "rare-arm", "--steps", "1", "--out", "/dev/null/run"], "cannot use /dev/null"),
        (["report", "{out}"], "holds no results.json"),
        (["show", "sappo"], "did you mean 'sapo'?"),
        (["sweep", "--out", "{out}"], "a sweep needs --objective and --env"),
        (
            ["sweep", "--objective", "dapo", "--env", "NullBandit-v1", "--vary", "clip_lo=0:1:2", "--out", "{out}"],
            "did you mean 'clip_low'?",
        ),
        (["merge", "{out}", "--out", "{out}"], "{out}"),
        (["calibrate", "theory/sapo-gate"], "cannot be calibrated"),
        (["conformance", "--engine", "vrel"], "did you mean 'verl'?"),
        (["finetune", "cpu-smok"], "cpu-smoke"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [argument.replace("{out}", str(tmp_path / "out")) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["testbed", *filled])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert message.replace("{out}", str(tmp_path / "out")) in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "out").exists()


def test_an_occupied_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept", encoding="utf-8")
    done = run("compare", "grpo", "--env", "rare-arm", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "nothing was written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_compare_without_a_folder_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--seeds", "2", "--steps", "2", "--learning-rate", "4"]
    done = CliRunner().invoke(cli.app, ["compare", "ppo", "--env", "RareArm-v1(arms=5,contexts=2)", *small])
    assert done.exit_code == 0, done.output
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("compare-")
    assert (folder / "curves.png").is_file()


def test_show_prints_the_formula_and_draws_the_weight(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["show", "dcpo(clip_low=0.1)", "--out", str(tmp_path / "new" / "dcpo.svg")])
    assert done.exit_code == 0, done.output
    assert "high(q) = min(½ + ½√(1 + 4ε_high/q), r_max)" in done.output
    assert (tmp_path / "new" / "dcpo.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_sweep_writes_a_table_and_a_phase_diagram(tmp_path: Path) -> None:
    arguments = [
        "sweep",
        "--objective",
        "dapo",
        "--env",
        "NullBandit-v1(arms=6,contexts=2)",
        "--seeds",
        "3",
        "--jobs",
        "1",
    ]
    arguments += ["--vary", "clip_low=0.1:0.3:2", "--vary", "clip_high=0.1,0.3", "--set", "steps=4"]
    done = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path / "s")])
    assert done.exit_code == 0, done.output
    assert {"table.parquet", "phase.png"} <= {path.name for path in (tmp_path / "s").iterdir()}


def test_a_damaged_block_is_one_sentence(tmp_path: Path) -> None:
    arguments = ["sweep", "--objective", "dapo", "--env", "NullBandit-v1(arms=6,contexts=2)", "--seeds", "2"]
    arguments += ["--jobs", "1", "--vary", "epochs=1,2", "--set", "steps=2", "--out", str(tmp_path / "s")]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    victim = min((tmp_path / "s" / "blocks").iterdir())
    victim.write_bytes(victim.read_bytes()[:-1])
    refused = run("merge", str(tmp_path / "s"), "--out", str(tmp_path / "m"))
    assert refused.returncode == 2
    assert "Run its shard again with resume, which computes this block anew, and merge again\n" in refused.stderr
    done = run(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    found = f"{victim} is damaged: its {victim.stat().st_size - 1} bytes do not have the checksum in its name"
    aside = victim.with_suffix(".damaged").name
    assert done.stderr == f"testbed: {found}. It was renamed {aside} and is computed again\n"


def test_the_ledger_is_printed() -> None:
    done = CliRunner().invoke(cli.app, ["claims"])
    assert done.exit_code == 0, done.output
    assert "D5" in done.output
    assert "dcpo/token-clip-ratio" in done.output


def test_theory_writes_what_it_prints(tmp_path: Path) -> None:
    file = tmp_path / "theory.json"
    assert CliRunner().invoke(cli.app, ["theory", "--out", str(file)]).exit_code == 0
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert {row["id"] for row in rows} == {f"T{number}" for number in range(1, 13)}
    assert all(row["error"] <= row["tolerance"] and row["numbers"] > 0 for row in rows)
    again = run("theory", "--out", str(file))
    assert (again.returncode, "already exists; nothing was written" in again.stderr) == (2, True)


@pytest.mark.parametrize(("broken", "code"), [(False, 0), (True, 1)])
def test_conformance_exits_1_when_a_difference_is_not_the_known_one(
    broken: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"objective": "grpo", "setting": "theirs", "loss": 1.0, "gradient": 1.0, "differs": "", "reproduced_by": ""}
    table = pd.DataFrame([{**row, "reproduced_loss": None, "reproduced_gradient": None, "as_expected": not broken}])
    monkeypatch.setattr(conformance, "conformance_table", lambda engine, seed: table.astype({"as_expected": "boolean"}))
    done = CliRunner().invoke(cli.app, ["conformance", "--engine", "trl"])
    assert done.exit_code == code
    assert ("not as expected: grpo against theirs" in done.stderr) == broken


def test_transfer_rejects_a_name_it_does_not_know() -> None:
    done = run("transfer", "stalenes", "--device", "cpu")
    assert done.returncode == 2
    assert "did you mean 'staleness'" in done.stderr
    assert "Traceback" not in done.stderr


# -- how a command ends ------------------------------------------------------------------------------------------------


def ended(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["testbed", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_version() -> None:
    done = CliRunner().invoke(cli.app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"testbed {testbed.__version__}\n")


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (AssertionError("the sum is off"), 3, "this is a fault of testbed, not of your input; please report it"),
        (OSError(errno.ENOTCONN, "not connected"), 3, "this is a fault of testbed"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device; choose another path or make r"),
        (BrokenProcessPool("killed"), 3, "a worker process was killed, most often because the memory ran out"),
        (KeyboardInterrupt(), 130, "testbed: stopped. Nothing was kept\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
    ],
)
def test_only_a_result_ends_with_1(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(gradient_weights, "describe", failing(error))
    monkeypatch.setattr(cli, "silence_output", lambda: None)
    assert ended(["show", "dapo"], monkeypatch) == code
    said = capsys.readouterr().err
    assert message in said
    assert ("Traceback" in said) == ("fault" in message)


def test_a_reader_that_goes_away_is_no_error() -> None:
    # More than a pipe holds, so that writing meets the closed end.
    command = f"{shlex.quote(sys.executable)} -m testbed claims | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n141\n")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (["verify", "theory/sapo-gate"], ["--out", "{folder}", "--resume"]),
        (["verify", "theory/sapo-gate", "--out", "my runs", "--resume"], []),
        (
            ["sweep", "--objective", "dapo", "--env", "rare-arm", "--vary", "epochs=1,2"],
            ["--out", "{folder}", "--resume"],
        ),
        (["calibrate", "dcpo/token-clip-ratio", "--out=mine"], ["--resume"]),
        (["transfer", "--device", "cpu"], ["--out", "{folder}"]),
        (["finetune", "cpu-smoke"], ["--out", "{folder}", "--resume"]),
    ],
)
def test_control_c_says_how_to_go_on(
    command: list[str],
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*arguments: Any, out: Path | None = None, **others: Any) -> None:
        folder = arguments[2] if command[0] == "transfer" else arguments[1] if command[0] == "sweep" else out
        assert folder is not None
        (folder / "finished").write_text("1")
        raise KeyboardInterrupt

    from analysis import calibration, transfer, verify
    from testbed import finetune
    from testbed.simulation import shards

    for module, name in (
        (verify, "verify"),
        (shards, "run_sweep"),
        (calibration, "calibrate"),
        (transfer, "run_transfer"),
        (finetune, "run_finetune"),
    ):
        monkeypatch.setattr(module, name, stop)
    monkeypatch.chdir(tmp_path)
    assert ended(command, monkeypatch) == 130
    (finished,) = tmp_path.rglob("finished")
    folder = str(finished.parent.relative_to(tmp_path))
    words = ["testbed", *command, *(option.replace("{folder}", folder) for option in options)]
    sentence = f"testbed: stopped. What is finished is kept; go on with: {shlex.join(words)}\n"
    # A sweep may have said before that nothing was clipped at its corners.
    assert capsys.readouterr().err.splitlines(keepends=True)[-1] == sentence


def test_a_place_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from analysis import audit, comparison
    from analysis import theory as predictions
    from testbed.engines import conformance as compared

    computed = failing(AssertionError("computed"))
    for module, name in (
        (audit, "check_laws"),
        (comparison, "simulate"),
        (predictions, "predictions"),
        (compared, "conformance_table"),
        (gradient_weights, "describe"),
    ):
        monkeypatch.setattr(module, name, computed)
    taken = tmp_path / "taken.svg"
    taken.write_text("mine")
    for command in (
        ["audit", "dapo"],
        ["compare", "dapo", "--env", "rare-arm"],
        ["theory"],
        ["conformance", "--engine", "trl"],
        ["show", "dapo"],
    ):
        assert ended([*command, "--out", str(taken)], monkeypatch) == 2, command
        assert "nothing was written" in capsys.readouterr().err
    assert taken.read_text() == "mine"
