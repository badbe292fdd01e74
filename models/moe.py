"""The transformer with a mixture of experts in every block, whose routing can be recorded and replayed."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from models.policy import Samples, policies
from models.transformer import Routing, TransformerPolicy, check_whole
from testbed.errors import BatchError, ConfigError

__all__ = ["MixtureOfExpertsPolicy"]

_REPLAYS = (None, "old", "sampler")


@policies.register("moe")
class MixtureOfExpertsPolicy(TransformerPolicy):
    """A transformer whose feed-forward block is Σ_{e in top-k} g_e·f_e(x), with g = softmax of the router's logits.

    The weights of the chosen experts are not normalised again, so that the router learns even with one active expert.
    A small change of the parameters can change which experts are in the top k, and the probability of a token with
    it: the ratio jumps. Replaying the recorded choice (with g from the current router) takes that jump away.

    Args:
        logits: float `(R, S, V)`, the initial policy to approach; gives sizes and type.
        experts: E, per block; each is as wide as the residual stream times two.
        active: k, experts used for a token, at most E.
        replay: whose choice of experts `evaluate` uses. `None`: the current router's. `"old"`: that of the policy in
            the ratio's denominator (routing replay, R2). `"sampler"`: that of the sampler, for the denominator as well
            (rollout routing replay, R3). The last two differ only where the sampler differs from the trainer.
        layers, width, heads, pretraining, seed: see `TransformerPolicy`.

    Raises:
        ConfigError: a setting is out of its range.
        BatchError: replay is asked for and the samples carry no routing of this shape.

    Example:
        >>> policy = MixtureOfExpertsPolicy(torch.zeros(1, 1, 4), experts=3, active=2)
        >>> policy.router_shape
        (2, 3)
    """

    def __init__(
        self,
        logits: Tensor,
        experts: int = 4,
        active: int = 2,
        replay: str | None = None,
        layers: int = 2,
        width: int = 32,
        heads: int = 2,
        pretraining: int = 300,
        seed: int = 0,
    ) -> None:
        check_whole(type(self), "experts", experts, 1)
        check_whole(type(self), "active", active, 1)
        if active > experts:
            raise ConfigError(f"{type(self).__name__}: active is {active}; expected at most experts, {experts}")
        if replay not in _REPLAYS:
            raise ConfigError(f"{type(self).__name__}: replay is {replay!r}; expected None, 'old' or 'sampler'")
        self.experts, self.active, self.replay = experts, active, replay
        super().__init__(logits, layers, width, heads, pretraining, seed)
        self.router_shape = (layers, experts)

    def recompute(self, samples: Samples, *, entropies: bool) -> Samples:
        """As every policy; with `replay="old"` the routing becomes this policy's own as well."""
        if self.replay == "old":
            samples = replace(samples, routing=self.route(samples))
        return super().recompute(samples, entropies=entropies)

    @torch.no_grad()
    def route(self, samples: Samples) -> Tensor:
        """int64 `(R, B, T, L, k)`: the experts the current router chooses at every position, best first."""
        routing = self._rows(samples, None)[2].stacked()
        assert routing is not None
        return routing

    def _replayed(self, samples: Samples) -> Tensor | None:
        if self.replay is None:
            return None
        expected = (*samples.tokens.shape, self.layers, self.active)
        if samples.routing is None or samples.routing.shape != expected:
            found = None if samples.routing is None else tuple(samples.routing.shape)
            raise BatchError(
                f"samples.routing is {found}; expected shape {expected} (replicas, sequences, tokens, layers, active "
                "experts) to replay. Sample with a mixture-of-experts policy, or set replay=None"
            )
        return samples.routing

    def _feed_forward_shapes(self, layer: int) -> dict[str, tuple[tuple[int, ...], float]]:
        inner = self.experts * 2 * self.width
        return {
            f"{layer}.router": ((self.width, self.experts), self.width**-0.5),
            f"{layer}.up": ((self.width, inner), self.width**-0.5),
            # A token sees only its own experts' share of the inner layer.
            f"{layer}.down": ((inner, self.width), (4 * self.layers * self.width) ** -0.5),
        }

    def _feed_forward(
        self, weights: dict[str, Tensor], layer: int, stream: Tensor, shape: tuple[int, int], routing: Routing
    ) -> Tensor:
        """Every expert is computed and those not chosen get weight 0: for a few small experts cheaper than sorting."""
        replicas, positions, _ = stream.shape
        normalised = F.layer_norm(stream, (self.width,))
        scores = torch.bmm(normalised, weights[f"{layer}.router"])
        if routing.noise is not None:
            scores = scores + routing.noise[..., layer, :].reshape_as(scores).to(scores.dtype)
        if routing.forced is None:
            chosen = scores.detach().topk(self.active, -1).indices
        else:
            chosen = routing.forced[..., layer, :].reshape(replicas, positions, self.active)
        routing.chosen.append(chosen.view(replicas, *shape, self.active))
        kept = torch.zeros_like(scores).scatter_(-1, chosen, 1.0)
        gates = (scores.softmax(-1) * kept).unsqueeze(-1)
        inner = torch.bmm(normalised, weights[f"{layer}.up"]).relu_()
        inner = inner.view(replicas, positions, self.experts, -1) * gates
        return torch.baddbmm(stream, inner.flatten(2), weights[f"{layer}.down"])
