"""What a claim has to say before it may be judged."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from analysis.claims import ExactClaim
from analysis.judging.claim import Falsifier, Null
from analysis.judging.estimands import difference, final
from analysis.statistics import MINIMUM_SEEDS
from testbed.errors import ConfigError
from testbed.registry import Registry
from tests.analysis.judging.small import QUICK, RETURN, SHARED, small_claim


@pytest.mark.parametrize(
    "change", [{"threshold": 0.06}, {"statement": "another"}, {"setting": QUICK | {"steps": 7}}, {"unit": "nats"}]
)
def test_protocol_hash_changes_with_the_protocol(change: dict[str, Any]) -> None:
    assert small_claim().protocol_hash(8, 0) != small_claim(**change).protocol_hash(8, 0)
    assert small_claim().protocol_hash(8, 0) == small_claim().protocol_hash(8, 0)
    assert small_claim().protocol_hash(8, 0) != small_claim().protocol_hash(8, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": " "}, "claim test/large-steps: source is empty"),
        ({"unit": ""}, "unit is empty"),
        ({"falsifier": Falsifier("")}, "its falsifier has no description"),
        ({"falsifier": Falsifier("x")}, "its falsifier replaces no arm"),
        ({"falsifier": Falsifier("x", {"big": {}})}, r"the falsifier replaces \['big'\]"),
        ({"acts": (("none", "clip/fraction"),)}, "the estimand reads"),
        ({"id": None}, "claim None: id is empty"),
        ({"source": None}, "source is empty"),
        ({"statement": 3}, "statement is 3; expected text"),
        ({"falsifier": None}, "claim test/large-steps: falsifier is None; a claim that cannot fail is rejected"),
        ({"estimand": None}, "estimand is None; expected an Estimand"),
        ({"threshold": "a"}, "threshold is 'a'; expected a finite number"),
        ({"threshold": math.nan}, "threshold is nan; expected a finite number"),
        ({"threshold": -0.1, "direction": "equivalent"}, "threshold is -0.1; expected a positive number"),
        ({"planted": math.inf}, "planted is inf; expected a finite number"),
        ({"direction": "up"}, "direction is 'up'; expected one of greater, less, equivalent"),
        ({"statistic": "mode"}, "statistic is 'mode'; expected one of mean, iqm"),
        ({"tier": "x"}, "tier is 'x'; expected one of quick, full, networks"),
        ({"recorded": "maybe"}, "recorded is 'maybe'; expected one of reproduced, refuted, inconclusive"),
        ({"seeds": 3}, "seeds is 3; expected a whole number of at least 5; fewer never give a verdict"),
        ({"seeds": 8.0}, "seeds is 8.0"),
        ({"level": 1.0}, "level is 1.0; expected a number between 0 and 1, such as 0.99"),
        ({"setting": QUICK | {"env": "Nope"}}, "claim test/large-steps: unknown environment 'Nope'"),
        ({"setting": QUICK | {"env": "RareArm-v1(arm=8)"}}, "RareArm-v1 has no parameter 'arm'; did you mean 'arms'"),
        ({"setting": QUICK | {"step": 8}}, "unknown argument of simulate 'step'; did you mean 'steps'"),
        (
            {"setting": QUICK | {"steps": 0}},
            "claim test/large-steps: steps is 0; expected a whole number of at least 1",
        ),
        ({"setting": QUICK | {"seeds": 8}}, "unknown argument of simulate 'seeds'"),
        ({"setting": QUICK | {"model": "tabula"}}, "unknown model 'tabula'; did you mean 'tabular'"),
        ({"setting": {}}, "an arm has no env; give it in the setting or in every arm"),
        ({"arms": {"large": {}, "tiny": {}}}, "an arm has no objective"),
        ({"arms": {"large": {"objective": "pop"}, "tiny": {"objective": "ppo"}}}, "unknown objective 'pop'"),
        ({"acts": (("large", "clip/fractions"),)}, "unknown metric 'clip/fractions'; did you mean 'clip/fraction'"),
        ({"curves": ("exact/entropi",)}, "unknown metric 'exact/entropi'; did you mean 'exact/entropy'"),
        ({"null": Null({"env": "NullBandi-v1"}, RETURN)}, "did you mean 'NullBandit-v1'"),
        ({"null": Null({}, difference(final("exact/return"), of="large", minus="none"))}, "the estimand reads"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_rejected_at_construction(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_claim(**changes)


def test_an_exact_claim_needs_a_sabotaged_measurement() -> None:
    exact: dict[str, Any] = SHARED | {"id": "test/exact", "measure": lambda: 0.0, "tolerance": 1.0}
    with pytest.raises(ConfigError, match="its falsifier has no measure"):
        ExactClaim(**exact, falsifier=Falsifier("none"))
    off = Falsifier("off by two", measure=lambda: 2.0)
    for name, value in (("tolerance", math.nan), ("tolerance", "1"), ("measure", 0.0), ("tier", "slow")):
        with pytest.raises(ConfigError, match=f"claim test/exact: {name} is {value!r}; expected"):
            ExactClaim(**exact | {name: value}, falsifier=off)


EXACT = {
    "id": "'paper/none'",
    "paper": "'P'",
    "title": "'t'",
    "source": "'s'",
    "statement": "'s'",
    "scope": "'s'",
    "unit": "'u'",
    "recorded": "'reproduced'",
    "falsifier": "Falsifier('f', measure=lambda: 2.0)",
    "measure": "lambda: 0.0",
    "tolerance": "1.0",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"falsifier": None}, "falsifier"),
        ({"source": None}, "source"),
        ({"unit": None}, "unit"),
        ({"falsifier": "None"}, "claim paper/none: falsifier is None"),
        ({"source": "None"}, "claim paper/none: source is empty"),
        ({"unit": "''"}, "claim paper/none: unit is empty"),
        ({"recorded": "'maybe'"}, "claim paper/none: recorded is 'maybe'"),
        ({"tolerance": "make_spec('Nope').states"}, "unknown environment 'Nope'"),
    ],
)
def test_a_claim_file_that_cannot_be_loaded_is_named(
    changes: dict[str, str | None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A value of None leaves the field out.
    written = ", ".join(f"{name}={value}" for name, value in (EXACT | changes).items() if value is not None)
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "shelf" / "paper.py").write_text(
        "from analysis.claims import ExactClaim\nfrom analysis.judging.claim import Falsifier\n"
        f"from envs import make_spec\nExactClaim({written})\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shelf", raising=False)
    with pytest.raises(ConfigError, match=rf"shelf/paper\.py cannot be loaded: .*{message}"):
        Registry("claim", package="shelf").names()
    del sys.modules["shelf"]


def test_a_claim_is_checked_without_making_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envs.catalogue.Environment.assemble", lambda *_, **__: pytest.fail("tables were made"))
    small_claim(setting=QUICK | {"env": "ModularSum-v1(length=11,modulus=9)"})


def test_the_calibration_plants_twice_the_threshold_unless_the_claim_says_what() -> None:
    assert small_claim(threshold=0.25).planted_effect == 0.5
    assert small_claim(threshold=0.25, planted=0.75).planted_effect == 0.75


def test_the_fewest_seeds_that_give_a_verdict_are_allowed() -> None:
    assert small_claim(seeds=MINIMUM_SEEDS).seeds == MINIMUM_SEEDS
    with pytest.raises(ConfigError, match="seeds is 4; expected a whole number of at least 5"):
        small_claim(seeds=MINIMUM_SEEDS - 1)


def test_a_claim_cannot_be_written_to() -> None:
    with pytest.raises(AttributeError, match="cannot assign"):
        small_claim().threshold = 0.0  # type: ignore[misc]
