from __future__ import annotations

import math
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from envs import exact, make_spec
from models import make_policy
from testbed.batch import TokenBatch
from testbed.diagnostics import GLOSSARY
from testbed.errors import BatchError, ConfigError, RunExistsError, UnknownNameError
from testbed.objectives import Objective, make_objective
from testbed.simulation import Run, Settings, SimulationWarning, simulate
from testbed.simulation.training import Training

SMALL: dict[str, Any] = {"steps": 4, "group_size": 4, "epochs": 2, "learning_rate": 8.0, "seeds": 6}
MODULAR = "ModularSum-v1(length=3,vocabulary=4,modulus=2,prompts=2)"


@dataclass(frozen=True, kw_only=True)
class Spy(Objective):
    """Records every batch it is given; not registered."""

    name = "spy"
    needs = ("entropies", "old_entropies")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "seen", [])

    def token_loss(self, batch: TokenBatch) -> Tensor:
        self.seen.append(batch)  # type: ignore[attr-defined]
        return -batch.ratio * batch.advantages


def numbers(run: Run) -> pd.DataFrame:
    return run.table.drop(columns=["objective", "replica"])


# -- reproducibility -----------------------------------------------------------------------------------------------


def test_same_seed_same_numbers_bit_for_bit() -> None:
    first, second = (simulate(["dapo", "dcpo"], MODULAR, **SMALL) for _ in range(2))
    pd.testing.assert_frame_equal(first.table, second.table, check_exact=True)


def test_another_master_seed_gives_other_numbers() -> None:
    first, second = (simulate("dapo", MODULAR, **SMALL, seed=seed) for seed in (0, 1))
    assert not numbers(first).equals(numbers(second))


