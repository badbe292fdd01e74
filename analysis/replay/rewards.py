"""Advantages from the recorded rewards again, rollout by rollout: what another estimator would have made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from testbed.advantages import estimate, make_advantage_estimator
from testbed.errors import BatchError, StorageError
from testbed.records import RecordedUpdate

__all__ = ["Reestimated"]


class Reestimated:
    """The updates of a record with the advantages of another estimator.

    One that remembers earlier visits of a prompt (DCPO's smooth standardisation) sees the recorded rollouts in order. A
    group with a response that could not be scored gets 0, as in training.

    Args:
        text: the estimator, a name or `name(key=value,…)`.

    Raises:
        UnknownNameError, ConfigError: no such estimator.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._estimators = {0: make_advantage_estimator(text)}
        self._numbers: dict[str, int] = {}

    def updates(self, updates: Iterator[RecordedUpdate]) -> Iterator[RecordedUpdate]:
        """The same updates in the same order.

        Raises:
            StorageError: groups are not whole, or the estimator reads what was not recorded.
        """
        rollout: list[RecordedUpdate] = []
        for update in updates:
            if rollout and update.step != rollout[0].step:
                yield from self._of_rollout(rollout)
                rollout = []
            rollout.append(update)
        yield from self._of_rollout(rollout)

    def _of_rollout(self, updates: Sequence[RecordedUpdate]) -> Iterator[RecordedUpdate]:
        by_replica: dict[int, list[RecordedUpdate]] = {}
        for update in updates:
            by_replica.setdefault(update.replica, []).append(update)
        found = {replica: self._advantages(replica, own) for replica, own in by_replica.items()}
        for update in updates:
            known = found[update.replica]
            advantages = np.array([known[number] for number in update.responses.tolist()], np.float32)
            yield dataclasses.replace(update, advantages=advantages)

    def _advantages(self, replica: int, updates: Sequence[RecordedUpdate]) -> dict[int, float]:
        """The advantage of every response of a rollout, by its number."""
        place = updates[0].place
        responses: dict[int, tuple[str, float, int]] = {}
        for update in updates:
            rows = zip(update.responses, update.prompts, update.rewards, update.lengths, strict=True)
            for number, prompt, reward, length in rows:
                row = (str(prompt), float(reward), int(length))
                known = responses.setdefault(int(number), row)
                if known[0] != row[0] or known[2] != row[2]:
                    raise StorageError(
                        f"at {place} two responses have the number {number}; rewards can be compared only where "
                        "responses are numbered within their rollout. Record them with RecordWriter.add(responses=…)"
                    )
        groups: dict[str, list[int]] = {}
        for number in sorted(responses):
            groups.setdefault(responses[number][0], []).append(number)
        sizes = {len(group) for group in groups.values()}
        if len(sizes) > 1:
            raise StorageError(
                f"at {place} the groups have {min(sizes)} to {max(sizes)} responses; {self._text} needs as many for "
                "every prompt. Record whole groups"
            )
        numbers = torch.tensor(list(groups.values()))
        rewards, lengths = (
            torch.tensor([[responses[number][field] for number in group] for group in numbers.tolist()])
            for field in (1, 2)
        )
        prompts = torch.tensor([self._numbers.setdefault(prompt, len(self._numbers)) for prompt in groups])
        scorable = rewards.isfinite().all(1)
        estimated = torch.zeros_like(rewards)
        if bool(scorable.any()):
            estimator = self._estimators.setdefault(replica, make_advantage_estimator(self._text))
            try:
                estimated[scorable] = estimate(
                    estimator, rewards[scorable], prompt_ids=prompts[scorable], lengths=lengths[scorable]
                )
            except BatchError as error:
                raise StorageError(f"{self._text} cannot be estimated at {place}: {error}") from error
        return dict(zip(numbers.flatten().tolist(), estimated.flatten().tolist(), strict=True))
