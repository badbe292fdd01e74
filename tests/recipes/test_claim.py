"""The recipe for a claim, followed: a statement and its claim in one file, a test in another."""

from __future__ import annotations

import json
from typing import Any

import pytest

from analysis.ledger import entries

CLAIM = '''"""{number}. A larger step learns sooner."""

from __future__ import annotations

from analysis.claims.dcpo import PAPER
from analysis.judging.claim import Falsifier, StatisticalClaim, register
from analysis.judging.estimands import difference, final
from analysis.ledger.entry import Entry, file_entry

file_entry(
    Entry(
        number="{number}",
        source=PAPER,
        statement="A larger learning rate ends with more reward.",
        status="toy",
        reason="Only this one environment is asked.",
    )
)

FAST, SLOW = {{"objective": "dcpo", "learning_rate": 4.0}}, {{"objective": "dcpo", "learning_rate": 0.01}}
register(
    StatisticalClaim(
        id="dcpo/larger-step",
        paper=PAPER,
        judges=("{number}", "M8"),
        title="A larger step learns sooner",
        source="Nobody, section 1",
        statement="The larger learning rate ends with at least 0.01 more reward.",
        scope="RareArm-v1 with eight arms, six rollouts.",
        unit="reward",
        setting={{
            "env": "RareArm-v1(arms=8,contexts=2,rare_probability=0.1)",
            "steps": 6,
            "group_size": 8,
            "epochs": 3,
        }},
        arms={{"fast": FAST, "slow": SLOW}},
        estimand=difference(final("exact/return"), of="fast", minus="slow"),
        direction="greater",
        threshold=0.01,
        falsifier=Falsifier("Both arms take the small step.", {{"fast": SLOW}}),
        recorded="reproduced",
        seeds=20,
    )
)
'''
TEST = '''"""The estimand of a larger step, by hand."""

from __future__ import annotations

from analysis.claims import StatisticalClaim, get_claim
from tests.analysis.judging.small import trajectories


def test_the_fast_arm_is_the_first_of_the_difference() -> None:
    claim = get_claim("dcpo/larger-step")
    assert isinstance(claim, StatisticalClaim)
    runs = {
        "fast": trajectories(exact__return=[[0.0, 0.0], [0.75, 0.5]]),
        "slow": trajectories(exact__return=[[0.0, 0.0], [0.25, 0.5]]),
    }
    # After the last step: 0.75 - 0.25 and 0.5 - 0.5.
    assert claim.estimand.compute(runs).tolist() == [0.5, 0.0]
'''


@pytest.mark.slow
def test_a_claim_is_two_new_files(tree: Any) -> None:
    number = f"D{1 + sum(row.number[0] == 'D' for row in entries())}"
    tree.add(f"analysis/claims/dcpo/{number.lower()}_larger_step.py", CLAIM.format(number=number))
    tree.add(f"tests/analysis/claims/dcpo/test_{number.lower()}_larger_step.py", TEST)

    verified = tree.run("testbed", "verify", "dcpo/larger-step", "--jobs", "1", "--out", "../run")
    assert "1 reproduced" in verified
    ledger = json.loads(tree.run("testbed", "claims", "--json"))["ledger"]
    rows = {row["number"]: row["verdicts"] for row in ledger}
    assert rows[number] == {"dcpo/larger-step": "reproduced"}
    assert "dcpo/larger-step" in rows["M8"]

    tree.run("analysis.documents")
    assert f"| {number} |" in (tree.folder / "docs/claims.md").read_text(encoding="utf-8")
    tree.test(f"tests/analysis/claims/dcpo/test_{number.lower()}_larger_step.py")
    tree.test("tests/analysis/test_ledger.py", "tests/analysis/test_documents.py", "tests/analysis/test_replication.py")
    tree.test(
        "tests/analysis/claims/test_collection.py",
        "tests/analysis/test_verify.py",
        "-k",
        f"{number.lower()}_ or larger or row or paper or tier or tuning",
    )
    assert tree.edited() == set()
