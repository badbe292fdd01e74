"""From the folder of a fine-tuning run to report.html: success before and after, curves, and what the model wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.report import figures
from analysis.report.formatting import number
from analysis.report.templates import environment
from testbed.diagnostics import GLOSSARY
from testbed.errors import ConfigError
from testbed.finetune import percent

__all__ = ["CURVES", "write_finetune_report"]

CURVES = (
    "reward/mean",
    "entropy/mean",
    "clip/fraction",
    "ratio/log_abs_mean",
    "kl/old",
    "gradient/norm",
    "advantage/nonzero_fraction",
    "completions/mean_length",
    "erc/masked_fraction",
    "group/zero_variance_fraction",
)
"""The metrics that are drawn, where the run has them."""
_LABELS = {"completions/mean_length": "response length (tokens)"}
"""Axis labels of what the glossary does not know."""


def write_finetune_report(folder: str | Path) -> Path:
    """Write `folder`/report.html, one self-contained file, from what `testbed.finetune` left there.

    What the model wrote is text from outside; it is escaped.

    Raises:
        ConfigError: the folder holds no finished run.
    """
    folder = Path(folder)
    evaluation_file, log_file = folder / "evaluation.json", folder / "log.jsonl"
    if not evaluation_file.is_file() or not log_file.is_file():
        raise ConfigError(f"{folder} holds no fine-tuning run; expected evaluation.json and log.jsonl in it")
    evaluation = json.loads(evaluation_file.read_text(encoding="utf-8"))
    if "after" not in evaluation:
        raise ConfigError(f"the run in {folder} is not finished; continue it with testbed finetune --resume")
    page = (
        environment()
        .get_template("finetune.html")
        .render(
            name=folder.resolve().name,
            facts=evaluation["facts"],
            measures=_measures(evaluation),
            problems=evaluation["after"]["problems"],
            change=percent(evaluation["difference"]),
            k=evaluation["after"]["k"],
            shares=[
                (label, *(f"{evaluation[phase][key]:.1%}" for phase in ("before", "after")))
                for key, label in (("unparsed", "without a readable answer"), ("unfinished", "cut off at the limit"))
            ],
            curves=_curves(_rows(log_file)),
            diagnostics=_diagnostics(_rows(log_file)),
            refused=sum(bool(row.get("update/refused")) for row in _rows(log_file)),
            samples=_paired(_rows(folder / "samples.jsonl")),
            configuration=(folder / "configuration.yaml").read_text(encoding="utf-8"),
        )
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _measures(evaluation: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    k = evaluation["after"]["k"]
    return [
        (label, percent(evaluation["before"][name]), percent(evaluation["after"][name]))
        for name, label in (("average", f"avg@{k}"), ("any_right", f"pass@{k}"), ("greedy", "greedy"))
    ]


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    drawn = []
    for metric in CURVES:
        points = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
        if len(points) < 2:
            continue
        unit = GLOSSARY[metric].unit if metric in GLOSSARY else "1"
        curve = {
            "title": metric,
            "x_label": "step (updates)",
            "y_label": _LABELS.get(metric, metric if unit == "1" else f"{metric} ({unit})"),
            "series": [{"label": "this run", "x": [x for x, _ in points], "mean": [y for _, y in points]}],
        }
        drawn.append(figures.curve_svg(curve, name=metric.replace("/", "-")))
    return drawn


def _diagnostics(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Every metric of the glossary that the run has data of, with its definition."""
    table = []
    for metric, info in GLOSSARY.items():
        values = [float(row[metric]) for row in rows if row.get(metric) is not None]
        if values:
            shown = {"first": values[0], "mean": sum(values) / len(values), "last": values[-1]}
            unit = "" if info.unit == "1" else f" ({info.unit})"
            table.append(
                {"metric": metric, "formula": f"{info.formula}{unit}"}
                | {name: number(value) for name, value in shown.items()}
            )
    return table


def _paired(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Answers to the same prompt side by side."""
    by_prompt: dict[str, dict[str, Any]] = {}
    for sample in samples:
        entry = by_prompt.setdefault(sample["prompt"], {"prompt": sample["prompt"], "answer": sample["answer"]})
        entry[sample["phase"]] = sample
    return [entry for entry in by_prompt.values() if {"before", "after"} <= set(entry)]


def _rows(path: Path) -> list[dict[str, Any]]:
    # Not splitlines: it also splits at characters that may stand inside a JSON string.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
