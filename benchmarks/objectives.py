"""Forward and backward pass of objectives, beside TRL's own expressions for the same losses.

    python benchmarks/objectives.py [--turns 21]

64 responses of up to 4096 tokens, float32, one thread. TRL's expressions are the lines of `GRPOTrainer._compute_loss`
between the log-probabilities and the loss, without its metrics; ours is `objective(batch).loss`, whose metrics are not
read. Both are given tensors that were prepared before: TRL's mask as numbers, our batch by `TokenBatch`. The last
column builds and validates the batch inside the measured time as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import torch
from _measuring import machine_facts, markdown_table, take_turns
from torch import Tensor

from testbed import TokenBatch
from testbed.objectives import make_objective

RESPONSES, TOKENS = 64, 4096


class Inputs(NamedTuple):
    """What both sides start from."""

    log_probs: Tensor
    old_log_probs: Tensor
    advantages: Tensor
    mask: Tensor


def draw(seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(RESPONSES, TOKENS, generator=generator)
    new = old + 0.1 * torch.randn(RESPONSES, TOKENS, generator=generator)
    lengths = torch.randint(TOKENS // 4, TOKENS + 1, (RESPONSES, 1), generator=generator)
    lengths[0] = TOKENS
    return Inputs(new, old, torch.randn(RESPONSES, generator=generator), torch.arange(TOKENS) < lengths)


# -- TRL 1.16, `GRPOTrainer._compute_loss`, a line each ----------------------------------------------------------


def sequence_mean(token_loss: Tensor, mask: Tensor) -> Tensor:
    return ((token_loss * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()


def token_mean(token_loss: Tensor, mask: Tensor) -> Tensor:
    return (token_loss * mask).sum() / mask.sum().clamp(min=1.0)


def clipped(coefficient: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    return -torch.min(coefficient * advantages, torch.clamp(coefficient, 1 - low, 1 + high) * advantages)


def trl_grpo(log_ratio: Tensor, log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    return sequence_mean(clipped(torch.exp(log_ratio), advantages, 0.2, 0.2), mask)


def trl_dapo(log_ratio: Tensor, log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    return token_mean(clipped(torch.exp(log_ratio), advantages, 0.2, 0.28), mask)


def trl_gspo(log_ratio: Tensor, log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    weights = ((log_ratio * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).unsqueeze(-1)
    return sequence_mean(clipped(torch.exp(weights), advantages, 3e-4, 4e-4), mask)


def trl_cispo(log_ratio: Tensor, log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    return token_mean(-torch.clamp(torch.exp(log_ratio), max=5.0).detach() * advantages * log_probs, mask)


def trl_sapo(log_ratio: Tensor, log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    temperatures = torch.where(advantages > 0, 1.0, 1.05)
    soft = torch.sigmoid(temperatures * (torch.exp(log_ratio) - 1)) * 4 / temperatures
    return sequence_mean(-soft * advantages, mask)


PAIRS: dict[str, Callable[..., Tensor]] = {
    "grpo": trl_grpo,
    "dapo": trl_dapo,
    "gspo": trl_gspo,
    "cispo(clip_high=4.0)": trl_cispo,
    "sapo": trl_sapo,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=21, help="recorded repeats of every program")
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    inputs = draw()
    numbers = inputs.mask.to(inputs.log_probs.dtype)
    prepared = TokenBatch(**inputs._asdict())

    def leaf() -> Tensor:
        return inputs.log_probs.clone().requires_grad_()

    def theirs(expression: Callable[..., Tensor]) -> float:
        log_probs = leaf()
        expression(log_probs - inputs.old_log_probs, log_probs, inputs.advantages.unsqueeze(1), numbers).backward()
        return 1.0

    def ours(name: str) -> float:
        make_objective(name)(prepared.with_current(leaf())).loss.backward()
        return 1.0

    def ours_built(name: str) -> float:
        make_objective(name)(TokenBatch(**inputs._replace(log_probs=leaf())._asdict())).loss.backward()
        return 1.0

    rows = []
    for name, expression in PAIRS.items():
        timings = take_turns(
            {
                "TRL": lambda expression=expression: theirs(expression),
                "here": lambda name=name: ours(name),
                "built": lambda name=name: ours_built(name),
            },
            turns,
        )
        milliseconds = {key: 1e3 / timing.median for key, timing in timings.items()}
        rows.append(
            [
                name,
                f"{milliseconds['TRL']:.1f}",
                f"{milliseconds['here']:.1f}",
                f"{timings['TRL'].over(timings['here']):.2f}",
                f"{timings['TRL'].over(timings['built']):.2f}",
            ]
        )
    print(markdown_table(["objective", "TRL (ms)", "here (ms)", "here / TRL", "with TokenBatch / TRL"], rows))
    print(f"\n{machine_facts()}")


if __name__ == "__main__":
    main()
