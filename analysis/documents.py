"""The generated parts of the documentation: `python -m analysis.documents` writes them, a test compares them.

A generated part of a hand-written file stands between two marker comments; a generated file is written whole.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from analysis.calibration import RECORD as CALIBRATION
from analysis.calibration import calibration_page
from analysis.claims import claim_names, get_claim
from analysis.diagnose.planted.measure import RECORD as DIAGNOSES
from analysis.diagnose.planted.page import diagnose_page
from analysis.diagnose.planted.trained import TRAINED_RECORD
from analysis.docs_objectives import objectives_page
from analysis.ledger import ledger_page
from analysis.real_model.collect import RECORD as PRETRAINED
from analysis.real_model.page import pretrained_page
from analysis.replication import RECORD as REPLICATION
from analysis.replication import replication_page
from testbed.diagnostics import glossary_table
from testbed.engines.differences import differences_page, read_table
from testbed.errors import ConfigError
from testbed.registry import Registry

__all__ = ["document", "documents", "render", "write_all"]

ROOT = Path(__file__).resolve().parent.parent
CONFORMANCE = ROOT / "docs" / "conformance.json"
"""What `testbed conformance --engine all --include … --out` last wrote, of engines in several environments."""

documents: Registry[Callable[[], str]] = Registry("document")
"""File name relative to the repository, with `#part` for a part of a hand-written file, to its content."""


def document(name: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Decorator: the function returns the generated content of `name`."""
    return documents.register(name)


@document("README.md#claims")
def claims_table() -> str:
    """How many claims of each paper came out how, on record."""
    claims = [get_claim(name) for name in claim_names()]
    recorded = ("reproduced", "refuted", "inconclusive")
    rows = [f"| paper | {' | '.join(recorded)} |", "|---|---|---|---|"]
    papers = sorted({claim.paper for claim in claims}, key=lambda paper: (paper == "Theory", paper))
    for paper in papers:
        counts: Counter[str] = Counter(claim.recorded for claim in claims if claim.paper == paper)
        rows.append(f"| {paper} | {' | '.join(str(counts[verdict]) for verdict in recorded)} |")
    total: Counter[str] = Counter(claim.recorded for claim in claims)
    rows.append(f"| **all {len(claims)}** | {' | '.join(str(total[verdict]) for verdict in recorded)} |")
    return "\n".join(rows)


def every_claim() -> str:
    """Every executable claim with the verdict on record, a row each."""
    rows = ["| claim | verdict on record | tier | what was tested |", "|---|---|---|---|"]
    for claim in map(get_claim, claim_names()):
        rows.append(f"| `{claim.id}` | **{claim.recorded}** | {claim.tier} | {claim.statement} |")
    return "\n".join(rows)


@document("docs/metrics.md")
def metrics_page() -> str:
    """The glossary of all metrics."""
    return (
        "# Metrics\n\nOne formula per name. A metric without data is NaN. The last two columns give the name of the\n"
        "same formula in the engines, where they have one.\n\n" + glossary_table()
    )


@document("docs/claims.md")
def claims_page() -> str:
    """The ledger, then every executable claim."""
    return f"{ledger_page()}\n\n## All executable claims\n\n{every_claim()}"


document("docs/objectives.md")(objectives_page)


@document("docs/calibration.md")
def calibration() -> str:
    """How often the suite is wrong, as last measured."""
    return calibration_page(json.loads(CALIBRATION.read_text(encoding="utf-8")))


@document("docs/replication.md")
def replication() -> str:
    """Which verdicts are the same under other master seeds, as last measured."""
    return replication_page(json.loads(REPLICATION.read_text(encoding="utf-8")))


@document("docs/diagnose.md")
def diagnoses() -> str:
    """How often the doctor is right, as last measured."""
    simulated, trained = (json.loads(path.read_text(encoding="utf-8")) for path in (DIAGNOSES, TRAINED_RECORD))
    return diagnose_page(simulated, trained)


@document("docs/conformance.md")
def conformance() -> str:
    """Every difference between an engine and a published objective, as last compared."""
    return differences_page(read_table(CONFORMANCE))


@document("docs/pretrained.md")
def pretrained() -> str:
    """A pretrained model, as last measured."""
    return pretrained_page(json.loads(PRETRAINED.read_text(encoding="utf-8")))


def render(name: str) -> tuple[Path, str]:
    """The file of a document and its full, current content.

    Raises:
        UnknownNameError: no such document.
        ConfigError: the file lacks the markers of the part.
    """
    content = documents[name]().rstrip() + "\n"
    file, _, part = name.partition("#")
    path = ROOT / file
    if not part:
        return path, content
    start, end = f"<!-- generated: {part} -->", f"<!-- end: {part} -->"
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(start)}\n.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ConfigError(f"{file} has no part {part!r}; expected the lines {start} and {end} around it")
    return path, pattern.sub(lambda _: f"{start}\n{content}{end}", text)


def write_all() -> list[Path]:
    """Write every document; returns the files that changed."""
    changed = []
    for name in documents.names():
        path, content = render(name)
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    for written in write_all():
        print(written.relative_to(ROOT))
