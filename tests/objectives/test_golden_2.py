"""Numbers of an independent implementation for the second table: value, token losses and gradients, to 1e-9.

The gradients of `golden_2.json` come from complex steps. Its objectives are named with their settings; `ours` says
which object each of them is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from testbed import TokenBatch
from testbed.objectives import Objective, make_objective

GOLDEN = json.loads((Path(__file__).parent / "golden_2.json").read_text(encoding="utf-8"))
CASES = [(scenario, name) for scenario in GOLDEN["scenarios"] for name in GOLDEN["scenarios"][scenario]["objectives"]]
REC_WEIGHTS = {"none": "none", "is": "ratio", "advantage": "advantage"}


def ours(name: str, given: dict[str, Any]) -> Objective:
    """The object of ours with the settings of a golden one."""
    if name.startswith("dro"):
        return make_objective("dro", beta=given["beta"])
    if name.startswith("kimi"):
        return make_objective("kimi", tau=given["tau"])
    if name.startswith("opmd"):
        return make_objective("opmd", tau=given["tau"])
    if name.startswith("prime_default"):
        return make_objective("prime", threshold=given["low"], penalty=given["kl_tau"])
    if name.startswith("prime_ipo"):
        return make_objective("prime", mask="ipo", threshold=given["threshold"], penalty=given["kl_tau"])
    if name == "rec_none_k2_0.1":
        return make_objective("rec", clip="none", penalty=0.1)
    if name.startswith("rec_gspo"):
        weight = "sequence" if given["weight"] == "is" else "none"
        return make_objective("rec", clip="gspo_one_side", weight=weight, reduction="seq_mean_token_mean")
    if name.startswith("rec"):
        return make_objective("rec", clip=given["clip"], weight=REC_WEIGHTS[given["weight"]])
    if name.startswith("bandpo"):
        settings = {key: given[key] for key in ("divergence", "delta", "relax")}
        return make_objective("bandpo", reduction="token_mean", **settings)
    if name.startswith("m2po_areal"):
        return make_objective("m2po", preset="areal", budget=given["threshold"])
    if name.startswith("m2po"):
        low, high = given["floors"] or (0.0, 0.0)
        return make_objective("m2po", budget=given["budget"], clip_low=low, clip_high=high)
    if name.startswith("clip_b"):
        return make_objective("clip_b", mu=given["mu"])
    if name.startswith("clip_v"):
        return make_objective("clip_v", mu=given["mu"], fraction=given["max_frac"])
    if name.startswith("fipo"):
        low = 1.0 if given["high_only"] else 1 - given["clip"]
        settings = {"half_life": given["half_life"], "safety": given["safety"], "dual_clip": given["dual"]}
        return make_objective("fipo", influence_low=low, influence_high=1 + given["clip"], **settings)
    if name.startswith("real"):
        return make_objective("real", tau=given["tau"])
    if name.startswith("top_entropy"):
        return make_objective("top_entropy", base="dapo", share=given["rho"])
    if name.startswith("off_policy_mask"):
        return make_objective("off_policy_mask", base="ppo", threshold=given["delta"])
    return make_objective("importance_correction", base="ppo", **correction(name, given))


def correction(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a sampler correction."""
    if name.startswith("kpop"):
        return {"mode": "mask", "cap": float("inf"), "kl_max": given["phi"]}
    if name.startswith("binary_kl_gate"):
        return {"mode": "mask", "cap": float("inf"), "kl_max": given["delta"], "kl_direction": "sampler"}
    limits = {"cap": given["high"], "floor": given.get("low", 0.0)}
    if name.startswith("geo_mask"):
        weight = {"token": "token", "none": "one", "geometric": "level"}[given["weight"]]
        return {"level": "geometric", "mode": "mask", "weight": weight, **limits}
    if name.startswith("icepop"):
        return {"mode": "mask", **limits}
    return {"level": "sequence", "mode": "truncate" if "truncate" in name else "mask", **limits}


def batch_of(scenario: str) -> tuple[TokenBatch, torch.Tensor]:
    given = GOLDEN["scenarios"][scenario]["input"]
    tensors = {key: torch.tensor(given[key], dtype=torch.float64) for key in ("lo", "lp", "ls", "A", "Ho", "Hn", "nec")}
    leaf = tensors["lp"].requires_grad_()
    batch = TokenBatch(
        log_probs=leaf,
        old_log_probs=tensors["lo"],
        advantages=tensors["A"],
        mask=torch.tensor(given["mask"]).bool(),
        entropies=tensors["Hn"],
        old_entropies=tensors["Ho"],
        old_kappas=tensors["nec"],
        sampler_log_probs=tensors["ls"],
        groups=torch.tensor(given["group"]),
    )
    return batch, leaf


def close(actual: torch.Tensor, expected: object) -> None:
    torch.testing.assert_close(actual.detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("scenario", "name"), CASES)
def test_value_and_gradient(scenario, name):
    expected = GOLDEN["scenarios"][scenario]["objectives"][name]
    objective = ours(name, expected["params"])
    batch, leaf = batch_of(scenario)
    output = objective(batch)
    (gradient,) = torch.autograd.grad(output.loss, leaf)
    close(output.loss, expected["loss"])
    close(gradient, expected["grad_logp"])
    if "per_token_loss" in expected:
        close(output.token_loss, expected["per_token_loss"])


@pytest.mark.parametrize("row", GOLDEN["band_bounds"], ids=lambda row: f"{row['divergence']}, q={row['q']}")
def test_band_bounds(row):
    objective = make_objective("bandpo", divergence=row["divergence"], delta=row["delta"], relax=row["relax"])
    low, high = objective.bounds(torch.tensor(row["q"], dtype=torch.float64))
    close(low, row["low"])
    close(high, row["high"])
