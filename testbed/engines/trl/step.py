"""One optimiser step: its responses over all micro-batches and processes, counted, scored and given one loss."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from testbed.batch import TokenBatch
from testbed.errors import BatchError
from testbed.objectives import Objective

__all__ = ["OptimiserStep", "Scored", "response_mask", "token_batch"]

_log = logging.getLogger(__name__)


class Scored(NamedTuple):
    """What the current policy says of a micro-batch's responses."""

    log_probs: Tensor
    """`(B, T)`, nats."""
    entropies: Tensor
    """`(B, T)`, nats."""
    auxiliary: Tensor | None
    """The load-balancing loss of a mixture of experts, where there is one."""
    kappas: Tensor | None = None
    """`(B, T)`, where somebody wants them."""


def token_batch(
    inputs: Mapping[str, Any],
    scored: Scored,
    width: int,
    counts: Mapping[str, Tensor] | None = None,
    make: Callable[..., TokenBatch] = TokenBatch,
) -> TokenBatch:
    """A micro-batch of TRL's as every objective reads it.

    Args:
        inputs: TRL's columns.
        scored: by the current policy.
        width: tokens the longest response may have. Padding to it makes a constant divisor, such as Dr. GRPO's, the
            same in every micro-batch.
        counts: `token_count` and `sequence_count` of the optimiser step; `None`: the micro-batch stands for itself.
        make: the constructor, with or without checks.

    Raises:
        BatchError: as `make`.
    """
    old = inputs.get("old_per_token_logps")
    old_log_probs = scored.log_probs.detach() if old is None else old
    # The first update of a rollout is made by the policy that wrote it.
    old_entropies = inputs.get("old_entropies") if old is not None else scored.entropies.detach()
    old_kappas = inputs.get("old_kappas") if old is not None else scored.kappas
    sampler = inputs.get("sampling_per_token_logps")
    if sampler is not None:
        # vLLM reports no number for some tokens; they count as sampled from the trainer's policy.
        sampler = torch.where(sampler.isnan(), old_log_probs, sampler)
    padding = max(width - scored.log_probs.shape[1], 0)
    fields = {
        "log_probs": scored.log_probs,
        "old_log_probs": old_log_probs,
        "entropies": scored.entropies,
        "old_entropies": old_entropies,
        "kappas": scored.kappas,
        "old_kappas": old_kappas,
        "sampler_log_probs": sampler,
        "ref_log_probs": inputs.get("ref_per_token_logps"),
        "mask": response_mask(inputs),
    }
    padded = {
        name: None if value is None else torch.nn.functional.pad(value, (0, padding)) for name, value in fields.items()
    }
    return make(**padded, advantages=inputs["advantages"], groups=inputs.get("group"), **(counts or {}))


