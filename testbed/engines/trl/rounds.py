"""Sampling: rounds of responses until their groups are informative, and the advantages of what was kept."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import Tensor

from testbed.advantages import estimate
from testbed.engines.trl.head import Kappas
from testbed.engines.trl.metrics import Recorder
from testbed.engines.trl.prompts import PromptNumbers
from testbed.engines.trl.step import response_mask
from testbed.errors import ConfigError
from testbed.sampling import collect_groups, informative_groups

__all__ = ["Responses", "Sampling", "weighted_rewards"]

Responses = dict[str, Any]
"""A batch of responses as TRL passes it on, with `rewards` and `prompt_number` beside its own columns."""

_LEFT_PADDED = ("prompt_ids", "prompt_mask")
_RIGHT_PADDED = (
    "completion_ids",
    "completion_mask",
    "old_entropies",
    "old_kappas",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
    "tool_mask",
)
_PER_RESPONSE = ("advantages", "prompt_number", "rewards")
# Both are TRL's own denominators and weights, which the objective replaces.
_UNUSED = ("importance_sampling_ratio", "num_items_in_batch")
_OF_THE_OLD_POLICY = ("old_entropies", "old_kappas", "experts")


class _Round:
    """What is noted while TRL samples one round."""

    def __init__(self) -> None:
        self.noted: dict[str, Tensor] = {}
        self.scored = False


class Sampling:
    """The rounds of a trainer.

    Args:
        estimator: of advantages, from rewards `(P, G)` on the CPU; it is given lengths and the numbers of the P prompts
            where it reads them.
        numbers: of the prompts.
        rounds: most rounds a batch may take until all its groups are informative.
        group_size: G, responses per prompt.
        prompts: how many a rollout of all processes takes.
        seed: of the further prompts.
        old_entropies: whether somebody reads the entropies of the old policy.
        kappas: takes κ of the old policy from a forward pass; `None`: nobody reads it.
        pad_token: fills shorter prompts and responses.
        recording: notes the choice of experts of the forward passes inside it.
        accelerator: the processes.
        record: where metrics go.
    """

    def __init__(
        self,
        estimator: Any,
        numbers: PromptNumbers,
        *,
        rounds: int,
        group_size: int,
        prompts: int,
        seed: int,
        old_entropies: bool,
        kappas: Kappas | None,
        pad_token: int,
        recording: Callable[[MutableMapping[str, Tensor]], contextlib.AbstractContextManager[None]],
        accelerator: Any,
        record: Recorder,
    ) -> None:
        self.estimate, self.numbers = estimator, numbers
        self._rounds, self._group_size, self._prompts, self._seed = rounds, group_size, prompts, seed
        self._old_entropies, self._kappas, self._recording = old_entropies, kappas, recording
        self._filling = {"prompt_ids": pad_token, "completion_ids": pad_token, "tool_mask": 1}
        self._accelerator, self._record = accelerator, record
        self._open: _Round | None = None

    @property
    def replaces_groups(self) -> bool:
        """Whether a batch may be of several rounds."""
        return self._rounds > 1

    @property
    def has_memory(self) -> bool:
        """Whether the advantages of a prompt depend on what it was rewarded with before."""
        return hasattr(self.estimate, "state_dict")

    # -- what TRL calls while it samples ---------------------------------------------------------------------------

    def note_rewards(self, per_function: Tensor, weights: Tensor) -> None:
        """Keep the rewards of all processes, see `weighted_rewards`."""
        if self._open is None:
            return
        self._open.noted["rewards"] = weighted_rewards(per_function, weights)

    def score(self, pass_: Callable[..., Any]) -> Any:
        """A forward pass over fresh responses; the first is the old policy's, one for the reference may follow."""
        if self._open is None or self._open.scored:
            return pass_()
        self._open.scored = True
        score = functools.partial(pass_, compute_entropy=self._old_entropies)
        with self._recording(self._open.noted):
            results, kappas = (score(), None) if self._kappas is None else self._kappas.beside(score)
        for name, values in (("old_entropies", results[1]), ("old_kappas", kappas)):
            if values is not None:
                self._open.noted[name] = values
        return results

    # -- rounds ----------------------------------------------------------------------------------------------------

    def responses(self, inputs: list[dict[str, Any]], generate: Callable[..., Responses], step: int) -> Responses:
        """Responses to train on, with advantages.

        Args:
            inputs: rows of the data set, each prompt once per response.
            generate: TRL's way from rows to scored responses.
            step: number of the micro-batch, which decides the further prompts.
        """
        output = self._several(inputs, generate, step) if self.replaces_groups else self._one(inputs, generate)
        lengths = response_mask(output).sum(1)
        output["advantages"] = self._advantages(output["rewards"], output["prompt_number"], lengths)
        # Counted and not looked up: a streamed data set has no numbers. TRL may shuffle what is side by side here.
        first = self._accelerator.process_index * len(lengths)
        places = torch.arange(first, first + len(lengths), device=self._accelerator.device)
        output["group"], output["place"] = places // self._group_size, places
        return output

    def _one(self, inputs: list[dict[str, Any]], generate: Callable[..., Responses]) -> Responses:
        """One round: TRL's output without what is TRL's own affair, plus rewards and the numbers of the prompts."""
        self._open = _Round()
        try:
            output, noted = generate(inputs), self._open.noted
        finally:
            self._open = None
        output = {name: value for name, value in output.items() if name not in _UNUSED}
        output["rewards"] = noted["rewards"][self._here(len(inputs))]
        output["prompt_number"] = torch.tensor(self.numbers.of(inputs), device=self._accelerator.device)
        if "old_per_token_logps" in output:
            output |= {name: noted[name] for name in _OF_THE_OLD_POLICY if name in noted}
        return output

    def _several(self, inputs: list[dict[str, Any]], generate: Callable[..., Responses], step: int) -> Responses:
        size, local = self._group_size, len(inputs)
        rows = inputs
        seen: set[int] = set()
        round_number = 0
        exhausted = False

        def draw() -> tuple[Tensor, list[Responses]]:
            nonlocal rows, round_number, exhausted
            output = self._one(rows, generate)
            seen.update(self._accelerator.gather(output["prompt_number"]).tolist())
            groups = [
                {name: value[start : start + size] for name, value in output.items()} for start in range(0, local, size)
            ]
            round_number += 1
            further = self._further(seen, step, round_number)
            exhausted, rows = not further, further
            # A group that cannot be scored is as good as one without any difference.
            rewards = output["rewards"].view(-1, size)
            return rewards.where(rewards.isfinite().all(1, keepdim=True), 0.0), groups

        def finished(enough: bool) -> bool:
            lacking = torch.tensor([int(not enough)], device=self._accelerator.device)
            return not bool(self._accelerator.gather(lacking).any()) or exhausted

        collected = collect_groups(draw, local // size, max_rounds=self._rounds, finished=finished)
        self._record("group/rounds", collected.rounds)
        self._record("group/informative_fraction", collected.informative / len(collected.groups))
        return self._joined(collected.groups)

    def _further(self, seen: set[int], step: int, round_number: int) -> list[dict[str, Any]]:
        """Rows for this process's next round, each prompt once per response; none if the data set is used up.

        A function of seed, step and round, so that processes agree and a resumed run draws the same.
        """
        generator = torch.Generator().manual_seed(hash((self._seed, step, round_number)) % 2**63)
        chosen = self.numbers.further(seen, self._prompts, generator)
        mine = chosen[self._here(self._prompts // self._accelerator.num_processes)]
        return [self.numbers.dataset[row] for row in mine for _ in range(self._group_size)]

    def _advantages(self, rewards: Tensor, prompt_numbers: Tensor, lengths: Tensor) -> Tensor:
        """The estimator on the rewards of all processes; every process computes the same and takes its part."""
        groups = self._accelerator.gather(rewards).view(-1, self._group_size)
        numbers = self._accelerator.gather(prompt_numbers).view(-1, self._group_size)[:, 0]
        scorable = groups.isfinite().all(1)
        estimated = torch.zeros_like(groups)
        if bool(scorable.any()):
            known = groups[scorable]
            tokens = self._accelerator.gather(lengths).view(-1, self._group_size)[scorable].cpu()
            remembered = numbers[scorable].cpu() if self.has_memory else None
            estimated[scorable] = estimate(self.estimate, known.cpu(), prompt_ids=remembered, lengths=tokens).to(groups)
            self._record("group/zero_variance_fraction", 1 - informative_groups(known).float().mean())
            self._record("reward/mean", known.mean())
        self._record("group/unscorable_fraction", (~scorable).float().mean())
        return estimated.view(-1)[self._here(len(rewards))]

    def _here(self, count: int) -> slice:
        """This process's part of what all processes have, `count` each."""
        return slice(self._accelerator.process_index * count, (self._accelerator.process_index + 1) * count)

    def _joined(self, groups: list[Responses]) -> Responses:
        """One batch of groups whose prompts and responses were padded to different widths."""
        joined = {}
        for name in groups[0]:
            values = [group[name] for group in groups]
            if name in _PER_RESPONSE:
                joined[name] = torch.cat(values)
            elif name in _LEFT_PADDED or name in _RIGHT_PADDED:
                joined[name] = _padded_alike(values, name in _LEFT_PADDED, self._filling.get(name, 0))
            else:
                raise ConfigError(
                    f"dynamic sampling cannot put {name} of several rounds into one batch; it works for text. Set "
                    "dynamic_sampling=1"
                )
        return joined


def weighted_rewards(per_function: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of rewards `(responses, functions)`; NaN where no function scored."""
    # Products and sums of single-precision numbers are exact in double, whatever the order of the functions.
    rewards = (per_function.double() * weights.to(per_function.device)).nansum(1).to(per_function.dtype)
    return rewards.masked_fill(per_function.isnan().all(1), torch.nan)


def _padded_alike(values: list[Tensor], left: bool, filling: int) -> Tensor:
    width = max(value.shape[1] for value in values)
    lacking = [width - value.shape[1] for value in values]
    return torch.cat(
        [
            torch.nn.functional.pad(value, (some, 0) if left else (0, some), value=filling)
            for value, some in zip(values, lacking, strict=True)
        ]
    )
