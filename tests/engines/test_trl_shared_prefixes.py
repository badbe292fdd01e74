"""A prompt run once for all of its responses: what is packed, who sees whom, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.extras import needs

needs("trl")
needs("peft")

import transformers
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from trl.trainer.utils import add_fused_lm_head

from models.causal_lm import load_causal_lm
from testbed.engines.trl import shared_prefixes
from testbed.engines.trl.head import Kappas, use_own_head
from testbed.engines.trl.shared_prefixes import SharedPrefixes, pack, prompt_width
from testbed.errors import ConfigError
from tests.engines.test_trl import assert_same_steps, build, column, in_processes, note_gradients, prompts

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}
# The second layer sees four tokens back, fewer than a prompt has.
SLIDING: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
MODELS: dict[str, Any] = {
    "qwen2": "qwen2-0.1m",
    "qwen3-moe": "qwen3-moe-0.1m",
    "llama": transformers.LlamaConfig(**SMALL),
    "sliding": transformers.Qwen2Config(**SMALL, **SLIDING),
    # Scores are divided by another number than the root of the head's size.
    "gemma3": transformers.Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=5),
}


# -- what is packed --------------------------------------------------------------------------------------------------


def test_a_batch_in_which_nothing_is_scored_has_no_prompt() -> None:
    assert prompt_width(torch.full((2, 5), -100)) == 0
    assert prompt_width(torch.tensor([[-100, -100, -100, 8], [-100, -100, 7, 8]])) == 2


def test_who_sees_whom() -> None:
    # Prompts . 5 and . 5 and 6 7 of width 2, responses of 3 tokens, the last of which is not run.
    ids = torch.tensor([[0, 5, 1, 2, 3], [0, 5, 4, 0, 0], [6, 7, 8, 9, 1]])
    mask = torch.tensor([[0, 1, 1, 1, 1], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    packed = pack(ids, mask, 2)
    assert packed.ids.tolist() == [[0, 5, 6, 7, 1, 2, 4, 0, 8, 9]]
    assert packed.positions.tolist() == [[0, 1, 0, 1, 2, 3, 2, 3, 2, 3]]
    assert packed.which.tolist() == [0, 0, 1]
    of_prompts, of_responses = packed.masks()
    assert of_prompts is not None
    # Padding sees itself alone, and nobody sees it.
    assert of_prompts.int().tolist() == [[[[1, 0], [0, 1]]], [[[1, 0], [1, 1]]]]
    assert of_responses[0, 0].int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 1]]
    # The second token of the second response is padding.
    assert of_responses[1, 0].int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 1]]
    assert of_responses[2, 0].int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    # A window of two: the token itself and the one before it.
    assert packed.masks(2)[1][2, 0].int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]


def test_responses_side_by_side_see_their_prompt_and_not_each_other() -> None:
    # Two prompts of four tokens, two responses each of which two tokens are run: 2·2 are no more than 4.
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [9, 2, 3, 4, 1, 1, 1], [1, 2, 3, 4, 8, 9, 1], [9, 2, 3, 4, 2, 2, 2]])
    mask = torch.ones_like(ids)
    mask[2, 5:] = 0
    packed = pack(ids, mask, 4)
    assert packed.blocks == 2
    assert packed.order.tolist() == [0, 2, 1, 3]
    assert packed.ids.tolist() == [[1, 2, 3, 4, 9, 2, 3, 4, 5, 6, 8, 9, 1, 1, 2, 2]]
    assert packed.masks()[1][1, 0].int().tolist() == [
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0, 1, 0],
        [1, 1, 1, 1, 0, 0, 1, 1],
    ]
    # Within a window of three the last token sees the one before it and the prompt's last.
    assert packed.masks(3)[1][0, 0, 3].int().tolist() == [0, 0, 0, 1, 0, 0, 1, 1]
    assert pack(ids[:3], mask[:3], 4).blocks == 3


def test_a_window_shorter_than_a_prompt_needs_a_mask_without_padding_too() -> None:
    packed = pack(torch.arange(1, 6).expand(2, -1), torch.ones(2, 5), 3)
    assert packed.masks()[0] is None
    assert packed.masks(3)[0] is None
    narrow, _ = packed.masks(2)
    assert narrow is not None
    assert narrow[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]


def test_every_response_token_gets_the_state_before_it() -> None:
    ids = torch.tensor([[5, 6, 1, 2], [7, 8, 3, 4], [5, 6, 9, 2]])
    packed = pack(ids, torch.ones_like(ids), 2)
    # States are the tokens themselves: 6 then 1 predict the first response, 8 then 3 the second.
    assert packed.states(packed.ids.unsqueeze(-1))[..., 0].tolist() == [[6, 1], [8, 3], [6, 9]]


def test_masks_and_tokens_are_fewer_than_without_sharing() -> None:
    rows, width, length = 8, 6, 5
    ids = torch.arange(3, 3 + width + length).expand(rows, -1)
    mask = torch.ones_like(ids)
    mask[:, 0] = 0
    packed = pack(ids, mask, width)
    assert packed.counts.tolist() == [0.0] + [8.0] * 5 + [1.0] * 32
    # One prompt of 6 and eight responses of 4, since the last token of each predicts nothing.
    assert packed.ids.numel() == 6 + 8 * 4
    whole = rows * (width + length) ** 2
    assert sum(part.numel() for part in packed.masks() if part is not None) < whole / 2


# -- equality --------------------------------------------------------------------------------------------------------


def batch(rows: list[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Six responses to three prompts of width 10, of which one has four columns of padding; labels of the responses.

    Rows 0 and 1 share a prompt, and rows 3 to 5.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 250, (6, 16), generator=generator)
    ids[1, :10] = ids[0, :10]
    ids[4, :10] = ids[3, :10]
    ids[5, :10] = ids[3, :10]
    mask = torch.ones_like(ids)
    mask[3:, :4] = 0
    mask[1, 13:] = 0
    mask[4, 11:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :10] = -100
    return (ids, mask, labels) if rows is None else (ids[rows], mask[rows], labels[rows])


def scores(model: Any, asked: bool, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and the gradient of a sum of both with fixed weights."""
    ids, mask, labels = batch(rows)
    prefixes = SharedPrefixes(model, asked)
    use_own_head(model, 0.7, Kappas(), prefixes)
    output = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    weights = torch.randn(2, *output.log_probs.shape, generator=torch.Generator().manual_seed(1))
    (weights[0] * output.log_probs + weights[1] * output.entropy).sum().backward()
    gradient = torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])
    return output.log_probs.detach(), output.entropy.detach(), gradient


