"""The closed forms by hand, on batches that reach both sides of every bound."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.theory import gradient_weights
from analysis.theory.gradient_weights import (
    Tokens,
    autograd_update,
    gradient_weight,
    objectives_with_closed_form,
    random_tokens,
    reduction_coefficient,
    token_update,
)
from testbed.errors import ConfigError
from testbed.objectives import objective_names

# Two responses of three and two tokens. Ratios: e^0.2 = 1.2214, e^-0.7 = 0.4966, e^0.05 | e^-0.8 = 0.4493, e^0.8.
LOG_RATIO = np.array([[0.2, -0.7, 0.05], [-0.8, 0.8, 0.0]])
OLD = np.array([[-0.5, -1.2, -2.3], [-0.1, -3.0, 0.0]])
MASK = np.array([[True, True, True], [True, True, False]])
BATCH = Tokens(
    log_probs=OLD + LOG_RATIO,
    old_log_probs=OLD,
    advantages=np.array([[0.8] * 3, [-1.2] * 3]),
    mask=MASK,
    entropies=np.array([[1.04, 0.7, 0.0205], [2.2, 0.499, 1.0]]),
    old_entropies=np.array([[1.0, 0.8, 0.02], [2.0, 0.5, 1.0]]),
)
R = np.exp(LOG_RATIO)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        # A > 0 above 1.2 and A < 0 below 0.8 lose their gradient; the wrong ways keep theirs.
        ("ppo", [[0, R[0, 1], R[0, 2]], [0, R[1, 1], 0]]),
        # 1.2214 is inside 1.28.
        ("dapo", [[R[0, 0], R[0, 1], R[0, 2]], [0, R[1, 1], 0]]),
        ("gppo", [[1.2, R[0, 1], R[0, 2]], [0.8, R[1, 1], 0]]),
        ("ce_gppo(beta1=0.5)", [[1.2, R[0, 1], R[0, 2]], [0.4, R[1, 1], 0]]),
        # Entropy ratios 1.04, 0.875, 1.025 | 1.1, 0.998 against a band of 0.05.
        ("erc", [[R[0, 0], 0, R[0, 2]], [0, R[1, 1], 0]]),
        # s = exp(-0.45/3) and e^0: inside 1 ± 0.2.
        ("gspo(clip_low=0.2,clip_high=0.2)", [[np.exp(-0.15)] * 3, [1.0, 1.0, 0]]),
        # q = e^-0.1 = 0.905: low(q) = ½ + ½√(1 - 0.64/0.905) = 0.770 > 0.449. The others are inside.
        ("dcpo", [[R[0, 0], R[0, 1], R[0, 2]], [0, R[1, 1], 0]]),
    ],
)
def test_weight_by_hand(objective, expected):
    assert gradient_weight(objective, BATCH) == pytest.approx(np.array(expected), rel=1e-12)


def test_sapo_by_hand():
    # Two definitions of the gate: sech² here, 4σ(1-σ) there.
    logistic = 1 / (1 + np.exp(-np.array([[1.0], [1.05]]) * (R - 1)))
    expected = np.where(MASK, R * 4 * logistic * (1 - logistic), 0)
    assert gradient_weight("sapo", BATCH) == pytest.approx(expected, rel=1e-12)


def test_bapo_search_by_hand():
    # Positive tokens 0.9773, 0.3973, 0.8410 (A·r), negative 0.5392 (0.72 at c_low = 0.6) and 2.6706. Share with
    # c_high = 1.2: (0.96 + 0.3973 + 0.8410)/(… + 0.72 + 2.6706) = 0.3933 < 0.4; with 1.25: 0.3952; then no positive
    # token is clipped, the upper bound climbs to 3.0 in vain, and raising c_low lowers the share: all the way to 0.9.
    expected = np.where(MASK, R, 0)
    expected[1, 0] = 0.0
    assert gradient_weight("bapo", BATCH) == pytest.approx(expected, rel=1e-12)
    # A target of 0.39 is met at the start, where 1.2214 > 1.2 is clipped.
    expected[0, 0] = 0.0
    assert gradient_weight("bapo(target=0.39)", BATCH) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("token_mean", [1 / 5, 1 / 5]),
        ("seq_mean_token_mean", [1 / 6, 1 / 4]),
        ("seq_mean_token_sum", [1 / 2, 1 / 2]),
        ("seq_mean_token_sum_norm", [1 / 6, 1 / 6]),
        ("seq_sum_token_mean", [1 / 3, 1 / 2]),
    ],
)
def test_reduction_by_hand(reduction, expected):
    assert reduction_coefficient(reduction, MASK)[:, 0] == pytest.approx(np.array(expected), rel=1e-12)


def test_update_is_coefficient_times_weight_times_advantage():
    update = token_update("ce_gppo", BATCH)
    # 1.2 · 0.8 / 5 and -(0.75 · 0.8) · 1.2 / 5.
    assert (update[0, 0], update[1, 0], update[1, 2]) == pytest.approx((0.192, -0.144, 0.0), rel=1e-12)
    assert autograd_update("ce_gppo", BATCH) == pytest.approx(update, rel=1e-12)


HARD_CLIPPED = {"ppo", "grpo", "dapo", "dr_grpo", "dcpo", "bapo", "erc", "gspo", "gspo_token", "luspo", "gmpo", "dppo"}


@pytest.mark.parametrize("name", sorted(HARD_CLIPPED & set(objective_names())))
def test_random_batches_reach_both_sides_of_every_clip(name):
    weights = np.concatenate([gradient_weight(name, t)[t.mask] for t in map(random_tokens, range(3))])
    assert (weights == 0).mean() > 0.02
    assert (weights > 0).mean() > 0.02


@pytest.mark.parametrize("name", objectives_with_closed_form())
def test_random_batches_are_not_all_ones(name):
    tokens = random_tokens(0)
    if name != "reinforce":
        assert np.abs(gradient_weight(name, tokens)[tokens.mask] - 1).max() > 0.1
    assert np.abs(autograd_update(name, tokens)).max() > 0


def test_the_papers_objectives_are_covered_and_no_closed_form_is_stale():
    known = set(objectives_with_closed_form())
    assert {"dcpo", "erc", "ce_gppo", "bapo", "sapo", "ppo", "grpo", "dapo", "gspo", "gppo"} <= known
    assert set(gradient_weights._CLOSED_FORMS) == known


def test_objective_without_a_closed_form():
    with pytest.raises(ConfigError, match="kl_cov has no closed-form gradient weight; known: aspo, bapo"):
        gradient_weight("kl_cov", BATCH)


def test_unknown_reduction():
    with pytest.raises(ConfigError, match="reduction is 'median'; expected one of token_mean"):
        reduction_coefficient("median", MASK)
