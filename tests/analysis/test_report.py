"""The report, from a synthetic results.json: no number in it was measured."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from analysis.report import compare_runs, formatting, write_report
from analysis.report.figures import GLYPH_WIDTH, glyph
from testbed.errors import ConfigError
from testbed.simulation.run import environment_facts

PAPERS = ["DCPO", "ERC", "CE-GPPO", "BAPO", "SAPO"]
VERDICTS = ["reproduced", "refuted", "inconclusive", "broken", "vacuous"]
HOSTILE = "<script>alert('x')</script> & \"quoted\" $\\frac$ --> {{ 7 * 7 }}"


def synthetic_curves(index: int) -> list[dict[str, Any]]:
    steps = list(range(0, 300, 5))

    def series(label: str, rate: float, gap: bool) -> dict[str, Any]:
        mean: list[float | None] = [4.6 * math.exp(-rate * step) + 0.06 * math.sin(step / 9 + index) for step in steps]
        low: list[float | None] = [value - 0.05 - 0.0006 * step for value, step in zip(mean, steps, strict=True)]
        high: list[float | None] = [value + 0.05 + 0.0006 * step for value, step in zip(mean, steps, strict=True)]
        if gap:
            mean[20:24] = low[20:24] = high[20:24] = [None] * 4
        return {"label": label, "x": steps, "mean": mean, "low": low, "high": high}

    entropy = {
        "title": "Entropy of the policy, exact, at every rollout",
        "x_label": "step (rollouts)",
        "y_label": "entropy (nats per sequence)",
        "series": [
            series("dapo", 0.010, gap=False),
            series("erc(base=dapo,beta_low=0.05,beta_high=0.05)", 0.004, gap=True),
            series("null reward", 0.001, gap=False),
        ],
    }
    clip = {
        "title": "Tokens without gradient because the ratio left the trust region",
        "x_label": "step (rollouts)",
        "y_label": "clipped tokens (fraction)",
        "series": [series("dcpo", 0.02, gap=False), series("grpo", 0.008, gap=False)],
    }
    return [entropy, clip][: 1 + index % 2]


def synthetic_claim(index: int) -> dict[str, Any]:
    paper, verdict = PAPERS[index // 8], VERDICTS[(index * 7 + index // 8) % 5]
    exact = index % 8 == 7
    direction = "identity" if exact else ["greater", "less", "equivalent"][index % 3]
    centre = {"reproduced": 0.9, "refuted": -0.4}.get(verdict, 0.1) * (-1 if direction == "less" else 1)
    low, high = centre - 0.113 - 0.01 * index, centre + 0.127 + 0.01 * index
    claim: dict[str, Any] = {
        "id": f"{paper.lower()}/synthetic-{index}",
        "paper": paper,
        "title": f"Synthetic claim {index}: entropy falls more slowly than under the baseline",
        "source": f"{paper} §4.{index % 8 + 1}, synthetic",
        "statement": "Under the stated setting the policy keeps more of its entropy than under the baseline at the "
        "same reward, and the difference does not vanish when the number of updates on a batch is doubled. "
        * (3 if index == 3 else 1),
        "tier": "quick" if index % 3 else "full",
        "kind": "exact" if exact else "statistical",
        "scope": "toy",
        "setting": {
            "environment": "RareArm-v1(arms=100)",
            "objectives": ["dapo", "erc(base=dapo)"],
            "learning_rate": 1.0,
            "steps": 300,
            "staleness": 0,
            "baseline": None,
        },
        "verdict": verdict,
        "recorded": "reproduced" if index in (4, 11) else verdict,
        "estimate": 3.4e-16 if exact else centre,
        "interval": None if exact else [low, high],
        "level": None if exact else 0.9,
        "threshold": 1e-9 if exact else (-0.2 if direction == "less" else 0.2),
        "direction": direction,
        "unit": "relative" if exact else "nats",
        "seeds": 1 if exact else 64,
        "seconds": 0.04 * (index + 1),
        "falsifier": {
            "description": "The same comparison with both sides set to the baseline: no difference may be found.",
            "verdict": "reproduced" if verdict == "broken" else "refuted",
            "estimate": 0.31 if exact else -0.02,
            "interval": None if exact else [-0.09, 0.05],
        },
        "reason": "The interval lies wholly on one side of the threshold." if index % 4 else None,
        "notes": ["One prompt instead of a data set."] if index % 5 == 0 else None,
        "curves": [] if exact else synthetic_curves(index),
        "reproduce": f"testbed verify {paper.lower()}/synthetic-{index} --seeds 64 --seed 0",
        "protocol_hash": f"{index:012x}",
    }
    if index == 2:
        claim |= {"estimate": math.nan, "interval": [math.nan, None], "seconds": None, "falsifier": None, "seeds": 3}
        claim |= {"recorded": None, "verdict": "inconclusive", "threshold": None}
    if index == 5:
        claim |= {"title": HOSTILE, "statement": HOSTILE, "source": HOSTILE, "unit": "<b>", "reproduce": HOSTILE}
        claim["curves"][0]["title"] = HOSTILE
        claim["curves"][0]["series"][0]["label"] = HOSTILE
        claim["curves"][0]["y_label"] = HOSTILE
    return claim


def synthetic_results() -> dict[str, Any]:
    return {
        "run": {
            "versions": {"testbed": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
            "commit": "0000000",
            "seed": 0,
            "command": "testbed verify --tier quick",
            "date": "2026-01-01T00:00:00Z",
            "seconds": 84.2,
            "tier": "quick",
            "note": "synthetic",
        },
        "claims": [synthetic_claim(index) for index in range(40)],
    }


def write_results(folder: Path, results: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


class Page(HTMLParser):
    """What a browser would see: elements, ids, links, text outside scripts and styles."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "use", "path", "rect", "circle"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name)) is not None]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_results(tmp_path_factory.mktemp("runs") / "synthetic", synthetic_results())
    assert write_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def source(run_folder: Path) -> str:
    return (run_folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_is_well_formed_and_in_a_stated_language(page: Page) -> None:
    assert page.open == []
    assert ("html", {"lang": "en"}) in page.tags


def test_needs_nothing_from_outside(page: Page, source: str) -> None:
    assert "://" not in source
    assert page.attributes("src") == []
    assert [link for link in page.attributes("href") if not link.startswith("#")] == []
    assert not re.search(r"@import|url\((?!#)", source)
    assert {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "image"} == set()


def test_ids_are_unique_and_every_link_has_a_target(page: Page, source: str) -> None:
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    targets = {link[1:] for link in page.attributes("href")} | set(re.findall(r"url\(#([^)]+)\)", source))
    assert targets - set(ids) == set()
    assert set(" ".join(page.attributes("aria-labelledby")).split()) - set(ids) == set()


def test_every_claim_has_an_anchor_a_row_and_its_command(page: Page) -> None:
    articles = [attributes for tag, attributes in page.tags if tag == "article"]
    rows = [attributes for tag, attributes in page.tags if tag == "tr" and "data-claim" in attributes]
    assert len(articles) == len(rows) == 40
    for index in range(40):
        assert f"claim-{PAPERS[index // 8].lower()}-synthetic-{index}" in {a["id"] for a in articles}
        if index != 5:
            assert f"testbed verify {PAPERS[index // 8].lower()}/synthetic-{index} --seeds 64" in page.text


def test_foreign_text_stays_text(page: Page, source: str) -> None:
    # One script of our own; the hostile title is shown letter by letter, in the page and in its figure.
    assert source.count("<script>") == 1
    assert "<b>" not in source
    assert page.text.count(HOSTILE) >= 5


def test_missing_is_said_and_never_zero(tmp_path: Path) -> None:
    results = synthetic_results()
    results["claims"] = [results["claims"][2]]
    page = Page(write_report(write_results(tmp_path / "one", results)).read_text(encoding="utf-8"))
    assert "Estimate missing" in page.text
    assert "90 % interval missing" in page.text
    assert "Claimed missing" in page.text
    assert "Time missing" in page.text
    assert "Recorded verdict missing" in page.text
    assert "nan" not in page.text.lower()
    assert "None" not in page.text


def test_exact_statement_needs_no_interval(tmp_path: Path) -> None:
    results = synthetic_results()
    results["claims"] = [results["claims"][7]]
    page = Page(write_report(write_results(tmp_path / "one", results)).read_text(encoding="utf-8"))
    assert "Interval none: the statement is exact" in page.text
    assert "3.4 × 10⁻¹⁶ relative" in page.text
    assert "at most 10⁻⁹ relative" in page.text


def test_headline_counts_verdicts_and_names_the_differing_ones(page: Page) -> None:
    claims = synthetic_results()["claims"]
    for verdict in VERDICTS:
        count = sum(claim["verdict"] == verdict for claim in claims)
        assert re.search(rf"{verdict} {count} claims", page.text)
    differing = [claim for claim in claims if claim["recorded"] not in (None, claim["verdict"])]
    assert len(differing) == 2
    assert "2 verdicts differ from the recorded ones." in page.text


def test_says_so_when_all_verdicts_are_the_recorded_ones(tmp_path: Path) -> None:
    results = synthetic_results()
    results["claims"] = results["claims"][6:8]
    page = Page(write_report(write_results(tmp_path / "same", results)).read_text(encoding="utf-8"))
    assert "Every verdict equals the recorded one." in page.text


def test_a_verdict_is_never_shown_by_colour_alone(page: Page) -> None:
    badges = [attributes for _, attributes in page.tags if (attributes.get("class") or "").startswith("badge ")]
    # Once each in the summary, the table and the claim's own section.
    assert len(badges) == 5 + 40 + 40
    icons = [a["href"] for tag, a in page.tags if tag == "use" and (a.get("href") or "").startswith("#icon-")]
    assert len(icons) == len(badges) + 5


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    results = synthetic_results()
    results["claims"] = results["claims"][:2]
    folder = write_results(tmp_path / "one", results)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "results.json"]


