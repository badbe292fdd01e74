"""Planted curves with and without each phenomenon, and toy runs known to have it or not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from analysis.phenomena import (
    clip_reach,
    cumulative_drift,
    detect,
    entropy_collapse,
    entropy_convergence,
    entropy_explosion,
    trust_region_drift,
    wasted_drift,
)
from analysis.statistics import survival
from analysis.trajectories import by_objective
from envs import exact, make_spec
from models import Episodes, make_policy
from testbed.errors import ConfigError
from testbed.objectives import make_objective
from testbed.simulation import simulate
from testbed.simulation.settings import Settings
from testbed.simulation.training import Training

LOG100 = math.log(100)


def column(*values):
    """One seed's curve."""
    return np.array(values, dtype=float)[:, None]


def columns(*curves):
    """One curve a seed."""
    return np.array(curves, dtype=float).T


def found(onset):
    """(step, whether it happened) of each seed."""
    return list(zip(onset.times.tolist(), onset.observed.tolist(), strict=True))


# -- collapse ------------------------------------------------------------------------------------------------


def test_collapse_is_judged_against_the_optimum():
    # Three tasks, one entropy curve from log 100 to 0.1 nats, 0.02 of its start. The first is solved and has one right
    # answer. The second is solved and leaves ten answers free: 0.1 < 0.1 · log 10 = 0.23. The third is not solved:
    # 0.1 < 0.1 · log 100.
    entropy = np.repeat(column(LOG100, 3.0, 2.0, 0.1, 0.1, 0.1), 3, axis=1)
    solved, stuck = [0.9, 0.5, 0.1, 0.0, 0.0, 0.0], [0.9] * 6
    regret = columns(solved, solved, stuck)
    optimal = [0.0, math.log(10), 0.0]
    assert found(entropy_collapse(entropy, regret, optimal)) == [(5, False), (3, True), (3, True)]
    assert found(entropy_convergence(entropy, regret, optimal)) == [(3, True), (5, False), (5, False)]


def test_collapse_of_a_start_below_the_optimum_is_measured_from_the_start():
    # H* = log 100 but the run starts with 1 nat: only 0.1 nats of that are a collapse, not 0.1 · log 100 = 0.46.
    entropy = columns([1.0, 0.4, 0.4, 0.4], [1.0, 0.09, 0.09, 0.09])
    assert found(entropy_collapse(entropy, np.zeros((4, 2)), LOG100)) == [(3, False), (1, True)]


def test_collapse_allows_for_the_part_that_is_not_solved():
    # Half of the task is left: a policy like the start's there keeps (1 + 1)/2 · … = ½ · 4 nats, a tenth is 0.2.
    entropy, regret = columns([4.0, 0.21, 0.21, 0.21], [4.0, 0.19, 0.19, 0.19]), column(0.8, 0.4, 0.4, 0.4)
    assert found(entropy_collapse(entropy, np.repeat(regret, 2, 1), 0.0)) == [(3, False), (1, True)]


def test_solving_a_long_sequence_token_by_token_is_no_collapse():
    # 32 tokens out of 16, each right with probability p and otherwise any other: the case the default is drawn for.
    p = np.concatenate([np.linspace(1 / 16, 0.9, 30), 1 - np.logspace(-1, -9, 200)])
    token = -p * np.log(p) - (1 - p) * np.log((1 - p) / 15)
    entropy, regret = 32 * token[:, None], 1 - p[:, None] ** 32
    assert not entropy_collapse(entropy, regret, 0.0).observed.any()
    assert entropy_convergence(entropy, regret, 0.0).observed.all()
    # It is drawn tightly: the least share of the bracket is 0.11.
    assert entropy_collapse(entropy, regret, 0.0, kept=0.12).observed.all()
    assert not entropy_collapse(entropy, regret, 0.0, kept=0.108).observed.any()


