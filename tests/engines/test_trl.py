"""The TRL trainer: equal to TRL's own where they mean the same, and to itself however a step is split."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.extras import needs

needs("trl")
needs("peft")

from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from models import causal_lm
from models.causal_lm import load_causal_lm
from testbed.advantages import make_advantage_estimator
from testbed.batch import TokenBatch
from testbed.engines import folders
from testbed.engines.trl import ObjectiveTrainer
from testbed.engines.trl import step as optimiser_step
from testbed.engines.trl.prompts import PromptNumbers
from testbed.errors import BatchError, ConfigError

# Other people's warnings: about missing accelerators, model cards, and their own deprecations.
pytestmark = pytest.mark.filterwarnings("ignore")

TRL_ADVANTAGE = "group_standardised(ddof=1,epsilon=0.0001)"
# Any of these ends a response, so that a random model writes responses of many lengths.
ENDS = list(range(2, 60))


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 7) for ids in completion_ids]


def prompts(count: int = 16) -> Dataset:
    return Dataset.from_dict({"prompt": [f"{number}+{number + 3}=" for number in range(count)]})


def build(
    objective: str | None, folder: Path, *, data: Dataset | None = None, model: Any = None, **settings: Any
) -> GRPOTrainer:
    """A trainer of TRL's (no objective) or ours on a tiny model; settings of ours are taken out of those of TRL."""
    own = ("advantage", "dynamic_sampling", "overlong_cache", "peft_config", "reward_funcs", "rollout_func")
    own += ("processing_class", "record", "record_every", "routing_replay", "shared_prefixes", "stop")
    given = {name: settings.pop(name) for name in own if name in settings}
    tiny, tokenizer = load_causal_lm("qwen2-0.1m")
    model = tiny if model is None else model
    model.generation_config.eos_token_id = settings.pop("ends", ENDS)
    arguments = GRPOConfig(
        **{
            "output_dir": str(folder),
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "num_generations": 4,
            "num_iterations": 2,
            "max_completion_length": 8,
            "max_steps": 4,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "bf16": False,
            "use_cpu": True,
            "gradient_checkpointing": False,
            "disable_tqdm": True,
            "seed": 3,
            **settings,
        }
    )
    common = {
        "model": model,
        "processing_class": tokenizer,
        "args": arguments,
        "train_dataset": prompts() if data is None else data,
        "reward_funcs": reward,
        **given,
    }
    return GRPOTrainer(**common) if objective is None else ObjectiveTrainer(objective, **common)


def train(
    *arguments: Any, resume: str | bool | None = None, **settings: Any
) -> tuple[GRPOTrainer, list[dict[str, Any]]]:
    trainer = build(*arguments, **settings)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, [entry for entry in trainer.state.log_history if "loss" in entry]


def weights(trainer: GRPOTrainer) -> Tensor:
    return torch.cat([value.detach().flatten() for value in trainer.model.parameters()])


