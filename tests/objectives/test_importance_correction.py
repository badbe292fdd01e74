from __future__ import annotations

import math

import pytest
import torch

from testbed.errors import BatchError, ConfigError
from testbed.objectives import make_objective


def mismatched(tokens):
    """Token weights q/p_sampler of ½ and 1 in the first response (product ½), 3 and 2 in the second (6)."""
    weights = torch.tensor([[0.5, 1.0], [3.0, 2.0]], dtype=torch.float64)
    sampler = (torch.tensor(0.25, dtype=torch.float64) / weights).log()
    return tokens([[1.0, 1.1], [1.0, 1.5]], [1.0, -1.0], sampler_log_probs=sampler)


# DAPO's losses are -1, -1.1, 1 and 1.5, with the same gradients. Masking takes a cap just above 2, because log and exp
# may round the weight of 2 up.
@pytest.mark.parametrize(
    ("setting", "weights"),
    [
        ("level=token,mode=truncate,cap=2.0", [[0.5, 1.0], [2.0, 2.0]]),
        ("level=token,mode=mask,cap=2.0000001", [[0.5, 1.0], [0.0, 2.0]]),
        ("level=sequence,mode=truncate,cap=2.0", [[0.5, 0.5], [2.0, 2.0]]),
        ("level=sequence,mode=mask,cap=2.0000001", [[0.5, 0.5], [0.0, 0.0]]),
        ("level=token,mode=truncate,cap=2.0,floor=0.8", [[0.8, 1.0], [2.0, 2.0]]),
        ("level=token,mode=mask,cap=5.0,floor=0.8", [[0.0, 1.0], [3.0, 2.0]]),
        ("level=sequence,mode=truncate,cap=9.0,floor=0.8", [[0.8, 0.8], [6.0, 6.0]]),
        ("level=sequence,mode=mask,cap=9.0,floor=0.8", [[0.0, 0.0], [6.0, 6.0]]),
    ],
)
def test_each_level_and_mode(tokens, check, setting, weights):
    losses = [[-1.0, -1.1], [1.0, 1.5]]
    expected = [[w * loss for w, loss in zip(*rows, strict=True)] for rows in zip(weights, losses, strict=True)]
    check(f"importance_correction({setting})", mismatched(tokens), token_loss=expected, gradient=expected)


def test_value_by_hand(tokens, check):
    # min(w, 2)·ℓ: ½·(-1), 1·(-1.1), 2·1, 2·1.5.
    check(
        "importance_correction",
        mismatched(tokens),
        token_loss=[[-0.5, -1.1], [2.0, 3.0]],
        gradient=[[-0.5, -1.1], [2.0, 3.0]],
        loss=3.4 / 4,
    )


def mutate(monkeypatch):
    """The weight is the sampler's probability over the trainer's."""
    from testbed.objectives.importance_correction import ImportanceCorrection

    right = ImportanceCorrection._log_weights
    monkeypatch.setattr(ImportanceCorrection, "_log_weights", lambda self, batch: -right(self, batch))


def test_metrics_by_hand(tokens):
    metrics = make_objective("importance_correction")(mismatched(tokens)).metrics
    # min(w, 2) = ½, 1, 2, 2; only 3 exceeds 2 for certain (the other weight is 2 up to rounding).
    assert metrics["sampler/weight_mean"].item() == pytest.approx(5.5 / 4, rel=1e-12)
    assert metrics["sampler/limited_fraction"].item() in (0.25, 0.5)


def test_metrics_count_both_ends(tokens):
    metrics = make_objective("importance_correction", mode="mask", floor=0.8, cap=2.5)(mismatched(tokens)).metrics
    # ½ and 3 are dropped, 1 and 2 stay.
    assert metrics["sampler/weight_mean"].item() == pytest.approx(3 / 4, rel=1e-12)
    assert metrics["sampler/limited_fraction"].item() == 2 / 4


def test_a_huge_mismatch_stays_finite(tokens):
    batch = tokens([[1.0, 1.0]], [1.0], sampler_log_probs=[[-1e4, -1e4]])
    for level in ("token", "sequence"):
        for mode in ("truncate", "mask"):
            output = make_objective("importance_correction", level=level, mode=mode)(batch)
            assert output.loss.isfinite()


def test_needs_the_sampler(tokens):
    with pytest.raises(BatchError, match=r"sampler_log_probs missing from the batch; importance_correction reads it"):
        make_objective("importance_correction")(tokens([[1.0]], [1.0]))


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"level": "group"}, r"importance_correction: level is 'group'; expected 'token' or 'sequence'"),
        ({"mode": "clip"}, r"importance_correction: mode is 'clip'; expected 'truncate' or 'mask'"),
        ({"cap": 0.0}, r"importance_correction: cap is 0\.0; expected a value in \(0, inf\)"),
        ({"floor": -0.1}, r"importance_correction: floor is -0\.1; expected a value in \[0, inf\)"),
        ({"floor": 3.0}, r"importance_correction: floor is 3\.0 and cap 2\.0; expected floor <= cap"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("importance_correction", **hyper_parameters)


def test_a_geometric_mean_sees_a_small_drift_whatever_the_length(tokens):
    # Every ratio to the sampler is 1.003: the mean is outside 0.999 to 1.002 for one token and for four, and no token
    # is far from 1. By product, one token passes 1.01 and four do not.
    batch = tokens(
        [[1.0, None, None, None], [1.0] * 4], [1.0, 1.0], sampler_log_probs=[[math.log(0.25 / 1.003)] * 4] * 2
    )
    weights = {
        level: make_objective("importance_correction", mode="mask", level=level, floor=0.999, cap=cap).weights(batch)
        for level, cap in (("geometric", 1.002), ("sequence", 1.01))
    }
    assert (weights["geometric"][batch.mask] == 0).all()
    assert (weights["sequence"] > 0).tolist() == [[True, True, True, True], [False] * 4]


def test_a_mask_by_divergence_allows_unlikely_tokens_more(tokens):
    # A ratio of 2 at μ = 0.01 is a KL₂ of 0.004, at μ = 0.45 one of 0.83: the ratio is the same, the band is not.
    batch = tokens([[1.0, 1.0]], [1.0], old=[0.02, 0.9], sampler_log_probs=[[math.log(0.01), math.log(0.45)]])
    kpop = make_objective("importance_correction", preset="kpop")
    assert (kpop.weights(batch) > 0).tolist() == [[True, False]]
    assert kpop.weights(batch)[0, 0].item() == pytest.approx(2.0, rel=1e-12)


def test_what_the_mask_leaves_may_have_no_weight(tokens):
    batch = tokens([[1.0, 1.0]], [1.0], sampler_log_probs=[[math.log(0.2), math.log(0.01)]])
    objective = make_objective("importance_correction", mode="mask", weight="one", cap=2.0)
    assert objective.weights(batch).tolist() == [[1.0, 0.0]]


def test_a_weight_of_its_own_goes_with_the_mask_alone():
    with pytest.raises(ConfigError, match="weight is 'one' with mode='truncate'"):
        make_objective("importance_correction", weight="one")
