from __future__ import annotations

import functools
import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor

from testbed.advantages import (
    SmoothStandardisation,
    advantage_names,
    advantages,
    check_group_size,
    estimate,
    group_centred,
    group_standardised,
    leave_one_out,
    make_advantage_estimator,
    zero_variance,
)
from testbed.errors import BatchError, ConfigError, UnknownNameError

GOLDEN = json.loads((Path(__file__).parent / "objectives" / "golden.json").read_text(encoding="utf-8"))


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("case", GOLDEN["group_advantages"])
def test_group_advantages_match_the_reference_numbers(case: str) -> None:
    reference = GOLDEN["group_advantages"][case]
    rewards = double(reference["rewards"])
    for name, found in (
        ("dr_grpo", group_centred(rewards)),
        ("grpo_population_std_no_eps", group_standardised(rewards)),
        ("grpo_sample_std_eps1e_6", group_standardised(rewards, ddof=1, epsilon=1e-6)),
        ("grpo_sample_std_eps1e_4", group_standardised(rewards, ddof=1, epsilon=1e-4)),
    ):
        torch.testing.assert_close(found, double(reference[name]), rtol=1e-12, atol=0)


def test_standardised_equals_scipy_z_scores_over_replicas() -> None:
    rewards = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for ddof in (0, 1):
        expected = torch.from_numpy(stats.zscore(rewards.numpy(), axis=-1, ddof=ddof))
        torch.testing.assert_close(group_standardised(rewards, ddof=ddof), expected, rtol=1e-12, atol=1e-12)


def test_leave_one_out_is_the_reward_minus_the_mean_of_the_others() -> None:
    rewards = double([3.0, 1.0, 0.5, 0.25])
    expected = [r - (rewards.sum() - r) / 3 for r in rewards]
    torch.testing.assert_close(leave_one_out(rewards), torch.stack(expected), rtol=1e-12, atol=0)


@pytest.mark.parametrize("estimator", [group_standardised, group_centred, leave_one_out])
def test_equal_rewards_have_exactly_no_advantage(estimator: object) -> None:
    # The mean of 0.1 over 7 is not 0.1 in binary; a rounded deviation must not be standardised to ±1.
    assert estimator(torch.full((2, 7), 0.1)).count_nonzero() == 0  # type: ignore[operator]


def test_zero_variance_is_per_group() -> None:
    assert zero_variance(torch.tensor([[1.0, 1.0], [1.0, 0.0]])).tolist() == [True, False]


@pytest.mark.parametrize("estimator", [group_standardised, leave_one_out, SmoothStandardisation()])
def test_a_group_of_one_is_rejected(estimator: object) -> None:
    with pytest.raises(BatchError, match=r"groups of one response .*group_size"):
        estimator(torch.ones(2, 1))  # type: ignore[operator]


@pytest.mark.parametrize("case", ["sas_always_equal", "sas_first_equal_then_split"])
def test_smooth_standardisation_follows_the_reference_trace(case: str) -> None:
    estimator = SmoothStandardisation()
    for visit in GOLDEN["dcpo"][case]:
        found = estimator(double([visit["rewards"]]))
        torch.testing.assert_close(found[0], double(visit["A"]), rtol=1e-12, atol=1e-15)


def test_smooth_standardisation_merges_to_the_statistics_of_all_rewards() -> None:
    generator = torch.Generator().manual_seed(1)
    visits = [torch.rand(2, 3, 5, generator=generator, dtype=torch.float64) for _ in range(4)]
    estimator = SmoothStandardisation()
    for rewards in visits:
        estimator(rewards)
    state = estimator.state_dict()
    pooled = torch.cat(visits, dim=-1)
    torch.testing.assert_close(state["mean"], pooled.mean(-1), rtol=1e-12, atol=0)
    torch.testing.assert_close(state["variance"], pooled.var(-1, correction=0), rtol=1e-12, atol=0)
    assert (state["visits"] == 4).all()


def test_smooth_standardisation_hand_case() -> None:
    # Visit 1: rewards 0, 0, 0, 0. Visit 2: 1, 0, 0, 0.
    # A_new = (1 - ¼)/√(3/16) = √3. Pooled over 8: mean 1/8, variance 7/64, A_total = (7/8)/(√7/8) = √7.
    # i = 2 makes both blends ½(A_new + A_total).
    estimator = SmoothStandardisation()
    estimator(double([[0.0, 0.0, 0.0, 0.0]]))
    found = estimator(double([[1.0, 0.0, 0.0, 0.0]]))
    assert found[0, 0].item() == pytest.approx((3**0.5 + 7**0.5) / 2, rel=1e-12)


