"""What ends a response beside an end token, and the probabilities of a sampler that leaves tokens out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from models.stopping import StopStrings

__all__ = ["TRUNCATING", "Sampler", "truncations"]

TRUNCATING: dict[str, tuple[Any, ...]] = {
    "top_k": (None, 0),
    "top_p": (None, 1.0),
    "min_p": (None, 0.0),
    "repetition_penalty": (None, 1.0),
}
"""Settings with which responses come from another distribution than the policy's, and their values without effect."""


def truncations(args: Any) -> dict[str, Any]:
    """Those of TRL's settings that make the sampler another distribution than the policy, with their values."""
    written = {name: getattr(args, name, None) for name in TRUNCATING} | dict(args.generation_kwargs or {})
    return {name: written[name] for name, neutral in TRUNCATING.items() if written[name] not in neutral}


class Sampler:
    """Guides transformers' `generate` while a trainer samples.

    Args:
        tokenizer: of transformers.
        stop: strings that end a response.
        ends: tokens that end a response.
        temperature: of the sampling.
        truncating: settings as `truncations` gives them. With any, the sampler's own log-probabilities are noted.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        stop: Sequence[str],
        ends: Sequence[int],
        temperature: float,
        truncating: Mapping[str, Any],
    ) -> None:
        self.stop = StopStrings(tokenizer, stop)
        self._ends, self._temperature, self._truncating = frozenset(ends), temperature, dict(truncating)
        self._noted: _Noted | None = None

    @contextlib.contextmanager
    def guiding(self, model: Any) -> Iterator[None]:
        """Inside, `model.generate` also ends responses at stop strings and notes the sampler's log-probabilities."""
        if not self.stop and not self._truncating:
            yield
            return
        original = model.generate

        @functools.wraps(original)
        def generate(*arguments: Any, **settings: Any) -> Any:
            width = settings["input_ids"].shape[1]
            if self.stop:
                settings["stopping_criteria"] = [self.stop.criteria(width)]
            if self._truncating:
                self._noted = _Noted(self._temperature, self._truncating)
                # What is noted has to be the last word on the scores, and transformers would put its own after it.
                settings |= {"logits_processor": [self._noted], "temperature": 1.0, "top_k": 0, "top_p": 1.0}
                settings |= {"min_p": None}
            return original(*arguments, **settings)

        model.generate = generate
        try:
            yield
        finally:
            del model.generate

    def cut(self, responses: list[list[int]], log_probs: Any) -> tuple[list[list[int]], Any]:
        """Responses up to their stop strings, and the sampler's log-probabilities of what is left.

        Args:
            responses: tokens as TRL read them.
            log_probs: the sampler's, where another engine sampled; else `None`.
        """
        if self.stop:
            responses = [ids[: self.stop.length(ids)] for ids in responses]
            if log_probs is not None:
                log_probs = [row[: len(ids)] for row, ids in zip(log_probs, responses, strict=True)]
        if self._noted is not None:
            log_probs, self._noted = self._noted.of(responses), None
        return responses, log_probs

    def finished(self, ids: Sequence[int]) -> bool:
        """Whether a response ended with an end token or a stop string, rather than at the limit."""
        return bool(ids) and (ids[-1] in self._ends or (bool(self.stop) and self.stop.length(ids) is not None))


class _Noted:
    """A processor of logits that truncates them and keeps the log-probability of every token that was then drawn."""

    def __init__(self, temperature: float, truncating: Mapping[str, Any]) -> None:
        from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        kinds: dict[str, Any] = {"top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper, "min_p": MinPLogitsWarper}
        self._warpers = [TemperatureLogitsWarper(float(temperature))] if temperature != 1.0 else []
        self._warpers += [kind(truncating[name]) for name, kind in kinds.items() if name in truncating]
        self._scores: Tensor | None = None
        self._columns: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._close(input_ids[:, -1:])
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        self._scores = scores
        return scores

    def _close(self, drawn: Tensor) -> None:
        if self._scores is not None:
            self._columns.append((self._scores.gather(1, drawn) - self._scores.logsumexp(1, keepdim=True)).float())

    def of(self, responses: Sequence[Sequence[int]]) -> list[list[float]]:
        """The log-probabilities of responses, in nats."""
        steps = len(self._columns)
        # Of the last token nobody was told; a response that ended before has anything there.
        last = torch.tensor([ids[steps] if len(ids) > steps else 0 for ids in responses])
        assert self._scores is not None
        self._close(last[:, None].to(self._scores.device))
        rows = torch.cat(self._columns, dim=1).tolist()
        return [row[: len(ids)] for row, ids in zip(rows, responses, strict=True)]
