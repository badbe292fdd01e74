"""What a rollout's random numbers, mini-batches and records are, each seen from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from envs import make_spec
from models import make_policy
from testbed.batch import TokenBatch
from testbed.objectives import Objective, make_objective
from testbed.simulation import Settings, simulate
from testbed.simulation.training import Training

COIN = "NullBandit-v1(arms=2,contexts=1,initial=uniform)"
MODULAR = "ModularSum-v1(length=3,vocabulary=4,modulus=2,prompts=2)"


def trained(
    objective: Objective, env: str, settings: Settings, seeds: int, dtype: torch.dtype = torch.float64
) -> Tensor:
    """The logits after training."""
    tables = make_spec(env).for_seeds(list(range(seeds)))
    policy = make_policy("tabular", tables.initial_logits.to(dtype))
    list(Training(objective, tables, policy, settings, list(range(seeds)), 0).run())
    return policy.parameters[0]


# -- random numbers ----------------------------------------------------------------------------------------------------


def test_rewards_are_drawn_apart_from_tokens() -> None:
    # A coin that does not care for the arm moves no policy: the mean over seeds is 0 within its error.
    settings = Settings(steps=20, epochs=1, advantage="group_centred", sampled_metrics=False)
    logits = trained(make_objective("reinforce"), COIN, settings, 400)[:, 0]
    moved = logits[:, 0] - logits[:, 1]
    assert moved.std() > 0.01
    assert abs(float(moved.mean())) < 4 * float(moved.std()) / 400**0.5


def test_each_response_has_its_own_reward() -> None:
    run = simulate("reinforce", COIN, seeds=200, steps=10, group_size=16, epochs=1, staleness=1)
    shares = run.table.query("step > 0")["reward/mean"]
    # The mean of 16 coins: 1/2, with a variance of 1/64, both within four standard errors of 2,000 of them.
    assert shares.mean() == pytest.approx(0.5, abs=4 * 0.125 / 2000**0.5)
    assert shares.var() == pytest.approx(1 / 64, rel=4 * (2 / 2000) ** 0.5)


def test_the_mean_reward_is_that_of_the_policy_before_the_updates() -> None:
    env = "RareArm-v1(arms=4,contexts=2,rare_probability=0.3)"
    run = simulate("reinforce", env, seeds=300, steps=1, epochs=2, learning_rate=64.0)
    expected = run.table.query("step == 0")["exact/return"].mean()
    sampled = run.table.query("step == 1")["reward/mean"]
    assert sampled.mean() == pytest.approx(expected, abs=4 * float(sampled.std()) / 300**0.5)


def test_noise_of_the_sampler_is_drawn_apart_from_tokens() -> None:
    tables = make_spec(COIN).for_seeds([0, 1])
    policy = make_policy("tabular", tables.initial_logits)
    training = Training(make_objective("grpo"), tables, policy, Settings(mismatch=0.1), [0, 1], 0)
    assert training._noise is not None
    noise, numbers = training._noise.next(), training._uniforms.next()
    assert not torch.isin(noise, numbers).any()


# -- mini-batches ------------------------------------------------------------------------------------------------------


def test_small_steps_on_all_minibatches_add_up_to_steps_on_the_whole() -> None:
    # At step size η, m mini-batches move by η Σ g_i = η m g up to O(η²), whatever is in which.
    objective, size = make_objective("reinforce"), 1e-6
    start = make_spec(MODULAR).for_seeds([0, 1]).initial_logits
    whole, split = (
        trained(objective, MODULAR, Settings(steps=1, group_size=6, epochs=1, minibatches=m, learning_rate=size), 2)
        - start
        for m in (1, 3)
    )
    assert whole.abs().max() > 1e-8
    torch.testing.assert_close(split, 3 * whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


def test_what_the_sampler_reported_is_split_with_its_tokens() -> None:
    def divergence(minibatches: int) -> pd.Series:
        settings: dict[str, Any] = {"steps": 2, "epochs": 1, "staleness": 1, "mismatch": 0.3, "learning_rate": 1e-2}
        table = simulate("grpo", MODULAR, seeds=3, group_size=6, minibatches=minibatches, **settings).table
        found: pd.Series = table.query("step == 1")["kl/sampler"]
        return found

    # The tokens of the first rollout are drawn before any update. Equal shares: the mean of all is the mean of means.
    whole = divergence(1)
    assert (whole.abs() > 1e-3).all()
    assert divergence(3).tolist() == pytest.approx(whole.tolist(), rel=1e-5)  # float32


# -- what a row holds --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Counting(Objective):
    """REINFORCE whose own metric is missing in every other update and 4 in those between."""

    name = "counting"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "calls", [])

    def token_loss(self, batch: TokenBatch) -> Tensor:
        return -batch.ratio * batch.advantages

    def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        self.calls.append(0)  # type: ignore[attr-defined]
        value = float("nan") if len(self.calls) % 2 else 4.0  # type: ignore[attr-defined]
        return {"cov/mean": torch.full(batch.log_probs.shape[:-2], value)}


@pytest.mark.parametrize(
    ("changes", "passes"),
    [({}, 4), ({"staleness": 1}, 5), ({"env": MODULAR, "partial": 2}, 5), ({"epochs": 1, "staleness": 1}, 1)],
)
def test_updates_that_count_are_averaged_over_those_with_data(changes: dict[str, Any], passes: int) -> None:
    # Five passes; the first after a fresh rollout is left out, and only then: all its ratios are 1.
    objective = Counting()
    settings = {"env": COIN, "seeds": 2, "steps": 4, "epochs": 5, "group_size": 4, "learning_rate": 8.0, **changes}
    table = simulate(objective, **settings).table
    assert len(objective.calls) == 4 * passes  # type: ignore[attr-defined]
    found = table.query("step > 0").groupby("step")["cov/mean"].first()
    # One update alone has data in every other rollout.
    assert found.dropna().tolist() == [4.0] * (2 if passes == 1 else 4)


def test_the_largest_gradient_norm_is_the_largest() -> None:
    table = simulate("dapo", MODULAR, seeds=4, steps=3, group_size=8, learning_rate=16.0).table.query("step > 0")
    assert (table["gradient/norm_max"] >= table["gradient/norm"] * (1 - 1e-6)).all()
    assert (table["gradient/norm_max"] > 1.05 * table["gradient/norm"]).any()


def test_gradients_are_clipped_in_rollouts_that_nobody_records() -> None:
    every, last = (
        simulate("dapo", MODULAR, seeds=3, steps=4, group_size=4, learning_rate=8.0, max_grad_norm=0.01, **record).table
        for record in ({}, {"metrics_every": 4, "sampled_metrics": False})
    )
    found, expected = (table.query("step == 4")["exact/kl_initial"].to_numpy() for table in (last, every))
    assert (found == expected).all()
    free = simulate("dapo", MODULAR, seeds=3, steps=4, group_size=4, learning_rate=8.0).table
    assert (free.query("step == 4")["exact/kl_initial"].to_numpy() > 2 * expected).all()


def test_nobody_needs_to_say_how_often_to_record() -> None:
    table = simulate("reinforce", COIN, seeds=1, steps=103, epochs=1, staleness=1, metrics_every=None).table
    # 103 // 25 = 4 rollouts between two rows, and the first and the last.
    assert table["step"].tolist() == [*range(0, 103, 4), 103]


def test_partial_rollouts_are_written_by_the_policies_of_the_rollouts_before() -> None:
    # Three tokens, one a rollout: the first token's writer is two rollouts old, the last token's is the current policy.
    class Recording(Counting):
        name = "recording"

        def token_loss(self, batch: TokenBatch) -> Tensor:
            self.calls.append((batch.log_probs.detach(), batch.old_log_probs))  # type: ignore[attr-defined]
            return super().token_loss(batch)

        def own_metrics(self, batch: TokenBatch) -> Mapping[str, Tensor]:
            return {}

    objective = Recording()
    settings = Settings(steps=4, group_size=4, epochs=1, partial=1, learning_rate=16.0, advantage="none")
    trained(objective, MODULAR, settings, 2)
    for step, (current, old) in enumerate(objective.calls):  # type: ignore[attr-defined]
        equal = (current == old).all(0).all(0)
        assert equal.tolist() == [step < 1, step < 1, True], step
