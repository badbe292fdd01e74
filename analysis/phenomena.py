"""Did entropy collapse, did it explode, did the policy drift: when, in which seeds, and was it asked for?

Every detector reads exact curves, float `(steps, seeds)` with the policy of the start in the first row, and returns an
`Onset` per seed, right-censored where nothing happened, ready for `analysis.statistics.survival`. Movement alone is
never a fault. It is compared with what the optimum asks for, or with the return it bought:

    collapse              entropy is gone that neither the optimum nor the unsolved part of the task asks to give up
    convergence           entropy is gone because the task asks for it; no run does both
    explosion             entropy rises and the return does not
    trust-region drift    every step leaves the trust region and the return does not rise
    cumulative drift      the path is long and the return does not rise
    wasted drift          divergence from the reference beyond the least one that buys this success

`regret` is the greatest return minus the return, in units of reward. "Did not rise" means that less than a share
`gain` of the start's regret was removed. An event counts if it lasts `lasting` records; its onset is the first of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from analysis.trajectories import Trajectories
from testbed.errors import ConfigError

__all__ = [
    "Onset",
    "Reach",
    "clip_reach",
    "cumulative_drift",
    "detect",
    "entropy_collapse",
    "entropy_convergence",
    "entropy_explosion",
    "trust_region_drift",
    "wasted_drift",
]

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

ROUNDING = 1e-5
"""What a return may wander by where all policies are equally good, in units of reward: the probabilities of a policy in
float32 miss a sum of one by about 1e-7 a token."""


class Onset(NamedTuple):
    """When something first happened in each seed; `survival(*onset)` estimates the waiting time.

    Attributes:
        times: float64 `(seeds,)`, the step of the onset, or the last step of a run in which it never happened.
        observed: bool `(seeds,)`, False where it never happened.
    """

    times: Array
    observed: Flags


class Reach(NamedTuple):
    """How far one update may move a distribution.

    Attributes:
        tv: total variation, in [0, 1].
        kl: KL(old ‖ new), nats a token.
    """

    tv: float
    kl: float


# -- entropy -----------------------------------------------------------------------------------------------------


def entropy_collapse(
    entropy: ArrayLike,
    regret: ArrayLike,
    optimal_entropy: ArrayLike,
    *,
    steps: ArrayLike | None = None,
    kept: float = 0.1,
    lasting: int = 3,
) -> Onset:
    """The first step at which entropy is gone that the task did not ask for.

        H(t) < kept · [min(H₀, H*) + max(H₀ - H*, 0) · u(t)],      u(t) = regret(t) / regret(0), at most 1

    The bracket is the entropy of a policy that starts at H₀, plays the most random optimum on the solved share 1 - u
    of the task and still plays the start on the rest. So a run may lose everything where H* = 0 and the task is
    solved (Copy), but not what the optimum leaves free (modular sum, the null bandit), and not before it has solved
    anything (lock-in on a wrong answer).

    Args:
        entropy: H, nats a response, `(steps, seeds)`.
        regret: in units of reward, `(steps, seeds)`.
        optimal_entropy: H*, that of `envs.exact.maximum_entropy_optimum`, nats a response, one number or `(seeds,)`.
        steps: number of each row, `(steps,)`; None: 0, 1, 2, ….
        kept: share of the bracket below which it is a collapse. The default asks for nearly all of it: a hundred
            equal choices become fewer than two (e^(0.1·log 100) = 1.6). It cannot be much larger: a policy that solves
            a sequence token by token is more certain than one that solves it prompt by prompt, and on 32 tokens out
            of 16 keeps as little as 0.11 of the bracket on its way to a single right response.
        lasting: records it must last. One is a step that went wrong and was taken back; three are a state.

    Raises:
        ConfigError: a curve has another shape, holds NaN, or a threshold is out of range.

    >>> solved, stuck = [1.0, 0.5, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]
    >>> both = [[2.0, 2.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]  # the same fall of entropy, with H* = 0
    >>> entropy_collapse(both, np.transpose([solved, stuck]), 0.0, lasting=2)
    Onset(times=array([3., 2.]), observed=array([False,  True]))
    """
    numbers, (entropies, regrets) = _curves(steps, entropy=entropy, regret=regret)
    _, needless = _collapsed(entropies, regrets, optimal_entropy, kept)
    return _onset(needless, numbers, lasting)


def entropy_convergence(
    entropy: ArrayLike,
    regret: ArrayLike,
    optimal_entropy: ArrayLike,
    *,
    steps: ArrayLike | None = None,
    kept: float = 0.1,
    lasting: int = 3,
) -> Onset:
    """The first step at which the entropy of the start is gone and rightly so: the collapse a solved Copy shows.

        H(t) < kept · H₀, in a run without an `entropy_collapse`

    Args and Raises: as `entropy_collapse`.

    >>> curves = [[2.0], [1.0], [0.0], [0.0]], [[1.0], [0.5], [0.0], [0.0]]
    >>> entropy_convergence(*curves, 0.0, lasting=2)
    Onset(times=array([2.]), observed=array([ True]))
    """
    numbers, (entropies, regrets) = _curves(steps, entropy=entropy, regret=regret)
    low, needless = _collapsed(entropies, regrets, optimal_entropy, kept)
    # A run on its way to a collapse passes through levels that would have been right to stop at.
    collapsed = _onset(needless, numbers, lasting).observed
    return _onset(low & ~collapsed, numbers, lasting)


def _collapsed(entropy: Array, regret: Array, optimal_entropy: ArrayLike, kept: float) -> tuple[Flags, Flags]:
    """Where entropy is low at all, and where it is lower than it had to be."""
    _within("kept", kept, 1.0)
    optimal = np.asarray(optimal_entropy, dtype=np.float64)
    if optimal.shape not in ((), entropy.shape[1:]) or not (np.isfinite(optimal) & (optimal >= -ROUNDING)).all():
        raise ConfigError(
            f"optimal_entropy has shape {optimal.shape} and values {optimal.ravel()[:4].tolist()}; expected one number "
            f"of nats of at least 0, or one for each of the {entropy.shape[1]} seeds"
        )
    start = entropy[0]
    unsolved = np.clip(regret / np.maximum(regret[0], ROUNDING), 0, 1)
    needed = np.minimum(start, optimal) + np.maximum(start - optimal, 0) * unsolved
    return entropy < kept * start, entropy < kept * needed


def entropy_explosion(
    entropy: ArrayLike,
    regret: ArrayLike,
    *,
    steps: ArrayLike | None = None,
    rise: float = 0.5,
    gain: float = 0.05,
    lasting: int = 3,
) -> Onset:
    """The first step by which entropy has risen since some earlier one and the return has not.

        H(t) - H(s) > rise · H₀  and  regret(s) - regret(t) ≤ gain · regret(0)      for some s < t

    Any earlier step will do, so a rise after a fall counts as well. Where every policy is optimal, as on the null
    bandit, any such rise is one: nothing paid for it.

    Args:
        entropy: nats a response, `(steps, seeds)`.
        regret: in units of reward, `(steps, seeds)`.
        steps: number of each row, `(steps,)`; None: 0, 1, 2, ….
        rise: share of the start's entropy. Half of it is far outside what the curve does by chance, and small beside
            what is left above a peaked start: that of the null bandit could rise sixfold.
        gain: share of the start's regret that the rise may remove and still have bought nothing. Discovery costs
            entropy too, but then the return follows.
        lasting: records it must last; see `entropy_collapse`.

    Raises:
        ConfigError: a curve has another shape, holds NaN, or a threshold is out of range.

    >>> entropy = [[1.0, 1.0], [1.4, 1.4], [1.8, 1.8], [2.0, 2.0]]
    >>> regret = [[0.8, 0.8], [0.8, 0.6], [0.9, 0.4], [0.9, 0.3]]  # the second seed found something
    >>> entropy_explosion(entropy, regret, lasting=2)
    Onset(times=array([2., 3.]), observed=array([ True, False]))
    """
    _within("rise", rise, math.inf)
    numbers, (entropies, regrets) = _curves(steps, entropy=entropy, regret=regret)
    return _onset(_in_vain(entropies, regrets, rise * entropies[0], gain), numbers, lasting)


# -- drift -------------------------------------------------------------------------------------------------------


def clip_reach(clip_low: float = 0.2, clip_high: float = 0.2) -> Reach:
    """How far a distribution gets if the ratio of *every* token stays in [1 - clip_low, 1 + clip_high].

        sup TV = l h / (l + h),      sup KL(old ‖ new) = -[h log(1 - l) + l log(1 + h)] / (l + h)

    Ratios have mean 1 under the old policy and both divergences are means of convex functions of the ratio, so the
    worst case has ratios at the two ends only, a mass h/(l+h) of them at 1 - l. A clip sees the sampled tokens alone;
    beyond this bound the others have moved.

    Raises:
        ConfigError: an offset is not positive, or clip_low is not below 1.

    >>> reach = clip_reach(0.2, 0.2)
    >>> round(reach.tv, 12), round(reach.kl, 6)  # ε/2 and -½ log(1 - ε²)
    (0.1, 0.020411)
    """
    _within("clip_low", clip_low, 1.0)
    _within("clip_high", clip_high, math.inf)
    total = clip_low + clip_high
    kl = -(clip_high * math.log1p(-clip_low) + clip_low * math.log1p(clip_high)) / total
    return Reach(clip_low * clip_high / total, kl)


def trust_region_drift(
    divergence: ArrayLike,
    regret: ArrayLike,
    *,
    steps: ArrayLike | None = None,
    bound: float = 0.1,
    gain: float = 0.05,
    lasting: int = 3,
) -> Onset:
    """The first of several steps in a row that leave the trust region while the return does not rise.

        divergence(i) > bound for `lasting` records i,  and over all of them together
        regret before - regret after ≤ gain · regret(0)

    Args:
        divergence: of each step from the one before, `(steps, seeds)`, such as `exact/tv_step` or `exact/kl_step`;
            the first row has no step before it and is not read.
        regret: in units of reward, `(steps, seeds)`.
        steps: number of each row, `(steps,)`; None: 0, 1, 2, ….
        bound: in the unit of the divergence. The default is `clip_reach(0.2, 0.2).tv`: total variation per token that
            a clip of 0.2 allows if it holds for every token. For KL pass `clip_reach(…).kl` times the tokens of a
            response.
        gain: share of the start's regret these steps may remove and still have bought nothing.
        lasting: records it must last; 1 judges every step by itself.

    Raises:
        ConfigError: a curve has another shape, holds NaN, or a threshold is out of range.

    >>> divergence = [[np.nan, np.nan], [0.3, 0.3], [0.3, 0.3], [0.0, 0.0]]
    >>> regret = [[0.5, 0.5], [0.5, 0.3], [0.6, 0.1], [0.6, 0.1]]  # the second seed moved as far, and learned
    >>> trust_region_drift(divergence, regret, lasting=2)
    Onset(times=array([1., 3.]), observed=array([ True, False]))
    """
    _within("bound", bound, math.inf)
    numbers, (moved, regrets) = _curves(steps, divergence=_from_start(divergence), regret=regret)
    beyond = _stretches(moved > bound, lasting)[1:]
    bought = regrets[:-lasting] - regrets[lasting:]
    # No stretch begins with the start.
    starts = np.concatenate([np.zeros_like(moved[:1], dtype=bool), beyond & (bought <= _limit(regrets, gain))])
    return _first(starts, numbers)


def cumulative_drift(
    divergence: ArrayLike,
    regret: ArrayLike,
    *,
    steps: ArrayLike | None = None,
    bound: float = 1.0,
    gain: float = 0.05,
    lasting: int = 3,
) -> Onset:
    """The first step by which a long path has been walked since some earlier one and the return has not risen.

        Σ_{s<i≤t} divergence(i) > bound  and  regret(s) - regret(t) ≤ gain · regret(0)      for some s < t

    Finds what no single step shows: a random walk inside the trust region.

    Args:
        divergence: of each step from the one before, `(steps, seeds)`, such as `exact/tv_step`; every step must be
            recorded. The first row is not read.
        regret: in units of reward, `(steps, seeds)`.
        steps: number of each row, `(steps,)`; None: 0, 1, 2, ….
        bound: length of the path in the unit of the divergence. Total variation is a distance of at most 1, so the
            default is a path that could have led from any policy to any other.
        gain: share of the start's regret the path may remove and still have bought nothing.
        lasting: records it must last; see `entropy_collapse`.

    Raises:
        ConfigError: a curve has another shape, holds NaN, steps were left out, or a threshold is out of range.

    >>> divergence, regret = [[np.nan], [0.5], [0.5], [0.5], [0.5]], [[0.4]] * 5
    >>> cumulative_drift(divergence, regret, bound=0.9, lasting=1)
    Onset(times=array([2.]), observed=array([ True]))
    """
    _within("bound", bound, math.inf)
    numbers, (moved, regrets) = _curves(steps, divergence=_from_start(divergence), regret=regret)
    if (np.diff(numbers) != 1).any():
        raise ConfigError(
            "cumulative_drift: steps are missing between the records, so the length of the path is unknown; "
            "record every step (metrics_every=1)"
        )
    return _onset(_in_vain(moved.cumsum(0), regrets, np.float64(bound), gain), numbers, lasting)


def wasted_drift(
    wasted: ArrayLike, *, steps: ArrayLike | None = None, bound: float = math.log(2), lasting: int = 3
) -> Onset:
    """The first step at which the divergence from the reference is far above the least one for its success.

        wasted(t) - wasted(0) > bound,      wasted = KL(π ‖ ref) - kl(p ‖ p₀)

    Args:
        wasted: nats a response, `(steps, seeds)`: `envs.exact.wasted_drift` of the policies, which takes them stacked
            as `(steps, seeds, S, V)` at once.
        steps: number of each row, `(steps,)`; None: 0, 1, 2, ….
        bound: nats. Waste is the KL to the reference within the right responses and within the wrong ones. The
            default is that of a policy which has dropped every other right response.
        lasting: records it must last; see `entropy_collapse`.

    Raises:
        ConfigError: the curve has another shape, holds NaN, or a threshold is out of range.

    >>> wasted_drift([[0.0, 0.0], [0.5, 0.8], [0.6, 0.9]], lasting=2)  # log 2 = 0.69
    Onset(times=array([2., 1.]), observed=array([False,  True]))
    """
    _within("bound", bound, math.inf)
    numbers, (curve,) = _curves(steps, wasted=wasted)
    return _onset(curve - curve[0] > bound, numbers, lasting)


# -- runs --------------------------------------------------------------------------------------------------------


def detect(run: Trajectories, optimal_entropy: ArrayLike) -> dict[str, Onset]:
    """Every phenomenon a run's table can show, with the default thresholds, by the detector's name.

    Drift is read from total variation. `cumulative_drift` needs every step recorded and is left out otherwise;
    `wasted_drift` needs the policies themselves.

    Args:
        run: one objective's trajectories.
        optimal_entropy: `envs.exact.maximum_entropy_optimum(spec).entropy`, one number or `(seeds,)`.

    Raises:
        ConfigError: the run has no exact metrics, or too few records.

    Example:
        >>> from analysis.trajectories import by_objective
        >>> from testbed.simulation import simulate
        >>> run = simulate("ppo", "RareArm-v1(arms=4)", seeds=2, steps=4)
        >>> (found,) = [detect(arm, 0.0) for arm in by_objective(run.table).values()]
        >>> found["entropy_explosion"].observed.any()
        np.False_
    """
    steps, entropy, regret, moved = run.steps, run["exact/entropy"], run["exact/regret"], run["exact/tv_step"]
    found = {
        "entropy_collapse": entropy_collapse(entropy, regret, optimal_entropy, steps=steps),
        "entropy_convergence": entropy_convergence(entropy, regret, optimal_entropy, steps=steps),
        "entropy_explosion": entropy_explosion(entropy, regret, steps=steps),
        "trust_region_drift": trust_region_drift(moved, regret, steps=steps),
    }
    if (np.diff(steps) == 1).all():
        found["cumulative_drift"] = cumulative_drift(moved, regret, steps=steps)
    return found


# -- shared ------------------------------------------------------------------------------------------------------


def _curves(steps: ArrayLike | None, **named: ArrayLike) -> tuple[NDArray[np.int64], list[Array]]:
    """The row numbers and the curves, checked."""
    curves = {name: np.asarray(curve, dtype=np.float64) for name, curve in named.items()}
    shape = next(iter(curves.values())).shape
    for name, curve in curves.items():
        if curve.ndim != 2 or curve.shape != shape or len(curve) < 2 or not curve.shape[1]:
            raise ConfigError(
                f"{name} has shape {curve.shape}; expected (steps, seeds), the start and at least one step, and the "
                "same for every curve"
            )
        if not np.isfinite(curve).all():
            row, seed = np.argwhere(~np.isfinite(curve))[0]
            raise ConfigError(
                f"{name} is {curve[row, seed]} in row {row}, seed {seed}; expected finite numbers. Was it recorded at "
                "every step shown?"
            )
    if "regret" in curves and curves["regret"].min() < -ROUNDING:
        raise ConfigError(
            f"regret is {curves['regret'].min():g} somewhere; expected the greatest return minus the return, never "
            "negative. Is it the return itself?"
        )
    numbers = np.arange(shape[0]) if steps is None else np.asarray(steps)
    if numbers.shape != shape[:1] or numbers[0] < 0 or (np.diff(numbers) <= 0).any():
        raise ConfigError(
            f"steps is {numbers.tolist()[:8]}; expected {shape[0]} numbers in ascending order, one a row, from 0 on"
        )
    return numbers, list(curves.values())


def _from_start(divergence: ArrayLike) -> Array:
    """A curve of divergences from the step before, with 0 for the start, which has none."""
    curve = np.array(divergence, dtype=np.float64)
    if curve.ndim == 2:
        curve[:1] = 0.0
    return curve


def _within(name: str, value: float, below: float) -> None:
    if not 0 < value < below:
        expected = "a positive number" if below == math.inf else f"a number strictly between 0 and {below:g}"
        raise ConfigError(f"{name} is {value!r}; expected {expected}")


def _limit(regret: Array, gain: float) -> Array:
    """The largest return that still counts as nothing, `(seeds,)`."""
    if not 0 <= gain < 1:
        raise ConfigError(f"gain is {gain!r}; expected a share of the start's regret, at least 0 and below 1")
    return np.maximum(gain * regret[0], ROUNDING)


def _in_vain(moved: Array, regret: Array, amount: Array | np.float64, gain: float) -> Flags:
    """Where a curve has risen by more than `amount` since some earlier row and the return has not, `(steps, seeds)`."""
    limit = _limit(regret, gain)
    found = np.zeros(moved.shape, dtype=bool)
    for row in range(1, len(moved)):
        found[row] = ((moved[row] - moved[:row] > amount) & (regret[:row] - regret[row] <= limit)).any(0)
    return found


def _stretches(happening: Flags, lasting: int) -> Flags:
    """Rows from which on it happens `lasting` times in a row, `(steps - lasting + 1, seeds)`."""
    if isinstance(lasting, bool) or not isinstance(lasting, int) or not 1 <= lasting < len(happening):
        raise ConfigError(
            f"lasting is {lasting!r}; expected a whole number from 1 to {len(happening) - 1}, the steps of this run"
        )
    return np.asarray(sliding_window_view(happening, lasting, axis=0).all(-1))


def _onset(happening: Flags, steps: NDArray[np.int64], lasting: int) -> Onset:
    return _first(_stretches(happening, lasting), steps)


def _first(starts: Flags, steps: NDArray[np.int64]) -> Onset:
    observed: Flags = np.asarray(starts.any(0))
    return Onset(np.where(observed, steps[starts.argmax(0)], steps[-1]).astype(np.float64), observed)
