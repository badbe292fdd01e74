"""Exact measurements of a policy on its environment, by dynamic programming instead of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from envs import exact
from envs.automaton import Automaton
from models.policy import Policy

__all__ = ["ExactMeasurement"]


class ExactMeasurement:
    """The `exact/…` metrics of a run; NaN for a policy that is not a table over automaton states.

    Args:
        spec: the environment, with replica dimensions.
        policy: the initial policy.
    """

    def __init__(self, spec: Automaton, policy: Policy) -> None:
        self._spec = spec
        self._optimum = torch.as_tensor(exact.optimum(spec).value)
        self._initial = policy.log_policy()
        self._before: Tensor | None = None
        self._cumulative: Tensor | float = 0.0

    def before(self, policy: Policy) -> None:
        """Remember the policy an iteration starts from."""
        self._before = policy.log_policy()

    def after(self, policy: Policy, *, every_step: bool) -> dict[str, Tensor]:
        """The metrics of the policy an iteration ends with.

        Args:
            policy: the policy.
            every_step: whether `before` was called in every iteration so far, without which the divergence cannot be
                accumulated.
        """
        current = policy.log_policy()
        if current is None or self._initial is None:
            return {}
        now = exact.evaluate(self._spec, current)
        value = torch.as_tensor(now.value)
        missing = torch.full_like(value, torch.nan)
        metrics = {
            "exact/return": value,
            "exact/regret": self._optimum - value,
            "exact/success": now.success.mean(-1),
            "exact/entropy": torch.as_tensor(now.entropy),
            "exact/token_entropy": torch.as_tensor(now.token_entropy),
            "exact/kl_initial": torch.as_tensor(exact.kl(self._spec, current, self._initial)),
            "exact/kl_step": missing,
            "exact/tv_step": missing,
            "exact/kl_cumulative": missing,
        }
        if self._before is None:
            return metrics | {"exact/kl_cumulative": torch.zeros_like(value)}
        step = torch.as_tensor(exact.kl(self._spec, self._before, current))
        metrics["exact/kl_step"] = step
        metrics["exact/tv_step"] = torch.as_tensor(exact.tv(self._spec, self._before, current))
        if every_step:
            self._cumulative = self._cumulative + step
            metrics["exact/kl_cumulative"] = torch.as_tensor(self._cumulative)
        return metrics
