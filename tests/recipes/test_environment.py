"""The recipe for an environment, followed: an automaton in one file, a test in another."""

from __future__ import annotations

from typing import Any

import pytest

ENVIRONMENT = '''"""Two doors: the first token opens one of them, and what comes after does not matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from envs.automaton import TERMINAL, Automaton, Tables
from envs.catalogue import Environment, environment, whole

__all__ = ["TwoDoors"]


@environment("TwoDoors-v1")
@dataclass(frozen=True, kw_only=True)
class TwoDoors(Environment):
    """A reward that the first of two tokens decides.

    ## Description
    One prompt, two tokens; token 0 first is right.

    ## Action Space
    `Discrete(vocabulary)`: the token.

    ## Observation Space
    `Discrete(vocabulary + 2)`: the start, or the first token; the last value means the episode is over.

    ## Starting State
    The prompt.

    ## Reward
    1 after the second token where the first was 0, else 0.

    ## Episode End
    After two tokens.

    ## Information
    `prompt` on reset; `success` with the reward.

    ## Exact Solution
    The optimum is 1, with a uniform second token: H* = log vocabulary.

    ## What It Is Built to Reveal
    Credit for a token that came early.

    ## Arguments
    The fields of this class.

    ## Version History
    * v1: first version.
    """

    longest: ClassVar[int] = 2
    small: ClassVar[dict[str, Any]] = {"vocabulary": 3}

    vocabulary: int = whole(4, low=2, high=1000)
    """Number of tokens."""

    def automaton(self) -> Automaton:
        first = torch.arange(1, self.vocabulary + 1)
        transitions = torch.full((self.vocabulary + 1, self.vocabulary), TERMINAL)
        transitions[0] = first
        return self.assemble(transitions, torch.tensor([0]))

    def draw_tables(self, generator: np.random.Generator) -> Tables:
        rewards = torch.zeros(self.vocabulary + 1, self.vocabulary, dtype=torch.float64)
        rewards[1] = 1.0
        return Tables(rewards, rewards, torch.zeros_like(rewards))
'''
TEST = '''"""Two doors against the numbers derived by hand."""

from __future__ import annotations

import math

import pytest
import torch

from envs import exact, make_spec


def test_values_by_hand() -> None:
    spec = make_spec("TwoDoors-v1", vocabulary=4)
    # Uniform: the first token is 0 in one of four; at best it always is, and the second is free.
    uniform = torch.full((spec.states, 4), 0.25, dtype=torch.float64).log()
    assert float(exact.evaluate(spec, uniform).value) == pytest.approx(0.25, rel=1e-12)
    assert float(exact.optimum(spec, temperature=0.0).value) == pytest.approx(1.0, rel=1e-12)
    assert float(exact.maximum_entropy_optimum(spec).entropy) == pytest.approx(math.log(4), rel=1e-12)
'''


@pytest.mark.slow
def test_an_environment_is_two_new_files(tree: Any) -> None:
    tree.add("envs/two_doors.py", ENVIRONMENT)
    tree.add("tests/envs/test_two_doors.py", TEST)
    assert "TwoDoors-v1" in tree.run("testbed", "list")
    tree.test("tests/envs/test_two_doors.py")
    tree.test(
        "tests/envs/test_conformance.py", "tests/envs/test_catalogue.py", "tests/envs/test_gym.py", "-k", "TwoDoors"
    )
    tree.run("analysis.documents")
    tree.test("tests/analysis/test_documents.py")
    assert tree.edited() == set()
