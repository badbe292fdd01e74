from __future__ import annotations

import pandas as pd
import pytest

from analysis.diagnose.log import read_log
from testbed.errors import ConfigError


def test_missing_cells_are_not_logged(tmp_path):
    path = tmp_path / "history"
    frame = pd.DataFrame(
        {"_step": [0, 1, 2], "reward": [0.5, None, 0.7], "entropy": [0.1, 0.2, 0.3], "name": ["a", "b", "c"]}
    )
    frame.to_parquet(path)
    log = read_log(path)
    assert log.series["reward/mean"].steps.tolist() == [0, 2]
    assert log.series["reward/mean"].values.tolist() == [0.5, 0.7]


def test_a_damaged_file_is_one_sentence(tmp_path):
    path = tmp_path / "history.parquet"
    pd.DataFrame({"_step": [0, 1], "reward": [0.5, 0.6]}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConfigError, match="damaged Parquet file"):
        read_log(path)
