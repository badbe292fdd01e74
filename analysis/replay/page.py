"""The page of a replay: one self-contained HTML file beside the tables it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import plots
from analysis.judging.result import ClaimResult
from analysis.replay.gates import Gate, entropy_gates, ratio_gates
from analysis.replay.measures import CLASSES
from analysis.replay.tallies import ENTROPY, ENTROPY_RATIO, PROBABILITY, RATIO
from analysis.replay.walk import Replay
from analysis.report import figures
from analysis.report.formatting import interval, measured, number
from analysis.report.results import VERDICTS
from analysis.report.templates import environment
from testbed.objectives import make_objective
from testbed.simulation.storage import write_atomically

__all__ = ["write_page"]

_CURVES = 6
"""Objectives whose shares are drawn over the run."""
_SIDES = (
    ("pa", "stopped/positive_above"),
    ("pb", "stopped/positive_below"),
    ("na", "stopped/negative_above"),
    ("nb", "stopped/negative_below"),
)
_KINDS = {"positive_low": "pa", "positive_high": "pb", "negative_high": "na", "negative_low": "nb"}
_PROBABILITY_TICKS, _RATIO_TICKS = (1e-4, 1e-2, 1), (0.5, 0.8, 1, 1.25, 2)
_ENTROPY_TICKS, _ENTROPY_RATIO_TICKS = (1e-3, 1e-2, 0.1, 1, 10), (0.5, 0.8, 1, 1.25, 2)


def write_page(done: Replay, claims: Sequence[ClaimResult], path: Path) -> Path:
    """Write the page.

    Args:
        done: the replay.
        claims: what was judged on the record.
        path: the file.
    """
    made = environment()
    made.filters["known"] = lambda verdict: verdict if verdict in VERDICTS else "other"
    page = made.get_template("replay.html").render(**_view(done, claims))
    return write_atomically(path, page.encode())


def _view(done: Replay, claims: Sequence[ClaimResult]) -> dict[str, Any]:
    record, summary, correlations = done.record, done.summary(), done.correlations()
    summary = summary.sort_values("stopped", ascending=False, kind="stable")
    classes = bool(summary["mass/positive_low"].notna().any())
    missing = [name for name in ("entropies", "kappas") if name not in record.columns]
    widest = {"stopped": max(float(summary["stopped"].max()), 1e-12), "mass": max(float(summary["mass"].max()), 1.0)}
    trained = record.objective
    rows = [_row(str(label), values, widest, str(label) == trained) for label, values in summary.iterrows()]
    chosen = [make_objective(row["label"]) for row in rows]
    gates = ratio_gates(chosen)
    gated = {label for gate in gates for label in gate.labels}
    settings = record.manifest.get("settings") or {}
    return {
        "name": record.path.resolve().name if record.path.name != "record" else record.path.resolve().parent.name,
        "path": str(record.path),
        "trained": trained,
        "tokens": f"{done.tokens:,}",
        "rollouts": f"{done.table['step'].nunique():,}",
        "rows": rows,
        "stopped_scale": _percent(widest["stopped"]),
        "mass_scale": _percent(widest["mass"]),
        "classes": classes,
        "missing_classes": " and ".join(missing) or "entropies and kappas",
        "naive": _naive(summary) if classes else "",
        "skipped": "; ".join(f"{name} ({reason})" for name, reason in done.skipped.items()),
        "ratio_panels": _ratio_panels(done, gates),
        "ungated": ", ".join(row["label"] for row in rows if row["label"] not in gated),
        "entropy_panels": _entropy_panels(done, entropy_gates(chosen)),
        "curves": _curves(done, rows, trained),
        "thirds": _thirds(done),
        "prediction": _prediction(done, correlations, trained),
        "predicted": _predicted(summary, trained),
        "heavy": _heavy(done, rows),
        "reductions": list(dict.fromkeys(done.lengths["reduction"])),
        "lengths": _lengths(done.lengths),
        "mismatch": _mismatch(done.mismatch),
        "claims": [_claim(result) for result in claims],
        "facts": {
            "folder": str(record.path),
            **{key: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for key, value in
               record.manifest.items() if key not in ("settings", "versions") and value != ""},
            **{str(key): str(value) for key, value in settings.items() if value not in ("", None)},
        },
    }  # fmt: skip


def _row(label: str, values: pd.Series, widest: Mapping[str, float], trained: bool) -> dict[str, Any]:
    classes = [(f"A{'>' if name[0] == 'p' else '<'}0, {name.split('_')[1]}", f"mass/{name}") for name in CLASSES]
    return {
        "label": label,
        "trained": trained,
        "stopped": _percent(values["stopped"]),
        "stopped_parts": _parts([(kind, values[name]) for kind, name in _SIDES], widest["stopped"]),
        "above": _percent(values["stopped/positive_above"]),
        "below": _percent(values["stopped/negative_below"]),
        "largest": number(values["weight/largest"]),
        "mass": _percent(values["mass"]),
        "mass_parts": _parts([(kind, values[f"mass/{name}"]) for name, kind in _KINDS.items()], widest["mass"]),
        "classes": [(name, _percent(values[column])) for name, column in classes],
        "longest": _percent(values["mass/longest_third"]),
    }


def _percent(value: float) -> str:
    if pd.isna(value):
        return "missing"
    return "0" if value == 0 else f"{100 * value:.3g}\u00a0%" if abs(value) >= 1e-5 else "<\u00a00.001\u00a0%"


def _parts(shares: Sequence[tuple[str, float]], whole: float) -> list[dict[str, Any]]:
    at, parts = 0.0, []
    for kind, share in shares:
        width = 0.0 if pd.isna(share) else 100 * float(share) / whole
        parts.append({"kind": kind, "at": round(at, 2), "width": round(width, 2)})
        at += width
    return parts


def _naive(summary: pd.DataFrame) -> str:
    """Share of the push whose class is another one by e^-H, under the objective that keeps most of it."""
    row = summary.iloc[int(summary["mass"].to_numpy().argmax())]
    moved = sum(abs(row[f"mass/{name}"] - row[f"naive_mass/{name}"]) for name in CLASSES) / 2 / row["mass"]
    return _percent(moved)


# -- pictures ----------------------------------------------------------------------------------------------------------


def _density(counts: np.ndarray, gate: Gate | None, *, entropy: bool, name: str, label: str) -> Any:
    x, y = (ENTROPY, ENTROPY_RATIO) if entropy else (PROBABILITY, RATIO)
    figure = plots.density_figure(
        counts,
        x.edges,
        y.edges,
        x_label=f"{x.name} (nats)" if entropy else x.name,
        y_label=y.name,
        x_ticks=_ENTROPY_TICKS if entropy else _PROBABILITY_TICKS,
        y_ticks=_ENTROPY_RATIO_TICKS if entropy else _RATIO_TICKS,
        gates=() if gate is None else (("A > 0", gate.positive), ("A < 0", gate.negative)),
    )
    return figures.inline(figure, name=name, label=label)


def _ratio_panels(done: Replay, gates: Sequence[Gate]) -> list[dict[str, Any]]:
    counts = done.densities.probability.sum(0)
    return [
        {
            "caption": ", ".join(gate.labels) + ("" if gate.acts else ": nothing is held back"),
            "svg": _density(
                counts, gate, entropy=False, name=f"gate-{index}",
                label=f"Recorded tokens by probability and ratio, with the gate of {', '.join(gate.labels)}",
            ),
        }
        for index, gate in enumerate(gates)
    ]  # fmt: skip


def _entropy_panels(done: Replay, gates: Sequence[Gate]) -> list[dict[str, Any]]:
    if done.densities.entropy is None:
        return []
    counts = done.densities.entropy.sum(0)
    shown: list[tuple[str, Gate | None]] = [(", ".join(gate.labels), gate) for gate in gates]
    return [
        {
            "caption": caption,
            "svg": _density(
                counts, gate, entropy=True, name=f"band-{index}",
                label=f"Recorded tokens by entropy and entropy ratio; {caption}",
            ),
        }
        for index, (caption, gate) in enumerate(shown or [("every recorded token that moved", None)])
    ]  # fmt: skip


def _thirds(done: Replay) -> list[dict[str, Any]]:
    found, densities = [], done.densities
    for index, (counts, (first, last)) in enumerate(zip(densities.probability, densities.rollouts, strict=True)):
        if first < 0:
            continue
        caption = f"rollouts {first} to {last}: {int(counts.sum()):,} tokens moved"
        label = f"Tokens by probability and ratio, {caption}"
        svg = _density(counts, None, entropy=False, name=f"third-{index}", label=label)
        found.append({"caption": caption, "svg": svg})
    return found if len(found) > 1 else []


def _curves(done: Replay, rows: Sequence[Mapping[str, Any]], trained: str) -> list[dict[str, Any]]:
    if done.rollouts["step"].nunique() < 2:
        return []
    # Those whose shares differ most: with many objectives every so many of the sorted ones.
    labels = [row["label"] for row in rows]
    places = np.linspace(0, len(labels) - 1, min(_CURVES, len(labels))).astype(int)
    picked = [labels[index] for index in np.unique(places)]
    if trained in labels and trained not in picked:
        picked[-1] = trained
    later = done.table[done.table["update"] > 0] if (done.table["update"] > 0).any() else done.table
    by_rollout = done.rollouts.groupby("step").mean()
    drawn = [
        ("Tokens stopped", "share of response tokens", {label: _of(later, label, "stopped") for label in picked}),
        ("Push kept", "share of Σ|rA|", {label: _of(later, label, "mass") for label in picked}),
        ("Effective sample size of the ratios", "share of the tokens",
         {"this run": _of(done.table, labels[0], "ratio/effective_sample_size")}),
        *(
            (title, unit, {"this run": by_rollout[column].dropna()})
            for title, unit, column in (
                ("Entropy at sampling time", "nats per token", "entropy/sampled"),
                ("Reward", "mean reward", "reward/mean"),
                ("Length", "tokens per response", "length/mean"),
            )
        ),
    ]  # fmt: skip
    return [
        {
            "title": title,
            "svg": figures.curve_svg(
                {
                    "title": title,
                    "x_label": "rollout",
                    "y_label": unit,
                    "series": [
                        {"label": label, "x": series.index.tolist(), "mean": series.tolist()}
                        for label, series in lines.items()
                    ],
                },
                name=f"curve-{index}",
            ),
        }
        for index, (title, unit, lines) in enumerate(drawn)
        if any(len(series) > 1 for series in lines.values())
    ]


def _of(table: pd.DataFrame, label: str, column: str) -> pd.Series:
    return table[table["objective"] == label].groupby("step")[column].mean()


# -- tables ------------------------------------------------------------------------------------------------------------


def _prediction(done: Replay, correlations: pd.Series, trained: str) -> dict[str, Any] | None:
    rows = done.prediction().dropna()
    if rows.empty:
        return None
    own = rows[rows["objective"] == trained]
    if own.empty:
        return {"sentence": "The objective that trained is not among those replayed, or was not recorded.", "svg": None}
    correlation = correlations.get(trained, np.nan)
    said = "too few rollouts for a correlation" if pd.isna(correlation) else f"correlation {number(correlation)}"
    figure = plots.scatter_figure(
        own["entropy/predicted"].tolist(),
        own["entropy/change"].tolist(),
        x_label="predicted, per unit of step size",
        y_label="measured (nats)",
    )
    svg = figures.inline(figure, name="prediction", label=f"Predicted against measured change of entropy, {said}")
    return {"sentence": f"{trained}, over {len(own)} rollouts: {said}.", "svg": svg}


def _predicted(summary: pd.DataFrame, trained: str) -> list[dict[str, Any]]:
    known = summary[summary["entropy/predicted"].notna()].sort_values("entropy/predicted")
    return [
        {
            "label": str(label),
            "trained": str(label) == trained,
            "predicted": number(row["entropy/predicted"]),
        }
        for label, row in known.iterrows()
    ]


def _heavy(done: Replay, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    heaviest = done.largest.sort_values("weight", ascending=False).drop_duplicates("objective").set_index("objective")
    return [
        {
            "objective": row["label"],
            "weight": number(token["weight"]),
            "place": f"rollout {token['step']}, update {token['update']}, prompt {str(token['prompt'])[:60]}, "
            f"token {token['position'] + 1}",
            **{name: number(token[name]) for name in ("probability", "entropy", "ratio", "advantage")},
        }
        for row in rows
        if row["label"] in heaviest.index
        for token in [heaviest.loc[row["label"]]]
    ]


def _lengths(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "span": str(first) if first == group["to"].iloc[0] else f"{first!s} to {group['to'].iloc[0]}",
            "responses": f"{int(group['responses'].iloc[0]):,}",
            "weights": [number(value) for value in group["weight"]],
        }
        for first, group in table.groupby("from")
    ]


def _mismatch(table: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {
            "span": f"{row['from']:g} to {row['to']:g}",
            "tokens": f"{int(row['tokens']):,}",
            **{name: number(row[name]) for name in ("difference", "size", "k3")},
        }
        for _, row in table.iterrows()
    ]


def _claim(result: ClaimResult) -> dict[str, str]:
    low_high = None if result.interval is None else list(result.interval)
    return {
        "id": result.claim.id,
        "verdict": result.verdict,
        "statement": result.claim.statement,
        "reason": result.reason,
        "estimate": measured(result.estimate, result.claim.unit),
        "interval": "" if low_high is None else interval(low_high),
    }
