from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.replay import replay
from analysis.replay.measures import CLASSES, MEASURES
from analysis.theory.entropy_dynamics import raises_entropy, sampled_entropy_change
from testbed import TokenBatch
from testbed.errors import ConfigError, StorageError, UnknownNameError
from testbed.objectives import make_objective, objective_names
from testbed.records import RecordWriter

PROMPTS = ["a", "a", "b", "b"]


def a_batch(seed: int, scale: float, sequences: int = 4, width: int = 6) -> TokenBatch:
    """Tokens sampled from random policies over seven actions."""
    generator = torch.Generator().manual_seed(seed)
    old_logits = 2 * torch.randn(sequences, width, 7, generator=generator)
    new_logits = old_logits + scale * torch.randn(sequences, width, 7, generator=generator)
    old, new = old_logits.log_softmax(-1), new_logits.log_softmax(-1)
    actions = torch.multinomial(old.exp().view(-1, 7), 1, generator=generator).view(sequences, width, 1)
    entropies, old_entropies = (-(logs.exp() * logs).sum(-1) for logs in (new, old))
    kappas, old_kappas = (
        (logs.exp().square() * (logs + entropy.unsqueeze(-1))).sum(-1)
        for logs, entropy in ((new, entropies), (old, old_entropies))
    )
    return TokenBatch(
        log_probs=new.gather(-1, actions).squeeze(-1),
        old_log_probs=old.gather(-1, actions).squeeze(-1),
        advantages=torch.randn(sequences, generator=generator),
        mask=torch.arange(width) < torch.tensor([6, 2, 4, 5])[:sequences, None],
        entropies=entropies,
        old_entropies=old_entropies,
        kappas=kappas,
        old_kappas=old_kappas,
        sampler_log_probs=old.gather(-1, actions).squeeze(-1) + 0.1,
        ref_log_probs=old.gather(-1, actions).squeeze(-1) - 0.1,
    )


def written(folder, steps: int = 3, updates: int = 2) -> dict[tuple[int, int], TokenBatch]:
    batches = {}
    with RecordWriter(folder, objective="dapo") as writer:
        for step in range(steps):
            for update in range(updates):
                batch = a_batch(10 * step + update, 0.5 * update)
                batches[step, update] = batch
                writer.add(batch, step=step, update=update, prompts=PROMPTS, rewards=[1, 0, 1, 0])
    return batches


def test_loss_and_metrics_are_those_of_the_step(tmp_path):
    batches = written(tmp_path)
    done = replay(tmp_path, ["dapo", "gspo", "erc"])
    assert len(done.table) == 3 * 6
    for _, row in done.table.iterrows():
        output = make_objective(row["objective"])(batches[row["step"], row["update"]])
        assert row["loss"] == output.loss.item()
        for name in ("clip/fraction", "ratio/max", "entropy/mean"):
            np.testing.assert_equal(row[name], output.metrics[name].double().item())


def test_every_objective_can_be_replayed_where_everything_was_recorded(tmp_path):
    written(tmp_path)
    done = replay(tmp_path)
    assert not done.skipped
    assert sorted(done.table["objective"].unique()) == [make_objective(name).label() for name in objective_names()]
    assert set(MEASURES) <= set(done.table.columns)
    # Without a gradient no token's weight can be compared with the mean: REAL has none where no group has two sides.
    numbers = done.table.loc[done.table["gradient"] > 0, [*MEASURES]]
    assert numbers.notna().all(axis=None)


def test_what_is_stopped_by_side_and_sign(tmp_path):
    # Ratios 1.5 and 0.5 under A = 1 and A = -1: PPO stops the first of A > 0 and the second of A < 0.
    old = torch.full((2, 2), 0.25).log()
    batch = TokenBatch(
        log_probs=old + torch.tensor([[1.5, 0.5], [1.5, 0.5]]).log(),
        old_log_probs=old,
        advantages=torch.tensor([1.0, -1.0]),
        mask=old < 0,
    )
    with RecordWriter(tmp_path) as writer:
        writer.add(batch, step=0, update=1, prompts=["a", "a"], rewards=[1.0, 0.0])
    row = replay(tmp_path, ["ppo"]).table.iloc[0]
    shares = {name: row[name] for name in row.index if name.startswith("stopped")}
    assert shares == {
        "stopped": 0.5,
        "stopped/positive_above": 0.25,
        "stopped/positive_below": 0.0,
        "stopped/negative_above": 0.0,
        "stopped/negative_below": 0.25,
    }
    # Kept: 0.5 and 1.5 of |rA| = 1.5 + 0.5 + 1.5 + 0.5.
    assert row["mass"] == pytest.approx(0.5, rel=1e-6)
    # (Σr)²/(NΣr²) = 16/(4·5).
    assert row["ratio/effective_sample_size"] == pytest.approx(0.8, rel=1e-6)
    # Without entropies there are no classes and no prediction: missing, and not 0.
    assert row[["mass/positive_low", "naive_mass/positive_low", "entropy/predicted", "kl/sampler"]].isna().all()