def note_gradients(trainer: GRPOTrainer) -> list[Tensor]:
    """The gradient of every optimiser step, filled while the trainer runs."""
    seen: list[Tensor] = []

    class Note(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            seen.append(torch.cat([value.grad.flatten().clone() for value in model.parameters()]))

    trainer.add_callback(Note())
    return seen


def assert_same_gradients(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Equal to 1e-6 of their norm; after an update, to that of the weights they were taken at."""
    assert len(actual) == len(expected) > 1
    for step, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert other.norm() > 1e-3
        assert (one - other).norm() < (1e-6 if step == 0 else 1e-5) * other.norm()
    # Ratios have left one, so that the old policy matters.
    assert (expected[1] - expected[0]).norm() > 1e-3 * expected[0].norm()


def column(log: list[dict[str, Any]], name: str) -> list[Any]:
    return [entry[name] for entry in log]


# -- equality with TRL -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss_type", "theirs", "objective"),
    [
        ("dapo", {"epsilon_high": 0.28}, "dapo"),
        ("grpo", {}, "grpo"),
        ("grpo", {"delta": 1.2}, "grpo(dual_clip=1.2)"),
        ("dr_grpo", {}, "dr_grpo"),
        ("cispo", {"epsilon_high": 1.05}, "cispo(clip_high=0.05)"),
        ("sapo", {}, "sapo"),
        (
            "grpo",
            {"importance_sampling_level": "sequence", "epsilon": 0.1, "epsilon_high": 0.1},
            "gspo(clip_low=0.1,clip_high=0.1)",
        ),
    ],
)
def test_equals_trls_own_trainer_step_for_step(
    tmp_path: Path, loss_type: str, theirs: dict[str, Any], objective: str
) -> None:
    _, expected = train(None, tmp_path, loss_type=loss_type, **theirs)
    _, actual = train(objective, tmp_path, advantage=TRL_ADVANTAGE)
    # Single precision: losses are sums of a few terms of order one, gradient norms of 1e5.
    for name, absolute in (("loss", 1e-6), ("grad_norm", 0.0)):
        torch.testing.assert_close(
            torch.tensor(column(actual, name)), torch.tensor(column(expected, name)), rtol=2e-6, atol=absolute
        )
    assert min(column(actual, "grad_norm")) > 1e-3
    assert max(map(abs, column(actual, "loss"))) > 1e-3
    assert column(actual, "update/refused") == [0.0] * 4


def test_the_reference_penalty_equals_trls(tmp_path: Path) -> None:
    # TRL reads the reference model from where the policy was loaded. Two iterations: at first both are the same.
    saved = tmp_path / "model"
    load_causal_lm("qwen2-0.1m").model.save_pretrained(saved)
    settings = {"learning_rate": 1e-2, "data": prompts()}
    _, expected = train(
        None,
        tmp_path,
        model=load_causal_lm(str(saved), tokenizer="character").model,
        loss_type="grpo",
        beta=0.04,
        use_bias_correction_kl=False,
        **settings,
    )
    _, actual = train(
        "reference_kl(base=grpo,coefficient=0.04)",
        tmp_path,
        model=load_causal_lm(str(saved), tokenizer="character").model,
        advantage=TRL_ADVANTAGE,
        **settings,
    )
    # Two steps on the first responses, at the same weights to rounding; steps of this size then amplify the rounding.
    for steps, relative in ((slice(2), 2e-6), (slice(2, 4), 1e-5)):
        torch.testing.assert_close(
            torch.tensor(column(actual, "grad_norm")[steps]),
            torch.tensor(column(expected, "grad_norm")[steps]),
            rtol=relative,
            atol=0,
        )
    # TRL averages micro-batch means, so that its number for the penalty itself is another one.
    assert column(actual, "kl/ref")[-1] > 1e-4


# -- however a step is split -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective", ["dapo", "grpo", "dr_grpo", "gspo", "dcpo", "erc", "bapo", "kl_cov(fraction=0.2)", "entropy_bonus"]
)
def test_micro_batches_do_not_change_the_gradient(tmp_path: Path, objective: str) -> None:
    results = []
    for per_device, micro_batches in ((8, 1), (2, 4)):
        trainer = build(
            objective,
            tmp_path,
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=micro_batches,
            max_grad_norm=0.0,
        )
        gradients = note_gradients(trainer)
        trainer.train()
        results.append((gradients, [entry for entry in trainer.state.log_history if "loss" in entry]))
    (whole, log), (split, split_log) = results
    assert_same_gradients(split[:2], whole[:2])
    for name in ("loss", "ratio/max", "advantage/nonzero_fraction", "entropy/mean"):
        torch.testing.assert_close(
            torch.tensor(column(split_log, name)), torch.tensor(column(log, name)), rtol=1e-5, atol=1e-6
        )
    assert log[0]["completions/max_length"] > log[0]["completions/min_length"]


TWO_PROCESSES = """
import sys, torch
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
import test_trl as here

def fixed(prompts, trainer):
    # What is sampled must not depend on the process: a function of prompt and place within the group.
    completions = []
    for index, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(len(prompt) * 1000 + ord(prompt[0]) * 10 + index % 4)
        length = int(torch.randint(2, 9, (1,), generator=generator))
        completions.append(torch.randint(60, 250, (length,), generator=generator).tolist())
    prompt_ids = [trainer.processing_class(prompt).input_ids for prompt in prompts]
    logprobs = [[-5.0] * len(ids) for ids in completions]
    return {{"prompt_ids": prompt_ids, "completion_ids": completions, "logprobs": logprobs}}

for objective in {objectives!r}:
    trainer = here.build(objective, Path({folder!r}), per_device_train_batch_size={per_device}, rollout_func=fixed,
        max_grad_norm=0.0, max_steps=2, **{settings!r})
    gradients = here.note_gradients(trainer)
    trainer.train()
    if trainer.accelerator.is_main_process:
        log = [entry for entry in trainer.state.log_history if "loss" in entry]
        results = gradients, here.column(log, "loss"), here.column(log, "ratio/max")
        torch.save(results, {folder!r} + f"/{{objective}}.pt")

# A process that leaves while another still talks to it is aborted by the one's disappearing connection.
if torch.distributed.is_initialized():
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


Steps = dict[str, tuple[list[Tensor], list[float], list[float]]]
"""By objective: gradients, losses and largest ratios of the optimiser steps."""


def in_processes(processes: int, tmp_path: Path, objectives: list[str], **settings: Any) -> Steps:
    """Train the same two optimiser steps on some processes of this machine, started as users start them."""
    folder = tmp_path / str(processes)
    folder.mkdir()
    script = folder / "run.py"
    script.write_text(
        TWO_PROCESSES.format(
            root=str(Path(__file__).parents[2]),
            tests=str(Path(__file__).parent),
            objectives=objectives,
            folder=str(folder),
            per_device=8 // processes // 2,
            settings=settings,
        )
    )
    launch = [sys.executable]
    if processes > 1:
        # The launcher's only mode with several processes on one machine; the variable below keeps it on the CPU.
        launch += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
        launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    for _ in range(2):
        done = subprocess.run(
            [*launch, str(script)], env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        # Rarely gloo itself aborts a process; what is compared are the numbers of a run that finished.
        if "SIGABRT" not in done.stderr:
            break
    assert done.returncode == 0, f"{done.stderr[:3000]} … {done.stderr[-2000:]}"
    return {name: torch.load(folder / f"{name}.pt") for name in objectives}


def assert_same_steps(actual: Steps, expected: Steps) -> None:
    for name, (gradients, losses, ratios) in expected.items():
        assert_same_gradients(actual[name][0], gradients)
        torch.testing.assert_close(torch.tensor(actual[name][1]), torch.tensor(losses), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(torch.tensor(actual[name][2]), torch.tensor(ratios), rtol=1e-5, atol=0)


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    objectives = ["dapo", "dcpo", "bapo", "importance_correction"]
    one, two = (in_processes(processes, tmp_path, objectives) for processes in (1, 2))
    assert_same_steps(two, one)


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    _, expected = train("erc", tmp_path)
    _, actual = train("erc", tmp_path, gradient_checkpointing=True)
    torch.testing.assert_close(
        torch.tensor(column(actual, "grad_norm")), torch.tensor(column(expected, "grad_norm")), rtol=1e-6, atol=0
    )


def test_trains_an_adapter_and_leaves_the_model_alone(tmp_path: Path) -> None:
    trainer, log = train(
        "reference_kl(base=erc)", tmp_path, peft_config=LoraConfig(r=2, target_modules=["q_proj"]), learning_rate=1e-2
    )
    untouched = dict(load_causal_lm("qwen2-0.1m").model.named_parameters())
    frozen = {name.removeprefix("base_model.model."): value for name, value in trainer.model.named_parameters()}
    assert torch.equal(frozen["model.embed_tokens.weight"], untouched["model.embed_tokens.weight"])
    # At the first step adapter and reference agree; later the penalty sees the difference.
    assert column(log, "kl/ref")[0] == pytest.approx(0, abs=1e-9)
    assert column(log, "kl/ref")[-1] > 1e-8


# -- what an objective is given --------------------------------------------------------------------------------------


def batches_of(trainer: ObjectiveTrainer, monkeypatch: pytest.MonkeyPatch) -> list[TokenBatch]:
    seen: list[TokenBatch] = []
    original = optimiser_step.token_batch

    def note(*arguments: Any, **settings: Any) -> TokenBatch:
        seen.append(original(*arguments, **settings))
        return seen[-1]

    monkeypatch.setattr(optimiser_step, "token_batch", note)
    trainer.train()
    return seen


@pytest.mark.parametrize(("objective", "asked"), [("erc", True), ("dapo", False)])
def test_old_entropies_are_taken_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str, asked: bool
) -> None:
    seen = batches_of(build(objective, tmp_path, max_steps=2, learning_rate=1e-2), monkeypatch)
    assert [batch.old_entropies is not None for batch in seen] == [asked] * 4
    if asked:
        first, second = seen[0], seen[2]
        assert first.old_entropies is not None
        assert first.entropies is not None
        # Before the first update the current policy is the old one; after it no longer.
        torch.testing.assert_close(first.old_entropies, first.entropies.detach(), rtol=1e-5, atol=1e-6)
        assert second.entropies is not None
        assert (second.entropies - second.old_entropies).abs().max() > 1e-4


def test_counts_are_those_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = batches_of(build("dapo", tmp_path, max_steps=1), monkeypatch)
    assert len(seen) == 2
    tokens = sum(int(batch.mask.sum()) for batch in seen)
    assert [int(batch.total_tokens()) for batch in seen] == [tokens, tokens]
    assert [int(batch.total_sequences()) for batch in seen] == [8, 8]
    assert {batch.mask.shape[1] for batch in seen} == {8}


def test_sampler_log_probs_reach_the_correction(tmp_path: Path) -> None:
    def rollout(texts: list[str], trainer: Any) -> dict[str, Any]:
        ids = [trainer.processing_class(text).input_ids for text in texts]
        completions = [[70 + index, 80, 2] for index in range(len(texts))]
        # One number is missing, as vLLM has it now and then.
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": [[-9.0, None, -9.0] for _ in texts]}

    _, log = train("importance_correction(cap=2)", tmp_path, rollout_func=rollout, max_steps=1)
    # A random model gives every token about 1/259, log -5.56: the sampler's -9 is far below, and a weight of about
    # e^3.44 = 31 is cut to 2. The missing number counts as agreement, weight 1: (2 + 1 + 2)/3.
    assert column(log, "sampler/weight_mean")[0] == pytest.approx(5 / 3, rel=1e-6)
    assert column(log, "kl/sampler")[0] < -1


def test_advantages_follow_the_prompt_across_visits(tmp_path: Path) -> None:
    # Two prompts, rewards that do not depend on the model: on the second visit dcpo's estimator remembers the first.
    def by_place(completion_ids: list[list[int]], trainer_state: Any, **_: Any) -> list[float]:
        shift = 10 if trainer_state.global_step else 0
        return [float(shift + index % 4) for index in range(len(completion_ids))]

    trainer, log = train("dcpo", tmp_path, data=prompts(2), reward_funcs=by_place, num_iterations=1, max_steps=2)
    estimator = make_advantage_estimator("smooth_standardised")
    rewards = torch.tensor([[0.0, 1, 2, 3]] * 2)
    estimator(rewards)
    estimator(rewards + 10)
    expected = estimator.state_dict()  # type: ignore[attr-defined]
    for name, value in trainer.sampling.estimate.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=0)  # float32
    # Visit 2: the blend is not centred, as all rewards are above what was seen before.
    assert column(log, "advantage/mean")[1] != pytest.approx(0, abs=1e-3)


def test_rewards_that_differ_by_the_order_of_their_sum_alone_are_equal(tmp_path: Path) -> None:
    # 0.6 + 0.4 + 0.7, each response's parts in another order: in single precision 1.7 and 1.6999999.
    orders = [(0.6, 0.4, 0.7), (0.4, 0.7, 0.6), (0.7, 0.6, 0.4), (0.7, 0.4, 0.6)]

    def part(place: int) -> Any:
        def reward(completions: list[str], **_: Any) -> list[float]:
            return [orders[index % 4][place] for index in range(len(completions))]

        reward.__name__ = f"part{place}"
        return reward

    _, log = train("dapo", tmp_path, reward_funcs=[part(place) for place in range(3)], max_steps=1)
    assert column(log, "group/zero_variance_fraction") == [1.0]
    assert column(log, "advantage/nonzero_fraction") == [0.0]
    assert column(log, "grad_norm") == [0.0]


def test_dynamic_sampling_replaces_constant_groups(tmp_path: Path) -> None:
    def only_long_prompts_vary(prompts: list[str], **_: Any) -> list[float]:
        return [float(index % 2) if len(prompt) > 4 else 1.0 for index, prompt in enumerate(prompts)]

    settings = {"reward_funcs": only_long_prompts_vary, "max_steps": 2, "num_iterations": 1}
    _, plain = train("dapo", tmp_path, **settings)
    _, log = train("dapo", tmp_path, dynamic_sampling=8, **settings)
    assert max(column(plain, "group/zero_variance_fraction")) > 0
    assert column(log, "group/zero_variance_fraction") == [0.0, 0.0]
    assert column(log, "group/informative_fraction") == [1.0, 1.0]
    assert max(column(log, "group/rounds")) > 1


def test_dynamic_sampling_gives_up_when_the_prompts_are_used_up(tmp_path: Path) -> None:
    _, log = train(
        "dapo", tmp_path, dynamic_sampling=50, reward_funcs=lambda prompts, **_: [1.0] * len(prompts), max_steps=1
    )
    # 16 prompts, two groups a round.
    assert column(log, "group/rounds") == [8.0]
    assert column(log, "group/informative_fraction") == [0.0]
    assert column(log, "grad_norm") == [0.0]


def test_overlong_responses_are_punished(tmp_path: Path) -> None:
    def rollout(texts: list[str], trainer: Any) -> dict[str, Any]:
        ids = [trainer.processing_class(text).input_ids for text in texts]
        completions = [[70] * (2 + 2 * (index % 4)) for index in range(len(texts))]
        return {
            "prompt_ids": ids,
            "completion_ids": completions,
            "logprobs": [[-5.0] * len(row) for row in completions],
        }

    _, log = train(
        "dapo",
        tmp_path,
        overlong_cache=4,
        rollout_func=rollout,
        reward_funcs=lambda prompts, **_: [1.0] * len(prompts),
        max_steps=1,
    )
    # Lengths 2, 4, 6, 8 of at most 8 with a ramp over the last 4: punishments 0, 0, -1/2, -1.
    assert column(log, "rewards/overlong/mean") == [-0.375]
    assert column(log, "reward/mean") == [0.625]


def test_a_group_that_cannot_be_scored_is_left_out(tmp_path: Path) -> None:
    def sometimes(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        return [None if index == 0 else float(index % 3) for index in range(len(completion_ids))]

    _, log = train("grpo", tmp_path, reward_funcs=sometimes, max_steps=1)
    assert column(log, "group/unscorable_fraction") == [0.5]
    # The four responses of the other group have rewards 1, 2, 0, 1: two of them differ from the mean.
    assert column(log, "advantage/nonzero_fraction") == [0.25]


def test_a_mixture_of_experts_replays_the_old_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[Tensor] = []
    original = causal_lm.replay_routing
    monkeypatch.setattr(
        causal_lm, "replay_routing", lambda model, experts: (replayed.append(experts), original(model, experts))[1]
    )
    _, log = train(
        "gspo",
        tmp_path,
        model=load_causal_lm("qwen3-moe-0.1m").model,
        routing_replay=True,
        router_aux_loss_coef=0.0,
        max_steps=2,
    )
    # Two updates on the same responses, each of two micro-batches of four: the choice of the old policy both times.
    assert [len(experts) for experts in replayed] == [4, 4, 4, 4]
    assert torch.equal(torch.cat(replayed[:2]), torch.cat(replayed[2:]))
    assert column(log, "ratio/log_abs_mean")[0] == pytest.approx(0, abs=1e-6)
    assert column(log, "ratio/log_abs_mean")[1] > 1e-3


# -- tokenizers of strangers -----------------------------------------------------------------------------------------

OPEN = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def read_by(trainer: ObjectiveTrainer, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The prompts' tokens, as a run of one step hands them to the model."""
    seen: list[list[int]] = []
    original = trainer._generate_single_turn

    def note(prompt_ids: list[list[int]], *arguments: Any, **settings: Any) -> Any:
        seen.extend(prompt_ids)
        return original(prompt_ids, *arguments, **settings)

    monkeypatch.setattr(trainer, "_generate_single_turn", note)
    trainer.train()
    return seen


@pytest.mark.parametrize("adds", ["$A", "<|im_start|> $A", "$A <|im_end|>", "<|im_start|> $A <|im_end|>"])
def test_a_prompt_starts_once_and_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stranger: Callable[..., Any], adds: str
) -> None:
    tokenizer = stranger(adds, OPEN, bos="<|im_start|>")
    turns = [[{"role": "user", "content": f"{number}+1"}] for number in range(4)]
    expected = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)
    texts = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    for prompt in (turns, texts):
        data = Dataset.from_dict({"prompt": prompt})
        trainer = build("dapo", tmp_path, data=data, processing_class=tokenizer, max_steps=1, num_iterations=1)
        seen = read_by(trainer, monkeypatch)
        assert len(seen) == 8
        assert all(row in expected for row in seen)


def test_content_parts_are_trained_on_as_their_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, tokenizer = load_causal_lm("qwen2-0.1m")
    texts = [f"{number}+1=" for number in range(4)]
    parts = [[{"type": "text", "text": text}] for text in texts]
    for prompt, expected in (
        (parts, [tokenizer(text).input_ids for text in texts]),
        (
            [[{"role": "user", "content": part}] for part in parts],
            [tokenizer(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n").input_ids for text in texts],
        ),
    ):
        trainer = build("dapo", tmp_path, data=Dataset.from_dict({"prompt": prompt}), max_steps=1, num_iterations=1)
        seen = read_by(trainer, monkeypatch)
        assert len(seen) == 8
        assert all(row in expected for row in seen)


def test_any_end_token_ends_a_response_and_none_is_graded(tmp_path: Path) -> None:
    graded: list[tuple[str, list[int]]] = []

    def note(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        graded.extend(zip(completions, completion_ids, strict=True))
        return [float(len(ids)) for ids in completion_ids]

    trainer, _ = train("dapo", tmp_path, reward_funcs=note, max_completion_length=24, max_steps=1)
    ended = [(text, ids) for text, ids in graded if ids[-1] in ENDS]
    assert len(ended) > len(graded) / 2
    assert len({ids[-1] for _, ids in ended}) > 2
    for text, ids in ended:
        assert not set(ids[:-1]) & set(ENDS)
        assert text == trainer.processing_class.decode(ids[:-1], skip_special_tokens=True)


def test_a_stop_string_ends_a_response_with_the_token_that_completes_it(tmp_path: Path) -> None:
    # One token per byte: the letters are 26 of the 259 tokens of a random model, which has no other end here.
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    graded: list[tuple[str, list[int]]] = []

    def note(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        graded.extend(zip(completions, completion_ids, strict=True))
        return [float(len(ids)) for ids in completion_ids]

    trainer, log = train(
        "dapo", tmp_path, reward_funcs=note, stop=list(letters), ends=2, max_completion_length=24, max_steps=1
    )
    read = trainer.processing_class.decode
    ended = [(text, ids) for text, ids in graded if any(letter in read(ids) for letter in letters)]
    assert len(ended) > len(graded) / 2
    for text, ids in ended:
        assert read(ids)[-1] in letters
        assert not set(read(ids[:-1])) & set(letters)
        assert text == trainer.processing_class.decode(ids[:-1], skip_special_tokens=True)
    unfinished = [ids for _, ids in graded if ids[-1] != 2 and read(ids)[-1] not in letters]
    assert {len(ids) for ids in unfinished} <= {24}
    assert column(log, "completions/clipped_ratio")[0] == pytest.approx(len(unfinished) / len(graded))
    lengths = [len(ids) for _, ids in graded if ids not in unfinished]
    assert column(log, "completions/mean_terminated_length")[0] == pytest.approx(sum(lengths) / len(lengths))
    assert not hasattr(vars(trainer.model).get("generate"), "__wrapped__")


@pytest.mark.parametrize("cut", [{"top_k": 5}, {"top_p": 0.5}, {"top_k": 40, "min_p": 0.5, "temperature": 0.7}])
def test_a_truncated_sampler_reports_its_own_probabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: dict[str, Any]
) -> None:
    trainer = build("importance_correction(cap=100)", tmp_path, max_steps=1, num_iterations=1, learning_rate=0.0, **cut)
    rows: list[dict[str, Any]] = []
    original = trainer._generate_and_score_completions

    def note(inputs: list[dict[str, Any]]) -> dict[str, Any]:
        rows.append(original(inputs))
        return rows[-1]

    monkeypatch.setattr(trainer, "_generate_and_score_completions", note)
    trainer.train()
    (batch,) = rows[:1]
    tokens = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    width = batch["completion_ids"].shape[1]
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(input_ids=tokens, attention_mask=attention).logits[:, -width - 1 : -1]
    # The reading of the three rules: the k likeliest; of those the fewest that hold p; of those the ones with at least
    # min_p of the likeliest's probability.
    expected = torch.zeros(batch["completion_ids"].shape)
    for row, place in torch.nonzero(batch["completion_mask"]).tolist():
        probabilities = torch.softmax(logits[row, place].double() / cut.get("temperature", 1.0), -1)
        order = probabilities.argsort(descending=True)[: cut.get("top_k", 259)]
        held = probabilities[order] / probabilities[order].sum()
        kept = held.cumsum(0) - held < cut.get("top_p", 1.0)
        kept &= held >= cut.get("min_p", 0.0) * held[0]
        allowed = dict(zip(order[kept].tolist(), (held[kept] / held[kept].sum()).tolist(), strict=True))
        assert int(batch["completion_ids"][row, place]) in allowed
        expected[row, place] = math.log(allowed[int(batch["completion_ids"][row, place])])
    torch.testing.assert_close(
        batch["sampling_per_token_logps"] * batch["completion_mask"], expected, rtol=1e-4, atol=1e-5
    )
    (log,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    # Whoever leaves tokens out gives the others more: the sampler's log-probability is above the policy's.
    assert log["kl/sampler"] > 0.01
    assert log["sampler/weight_mean"] < 0.99


def test_an_end_token_of_the_model_alone_is_enough(tmp_path: Path, stranger: Callable[..., Any]) -> None:
    _, log = train("dapo", tmp_path, processing_class=stranger(eos=None), max_steps=1)
    assert column(log, "update/refused") == [0.0]


def test_says_when_nothing_ends_a_response(tmp_path: Path, stranger: Callable[..., Any]) -> None:
    model = load_causal_lm("qwen2-0.1m").model
    model.config.eos_token_id = None
    arguments = {"model": model, "processing_class": stranger(eos=None), "ends": None}
    with pytest.raises(ConfigError, match="nothing says which token ends an answer"):
        build("dapo", tmp_path, **arguments)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([{"role": "user", "content": "1+1"}], "the chat template cannot write .*roles must alternate"),
        ([{"type": "image", "text": "1+1"}], "a part of a prompt is"),
        ("", "the prompt '' has no token"),
    ],
)
def test_says_at_once_which_prompt_cannot_be_read(
    tmp_path: Path, stranger: Callable[..., Any], prompt: Any, message: str
) -> None:
    tokenizer = stranger(template="{{ raise_exception('roles must alternate') }}")
    data = Dataset.from_dict({"prompt": [prompt] * 4})
    with pytest.raises(ConfigError, match=message):
        build("dapo", tmp_path, data=data, processing_class=tokenizer)


# -- bad batches -----------------------------------------------------------------------------------------------------


def poisoned(trainer: ObjectiveTrainer, step: int) -> tuple[Tensor, Tensor, list[dict[str, Any]]]:
    """Weights before and after the given step, and the log."""
    history = [weights(trainer).clone()]
    original = trainer._maybe_log_save_evaluate

    def note(*arguments: Any, **settings: Any) -> None:
        history.append(weights(trainer).clone())
        original(*arguments, **settings)

    trainer._maybe_log_save_evaluate = note
    trainer.train()
    return history[step - 1], history[step], [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("objective", ["dapo", "bapo"])
def test_nan_in_the_model_never_reaches_the_weights(tmp_path: Path, objective: str) -> None:
    trainer = build(objective, tmp_path)

    def spoil(module: Any, arguments: Any, output: Any) -> Any:
        # The third forward pass with a gradient is the first of the second step.
        if torch.is_grad_enabled() and trainer._step == 2:
            output.last_hidden_state = output.last_hidden_state * math.nan
        return output

    trainer.model.base_model.register_forward_hook(spoil)
    before, after, log = poisoned(trainer, 2)
    assert torch.equal(before, after)
    assert column(log, "update/refused") == [0.0, 1.0, 0.0, 0.0]
    assert torch.isfinite(weights(trainer)).all()
    assert not torch.equal(after, weights(trainer))


def test_infinite_rewards_count_as_none(tmp_path: Path) -> None:
    def exploding(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [math.inf if index == 5 else float(index) for index in range(len(completion_ids))]

    trainer, log = train("dapo", tmp_path, reward_funcs=exploding, max_steps=1)
    assert column(log, "group/unscorable_fraction") == [0.5]
    assert column(log, "advantage/nonzero_fraction") == [0.5]
    assert torch.isfinite(weights(trainer)).all()


def test_a_step_without_a_token_is_refused(tmp_path: Path) -> None:
    trainer = build("dapo", tmp_path, mask_truncated_completions=True, max_completion_length=1, max_steps=1)
    trainer.eos_token_ids = [1]
    trainer.generation_config.eos_token_id = [1]
    before, after, log = poisoned(trainer, 1)
    assert torch.equal(before, after)
    assert column(log, "update/refused") == [1.0]


def test_rejects_a_token_the_model_does_not_have(tmp_path: Path) -> None:
    def rollout(texts: list[str], trainer: Any) -> dict[str, Any]:
        ids = [trainer.processing_class(text).input_ids for text in texts]
        return {"prompt_ids": ids, "completion_ids": [[259]] * len(texts), "logprobs": [[-5.0]] * len(texts)}

    trainer = build("dapo", tmp_path, rollout_func=rollout)
    with pytest.raises(BatchError, match="token id 259; expected ids below the model's vocabulary of 259"):
        trainer.train()


@pytest.mark.parametrize("objective", ["dapo", "grpo", "gspo(clip_low=0.9,clip_high=9.0)", "bapo"])
def test_an_empty_response_counts_for_nothing(tmp_path: Path, objective: str) -> None:
    # One response of each group is empty, as a rollout function may return it; its reward still is one of the group.
    def rollout(texts: list[str], trainer: Any) -> dict[str, Any]:
        ids = [trainer.processing_class(text).input_ids for text in texts]
        written = [[] if place % 4 == 0 else [60 + place, 61, 62 + place] for place in range(len(texts))]
        return {"prompt_ids": ids, "completion_ids": written, "logprobs": [[-5.0] * len(row) for row in written]}

    trainer, log = train(objective, tmp_path, rollout_func=rollout)
    assert column(log, "update/refused") == [0.0] * 4
    assert min(column(log, "grad_norm")) > 1e-3
    assert log[0]["completions/empty_fraction"] == 0.25
    # Eight responses a step, two of them empty.
    assert int(trainer.optimiser_step.counts["sequence_count"]) == 6
    assert int(trainer.optimiser_step.counts["token_count"]) == 18
    assert torch.isfinite(weights(trainer)).all()


def test_cudnns_attention_is_left_out_while_training_and_only_then(tmp_path: Path) -> None:
    allowed: list[bool] = []

    def note(completion_ids: list[list[int]], **settings: Any) -> list[float]:
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        return reward(completion_ids, **settings)

    before = torch.backends.cuda.cudnn_sdp_enabled()
    train("dapo", tmp_path, reward_funcs=note, max_steps=1)
    assert allowed == [False]
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_padding_before_prompts_leaves_gradients_finite_on_cuda(tmp_path: Path) -> None:
    # Prompts of 4 to 6 tokens and responses of 58: a padded length of 64.
    data = Dataset.from_dict({"prompt": [f"{number}+{number + 3}=" for number in range(5, 13)]})
    _, log = train(
        "dapo",
        tmp_path,
        data=data,
        use_cpu=False,
        bf16=True,
        max_completion_length=58,
        generation_kwargs={"min_new_tokens": 58},
    )
    assert column(log, "update/refused") == [0.0] * 4
    assert min(column(log, "grad_norm")) > 0


# -- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", [3, 5])
def test_a_resumed_run_continues_with_the_same_numbers(tmp_path: Path, checkpoint: int) -> None:
    # Four prompts: an epoch is two generations of two updates. Step 3 is in the middle of a generation, step 5 in the
    # second epoch.
    settings = {"data": prompts(4), "max_steps": 7, "save_strategy": "steps", "save_steps": 1, "dynamic_sampling": 2}
    whole, expected = train("dcpo", tmp_path, **settings)
    resumed, actual = train("dcpo", tmp_path, resume=str(tmp_path / f"checkpoint-{checkpoint}"), **settings)
    later = [entry for entry in actual if entry["step"] > checkpoint]
    assert len(later) == 7 - checkpoint
    for name in ("loss", "grad_norm", "reward", "advantage/mean", "ratio/max"):
        kept = [entry[name] for entry in expected[checkpoint:] if name in entry]
        assert [entry[name] for entry in later if name in entry] == kept
    assert torch.equal(weights(whole), weights(resumed))
    state, other = whole.sampling.estimate.state_dict(), resumed.sampling.estimate.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_rejects_a_checkpoint_of_another_objective(tmp_path: Path) -> None:
    train("dapo", tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    trainer = build("grpo", tmp_path)
    with pytest.raises(ConfigError, match=r"checkpoint-1 belongs to dapo with .*; this run is grpo with"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_rejects_a_checkpoint_of_another_trainer(tmp_path: Path) -> None:
    train(None, tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    trainer = build("dapo", tmp_path)
    with pytest.raises(ConfigError, match=r"checkpoint-1 has no objective\.json"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_a_checkpoint_has_to_be_whole(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 1, "num_iterations": 1}
    train("dapo", tmp_path, max_steps=3, save_total_limit=2, **settings)
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}
    (tmp_path / "checkpoint-3" / "optimizer.pt").unlink()
    with pytest.raises(ConfigError, match=r"cannot resume from .*checkpoint-3: optimizer\.pt is missing"):
        build("dapo", tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    # With a limit of one, the older one goes only when the new one is whole.
    trainer, _ = train("dapo", tmp_path, resume=True, max_steps=3, save_total_limit=1, **settings)
    assert trainer.state.global_step == 3
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-3"}


def test_the_older_checkpoint_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def note(folder: Path) -> None:
        seen.append({path.name for path in tmp_path.glob("checkpoint-*")})
        folders.seal(folder)

    monkeypatch.setattr("testbed.engines.trl.trainer.seal", note)
    train("dapo", tmp_path, max_steps=3, save_total_limit=1, save_strategy="steps", save_steps=1)
    assert seen == [{"checkpoint-1"}, {"checkpoint-1", "checkpoint-2"}, {"checkpoint-2", "checkpoint-3"}]


def test_rejects_resuming_without_a_checkpoint(tmp_path: Path) -> None:
    trainer = build("dapo", tmp_path)
    with pytest.raises(ConfigError, match="has no checkpoint that is whole; start without resuming"):
        trainer.train(resume_from_checkpoint=True)


def test_a_checkpoint_names_its_objective(tmp_path: Path) -> None:
    train("erc(base=gppo)", tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    label = json.loads((tmp_path / "checkpoint-1" / "objective.json").read_text())
    assert label == {"objective": "erc(base=gppo)", "advantage": "group_standardised"}


def test_a_memory_of_prompts_survives_another_order_of_the_data() -> None:
    names = {"prompt": ["1+1=", "2+2=", "3+3="], "prompt_id": ["a", "b", "c"]}
    numbers = PromptNumbers(Dataset.from_dict(names), needed=True)
    state = {"visits": torch.tensor([5.0, 7.0])}
    # Saved when the data set was c, a and a fourth prompt that is gone; the fourth had not been seen.
    assert numbers.renumbered(["c", "a", "gone"], state)["visits"].tolist() == [7.0, 0.0, 5.0]


# -- contradictions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "settings", "message"),
    [
        ("dapo", {"epsilon": 0.1}, r"epsilon=0\.1 would have no effect: the loss is dapo"),
        ("dapo", {"loss_type": "grpo"}, "loss_type='grpo' would have no effect"),
        ("dapo", {"scale_rewards": "none"}, "scale_rewards='none' would have no effect"),
        ("dapo", {"beta": 0.04}, r"Use reference_kl\(base=dapo,coefficient=0\.04\)"),
        ("dapo", {"steps_per_generation": 3}, "not a multiple of gradient_accumulation_steps=2"),
        ("importance_correction", {}, "corrects for a sampler with other probabilities"),
        ("dapo", {"top_p": 0.9}, r"with top_p=0\.9 responses come from another distribution.*correction\(base=dapo\)"),
        ("dapo", {"generation_kwargs": {"top_k": 3}}, "with top_k=3 responses come from another distribution"),
        ("dapo", {"generation_kwargs": {"temperature": 0.5}}, "generation_kwargs sets temperature"),
        ("dapo", {"stop": ["x"], "mask_truncated_completions": True}, "would leave out every response that a stop"),
        ("dapo", {"stop": ["x"], "rollout_func": print}, "stop has no effect beside a rollout_func"),
        ("dapo", {"stop": [""]}, "a stop string is ''"),
        ("dapo", {"data": prompts().select([])}, "train_dataset is empty"),
        ("dapo", {"data": prompts().select([0])}, "a rollout takes 2 prompts and train_dataset has 1"),
        ("dapo", {"data": prompts().to_iterable_dataset(), "dynamic_sampling": 2}, "streamed data set"),
        ("dcpo", {"data": prompts().to_iterable_dataset()}, "streamed data set"),
        ("dapo", {"advantage": "group_centred(epsilon=1)"}, "group_centred has no parameter 'epsilon'"),
        ("dapo", {"dynamic_sampling": 0}, "dynamic_sampling is 0; expected at least 1 round"),
        ("dapo", {"overlong_cache": 9}, "cache is 9 for a max_length of 8"),
        ("dapo", {"routing_replay": True, "dynamic_sampling": 2}, "routing_replay holds the choice of experts"),
    ],
)
def test_rejects_contradictions(tmp_path: Path, objective: str, settings: dict[str, Any], message: str | None) -> None:
    if message is None:
        build(objective, tmp_path, **settings)
        return
    with pytest.raises(ConfigError, match=message):
        build(objective, tmp_path, **settings)


def test_estimators_and_objectives_are_told_lengths_and_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two prompts of four responses, shuffled by TRL: whose response is whose is told by the prompt's tokens.
    seen: list[tuple[Any, Any]] = []
    honest = optimiser_step.token_batch

    def watched(inputs: Any, *arguments: Any, **settings: Any) -> TokenBatch:
        batch = honest(inputs, *arguments, **settings)
        seen.append((inputs["prompt_ids"].tolist(), batch.groups))
        return batch

    monkeypatch.setattr(optimiser_step, "token_batch", watched)
    monkeypatch.setattr("testbed.engines.trl.trainer.token_batch", watched)
    trainer = build("real", tmp_path, advantage="opo", max_steps=1)
    trainer.train()
    assert math.isfinite(trainer.state.log_history[0]["loss"])
    assert seen
    for tokens, groups in seen:
        texts = [tuple(row) for row in tokens]
        assert [[first == second for second in texts] for first in texts] == (groups[:, None] == groups).tolist()
