"""Grading: what counts as an answer, what hostile text costs, and GSM8K's own answers against themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from envs import grading
from envs.answers import _worker
from envs.grading import REASONS, Grade, Grader, extract_answer
from testbed.errors import ConfigError
from tests.extras import needs

EQUAL, DIFFERENT = Grade(True, True, "equal"), Grade(False, True, "different")
DATA = Path(os.environ.get("TESTBED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def refused(reason: str) -> Grade:
    return Grade(False, False, reason)


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    # A busy machine may take long over one answer; what must be killed is killed in test_time_limit.
    with Grader(1, seconds=30.0) as grader:
        yield grader


# -- what the answer is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{18}", "18"),
        (r"maybe \boxed{3} no \boxed{4}", "4"),
        (r"\boxed{3}" + "\n#### 4", "4"),
        (r"#### 4, that is \boxed{3}", "3"),
        (r"\boxed{18}. I have boxed it", "18"),
        (r"\boxed {\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox{3} and \fboxed{4}", "4"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("a\n#### 1,234 \nmore", "1,234"),
        ("##### 5", "5"),
        ("#### 1 #### 2", "2"),
        (" 22\n", "22"),
        ("x" * 100, "x" * 100),
    ],
)
def test_last_box_or_hashes_decide(response: str, answer: str) -> None:
    assert extract_answer(response).answer == answer


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        (r"\boxed{}", "empty"),
        (r"18 \boxed{ }", "empty"),
        ("18\n####", "empty"),
        (r"\boxed{3} then \boxed{4", "unfinished"),
        ("It is 18.\nOr is it 20?", "no answer"),
        ("x" * 101, "no answer"),
    ],
)
def test_no_answer_has_a_reason(response: str, reason: str) -> None:
    assert extract_answer(response) == grading.Extracted(None, reason)
    assert Grader().grade(response, "18") == refused(reason)


# -- numbers, which need no parser ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("18", "18"),
        ("18.0", "18"),
        ("018", "18"),
        ("+18", "18"),
        ("1,000", "1000"),
        ("1000", "1,000"),
        ("$1,000.50", "1000.5"),
        ("-$3", "-3"),
        ("−3", "-3"),  # the typographic minus sign
        ("18.", "18"),
        ("**18**", "18"),
        ("`18`", "18"),
        ("$18$", "18"),
        ("18 dollars", "18"),
        ("1,000 square miles", "1000"),
        ("0", "-0"),
        ("Tuesday", "Tuesday"),
    ],
)
def test_equal_without_a_worker(answer: str, reference: str) -> None:
    grader = Grader()
    for response in (answer, f"#### {answer}", f"\\boxed{{{answer}}}", f"thus\n#### {answer}\n"):
        assert grader.grade(response, reference) == EQUAL
    assert grader.grade(answer, f"because\n#### {reference}") == EQUAL
    assert grader.workers.places.queue == [None, None]


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("19", "18"),
        ("-18", "18"),
        ("18.0000001", "18"),
        ("1,001", "1000"),
        ("1800", "18"),
        ("10" * 30, "10" * 30 + "1"),
    ],
)
def test_different_without_a_worker(answer: str, reference: str) -> None:
    assert Grader().grade(f"#### {answer}", reference) == DIFFERENT


def test_batch_keeps_order_and_counts_reasons() -> None:
    grader = Grader()
    grades = grader.grade_batch(["#### 1", "", "#### 2", "#### 1"], ["1", "1", "1", "1"])
    assert grades == [EQUAL, refused("empty"), DIFFERENT, EQUAL]
    assert grader.counts == {**dict.fromkeys(REASONS, 0), "equal": 2, "empty": 1, "different": 1}


def test_reward_reads_texts_and_conversations() -> None:
    grader = Grader()
    conversation = [{"role": "user", "content": "#### 2"}, {"role": "assistant", "content": "#### 1"}]
    assert grader.reward(["#### 1", "#### 2", conversation], ["1", "1", "1"], prompt_id=["a", "b", "c"]) == [
        1.0,
        0.0,
        1.0,
    ]


def test_rejects_bad_limits() -> None:
    with pytest.raises(ConfigError, match="seconds is 0; expected a positive limit"):
        Grader(seconds=0)


def test_rejects_unpaired_references() -> None:
    with pytest.raises(ConfigError, match="2 responses and 1 references"):
        Grader().grade_batch(["1", "2"], ["1"])


def test_rejects_an_empty_reference() -> None:
    with pytest.raises(ConfigError, match="a reference answer is empty"):
        Grader().grade("1", " ")


# -- what a worker may have to decide ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reference", "grade"),
    [
        (r"\frac{36}{2}", "18", EQUAL),
        ("36/2", "18", EQUAL),
        ("9+9", "18", EQUAL),
        (r"3\sqrt{13}", r"\sqrt{117}", EQUAL),
        ("p - q", "-q + p", EQUAL),
        ("x=18", "18", EQUAL),
        (r"18\text{ dollars}", "18", EQUAL),
        (r"\$18", "18", EQUAL),
        (r"18^\circ", "18", EQUAL),
        (r"50\%", "0.5", EQUAL),
        (r"50\%", "50", EQUAL),
        ("0.333333", "1/3", EQUAL),
        ("1,2,3", "3,2,1", EQUAL),
        ("0.33", "1/3", DIFFERENT),
        ("1,2,3", "3", DIFFERENT),
        ("18, 19", "18", DIFFERENT),
        ("18 or 19", "18", DIFFERENT),
        (r"\pm 18", "18", DIFFERENT),
        ("17<x<19", "18", DIFFERENT),
        ("18 thousand", "18", DIFFERENT),
        (r"\infty", "18", DIFFERENT),
        ("eighteen", "18", EQUAL),
        ("9**9**9", "18", refused("unparsable")),
        ("２", "2", EQUAL),
        ("\0", "18", refused("unparsable")),
        ("\ud800", "18", refused("unparsable")),
        ("__import__('os').getcwd()", "18", refused("unparsable")),
    ],
)
def test_grading_table(grader: Grader, answer: str, reference: str, grade: Grade) -> None:
    assert grader.grade(f"\\boxed{{{answer}}}", reference) == grade


def test_shortcut_agrees_with_the_reader(grader: Grader) -> None:
    # What is decided by the comparison of plain numbers, decided once more by reading both sides.
    for answer, reference in [("18.0", "18"), ("1,000", "1000"), ("19", "18"), ("-18", "18"), ("18.001", "18")]:
        assert grader._judge((answer, (reference,))) == Grader().grade(answer, reference)


# -- hostile text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("x" * 5_000_000, "no answer"),
        ("\\boxed{" * 1_000_000, "unfinished"),
        ("#### " * 1_000_000, "empty"),
        ("\\boxed{" + "9" * 5_000_000 + "}", "too long"),
        ("#### " + "9" * 5_000_000, "too long"),
        ("{" * 2_000_000 + "\\boxed{" + "{" * 1_000_000, "unfinished"),
        ("boxed " * 1_000_000 + "\n", "no answer"),
    ],
)
def test_megabytes_are_read_once(response: str, reason: str) -> None:
    started = time.perf_counter()
    assert Grader().grade(response, "18") == refused(reason)
    # Linear: a fraction of a second here; the limit allows for a busy machine, not for quadratic time (hours).
    assert time.perf_counter() - started < 20


def test_time_limit_and_the_pool_goes_on() -> None:
    # Each would take minutes: a sine needs the digits of π that its argument has, a tower has too many digits.
    towers = [r"\boxed{\sin(10^{10^{9}})}", r"\boxed{9^{9^{9^{9}}}}", r"\boxed{\sqrt{2}^{\sqrt{2}^{100000000}}}"]
    with Grader(2, seconds=0.5) as grader:
        started = time.perf_counter()
        # Copies of an answer are judged once: a group of eight does not cost eight time limits.
        grades = grader.grade_batch([*towers * 8, "#### 18"], ["18"] * 25)
        assert time.perf_counter() - started < 30
        assert grades == [*[refused("time")] * 24, EQUAL]
        grader.workers.seconds = 30.0
        assert grader.grade(r"\boxed{\sqrt{324}+0\pi}", "18") == EQUAL


def test_pool_survives_a_worker_killed_from_outside(grader: Grader) -> None:
    assert grader.grade(r"\boxed{\sqrt{8}}", r"2\sqrt{2}") == EQUAL
    (worker,) = grader.workers.places.queue
    assert worker is not None
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    assert grader.grade(r"\boxed{\sqrt{12}}", r"2\sqrt{3}") == EQUAL


def test_closing_ends_the_workers_and_leaves_the_grader_usable() -> None:
    grader = Grader(1, seconds=30.0)
    assert grader.grade(r"\boxed{\sqrt{8}}", r"2\sqrt{2}") == EQUAL
    (worker,) = grader.workers.places.queue
    assert worker is not None
    grader.close()
    assert worker.process.returncode is not None
    assert grader.grade(r"\boxed{\sqrt{8}}", r"2\sqrt{2}") == EQUAL
    grader.close()


def worker_process(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a new process that has the worker's module as `worker`."""
    path = Path(_worker.__file__)
    load = (
        f"import runpy; from types import SimpleNamespace; worker = SimpleNamespace(**runpy.run_path({str(path)!r}))\n"
    )
    return subprocess.run([sys.executable, "-c", load + code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces a limit on the address space")
@pytest.mark.parametrize(("megabytes", "survives"), [(100, True), (600, False)])
def test_memory_limit(megabytes: int, survives: bool) -> None:
    done = worker_process(f"worker.limit_memory(400)\nbytearray({megabytes} * 2**20)\nprint('survived')")
    assert ("survived" in done.stdout) is survives
    assert ("MemoryError" in done.stderr) is not survives


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer on this system")
def test_orphan_is_ended_by_the_kernel() -> None:
    script = str(Path(_worker.__file__))
    # sin(10^(10^9)), which needs a thousand million digits of π.
    ten, power = ["n", "10"], ["^", ["n", "10"], ["n", "9"]]
    request = json.dumps(["f", "sin", ["^", ten, power]]) + "\n"
    done = subprocess.run(
        [sys.executable, "-P", script, "512", "0.5"],
        input=request,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGALRM
    assert done.stdout == "ready\n"


# -- the real files ------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(("split", "rows"), [("test", 1319), ("train", 7473)])
def test_gsm8k_golds_grade_as_themselves_and_neighbours_do_not(split: str, rows: int) -> None:
    path = DATA / f"gsm8k_{split}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is absent; set TESTBED_DATA to the folder that has it")
    references = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").split("\n") if line]
    golds = [reference.rpartition("####")[2].strip() for reference in references]
    values = [int(gold.replace(",", "")) for gold in golds]
    assert len(golds) == rows
    grader = Grader()
    assert grader.grade_batch(references, golds) == [EQUAL] * rows
    assert grader.grade_batch([f"\\boxed{{{gold}}}" for gold in golds], references) == [EQUAL] * rows
    for step in (-1, 1):
        for form in ("#### {}", "\\boxed{{{:,}}}", "{} apples"):
            neighbours = [form.format(value + step) for value in values]
            assert grader.grade_batch(neighbours, golds) == [DIFFERENT] * rows


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("split", ["test", "train"])
def test_gsm8k_through_math_verify(split: str) -> None:
    # The same by another grader, which reads every row as mathematics.
    math_verify = needs("math_verify")
    path = DATA / f"gsm8k_{split}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is absent; set TESTBED_DATA to the folder that has it")

    def judge(answer: str, reference: str) -> bool:
        one, other = (math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (reference, answer))
        return bool(math_verify.verify(one, other, timeout_seconds=None))

    lines = path.read_text(encoding="utf-8").split("\n")
    golds = [json.loads(line)["answer"].rpartition("####")[2].strip() for line in lines if line]
    grader = Grader()
    for gold in golds:
        value = int(gold.replace(",", ""))
        for answer in (gold, f"{value + 1:,}", str(value - 1)):
            assert judge(answer, gold) == grader.grade(f"#### {answer}", gold).correct == (answer == gold)


def test_only_a_number_is_an_answer_where_that_is_asked_for() -> None:
    with Grader(numbers_only=True) as grader:
        grades = grader.grade_batch(["9 + 4", " 13", "13.0", "12", "#### 13 apples", "13+0"], ["13"] * 6)
    assert [grade.correct for grade in grades] == [False, True, True, False, True, False]
    assert [grade.reason for grade in grades][::5] == ["no number", "no number"]
    assert not grades[0].parsed
    with Grader() as grader:
        assert grader.grade("9 + 4", "13").correct
