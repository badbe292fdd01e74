"""`TokenBatch`: the one thing every objective reads.

Legend for shapes: `...` any leading replica dimensions (seeds, hyper-parameter settings), `B` sequences, `T` token
positions. A language-model batch has no leading dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from testbed.errors import BatchError
from testbed.masking import MAX_LOG_RATIO, ResponseMask
from testbed.rollout import PolicyView, Rollout

__all__ = ["TokenBatch"]

_OPTIONAL = ("entropies", "old_entropies", "kappas", "old_kappas", "sampler_log_probs", "ref_log_probs")
"""Fields with a number per token that may be absent."""
_OF_TOKENS = ("log_probs", "old_log_probs", "advantages", *_OPTIONAL)
_OF_STEP = ("groups", "token_count", "sequence_count")
"""Fields that have no number per token."""
_OF_POLICY = ("log_probs", "entropies", "kappas")
"""Fields that an inner loop changes."""
_DIFFERENTIATED = ("log_probs", "entropies")


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Sampled tokens with what the policies said about them; validated once, at construction.

    Masked positions may hold anything, NaN included: they are overwritten with zeros before any arithmetic, so
    padding cannot change a value or a gradient. Gradients flow to `log_probs` and `entropies` alone; every other tensor
    is a constant, so that the current policy may stand in for the old one without a `detach`. Half-precision inputs
    are widened to float32, because a ratio of probabilities does not survive eight bits of mantissa.

    Raises:
        BatchError: shapes differ, the mask is not boolean or marks no token, a value under the mask is NaN or
            infinite, or a count is not positive. The message names the field.

    Example:
        >>> batch = TokenBatch(
        ...     log_probs=torch.tensor([[-1.0, -2.0]]),
        ...     old_log_probs=torch.tensor([[-1.0, -1.0]]),
        ...     advantages=torch.tensor([0.5]),
        ...     mask=torch.tensor([[True, True]]),
        ... )
        >>> batch.log_ratio.tolist()
        [[0.0, -1.0]]
        >>> batch.advantages.tolist()
        [[0.5, 0.5]]
    """

    log_probs: Tensor
    """float `(..., B, T)`: natural log-probability of the sampled token under the current policy; differentiable."""
    old_log_probs: Tensor
    """float `(..., B, T)`: the same under the policy in the ratio's denominator; a constant."""
    advantages: Tensor
    """float `(..., B, T)`, or `(..., B)` for one value per response; positive pushes the probability up."""
    mask: Tensor
    """bool `(..., B, T)`: True where the token belongs to the response."""
    entropies: Tensor | None = None
    """float `(..., B, T)`, nats: full-vocabulary entropy of the current policy at the position."""
    old_entropies: Tensor | None = None
    """float `(..., B, T)`, nats: the same when the token was sampled."""
    kappas: Tensor | None = None
    """float `(..., B, T)`: κ = Σ_v p_v²(H + log p_v) over the vocabulary under the current policy; a constant."""
    old_kappas: Tensor | None = None
    """float `(..., B, T)`: κ = Σ_v q_v²(H_old + log q_v) over the vocabulary when the token was sampled."""
    sampler_log_probs: Tensor | None = None
    """float `(..., B, T)`: what the sampler itself reported, where it differs from `old_log_probs`."""
    ref_log_probs: Tensor | None = None
    """float `(..., B, T)`: log-probability under a frozen reference policy."""
    groups: Tensor | None = None
    """int64 `(..., B)`: the prompt that each response answers; `None`: all answer the same one."""
    token_count: Tensor | int | None = None
    """Response tokens in the whole optimiser step; `None`: those of this batch. A number or `(...,)`."""
    sequence_count: Tensor | int | None = None
    """Non-empty responses in the whole optimiser step; `None`: those of this batch. A number or `(...,)`."""

    def __post_init__(self) -> None:
        self._check_mask()
        mask = ResponseMask(self.mask, _wide(self.log_probs.dtype))
        self._check_step(mask)
        given = {name: getattr(self, name) for name in _OF_TOKENS}
        given["advantages"], per_response = _per_token(_one_or_each(self.advantages, self.mask), mask)
        checked = {
            name: None if value is None and name in _OPTIONAL else _checked(name, value, mask)
            for name, value in given.items()
        }
        self._assemble(mask, checked, {name: getattr(self, name) for name in _OF_STEP}, per_response)

    @classmethod
    def trusted(cls, *, like: TokenBatch | None = None, **fields: Any) -> TokenBatch:
        """A batch of tensors that a program made itself and knows to be right; nothing is checked.

        Tensors are float `(..., B, T)` and finite under the mask, `mask` is bool and marks a token of every batch;
        `advantages` may be `(..., B)`. Masked positions may hold anything.

        Args:
            like: an earlier batch of the same dtype. Where its mask is the very same tensor, what was found out about
                it is taken over instead of being computed again.
            fields: those of the class.
        """
        tokens = fields["mask"]
        if like is not None and like.rollout.mask.tokens is tokens:
            mask = like.rollout.mask
        else:
            mask = ResponseMask(tokens, fields["log_probs"].dtype)
        given = {name: fields.get(name) for name in _OF_TOKENS}
        given["advantages"], per_response = _per_token(fields["advantages"], mask)
        if mask.has_padding:
            given = {name: None if value is None else mask.keep(value) for name, value in given.items()}
        batch = object.__new__(cls)
        batch._assemble(mask, given, {name: fields.get(name) for name in _OF_STEP}, per_response)
        return batch

    def _assemble(
        self, mask: ResponseMask, tokens: dict[str, Any], of_step: dict[str, Any], per_response: Tensor | None
    ) -> None:
        """The last step of a construction: the fields, and the object that owns what they share."""
        policy = {name: tokens.pop(name) for name in _OF_POLICY}
        self._become(Rollout(mask, tokens, of_step, response_advantages=per_response), policy)

    def _become(self, rollout: Rollout, policy: dict[str, Any]) -> None:
        # A view among the fields of the policy is one that masks or keeps; the plain one is made when it is needed.
        own = self.__dict__
        own.update(rollout.fields)
        own.update(policy)
        own["_rollout"] = rollout

    def _under(self, rollout: Rollout, policy: dict[str, Any]) -> TokenBatch:
        batch = object.__new__(type(self))
        batch._become(rollout, policy)
        return batch

    # -- derived quantities: one definition each -------------------------------------------------------------

    @property
    def rollout(self) -> Rollout:
        """The sampled tokens without the current policy, shared by all batches that differ in that alone."""
        found: Rollout = self.__dict__["_rollout"]
        return found

    @cached_property
    def _view(self) -> PolicyView:
        return PolicyView(self.rollout, self.__dict__["log_probs"], masked=True, keeps=False)

    def __getattr__(self, name: str) -> Tensor:
        # Where `with_current` left the masking to whoever reads the log-probabilities.
        if name != "log_probs" or "_view" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return self._view.log_probs

    @property
    def log_ratio(self) -> Tensor:
        """Z = log p - log q, clamped to ±20; `(..., B, T)`, differentiable, zero gradient beyond the clamp."""
        return self._view.log_ratio

    @property
    def unclamped_log_ratio(self) -> Tensor:
        """Z = log p - log q as it is; `(..., B, T)`, differentiable, 0 where masked.

        For the mean or sum of a response, which is clamped as a whole: clamping its tokens would change it.
        """
        return self._view.unclamped_log_ratio

    @property
    def ratio(self) -> Tensor:
        """R = p / q = exp(z); `(..., B, T)`, 1 where masked."""
        return self._view.ratio

    def ratio_and_difference(self) -> tuple[Tensor, Tensor]:
        """The ratio, and log p - log q before the clamp, for `gradient_through_clamp`; `(..., B, T)` each."""
        difference = self.log_probs - self.old_log_probs
        return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp_(), difference

    @property
    def opposite_advantages(self) -> Tensor:
        """-A, `(..., B, T)`; one tensor for all policies that read these tokens, not to be changed."""
        return self.rollout.opposite_advantages

    @property
    def response_advantages(self) -> Tensor | None:
        """A_i, `(..., B, 1)`, where one value per response was given; `None` where each token has its own."""
        return self.rollout.response_advantages

    @property
    def lengths(self) -> Tensor:
        """n_i: response tokens of each sequence; float `(..., B)`, 0 for an empty response."""
        return self.rollout.mask.lengths

    @property
    def width(self) -> int:
        """Columns up to the last response token of any sequence; columns beyond it are padding everywhere."""
        return self.rollout.mask.width

    @property
    def padded_width(self) -> int:
        """Columns as the caller gave them, also of what `trimmed` returns."""
        return self.rollout.padded_width

    def total_tokens(self) -> Tensor:
        """N: the denominator of a token mean; `token_count` where given; float `(...,)`."""
        return _count(self.token_count, self.rollout.mask.total_tokens)

    def total_sequences(self) -> Tensor:
        """The denominator of a sequence mean: non-empty responses, or `sequence_count` where given; float `(...,)`."""
        return _count(self.sequence_count, self.rollout.mask.total_sequences)

    def sequence_mean(self, values: Tensor) -> Tensor:
        """(1/n_i) Σ_t m·v; `(..., B, 1)`, 0 for an empty response. `values` must be 0 where masked."""
        return values.sum(-1, keepdim=True) / self.rollout.mask.divisors

    def at_response_tokens(self, values: Tensor) -> Tensor:
        """One value per response, `(..., B, 1)`, at each of its tokens; `(..., B, T)`, 0 where masked."""
        return self.rollout.mask.spread(values)

    def require(self, *names: str, reason: str) -> tuple[Tensor, ...]:
        """The optional fields of these names.

        Raises:
            BatchError: some are absent; the message names them and why they are needed.
        """
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise BatchError(
                f"{' and '.join(missing)} missing from the batch; {reason}. "
                f"Pass {', '.join(f'{name}=(..., B, T)' for name in missing)} to TokenBatch"
            )
        return tuple(getattr(self, name) for name in names)

    # -- the same tokens in an inner loop --------------------------------------------------------------------

    def prepared(self) -> TokenBatch:
        """Itself, with everything found out that does not depend on the current policy: a compiler needs that."""
        self.rollout.prepare()
        return self

    def with_current(
        self, log_probs: Tensor, entropies: Tensor | None = None, kappas: Tensor | None = None
    ) -> TokenBatch:
        """The same sampled tokens under another current policy, without validating again.

        This is what an inner training loop changes; the caller vouches for shape and dtype. What is not given stays.
        """
        rollout = self.rollout
        mask = rollout.mask
        policy: dict[str, Any] = {
            "entropies": self.entropies if entropies is None else mask.keep(entropies),
            "kappas": self.kappas if kappas is None else mask.keep(kappas),
        }
        if mask.has_padding and not torch.compiler.is_compiling():
            policy["_view"] = PolicyView(rollout, log_probs, masked=False, keeps=False)
        else:
            policy["log_probs"] = mask.keep(log_probs)
        return self._under(rollout, policy)

    def trimmed(self) -> TokenBatch:
        """The batch without the columns that are padding in every sequence, for one evaluation.

        Sums over it are bitwise independent of how far a collator padded. Ratios are computed once and kept, with
        their graph: it serves one backward pass, so take a new one for the next.
        """
        rollout = self.rollout.trimmed
        of_policy = {"entropies": self.entropies, "kappas": self.kappas}
        if rollout is not self.rollout:
            width = rollout.mask.tokens.shape[-1]
            of_policy = {name: None if value is None else value[..., :width] for name, value in of_policy.items()}
        return self._under(rollout, {**of_policy, "_view": self._view.trimmed()})

    # -- validation ------------------------------------------------------------------------------------------

    def _check_mask(self) -> None:
        log_probs, mask = self.log_probs, self.mask
        if not isinstance(log_probs, Tensor) or log_probs.dim() < 2 or not log_probs.is_floating_point():
            raise BatchError(
                f"log_probs is {_describe(log_probs)}; expected a floating-point tensor (..., B, T): "
                "sequences by token positions, after any replica dimensions"
            )
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise BatchError(
                f"mask is {_describe(mask)}; expected a bool tensor (..., B, T), True on response tokens. "
                "Convert a 0/1 mask with mask.bool()"
            )
        if mask.shape != log_probs.shape:
            raise BatchError(
                f"mask has shape {tuple(mask.shape)}; expected {tuple(log_probs.shape)} as log_probs (..., B, T)"
            )

    def _check_step(self, mask: ResponseMask) -> None:
        _check_groups(self.groups, self.mask.shape[:-1])
        for name in ("token_count", "sequence_count"):
            _check_count(name, getattr(self, name), self.log_probs.shape[:-2])
        counted_elsewhere = self.token_count is not None and self.sequence_count is not None
        if not counted_elsewhere and not bool((mask.counts.sum(-1) > 0).all()):
            raise BatchError(
                "mask marks no response token in at least one batch; a mean over nothing is not 0. "
                "Drop the batch, or pass token_count and sequence_count of the whole optimiser step"
            )


