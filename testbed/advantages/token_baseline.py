"""A baseline for every token, weighted by how much gradient the response has gathered up to it."""

from __future__ import annotations

from torch import Tensor

from testbed.errors import BatchError

__all__ = ["optimal_token_baseline"]


def optimal_token_baseline(
    returns: Tensor, old_log_probs: Tensor, squared_mass: Tensor, mask: Tensor, groups: Tensor
) -> Tensor:
    """A_it = G_it - B_t, with the baseline of least variance among those that are one number per group and position.

        e_t = 1 - 2q_t + Σ_v q_v²,   E_it = Σ_{s≤t} e_is,   B_t = Σ_i G_it·E_it / Σ_i E_it

    over the responses of the group that reach t. e is the squared norm of the gradient of a token's score for its
    logits. Beyond the second-longest response of a group B is 0, because the longest would be its own baseline; a
    response alone in its group has none.

    Args:
        returns: G, the reward to go, `(B, T)`.
        old_log_probs: log q of the sampled tokens, `(B, T)`.
        squared_mass: Σ_v q_v² at every position, `(B, T)`.
        mask: bool `(B, T)`.
        groups: int64 `(B,)`, the prompt of each response.

    Returns:
        `(B, T)`, 0 where masked.

    Reference: Optimal token baseline, arXiv 2602.07078, as verl 0.9.1 has it.
    Departures: verl adds 10⁻⁸ to the divisor.

    Raises:
        BatchError: shapes differ, or `groups` is not one integer per response.

    Example:
        >>> import torch
        >>> half = torch.full((2, 1), 0.5, dtype=torch.float64)
        >>> advantages = optimal_token_baseline(
        ...     torch.tensor([[1.0], [0.0]]).double(), half.log(), half, half.bool(), torch.tensor([0, 0])
        ... )
        >>> advantages.round(decimals=6).tolist()
        [[0.5], [-0.5]]
    """
    for name, value in (("old_log_probs", old_log_probs), ("squared_mass", squared_mass), ("mask", mask)):
        if value.shape != returns.shape:
            raise BatchError(
                f"{name} has shape {tuple(value.shape)}; expected {tuple(returns.shape)} as returns (B, T)"
            )
    if groups.shape != returns.shape[:1] or groups.is_floating_point():
        raise BatchError(
            f"groups is a {groups.dtype} tensor of shape {tuple(groups.shape)}; expected integers "
            f"({returns.shape[0]},), the prompt of each response"
        )
    norm = (1 - 2 * old_log_probs.exp() + squared_mass).where(mask, 0)
    gathered = norm.cumsum(-1).where(mask, 0)
    returns = returns.where(mask, 0)
    together = (groups[:, None] == groups[None, :]).to(returns.dtype)
    total = together @ gathered
    baseline = together @ (returns * gathered) / total.where(total > 0, 1)
    alive = together @ mask.to(returns.dtype)
    return (returns - baseline.where(alive > 1, 0)).where(mask, 0)
