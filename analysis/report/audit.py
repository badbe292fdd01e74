"""From the folder of an audit to report.html: the laws, the gradient weight, and every stress beside the reference."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.report import figures, formatting
from analysis.report.templates import environment
from testbed.errors import ConfigError

__all__ = ["write_audit_report"]

_MARKS = {"holds": "✓ holds", "exempt": "– exempt", "broken": "✗ broken"}
"""An unchecked law is told with the broken one it rests on."""


def write_audit_report(folder: str | Path) -> Path:
    """Write `folder`/report.html, one self-contained file, from its audit.json.

    Raises:
        ConfigError: the folder holds no audit.
    """
    folder = Path(folder)
    source = folder / "audit.json"
    if not source.is_file():
        raise ConfigError(f"{folder} holds no audit; expected audit.json in it")
    content = json.loads(source.read_text(encoding="utf-8"))
    page = (
        environment()
        .get_template("audit.html")
        .render(
            name=folder.resolve().name,
            audited=content["objective"],
            reference=content["reference"],
            description=content["description"],
            run=content["run"],
            laws=[law for law in content["laws"] if law["outcome"] in _MARKS],
            resting={law["law"]: _resting(law["law"], content["laws"]) for law in content["laws"]},
            marks=_MARKS,
            counts={outcome: sum(law["outcome"] == outcome for law in content["laws"]) for outcome in _MARKS},
            unchecked=sum(law["outcome"] == "unchecked" for law in content["laws"]),
            twins=content["twins"],
            verdict=content.get("verdict") or [],
            weights=[
                figures.weight_svg(panel, name=f"weight-{number}")
                for number, panel in enumerate(content["weights"] or [])
            ],
            stresses=[_stress(stress, number) for number, stress in enumerate(content["stresses"])],
            unfit=_common_reason(content["stresses"]),
            sensitivity=None
            if content["sensitivity"] is None
            else figures.curve_svg(content["sensitivity"], name="sensitivity"),
        )
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _resting(broken: str, laws: Sequence[Mapping[str, Any]]) -> list[str]:
    """The laws that were not checked because of a broken one."""
    return [law["law"] for law in laws if law.get("cause") == broken]


def _common_reason(stresses: Sequence[Mapping[str, Any]]) -> str:
    """Why no stress at all could be run, or an empty string."""
    reasons = {stress["not_run"] for stress in stresses}
    return str(reasons.pop()) if len(reasons) == 1 else ""


def _stress(stress: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {
        "name": stress["name"],
        "question": stress["question"],
        "not_run": stress["not_run"],
        "measures": [
            {
                "description": item["description"],
                "unit": item["unit"],
                "audited": _with_interval(item["audited"]),
                "reference": _with_interval(item["reference"]),
                "difference": _with_interval(item["difference"]),
                "reading": item["reading"],
            }
            for item in stress["measures"]
        ],
        "phenomena": [
            {
                "name": detector.replace("_", " "),
                **{side: f"{share[0]:.0%} [{share[1]:.0%}, {share[2]:.0%}]" for side, share in sides.items()},
            }
            for detector, sides in (stress["phenomena"] or {}).items()
            if any(share[0] > 0 for share in sides.values())
        ],
        "curves": [
            {"title": item["title"], "figure": figures.curve_svg(item, name=f"stress-{number}-{index}")}
            for index, item in enumerate(stress["curves"])
        ],
    }


def _with_interval(triple: list[float | None]) -> str:
    estimate, low, high = triple
    if estimate is None:
        return formatting.MISSING
    if low is None and high is None:
        # Equal values have no interval.
        return formatting.number(estimate)
    if low is None or high is None:
        return f"{formatting.number(estimate)} {formatting.interval([low, high])}"
    return f"{formatting.number(estimate, width=high - low)} {formatting.interval([low, high])}"