def _one_or_each(advantages: Any, tokens: Tensor) -> Any:
    """Advantages that are one per response or look like one per token, in single precision or wider."""
    if not isinstance(advantages, Tensor) or advantages.dim() != tokens.dim() - 1:
        return advantages
    if advantages.shape != tokens.shape[:-1]:
        raise BatchError(
            f"advantages has shape {tuple(advantages.shape)}; expected {tuple(tokens.shape[:-1])} (one value per "
            f"response) or {tuple(tokens.shape)} (one per token)"
        )
    _check_floating("advantages", advantages)
    return _widened(advantages).detach()


def _per_token(advantages: Any, mask: ResponseMask) -> tuple[Any, Tensor | None]:
    """Advantages `(..., B, T)`, and `(..., B, 1)` where they were given as one per response."""
    if not isinstance(advantages, Tensor) or advantages.dim() != mask.tokens.dim() - 1:
        return advantages, None
    # An empty response may have any advantage, NaN included.
    known = advantages.where(mask.lengths > 0, 0) if mask.has_padding else advantages
    per_response = known.unsqueeze(-1)
    return per_response.expand_as(mask.tokens), per_response


def _checked(name: str, value: Any, mask: ResponseMask) -> Tensor:
    expected = mask.tokens.shape
    _check_floating(name, value)
    if value.shape != expected:
        raise BatchError(
            f"{name} has shape {tuple(value.shape)}; expected {tuple(expected)} as log_probs (..., B, T). "
            "Are the tokens shifted by one, or the prompt still attached?"
        )
    value = _widened(value)
    if name not in _DIFFERENTIATED:
        value = value.detach()
    kept = mask.keep(value)
    # One infinity or NaN makes a sum infinite or NaN. Finite numbers can overflow it, hence the second look.
    plain = kept.detach()
    if not bool(plain.sum().isfinite()) and not bool(plain.isfinite().all()):
        raise BatchError(
            f"{name} holds NaN or infinity at a response token; expected finite numbers. "
            "Look for log(0), or for positions the mask should exclude"
        )
    return kept


