"""The recipe for an objective, followed: the loss in one file, its tests in another."""

from __future__ import annotations

from typing import Any

import pytest

OBJECTIVE = '''"""Root: PPO's clip on the square root of the ratio."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.diagnostics import ClipInterval
from testbed.objectives import Hyper, Objective, check_range, clipped_surrogate, objective


@objective("root_clip")
@dataclass(frozen=True, kw_only=True)
class RootClip(Objective):
    """Pushes tokens by the square root of their ratio, twice as hard, and stops once that has left the interval.

        ℓ = -2·min(√r·A, clip(√r, 1-ε, 1+ε)·A)

        F = √r, but 0 where A > 0, √r > 1+ε;  where A < 0, √r < 1-ε

    Reference: none, an example.
    Departures: none.
    Gradient: dℓ/dlog p = -F·A; none to the old policy or the advantages.

    Example:
        >>> RootClip(clip=0.1).label()
        \'root_clip(clip=0.1)\'
    """

    clip: Hyper = 0.2
    """ε in [0, 1]: the root of the ratio may leave 1 by that much."""

    def check(self) -> None:
        check_range(self.name, "clip", self.clip, 0, 1)

    def clip_interval(self, batch: TokenBatch) -> ClipInterval:
        return ClipInterval(1 - self.clip, 1 + self.clip, ratio=self.root(batch))

    def root(self, batch: TokenBatch) -> Tensor:
        """√r, `(..., B, T)`."""
        return (batch.log_ratio / 2).exp()

    def token_loss(self, batch: TokenBatch) -> Tensor:
        return 2 * clipped_surrogate(self.root(batch), batch.advantages, 1 - self.clip, 1 + self.clip)
'''
TEST = '''from __future__ import annotations

import numpy as np


def test_value_by_hand(tokens, check):
    # Roots 1.5, 1 and ½ in the interval [0.8, 1.2]: A = 1 holds the first, A = -1 the last. Doubled.
    check(
        "root_clip",
        tokens([[2.25, 1.0, 0.25], [2.25, 1.0, 0.25]], [1.0, -1.0]),
        token_loss=[[-2.4, -2.0, -1.0], [3.0, 2.0, 1.6]],
        gradient=[[0.0, -1.0, -0.5], [1.5, 1.0, 0.0]],
    )


def push(tokens, objective):
    root, gain = np.sqrt(tokens.ratio), tokens.advantages > 0
    blocked = np.where(gain, root > 1 + objective.clip, root < 1 - objective.clip)
    return np.where(blocked, 0, root) * tokens.advantages


def mutate(monkeypatch):
    """The root is forgotten."""
    from testbed.objectives.root_clip import RootClip

    monkeypatch.setattr(RootClip, "root", lambda self, batch: batch.ratio)
'''


@pytest.mark.slow
def test_an_objective_is_two_new_files(tree: Any) -> None:
    tree.add("testbed/objectives/root_clip.py", OBJECTIVE)
    tree.add("tests/objectives/test_root_clip.py", TEST)
    assert "root_clip" in tree.run("testbed", "list")
    tree.test("--doctest-modules", "testbed/objectives/root_clip.py", "tests/objectives/test_root_clip.py")
    tree.test("tests/laws", "tests/objectives/test_mutations.py", "tests/objectives/test_base.py", "-k", "root_clip")
    tree.run("analysis.documents")
    tree.run("analysis.docs_objectives")
    tree.test("tests/analysis/test_documents.py", "tests/analysis/test_docs_objectives.py")
    assert tree.edited() == set()
