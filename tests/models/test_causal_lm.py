"""Language models built offline: sizes, tokenizers, sampling, warm start, and the replay of routing."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models import causal_lm
from models.causal_lm import (
    CORPUS_FILE,
    SIZES,
    TOKENIZER_FILE,
    complete,
    load_causal_lm,
    load_tokenizer,
    record_routing,
    replay_routing,
    train_tokenizer,
    warm_start,
)
from models.stopping import StopStrings
from testbed.errors import BatchError, ConfigError, TestbedError, UnknownNameError

DATA = Path(os.environ.get("TESTBED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
TEXTS = [
    "7*(3-5)=7*-2\n#### -14",
    "  spaces\n\n\ttabs , and . stops !",
    "Janet’s ducks: 16 − 3 ≠ 12 → \\boxed{\\frac{1}{2}} 🦆",
    "",
    "don't it's 1,234.50 $5 50%",
]


@dataclass(frozen=True)
class Worked:
    prompt: str
    answer: str
    solution: str


SUMS = [Worked(f"{a}+{b}=", str(a + b), f"#### {a + b}") for a, b in itertools.product(range(8), range(8))]


def correct(responses: Sequence[str], answers: Sequence[str]) -> list[bool]:
    return [response == f"#### {answer}" for response, answer in zip(responses, answers, strict=True)]


# -- models by name ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SIZES))
def test_size_has_the_parameters_its_name_says(name: str) -> None:
    with torch.device("meta"):
        model = load_causal_lm(name).model
    millions = float(name.rpartition("-")[2].removesuffix("m"))
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(1e6 * millions, rel=0.15)


def test_parameters_by_hand() -> None:
    # Tied embedding 259·64; two layers of queries and output 64·64 (queries with bias 64), keys and values 64·32 with
    # bias 32, three matrices 64·160, two norms of 64; one norm at the end.
    layer = 2 * 64 * 64 + 64 + 2 * (64 * 32 + 32) + 3 * 64 * 160 + 2 * 64
    model = load_causal_lm("qwen2-0.1m").model
    assert sum(parameter.numel() for parameter in model.parameters()) == 259 * 64 + 2 * layer + 64


def test_seed_decides_the_weights_and_nothing_else_changes() -> None:
    state = torch.random.get_rng_state()
    first, second, other = (load_causal_lm("qwen2-0.1m", seed=seed).model.state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])


def test_initial_model_is_nearly_uniform() -> None:
    model, tokenizer = load_causal_lm("qwen2-0.1m")
    tokens = tokenizer(["12+34=46"], return_tensors="pt").input_ids
    entropy = torch.distributions.Categorical(logits=model(tokens).logits).entropy().mean().item()
    # Random logits of standard deviation s cost about s²/2 nats of the most there can be.
    assert math.log(259) - 0.6 < entropy < math.log(259)


def test_fields_can_be_overridden() -> None:
    model, tokenizer = load_causal_lm("qwen2-0.1m(num_hidden_layers=1,tokenizer=bpe)", dtype="bfloat16")
    assert len(model.model.layers) == 1
    assert (model.config.vocab_size, len(tokenizer)) == (1024, 1024)
    assert model.dtype == torch.bfloat16


def test_transformers_configuration() -> None:
    import transformers

    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model, tokenizer = load_causal_lm(transformers.LlamaConfig(vocab_size=300, num_key_value_heads=2, **shape))
    assert type(model).__name__ == "LlamaForCausalLM"
    assert len(tokenizer) == 259
    with pytest.raises(ConfigError, match="vocab_size 100, its tokenizer 259 tokens; raise vocab_size"):
        load_causal_lm(transformers.LlamaConfig(vocab_size=100, num_key_value_heads=2, **shape))


def test_saved_model_and_tokenizer_come_back(tmp_path: Path) -> None:
    model, tokenizer = load_causal_lm("qwen3-moe-0.1m", seed=5)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, again_tokenizer = load_causal_lm(tmp_path)
    tokens = tokenizer(["1+1="], return_tensors="pt").input_ids
    assert torch.equal(model(tokens).logits, again(tokens).logits)
    for text in TEXTS:
        assert again_tokenizer.encode(text) == tokenizer.encode(text)
    assert (again_tokenizer.eos_token, again_tokenizer.pad_token) == ("<|im_end|>", "<|pad|>")
    assert not again.training


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("qwen2-0.2m", UnknownNameError, "unknown model 'qwen2-0.2m'; did you mean 'qwen2-0.1m'"),
        ("qwen2-0.1m(hidden=32)", UnknownNameError, "unknown field of qwen2-0.1m 'hidden'; did you mean 'hidden_size'"),
        ("./nowhere", ConfigError, r"there is no folder '\./nowhere'"),
    ],
)
def test_rejects_names(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_causal_lm(name)


def test_rejects_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot load the model .* from the folder"):
        load_causal_lm(tmp_path)


def test_rejects_unknown_tokenizers() -> None:
    with pytest.raises(UnknownNameError, match="unknown tokenizer 'characters'; did you mean 'character'"):
        load_tokenizer("characters")


def test_hub_name_without_network_is_one_sentence_in_time() -> None:
    # A process of its own: whether the hub is offline is read when its client is imported.
    code = (
        "import time, transformers; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "from models.causal_lm import load_causal_lm\n"
        "from testbed.errors import ConfigError\n"
        "started = time.perf_counter()\n"
        "try: load_causal_lm('Qwen/Qwen2.5-0.5B')\n"
        "except ConfigError as error: print(time.perf_counter() - started, error)\n"
    )
    # A port that nothing listens on stands for a network that is not there.
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    seconds, _, sentence = done.stdout.partition(" ")
    assert float(seconds) < 5
    for word in ("model 'Qwen/Qwen2.5-0.5B'", "offline", "HF_HOME", "cpu-smoke, cpu-moe, gpu-arithmetic"):
        assert word in sentence


# -- tokenizers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["character", "bpe"])
def test_round_trip_is_exact(name: str) -> None:
    tokenizer = load_tokenizer(name)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize("name", ["character", "bpe"])
def test_special_tokens_and_digits(name: str) -> None:
    tokenizer = load_tokenizer(name)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 2)
    assert tokenizer("<|im_start|>1234<|im_end|>").input_ids[0::5] == [1, 2]
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]
    padded = tokenizer(["1", "123"], padding=True)
    assert padded.attention_mask == [[0, 0, 1], [1, 1, 1]]


def test_character_tokenizer_has_a_token_per_byte() -> None:
    tokenizer = load_tokenizer("character")
    assert len(tokenizer) == 256 + 3
    assert tokenizer.tokenize("a b\n") == ["a", "Ġ", "b", "Ċ"]
    # Every byte that occurs in UTF-8 has its own token.
    text = "".join(map(chr, [*range(128), 0x7FF, 0xFFFD, 0x10FFFF]))
    assert len(tokenizer(text).input_ids) == len(text.encode())
    assert max(tokenizer(text).input_ids) < 259


def test_chat_template_by_hand() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    text = load_tokenizer("bpe").apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"


def test_shipped_tokenizer_has_its_checksum() -> None:
    lines = TOKENIZER_FILE.with_name("SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    for path in (TOKENIZER_FILE, CORPUS_FILE):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[path.name]


def test_shipped_tokenizer_is_what_its_corpus_gives() -> None:
    shipped = json.loads(TOKENIZER_FILE.read_text(encoding="utf-8"))
    trained = json.loads(train_tokenizer(CORPUS_FILE.read_text(encoding="utf-8")))
    assert trained["model"]["vocab"] == shipped["model"]["vocab"]
    assert trained["model"]["merges"] == shipped["model"]["merges"]


@pytest.mark.data
@pytest.mark.parametrize("name", ["character", "bpe"])
def test_round_trip_on_gsm8k(name: str) -> None:
    path = DATA / "gsm8k_test.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is absent; set TESTBED_DATA to the folder that has it")
    tokenizer = load_tokenizer(name)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    texts = [f"{row['question']}\n{row['answer']}" for row in rows]
    assert tokenizer.batch_decode(tokenizer(texts).input_ids) == texts


# -- completions ---------------------------------------------------------------------------------------------------


def test_completions_depend_on_the_seed_alone() -> None:
    model, tokenizer = load_causal_lm("qwen2-0.1m")
    model.train()
    state = torch.random.get_rng_state()
    first, second, other = (
        complete(model, tokenizer, ["1+1=", "12+34="], max_new_tokens=8, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second != other
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert all(completion.tokens == 8 or completion.finished for completion in first)


def test_sampling_covers_the_whole_distribution() -> None:
    # Uniform over 259 tokens: of 2,000 first tokens, 258.9 different ones are expected (259·(1-(1-1/259)^2000)), and a
    # top-k of 50, transformers' default, would leave 50.
    model, tokenizer = load_causal_lm("qwen2-0.1m")
    torch.nn.init.zeros_(model.model.norm.weight)
    texts = {c.text for c in complete(model, tokenizer, ["1="] * 2000, max_new_tokens=1, seed=0)}
    # Bytes that are no text by themselves all read as the same replacement character.
    assert len(texts) > 120


def test_greedy_takes_the_most_probable_token_by_a_plain_loop() -> None:
    model, tokenizer = load_causal_lm("qwen2-0.1m", seed=1)
    tokens: list[int] = tokenizer("12+34=").input_ids
    length = len(tokens)
    for _ in range(6):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    # Next to a longer prompt, so that padding has to be invisible.
    completion = complete(model, tokenizer, ["12+34=", "1+2+3+4+5="], max_new_tokens=6, temperature=0)[0]
    assert (completion.text, completion.tokens, completion.finished) == (tokenizer.decode(tokens[length:]), 6, False)


def test_end_token_ends_a_completion() -> None:
    tokenizer = load_tokenizer("character")
    seven, end, pad, never = tokenizer("7").input_ids[0], 2, 0, StopStrings(tokenizer, [])
    assert causal_lm._read([seven, end, pad, pad], [end], never, tokenizer) == ("7", 2, True, (seven, end))
    assert causal_lm._read([seven, seven], [end], never, tokenizer) == ("77", 2, False, (seven, seven))
    assert causal_lm._read([end, pad], [end], never, tokenizer) == ("", 1, True, (end,))


def test_rejects_settings_of_completions() -> None:
    model, tokenizer = load_causal_lm("qwen2-0.1m")
    with pytest.raises(ConfigError, match="got 0 prompts"):
        complete(model, tokenizer, [], max_new_tokens=4)
    with pytest.raises(ConfigError, match="temperature -1"):
        complete(model, tokenizer, ["1"], max_new_tokens=4, temperature=-1)


# -- warm start ----------------------------------------------------------------------------------------------------


def test_warm_start_ends_in_its_range_and_repeats() -> None:
    results = []
    for _ in range(2):
        model, tokenizer = load_causal_lm("qwen2-0.1m")
        start = warm_start(model, tokenizer, SUMS, correct=correct, target=0.1, max_new_tokens=10)
        assert 0.1 <= start.success <= 0.5
        assert start.interval[0] < start.success < start.interval[1]
        assert (start.samples, start.steps % 20, model.training) == (256, 0, False)
        results.append((start.history, model.lm_head.weight.clone()))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_warm_start_goes_back_when_it_passes_the_ceiling() -> None:
    # The third and fourth measurement are beyond the ceiling; each is undone and followed by smaller steps.
    script = iter([0.0, 0.1, 0.9, 0.8, 0.3])
    weights: list[Tensor] = []
    model, tokenizer = load_causal_lm("qwen2-0.1m")

    def grade(responses: Sequence[str], answers: Sequence[str]) -> list[bool]:
        weights.append(model.lm_head.weight.detach().clone())
        right = round(next(script) * len(responses))
        return [place < right for place in range(len(responses))]

    start = warm_start(model, tokenizer, SUMS[:16], correct=grade, check_every=2, max_new_tokens=2, batch_size=8)
    assert [step for step, _, _ in start.history] == [2, 4, 6, 8, 10]
    overshoot, again, last = (torch.dist(weights[place], weights[1]).item() for place in (2, 3, 4))
    assert overshoot > 2 * again > 4 * last > 0


def test_supervised_loss_counts_the_solution_only() -> None:
    # Uniform logits: log 259 nats for every token of a solution, whatever the prompt and the padding.
    model, _ = load_causal_lm("qwen2-0.1m")
    torch.nn.init.zeros_(model.model.norm.weight)
    loss = causal_lm._supervised_loss(model, 0, [([5, 6, 7], [8, 2]), ([5], [2])])
    assert loss.item() == pytest.approx(math.log(259), rel=1e-6)  # float32
    # Against a plain loop over the solution's tokens, without padding.
    model, _ = load_causal_lm("qwen2-0.1m", seed=2, dtype="float64")
    rows = [([5, 6, 7], [8, 2]), ([5], [9, 9, 2])]
    parts = []
    for prompt, solution in rows:
        log_probs = model(torch.tensor([prompt + solution])).logits[0].log_softmax(-1)
        parts += [-log_probs[len(prompt) - 1 + place, token] for place, token in enumerate(solution)]
    # The loss is taken in float32.
    assert causal_lm._supervised_loss(model, 0, rows).item() == pytest.approx(
        torch.stack(parts).mean().item(), rel=1e-6
    )


def test_wilson_interval() -> None:
    # Brown, Cai and DasGupta (2001): 95 % for 0 of 10 is (0, z²/(10+z²)) = (0, 0.27753).
    low, high = causal_lm._wilson(0.0, 10)
    assert low == 0.0
    assert high == pytest.approx(3.841458820694124 / 13.841458820694124, rel=1e-9)
    low, high = causal_lm._wilson(0.5, 100)
    assert low + high == pytest.approx(1.0, rel=1e-12)


def test_rejects_warm_starts() -> None:
    model, tokenizer = load_causal_lm("qwen2-0.1m")
    with pytest.raises(ConfigError, match="expected 0 < target < ceiling <= 1"):
        warm_start(model, tokenizer, SUMS, correct=correct, target=0.6)
    with pytest.raises(ConfigError, match="1 of 2 problems have no worked solution, the first: '1='"):
        warm_start(model, tokenizer, [SUMS[0], Worked("1=", "1", "")], correct=correct)
    with pytest.raises(ConfigError, match="there are no problems to learn from"):
        warm_start(model, tokenizer, [], correct=correct)
    with pytest.raises(ConfigError, match="probes is empty"):
        warm_start(model, tokenizer, SUMS, correct=correct, probes=[])


def test_warm_start_says_when_it_fails() -> None:
    model, tokenizer = load_causal_lm("qwen2-0.1m")
    with pytest.raises(TestbedError, match=r"reached a success of 0\.0% in 2 steps, expected 30% to 50%"):
        warm_start(model, tokenizer, SUMS[:8], correct=correct, max_steps=2, max_new_tokens=2)
    torch.nn.init.constant_(model.model.norm.weight, math.nan)
    with pytest.raises(TestbedError, match="the supervised loss is nan at step 1"):
        warm_start(model, tokenizer, SUMS[:8], correct=correct, max_steps=2)


# -- routing replay ------------------------------------------------------------------------------------------------


def mixture(**settings: Any) -> Any:
    return load_causal_lm("qwen3-moe-0.1m", dtype="float64", seed=3, **settings).model


TOKENS = torch.randint(3, 259, (6, 12), generator=torch.Generator().manual_seed(0))


def log_probs(model: Any, tokens: Tensor = TOKENS) -> Tensor:
    scores = model(input_ids=tokens[:, :-1]).logits.log_softmax(-1)
    return scores.gather(-1, tokens[:, 1:, None]).squeeze(-1)


def perturb(model: Any, names: str, scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if names in name:
                parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def test_recorded_experts_are_the_router_s_best() -> None:
    model = mixture()
    with record_routing(model) as routing:
        hidden = model(input_ids=TOKENS, output_router_logits=True).router_logits
    assert routing.experts.shape == (6, 12, 2, 2)
    for layer, logits in enumerate(hidden):
        best = logits.view(6, 12, -1).topk(2).indices
        assert torch.equal(routing.experts[:, :, layer].sort().values, best.sort().values)


def test_replay_with_unchanged_weights_changes_nothing() -> None:
    model = mixture()
    with torch.no_grad(), record_routing(model) as routing:
        old = log_probs(model)
    with replay_routing(model, routing.experts):
        replayed = log_probs(model)
    torch.testing.assert_close(replayed, old, rtol=1e-12, atol=0)
    # The hooks are gone.
    assert torch.equal(log_probs(model), old)


def test_replay_narrows_the_ratio_after_the_router_moved() -> None:
    model = mixture()
    with torch.no_grad():
        with record_routing(model) as routing:
            old = log_probs(model)
        perturb(model, "gate.weight", 0.1)
        with record_routing(model) as moved:
            free = (log_probs(model) - old).abs()
        with replay_routing(model, routing.experts):
            held = (log_probs(model) - old).abs()
    # Vacuity guard: the perturbation did send tokens elsewhere, and did change the policy.
    assert (moved.experts.sort().values != routing.experts.sort().values).any(-1).double().mean() > 0.2
    assert held.mean() > 1e-4
    assert held.mean() < 0.7 * free.mean()
    assert held.max() < free.max()


def test_replayed_choice_is_used_with_the_current_router_s_weights() -> None:
    # One layer by hand: the experts' outputs, weighted by the softmax renormalised over the recorded two.
    model = mixture()
    block = model.model.layers[0].mlp
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(1, 3, 48, generator=generator, dtype=torch.float64)
    chosen = torch.tensor([[[[5, 1], [0, 0]], [[2, 7], [0, 0]], [[3, 4], [0, 0]]]])
    with replay_routing(model, chosen):
        output = block(hidden)
    for place in range(3):
        x = hidden[0, place]
        scores = torch.softmax(block.gate.weight @ x, -1)
        expected = torch.zeros(48, dtype=torch.float64)
        for expert in chosen[0, place, 0].tolist():
            gate, up = (block.experts.gate_up_proj[expert] @ x).chunk(2)
            share = scores[expert] / scores[chosen[0, place, 0]].sum()
            expected += share * (block.experts.down_proj[expert] @ (torch.nn.functional.silu(gate) * up))
        # The router's softmax is taken in float32, as the model's own is.
        torch.testing.assert_close(output[0, place], expected, rtol=1e-5, atol=1e-7)


def test_gradient_reaches_the_router_and_survives_checkpointing() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = mixture().train()
        with torch.no_grad(), record_routing(model) as routing:
            log_probs(model)
        perturb(model, "gate.weight", 0.1)
        if checkpointing:
            # The first is the name from transformers 5.2x on.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        with replay_routing(model, routing.experts):
            log_probs(model).sum().backward()
        gradients.append(model.model.layers[0].mlp.gate.weight.grad)
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-12)


def test_recorded_chunks_and_replayed_slices_line_up() -> None:
    model = mixture()
    with torch.no_grad():
        with record_routing(model) as whole:
            old = log_probs(model)
        with record_routing(model) as chunks:
            log_probs(model, TOKENS[:4])
            log_probs(model, TOKENS[4:])
        assert torch.equal(chunks.experts, whole.experts)
        with replay_routing(model, whole.experts[2:5]):
            torch.testing.assert_close(log_probs(model, TOKENS[2:5]), old[2:5], rtol=1e-12, atol=0)


def test_rejects_routing() -> None:
    model = mixture()
    with (
        pytest.raises(ConfigError, match="Qwen2ForCausalLM has no router"),
        record_routing(load_causal_lm("qwen2-0.1m")[0]),
    ):
        pass
    with record_routing(model) as nothing:
        pass
    with pytest.raises(BatchError, match="expected at least one"):
        _ = nothing.experts
    with record_routing(model) as uneven:
        log_probs(model)
        log_probs(model, TOKENS[:, :5])
    with pytest.raises(BatchError, match=r"\(6, 11\), \(6, 4\)"):
        _ = uneven.experts
    short = torch.zeros(6, 5, 2, 2, dtype=torch.int64)
    with (
        pytest.raises(BatchError, match="66 tokens, padding included, and 30 were recorded"),
        replay_routing(model, short),
    ):
        log_probs(model)
    with (
        pytest.raises(BatchError, match=r"expected \(B, T, 2 layers, 2 experts\)"),
        replay_routing(model, short[..., :1]),
    ):
        pass


def test_transformers_is_not_imported_with_the_package() -> None:
    code = "import sys, models.causal_lm; print('transformers' in sys.modules, 'tokenizers' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False False\n"
