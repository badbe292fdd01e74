"""Profiles of tokens: distributions known beforehand, tables against a second way to them, and the file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.profile import measure, read_profile
from analysis.profile.command import run
from models.causal_lm import complete, load_causal_lm
from models.prompts import encode_prompts
from testbed.errors import ConfigError

PROMPTS = [f"{number}+{number * 7}=" for number in range(10)]


@pytest.fixture(scope="module")
def small() -> Any:
    return load_causal_lm("qwen2-0.1m")


def test_a_model_that_knows_nothing_has_uniform_tokens() -> None:
    model, tokenizer = load_causal_lm("qwen2-0.1m")
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    done = measure(model, tokenizer, PROMPTS, max_new_tokens=6)
    # 259 tokens, each with probability 1/259: entropy log 259, and all but 64 of them are the tail.
    np.testing.assert_allclose(np.exp(done.log_prob), 1 / 259, rtol=1e-5)
    np.testing.assert_allclose(done.entropy, math.log(259), rtol=1e-6)
    np.testing.assert_allclose(done.tail, 195 / 259, rtol=1e-6)
    summary = done.summary()
    assert summary["probability"]["shares_above"] == {"0.8": 0.0, "0.9": 0.0, "0.95": 0.0}
    assert summary["entropy"]["quantiles"]["0.5"] == pytest.approx(math.log(259))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tables_are_those_of_the_distribution_that_was_drawn_from(small: Any, temperature: float) -> None:
    model, tokenizer = small
    settings: Any = {"max_new_tokens": 5, "temperature": temperature, "seed": 3}
    done = measure(model, tokenizer, PROMPTS, **settings)
    written = complete(model, tokenizer, PROMPTS, batch_size=64, **settings)
    assert [len(done.problem[done.problem == row]) for row in range(10)] == [len(item.ids) for item in written]
    # Token by token, without a batch or padding.
    for row, (prompt, item) in enumerate(zip(encode_prompts(tokenizer, PROMPTS), written, strict=True)):
        text = list(prompt)
        for place, token in enumerate(item.ids):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([text])).logits[0, -1].double() / temperature
            expected = torch.softmax(logits, -1)
            (index,) = np.flatnonzero((done.problem == row) & (done.position == place))
            assert math.exp(done.log_prob[index]) == pytest.approx(float(expected[token]), rel=1e-4)
            assert done.entropy[index] == pytest.approx(float(-(expected * expected.log()).sum()), rel=1e-4)
            best, order = expected.sort(descending=True)
            np.testing.assert_allclose(np.exp(done.log_probs[index]), best[:64], rtol=1e-4)
            assert done.tokens[index, 0] == order[0]
            assert done.tail[index] == pytest.approx(float(best[64:].sum()), abs=1e-5)
            text.append(token)


def test_whole_problems_are_held_out(small: Any) -> None:
    done = measure(*small, PROMPTS, max_new_tokens=4)
    assert set(done.problem[done.held_out]) == {0, 5}
    assert not set(done.problem[~done.held_out]) & {0, 5}


def test_shares_and_positions_by_hand(small: Any) -> None:
    done = measure(*small, PROMPTS[:2], max_new_tokens=4)
    count = len(done.log_prob)
    likely = np.log(np.linspace(0.7, 1.0, count)).astype(np.float32)
    changed = type(done)(**{**vars(done), "log_prob": likely})
    above = [float((np.linspace(0.7, 1.0, count) > level).mean()) for level in (0.8, 0.9, 0.95)]
    assert list(changed.summary()["probability"]["shares_above"].values()) == pytest.approx(above)
    first = done.summary()["entropy"]["by_position"][0]
    assert first == {"position": 0, "tokens": 2, "mean": pytest.approx(done.entropy[done.position == 0].mean())}


def test_the_file_is_read_back_and_small(small: Any, tmp_path: Path) -> None:
    done = measure(*small, PROMPTS, max_new_tokens=4, facts={"model": "qwen2-0.1m"})
    done.write(tmp_path / "profile.npz")
    again = read_profile(tmp_path / "profile.npz")
    assert again.facts == {"model": "qwen2-0.1m"}
    for name in ("problem", "position", "held_out", "log_prob", "entropy", "tokens", "log_probs", "tail"):
        np.testing.assert_array_equal(getattr(again, name), getattr(done, name))


def test_rejects_what_is_no_profile(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"is no profile: .*expected a file that testbed"):
        read_profile(tmp_path / "x.npz")


def test_rejects_a_temperature_of_nothing(small: Any) -> None:
    with pytest.raises(ConfigError, match="temperature is 0; expected more than 0"):
        measure(*small, PROMPTS, max_new_tokens=4, temperature=0)


def test_the_command_leaves_three_files_and_says_what_it_saw(tmp_path: Path) -> None:
    said: list[str] = []
    run("qwen2-0.1m", "arithmetic(level=2,count=6)", out=tmp_path / "out", max_new_tokens=4, say=said.append)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"profile.npz", "summary.json", "profile.svg"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["facts"]["problems"] == 6
    assert summary["positions"] == len(read_profile(tmp_path / "out" / "profile.npz").log_prob)
    assert said[0].startswith(f"{summary['positions']} tokens of 6 answers of qwen2-0.1m")


def test_the_profile_of_the_repository_is_whole() -> None:
    file = Path(__file__).resolve().parents[3] / "envs" / "profiles" / "smollm2_gsm8k.npz"
    done = read_profile(file)
    assert file.stat().st_size < 1.5 * 2**20
    assert len(done.log_prob) >= 2000
    # Of single-precision numbers: what is kept and the rest are everything.
    np.testing.assert_allclose(np.exp(done.log_probs.astype(np.float64)).sum(1) + done.tail, 1, atol=2e-6)
    assert (np.diff(done.log_probs, axis=1) <= 0).all()
    assert (done.held_out == (done.problem % 5 == 0)).all()
    assert done.facts["model"] == "smollm2-135m"
    summary = json.loads(file.with_suffix(".json").read_text())
    assert summary["probability"] == done.summary()["probability"]
