"""Language models: any of transformers by name or path, and small ones built here that need no network.

Built models come with a tokenizer of this package and start from random weights; `warm_start` teaches them worked
solutions until they are right often enough for reinforcement learning to find something to reinforce. For mixtures of
experts, `record_routing` and `replay_routing` hold the choice of experts fixed across an update.

Nothing is imported from transformers until a model is asked for.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from models.generation import generate
from models.pretrained import PRETRAINED, check_gguf, dequantised, is_gguf
from models.prompts import adopt_tokens, encode_prompts, encode_solutions
from models.stopping import StopStrings
from testbed.errors import BatchError, ConfigError, TestbedError, UnknownNameError
from testbed.hub import hub_obstacle, offline_error
from testbed.registry import parse_call

__all__ = [
    "SIZES",
    "CausalLM",
    "Completion",
    "Routing",
    "WarmStart",
    "WorkedProblem",
    "check_available",
    "complete",
    "load_causal_lm",
    "load_tokenizer",
    "record_routing",
    "replay_routing",
    "train_tokenizer",
    "warm_start",
]

PAD, TURN_START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (PAD, TURN_START, END)
"""Tokens 0, 1 and 2 of the shipped tokenizers: padding, the start of a turn, the end of a turn or response."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

TOKENIZER_FILE = Path(__file__).parent / "tokenizers" / "bpe.json"
CORPUS_FILE = TOKENIZER_FILE.with_name("corpus.txt")


def _dense(hidden: int, layers: int, heads: int, intermediate: int, tokenizer: str = "character") -> dict[str, Any]:
    return {
        "model_type": "qwen2",
        "tokenizer": tokenizer,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "intermediate_size": intermediate,
    }


def _experts(
    hidden: int, layers: int, heads: int, intermediate: int, experts: int, chosen: int, tokenizer: str = "character"
) -> dict[str, Any]:
    return {
        **_dense(hidden, layers, heads, 4 * intermediate, tokenizer),
        "model_type": "qwen3_moe",
        "moe_intermediate_size": intermediate,
        "num_experts": experts,
        "num_experts_per_tok": chosen,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
    }


SIZES: dict[str, dict[str, Any]] = {
    "qwen2-0.1m": _dense(64, 2, 4, 160),
    "qwen2-0.5m": _dense(104, 4, 4, 256),
    "qwen2-1m": _dense(144, 4, 4, 448),
    "qwen2-5m": _dense(256, 7, 4, 768),
    "qwen2-10m": _dense(320, 8, 4, 960, "bpe"),
    "qwen2-25m": _dense(512, 8, 8, 1472, "bpe"),
    "qwen2-50m": _dense(640, 11, 10, 1792, "bpe"),
    "qwen2-100m": _dense(768, 15, 12, 2176, "bpe"),
    "qwen3-moe-0.1m": _experts(48, 2, 4, 32, 8, 2),
    "qwen3-moe-0.5m": _experts(96, 3, 4, 56, 8, 2),
    "qwen3-moe-1m": _experts(128, 4, 4, 64, 8, 2),
    "qwen3-moe-10m": _experts(256, 6, 4, 128, 16, 4, "bpe"),
    "qwen3-moe-50m": _experts(512, 7, 8, 256, 16, 4, "bpe"),
}
"""Architectures by name; the name says the family and roughly how many parameters there are."""


DTYPES = ("bfloat16", "float16", "float32", "float64")
"""What weights may be stored as."""


class CausalLM(NamedTuple):
    """A model and the tokenizer that goes with it."""

    model: Any
    """A transformers `PreTrainedModel` with a language-model head, in evaluation mode."""
    tokenizer: Any
    """A transformers fast tokenizer that pads on the left and has a padding token."""


