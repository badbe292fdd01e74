from __future__ import annotations

import math

import pytest
import torch

from testbed.divergences import kl, kl_estimate
from testbed.errors import BatchError, ConfigError
from testbed.objectives import make_objective

LOG2 = math.log(2)


def referred(tokens):
    """p = ½ and ⅛ against p_ref = ¼ both: d = log(p_ref/p) = -log 2 and log 2."""
    return tokens([[2.0, 0.5]], [0.0], ref_log_probs=[[-2 * LOG2, -2 * LOG2]])


def test_value_by_hand(tokens, check):
    # k3 = e^d - d - 1: ½ + log 2 - 1 and 2 - log 2 - 1; its gradient 1 - e^d: ½ and -1. β = 0.04.
    check(
        "reference_kl",
        referred(tokens),
        token_loss=[[0.04 * (LOG2 - 0.5), 0.04 * (1 - LOG2)]],
        gradient=[[0.04 * 0.5, -0.04]],
        loss=0.04 * 0.5 / 2,
    )


def test_value_of_the_other_estimators(tokens, check):
    # k1 = -d with gradient 1; k2 = d²/2 with gradient -d.
    check("reference_kl(kind=k1,coefficient=2.0)", referred(tokens), token_loss=[[2 * LOG2, -2 * LOG2]])
    check("reference_kl(kind=k1,coefficient=2.0)", referred(tokens), gradient=[[2.0, 2.0]])
    check("reference_kl(kind=k2,coefficient=2.0)", referred(tokens), token_loss=[[LOG2**2, LOG2**2]])
    check("reference_kl(kind=k2,coefficient=2.0)", referred(tokens), gradient=[[2 * LOG2, -2 * LOG2]])


def test_value_is_added_to_that_of_the_base(tokens, check):
    # PPO inside: r = 2 with A = 1 is held at 1.2; the penalty stays.
    batch = tokens([[2.0, None]], [1.0], ref_log_probs=[[-2 * LOG2, float("nan")]])
    check(
        "reference_kl(base=ppo,coefficient=1.0)",
        batch,
        token_loss=[[-1.2 + LOG2 - 0.5, 0.0]],
        gradient=[[0.5, 0.0]],
    )


def test_value_weighted_by_the_ratio(tokens, check):
    # r·k3 with r = 2 and ½; gradient r·(k3 + dk3) = 2(log 2 - ½ + ½) and ½(1 - log 2 - 1).
    check(
        "reference_kl(coefficient=1.0,importance_weighted=True)",
        referred(tokens),
        token_loss=[[2 * (LOG2 - 0.5), 0.5 * (1 - LOG2)]],
        gradient=[[2 * LOG2, -0.5 * LOG2]],
    )


def test_value_of_a_limited_estimate(tokens, check):
    # k2 = log²2/2 = 0.24 for both, limited to 0.2: no gradient.
    check(
        "reference_kl(kind=k2,coefficient=1.0,estimate_max=0.2)",
        referred(tokens),
        token_loss=[[0.2, 0.2]],
        gradient=[[0.0, 0.0]],
    )


def mutate(monkeypatch):
    """Current and reference policy trade places."""
    import testbed.objectives.reference_kl as module

    right = module.kl_estimate
    monkeypatch.setattr(module, "kl_estimate", lambda kind, log_p, log_q: right(kind, log_q, log_p))


@pytest.mark.parametrize(("kind", "expected"), [("k1", "nothing"), ("k2", "forward"), ("k3", "reverse")])
def test_expected_gradient_of_each_estimator(kind, expected):
    # All tokens of a four-letter policy as one batch each, weighted by p: Σ p·∇ℓ against the exact gradients of
    # KL(p ‖ ref), KL(ref ‖ p) and 0 with respect to the logits.
    logits = torch.tensor([0.3, -0.2, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
    log_probs = logits.log_softmax(-1)
    probabilities = log_probs.exp()
    sampled = (probabilities.detach() * kl_estimate(kind, log_probs, reference)).sum()
    exact = {
        "nothing": 0 * logits.sum(),
        "forward": kl(log_probs, reference),
        "reverse": kl(reference, log_probs),
    }[expected]
    (ours,) = torch.autograd.grad(sampled, logits, retain_graph=True)
    (theirs,) = torch.autograd.grad(exact, logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_expected_gradient_of_the_weighted_estimator_is_that_of_the_divergence(kind):
    # Sampled from q and weighted with r = p/q: Σ q·∇(r·k) = ∇ Σ p·k, by enumeration of four letters.
    logits = torch.tensor([0.3, -0.2, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    reference, old = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()
    log_probs = logits.log_softmax(-1)
    sampled = (old.exp() * (log_probs - old).exp() * kl_estimate(kind, log_probs, reference)).sum()
    (ours,) = torch.autograd.grad(sampled, logits, retain_graph=True)
    (theirs,) = torch.autograd.grad(kl(log_probs, reference), logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


def test_needs_the_reference(tokens):
    with pytest.raises(BatchError, match=r"ref_log_probs missing from the batch; reference_kl reads it"):
        make_objective("reference_kl")(tokens([[1.0]], [1.0]))


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"kind": "k4"}, r"reference_kl: kind is 'k4'; expected 'k1' or 'k2' or 'k3'"),
        ({"coefficient": -0.1}, r"reference_kl: coefficient is -0\.1; expected a value in \[0, inf\)"),
        ({"base": "erc(base=reference_kl)"}, r"reference_kl: base is erc\(base=reference_kl\), which holds another"),
    ],
)
def test_rejects(hyper_parameters, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("reference_kl", **hyper_parameters)