def test_collapse_and_convergence_exclude_each_other_on_the_way():
    # H* = log 10. Three records between 0.1 log 10 = 0.23 and 0.1 log 100 = 0.46 are convergence if it ends there.
    way = [LOG100, 2.0, 0.4, 0.4, 0.4]
    entropy = columns([*way, 0.4, 0.4, 0.4], [*way, 0.1, 0.1, 0.1])
    regret = np.zeros_like(entropy)
    assert found(entropy_convergence(entropy, regret, math.log(10))) == [(2, True), (7, False)]
    assert found(entropy_collapse(entropy, regret, math.log(10))) == [(7, False), (5, True)]


@pytest.mark.parametrize(("dip", "observed"), [(2, False), (3, True)])
def test_an_event_lasts(dip, observed):
    entropy = column(*[2.0] * 3, *[0.0] * dip, *[2.0] * 3)
    onset = entropy_collapse(entropy, np.zeros_like(entropy), 2.0)
    assert found(onset) == [(3.0 if observed else len(entropy) - 1, observed)]
    assert entropy_collapse(entropy, np.zeros_like(entropy), 2.0, lasting=dip).observed.all()


def test_a_stretch_that_the_end_cuts_off_is_censored():
    entropy = column(2.0, 2.0, 2.0, 0.0, 0.0)
    assert found(entropy_collapse(entropy, np.zeros_like(entropy), 2.0)) == [(4, False)]


# -- explosion -----------------------------------------------------------------------------------------------


def test_explosion_is_a_rise_without_return():
    # Both double their entropy; the second removes half of the regret meanwhile, the third a twenty-fifth of it.
    entropy = np.repeat(column(1.0, 1.3, 1.6, 1.9, 2.0), 3, axis=1)
    regret = columns([0.8] * 5, np.linspace(0.8, 0.4, 5), np.linspace(0.8, 0.768, 5))
    assert found(entropy_explosion(entropy, regret)) == [(2, True), (4, False), (2, True)]


def test_explosion_after_a_fall():
    # It never exceeds the start's 4 nats, but rises by 2.5 > ½ · 4 from the trough, while the return is lost again.
    entropy, regret = column(4.0, 2.0, 0.5, 2.0, 3.0, 3.0, 3.0), column(0.8, 0.4, 0.2, 0.3, 0.4, 0.4, 0.4)
    assert found(entropy_explosion(entropy, regret)) == [(4, True)]
    # The same fall without the rise.
    assert found(entropy_explosion(entropy[:3], regret[:3], lasting=1)) == [(2, False)]


def test_explosion_where_nothing_can_be_learnt():
    # Regret of a null bandit: rounding, of either sign.
    regret = column(1e-17, -2e-8, 3e-17, -1e-8, 2e-8)
    assert found(entropy_explosion(column(0.7, 0.9, 1.2, 1.2, 1.2), regret)) == [(2, True)]
    assert found(entropy_explosion(column(0.7, 0.8, 0.9, 1.0, 1.0), regret)) == [(4, False)]


# -- drift ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (0.5, 2.0)])
def test_clip_reach_is_the_largest_divergence_of_all_ratios_in_the_interval(low, high):
    # The worst case, built: mass h/(l+h) with ratio 1-l and the rest with 1+h.
    below = high / (low + high)
    old = np.array([below, 1 - below])
    new = old * [1 - low, 1 + high]
    reach = clip_reach(low, high)
    assert new.sum() == pytest.approx(1, abs=1e-15)
    assert reach.tv == pytest.approx(np.abs(new - old).sum() / 2, rel=1e-12)
    assert reach.kl == pytest.approx((old * np.log(old / new)).sum(), rel=1e-12)
    # Nothing else in the interval gets further.
    generator = np.random.default_rng(0)
    old = generator.dirichlet(np.ones(6), size=2000)
    raw = generator.uniform(1 - low, 1 + high, size=old.shape)
    # The heavier side is moved towards 1, so that the mean ratio is 1 and the interval still holds.
    heavy, light = np.maximum(raw - 1, 0), np.maximum(1 - raw, 0)
    up, down = (old * heavy).sum(1), (old * light).sum(1)
    both = (up > 0) & (down > 0)
    old, heavy, light, up, down = old[both], heavy[both], light[both], up[both, None], down[both, None]
    ratio = 1 + heavy * np.minimum(1, down / up) - light * np.minimum(1, up / down)
    new = old * ratio
    np.testing.assert_allclose(new.sum(1), 1, atol=1e-12)
    assert (np.abs(new - old).sum(1) / 2).max() <= reach.tv
    assert (-(old * np.log(ratio)).sum(1)).max() <= reach.kl