def test_sparse_results_of_another_version_are_readable(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "old", {"claims": [{"id": "a/b", "verdict": "opposite"}]})
    text = Page(write_report(folder).read_text(encoding="utf-8")).text
    assert "1 published claim, judged" in text
    assert "A verdict this version of the report does not know." in text


def test_a_run_without_claims_is_readable(tmp_path: Path) -> None:
    text = Page(write_report(write_results(tmp_path / "none", {"claims": []})).read_text(encoding="utf-8")).text
    assert "0 published claims, judged" in text


def test_comparison_lists_what_moved(tmp_path: Path) -> None:
    results = synthetic_results()
    results["claims"] = results["claims"][:4]
    after = write_results(tmp_path / "after", results)
    results = json.loads((after / "results.json").read_text(encoding="utf-8"))
    old = {claim["id"]: claim for claim in results["claims"]}
    old["dcpo/synthetic-0"]["verdict"] = "vacuous"
    old["dcpo/synthetic-0"]["protocol_hash"] = "another"
    old["dcpo/synthetic-1"]["verdict"] = None
    results["claims"] = [*list(old.values())[:3], {"id": "old/only", "verdict": "reproduced"}]
    results["run"]["commit"] = "1111111"
    results["run"]["versions"]["torch"] = "2.12.0"
    before = write_results(tmp_path / "before", results)

    comparison = compare_runs(before, after)
    moved = [(change.id, change.before, change.after, change.protocol_changed) for change in comparison.moved]
    assert moved == [
        ("dcpo/synthetic-0", "vacuous", "reproduced", True),
        ("dcpo/synthetic-1", None, synthetic_claim(1)["verdict"], False),
    ]
    # Three shared claims, two of them moved.
    assert comparison.unchanged == 1
    assert comparison.added == ("dcpo/synthetic-3",)
    assert comparison.removed == ("old/only",)
    assert comparison.differences == (
        ("versions torch", "2.12.0", "2.13.0"),
        ("commit", "1111111", "0000000"),
    )

    text = Page(write_report(after, against=before).read_text(encoding="utf-8")).text
    assert "Since run before" in text
    assert "2 verdicts moved, 1 did not; 1 claim added, 1 removed." in text


