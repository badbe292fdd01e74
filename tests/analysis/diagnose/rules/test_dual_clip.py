from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize(("share", "level"), [(1e-4, None), (0.02, "warning"), (0.2, "problem")])
def test_the_level_follows_the_share(findings, share, level):
    found = findings("dual-clip", {"clip/ceiling_fraction": np.full(20, share)})
    assert [item.level for item in found] == ([] if level is None else [level])


def test_it_is_said_not_to_be_the_lower_bound(findings):
    (found,) = findings("dual-clip", {"clip/ceiling_fraction": np.full(20, 0.2)})
    assert "not the share at the lower bound" in found.statement


def test_the_share_at_the_lower_bound_is_another(findings):
    assert findings("dual-clip", {"clip/low_fraction": np.full(20, 0.2)}) == []