def test_drift_in_single_steps():
    nan = np.nan
    # Beyond the bound of 0.1 in steps 2 to 4. Return: unchanged, rising by 0.2, falling; the last stays inside.
    moved = columns(*[[nan, 0.05, 0.3, 0.3, 0.3, 0.05]] * 3, [nan, 0.05, 0.09, 0.09, 0.09, 0.05])
    regret = columns([0.5] * 6, [0.5, 0.5, 0.4, 0.35, 0.3, 0.3], [0.5, 0.5, 0.6, 0.7, 0.8, 0.8], [0.5] * 6)
    assert found(trust_region_drift(moved, regret)) == [(2, True), (5, False), (2, True), (5, False)]
    assert found(trust_region_drift(moved, regret, lasting=4)) == [(5, False)] * 4
    # One step by itself: the second seed's step 2 bought 0.1.
    assert found(trust_region_drift(moved, regret, lasting=1))[1] == (5, False)


def test_drift_can_begin_with_the_first_step():
    moved, regret = column(np.nan, 0.2, 0.2, 0.2), column(0.5, 0.5, 0.5, 0.5)
    assert found(trust_region_drift(moved, regret)) == [(1, True)]
    # The start has no step before it, whatever is written there.
    assert found(trust_region_drift(column(9.0, 0.2, 0.2, 0.0), regret)) == [(3, False)]


def test_a_long_path_in_small_steps():
    # Twenty steps of 0.08, none beyond a bound of 0.1: 13 of them are 1.04 > 1.
    moved = np.repeat(column(np.nan, *[0.08] * 20), 2, axis=1)
    regret = columns([0.5] * 21, np.linspace(0.5, 0.0, 21))
    assert found(cumulative_drift(moved, regret)) == [(13, True), (20, False)]
    assert found(trust_region_drift(moved, regret)) == [(20, False)] * 2


def test_a_path_is_counted_from_any_step():
    # The return rises over the first ten steps and stays for the rest: from step 10 on it takes 13 more.
    moved = column(np.nan, *[0.08] * 30)
    regret = column(*np.linspace(0.5, 0.1, 11), *[0.1] * 20)
    # Four per cent of 0.5 bought in a step exceed 0.025 after one: the path can begin at step 10 at the earliest.
    assert found(cumulative_drift(moved, regret)) == [(23, True)]


def test_waste_is_exact():
    # Four right arms out of eight. Reweighting right against wrong wastes nothing; dropping right arms one by one from
    # a uniform policy wastes log(4/n) with n left.
    spec = make_spec("MultiCorrectBandit-v1", arms=8, contexts=1, fraction=0.5)
    right = spec.success[0].bool()
    reference = torch.full((1, 8), 1 / 8, dtype=torch.float64).log()
    kept = [right, right & (right.cumsum(0) <= 2), right & (right.cumsum(0) <= 1)]
    policies = torch.stack([reference, *[(mask.double() / mask.sum()).log().unsqueeze(0) for mask in kept]])
    wasted = exact.wasted_drift(spec, policies, reference)
    np.testing.assert_allclose(wasted, [0, 0, math.log(2), math.log(4)], rtol=1e-12, atol=1e-12)
    curve = wasted.numpy()[:, None]
    assert found(wasted_drift(curve, bound=0.70, lasting=1)) == [(3, True)]
    assert found(wasted_drift(curve, bound=0.69, lasting=1)) == [(2, True)]
    assert found(wasted_drift(curve[:2], bound=0.01, lasting=1)) == [(1, False)]


# -- shared --------------------------------------------------------------------------------------------------


