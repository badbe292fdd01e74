from __future__ import annotations

import pytest
import torch

from testbed.errors import BatchError, ConfigError
from testbed.objectives import make_objective


def test_value_by_hand(tokens, check):
    # Band (0.95, 1.05) on H_new/H_old with H_old = 1: 0.94 and 1.06 are dropped, whatever the sign of A.
    # Base DAPO on [0.8, 1.28]: kept tokens have its value and weight; dropped ones count in the mean's denominator.
    entropies = [[0.94, 0.96, 1.04, 1.06], [0.94, 0.96, 1.04, 1.06]]
    batch = tokens(
        [[1.1, 1.1, 1.5, 1.1], [0.5, 0.5, 1.5, 1.5]],
        [1.0, -1.0],
        entropies=entropies,
        old_entropies=torch.ones(2, 4),
    )
    check(
        "erc",
        batch,
        token_loss=[[0.0, -1.1, -1.28, 0.0], [0.0, 0.8, 1.5, 0.0]],
        gradient=[[0.0, -1.1, 0.0, 0.0], [0.0, 0.0, 1.5, 0.0]],
        loss=(-2.38 + 2.3) / 8,
    )


def test_value_on_the_edge_of_the_band_is_dropped(tokens, check):
    # The floor of 1e-8 belongs to the ratio: entropies 1 - 1e-8 and 1.5 - 1e-8 give exactly 1.5, the open end.
    batch = tokens(
        [[1.0, 1.0]],
        [1.0],
        entropies=[[1.5 - 1e-8, 1.4999]],
        old_entropies=[[1 - 1e-8, 1.0]],
    )
    assert ((batch.entropies + 1e-8) / (batch.old_entropies + 1e-8))[0, 0].item() == 1.5
    check("erc(beta_high=0.5)", batch, token_loss=[[0.0, -1.0]], gradient=[[0.0, -1.0]])


def test_value_where_both_entropies_vanish_is_kept(tokens, check):
    # 9e-9 against 1e-9 is a ratio of 1.9e-8/1.1e-8 = 1.73, but neither is a distribution one could tell apart.
    batch = tokens([[1.0, 1.0]], [1.0], entropies=[[9e-9, 9e-8]], old_entropies=[[1e-9, 1e-9]])
    check("erc", batch, token_loss=[[-1.0, 0.0]], gradient=[[-1.0, 0.0]])


def mutate(monkeypatch):
    """The band closes on the wrong side: tokens inside it are dropped."""
    from testbed.objectives.erc import ERC

    right = ERC.kept
    monkeypatch.setattr(ERC, "kept", lambda self, batch: ~right(self, batch))


def test_released_preset_keeps_the_value_and_cuts_the_gradient(tokens, check):
    # Dual clip at 10: A = -1 and r = 12 has the value 10 and no gradient.
    batch = tokens(
        [[1.1, 1.1, 12.0]],
        [-1.0],
        entropies=[[0.9, 1.0, 1.0]],
        old_entropies=[[1.0, 1.0, 1.0]],
    )
    check('erc(preset="released")', batch, token_loss=[[1.1, 1.1, 10.0]], gradient=[[0.0, 1.1, 0.0]])


def test_metrics_by_hand(tokens):
    batch = tokens(
        [[1.0, 1.0, 1.0], [1.0, 1.0, None]],
        [1.0, -1.0],
        entropies=[[0.8, 1.0, 2.0], [3.0, 4.0, 0.0]],
        old_entropies=[[1.0, 1.0, 2.0], [2.0, 4.0, 0.0]],
    )
    metrics = make_objective("erc")(batch).metrics
    # Dropped: H_old = 1 (ratio 0.8) and 2 (ratio 1.5); kept: 1, 2 and 4.
    assert metrics["erc/masked_fraction"].item() == pytest.approx(2 / 5, rel=1e-12)
    assert metrics["erc/masked_entropy"].item() == pytest.approx(1.5, rel=1e-12)
    assert metrics["erc/kept_entropy"].item() == pytest.approx(7 / 3, rel=1e-12)
    assert metrics["clip/fraction"].item() == 0


def test_nothing_flows_through_the_entropy(tokens):
    entropies = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    batch = tokens([[1.1, 0.9]], [1.0], entropies=entropies, old_entropies=[[1.0, 1.0]])
    (gradient,) = torch.autograd.grad(make_objective("erc")(batch).loss, entropies, allow_unused=True)
    assert gradient is None


def test_wraps_any_objective():
    erc = make_objective("erc(base=dr_grpo(max_length=64),beta_low=0.1)")
    assert erc.label() == "erc(base=dr_grpo(max_length=64),beta_low=0.1)"
    assert make_objective(erc.label()) == erc
    assert (erc.reduction, erc.advantage, erc.max_length_or(7)) == ("seq_mean_token_sum_norm", "group_centred", 64)
    assert make_objective("erc(base=bapo)").needs_whole_batch
    assert not make_objective("erc").needs_whole_batch
    assert make_objective("erc(reduction=seq_mean_token_mean)").label() == "erc(reduction=seq_mean_token_mean)"


def test_label_of_a_base_with_one_value_per_replica():
    erc = make_objective("erc", base=make_objective("dapo", clip_high=torch.tensor([0.2, 0.3]).view(2, 1, 1)))
    assert erc.label().startswith("erc(base=dapo(clip_high=tensor(")


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"beta_low": 1.0}, r"erc: beta_low is 1\.0; expected a value in \[0, 1\)"),
        ({"beta_high": -0.05}, r"erc: beta_high is -0\.05; expected a value in \[0, inf\)"),
        ({"base": "erc"}, r"erc: base is erc, which holds another erc; give each wrapper once"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("erc", **hyper_parameters)


def test_needs_both_entropies(tokens):
    batch = tokens([[1.0]], [1.0], entropies=[[1.0]])
    with pytest.raises(BatchError, match=r"old_entropies missing from the batch; erc reads them. Pass old_entropies="):
        make_objective("erc")(batch)
