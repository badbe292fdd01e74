"""A small causal transformer for every replica at once, with a static key/value cache for generation.

Weights are stacked by hand over the leading replica dimension and applied with batched matrix products, so that a
step over many replicas costs little more than the arithmetic in it. The network is the usual one without its
trimmings: pre-normalisation without gains, no biases, sinusoidal positions, a ReLU feed-forward block.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from models.policy import EXACT, Distortion, Episodes, Policy, Samples, Step, kappas_of, policies
from models.pretraining import pretrain_on_table
from testbed.errors import BatchError, ConfigError

__all__ = ["Routing", "TransformerPolicy", "sinusoids"]


@dataclass(eq=False)
class Routing:
    """The experts chosen in one pass of the network, for policies that have some.

    Attributes:
        forced: int64 `(R, B, n, L, k)`, experts to use instead of the router's choice; `None`: the router chooses.
        noise: float `(R, B, n, L, E)`, added to the router's logits; `None`: nothing is.
        chosen: one int64 `(R, B, n, k)` per layer, filled in by the pass.
    """

    forced: Tensor | None
    noise: Tensor | None
    chosen: list[Tensor]

    def stacked(self) -> Tensor | None:
        """int64 `(R, B, n, L, k)`; `None` for a network without experts."""
        return torch.stack(self.chosen, -2) if self.chosen else None


@dataclass(eq=False)
class _Cache:
    """Keys and values `(L, R·B, heads, T, width/heads)` of the tokens read so far."""

    keys: Tensor
    values: Tensor


@policies.register("transformer")
class TransformerPolicy(Policy):
    """π(v|prompt, tokens so far) by a causal transformer: every prefix shares the parameters of all others.

    It reads the prompt, as the number of its initial state, and the tokens so far; the automaton state of a prefix is
    not shown to it. Logits are hᵀ·W/√width with W⁰ = 0: it starts exactly uniform, and because |h|² = width a gradient
    step of size η on a logit moves that logit by η through W, as in a table, so that learning rates are comparable.
    Another initial policy is approached by pre-training, see `start`. The other weights are drawn once from `seed`:
    replicas start from one checkpoint and differ by what they sample.

    Args:
        logits: float `(R, S, V)`, the initial policy to approach; gives sizes and type.
        layers: number of blocks.
        width: of the residual stream, even; the feed-forward block is four times as wide.
        heads: attention heads, a divisor of the width.
        pretraining: updates of pre-training for an initial policy that is not uniform.
        seed: of the initial weights and of pre-training.

    Raises:
        ConfigError: a setting is out of its range.

    Example:
        >>> policy = TransformerPolicy(torch.zeros(2, 3, 4), layers=1, width=8)
        >>> policy.next_log_probs(torch.tensor([0]), torch.tensor([[1, 3]])).exp().tolist()
        [[[0.25, 0.25, 0.25, 0.25]], [[0.25, 0.25, 0.25, 0.25]]]
    """

    samples_exactly = False

    def __init__(
        self,
        logits: Tensor,
        layers: int = 2,
        width: int = 32,
        heads: int = 2,
        pretraining: int = 300,
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("layers", layers, 1),
            ("width", width, 2),
            ("heads", heads, 1),
            ("pretraining", pretraining, 0),
        ):
            check_whole(type(self), name, value, least)
        if width % 2 or width % heads:
            raise ConfigError(
                f"{type(self).__name__}: width is {width} with {heads} heads; expected an even multiple of heads"
            )
        self.shape = logits.shape
        self.layers, self.width, self.heads = layers, width, heads
        self._target = logits.detach()
        self._pretraining, self._seed = pretraining, seed
        generator = torch.Generator().manual_seed(seed)
        self.weights = {
            name: (torch.randn(shape, generator=generator, dtype=torch.float64) * scale)
            .to(logits)
            .expand(self.shape[0], *shape)
            .contiguous()
            for name, (shape, scale) in self._weight_shapes().items()
        }
        self.parameters = list(self.weights.values())
        self._graph: tuple[list[Tensor], Tensor, Tensor | None] | None = None

    # -- the contract of a policy ------------------------------------------------------------------------------

    def snapshot(self) -> Self:
        """A copy with weights of its own."""
        return self._with_weights({name: weight.clone() for name, weight in self.weights.items()})

    def start(self, episodes: Episodes) -> None:
        """Pre-train on the initial policy, unless it is the uniform one that the network starts with.

        Where all replicas have the same initial policy, one of them is trained and copied.
        """
        if bool((self._target == self._target[..., :1]).all()):
            return
        count = 1 if bool((self._target == self._target[:1]).all()) else self.shape[0]
        learner = self._with_weights({name: weight[:count].clone() for name, weight in self.weights.items()})
        pretrain_on_table(learner, self._target[:count], episodes, steps=self._pretraining, seed=self._seed)
        for weight, learned in zip(self.parameters, learner.parameters, strict=True):
            weight.copy_(learned)

    @torch.no_grad()
    def sample(
        self,
        initial_states: Tensor,
        step: Step,
        uniforms: Tensor,
        *,
        entropies: bool,
        prefix: Samples | None = None,
        distortion: Distortion = EXACT,
    ) -> Samples:
        """Inverse-distribution-function sampling, one token a time from the cache.

        A prefix is read in one pass first. Log-probabilities are those of the cached pass, which agree with
        `evaluate` up to rounding.
        """
        replicas, _, vocabulary = self.shape
        _, sequences, horizon = uniforms.shape
        self._check_initial(initial_states)
        shape = (replicas, sequences, horizon)
        current = initial_states.expand(replicas, sequences)
        log_probs = self.parameters[0].new_zeros(shape)
        states, tokens = (torch.zeros_like(log_probs, dtype=torch.int64) for _ in range(2))
        mask = torch.zeros_like(log_probs, dtype=torch.bool)
        chosen_entropies = torch.zeros_like(log_probs) if entropies else None
        routes: list[Tensor] = []
        final_states, final_tokens = current.clone(), torch.zeros_like(current)
        cache = self._empty_cache(sequences, horizon)
        inputs = self._inputs(current, tokens[..., :0])
        written = 0
        if prefix is not None:
            written = prefix.tokens.shape[-1]
            for whole, start in ((states, prefix.states), (tokens, prefix.tokens), (mask, prefix.mask)):
                whole[..., :written] = start
            log_probs[..., :written] = prefix.log_probs
            if chosen_entropies is not None and prefix.entropies is not None:
                chosen_entropies[..., :written] = prefix.entropies
            if prefix.routing is not None:
                routes.append(prefix.routing)
            final_states, final_tokens = prefix.final_states, prefix.final_tokens
            current = step(final_states, final_tokens)
            inputs = self._inputs(states[..., 0], prefix.tokens[..., :-1])
            # Its experts are those `evaluate` will use for it, so that what is reported here can be recomputed there.
            self._hidden(self.weights, inputs, Routing(self._replayed(prefix), None, []), cache, 0)
            inputs = self.shape[1] + prefix.tokens[..., -1:]
        for position in range(written, horizon):
            noise = distortion.router_noise
            routing = Routing(None, None if noise is None else noise[:, :, position : position + 1], [])
            hidden = self._hidden(self.weights, inputs, routing, cache, position)
            alive = current >= 0
            here = current.clamp(min=0)
            row = distortion.of_rows(self._logits(self.weights, hidden).squeeze(-2), here).log_softmax(-1)
            cumulative = row.exp().cumsum(-1, dtype=torch.float64)
            cumulative[..., -1] = 1.0  # rounding must not leave a gap at the end
            drawn = (cumulative <= uniforms[..., position, None]).sum(-1).clamp_(max=vocabulary - 1)
            states[..., position] = here * alive
            tokens[..., position] = drawn * alive
            mask[..., position] = alive
            log_probs[..., position] = row.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
            if chosen_entropies is not None:
                chosen_entropies[..., position] = _entropy(row)
            if (chosen := routing.stacked()) is not None:
                routes.append(chosen)
            final_states = torch.where(alive, here, final_states)
            final_tokens = torch.where(alive, drawn, final_tokens)
            current = torch.where(alive, step(here, drawn), current)
            inputs = self.shape[1] + tokens[..., position, None]
        routing_record = torch.cat(routes, 2) if routes else None
        return Samples(states, tokens, mask, log_probs, chosen_entropies, final_states, final_tokens, routing_record)

    def evaluate(self, samples: Samples, *, entropies: bool) -> tuple[Tensor, Tensor | None]:
        """One pass over the whole responses; its graph is kept for `gradient`."""
        leaves, rows, _ = self._rows(samples, self._replayed(samples))
        log_probs = rows.gather(-1, samples.tokens.unsqueeze(-1)).squeeze(-1)
        entropy = _entropy(rows) if entropies else None
        self._graph = (leaves, log_probs, entropy) if torch.is_grad_enabled() else None
        return log_probs.detach(), None if entropy is None else entropy.detach()

    @torch.no_grad()
    def kappas(self, samples: Samples) -> Tensor:
        """A pass of its own, so that the graph of `evaluate` stays."""
        return kappas_of(self._rows(samples, self._replayed(samples))[1])

    def gradient(self, samples: Samples, log_prob_weights: Tensor, entropy_weights: Tensor | None) -> Sequence[Tensor]:
        """Automatic differentiation of the last `evaluate`."""
        assert self._graph is not None
        leaves, log_probs, entropy = self._graph
        self._graph = None
        outputs, weights = [log_probs], [log_prob_weights]
        if entropy_weights is not None:
            assert entropy is not None
            outputs.append(entropy)
            weights.append(entropy_weights)
        return torch.autograd.grad(outputs, leaves, weights, materialize_grads=True)

    @torch.no_grad()
    def next_log_probs(self, initial_states: Tensor, prefixes: Tensor) -> Tensor:
        """Float `(R, N, V)`: one pass over the prefixes."""
        self._check_initial(initial_states)
        replicas = self.shape[0]
        count, length = prefixes.shape
        inputs = self._inputs(initial_states.expand(replicas, count), prefixes.expand(replicas, count, length))
        hidden = self._hidden(self.weights, inputs, Routing(None, None, []), None, 0)
        return self._logits(self.weights, hidden[:, :, -1:]).squeeze(-2).log_softmax(-1)

    def distributions(self, samples: Samples) -> tuple[list[Tensor], Tensor]:
        """The parameters as leaves of a graph, and float `(R, B, T, V)`, log-probabilities at every sampled position.

        This is what pre-training differentiates: the leaves share their memory with `parameters`.
        """
        leaves, rows, _ = self._rows(samples, None)
        return leaves, rows

    # -- the network -------------------------------------------------------------------------------------------

    def _weight_shapes(self) -> dict[str, tuple[tuple[int, ...], float]]:
        """Shape without the replica dimension and standard deviation at the start, by name."""
        _, states, vocabulary = self.shape
        width = self.width
        shapes: dict[str, tuple[tuple[int, ...], float]] = {"embedding": ((states + vocabulary, width), 1.0)}
        for layer in range(self.layers):
            shapes[f"{layer}.attention_in"] = ((width, 3 * width), width**-0.5)
            # What is added to the residual stream is scaled by the number of additions, as in GPT-2.
            shapes[f"{layer}.attention_out"] = ((width, width), (2 * self.layers * width) ** -0.5)
            shapes |= self._feed_forward_shapes(layer)
        shapes["head"] = ((width, vocabulary), 0.0)
        return shapes

    def _feed_forward_shapes(self, layer: int) -> dict[str, tuple[tuple[int, ...], float]]:
        inner = 4 * self.width
        return {
            f"{layer}.up": ((self.width, inner), self.width**-0.5),
            f"{layer}.down": ((inner, self.width), (2 * self.layers * inner) ** -0.5),
        }

    def _feed_forward(
        self, weights: dict[str, Tensor], layer: int, stream: Tensor, shape: tuple[int, int], routing: Routing
    ) -> Tensor:
        """The residual stream `(R, B·n, width)` after a block's second half; `shape` is (B, n)."""
        inner = torch.bmm(F.layer_norm(stream, (self.width,)), weights[f"{layer}.up"]).relu_()
        return torch.baddbmm(stream, inner, weights[f"{layer}.down"])

    def _hidden(
        self, weights: dict[str, Tensor], inputs: Tensor, routing: Routing, cache: _Cache | None, start: int
    ) -> Tensor:
        """The normalised last layer at every input, `(R, B, n, width)`.

        Args:
            weights: by name.
            inputs: int64 `(R, B, n)`, rows of the embedding.
            routing: read and filled by a network with experts.
            cache: keys and values of the first `start` inputs, to which those of the new ones are added; `None`: there
                are no others.
            start: the position of the first input; where it is not 0, there is one input.
        """
        replicas, sequences, count = inputs.shape
        rows = weights["embedding"].shape[1]
        offsets = torch.arange(0, replicas * rows, rows, device=inputs.device).view(-1, 1, 1)
        stream = F.embedding(inputs + offsets, weights["embedding"].view(-1, self.width))
        stream += sinusoids(start, count, self.width).to(stream)
        stream = stream.view(replicas, sequences * count, self.width)
        head_width = self.width // self.heads
        for layer in range(self.layers):
            mixed = torch.bmm(F.layer_norm(stream, (self.width,)), weights[f"{layer}.attention_in"])
            mixed = mixed.view(replicas * sequences, count, 3, self.heads, head_width)
            query, key, value = mixed.permute(2, 0, 3, 1, 4).unbind(0)
            if cache is not None:
                stop = start + count
                cache.keys[layer, :, :, start:stop], cache.values[layer, :, :, start:stop] = key, value
                key, value = cache.keys[layer, :, :, :stop], cache.values[layer, :, :, :stop]
            # A single new input may look at everything before it; several are always the first ones.
            read = F.scaled_dot_product_attention(query, key, value, is_causal=count > 1)
            read = read.transpose(1, 2).reshape(replicas, sequences * count, self.width)
            stream = torch.baddbmm(stream, read, weights[f"{layer}.attention_out"])
            stream = self._feed_forward(weights, layer, stream, (sequences, count), routing)
        return F.layer_norm(stream, (self.width,)).view(replicas, sequences, count, self.width)

    def _logits(self, weights: dict[str, Tensor], hidden: Tensor) -> Tensor:
        """Float `(R, B, n, V)`."""
        flat = torch.bmm(hidden.flatten(1, 2), weights["head"]) * self.width**-0.5
        return flat.view(*hidden.shape[:-1], self.shape[-1])

    # -- plumbing ----------------------------------------------------------------------------------------------

    def _rows(self, samples: Samples, forced: Tensor | None) -> tuple[list[Tensor], Tensor, Routing]:
        """Leaves, log-probabilities `(R, B, T, V)` at every position and the routing of one pass over responses."""
        if samples.tokens.shape[0] != self.shape[0]:
            raise BatchError(
                f"samples.tokens has shape {tuple(samples.tokens.shape)}; expected {self.shape[0]} replicas first, as "
                "this policy has"
            )
        leaves = [weight.detach().requires_grad_(torch.is_grad_enabled()) for weight in self.parameters]
        weights = dict(zip(self.weights, leaves, strict=True))
        routing = Routing(forced, None, [])
        inputs = self._inputs(samples.states[..., 0], samples.tokens[..., :-1])
        return leaves, self._logits(weights, self._hidden(weights, inputs, routing, None, 0)).log_softmax(-1), routing

    def _replayed(self, samples: Samples) -> Tensor | None:
        """The experts `evaluate` must use; `None` for the router's own choice."""
        return None

    def _inputs(self, initial_states: Tensor, tokens: Tensor) -> Tensor:
        """Rows of the embedding: the prompt `(R, B)`, then the tokens `(R, B, t)`."""
        return torch.cat([initial_states.unsqueeze(-1), self.shape[1] + tokens], -1)

    def _empty_cache(self, sequences: int, horizon: int) -> _Cache:
        shape = (self.layers, self.shape[0] * sequences, self.heads, horizon, self.width // self.heads)
        return _Cache(*(self.parameters[0].new_empty(shape) for _ in range(2)))

    def _with_weights(self, weights: dict[str, Tensor]) -> Self:
        other = copy.copy(self)
        other.weights, other.parameters, other._graph = weights, list(weights.values()), None
        other.shape = torch.Size((other.parameters[0].shape[0], *self.shape[1:]))
        return other

    def _check_initial(self, initial_states: Tensor) -> None:
        low, high = (int(end) for end in initial_states.aminmax())
        if low < 0 or high >= self.shape[1]:
            raise BatchError(
                f"initial_states holds {low if low < 0 else high}; expected states in 0..{self.shape[1] - 1}, as the "
                "logits this policy was made from"
            )


def sinusoids(start: int, count: int, width: int) -> Tensor:
    """Sines and cosines float64 `(count, width)` of the positions from `start`: no horizon has to be known.

    Reference: Vaswani et al., Attention Is All You Need, arXiv 1706.03762, section 3.5, sines first here.
    """
    frequencies = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(1e4) / width))
    angles = torch.arange(start, start + count, dtype=torch.float64).unsqueeze(-1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)


def check_whole(owner: type, name: str, value: object, least: int) -> None:
    """Raise a ConfigError unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{owner.__name__}: {name} is {value!r}; expected a whole number of at least {least}")


def _entropy(log_probs: Tensor) -> Tensor:
    return -(log_probs.exp() * log_probs).sum(-1)