# Groups of two, one and three, each response with a copy of its prompt; two groups of two, side by side and mixed.
@pytest.mark.parametrize(("rows", "blocks"), [([0, 1, 2, 3, 4, 5], 6), ([3, 1, 4, 0], 2)])
@pytest.mark.parametrize("name", MODELS)
def test_scores_and_gradients_are_those_of_the_plain_batch(name: str, rows: list[int], blocks: int) -> None:
    model = load_causal_lm(MODELS[name]).model
    expected = scores(model, False, rows)
    shared = load_causal_lm(MODELS[name]).model
    actual = scores(shared, True, rows)
    assert pack(*batch(rows)[:2], 10).blocks == blocks
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.shape == theirs.shape
        assert theirs.norm() > 1
        assert (mine - theirs).norm() < 1e-6 * theirs.norm()
    # What is not packed is as it was, bit for bit.
    ids, mask, _ = batch()
    with torch.no_grad():
        assert torch.equal(
            shared(input_ids=ids, attention_mask=mask).logits, model(input_ids=ids, attention_mask=mask).logits
        )


@pytest.mark.parametrize(("width", "length"), [(48, 4), (16, 16), (8, 32)])
def test_what_is_kept_for_the_gradient_is_less(width: int, length: int) -> None:
    kept = []
    for asked in (False, True):
        model = load_causal_lm("qwen2-0.1m").model
        use_own_head(model, 1.0, Kappas(), SharedPrefixes(model, asked))
        ids = torch.randint(3, 250, (16, width + length), generator=torch.Generator().manual_seed(0))
        ids[:, :width] = ids[:1, :width]
        labels = ids.clone()
        labels[:, :width] = -100
        pieces: dict[int, int] = {}

        def note(value: Tensor, pieces: dict[int, int] = pieces) -> Tensor:
            storage = value.untyped_storage()
            pieces[storage.data_ptr()] = storage.nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            output = model(input_ids=ids, attention_mask=ids * 0 + 1, labels=labels, fused_lm_head=True)
        assert output.log_probs.requires_grad
        kept.append(sum(pieces.values()))
    assert kept[1] < kept[0]


