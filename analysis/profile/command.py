"""`testbed profile`: a profile with its summary and picture in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.profile.measure import measure
from analysis.profile.profile import LIKELY, Profile
from envs.math_tasks import check_available as check_task
from envs.math_tasks import load_task
from models.causal_lm import check_available, load_causal_lm
from testbed.output import fresh_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["profile_figure", "run"]

PROFILE_FILE, SUMMARY_FILE, PICTURE_FILE = "profile.npz", "summary.json", "profile.svg"


def run(
    model: str,
    task: str,
    *,
    out: Path,
    split: str | None = None,
    template: str | None = None,
    chat: bool = False,
    problems: int = 48,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    stop: Sequence[str] = (),
    dtype: str = "float32",
    seed: int = 0,
    say: Callable[[str], None],
) -> Profile:
    """Measure a profile and write it down.

    Args:
        model: as `models.causal_lm.load_causal_lm` takes it.
        task: as `envs.math_tasks.load_task` takes it.
        out: a new folder.
        split: of the task.
        template: of the prompts.
        chat: whether prompts are put into the model's chat template.
        problems: how many are answered, once each.
        max_new_tokens: limit on the length of an answer.
        temperature: of the sampling.
        stop: strings that end an answer.
        dtype: of the weights.
        seed: of the sampling.
        say: prints a line.

    Raises:
        ConfigError: as the model, the task or `measure`.
    """
    check_available(model)
    check_task(task)
    with fresh_folder(out) as folder:
        loaded = load_task(task, split=split, template=template, limit=problems)
        language_model, tokenizer = load_causal_lm(model, dtype=dtype)
        if chat:
            loaded = loaded.with_chat_template(tokenizer)
        facts = {
            "model": model,
            "task": loaded.name,
            "template": template,
            "chat": chat,
            "problems": len(loaded),
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "stop": list(stop),
            "dtype": dtype,
            "seed": seed,
            "date": datetime.now(UTC).date().isoformat(),
            "versions": {package: metadata.version(package) for package in ("torch", "transformers")},
        }
        done = measure(
            language_model,
            tokenizer,
            [problem.prompt for problem in loaded],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            stop=stop,
            seed=seed,
            facts=facts,
        )
        write(done, folder)
    for line in lines(done):
        say(line)
    say(f"profile: {folder / PROFILE_FILE}")
    return done


def write(done: Profile, folder: Path) -> None:
    """The three files of a profile."""
    from analysis.plots import save

    done.write(folder / PROFILE_FILE)
    text = json.dumps({"facts": done.facts, **done.summary()}, indent=1) + "\n"
    (folder / SUMMARY_FILE).write_text(text, encoding="utf-8")
    save(profile_figure(done), folder / PICTURE_FILE)


def lines(done: Profile) -> list[str]:
    """What a profile says, for a terminal."""
    found = done.summary()
    probability, entropy = found["probability"], found["entropy"]
    return [
        f"{found['positions']:,} tokens of {done.facts.get('problems', '?')} answers of {done.facts.get('model', '?')}",
        f"probability  mean {probability['mean']:.3f}  median {probability['quantiles']['0.5']:.3f}  "
        + "  ".join(f"above {level:g}: {probability['shares_above'][f'{level:g}']:.1%}" for level in LIKELY),
        f"entropy      mean {entropy['mean']:.3f} nats  median {entropy['quantiles']['0.5']:.3f}  "
        f"90 %: {entropy['quantiles']['0.9']:.3f}",
        f"tail         {found['tail']['mean']:.2%} of the probability beyond the {done.tokens.shape[1]} likeliest",
    ]


def profile_figure(done: Profile) -> Figure:
    """Distribution of the probability and the entropy of drawn tokens, and entropy by position."""
    from matplotlib.figure import Figure

    from analysis.plots import OKABE_ITO

    figure = Figure(figsize=(10, 3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    count = len(done.log_prob)
    shares = np.arange(1, count + 1) / count
    values: Any = np.sort(np.exp(done.log_prob))
    left.step(values, shares, color=OKABE_ITO[0])
    left.axvline(0.9, color=OKABE_ITO[1], linestyle=":")
    left.set(xlabel="probability of the drawn token", ylabel="share of tokens at or below", xlim=(0, 1), ylim=(0, 1))
    middle.step(np.sort(done.entropy), shares, color=OKABE_ITO[0])
    middle.set(xlabel="entropy (nats)", ylabel="share of tokens at or below", ylim=(0, 1), xlim=(0, None))
    rows = done.summary()["entropy"]["by_position"]
    right.plot([row["position"] for row in rows], [row["mean"] for row in rows], color=OKABE_ITO[2])
    right.set(xlabel="position in the response", ylabel="mean entropy (nats)", ylim=(0, None), xlim=(0, None))
    return figure
