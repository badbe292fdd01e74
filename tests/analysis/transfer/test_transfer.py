"""Toy against language model: tables from logs, verdicts from planted effects, and a real run of the smallest size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from analysis.claims import StatisticalClaim, get_claim
from analysis.judging.claim import Falsifier
from analysis.judging.estimands import at_matched, average, difference, final
from analysis.transfer import TRANSFERS, LanguageModelClaim, Scale, Transfer, TransferClaim, run_transfer, training
from analysis.transfer.claims import SCALES, choose
from analysis.transfer.comparison import Arm
from analysis.transfer.outcome import means
from envs.math_tasks import load_task
from testbed.errors import ConfigError, RunExistsError, UnknownNameError
from testbed.finetune import FinetuneResult, FinetuneSettings, TaskSettings, WarmStartSettings
from tests.extras import needs

TASK = TaskSettings(source="arithmetic(level=1,count=8)")
SCALE = Scale(
    device="cpu",
    models={"dense": "qwen2-0.1m", "experts": "qwen3-moe-0.1m"},
    warm_starts=dict.fromkeys(
        ("dense", "experts"), WarmStartSettings(target=0.05, ceiling=0.95, learning_rate=0.003, check_every=10)
    ),
    learning_rates={"dense": 1e-3, "experts": 1e-3},
    train=TASK,
    test=TASK,
    responses=16,
    length=8,
    samples=2,
)
SHARED: dict[str, Any] = {
    "paper": "Test",
    "title": "large steps clip more",
    "source": "s",
    "statement": "s",
    "scope": "s",
    "unit": "share",
    "direction": "greater",
    "threshold": 0.05,
    "falsifier": Falsifier("the same small step", {"large": {"objective": "dapo", "rate": 0.1}}),
    "recorded": "reproduced",
}
MODEL_SIDE = LanguageModelClaim(
    **SHARED,
    id="llm/test",
    setting={"updates": 4, "passes": 2},
    arms={"large": {"objective": "dapo"}, "small": {"objective": "dapo", "rate": 0.1}},
    estimand=difference(average("clip/fraction"), of="large", minus="small"),
    curves=("clip/fraction",),
    seeds=6,
)

TOY = StatisticalClaim(
    **SHARED | {"falsifier": Falsifier("the same small step", {"large": {"objective": "ppo", "learning_rate": 0.01}})},
    id="test/toy",
    setting={"env": "RareArm-v1(arms=8,contexts=2,rare_probability=0.1)", "steps": 4, "group_size": 8, "epochs": 2},
    arms={
        "large": {"objective": "ppo", "learning_rate": 16.0},
        "small": {"objective": "ppo", "learning_rate": 0.01},
    },
    estimand=difference(final("clip/fraction"), of="large", minus="small"),
    seeds=20,
)
CLAIM = TransferClaim(name="test", toy=TOY, language_model=MODEL_SIDE, difference="everything.")


# -- what is declared ------------------------------------------------------------------------------------------------


def test_every_comparison_has_two_sides_that_exist() -> None:
    names = [claim.name for claim in TRANSFERS]
    assert len(set(names)) == len(names) == 5
    for claim in TRANSFERS:
        toy = get_claim(claim.toy) if isinstance(claim.toy, str) else claim.toy
        assert isinstance(toy, StatisticalClaim)
        assert claim.language_model.seeds >= 5
        # One statement on both sides: the same side of the same kind of number.
        assert toy.direction == claim.language_model.direction
        assert toy.statistic == claim.language_model.statistic


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("device", SCALES)
def test_trl_accepts_every_arm(device: str, tmp_path: Path) -> None:
    trl = needs("trl")
    from testbed.configuration import build_settings
    from testbed.engines.trl import check_settings
    from testbed.finetune import _trainer_settings
    from testbed.objectives import make_objective

    for claim in TRANSFERS:
        side = claim.language_model
        for changes in (*side.arms.values(), *side.falsifier.arms.values()):
            settings = dataclasses.replace(side.arm(changes).settings(SCALES[device], 0), device="cpu")
            trainer, problems = settings.trainer, len(load_task(settings.train.source))
            rollout = trainer["per_device_train_batch_size"] * trainer["steps_per_generation"]
            # TRL leaves out a rollout that the prompts do not fill.
            assert rollout // trainer["num_generations"] <= problems
            arguments = build_settings(trl.GRPOConfig, _trainer_settings(settings, tmp_path), "trainer")
            check_settings(make_objective(settings.objective), arguments, None)


def test_an_arm_is_a_number_of_whole_rollouts() -> None:
    with pytest.raises(ConfigError, match="50 updates are no whole number of rollouts of 4 passes with 2 mini-batches"):
        Arm(objective="dapo", updates=50, minibatches=2)


def test_an_arm_knows_its_fields() -> None:
    with pytest.raises(ConfigError, match=r"claim llm/test: .*'learning_rate'"):
        dataclasses.replace(MODEL_SIDE, setting={"learning_rate": 1.0})


def test_names_and_devices_are_checked() -> None:
    assert [claim.name for claim in choose(["staleness"], "cpu")[0]] == ["staleness"]
    with pytest.raises(UnknownNameError, match="did you mean 'staleness'"):
        choose(["stalenes"], "cpu")
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        choose([], "tpu")


# -- from logs to verdicts -------------------------------------------------------------------------------------------


def written_run(settings: FinetuneSettings, folder: Path, clip: float) -> None:
    """A finished run as `run_finetune` leaves it, with that clip share in the second update of every rollout."""
    folder.mkdir(parents=True, exist_ok=True)
    described = json.loads(json.dumps(dataclasses.asdict(settings), default=dict))
    (folder / "configuration.yaml").write_text(yaml.safe_dump(described))
    average = {"average": {"value": 0.25}}
    (folder / "evaluation.json").write_text(json.dumps({"before": average, "after": average}))
    rows = [
        {
            "step": step,
            "clip/fraction": 0.0 if step % 2 else clip,
            "gradient/norm": 1.0,
            "ratio/one_fraction": float(step % 2),
            "reward/mean": 0.5 if step % 2 else None,
        }
        for step in (1, 2, 3, 4)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Runs are written instead of trained: the clip share is a hundred rates, a little more and plus 0.01 a seed."""
    trained: list[Path] = []

    def prepare(settings: FinetuneSettings, folder: Path) -> None:
        written_run(settings, folder, 0.0)

    def train(settings: FinetuneSettings, out: Path, start: Path) -> None:
        assert (start / "evaluation.json").is_file()
        trained.append(out)
        effect = 100 * settings.trainer["learning_rate"] * (1 + 0.01 * settings.seed)
        written_run(settings, out, effect + 0.01 * settings.seed)
        for name in ("model", "start"):
            (out / name).mkdir()

    monkeypatch.setattr(training, "prepare_start", prepare)
    monkeypatch.setattr(training, "run_finetune", train)
    return trained


