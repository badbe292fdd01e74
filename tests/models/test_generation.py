"""Generation that reads a prompt once: transformers' own tokens, however answers end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from models.causal_lm import load_causal_lm
from models.generation import distinct_prompts, generate
from testbed.errors import BatchError

SMALL: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}
MODELS: dict[str, Any] = {
    "qwen2": "qwen2-0.1m",
    "qwen3-moe": "qwen3-moe-0.1m",
    "llama": transformers.LlamaConfig(**SMALL),
    # Positions are learned, so that padding may not count.
    "gpt2": transformers.GPT2Config(vocab_size=259, n_embd=48, n_layer=2, n_head=4, n_positions=64),
}
PAD = 0
# Any of these ends an answer, so that a random model's answers have many lengths.
ENDS = list(range(2, 60))


def prompts(padded: bool = True) -> dict[str, Tensor]:
    """Ten rows of six columns: four, three, two and one to different prompts, with padding before two of those."""
    drawn = torch.randint(60, 250, (4, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(drawn)
    if padded:
        mask[1, :2] = 0
        mask[2, :1] = 0
    rows = torch.tensor([0, 1, 0, 2, 1, 3, 0, 2, 1, 0])
    return {"input_ids": drawn.masked_fill(mask == 0, PAD)[rows], "attention_mask": mask[rows]}


def settings(**given: Any) -> Any:
    neutral = {"do_sample": True, "top_k": 0} if given.get("do_sample", True) else {"do_sample": False}
    common = {"max_new_tokens": 12, "eos_token_id": ENDS, "pad_token_id": PAD}
    make: Any = transformers.GenerationConfig
    return make(**{**common, **neutral, **given})


def never(**_: Any) -> None:
    raise AssertionError("generate itself was asked")


def both(model: Any, config: Any, padded: bool = True, **given: Any) -> tuple[Tensor, Tensor]:
    """Tokens of transformers and ours from one state of the random numbers, which both leave alike."""
    results = []
    for write in (model.generate, lambda **asked: generate(model, otherwise=never, **asked)):
        torch.manual_seed(5)
        results.append(write(**prompts(padded), generation_config=config, **given))
        results.append(torch.get_rng_state())
    theirs, their_state, ours, our_state = results
    assert torch.equal(our_state, their_state)
    return ours, theirs


def test_prompts_are_told_apart_by_their_tokens_and_not_by_their_padding() -> None:
    ids = torch.tensor([[0, 4, 5], [3, 4, 5], [9, 4, 5], [3, 4, 5], [0, 4, 5]])
    mask = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]])
    # Rows 0 and 2 are 4 5, rows 1 and 3 are 3 4 5; the last has the same letters as row 0, but its 0 is a token.
    first, which = distinct_prompts(ids, mask)
    assert first[which].tolist() == [0, 1, 0, 1, 4]


# -- the tokens of transformers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    "asked",
    [{"do_sample": False, "eos_token_id": [250]}, {}, {"temperature": 0.6, "top_k": 40, "top_p": 0.9}, {"min_p": 0.5}],
)
def test_tokens_are_those_of_generate(name: str, padded: bool, asked: dict[str, Any]) -> None:
    ours, theirs = both(load_causal_lm(MODELS[name]).model, settings(**asked), padded)
    assert torch.equal(ours, theirs)
    assert ours.shape[1] > 8


def test_tokens_are_those_of_a_loop_without_cache() -> None:
    """Every row by itself, whole, at each token; numbers as torch.multinomial draws them for all rows."""
    model = load_causal_lm("qwen2-0.1m").model
    given = prompts()
    rows = [ids[mask.bool()].tolist() for ids, mask in zip(given["input_ids"], given["attention_mask"], strict=True)]
    answers: list[list[int]] = [[] for _ in rows]
    torch.manual_seed(5)
    with torch.no_grad():
        while not all(answer and answer[-1] in (*ENDS, PAD) for answer in answers) and len(answers[0]) < 12:
            logits = [
                model(torch.tensor([row + answer])).logits[0, -1] for row, answer in zip(rows, answers, strict=True)
            ]
            drawn = torch.multinomial(torch.stack(logits).div(0.8).softmax(1), 1)[:, 0].tolist()
            for answer, token in zip(answers, drawn, strict=True):
                ended = bool(answer) and answer[-1] in (*ENDS, PAD)
                answer.append(PAD if ended else token)
    torch.manual_seed(5)
    ours = generate(model, **given, generation_config=settings(temperature=0.8), otherwise=never)
    assert ours[:, 6:].tolist() == answers


def test_criteria_end_answers_and_processors_see_every_row() -> None:
    class Remembering:
        """Forbids each row the token it had two steps ago, which it has to remember by row."""

        def __init__(self) -> None:
            self.rows: list[int] = []

        def __call__(self, written: Tensor, scores: Tensor) -> Tensor:
            self.rows.append(len(scores))
            return scores.scatter(1, written[:, -2:-1], -torch.inf)

    def even(written: Tensor, scores: Any) -> Tensor:
        return (written[:, -1] % 4 == 0) & (written[:, -2] % 2 == 0)

    model = load_causal_lm("qwen2-0.1m").model
    process = Remembering()
    criteria = transformers.StoppingCriteriaList([even])
    processors = transformers.LogitsProcessorList([process])
    ours, theirs = both(model, settings(eos_token_id=[250]), stopping_criteria=criteria, logits_processor=processors)
    assert torch.equal(ours, theirs)
    assert set(process.rows) == {10}
    # Something ended before the limit.
    assert (ours[:, -1] == PAD).any()


# -- what is read ----------------------------------------------------------------------------------------------------


def test_a_prompt_is_read_once_and_answers_that_ended_no_more() -> None:
    model = load_causal_lm("qwen2-0.1m").model
    sizes: list[tuple[int, ...]] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape)))
    torch.manual_seed(5)
    written = generate(model, **prompts(), generation_config=settings(), otherwise=never)
    lengths = [next((i + 1 for i, t in enumerate(row) if t in ENDS), 12) for row in written[:, 6:].tolist()]
    assert sizes[0] == (4, 6)
    assert {columns for _, columns in sizes[1:]} == {1}
    held = 10
    for step, (rows, _) in enumerate(sizes[1:], start=1):
        running = sum(length > step for length in lengths)
        held = running if running <= 0.75 * held else held
        assert rows == held
    assert held < 10


# -- what generate itself does ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("qwen2", {"repetition_penalty": 1.2}),
        ("qwen2", {"num_beams": 2, "do_sample": False}),
        ("qwen2", {"no_repeat_ngram_size": 2}),
        ("qwen2", {"use_cache": False}),
        (transformers.Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=4, max_window_layers=1), {}),
        (transformers.Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]), {}),
    ],
)
def test_everything_else_is_left_to_generate(name: Any, asked: dict[str, Any]) -> None:
    model = load_causal_lm(MODELS.get(name, name) if isinstance(name, str) else name).model
    with pytest.raises(AssertionError, match="generate itself"):
        generate(model, **prompts(), generation_config=settings(**asked), otherwise=never)


def test_dropout_in_training_and_other_inputs_are_left_to_generate() -> None:
    model = load_causal_lm(MODELS["gpt2"]).model
    generate(model, **prompts(), generation_config=settings(), otherwise=never)
    with pytest.raises(AssertionError, match="generate itself"):
        generate(model.train(), **prompts(), generation_config=settings(), otherwise=never)
    other = {"inputs_embeds": torch.zeros(10, 6, 48)}
    with pytest.raises(AssertionError, match="generate itself"):
        generate(model.eval(), **prompts(), **other, generation_config=settings(), otherwise=never)


def test_what_the_models_own_configuration_asks_for_counts() -> None:
    model = load_causal_lm("qwen2-0.1m").model
    model.generation_config.repetition_penalty = 1.3
    with pytest.raises(AssertionError, match="generate itself"):
        generate(model, **prompts(), generation_config=settings(), otherwise=never)
    generate(model, **prompts(), generation_config=settings(repetition_penalty=1.0), otherwise=never)
    model.generation_config.repetition_penalty = model.generation_config.eos_token_id = None
    with pytest.raises(AssertionError, match="generate itself"):
        generate(model, **prompts(), generation_config=settings(eos_token_id=None), otherwise=never)


@pytest.mark.parametrize("sampled", [True, False])
def test_nan_is_an_error(sampled: bool) -> None:
    model = load_causal_lm("qwen2-0.1m").model
    with torch.no_grad():
        model.model.norm.weight[3] = torch.nan
    with pytest.raises(BatchError, match="NaN or infinite logits"):
        generate(model, **prompts(), generation_config=settings(do_sample=sampled), otherwise=never)
