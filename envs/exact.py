"""What is true of a policy on an automaton, by dynamic programming instead of sampling.

Everything here is exact up to float64 rounding, takes tables of log-probabilities `(..., S, V)` with any leading
replica dimensions, and costs one pass over the transition table, whatever the number of sequences V^T. Replica
dimensions of the policy and of the spec's own tables broadcast against each other. No gradient is recorded.

    W(s) = c(s) + Σ_a π(a|s) W(s·a)      every additive quantity, backwards from the last layer
    d(s·a) += d(s) π(a|s)                 the occupancy, forwards from the prompts

Prompts are equally likely; "mean" without more words is the mean over prompts. Entropies and divergences are in
nats. A result without replica dimensions is a Python float where it is one number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from envs.automaton import TERMINAL, Automaton
from testbed.errors import BatchError, ConfigError

__all__ = [
    "Evaluation",
    "Optimum",
    "action_values",
    "evaluate",
    "expected_update",
    "frontier",
    "kl",
    "kl_per_prompt",
    "maximum_entropy_optimum",
    "optimum",
    "policy_gradient",
    "tv",
    "wasted_drift",
]


# -- evaluation --------------------------------------------------------------------------------------------


class Evaluation:
    """Everything known about one policy (or one per replica); computed when first read.

    Shapes: `R` are the replica dimensions of policy and spec together. A plain number per replica is a Python
    float when there are none.
    """

    def __init__(self, spec: Automaton, log_policy: Tensor) -> None:
        self._spec = spec
        # The policy is kept and not `log_policy`, so that a caller may go on to change its table in place.
        log_policy, self._policy = _normalised(spec, log_policy, "log_policy")
        self._state_entropy = _entropy(self._policy, log_policy)

    @cached_property
    def value(self) -> float | Tensor:
        """Expected reward J = E_x E_{y~π(·|x)}[R(x, y)], `(R,)`."""
        return _number(self._expected(_ending(self._spec, self._policy, self._spec.rewards)))

    @cached_property
    def success(self) -> Tensor:
        """Probability of a correct response, `(R, P)`, per prompt."""
        # The sum of many roundings may exceed 1 by an ulp, which `pass_at` could not take.
        ending = _ending(self._spec, self._policy, self._spec.success)
        return _per_prompt(self._spec, _to_go(self._spec, self._policy, ending)).clamp(0.0, 1.0)

    @cached_property
    def entropy(self) -> float | Tensor:
        """Entropy of a whole response, nats, mean over prompts, `(R,)`."""
        return _number(self._expected(self._state_entropy))

    @cached_property
    def token_entropy(self) -> float | Tensor:
        """Entropy per token, nats, `(R,)`: H(π(·|s)) averaged over the tokens of all responses."""
        # Both are numbers or both are tensors of one shape.
        return self.entropy / self.length

    @cached_property
    def length(self) -> float | Tensor:
        """Expected number of tokens in a response, `(R,)`."""
        return _number(self._expected(torch.ones_like(self._state_entropy)))

    @cached_property
    def occupancy(self) -> Tensor:
        """Expected number of visits to a state in a response to a random prompt, `(R, S)`."""
        return _occupancy(self._spec, self._policy)

    @cached_property
    def collision(self) -> float | Tensor:
        """Probability Σ_y π(y)² that two independent responses are the same one, mean over prompts, `(R,)`.

        Its negative logarithm is the Rényi entropy of order two; low is diverse.
        """
        squared = self._policy.square()
        ended = _ending(self._spec, squared, torch.ones_like(squared))
        return _number(_prompt_mean(self._spec, _to_go(self._spec, squared, ended)))

    @cached_property
    def state_entropy(self) -> Tensor:
        """Entropy H(π(·|s)) of every state, nats, `(R, S)`."""
        return self._state_entropy

    def pass_at(self, k: int) -> float | Tensor:
        """Probability that at least one of k independent responses is correct: mean over prompts of 1-(1-p)^k.

        Raises:
            ConfigError: k is not a positive whole number.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ConfigError(f"pass_at: k is {k!r}; expected a whole number of responses, at least 1")
        # expm1 and log1p keep the digits of a small p.
        return _number(-torch.expm1(k * torch.log1p(-self.success)).mean(-1))

    def _expected(self, local: Tensor) -> Tensor:
        """Sum of a state quantity over the visits of a response, mean over prompts, `(R,)`."""
        if self._spec.horizon == 1:
            return _prompt_mean(self._spec, local)
        return (self.occupancy * local).sum(-1)


