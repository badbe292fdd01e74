from __future__ import annotations

import json

from analysis.diagnose.log import read_log
from analysis.diagnose.reader import find_reader
from analysis.diagnose.source import Source


def test_rows_of_training_and_evaluation_are_interleaved(trainer_state):
    rows = [
        {"step": 1, "loss": 0.0, "reward": 0.1, "entropy": 0.5},
        {"step": 1, "eval_reward": 0.2, "eval_loss": 0.0},
        {"step": 2, "loss": 0.0, "reward": 0.3, "entropy": 0.5},
        {"step": 2, "train_runtime": 12.0, "train_loss": 0.0},
    ]
    log = read_log(trainer_state(rows))
    assert log.engine.name == "trl"
    assert log.series["reward/mean"].values.tolist() == [0.1, 0.3]
    assert log.series["evaluation/reward"].steps.tolist() == [1]


def test_a_step_logged_twice_after_a_resume_counts_once(trainer_state):
    rows = [{"step": step, "reward": step / 10, "entropy": 0.5} for step in (1, 2, 3, 4)]
    rows += [{"step": step, "reward": 9.0, "entropy": 0.5} for step in (3, 4, 5)]
    log = read_log(trainer_state(rows))
    assert log.series["reward/mean"].steps.tolist() == [1, 2, 3, 4, 5]
    assert log.series["reward/mean"].values.tolist() == [0.1, 0.2, 9.0, 9.0, 9.0]
    assert any("resume" in note for note in log.notes)


def test_a_file_cut_off_in_the_middle_gives_what_stands_before(trainer_state):
    path = trainer_state([{"step": step, "reward": 0.5, "entropy": 0.5} for step in range(100)])
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    assert 30 < len(read_log(path).series["reward/mean"]) < 60


def test_numbers_written_as_text_are_numbers(trainer_state):
    log = read_log(trainer_state([{"step": 1, "reward": "0.25", "grad_norm": "nan", "entropy": "1e-3"}]))
    assert log.series["reward/mean"].values.tolist() == [0.25]
    assert log.series["gradient/norm"].bad.tolist() == [1]


def test_not_a_number_as_python_writes_it(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(
        '{"log_history": [{"step": 1, "grad_norm": NaN, "reward": 0.5}, {"step": 2, "grad_norm": Infinity}]}'
    )
    assert read_log(path).series["gradient/norm"].bad.tolist() == [1, 1]


def test_it_is_told_by_its_content(tmp_path):
    path = tmp_path / "renamed.log"
    path.write_text(json.dumps({"global_step": 3, "log_history": [{"step": 1, "reward": 1}]}, indent=2))
    assert find_reader(Source(path)).name == "trainer-state"


def test_the_last_state_of_a_folder_counts(tmp_path):
    for step in (50, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        rows = [{"step": at, "reward": 0.5, "entropy": 0.4} for at in range(step)]
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": rows}))
    assert len(read_log(tmp_path).series["reward/mean"]) == 100
