"""The compiled programs against the path they replace, and devices."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from envs import make_spec
from models import make_policy
from testbed.errors import ConfigError
from testbed.objectives import make_objective, objective_names
from testbed.simulation import Sweep, compiled, run_sweep, simulate
from testbed.simulation.compiled import OLDEST_COMPILER

CLOSED = [name for name in objective_names() if make_objective(name).has_closed_form]
ENV = "VariableLength-v1"
SETTINGS: dict[str, Any] = {"seeds": 3, "steps": 4, "group_size": 6, "epochs": 2, "learning_rate": 1.0}


def assert_equal(actual: pd.DataFrame, expected: pd.DataFrame, rtol: float, atol: float) -> None:
    # Networks on this environment have no exact metrics, but every run has some that move.
    assert expected.filter(like="/").nunique().max() > 5
    pd.testing.assert_frame_equal(actual, expected, check_exact=False, rtol=rtol, atol=atol)


class Calls:
    """Stands in for the compiler: the same functions, uncompiled, and how often each was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts = dict.fromkeys(("_sampler", "_updater"), 0)
        for name, function in (("_sampler", compiled._sample), ("_updater", compiled._updates)):
            monkeypatch.setattr(compiled, name, lambda name=name, function=function: self._counted(name, function))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        self.counts[name] += 1
        return function


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


@pytest.mark.parametrize("model", ["tabular", "low_rank"])
@pytest.mark.parametrize("name", CLOSED)
def test_fused_path_equals_reference_path(name: str, model: str, uncompiled: Calls) -> None:
    def run(compile: bool) -> pd.DataFrame:
        # One scale for all: a step too large amplifies the last digit.
        objective = make_objective(name, reduction="token_mean")
        return simulate(objective, ENV, model, **SETTINGS, dtype=torch.float64, compile=compile).table

    assert_equal(run(True), run(False), rtol=1e-12, atol=1e-12)
    assert uncompiled.counts == {"_sampler": SETTINGS["steps"], "_updater": SETTINGS["steps"]}


@pytest.mark.parametrize(
    "settings",
    [
        {"minibatches": 2},
        {"minibatches": 12, "group_size": 12},  # more than one program unrolls
        {"optimizer": "adam"},
        {"max_grad_norm": 0.1},
        {"staleness": 2},
        {"partial": 1},
        {"mismatch": 0.1},
    ],
    ids=str,
)
def test_fused_path_serves_every_setting(settings: dict[str, Any], uncompiled: Calls) -> None:
    def run(compile: bool, metrics_every: int = 1) -> pd.DataFrame:
        arguments = {**SETTINGS, **settings, "compile": compile, "metrics_every": metrics_every}
        return simulate("erc(base=dapo)", ENV, **arguments, dtype=torch.float64).table

    whole = run(True)
    assert_equal(whole, run(False), rtol=1e-12, atol=1e-12)
    # Recorded updates take the same path as the others.
    last = run(True, metrics_every=4).groupby("replica").last()
    assert last["exact/entropy"].equals(whole.groupby("replica").last()["exact/entropy"])


