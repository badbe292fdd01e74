"""The mean update of an objective on a whole environment: its gate in every state, averaged without sampling.

A token a sampled in state s from the behaviour policy q has the gradient weight -∂ℓ/∂log p = F·A = r·X·A with
r = π/q. The mean over responses of q of the logit step, per unit of learning rate and before the reduction, is

    E[Δz(s, k)] = Σ_s' d_q(s') Σ_a q(a|s') F A ∂log π(a|s')/∂z(s, k)
                = d_q(s) ( π(k|s) x(s, k) - π(k|s) Σ_a π(a|s) x(s, a) ),        x = X·A = F·A/r

because q·F = π·F/r, and ∂log π(a|s)/∂z(s, k) = 1[k=a] - π(k|s). The states are those that q visits, d_q: the ratio
of a token corrects the choice of that token only. `envs.exact.expected_update` does the sums; here the gate is read off
the loss itself, one token at a time, so that any objective whose token loss looks at nothing but its own token has an
exact mean update, also one that is registered nowhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from analysis.theory._prediction import Prediction, register
from envs import exact, make_spec
from envs.automaton import Automaton
from testbed.batch import TokenBatch
from testbed.errors import ConfigError
from testbed.objectives import Objective, make_objective

__all__ = ["gated_advantages", "population_update"]


def gated_advantages(objective: str | Objective, log_policy: Tensor, behaviour: Tensor, advantages: Tensor) -> Tensor:
    """The gated advantage x = F·A/r of every token in every state, `(..., S, V)`, by autograd through the token loss.

    Args:
        objective: a name, `name(key=value,…)`, or an objective.
        log_policy: float64 `(..., S, V)`, normalised log-probabilities of the policy being updated, finite.
        behaviour: those of the policy that sampled, same shape.
        advantages: float64, same shape: A of a token in a state.

    Raises:
        ConfigError: the loss of a token depends on other tokens, reads a field that a policy and a behaviour policy
            do not determine, or has a gradient that does not pass through the token's log-probability.

    >>> half = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    >>> moved = torch.tensor([[0.7, 0.3]], dtype=torch.float64).log()  # r = 1.4 and 0.6, beyond 1.2 and 0.8
    >>> gated_advantages("ppo", moved, half, torch.tensor([[1.0, 1.0]], dtype=torch.float64))
    tensor([[0., 1.]], dtype=torch.float64)
    """
    chosen = make_objective(objective)
    unknown = set(chosen.needs) - {"entropies", "old_entropies"}
    if unknown or chosen.needs_whole_batch:
        reason = f"it reads {', '.join(sorted(unknown))}" if unknown else "it reads a statistic of the whole batch"
        raise ConfigError(f"{chosen.label()} has no population update here: {reason}. Sample, or use another objective")
    alone = _log_prob_weights(chosen, log_policy, behaviour, advantages, (-1, 1, 1))
    # A token in company of all others must be treated as it is alone.
    together = _log_prob_weights(chosen, log_policy, behaviour, advantages, (1, 1, -1))
    if not torch.allclose(alone, together, rtol=1e-9, atol=1e-9):
        raise ConfigError(
            f"{chosen.label()} has no population update: what it does to a token depends on the rest of the response. "
            "Sample, or use an objective of single tokens"
        )
    return alone / (log_policy - behaviour).exp()


def population_update(
    objective: str | Objective,
    spec: Automaton,
    log_policy: Tensor,
    behaviour: Tensor,
    advantages: Tensor | None = None,
) -> Tensor:
    """Mean logit step per unit learning rate over all responses of the behaviour policy, `(..., S, V)`.

    Every token counts once, as in a sum over tokens; prompts are averaged.

    Args:
        objective: a name, `name(key=value,…)`, or an objective of single tokens.
        spec: the environment.
        log_policy: float64 `(..., S, V)`, normalised log-probabilities of the policy being updated.
        behaviour: those of the policy that sampled, same shape.
        advantages: float64, same shape; None: Q - V of the behaviour policy, what a large group estimates.

    Raises:
        ConfigError: as `gated_advantages`.
        BatchError: a table has the wrong shape or a row does not sum to one.

    >>> spec = make_spec("ModularSum-v1", prompts=1, length=2, vocabulary=3, modulus=3)
    >>> start = spec.initial_logits.log_softmax(-1)  # on policy it is the exact policy gradient
    >>> torch.allclose(population_update("dapo", spec, start, start), exact.policy_gradient(spec, start))
    True
    """
    if advantages is None:
        values = exact.action_values(spec, behaviour)
        advantages = values - (behaviour.exp() * values).sum(-1, keepdim=True)
    gated = gated_advantages(objective, log_policy, behaviour, advantages)
    return exact.expected_update(spec, log_policy, gated, behaviour)


def _log_prob_weights(
    objective: Objective, log_policy: Tensor, behaviour: Tensor, advantages: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    """-∂ℓ/∂log p of every token, in the shape of the tables, with the tokens laid out as replicas or as a response."""

    def state_entropy(table: Tensor) -> Tensor:
        return -(table.exp() * table).sum(-1, keepdim=True).expand_as(table).reshape(shape)

    log_probs = log_policy.detach().reshape(shape).clone().requires_grad_()
    entropies = state_entropy(log_policy.detach()).clone().requires_grad_()
    batch = TokenBatch(
        log_probs=log_probs,
        old_log_probs=behaviour.detach().reshape(shape),
        advantages=advantages.detach().reshape(shape),
        mask=torch.ones_like(log_probs, dtype=torch.bool),
        entropies=entropies,
        old_entropies=state_entropy(behaviour.detach()),
    )
    with torch.enable_grad():
        loss = objective.token_loss(batch).sum()
        weights, through_entropy = torch.autograd.grad(loss, [log_probs, entropies], allow_unused=True)
    if weights is None or (through_entropy is not None and through_entropy.any()):
        raise ConfigError(
            f"{objective.label()} has no population update here: its gradient does not pass through the token's "
            "log-probability alone"
        )
    return -weights.reshape(log_policy.shape)


# -- prediction ----------------------------------------------------------------------------------------------

_OBJECTIVES = ("reinforce", "ppo", "dapo", "gppo", "ce_gppo", "cispo", "dcpo", "sapo", "erc", "aspo")


def _case(drift: float) -> tuple[Automaton, Tensor, Tensor, Tensor]:
    """Two prompts of three tokens out of four; a policy at some distance from the one that sampled; advantages."""
    spec = make_spec("ModularSum-v1", prompts=2, length=3, vocabulary=4, modulus=2)
    generator = torch.Generator().manual_seed(7)
    start, move, advantages = torch.randn(3, spec.states, spec.vocabulary, generator=generator, dtype=torch.float64)
    return spec, (start + drift * move).log_softmax(-1), start.log_softmax(-1), advantages


def _enumerated_update(objective: str, drift: float) -> Tensor:
    """The gradient of the mean loss over all responses written out, by autograd through loss and softmax."""
    spec, log_policy, behaviour, table = _case(drift)
    logits = log_policy.clone().requires_grad_()
    new = logits.log_softmax(-1)
    tokens = torch.cartesian_prod(*[torch.arange(spec.vocabulary)] * spec.horizon).repeat(spec.prompts, 1)
    here = spec.initial_states.repeat_interleave(len(tokens) // spec.prompts)
    states = []
    for token in tokens.unbind(-1):
        states.append(here)
        here = spec.step(here, token)
    visited = torch.stack(states, -1)

    def entropy(table: Tensor) -> Tensor:
        return -(table.exp() * table).sum(-1)[visited]

    old = behaviour[visited, tokens]
    batch = TokenBatch(
        log_probs=new[visited, tokens],
        old_log_probs=old,
        advantages=table[visited, tokens],
        mask=torch.ones_like(tokens, dtype=torch.bool),
        entropies=entropy(new),
        old_entropies=entropy(behaviour),
    )
    losses = make_objective(objective).token_loss(batch).sum(-1)
    mean = (old.sum(-1).exp() * losses).sum() / spec.prompts
    return -torch.autograd.grad(mean, logits)[0]


_DRIFTS = (0.05, 0.5)

register(
    Prediction(
        id="T2",
        name="population-update",
        statement="The mean update of an objective of single tokens is d(s)·(πx - π Σ πx) with x = F·A/r.",
        route="all 128 responses written out, autograd through the shipped loss and the softmax",
        unit="logits per unit of learning rate",
        tolerance=1e-14,
        predict=lambda: torch.stack([population_update(name, *_case(d)) for name in _OBJECTIVES for d in _DRIFTS]),
        measure=lambda: torch.stack([_enumerated_update(name, drift) for name in _OBJECTIVES for drift in _DRIFTS]),
    )
)
