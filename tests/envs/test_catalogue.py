from __future__ import annotations

import importlib
import sys
from dataclasses import fields

import gymnasium
import pytest
import torch

import envs
from envs import env_names, make_spec
from envs.catalogue import ENVIRONMENTS
from testbed.errors import ConfigError, UnknownNameError, shown


def test_names_are_sorted_and_versioned():
    assert env_names() == sorted(env_names())
    assert {"NullBandit-v1", "ModularSum-v1", "Arithmetic-v1"} <= set(env_names())
    assert all(name.rpartition("-v")[2].isdigit() for name in env_names())


def test_every_environment_is_known_to_gymnasium():
    known = {spec_id for spec_id in gymnasium.registry if spec_id.startswith("testbed/")}
    assert {f"testbed/{name}" for name in env_names()} <= known


@pytest.mark.parametrize("name", ["RareArm-v1", "testbed/RareArm-v1", "rare-arm", "rare_arm", "RareArm", "rarearm-v1"])
def test_forgiving_names(name):
    assert make_spec(name).name == "RareArm-v1"


NUMBERS = [
    (name, item.name) for name in env_names() for item in fields(ENVIRONMENTS[name]) if item.metadata["kind"] == "whole"
]


@pytest.mark.parametrize("value", [99_999_999_999, 10**24, 10**399])
@pytest.mark.parametrize(("name", "parameter"), NUMBERS)
def test_sizes_beyond_reason_are_refused_before_anything_is_built(name, parameter, value, monkeypatch):
    def build(*_, **__):
        raise AssertionError("something is built")

    monkeypatch.setattr(f"{ENVIRONMENTS[name].__module__}.{ENVIRONMENTS[name].__qualname__}.automaton", build)
    with pytest.raises(ConfigError, match=rf"{name}.* {parameter} (is )?{shown(value)}.*; expected ") as refused:
        make_spec(name, **{parameter: value})
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("name", env_names())
def test_numbers_beyond_the_largest_float_are_refused(name):
    for item in fields(ENVIRONMENTS[name]):
        if item.metadata["kind"] == "real":
            with pytest.raises(ConfigError, match=f"{name}: {item.name} is 10+…0+; expected a finite number"):
                make_spec(name, **{item.name: 10**399})


def test_numbers_near_the_largest_float_are_refused_by_the_table_they_spoil():
    with pytest.raises(ConfigError, match="Lock-v1: initial_logits holds NaN or infinity"):
        make_spec("Lock-v1(scale=1e308,initial=normal)")


@pytest.mark.parametrize("name", env_names())
def test_every_name_has_an_alias_in_lower_case(name):
    stem = name.rpartition("-v")[0]
    hyphened = "".join(f"-{c.lower()}" if c.isupper() else c for c in stem).strip("-")
    assert make_spec(hyphened).name == name


def test_parameters_in_the_name_and_beside_it():
    spec = make_spec("RareArm-v1(arms=10,reward=gaussian)", contexts=2)
    assert spec.transitions.shape == (2, 10)
    assert spec.reward_kind == "gaussian"
    assert spec.parameters["arms"] == 10
    assert spec.parameters["rare_probability"] == 0.01


def test_recorded_parameters_rebuild_the_spec():
    spec = make_spec("ModularSum-v1", length=2, vocabulary=4)
    again = make_spec(spec.name, **spec.parameters)
    assert torch.equal(again.transitions, spec.transitions)
    assert torch.equal(again.initial_logits, spec.initial_logits)


