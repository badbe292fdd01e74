"""What holds of every claim, whichever they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analysis import claims
from analysis.claims import ExactClaim, StatisticalClaim, claim_names, get_claim, run_claim
from analysis.judging.run import CHOOSING_SEEDS
from analysis.ledger import entries
from testbed.diagnostics import GLOSSARY

STATEMENTS = [
    path for path in sorted(Path(claims.__file__).parent.glob("*/*.py")) if re.fullmatch(r"[a-z]\d+_\w+", path.stem)
]


@pytest.mark.parametrize("path", STATEMENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_is_a_statement(path: Path) -> None:
    """It files its row of the ledger, unless another file has, and claims that judge that statement first."""
    number, written = path.stem.partition("_")[0].upper(), path.read_text(encoding="utf-8")
    assert written.startswith(f'"""{number}. ')
    assert re.findall(r'Entry\(\s*number="(\w+)"', written) in ([], [number])
    assert set(re.findall(r'judges=\(\s*"(\w+)"', written)) <= {number}


def test_every_row_of_the_ledger_has_its_file() -> None:
    assert {path.stem.partition("_")[0].upper() for path in STATEMENTS} == {row.number for row in entries()}


@pytest.mark.parametrize("paper", sorted({get_claim(name).paper for name in claim_names()}))
def test_a_paper_is_named_by_the_ids_of_its_claims(paper: str) -> None:
    names = [name for name in claim_names() if get_claim(name).paper == paper]
    assert {name.partition("/")[0] for name in names} == {paper.lower()}
    assert len(names) >= 3


@pytest.mark.parametrize("name", claim_names())
def test_claims_say_what_a_reader_needs(name: str) -> None:
    claim = get_claim(name)
    assert claim.statement.endswith(".")
    assert claim.scope.endswith(".")
    assert claim.falsifier.description.endswith(".")
    if isinstance(claim, StatisticalClaim):
        assert claim.seeds >= 20
        assert not claim.why_no_null or claim.why_no_null.endswith(".")
        assert set(claim.curves) <= set(GLOSSARY)
        assert {metric for _, metric in claim.acts} <= set(GLOSSARY)


@pytest.mark.parametrize("name", [n for n in claim_names() if isinstance(get_claim(n), ExactClaim)])
def test_exact_claims_hold_and_their_falsifiers_fail(name: str) -> None:
    verdict = run_claim(name)
    assert verdict.verdict == verdict.claim.recorded, verdict.reason
    assert verdict.falsifier.verdict == "refuted"


def test_some_claims_are_on_record_as_refuted() -> None:
    assert any(get_claim(name).recorded == "refuted" for name in claim_names())


STATISTICAL = [claim for claim in map(get_claim, claim_names()) if isinstance(claim, StatisticalClaim)]


@pytest.mark.parametrize("claim", STATISTICAL, ids=lambda claim: claim.id)
def test_a_claim_about_entropy_has_its_null_reward_arm(claim: StatisticalClaim) -> None:
    if "entropy" not in claim.estimand.description or claim.why_no_null:
        return
    settings = [str({**claim.setting, **arm}["env"]) for arm in claim.arms.values()]
    if all(env.startswith("NullBandit") for env in settings):
        return
    assert claim.null is not None
    assert str({**claim.setting, **claim.null.setting}["env"]).startswith("NullBandit")


@pytest.mark.parametrize("claim", STATISTICAL, ids=lambda claim: claim.id)
def test_an_entropy_at_equal_reward_is_also_read_at_equal_divergence(claim: StatisticalClaim) -> None:
    if "exact/entropy where exact/return" not in claim.estimand.description or claim.why_no_null:
        return
    assert any("exact/entropy where exact/kl_cumulative" in control.description for control in claim.controls)


def test_tuning_seeds_are_among_those_that_never_judge() -> None:
    for claim in STATISTICAL:
        if claim.tuning is not None:
            assert any(claim.tuning.master_seed in reserved for reserved in CHOOSING_SEEDS)