def run(folder: Path, **changes: Any) -> Transfer:
    return run_transfer([CLAIM], SCALE, folder, jobs=1, **changes)


def test_a_planted_effect_is_found_and_both_sides_agree(planted: list[Path], tmp_path: Path) -> None:
    done = run(tmp_path / "out")
    (outcome,) = done.outcomes
    # 100·(1e-3 - 1e-4) = 0.09, and a hundredth of it more a seed; the falsifier's two arms are one.
    assert outcome.language_model.per_seed == pytest.approx([0.09 * (1 + 0.01 * seed) for seed in range(6)])
    assert outcome.language_model.interval is not None
    low, high = outcome.language_model.interval
    assert 0.05 < low < 0.09 * 1.025 < high
    assert outcome.language_model.verdict == "reproduced"
    assert outcome.language_model.falsifier.estimate == 0
    # The second update of each rollout has it: 100·1e-3 and 100·1e-4, times 1.025 and plus 0.025 on average over six.
    assert means(outcome.language_model)["clip/fraction"] == pytest.approx({"large": 0.1275, "small": 0.03525})
    assert outcome.toy.verdict == "reproduced"
    assert outcome.agreement == "agree"
    assert done.changed == []
    content = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert content["claims"][0]["agreement"] == "agree"
    assert content["run"]["device"] == "cpu"
    page = done.page.read_text()
    assert "| test | reproduced: " in page
    assert "everything." in page


def test_fewer_than_five_seeds_give_no_verdict(planted: list[Path], tmp_path: Path) -> None:
    (outcome,) = run(tmp_path / "out", seeds=4).outcomes
    assert outcome.language_model.verdict == "inconclusive"
    assert outcome.language_model.interval is None
    assert outcome.agreement == "undecided"


