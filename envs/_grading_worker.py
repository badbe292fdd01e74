"""The process in which answers are parsed and compared; `envs.grading` starts it and kills it when it overruns.

Run as a file, so that it loads math-verify and nothing of this project: a worker is ready in a second and needs
some 60 MB. Arguments: the memory limit in megabytes, and the seconds after which the kernel ends a worker whose
parent is no longer there to do it. One JSON line in, `[answer, reference]`; one out, `[equal, parsed]`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

__all__ = ["judge", "main"]


def judge(answer: str, reference: str) -> tuple[bool, bool]:
    """Whether an answer equals the reference, and whether it was understood as mathematics at all.

    Both are wrapped in a box: bare LaTeX such as `p - q` mostly fails to parse.
    """
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    rules = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
    expected, given = (
        parse(f"\\boxed{{{text}}}", extraction_config=rules, parsing_timeout=None) for text in (reference, answer)
    )
    # What the parser gives up on it returns as the string it was given.
    parsed = any(not isinstance(part, str) for part in given)
    return parsed and verify(expected, given, timeout_seconds=None), parsed


def limit_memory(megabytes: int) -> None:
    """Bound the address space of this process, where the operating system can."""
    try:
        import resource
    except ImportError:  # Windows: the time limit remains
        return
    size = megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(megabytes: int, orphan_seconds: float) -> None:
    """Answer requests until the input ends."""
    # The pipe is for answers only: whatever a library prints goes elsewhere.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    judge("\\frac{1}{2}+x", "1")  # the parser builds its tables on first use
    limit_memory(megabytes)
    answers.write("ready\n")
    answers.flush()
    alarm: Any = getattr(signal, "setitimer", None)
    for line in sys.stdin:
        answer, reference = json.loads(line)
        if alarm is not None:
            # Left at its default action, SIGALRM ends the process whatever it is computing.
            alarm(signal.ITIMER_REAL, orphan_seconds)
        verdict = judge(answer, reference)
        if alarm is not None:
            alarm(signal.ITIMER_REAL, 0.0)
        answers.write(json.dumps(verdict) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
