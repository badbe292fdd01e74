from __future__ import annotations

import numpy as np


def test_one_refused_update_is_a_warning(findings):
    refused = np.zeros(100)
    refused[40] = 1
    (found,) = findings("refused-steps", {"update/refused": refused}, engine="testbed")
    assert (found.level, found.since) == ("warning", 41)


def test_a_tenth_is_a_problem(findings):
    refused = np.zeros(100)
    refused[50::5] = 1
    (found,) = findings("refused-steps", {"update/refused": refused}, engine="testbed")
    assert (found.level, found.since) == ("problem", 51)


def test_none_is_fine(findings):
    assert findings("refused-steps", {"update/refused": np.zeros(100)}, engine="testbed") == []