def _check_floating(name: str, value: Any) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise BatchError(f"{name} is {_describe(value)}; expected a floating-point tensor (..., B, T)")


def _check_groups(groups: Any, expected: torch.Size) -> None:
    if groups is None:
        return
    whole = isinstance(groups, Tensor) and not (groups.is_floating_point() or groups.dtype == torch.bool)
    if not whole or not _broadcasts(groups.shape, expected) or groups.shape[-1:] != expected[-1:]:
        raise BatchError(
            f"groups is {_describe(groups)}; expected integers {tuple(expected)}, one per response: "
            "the prompt it answers"
        )


def _check_count(name: str, value: Any, replicas: torch.Size) -> None:
    if value is None:
        return
    if not isinstance(value, Tensor | int | float) or isinstance(value, bool):
        raise BatchError(f"{name} is {value!r}; expected a number, or one per replica as a tensor {tuple(replicas)}")
    count = torch.as_tensor(value)
    if not _broadcasts(count.shape, replicas):
        raise BatchError(
            f"{name} has shape {tuple(count.shape)}; expected a number, or one per replica, {tuple(replicas)}"
        )
    if not bool(((count > 0) & count.isfinite()).all()):
        raise BatchError(
            f"{name} is {count.tolist()}; expected what the whole optimiser step has, at least 1: it is a divisor. "
            "Skip a step without responses"
        )


def _count(given: Tensor | float | None, own: Tensor) -> Tensor:
    if given is None:
        return own
    if isinstance(given, Tensor):
        return given.to(own)
    return torch.full_like(own, given)


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    return len(shape) <= len(target) and all(
        size in (1, wanted) for size, wanted in zip(reversed(shape), reversed(target), strict=False)
    )


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _widened(values: Tensor) -> Tensor:
    return values.to(_wide(values.dtype))


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
