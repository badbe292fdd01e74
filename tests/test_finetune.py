"""Fine-tuning from a file: what is written, that a resumed run is the run, and what a wrong file is told."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import shutil
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from analysis.report.finetune import write_finetune_report
from models.causal_lm import load_causal_lm
from testbed import finetune
from testbed.configuration import build_settings
from testbed.engines import trl as engine
from testbed.errors import ConfigError, RunExistsError, TestbedError, UnknownNameError
from testbed.finetune import (
    FinetuneSettings,
    configuration_names,
    finished_run,
    load_settings,
    log_row,
    prepare_start,
    run_finetune,
)
from testbed.objectives import make_objective
from testbed.records import read_record
from tests.extras import needs

SMALL: dict[str, Any] = {
    "model": "qwen2-0.1m",
    "train": {"source": "arithmetic(level=1,count=16)"},
    "test": {"source": "arithmetic(level=1,count=4)", "split": "test"},
    "objective": "dcpo",
    "trainer": {
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "num_iterations": 2,
        "max_completion_length": 4,
        "learning_rate": 0.01,
        "save_steps": 1,
        "save_total_limit": 9,
    },
    "evaluation": {"samples": 2},
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes), encoding="utf-8")
    return path


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", configuration_names())
def test_every_ready_configuration_can_be_read(name: str) -> None:
    assert isinstance(load_settings(name), FinetuneSettings)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", configuration_names())
def test_trl_accepts_every_ready_configuration(name: str, tmp_path: Path) -> None:
    trl = needs("trl")
    settings = load_settings(name)
    arguments = build_settings(trl.GRPOConfig, finetune._trainer_settings(settings, tmp_path), "trainer")
    engine.check_settings(make_objective(settings.objective), arguments, None)
    assert (settings.dynamic_sampling == 1) or not settings.routing_replay


def test_the_promised_configurations_are_there() -> None:
    promised = {"cpu-smoke", "cpu-moe", "gpu-arithmetic", "qwen2.5-0.5b-gsm8k", "qwen2.5-1.5b-math"}
    promised |= {"smollm2-sums"}
    assert promised <= set(configuration_names())


def test_numbers_written_without_a_point_are_numbers(tmp_path: Path) -> None:
    # YAML 1.1 reads 1e-3 as text.
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL) + "warm_start: {learning_rate: 1e-3, target: 1}\n", encoding="utf-8")
    warm_start = load_settings(path).warm_start
    assert warm_start is not None
    assert warm_start.learning_rate == 0.001
    assert warm_start.target == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objektive": "dapo"}, "unknown key 'objektive'; did you mean 'objective'"),
        ({"train": {"sauce": "arithmetic"}}, "unknown key 'sauce'; did you mean 'source'"),
        ({"train": "arithmetic"}, "train is 'arithmetic'; expected a mapping"),
        ({"test": {}}, "test lacks source"),
        ({"seed": "seven"}, "seed is 'seven'; expected int"),
        ({"routing_replay": 1}, "routing_replay is 1; expected bool"),
        ({"trainer": {"max_steps": 0}}, r"trainer\.max_steps is 0"),
        ({"trainer": {"max_steps": "two"}}, r"trainer\.max_steps is 'two'; expected a whole number of at least 1"),
        ({"trainer": {"max_steps": 1, "seed": 3}}, "trainer sets seed"),
        ({"trainer": {"max_steps": 1, "use_cpu": True}}, "trainer sets use_cpu"),
        ({"device": "tpu"}, "device is 'tpu'; expected cpu or cuda"),
        ({"evaluation": {"samples": 0}}, "samples=0"),
        ({"record": "yes"}, "record is 'yes'; expected bool"),
        ({"record_share": 1.5}, r"share is 1\.5; expected a share of the prompts in \(0, 1\]"),
        ({"matmul_precision": "low"}, "matmul_precision is 'low'; expected highest"),
        ({"shots": -1}, "shots is -1; expected at least 0"),
        ({"stop": "x"}, "stop is 'x'; expected list"),
        ({"stop": ["x", ""]}, r"stop is \['x', ''\]; expected a list of texts"),
        ({"answer_prefix": "#### ", "warm_start": {}}, "a warm start learns whole solutions"),
    ],
)
def test_rejects_settings(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message):
        load_settings(path)


def test_rejects_an_objective_that_does_not_exist(tmp_path: Path) -> None:
    path = written(tmp_path, objective="dpao")
    with pytest.raises(UnknownNameError, match="did you mean 'dapo'"):
        load_settings(path)


def test_rejects_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"there is no file 'nowhere\.yaml'"):
        load_settings("nowhere.yaml")


def test_rejects_a_configuration_that_does_not_exist() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'cpu-smoke'"):
        load_settings("cpu-smok")


def test_rejects_what_is_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("model: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_settings(path)


def test_says_when_trl_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(finetune.metadata, "version", absent)
    with pytest.raises(ConfigError, match="fine-tuning needs TRL"):
        run_finetune(written(tmp_path), out=tmp_path / "run")


def test_log_rows_carry_one_name_a_metric() -> None:
    # TRL's reward and clip_ratio/high_mean are reward/mean and clip/high_fraction here.
    logs = {
        "loss": 0.5,
        "grad_norm": math.inf,
        "reward": 1.0,
        "clip_ratio/high_mean": 0.1,
        "reward/mean": 1.0,
        "kl/ref": None,
        "epoch": 0.5,
    }
    assert log_row(7, logs) == {
        "step": 7,
        "loss": 0.5,
        "gradient/norm": None,
        "reward/mean": 1.0,
        "kl/ref": None,
        "epoch": 0.5,
    }


# -- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("trl")
    folder = tmp_path_factory.mktemp("whole")
    run_finetune(written(folder, record=True), out=folder / "run")
    return folder


@pytest.mark.filterwarnings("ignore")
def test_a_run_leaves_what_it_promises(whole: Path) -> None:
    run = whole / "run"
    names = {path.name for path in run.iterdir()}
    assert names == {
        "checkpoints",
        "configuration.yaml",
        "evaluation.json",
        "log.jsonl",
        "model",
        "record",
        "samples.jsonl",
        "start",
    }
    assert {"kappas", "old_entropies"} <= set(read_record(run / "record").columns)
    updates = list(read_record(run / "record").updates())
    log = finetune.read_log(run / "log.jsonl")
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    objective = make_objective(read_record(run / "record").objective)
    # The loss is a mean over tokens with advantages of order one.
    assert [objective(update.batch()).loss.item() for update in updates] == pytest.approx(
        [row["loss"] for row in log], rel=1e-6, abs=1e-7
    )
    assert {"loss", "gradient/norm", "ratio/mean", "clip/fraction", "entropy/mean", "update/refused"} <= set(log[0])
    assert not {"grad_norm", "clip_ratio/high_mean", "reward"} & set(log[0])
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert set(evaluation) == {"before", "after", "difference", "facts"}
    for phase in ("before", "after"):
        estimate = evaluation[phase]["greedy"]
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert len(evaluation[phase]["per_problem"]) == 4
    samples = finetune.read_log(run / "samples.jsonl")
    assert [row["phase"] for row in samples] == ["before"] * 4 + ["after"] * 4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("checkpoint", [1, 4])
def test_a_resumed_run_is_the_run(whole: Path, tmp_path: Path, checkpoint: int) -> None:
    # As if the process had died after the checkpoint, with a row of the log already written for the step after it.
    interrupted = tmp_path / "run"
    shutil.copytree(whole / "run", interrupted)
    shutil.rmtree(interrupted / "model")
    for path in (interrupted / "checkpoints").glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) > checkpoint:
            shutil.rmtree(path)
    evaluation = json.loads((interrupted / "evaluation.json").read_text())
    (interrupted / "evaluation.json").write_text(json.dumps({"before": evaluation["before"]}))

    result = run_finetune(whole / "small.yaml", resume=True, out=interrupted)
    timed = {"step_time"}
    expected = finetune.read_log(whole / "run" / "log.jsonl")
    assert [{key: row[key] for key in row if key not in timed} for row in result.log] == [
        {key: row[key] for key in row if key not in timed} for row in expected
    ]
    for phase in ("before", "after"):
        assert result.evaluation[phase] == evaluation[phase]
    assert result.evaluation["difference"] == evaluation["difference"]
    updates = [(update.step, update.update) for update in read_record(interrupted / "record").updates()]
    assert updates == sorted(set(updates))
    assert len(updates) == 4


# -- killed while it saved -------------------------------------------------------------------------------------------


def cut_short(whole: Path, folder: Path, last: int = 3) -> Path:
    """The run as it is after its last checkpoint, without what comes then."""
    run = folder / "run"
    shutil.copytree(whole / "run", run)
    shutil.rmtree(run / "model")
    for path in (run / "checkpoints").glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) > last:
            shutil.rmtree(path)
    evaluation = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps({"before": evaluation["before"]}))
    return run


def assert_goes_on(whole: Path, run: Path, said: str) -> None:
    """Resumed, it says what it passed over and is the run that was not interrupted."""
    lines: list[str] = []
    result = run_finetune(whole / "small.yaml", resume=True, out=run, report=lines.append)
    assert any(re.search(said, line) for line in lines), lines
    expected = finetune.read_log(whole / "run" / "log.jsonl")
    assert [row["loss"] for row in result.log] == [row["loss"] for row in expected]
    weights = "model/model.safetensors"
    assert (run / weights).read_bytes() == (whole / "run" / weights).read_bytes()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (Path.unlink, "model.safetensors"),
        (truncated, "model.safetensors"),
        (truncated, "optimizer.pt"),
        (Path.unlink, "trainer_state.json"),
        (Path.unlink, "0_objective_state.pt"),
        (Path.unlink, "contents.json"),
        (truncated, "contents.json"),
    ],
)
def test_an_incomplete_checkpoint_is_passed_over(
    whole: Path, tmp_path: Path, spoil: Callable[[Path], None], name: str
) -> None:
    run = cut_short(whole, tmp_path)
    spoil(run / "checkpoints" / "checkpoint-3" / name)
    assert_goes_on(whole, run, rf"checkpoint-3 is passed over: .*{name.replace('.', '[.]')}")


@pytest.mark.filterwarnings("ignore")
def test_without_a_whole_checkpoint_training_begins_anew(whole: Path, tmp_path: Path) -> None:
    run = cut_short(whole, tmp_path, last=1)
    shutil.rmtree(run / "checkpoints" / "checkpoint-1")
    (run / "checkpoints" / "checkpoint-1").mkdir()
    assert_goes_on(whole, run, "resuming after step 0 of 4")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("leave", [["config.json"], ["config.json", "contents.json", "model.safetensors"], []])
def test_an_incomplete_start_is_made_again(whole: Path, tmp_path: Path, leave: list[str]) -> None:
    run = cut_short(whole, tmp_path)
    shutil.rmtree(run / "checkpoints")
    for path in (run / "start").iterdir():
        if path.name not in leave:
            path.unlink()
    (run / "evaluation.json").unlink()
    (run / "start.partial").mkdir()
    assert_goes_on(whole, run, "start is made again: ")
    assert not (run / "start.partial").exists()


@pytest.mark.filterwarnings("ignore")
def test_threads_are_chosen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("trl")
    used: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", used.append)
    monkeypatch.setattr("testbed.engines.threads.idle_cores", lambda: (4, 1.2))
    lines: list[str] = []
    path = written(tmp_path, trainer=SMALL["trainer"] | {"max_steps": 1})
    run_finetune(path, out=tmp_path / "run", report=lines.append, choose_threads=True)
    assert used == [1]
    assert "threads: 1, as 1.2 of 4 cores are idle" in "\n".join(lines)
    (tmp_path / "run" / "threads.json").write_text("3")
    run_finetune(path, out=tmp_path / "run", resume=True, report=lines.append, choose_threads=True)
    assert used == [1, 3]
    assert "threads: 3, as when the run began" in lines
    (tmp_path / "run" / "threads.json").write_text("many")
    with pytest.raises(ConfigError, match=r"threads\.json"):
        run_finetune(path, out=tmp_path / "run", resume=True, choose_threads=True)


def test_a_row_that_was_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert finetune.read_log(path) == [{"step": 1}, {"step": 2}]
    assert finetune.read_log(tmp_path / "none") == []


@pytest.mark.filterwarnings("ignore")
def test_examples_prefix_and_stop_strings_stand_in_every_prompt_and_answer(tmp_path: Path) -> None:
    needs("trl")
    beyond = {"source": "arithmetic(level=2,count=6)", "split": "test"}
    changes = {"shots": 2, "answer_prefix": "#### ", "stop": [str(digit) for digit in range(10)], "beyond": beyond}
    trainer = SMALL["trainer"] | {"max_steps": 1, "max_completion_length": 12}
    result = run_finetune(written(tmp_path, trainer=trainer, **changes), out=tmp_path / "run")
    evaluation = result.evaluation
    assert evaluation["beyond"]["after"]["problems"] == 6
    assert set(evaluation["beyond"]["difference"]) == {"value", "low", "high"}
    assert any(line.startswith("beyond") for line in result.summary())
    assert any(line.startswith("unended") for line in result.summary())
    assert evaluation["facts"]["peak_bytes"] > 10**8
    samples = finetune.read_log(tmp_path / "run" / "samples.jsonl")
    for sample in samples:
        *examples, question = sample["prompt"].split("\n")
        assert len(examples) == 2
        assert all("####" in example for example in examples)
        assert question.endswith("=#### ")
        # A response ends before the first digit, which is what stopped it.
        assert not set(sample["response"]) & set("0123456789")
    (row,) = result.log
    assert row["completions/clipped_ratio"] < 1


def test_products_are_as_exact_as_the_run_asks_and_only_during_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("trl")
    seen: list[str] = []
    monkeypatch.setattr(finetune._Run, "start", lambda self: seen.append(torch.get_float32_matmul_precision()))
    monkeypatch.setattr(finetune._Run, "prepare", lambda self, resume: seen.append("prepared"))
    monkeypatch.setattr(finetune._Run, "train", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_finetune(written(tmp_path, matmul_precision="medium"), out=tmp_path / "run")
    assert seen == ["medium", "prepared"]
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.filterwarnings("ignore")
def test_an_answer_is_graded_with_its_prefix(tmp_path: Path) -> None:
    needs("trl")
    settings = load_settings(written(tmp_path, answer_prefix="\\boxed{"))
    run = finetune._Run(settings, tmp_path, print, None)
    assert run.reward(["22}", "22", "23} or so"], ["22", "22", "23"]) == [1.0, 0.0, 1.0]
    run.grader.close()


@pytest.mark.filterwarnings("ignore")
def test_what_was_left_before_the_first_file_refuses_nothing(tmp_path: Path) -> None:
    needs("trl")
    run = tmp_path / "run"
    run.mkdir()
    (run / ".configuration.yaml.abc.tmp").touch()
    settings = load_settings(written(tmp_path, trainer=SMALL["trainer"] | {"max_steps": 1}))
    assert len(run_finetune(settings, out=run).log) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "there"}, ConfigError, "cannot load the model"),
        ({"tokenizer": "there"}, ConfigError, "cannot load the tokenizer"),
        ({"model": "qwen2-0.1m(hidden_size=-64)"}, ConfigError, "cannot build qwen2-0.1m with these values"),
        ({"train": {"source": "arithmetic(level=1,count=1)"}}, ConfigError, "a rollout takes 2 prompts"),
        ({"advantage": "group_centred(x=1)"}, ConfigError, "no parameter 'x'"),
        ({"warm_start": {"max_steps": 1, "check_every": 1}}, TestbedError, "the warm start reached a success of 0"),
    ],
)
def test_a_run_that_cannot_work_leaves_no_folder(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    needs("trl")
    (tmp_path / "there").mkdir()
    given = {key: str(tmp_path / "there") if value == "there" else value for key, value in changes.items()}
    path = written(tmp_path, **given)
    with pytest.raises(error, match=message):
        run_finetune(path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    result = run_finetune(written(tmp_path, trainer=SMALL["trainer"] | {"max_steps": 1}), out=tmp_path / "run")
    assert len(result.log) == 1


@pytest.mark.filterwarnings("ignore")
def test_a_mixture_of_experts_goes_on_with_its_experts(tmp_path: Path) -> None:
    needs("trl")
    # Transformers saves each expert's weights under a name of their own and computes with all of them in one.
    path = written(tmp_path, model="qwen3-moe-0.1m", trainer=SMALL["trainer"] | {"max_steps": 2})
    whole = run_finetune(path, out=tmp_path / "whole")
    run = tmp_path / "run"
    shutil.copytree(tmp_path / "whole", run)
    shutil.rmtree(run / "checkpoints" / "checkpoint-2")
    resumed = run_finetune(path, resume=True, out=run)
    assert [row["loss"] for row in resumed.log] == [row["loss"] for row in whole.log]
    weights = "model/model.safetensors"
    assert (run / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_a_tracker_is_given_the_numbers_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("trl")
    needs("tensorboard")
    from tensorboard.backend.event_processing import event_accumulator as events

    warned: list[str] = []
    monkeypatch.setattr("transformers.integrations.integration_utils.logger.warning", warned.append)
    path = written(tmp_path, trainer=SMALL["trainer"] | {"max_steps": 2, "report_to": "tensorboard"})
    result = run_finetune(path, out=tmp_path / "run")
    (folder,) = (result.folder / "checkpoints" / "runs").iterdir()
    read = events.EventAccumulator(str(folder))
    read.Reload()
    shown = {tag.removeprefix("train/"): read.Scalars(tag) for tag in read.Tags()["scalars"]}
    shown["gradient/norm"] = shown.pop("grad_norm")
    for name in {name for row in result.log for name in row} - {"step"}:
        known = {row["step"]: row[name] for row in result.log if row.get(name) is not None}
        # Single precision is what an event file has.
        assert {event.step: event.value for event in shown.get(name, [])} == pytest.approx(known, rel=1e-6)
    assert {"ratio/mean", "clip/fraction", "entropy/mean", "update/refused"} <= set(shown)
    assert any(value is None for row in result.log for value in row.values())
    assert not warned


@pytest.mark.filterwarnings("ignore")
def test_a_shared_start_is_the_start(tmp_path: Path) -> None:
    needs("trl")
    warm = {"target": 0.02, "ceiling": 0.9, "check_every": 10, "learning_rate": 0.003}
    trainer = SMALL["trainer"] | {"max_steps": 2, "max_completion_length": 8}
    path = written(tmp_path, warm_start=warm, trainer=trainer)
    alone = run_finetune(path, out=tmp_path / "alone")

    # The start is another objective's; what comes after it does not matter.
    prepare_start(load_settings(written(tmp_path, warm_start=warm, trainer=trainer, objective="grpo")), tmp_path / "s")
    path = written(tmp_path, warm_start=warm, trainer=trainer)
    settings = load_settings(path)
    assert finished_run(settings, tmp_path / "shared") is None
    shared = run_finetune(settings, out=tmp_path / "shared", start=tmp_path / "s")
    timed = {"step_time"}
    assert [{key: row[key] for key in row if key not in timed} for row in shared.log] == [
        {key: row[key] for key in row if key not in timed} for row in alone.log
    ]
    assert shared.evaluation["before"]["unparsed"] < 1
    for phase in ("before", "after"):
        assert shared.evaluation[phase] == alone.evaluation[phase]
    known = finished_run(settings, tmp_path / "shared")
    assert known is not None
    assert known.evaluation == shared.evaluation

    other = load_settings(written(tmp_path, warm_start=warm, trainer=trainer | {"max_completion_length": 9}, seed=1))
    with pytest.raises(ConfigError, match="prepared with another seed, max_completion_length"):
        run_finetune(other, out=tmp_path / "other", start=tmp_path / "s")


@pytest.mark.filterwarnings("ignore")
def test_a_start_has_to_be_one(tmp_path: Path) -> None:
    needs("trl")
    path = written(tmp_path)
    with pytest.raises(ConfigError, match="holds no finished start"):
        run_finetune(path, out=tmp_path / "run", start=tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_refuses_to_write_over_a_run(whole: Path) -> None:
    with pytest.raises(RunExistsError, match="nothing was written"):
        run_finetune(whole / "small.yaml", out=whole / "run")


@pytest.mark.filterwarnings("ignore")
def test_a_run_of_an_older_version_is_known_again(whole: Path, tmp_path: Path) -> None:
    # A setting that did not exist then has its default.
    older = tmp_path / "run"
    shutil.copytree(whole / "run", older)
    described = yaml.safe_load((older / "configuration.yaml").read_text())
    del described["device"]
    (older / "configuration.yaml").write_text(yaml.safe_dump(described))
    settings = load_settings(whole / "small.yaml")
    assert finished_run(settings, older) is not None
    with pytest.raises(ConfigError, match=r"other settings \(device\)"):
        finished_run(dataclasses.replace(settings, device="cpu"), older)


@pytest.mark.filterwarnings("ignore")
def test_refuses_to_resume_with_other_settings(whole: Path, tmp_path: Path) -> None:
    path = written(tmp_path, objective="grpo", seed=5, record=True)
    with pytest.raises(ConfigError, match=r"other settings \(objective, seed\)"):
        run_finetune(path, resume=True, out=whole / "run")


@pytest.mark.filterwarnings("ignore")
def test_refuses_to_resume_nothing(tmp_path: Path) -> None:
    needs("trl")
    path = written(tmp_path)
    with pytest.raises(ConfigError, match="holds no run to resume"):
        run_finetune(path, resume=True, out=tmp_path / "run")


@pytest.mark.filterwarnings("ignore")
def test_a_setting_trl_does_not_know_is_one_sentence(tmp_path: Path) -> None:
    needs("trl")
    trainer = SMALL["trainer"] | {"learning_rat": 0.1}
    path = written(tmp_path, trainer=trainer)
    with pytest.raises(ConfigError, match=r"trainer has the unknown key 'learning_rat'.*did you mean 'learning_rate'"):
        run_finetune(path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")
def test_trainer_without_its_number_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("trl")
    with pytest.raises(ConfigError, match=r"trainer has the unknown key 'max_stepz'.*did you mean 'max_steps'\?"):
        load_settings(written(tmp_path, trainer={"max_stepz": 2}))
    # A name that is near and known is no typing error.
    for trainer, found in (({"save_steps": 2}, "save_steps"), ({}, "no key")):
        with pytest.raises(ConfigError, match=f"trainer lacks max_steps, .*; it has {found}$"):
            load_settings(written(tmp_path, trainer=trainer))
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ConfigError, match=r"trainer lacks max_steps, .*; it has max_stepz$"):
        load_settings(written(tmp_path, trainer={"max_stepz": 2}))


@pytest.mark.filterwarnings("ignore")
def test_a_hub_name_offline_is_one_sentence_soon(tmp_path: Path) -> None:
    needs("trl")
    for name, changes in (
        ("model 'Qwen/Qwen2.5-0.5B'", {"model": "Qwen/Qwen2.5-0.5B"}),
        ("data set 'openai/gsm8k'", {"test": {"source": "openai/gsm8k"}}),
    ):
        path = written(tmp_path, **changes)
        began = time.monotonic()
        with pytest.raises(ConfigError, match=f"{name}.*HF_HOME.*cpu-smoke"):
            run_finetune(path, out=tmp_path / "run")
        assert time.monotonic() - began < 5
        # Whoever has found a network tries again with the same command.
        assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("trl")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    path = written(tmp_path, device="cuda")
    with pytest.raises(ConfigError, match="PyTorch sees no GPU"):
        run_finetune(path, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


HUB_CONFIGURATIONS = ("qwen2.5-0.5b-gsm8k", "qwen2.5-1.5b-math")


def without_hub(name: str, folder: Path) -> FinetuneSettings:
    """A configuration for the hub as it is, but for names of the hub, vLLM and sizes."""
    small = load_causal_lm("qwen2-0.1m")
    small.model.save_pretrained(folder / "model")
    small.tokenizer.save_pretrained(folder / "model")
    problems = [{"question": f"What is {a} + 3?", "answer": f"{a} + 3 = {a + 3}\n#### {a + 3}"} for a in range(8)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems), encoding="utf-8")
    given = load_settings(name)
    here = {"source": str(folder / "problems.jsonl"), "split": None}
    trainer = {key: value for key, value in given.trainer.items() if "vllm" not in key}
    trainer |= {"max_steps": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    trainer |= {"steps_per_generation": 4, "num_generations": 4, "max_completion_length": 12, "report_to": []}
    return dataclasses.replace(
        given,
        model=str(folder / "model"),
        train=dataclasses.replace(given.train, **here),
        test=dataclasses.replace(given.test, **here, limit=2),
        overlong_cache=8,
        trainer=trainer,
        evaluation=dataclasses.replace(given.evaluation, samples=2),
        device="cpu",
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HUB_CONFIGURATIONS)
def test_a_correction_without_another_sampler_is_refused_before_anything_is_made(name: str, tmp_path: Path) -> None:
    needs("trl")
    settings = without_hub(name, tmp_path)
    with pytest.raises(ConfigError, match="corrects for a sampler with other probabilities"):
        run_finetune(settings, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HUB_CONFIGURATIONS)
def test_a_configuration_for_the_hub_runs_on_what_is_here(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("trl")
    prompts: list[str] = []

    def sample(given: list[Any], trainer: Any) -> dict[str, Any]:
        """In place of vLLM: responses of different lengths, and probabilities that are not the trainer's."""
        tokenizer = trainer.processing_class
        chat = {"add_generation_prompt": True, "tokenize": False}
        texts = [value if isinstance(value, str) else tokenizer.apply_chat_template(value, **chat) for value in given]
        prompts.extend(texts)
        lengths = [1 + index % 12 for index in range(len(texts))]
        return {
            "prompt_ids": [tokenizer(text, add_special_tokens=False).input_ids for text in texts],
            "completion_ids": [[70 + index for index in range(length)] for length in lengths],
            "logprobs": [[-5.0] * length for length in lengths],
        }

    check, trainer = engine.check_settings, engine.ObjectiveTrainer
    monkeypatch.setattr(engine, "check_settings", lambda objective, args, _=None: check(objective, args, sample))
    monkeypatch.setattr(engine, "ObjectiveTrainer", functools.partial(trainer, rollout_func=sample))
    settings = without_hub(name, tmp_path)
    result = run_finetune(settings, out=tmp_path / "run")

    template = {"chat": "<|im_start|>user", "boxed": "boxed"}["chat" if settings.train.chat else "boxed"]
    assert all(template in text for text in prompts)
    assert [row["update/refused"] for row in result.log] == [0, 0]
    # The lengths differ within a group, and with them the soft punishment. Two steps share the rollout.
    assert result.log[0]["reward/mean"] < 0
    for row in result.log:
        assert row["gradient/norm"] > 0
        # The model is random over 259 tokens: a weight of some e^(5 - 5.56), not the 1 of a common sampler.
        assert 0.3 < row["sampler/weight_mean"] < 0.9
    assert result.evaluation["after"]["k"] == 2
    assert write_finetune_report(result.folder).exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["smollm2-sums", "smollm2-sums-lora", "smollm2-gsm8k-supervised-then-rl"])
