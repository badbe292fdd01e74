"""Groups without a gradient: how often they occur, what resampling costs, and what remembered rewards recover.

A binary reward with success probability p leaves a group of G without variance with probability p^G +
(1-p)^G.

* Group standardisation uses the rest: 1 - p^G - (1-p)^G.
* Resampling a prompt until its group is mixed costs 1/(1 - p^G - (1-p)^G) groups per group kept, the mean of
  a geometric variable; drawing other prompts from the pool instead costs 1/E_p[1 - p^G - (1-p)^G].
* DCPO's smooth standardisation at the i-th visit has a non-zero advantage unless all iG rewards so far agree:
  1 - p^{iG} - (1-p)^{iG} at constant p. Within a group that agrees, the blend is A_total/i, which fades like
  1/i.

For a pool with p ~ Beta(a, b), E[p^n + (1-p)^n] = [B(a+n, b) + B(a, b+n)]/B(a, b), with n = iG.
"""

from __future__ import annotations

import itertools

import numpy as np
import scipy
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln

from analysis.theory._prediction import Measurement, Prediction, register
from testbed.advantages import SmoothStandardisation, group_standardised
from testbed.errors import ConfigError

__all__ = ["mixed_share", "pool_mixed_share", "pool_resampling_cost", "resampling_cost"]

FloatArray = NDArray[np.float64]


def mixed_share(success: ArrayLike, group_size: int, visits: int = 1) -> FloatArray:
    """1 - p^{iG} - (1-p)^{iG}: share of groups with a non-zero advantage, any shape of p.

    Args:
        success: p in [0, 1].
        group_size: G.
        visits: i; 1 is plain group standardisation, more is DCPO's at its i-th visit.

    >>> float(mixed_share(0.5, 2)), float(mixed_share(0.5, 2, visits=2))
    (0.5, 0.875)
    """
    p, count = np.asarray(success, dtype=np.float64), _count(group_size, visits)
    return np.asarray(1 - p**count - (1 - p) ** count)


def resampling_cost(success: ArrayLike, group_size: int) -> FloatArray:
    """1/(1 - p^G - (1-p)^G): groups sampled per group kept for one prompt; infinite at p = 0 and 1.

    >>> float(resampling_cost(0.5, 2))
    2.0
    """
    with np.errstate(divide="ignore"):
        return np.asarray(1 / mixed_share(success, group_size))


def pool_mixed_share(a: float, b: float, group_size: int, visits: int = 1) -> float:
    """E[1 - p^{iG} - (1-p)^{iG}] over a pool of prompts with p ~ Beta(a, b).

    >>> round(pool_mixed_share(1.0, 1.0, 16), 6)  # 1 - 2/17
    0.882353
    """
    count = _count(group_size, visits)
    whole = betaln(a, b)
    return float(1 - np.exp(betaln(a + count, b) - whole) - np.exp(betaln(a, b + count) - whole))


def pool_resampling_cost(a: float, b: float, group_size: int) -> float:
    """1/E[1 - p^G - (1-p)^G]: groups per group kept if a degenerate one is replaced by another prompt's.

    >>> round(pool_resampling_cost(1.0, 1.0, 16), 6)  # 17/15
    1.133333
    """
    return 1 / pool_mixed_share(a, b, group_size)


def _count(group_size: int, visits: int) -> int:
    if group_size < 2 or visits < 1:
        raise ConfigError(f"group_size {group_size} and visits {visits}; expected at least 2 responses and 1 visit")
    return group_size * visits


# -- predictions ---------------------------------------------------------------------------------------------

_SUCCESS = np.array([0.01, 0.2, 0.5, 0.9])
_POOLS = ((0.5, 0.5), (1.0, 1.0), (0.3, 0.3), (0.3, 1.0))