@pytest.mark.parametrize("name", ["qwen3-moe", "mixtral"])
def test_the_load_of_experts_counts_a_prompt_once_per_response(name: str) -> None:
    results = []
    for asked in (False, True):
        small = transformers.MixtralConfig(**SMALL, num_local_experts=4)
        model = load_causal_lm(small if name == "mixtral" else MODELS[name]).model
        add_fused_lm_head(model, outputs=("log_probs", "entropy"))
        use_own_head(model, 1.0, Kappas(), SharedPrefixes(model, asked))
        ids, mask, labels = batch()
        given = {"input_ids": ids, "attention_mask": mask, "output_router_logits": True}
        output = model(**given, labels=labels, fused_lm_head=True)
        output.aux_loss.backward()
        gradient = torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])
        results.append((output.aux_loss.detach(), output.log_probs.detach(), gradient))
    for mine, theirs in zip(results[1], results[0], strict=True):
        assert (mine - theirs).norm() < 1e-5 * theirs.norm()
        assert theirs.norm() > 1e-3


def step_by_step(folder: Path, objective: str, **settings: Any) -> tuple[list[Tensor], list[dict[str, Any]]]:
    # Plain descent: Adam divides by the size of a gradient, and makes the rounding of small ones large.
    sizes = {"num_generations": 8, "max_steps": 2, "optim": "sgd", "learning_rate": 0.1}
    trainer = build(objective, folder, data=prompts(), **sizes, **settings)
    gradients = note_gradients(trainer)
    trainer.train()
    return gradients, [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        ("erc", {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1}),
        ("bapo", {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}),
        ("reference_kl(base=dapo)", {"per_device_train_batch_size": 8, "gradient_checkpointing": True}),
        ("grpo", {"per_device_train_batch_size": 8, "model": "qwen3-moe"}),
    ],
)
def test_training_is_that_without_sharing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str, settings: dict[str, Any]
) -> None:
    sizes: list[tuple[int, int]] = []
    original = shared_prefixes.pack

    def note(ids: Tensor, *given: Any, **settings: Any) -> Any:
        packed = original(ids, *given, **settings)
        sizes.append((packed.ids.numel(), ids.numel()))
        return packed

    def model() -> dict[str, Any]:
        name = settings.get("model")
        if name is None and not objective.startswith("reference"):
            return {}
        saved = tmp_path / "model"
        load_causal_lm(MODELS[name or "qwen2"]).model.save_pretrained(saved)
        return {"model": load_causal_lm(str(saved), tokenizer="character").model}

    # The prompts 0+3= to 15+18= have four to six tokens.
    expected, log = step_by_step(tmp_path, objective, **(settings | model()), shared_prefixes=False)
    monkeypatch.setattr(shared_prefixes, "pack", note)
    actual, shared_log = step_by_step(tmp_path, objective, **(settings | model()), shared_prefixes=True)
    assert len(sizes) > 2
    assert all(packed < plain for packed, plain in sizes[1:])
    assert len(actual) == len(expected) == 2
    for one, other in zip(actual, expected, strict=True):
        assert other.norm() > 1e-3
        assert (one - other).norm() < 1e-5 * other.norm()
    names = ["loss", "entropy/mean", "ratio/max"] + ["aux_loss"] * ("model" in settings)
    for name in names:
        torch.testing.assert_close(
            torch.tensor(column(shared_log, name)), torch.tensor(column(log, name)), rtol=1e-5, atol=1e-6
        )
    # The second update is one away from the policy that sampled.
    assert column(log, "ratio/max")[1] > 1.01


@pytest.mark.parametrize("settings", [{}, {"stop": ["7"]}, {"top_k": 9}])
def test_responses_are_those_of_generate(tmp_path: Path, settings: dict[str, Any]) -> None:
    def written(asked: bool) -> tuple[list[Any], int]:
        seen: list[Any] = []

        def note(completion_ids: list[list[int]], **_: Any) -> list[float]:
            seen.append(completion_ids)
            return [float(len(ids)) for ids in completion_ids]

        objective = "importance_correction(base=grpo)" if "top_k" in settings else "grpo"
        sizes = {"max_steps": 1, "reward_funcs": note}
        trainer = build(objective, tmp_path, shared_prefixes=asked, **sizes, **settings)
        read = []
        embedding = trainer.model.get_input_embeddings()
        embedding.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].numel()))
        trainer.train()
        assert "generate" not in vars(trainer.model)
        return seen, read[0]

    (plain, every), (shared, once) = written(False), written(True)
    assert shared == plain
    assert len({len(ids) for ids in plain[0]}) > 1
    # Eight responses to two prompts of one length.
    assert every == 4 * once


@pytest.mark.slow
def test_two_processes_that_share_give_the_gradient_of_one_that_does_not(tmp_path: Path) -> None:
    # Each process has some responses of a group and packs those behind the prompt.
    plain = in_processes(1, tmp_path, ["dapo", "bapo"], shared_prefixes=False)
    assert_same_steps(in_processes(2, tmp_path, ["dapo", "bapo"], shared_prefixes=True), plain)


