from __future__ import annotations

import contextlib
import io
import json
import pickle
import random

import numpy as np
import pytest

from analysis.diagnose import diagnose
from analysis.diagnose.planted.base import lengths, sampler
from analysis.diagnose.planted.writers import CONTAINERS, write
from analysis.diagnose.terminal import page
from analysis.report.diagnosis import write_diagnosis_page
from testbed.errors import ConfigError, TestbedError

GOOD = {"reward": 0.5, "entropy": 0.4}


def written(tmp_path, content, name="log"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n  \n", "is empty"),
        ("\0" * 4096, "is empty"),
        ("hello\nworld\n", "holds no log that a reader knows"),
        ('{"a": 1}', "none of which an engine is known to log"),
        ('{"name": "x"}', "rows without numbers"),
        ("[1, 2, 3]", "holds no log"),
        ('{"log_history": []}', "holds no row"),
        ('{"log_history": 5}', "holds no row"),
        ("a,b,c\n1,2,3\n", "none of which"),
    ],
)
def test_what_is_no_log_is_one_sentence(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        diagnose(written(tmp_path, content))


def test_a_log_of_supervised_training_is_said_to_be_one(tmp_path):
    rows = [{"step": i, "loss": 2.0 - 0.01 * i, "grad_norm": 1.0, "mean_token_accuracy": 0.5} for i in range(30)]
    with pytest.raises(ConfigError, match="supervised training"):
        diagnose(written(tmp_path, json.dumps({"log_history": rows})))


def test_a_pickle_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("it was loaded",))

    bomb = written(tmp_path, pickle.dumps(Bomb()), "training_args.bin")
    log = written(tmp_path, json.dumps(GOOD))
    with pytest.raises(ConfigError, match="is a pickle, which is never loaded"):
        diagnose(log, bomb)
    with pytest.raises(ConfigError, match="is a pickle, which is never loaded"):
        diagnose(bomb)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        diagnose(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="is no file; expected a configuration"):
        diagnose(written(tmp_path, json.dumps(GOOD)), tmp_path / "nothing.yaml")


def test_a_line_without_an_end_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.diagnose.source.LONGEST_LINE", 1 << 16)
    monkeypatch.setattr("analysis.diagnose.source._CHUNK", 1 << 12)
    path = written(tmp_path, '{"step": 1, "reward": "' + "a" * (1 << 18))
    from analysis.diagnose.source import Source, pieces

    with pytest.raises(ConfigError, match="has a line of more than"):
        list(pieces(Source(path), 1 << 16))


def test_a_hundred_thousand_keys(tmp_path):
    row = {**GOOD, **{f"some/key_{i}": 1.0 for i in range(100_000)}}
    found = diagnose(written(tmp_path, "\n".join(json.dumps(row | {"step": i}) for i in range(3))))
    assert found.log.unrecognised_count == 100_000
    assert len(found.to_json()["unrecognised"]) <= 50


def test_steps_that_go_everywhere(tmp_path):
    steps = [5, 3, 9, 3, -2, 1e308, 7]
    text = "\n".join(json.dumps({"step": step, **GOOD}) for step in steps)
    series = diagnose(written(tmp_path, text)).log.series["reward/mean"]
    assert series.steps.tolist() == sorted(set(steps))


def test_hostile_keys_are_text_in_the_page(tmp_path):
    hostile = "</script><img src=x onerror=alert(1)>{{ 7 * 7 }}\x1b[31m"
    rows = [
        {"step": i, **GOOD, hostile: 1.0, f"rewards/{hostile}/mean": 0.0, "completions/clipped_ratio": 1.0}
        for i in range(20)
    ]
    path = written(tmp_path, "\n".join(map(json.dumps, rows)), "<b>name<b>.jsonl")
    found = diagnose(path)
    target = write_diagnosis_page(found, tmp_path / "page.html")
    html = target.read_text()
    assert "<img" not in html
    assert "<b>name" not in html
    assert "\x1b" not in html
    assert "\x1b" not in page(found)


def test_standard_input_that_never_breaks_its_line_is_not_copied_to_the_end(monkeypatch):
    monkeypatch.setattr("analysis.diagnose.source.LONGEST_UNBROKEN", 100)
    endless = io.BytesIO(b"{" + b"1" * 200)
    with pytest.raises(ConfigError, match="standard input has a line of more than 0 MiB"):
        diagnose("-", standard_input=endless)


def test_standard_input(tmp_path):
    text = "\n".join(json.dumps({"step": i, **GOOD}) for i in range(5))
    found = diagnose("-", standard_input=io.BytesIO(text.encode()))
    assert found.log.name == "standard input"
    assert len(found.log.series["reward/mean"]) == 5


def test_a_terminal_without_unicode_gets_plain_characters(tmp_path):
    rows = [{"step": i, **GOOD, "completions/clipped_ratio": 1.0, "kl": 0.01} for i in range(20)]
    text = page(diagnose(written(tmp_path, "\n".join(map(json.dumps, rows)))), ascii_only=True)
    assert text.isascii()
    assert "truncation" in text


def rows():
    draw = np.random.default_rng(0)
    n = 30
    made = {
        "step": np.arange(1.0, n + 1),
        "reward/mean": 0.3 + 0.01 * np.arange(n),
        "entropy/mean": 0.6 - 0.01 * np.arange(n),
        "kl/old": np.abs(draw.normal(0, 0.01, n)),
        "gradient/norm": np.abs(draw.normal(1, 0.1, n)),
        "loss": draw.normal(0, 0.1, n),
        "learning_rate": np.full(n, 1e-6),
    }
    return made | lengths(draw, np.full(n, 300.0), 2048) | sampler(draw, np.full(n, 0.02))


@pytest.mark.parametrize("engine", sorted(CONTAINERS))
def test_damaged_files_give_findings_or_one_sentence(tmp_path, engine):
    draw = random.Random(engine)
    tokens = [b"NaN", b"null", b"-1e999", b'"x"', b"{}", b"\x00", b"\xff\xfe", b"}", b"{", b"\n", b"step", b"'"]
    for container in range(len(CONTAINERS[engine])):
        log, config = write(tmp_path / str(container), engine, rows(), {"updates_per_rollout": 4}, container)
        sound = log.read_bytes()
        assert diagnose(log, config).log.engine.name == engine
        for _ in range(12):
            content = bytearray(sound)
            for _ in range(draw.choice([1, 3, 30])):
                place = draw.randrange(len(content))
                content[place : place + draw.choice([0, 1, 40])] = draw.choice(tokens)
            damaged = written(tmp_path, bytes(content[: draw.choice([len(content), len(content) // 2])]), "damaged")
            with contextlib.suppress(TestbedError):
                page(diagnose(damaged, config))