def test_classes_and_prediction_against_the_closed_form(tmp_path):
    # One position of one response at a time, so that theory's single-token statement applies.
    generator = np.random.default_rng(0)
    logits = 2 * generator.standard_normal((40, 7))
    actions = generator.integers(0, 7, 40)
    advantages = generator.standard_normal(40)
    logs = torch.tensor(logits).log_softmax(-1)
    entropies = -(logs.exp() * logs).sum(-1)
    kappas = (logs.exp().square() * (logs + entropies[:, None])).sum(-1)
    sampled = logs[torch.arange(40), torch.tensor(actions)][:, None]
    batch = TokenBatch(
        log_probs=sampled, old_log_probs=sampled, advantages=torch.tensor(advantages), mask=sampled < 0,
        entropies=entropies[:, None], kappas=kappas[:, None],
    )  # fmt: skip
    with RecordWriter(tmp_path) as writer:
        writer.add(batch, step=0, update=0, prompts=["a"] * 40, rewards=np.zeros(40))
    row = replay(tmp_path, ["reinforce"]).table.iloc[0]
    change = sampled_entropy_change(logits)[np.arange(40), actions]
    # The loss is -mean A log p: dH = Σ A (κ - φ)/40 per unit of step size.
    assert row["entropy/predicted"] == pytest.approx((advantages * change).sum() / 40, rel=1e-5)
    raises = raises_entropy(logits, np.ones((40, 7)))[np.arange(40), actions]
    mass = np.abs(advantages) / np.abs(advantages).sum()
    expected = {
        "positive_low": mass[(advantages > 0) & raises].sum(),
        "positive_high": mass[(advantages > 0) & ~raises].sum(),
        "negative_low": mass[(advantages < 0) & raises].sum(),
        "negative_high": mass[(advantages < 0) & ~raises].sum(),
    }
    for name in CLASSES:
        assert row[f"mass/{name}"] == pytest.approx(expected[name], rel=1e-5)
    # The papers' rule: log p < -H.
    low = (sampled[:, 0] < -entropies).numpy()
    assert row["naive_mass/positive_low"] == pytest.approx(mass[(advantages > 0) & low].sum(), rel=1e-5)
    assert row["naive_mass/negative_high"] == pytest.approx(mass[(advantages < 0) & ~low].sum(), rel=1e-5)
    assert (low != raises).any()


def test_prediction_is_perfect_where_the_formula_is_exact(tmp_path):
    # A table of one state: its entropy after a small step is the first-order change, rollout by rollout.
    generator = np.random.default_rng(1)
    logits = np.array([1.0, 0.0, -1.0, -2.0])
    with RecordWriter(tmp_path) as writer:
        for step in range(8):
            logs = torch.tensor(logits).log_softmax(-1)
            entropy = -(logs.exp() * logs).sum()
            kappa = (logs.exp().square() * (logs + entropy)).sum()
            action, advantage = int(generator.integers(0, 4)), float(generator.standard_normal())
            token = logs[action].view(1, 1)
            batch = TokenBatch(
                log_probs=token, old_log_probs=token, advantages=torch.tensor([advantage]), mask=token < 0,
                entropies=entropy.view(1, 1), old_entropies=entropy.view(1, 1), kappas=kappa.view(1, 1),
            )  # fmt: skip
            writer.add(batch, step=step, update=0, prompts=["a"], rewards=[0.0])
            direction = -logs.exp().numpy()
            direction[action] += 1
            logits = logits + 1e-2 * advantage * direction
    done = replay(tmp_path, ["reinforce"])
    assert done.correlations()["reinforce"] == pytest.approx(1, abs=1e-3)
    rows = done.prediction().dropna()
    # Second order is a hundredth of the first at this step size, single precision of the entropies 1e-5 of it.
    np.testing.assert_allclose(1e-2 * rows["entropy/predicted"], rows["entropy/change"], rtol=0.1, atol=1e-5)


def test_entropies_of_the_first_update_stand_for_those_at_sampling_time(tmp_path):
    batches = {}
    with RecordWriter(tmp_path) as writer:
        for step in range(2):
            for update in range(2):
                batch = batches[step, update] = replace(a_batch(10 * step + update, 0.5 * update), old_entropies=None)
                writer.add(batch, step=step, update=update, prompts=PROMPTS, rewards=[1, 0, 1, 0])
    rollouts = replay(tmp_path, ["ppo"]).rollouts
    expected = [float(batches[step, 0].entropies.sum() / batches[step, 0].mask.sum()) for step in range(2)]
    assert rollouts["entropy/sampled"].tolist() == pytest.approx(expected, rel=1e-6)
    assert rollouts["entropy/change"].iloc[0] == pytest.approx(expected[1] - expected[0], rel=1e-5)