def load_causal_lm(
    name: Any, *, tokenizer: str | None = None, seed: int = 0, dtype: str | torch.dtype = "float32", **settings: Any
) -> CausalLM:
    """A causal language model and its tokenizer.

    Args:
        name: a key of `SIZES`, also with fields of its configuration as in `qwen2-1m(hidden_size=96)`; a transformers
            configuration; the folder of a saved model; a key of `models.pretrained.PRETRAINED`, a GGUF file or a folder
            that holds one, dequantised when it is first asked for; or a name on the hub such as `Qwen/Qwen2.5-0.5B`.
        tokenizer: `character`, `bpe`, or a folder, GGUF file or hub name (`None`: the one that goes with the model, for
            a configuration `character`).
        seed: decides the initial weights of a model that is built; unused for one that is loaded.
        dtype: of the weights.
        settings: handed to transformers' `from_pretrained` for a model that is loaded.

    Raises:
        UnknownNameError: the name is neither of a size nor shaped like a path or a hub name.
        ConfigError: there is no such folder, the configuration has no such field, the hub is needed and out of reach
            (known within 5 seconds), or as `models.pretrained.check_gguf`.
        StorageError: as `models.pretrained.dequantised`.

    Example:
        >>> model, tokenizer = load_causal_lm("qwen2-0.1m")
        >>> tokenizer.decode(tokenizer("7*(3-5)=").input_ids)
        '7*(3-5)='
    """
    import transformers

    if isinstance(dtype, str) and dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    if isinstance(name, transformers.PretrainedConfig):
        return _build(name, load_tokenizer(tokenizer or "character"), seed, dtype)
    place = _place(str(name), dtype)
    stem, overrides = ("", {}) if place else parse_call(str(name))
    if stem in SIZES:
        size = {**SIZES[stem], **overrides}
        chosen = load_tokenizer(tokenizer or str(size.pop("tokenizer")))
        size.pop("tokenizer", None)
        return _build(_configuration(stem, size, chosen), chosen, seed, dtype)
    source = place or _source("model", str(name), [*SIZES, *PRETRAINED])
    with _loading("model", source) as local_files_only:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, local_files_only=local_files_only, **settings
        )
    chosen = load_tokenizer(tokenizer or source)
    with contextlib.suppress(ConfigError):
        # Without an end token it still can be asked for probabilities; whatever writes answers says what is missing.
        adopt_tokens(model, chosen)
    return CausalLM(model.eval(), chosen)


def _configuration(name: str, size: dict[str, Any], tokenizer: Any) -> Any:
    import transformers

    family = transformers.Qwen3MoeConfig if size["model_type"] == "qwen3_moe" else transformers.Qwen2Config
    defaults = family()
    unknown = [key for key in size if key != "model_type" and not hasattr(defaults, key)]
    if unknown:
        known = [key for key in [*SIZES[name], "initializer_range", "max_position_embeddings"] if key != "model_type"]
        raise UnknownNameError(f"field of {name}", unknown[0], known)
    with _building(name):
        settings = {
            "vocab_size": len(tokenizer),
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
            # Transformers' 0.02 is meant for a thousand dimensions; at the same scale narrow models hardly learn.
            "initializer_range": 0.6 / math.sqrt(size["hidden_size"]),
            **{key: value for key, value in size.items() if key != "model_type"},
        }
        return family(**settings)


@contextlib.contextmanager
def _building(name: str) -> Iterator[None]:
    """Turn whatever transformers raises over values that give no model into one sentence."""
    try:
        yield
    except TestbedError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(f"cannot build {name} with these values: {said}. Change the fields of the model") from error


def _build(configuration: Any, tokenizer: Any, seed: int, dtype: torch.dtype) -> CausalLM:
    import transformers

    if configuration.vocab_size < len(tokenizer):
        raise ConfigError(
            f"the configuration has vocab_size {configuration.vocab_size}, its tokenizer {len(tokenizer)} tokens; "
            "raise vocab_size"
        )
    with torch.random.fork_rng(devices=[]), _building(type(configuration).__name__):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(configuration)
    if dtype == torch.float64:
        # The grouped product that experts are computed with by default has no float64.
        model.set_experts_implementation("eager")
    return CausalLM(model.to(dtype).eval(), tokenizer)


# -- tokenizers ----------------------------------------------------------------------------------------------------


