r"""Prompts with verifiable answers: GSM8K, generated arithmetic, any file or data set of questions and answers.

`load_task` gives a `MathTask`, a list of `Problem`s with their prompts already in a template; `envs.grading` judges
the responses. Nothing here knows of models, and a tokenizer is asked only for its chat template.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any, Literal, overload

from envs.answers.extraction import extract_answer
from envs.answers.references import any_of, check_reference
from envs.arithmetic import LEVELS, generate_problems
from envs.conversations import ChatTokenizer, chat_prompt
from envs.problem_files import LONGEST_LINE, NumberText, read_rows
from testbed.errors import ConfigError, UnknownNameError
from testbed.hub import hub_obstacle, offline_error
from testbed.registry import parse_call

__all__ = ["TEMPLATES", "MathTask", "Problem", "Split", "check_available", "load_task", "problem_id", "worked_solution"]

Split = Literal["train", "test"]

TEMPLATES = {
    "plain": "{question}",
    "equation": "{question}=",
    "boxed": "{question}\nReason step by step, and put the final answer within \\boxed{}.",
    "hashes": "Question: {question}\nReason step by step, and end with a line of #### and the final answer.\nAnswer:",
}
"""Prompt templates by name; the question takes the place of `{question}`, other braces mean themselves."""

QUESTION_FIELDS = ("question", "problem", "prompt", "query", "instruction", "input")
ANSWER_FIELDS = ("answer", "final_answer", "expected_answer", "target", "label", "output", "solution")
"""Where questions and answers are looked for unless a field is named, in this order."""

GSM8K = "openai/gsm8k"
_FILES = (".jsonl", ".json", ".gz", ".parquet")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Problem:
    """A prompt, the right answer to it, and a name that stays the same wherever and whenever it is loaded."""

    prompt: str
    """What the model reads, template included."""
    answer: str
    """The right answer alone, or several of which any will do, as `envs.answers.references.any_of` writes them."""
    id: str
    """`problem_id` of question and answer: not changed by template, order or selection."""
    solution: str = ""
    """A worked solution that ends in `#### answer` or a box, for supervised warm starts; empty if there is none."""


@dataclass(frozen=True, eq=False)
class MathTask(Sequence[Problem]):
    """A list of problems; slices of it are tasks too.

    >>> task = load_task("arithmetic(level=2)", limit=2)
    >>> len(task), all(problem.prompt.endswith("=") for problem in task)
    (2, True)
    """

    name: str
    """Where the problems come from, for records and reports."""
    problems: tuple[Problem, ...]
    """In the order of the source."""
    duplicates: int = 0
    """Rows of the source that repeated the question and answer of an earlier one and were left out."""

    def __len__(self) -> int:
        return len(self.problems)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.problems)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> MathTask: ...
    def __getitem__(self, index: int | slice) -> Problem | MathTask:
        if isinstance(index, slice):
            return dataclasses.replace(self, problems=self.problems[index])
        return self.problems[index]

    def with_examples(self, examples: Sequence[Problem]) -> MathTask:
        r"""The same problems with others in front of each, solved; those that are among the examples are left out.

        An example is its prompt and its worked solution, or its answer where there is none. A newline stands between
        two, an empty line where one of them has several lines.

        >>> task = load_task([{"question": f"{a}+1", "answer": str(a + 1)} for a in range(3)], template="equation")
        >>> [problem.prompt for problem in task.with_examples(task[:2])]
        ['0+1=1\n1+1=2\n2+1=']
        """
        texts = [problem.prompt + (problem.solution or problem.answer) for problem in examples]
        between = "\n\n" if any("\n" in text for text in texts) else "\n"
        front, known = "".join(text + between for text in texts), {problem.id for problem in examples}
        kept = [problem for problem in self if problem.id not in known]
        if not kept:
            raise ConfigError(f"all {len(self)} problems of {self.name} are examples; take fewer, or more problems")
        return dataclasses.replace(
            self, problems=tuple(dataclasses.replace(problem, prompt=front + problem.prompt) for problem in kept)
        )

    def with_answer_prefix(self, prefix: str) -> MathTask:
        """The same problems with the beginning of the answer already written."""
        problems = (dataclasses.replace(problem, prompt=problem.prompt + prefix) for problem in self)
        return dataclasses.replace(self, problems=tuple(problems))

    def with_chat_template(
        self, tokenizer: ChatTokenizer, system: str | None = None, *, system_turn: bool = True
    ) -> MathTask:
        """The same problems with each prompt as the user's turn of a conversation, up to where the answer begins.

        Args:
            tokenizer: one of transformers' with a chat template.
            system: what precedes the user's turn; `None`: nothing, or what the template itself puts there.
            system_turn: False: nothing, even where the template puts a turn of its own there.

        Raises:
            ConfigError: the tokenizer has no chat template, or it refuses the conversation.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                f"{type(tokenizer).__name__} has no chat template; use a plain template ({', '.join(TEMPLATES)}), "
                "or set tokenizer.chat_template"
            )
        problems = (
            dataclasses.replace(problem, prompt=chat_prompt(tokenizer, problem.prompt, system, system_turn=system_turn))
            for problem in self
        )
        return dataclasses.replace(self, problems=tuple(problems))

    def records(self) -> list[dict[str, str]]:
        """One row per problem with the columns `prompt`, `answer` and `prompt_id`."""
        return [{"prompt": problem.prompt, "answer": problem.answer, "prompt_id": problem.id} for problem in self]

    def dataset(self) -> Any:
        """`records` as a `datasets.Dataset`, as TRL's trainers take it; `Grader.reward` reads its `answer` column."""
        return _import_datasets().Dataset.from_list(self.records())


