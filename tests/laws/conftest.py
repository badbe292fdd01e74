"""Random batches in which every optional field is present and every branch of an objective is met."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from testbed import TokenBatch


class Drawn(dict[str, Any]):
    """The fields of a batch; `batch()` builds it on a fresh leaf, the caller's tensor that gradients are taken of."""

    def batch(self, **changes: Any) -> tuple[TokenBatch, Tensor]:
        fields = {**self, **changes}
        fields["log_probs"] = fields["log_probs"].detach().requires_grad_()
        return TokenBatch(**fields), fields["log_probs"]

    def map(self, function: Any) -> Drawn:
        return Drawn({name: function(value) for name, value in self.items()})


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Drawn:
    """Random fields of shape `(..., B, T)`.

    Old probabilities span three decades. Log-ratios are small in some responses and large in others, so that
    sequence-level ratios fall on both sides of their bounds too. Every tenth response has no advantage. Lengths vary,
    one response is empty.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float32)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float32)

    sequences, width = shape[-2:]
    rows = (*shape[:-1], 1)
    old = -6.9 * uniform(*shape)
    scale = torch.tensor([1e-3, 1e-2, 0.1, 0.5, 1.0])[torch.arange(sequences) % 5].view(sequences, 1)
    log_ratio = scale * (normal(*shape) + 0.3 * normal(*rows))
    entropies = 2 * uniform(*shape) + 0.05
    lengths = (uniform(*rows) * (width + 1)).floor().clamp(1, width)
    lengths[..., 0, 0] = width
    lengths[..., -1, 0] = 0
    advantages = normal(*shape[:-1])
    advantages[..., ::10] = 0
    fields = {
        "log_probs": old + log_ratio,
        "old_log_probs": old,
        "advantages": advantages,
        "entropies": entropies,
        "old_entropies": entropies * (0.05 * normal(*shape)).exp(),
        "sampler_log_probs": old + 0.3 * normal(*shape),
        "ref_log_probs": old + 0.3 * normal(*shape),
    }
    # Drawn in single precision, so that both precisions start from the same numbers.
    drawn = {name: value.to(dtype) for name, value in fields.items()}
    return Drawn(drawn, mask=torch.arange(width) < lengths)


@pytest.fixture(scope="session")
def drawn() -> Any:
    return draw


@pytest.fixture(scope="session")
def wide() -> Drawn:
    """Two replicas of 160 responses: enough tokens for a fraction of 2e-4 of them to be one."""
    return draw(2, 160, 64)
