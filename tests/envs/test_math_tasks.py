"""Math tasks: every kind of source, templates, identities that persist, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from envs import math_tasks
from envs.grading import Grader
from envs.math_tasks import TEMPLATES, MathTask, load_task, problem_id, worked_solution
from testbed.errors import ConfigError, UnknownNameError
from tests.extras import needs

DATA = Path(os.environ.get("TESTBED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
ROWS = [
    {"question": "How many legs have two dogs?", "answer": "2 * 4 = <<2*4=8>>8\n#### 8"},
    {"question": "And three?", "answer": "3 * 4 = <<3*4=12>>12\n#### 12"},
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# -- sources -------------------------------------------------------------------------------------------------------


def test_jsonl_with_worked_answers(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "legs.jsonl", ROWS), template="plain")
    assert (task.name, len(task), task.duplicates) == ("legs.jsonl", 2, 0)
    first = task[0]
    assert (first.prompt, first.answer) == ("How many legs have two dogs?", "8")
    # The calculator marks are for a tool, not for a model to learn.
    assert first.solution == "2 * 4 = 8\n#### 8"


def test_jsonl_keeps_separators_inside_strings(tmp_path: Path) -> None:
    # U+2028 ends a line for str.splitlines, not for JSON.
    rows = [{"question": "one\u2028two", "answer": 3}]
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps(rows[0], ensure_ascii=False) + "\n\n", encoding="utf-8")
    assert load_task(str(path), template="plain")[0].prompt == "one\u2028two"


def test_json_list(tmp_path: Path) -> None:
    path = tmp_path / "legs.json"
    path.write_text(json.dumps(ROWS), encoding="utf-8")
    assert [problem.answer for problem in load_task(path)] == ["8", "12"]


def test_rows_with_usual_and_named_fields() -> None:
    latex = load_task([{"problem": "Half of three?", "solution": r"It is \boxed{\frac{3}{2}}."}])
    assert latex[0].answer == r"\frac{3}{2}"
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    nested = load_task(
        [{"prompt": chat, "reward": {"truth": 2}}], answer_field="reward.truth", template="Q: {question} A:"
    )
    assert (nested[0].prompt, nested[0].answer, nested[0].solution) == ("Q: 1+1? A:", "2", "")


def test_splits_of_a_mapping() -> None:
    splits = {"train": ROWS[:1], "validation": ROWS[1:]}
    assert load_task(splits)[0].answer == "8"
    assert load_task(splits, split="validation")[0].answer == "12"
    with pytest.raises(UnknownNameError, match="unknown split 'test'"):
        load_task(splits, split="test")


def test_datasets_in_and_out() -> None:
    datasets = needs("datasets")
    task = load_task(datasets.Dataset.from_list(ROWS), template="plain")
    assert [problem.answer for problem in task] == ["8", "12"]
    assert task.dataset()["prompt_id"] == [problem.id for problem in task]
    assert task.dataset().column_names == ["prompt", "answer", "prompt_id"]


def test_duplicates_are_left_out_and_counted() -> None:
    rows = [*ROWS, {**ROWS[0], "question": " How many legs have two dogs?\n"}]
    task = load_task(rows)
    assert (len(task), task.duplicates) == (2, 1)


def test_limit_and_slices() -> None:
    assert load_task(ROWS, limit=1)[0] == load_task(ROWS)[0]
    tail = load_task(ROWS)[1:]
    assert isinstance(tail, MathTask)
    assert [problem.answer for problem in tail] == ["12"]


def test_reading_stops_at_the_limit() -> None:
    def endless() -> Any:
        number = 0
        while True:
            number += 1
            yield {"question": f"{number}+0", "answer": number}

    assert len(load_task(endless(), limit=3)) == 3


# -- identity ------------------------------------------------------------------------------------------------------


def test_identity_survives_template_order_and_selection() -> None:
    plain, boxed = load_task(ROWS, template="plain"), load_task(ROWS[::-1], template="boxed")
    assert [problem.id for problem in plain] == [problem.id for problem in boxed][::-1]
    assert len({problem.id for problem in plain}) == 2
    # sha256 of "7+15", a zero byte and "22", by the command sha256sum.
    assert problem_id("7+15", "22") == "1ea252881261ae08"


def test_identity_depends_on_the_answer() -> None:
    assert problem_id("7+15", "22") != problem_id("7+15", "23")
    assert problem_id("a", "b c") != problem_id("a b", "c")


# -- arithmetic ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_arithmetic_solutions_reach_the_answer(level: int) -> None:
    task = load_task(f"arithmetic(level={level},count=60)")
    grader = Grader()
    assert all(grade.correct for grade in grader.grade_batch([p.solution for p in task], [p.answer for p in task]))
    for problem in task:
        steps = problem.solution.split("\n")
        # Python's own arithmetic: every line has the value of the prompt.
        assert all(eval(step.removeprefix("#### ")) == eval(problem.prompt[:-1]) for step in steps)
        # Level 2 has at most a split and two sums, level 3 twice that, 4 and 5 one more operation than level 2.
        assert len(steps) <= {1: 1, 2: 3, 3: 6, 4: 4, 5: 4}[level]


def test_worked_solution_by_hand() -> None:
    assert worked_solution("7*(3-5)") == "7*-2\n#### -14"
    assert worked_solution("2*3-9") == "6-9\n#### -3"
    assert worked_solution("3-12+5") == "-9+5\n#### -4"
    assert worked_solution("37-46") == "37-40-6\n-3-6\n#### -9"
    assert worked_solution("2*(15+18)") == "2*(15+10+8)\n2*(25+8)\n2*33\n#### 66"
    assert worked_solution("20+30") == "#### 50"
    assert worked_solution("3") == "#### 3"
    with pytest.raises(ConfigError, match=r"cannot work out '3/2'"):
        worked_solution("3/2")


def test_arithmetic_splits_are_disjoint_for_every_seed() -> None:
    seeds = [load_task(f"arithmetic(level=2,count=300,seed={seed})") for seed in (0, 1)]
    held_out = load_task("arithmetic(level=2,count=300,seed=2)", split="test")
    assert seeds[0].problems != seeds[1].problems
    train = {problem.id for task in seeds for problem in task}
    assert train.isdisjoint(problem.id for problem in held_out)


def test_arithmetic_levels_alternate() -> None:
    task = load_task("arithmetic(levels=(1,4),count=9)")
    assert ["*" in problem.prompt for problem in task] == [False, True] * 4 + [False]
    assert len(load_task("arithmetic(levels=(1,2,3))")) == 48


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("arithmetic(lvl=2)", r"expected arithmetic\(level=1, count=500, seed=0\)"),
        ("arithmetic(level=2,levels=(1,2))", "cannot read"),
        ("arithmetic(level=9)", r"levels are \(9,\); expected some of 1, 2, 3, 4, 5"),
        ("arithmetic(count=0)", "count is 0; expected a whole number of at least 1"),
        ("arithmetic(count=90)", "fewer than 90 different problems of level 1"),
    ],
)
def test_rejects_arithmetic(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_task(spec)


# -- templates -----------------------------------------------------------------------------------------------------


def test_templates_take_the_question_and_leave_other_braces() -> None:
    question = {"question": "a {question} b", "answer": "1"}
    assert load_task([question], template="boxed")[0].prompt == TEMPLATES["boxed"].replace(
        "{question}", "a {question} b"
    )
    assert r"\boxed{}" in load_task([question])[0].prompt
    assert load_task("arithmetic(level=1)", template="<{question}>")[0].prompt.startswith("<")


def test_rejects_templates() -> None:
    with pytest.raises(UnknownNameError, match="unknown template 'boxd'; did you mean 'boxed'"):
        load_task(ROWS, template="boxd")
    with pytest.raises(ConfigError, match=r"expected \{question\} in it"):
        load_task(ROWS, template="Solve this: ")


class Chat:
    """A tokenizer that writes a conversation as `role: content` lines."""

    chat_template = "any"

    def apply_chat_template(self, conversation: list[dict[str, str]], **settings: Any) -> str:
        assert settings == {"tokenize": False, "add_generation_prompt": True}
        return "".join(f"{turn['role']}: {turn['content']}\n" for turn in conversation) + "assistant: "


def test_chat_template_wraps_the_prompt() -> None:
    task = load_task(ROWS, template="plain")
    chat = task.with_chat_template(Chat(), system="Be brief.")
    assert chat[1].prompt == "system: Be brief.\nuser: And three?\nassistant: "
    assert task.with_chat_template(Chat())[1].prompt == "user: And three?\nassistant: "
    assert [problem.id for problem in chat] == [problem.id for problem in task]


def test_rejects_a_tokenizer_without_chat_template() -> None:
    tokenizer = Chat()
    tokenizer.chat_template = ""
    with pytest.raises(ConfigError, match="Chat has no chat template"):
        load_task(ROWS).with_chat_template(tokenizer)


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"question": "1+1"}],
            r"row 1 has no answer: its fields are question; expected one of answer, .*answer_field=",
        ),
        ([{"text": "1+1", "answer": 2}], "row 1 has no question: its fields are text, answer"),
        ([*ROWS, {"question": "1+1", "answer": " "}], "row 3 has an empty answer"),
        ([{"question": "1+1", "answer": None}], "row 1 has an empty answer"),
        ([{"question": "1+1", "answer": "two\n####"}], "row 1 has a box or #### without an answer in it"),
        (
            [{"question": 11, "answer": 2}],
            "row 1 has a question that is of the type int, 11; expected text",
        ),
        (["1+1"], "row 1 is a text; expected an object with named fields"),
        ([], "has no rows"),
    ],
)
def test_rejects_rows(rows: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_task(rows)


def test_rejects_a_missing_field_by_name() -> None:
    with pytest.raises(ConfigError, match=r"answer_field is 'meta\.truth'"):
        load_task(ROWS, answer_field="meta.truth")


def test_rejects_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        load_task(tmp_path / "absent.jsonl")
    with pytest.raises(ConfigError, match="is one file; split and subset are for data sets of the hub"):
        load_task(write(tmp_path / "legs.jsonl", ROWS), split="train")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "1+1", "answer": 2}\n{"question"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2 is not JSON"):
        load_task(broken)


def test_rejects_names_and_limits() -> None:
    with pytest.raises(UnknownNameError, match="unknown math task 'arithmeti'; did you mean 'arithmetic'"):
        load_task("arithmeti")
    with pytest.raises(ConfigError, match="limit is 0"):
        load_task(ROWS, limit=0)
    with pytest.raises(UnknownNameError, match="unknown split 'tset'; did you mean 'test'"):
        load_task("arithmetic(level=1)", split="tset")


def test_hub_name_without_network_is_one_sentence_in_time() -> None:
    # A process of its own: whether the hub is offline is read when its client is imported.
    code = (
        "import time; started = time.perf_counter()\n"
        "from envs.math_tasks import load_task\n"
        "from testbed.errors import ConfigError\n"
        "imported = time.perf_counter()\n"
        "try: load_task('openai/gsm8k')\n"
        "except ConfigError as error: print(time.perf_counter() - imported, error)\n"
    )
    # A port that nothing listens on stands for a network that is not there.
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    seconds, _, sentence = done.stdout.partition(" ")
    assert float(seconds) < 5
    for word in ("'openai/gsm8k'", "offline", "HF_HOME", "cpu-smoke, cpu-moe, gpu-arithmetic", "local path"):
        assert word in sentence


def test_hub_name_with_hub_switched_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = needs("datasets")
    monkeypatch.setattr(math_tasks, "hub_obstacle", lambda: "HF_HUB_OFFLINE is set")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    started = time.perf_counter()
    with pytest.raises(ConfigError, match="is offline"):
        load_task("openai/gsm8k")
    assert time.perf_counter() - started < 5


def test_hub_data_set_is_asked_for_with_its_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    class Datasets:
        @staticmethod
        def load_dataset(name: str, subset: str | None, split: str) -> list[dict[str, str]]:
            asked.append((name, subset, split))
            return ROWS

    monkeypatch.setattr(math_tasks, "hub_obstacle", lambda: None)
    monkeypatch.setattr(math_tasks, "_import_datasets", Datasets)
    assert load_task("openai/gsm8k")[0].answer == "8"
    load_task("some/set", split="test", subset="hard")
    assert asked == [("openai/gsm8k", "main", "train"), ("some/set", "hard", "test")]


def test_heavy_packages_are_not_imported() -> None:
    heavy = {"datasets", "math_verify", "transformers"}
    code = f"import sys, envs.math_tasks, envs.grading; print(sorted({heavy} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


# -- the real files ------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(("split", "rows", "commas"), [("test", 1319, 14), ("train", 7473, 79)])
def test_gsm8k_files(split: str, rows: int, commas: int) -> None:
    path = DATA / f"gsm8k_{split}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is absent; set TESTBED_DATA to the folder that has it")
    task = load_task(path)
    assert (len(task), task.duplicates) == (rows, 0)
    assert sum("," in problem.answer for problem in task) == commas
    assert not any("<<" in problem.solution or ">>" in problem.solution for problem in task)
    assert all(problem.solution.endswith(f"#### {problem.answer}") for problem in task)


# -- what stands around a question -----------------------------------------------------------------------------------


def test_examples_are_solved_in_front_and_asked_no_more() -> None:
    task = load_task([{"question": f"{a}+1", "answer": str(a + 1)} for a in range(4)], template="equation")
    shown = task.with_examples(task[:2])
    assert [problem.prompt for problem in shown] == ["0+1=1\n1+1=2\n2+1=", "0+1=1\n1+1=2\n3+1="]
    assert [problem.answer for problem in shown] == ["3", "4"]
    assert [problem.id for problem in shown] == [problem.id for problem in task[2:]]


def test_examples_of_several_lines_are_set_apart_by_an_empty_one() -> None:
    task = load_task([{"question": f"{a}+1", "answer": f"one\n#### {a + 1}"} for a in range(2)], template="equation")
    assert task.with_examples(task[:1])[0].prompt == "0+1=one\n#### 1\n\n1+1="


def test_rejects_examples_that_leave_no_problem() -> None:
    task = load_task([{"question": "1+1", "answer": "2"}])
    with pytest.raises(ConfigError, match="all 1 problems of rows are examples"):
        task.with_examples(task[:1])


def test_an_answer_prefix_ends_every_prompt() -> None:
    task = load_task([{"question": "1+1", "answer": "2"}], template="equation").with_answer_prefix(" ")
    assert [problem.prompt for problem in task] == ["1+1= "]
