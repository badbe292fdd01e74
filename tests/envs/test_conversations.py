"""Chat templates as strangers write them: the template's own tokens, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from envs.conversations import chat_prompt
from testbed.errors import ConfigError

TURNS = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
PARTS = (
    "{% for m in messages %}{{ m['role'] + ': ' }}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{{ '\n' }}{% endfor %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}" + TURNS
Make = Callable[..., Any]


def test_a_start_token_is_left_to_who_adds_it(stranger: Make) -> None:
    with_start = "{{ bos_token }}" + TURNS
    plain = "user: 1+1\nassistant: "
    assert chat_prompt(stranger("$A", with_start, bos="<|im_start|>"), "1+1") == f"<|im_start|>{plain}"
    adding = stranger("<|im_start|> $A", with_start, bos="<|im_start|>")
    assert chat_prompt(adding, "1+1") == plain
    own = adding.apply_chat_template(
        [{"role": "user", "content": "1+1"}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert adding(chat_prompt(adding, "1+1")).input_ids == own


OWN_SYSTEM = "{% if messages[0]['role'] != 'system' %}system: I am a robot.\n{% endif %}" + TURNS


def test_a_system_turn_that_the_template_adds_can_be_left_out(stranger: Make) -> None:
    tokenizer = stranger(template=OWN_SYSTEM)
    assert chat_prompt(tokenizer, "1+1") == "system: I am a robot.\nuser: 1+1\nassistant: "
    assert chat_prompt(tokenizer, "1+1", system_turn=False) == "user: 1+1\nassistant: "
    # Where there is none, nothing changes; nor where the template refuses one.
    assert chat_prompt(stranger(template=TURNS), "1+1", system_turn=False) == "user: 1+1\nassistant: "
    assert chat_prompt(stranger(template=NO_SYSTEM), "1+1", system_turn=False) == "user: 1+1\nassistant: "


def test_rejects_a_system_turn_that_is_both_given_and_left_out(stranger: Make) -> None:
    with pytest.raises(ConfigError, match=r"system is 'Be brief\.' and system_turn is False"):
        chat_prompt(stranger(template=TURNS), "1+1", "Be brief.", system_turn=False)


def test_a_template_of_parts_is_given_parts(stranger: Make) -> None:
    assert chat_prompt(stranger(template=PARTS), "1+1", system="Be brief.") == "system: Be brief.\nuser: 1+1\n"


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        (
            "{{ raise_exception('roles must alternate') }}",
            None,
            "a single user's turn: it raises .*roles must alternate",
        ),
        ("{{ nothing.there }}", None, "it raises UndefinedError"),
        (NO_SYSTEM, "Be brief.", "a system's and a user's turn: it raises .*no system turns. Leave system out"),
        ("Hello.", None, "it leaves the question out of 'Hello.'. Use a plain template"),
        ("{{ messages[-1]['content'] }}", "Be brief.", "it leaves the question out of"),
        ("{% for", None, "it raises TemplateSyntaxError"),
    ],
)
def test_rejects_what_a_template_cannot_write(stranger: Make, template: str, system: str | None, message: str) -> None:
    tokenizer = stranger(template=template)
    with pytest.raises(ConfigError, match=message):
        chat_prompt(tokenizer, "1+1", system)
