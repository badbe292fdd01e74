"""Models from GGUF files: what is read is what was written, made once, and what a wrong file is told."""

from __future__ import annotations

import hashlib
import math
import shutil
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import pretrained
from models.causal_lm import check_available, complete, load_causal_lm, load_tokenizer
from models.pretrained import PRETRAINED, Packaged, cache_folder, check_gguf, dequantised, is_gguf, read_header
from testbed.errors import ConfigError, StorageError, UnknownNameError
from tests.extras import needs, needs_model

HIDDEN, LAYERS, HEADS, INTERMEDIATE = 32, 2, 4, 64
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"0123456789+-*()=", "Ċ", "Ġ", "10"]
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}"


def write_gguf(path: Path, architecture: str = "llama") -> dict[str, np.ndarray]:
    """A small model with random weights, one of its matrices quantised to eight bits; returns what was written."""
    gguf = needs("gguf")
    generator = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3] + [1] * (len(WORDS) - 3))
    writer.add_token_merges(["1 0"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(TEMPLATE)
    shapes = {"token_embd.weight": (len(WORDS), HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.{name}.weight": (HIDDEN, HIDDEN) for name in ("attn_q", "attn_k", "attn_v", "attn_output")
        }
        shapes |= {f"blk.{layer}.{name}.weight": (HIDDEN,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{layer}.{name}.weight": (INTERMEDIATE, HIDDEN) for name in ("ffn_gate", "ffn_up")}
        shapes |= {f"blk.{layer}.ffn_down.weight": (HIDDEN, INTERMEDIATE)}
    tensors = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    for name, values in tensors.items():
        if name == "blk.0.ffn_down.weight":
            packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    if "real" not in request.fixturenames:
        monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    write_gguf(path)
    return path


# -- what counts as one ----------------------------------------------------------------------------------------------


def test_a_folder_with_a_configuration_is_no_gguf_model(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    assert is_gguf(str(tmp_path))
    (tmp_path / "config.json").touch()
    assert not is_gguf(str(tmp_path))
    assert not is_gguf("x" * 5000)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("TESTBED_CACHE")
    assert cache_folder() == tmp_path / "policy-objective-testbed"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "policy-objective-testbed"


# -- what is read ----------------------------------------------------------------------------------------------------


def test_weights_are_those_that_were_written(tmp_path: Path) -> None:
    written = write_gguf(tmp_path / "small.gguf")
    model = load_causal_lm(str(tmp_path / "small.gguf")).model
    weights = {name: value.float().numpy() for name, value in model.state_dict().items()}
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"], written["token_embd.weight"])
    np.testing.assert_array_equal(weights["model.layers.1.mlp.up_proj.weight"], written["blk.1.ffn_up.weight"])
    # Eight bits: blocks of 32 with a scale of max|w|/127, kept in half precision, so that the error is half of it.
    packed = weights["model.layers.0.mlp.down_proj.weight"].reshape(-1, 32)
    exact = written["blk.0.ffn_down.weight"].reshape(-1, 32)
    scale = np.abs(exact).max(1, keepdims=True) / 127
    assert (np.abs(packed - exact) <= 0.51 * scale + 127 * scale * 2**-11).all()
    assert np.abs(packed - exact).max() > 0.1 * scale.max()


def test_queries_are_put_back_into_the_order_of_transformers(tmp_path: Path) -> None:
    # llama.cpp interleaves the two halves of every head that rotary embeddings pair.
    written = write_gguf(tmp_path / "small.gguf")
    weight = load_causal_lm(str(tmp_path / "small.gguf")).model.state_dict()["model.layers.0.self_attn.q_proj.weight"]
    size = HIDDEN // HEADS
    order = [head * size + 2 * place + half for head in range(HEADS) for half in (0, 1) for place in range(size // 2)]
    np.testing.assert_array_equal(weight.numpy(), written["blk.0.attn_q.weight"][order])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_weights_come_in_every_type_and_can_be_trained_and_saved(small: Path, tmp_path: Path, dtype: str) -> None:
    model, tokenizer = load_causal_lm(str(small), dtype=dtype)
    assert {value.dtype for value in model.parameters()} == {getattr(torch, dtype)}
    assert not hasattr(model.config, "quantization_config")
    loss = model(input_ids=torch.tensor([tokenizer("1+1=").input_ids])).logits.float().square().mean()
    loss.backward()
    assert all(value.grad is not None for value in model.parameters())
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    again = load_causal_lm(str(tmp_path / "saved"), dtype=dtype).model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_the_tokenizer_is_that_of_the_file(small: Path) -> None:
    # The file's list numbers the tokens, and its only merge makes "10" one of them.
    tokenizer = load_tokenizer(str(small))
    assert tokenizer("1+10=").input_ids == [WORDS.index(word) for word in ("1", "+", "10", "=")]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    assert tokenizer.padding_side == "left"
    assert tokenizer.apply_chat_template([{"content": "1"}], tokenize=False) == "<|im_start|>1<|im_end|>"


def test_a_folder_and_a_file_are_the_same_model(small: Path) -> None:
    assert dequantised(str(small.parent)) == dequantised(str(small))


# -- made once -------------------------------------------------------------------------------------------------------


def counting(monkeypatch: pytest.MonkeyPatch, slowly: float = 0.0) -> list[Path]:
    calls: list[Path] = []
    convert = pretrained._convert

    def counted(source: Path, folder: Path) -> None:
        calls.append(source)
        time.sleep(slowly)
        convert(source, folder)

    monkeypatch.setattr(pretrained, "_convert", counted)
    return calls


def test_a_model_is_dequantised_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, said = counting(monkeypatch), list[str]()
    first = dequantised(str(small), report=said.append)
    assert dequantised(str(small), "bfloat16", report=said.append) == first.with_name("bfloat16")
    assert len(calls) == 1
    assert len(said) == 1
    assert "dequantising small.gguf once" in said[0]


def test_a_model_in_the_cache_needs_no_reader(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dequantised(str(small))
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert load_causal_lm(str(small)).model is not None


def test_a_changed_file_is_another_model(small: Path) -> None:
    first = dequantised(str(small))
    content = bytearray(small.read_bytes())
    content[-1] ^= 1
    small.write_bytes(content)
    assert dequantised(str(small)) != first


def test_two_that_ask_at_once_share_one(small: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    calls, said = counting(monkeypatch, slowly=0.3), list[str]()
    places: list[Path] = []
    threads = [
        threading.Thread(target=lambda: places.append(dequantised(str(small), report=said.append))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(places) == 2
    assert places[0] == places[1]
    assert sum("another process" in line for line in said) == 1


def test_what_a_killed_process_left_is_removed(small: Path, cache: Path) -> None:
    target = dequantised(str(small)).parent
    shutil.rmtree(target)
    left = cache / f".{target.name}.killed.partial"
    left.mkdir()
    dequantised(str(small))
    assert not left.exists()
    assert {path.name for path in cache.iterdir() if not path.name.endswith(".lock")} == {target.name}


# -- what a wrong file is told ---------------------------------------------------------------------------------------


def test_says_what_brings_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRETRAINED, "smollm2-135m", Packaged("no-such-package", "1.0", "x.gguf", ""))
    with pytest.raises(ConfigError, match="no-such-package, which is not installed; run: make pretrained"):
        check_available("smollm2-135m")


class Installed:
    """A distribution whose files lie in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def locate_file(self, path: str) -> Path:
        return self.folder / path


def packaged(monkeypatch: pytest.MonkeyPatch, file: Path, digest: str | None = None) -> None:
    digest = digest or hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(PRETRAINED, "smollm2-135m", Packaged("a-package", "1.0", file.name, digest))
    monkeypatch.setattr(pretrained.metadata, "distribution", lambda name: Installed(file.parent))


def test_a_package_is_not_imported(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged(monkeypatch, small)
    before = set(sys.modules)
    assert load_causal_lm("smollm2-135m").tokenizer.eos_token == "<|im_end|>"
    assert "a_package" not in set(sys.modules) - before


def test_rejects_a_packaged_file_that_was_changed(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged(monkeypatch, small, digest="0" * 64)
    with pytest.raises(ConfigError, match=r"not the file of a-package 1\.0: its SHA-256 is another.*make pretrained"):
        check_available("smollm2-135m")


def test_rejects_a_package_without_its_file(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged(monkeypatch, small)
    small.unlink()
    with pytest.raises(ConfigError, match="installed without the file of the model smollm2-135m"):
        check_available("smollm2-135m")


@pytest.mark.parametrize("kept", [0, 4, 20, 200, 900, -40_000, -4])
def test_rejects_a_truncated_file(small: Path, kept: int) -> None:
    small.write_bytes(small.read_bytes()[:kept])
    with pytest.raises(ConfigError, match=r"small\.gguf is truncated"):
        check_gguf(str(small))


def test_reads_a_header_as_the_package_does(small: Path) -> None:
    gguf = needs("gguf")
    reader, header = gguf.GGUFReader(str(small)), read_header(small)
    expected = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.") and field.types[0] != gguf.GGUFValueType.ARRAY
    }
    assert {name: value for name, value in header.fields.items() if value is not None} == pytest.approx(expected)
    placed = [(int(item.n_elements), int(item.tensor_type), int(item.data_offset)) for item in reader.tensors]
    assert list(header.tensors) == placed


def test_rejects_what_is_no_gguf(tmp_path: Path) -> None:
    needs("gguf")
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(ConfigError, match=r"is not a GGUF file: it begins with b'PK"):
        check_available(str(tmp_path / "x.gguf"))


def test_rejects_another_architecture(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf", architecture="lama")
    with pytest.raises(UnknownNameError, match="unknown GGUF architecture 'lama'; did you mean 'llama'"):
        check_available(str(tmp_path / "x.gguf"))


def test_rejects_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"there is no file 'nowhere/x\.gguf'; expected a GGUF file"):
        check_available("nowhere/x.gguf")


def test_rejects_a_folder_with_several(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ConfigError, match=r"holds 2 GGUF files \(a\.gguf, b\.gguf\); name the one"):
        check_available(str(tmp_path))


def test_says_what_brings_the_reader(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match="needs the package gguf, which is not installed; run: make pretrained"):
        check_available(str(small))


def test_an_unknown_name_is_told_those_that_come_with_a_package() -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'smollm2-135'; did you mean 'smollm2-135m'"):
        check_available("smollm2-135")


def test_says_when_the_cache_has_too_little_room(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(pretrained.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(StorageError, match=r"has 0\.0 GB of room.*small\.gguf needs 0\.1 GB.*TESTBED_CACHE"):
        check_available(str(small))


def test_a_disk_that_fills_up_leaves_nothing(small: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    convert: Callable[..., None] = pretrained._convert

    def full(source: Path, folder: Path) -> None:
        convert(source, folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrained, "_convert", full)
    with pytest.raises(StorageError, match=r"No space left on device\. Nothing is left there"):
        dequantised(str(small))
    assert [path.name for path in cache.iterdir() if not path.name.endswith(".lock")] == []


def test_says_when_the_cache_cannot_be_written(small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match=r"cannot write the dequantised model to .*: Not a directory.*TESTBED"):
        check_available(str(small))


# -- the model that make pretrained brings ---------------------------------------------------------------------------

PARAGRAPHS = (
    "The sun is a star at the center of the solar system. It is made mostly of hydrogen and helium, and it gives off "
    "light and heat. The Earth and the other planets move around the sun. The Earth takes one year to go around the "
    "sun once. Without the sun, there would be no life on Earth.",
    "Water is made of hydrogen and oxygen. It freezes at 0 degrees Celsius and boils at 100 degrees Celsius at sea "
    "level. When water evaporates, it turns into water vapor, which rises into the atmosphere, cools, and condenses "
    "into clouds. When the droplets in the clouds become heavy enough, they fall back to the ground as rain or snow.",
)


@pytest.fixture(scope="module")
def real() -> Any:
    return load_causal_lm(needs_model("smollm2-135m"))


@pytest.mark.slow
def test_the_packaged_model_reads_and_ends_as_it_was_taught(real: Any) -> None:
    tokenizer = real.tokenizer
    assert sum(value.numel() for value in real.model.parameters()) == 134_515_008
    assert len(tokenizer) == 49152
    for text in (*PARAGRAPHS, "7*(3-5)=-14\n#### -14", "  two  spaces\tand 12,345.60 €"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    # Digits are tokens of their own; the first ids are special.
    assert tokenizer.tokenize("7+15=22") == ["7", "+", "1", "5", "=", "2", "2"]
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    written = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True
    )
    assert written.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.slow
@pytest.mark.parametrize("text", PARAGRAPHS)
def test_the_packaged_model_knows_english(real: Any, text: str) -> None:
    tokens = torch.tensor([real.tokenizer(text).input_ids])
    with torch.no_grad():
        loss = real.model(input_ids=tokens, labels=tokens).loss
    assert math.exp(float(loss)) < 10


@pytest.mark.slow
def test_the_packaged_model_answers_and_stops(real: Any) -> None:
    prompt = real.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], tokenize=False, add_generation_prompt=True
    )
    (answer,) = complete(real.model, real.tokenizer, [prompt], max_new_tokens=24, temperature=0.0)
    assert "Paris" in answer.text
    assert answer.finished
