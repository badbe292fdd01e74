from __future__ import annotations

import dataclasses

import pytest

from analysis.claims import ClaimResult, run_claim
from analysis.verify import adjusted_p_values


@pytest.fixture(scope="module")
def template() -> ClaimResult:
    return run_claim("theory/sapo-gate")


def test_holm_inside_a_paper_and_benjamini_hochberg_over_all(template: ClaimResult) -> None:
    def verdict(name: str, paper: str, p_value: float | None) -> ClaimResult:
        claim = dataclasses.replace(template.claim, id=name, paper=paper)
        return dataclasses.replace(template, claim=claim, p_value=p_value)

    rows = [
        verdict("a/1", "A", 0.01),
        verdict("a/2", "A", 0.04),
        verdict("b/1", "B", 0.03),
        verdict("b/exact", "B", None),
    ]
    adjusted = adjusted_p_values(rows)
    # Holm in A: 2 · 0.01, then max(0.02, 1 · 0.04); in B a family of one.
    assert [adjusted[name]["holm"] for name in ("a/1", "a/2", "b/1")] == pytest.approx([0.02, 0.04, 0.03], rel=1e-12)
    # Benjamini-Hochberg over three: 3/1 · 0.01, 3/2 · 0.03 capped by the next, 3/3 · 0.04.
    expected = [0.03, 0.04, 0.04]
    assert [adjusted[name]["benjamini_hochberg"] for name in ("a/1", "a/2", "b/1")] == pytest.approx(
        expected, rel=1e-12
    )
    assert "b/exact" not in adjusted


def test_no_statistical_claim_no_adjustment(template: ClaimResult) -> None:
    assert adjusted_p_values([template]) == {}