def evaluate(spec: Automaton, log_policy: Tensor) -> Evaluation:
    """Exact expectations under a policy.

    Args:
        spec: the environment; its tables may carry replica dimensions.
        log_policy: float `(..., S, V)`, normalised log-probabilities; -inf is allowed.

    Raises:
        BatchError: the table has the wrong shape or dtype, or a row does not sum to one.

    >>> from envs import make_spec
    >>> spec = make_spec("ModularSum-v1", prompts=2, length=3, vocabulary=4, modulus=2)
    >>> uniform = torch.full((spec.states, 4), 0.25, dtype=torch.float64).log()
    >>> result = evaluate(spec, uniform)
    >>> result.value, result.success.tolist(), round(result.entropy / math.log(4), 12)
    (0.5, [0.5, 0.5], 3.0)
    """
    with torch.no_grad():
        return Evaluation(spec, log_policy)


# -- optima ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Optimum:
    """A best policy and what it reaches.

    Attributes:
        value: `(R,)`, what was maximised: the expected reward at temperature 0; the expected reward plus
            temperature times entropy, or minus temperature times KL to the reference, otherwise.
        reward: `(R,)`, the expected reward of `log_policy`; equals `value` at temperature 0.
        entropy: `(R,)`, nats a response, of `log_policy`.
        log_policy: float64 `(R, S, V)`; -inf marks tokens that are never chosen.
        temperature: the β of the regulariser.
    """

    value: float | Tensor
    reward: float | Tensor
    entropy: float | Tensor
    log_policy: Tensor
    temperature: float


def optimum(spec: Automaton, temperature: float = 0.0, reference: Tensor | None = None) -> Optimum:
    """The best policy, with or without a regulariser.

        temperature 0:            max J; tokens that tie share the probability of their state equally
        β > 0, no reference:      max J + β H(π)        U(s) = β log Σ_a exp(U(s·a)/β)
        β > 0 and a reference:    max J - β KL(π‖ref)   U(s) = β log Σ_a ref(a|s) exp(U(s·a)/β)
        with U = R where the response ends;             π*(a|s) ∝ [ref(a|s)] exp(U(s·a)/β)

    H and KL are those of whole responses. Equal sharing is not always the most random of the optimal policies:
    that one is `maximum_entropy_optimum`.

    Args:
        spec: the environment.
        temperature: β ≥ 0, in units of reward per nat.
        reference: float `(..., S, V)`, normalised log-probabilities. None: plain entropy, which for responses
            of one fixed length is a uniform reference up to a constant.

    Raises:
        ConfigError: the temperature is negative or not finite, or a reference comes with temperature 0.
        BatchError: the reference has the wrong shape.

    >>> from envs import make_spec
    >>> best = optimum(make_spec("ModularSum-v1", prompts=2, length=3, vocabulary=4, modulus=2))
    >>> (
    ...     best.value,
    ...     round(best.entropy / math.log(2), 12),
    ... )  # free, free, half of the last token: 2 + 2 + 1 bits
    (1.0, 5.0)
    """
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ConfigError(f"optimum: temperature is {temperature}; expected a finite number of at least 0")
    if temperature == 0.0:
        if reference is not None:
            raise ConfigError(
                "optimum: a reference needs a temperature above 0, the weight of the KL to it; "
                "drop the reference or raise the temperature"
            )
        return _greedy(spec, most_random=False)
    with torch.no_grad():
        prior = None if reference is None else _normalised(spec, reference, "reference")[0]
        shape = spec.replica_shape if prior is None else _joint_shape(spec, prior)
        soft = torch.zeros(*shape, spec.states + 1, dtype=torch.float64)
        log_policy = torch.zeros(*shape, spec.states, spec.vocabulary, dtype=torch.float64)
        for layer, ahead in _backwards(spec, soft):
            logits = torch.where(_terminal(spec, layer), spec.rewards[..., layer, :], ahead) / temperature
            if prior is not None:
                logits = logits + prior[..., layer, :]
            normaliser = logits.logsumexp(-1)
            soft[..., layer] = temperature * normaliser
            log_policy[..., layer, :] = logits - normaliser.unsqueeze(-1)
        result = Evaluation(spec, log_policy)
        return Optimum(
            value=_number(_prompt_mean(spec, soft)),
            reward=result.value,
            entropy=result.entropy,
            log_policy=log_policy,
            temperature=temperature,
        )


