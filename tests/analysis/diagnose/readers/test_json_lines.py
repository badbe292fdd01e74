from __future__ import annotations

import json

import numpy as np
import pytest

from analysis.diagnose.log import read_log
from analysis.diagnose.reader import find_reader
from analysis.diagnose.readers import json_lines
from analysis.diagnose.series import block_of_rows
from analysis.diagnose.source import Source


def written(tmp_path, text, name="any.thing"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_ms_swift_has_its_step_inside_a_text(tmp_path):
    rows = [
        {"reward": 0.1 * i, "reward_std": 0.2, "global_step/max_steps": f"{5 * i}/100", "entropy/mean": 0.5}
        for i in (1, 2)
    ]
    log = read_log(written(tmp_path, "\n".join(map(json.dumps, rows))))
    assert log.engine.name == "ms-swift"
    assert log.series["reward/mean"].steps.tolist() == [5, 10]
    assert "reward/group_std" in log.series


def test_verl_nests_its_numbers_and_writes_null_for_what_is_not_finite(tmp_path):
    rows = [
        {"step": i, "data": {"actor/grad_norm": None if i == 5 else 0.3, "critic/score/mean": 0.5}} for i in range(10)
    ]
    log = read_log(written(tmp_path, "\n".join(map(json.dumps, rows))))
    assert log.engine.name == "verl"
    assert log.series["gradient/norm"].bad.tolist() == [0] * 5 + [1] + [0] * 4


def test_a_null_of_a_table_joined_from_several_is_a_missing_value(tmp_path):
    keys = ("reward", "loss", "kl", "entropy", "eval_reward", "eval_loss")
    rows = []
    for i in range(40):
        rows.append({"step": i} | dict.fromkeys(keys, None) | {"reward": 0.5, "loss": 0.1, "kl": 0.01, "entropy": 0.4})
        if i % 10 == 9:
            rows.append({"step": i} | dict.fromkeys(keys, None) | {"eval_reward": 0.5, "eval_loss": 0.1})
    log = read_log(written(tmp_path, "\n".join(map(json.dumps, rows))))
    assert log.series["loss"].bad.sum() == 0
    assert len(log.series["evaluation/reward"]) == 4


def test_nulls_to_the_end_are_no_numbers(tmp_path):
    rows = [{"step": i, "reward": 0.5, "entropy": 0.4, "loss": 0.1 if i < 10 else None} for i in range(40)]
    assert read_log(written(tmp_path, "\n".join(map(json.dumps, rows)))).series["loss"].bad.sum() == 30


def test_this_project_writes_null_for_what_has_no_data(tmp_path):
    rows = [
        {"step": i, "reward/mean": 0.5, "clip/fraction": 0.0, "entropy/mean": 0.4 if i % 2 else None} for i in range(9)
    ]
    log = read_log(written(tmp_path, "\n".join(map(json.dumps, rows))))
    assert log.engine.name == "testbed"
    assert log.series["entropy/mean"].bad.sum() == 0


def test_rows_of_several_parts_of_a_program_share_a_step(tmp_path):
    rows = [
        {"step": 1, "optim/grad_norm": 0.5, "time": 100.0},
        {"step": 1, "entropy/all/mean": 0.4, "time": 101.0},
        {"step": 2, "optim/grad_norm": 0.6, "time": 160.0},
        {"step": 2, "entropy/all/mean": 0.3, "time": 161.0},
    ]
    log = read_log(written(tmp_path, "\n".join(map(json.dumps, rows))))
    assert log.engine.name == "prime-rl"
    assert log.series["entropy/mean"].steps.tolist() == [1, 2]


def test_trackio_keeps_its_numbers_as_text_in_one_field(tmp_path):
    rows = [{"step": i, "run_name": "a", "metrics": json.dumps({"reward": 0.1 * i, "entropy": 0.5})} for i in range(5)]
    log = read_log(written(tmp_path, "\n".join(map(json.dumps, rows))))
    assert log.series["reward/mean"].values == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_the_trainers_step_counts_and_not_the_trackers(tmp_path):
    rows = [
        {"_step": 3 * i, "train/global_step": 10 * i, "train/reward": 0.1, "train/entropy": 0.4} for i in range(1, 4)
    ]
    rows.insert(2, {"_step": 7, "train/entropy": 0.9})
    series = read_log(written(tmp_path, "\n".join(map(json.dumps, rows)))).series["entropy/mean"]
    assert series.steps.tolist() == [10, 20, 30]
    # The row without the trainer's step belongs to step 20 and comes later, so it counts.
    assert series.values.tolist() == [0.4, 0.9, 0.4]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_encodings(tmp_path, encoding):
    text = "\r\n".join(json.dumps({"step": i, "reward": 0.5, "entropy": 0.3}) for i in range(5))
    assert len(read_log(written(tmp_path, text.encode(encoding))).series["reward/mean"]) == 5


def test_lines_that_are_no_rows_are_counted(tmp_path):
    rows = [json.dumps({"step": step, "reward": 0.5, "entropy": 1}) for step in (1, 2)]
    text = f'starting up\n{rows[0]}\nnot json {{\n{rows[1]}\n{{"ste'
    log = read_log(written(tmp_path, text))
    assert len(log.series["reward/mean"]) == 2
    assert "3 lines are no row of metrics and left out" in log.notes


def test_the_fast_way_gives_what_the_slow_one_gives(tmp_path):
    draw = np.random.default_rng(0)
    rows = [
        {"step": i, "data": {"a": float(draw.normal()), "b/c": i, **({"d": 2.5} if i % 3 else {})}, "e": {"f": 1e-300}}
        for i in range(200)
    ]
    text = "\n".join(map(json.dumps, rows)).encode()
    fast, slow = json_lines._by_columns(text), block_of_rows(rows)
    assert fast is not None
    assert fast.columns.keys() == slow.columns.keys()
    for key, (at, values) in slow.columns.items():
        assert fast.columns[key][0].tolist() == at.tolist()
        assert fast.columns[key][1].tolist() == values.tolist()


def test_it_is_told_by_its_content(tmp_path):
    assert find_reader(Source(written(tmp_path, '{"step": 1}\n{"step": 2}\n', "a.csv"))).name == "json-lines"
