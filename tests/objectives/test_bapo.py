from __future__ import annotations

import pytest
import torch

from testbed.errors import ConfigError
from testbed.objectives import make_objective
from testbed.objectives.bapo import BAPO


def chosen(objective, batch):
    low, high = make_objective(objective).search(batch)
    return round(low.item(), 9), round(high.item(), 9)


def test_value_by_hand(tokens, check):
    # A = 1 at r = 2, A = -1 at r = 1. ρ(c_high) = min(2, c_high)/(min(2, c_high) + 1): 1.2/2.2 = 0.545 at the start.
    # A share of 0.6 = 1.5/2.5 is first reached at c_high = 1.5, six steps of 0.05 (the target leaves room for binary
    # fractions). There r = 2 is held. Tokens with A = 0 take no part.
    batch = tokens([[2.0, 0.5], [1.0, 0.5]], [[1.0, 0.0], [-1.0, 0.0]])
    check(
        "bapo(target=0.599999)",
        batch,
        token_loss=[[-1.5, 0.0], [1.0, 0.0]],
        gradient=[[0.0, 0.0], [1.0, 0.0]],
        loss=-0.5 / 2,
    )


def test_value_of_the_lower_bound_and_dual_clip(tokens, check):
    # Target 0 keeps the start bounds (0.6, 1.2); A = -1: 0.5 is held at 0.6; 4 is stopped by c = 3.
    check(
        "bapo(target=0.0,dual_clip=3.0)",
        tokens([[0.5, 1.1, 1.5], [0.5, 1.1, 4.0]], [1.0, -1.0]),
        token_loss=[[-0.5, -1.1, -1.2], [0.6, 1.1, 3.0]],
        gradient=[[-0.5, -1.1, 0.0], [0.0, 1.1, 0.0]],
        loss=(-2.8 + 4.7) / 2,
    )


def mutate(monkeypatch):
    """The share is that of negative tokens."""
    right = BAPO.positive_shares
    monkeypatch.setattr(BAPO, "positive_shares", lambda *arguments: 1 - right(*arguments))


def test_bounds_are_raised_in_whole_steps():
    # Summing 0.02 in binary stops at 0.88 (0.88 + 0.02 > 0.9) and 0.05 at 2.999999999999997.
    path = BAPO().candidates()
    assert path[0] == (0.6, 1.2)
    assert path[36] == (0.6, 3.0)
    assert path[-1] == (0.9, 3.0)
    assert len(path) == 1 + 36 + 15


def test_order_decides_which_bound_is_exhausted_first():
    setting = {"low_range": (0.6, 0.8), "high_range": (1.2, 1.4), "low_step": 0.1, "high_step": 0.1}
    assert BAPO(**setting).candidates() == [(0.6, 1.2), (0.6, 1.3), (0.6, 1.4), (0.7, 1.4), (0.8, 1.4)]
    assert BAPO(**setting, order="lower_first").candidates() == [
        (0.6, 1.2),
        (0.7, 1.2),
        (0.8, 1.2),
        (0.8, 1.3),
        (0.8, 1.4),
    ]


def test_a_step_that_overshoots_its_range_is_not_taken():
    # 1.2 + 0.3 = 1.5 fits into 1.7, 1.8 does not.
    path = BAPO(low_range=(0.6, 0.8), low_step=0.15, high_range=(1.2, 1.7), high_step=0.3).candidates()
    assert path == [(0.6, 1.2), (0.6, 1.5), (0.75, 1.5)]


def test_loop_condition_looks_at_the_bound_raised_last():
    # "while ρ < ρ₀ and c_low + δ_low ≤ b⁻": without room below the loop never runs, although c_high has room.
    assert BAPO(low_range=(0.6, 0.6)).candidates() == [(0.6, 1.2)]
    assert BAPO(high_range=(1.2, 1.2), order="lower_first").candidates() == [(0.6, 1.2)]


def test_share_falls_with_the_lower_bound_as_printed_and_rises_as_meant(tokens):
    # A = 1 at r = 1; A = -1 at r = 0.5. As printed the negative token counts max(0.5, c_low): 1/(1 + c_low).
    # As meant it stops counting once c_low > 0.5: 1/1.5, then 1.
    batch = tokens([[1.0], [0.5]], [1.0, -1.0])
    lows = torch.tensor([0.4, 0.6, 0.9], dtype=torch.float64)
    highs = torch.full_like(lows, 1.2)
    printed = BAPO().positive_shares(batch, lows, highs)
    meant = BAPO(contribution="active").positive_shares(batch, lows, highs)
    torch.testing.assert_close(printed, torch.tensor([1 / 1.5, 1 / 1.6, 1 / 1.9], dtype=torch.float64))
    torch.testing.assert_close(meant, torch.tensor([1 / 1.5, 1.0, 1.0], dtype=torch.float64))