def maximum_entropy_optimum(spec: Automaton) -> Optimum:
    """The most random of all policies with the greatest expected reward: uniform over the best responses.

    Its `.entropy` is H*, the mean over prompts of log(number of best responses). A learner that ends below H*
    has lost H* - H nats it did not have to lose; one that ends at H* = 0 collapsed because the task asks for it.

    >>> from envs import make_spec
    >>> best = maximum_entropy_optimum(make_spec("MultiCorrectBandit-v1", arms=20, fraction=0.1))
    >>> best.value, round(best.entropy / math.log(2), 12)  # two of twenty arms are right
    (1.0, 1.0)
    """
    return _greedy(spec, most_random=True)


def _greedy(spec: Automaton, *, most_random: bool) -> Optimum:
    with torch.no_grad():
        shape = spec.replica_shape
        best = torch.zeros(*shape, spec.states + 1, dtype=torch.float64)
        # log of the number of best responses ahead; only its differences within a state steer the policy.
        count = torch.zeros_like(best)
        log_policy = torch.zeros(*shape, spec.states, spec.vocabulary, dtype=torch.float64)
        for layer, ahead in _backwards(spec, best):
            values = torch.where(_terminal(spec, layer), spec.rewards[..., layer, :], ahead)
            best[..., layer] = values.amax(-1)
            # Values are copied, never averaged, on their way through deterministic transitions: ties are exact.
            tied = values == best[..., layer].unsqueeze(-1)
            weights = _ahead(spec, layer, count) if most_random else torch.zeros_like(values)
            logits = weights.masked_fill(~tied, -math.inf)
            normaliser = logits.logsumexp(-1)
            count[..., layer] = normaliser
            log_policy[..., layer, :] = logits - normaliser.unsqueeze(-1)
        value = _number(_prompt_mean(spec, best))
        entropy = Evaluation(spec, log_policy).entropy
        return Optimum(value=value, reward=value, entropy=entropy, log_policy=log_policy, temperature=0.0)


# -- divergences -------------------------------------------------------------------------------------------


def kl(spec: Automaton, log_p: Tensor, log_q: Tensor) -> float | Tensor:
    """KL(p‖q) of whole responses, nats, mean over prompts, `(R,)`; +inf where p goes and q cannot.

        KL(p‖q) = Σ_s d_p(s) Σ_a p(a|s) log(p(a|s)/q(a|s))

    Args:
        spec: the environment.
        log_p: float `(..., S, V)`, normalised log-probabilities of the policy that is averaged over.
        log_q: float `(..., S, V)`, those of the other.

    Raises:
        BatchError: a table has the wrong shape or a row does not sum to one.

    >>> from envs import make_spec
    >>> spec = make_spec("NeedleBandit-v1", arms=2, contexts=1)
    >>> p, q = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]]], dtype=torch.float64).log()
    >>> round(kl(spec, p, q) / math.log(4 / 3), 12)  # (log 2 + log(2/3)) / 2 = log(4/3) / 2
    0.5
    """
    return _number(kl_per_prompt(spec, log_p, log_q).mean(-1))