def test_controls_waiting_times_and_open_sides_are_shown(tmp_path: Path) -> None:
    claim = synthetic_claim(0) | {
        "interval": [0.5, None],
        "controls": [{"estimand": "entropy at equal divergence", "estimate": 0.25, "interval": [0.2, 0.3]}],
        "event_times": {
            "dcpo": {"events": 19, "seeds": 20, "median": 6.0, "median_interval": [5.0, 8.0]},
            "dapo": {"events": 2, "seeds": 20, "median": None, "median_interval": [None, None]},
        },
        "p_value": 0.001,
        "trend_p_value": 0.002,
        "adjusted": {"holm": 0.01, "benjamini_hochberg": 0.004},
    }
    text = Page(write_report(write_results(tmp_path / "one", {"claims": [claim]})).read_text(encoding="utf-8")).text
    assert "[0.5, ∞)" in text
    assert "entropy at equal divergence: 0.25" in text
    assert "dcpo: 19 of 20 seeds got there; Kaplan-Meier median 6 [5.0, 8.0]." in text
    assert "dapo: 2 of 20 seeds got there; half of them never did." in text
    assert "0.01 (Holm, this paper); 0.004 (Benjamini–Hochberg, all claims); 0.002 (Page's test of any trend)" in text


def test_rejects_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no results\.json; give the folder of a finished run"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no valid JSON"),
        ("[]", "has no list of claims"),
        ('{"claims": [{"verdict": "reproduced"}]}', "claim number 0 of .* has no id"),
    ],
)
def test_rejects_what_is_not_a_result(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "results.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "estimate",
            [1],
            r"claim 'dcpo/synthetic-0': estimate is \[1\]; expected a number; run",
        ),
        ("estimate", 10**400, "estimate is 1000.*; expected a number"),
        ("interval", [1], r"interval is \[1\]; expected two numbers"),
        ("title", {"a": 1}, "title is .*; expected text"),
        ("statement", "\ud800", r"statement is '\\+ud800'; expected text"),
        ("falsifier", "none", "falsifier is 'none'; expected a mapping"),
        ("controls", [None], "controls, entry 0 is None; expected a mapping"),
        ("event_times", {"dapo": None}, "event_times: 'dapo' is null; expected a mapping"),
        (
            "curves",
            [{"title": "t", "x_label": "x", "y_label": "y"}],
            "curves, entry 0: series is None; expected",
        ),
        ("setting", [[]], r"setting is \[\[\]\]; expected a mapping"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(tmp_path: Path, field: str, value: Any, message: str) -> None:
    results = {"claims": [synthetic_claim(0) | {"id": "dcpo/synthetic-0", field: value}]}
    with pytest.raises(ConfigError, match=message):
        write_report(write_results(tmp_path / "run", results))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["results.json"]


def test_a_claim_comes_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds the claim .* twice"):
        write_report(write_results(tmp_path / "run", {"claims": [synthetic_claim(0)] * 2}))


def test_a_link_beside_the_report_is_not_followed(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "run", {"claims": [synthetic_claim(7)]})
    (tmp_path / "kept").write_text("mine")
    (folder / "report.html.part").symlink_to(tmp_path / "kept")
    write_report(folder)
    assert (tmp_path / "kept").read_text() == "mine"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (-0.5, "−0.5"),
        (1 / 3, "0.333"),
        (1234567, "1.23\xa0×\xa010⁶"),
        (-2e-5, "−2\xa0×\xa010⁻⁵"),
        (True, "missing"),
    ],
)
def test_numbers(value: float, shown: str) -> None:
    assert formatting.number(value) == shown