def test_a_number_that_does_not_exist_is_missing(planted: list[Path], tmp_path: Path) -> None:
    # The reward of these runs is 0.5 throughout: none ever reaches 0.9.
    never = difference(at_matched("clip/fraction", "reward/mean", 0.9), of="large", minus="small")
    claim = dataclasses.replace(CLAIM, language_model=dataclasses.replace(MODEL_SIDE, estimand=never))
    (outcome,) = run_transfer([claim], SCALE, tmp_path / "out", jobs=1).outcomes
    side = outcome.language_model
    assert side.verdict == "inconclusive"
    assert "no value in 6 of 6 seeds" in side.reason
    (row,) = json.loads((tmp_path / "out" / "transfer.json").read_text())["claims"]
    assert row["language_model"]["estimate"] is None
    assert row["language_model"]["falsifier"]["estimate"] is None
    assert "missing" in (tmp_path / "out" / "transfer.md").read_text()


def test_a_finished_run_is_not_repeated(planted: list[Path], tmp_path: Path) -> None:
    run(tmp_path / "out", seeds=5)
    # Two arms in five seeds: the sabotaged arm is the small one.
    assert len(planted) == 10
    run(tmp_path / "out", seeds=6)
    assert len(planted) == 12
    # What a call that was interrupted left unfinished is done again.
    (planted[0] / "evaluation.json").unlink()
    run(tmp_path / "out", seeds=6)
    assert planted[12:] == planted[:1]


def test_runs_of_another_scale_are_not_mixed(planted: list[Path], tmp_path: Path) -> None:
    run(tmp_path / "out", seeds=1)
    other = dataclasses.replace(SCALE, responses=32)
    with pytest.raises(ConfigError, match="holds runs of another scale"):
        run_transfer([CLAIM], other, tmp_path / "out", seeds=1, jobs=1)


def test_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(RunExistsError, match="nothing was written"):
        run(tmp_path)


def test_refuses_no_seeds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seeds=0"):
        run(tmp_path / "out", seeds=0)


def test_a_table_has_a_row_a_rollout() -> None:
    log = [
        {"step": 1, "reward/mean": 0.1, "entropy/mean": 1.0, "clip/fraction": 0.0, "gradient/norm": 1.0},
        {"step": 2, "entropy/mean": 0.9, "clip/fraction": 0.2, "gradient/norm": 2.0, "kl/ref": None},
        {"step": 3, "entropy/mean": 0.8, "clip/fraction": 0.4, "gradient/norm": 6.0},
        {"step": 4, "reward/mean": 0.3, "entropy/mean": 0.7, "clip/fraction": 0.0, "gradient/norm": 1.0},
        {"step": 5, "entropy/mean": 0.6, "clip/fraction": None, "gradient/norm": 1.0},
        {"step": 6, "entropy/mean": 0.5, "clip/fraction": 0.1, "gradient/norm": 1.0},
    ]
    evaluation = {"before": {"average": {"value": 0.25}}, "after": {"average": {"value": 0.5}}}
    table = training.run_table(FinetuneResult(Path(), evaluation, log), 3)
    assert table["step"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(table["reward/mean"], [np.nan, 0.1, 0.3])
    np.testing.assert_array_equal(table["entropy/mean"], [np.nan, 1.0, 0.7])
    # The first update is left out: (0.2 + 0.4)/2, then 0.1 alone.
    np.testing.assert_allclose(table["clip/fraction"], [np.nan, 0.3, 0.1], rtol=1e-12)
    np.testing.assert_allclose(table["gradient/norm"], [np.nan, 3.0, 1.0], rtol=1e-12)
    np.testing.assert_array_equal(table[training.SUCCESS], [0.25, np.nan, 0.5])


# -- a real run ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_trains_every_arm_from_one_start(tmp_path: Path) -> None:
    needs("trl")
    done = run(tmp_path / "out", seeds=1)
    (side,) = (outcome.language_model for outcome in done.outcomes)
    assert done.facts["runs"] == 2
    assert side.per_seed[0] != 0
    assert side.verdict == "inconclusive"
    evaluations = [json.loads(path.read_text()) for path in (tmp_path / "out" / "runs").glob("*/0/evaluation.json")]
    assert len(evaluations) == 2
    start = json.loads((tmp_path / "out" / "starts" / "qwen2-0.1m-0" / "evaluation.json").read_text())
    assert all(evaluation["before"] == start["before"] for evaluation in evaluations)