def problem_id(question: str, answer: str) -> str:
    r"""16 hexadecimal digits that name a problem: the head of the SHA-256 of question and answer.

    >>> problem_id("7+15", "22") == problem_id(" 7+15\n", "22")
    True
    """
    text = f"{question.strip()}\0{answer.strip()}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def load_task(
    source: str | Path | Iterable[Mapping[str, Any]],
    *,
    split: Split | str | None = None,
    subset: str | None = None,
    template: str | None = None,
    limit: int | None = None,
    question_field: str | None = None,
    answer_field: str | None = None,
    any_of_list: bool = False,
) -> MathTask:
    """The problems of a source, each prompt in a template.

    Args:
        source: `arithmetic(level=2, count=500)`, or with `levels=(1, 2)` for equal parts, and with `seed=0` (16
            problems a level unless `count` says how many in all); the path of a file of JSON lines, a JSON list or
            Parquet; a data set of the hub such as `openai/gsm8k`; or rows: a `datasets.Dataset`, a list of
            dictionaries.
        split: of generated problems or a data set of the hub (`None`: train). No arithmetic expression is in both
            splits, whatever the level, count and seed. A file has no splits.
        subset: the configuration of a data set of the hub (`None`: main for GSM8K, else the data set's default).
        template: a name from `TEMPLATES` or a text with `{question}` in it (`None`: equation for arithmetic, else
            boxed).
        limit: only the first so many problems.
        question_field: column of the question (`None`: the first of `QUESTION_FIELDS` there is); a dot reaches into a
            nested column. A conversation stands for its last user turn; content in parts is joined if all are text.
        answer_field: column of the answer (`None`: the first of `ANSWER_FIELDS` there is). If it ends in a box or
            `#### answer`, that is the answer and the whole is the worked solution, calculator marks removed. An object
            `{"any of": [...]}` holds several answers of which any will do.
        any_of_list: whether a plain list in that column also means that any of its answers will do. Data sets differ
            in what a list means, so that it is refused unless this is set.

    Raises:
        ConfigError: there is no such file, template, level or column; rows have no question, or an answer that the
            grader cannot read (how many, and which); the data set has no rows; or the hub is needed and out of reach
            (known within 5 seconds).
        UnknownNameError: the source is neither a file nor shaped like a hub name.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; expected at least 1, or None for all problems")
    faults: list[str] = []
    fill = _template(template, "equation" if _is_arithmetic(source) else "boxed")
    if _is_arithmetic(source):
        name = str(source).strip()
        triples: Iterable[tuple[str, str, str]] = _arithmetic(name, _split(split))
        if split == "test":
            name = f"{name} test"
    else:
        name, rows = _rows(source, split, subset)
        triples = _read(name, rows, question_field, answer_field, any_of_list, faults)

    problems: dict[str, Problem] = {}
    duplicates = 0
    for question, answer, solution in triples:
        identity = problem_id(question, answer)
        if identity in problems:
            duplicates += 1
            continue
        problems[identity] = Problem(fill.replace("{question}", question), answer, identity, solution)
        if len(problems) == limit:
            break
    if faults:
        raise ConfigError(_report(name, faults))
    if not problems:
        raise ConfigError(f"{name} has no rows; expected at least one question with its answer")
    return MathTask(name, tuple(problems.values()), duplicates)


def _template(template: str | None, default: str) -> str:
    text = TEMPLATES.get(template or default, template or default)
    if "{question}" not in text:
        if re.fullmatch(r"[\w-]*", text):
            raise UnknownNameError("template", text, TEMPLATES)
        raise ConfigError(f"template is {text!r}; expected {{question}} in it, where the question goes")
    return text


def _split(split: str | None) -> Split:
    if split is None or split == "train":
        return "train"
    if split == "test":
        return "test"
    raise UnknownNameError("split", split, ["train", "test"])


# -- generated arithmetic ------------------------------------------------------------------------------------------


def _is_arithmetic(source: object) -> bool:
    return isinstance(source, str) and source.partition("(")[0].strip() == "arithmetic"


def _arithmetic(spec: str, split: Split) -> list[tuple[str, str, str]]:
    """Expressions, answers and worked solutions; a fifth of all expressions belong to the test split."""
    _, settings = parse_call(spec)
    unknown = set(settings) - {"level", "levels", "count", "seed"}
    if unknown or {"level", "levels"} <= set(settings):
        raise ConfigError(f"cannot read {spec!r}; expected arithmetic(level=1, count=500, seed=0), or levels=(1, 2)")
    levels = settings.get("levels", settings.get("level", 1))
    levels = (levels,) if isinstance(levels, int) else tuple(levels)
    count, seed = settings.get("count"), settings.get("seed", 0)
    if not levels or not all(isinstance(level, int) and level in LEVELS for level in levels):
        raise ConfigError(f"{spec}: levels are {levels}; expected some of {', '.join(map(str, LEVELS))}")
    if count is not None and (not isinstance(count, int) or count < len(levels)):
        raise ConfigError(f"{spec}: count is {count!r}; expected a whole number of at least {len(levels)}")
    # Level 1 has a hundred problems in all; the default fits into its test split.
    total = count if count is not None else 16 * len(levels)
    shares = [total // len(levels) + (place < total % len(levels)) for place in range(len(levels))]
    by_level = [_draw(level, share, split, seed) for level, share in zip(levels, shares, strict=True)]
    # Levels in turn, so that the head of the list is a fair sample of it.
    longest = max(shares)
    return [drawn[place] for place in range(longest) for drawn in by_level if place < len(drawn)]


def _draw(level: int, count: int, split: Split, seed: int) -> list[tuple[str, str, str]]:
    wanted = count
    while True:
        try:
            drawn = generate_problems(wanted, level, seed)
        except ConfigError as error:
            raise ConfigError(
                f"arithmetic has fewer than {count} different problems of level {level} ({LEVELS[level]}) in its "
                f"{split} split; ask for fewer or raise the level"
            ) from error
        chosen = [problem for problem in drawn if _is_held_out(problem.expression) == (split == "test")]
        if len(chosen) >= count:
            return [
                (problem.expression, str(problem.answer), worked_solution(problem.expression))
                for problem in chosen[:count]
            ]
        # By less than is expected to be missing: a level may be nearly exhausted.
        wanted += (count - len(chosen)) * (4 if split == "test" else 1)


def _is_held_out(expression: str) -> bool:
    return hashlib.sha256(expression.encode()).digest()[0] % 5 == 0


# In order of precedence: a sum in parentheses, a product, the first sum.
_OPERATIONS = [
    re.compile(r"(?<=\()(-?[0-9]+)([+-])([0-9]+)"),
    re.compile(r"([0-9]+)(\*)(-?[0-9]+)"),
    re.compile(r"^(-?[0-9]+)([+-])([0-9]+)"),
]
_WRAPPED = re.compile(r"\((-?[0-9]+)\)")


def worked_solution(expression: str) -> str:
    r"""The expression reduced by one operation a line, then `####` and the value.

    A number of two digits is added to or taken from another in two steps, its tens first: small models learn that
    much sooner.

    >>> worked_solution("7*(3-5)")
    '7*-2\n#### -14'
    >>> worked_solution("37+46")
    '37+40+6\n77+6\n#### 83'

    Raises:
        ConfigError: the text is not an expression of whole numbers, `+`, `-`, `*` and flat parentheses.
    """
    steps = [expression]
    while not re.fullmatch(r"-?[0-9]+", steps[-1]):
        operation = next((found for rule in _OPERATIONS if (found := rule.search(steps[-1]))), None)
        if operation is None:
            raise ConfigError(f"cannot work out {expression!r}; expected an expression such as 7*(3-5)")
        left, sign, right = int(operation[1]), operation[2], int(operation[3])
        tens, ones = right - right % 10, right % 10
        if sign != "*" and tens and ones and abs(left) >= 10:
            reduced = f"{left}{sign}{tens}{sign}{ones}"
        else:
            reduced = str({"+": left + right, "-": left - right, "*": left * right}[sign])
        step = steps[-1][: operation.start()] + reduced + steps[-1][operation.end() :]
        steps.append(_WRAPPED.sub(r"\1", step))
    return "\n".join([*steps[1:-1], f"#### {steps[-1]}"])


# -- files and data sets -------------------------------------------------------------------------------------------


def _rows(
    source: str | Path | Iterable[Mapping[str, Any]], split: str | None, subset: str | None
) -> tuple[str, Iterable[Mapping[str, Any]]]:
    """A name for the source and its rows."""
    if isinstance(source, Mapping):
        splits = list(source)
        if (split or "train") not in splits:
            raise UnknownNameError("split", split or "train", map(str, splits))
        return "rows", source[split or "train"]
    if not isinstance(source, str | Path):
        return "rows", source
    path = Path(source)
    if path.is_file():
        if split is not None or subset is not None:
            raise ConfigError(f"{path} is one file; split and subset are for data sets of the hub. Give another path")
        return path.name, read_rows(path)
    if isinstance(source, Path) or source.startswith((".", "/", "~")) or path.suffix in _FILES:
        raise ConfigError(f"there is no file {str(source)!r}; expected the path of a file of problems")
    if not _HUB_NAME.fullmatch(source):
        raise UnknownNameError("math task", source, ["arithmetic", GSM8K, "a file such as problems.jsonl"])
    return source, _fetch(source, split or "train", subset or ("main" if source == GSM8K else None))


def _fetch(name: str, split: str, subset: str | None) -> Iterable[Mapping[str, Any]]:
    obstacle = _obstacle(name)
    datasets = _import_datasets()
    try:
        rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(name, subset, split=split)
        return rows
    except ConnectionError as error:
        raise offline_error("data set", name, obstacle or "the connection broke") from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the hub has no data set {name!r} with subset {subset!r} and split {split!r}: {error}"
        ) from error


def _obstacle(name: str) -> str | None:
    """Why the hub cannot be asked for a data set whose copy may be in the cache; an error where there is none."""
    obstacle = hub_obstacle()
    # Asked without a network, the client would try for half a minute even if a copy is in its cache.
    if obstacle is not None and ("HF_HUB_OFFLINE" not in obstacle or not _may_be_cached(name)):
        raise offline_error("data set", name, obstacle)
    return obstacle


def _may_be_cached(name: str) -> bool:
    """Whether the cache of the hub, or that of the datasets package, has a folder of that name."""
    from huggingface_hub import constants

    prepared = Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME) / "datasets"))
    return (prepared / name.replace("/", "___").lower()).is_dir() or (
        Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
    ).is_dir()


def check_available(source: str) -> None:
    """Say at once, without loading anything, when a data set is neither on this machine nor within reach.

    Raises:
        ConfigError: it is a data set of the hub, which cannot be asked, and the cache has no copy.
    """
    if _HUB_NAME.fullmatch(source) and not _is_arithmetic(source) and not Path(source).is_file():
        _obstacle(source)


def _import_datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            "the package datasets is not installed; give a local file instead, or install the extra: "
            "pip install 'policy-objective-testbed[llm]'"
        ) from error
    return datasets


NAMED_FAULTS = 3
"""Of the rows that cannot be used, so many are described; the others are counted."""
MOST_FAULTS = 10_000
"""So many are counted before the rest of the rows is left unread."""


def _read(
    name: str,
    rows: Iterable[Mapping[str, Any]],
    question_field: str | None,
    answer_field: str | None,
    any_of_list: bool,
    faults: list[str],
) -> Iterator[tuple[str, str, str]]:
    """Question, answer and worked solution of every row that can be used; of the others `faults` is told."""
    for number, row in enumerate(rows, 1):
        try:
            yield _problem(row, question_field, answer_field, any_of_list)
        except ConfigError as error:
            faults.append(f"row {number} {error}")
            if len(faults) == MOST_FAULTS:
                return


def _report(name: str, faults: list[str]) -> str:
    if len(faults) == 1:
        return f"{name}, {faults[0]}"
    shown = "; ".join(faults[:NAMED_FAULTS]) + ("; …" if len(faults) > NAMED_FAULTS else "")
    return f"{name}: {len(faults):,} rows cannot be used: {shown}"


def _problem(row: Any, question_field: str | None, answer_field: str | None, any_of_list: bool) -> tuple[str, str, str]:
    """Question, answer and worked solution of a row; errors continue the words `row 3`."""
    if not isinstance(row, Mapping):
        raise ConfigError(f"is {_kind(row)}; expected an object with named fields")
    question = _question(_field(row, question_field, QUESTION_FIELDS, "question"))
    value = _field(row, answer_field, ANSWER_FIELDS, "answer")
    if isinstance(value, Mapping) and list(value) == ["any of"]:
        value = value["any of"]
    elif isinstance(value, list | tuple) and not any_of_list:
        raise ConfigError(
            'has a list for an answer; for several answers of which any will do, write {"any of": […]} or set '
            "any_of_list"
        )
    if isinstance(value, list | tuple):
        several = [_answer(each) for each in value]
        answer, solution = any_of([each[0] for each in several]), next((each[1] for each in several if each[1]), "")
    else:
        answer, solution = _answer(value)
    _check_answer(answer)
    return question, answer, solution


def _check_answer(answer: str) -> None:
    try:
        check_reference(answer)
    except ConfigError as error:
        raise ConfigError(f"cannot be graded: {error}") from error


def _answer(value: Any) -> tuple[str, str]:
    """The right answer in a cell, and the worked solution if the cell holds one."""
    text = _answer_text(value)
    if not text:
        raise ConfigError("has an empty answer; give every question its answer, or drop the row")
    if "####" not in text and "\\boxed" not in text:
        return text, ""
    answer = extract_answer(text).answer
    if answer is None:
        raise ConfigError(f"has a box or #### without an answer in it: {text[-60:]!r}")
    return answer, _CALCULATION.sub("", text)


_SURROGATE = re.compile("[\ud800-\udfff]")


def _answer_text(value: Any) -> str:
    """An answer as text: numbers of a file in the characters they have there."""
    if value is None:
        return ""
    if isinstance(value, Number) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"has the answer {value}; expected a number or text")
        return str(value)
    if not isinstance(value, str):
        raise ConfigError(f"has an answer that is {_kind(value)}; expected text or a number")
    if isinstance(value, NumberText) and value.lstrip("-").isalpha():
        raise ConfigError(f"has the answer {value}; expected a number or text")
    _check_characters(value, "answer")
    return value.strip()


def _check_characters(text: str, column: str) -> None:
    if len(text) > LONGEST_LINE:
        raise ConfigError(f"has a {column} of {len(text):,} characters; expected at most {LONGEST_LINE:,}")
    if _SURROGATE.search(text):
        raise ConfigError(f"has half of a surrogate pair in its {column}, which no tokenizer takes; repair the text")


# What JSON calls the types that Python's parser makes of it.
_KINDS = {
    "dict": "an object",
    "list": "a list",
    "bool": "a truth value",
    "NoneType": "null",
    "NumberText": "a number",
    "str": "a text",
}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value).__name__, f"of the type {type(value).__name__}")


# GSM8K's calculator marks: <<16-3-4=9>>.
_CALCULATION = re.compile(r"<<[^<>]*>>")


def _question(value: Any) -> str:
    if isinstance(value, list | tuple) and not _is_parts(value):
        turns = [turn for turn in value if isinstance(turn, Mapping) and turn.get("role") == "user"]
        if not turns:
            raise ConfigError(f"has the question {value!r:.80}; expected text, or a conversation with a user's turn")
        value = turns[-1].get("content")
    if isinstance(value, list | tuple):
        value = _joined(value)
    if not isinstance(value, str) or isinstance(value, NumberText):
        raise ConfigError(
            f"has a question that is {_kind(value)}, {value!r:.80}; expected text, or a conversation with a user's turn"
        )
    _check_characters(value, "question")
    if not value.strip():
        raise ConfigError("has an empty question; give every answer its question, or drop the row")
    return value.strip()


def _is_parts(value: Sequence[Any]) -> bool:
    return bool(value) and all(isinstance(part, Mapping) and "type" in part for part in value)


def _joined(parts: Sequence[Any]) -> str:
    """The text of content in parts."""
    for part in parts:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, Mapping) else part
            raise ConfigError(
                f"has a question with a part that is no text ({kind!r:.40}); expected parts of text alone"
            )
    return "".join(part["text"] for part in parts)


def _field(row: Mapping[str, Any], field: str | None, usual: tuple[str, ...], kind: str) -> Any:
    found = field or next((candidate for candidate in usual if candidate in row), None)
    value: Any = row
    for part in (found or "").split("."):
        if not isinstance(value, Mapping) or part not in value:
            wanted = f"{kind}_field is {field!r}" if field else f"expected one of {', '.join(usual)}"
            raise ConfigError(
                f"has no {kind}: its fields are {', '.join(map(str, row))[:200]}; {wanted}. "
                f"Name the column with {kind}_field=…"
            )
        value = value[part]
    return value