def test_interval_of_no_width_keeps_sensible_digits() -> None:
    # Two ends that differ in the tenth digit: seven significant digits are shown, not ten.
    assert formatting.interval([0.5, 0.5 + 1e-10]) == "[0.5000000, 0.5000000]"


def test_glyph_puts_the_interval_on_its_side_of_the_threshold() -> None:
    claim = {"estimate": 0.4, "interval": [0.3, 0.5], "threshold": 0.2, "direction": "greater"}
    half = GLYPH_WIDTH / 2
    # The farthest end, 0.3 above the threshold, reaches half - 6 = 50 pixels: 0.1 is a third of it.
    assert glyph(claim) == {
        "estimate": round(half + 100 / 3, 1),
        "low": round(half + 50 / 3, 1),
        "high": half + 50,
        "claimed_from": half,
        "claimed_width": half,
        "ticks": [half],
    }
    below = glyph(claim | {"direction": "less"})
    assert below is not None
    assert (below["claimed_from"], below["claimed_width"]) == (0, half)


def test_glyph_is_absent_where_there_is_nothing_to_draw() -> None:
    assert glyph({"estimate": math.nan, "threshold": 0.2, "direction": "greater"}) is None
    assert glyph({"estimate": 0.1, "threshold": None, "direction": "greater"}) is None


@pytest.mark.parametrize(
    ("versions", "sentence"),
    [
        ({"policy-objective-testbed": "0.0.1"}, "written by version 0.0.1, this page by version"),
        ({}, "do not say which version wrote them"),
    ],
)
def test_results_of_another_version_are_readable_and_say_so(
    tmp_path: Path, versions: dict[str, str], sentence: str
) -> None:
    content = {"run": {"versions": versions}, "claims": [synthetic_claim(0)]}
    (tmp_path / "results.json").write_text(json.dumps(content), encoding="utf-8")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert sentence in page
    assert content["claims"][0]["title"] in page


def test_results_of_this_version_say_nothing_about_versions(tmp_path: Path) -> None:
    content = {"run": {"versions": environment_facts()}, "claims": [synthetic_claim(0)]}
    (tmp_path / "results.json").write_text(json.dumps(content), encoding="utf-8")
    assert "this page by version" not in write_report(tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize(("seeds", "shown"), [(None, "each claim’s own number"), (12, "12")])
def test_a_run_with_each_claims_own_seeds_has_nothing_missing(tmp_path: Path, seeds: int | None, shown: str) -> None:
    results = synthetic_results()
    results["claims"] = results["claims"][:1]
    results["run"] |= {"seeds": seeds}
    text = Page(write_report(write_results(tmp_path / "run", results)).read_text(encoding="utf-8")).text
    assert re.search(rf"seeds\s+{shown}\s+", text.split("This run")[-1])
