"""The comparison as a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.judging.result import ClaimResult
from analysis.report.formatting import number
from analysis.transfer.outcome import Transfer, means

__all__ = ["summary_rows", "write_page"]

_SIDES = {"greater": ">", "less": "<", "equivalent": "within ±"}


def summary_rows(transfer: Transfer) -> list[tuple[str, ...]]:
    """One row per claim: name, the two verdicts with estimate, interval and seeds, and whether they agree."""
    return [
        (outcome.name, _brief(outcome.toy), _brief(outcome.language_model), outcome.agreement)
        for outcome in transfer.outcomes
    ]


def write_page(transfer: Transfer, path: Path) -> None:
    """Write the table, then every claim with what was asked, found and meant on both sides."""
    facts = transfer.facts
    scale = facts["scale"]
    lines = [
        "# Toy against language model",
        "",
        f"{facts['date']}, {facts['device']}, {facts['runs']} runs of {' and '.join(scale['models'].values())} on "
        f"{scale['train']['source']}, {facts['seconds']:.0f} s. "
        + ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
        + ".",
        "",
        f"`{facts['command']}`",
        "",
        "Intervals are over seeds. The two sides measure different things in different units: what can agree is "
        "the verdict on the statement, not the estimate.",
        "",
        *_table(("claim", "toy", "language model", ""), summary_rows(transfer)),
    ]
    for outcome in transfer.outcomes:
        lines += ["", f"## {outcome.title}", "", f"What differs beside the model: {outcome.difference}", ""]
        rows = [
            (what, _cell(toy), _cell(model))
            for what, toy, model in (
                ("statement", outcome.toy.claim.statement, outcome.language_model.claim.statement),
                ("estimand", outcome.toy.estimand, outcome.language_model.estimand),
                ("estimate", _estimate(outcome.toy), _estimate(outcome.language_model)),
                ("claimed", _claimed(outcome.toy), _claimed(outcome.language_model)),
                ("verdict", outcome.toy.verdict, outcome.language_model.verdict),
                ("reason", outcome.toy.reason, outcome.language_model.reason),
                ("arms, means over rollouts and seeds", _means(outcome.toy), _means(outcome.language_model)),
                ("falsifier", _falsifier(outcome.toy), _falsifier(outcome.language_model)),
                ("scope", outcome.toy.claim.scope, outcome.language_model.claim.scope),
            )
        ]
        lines += _table(
            ("", f"toy: {outcome.toy.claim.id}", f"language model: {outcome.language_model.claim.id}"), rows
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _brief(side: ClaimResult) -> str:
    return f"{side.verdict}: {_estimate(side)}, claimed {_claimed(side)}"


def _estimate(side: ClaimResult) -> str:
    if side.interval is None:
        return f"{number(side.estimate)}, no interval, {side.seeds} seeds"
    low, high = side.interval
    shown = (number(value, width=high - low) for value in (side.estimate, low, high))
    estimate, low_shown, high_shown = shown
    return f"{estimate} [{low_shown}, {high_shown}] ({side.level:.0%}), {side.seeds} seeds"


def _claimed(side: ClaimResult) -> str:
    return f"{_SIDES[side.direction]} {number(side.threshold)} {side.claim.unit}"


def _means(side: ClaimResult) -> str:
    return "; ".join(
        f"{metric}: " + ", ".join(f"{arm} {number(value)}" for arm, value in arms.items())
        for metric, arms in means(side).items()
    )


def _falsifier(side: ClaimResult) -> str:
    sabotaged, bounds = side.falsifier, side.falsifier.interval
    shown = "" if bounds is None else f" [{number(bounds[0])}, {number(bounds[1])}]"
    return f"{sabotaged.description} {sabotaged.verdict}: {number(sabotaged.estimate)}{shown}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *([_cell(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]