def kl_per_prompt(spec: Automaton, log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p‖q) of whole responses for each prompt, nats, `(R, P)`; see `kl`."""
    with torch.no_grad():
        log_p, policy = _normalised(spec, log_p, "log_p")
        log_q, _ = _normalised(spec, log_q, "log_q")
        # Where p is 0 the term is 0, also where q is 0 too and the product is NaN.
        terms = (log_p - log_q).mul_(policy).masked_fill_(policy == 0, 0.0)
        return _per_prompt(spec, _to_go(spec, policy, terms.sum(-1)))


def tv(spec: Automaton, log_p: Tensor, log_q: Tensor) -> float | Tensor:
    """Total variation of the next token, ½ Σ_a |p - q|, averaged over the tokens of p's responses, `(R,)`, in [0, 1].

    For one-token environments this is the total variation of the response; `envs.prefix_tree.sequence_tv` has
    it for longer ones.

    Raises:
        BatchError: a table has the wrong shape or a row does not sum to one.
    """
    with torch.no_grad():
        _, policy = _normalised(spec, log_p, "log_p")
        _, other = _normalised(spec, log_q, "log_q")
        local = (policy - other).abs().sum(-1) / 2
        visits = _occupancy(spec, policy)
        return _number((visits * local).sum(-1) / visits.sum(-1))


# -- gradients ---------------------------------------------------------------------------------------------


def action_values(spec: Automaton, log_policy: Tensor, *, of: str = "reward") -> Tensor:
    """Expected reward of taking token a in state s and following the policy from there, Q(s, a), `(R, S, V)`.

    Args:
        spec: the environment.
        log_policy: float `(..., S, V)`, normalised log-probabilities.
        of: "reward", or "success" for the probability of a correct response instead.

    Raises:
        ConfigError: `of` is neither.
        BatchError: the table has the wrong shape or a row does not sum to one.
    """
    if of not in ("reward", "success"):
        raise ConfigError(f"action_values: of is {of!r}; expected 'reward' or 'success'")
    with torch.no_grad():
        _, policy = _normalised(spec, log_policy, "log_policy")
        return _action_values(spec, policy, spec.rewards if of == "reward" else spec.success)


def policy_gradient(spec: Automaton, log_policy: Tensor) -> Tensor:
    """Exact gradient of the expected reward with respect to the logits of a tabular softmax policy, `(R, S, V)`.

        ∂J/∂z(s, k) = d(s) π(k|s) (Q(s, k) - V(s))

    Raises:
        BatchError: the table has the wrong shape or a row does not sum to one.

    >>> from envs import make_spec
    >>> spec = make_spec("NeedleBandit-v1", arms=2, contexts=1, gap=0.5, reward="deterministic")
    >>> gradient = policy_gradient(spec, torch.tensor([[0.5, 0.5]], dtype=torch.float64).log())
    >>> gradient.abs().tolist()  # p (1 - p) · gap = 1/8, up for the needle
    [[0.125, 0.125]]
    """
    with torch.no_grad():
        _, policy = _normalised(spec, log_policy, "log_policy")
        values = _action_values(spec, policy, spec.rewards)
        return _update(_occupancy(spec, policy), policy, values)


def expected_update(spec: Automaton, log_policy: Tensor, weights: Tensor, behaviour: Tensor | None = None) -> Tensor:
    """Expected logit step per unit learning rate of a token-level objective on a tabular softmax, `(R, S, V)`.

        E[Δz(s, k)] = d(s) ( π(k|s) x(s, k) - π(k|s) Σ_a π(a|s) x(s, a) ),      x = X·A

    An objective whose gradient weight for a sampled token is r·X·A, with the ratio r = π/π_behaviour, has this
    mean over tokens drawn from the behaviour policy: the ratio turns π_behaviour(a|s) into π(a|s), while the
    states stay those the behaviour policy visits. With X = 1 and A = Q - V it is `policy_gradient`.

    Args:
        spec: the environment.
        log_policy: float `(..., S, V)`, the policy being updated.
        weights: float `(..., S, V)`, x = gate times advantage of each token in each state. Where the advantage
            of a token is random, its mean under the gate.
        behaviour: float `(..., S, V)`, the policy that sampled; None: the same one.

    Raises:
        BatchError: a table has the wrong shape, a row does not sum to one, or a weight is NaN.
    """
    with torch.no_grad():
        _, policy = _normalised(spec, log_policy, "log_policy")
        visits = policy if behaviour is None else _normalised(spec, behaviour, "behaviour")[1]
        weights = _table(spec, weights, "weights")
        if weights.isnan().any():
            raise BatchError("weights holds NaN; give 0 where the gate is shut")
        return _update(_occupancy(spec, visits), policy, weights)


def _update(occupancy: Tensor, policy: Tensor, weights: Tensor) -> Tensor:
    weighted = policy * weights
    return occupancy.unsqueeze(-1) * (weighted - policy * weighted.sum(-1, keepdim=True))


def _action_values(spec: Automaton, policy: Tensor, table: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(policy.shape[:-2], table.shape[:-2])
    values = torch.zeros(*shape, spec.states, spec.vocabulary, dtype=torch.float64)
    state_values = torch.zeros(*shape, spec.states + 1, dtype=torch.float64)
    for layer, ahead in _backwards(spec, state_values):
        here = torch.where(_terminal(spec, layer), table[..., layer, :], ahead)
        values[..., layer, :] = here
        state_values[..., layer] = (policy[..., layer, :] * here).sum(-1)
    return values


# -- frontier ----------------------------------------------------------------------------------------------


def frontier(spec: Automaton, reference: Tensor, success: Tensor) -> Tensor:
    """Least KL to the reference, nats, at which a task with right and wrong answers reaches a success rate.

        KL(π‖ref) ≥ kl(p‖p0) = p log(p/p0) + (1-p) log((1-p)/(1-p0)),      p0 = success of the reference

    It is attained by π ∝ ref·exp(R/β), which reweights the right and the wrong answers as two blocks.

    Args:
        spec: the environment; every response must be either right or wrong.
        reference: float `(..., S, V)`, normalised log-probabilities.
        success: float `(..., P)`, success rate of each prompt, in [0, 1].

    Returns:
        float64 `(R, P)`; +inf where the reference never succeeds and success is above 0.

    Raises:
        ConfigError: the success table holds a value other than 0 and 1, or a success rate is outside [0, 1].
        BatchError: the reference has the wrong shape, or `success` does not end in P.
    """
    ending = _terminal(spec).expand_as(spec.success)
    if ((spec.success != 0) & (spec.success != 1) & ending).any():
        raise ConfigError(
            f"frontier: {spec.name} has responses that are right only sometimes (success strictly between 0 and 1); "
            "the closed form holds for tasks whose verifier always says the same"
        )
    if success.shape[-1:] != (spec.prompts,):
        raise BatchError(f"success has shape {tuple(success.shape)}; expected (..., {spec.prompts}), one per prompt")
    success = success.double()
    if not ((success >= 0) & (success <= 1)).all():
        raise ConfigError("frontier: success holds a value outside [0, 1]; it is a rate per prompt")
    base = evaluate(spec, reference).success
    # 0 · log(0/q) is 0, also where q is 0 too.
    blocks = [
        torch.where(rate > 0, rate * (rate / start).log(), 0.0)
        for rate, start in ((success, base), (1 - success, 1 - base))
    ]
    return blocks[0] + blocks[1]


def wasted_drift(spec: Automaton, log_policy: Tensor, reference: Tensor) -> float | Tensor:
    """KL to the reference that bought no success: KL(π‖ref) - kl(p‖p0) ≥ 0, nats, mean over prompts, `(R,)`.

    Zero for every Gibbs policy π ∝ ref·exp(R/β); see `frontier`.

    Raises:
        ConfigError, BatchError: as `frontier`.
    """
    spent = kl_per_prompt(spec, log_policy, reference)
    needed = frontier(spec, reference, evaluate(spec, log_policy).success)
    return _number((spent - needed).mean(-1))


# -- one pass over the layers ------------------------------------------------------------------------------


def _terminal(spec: Automaton, layer: slice = slice(None)) -> Tensor:
    """Which transitions end the response, bool `(S, V)`, or those of one layer."""
    return spec.transitions[layer] == TERMINAL


def _ahead(spec: Automaton, layer: slice, padded: Tensor) -> Tensor:
    """A state quantity at the next states, `(R, layer, V)`; `padded` is `(R, S+1)`, its last entry for endings."""
    following = spec.transitions[layer].flatten()
    following = following.where(following != TERMINAL, spec.states)
    return padded.index_select(-1, following).unflatten(-1, (-1, spec.vocabulary))


def _backwards(spec: Automaton, padded: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Layers from the last to the first, each with `padded` at its next states, which the caller has filled by then."""
    for layer in reversed(spec.layers):
        yield layer, _ahead(spec, layer, padded)


