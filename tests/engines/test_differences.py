from __future__ import annotations

import importlib.metadata
import json

import pytest
import torch
from typer.testing import CliRunner

from testbed import cli
from testbed.engines.conformance import Comparison, Engine, engine_names, engines
from testbed.engines.differences import changes, compare_all, differences_page, read_table, versions
from testbed.errors import ConfigError


def surrogate(high):
    def loss(batch):
        ratio, advantages = (batch.log_probs - batch.old_log_probs).exp(), batch.advantages
        held = torch.where(advantages > 0, ratio.clamp(max=high), ratio.clamp(min=0.8))
        return -(held * advantages).where(batch.mask, 0).sum() / batch.mask.sum()

    return loss


def missing(batch):
    raise ConfigError("its cluster is missing")


@pytest.fixture
def install(monkeypatch):
    """Makes these the only engines, by name and comparisons, all in this version."""

    def register(version="1.0", **tables):
        engine_names()
        monkeypatch.setattr(engines, "_items", {})
        monkeypatch.setattr("testbed.engines.differences.engine_names", lambda: sorted(tables))
        for name, comparisons in tables.items():
            made = Engine(name=name, tested="1", module="json" if comparisons else "nowhere", comparisons=comparisons)
            monkeypatch.setitem(engines._items, name, made)
        monkeypatch.setattr(importlib.metadata, "version", lambda name: version)

    return register


SAME = Comparison(objective="ppo", setting="clip", loss=surrogate(1.2))
WIDER = Comparison(
    objective="ppo",
    setting="wide",
    loss=surrogate(1.6),
    because="the upper bound is 1.6",
    reproduced_by="ppo(clip_high=0.6)",
)
BROKEN = Comparison(objective="ppo", setting="clip", loss=missing)


def test_every_engine_that_runs_is_compared_and_of_the_others_why_not(install):
    install(first=[SAME], second=[WIDER], third=[BROKEN], fourth=[])
    table, absent = compare_all()
    present = table[table["setting"] != "absent"]
    assert present["engine"].tolist() == ["first", "second"]
    assert versions(table) == ["first 1.0", "second 1.0"]
    assert absent == {"third": "its cluster is missing", "fourth": "not installed here"}


def test_nothing_that_runs_is_an_error(install):
    install(third=[BROKEN])
    with pytest.raises(ConfigError, match="no engine runs in this environment: third: its cluster is missing"):
        compare_all()


def test_an_id_outlives_a_version_and_the_place_in_a_table(install):
    install(first=[SAME, WIDER])
    before, _ = compare_all()
    install(version="1.1", first=[WIDER, SAME])
    after, _ = compare_all()
    ids = [dict(zip(table["setting"], table["id"], strict=True)) for table in (before, after)]
    assert ids[0]["wide"] == ids[1]["wide"]
    assert ids[0]["wide"] != ids[0]["clip"]


def test_the_page_has_each_difference_with_its_smallest_input_and_what_reproduces_it(install):
    install(first=[SAME, WIDER], second=[SAME])
    table, _ = compare_all()
    page = differences_page(table, {"third": "its cluster is missing"})
    assert "| first | 1.0 | 2 | 1 | 1 | 1 |" in page
    assert "| second | 1.0 | 1 | 1 | 0 | 0 |" in page
    assert "| third | | | | | its cluster is missing |" in page
    assert "`ppo` and the engine's wide. The upper bound is 1.6." in page
    assert (
        "* Smallest: ratio 1.5 with A = 1 (q = 0.25): loss -1.2 here, -1.5 there, gradient 0 here, -1.5 there." in page
    )
    assert "* Reproduced by `ppo(clip_high=0.6)`." in page
    assert page.count("**first-") == 1


def test_changes_between_versions_are_sentences(install):
    install(first=[SAME, WIDER])
    before, _ = compare_all()
    fixed = Comparison(objective="ppo", setting="wide", loss=surrogate(1.2))
    new = Comparison(objective="dapo", setting="higher", loss=surrogate(1.28))
    install(version="1.1", first=[fixed, new])
    after, _ = compare_all()
    # By id, that is in no order that means anything.
    found = "\n".join(changes(before, after))
    assert "ppo and first's wide: different because the upper bound is 1.6; smallest: ratio 1.5" in found
    assert "before, now the same" in found
    assert "dapo and first's higher: compared for the first time, the same" in found
    assert "ppo and first's clip: no longer compared, it was the same" in found
    assert changes(before, before) == []


def test_tables_without_an_engine_in_common_have_no_changes(install):
    install(first=[SAME])
    before, _ = compare_all()
    install(second=[SAME])
    after, _ = compare_all()
    with pytest.raises(ConfigError, match="the tables are of first and of second; expected two of one engine"):
        changes(before, after)


@pytest.mark.parametrize("text", ["not json", "{}", "[]", '[{"objective": "ppo"}]'])
def test_a_file_that_is_no_table_is_refused(tmp_path, text):
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="table of conformance"):
        read_table(path)


def test_the_command_puts_environments_together_and_compares_versions(install, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(cli.app, list(map(str, arguments)))

    install(first=[SAME])
    assert run("conformance", "--engine", "first", "--out", tmp_path / "first.json").exit_code == 0
    install(second=[WIDER])
    done = run("conformance", "--engine", "all", "--include", tmp_path / "first.json", "--out", tmp_path / "page.md")
    assert done.exit_code == 0, done.output
    assert "first 1.0" in done.output
    assert "| second | 1.0 | 1 | 0 | 1 | 1 |" in (tmp_path / "page.md").read_text()
    install(version="1.1", first=[Comparison(objective="ppo", setting="clip", loss=surrogate(1.3))])
    assert run("conformance", "--engine", "first", "--out", tmp_path / "later.json").exit_code == 1
    assert json.loads((tmp_path / "later.json").read_text())[0]["version"] == "1.1"
    moved = run("conformance-changes", tmp_path / "first.json", tmp_path / "later.json")
    assert (moved.exit_code, "the same before, now different" in moved.output) == (1, True)
    still = run("conformance-changes", tmp_path / "first.json", tmp_path / "first.json")
    assert (still.exit_code, "nothing changed" in still.output) == (0, True)
