from __future__ import annotations

import pytest

from testbed.errors import BatchError, ConfigError
from testbed.objectives import make_objective

# log q = -1 and H_old = 1: S = 0, so D = κ. κ = 0, 0, 1, 3: mean 1, deviations -1, -1, 0, 2, population sd √1.5 = 1.22.
OLD = 2.718281828459045**-1
GIVEN = {"old": OLD, "old_entropies": [[1.0, 1.0], [1.0, 1.0]], "old_kappas": [[0.0, 0.0], [1.0, 3.0]]}


def test_value_by_hand(tokens, check):
    # D > ½·1.22 for the last two, of which one may be dropped: the larger.
    check(
        "clip_v(mu=0.5)",
        tokens([[1.1, 1.1], [1.1, 1.1]], [1.0, -1.0], **GIVEN),
        token_loss=[[-1.1, -1.1], [1.1, 0.0]],
        gradient=[[-1.1, -1.1], [1.1, 0.0]],
        loss=-1.1 / 4,
    )


def test_value_with_room_for_two(tokens, check):
    check(
        "clip_v(mu=0.5,fraction=0.5)",
        tokens([[1.1, 1.1], [1.1, 1.1]], [1.0, -1.0], **GIVEN),
        gradient=[[-1.1, -1.1], [0.0, 0.0]],
    )


def test_value_over_kept_tokens(tokens, check):
    check('clip_v(mu=0.5,preset="trinity")', tokens([[1.1, 1.1], [1.1, 1.1]], [1.0, -1.0], **GIVEN), loss=-1.1 / 3)


def mutate(monkeypatch):
    """The smallest D first."""
    from testbed.objectives import clip_v

    honest = clip_v.ranked
    monkeypatch.setattr(clip_v, "ranked", lambda scores, batch: -honest(scores, batch))


@pytest.mark.parametrize(("mu", "advantage"), [(2.5, -1.0), (0.5, 1.0)])
def test_within_mu_or_rewarded_nothing_is_dropped(mu, advantage, tokens):
    # The threshold is not re-centred: 3 < 2.5·1.22.
    batch = tokens([[1.0, 1.0], [1.0, 1.0]], [1.0, advantage], **GIVEN)
    assert not make_objective("clip_v", mu=mu).dropped(batch).any()


def test_needs_what_the_vocabulary_says(tokens):
    with pytest.raises(BatchError, match="old_kappas missing from the batch; clip_v reads them"):
        make_objective("clip_v")(tokens([[1.0]], [1.0], old_entropies=[[1.0]]))


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"mu": -1.0}, r"clip_v: mu is -1\.0; expected a value in \[0, inf"),
        ({"fraction": 2.0}, r"clip_v: fraction is 2\.0; expected a value in \[0, 1\]"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("clip_v", **hyper_parameters)