def test_steps_are_those_of_the_record():
    entropy = column(2.0, 1.0, 0.0, 0.0)
    regret = np.zeros_like(entropy)
    assert found(entropy_collapse(entropy, regret, 2.0, steps=[0, 10, 20, 30], lasting=2)) == [(20, True)]
    assert found(entropy_collapse(entropy[:2], regret[:2], 2.0, steps=[0, 10], lasting=1)) == [(10, False)]


def test_seeds_do_not_touch_each_other():
    generator = np.random.default_rng(0)
    entropy, regret, moved = generator.uniform(0, 3, (30, 20)), generator.uniform(0, 1, (30, 20)), np.ones((30, 20)) / 4
    optimal = generator.uniform(0, 2, 20)
    together = [
        entropy_collapse(entropy, regret, optimal, lasting=1),
        entropy_explosion(entropy, regret, lasting=1),
        trust_region_drift(moved, regret),
        cumulative_drift(moved, regret),
    ]
    for onset in together:
        assert onset.observed.any()
    assert not together[0].observed.all()
    for seed in (0, 7):
        part = slice(seed, seed + 1)
        alone = [
            entropy_collapse(entropy[:, part], regret[:, part], optimal[seed], lasting=1),
            entropy_explosion(entropy[:, part], regret[:, part], lasting=1),
            trust_region_drift(moved[:, part], regret[:, part]),
            cumulative_drift(moved[:, part], regret[:, part]),
        ]
        assert [found(onset)[0] for onset in alone] == [found(onset)[seed] for onset in together]


def test_onsets_feed_survival():
    # Onsets at 1 to 4 and four runs of six steps without one: Kaplan-Meier is the plain share of those left.
    entropy = columns(*[[2.0] * step + [0.0] * (7 - step) for step in (1, 2, 3, 4)], *[[2.0] * 7] * 4)
    onset = entropy_collapse(entropy, np.zeros_like(entropy), 2.0)
    curve = survival(*onset)
    assert curve.events == 4
    assert curve.times.tolist() == [1, 2, 3, 4, 6]
    np.testing.assert_allclose(curve.survival, [7 / 8, 6 / 8, 5 / 8, 4 / 8, 4 / 8], rtol=1e-12)


