"""Exact measurements of a policy on its environment, by dynamic programming instead of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from envs import exact, prefix_tree
from envs.automaton import Automaton
from models.policy import Policy

__all__ = ["ExactMeasurement"]

# Most tokens (prefixes times the horizon) that a policy which sees prefixes reads per replica and measurement: about
# what it reads in the updates of a rollout. It does not count replicas, so that a seed's columns do not depend on which
# others run beside it.
_READ_LIMIT = 1 << 12


class ExactMeasurement:
    """The `exact/…` metrics of a run.

    A policy that sees the whole prefix is measured on the tree of all prefixes where that is small enough, and has no
    exact metrics where it is not.

    Args:
        spec: the environment, with replica dimensions.
        policy: the initial policy.
    """

    def __init__(self, spec: Automaton, policy: Policy) -> None:
        self._optimum = torch.as_tensor(exact.optimum(spec).value)
        self._prompt_states = spec.initial_states
        self._spec, self._tree = spec, None
        if policy.log_policy() is None and _readable(spec):
            self._tree = prefix_tree.unroll(spec)
            self._spec = self._tree.spec
        self._initial = self._table(policy)
        self._before: Tensor | None = None
        self._cumulative: Tensor | float = 0.0

    def before(self, policy: Policy) -> None:
        """Remember the policy an iteration starts from."""
        self._before = self._table(policy)

    def after(self, policy: Policy, *, every_step: bool) -> dict[str, Tensor]:
        """The metrics of the policy an iteration ends with.

        Args:
            policy: the policy.
            every_step: whether `before` was called in every iteration so far, without which the divergence cannot be
                accumulated.
        """
        current = self._table(policy)
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

    def _table(self, policy: Policy) -> Tensor | None:
        """Log-probabilities in every state of `_spec`."""
        if self._tree is None:
            table = policy.log_policy()
            return None if table is None else table.cpu()
        device = policy.parameters[0].device
        return self._tree.tabulate(
            lambda prompts, prefixes: policy.next_log_probs(
                self._prompt_states[prompts].to(device), prefixes.to(device)
            ).cpu()
        )


def _readable(spec: Automaton) -> bool:
    return prefix_tree.count_prefixes(spec) * max(spec.horizon, spec.vocabulary) <= _READ_LIMIT
