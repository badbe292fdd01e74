"""The comparison itself, with engines made up here; the real ones have files of their own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math

import pytest
import torch

from testbed.engines.conformance import (
    AGREEMENT,
    Comparison,
    Engine,
    _digits,
    conformance_table,
    engine_names,
    engines,
    format_conformance,
)
from testbed.errors import ConfigError, TestbedWarning, UnknownNameError
from testbed.objectives import objective_names


def surrogate(batch, high=1.2):
    """Token-mean PPO written down once more, with autograd through `torch.where`."""
    ratio, advantages = (batch.log_probs - batch.old_log_probs).exp(), batch.advantages
    held = torch.where(advantages > 0, ratio.clamp(max=high), ratio.clamp(min=0.8))
    return -(held * advantages).where(batch.mask, 0).sum() / batch.mask.sum()


@pytest.fixture
def install(monkeypatch):
    """Registers an engine of these comparisons, installed in version 1.16.0 unless said otherwise."""

    def register(*comparisons, version="1.16.0"):
        engine = Engine(name="toy", tested="1.16", extra="llm", comparisons=comparisons)
        engine_names()
        monkeypatch.setitem(engines._items, "toy", engine)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
        return conformance_table("toy")

    return register


def test_agreement_is_measured_on_loss_and_gradient(install):
    row = install(Comparison(objective="ppo", setting="clip", loss=surrogate)).iloc[0]
    assert max(row["loss"], row["gradient"]) <= 1e-15
    assert (row["differs"], row["reproduced_by"]) == ("", "")
    assert row["as_expected"]


def test_a_difference_is_explained_shown_and_reproduced(install):
    row = install(
        Comparison(
            objective="ppo",
            setting="clip-higher",
            loss=lambda batch: surrogate(batch, high=1.6),
            because="the upper bound is 1.6",
            reproduced_by="ppo(clip_high=0.6)",
        )
    ).iloc[0]
    assert min(row["loss"], row["gradient"]) > 1e-3
    assert max(row["reproduced_loss"], row["reproduced_gradient"]) <= 1e-15
    assert row["as_expected"]
    # Of the ratios 1, 1.5, …, 1.5 with A = 1 is the first that 1.2 holds and 1.6 does not.
    assert row["differs"] == (
        "the upper bound is 1.6; smallest: ratio 1.5 with A = 1 (q = 0.25): loss -1.2 here, -1.5 there, "
        "gradient 0 here, -1.5 there"
    )


def test_a_difference_nobody_expected_is_marked(install):
    row = install(Comparison(objective="ppo", setting="halved", loss=lambda batch: surrogate(batch) / 2)).iloc[0]
    assert not row["as_expected"]
    assert row["differs"].startswith("of a reason unknown to this table; smallest: ratio 1 with A = 1 ")


def test_an_agreement_nobody_expected_is_marked(install):
    row = install(Comparison(objective="ppo", setting="clip", loss=surrogate, because="it used to differ")).iloc[0]
    assert not row["as_expected"]


def test_a_reproduction_that_fails_is_marked(install):
    row = install(
        Comparison(
            objective="ppo",
            setting="clip-higher",
            loss=lambda batch: surrogate(batch, high=1.6),
            because="the upper bound is 1.6",
            reproduced_by="ppo(clip_high=0.5)",
        )
    ).iloc[0]
    assert not row["as_expected"]


def test_a_gradient_that_is_not_a_number_differs(install):
    def broken(batch):
        return surrogate(batch) * (batch.log_probs.sum() * 0 + math.nan)

    row = install(Comparison(objective="ppo", setting="nan", loss=broken)).iloc[0]
    assert row["loss"] == row["gradient"] == math.inf


def test_a_lost_gradient_differs_although_the_loss_agrees(install):
    def detached(batch):
        return surrogate(batch).detach() + 0 * batch.log_probs.sum()

    row = install(Comparison(objective="ppo", setting="detached", loss=detached)).iloc[0]
    assert row["loss"] <= 1e-15
    assert row["gradient"] == 1


def test_every_other_objective_is_listed_as_absent(install):
    table = install(Comparison(objective="ppo(dual_clip=3.0)", setting="clip", loss=surrogate))
    absent = table[table["setting"] == "absent"]
    assert set(absent["objective"]) == set(objective_names()) - {"ppo"}
    assert absent["loss"].isna().all()


def test_the_text_has_a_line_each_and_names_what_is_absent(install):
    table = install(
        Comparison(objective="ppo", setting="clip", loss=surrogate),
        Comparison(
            objective="ppo",
            setting="clip-higher",
            loss=lambda batch: surrogate(batch, high=1.6),
            because="the upper bound is 1.6",
            reproduced_by="ppo(clip_high=0.6)",
        ),
    )
    lines = format_conformance(table).splitlines()
    assert lines[0].split() == ["objective", "engine", "loss", "agrees", "to", "gradient", "agrees", "to"]
    assert lines[1].split() == ["ppo", "clip", "1e-16", "1e-16"]
    assert lines[2].split() == ["ppo", "clip-higher", "differs", "differs"]
    assert lines[3].startswith("    differs because the upper bound is 1.6; smallest: ")
    assert lines[4] == "    reproduced by ppo(clip_high=0.6): 1e-16 and 1e-16"
    assert lines[5].startswith("not in this engine: adaptive_entropy, aspo, ")


@pytest.mark.parametrize(
    ("difference", "text"),
    [(0.0, "1e-16"), (1e-20, "1e-16"), (1e-12, "1e-12"), (1.1e-12, "1e-11"), (2e-6, "differs"), (math.inf, "differs")],
)
def test_digits_round_up(difference, text):
    assert _digits(difference) == text
    assert _digits(math.nan) == "differs"


def test_agreement_is_nine_digits():
    assert AGREEMENT == 1e-9


def test_unknown_engine_is_explained():
    with pytest.raises(UnknownNameError, match=r"unknown engine 'vrel'; did you mean 'verl'\? Known: .*, trl, verl"):
        conformance_table("vrel")


@pytest.mark.parametrize(("engine", "extra"), [("trl", "llm"), ("verl", "verl")])
def test_absent_engine_names_the_extra(monkeypatch, engine, extra):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=rf'{engine} is not installed; pip install "policy-objective-testbed\[{extra}\]"'
    ):
        conformance_table(engine)


@pytest.mark.parametrize("version", ["1.17.0", "1.160.0", "2.0.0"])
def test_untested_version_warns_and_runs(install, version):
    with pytest.warns(TestbedWarning, match=rf"toy {version} is outside the tested range 1\.16\.\*; the"):
        table = install(Comparison(objective="ppo", setting="clip", loss=surrogate), version=version)
    assert table.iloc[0]["as_expected"]


@pytest.mark.parametrize("version", ["1.16", "1.16.3"])
def test_tested_version_is_silent(install, version):
    assert install(Comparison(objective="ppo", setting="clip", loss=surrogate), version=version).iloc[0]["as_expected"]
