"""The ledger is complete, and every row can be followed to what it cites."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from analysis.claims import claim_names, get_claim
from analysis.judging.claim import StatisticalClaim
from analysis.ledger import STATUSES, Entry, entries, entry, ledger_page
from testbed.errors import ConfigError
from testbed.objectives import objective_names
from testbed.registry import Registry

ROWS = {entry.number: entry for entry in entries()}
CONFIGURATIONS = {
    item.name.removesuffix(".yaml")
    for item in resources.files("testbed").joinpath("finetune_configs").iterdir()
    if item.name.endswith(".yaml")
}
NUMBERS = sorted(ROWS)


@pytest.mark.parametrize("letter", sorted({number[0] for number in NUMBERS}))
def test_no_numbered_statement_is_absent(letter: str) -> None:
    found = [number for number in ROWS if number[0] == letter]
    assert found == [f"{letter}{index}" for index in range(1, len(found) + 1)]
    assert len({ROWS[number].source for number in found}) == 1


@pytest.mark.parametrize("number", NUMBERS)
def test_a_row_has_a_status_and_sentences(number: str) -> None:
    row = ROWS[number]
    assert row.status in STATUSES
    for text in (row.statement, row.reason, row.configuration):
        assert not text or text.endswith(".")


@pytest.mark.parametrize("name", claim_names())
def test_a_claim_names_a_statement_once(name: str) -> None:
    judges = get_claim(name).judges
    assert judges
    assert len(set(judges)) == len(judges)


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
    assert ROWS["D5"].claims == ("dcpo/token-clip-ratio", "dcpo/token-clip-ratio-large-updates")
    assert "dcpo/token-clip-ratio" in ROWS["M7"].claims


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
        ({"status": "llm"}, "status llm without the configuration"),
        ({"status": "out of reach"}, "out of reach without a reason"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    fields = {"number": "D1", "source": "s", "statement": "s.", "status": "toy"}
    with pytest.raises(ConfigError, match=message):
        Entry(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Registry[Entry]:
    """A ledger of the real rows, to which a test may add."""
    shelf: Registry[Entry] = Registry("ledger row")
    for row in ROWS.values():
        shelf.register(row.number)(row)
    monkeypatch.setattr(entry, "registry", shelf)
    return shelf


def test_a_row_that_no_claim_judges_is_refused(shelf: Registry[Entry]) -> None:
    shelf.register("T99")(Entry(number="T99", source="s", statement="s.", status="exact"))
    with pytest.raises(ConfigError, match="ledger row T99: status exact without a claim that judges it"):
        entries()


def test_a_claim_of_a_statement_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf: Registry[Entry] = Registry("ledger row")
    for row in ROWS.values():
        if row.number != "D5":
            shelf.register(row.number)(row)
    monkeypatch.setattr(entry, "registry", shelf)
    with pytest.raises(ConfigError, match="claim dcpo/token-clip-ratio: judges D5, which is no row of the ledger"):
        entries()


def test_a_row_as_json_has_what_the_page_has() -> None:
    row = ROWS["D5"].to_json()
    assert row["verdicts"] == {"dcpo/token-clip-ratio": "reproduced", "dcpo/token-clip-ratio-large-updates": "refuted"}
    assert (row["number"], row["source"], row["status"]) == ("D5", "DCPO", "toy")
    assert row["statement"] == ROWS["D5"].statement
    assert ROWS["B8"].to_json()["verdicts"] == {}