def test_identical_rewards_at_a_later_visit_are_not_zero_sum() -> None:
    estimator = SmoothStandardisation()
    estimator(double([[1.0, 0.0]]))
    estimator(double([[1.0, 0.0]]))
    # Visit 3, all 0: pooled mean 1/3, variance 2/9, A_total = -(1/3)/√(2/9) = -1/√2, and A = A_total/3.
    torch.testing.assert_close(estimator(double([[0.0, 0.0]])), double([[-1, -1]]) / (3 * 2**0.5), rtol=1e-12, atol=0)


def test_rounded_merged_means_do_not_become_advantages() -> None:
    estimator = SmoothStandardisation()
    for _ in range(7):
        found = estimator(torch.full((1, 3), 0.1))
    assert found.count_nonzero() == 0


def test_smooth_standardisation_keeps_prompts_apart_and_grows() -> None:
    estimator, alone = SmoothStandardisation(), SmoothStandardisation()
    first, second = double([[1.0, 0.0]]), double([[1.0, 1.0]])
    estimator(first, torch.tensor([3]))
    estimator(double([[0.0, 5.0]]), torch.tensor([9]))
    alone(first)
    torch.testing.assert_close(estimator(second, torch.tensor([3])), alone(second), rtol=0, atol=0)


def test_smooth_standardisation_state_round_trip() -> None:
    estimator, restored = SmoothStandardisation(), SmoothStandardisation()
    estimator(double([[1.0, 0.0, 0.0]]))
    state = estimator.state_dict()
    restored.load_state_dict(state)
    following = double([[1.0, 1.0, 0.0]])
    assert torch.equal(estimator(following), restored(following))
    assert (state["visits"] == 1).all(), "the saved state must not change with the estimator"


def test_smooth_standardisation_rejects_repeated_prompts() -> None:
    with pytest.raises(BatchError, match="one distinct id per prompt"):
        SmoothStandardisation()(torch.ones(2, 2), torch.tensor([4, 4]))


def test_smooth_standardisation_rejects_changed_replicas() -> None:
    estimator = SmoothStandardisation()
    estimator(torch.ones(3, 1, 2))
    with pytest.raises(BatchError, match="one estimator per run"):
        estimator(torch.ones(2, 1, 2))


def test_smooth_standardisation_rejects_a_foreign_state() -> None:
    with pytest.raises(BatchError, match="visits, mean and variance"):
        SmoothStandardisation().load_state_dict({"count": torch.ones(1)})


@pytest.mark.parametrize("name", advantage_names())
def test_replicas_are_independent(name: str) -> None:
    rewards = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    if name == "pass_at_k":
        rewards = rewards.round()
    together = made(name)(rewards)
    for replica in range(5):
        assert torch.equal(together[replica], made(name)(rewards[replica]))


def test_unknown_estimator_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'group_centred'"):
        advantages["group_centered"]


@pytest.mark.parametrize("estimator", [group_standardised, group_centred, leave_one_out, SmoothStandardisation()])
def test_whole_numbers_are_rejected(estimator: object) -> None:
    with pytest.raises(BatchError, match=r"got rewards of torch\.int64; .*rewards\.float\(\)"):
        estimator(torch.tensor([[1, 0, 1]]))  # type: ignore[operator]


@pytest.mark.parametrize("ids", [[0, -1], [0.0, 1.0]])
def test_smooth_standardisation_rejects_ids_that_are_no_numbers_from_zero_on(ids: list[float]) -> None:
    # -1 would otherwise be the last prompt's.
    with pytest.raises(BatchError, match="expected integers from 0 on"):
        SmoothStandardisation()(torch.rand(2, 4), torch.tensor(ids))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_smooth_standardisation_keeps_its_state_clean(value: float) -> None:
    estimator = SmoothStandardisation()
    estimator(torch.tensor([[1.0, 0.0]]))
    before = estimator.state_dict()
    with pytest.raises(BatchError, match=r"rewards\[0, 1\] is (nan|inf)"):
        estimator(torch.tensor([[1.0, value]]))
    assert all(torch.equal(before[name], after) for name, after in estimator.state_dict().items())


def made(name: str) -> Callable[[Tensor], Tensor]:
    """An estimator with its defaults, given plain inputs for whatever it reads besides the rewards."""
    estimator = make_advantage_estimator(name)

    def of_rewards(rewards: Tensor) -> Tensor:
        others = {
            "lengths": 1.0 + torch.arange(rewards.shape[-1]).expand_as(rewards),
            "greedy_rewards": rewards[..., 0],
        }
        return estimate(estimator, rewards, **others)

    return of_rewards


