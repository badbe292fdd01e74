"""The ledger is complete, and every row can be followed to what it cites."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from analysis.claims import claim_names, get_claim
from analysis.judging.claim import StatisticalClaim
from analysis.ledger import STATUSES, Entry, entries, ledger_page
from testbed.errors import ConfigError, UnknownNameError
from testbed.objectives import objective_names

# How many statements each source numbers: papers' claims, then mechanisms and exact statements.
LENGTHS = {"D": 9, "E": 5, "C": 9, "B": 9, "S": 5, "X": 5, "M": 16, "T": 12}
ROWS = {entry.number: entry for entry in entries()}
CONFIGURATIONS = {
    item.name.removesuffix(".yaml")
    for item in resources.files("testbed").joinpath("finetune_configs").iterdir()
    if item.name.endswith(".yaml")
}
NUMBERS = sorted(ROWS)


@pytest.mark.parametrize("letter", LENGTHS)
def test_no_numbered_statement_is_absent(letter: str) -> None:
    found = [number for number in ROWS if number[0] == letter]
    assert found == [f"{letter}{index}" for index in range(1, LENGTHS[letter] + 1)]


def test_no_row_is_outside_the_numbered_statements() -> None:
    assert {number[0] for number in ROWS} == set(LENGTHS)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_row_has_a_status_and_sentences(number: str) -> None:
    row = ROWS[number]
    assert row.status in STATUSES
    for text in (row.statement, row.reason, row.configuration):
        assert not text or text.endswith(".")


@pytest.mark.parametrize("number", NUMBERS)
def test_cited_claims_exist_and_are_named_once(number: str) -> None:
    claims = ROWS[number].claims
    assert set(claims) <= set(claim_names())
    assert len(set(claims)) == len(claims)


@pytest.mark.parametrize("number", [number for number in NUMBERS if ROWS[number].status == "toy"])
def test_a_toy_row_cites_a_statistical_claim(number: str) -> None:
    assert any(isinstance(get_claim(claim), StatisticalClaim) for claim in ROWS[number].claims)


@pytest.mark.parametrize("number", [number for number in NUMBERS if ROWS[number].status == "small"])
def test_a_small_row_cites_a_claim_with_shared_parameters(number: str) -> None:
    cited = [get_claim(claim) for claim in ROWS[number].claims]
    models = [
        str(arm.get("model", claim.setting.get("model", "tabular")))
        for claim in cited
        if isinstance(claim, StatisticalClaim)
        for arm in claim.arms.values()
    ]
    assert any(not model.startswith("tabular") for model in models)


@pytest.mark.parametrize("number", [number for number in NUMBERS if "testbed finetune" in ROWS[number].configuration])
def test_a_configuration_can_be_run(number: str) -> None:
    named = re.findall(r"([\w.-]+)\.yaml", ROWS[number].configuration)
    assert set(named) <= CONFIGURATIONS
    for objective in re.findall(r"objective: (\w+)", ROWS[number].configuration):
        assert objective in objective_names()


@pytest.mark.parametrize("number", [number for number in NUMBERS if ROWS[number].status == "llm"])
def test_a_language_model_row_says_how_to_test_it(number: str) -> None:
    before, smallest, after = ROWS[number].configuration.partition("Smallest honest version: ")
    assert "testbed finetune" in before
    assert re.search(r"`[\w.-]+\.yaml`", before), "the configuration is named"
    assert smallest
    assert re.search(r"`[\w.-]+\.yaml`, \d+ steps, \w+ seeds an arm", after)


def test_every_claim_is_cited() -> None:
    assert {claim for row in ROWS.values() for claim in row.claims} == set(claim_names())


def test_the_page_has_every_row_and_every_verdict() -> None:
    page = ledger_page()
    for number, row in ROWS.items():
        assert f"| {number} |" in page
        for claim, verdict in row.verdicts.items():
            assert f"`{claim}` **{verdict}**" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"number": "5D"}, "expected a letter and a number"),
        ({"status": "maybe"}, "status is 'maybe'; expected one of"),
        ({"claims": ()}, "status toy without a claim that judges it"),
        ({"status": "llm"}, "status llm without the configuration"),
        ({"status": "out of reach"}, "out of reach without a reason"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    fields = {"number": "D1", "source": "s", "statement": "s.", "status": "toy", "claims": ("theory/sapo-gate",)}
    with pytest.raises(ConfigError, match=message):
        Entry(**(fields | changes))  # type: ignore[arg-type]


def test_a_claim_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="sapo-gait"):
        Entry(number="T9", source="s", statement="s.", status="exact", claims=("theory/sapo-gait",))