def _enumerated_shares(visits: int, group_size: int = 4) -> FloatArray:
    """Share of non-zero advantages at the last visit, summed over all 2^{iG} histories, `(success,)`."""
    histories = torch.tensor(
        list(itertools.product((0.0, 1.0), repeat=visits * group_size)), dtype=torch.float64
    ).reshape(-1, visits, group_size)
    if visits == 1:
        values = group_standardised(histories)[:, 0]
    else:
        estimator = SmoothStandardisation()
        for visit in range(visits):
            values = estimator(histories[:, visit])
    successes = histories.sum((1, 2)).numpy()[:, None]
    failures = visits * group_size - successes
    weight = _SUCCESS**successes * (1 - _SUCCESS) ** failures
    # Rounding in the stored moments leaves a few 1e-16; the smallest true advantage here is above 0.1.
    used = (values.abs() > 1e-6).double().mean(-1).numpy()
    return np.asarray((weight * used[:, None]).sum(0))


def _simulated_cost() -> Measurement:
    """Groups drawn until one is mixed, 20 000 times per probability; and from pools, by a ratio of counts."""
    generator, size, repeats = np.random.default_rng(0), 8, 20_000
    values, errors = [], []
    for p in (0.1, 0.3, 0.5):
        drawn = np.ones(repeats)
        waiting = np.arange(repeats)
        while waiting.size:
            wins = generator.binomial(size, p, size=waiting.size)
            waiting = waiting[(wins == 0) | (wins == size)]
            drawn[waiting] += 1
        values.append(drawn.mean())
        errors.append(drawn.std(ddof=1) / np.sqrt(repeats))
    for a, b in _POOLS:
        wins = generator.binomial(size, generator.beta(a, b, size=10 * repeats))
        mixed = ((wins > 0) & (wins < size)).mean()
        values.append(1 / mixed)
        errors.append(np.sqrt((1 - mixed) / mixed / wins.size) / mixed)
    return Measurement(values, errors)


def _integrated_share(a: float, b: float, visits: int) -> float:
    """The pool's expectation by quadrature in the quantile of p, which has no end-point singularity."""
    return float(
        scipy.integrate.quad(
            lambda quantile: float(mixed_share(scipy.stats.beta.ppf(quantile, a, b), 16, visits)),
            0,
            1,
            epsabs=1e-10,
            limit=400,
        )[0]
    )


register(
    Prediction(
        id="T11",
        name="mixed-share",
        statement="A visit has a non-zero advantage with probability 1 - p^{iG} - (1-p)^{iG}; i = 1 without memory.",
        route="sum over all reward histories (2^12), with the shipped estimators",
        unit="share of responses",
        tolerance=1e-12,
        predict=lambda: [mixed_share(_SUCCESS, 4, visits) for visits in (1, 2, 3)],
        measure=lambda: [_enumerated_shares(visits) for visits in (1, 2, 3)],
    )
)
register(
    Prediction(
        id="T11",
        name="pool-share",
        statement="Over a Beta(a, b) pool the shares are ratios of beta functions.",
        route="adaptive quadrature over the quantiles of p, four pools, visits 1, 2 and 5",
        unit="share of responses",
        tolerance=1e-8,
        predict=lambda: [[pool_mixed_share(a, b, 16, visits) for visits in (1, 2, 5)] for a, b in _POOLS],
        measure=lambda: [[_integrated_share(a, b, visits) for visits in (1, 2, 5)] for a, b in _POOLS],
    )
)
register(
    Prediction(
        id="T11",
        name="resampling-cost",
        statement="Dynamic sampling draws 1/(1 - p^G - (1-p)^G) groups per group kept, 1/E[...] from a pool.",
        route="simulation of the drawing, G = 8, three probabilities and four pools",
        unit="groups",
        # Seven comparisons: beyond 3.7 standard errors with probability 0.0015.
        tolerance=3.7,
        scale="standard errors",
        predict=lambda: [
            *(float(resampling_cost(p, 8)) for p in (0.1, 0.3, 0.5)),
            *(pool_resampling_cost(a, b, 8) for a, b in _POOLS),
        ],
        measure=_simulated_cost,
    )
)