CURVE = np.ones((4, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: entropy_collapse(CURVE[0], CURVE, 0.0), r"entropy has shape \(2,\); expected \(steps, seeds\)"),
        (lambda: entropy_collapse(CURVE, CURVE[:3], 0.0), r"regret has shape \(3, 2\)"),
        (lambda: entropy_collapse(CURVE * np.nan, CURVE, 0.0), "entropy is nan in row 0, seed 0; expected finite"),
        (lambda: entropy_collapse(CURVE, -CURVE, 0.0), "regret is -1 somewhere; .* Is it the return itself"),
        (lambda: entropy_collapse(CURVE, CURVE, [0.0] * 3), r"optimal_entropy has shape \(3,\)"),
        (lambda: entropy_collapse(CURVE, CURVE, -1.0), "optimal_entropy .* at least 0"),
        (lambda: entropy_collapse(CURVE, CURVE, 0.0, kept=1.0), "kept is 1.0; expected .* between 0 and 1"),
        (lambda: entropy_collapse(CURVE, CURVE, 0.0, steps=[0, 2, 1, 3]), "steps is .* ascending"),
        (lambda: entropy_collapse(CURVE, CURVE, 0.0, lasting=4), "lasting is 4; expected .* from 1 to 3"),
        (lambda: entropy_explosion(CURVE, CURVE, rise=0.0), "rise is 0.0; expected a positive number"),
        (lambda: entropy_explosion(CURVE, CURVE, gain=1.0), "gain is 1.0; expected a share"),
        (lambda: trust_region_drift(CURVE * np.nan, CURVE), "divergence is nan in row 1"),
        (lambda: trust_region_drift(CURVE, CURVE, bound=-1.0), "bound is -1.0"),
        (lambda: cumulative_drift(CURVE, CURVE, steps=[0, 2, 4, 6]), "steps are missing .*metrics_every=1"),
        (lambda: wasted_drift(CURVE[:1]), r"wasted has shape \(1, 2\)"),
        (lambda: clip_reach(1.0, 0.2), "clip_low is 1.0"),
    ],
)
def test_rejects(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


# -- toy runs ------------------------------------------------------------------------------------------------

SEEDS = 6


def detected(env, objectives, **setting):
    """What is found in each objective's run, as the share of seeds."""
    setting = {"group_size": 16, "epochs": 4, "learning_rate": 32.0, "advantage": "group_standardised"} | setting
    run = simulate(objectives, env, seeds=SEEDS, **setting)
    optimal = exact.maximum_entropy_optimum(make_spec(env)).entropy
    return {
        name: {phenomenon: onset.observed.mean() for phenomenon, onset in detect(arm, optimal).items()}
        for name, arm in by_objective(run.table).items()
    }


def test_noise_explodes_a_peaked_policy_if_the_upper_bound_is_wide():
    # Theory M1: with offsets of (½, 2) noise multiplies the tail; with a tight interval it does not.
    shares = detected(
        "NullBandit-v1(initial=peaked)", ["ppo(clip_low=0.5,clip_high=2.0)", "ppo(clip_low=0.02)"], steps=10
    )
    wide, tight = shares.values()
    assert wide["entropy_explosion"] == wide["trust_region_drift"] == 1
    assert tight["entropy_explosion"] == tight["trust_region_drift"] == tight["cumulative_drift"] == 0
    assert wide["entropy_collapse"] == tight["entropy_collapse"] == 0


def test_noise_without_a_clip_collapses_a_spread_policy():
    shares = detected("NullBandit-v1", ["reinforce", "ppo"], steps=40)
    unclipped, clipped = shares.values()
    assert unclipped["entropy_collapse"] == unclipped["trust_region_drift"] == 1
    assert clipped["entropy_collapse"] == 0
    # The random walk of the clipped policy stays inside its clip and goes far all the same.
    assert clipped["cumulative_drift"] == 1
    assert unclipped["entropy_explosion"] == clipped["entropy_explosion"] == 0


def test_copy_converges_and_does_not_collapse():
    ((_, shares),) = detected("Copy-v1(length=2,vocabulary=4,prompts=2)", "reinforce", steps=30).items()
    assert shares["entropy_convergence"] >= 0.8
    assert shares["entropy_collapse"] == shares["entropy_explosion"] == 0
    assert shares["trust_region_drift"] == shares["cumulative_drift"] == 0


def test_the_same_loss_of_entropy_is_a_collapse_where_ten_answers_are_right():
    ((_, shares),) = detected("MultiCorrectBandit-v1", "reinforce", steps=30).items()
    assert shares["entropy_collapse"] == 1
    assert shares["entropy_convergence"] == 0


def test_modular_sum_is_learned_without_any_of_it():
    ((_, shares),) = detected("ModularSum-v1", "ppo", steps=30, learning_rate=16.0).items()
    assert set(shares.values()) == {0.0}


@pytest.mark.parametrize(
    ("env", "share"), [("MultiCorrectBandit-v1(contexts=4)", 1.0), ("Copy-v1(length=2,vocabulary=4)", 0.0)]
)
def test_waste_of_a_run(env, share):
    # With ten right arms a learner settles on few of them; with one right answer there is nothing to choose between.
    spec = make_spec(env).for_seeds(range(SEEDS))
    policy = make_policy("tabular", spec.initial_logits, Episodes(spec.initial_states, spec.step, spec.horizon))
    settings = Settings(steps=40, group_size=16, epochs=4, learning_rate=32.0, sampled_metrics=False)
    reference = policy.log_policy()
    training = Training(make_objective("ppo"), spec, policy, settings, range(SEEDS), 0)
    curve = torch.stack([exact.wasted_drift(spec, policy.log_policy(), reference) for _ in training.run()])
    assert exact.evaluate(spec, policy.log_policy()).success.mean() > 0.7  # it did learn
    assert curve.shape == (41, SEEDS)
    assert wasted_drift(curve).observed.mean() == share