EVERY_ESTIMATOR = pytest.mark.parametrize("name", advantage_names())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("parts", [(0.6, 0.4, 0.7), (0.1, 0.2, 0.3, 0.4), (-0.6, -0.4, -0.7)])
def test_rewards_equal_but_for_the_order_of_their_sum_have_no_advantage(
    parts: tuple[float, ...], dtype: torch.dtype
) -> None:
    orders = torch.tensor(list(permutations(parts)), dtype=dtype)
    rewards = functools.reduce(torch.add, orders.unbind(1)).unsqueeze(0)
    assert rewards.unique().numel() > 1, "the orders must differ in their rounding"
    assert zero_variance(rewards).tolist() == [True]
    # Rewards themselves, a baseline that is off the mean, and one that takes 0 and 1 alone.
    for name in set(advantage_names()) - {"none", "asymmetric", "remax", "pass_at_k"}:
        assert made(name)(rewards).count_nonzero() == 0


@pytest.mark.parametrize("offset", [0.0, 1.7, 100.0, -100.0])
def test_a_real_difference_of_a_thousandth_keeps_its_gradient(offset: float) -> None:
    # Whatever the unit, one of four above the others is (√3, -1/√3, …). Rounding at 100 moves a difference of 0.001 by
    # 8e-6, and the rounded mean each by half of that.
    rewards = torch.tensor([[0.001, 0.0, 0.0, 0.0]]) + offset
    expected = torch.tensor([[3**0.5, *[-(3**-0.5)] * 3]])
    assert zero_variance(rewards).tolist() == [False]
    for name in ("group_standardised", "smooth_standardised"):
        torch.testing.assert_close(make_advantage_estimator(name)(rewards), expected, rtol=0, atol=0.02)
    torch.testing.assert_close(group_centred(rewards), expected * 0.001 * 3**0.5 / 4, rtol=0.02, atol=0)


def test_three_units_of_rounding_are_no_difference_and_nine_are_one() -> None:
    base = torch.full((2, 3), 0.5)
    # Just above 0.5 a unit in the last place is eps/2, that is one eps of the value.
    base[:, 0] += torch.tensor([3, 9]) * torch.finfo(torch.float32).eps / 2
    assert zero_variance(base).tolist() == [True, False]
    assert zero_variance(torch.tensor([[2, 2], [2, 3]])).tolist() == [True, False]


@EVERY_ESTIMATOR
@pytest.mark.parametrize(
    ("rewards", "dtype"),
    [([1, 1, 1, 1.0078125], torch.bfloat16), ([300, 0, 0, 0], torch.float16), ([60000, 60000, 0, 1], torch.float16)],
)
def test_half_precision_is_computed_in_single(name: str, rewards: list[float], dtype: torch.dtype) -> None:
    half = torch.tensor([rewards], dtype=dtype)
    if name == "pass_at_k":
        # It takes 0 and 1 alone, and is 0 where more than G - k are right.
        half = torch.tensor([[1, 0, 0, 0]], dtype=dtype)
    found = made(name)(half)
    assert found.dtype == torch.float32
    assert torch.equal(found, made(name)(half.float()))
    assert found.count_nonzero() > 0


@EVERY_ESTIMATOR
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_reward_that_is_no_number_is_refused_with_its_place(name: str, value: float) -> None:
    rewards = torch.zeros(2, 3, 4)
    rewards[1, 2, 3] = value
    with pytest.raises(BatchError, match=rf"{name}: rewards\[1, 2, 3\] is {value}; expected a finite reward"):
        made(name)(rewards)


def test_an_estimator_is_configured_by_text() -> None:
    rewards = double([[1.0, 0.0]])
    # Sample deviation √½ of ±½: √½.
    found = make_advantage_estimator("group_standardised(ddof=1)")(rewards)
    torch.testing.assert_close(found, double([[0.5**0.5, -(0.5**0.5)]]), rtol=1e-12, atol=0)
    assert make_advantage_estimator("group_centred") is group_centred
    assert make_advantage_estimator("smooth_standardised") is not make_advantage_estimator("smooth_standardised")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("group_standardised(ddof=2)", r"ddof is 2; expected 0 or 1"),
        ("group_standardised(ddof=one)", r"ddof is 'one'; expected 0 or 1"),
        ("group_standardised(epsilon=-1)", r"epsilon is -1; expected a number of at least 0"),
        ("group_standardised(dof=1)", r"has no parameter 'dof'; it has: ddof, epsilon"),
        ("smooth_standardised(ddof=1)", r"has no parameter 'ddof'; it has: none"),
    ],
)
def test_a_wrong_parameter_is_refused_before_any_reward(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_advantage_estimator(text)


def test_a_group_too_small_is_refused_before_any_reward() -> None:
    check_group_size("group_centred", 1)
    with pytest.raises(ConfigError, match=r"group_size is 1 with the group_standardised\(ddof=1\) advantage"):
        check_group_size("group_standardised(ddof=1)", 1)
