from __future__ import annotations

import pytest

from testbed.errors import ConfigError, UnknownNameError
from testbed.registry import Registry, format_call, parse_call


def test_register_look_up_and_list():
    registry: Registry[int] = Registry("number")
    assert registry.register("two")(2) == 2
    registry.register("one")(1)
    assert registry["two"] == 2
    assert registry.names() == list(registry) == ["one", "two"]
    assert "one" in registry
    assert "three" not in registry


def test_a_second_item_of_a_name_is_an_error():
    registry: Registry[int] = Registry("number")
    registry.register("one")(1)
    with pytest.raises(ConfigError, match=r"number 'one' is registered twice; names are unique, rename one of them"):
        registry.register("one")(1)


def test_unknown_names_are_explained():
    registry: Registry[int] = Registry("number")
    registry.register("twelve")(12)
    with pytest.raises(UnknownNameError, match=r"unknown number 'twelfe'; did you mean 'twelve'\? Known: twelve"):
        registry["twelfe"]


def test_discovery_imports_the_public_files_of_a_package():
    from testbed.objectives import registry

    assert "dcpo" in registry
    assert "_base" not in registry.names()


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("ppo", "ppo", {}),
        (" ppo ", "ppo", {}),
        ("ppo()", "ppo", {}),
        ("ppo(clip_low=0.1)", "ppo", {"clip_low": 0.1}),
        ("ppo(clip_low=0.1, dual_clip=None)", "ppo", {"clip_low": 0.1, "dual_clip": None}),
        ("bapo(low_range=(0.6, 0.8),order=lower_first)", "bapo", {"low_range": (0.6, 0.8), "order": "lower_first"}),
        ("erc(base=gppo(clip_low=0.1,clip_high=0.3),beta_low=0.1)", "erc", None),
        ("env(levels=[1, 2],name='a,b')", "env", {"levels": [1, 2], "name": "a,b"}),
        ("ppo(clip_high=inf,clip_low=-inf)", "ppo", {"clip_high": float("inf"), "clip_low": -float("inf")}),
    ],
)
def test_parse_call(text, name, arguments):
    if arguments is None:
        arguments = {"base": "gppo(clip_low=0.1,clip_high=0.3)", "beta_low": 0.1}
    assert parse_call(text) == (name, arguments)


@pytest.mark.parametrize("text", ["ppo(clip_low=0.1", "ppo(clip_low=0.1)x"])
def test_parse_call_rejects_unbalanced_parentheses(text):
    with pytest.raises(ConfigError, match=r"cannot read '.*'; expected name or name\(key=value,…\)"):
        parse_call(text)


@pytest.mark.parametrize("text", ["ppo(0.1)", "ppo(clip low=0.1)", "ppo(=0.1)"])
def test_parse_call_rejects_what_is_no_keyword(text):
    with pytest.raises(ConfigError, match=r"cannot read '.*' in 'ppo\(.*\)'; expected key=value, such as clip_low=0.2"):
        parse_call(text)


@pytest.mark.parametrize("arguments", [{}, {"clip_low": 0.1}, {"low_range": (0.6, 0.8), "order": "lower_first"}])
def test_format_call_is_the_inverse(arguments):
    assert parse_call(format_call("bapo", arguments)) == ("bapo", arguments)


def test_a_key_given_twice_is_refused():
    with pytest.raises(ConfigError, match="gives 'clip_low' twice; expected each key once"):
        parse_call("ppo(clip_low=0.1,clip_low=0.2)")


@pytest.mark.parametrize("name", [None, 3, ["one"]])
def test_names_that_are_no_text_are_explained(name):
    registry: Registry[int] = Registry("number")
    with pytest.raises(UnknownNameError, match="unknown number"):
        registry[name]
    with pytest.raises(ConfigError, match="as text"):
        parse_call(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ppo(clip_low=" + "9" * 25 + ")", r"clip_low is 9{25}, a number of 84 bits; expected at most 63"),
        ("ppo(clip_low=" + "1" * 400 + ")", r"clip_low is 1+…1+, a number of 1326 bits; expected at most 63"),
        ("ppo(clip_low=[0.1,[" + "9" * 25 + "]])", r"clip_low is 9{25}, a number of 84 bits"),
        ("ppo(clip_low={1:2})", r"clip_low is \{1: 2\}; expected a number, text, True, False, None or a list of those"),
        ("ppo(clip_low=1j)", r"clip_low is 1j; expected a number"),
        ("ppo(clip_low=b'')", r"clip_low is b''; expected a number"),
        ("erc(base=" * 500 + "ppo" + ")" * 500, r"is nested deeper than 20 brackets; write it flat"),
        ("ppo(clip_low=" + "-" * 20000 + "1)", r"it has 20,015 characters; expected at most 10,000"),
    ],
)
def test_what_no_call_holds_is_one_sentence(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_call(text)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", ["{[]:1}", "-" * 1000 + "1", "1" * 5000, "\x00", "1if"])
def test_what_is_no_literal_is_text(value):
    assert parse_call(f"ppo(clip_low={value})") == ("ppo", {"clip_low": value})
