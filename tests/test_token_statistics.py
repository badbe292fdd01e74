"""Token statistics against closed forms, float64 and PyTorch's own gradients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from testbed import token_statistics_gpu as gpu
from testbed import token_statistics_torch as plain
from testbed.errors import BatchError, ConfigError
from testbed.token_statistics import token_statistics, token_statistics_from_hidden

VOCABULARY = 97


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of logits or three rows by 65 columns of a product: every case has several tiles, a partial one last."""
    monkeypatch.setattr(plain, "_TILE_COLUMNS", 65)
    monkeypatch.setattr(plain, "_TILE_ELEMENTS", 3 * 65)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sample_tokens(*shape: int, vocabulary: int = VOCABULARY) -> Tensor:
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(1))


def reference(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    log_softmax = (logits / temperature).log_softmax(-1)
    return log_softmax.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), -(log_softmax.exp() * log_softmax).sum(-1)


def mixed_loss(log_probs: Tensor, entropies: Tensor) -> Tensor:
    """A loss with another weight for every output, so that no two gradients can be confused."""
    weights = torch.arange(1, 1 + log_probs.numel()).to(log_probs).view(log_probs.shape)
    return (weights * log_probs).sum() + (weights.flip(0).sin() * entropies).sum()


def test_value_by_hand() -> None:
    # Three tokens of probability 1/2, 1/4, 1/4: H = (1/2)·log 2 + (1/2)·log 4 = 1.5·log 2.
    logits = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log() + 7
    log_probs, entropies = token_statistics(logits.expand(2, 3), torch.tensor([0, 2]))
    torch.testing.assert_close(
        log_probs, -torch.tensor([1.0, 2.0], dtype=torch.float64) * math.log(2), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(entropies, torch.full((2,), 1.5 * math.log(2), dtype=torch.float64), rtol=1e-12, atol=0)


def test_temperature_by_hand() -> None:
    # z = (2·log 3, 0) at temperature 2 is p = (3/4, 1/4).
    logits = torch.tensor([[2 * math.log(3), 0.0]], dtype=torch.float64)
    log_probs, _ = token_statistics(logits, torch.tensor([0]), temperature=2.0)
    torch.testing.assert_close(log_probs.item(), math.log(0.75), rtol=1e-12, atol=0)


def reference_kappas(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Σ p²(log p + H) in double precision; a token that cannot be drawn has no part in it."""
    log_p = (logits.double() / temperature).log_softmax(-1)
    known = log_p.masked_fill(log_p.isneginf(), 0)
    entropies = -(log_p.exp() * known).sum(-1, keepdim=True)
    return (log_p.exp().square() * (known + entropies)).sum(-1)


def test_kappas_by_hand() -> None:
    # p = 1/2, 1/4, 1/4, H = 1.5·log 2: κ = ¼(-1 + 1.5)·log 2 + 2·(1/16)(-2 + 1.5)·log 2 = log 2/16.
    logits = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log() - 3
    statistics = token_statistics(logits, torch.tensor([1]), with_kappas=True)
    torch.testing.assert_close(statistics.kappas.item(), math.log(2) / 16, rtol=1e-12, atol=0)
    assert [name for name in token_statistics(logits, torch.tensor([1]))._fields] == ["log_probs", "entropies"]


@pytest.mark.parametrize("scale", [0.01, 1.0, 12.0])
@pytest.mark.parametrize("hidden", [False, True])
def test_kappas_within_two_millionths_of_float64(scale: float, hidden: bool) -> None:
    logits = (scale * draw(40, VOCABULARY)).float()
    logits[3, 5:80] = -math.inf
    logits[4] = 0  # Uniform: log p + H is 0 everywhere, and so is κ.
    tokens = sample_tokens(40)
    # Row i of the identity times the weight is row i of the logits, which no product rounds.
    through = token_statistics_from_hidden(
        torch.eye(40), torch.where(logits.isinf(), 0.0, logits).T, tokens, 0.7, with_kappas=True
    )
    kappas = through.kappas if hidden else token_statistics(logits, tokens, 0.7, with_kappas=True).kappas
    expected = reference_kappas(torch.where(logits.isinf(), 0.0, logits) if hidden else logits, 0.7)
    torch.testing.assert_close(kappas.double(), expected, rtol=0, atol=2e-6)
    assert scale < 1 or expected.max() > 0.1
    assert abs(kappas[4].item()) < 1e-8


def test_kappas_are_constants_and_change_nothing_else() -> None:
    logits, tokens = draw(3, 4, VOCABULARY).requires_grad_(), sample_tokens(3, 4)
    shown = logits[:, :-1]
    results = []
    for with_kappas in (False, True):
        statistics = token_statistics(shown, tokens[:, :-1], with_kappas=with_kappas)
        gradient = torch.autograd.grad(mixed_loss(statistics.log_probs, statistics.entropies), logits)[0]
        results.append((statistics.log_probs, statistics.entropies, gradient))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    kappas = token_statistics(shown, tokens[:, :-1], with_kappas=True).kappas
    assert not kappas.requires_grad
    torch.testing.assert_close(kappas, reference_kappas(shown.detach()), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_gradients_pass_gradcheck(temperature: float) -> None:
    logits, tokens = draw(3, 4, VOCABULARY).requires_grad_(), sample_tokens(3, 4)
    assert torch.autograd.gradcheck(lambda z: tuple(token_statistics(z, tokens, temperature)), (logits,))


def test_gradients_from_hidden_pass_gradcheck() -> None:
    hidden, weight, bias = (
        draw(*shape, seed=index).requires_grad_() for index, shape in enumerate([(7, 3), (11, 3), (11,)])
    )
    tokens = sample_tokens(7, vocabulary=11)
    assert torch.autograd.gradcheck(
        lambda h, w, b: tuple(token_statistics_from_hidden(h, w, tokens, 0.8, bias=b)), (hidden, weight, bias)
    )


@pytest.mark.parametrize("output", [0, 1])
def test_gradient_of_one_output_alone(output: int) -> None:
    logits, tokens = draw(7, VOCABULARY).requires_grad_(), sample_tokens(7)
    expected = torch.autograd.grad(reference(logits, tokens)[output].sum(), logits)[0]
    actual = torch.autograd.grad(token_statistics(logits, tokens)[output].sum(), logits)[0]
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().sum() > 0


@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_float32_stays_within_two_millionths_of_float64(scale: float) -> None:
    # Both sharp and flat rows; the bound is absolute, as entropies go to zero in sharp rows. The float64 reference
    # reads the rounded logits, so that only the arithmetic is compared.
    single = (scale * draw(40, VOCABULARY)).float().requires_grad_()
    double = single.detach().double().requires_grad_()
    tokens = sample_tokens(40)
    actual, expected = token_statistics(single, tokens), reference(double, tokens)
    # A log-probability of -50 has no more than seven digits in float32 itself.
    torch.testing.assert_close(actual.log_probs.double(), expected[0], rtol=2e-7, atol=2e-6)
    torch.testing.assert_close(actual.entropies.double(), expected[1], rtol=0, atol=2e-6)
    (actual.log_probs.sum() + actual.entropies.sum()).backward()
    (expected[0].sum() + expected[1].sum()).backward()
    assert single.grad is not None
    assert double.grad is not None
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=0, atol=2e-6)


def test_half_precision_is_widened() -> None:
    logits = draw(12, VOCABULARY).bfloat16().requires_grad_()
    tokens = sample_tokens(12)
    double = logits.detach().double().requires_grad_()
    log_probs, entropies = token_statistics(logits, tokens)
    assert log_probs.dtype == entropies.dtype == torch.float32
    expected = reference(double, tokens)
    torch.testing.assert_close(log_probs.double(), expected[0], rtol=0, atol=2e-6)
    torch.testing.assert_close(entropies.double(), expected[1], rtol=0, atol=2e-6)
    mixed_loss(log_probs, entropies).backward()
    mixed_loss(*expected).backward()
    assert logits.grad is not None
    assert double.grad is not None
    assert logits.grad.dtype == torch.bfloat16
    # Half a unit in the last of bfloat16's eight bits.
    torch.testing.assert_close(logits.grad.double(), double.grad, rtol=2**-8, atol=1e-6)


def test_from_hidden_equals_from_logits() -> None:
    tokens = sample_tokens(4, 3)
    results = []
    for through_logits in (True, False):
        hidden, weight, bias = draw(4, 3, 6), draw(VOCABULARY, 6, seed=1), draw(VOCABULARY, seed=2)
        inputs = [value.requires_grad_() for value in (hidden, weight, bias)]
        if through_logits:
            outputs = reference(hidden @ weight.T + bias, tokens, 0.7)
        else:
            outputs = tuple(token_statistics_from_hidden(hidden, weight, tokens, 0.7, bias=bias))
        results.append([*outputs, *torch.autograd.grad(mixed_loss(*outputs), inputs)])
    for actual, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


def from_hidden_with_gradients(*inputs: Tensor, tokens: Tensor) -> list[Tensor]:
    hidden, weight, bias = (value.detach().requires_grad_() for value in inputs)
    outputs = token_statistics_from_hidden(hidden, weight, tokens, 0.7, bias=bias)
    return [*outputs, *torch.autograd.grad(mixed_loss(*outputs), (hidden, weight, bias))]


def test_results_do_not_depend_on_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, tokens = (draw(20, 6), draw(VOCABULARY, 6, seed=1), draw(VOCABULARY, seed=2)), sample_tokens(20)
    in_tiles = from_hidden_with_gradients(*inputs, tokens=tokens)
    monkeypatch.setattr(plain, "_TILE_COLUMNS", VOCABULARY)
    monkeypatch.setattr(plain, "_TILE_ELEMENTS", 20 * VOCABULARY)
    for one, other in zip(in_tiles, from_hidden_with_gradients(*inputs, tokens=tokens), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs a PyTorch with oneDNN")
def test_packed_products_are_those_of_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, tokens = (draw(20, 6), draw(VOCABULARY, 6, seed=1), draw(VOCABULARY, seed=2)), sample_tokens(20)
    packed: list[torch.Size] = []
    multiply = torch.nn.functional.linear

    def note(left: Tensor, right: Tensor) -> Tensor:
        packed.append(left.shape)
        return multiply(left, right)

    monkeypatch.setattr(plain, "_PACKED_PRODUCT", 0)
    monkeypatch.setattr(plain.functional, "linear", note)
    exact = from_hidden_with_gradients(*inputs, tokens=tokens)
    assert not packed  # It has no double precision.
    single = from_hidden_with_gradients(*(value.float() for value in inputs), tokens=tokens)
    assert len(packed) == 4 * 7 * 2  # Products a tile, blocks of three rows, of 65 columns.
    for actual, expected in zip(single, exact, strict=True):
        # Sums of up to a hundred rounded products.
        assert (actual.double() - expected).norm() < 1e-6 * expected.norm()


def test_a_forbidden_part_of_the_vocabulary_spans_a_tile() -> None:
    # The first tile has no token that could be drawn: its maximum is none.
    hidden, weight, tokens = draw(4, 6), draw(VOCABULARY, 6, seed=1), torch.tensor([70, 80, 90, 96])
    allowed = slice(70, None)
    bias = torch.full((VOCABULARY,), -math.inf, dtype=torch.float64)
    bias[allowed] = 0
    expected = from_hidden_with_gradients(hidden, weight[allowed], bias[allowed], tokens=tokens - 70)
    actual = from_hidden_with_gradients(hidden, weight, bias, tokens=tokens)
    for index, value in enumerate(actual):
        value = value[allowed] if index > 2 else value
        torch.testing.assert_close(value, expected[index], rtol=1e-12, atol=1e-12)
    assert not actual[3][:70].any()
    assert not actual[4][:70].any()


def test_memory_does_not_grow_with_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_TILE_COLUMNS", 256)
    monkeypatch.setattr(plain, "_TILE_ELEMENTS", 2**14)
    count, vocabulary, width = 512, 4_096, 2
    hidden, weight = draw(count, width).float().requires_grad_(), draw(vocabulary, width).float().requires_grad_()
    tokens = sample_tokens(count, vocabulary=vocabulary)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        mixed_loss(*token_statistics_from_hidden(hidden, weight, tokens)).backward()
    changes = [event.nbytes() for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    peak, gradients, tile = max(itertools.accumulate(changes)), 4 * width * (count + vocabulary), 4 * 2**14
    # Two buffers, the logits, a gradient and what holds it while it is multiplied.
    assert 2 * tile < peak < gradients + 8 * tile
    assert peak < 0.1 * 4 * count * vocabulary


def exact_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    return (hidden @ weight.T + (0 if bias is None else bias)) / temperature


def compare_with_exact_logits(device: str, dtype: torch.dtype, vocabulary: int, biased: bool, frozen: bool) -> None:
    """Values and gradients from hidden states that no product rounds, on a device, against float64 on the CPU."""
    # One power of two a row: its logits are entries of the weight times that, exact in every dtype.
    count, width = 50, 16
    hidden = (
        torch.nn.functional.one_hot(torch.arange(count) % width).double() * 2.0 ** (torch.arange(count) % 3)[:, None]
    )
    weight = draw(vocabulary, width, seed=1).to(dtype).double()
    bias = torch.zeros(vocabulary, dtype=torch.float64) if biased else None
    tokens = sample_tokens(count, vocabulary=vocabulary)
    inputs = [hidden.requires_grad_(), weight.requires_grad_(not frozen)]
    inputs += [bias.requires_grad_()] if bias is not None else []
    there = [value.detach().to(device, dtype).requires_grad_(value.requires_grad) for value in inputs]
    *outputs, kappas = token_statistics_from_hidden(
        there[0], there[1], tokens.to(device), 0.7, bias=there[2] if biased else None, with_kappas=True
    )
    logits = exact_logits(hidden, weight, bias, 0.7)
    torch.testing.assert_close(kappas.double().cpu(), reference_kappas(logits.detach()), rtol=0, atol=2e-6)
    expected = reference(logits, tokens)
    for actual, exact in zip(outputs, expected, strict=True):
        torch.testing.assert_close(actual.double().cpu(), exact, rtol=2e-7, atol=2e-6)
    mixed_loss(*outputs).backward()
    mixed_loss(*expected).backward()
    for actual, exact in zip(there, inputs, strict=True):
        if not exact.requires_grad:
            assert actual.grad is None
            continue
        assert actual.grad is not None
        assert exact.grad is not None
        assert actual.grad.dtype == dtype
        error = (actual.grad.double().cpu() - exact.grad).norm() / exact.grad.norm()
        assert error < (1e-6 if dtype == torch.float32 else 2**-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_from_hidden_within_two_millionths_of_float64(
    dtype: torch.dtype, biased: bool, frozen: bool, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if packed:
        monkeypatch.setattr(plain, "_PACKED_PRODUCT", 0)
    compare_with_exact_logits("cpu", dtype, 3_001, biased, frozen)


def test_frozen_head_receives_no_gradient() -> None:
    hidden, weight = draw(6, 3).requires_grad_(), draw(VOCABULARY, 3, seed=1)
    token_statistics_from_hidden(hidden, weight, sample_tokens(6)).log_probs.sum().backward()
    assert weight.grad is None
    assert hidden.grad is not None


def test_from_hidden_follows_autocast() -> None:
    hidden, weight = draw(6, 8).float().requires_grad_(), draw(VOCABULARY, 8, seed=1).float().requires_grad_()
    tokens = sample_tokens(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_probs, _ = token_statistics_from_hidden(hidden, weight, tokens)
    log_probs.sum().backward()
    expected, _ = reference((hidden.detach().bfloat16() @ weight.detach().bfloat16().T).double(), tokens)
    torch.testing.assert_close(log_probs.detach().double(), expected, rtol=0, atol=2e-6)
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_a_backward_pass_under_autocast_keeps_its_digits() -> None:
    hidden, weight, tokens = draw(6, 8).float().requires_grad_(), draw(VOCABULARY, 8, seed=1).float(), sample_tokens(6)
    loss = mixed_loss(*token_statistics_from_hidden(hidden, weight, tokens))
    (expected,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (actual,) = torch.autograd.grad(loss, hidden)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("gaps", [False, True])
def test_keeps_two_floats_per_token(gaps: bool) -> None:
    logits = draw(4, 5, VOCABULARY).requires_grad_()
    shown = logits[:, :-1] if gaps else logits
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.untyped_storage().data_ptr() != logits.untyped_storage().data_ptr():
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        token_statistics(shown, sample_tokens(*shown.shape[:2]))
    assert kept == [shown.shape[:2].numel()] * 2


Keep = Callable[[Tensor], object]

WHO_STILL_READS: dict[str, Keep] = {
    "the caller": lambda logits: logits,
    "a view": lambda logits: logits[0, :3],
    "a detached alias": lambda logits: logits.detach(),
    "an array": lambda logits: logits.detach().numpy(),
    "another operation": lambda logits: logits * logits,
}


def gradient_and_place(
    leaf: Tensor, tokens: Tensor, keep: Keep = lambda logits: None, kept_graph: bool = False, **settings: bool
) -> tuple[Tensor, bool]:
    """∂L/∂leaf through logits that are no leaf, and whether the gradient lay in the memory of the logits."""
    places: list[bool] = []

    def loss() -> tuple[Tensor, object]:
        logits = leaf + 0
        place = logits.data_ptr()
        logits.register_hook(lambda gradient: places.append(gradient.data_ptr() == place))
        return mixed_loss(*token_statistics(logits, tokens, **settings)), keep(logits)

    value, kept = loss()
    before = kept.clone() if isinstance(kept, Tensor) else None
    gradient = torch.autograd.grad(value, leaf, retain_graph=kept_graph)[0]
    if isinstance(kept, Tensor):
        assert before is not None
        assert torch.equal(kept, before) == (not settings.get("overwrite_logits"))
    return gradient, places[0]


@pytest.mark.parametrize("who", WHO_STILL_READS)
def test_logits_that_somebody_can_still_read_are_not_overwritten(who: str) -> None:
    leaf, tokens = draw(9, VOCABULARY).requires_grad_(), sample_tokens(9)
    expected = torch.autograd.grad(mixed_loss(*reference(leaf, tokens)), leaf)[0]
    actual, in_place = gradient_and_place(leaf, tokens, WHO_STILL_READS[who])
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
    assert not in_place


def test_logits_that_nobody_else_has_are_overwritten() -> None:
    leaf, tokens = draw(9, VOCABULARY).requires_grad_(), sample_tokens(9)
    expected, in_place = gradient_and_place(leaf, tokens, overwrite_logits=False)
    assert not in_place
    actual, in_place = gradient_and_place(leaf, tokens)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert in_place


def test_logits_of_a_graph_that_is_kept_are_not_overwritten() -> None:
    leaf, tokens = draw(9, VOCABULARY).requires_grad_(), sample_tokens(9)
    assert not gradient_and_place(leaf, tokens, kept_graph=True)[1]
    loss = mixed_loss(*token_statistics(leaf + 0, tokens))
    first, second = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_logits_are_overwritten_on_demand() -> None:
    leaf, tokens = draw(9, VOCABULARY).requires_grad_(), sample_tokens(9)
    expected, _ = gradient_and_place(leaf, tokens)
    actual, in_place = gradient_and_place(leaf, tokens, WHO_STILL_READS["the caller"], overwrite_logits=True)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert in_place


@pytest.mark.parametrize("overwrite", [None, True])
def test_a_second_use_of_overwritten_logits_is_an_error(overwrite: bool | None) -> None:
    # The graph of the second loss saved the logits before the first one's gradient was written over them.
    leaf, tokens = draw(4, VOCABULARY).requires_grad_(), sample_tokens(4)
    logits = leaf + 0
    log_probs, _ = token_statistics(logits, tokens, overwrite_logits=overwrite)
    square = (logits**2).sum()
    log_probs.sum().backward()
    if overwrite:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            square.backward()
    else:
        square.backward()


@pytest.mark.parametrize("overwrite", [None, True])
def test_logits_with_gaps_between_sequences(overwrite: bool | None) -> None:
    # What a model says about the next token: every position but the last.
    leaf, tokens = draw(3, 5, VOCABULARY).requires_grad_(), sample_tokens(3, 4)
    expected = torch.autograd.grad(mixed_loss(*reference(leaf[:, :-1], tokens)), leaf)[0]
    outputs = token_statistics((leaf + 0)[:, :-1], tokens, overwrite_logits=overwrite)
    actual = torch.autograd.grad(mixed_loss(*outputs), leaf)[0]
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def test_overwriting_spares_a_leaf() -> None:
    logits, tokens = draw(4, VOCABULARY).requires_grad_(), sample_tokens(4)
    before = logits.detach().clone()
    token_statistics(logits, tokens, overwrite_logits=True).log_probs.sum().backward()
    assert torch.equal(logits.detach(), before)


def test_overwriting_what_another_operation_saved_is_noticed() -> None:
    leaf = draw(4, VOCABULARY).requires_grad_()
    logits = leaf.exp()
    log_probs, _ = token_statistics(logits, sample_tokens(4), overwrite_logits=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        log_probs.sum().backward()


def test_a_forbidden_token_has_no_part_in_the_entropy() -> None:
    # Two equally likely tokens and one that is excluded: H = log 2, and no gradient to the excluded one.
    logits = torch.tensor([[0.0, 0.0, -math.inf]], dtype=torch.float64, requires_grad=True)
    log_probs, entropies = token_statistics(logits, torch.tensor([1]))
    torch.testing.assert_close(entropies.item(), math.log(2), rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(log_probs.sum() + entropies.sum(), logits)
    torch.testing.assert_close(gradient, torch.tensor([[-0.5, 0.5, 0.0]], dtype=torch.float64), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rejects_logits_that_are_not_numbers(bad: float) -> None:
    logits = draw(3, VOCABULARY)
    logits[1, 5] = bad
    with pytest.raises(BatchError, match="1 of 3 rows of logits hold NaN"):
        token_statistics(logits, sample_tokens(3))


def test_rejects_hidden_states_that_are_not_numbers() -> None:
    hidden = draw(3, 4)
    hidden[2] = math.nan
    with pytest.raises(BatchError, match="1 of 3 rows of logits hold NaN"):
        token_statistics_from_hidden(hidden, draw(VOCABULARY, 4, seed=1), sample_tokens(3))


@pytest.mark.parametrize("token", [-100, VOCABULARY])
def test_rejects_a_token_outside_the_vocabulary(token: int) -> None:
    with pytest.raises(BatchError, match=f"expected 0 to {VOCABULARY - 1} for a vocabulary of {VOCABULARY}"):
        token_statistics(draw(1, VOCABULARY), torch.tensor([token]))


def test_rejects_floating_point_tokens() -> None:
    with pytest.raises(BatchError, match="expected int64 token ids"):
        token_statistics(draw(1, VOCABULARY), torch.tensor([1.0]))


def test_rejects_shapes_that_do_not_fit() -> None:
    with pytest.raises(BatchError, match=r"expected floating-point logits \(..., V\) and one token per row"):
        token_statistics(draw(3, VOCABULARY), sample_tokens(4))


def test_rejects_a_head_of_another_width() -> None:
    with pytest.raises(BatchError, match=r"expected \(..., D\), \(V, D\) and \(...\)"):
        token_statistics_from_hidden(draw(3, 4), draw(VOCABULARY, 5), sample_tokens(3))


def test_rejects_a_temperature_of_zero() -> None:
    with pytest.raises(ConfigError, match=r"temperature is 0\.0; expected a positive number"):
        token_statistics(draw(1, VOCABULARY), sample_tokens(1), temperature=0.0)


def test_empty_input_gives_empty_output() -> None:
    log_probs, entropies = token_statistics_from_hidden(draw(0, 4), draw(VOCABULARY, 4), sample_tokens(0))
    assert log_probs.shape == entropies.shape == (0,)


def test_close_to_the_largest_float_nothing_overflows() -> None:
    # exp(1000) overflows in every dtype; the shifted form never computes it.
    logits = torch.tensor([[1000.0, 1000.0]], requires_grad=True)
    log_probs, entropies = token_statistics(logits, torch.tensor([0]))
    torch.testing.assert_close(log_probs.item(), -math.log(2), rtol=1e-6, atol=0)  # float32
    torch.testing.assert_close(entropies.item(), math.log(2), rtol=1e-6, atol=0)  # float32


def test_unchecked_hidden_states_give_nan_rows_with_a_gradient() -> None:
    hidden = draw(3, 4)
    hidden[2] = math.nan
    hidden.requires_grad_()
    log_probs, _ = token_statistics_from_hidden(hidden, draw(VOCABULARY, 4, seed=1), sample_tokens(3), check=False)
    assert log_probs.isnan().tolist() == [False, False, True]
    assert log_probs.requires_grad


on_cuda = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


class TestOnCuda:
    """The same functions on a CUDA device, against float64 on the CPU."""

    pytestmark = on_cuda

    @pytest.fixture(autouse=True)
    def several_tiles(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "_MOST_ROWS", 16)
        monkeypatch.setattr(gpu, "_TILE_ELEMENTS", 16 * 40)
        monkeypatch.setattr(gpu, "_ALIGNED", 8)

    def test_kernels_are_there(self) -> None:
        assert gpu.usable(torch.zeros(1, device="cuda"))
        assert gpu.usable(torch.zeros(1, device="cuda", dtype=torch.bfloat16))
        assert not gpu.usable(torch.zeros(1, device="cuda", dtype=torch.float64))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
    @pytest.mark.parametrize("vocabulary", [VOCABULARY, 10_007])
    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    def test_from_logits(self, dtype: torch.dtype, vocabulary: int, temperature: float) -> None:
        logits = (3 * draw(4, 10, vocabulary)).to(dtype)
        logits[1, 2, 3:50] = -math.inf
        tokens = sample_tokens(4, 10, vocabulary=vocabulary)
        tokens[1, 2] = 0
        double = logits.detach().clone().double().requires_grad_()
        leaf = logits.cuda().detach().requires_grad_()
        *outputs, kappas = token_statistics(leaf, tokens.cuda(), temperature, with_kappas=True)
        torch.testing.assert_close(
            kappas.double().cpu(), reference_kappas(double.detach(), temperature), rtol=0, atol=2e-6
        )
        log_p = (double / temperature).log_softmax(-1)
        # A forbidden token has no part in the entropy, where 0 times -infinity would be no number.
        expected = (
            log_p.gather(-1, tokens.unsqueeze(-1)).squeeze(-1),
            -(log_p.exp() * log_p.masked_fill(log_p.isneginf(), 0)).sum(-1),
        )
        for actual, exact in zip(outputs, expected, strict=True):
            torch.testing.assert_close(actual.double().cpu(), exact, rtol=2e-7, atol=2e-6)
        mixed_loss(*outputs).backward()
        mixed_loss(*expected).backward()
        assert leaf.grad is not None
        assert double.grad is not None
        rounding = {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(dtype, 2e-6)
        # The slopes of the loss go up to 40, and so does what an error of 2e-6 becomes.
        smallest = 2**-24 if dtype == torch.float16 else 0.0
        torch.testing.assert_close(leaf.grad.double().cpu(), double.grad, rtol=rounding, atol=40 * 2e-6 + smallest)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("biased", [False, True])
    @pytest.mark.parametrize("frozen", [False, True])
    def test_from_hidden(self, dtype: torch.dtype, biased: bool, frozen: bool) -> None:
        compare_with_exact_logits("cuda", dtype, VOCABULARY, biased, frozen)

    def test_follows_autocast_without_a_copy_of_the_head(self) -> None:
        hidden, weight = draw(50, 8).float().cuda(), draw(VOCABULARY, 8, seed=1).float().cuda()
        tokens = sample_tokens(50).cuda()
        gradients = []
        for autocast in (True, False):
            here = [value.clone().requires_grad_() for value in (hidden, weight)]
            given = here if autocast else [value.bfloat16() for value in here]
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
                outputs = token_statistics_from_hidden(*given, tokens)
            gradients.append([*outputs, *torch.autograd.grad(mixed_loss(*outputs), here)])
        for one, other in zip(*gradients, strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other, rtol=2**-7, atol=2**-7)

    def test_nobody_reads_overwritten_logits(self) -> None:
        leaf, tokens = draw(9, VOCABULARY).float().cuda().requires_grad_(), sample_tokens(9).cuda()
        expected, in_place = gradient_and_place(leaf, tokens, WHO_STILL_READS["the caller"])
        assert not in_place
        actual, in_place = gradient_and_place(leaf, tokens)
        assert in_place
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_rejects_logits_that_are_not_numbers(self, bad: float) -> None:
        logits = draw(3, VOCABULARY).float().cuda()
        logits[1, 5] = bad
        with pytest.raises(BatchError, match="1 of 3 rows of logits hold NaN"):
            token_statistics(logits, sample_tokens(3).cuda())

    @pytest.mark.parametrize("token", [-100, VOCABULARY])
    def test_rejects_a_token_outside_the_vocabulary(self, token: int) -> None:
        tokens = torch.tensor([3, token]).cuda()
        hidden, weight = draw(2, 4).float().cuda(), draw(VOCABULARY, 4, seed=1).float().cuda()
        with pytest.raises(BatchError, match=f"expected 0 to {VOCABULARY - 1} for a vocabulary of {VOCABULARY}"):
            token_statistics(draw(2, VOCABULARY).float().cuda(), tokens)
        with pytest.raises(BatchError, match=f"expected 0 to {VOCABULARY - 1} for a vocabulary of {VOCABULARY}"):
            token_statistics_from_hidden(hidden, weight, tokens)
        unchecked = token_statistics_from_hidden(hidden, weight, tokens, check=False)
        assert unchecked.log_probs.isnan().tolist() == [False, True]
