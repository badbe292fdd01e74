"""docs/diagnose.md: what the rules are, and how often they were right on runs whose cause is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.diagnose.engine import engines
from analysis.diagnose.planted.measure import RIVAL
from analysis.diagnose.reader import readers
from analysis.diagnose.rule import rules
from analysis.statistics import proportion_interval

__all__ = ["diagnose_page"]


def diagnose_page(record: Mapping[str, Any], trained: Sequence[Mapping[str, Any]]) -> str:
    """The page from the records of `analysis.diagnose.planted.measure` and `analysis.diagnose.planted.trained`."""
    return "\n".join(
        [
            "# The doctor",
            "",
            "Generated from the rules and from docs/diagnose.json, which `python -m analysis.diagnose.planted.measure`",
            "writes. A planted run is a simulated one in which one thing was broken on purpose, written under an "
            "engine's",
            "keys in the engine's container; what a toy does not have (lengths, the sampler, evaluations) is drawn "
            "beside",
            "it. Thresholds were chosen on runs of master seeds 900 to 999; those below have master seed "
            f"{record['seed']}.",
            "",
            "Runs of master seed 4001 were judged once before and showed a miss: the rule on a vanishing loss and the",
            "interval of the onset were changed after that, so those runs judge no longer. A healthy setting may end",
            "with most groups solved; a finding about it counts as a false alarm here.",
            "",
            *_causes(record),
            *_trained(trained),
            *_healthy(record),
            *_onsets(record),
            *_change_points(record),
            *_floors(record),
            *_rules(),
            *_engines(),
        ]
    )


def _share(outcomes: Sequence[bool]) -> str:
    found = proportion_interval(np.asarray(outcomes, float), level=0.95)
    return f"{int(sum(outcomes))} of {len(outcomes)} [{found.low:.0%}, {found.high:.0%}]"


def _rival_named(run: Mapping[str, Any], expected: str) -> bool:
    rival = run["rival"]
    return bool(rival and rival["first"] is not None and expected in RIVAL[rival["first"]])


def _causes(record: Mapping[str, Any]) -> list[str]:
    compared = bool(record["rival"])
    lines = ["## Planted causes", "", "*Named*: the first finding is the cause.", ""]
    if compared:
        lines += [
            "rldoctor 0.2.0, with its TensorBoard extra, was run on the same files; it is taken to have named a cause",
            "if its first finding of level warning or critical is by a detector that could be said to mean it.",
            "",
        ]
    lines += [
        "| cause | rule | named | without the configuration |"
        + (" rldoctor | its first findings |" if compared else ""),
        "|---|---|---|---|" + ("---|---|" if compared else ""),
    ]
    ours: list[bool] = []
    theirs: list[bool] = []
    alone: list[bool] = []
    complete = 0
    for cause in record["causes"]:
        expected, runs = cause["expected"], cause["runs"]
        named = [run["first"] == expected for run in runs]
        named_alone = [run["first_without_configuration"] == expected for run in runs]
        rival = [_rival_named(run, expected) for run in runs]
        firsts = [
            "cannot read" if not run["rival"]["read"] else (run["rival"]["first"] or "nothing").replace("_", " ")
            for run in runs
            if run["rival"]
        ]
        said = ", ".join(f"{word} ({firsts.count(word)})" for word in sorted(set(firsts)))
        ours, alone, theirs = ours + named, alone + named_alone, theirs + rival
        complete += all(named)
        row = f"| {cause['name']} | `{expected}` | {sum(named)} of {len(named)} | {sum(named_alone)} of {len(named)} |"
        lines.append(row + (f" {sum(rival)} of {len(rival)} | {said} |" if compared else ""))
    total = f"| **all {len(record['causes'])}** | | {_share(ours)} | {_share(alone)} |"
    return [
        *lines,
        total + (f" {_share(theirs)} | |" if compared else ""),
        "",
        f"Of {len(record['causes'])} causes {complete} were named in every run. Intervals are 95 %, as if runs were",
        "independent; runs of one cause share their settings.",
        "",
    ]


def _trained(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "## Language models with one setting broken",
        "",
        "Runs of `testbed finetune cpu-smoke` with one setting changed, their own log and configuration read as they",
        "are (docs/diagnose_trained.json, `python -m analysis.diagnose.planted.trained`). Changes were chosen on seed",
        "901.",
        "",
        "| run | rule | first finding is the cause | without the configuration | first findings |",
        "|---|---|---|---|---|",
    ]
    broken: list[bool] = []
    for name in dict.fromkeys(run["cause"] for run in runs):
        same = [run for run in runs if run["cause"] == name]
        expected = same[0]["expected"]
        firsts = [run["first"] or "nothing" for run in same]
        said = ", ".join(f"{word} ({firsts.count(word)})" for word in sorted(set(firsts)))
        if not expected:
            problems = sum(run["worst"] == "problem" for run in same)
            lines.append(f"| {name} | none | {problems} of {len(same)} called a problem | | {said} |")
            continue
        named = [run["first"] == expected for run in same]
        alone = [run["first_without_configuration"] == expected for run in same]
        broken += named
        row = f"| {name} | `{expected}` | {sum(named)} of {len(named)} | {sum(alone)} of {len(alone)} |"
        lines.append(f"{row} {said} |")
    return [
        *lines,
        f"| **all broken ones** | | {_share(broken)} | | |",
        "",
        "A step that wrecks the model within two rollouts leaves no row from before, and what is seen is its ruins:",
        "responses without an end, or a reward that is always the same. So does a model that never ended a response.",
        "",
    ]


def _healthy(record: Mapping[str, Any]) -> list[str]:
    runs = record["healthy"]
    problems = [run["worst"] == "problem" for run in runs]
    warnings = [run["worst"] in {"problem", "warning"} for run in runs]
    alone = [run["worst_without_configuration"] == "problem" for run in runs]
    lines = [
        "## False alarms",
        "",
        f"{len(runs)} runs in which nothing was broken, of twenty settings, over all engines:",
        "",
        "| | runs |",
        "|---|---|",
        f"| a finding of level problem | {_share(problems)} |",
        f"| the same without the configuration | {_share(alone)} |",
        f"| a finding of level warning or problem | {_share(warnings)} |",
    ]
    read = [run["rival"] for run in runs if run["rival"] and run["rival"]["read"]]
    if read:
        critical = _share([bool(item["critical"]) for item in read])
        loud = _share([item["first"] is not None for item in read])
        lines += [
            f"| rldoctor: critical, of the runs it can read | {critical} |",
            f"| rldoctor: warning or critical | {loud} |",
        ]
    return [*lines, ""]


def _onsets(record: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Onset",
        "",
        "Where the cause begins within the run: how far the step that is named lies from the planted one, in steps of "
        "runs of",
        "60, and how often the interval, where there is one, holds the planted step.",
        "",
        "| cause | runs | median error | largest | interval holds it |",
        "|---|---|---|---|---|",
    ]
    for cause in record["causes"]:
        runs = [run for run in cause["runs"] if run.get("onset") is not None and run.get("since") is not None]
        if not runs:
            continue
        errors = [abs(run["since"] - run["onset"]) for run in runs]
        held = [run["interval"][0] <= run["onset"] <= run["interval"][1] for run in runs if run.get("interval")]
        holds = f"{sum(held)} of {len(held)}" if held else "no interval"
        lines.append(f"| {cause['name']} | {len(runs)} | {np.median(errors):g} | {max(errors):g} | {holds} |")
    return [*lines, ""]


def _change_points(record: Mapping[str, Any]) -> list[str]:
    lines = [
        "## The change-point test without a change",
        "",
        "By design one curve in a hundred. Measured on curves whose neighbours correlate (first order):",
        "",
        "| points | correlation | changes found |",
        "|---|---|---|",
    ]
    for row in record["change_point"]:
        lines.append(f"| {row['points']} | {row['correlation']:g} | {row['found'] / row['repeats']:.1%} |")
    return [
        *lines,
        "",
        "Curves that wander (0.9 and more) are found to change more often than that; no rule speaks because of a "
        "change",
        "alone, each also asks for a change of a size.",
        "",
    ]


def _floors(record: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Time to an entropy floor",
        "",
        "How often the 90 % interval holds the true time, on falls of both shapes with correlated noise:",
        "",
        "| fall | noise | interval given | holds it |",
        "|---|---|---|---|",
    ]
    for row in record["floor"]:
        lines.append(
            f"| {row['shape']} | {row['noise']:g} | {row['given']} of {row['repeats']} | "
            f"{row['inside'] / max(row['given'], 1):.1%} |"
        )
    return [*lines, ""]


def _rules() -> list[str]:
    lines = [
        "## Rules",
        "",
        "| rule | mechanism | threshold | silent |",
        "|---|---|---|---|",
    ]
    for name in rules.names():
        item = rules[name]
        cells = (f"`{name}`", item.mechanism, item.threshold, item.silent)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return [*lines, ""]


def _engines() -> list[str]:
    titles = "; ".join(f"{engines[name].title} ({len(engines[name].table.keys)} keys)" for name in engines.names())
    containers = "; ".join(readers[name].title for name in readers.names())
    return ["## What is read", "", f"Engines: {titles}.", "", f"Containers: {containers}."]
