from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from testbed import TokenBatch
from testbed.engines.trl.settings import check_settings
from testbed.engines.verl import WorkerLoss
from testbed.errors import BatchError, ConfigError
from testbed.objectives import make_objective
from testbed.simulation import simulate

GOLDEN = json.loads((Path(__file__).parent / "golden_2.json").read_text(encoding="utf-8"))["adaptive_entropy"]


def test_value_by_hand(tokens, check):
    # GRPO's -1.1 and -1.2 (held), minus 0.5 times entropies 1 and 3, whose mean over tokens is 2.
    batch = tokens([[1.1, 1.5, None]], [1.0], entropies=[[1.0, 3.0, float("nan")]])
    check(
        "adaptive_entropy(base=grpo,coefficient=0.5,last_entropy=0.1)",
        batch,
        token_loss=[[-1.6, -2.7, 0.0]],
        gradient=[[-1.1, 0.0, 0.0]],
        loss=-4.3 / 2,
    )


def mutate(monkeypatch):
    """The gate is upside down: the bonus acts above the target."""
    from testbed.objectives.adaptive_entropy import AdaptiveEntropy

    applied = AdaptiveEntropy.applied
    monkeypatch.setattr(AdaptiveEntropy, "applied", lambda self: torch.as_tensor(self.coefficient) - applied(self))


def test_the_coefficient_follows_the_golden_trace(tokens):
    names = {"target": "target", "step": "delta", "lowest": "min", "highest": "max", "coefficient": "start"}
    objective = make_objective("adaptive_entropy", **{ours: GOLDEN[theirs] for ours, theirs in names.items()})
    for step in GOLDEN["steps"]:
        assert float(objective.applied()) == pytest.approx(step["applied"], abs=1e-15)
        # A mean over tokens: 0 and three halves of it, twice.
        entropies = [[0.0, 1.5 * step["entropy"]], [1.5 * step["entropy"], 9.0]]
        objective = objective.next_step(tokens([[1.0, 1.0], [1.0, None]], [1.0, -1.0], entropies=entropies))
        assert float(objective.coefficient) == pytest.approx(step["next_coefficient"], abs=1e-15)


def test_each_replica_has_its_own_coefficient():
    zeros = torch.zeros(2, 1, 1, dtype=torch.float64)
    batch = TokenBatch(
        log_probs=zeros,
        old_log_probs=zeros,
        advantages=zeros,
        mask=~zeros.bool(),
        entropies=torch.tensor([[[0.1]], [[0.3]]], dtype=torch.float64),
    )
    objective = make_objective("adaptive_entropy", coefficient=0.5, step=0.25, last_entropy=0.0)
    following = objective.next_step(batch)
    assert following.coefficient.flatten().tolist() == [0.75, 0.25]
    # The second replica was above the target: no bonus.
    metric = following(batch).metrics["entropy/coefficient"]
    assert metric.tolist() == [0.75, 0.0]


def test_a_wrapper_around_it_follows_too(tokens):
    batch = tokens([[1.0]], [1.0], entropies=[[0.1]])
    outer = make_objective("off_policy_mask(base=adaptive_entropy(step=0.5))").next_step(batch)
    assert float(outer.wrapped.coefficient) == 0.5
    assert outer.adapts


def test_before_the_first_step_it_is_its_base(tokens):
    batch = tokens([[1.1, 1.5]], [1.0], entropies=[[0.1, 0.1]])
    objective = make_objective("adaptive_entropy", coefficient=1.0)
    assert objective.loss(batch) == make_objective("ppo").loss(batch)
    assert (objective.exact_on_policy, objective.acts_without_advantage) == ("", "")


def test_a_simulation_raises_the_coefficient_while_entropy_is_low():
    # The target is above any entropy: 3 steps of 2 updates each raise it by 6 · 0.01; row k has the mean of its two.
    run = simulate(["adaptive_entropy(target=99.0,step=0.01)"], "RareArm-v1", seeds=2, steps=3, epochs=2)
    seen = run.table.groupby("step")["entropy/coefficient"].mean()
    # The first update of a rollout is left out of sampled metrics: 0.01, 0.03, 0.05.
    assert seen.loc[1:].tolist() == pytest.approx([0.01, 0.03, 0.05])


@pytest.mark.parametrize("name", ["target", "step", "lowest", "coefficient", "last_entropy"])
def test_negative_numbers_are_refused(name):
    with pytest.raises(ConfigError, match=f"adaptive_entropy: {name} is -1"):
        make_objective("adaptive_entropy", **{name: -1.0})


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match="expected lowest <= highest"):
        make_objective("adaptive_entropy", lowest=0.5, highest=0.1)


def test_entropies_are_needed(tokens):
    with pytest.raises(BatchError, match="entropies missing"):
        make_objective("adaptive_entropy").loss(tokens([[1.0]], [1.0]))


def test_trainers_that_keep_one_objective_refuse_it():
    @dataclasses.dataclass
    class Arguments:
        beta: float = 0.0

    with pytest.raises(ConfigError, match="its coefficient follows the entropy"):
        check_settings(make_objective("adaptive_entropy"), Arguments())
    with pytest.raises(ConfigError, match="verl's workers keep one objective"):
        WorkerLoss("off_policy_mask(base=adaptive_entropy)")
