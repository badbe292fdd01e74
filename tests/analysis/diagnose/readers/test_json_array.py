from __future__ import annotations

from analysis.diagnose.log import read_log


def test_an_array_of_rows(tmp_path):
    path = tmp_path / "history.json"
    path.write_text('[\n {"step": 1, "reward": 0.5, "entropy": 0.3},\n {"step": 2, "reward": 0.6}, 7\n]')
    log = read_log(path)
    assert log.series["reward/mean"].values.tolist() == [0.5, 0.6]
    assert "1 line is no row of metrics and left out" in log.notes
