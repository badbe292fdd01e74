"""Numbers of an independent implementation for the estimators of the second table, to 1e-9."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from testbed.advantages import estimate, make_advantage_estimator
from testbed.advantages.gdpo import gdpo
from testbed.advantages.token_baseline import optimal_token_baseline

GOLDEN = json.loads((Path(__file__).parents[1] / "objectives" / "golden_2.json").read_text(encoding="utf-8"))
GROUP_VALUES = {
    "rloo": "leave_one_out",
    "opo": "opo",
    "asymre_-0.1": "asymmetric",
    "opmd_mean": "group_centred",
    "opmd_logavgexp_1.0": "log_mean_exp",
    "opmd_logavgexp_0.2": "log_mean_exp(tau=0.2)",
    "maxrl": "maxrl",
    "maxrl_eps1e-6": "maxrl(epsilon=1e-6)",
    "batch_std_eps1e-4": "batch_standardised",
    "batch_std_no_eps_ddof0": "batch_standardised(ddof=0,epsilon=0.0)",
    "remax": "remax",
    "passk_best_minus_second": 'pass_at_k(form="best_minus_second")',
}
# Standardised over tokens: the reference writes the value at every token of the response.
TOKEN_VALUES = {
    "reinforce_plus_plus": "reinforce_plus_plus",
    "reinforce_plus_plus_baseline": "reinforce_plus_plus(baseline=True)",
    "reinforce_plus_plus_baseline_population": "reinforce_plus_plus(baseline=True,ddof=0,epsilon=0.0)",
}


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, expected: object) -> None:
    torch.testing.assert_close(actual, double(expected), rtol=1e-9, atol=1e-12)


def estimated(case: dict[str, list[float]], text: str) -> Tensor:
    prompts = len(set(case["group"]))
    rewards, lengths = (double(case[name]).view(prompts, -1) for name in ("rewards", "lengths"))
    greedy = double(case["remax_greedy_rewards"]).view(prompts, -1)[:, 0]
    return estimate(make_advantage_estimator(text), rewards, lengths=lengths, greedy_rewards=greedy).flatten()


@pytest.mark.parametrize("scenario", ["N1", "example"])
@pytest.mark.parametrize("name", GROUP_VALUES)
def test_one_value_per_response(scenario, name):
    case = GOLDEN["advantages"][scenario]
    close(estimated(case, GROUP_VALUES[name]), case[name])


@pytest.mark.parametrize("scenario", ["N1", "example"])
@pytest.mark.parametrize("name", TOKEN_VALUES)
def test_one_value_at_every_token_of_a_response(scenario, name):
    case = GOLDEN["advantages"][scenario]
    lengths = double(case["lengths"])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    close(estimated(case, TOKEN_VALUES[name])[:, None] * mask, case[name])


@pytest.mark.parametrize("scenario", ["N1", "example"])
@pytest.mark.parametrize(
    ("name", "settings"), [("gdpo_trl", {}), ("gdpo_no_eps_population", {"ddof": 0, "epsilon": 0.0})]
)
def test_several_rewards(scenario, name, settings):
    case = GOLDEN["advantages"][scenario]
    prompts = len(set(case["group"]))
    components = [double(values).view(prompts, -1) for values in case["gdpo_components"]]
    close(gdpo(components, case["gdpo_weights"], **settings).flatten(), case[name])


def test_a_baseline_for_every_token():
    given = GOLDEN["scenarios"]["N1"]["input"]
    returns = double(given["rewards"])[:, None].expand(6, 5)
    found = optimal_token_baseline(
        returns,
        double(given["lo"]),
        double(given["sum_pi_squared"]),
        double(given["mask"]).bool(),
        torch.tensor(given["group"]),
    )
    close(found, GOLDEN["advantages"]["N1"]["optimal_token_baseline"])


@pytest.mark.parametrize("case", GOLDEN["passk"], ids=lambda case: f"{case['correct']} of {case['responses']}")
def test_pass_at_k(case):
    rewards = double([[1.0] * case["correct"] + [0.0] * (case["responses"] - case["correct"])])
    for form, right, wrong in (("analytic", "A_correct", "A_wrong"), ("unbiased", "pkpo_correct", "pkpo_wrong")):
        found = make_advantage_estimator(f"pass_at_k(k={case['k']},form={form})")(rewards)
        if case["correct"]:
            close(found[0, 0], case[right])
        close(found[0, -1], case[wrong])