def test_the_heaviest_tokens_are_named(tmp_path):
    old = torch.full((1, 3), 0.1).log()
    batch = TokenBatch(
        log_probs=old + torch.tensor([[1.0, 6.0, 1.0]]).log(),
        old_log_probs=old,
        advantages=-torch.ones(1),
        mask=old < 0,
    )
    with RecordWriter(tmp_path) as writer:
        writer.add(batch, step=3, update=1, prompts=["why"], rewards=[0.0])
    done = replay(tmp_path, ["ppo"])
    first = done.largest.iloc[0]
    # Weights 1, 6, 1: the second is 6/(8/3) of the mean.
    assert (first["step"], first["update"], first["prompt"], first["position"]) == (3, 1, "why", 1)
    assert first["weight"] == pytest.approx(2.25, rel=1e-5)
    assert first["probability"] == pytest.approx(0.6, rel=1e-5)
    assert done.table.iloc[0]["weight/largest"] == pytest.approx(2.25, rel=1e-5)


def test_advantages_are_computed_again_where_asked(tmp_path):
    written(tmp_path, steps=1, updates=1)
    recorded = replay(tmp_path, ["reinforce"]).table["loss"].iloc[0]
    again = replay(tmp_path, ["reinforce"], advantage="group_standardised").table["loss"].iloc[0]
    batch = a_batch(0, 0.0)
    # Rewards 1, 0 in both groups: advantages 1 and -1.
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]
    expected = -(signs * batch.log_probs).where(batch.mask, 0).sum() / batch.mask.sum()
    assert again == pytest.approx(expected.item(), rel=1e-6)
    assert again != pytest.approx(recorded, rel=1e-3)


def test_chunks_do_not_change_a_number(tmp_path, monkeypatch):
    written(tmp_path)
    whole = replay(tmp_path, ["dapo", "gspo"])
    monkeypatch.setattr("analysis.replay.walk._TOGETHER", 1)
    parts = replay(tmp_path, ["dapo", "gspo"])
    np.testing.assert_array_equal(
        whole.table.select_dtypes("number").to_numpy(), parts.table.select_dtypes("number").to_numpy()
    )


def test_the_first_update_is_left_out_of_what_is_stopped(tmp_path):
    written(tmp_path)
    done = replay(tmp_path, ["dapo"])
    later = done.table[done.table["update"] > 0]
    assert later["stopped"].mean() > 0
    assert done.summary().loc["dapo", "stopped"] == later["stopped"].mean()


def test_what_the_record_lacks_is_named(tmp_path):
    batch = TokenBatch(
        log_probs=torch.full((1, 1), -1.0), old_log_probs=torch.full((1, 1), -1.0), advantages=torch.ones(1),
        mask=torch.ones(1, 1).bool(),
    )  # fmt: skip
    with RecordWriter(tmp_path) as writer:
        writer.add(batch, step=0, update=0, prompts=["a"], rewards=[1.0])
    with pytest.raises(StorageError, match=r"has no entropies .* and old_entropies .*; erc reads them"):
        replay(tmp_path, ["erc"])
    done = replay(tmp_path)
    assert done.skipped["erc"] == "the record has no entropies and old_entropies"
    assert math.isnan(done.correlations().iloc[0])


def test_rejects(tmp_path):
    written(tmp_path, steps=1)
    with pytest.raises(UnknownNameError, match="unknown objective 'grop'"):
        replay(tmp_path, ["grop"])
    with pytest.raises(ConfigError, match="objectives is empty"):
        replay(tmp_path, [])
    with pytest.raises(UnknownNameError, match="unknown advantage estimator"):
        replay(tmp_path, ["ppo"], advantage="mean")
    with pytest.raises(StorageError, match="is no record"):
        replay(tmp_path / "nothing", ["ppo"])


def test_the_longest_third_and_the_sampler(tmp_path):
    # Lengths 1, 4, 1 under a mean over tokens: the longest of three responses has 4 of 6 equal weights. The sampler had
    # said log q + 0.25.
    old = torch.full((3, 4), 0.5).log()
    batch = TokenBatch(
        log_probs=old,
        old_log_probs=old,
        advantages=torch.ones(3),
        mask=torch.arange(4) < torch.tensor([1, 4, 1])[:, None],
        sampler_log_probs=old + 0.25,
    )
    with RecordWriter(tmp_path) as writer:
        writer.add(batch, step=0, update=0, prompts=["a"] * 3, rewards=np.zeros(3))
    row = replay(tmp_path, ["reinforce"]).table.iloc[0]
    assert row["mass/longest_third"] == pytest.approx(4 / 6, rel=1e-6)
    assert row["kl/sampler"] == pytest.approx(0.25, rel=1e-6)


def test_groups_need_not_stand_together(tmp_path):
    # Rewards 1, 1 | 0, 1 of prompts a, b | a, b: within their groups a is 1, 0 and b is 1, 1.
    log_probs = torch.tensor([[-1.0], [-2.0], [-3.0], [-5.0]])
    batch = TokenBatch(log_probs=log_probs, old_log_probs=log_probs, advantages=torch.zeros(4), mask=log_probs < 0)
    with RecordWriter(tmp_path) as writer:
        writer.add(batch, step=0, update=0, prompts=["a", "b", "a", "b"], rewards=[1.0, 1.0, 0.0, 1.0])
    row = replay(tmp_path, ["reinforce"], advantage="group_centred").table.iloc[0]
    # -mean A log p with A = ½, 0, -½, 0.
    assert row["loss"] == pytest.approx(0.5 * (1.0 - 3.0) / 4, rel=1e-6)