@pytest.mark.parametrize("objective", ["dapo", "bapo", "erc", "gspo"])
def test_numbers_do_not_depend_on_the_company_or_the_cut(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = simulate(["ppo", objective], "RareArm-v1(arms=10,contexts=3)", **SMALL)
    own = whole.table[whole.table["objective"] == objective].drop(columns=["objective", "replica"])
    # The module is hidden behind the function of the same name.
    monkeypatch.setattr(sys.modules["testbed.simulation.blocks"], "CHUNK_ELEMENTS", 1)
    alone = simulate(objective, "RareArm-v1(arms=10,contexts=3)", **SMALL)
    order = ["seed", "step"]
    found = numbers(alone).sort_values(order).reset_index(drop=True)
    # The company's own metrics are further columns of the joint table.
    expected = own[found.columns].sort_values(order).reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_fewer_seeds_are_the_first_of_more() -> None:
    few, many = (simulate("dapo", MODULAR, **(SMALL | {"seeds": seeds})) for seeds in (2, 6))
    expected = numbers(many)[numbers(many)["seed"] < 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        numbers(few).sort_values(["step", "seed"]).reset_index(drop=True),
        expected.sort_values(["step", "seed"]).reset_index(drop=True),
        check_exact=True,
    )


def test_objectives_of_one_call_are_paired() -> None:
    # Before the first update of a rollout every objective is the same, so the first rollout's rewards agree.
    run = simulate(["grpo", "sapo"], "RareArm-v1(arms=10,contexts=3)", **SMALL)
    first = run.table[run.table["step"] == 1].pivot(index="seed", columns="objective", values="reward/mean")
    assert (first["grpo"] == first["sapo"]).all()
    assert first["grpo"].nunique() > 1


def test_thinning_the_record_leaves_the_run_alone() -> None:
    every, thinned = (simulate("dapo", MODULAR, **SMALL, metrics_every=k) for k in (1, 3))
    assert sorted(thinned.table["step"].unique()) == [0, 3, 4]
    kept = every.table[every.table["step"].isin([0, 3, 4])].reset_index(drop=True)
    comparable = [name for name in kept if name != "exact/kl_cumulative"]
    pd.testing.assert_frame_equal(thinned.table[comparable], kept[comparable], check_exact=True)
    assert thinned.table.loc[thinned.table["step"] > 0, "exact/kl_cumulative"].isna().all()


# -- correctness by another route ----------------------------------------------------------------------------------


def test_expected_update_is_the_exact_policy_gradient() -> None:
    # One REINFORCE step without a baseline from many replicas: mean step = η · ∇J / T, since a token mean divides by
    # P·G·T while the sampled gradient of the mean over prompts divides by P·G.
    spec = make_spec(MODULAR)
    replicas, rate = 4000, 1.0
    tables = spec.for_seeds([0] * replicas)
    policy = make_policy("tabular", tables.initial_logits)
    before = policy.parameters[0].clone()
    settings = Settings(steps=1, group_size=8, epochs=1, learning_rate=rate, advantage="none")
    list(Training(make_objective("reinforce"), tables, policy, settings, list(range(replicas)), 0).run())
    steps = policy.parameters[0] - before
    expected = rate * exact.policy_gradient(spec, torch.log_softmax(spec.initial_logits, -1)) / spec.horizon
    standard_error = steps.std(0) / replicas**0.5
    scores = (steps.mean(0) - expected) / standard_error.clamp(min=1e-12)
    assert expected.abs().max() > 20 * standard_error.max(), "the comparison must be able to see the gradient"
    # 28 logits: the largest of 28 standard normal deviates exceeds 4.5 with probability 2e-4.
    assert scores.abs().max() < 4.5


def test_the_advantage_takes_parameters() -> None:
    # Divided by G - 1 instead of G, a standard deviation is larger by √(G/(G-1)): REINFORCE steps are smaller by it.
    shorter: dict[str, Any] = {"env": "RareArm-v1", "seeds": 4, "steps": 3, "group_size": 4, "epochs": 2}
    sample = simulate("reinforce", advantage="group_standardised(ddof=1)", learning_rate=2.0, **shorter).table
    population = simulate("reinforce", learning_rate=2.0 * (3 / 4) ** 0.5, **shorter).table
    measured = ["exact/return", "exact/entropy"]
    pd.testing.assert_frame_equal(sample[measured], population[measured], rtol=1e-9)
    assert sample["exact/return"].nunique() > 4


@pytest.mark.parametrize("objective", ["dapo", "dcpo", "sapo", "erc", "ce_gppo", "gspo", "bapo"])
def test_table_update_equals_autograd_through_the_softmax(objective: str) -> None:
    spec = make_spec(MODULAR)
    tables = spec.for_seeds([3, 4])
    loss = make_objective(objective)
    settings = Settings(steps=1, group_size=6, epochs=3, learning_rate=5.0)
    logits = 0.2 * tables.initial_logits  # spread enough for every group to hold right and wrong responses
    policy = make_policy("tabular", logits)
    spy = Spy()
    training = Training(loss, tables, policy, settings, [3, 4], 0)
    list(training.run())

    # The same three updates with a Parameter, torch's log_softmax and torch's SGD; the rollout is drawn again.
    reference = torch.nn.Parameter(logits.clone())
    again = Training(spy, tables, make_policy("tabular", logits), settings, [3, 4], 0)
    list(again.run())
    batch = spy.seen[0]  # type: ignore[attr-defined]
    sample_policy = make_policy("tabular", logits)
    uniforms = again._uniforms.__class__(0, [3, 4], 2 * 6 * 4).next()[:, : 2 * 6 * 3].view(2, 12, 3)
    samples = sample_policy.sample(again._initial_states, spec.step, uniforms, entropies=True)
    optimiser = torch.optim.SGD([reference], lr=5.0)
    for _ in range(3):
        log_policy = torch.log_softmax(reference, -1)
        index = torch.arange(2)[:, None, None]
        log_probs = log_policy[index, samples.states, samples.tokens]
        entropy = -(log_policy.exp() * log_policy).sum(-1)[index, samples.states]
        optimiser.zero_grad()
        loss(batch.with_current(log_probs, entropy.detach())).loss.sum().backward()
        optimiser.step()
    assert (policy.parameters[0] - logits).abs().max() > 1e-3, "vacuous: nothing was learned"
    torch.testing.assert_close(policy.parameters[0], reference.detach(), rtol=1e-9, atol=1e-12)


def test_stale_rollouts_come_from_the_policy_of_so_many_iterations_ago() -> None:
    spec = make_spec("NullBandit-v1(arms=5,contexts=1)")
    tables = spec.for_seeds([0])
    policy = make_policy("tabular", tables.initial_logits)
    spy = Spy()
    training = Training(spy, tables, policy, Settings(steps=5, group_size=4, epochs=1, staleness=2), [0], 0)
    history, rows = [policy.log_policy()], training.run()
    next(rows)
    for _ in rows:
        history.append(policy.log_policy())
    for iteration, batch in enumerate(spy.seen):  # type: ignore[attr-defined]
        behaviour, current = history[max(0, iteration - 2)], history[iteration]
        difference = batch.log_probs.detach() - batch.old_log_probs
        # Every token's ratio is that of one arm between the two policies.
        possible = (current - behaviour)[0, 0]
        assert all((possible - value).abs().min() < 1e-12 for value in difference.flatten())
        if iteration >= 2:
            assert difference.abs().max() > 0


def test_minibatches_hold_the_same_number_of_responses_of_every_prompt() -> None:
    spec = make_spec("DifficultyMixture-v1(contexts=3)")
    tables = spec.for_seeds([0])
    spy = Spy()
    settings = Settings(steps=1, group_size=4, epochs=2, minibatches=2)
    training = Training(spy, tables, make_policy("tabular", tables.initial_logits), settings, [0], 0)
    list(training.run())
    assert [tuple(batch.mask.shape) for batch in spy.seen] == [(1, 6, 1)] * 4  # type: ignore[attr-defined]
    firsts = [training._initial_states[positions].tolist() for positions in training._minibatches]
    assert firsts == [[0, 0, 1, 1, 2, 2]] * 2


def test_exact_metrics_are_consistent_with_each_other() -> None:
    table = simulate("dapo", MODULAR, **SMALL).table
    optimum = exact.optimum(make_spec(MODULAR)).value
    assert (table["exact/return"] + table["exact/regret"]).to_numpy() == pytest.approx(optimum, rel=1e-12)
    for _, rows in table.groupby("seed"):
        steps = rows.sort_values("step")["exact/kl_step"].fillna(0).cumsum()
        assert rows.sort_values("step")["exact/kl_cumulative"].to_numpy() == pytest.approx(steps.to_numpy(), rel=1e-12)
    initial = table[table["step"] == 0]
    assert (initial["exact/kl_initial"].abs() < 1e-12).all()
    assert initial["clip/fraction"].isna().all(), "nothing was sampled before the first rollout"


def test_every_metric_is_in_the_glossary() -> None:
    run = simulate(["erc", "bapo"], MODULAR, **SMALL, mismatch=0.1)
    metrics = [name for name in run.table if "/" in name]
    assert set(metrics) <= set(GLOSSARY)
    assert len(metrics) > 30


def test_first_pass_after_a_fresh_rollout_does_not_dilute_the_clip_share() -> None:
    # In the second of two passes a ratio is 1 only where nothing moved; averaged over both, at least half would be 1.
    spec = "NullBandit-v1(arms=4,contexts=1)"
    run = simulate("ppo(clip_low=0.0,clip_high=0.0)", spec, **(SMALL | {"group_size": 16, "steps": 1}))
    row = run.table[run.table["step"] == 1]
    moved = row["group/zero_variance_fraction"] == 0
    assert moved.any()
    assert (row.loc[moved, "ratio/one_fraction"] < 0.5).all()


def test_tensor_hyper_parameters_equal_separate_runs() -> None:
    values = [0.05, 0.2, 0.4]
    together = simulate(
        make_objective("dapo", clip_high=torch.tensor(values).view(3, 1, 1)), MODULAR, **(SMALL | {"seeds": 3})
    )
    for index, value in enumerate(values):
        alone = simulate(f"dapo(clip_high={value})", MODULAR, **(SMALL | {"seeds": 3}))
        left, right = (numbers(run)[numbers(run)["seed"] == index].reset_index(drop=True) for run in (together, alone))
        pd.testing.assert_frame_equal(left, right, check_exact=False, rtol=1e-6, atol=1e-7)  # float32 loop


def test_learning_rate_per_replica() -> None:
    rates = torch.tensor([1.0, 4.0])
    together = simulate("dapo", MODULAR, **(SMALL | {"seeds": 2, "learning_rate": rates}))
    for index, rate in enumerate(rates.tolist()):
        alone = simulate("dapo", MODULAR, **(SMALL | {"seeds": 2, "learning_rate": rate}))
        left, right = (numbers(run)[numbers(run)["seed"] == index].reset_index(drop=True) for run in (together, alone))
        pd.testing.assert_frame_equal(left, right, check_exact=False, rtol=1e-6, atol=1e-7)  # float32 loop


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_improves_the_return(optimizer: str) -> None:
    run = simulate(
        "dapo", MODULAR, seeds=8, steps=40, learning_rate=4.0 if optimizer == "sgd" else 0.05, optimizer=optimizer
    )
    returns = run.table.pivot(index="step", columns="seed", values="exact/return")
    assert (returns.iloc[-1] > returns.iloc[0] + 0.2).all()


def test_initial_policy_can_be_given() -> None:
    spec = make_spec(MODULAR)
    initial = torch.zeros(spec.states, spec.vocabulary)
    run = simulate("dapo", spec, initial=initial, **SMALL)
    start = run.table[run.table["step"] == 0]
    # Uniform over 4 tokens: 3 log 4 nats a response, and half of all digit sums are right modulo 2.
    assert start["exact/entropy"].to_numpy() == pytest.approx(3 * torch.tensor(4.0).double().log().item(), rel=1e-6)
    assert start["exact/return"].to_numpy() == pytest.approx(0.5, rel=1e-6)


def test_mismatch_reports_the_samplers_divergence() -> None:
    exact_sampler, noisy = (simulate("dapo", MODULAR, **SMALL, mismatch=noise) for noise in (None, 0.5))
    assert exact_sampler.table["kl/sampler"].isna().all()
    assert (noisy.table[noisy.table["step"] > 0]["kl/sampler"].mean()) > 0.01


# -- warnings and errors -------------------------------------------------------------------------------------------


def test_a_run_that_cannot_separate_objectives_says_so() -> None:
    with pytest.warns(SimulationWarning, match="cannot separate them; raise epochs"):
        simulate(["grpo", "sapo"], MODULAR, **(SMALL | {"epochs": 1}))


@pytest.mark.parametrize("settings", [{"epochs": 2}, {"epochs": 1, "staleness": 1}, {"epochs": 1, "minibatches": 2}])
def test_a_run_that_can_separate_objectives_does_not_warn(settings: dict[str, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate("grpo", MODULAR, **(SMALL | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0; expected a whole number of at least 1"),
        ({"group_size": 1}, "group_size is 1 with the group_standardised advantage"),
        ({"epochs": 1.5}, "epochs is 1.5; expected a whole number"),
        ({"minibatches": 3}, "minibatches is 3, which does not divide group_size 4"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0; expected a positive number"),
        ({"learning_rate": math.inf}, "learning_rate is inf; expected a positive number that is finite"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        (
            {"learning_rate": torch.tensor([1.0, math.inf] * 3)},
            r"learning_rate\[1\] is inf; expected a pos",
        ),
        ({"learning_rate": torch.tensor([1.0, math.nan] * 3)}, r"learning_rate\[1\] is nan"),
        ({"learning_rate": torch.ones(2)}, r"learning_rate has shape \(2,\); expected \(6,\)"),
        ({"max_grad_norm": "none"}, "max_grad_norm is 'none'; expected a positive number, or None"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0; expected a positive number"),
        ({"staleness": -1}, "staleness is -1"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"seed": 1.5}, "seed is 1.5; expected a whole number of at least 0"),
        ({"seed": True}, "seed is True"),
        (
            {"seed": 10**24},
            "seed is 1000000000000000000000000; expected a whole number of at most 18,446,744",
        ),
        ({"steps": 10**399}, "steps is 1.*; expected a whole number of at most 1,000,000,000,000"),
        ({"group_size": 10**11}, "needs about .* GiB of memory for .* replicas at once; .* Lower seeds or group_size"),
        ({"seeds": 10**12}, r"needs about .* for a table of .* rows; .* Raise metrics_every \(1\)"),
        ({"mismatch": 10**399}, "mismatch noise: scale is 1"),
        ({"dtype": torch.float16}, "dtype is torch.float16; expected one of float32, float64"),
        ({"compile": 1}, "compile is 1; expected true or false"),
        ({"initial": torch.zeros(2, 2)}, r"initial has shape \(2, 2\)"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate("grpo", MODULAR, **(SMALL | settings))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "grop"}, "unknown objective 'grop'; did you mean 'grpo'"),
        ({"env": "ModularSun-v1"}, "did you mean 'ModularSum-v1'"),
        ({"model": "tabula"}, "unknown model 'tabula'; did you mean 'tabular'"),
        ({"optimizer": "adm"}, "unknown optimizer 'adm'; did you mean 'adam'"),
        ({"advantage": "group_centered"}, "did you mean 'group_centred'"),
        ({"step": 3}, "unknown setting 'step'; did you mean 'steps'"),
    ],
)
def test_unknown_names(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        simulate(**({"objective": "grpo", "env": MODULAR, **SMALL} | arguments))


def test_no_objective() -> None:
    with pytest.raises(ConfigError, match="objective is an empty list"):
        simulate([], MODULAR)


def test_erc_without_entropies_is_refused_by_the_objective() -> None:
    one = torch.ones(1, 1)
    batch = TokenBatch(log_probs=-one, old_log_probs=-one, advantages=one, mask=one.bool())
    with pytest.raises(BatchError, match="entropies and old_entropies missing"):
        make_objective("erc")(batch)


# -- on disk -------------------------------------------------------------------------------------------------------


def test_run_round_trip(tmp_path: Path) -> None:
    run = simulate("dapo", MODULAR, **SMALL)
    run.save(tmp_path / "run")
    loaded = Run.load(tmp_path / "run")
    pd.testing.assert_frame_equal(loaded.table, run.table, check_exact=True)
    assert loaded.facts["settings"]["epochs"] == 2
    assert loaded.facts["env_parameters"]["length"] == 3


def test_save_never_overwrites(tmp_path: Path) -> None:
    run = simulate("dapo", MODULAR, **SMALL)
    (tmp_path / "other.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(RunExistsError, match="already holds something; nothing was written"):
        run.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_load_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        Run.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", b"{", "run.json is no valid JSON"),
        ("run.json", b"\xff", "run.json is no UTF-8 text"),
        ("run.json", b"[1]", r"run.json holds \[1\]; expected a mapping"),
        ("table.parquet", b"PAR1", "table.parquet is no Parquet table"),
    ],
)
def test_load_of_a_damaged_run(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    simulate("dapo", MODULAR, **SMALL).save(tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        Run.load(tmp_path / "run")


def test_an_objective_over_groups_is_told_whose_response_is_whose():
    # REAL compares right with wrong responses of one prompt: in one group, an easy prompt would be played off
    # against a hard one.
    from testbed.simulation import training

    seen = []
    honest = training.TokenBatch.__post_init__

    def watched(batch):
        honest(batch)
        seen.append(batch.groups)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.TokenBatch, "__post_init__", watched)
        patch.setattr("warnings.warn", lambda *_, **__: None)
        simulate("real", "DifficultyMixture-v1", seeds=2, steps=1, group_size=3, minibatches=3)
    prompts = make_spec("DifficultyMixture-v1").prompts
    assert [groups.tolist() for groups in seen[:3]] == [list(range(prompts))] * 3


def test_an_estimator_is_told_the_lengths():
    # Without them it is refused; with equal lengths it would be the group's mean.
    tables = [
        simulate("reinforce", "VariableLength-v1", seeds=2, steps=3, advantage=advantage).table["exact/return"].tolist()
        for advantage in ("opo", "group_centred")
    ]
    assert tables[0] != tables[1]