class OptimiserStep:
    """Counts, loss and refusal of one step.

    Denominators are those of the whole step, however it is split. An objective that reads the whole batch at once gets
    it: where the step is split, its tokens are first scored without a graph, and each micro-batch then back-propagates
    its part of the gradient.

    Args:
        objective: what is minimised.
        micro_batches: this process's, TRL's columns each.
        width: tokens the longest response may have.
        seed: of an objective that draws tokens; the same on every process.
        number: of the step, for messages.
        accelerator: the processes.

    Attributes:
        micro_batches: as given; prompts, responses, rewards and advantages are there.
        scored: this process's micro-batches as the objective read them, once all are scored.
        counts: response tokens and responses of the step, over all processes.
        refusal: why no weight may change; empty if nothing is wrong so far.
    """

    def __init__(
        self,
        objective: Objective,
        micro_batches: Sequence[Mapping[str, Any]],
        *,
        width: int,
        seed: int,
        number: int,
        accelerator: Any,
    ) -> None:
        self.objective, self.micro_batches = objective, micro_batches
        self.refusal = ""
        self.scored: list[TokenBatch] = []
        self._width, self._seed, self._number, self._accelerator = width, seed, number, accelerator
        self._whole: _WholeStep | None = None
        lengths = torch.cat([response_mask(inputs).sum(1) for inputs in micro_batches])
        counts = torch.stack([lengths.sum(), (lengths > 0).sum()])
        tokens, sequences = accelerator.reduce(counts, reduction="sum").unbind()
        self.counts = {"token_count": tokens, "sequence_count": sequences}
        if int(tokens) == 0:
            self.refuse("no response token is left in the step; all of them were truncated and filtered")

    def refuse(self, reason: str) -> None:
        """Let no weight change in this step."""
        self.refusal = self.refusal or reason
        _log.warning("step %d is refused, the weights stay as they are: %s", self._number, reason)

    def loss(self, position: int, scored: Scored, score: Callable[[Mapping[str, Any]], Scored]) -> Tensor:
        """The loss whose gradient, averaged over processes and summed over micro-batches, is the step's.

        Args:
            position: which micro-batch.
            scored: it, with a graph.
            score: scores any micro-batch of the step.
        """
        nothing = 0 * scored.log_probs.sum()
        if self.refusal:
            return nothing
        try:
            return self._loss(position, scored, score)
        except BatchError as problem:
            self.refuse(str(problem))
            # The graph stays connected: other processes wait for this one's gradients.
            return nothing

    def _loss(self, position: int, scored: Scored, score: Callable[[Mapping[str, Any]], Scored]) -> Tensor:
        # Data parallelism averages gradients over processes; the loss is a sum over them.
        processes: int = self._accelerator.num_processes
        if self.objective.needs_whole_batch and (len(self.micro_batches) > 1 or processes > 1):
            self._whole = self._whole or self._score_whole(score)
            return self._whole.loss(position, scored, processes)
        batch = token_batch(self.micro_batches[position], scored, self._width, self.counts)
        self.scored.append(_detached(batch))
        return self.objective.loss(batch) * processes

    def close(self) -> TokenBatch | None:
        """After the last micro-batch: all tokens of the step, those of the first process first; `None` if refused."""
        refused = torch.tensor([int(bool(self.refusal))], device=self._accelerator.device)
        if bool(self._accelerator.gather(refused).any()):
            # Another process may be the one that met the problem; all refuse together.
            self.refusal = self.refusal or "another process refused the step"
            return None
        with torch.no_grad():
            return self._everywhere(self.scored)

    def _score_whole(self, score: Callable[[Mapping[str, Any]], Scored]) -> _WholeStep:
        """The gradient of the objective on all tokens of the step, for those that read them all at once."""
        with torch.no_grad():
            parts = [
                # Checked after all processes have exchanged them: a lone error would leave the others waiting.
                token_batch(inputs, score(inputs), self._width, self.counts, make=TokenBatch.trusted)
                for inputs in self.micro_batches
            ]
        self.scored = parts
        whole = self._everywhere(parts)
        log_probs, entropies = whole.log_probs.requires_grad_(), cast(Tensor, whole.entropies).requires_grad_()
        device = self._accelerator.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self._seed)
            loss = self.objective.loss(dataclasses.replace(whole, log_probs=log_probs, entropies=entropies))
        slopes = torch.autograd.grad(loss, (log_probs, entropies), allow_unused=True)
        rows = sum(len(part.mask) for part in parts)
        here = slice(self._accelerator.process_index * rows, (self._accelerator.process_index + 1) * rows)
        of_log_probs, of_entropies = (
            None if slope is None else torch.split(slope[here], rows // len(parts)) for slope in slopes
        )
        return _WholeStep(loss.detach(), of_log_probs, of_entropies)

    def _everywhere(self, parts: list[TokenBatch]) -> TokenBatch:
        """One batch of all parts of all processes, process by process."""

        def joined(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            if values[0] is None:
                return None
            # A rollout function may return responses longer than max_completion_length.
            together = _right_aligned(values)
            if self._accelerator.num_processes == 1:
                return together
            if together.dim() > 1:
                together = self._accelerator.pad_across_processes(together, dim=1)
            return cast(Tensor, self._accelerator.gather(together))

        names = [field.name for field in dataclasses.fields(TokenBatch) if not field.name.endswith("_count")]
        return TokenBatch(**cast(Any, {name: joined(name) for name in names}), **cast(Any, self.counts))


class _WholeStep(NamedTuple):
    """An objective's loss on a whole step, and its slope at every token of this process's micro-batches."""

    value: Tensor
    of_log_probs: Sequence[Tensor] | None
    of_entropies: Sequence[Tensor] | None

    def loss(self, position: int, scored: Scored, processes: int) -> Tensor:
        """A loss with the value of this micro-batch's share and the gradient of its tokens."""
        surrogate = scored.log_probs.new_zeros(())
        micro_batches = 1
        for slopes, values in ((self.of_log_probs, scored.log_probs), (self.of_entropies, scored.entropies)):
            if slopes is not None:
                micro_batches = len(slopes)
                slope = slopes[position][:, : values.shape[1]]
                # Masked positions have slope zero and may hold anything.
                surrogate = surrogate + (slope * values.masked_fill(slope == 0, 0)).sum() * processes
        return surrogate - surrogate.detach() + self.value / micro_batches


def response_mask(inputs: Mapping[str, Any]) -> Tensor:
    """Tokens that the policy wrote, bool `(B, T)`: of the completion, without what a tool answered."""
    mask: Tensor = inputs["completion_mask"]
    if "tool_mask" in inputs:
        mask = mask * inputs["tool_mask"]
    return mask.bool()


def _detached(batch: TokenBatch) -> TokenBatch:
    return batch.with_current(batch.log_probs.detach(), None if batch.entropies is None else batch.entropies.detach())


def _right_aligned(values: list[Tensor]) -> Tensor:
    if values[0].dim() == 1:
        return torch.cat(values)
    width = max(value.shape[1] for value in values)
    return torch.cat([torch.nn.functional.pad(value, (0, width - value.shape[1])) for value in values])
