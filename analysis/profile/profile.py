"""A profile: next-token tables at sampled positions, and what is read from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from testbed.errors import ConfigError

__all__ = ["LIKELY", "QUANTILES", "Profile", "read_profile"]

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
LIKELY = (0.8, 0.9, 0.95)
"""Probabilities above which tokens are counted: 1/1.2 lies between the first two, D9 speaks of the second."""
PROBLEMS_HELD_OUT = 5
"""One problem in so many is held out."""


@dataclass(frozen=True)
class Profile:
    """Sampled response tokens, one row each, N in all.

    The probabilities are those of the distribution that the tokens were drawn from, temperature included.
    """

    problem: NDArray[np.int32]
    """`(N,)`, number of the problem."""
    position: NDArray[np.int32]
    """`(N,)`, place in the response, from 0."""
    held_out: NDArray[np.bool_]
    """`(N,)`, whether the position is of a problem that is kept for testing what was fitted to the others."""
    log_prob: NDArray[np.float32]
    """`(N,)`, nats, of the token that was drawn."""
    entropy: NDArray[np.float32]
    """`(N,)`, nats, over the whole vocabulary."""
    tokens: NDArray[np.int32]
    """`(N, K)`, the K likeliest tokens, the likeliest first."""
    log_probs: NDArray[np.float32]
    """`(N, K)`, nats, of those."""
    tail: NDArray[np.float32]
    """`(N,)`, probability of all other tokens together."""
    facts: Mapping[str, Any]
    """Where it comes from: model, task, template, sampling, versions, date."""

    def summary(self) -> dict[str, Any]:
        """Quantiles of probability and entropy, shares of likely tokens, and entropy by position, for JSON."""
        probability = np.exp(self.log_prob.astype(np.float64))
        entropy = self.entropy.astype(np.float64)
        places = range(int(self.position.max()) + 1)
        by_position = [entropy[self.position == place] for place in places]
        return {
            "positions": len(probability),
            "held_out": int(self.held_out.sum()),
            "probability": {
                "mean": float(probability.mean()),
                "quantiles": _quantiles(probability),
                "shares_above": {f"{level:g}": float((probability > level).mean()) for level in LIKELY},
            },
            "entropy": {
                "mean": float(entropy.mean()),
                "quantiles": _quantiles(entropy),
                "by_position": [
                    {"position": place, "tokens": len(values), "mean": float(values.mean())}
                    for place, values in zip(places, by_position, strict=True)
                    if len(values)
                ],
            },
            "tail": {"mean": float(self.tail.mean()), "quantiles": _quantiles(self.tail.astype(np.float64))},
        }

    def write(self, path: Path) -> None:
        """One compressed file of numpy, without pickle."""
        arrays = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "facts"}
        with path.open("wb") as file:
            np.savez_compressed(file, facts=np.array(json.dumps(dict(self.facts))), **arrays)


def read_profile(path: str | Path) -> Profile:
    """A profile from its file.

    Raises:
        ConfigError: it is no profile.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {item.name: content[item.name] for item in fields(Profile) if item.name != "facts"}
            return Profile(**arrays, facts=json.loads(str(content["facts"])))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} is no profile: {error}; expected a file that testbed profile wrote") from error


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    return {
        f"{level:g}": float(number) for level, number in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    }
