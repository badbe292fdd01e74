"""What every registered environment must satisfy; a new one is tested because it is registered."""

from __future__ import annotations

import math
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env, data_equivalence
from scipy import stats

import envs
from envs import exact, make_spec, prefix_tree
from envs.automaton import TERMINAL
from envs.catalogue import ENVIRONMENTS

NAMES = envs.env_names()
SEEDS = range(3)
GAP = 1e-10


def small_spec(name):
    return make_spec(name, **ENVIRONMENTS[name].small)


def gap(found, expected):
    """Largest difference; results without replica dimensions are numbers."""
    return float((torch.as_tensor(found, dtype=torch.float64) - expected).abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_check_env_is_silent(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(f"testbed/{name}").unwrapped)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_episodes(name):
    def play(seed):
        env = gymnasium.make(f"testbed/{name}")
        tokens = np.random.default_rng(0)
        record = [env.reset(seed=seed)]
        for _ in range(60):
            record.append(env.step(tokens.integers(env.action_space.n)))
            if record[-1][2]:
                record.append(env.reset())
        return record

    first, second, other = play(7), play(7), play(8)
    assert data_equivalence(first, second, exact=True)
    assert not data_equivalence(first, other, exact=True) or make_spec(name).prompts == 1


@pytest.mark.parametrize("name", NAMES)
def test_twin_equals_single_environments_step_for_step(name):
    twin = gymnasium.make_vec(f"testbed/{name}", num_envs=5, vectorization_mode="vector_entry_point")
    singles = gymnasium.make_vec(f"testbed/{name}", num_envs=5, vectorization_mode="sync")
    assert twin.observation_space == singles.observation_space
    assert twin.action_space == singles.action_space
    assert data_equivalence(twin.reset(seed=3), singles.reset(seed=3), exact=True)
    twin.action_space.seed(0)
    ended = 0
    for step in range(60):
        actions = twin.action_space.sample()
        found = twin.step(actions)
        assert data_equivalence(found, singles.step(actions), exact=True), step
        ended += found[2].sum()
    assert ended > 0


@pytest.mark.parametrize("name", NAMES)
def test_pickled_environment_goes_on_as_the_original(name):
    env = gymnasium.make(f"testbed/{name}")
    env.reset(seed=1)
    copy = pickle.loads(pickle.dumps(env))
    for _ in range(20):
        first, second = env.step(0), copy.step(0)
        assert data_equivalence(first, second, exact=True)
        if first[2]:
            assert data_equivalence(env.reset(), copy.reset(), exact=True)


@pytest.mark.parametrize("name", NAMES)
def test_pickled_spec_draws_the_same_tables(name):
    spec = small_spec(name)
    copy = pickle.loads(pickle.dumps(spec))
    assert torch.equal(copy.for_seeds([5]).initial_logits, spec.for_seeds([5]).initial_logits)
    assert torch.equal(copy.for_seeds([5]).rewards, spec.for_seeds([5]).rewards)


@pytest.mark.parametrize("name", NAMES)
def test_tables_depend_on_their_own_seed_only(name):
    spec = small_spec(name)
    together, alone = spec.for_seeds([4, 9, 0]), spec.for_seeds([9])
    for table in ("rewards", "success", "initial_logits"):
        assert torch.equal(getattr(together, table)[1], getattr(alone, table)[0])
        # The spec itself is seed 0.
        assert torch.equal(getattr(together, table)[2], getattr(spec, table))


@pytest.mark.parametrize("name", NAMES)
def test_monte_carlo_mean_lies_in_its_interval(name):
    # 99.9 % of correct solvers pass with a random seed; this one is fixed.
    spec, count = small_spec(name), 4000
    # Half way to the optimum, so that success is neither rare nor certain.
    policy = (spec.initial_logits.softmax(-1) + exact.optimum(spec).log_policy.exp()) / 2
    evaluation = exact.evaluate(spec, policy.log())
    env = gymnasium.make_vec(f"testbed/{name}", num_envs=count, **ENVIRONMENTS[name].small)
    draws = np.random.default_rng(12)
    states, _ = env.reset(seed=1000)
    running = np.ones(count, dtype=bool)
    rewards, successes, lengths = np.zeros(count), np.zeros(count), np.zeros(count)
    while running.any():
        # Inverse distribution function of the next token; the row of a finished episode is never used.
        rows = policy.numpy()[np.minimum(states, spec.states - 1)].cumsum(-1)
        tokens = np.minimum((rows < draws.random((count, 1))).sum(-1), spec.vocabulary - 1)
        states, reward, terminated, _, infos = env.step(tokens)
        lengths += running
        rewards += reward * running
        if terminated.any():
            successes += infos["success"] * running
        running &= ~terminated
    for sample, truth in (
        (rewards, evaluation.value),
        (successes, float(evaluation.success.mean())),
        (lengths, evaluation.length),
    ):
        half_width = stats.norm.ppf(1 - 0.001 / 2) * sample.std(ddof=1) / math.sqrt(count)
        assert abs(sample.mean() - truth) <= half_width + 1e-9  # a constant sample has no width
        # An interval that wide could not tell a wrong solver from a right one.
        assert half_width < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_solver_equals_enumeration(name, enumerated, random_policy):
    spec = small_spec(name).for_seeds(SEEDS)
    responses = enumerated(spec)
    assert len(responses.tokens) == prefix_tree.count_responses(spec) <= 5000, f"{name}.small is too large to enumerate"
    log_p = random_policy(spec, len(SEEDS), seed=1)
    log_q = random_policy(spec, len(SEEDS), seed=2)
    found = exact.evaluate(spec, log_p)

    log_probs = responses.log_probs(log_p)
    probs = log_probs.exp()
    other = responses.log_probs(log_q)
    success = responses.per_prompt(probs * responses.endings(spec.success))
    value = responses.mean(probs * responses.endings(spec.rewards))
    entropy = responses.mean(-probs * log_probs)
    length = responses.mean(probs * responses.lengths())
    blank = spec.states * spec.vocabulary
    visits = torch.stack([(responses.steps // spec.vocabulary == s).sum(-1) for s in range(spec.states)]).double()
    assert int((responses.steps < blank).sum()) == int(visits.sum())
    distances = (log_p.exp() - log_q.exp()).abs().sum(-1) / 2
    gaps = {
        "value": gap(found.value, value),
        "success": gap(found.success, success),
        "pass@5": gap(found.pass_at(5), (1 - (1 - success) ** 5).mean(-1)),
        "entropy": gap(found.entropy, entropy),
        "length": gap(found.length, length),
        "token entropy": gap(found.token_entropy, entropy / length),
        "occupancy": gap(found.occupancy, probs @ visits.T / spec.prompts),
        "collision": gap(found.collision, responses.mean(probs**2)),
        "kl": gap(exact.kl(spec, log_p, log_q), responses.mean(probs * (log_probs - other))),
        # Each state of a response contributes the distance of its next tokens.
        "tv": gap(exact.tv(spec, log_p, log_q), (responses.mean(probs * (distances @ visits)) / length)),
        "sequence tv": gap(
            prefix_tree.sequence_tv(spec, log_p, log_q), responses.mean((probs - other.exp()).abs() / 2)
        ),
    }
    print(f"{name}: largest gap {max(gaps.values()):.1e}")  # shown by pytest -rP
    assert max(gaps.values()) <= GAP, gaps


@pytest.mark.parametrize("name", NAMES)
def test_policy_gradient_equals_autograd_through_enumeration(name, enumerated):
    spec = small_spec(name).for_seeds(SEEDS)
    responses = enumerated(spec)
    logits = torch.randn(
        *spec.rewards.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    ).requires_grad_()
    probs = responses.log_probs(logits.log_softmax(-1)).exp()
    (expected,) = torch.autograd.grad(responses.mean(probs * responses.endings(spec.rewards)).sum(), logits)
    found = exact.policy_gradient(spec, logits.log_softmax(-1))
    assert gap(found, expected) <= GAP
    # Nothing can be learnt where every response pays the same.
    assert bool(expected.abs().amax() > 1e-4) == (name != "NullBandit-v1")


@pytest.mark.parametrize("name", NAMES)
def test_optimum_equals_best_response(name, enumerated):
    spec = small_spec(name).for_seeds(SEEDS)
    responses = enumerated(spec)
    rewards = responses.endings(spec.rewards)
    prompts = torch.tensor(responses.prompts)
    best = torch.stack([rewards[:, prompts == p].amax(-1) for p in range(spec.prompts)], -1)
    ties = responses.per_prompt((rewards == best[:, prompts]).double())

    for optimum in (exact.optimum(spec), exact.maximum_entropy_optimum(spec)):
        assert gap(optimum.value, best.mean(-1)) <= GAP
        assert gap(optimum.reward, best.mean(-1)) <= GAP
        log_probs = responses.log_probs(optimum.log_policy)
        probs = log_probs.exp()
        assert gap(responses.mean(probs * rewards), best.mean(-1)) <= GAP
        entropy = responses.mean(torch.where(probs > 0, -probs * log_probs, 0.0))
        assert gap(optimum.entropy, entropy) <= GAP
    # Entropy of the uniform distribution over the best responses.
    assert gap(exact.maximum_entropy_optimum(spec).entropy, ties.log().mean(-1)) <= GAP


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("regulariser", ["entropy", "reference"])
def test_gibbs_optimum_equals_enumeration(name, regulariser, enumerated, random_policy):
    beta = 0.3
    spec = small_spec(name).for_seeds(SEEDS)
    responses = enumerated(spec)
    prompts = torch.tensor(responses.prompts)
    reference = random_policy(spec, len(SEEDS), seed=4) if regulariser == "reference" else None
    # π*(y) = [ref(y)] exp(R(y)/β) / Z, and the maximum is β log Z.
    scores = responses.endings(spec.rewards) / beta
    if reference is not None:
        scores = scores + responses.log_probs(reference)
    log_z = responses.per_prompt(scores.exp()).log()
    found = exact.optimum(spec, temperature=beta, reference=reference)
    assert gap(responses.log_probs(found.log_policy), scores - log_z[:, prompts]) <= GAP
    assert gap(found.value, beta * log_z.mean(-1)) <= GAP
    regularised = (
        found.reward + beta * found.entropy
        if reference is None
        else found.reward - beta * exact.kl(spec, found.log_policy, reference)
    )
    assert gap(found.value, regularised) <= GAP


@pytest.mark.parametrize("name", NAMES)
def test_prefix_tree_agrees_with_automaton(name, random_policy):
    spec = small_spec(name)
    log_policy, other = random_policy(spec, 2, seed=5), random_policy(spec, seed=6)
    tree = prefix_tree.unroll(spec)
    lifted = tree.lift(log_policy)
    found, expected = exact.evaluate(tree.spec, lifted), exact.evaluate(spec, log_policy)
    for quantity in ("value", "success", "entropy", "token_entropy", "length", "collision"):
        assert gap(getattr(found, quantity), getattr(expected, quantity)) <= GAP, quantity
    assert gap(exact.kl(tree.spec, lifted, tree.lift(other)), exact.kl(spec, log_policy, other)) <= GAP


@pytest.mark.parametrize("name", NAMES)
def test_starting_policy_is_proper(name):
    spec = make_spec(name)
    policy = spec.initial_logits.softmax(-1)
    assert (policy > 0).all()
    assert spec.transitions.shape == spec.rewards.shape == spec.success.shape
    # The last layer ends every response, or the horizon would be longer.
    assert (spec.transitions[spec.layers[-1]] == TERMINAL).all()
    assert spec.name == name


@pytest.mark.parametrize("name", NAMES)
def test_docstring_is_a_manual(name):
    sections = [line.strip()[3:] for line in ENVIRONMENTS[name].__doc__.splitlines() if line.strip().startswith("## ")]
    assert sections == [
        "Description",
        "Action Space",
        "Observation Space",
        "Starting State",
        "Reward",
        "Episode End",
        "Information",
        "Exact Solution",
        "What It Is Built to Reveal",
        "Arguments",
        "Version History",
    ]
