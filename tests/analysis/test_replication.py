"""The record: each verdict is the common one of several master seeds, and belongs to the claim as it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.claims import ExactClaim, StatisticalClaim, claim_names, get_claim
from analysis.judging.run import CHOOSING_SEEDS
from analysis.replication import RECORD, agreed, compare_master_seeds, extended, replication_page
from testbed.errors import ConfigError


def results(folder: Path, seed: int, seeds: int | None = None, **verdicts: str) -> Path:
    folder.mkdir()
    claims = [
        {
            "id": f"a/{name}",
            "verdict": verdict,
            "estimate": 0.5,
            "interval": [0.25, 0.75],
            "protocol_hash": f"{seed}",
            "falsifier": {"verdict": "refuted"},
        }
        for name, verdict in verdicts.items()
    ]
    content = {"run": {"seed": seed, "seeds": seeds}, "claims": claims}
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_the_record_is_the_common_verdict_or_inconclusive(tmp_path: Path) -> None:
    assert agreed(["reproduced"] * 3) == "reproduced"
    assert agreed(["reproduced", "reproduced", "inconclusive"]) == "inconclusive"
    record = compare_master_seeds(
        [
            results(tmp_path / "one", 1, x="reproduced", y="refuted"),
            results(tmp_path / "two", 2, x="reproduced", y="inconclusive"),
        ]
    )
    page = replication_page(record)
    assert "**1 of 2 verdicts are the same under all master seeds of their claim.**" in page
    assert "On record: 1 inconclusive, 1 reproduced." in page
    assert "Not the same: `a/y`." in page
    assert "| `a/y` | **inconclusive** | 1: refuted 0.5 [0.25, 0.75]<br>2: inconclusive 0.5 [0.25, 0.75] |" in page
    assert "one master seed only" not in page


def test_a_claim_judged_once_is_said() -> None:
    row = {"seeds": [1], "verdicts": ["refuted"], "falsifiers": ["refuted"], "estimates": [None], "intervals": [None]}
    page = replication_page({"a/x": row})
    assert "0 of 0 verdicts" in page
    assert "Judged with one master seed only: `a/x`." in page
    assert "Not judged under these seeds at all: " in page


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"seed": 1, "x": "refuted"}, r"master seeds of the runs are \[1, 1\]"),
        ({"seed": 2, "y": "refuted"}, "differ in the claims a/x, a/y"),
        ({"seed": 2, "seeds": 8, "x": "refuted"}, "gave every claim 8 seeds"),
    ],
)
def test_runs_that_are_no_repetition_are_refused(tmp_path: Path, second: dict[str, Any], message: str) -> None:
    folders = [results(tmp_path / "one", 1, x="refuted"), results(tmp_path / "two", **second)]
    with pytest.raises(ConfigError, match=message):
        compare_master_seeds(folders)


# -- what is on record ---------------------------------------------------------------------------------------------

ON_RECORD = json.loads(RECORD.read_text(encoding="utf-8"))


def test_the_record_is_of_claims_under_master_seeds_that_chose_nothing() -> None:
    assert set(ON_RECORD) <= set(claim_names())
    for row in ON_RECORD.values():
        assert len(set(row["seeds"])) == len(row["seeds"])
        assert not any(seed in chosen for seed in row["seeds"] for chosen in CHOOSING_SEEDS)


@pytest.mark.parametrize("name", ON_RECORD)
def test_a_recorded_verdict_is_the_one_all_master_seeds_gave(name: str) -> None:
    assert get_claim(name).recorded == agreed(ON_RECORD[name]["verdicts"])


@pytest.mark.parametrize("name", ON_RECORD)
def test_every_falsifier_failed(name: str) -> None:
    assert "reproduced" not in ON_RECORD[name]["falsifiers"]


@pytest.mark.parametrize("name", ON_RECORD)
def test_the_record_is_of_the_claim_as_it_stands(name: str) -> None:
    claim, row = get_claim(name), ON_RECORD[name]
    if isinstance(claim, ExactClaim):
        # Its measurement is run by the tests themselves.
        return
    assert isinstance(claim, StatisticalClaim)
    assert row["protocols"] == [claim.protocol_hash(claim.seeds, seed) for seed in row["seeds"]]


def test_the_page_names_every_claim_that_was_not_repeated() -> None:
    page = replication_page(ON_RECORD)
    for name in claim_names():
        if name not in ON_RECORD:
            assert f"`{name}`" in page.partition("Not judged under these seeds at all")[2]


def test_a_master_seed_that_comes_again_replaces_its_verdict() -> None:
    other = {"seeds": [1], "verdicts": ["refuted"]}
    known = {"a/b": {"seeds": [1, 2], "verdicts": ["refuted", "refuted"]}, "a/c": other}
    new = {"a/b": {"seeds": [2, 3], "verdicts": ["reproduced", "inconclusive"]}}
    assert extended(known, new) == {
        "a/b": {"seeds": [1, 2, 3], "verdicts": ["refuted", "reproduced", "inconclusive"]},
        "a/c": other,
    }
    assert known["a/b"]["seeds"] == [1, 2], "the record handed in is not changed"
