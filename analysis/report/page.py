"""From results.json to report.html: everything the template prints is prepared here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from analysis.report import figures, formatting
from analysis.report.comparison import compare_runs
from analysis.report.results import VERDICTS, load_results
from analysis.report.templates import environment, source
from testbed.errors import ConfigError
from testbed.simulation.run import environment_facts
from testbed.simulation.storage import write_atomically

__all__ = ["write_report"]

_CLAIMED_SIDE = {
    "greater": "above {}",
    "less": "below {}",
    "equivalent": "within ± {}",
    "identity": "at most {}",
}


def write_report(run_folder: str | Path, against: str | Path | None = None, out: str | Path | None = None) -> Path:
    """Write the report of a run, one self-contained file, from its results.json.

    Args:
        run_folder: a folder with results.json.
        against: an earlier run; the report then opens with the verdicts that moved since.
        out: the file; `None`: report.html in `run_folder`. A file that is there is replaced.

    Returns:
        The path of the report. Equal results give equal bytes.

    Raises:
        ConfigError: one of the folders holds no readable results.
    """
    folder = Path(run_folder)
    results = load_results(folder)
    comparison = None if against is None else compare_runs(against, folder)
    page = (
        _environment()
        .get_template("template.html")
        .render(**_view(results), comparison=comparison, name=folder.resolve().name)
    )
    path = folder / "report.html" if out is None else Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(path, page.encode())


def _environment() -> Any:
    made = environment()
    made.globals.update(
        javascript=source("script.js"),
        glyph_width=figures.GLYPH_WIDTH,
        meanings=VERDICTS,
    )
    made.filters.update(
        text=formatting.text,
        duration=formatting.duration,
        known=lambda verdict: verdict if verdict in VERDICTS else "other",
    )
    return made


def _view(results: Mapping[str, Any]) -> dict[str, Any]:
    anchors: set[str] = set()
    claims = [_claim(claim, _anchor(str(claim["id"]), anchors)) for claim in results["claims"]]
    papers: dict[str, list[dict[str, Any]]] = {}
    for claim in claims:
        papers.setdefault(claim["paper"], []).append(claim)
    counts = Counter(claim["verdict"] for claim in claims)
    verdicts = [*VERDICTS, *sorted(set(counts) - set(VERDICTS))]
    return {
        # What a run of simulations does not have is missing, and not undefined.
        "run": {"record": None, **results["run"]},
        "other_version": _other_version(results["run"]),
        "claims": claims,
        "papers": papers,
        "verdicts": verdicts,
        "counts": counts,
        "paper_counts": {paper: Counter(claim["verdict"] for claim in group) for paper, group in papers.items()},
        "tiers": sorted({claim["tier"] for claim in claims}),
        "differing": [claim for claim in claims if claim["differs"]],
        "unrecorded": [claim for claim in claims if claim["recorded"] is None],
        "anchors": {claim["id"]: claim["anchor"] for claim in claims},
    }


def _other_version(run: Mapping[str, Any]) -> str | None:
    """What is different when the results were written by another version, or None."""
    versions = run.get("versions") or {}
    written = versions.get("policy-objective-testbed")
    if not written:
        return "The results do not say which version wrote them; fields this version does not know are left out."
    current = environment_facts()["policy-objective-testbed"]
    if written == current:
        return None
    return (
        f"The results were written by version {written}, this page by version {current}: claims and their settings may "
        "have changed in between, and fields this version does not know are left out."
    )


def _anchor(name: str, taken: set[str]) -> str:
    base = "claim-" + (re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "unnamed")
    anchor, count = base, 1
    while anchor in taken:
        count += 1
        anchor = f"{base}-{count}"
    taken.add(anchor)
    return anchor


def _claim(claim: Mapping[str, Any], anchor: str) -> dict[str, Any]:
    verdict = formatting.text(claim.get("verdict"))
    recorded = claim.get("recorded")
    falsifier = claim.get("falsifier")
    curves = claim.get("curves") or []
    return {
        "id": str(claim["id"]),
        "anchor": anchor,
        "title": str(claim.get("title") or claim["id"]),
        "paper": formatting.text(claim.get("paper")),
        "source": formatting.text(claim.get("source")),
        "statement": formatting.text(claim.get("statement")),
        "reason": _sentence(claim.get("reason")),
        "verdict": verdict,
        "recorded": recorded,
        "differs": recorded is not None and recorded != claim.get("verdict"),
        "tier": formatting.text(claim.get("tier")),
        "kind": formatting.text(claim.get("kind")),
        "scope": formatting.text(claim.get("scope")),
        "exact": claim.get("kind") == "exact",
        **_numbers(claim, claim),
        "claimed": _claimed_side(claim),
        "seeds": "none needed" if claim.get("kind") == "exact" else _seeds(claim.get("seeds")),
        "seconds": claim.get("seconds"),
        "setting": _setting(claim.get("setting")),
        "p_values": _p_values(claim),
        "null": _null(claim),
        "controls": [
            {"estimand": formatting.text(item.get("estimand")), **_numbers(item, claim)}
            for item in claim.get("controls") or []
        ],
        "event_times": _event_times(claim),
        "estimand": claim.get("estimand"),
        "falsifier": None if not isinstance(falsifier, Mapping) else _falsifier(falsifier, claim),
        "notes": _notes(claim.get("notes")),
        "reproduce": claim.get("reproduce"),
        "protocol_hash": claim.get("protocol_hash"),
        "glyph": figures.glyph(claim),
        "interval_svg": _interval_figure(claim, anchor),
        "curves": [
            {"title": str(curve["title"]), "svg": figures.curve_svg(curve, name=f"{anchor}-c{index}")}
            for index, curve in enumerate(curves)
        ],
    }


def _numbers(source: Mapping[str, Any], claim: Mapping[str, Any]) -> dict[str, str]:
    ends, level, unit = source.get("interval"), source.get("level", claim.get("level")), claim.get("unit")
    shown = formatting.interval(ends)
    known = [formatting.finite(end) for end in ends] if isinstance(ends, list | tuple) else []
    low, high = known if len(known) == 2 else (None, None)
    width = None if low is None or high is None else abs(high - low)
    name = "Interval" if formatting.is_missing(level) else f"{100 * float(level):g}\u00a0% interval"
    return {
        "estimate": formatting.measured(source.get("estimate"), unit, width=width),
        "estimate_number": formatting.number(source.get("estimate"), width=width),
        "interval": shown if shown == formatting.MISSING or not unit else f"{shown}\u00a0{unit}",
        "interval_number": shown,
        "interval_name": name,
        "unit": str(unit or ""),
    }


def _claimed_side(claim: Mapping[str, Any]) -> str:
    threshold, direction = claim.get("threshold"), str(claim.get("direction"))
    if formatting.is_missing(threshold):
        return formatting.MISSING
    return _CLAIMED_SIDE.get(direction, "{}").format(formatting.measured(threshold, claim.get("unit")))


def _seeds(seeds: Any) -> str:
    count = len(seeds) if isinstance(seeds, list) else seeds
    if formatting.is_missing(count):
        return formatting.MISSING
    return f"{count:,}"


def _setting(setting: Any) -> dict[str, str]:
    if isinstance(setting, Mapping):
        # An unset option is a choice, not a gap in the record.
        return {
            str(key).replace("_", " "): "none" if value is None else formatting.text(value)
            for key, value in setting.items()
        }
    return {} if setting is None else {"setting": formatting.text(setting)}


def _falsifier(falsifier: Mapping[str, Any], claim: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "description": formatting.text(falsifier.get("description")),
        "verdict": formatting.text(falsifier.get("verdict")),
        **_numbers(falsifier, claim),
    }


def _p_values(claim: Mapping[str, Any]) -> str | None:
    """The one-sided p-value and its corrections, or None where the claim has none."""
    if formatting.is_missing(claim.get("p_value")):
        return None
    parts = [formatting.number(claim["p_value"])]
    adjusted = claim.get("adjusted") or {}
    for key, name in (("holm", "Holm, this paper"), ("benjamini_hochberg", "Benjamini–Hochberg, all claims")):
        parts.append(f"{formatting.number(adjusted.get(key))} ({name})")
    if not formatting.is_missing(claim.get("trend_p_value")):
        parts.append(f"{formatting.number(claim['trend_p_value'])} (Page's test of any trend)")
    return "; ".join(parts)


def _event_times(claim: Mapping[str, Any]) -> list[str]:
    """Of a claim about waiting times, a sentence an arm."""
    sentences = []
    for name, seen in (claim.get("event_times") or {}).items():
        median = formatting.interval(seen.get("median_interval"))
        half = (
            "half of them never did"
            if formatting.is_missing(seen.get("median"))
            else f"Kaplan-Meier median {formatting.number(seen['median'])} {median}"
        )
        sentences.append(f"{name}: {seen.get('events')} of {seen.get('seeds')} seeds got there; {half}.")
    return sentences


def _null(claim: Mapping[str, Any]) -> dict[str, str] | None:
    """What the same arms do without a reward signal."""
    null = claim.get("null")
    if not isinstance(null, Mapping):
        return None
    where = ", ".join(f"{key} {value}" for key, value in (null.get("setting") or {}).items())
    return {"where": where, "estimand": formatting.text(null.get("estimand")), **_numbers(null, claim)}


def _sentence(words: Any) -> str | None:
    return f"{str(words)[:1].upper()}{str(words)[1:].rstrip('.')}." if words else None


def _notes(notes: Any) -> list[str]:
    if notes is None or notes == "":
        return []
    return [formatting.text(note) for note in notes] if isinstance(notes, list) else [formatting.text(notes)]


def _interval_figure(claim: Mapping[str, Any], anchor: str) -> Markup | None:
    try:
        return figures.interval_svg(claim, name=f"{anchor}-i")
    except ConfigError:
        # A results file of another version may lack the direction; the numbers are still printed.
        return None