def test_share_never_falls_with_the_upper_bound(tokens):
    generator = torch.Generator().manual_seed(0)
    ratios = torch.rand(8, 16, generator=generator, dtype=torch.float64) * 4 + 0.05
    batch = tokens(ratios.tolist(), torch.randn(8, generator=generator, dtype=torch.float64).tolist())
    highs = torch.linspace(1.2, 3.0, 37, dtype=torch.float64)
    shares = BAPO().positive_shares(batch, torch.full_like(highs, 0.6), highs)
    assert (shares.diff() >= 0).all()
    assert shares[-1] > shares[0]


def test_search_without_positive_tokens_ends_at_the_widest_bounds(tokens):
    assert chosen("bapo", tokens([[0.5, 1.5]], [-1.0])) == (0.9, 3.0)


def test_search_without_any_advantage_keeps_the_start(tokens):
    batch = tokens([[0.5, 1.5]], [0.0])
    assert chosen("bapo", batch) == (0.6, 1.2)
    output = make_objective("bapo")(batch)
    assert output.loss.item() == 0
    assert output.metrics["bapo/positive_fraction"].isnan()


def test_the_share_of_small_raised_upper_bound_reaches_the_target_only_by_it(tokens):
    # r = 2.5, A = 1 against r = 1, A = -2: shares c/(c + 2), first ≥ 0.5 at c = 2.
    batch = tokens([[2.5], [1.0]], [1.0, -2.0])
    assert chosen("bapo(target=0.4999999)", batch) == (0.6, 2.0)
    # Lower bound first: raising it changes nothing here (r = 1), so it is exhausted before c_high moves.
    assert chosen("bapo(target=0.4999999,order=lower_first)", batch) == (0.9, 2.0)


def test_replicas_choose_as_each_alone(tokens):
    first = tokens([[2.5, 0.4], [1.0, 0.9]], [1.0, -2.0])
    second = tokens([[1.1, 0.4], [0.5, 1.7]], [-1.0, 0.3])
    both = make_objective("bapo").search(
        type(first)(
            log_probs=torch.stack([first.log_probs, second.log_probs]),
            old_log_probs=torch.stack([first.old_log_probs, second.old_log_probs]),
            advantages=torch.stack([first.advantages, second.advantages]),
            mask=torch.stack([first.mask, second.mask]),
        )
    )
    for index, alone in enumerate((first, second)):
        assert tuple(bound[index].item() for bound in both) == tuple(
            bound.item() for bound in make_objective("bapo").search(alone)
        )


def test_one_target_per_replica_on_one_batch(tokens):
    batch = tokens([[2.5], [1.0]], [1.0, -2.0])
    targets = torch.tensor([0.1, 0.4999999], dtype=torch.float64).view(2, 1, 1)
    _, high = make_objective("bapo", target=targets).search(batch)
    assert high.flatten().tolist() == pytest.approx([1.2, 2.0], rel=1e-12)


def test_metrics_name_the_chosen_bounds(tokens):
    metrics = make_objective("bapo", target=0.4999999)(tokens([[2.5], [1.0]], [1.0, -2.0])).metrics
    assert metrics["bapo/clip_low"].item() == pytest.approx(0.6, rel=1e-12)
    assert metrics["bapo/clip_high"].item() == pytest.approx(2.0, rel=1e-12)
    assert metrics["bapo/positive_fraction"].item() == pytest.approx(0.5, rel=1e-12)


def test_released_preset_is_the_example_script():
    released = make_objective("bapo", preset="released")
    # A positive-to-negative ratio of ½ is a share of ½/(1 + ½).
    assert released.target == pytest.approx(0.5 / 1.5, rel=1e-12)
    assert released.candidates()[0] == (0.8, 1.2)
    assert released.candidates()[-1] == (0.95, 2.0)
    assert (released.order, released.dual_clip, released.reduction) == ("lower_first", 3.0, "token_mean")


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"target": 1.5}, r"bapo: target is 1\.5; expected a value in \[0, 1\]"),
        ({"low_range": (0.9, 0.6)}, r"bapo: low_range is \(0\.9, 0\.6\); expected \(start, end\) with 0\.0 <= start"),
        ({"low_range": (0.6, 1.1)}, r"bapo: low_range is \(0\.6, 1\.1\); .* end <= 1\.0"),
        ({"high_range": (0.9, 3.0)}, r"bapo: high_range is \(0\.9, 3\.0\); .* with 1\.0 <= start"),
        ({"low_step": 0}, r"bapo: low_step is 0; expected a value in \(0, inf\)"),
        ({"high_step": -1}, r"bapo: high_step is -1; expected a value in \(0, inf\)"),
        ({"dual_clip": 0.5}, r"bapo: dual_clip is 0\.5; expected a value in \(1, inf\)"),
        ({"order": "both"}, r"bapo: order is 'both'; expected 'upper_first' or 'lower_first'"),
        ({"contribution": "all"}, r"bapo: contribution is 'all'; expected 'value' or 'active'"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("bapo", **hyper_parameters)