def test_entropy_weights_enter_the_fused_gradient() -> None:
    spec = make_spec(ENV).for_seeds([0, 1])
    policy = make_policy("tabular", spec.initial_logits)
    generator = torch.Generator().manual_seed(0)
    uniforms = torch.rand(2, spec.prompts * 3, spec.horizon, generator=generator, dtype=torch.float64)
    samples = policy.sample(spec.initial_states.repeat_interleave(3), spec.step, uniforms, entropies=True)
    w, v = (torch.randn(uniforms.shape, generator=generator, dtype=torch.float64) * samples.mask for _ in range(2))
    read: list[Tensor] = []

    def weigh(log_probs: Tensor, entropies: Tensor | None) -> tuple[Tensor, Tensor | None]:
        assert entropies is not None
        read.extend((log_probs, entropies))
        return w.flatten(-2), v.flatten(-2)

    (fused,) = policy.fused_gradient(policy.places(samples), weigh, entropies=True)
    log_probs, entropies = policy.evaluate(samples, entropies=True)
    assert entropies is not None
    torch.testing.assert_close(read[0].view_as(w), log_probs, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(read[1].view_as(w), entropies, rtol=1e-12, atol=0.0)
    (expected,) = policy.gradient(samples, w, v)
    assert bool((expected != 0).any())
    torch.testing.assert_close(fused, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("name", ["dapo", "erc(base=sapo)"])
def test_compiled_program_equals_reference_path(name: str) -> None:
    import torch._dynamo.utils as dynamo

    torch.compiler.reset()
    dynamo.counters.clear()

    def run(compile: bool) -> pd.DataFrame:
        return simulate(name, ENV, **SETTINGS, dtype=torch.float64, compile=compile).table

    assert_equal(run(True), run(False), rtol=1e-12, atol=1e-12)
    # One program for all rollouts and one for all updates: they were compiled, and they were compiled once.
    assert dynamo.counters["stats"]["unique_graphs"] == 2

    # Another program makes the updates that are not recorded, with the same numbers.
    every, last = (
        simulate(name, ENV, **SETTINGS, compile=True, metrics_every=n).table.groupby("replica").last() for n in (1, 4)
    )
    assert every["exact/entropy"].equals(last["exact/entropy"])


@pytest.mark.slow
def test_a_process_may_need_many_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    # The compiler gives up after eight of a function unless it is told; its first half is enough to see that.
    compile = partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compile)
    torch.compiler.reset()
    for program in (compiled._sampler, compiled._updater):
        program.cache_clear()
    try:
        for seeds in range(2, 12):
            simulate("dapo", "NullBandit-v1(arms=3,contexts=1)", seeds=seeds, steps=2, epochs=2, compile=True)
    finally:
        for program in (compiled._sampler, compiled._updater):
            program.cache_clear()
        torch.compiler.reset()


@pytest.mark.parametrize(
    ("objective", "model", "message"),
    [
        ("dapo", "transformer", "TransformerPolicy has no fused path; choose another model"),
        ("gspo", "tabular", "gspo states no closed form of its gradient; switch compile off"),
        ("erc(base=gspo)", "tabular", r"erc\(base=gspo\) states no closed form"),
    ],
)
def test_refuses_what_cannot_be_compiled(objective: str, model: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate(objective, "NullBandit-v1(arms=4,contexts=1)", model, seeds=1, steps=1, compile=True)


# -- devices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu", "cuda:99", ""])
def test_refuses_a_device(name: str) -> None:
    with pytest.raises(ConfigError, match=r"which cannot be used here .*; expected 'cpu', or an accelerator"):
        simulate("dapo", ENV, seeds=1, steps=1, device=name)


def test_sweep_refuses_a_device() -> None:
    with pytest.raises(ConfigError, match="device is 'gpu', which cannot be used here"):
        Sweep(objective="dapo", env=ENV, device="gpu")


def on_both(run: Callable[[str], pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return run("cuda"), run("cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("env", [ENV, "NullBandit-v1(arms=20,contexts=3)"])
@pytest.mark.parametrize(
    "name",
    [name for name in objective_names() if not {"ref_log_probs", "sampler_log_probs"} & {*make_objective(name).needs}],
)
def test_cuda_equals_processor(name: str, env: str) -> None:
    # The same draws and, in float64, the same numbers up to the order of sums; a token drawn differently would show.
    actual, expected = on_both(
        lambda device: (
            simulate(
                make_objective(name, reduction="token_mean"), env, **SETTINGS, dtype=torch.float64, device=device
            ).table
        )
    )
    assert_equal(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["low_rank", "transformer", "moe"])
@pytest.mark.parametrize(
    "settings", [{}, {"staleness": 1}, {"mismatch": "noise(scale=0.1)"}, {"minibatches": 2}, {"partial": 1}]
)
def test_cuda_serves_models_and_settings(model: str, settings: dict[str, Any]) -> None:
    arguments = {**SETTINGS, "steps": 2, "learning_rate": 0.1, **settings, "dtype": torch.float64}
    actual, expected = on_both(lambda device: simulate("dapo", ENV, model, **arguments, device=device).table)
    if model == "low_rank":
        assert_equal(actual, expected, rtol=1e-7, atol=1e-7)
    else:
        # A network is first fitted to the environment's initial policy, which amplifies rounding: on one processor,
        # logits changed by 1e-15 change a gradient norm by 1e-2. How many ratios are exactly 1 is rounding alone.
        rounding = ["ratio/one_fraction"]
        assert_equal(actual.drop(columns=rounding), expected.drop(columns=rounding), rtol=5e-2, atol=5e-2)


@pytest.mark.gpu
def test_cuda_serves_hyper_parameters_of_each_replica() -> None:
    bounds = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).view(3, 1, 1)
    rates = torch.tensor([1.0, 2.0, 3.0])
    arguments = {**SETTINGS, "learning_rate": rates, "optimizer": "adam", "max_grad_norm": 0.5, "dtype": torch.float64}
    objective = make_objective("erc", base=make_objective("dapo", clip_low=bounds))
    actual, expected = on_both(lambda device: simulate(objective, ENV, **arguments, device=device).table)
    assert_equal(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.gpu
def test_cuda_sweeps() -> None:
    # In float32 a single rounding may send a draw elsewhere: nearly all replicas must agree, not all.
    def run(device: str) -> pd.DataFrame:
        sweep = Sweep(
            objective="dapo", env=ENV, vary=["clip_low=0.1:0.3:3", "learning_rate=1,2"], seeds=8, steps=5, device=device
        )
        found = run_sweep(sweep)
        assert found is not None
        return found.table

    actual, expected = on_both(run)
    assert actual[["cell", "seed", "step"]].equals(expected[["cell", "seed", "step"]])
    assert (actual["exact/entropy"] - expected["exact/entropy"]).abs().lt(1e-4).mean() > 0.95


def test_an_old_compiler_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.11.0+cu130")
    with pytest.raises(ConfigError, match=r"PyTorch 2\.11\.0\+cu130 cannot trace the program; use 2\.13 or newer"):
        simulate("dapo", ENV, **SETTINGS, compile=True)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(TorchVersion(torch.__version__) < OLDEST_COMPILER, reason="needs a newer compiler")
def test_cuda_compiles() -> None:
    def run(device: str) -> pd.DataFrame:
        return simulate("dapo", ENV, **SETTINGS, dtype=torch.float64, device=device, compile=device == "cuda").table

    actual, expected = on_both(run)
    assert_equal(actual, expected, rtol=1e-9, atol=1e-9)
