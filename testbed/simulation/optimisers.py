"""Gradient steps in which every replica has its own state, learning rate and clipping."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from testbed.registry import Registry

__all__ = ["Optimiser", "clip_by_norm", "gradient_norm", "optimisers"]


class Optimiser(ABC):
    """Changes parameters `(R, …)` in place, replica by replica.

    Args:
        parameters: the tensors to change.
        learning_rate: `(R,)`, or a float for all replicas.
    """

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float | Tensor) -> None:
        self.parameters = list(parameters)
        self.rates = [_per_replica(learning_rate, parameter) for parameter in self.parameters]

    @abstractmethod
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step down `gradients`, each of the shape of its parameter."""


optimisers: Registry[type[Optimiser]] = Registry("optimizer")


@optimisers.register("sgd")
class SGD(Optimiser):
    """θ ← θ - η g.

    Example:
        >>> parameter = torch.tensor([[1.0], [1.0]])
        >>> SGD([parameter], torch.tensor([0.1, 0.5])).step([torch.ones(2, 1)])
        >>> parameter.flatten().tolist()
        [0.8999999761581421, 0.5]
    """

    def step(self, gradients: Sequence[Tensor]) -> None:
        """θ ← θ - η g."""
        for parameter, gradient, rate in zip(self.parameters, gradients, self.rates, strict=True):
            if isinstance(rate, Tensor):
                parameter.sub_(rate * gradient)
            else:
                parameter.sub_(gradient, alpha=rate)


@optimisers.register("adam")
class Adam(Optimiser):
    """θ ← θ - η m̂/(√v̂ + 1e-8), with m, v the running means of g and g² (decay 0.9 and 0.999) freed of their bias.

    Reference: Kingma and Ba, Adam, arXiv 1412.6980, algorithm 1.
    """

    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float | Tensor) -> None:
        super().__init__(parameters, learning_rate)
        self._first = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._second = [torch.zeros_like(parameter) for parameter in self.parameters]
        # As tensors, so that a compiled step is the same program every time; float64, as they approach 0 slowly.
        self._decays = [torch.ones((), dtype=torch.float64, device=self.parameters[0].device) for _ in range(2)]

    def step(self, gradients: Sequence[Tensor]) -> None:
        """One step of Adam."""
        first_scale, second_scale = (
            1 - decay.mul_(beta) for decay, beta in zip(self._decays, (self.beta1, self.beta2), strict=True)
        )
        for parameter, gradient, rate, first, second in zip(
            self.parameters, gradients, self.rates, self._first, self._second, strict=True
        ):
            first.lerp_(gradient, 1 - self.beta1)
            second.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
            denominator = (second / second_scale).sqrt_().add_(self.epsilon)
            parameter.sub_(rate * (first / first_scale) / denominator)


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Euclidean norm over all parameters of a replica, `(R,)`."""
    return torch.stack([gradient.flatten(1).square().sum(-1) for gradient in gradients]).sum(0).sqrt()


def clip_by_norm(gradients: Sequence[Tensor], norm: Tensor, limit: float) -> list[Tensor]:
    """Gradients scaled so that no replica's norm exceeds `limit`; replicas below it are untouched.

    Args:
        gradients: tensors `(R, …)`.
        norm: `(R,)`, their norm.
        limit: largest norm allowed, > 0.
    """
    scale = (limit / norm).clamp(max=1.0).nan_to_num(1.0)
    return [gradient * scale.view(-1, *[1] * (gradient.dim() - 1)) for gradient in gradients]


def _per_replica(value: float | Tensor, parameter: Tensor) -> float | Tensor:
    if isinstance(value, Tensor):
        return value.to(parameter).view(-1, *[1] * (parameter.dim() - 1))
    return value