def load_tokenizer(name: str) -> Any:
    """A tokenizer: one of this package, or any of transformers by folder or hub name.

    Both of this package cover every text, split digits, and decode to exactly what was encoded.

    Args:
        name: `character`, one token per byte of UTF-8 and so one per character of plain text (259 tokens); `bpe`,
            byte-level pairs learned from `tokenizers/corpus.txt` (1,024 tokens); or a folder or hub name.

    Raises:
        UnknownNameError: the name is none of these.
        ConfigError: the hub is needed and out of reach.

    >>> load_tokenizer("character").tokenize("7+15")
    ['7', '+', '1', '5']
    """
    import transformers

    if name in ("character", "bpe"):
        from tokenizers import Tokenizer

        core = _byte_tokenizer() if name == "character" else Tokenizer.from_file(str(TOKENIZER_FILE))
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=core,
            eos_token=END,
            pad_token=PAD,
            padding_side="left",
            chat_template=CHAT_TEMPLATE,
            clean_up_tokenization_spaces=False,
            model_max_length=2048,
        )
    source = _place(name) or _source("tokenizer", name, ["character", "bpe", *PRETRAINED])
    with _loading("tokenizer", source) as local_files_only:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            source, padding_side="left", local_files_only=local_files_only
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _byte_tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    symbols = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={symbol: number for number, symbol in enumerate(symbols)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return core


def train_tokenizer(corpus: str, vocabulary: int = 1024) -> str:
    """The JSON text of a byte-level BPE tokenizer with single digits; the same corpus gives the same text.

    `tokenizers/bpe.json` is this function of `tokenizers/corpus.txt`, which was written for this project.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(corpus.split("\n"), trainer)
    return str(core.to_str(pretty=False))


def _place(name: str, dtype: torch.dtype = torch.float32) -> str | None:
    """The folder of a model that came as GGUF; `None` for any other."""
    return str(dequantised(name, str(dtype).removeprefix("torch."))) if is_gguf(name) else None


def _source(kind: str, name: str, known: list[str]) -> str:
    """A folder or something shaped like a hub name; anything else cannot be meant."""
    path = Path(name).expanduser()
    with contextlib.suppress(OSError):
        # A name may be too long to be one of a folder.
        if path.is_dir():
            return str(path)
    if name.startswith((".", "/", "~")):
        raise ConfigError(f"there is no folder {name!r}; expected that of a saved {kind}, or one of {', '.join(known)}")
    if name.count("/") > 1 or "/" not in name:
        raise UnknownNameError(kind, name, known)
    return name


@contextlib.contextmanager
def _loading(kind: str, source: str) -> Iterator[bool]:
    """Yield whether to look at this machine only, and turn the loader's failure into one sentence."""
    remote = not Path(source).is_dir()
    local_only = _needs_no_hub(kind, source)
    try:
        yield local_only
    except (OSError, ValueError) as error:
        first = str(error).strip().split("\n", 1)[0]
        where = "the hub or its cache" if remote else "the folder"
        raise ConfigError(f"cannot load the {kind} {source!r} from {where}: {first}") from error


def _needs_no_hub(kind: str, source: str) -> bool:
    """Whether it is a folder, or the hub cannot be asked and the cache has it.

    Raises:
        ConfigError: it is neither here nor within reach.
    """
    if Path(source).is_dir():
        return True
    obstacle = hub_obstacle()
    if obstacle is not None and not _is_cached(source):
        raise offline_error(kind, source, obstacle)
    return obstacle is not None


def check_available(name: str) -> None:
    """Say at once, without loading anything, when a model is neither built here, nor on this machine, nor in reach.

    Raises:
        UnknownNameError: as `load_causal_lm`.
        ConfigError: as `load_causal_lm`, where the reason can be known before loading.
        StorageError: as `models.pretrained.check_gguf`.
    """
    if is_gguf(name):
        check_gguf(name)
    elif parse_call(name)[0] not in SIZES:
        _needs_no_hub("model", _source("model", name, [*SIZES, *PRETRAINED]))


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


# -- completions ---------------------------------------------------------------------------------------------------


class Completion(NamedTuple):
    """What a model wrote after a prompt."""

    text: str
    """Without the end token, whichever of the model's came first, or the stop string."""
    tokens: int
    """How many tokens it has, the end token or those of the stop string included."""
    finished: bool
    """Whether it ended by itself or with a stop string, rather than at the limit."""
    ids: tuple[int, ...] = ()
    """The tokens, those that ended it included."""


def complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    stop: Sequence[str] = (),
) -> list[Completion]:
    """One completion per prompt, sampled from the model's whole distribution; repeat a prompt for several.

    The global random state is left as it was. On CPU the same seed and batch size give the same texts.

    Args:
        model: a causal language model; put back into training mode if it was in it.
        tokenizer: the one that goes with it.
        prompts: texts, special tokens in them understood; read as `models.prompts.encode_prompts` does.
        max_new_tokens: limit on the length of a completion.
        temperature: 0 takes the most probable token.
        seed: of the sampling.
        batch_size: prompts per forward pass.
        stop: strings that end a completion, as the model's end tokens do.

    Raises:
        ConfigError: there are no prompts, a limit or the temperature is out of range, nothing says which token ends an
            answer, or the tokenizer cannot read a prompt.
    """
    import transformers

    if not prompts or max_new_tokens < 1 or batch_size < 1 or not temperature >= 0:
        raise ConfigError(
            f"got {len(prompts)} prompts, max_new_tokens {max_new_tokens}, batch_size {batch_size} and temperature "
            f"{temperature}; expected at least one prompt, limits of at least 1 and a temperature of at least 0"
        )
    ends, strings = adopt_tokens(model, tokenizer), StopStrings(tokenizer, stop)
    # A fresh configuration: a saved model brings its own top-k, top-p and penalties, which are another policy.
    settings = transformers.GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        **({"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature > 0 else {}),
    )
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    completions: list[Completion] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(seed)
        for start in range(0, len(prompts), batch_size):
            texts = prompts[start : start + batch_size]
            rows = encode_prompts(tokenizer, texts, model.get_input_embeddings().weight.shape[0])
            batch = _padded_left(rows, tokenizer.pad_token_id).to(device)
            width = batch["input_ids"].shape[1]
            ending: dict[str, Any] = {"stopping_criteria": [strings.criteria(width)]} if strings else {}
            output = generate(model, **batch, generation_config=settings, **ending)
            completions += [_read(row, ends, strings, tokenizer) for row in output[:, width:].tolist()]
    model.train(was_training)
    return completions


def _padded_left(rows: list[list[int]], pad: int) -> Any:
    import transformers

    width = max(map(len, rows))
    tokens = [[pad] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return transformers.BatchEncoding({"input_ids": tokens, "attention_mask": mask}, tensor_type="pt")


def _read(tokens: list[int], ends: list[int], stop: StopStrings, tokenizer: Any) -> Completion:
    length = next((place for place, token in enumerate(tokens) if token in ends), None)
    finished = length is not None
    written = tokens[:length]
    # What pads a stopped row may be an end token; it was not written.
    stopped = stop.length(written) if stop else None
    if stopped is not None:
        return Completion(stop.before(tokenizer.decode(written[:stopped])), stopped, True, tuple(written[:stopped]))
    ids = tuple(tokens[: len(written) + finished])
    return Completion(tokenizer.decode(written, skip_special_tokens=False), len(ids), finished, ids)


# -- warm start ----------------------------------------------------------------------------------------------------


class WorkedProblem(Protocol):
    """A problem with its solution written out; `envs.math_tasks.Problem` is one."""

    @property
    def prompt(self) -> str:
        """What the model reads."""

    @property
    def answer(self) -> str:
        """The right answer."""

    @property
    def solution(self) -> str:
        """What it should write."""


Correct = Callable[[Sequence[str], Sequence[str]], Sequence[bool]]
"""(responses, right answers) to whether each is right."""


@dataclass(frozen=True)
class WarmStart:
    """What a warm start did."""

    success: float
    """Share of right answers, one sample per probe and round at temperature 1, after the last step."""
    interval: tuple[float, float]
    """Wilson's 95 % interval of that share, samples taken as independent."""
    samples: int
    """How many completions it was measured on."""
    steps: int
    """Supervised optimiser steps."""
    seconds: float
    """Wall-clock time, measurements included."""
    history: tuple[tuple[int, float, float], ...]
    """(step, mean loss in nats a token since the last entry, success), one for every measurement."""


def warm_start(
    model: Any,
    tokenizer: Any,
    problems: Sequence[WorkedProblem],
    *,
    correct: Correct,
    probes: Sequence[WorkedProblem] | None = None,
    target: float = 0.3,
    ceiling: float = 0.5,
    max_steps: int = 2000,
    batch_size: int = 64,
    learning_rate: float = 5e-3,
    check_every: int = 20,
    max_new_tokens: int = 48,
    stop: Sequence[str] = (),
    seed: int = 0,
    report: Callable[[int, float, float], None] | None = None,
) -> WarmStart:
    """Train on worked solutions until the model is right about as often as wanted, and no further.

    Supervised: cross-entropy of the solution and the end token after each prompt, AdamW with a linear warm-up. Success
    is measured every `check_every` steps, and training stops when it lies between `target` and `ceiling`. A measurement
    beyond the ceiling is undone: back to the weights of the one before, and on at a quarter of the learning rate.
    On CPU and for one number of threads everything is a function of the seed.

    Args:
        model: trained in place; left in evaluation mode.
        tokenizer: the one that goes with it.
        problems: what is learned from; each needs a solution.
        correct: the grader.
        probes: what success is measured on (`None`: the problems themselves), at least 256 samples a time.
        target: the least success to stop at.
        ceiling: the most.
        max_steps: limit on optimiser steps.
        batch_size: problems per step.
        learning_rate: AdamW's, after the warm-up.
        check_every: steps between measurements.
        max_new_tokens: limit on the length of a completion when success is measured.
        stop: strings that end a completion then.
        seed: of the order of problems and of the sampling.
        report: called with step, loss and success at every measurement.

    Raises:
        ConfigError: a setting is out of range, or a problem has no solution.
        TestbedError: the loss is not finite, or success is not in its range after `max_steps`.
    """
    if not 0 < target < ceiling <= 1 or min(max_steps, batch_size, check_every) < 1:
        raise ConfigError(
            f"target is {target} and ceiling {ceiling}, max_steps {max_steps}, batch_size {batch_size}, check_every "
            f"{check_every}; expected 0 < target < ceiling <= 1 and at least 1 of the others"
        )
    examples = _tokenised(model, tokenizer, problems)
    probes = list(problems if probes is None else probes)
    if not probes:
        raise ConfigError("probes is empty; expected at least one problem to measure success on")
    started = time.perf_counter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    batches = _batches(examples, batch_size, seed)
    history: list[tuple[int, float, float]] = []
    before = copy.deepcopy(model.state_dict())
    steps, total = 0, 0.0
    while True:
        span = min(check_every, max_steps - steps)
        for _ in range(span):
            steps += 1
            optimizer.param_groups[0]["lr"] = learning_rate * min(1.0, steps / WARM_UP)
            total += _supervised_step(model, tokenizer.pad_token_id, optimizer, next(batches), steps)
        success, samples = _success(model, tokenizer, probes, correct, max_new_tokens, stop, seed)
        history.append((steps, total / span, success))
        total = 0.0
        if report is not None:
            report(*history[-1])
        if target <= success <= ceiling:
            break
        if steps == max_steps:
            raise TestbedError(
                f"the warm start reached a success of {success:.1%} in {max_steps} steps, expected {target:.0%} to "
                f"{ceiling:.0%}; raise max_steps or the size of the model, or choose easier problems"
            )
        if success > ceiling:
            model.load_state_dict(before)
            learning_rate /= 4
        before = copy.deepcopy(model.state_dict())
    model.eval()
    return WarmStart(success, _wilson(success, samples), samples, steps, time.perf_counter() - started, tuple(history))


WARM_UP = 20
"""Steps over which the learning rate of a warm start rises to its value."""

Example = tuple[list[int], list[int]]
"""Tokens of a prompt, and of its solution with the end token."""


def _batches(examples: list[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Batches without end, every example once before any comes again."""
    generator = torch.Generator().manual_seed(seed)
    queue: list[int] = []
    while True:
        while len(queue) < size:
            queue += torch.randperm(len(examples), generator=generator).tolist()
        yield [examples[place] for place in queue[:size]]
        queue = queue[size:]


def _supervised_step(model: Any, pad: int, optimizer: Any, rows: list[Example], step: int) -> float:
    """One optimiser step on a batch; returns its loss in nats a token."""
    model.train()
    loss = _supervised_loss(model, pad, rows)
    if not math.isfinite(loss.item()):
        raise TestbedError(f"the supervised loss is {loss.item()} at step {step}; lower learning_rate")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.item())


def _tokenised(model: Any, tokenizer: Any, problems: Sequence[WorkedProblem]) -> list[Example]:
    without = [problem for problem in problems if not problem.solution]
    if without or not problems:
        raise ConfigError(
            f"{len(without)} of {len(problems)} problems have no worked solution, the first: "
            f"{without[0].prompt[:60]!r}; a warm start learns from solutions"
            if problems
            else "there are no problems to learn from; expected at least one with a worked solution"
        )
    adopt_tokens(model, tokenizer)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    prompts = encode_prompts(tokenizer, [problem.prompt for problem in problems], vocabulary)
    solutions = encode_solutions(tokenizer, [(problem.prompt, problem.solution) for problem in problems], vocabulary)
    return list(zip(prompts, solutions, strict=True))


def _supervised_loss(model: Any, pad: int, rows: list[Example]) -> Tensor:
    """Mean cross-entropy of the solution tokens, nats."""
    width = max(len(prompt) + len(solution) for prompt, solution in rows)
    tokens = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), -100)
    attention = torch.zeros((len(rows), width), dtype=torch.int64)
    for row, (prompt, solution) in enumerate(rows):
        length = len(prompt) + len(solution)
        tokens[row, :length] = torch.tensor(prompt + solution)
        labels[row, len(prompt) : length] = torch.tensor(solution)
        attention[row, :length] = 1
    device = next(model.parameters()).device
    tokens, labels, attention = tokens.to(device), labels.to(device), attention.to(device)
    logits = model(input_ids=tokens, attention_mask=attention).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())


def _success(
    model: Any,
    tokenizer: Any,
    probes: list[WorkedProblem],
    correct: Correct,
    max_new_tokens: int,
    stop: Sequence[str],
    seed: int,
) -> tuple[float, int]:
    """Share of right answers and the number of samples it is of."""
    asked = probes * math.ceil(256 / len(probes))
    prompts = [probe.prompt for probe in asked]
    written = complete(model, tokenizer, prompts, max_new_tokens=max_new_tokens, stop=stop, seed=seed)
    right = correct([completion.text for completion in written], [probe.answer for probe in asked])
    return sum(map(bool, right)) / len(asked), len(asked)


def _wilson(share: float, samples: int) -> tuple[float, float]:
    """Wilson's score interval at 95 %."""
    z = 1.959963984540054
    scale = 1 + z * z / samples
    centre = (share + z * z / (2 * samples)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples**2))
    return max(centre - half, 0.0), min(centre + half, 1.0)


# -- routing replay ------------------------------------------------------------------------------------------------


class Routing:
    """The experts every token was sent to, layer by layer, in the forward passes made while recording."""

    def __init__(self, layers: int) -> None:
        self._chosen: list[list[Tensor]] = [[] for _ in range(layers)]
        self._shapes: list[torch.Size] = []

    @property
    def experts(self) -> Tensor:
        """int64 `(B, T, layers, k)`: rows of all recorded passes in order, k experts a token.

        The batch dimension comes first, so that it is cut into micro-batches along with the tokens.

        Raises:
            BatchError: nothing was recorded, or the passes had different lengths T.
        """
        if not self._shapes or len({shape[1] for shape in self._shapes}) > 1:
            raise BatchError(
                f"recorded passes have shapes {[tuple(shape) for shape in self._shapes]} (B, T); expected at least "
                "one, and the same T for all. Pad the batch to one length before it is split"
            )
        layers = [
            torch.cat([chosen.view(*shape, -1) for chosen, shape in zip(layer, self._shapes, strict=True)])
            for layer in self._chosen
        ]
        return torch.stack(layers, dim=2)


def _routers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The routers of a Qwen3 mixture of experts, by layer."""
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

    routers: list[torch.nn.Module] = [module for module in model.modules() if isinstance(module, Qwen3MoeTopKRouter)]
    if not routers:
        raise ConfigError(
            f"{type(model).__name__} has no router whose choice could be replayed; expected a Qwen3 mixture of "
            "experts, such as load_causal_lm('qwen3-moe-0.1m'). Switch routing replay off for other models"
        )
    return routers


@contextlib.contextmanager
def record_routing(model: torch.nn.Module) -> Iterator[Routing]:
    """Record the experts chosen in every forward pass inside the `with`, to replay them later.

    Raises:
        ConfigError: the model is not a Qwen3 mixture of experts.
    """
    routers = _routers(model)
    routing = Routing(len(routers))

    def note_shape(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        routing._shapes.append(inputs[0].shape[:2])

    def note_choice(layer: int) -> Callable[..., None]:
        def note(module: torch.nn.Module, inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
            routing._chosen[layer].append(output[2].detach())

        return note

    embedding = cast(Any, model).get_input_embeddings()
    hooks = [embedding.register_forward_pre_hook(note_shape)]
    hooks += [router.register_forward_hook(note_choice(layer)) for layer, router in enumerate(routers)]
    try:
        yield routing
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def replay_routing(model: torch.nn.Module, experts: Tensor) -> Iterator[None]:
    """Send every token to recorded experts in the forward pass inside the `with`, whatever the router would choose.

    The experts' weights come from the current router, renormalised over the recorded experts, so that the gradient
    reaches it: only the choice is replayed. With the choice of the old policy this is vanilla routing replay, R2.
    Keep the backward pass inside the `with` too: gradient checkpointing runs the forward pass again.

    Reference: Zheng et al., Group Sequence Policy Optimization, arXiv 2507.18071, section 5.3 (Routing Replay).

    Args:
        model: the one that was recorded, its weights changed or not.
        experts: int64 `(B, T, layers, k)`, rows of `Routing.experts`, for exactly the tokens of the forward pass.

    Raises:
        ConfigError: the model is not a Qwen3 mixture of experts.
        BatchError: the shape does not fit the model, or (in the forward pass) its tokens.
    """
    routers = _routers(model)
    if experts.dim() != 4 or experts.shape[2] != len(routers) or experts.shape[3] != cast(Any, routers[0]).top_k:
        raise BatchError(
            f"experts has shape {tuple(experts.shape)}; expected (B, T, {len(routers)} layers, "
            f"{cast(Any, routers[0]).top_k} experts), as record_routing gives it"
        )

    def replay(layer: int) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
        recorded = experts[:, :, layer].flatten(0, 1)

        def choose(router: Any, inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            logits = output[0]
            if len(logits) != len(recorded):
                raise BatchError(
                    f"the forward pass has {len(logits)} tokens, padding included, and {len(recorded)} were recorded; "
                    "replay the very rows that were recorded, at the same length"
                )
            weights = torch.softmax(logits, dim=-1, dtype=torch.float).gather(-1, recorded)
            if router.norm_topk_prob:
                weights = weights / weights.sum(-1, keepdim=True)
            return logits, weights.to(logits.dtype), recorded

        return choose

    hooks = [router.register_forward_hook(replay(layer)) for layer, router in enumerate(routers)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
