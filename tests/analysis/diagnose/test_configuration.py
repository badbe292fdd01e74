from __future__ import annotations

import json

import pytest

from analysis.diagnose.configuration import read_configuration
from analysis.diagnose.engine import engines
from testbed.errors import ConfigError


def settings(given, engine):
    configuration = read_configuration(given, {})
    configuration.resolve(engines[engine])
    return configuration.settings.values


TRL_YAML = """
num_iterations: 2
steps_per_generation: 8
gradient_accumulation_steps: 4
epsilon: 0.2
epsilon_high: 0.28
learning_rate: 1e-6
loss_type: dapo
"""


@pytest.mark.parametrize("kind", ["yaml", "json", "command", "script"])
def test_one_configuration_in_four_forms(tmp_path, kind):
    import yaml

    path = tmp_path / "given"
    values = yaml.safe_load(TRL_YAML) | {"learning_rate": 1e-6}
    if kind == "yaml":
        path.write_text(TRL_YAML)
    elif kind == "json":
        path.write_text(json.dumps(values))
    else:
        flags = [f"--{key} {value}" for key, value in values.items()]
        command = "accelerate launch train.py " + (" \\\n  " if kind == "script" else " ").join(flags)
        if kind == "command":
            path = command
        else:
            path.write_text(f"#!/bin/bash\n# --num_iterations 99\nset -e\n{command}\n")
    found = settings(path, "trl")
    # 2 iterations of 8 micro-batches, 4 to an update.
    assert found["updates_per_rollout"] == 4
    assert (found["clip_low"], found["clip_high"]) == (0.2, 0.28)
    assert float(found["learning_rate"]) == 1e-6
    assert found["loss"] == "dapo"


def test_nested_and_dotted_keys_are_the_same(tmp_path):
    nested = {
        "data": {"train_batch_size": 256},
        "actor_rollout_ref": {"actor": {"ppo_mini_batch_size": 64, "ppo_epochs": 2}},
    }
    dotted = (
        "data.train_batch_size=256 actor_rollout_ref.actor.ppo_mini_batch_size=64 +actor_rollout_ref.actor.ppo_epochs=2"
    )
    assert settings(nested, "verl") == settings(dotted, "verl")
    assert settings(nested, "verl")["updates_per_rollout"] == 8


@pytest.mark.parametrize(
    ("engine", "given", "updates"),
    [
        ("trl", {"num_iterations": 1}, 1),
        ("trl", {"steps_per_generation": 16, "gradient_accumulation_steps": 4}, 4),
        (
            "trl",
            {
                "generation_batch_size": 512,
                "per_device_train_batch_size": 8,
                "num_processes": 8,
                "gradient_accumulation_steps": 2,
            },
            4,
        ),
        ("trl", {"learning_rate": 1e-6}, None),
        ("verl", {"data": {"train_batch_size": 512}}, None),
        (
            "openrlhf",
            {"rollout_batch_size": 128, "n_samples_per_prompt": 8, "train_batch_size": 256, "max_epochs": 1},
            4,
        ),
        ("slime", {"rollout_batch_size": 32, "n_samples_per_prompt": 8, "global_batch_size": 256}, 1),
        ("areal", {"actor": {"ppo_n_minibatches": 4}}, 4),
        ("tinker", {"num_substeps": 2}, 2),
        ("testbed", {"epochs": 4, "minibatches": 2}, 8),
    ],
)
def test_updates_per_rollout(engine, given, updates):
    assert settings(given, engine).get("updates_per_rollout") == updates


def test_tinkers_thresholds_are_ratios():
    found = settings({"loss_fn_config": {"clip_low_threshold": 0.8, "clip_high_threshold": 1.28}}, "tinker")
    assert found["clip_low"] == pytest.approx(0.2, rel=1e-12)
    assert found["clip_high"] == pytest.approx(0.28, rel=1e-12)


def test_trackers_wrap_their_values():
    assert (
        settings({"num_iterations": {"value": 3, "desc": None}, "steps_per_generation": {"value": 1}}, "trl")[
            "updates_per_rollout"
        ]
        == 3
    )


def test_this_projects_objective_has_its_bounds():
    found = settings(
        {"objective": "dapo(clip_high=0.5)", "trainer": {"steps_per_generation": 2, "max_steps": 4}}, "testbed"
    )
    assert (found["clip_low"], found["clip_high"], found["loss"]) == (0.2, 0.5, "dapo")
    assert found["updates_per_rollout"] == 2


@pytest.mark.parametrize("text", ["", "just words", "- 1\n- 2\n", "\x00\x01\x02"])
def test_what_is_no_configuration_is_refused(tmp_path, text):
    path = tmp_path / "given.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="configuration"):
        read_configuration(path, {})


def test_tags_of_other_programs_are_plain_data(tmp_path):
    path = tmp_path / "given.yaml"
    path.write_text("a: !!python/object/apply:os.abort []\nnum_iterations: !custom 2\nsteps_per_generation: 1\n")
    assert read_configuration(path, {}).flat["num_iterations"] in (2, "2")


def test_aliases_that_multiply_are_refused(tmp_path):
    levels = ["a0: &a0 {x: 1, y: 2}"] + [f"a{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}" for i in range(1, 25)]
    path = tmp_path / "given.yaml"
    path.write_text("\n".join(levels))
    with pytest.raises(ConfigError, match="more than"):
        read_configuration(path, {})