def _to_go(spec: Automaton, policy: Tensor, local: Tensor) -> Tensor:
    """W(s) = local(s) + Σ_a policy(a|s) W(s·a), `(R, S)`."""
    if spec.horizon == 1:
        return local
    padded = torch.cat([local, local.new_zeros(*local.shape[:-1], 1)], -1)
    # The last layer only ends, so its W is `local`.
    for layer in reversed(spec.layers[:-1]):
        padded[..., layer] += (policy[..., layer, :] * _ahead(spec, layer, padded)).sum(-1)
    return padded[..., :-1]


def _ending(spec: Automaton, policy: Tensor, table: Tensor) -> Tensor:
    """Expectation of a terminal table over the next token, Σ_a policy(a|s) table(s, a) [s·a ends], `(R, S)`."""
    if spec.horizon == 1:
        return (policy * table).sum(-1)
    shape = torch.broadcast_shapes(policy.shape[:-2], table.shape[:-2])
    ended = policy.new_zeros(*shape, spec.states)
    for layer in spec.layers:
        ends = _terminal(spec, layer)
        if ends.any():
            ended[..., layer] = (policy[..., layer, :] * (table[..., layer, :] * ends)).sum(-1)
    return ended


def _occupancy(spec: Automaton, policy: Tensor) -> Tensor:
    """Expected visits d(s) of a response to a random prompt, `(R, S)`."""
    shape = policy.shape[:-2]
    visits = policy.new_zeros(*shape, spec.states + 1)
    starts = torch.bincount(spec.initial_states, minlength=spec.states + 1)
    visits += starts.to(visits.dtype) / spec.prompts
    for layer in spec.layers[:-1]:
        following = spec.transitions[layer].flatten()
        following = following.where(following != TERMINAL, spec.states)
        flow = visits[..., layer].unsqueeze(-1) * policy[..., layer, :]
        visits.index_add_(-1, following, flow.flatten(-2))
    return visits[..., :-1]


