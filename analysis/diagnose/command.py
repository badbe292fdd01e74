"""What `testbed diagnose` does, apart from its options."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from analysis.diagnose.comparison import Comparison, compare
from analysis.diagnose.diagnosis import Diagnosis, diagnose
from analysis.diagnose.log import read_log
from analysis.diagnose.rule import LEVELS
from analysis.diagnose.terminal import page
from testbed.errors import ConfigError, RunExistsError

__all__ = ["run"]


def run(
    log: Sequence[str],
    *,
    config: str | None,
    fail_on: str | None,
    against: str | None,
    as_json: bool,
    out: Path | None,
    say: Callable[[str], None],
) -> bool:
    """Diagnose, print, write; returns whether a finding is as bad as `fail_on`.

    Raises:
        ConfigError: an option is out of its range, or the log cannot be diagnosed.
        RunExistsError: the file to write exists.
    """
    if fail_on is not None and fail_on not in LEVELS:
        raise ConfigError(f"--fail-on is {fail_on!r}; expected one of {', '.join(LEVELS)}")
    if out is not None:
        if out.suffix.lower() not in {".html", ".htm", ".json"}:
            raise ConfigError(f"--out is {str(out)!r}; expected a file that ends in .html or .json")
        if out.exists():
            raise RunExistsError(f"{out} already exists; nothing was written. Choose another --out or remove it")
    found = diagnose(log[0] if len(log) == 1 else list(log), config)
    content = found.to_json()
    comparison = None
    if against is not None:
        comparison = compare(found.log, read_log(against))
        content["comparison"] = comparison.to_json()
    if out is not None:
        _write(out, found, content, comparison)
    if as_json:
        say(json.dumps(content, indent=1, ensure_ascii=not _unicode(), allow_nan=False))
    else:
        say(page(found, comparison=comparison, ascii_only=not _unicode()).rstrip("\n"))
        if out is not None:
            say(f"written: {out}")
    return fail_on is not None and bool(found.at_least(fail_on))


def _write(out: Path, found: Diagnosis, content: dict[str, Any], comparison: Comparison | None) -> None:
    if out.suffix.lower() == ".json":
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        return
    from analysis.report.diagnosis import write_diagnosis_page

    write_diagnosis_page(found, out, comparison)


def _unicode() -> bool:
    """Whether standard output can take what is written."""
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("_", "-")
    return encoding in {"utf-8", "utf8", "utf-8-sig", "utf-16", "cp65001"}
