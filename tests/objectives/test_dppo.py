from __future__ import annotations

import math

import pytest

from testbed.errors import ConfigError
from testbed.objectives import make_objective

HALF = math.log(0.5)


def test_value_by_hand(tokens, check):
    # q = ½, δ = 0.15: p = 0.75 (r = 1.5) moved by 0.25, p = 0.25 (r = ½) by -0.25, p = 0.55 (r = 1.1) by 0.05.
    # A = 1 stops the first, A = -1 the second; the others keep r. ℓ = -M r A log p with p = r/2.
    small = math.log(0.55)
    check(
        "dppo",
        tokens([[1.5, 0.5, 1.1], [1.5, 0.5, 1.1]], [1.0, -1.0], old=0.5),
        token_loss=[[0.0, -0.5 * 2 * HALF, -1.1 * small], [1.5 * math.log(0.75), 0.0, 1.1 * small]],
        gradient=[[0.0, -0.5, -1.1], [1.5, 0.0, 1.1]],
        loss=(-HALF + 1.5 * math.log(0.75)) / 6,
    )


def test_value_of_a_rare_token_is_not_stopped(tokens, check):
    # q = 0.001, r = 100: p moved by 0.099 only. C = 5 truncates the weight.
    check("dppo(ratio_max=5.0)", tokens([[100.0, 2.0]], [1.0], old=0.001), gradient=[[-5.0, -2.0]])


def test_value_of_the_kl_divergence(tokens, check):
    # q = ½, p = 0.75: ½ log(½/¾) + ½ log(½/¼) = ½ log(4/3) = 0.1438 > 0.05. p = 0.6: ½ log(0.25/0.24) = 0.0204.
    check('dppo(divergence="kl",threshold=0.05)', tokens([[1.5, 1.2]], [1.0], old=0.5), gradient=[[0.0, -1.2]])


def mutate(monkeypatch):
    """The token that moved against A is stopped instead of the one that moved along."""
    from testbed.objectives.dppo import DPPO, binary_total_variation, torch

    def wrong_way(self, batch):
        new, old = batch.log_probs.detach(), batch.old_log_probs
        back = torch.where(batch.advantages > 0, new < old, new > old)
        return back & (binary_total_variation(old, new) > self.threshold)

    monkeypatch.setattr(DPPO, "masked", wrong_way)


def test_masked_share(tokens):
    metrics = make_objective("dppo")(tokens([[1.5, 0.5, None], [1.5, 0.5, 1.1]], [1.0, -1.0], old=0.5)).metrics
    assert metrics["dppo/masked_fraction"].item() == pytest.approx(2 / 5, rel=1e-12)


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"divergence": "js"}, r"dppo: divergence is 'js'; expected 'tv' or 'kl'"),
        ({"threshold": -0.1}, r"dppo: threshold is -0\.1; expected a value in \[0, inf\)"),
        ({"ratio_max": 0.0}, r"dppo: ratio_max is 0\.0; expected a value in \(0, inf\)"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("dppo", **hyper_parameters)