def test_an_adapter_shares_too(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "peft_config": LoraConfig(r=2, target_modules=["q_proj"]),
        "max_steps": 2,
        "learning_rate": 1e-2,
    }
    logs = []
    for asked in (False, True):
        trainer = build("grpo", tmp_path, shared_prefixes=asked, **settings)
        trainer.train()
        logs.append([entry["grad_norm"] for entry in trainer.state.log_history if "loss" in entry])
    assert min(logs[0]) > 1e-4
    torch.testing.assert_close(torch.tensor(logs[1]), torch.tensor(logs[0]), rtol=1e-4, atol=0)


# -- where it does not pay, or cannot be -----------------------------------------------------------------------------


def packs(model: Any, asked: bool | None, ids: Tensor) -> bool:
    labels = ids.clone()
    labels[:, :4] = -100
    return SharedPrefixes(model, asked).packed(labels, {"input_ids": ids, "attention_mask": ids * 0 + 1}) is not None


def test_it_is_left_where_it_saves_less_than_a_tenth() -> None:
    model = load_causal_lm("qwen2-0.1m").model
    equal = torch.arange(3, 11).expand(2, -1)
    assert packs(model, None, equal)
    assert not packs(model, False, equal)
    different = equal + torch.tensor([[0], [1]])
    # Nothing is shared; of 2·8 tokens the last of each response is left out all the same, 14 of 16 = 0.875.
    longer = torch.arange(3, 33).expand(2, -1) + torch.tensor([[0], [1]])
    assert packs(model, None, different)
    assert not packs(model, None, longer)
    assert not packs(model, True, equal[:1])


def test_other_arguments_are_left_alone() -> None:
    ids = torch.arange(3, 11).expand(2, -1)
    labels = ids.clone()
    labels[:, :4] = -100
    prefixes = SharedPrefixes(load_causal_lm("qwen2-0.1m").model, True)
    given = {"input_ids": ids, "attention_mask": ids * 0 + 1}
    assert prefixes.packed(labels, {**given, "inputs_embeds": None}) is not None
    assert prefixes.packed(labels, {**given, "position_ids": ids}) is None


def eager() -> Any:
    model = load_causal_lm("qwen2-0.1m").model
    model.set_attn_implementation("eager")
    return model


def noisy() -> Any:
    return load_causal_lm(transformers.Qwen2Config(**SMALL, attention_dropout=0.1)).model


def convolving() -> Any:
    kinds = ["conv", "full_attention"]
    return load_causal_lm(transformers.Lfm2Config(**SMALL, layer_types=kinds)).model


def recurrent() -> Any:
    small: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 1, "state_size": 4, "vocab_size": 259}
    model = load_causal_lm(transformers.MambaConfig(**small)).model
    model.config._attn_implementation = "sdpa"
    return model


def mixing() -> Any:
    """Attention as it should be, and a last layer that looks at its neighbour: no configuration tells."""
    model = load_causal_lm("qwen2-0.1m").model
    model.model.norm.register_forward_hook(lambda module, inputs, output: output + output.roll(1, dims=1))
    return model


def with_virtual_tokens() -> Any:
    settings = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    return get_peft_model(load_causal_lm("qwen2-0.1m").model, settings)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (eager, "computed by eager"),
        (noisy, "dropout"),
        (convolving, "layers of conv"),
        (recurrent, "does not let its attention be replaced"),
        (mixing, "gives other results for packed prompts"),
        (with_virtual_tokens, "virtual tokens"),
    ],
)
def test_what_a_model_cannot_is_said_if_asked_for_and_left_otherwise(make: Any, sentence: str) -> None:
    model = make()
    assert not SharedPrefixes(model, None).enabled
    assert not SharedPrefixes(model, False).enabled
    with pytest.raises(ConfigError, match=sentence):
        SharedPrefixes(model, True)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"routing_replay": True, "model": "replayed"}, "routing_replay replays"),
        ({"cast_lm_head_to_fp32": True}, "head of this model"),
    ],
)
def test_what_the_trainers_settings_forbid(tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    def made() -> dict[str, Any]:
        if "model" not in settings:
            return settings
        return settings | {"model": load_causal_lm("qwen3-moe-0.1m").model}

    assert not build("grpo", tmp_path, **made()).shared_prefixes.enabled
    with pytest.raises(ConfigError, match=sentence):
        build("grpo", tmp_path, shared_prefixes=True, **made())
