from __future__ import annotations

import pytest

from analysis.diagnose.log import read_log


def written(tmp_path, text):
    path = tmp_path / "export"
    path.write_text(text)
    return path


def test_a_run_of_a_tracker(tmp_path):
    header = "_step,_timestamp,train/global_step,train/reward,train/entropy"
    text = f"{header}\n0,1.0,10,0.5,\n1,2.0,20,0.6,0.3\n2,3.0,30,NaN,0.2\n"
    log = read_log(written(tmp_path, text))
    assert log.series["reward/mean"].steps.tolist() == [10, 20, 30]
    assert log.series["reward/mean"].bad.tolist() == [0, 0, 1]
    # An empty cell is a value that was not logged.
    assert log.series["entropy/mean"].steps.tolist() == [20, 30]


def test_a_chart_of_wandb_has_the_runs_name_and_extremes(tmp_path):
    header = '"Step","my-run - train/reward","my-run - train/reward__MIN","my-run - train/reward__MAX"'
    text = f'{header}\n"1","0.5","0.1","0.9"\n"2","0.6","0.1","0.9"\n'
    log = read_log(written(tmp_path, text))
    assert log.series["reward/mean"].values.tolist() == [0.5, 0.6]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path, separator):
    text = "\n".join(
        separator.join(row) for row in [("step", "reward", "entropy"), ("1", "0.5", "0.1"), ("2", "0.6", "0.2")]
    )
    assert read_log(written(tmp_path, text)).series["reward/mean"].values.tolist() == [0.5, 0.6]


def test_rows_of_another_width_are_left_out(tmp_path):
    text = "step,reward,entropy\n1,0.5,0.1\n2,0.6\n3,0.7,0.1,9\n4,0.8,0.1\n"
    log = read_log(written(tmp_path, text))
    assert log.series["reward/mean"].steps.tolist() == [1, 4]
    assert "2 lines are no row of metrics and left out" in log.notes
