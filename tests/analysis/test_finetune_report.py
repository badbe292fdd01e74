"""The report of a fine-tuning run, from files written by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.report.finetune import write_finetune_report
from testbed.diagnostics import GLOSSARY
from testbed.errors import ConfigError
from tests.extras import needs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "</pre><script>alert('x')</script>"


def estimate(value: float, low: float | None = 0.1, high: float | None = 0.9) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    measured = {"k": 8, "problems": 64, "unparsed": 0.25, "unfinished": 0.125, "any_right": estimate(0.7)}
    evaluation = {
        "before": {**measured, "average": estimate(0.2), "greedy": estimate(0.3)},
        "after": {**measured, "average": estimate(0.4), "greedy": estimate(0.5)},
        "difference": estimate(0.2, None, None),
        "facts": {
            "objective": "erc(base=gppo)",
            "parameters": 123456,
            "device": "cpu",
            "versions": {"torch": "2.13.0", "trl": "1.16.0"},
        },
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    rows = [
        {"step": step, "reward/mean": 0.1 * step, "kl/ref": None, "update/refused": float(step == 2)}
        for step in (1, 2, 3)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = [
        {
            "phase": phase,
            "prompt": "1+2=",
            "answer": "3",
            "response": response,
            "correct": phase == "after",
            "finished": True,
        }
        for phase, response in (("before", HOSTILE), ("after", "#### 3"))
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    (tmp_path / "configuration.yaml").write_text("objective: erc(base=gppo)\n")
    return tmp_path


def test_shows_success_with_intervals(folder: Path) -> None:
    page = write_finetune_report(folder).read_text()
    assert "<td>20.0% [10.0%, 90.0%]</td><td>40.0% [10.0%, 90.0%]</td>" in page
    assert "changed by 20.0% [missing, missing]" in page
    assert "123,456 parameters" in page
    assert "1 of the steps met NaN" in page


def test_what_the_model_wrote_cannot_act(folder: Path) -> None:
    page = write_finetune_report(folder).read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_draws_the_metrics_that_have_data(folder: Path) -> None:
    page = write_finetune_report(folder).read_text()
    assert page.count("<figure>") == 1
    assert 'aria-label="reward/mean' in page


def test_lists_every_metric_with_its_definition(folder: Path) -> None:
    # reward/mean is 0.1, 0.2, 0.3 over the steps; kl/ref has no data and is not shown.
    page = write_finetune_report(folder).read_text()
    row = page[page.index('<th scope="row">reward/mean</th>') :].split("</tr>")[0]
    assert "<td>0.1</td><td>0.2</td><td>0.3</td>" in row
    assert GLOSSARY["reward/mean"].formula.replace("'", "&#39;") in row
    assert '<th scope="row">kl/ref</th>' not in page


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; Debian's package is `chromium`")
def test_tables_can_be_seen_on_a_phone(folder: Path) -> None:
    needs("playwright")
    from playwright import sync_api as playwright

    page_file = write_finetune_report(folder)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 900})
        page.goto(page_file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        for heading in ("Measure", "Prompt"):
            assert page.locator("th", has_text=heading).first.is_visible()
        browser.close()


def test_refuses_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no fine-tuning run"):
        write_finetune_report(tmp_path)


def test_refuses_an_unfinished_run(folder: Path) -> None:
    evaluation = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps({"before": evaluation["before"]}))
    with pytest.raises(ConfigError, match="is not finished"):
        write_finetune_report(folder)
