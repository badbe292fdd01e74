"""Claims on a record: the claim's own estimand, rollouts in the place of seeds, a falsifier that fails."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.claims import get_claim
from analysis.judging.claim import claim_names
from analysis.judging.estimands import average, value_of
from analysis.judging.on_record import OnRecord
from analysis.judging.result import ClaimResult
from analysis.ledger import entries
from analysis.replay import replay
from analysis.replay.verdicts import judge_record, recordable, select_recordable, verify_record
from testbed import TokenBatch
from testbed.errors import ConfigError, RunExistsError, UnknownNameError
from testbed.objectives import make_objective
from testbed.records import RecordWriter
from testbed.simulation import simulate

WANTED = {"D5", "D9", "E2", "E3", "C7", "B3", "B5", "M9", "T1", "T2", "T3"}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "record"
    simulate(
        "dapo",
        "ModularSum-v1(initial=normal,scale=3.0)",
        seeds=1,
        steps=30,
        epochs=4,
        learning_rate=16.0,
        advantage="group_standardised",
        record=folder,
    )
    return folder


@pytest.fixture(scope="module")
def results(record: Path) -> dict[str, ClaimResult]:
    return {result.claim.id: result for result in judge_record(record)}


def test_the_ledger_shows_which_statements_can_be_judged():
    judged = {entry.number for entry in entries() if entry.on_record}
    assert judged >= WANTED
    assert all(entry.to_json()["on_record"] == list(entry.on_record) for entry in entries())
    assert set(recordable()) == {name for name in claim_names() if get_claim(name).on_record is not None}


def test_the_estimand_is_the_claims_own(record: Path, results: dict[str, ClaimResult]) -> None:
    # D5: GRPO's clip share minus five times DCPO's, over the updates after each rollout's first.
    grpo, dcpo = (make_objective(f"{name}(reduction=token_mean)").label() for name in ("grpo", "dcpo"))
    table = replay(record, [grpo, dcpo]).table
    later = table[table["update"] > 0].groupby(["objective", "step"])["clip/fraction"].mean()
    expected = (later[grpo] - 5 * later[dcpo]).to_numpy()
    result = results["dcpo/token-clip-ratio"]
    np.testing.assert_allclose(result.per_seed, expected, rtol=1e-12, atol=1e-15)
    assert result.estimate == pytest.approx(expected.mean())
    assert result.seeds == 30
    assert result.claim.recorded is None
    assert result.claim.scope.startswith("This run: ")
    assert result.record == str(record)


def test_verdicts_of_a_toy_that_was_trained_as_the_claims_have_it(results: dict[str, ClaimResult]) -> None:
    # The claims' own verdicts on modular sum, at one run instead of 32 seeds.
    for name in ("dcpo/token-clip-ratio", "ce-gppo/leaving-tokens-are-improbable", "erc/masks-low-entropy-tokens"):
        assert results[name].verdict == "reproduced", results[name].reason
        assert results[name].falsifier.verdict != "reproduced"
    assert results["bapo/positive-tokens-are-a-minority"].verdict == "refuted"
    for name in ("theory/on-policy-identity", "theory/gradient-weights", "dcpo/likely-tokens-are-never-clipped"):
        assert results[name].verdict == "reproduced", results[name].reason
        assert results[name].falsifier.verdict == "refuted"
        assert results[name].interval is None


def test_correlated_rollouts_are_judged_in_blocks(tmp_path: Path) -> None:
    # The positive share alternates slowly: 24 rollouts are one long wave, and no blocks are left.
    with RecordWriter(tmp_path) as writer:
        for step in range(24):
            for update in range(2):
                size = 1 + 0.5 * math.sin(step / 4)
                old = torch.full((2, 3), -1.0)
                batch = TokenBatch(
                    log_probs=old + 0.01 * update,
                    old_log_probs=old,
                    advantages=torch.tensor([size, -1.0]),
                    mask=old < 0,
                )
                writer.add(batch, step=step, update=update, prompts=["a", "a"], rewards=[1.0, 0.0])
    (result,) = judge_record(tmp_path, ["bapo/positive-tokens-are-a-minority"])
    assert result.verdict == "inconclusive"
    assert "blocks of" in result.reason
    expected = [size / (size + 1) for size in (1 + 0.5 * math.sin(step / 4) for step in range(24))]
    np.testing.assert_allclose(result.per_seed, expected, rtol=1e-6)


def small(folder: Path, steps: int, **changes: object) -> Path:
    with RecordWriter(folder) as writer:
        for step in range(steps):
            old = -0.5 - torch.rand(2, 3, generator=torch.Generator().manual_seed(step))
            fields = {"log_probs": old, "old_log_probs": old, "advantages": torch.tensor([1.0, -1.0]), "mask": old < 0}
            writer.add(TokenBatch(**fields | changes), step=step, update=0, prompts=["a", "a"], rewards=[1.0, 0.0])
    return folder


def test_too_few_rollouts_are_inconclusive(tmp_path: Path) -> None:
    simulate("dapo", "ModularSum-v1", seeds=1, steps=3, learning_rate=64.0, record=tmp_path / "record")
    (result,) = judge_record(tmp_path / "record", ["dcpo/token-clip-ratio"])
    assert result.verdict == "inconclusive"
    assert result.reason == "3 rollouts give no interval; a verdict needs at least 5"


def test_what_the_record_lacks_is_said(tmp_path: Path) -> None:
    small(tmp_path, 6)
    found = {result.claim.id: result for result in judge_record(tmp_path)}
    assert found["erc/mask-share"].verdict == "inconclusive"
    assert found["erc/mask-share"].reason.startswith("the record has no entropies and old_entropies")
    assert found["theory/entropy-rate"].reason.startswith("the record does not say which objective trained")
    # One update a rollout: nothing could be clipped.
    assert found["dcpo/token-clip-ratio"].verdict == "vacuous"


def test_a_folder_with_results_and_a_report(record: Path, tmp_path: Path) -> None:
    folder, results = verify_record(record, ["DCPO".lower()], out=tmp_path / "out", command="here")
    assert [result.claim.id for result in results] == ["dcpo/likely-tokens-are-never-clipped", "dcpo/token-clip-ratio"]
    content = json.loads((folder / "results.json").read_text())
    assert content["run"]["record"] == str(record)
    for row, result in zip(content["claims"], results, strict=True):
        assert row["record"] == str(record)
        again = ClaimResult.from_json(row)
        assert (again.verdict, again.record, again.estimate) == (result.verdict, result.record, result.estimate)
    page = (folder / "report.html").read_text()
    assert "Judged on a recorded run" in page
    assert "Rollouts" in page
    with pytest.raises(RunExistsError, match="already holds something"):
        verify_record(record, out=tmp_path / "out")


def test_names_that_cannot_be_judged():
    with pytest.raises(ConfigError, match="theory/gibbs-optimum is not about the tokens of a run"):
        select_recordable(["theory/gibbs-optimum"])
    with pytest.raises(UnknownNameError, match="did you mean"):
        select_recordable(["dcpo/token-clip-ratoi"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": {}, "sabotaged_estimand": value_of(average("loss"), "a")}, "has no arms"),
        ({"arms": {"a": "ppo"}}, "sabotages nothing; a claim that cannot fail is rejected"),
        ({"arms": {"a": "ppo"}, "sabotaged": {"b": "ppo"}}, r"sabotages \['b'\]; its arms are \['a'\]"),
    ],
)
def test_a_reading_that_cannot_fail_is_rejected(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OnRecord(**fields)


# -- columns of single claims, by hand ---------------------------------------------------------------------------------


def column(claim: str, name: str, ratios: list[list[float]], advantages: list[float], **more: object) -> float:
    measure = get_claim(claim).on_record.measures[name]
    old = torch.tensor(more.pop("old", [[0.5] * len(ratios[0])] * len(ratios))).log()
    batch = TokenBatch(
        log_probs=(old + torch.tensor(ratios).log())[None],
        old_log_probs=old[None],
        advantages=torch.tensor(advantages)[None],
        mask=torch.ones(1, *old.shape, dtype=torch.bool),
        **{key: torch.tensor(value)[None] for key, value in more.items() if key != "slopes"},
    )
    return float(measure(make_objective("ppo"), batch, torch.tensor(more["slopes"])[None])[0])


def test_share_of_likely_tokens_stopped():
    # Of the three likely tokens with A > 0 one has no slope; an unlikely one and one with A < 0 do not count.
    value = column(
        "dcpo/likely-tokens-are-never-clipped", "share of likely tokens stopped",
        [[1.0, 1.0, 1.0, 1.0], [1.0] * 4], [1.0, -1.0],
        old=[[0.9, 0.85, 0.95, 0.3], [0.9] * 4], slopes=[[-1.0, 0.0, -1.0, 0.0], [0.0] * 4],
    )  # fmt: skip
    assert value == pytest.approx(1 / 3)


def test_share_kept_beside_outliers():
    # The first response holds a ratio of 1.5; beside it pushes of 1·2 and 0.9·2, of which 1 is left. The second counts
    # nothing.
    value = column(
        "sapo/outlier-tokens", "share of the push kept beside outliers",
        [[1.0, 0.9, 1.5], [1.1, 1.0, 1.0]], [2.0, 1.0], slopes=[[-1.0, 0.0, -9.0], [-1.0] * 3],
    )  # fmt: skip
    assert value == pytest.approx(1 / 3.8)


def test_entropies_of_other_tokens():
    # Entropies 1 2 3 4, read two tokens on: 3 4 1 2. The first token is stopped: 3 - 0.9·(4 + 1 + 2)/3.
    value = column(
        "erc/masks-low-entropy-tokens", "masked below kept, entropies of other tokens",
        [[1.0] * 4], [1.0], slopes=[[0.0, 1.0, 1.0, 1.0]], old_entropies=[[1.0, 2.0, 3.0, 4.0]],
    )  # fmt: skip
    assert value == pytest.approx(3 - 0.9 * 7 / 3)


@pytest.mark.parametrize(("ratios", "on_policy"), [([[1.0, 1.0]], True), ([[1.0, 1.1]], False)])
def test_deviation_of_the_weight_from_the_advantage(ratios: list[list[float]], on_policy: bool) -> None:
    names = {True: "deviation of the weight from A at ratio 1", False: "deviation of the weight from A elsewhere"}
    # Slopes are -2 and -2.5 where A = 2: the second is off by a quarter of the largest.
    given = {"ratios": ratios, "advantages": [2.0], "slopes": [[-2.0, -2.5]]}
    assert column("theory/on-policy-identity", names[on_policy], **given) == pytest.approx(0.25)
    assert math.isnan(column("theory/on-policy-identity", names[not on_policy], **given))
