"""Pre-training reaches its target, says how close it came, and treats replicas apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.policy import Episodes, make_policy
from models.pretraining import pretrain_on_samples, pretrain_on_table
from models.tabular import TabularPolicy
from models.transformer import TransformerPolicy
from testbed.errors import ConfigError

SMALL = {"layers": 1, "width": 16, "heads": 2}


def step(states: Tensor, tokens: Tensor) -> Tensor:
    """Prompts 0 and 1, then states 2 + token, then the end."""
    return torch.where(states < 2, 2 + tokens, torch.full_like(states, -1))


EPISODES = Episodes(torch.tensor([0, 1]), step, 2)


def target(replicas: int) -> Tensor:
    """Replica i's table depends only on i."""
    rows = [torch.randn(5, 3, generator=torch.Generator().manual_seed(i)) for i in range(replicas)]
    return torch.stack(rows)


def divergence_by_enumeration(policy: TransformerPolicy, logits: torch.Tensor) -> torch.Tensor:
    """KL of the first token's row and, weighted with it, of the second's; per token, mean over both prompts."""
    log_target = logits.log_softmax(-1)
    first = policy.next_log_probs(torch.tensor([0, 1]), torch.empty(2, 0, dtype=torch.int64))
    exact = torch.zeros(2)
    for prompt in (0, 1):
        wanted = log_target[:, prompt]
        exact += (wanted.exp() * (wanted - first[:, prompt])).sum(-1) / 4
        for token in range(3):
            row = policy.next_log_probs(torch.tensor([prompt]), torch.tensor([[token]]))[:, 0]
            then = log_target[:, 2 + token]
            exact += wanted[:, token].exp() * (then.exp() * (then - row)).sum(-1) / 4
    return exact


def test_a_table_is_reached() -> None:
    logits = target(2)
    policy = TransformerPolicy(logits, **SMALL)
    before = divergence_by_enumeration(policy, logits)
    pretrain_on_table(policy, logits, EPISODES, steps=150, learning_rate=2e-2)
    after = divergence_by_enumeration(policy, logits)
    assert float(after.max()) < 5e-3
    assert float(before.min()) > 20 * float(after.max())


def test_the_reported_distance_is_unbiased() -> None:
    # Before training, where the divergence is far above the rounding of float32.
    logits = target(2)
    policy = TransformerPolicy(logits, **SMALL)
    exact = divergence_by_enumeration(policy, logits)
    # A report is a mean over 64 responses: over 100 seeds it must agree within its own standard error.
    reports = torch.stack([pretrain_on_table(policy, logits, EPISODES, steps=0, seed=seed) for seed in range(100)])
    standard_error = reports.std(0) / 10
    assert (standard_error < 0.05 * exact).all(), "the comparison must be able to see a wrong factor"
    assert ((reports.mean(0) - exact).abs() < 4 * standard_error).all()


def test_a_replica_is_pretrained_alike_alone_and_among_others() -> None:
    several, alone = TransformerPolicy(target(3), **SMALL), TransformerPolicy(target(1), **SMALL)
    pretrain_on_table(several, target(3), EPISODES, steps=5)
    pretrain_on_table(alone, target(1), EPISODES, steps=5)
    for among, single in zip(several.parameters, alone.parameters, strict=True):
        assert torch.equal(among[:1], single)
    assert not torch.equal(several.parameters[0][0], several.parameters[0][1])


@pytest.mark.parametrize("name", ["transformer(layers=1,width=16)", "moe(layers=1,width=16,experts=2,active=1)"])
def test_samples_are_fitted_down_to_their_entropy(name: str) -> None:
    logits = target(1)
    uniforms = torch.rand(1, 64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prompts = torch.zeros(64, dtype=torch.int64)
    samples = TabularPolicy(logits).sample(prompts, step, uniforms, entropies=False)
    policy = make_policy(name, logits)
    assert isinstance(policy, TransformerPolicy)
    surprise = pretrain_on_samples(policy, samples, steps=250, learning_rate=2e-2)
    # No model is less surprised by a sample than its own frequencies: the empirical entropy per token.
    pairs = samples.tokens[0, :, 0] * 3 + samples.tokens[0, :, 1]
    shares = pairs.bincount().float() / 64
    entropy = float(-(shares[shares > 0] * shares[shares > 0].log()).sum()) / 2
    assert float(surprise) > entropy - 1e-6
    assert float(surprise) == pytest.approx(entropy, abs=1e-2)


def test_a_target_of_another_shape_is_an_error() -> None:
    policy = TransformerPolicy(target(1), **SMALL)
    with pytest.raises(ConfigError, match=r"logits has shape \(1, 4, 3\); expected \(1, 5, 3\)"):
        pretrain_on_table(policy, torch.zeros(1, 4, 3), EPISODES)


@pytest.mark.parametrize(
    ("settings", "message"), [({"steps": -1}, "steps is -1"), ({"learning_rate": 0.0}, "learning_rate is 0.0")]
)
def test_bad_settings(settings: dict[str, float], message: str) -> None:
    policy = TransformerPolicy(target(1), **SMALL)
    with pytest.raises(ConfigError, match=message):
        pretrain_on_table(policy, target(1), EPISODES, **settings)  # type: ignore[arg-type]


def test_samples_of_other_replicas_are_an_error() -> None:
    uniforms = torch.zeros(2, 1, 2, dtype=torch.float64)
    samples = TabularPolicy(target(2)).sample(torch.tensor([0]), step, uniforms, entropies=False)
    with pytest.raises(ConfigError, match="expected 1 replicas first"):
        pretrain_on_samples(TransformerPolicy(target(1), **SMALL), samples)