def test_unknown_name_offers_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown environment 'RareArn-v1'; did you mean 'RareArm-v1'"):
        make_spec("RareArn-v1")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("RareArm-v1", {"arm": 3}, "RareArm-v1 has no parameter 'arm'; did you mean 'arms'"),
        ("RareArm-v1(arms=3)", {"arms": 3}, "arms is given twice"),
        ("RareArm-v1", {"arms": 1}, "arms is 1; expected a whole number of at least 2"),
        ("RareArm-v1", {"arms": 2.5}, "arms is 2.5; expected a whole number"),
        ("RareArm-v1", {"arms": True}, "arms is True; expected a whole number"),
        ("RareArm-v1", {"arms": "ten"}, "arms is 'ten'; expected a whole number"),
        ("RareArm-v1", {"rare_probability": 1.0}, "rare_probability is 1.0; expected .* strictly between 0.0 and 1.0"),
        ("RareArm-v1", {"rare_probability": float("nan")}, "rare_probability is nan; expected a finite number"),
        ("RareArm-v1", {"scale": -1.0}, "scale is -1.0; expected a finite number of at least 0"),
        ("RareArm-v1", {"initial": "zipff"}, "initial is 'zipff'; expected one of .*did you mean 'zipf'"),
        ("RareArm-v1", {"common_reward": 1.0}, "common_reward is 1.0; expected less than the rare_reward"),
        (
            "RareArm-v1",
            {"rare_reward": 2.0},
            "rare_reward is 2.0; expected a probability, because the reward is bernoulli",
        ),
        (
            "NullBandit-v1",
            {"reward": "deterministic"},
            "reward is 'deterministic'; expected one of bernoulli, gaussian",
        ),
        ("NeedleBandit-v1", {"gap": 0.0}, "gap is 0.0; expected a finite number above 0.0"),
        ("NeedleBandit-v1", {"gap": 0.8}, "gap is 0.8; expected base . gap of at most 1"),
        ("NeedleBandit-v1", {"arms": 4, "decoys": 4}, "decoys is 4; expected fewer than the 4 arms"),
        ("NeedleBandit-v1", {"decoy_gap": 0.5}, "decoy_gap is 0.5; expected less than"),
        ("MultiCorrectBandit-v1", {"arms": 4, "fraction": 0.9}, "fraction is 0.9; expected one that leaves"),
        ("MultiCorrectBandit-v1", {"wrong_reward": 1.0}, "wrong_reward is 1.0; expected less than"),
        ("DifficultyMixture-v1", {"a": 0.0}, "a is 0.0; expected a finite number above 0.0"),
        ("ModularSum-v1", {"vocabulary": 3}, "vocabulary is 3; expected at least the modulus of 4"),
        ("Copy-v1", {"prompts": 5, "length": 2, "vocabulary": 2}, r"prompts is 5; expected at most .* = 4"),
        ("VariableLength-v1", {"vocabulary": 3, "fraction": 0.9}, "fraction is 0.9; expected one that leaves"),
        ("VariableLength-v1", {"right_length": 2.0}, "right_length is 2.0; expected a finite number above 2.0"),
        ("DigitAddition-v1", {"prompts": 17, "digits": 1, "base": 4}, r"prompts is 17; expected at most .* = 16"),
        ("Arithmetic-v1", {"level": 9}, r"level is 9; expected a whole number in 1..5"),
        ("Arithmetic-v1", {"length": 2}, "length is 2; expected at least 3"),
    ],
)
def test_rejects(name, parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_spec(name, **parameters)


def test_a_new_file_is_found_without_any_edit(tmp_path, monkeypatch):
    (tmp_path / "throwaway.py").write_text(
        "from dataclasses import dataclass\n"
        "from envs.bandits import RareArm\n"
        "from envs.catalogue import environment\n"
        "@environment('Throwaway-v7')\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Throwaway(RareArm):\n"
        "    '''A file nobody had to mention.'''\n"
    )
    before = {name for name in sys.modules if name == "envs" or name.startswith("envs.")}
    saved = {name: sys.modules.pop(name) for name in before}
    ids = dict(gymnasium.registry)
    try:
        # A fresh import of the package with one more folder of files.
        gymnasium.registry.clear()
        package = importlib.util.module_from_spec(importlib.util.find_spec("envs"))
        package.__path__.append(str(tmp_path))
        monkeypatch.setitem(sys.modules, "envs", package)
        package.__spec__.loader.exec_module(package)
        assert "Throwaway-v7" in package.env_names()
        assert "testbed/Throwaway-v7" in gymnasium.registry
        assert package.make_spec("throwaway", arms=3).vocabulary == 3
    finally:
        for name in [name for name in sys.modules if name == "envs" or name.startswith("envs.")]:
            del sys.modules[name]
        sys.modules.update(saved)
        gymnasium.registry.clear()
        gymnasium.registry.update(ids)
    assert "Throwaway-v7" not in envs.env_names()
