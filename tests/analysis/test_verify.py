from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.claims import StatisticalClaim, claim_names, get_claim
from analysis.comparison import compare, summarise
from analysis.verify import select, verify
from testbed.errors import ConfigError, RunExistsError, UnknownNameError
from testbed.simulation import simulate

EXACT = ["theory/sapo-gate", "ce-gppo/zero-betas-are-ppo"]


def test_select_by_claim_paper_and_tier() -> None:
    assert select(["theory/sapo-gate"], "quick") == ["theory/sapo-gate"]
    assert select(["dcpo", "dcpo/token-clip-ratio"], "quick") == select(["dcpo"], "quick")
    quick, full, networks = (set(select([], tier)) for tier in ("quick", "full", "networks"))
    assert quick < full < networks == set(claim_names())


def test_the_full_tier_is_tabular_and_only_networks_are_left_to_the_last() -> None:
    for name in claim_names():
        claim = get_claim(name)
        if isinstance(claim, StatisticalClaim):
            arms = [{**claim.setting, **arm} for arm in claim.arms.values()]
            trained = {str(arm.get("model", "tabular")).partition("(")[0] for arm in arms}
            assert (claim.tier == "networks") == bool(trained & {"transformer", "moe"})


def test_select_rejects_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'theory/sapo-gate'"):
        select(["theory/sapo-gat"], "quick")


def test_select_rejects_unknown_tiers() -> None:
    with pytest.raises(ConfigError, match="tier is 'slow'; expected one of quick, full"):
        select([], "slow")


def test_verify_writes_results_and_report(tmp_path: Path) -> None:
    done = verify(EXACT, out=tmp_path / "run", jobs=1, command="testbed verify")
    assert not done.changed
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert [claim["id"] for claim in results["claims"]] == EXACT
    assert results["run"]["command"] == "testbed verify"
    assert results["run"]["versions"]["torch"]
    for key in ("paper", "source", "statement", "tier", "scope", "verdict", "recorded", "estimate", "interval", "unit"):
        assert key in results["claims"][0]
    page = done.report.read_text(encoding="utf-8")
    assert "ce-gppo/zero-betas-are-ppo" in page


def test_verify_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunExistsError, match="nothing was written"):
        verify(EXACT, out=tmp_path, jobs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_verdicts_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    names = [*EXACT, "theory/on-policy-identity"]
    one, two = (verify(names, out=tmp_path / str(jobs), jobs=jobs) for jobs in (1, 2))
    assert [item.estimate for item in one.results] == [item.estimate for item in two.results]


def test_compare_writes_curves_table_and_run(tmp_path: Path) -> None:
    done = compare(
        ["grpo", "dapo"],
        "rare-arm(arms=6,contexts=2)",
        out=tmp_path / "c",
        seeds=6,
        steps=4,
        group_size=4,
        learning_rate=4.0,
    )
    names = {path.name for path in done.folder.iterdir()}
    assert names == {"curves.png", "curves.svg", "run", "summary.csv"}
    assert done.summary.index.tolist() == ["grpo", "dapo"]
    regret = done.run.final().groupby("objective")["exact/regret"].mean()
    assert done.summary.loc["dapo", ("final exact/regret", "mean")] == pytest.approx(regret["dapo"], rel=1e-12)
    low, high = (done.summary.loc["dapo", ("final exact/regret", end)] for end in ("low", "high"))
    assert low < regret["dapo"] < high


def test_compare_leaves_nothing_behind_on_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        compare(["grop"], "rare-arm", out=tmp_path / "c", seeds=2)
    assert not (tmp_path / "c").exists()


def test_summary_without_enough_seeds_has_no_interval() -> None:
    run = simulate("reinforce", "rare-arm(arms=6,contexts=2)", seeds=3, steps=2, group_size=4)
    summary = summarise(run)
    assert pd.isna(summary.loc["reinforce", ("final exact/regret", "low")])
    assert pd.isna(summary.loc["reinforce", ("mean clip/fraction", "mean")]), "REINFORCE has no clip: missing, not 0"
