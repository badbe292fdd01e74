from __future__ import annotations

import pytest

from testbed.errors import BatchError, ConfigError, RunExistsError, TestbedError, UnknownNameError, shown


@pytest.mark.parametrize(
    ("error", "builtin"), [(BatchError, ValueError), (ConfigError, ValueError), (RunExistsError, FileExistsError)]
)
def test_every_error_is_also_the_builtin_it_specialises(error, builtin):
    assert issubclass(error, TestbedError)
    assert issubclass(error, builtin)
    assert str(error("what was given")) == "what was given"


def test_unknown_name_suggests_the_nearest_and_lists_the_rest():
    error = UnknownNameError("objective", "grop", ["ppo", "grpo"])
    assert isinstance(error, KeyError)
    # KeyError alone would print the repr, quotes included.
    assert str(error) == "unknown objective 'grop'; did you mean 'grpo'? Known: grpo, ppo"


def test_unknown_name_ignores_case_when_suggesting():
    assert "did you mean 'RareArm-v1'?" in str(UnknownNameError("environment", "rarearm-v1", ["RareArm-v1", "Lock-v1"]))


def test_unknown_name_without_a_near_one_only_lists():
    assert str(UnknownNameError("objective", "xyz", ["ppo"])) == "unknown objective 'xyz'. Known: ppo"


def test_unknown_name_prefers_swapped_letters_to_a_wrong_one():
    assert "did you mean 'dapo'?" in str(UnknownNameError("objective", "dpao", ["dppo", "dapo"]))


def test_unknown_name_in_an_empty_registry():
    assert str(UnknownNameError("objective", "ppo", [])) == "unknown objective 'ppo'. Known: "


@pytest.mark.parametrize("number", range(5))
def test_a_value_is_shown_on_one_short_line(number):
    text = shown(["9" * 5000, 10**5000, [10**5000], [1] * 5000, "a\nb" * 100][number])
    assert len(text) <= 120
    assert "\n" not in text