def _entropy(policy: Tensor, log_policy: Tensor) -> Tensor:
    # A probability of 0 has log -inf; the clamp makes 0 · log 0 the 0 it stands for. In place, because a fresh table
    # costs more than the product.
    return log_policy.clamp_min(torch.finfo(torch.float64).min).mul_(policy).sum(-1).neg_()


def _per_prompt(spec: Automaton, values: Tensor) -> Tensor:
    return values.index_select(-1, spec.initial_states)


def _prompt_mean(spec: Automaton, values: Tensor) -> Tensor:
    return _per_prompt(spec, values).mean(-1)


def _number(values: Tensor) -> float | Tensor:
    return values if values.dim() else float(values)


def _joint_shape(spec: Automaton, table: Tensor) -> torch.Size:
    return torch.broadcast_shapes(spec.replica_shape, table.shape[:-2])


def _table(spec: Automaton, table: Tensor, label: str) -> Tensor:
    """The table in float64, or an error that names it."""
    if not isinstance(table, Tensor):
        raise BatchError(
            f"{label} is a {type(table).__name__}; expected a float tensor (..., {spec.states}, {spec.vocabulary}), "
            f"states by tokens of {spec.name}"
        )
    if table.shape[-2:] != (spec.states, spec.vocabulary) or not table.is_floating_point():
        raise BatchError(
            f"{label} has shape {tuple(table.shape)} and dtype {table.dtype}; expected a float table "
            f"(..., {spec.states}, {spec.vocabulary}), states by tokens of {spec.name}. "
            "Is it a policy for another environment or other parameters?"
        )
    try:
        _joint_shape(spec, table)
    except RuntimeError:
        raise BatchError(
            f"{label} has replica dimensions {tuple(table.shape[:-2])}; expected ones that broadcast with "
            f"{tuple(spec.replica_shape)}, those of {spec.name}'s tables"
        ) from None
    return table.detach().double()


def _normalised(spec: Automaton, log_policy: Tensor, label: str) -> tuple[Tensor, Tensor]:
    """Log-probabilities and probabilities in float64, or an error that names the table."""
    log_policy = _table(spec, log_policy, label)
    policy = log_policy.exp()
    excess = (policy.sum(-1) - 1).abs().amax()
    # Written so that NaN fails; the slack is for tables that were normalised in float32.
    if not excess <= 1e-4:
        raise BatchError(
            f"{label} holds a row whose probabilities miss a sum of 1 by {float(excess):.3g}; "
            "expected normalised log-probabilities, such as log_softmax of the logits"
        )
    return log_policy, policy
