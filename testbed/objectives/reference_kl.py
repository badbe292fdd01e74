"""A penalty on the distance from a frozen reference policy; wraps any objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from testbed.batch import TokenBatch
from testbed.divergences import kl_estimate, kl_estimates
from testbed.objectives._base import Hyper, Objective, Wrapper, check_choice, check_flag, check_range, clamp, objective


@objective("reference_kl")
@dataclass(frozen=True, kw_only=True)
class ReferenceKL(Wrapper):
    """Any base objective plus β times an estimate of KL(current ‖ reference) at every token.

        d = log p_ref - log p,   ℓ = ℓ_base + β·k(d)

        k1 = -d          dk1/dlog p = 1
        k2 = d²/2        dk2/dlog p = -d
        k3 = e^d - d - 1 dk3/dlog p = 1 - e^d

    As a loss the three are not alike: on-policy, the expected gradient of k2 is that of the KL, that of k3 is the
    gradient of the reverse divergence KL(reference ‖ current), and that of k1 is zero. With `importance_weighted` the
    estimate is r·k: k1 and k3 then have the gradient of the KL in expectation, off-policy as well.

    Reference: Shao et al., DeepSeekMath, arXiv 2402.03300, eq. 4 (k3, β = 0.04). Estimators: Schulman,
        Approximating KL divergence, 2020.
    Departures: d is clamped to ±20. The penalty is reduced like the base's loss. TRL weights k3 by the ratio unless
        told otherwise (DeepSeek-V3.2, arXiv 2512.02556); verl clamps k3: `estimate_max=10.0`.
    Gradient: that of the base plus β·dk/dlog p; none to the reference.

    Raises:
        BatchError: when called without `ref_log_probs`.

    Example:
        >>> import torch
        >>> from testbed import TokenBatch
        >>> zeros = torch.zeros(1, 2)
        >>> batch = TokenBatch(
        ...     log_probs=zeros,
        ...     old_log_probs=zeros,
        ...     advantages=zeros,
        ...     mask=~zeros.bool(),
        ...     ref_log_probs=torch.tensor([[0.0, 2.0]]),
        ... )
        >>> ReferenceKL(kind="k2", coefficient=1.0)(batch).token_loss.tolist()
        [[0.0, 2.0]]
    """

    needs = ("ref_log_probs",)
    exact_on_policy = "the penalty adds its own gradient wherever the policy is not the reference"
    acts_without_advantage = "the penalty does not carry A"

    base: Objective | str = "grpo"
    """The objective that is penalised: an object, a name or `name(key=value,…)`."""
    kind: Literal["k1", "k2", "k3"] = "k3"
    """Which estimate of the divergence."""
    coefficient: Hyper = 0.04
    """β ≥ 0: weight of the penalty."""
    estimate_max: Hyper | None = None
    """Largest estimate of a token, > 0, with no gradient beyond. None: no limit."""
    importance_weighted: bool = False
    """True: the estimate is multiplied by r = p/q, through which the gradient flows as well."""

    def check(self) -> None:
        super().check()
        check_flag(self.name, "importance_weighted", self.importance_weighted)
        check_choice(self.name, "kind", self.kind, tuple(kl_estimates))
        check_range(self.name, "coefficient", self.coefficient, 0, float("inf"), open_high=True)
        check_range(self.name, "estimate_max", self.estimate_max, 0, float("inf"), open_low=True, optional=True)

    def token_loss(self, batch: TokenBatch) -> Tensor:
        (reference,) = batch.require("ref_log_probs", reason="reference_kl measures the distance to it")
        estimate = kl_estimate(self.kind, batch.log_probs, reference)
        if self.estimate_max is not None:
            estimate = clamp(estimate, -float("inf"), self.estimate_max)
        if self.importance_weighted:
            estimate = estimate * batch.ratio
        return self.wrapped.token_loss(batch) + self.coefficient * estimate
