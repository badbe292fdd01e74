"""What an inner loop shares: the tokens of a rollout, and one policy's view of them.

A batch is a rollout under a policy. An inner loop changes the policy and keeps the rollout, so what depends on the
rollout alone is owned by it; what depends on the policy is owned by the view, for as long as that serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from testbed.masking import ResponseMask

__all__ = ["PolicyView", "Rollout"]


class Rollout:
    """The sampled tokens: what no update of the policy changes, and what is found out about it, once.

    Nothing is checked: that is done where a `TokenBatch` is constructed. Tensors are `(..., B, T)` and 0 where masked.

    Args:
        mask: which of them are response tokens.
        tokens: the fields of a batch with a number per token, but for the current policy's, by name; `None`: absent.
        of_step: its other fields.
        response_advantages: A_i, `(..., B, 1)`, where one value per response was given.
        padded_width: columns as the caller gave them; `None`: those of the mask.
    """

    def __init__(
        self,
        mask: ResponseMask,
        tokens: Mapping[str, Tensor | None],
        of_step: Mapping[str, Any],
        *,
        response_advantages: Tensor | None = None,
        padded_width: int | None = None,
    ) -> None:
        self.mask = mask
        self.tokens = dict(tokens)
        self.of_step = dict(of_step)
        self.fields = {**self.tokens, "mask": mask.tokens, **self.of_step}
        self.response_advantages = response_advantages
        self.padded_width = mask.tokens.shape[-1] if padded_width is None else padded_width

    @cached_property
    def opposite_advantages(self) -> Tensor:
        """-A, `(..., B, T)`."""
        return -self._known("advantages")

    @cached_property
    def trimmed(self) -> Rollout:
        """Without the columns that are padding in every sequence."""
        width = self.mask.width
        if width == self.mask.tokens.shape[-1]:
            return self
        return Rollout(
            self.mask.trimmed,
            {name: None if value is None else value[..., :width] for name, value in self.tokens.items()},
            self.of_step,
            response_advantages=self.response_advantages,
            padded_width=self.padded_width,
        )

    @property
    def old_log_probs(self) -> Tensor:
        """Log q, `(..., B, T)`."""
        return self._known("old_log_probs")

    def prepare(self) -> None:
        """Find out now whatever is kept: a compiler cannot, and a loop need not do it again for each policy."""
        self.mask.prepare()
        _ = self.opposite_advantages, self.trimmed

    def _known(self, name: str) -> Tensor:
        value = self.tokens[name]
        assert value is not None
        return value


class PolicyView:
    """A policy's log-probabilities of a rollout's tokens, and the ratios that follow.

    Most objectives read their ratio alone, which is masked in the same pass that makes it: log-probabilities that are
    not masked yet are masked when they are read.

    Args:
        rollout: the tokens.
        log_probs: `(..., B, T)`, differentiable.
        masked: whether they are 0 where masked.
        keeps: whether ratios are kept with their graph, which serves one backward pass; otherwise each read is new.
    """

    def __init__(self, rollout: Rollout, log_probs: Tensor, *, masked: bool, keeps: bool) -> None:
        self._rollout, self._given, self._masked = rollout, log_probs, masked
        self._kept: dict[str, Tensor] | None = {} if keeps else None

    @property
    def log_probs(self) -> Tensor:
        """Log p, 0 where masked."""
        if not self._masked:
            # The first reader may be a metric under no_grad; the loss still needs the gradient.
            with torch.enable_grad():
                self._given, self._masked = self._rollout.mask.keep(self._given), True
        return self._given

    @property
    def log_ratio(self) -> Tensor:
        """Log p - log q, clamped to ±20."""
        return self._once("log_ratio", lambda: self._difference(clamped=True))

    @property
    def unclamped_log_ratio(self) -> Tensor:
        """Log p - log q."""
        return self._once("unclamped_log_ratio", lambda: self._difference(clamped=False))

    @property
    def ratio(self) -> Tensor:
        """Exp of the clamped log-ratio."""
        return self._once("ratio", lambda: self.log_ratio.exp())

    def trimmed(self) -> PolicyView:
        """This policy's view of the trimmed rollout, for one evaluation."""
        rollout = self._rollout.trimmed
        narrow = self._given if rollout is self._rollout else self._given[..., : rollout.mask.tokens.shape[-1]]
        return PolicyView(rollout, narrow, masked=self._masked, keeps=True)

    def _difference(self, *, clamped: bool) -> Tensor:
        old = self._rollout.old_log_probs
        return self._rollout.mask.difference(self._given, old, masked=self._masked, clamped=clamped)

    def _once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        if self._kept is None:
            return compute()
        if name not in self._kept:
            with torch.enable_grad():
                self._kept[name] = compute()
        return self._kept[name]
