"""Numbers of an independent implementation: value, token losses, gradients and every mean, to 1e-9.

`golden.json` holds float64 results whose gradients were computed there by autograd and by closed form. Its objectives
are named with their settings; the table below says which object of ours each of them is.

Where it comes from: the file was delivered to this project together with the written specification of its objectives,
before any of them was implemented here. The program that made it is not part of this repository, so the file cannot be
made again here, and nothing of this project ever wrote to it: a difference is settled by deriving the number by hand,
never by replacing it. What the names of its inputs mean stands in `batch_of`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from testbed import TokenBatch
from testbed.objectives import make_objective
from testbed.objectives.dcpo import DCPO
from testbed.reductions import reductions

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))

OURS = {
    "reinforce": "reinforce",
    "ppo_clip_0.2": "ppo",
    "ppo_dual_clip_0.2_c3": "ppo(dual_clip=3.0)",
    "grpo_0.2": "grpo",
    "dr_grpo_0.2": "dr_grpo",
    "dapo_0.2_0.28": "dapo",
    "dapo_0.2_0.28_c10": "dapo(dual_clip=10.0)",
    "gspo_3e-4_4e-4": "gspo",
    "gspo_wide_0.9": "gspo(clip_low=0.9,clip_high=0.9)",
    "gspo_token_wide_0.9": "gspo_token(clip_low=0.9,clip_high=0.9)",
    "luspo_wide_0.9": "luspo(clip_low=0.9,clip_high=0.9)",
    "gppo_0.2": "gppo",
    "cegppo_b0.5_1": "ce_gppo(beta1=0.5)",
    "cegppo_b0.75_1": "ce_gppo",
    "cegppo_b0.75_1_c10": "ce_gppo(dual_clip=10.0)",
    "erc_dapo_0.05_zero": "erc",
    "erc_dapo_0.05_detach": "erc(keep_value=True)",
    "erc_dapo_0.05_detach_c10": 'erc(preset="released")',
    "erc_gppo_0.05_zero": "erc(base=gppo)",
    "erc_gppo_0.05_detach_c10": 'erc(base=gppo(dual_clip=10.0),preset="released")',
    "dcpo_0.16_0.2_r10": "dcpo",
    "dcpo_code_0.2_0.28_r10": 'dcpo(preset="released")',
    # A target of 0 keeps the start bounds.
    "bapo_0.6_1.2": "bapo(target=0.0)",
    "bapo_0.9_3.0": "bapo(target=0.0,low_range=(0.9,0.9),high_range=(3.0,3.0))",
    "sapo_1_1.05": "sapo",
    "cispo_upper_1.2": "cispo",
    "cispo_0.8_1.2": "cispo(clip_low=0.2)",
    "cispo_upper_5": "cispo(clip_high=4.0)",
    "gmpo_0.4": "gmpo",
    "vespo_2_3_3_2": "vespo",
    "dppo_tv_0.15": "dppo",
    "dppo_tv_0.15_C20": "dppo(ratio_max=20.0)",
    "dppo_kl_0.05_C20": 'dppo(divergence="kl",threshold=0.05,ratio_max=20.0)',
    "topr": "topr",
    "aspo_0.2_c3": "aspo",
}
THEIR_MEANS = {
    "token_mean": "token_mean",
    "seq_mean_token_mean": "seq_mean_token_mean",
    "seq_mean_token_sum": "seq_mean_token_sum",
    "seq_mean_token_sum_norm": "seq_mean_token_sum_norm",
    "otm_sum": "seq_sum_token_mean",
}
CASES = [(scenario, name) for scenario in GOLDEN["scenarios"] for name in GOLDEN["scenarios"][scenario]["objectives"]]


def batch_of(scenario: str) -> tuple[TokenBatch, torch.Tensor]:
    given = GOLDEN["scenarios"][scenario]["input"]
    tensors = {key: torch.tensor(given[key], dtype=torch.float64) for key in ("lo", "lp", "A", "Ho", "Hn")}
    log_probs = tensors["lp"].requires_grad_()
    batch = TokenBatch(
        log_probs=log_probs,
        old_log_probs=tensors["lo"],
        advantages=tensors["A"],
        mask=torch.tensor(given["mask"]).bool(),
        entropies=tensors["Hn"],
        old_entropies=tensors["Ho"],
    )
    return batch, log_probs


def close(actual: torch.Tensor, expected: object) -> None:
    torch.testing.assert_close(actual.detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_every_golden_objective_is_compared():
    assert {name for _, name in CASES} == set(OURS)
    assert len(CASES) == 2 * len(OURS)


@pytest.mark.parametrize(("scenario", "name"), CASES)
def test_value_and_gradient(scenario, name):
    expected = GOLDEN["scenarios"][scenario]["objectives"][name]
    objective, (batch, log_probs) = make_objective(OURS[name]), batch_of(scenario)
    output = objective(batch)
    (gradient,) = torch.autograd.grad(output.loss, log_probs)
    close(output.loss, expected["loss"])
    close(output.token_loss, expected["per_token_loss"])
    close(gradient, expected["grad_logp"])
    assert gradient.abs().sum() > 0
    if "per_token_dloss_dlogp" in expected:
        (per_token,) = torch.autograd.grad(objective.token_loss(batch).sum(), log_probs)
        close(per_token, expected["per_token_dloss_dlogp"])


@pytest.mark.parametrize(("scenario", "name"), CASES)
def test_every_mean(scenario, name):
    expected = GOLDEN["scenarios"][scenario]["objectives"][name]["loss_by_aggregation"]
    batch, _ = batch_of(scenario)
    token_loss = make_objective(OURS[name])(batch).token_loss
    assert set(expected) == set(THEIR_MEANS)
    for theirs, value in expected.items():
        close(reductions[THEIR_MEANS[theirs]](token_loss, batch, 3.0), value)


def test_dcpo_bounds():
    rows = GOLDEN["dcpo"]["bounds"]
    low, high = DCPO().bounds(torch.tensor([row["q"] for row in rows], dtype=torch.float64))
    close(low, [row["low"] for row in rows])
    close(high, [row["high"] for row in rows])


@pytest.mark.parametrize("row", GOLDEN["sapo"]["gate"], ids=lambda row: f"tau={row['tau']},r={row['r']}")
def test_sapo_gate(row):
    log_probs = torch.tensor([[row["r"]]], dtype=torch.float64).log().requires_grad_()
    one = torch.ones(1, 1, dtype=torch.float64)
    batch = TokenBatch(log_probs=log_probs, old_log_probs=0 * one, advantages=one, mask=one.bool())
    loss = make_objective("sapo", tau_pos=row["tau"])(batch).loss
    (gradient,) = torch.autograd.grad(loss, log_probs)
    close(loss, -row["gate"])
    close(gradient, [[-row["weight_times_r"]]])


@pytest.mark.parametrize("case", GOLDEN["overflow_float32"]["ppo_logratio_clamped_20"])
def test_overflow_in_float32(case):
    log_ratio, advantage = (float(part.split("=")[1]) for part in case.split(","))
    value, slope = (float(number) for number in GOLDEN["overflow_float32"]["ppo_logratio_clamped_20"][case])
    log_probs = torch.tensor([[log_ratio]], requires_grad=True)
    one = torch.ones(1, 1)
    batch = TokenBatch(log_probs=log_probs, old_log_probs=0 * one, advantages=advantage * one, mask=one.bool())
    loss = make_objective("ppo")(batch).loss
    (gradient,) = torch.autograd.grad(loss, log_probs)
    # Single precision: seven digits.
    assert loss.item() == pytest.approx(value, rel=1e-6)
    assert gradient.item() == slope