def test_a_configuration_of_a_packaged_model_does_two_steps_with_a_tiny_one(name: str, tmp_path: Path) -> None:
    needs("trl")
    needs("peft")
    given = load_settings(name)
    small = {"max_steps": 2, "per_device_train_batch_size": 8, "num_generations": 4, "save_steps": 2}
    small |= {"steps_per_generation": 2, "max_completion_length": min(given.trainer["max_completion_length"], 24)}
    changes: dict[str, Any] = {"model": "qwen2-0.1m", "trainer": given.trainer | small, "device": "cpu"}
    if given.warm_start is not None:
        changes["warm_start"] = dataclasses.replace(given.warm_start, target=0.001, max_steps=60, check_every=20)
        changes["overlong_cache"] = 8
        rows = [{"question": f"{a}", "answer": f"#### {a}"} for a in range(8)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for task in ("train", "test"):
            changes[task] = dataclasses.replace(getattr(given, task), source=str(tmp_path / "rows.jsonl"), limit=None)
        changes["warm_start"] = dataclasses.replace(changes["warm_start"], ceiling=1.0, learning_rate=3e-3, probes=None)
    result = run_finetune(dataclasses.replace(given, **changes), out=tmp_path / "run")
    assert [row["update/refused"] for row in result.log] == [0, 0]
    assert ("beyond" in result.evaluation) == (given.beyond is not None)
    assert (result.folder / "model" / "adapter_config.json").exists() == (given.lora is not None)


@pytest.mark.filterwarnings("ignore")
def test_trains_an_adapter(tmp_path: Path) -> None:
    needs("peft")
    needs("trl")
    settings = dataclasses.replace(
        load_settings(written(tmp_path)),
        lora={"r": 2, "target_modules": ["q_proj"]},
        trainer=SMALL["trainer"] | {"max_steps": 1},
    )
    result = run_finetune(settings, out=tmp_path / "run")
    assert (result.folder / "model" / "adapter_config.json").exists()
    assert len(result.summary()) == 6
    again = run_finetune(settings, out=tmp_path / "run", resume=True)
    assert again.evaluation["after"] == result.evaluation["after"]
