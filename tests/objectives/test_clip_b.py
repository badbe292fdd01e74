from __future__ import annotations

import pytest

from testbed.errors import BatchError, ConfigError
from testbed.objectives import make_objective

# log q = -1 everywhere, H_old chosen so that S = q(H_old - 1) is q times 0, 0, 0 and -4: mean -q, deviations q and -3q,
# population sd √3·q. The last lies √3 = 1.73 standard deviations below the mean.
OLD = 2.718281828459045**-1
ENTROPIES = [[1.0, 1.0], [1.0, -3.0]]


def test_value_by_hand(tokens, check):
    # Ratios 1.1: inside PPO's interval. The dropped token stays in the divisor.
    check(
        "clip_b(mu=1.7)",
        tokens([[1.1, 1.1], [1.1, 1.1]], [1.0, -1.0], old=OLD, old_entropies=ENTROPIES),
        token_loss=[[-1.1, -1.1], [1.1, 0.0]],
        gradient=[[-1.1, -1.1], [1.1, 0.0]],
        loss=-1.1 / 4,
    )


def test_value_over_kept_tokens(tokens, check):
    check(
        'clip_b(mu=1.7,preset="trinity")',
        tokens([[1.1, 1.1], [1.1, 1.1]], [1.0, -1.0], old=OLD, old_entropies=ENTROPIES),
        loss=-1.1 / 3,
    )


def mutate(monkeypatch):
    """Rewarded tokens are dropped as well, and one standard deviation suffices on the other side."""
    from testbed.objectives.clip_b import ClipB, deviation, entropy_slope

    def other_side(self, batch):
        centred, spread = deviation(entropy_slope(batch), batch)
        return batch.mask & (centred > 0.5 * spread)

    monkeypatch.setattr(ClipB, "dropped", other_side)


@pytest.mark.parametrize(("mu", "advantage"), [(1.8, -1.0), (1.7, 1.0)])
def test_within_mu_or_rewarded_nothing_is_dropped(mu, advantage, tokens):
    batch = tokens([[1.0, 1.0], [1.0, 1.0]], [1.0, advantage], old=OLD, old_entropies=ENTROPIES)
    assert not make_objective("clip_b", mu=mu).dropped(batch).any()


def test_no_spread_drops_nothing(tokens):
    batch = tokens([[1.0, 1.0]], [-1.0], old=OLD, old_entropies=[[1.0, 1.0]])
    assert not make_objective("clip_b", mu=0.0).dropped(batch).any()


def test_masked_share(tokens):
    batch = tokens([[1.1, 1.1], [1.1, 1.1]], [1.0, -1.0], old=OLD, old_entropies=ENTROPIES)
    assert make_objective("clip_b", mu=1.7)(batch).metrics["mask/fraction"].item() == pytest.approx(0.25, rel=1e-12)


def test_needs_old_entropies(tokens):
    with pytest.raises(BatchError, match="old_entropies missing from the batch; clip_b reads it"):
        make_objective("clip_b")(tokens([[1.0]], [1.0]))


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"mu": -1.0}, r"clip_b: mu is -1\.0; expected a value in \[0, inf"),
        ({"denominator": "some"}, r"clip_b: denominator is 'some'; expected 'all' or 'kept'"),
        ({"clip_low": -1.0}, r"clip_b: clip_low is -1\.0"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("clip_b", **hyper_parameters)
