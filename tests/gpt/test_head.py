"""The chunked loss is plain cross-entropy: same value, same gradients, however the rows fall into chunks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_models import lively, shape, some_ids
from torch import Tensor

from llmlab.core.processes import multiplies_in_bf16
from llmlab.gpt import head
from llmlab.gpt.head import next_token_loss

CHUNK = 5


@pytest.fixture
def chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of five rows, also where plain cross-entropy would do."""
    monkeypatch.setattr(head, "FEW_LOGITS", 0)
    monkeypatch.setattr(head, "CHUNK_ROWS", CHUNK)


def _inputs(rows: int, vocab: int = 13, width: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Double precision, so that only a wrong formula makes a difference."""
    random = torch.Generator().manual_seed(rows)
    x = torch.randn(1, rows, width, dtype=torch.float64, generator=random, requires_grad=True)
    unembedding = torch.randn(vocab, width, dtype=torch.float64, generator=random, requires_grad=True)
    return x, unembedding, torch.randint(vocab, (1, rows), generator=random)


def _plain(x: Tensor, unembedding: Tensor, targets: Tensor, softcap: float = 0.0) -> Tensor:
    logits = x @ unembedding.T
    if softcap:
        up, down = (logits / softcap).exp(), (-logits / softcap).exp()
        logits = softcap * (up - down) / (up + down)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("softcap", [0.0, 2.5])
@pytest.mark.parametrize("rows", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 2])
def test_chunks_give_the_loss_and_gradients_of_plain_cross_entropy(rows: int, softcap: float) -> None:
    inputs = _inputs(rows)
    ours, expected = next_token_loss(*inputs, softcap), _plain(*inputs, softcap)
    assert type(ours.grad_fn).__name__ == "_ChunkedLossBackward"
    assert torch.allclose(ours, expected, rtol=1e-12)
    for mine, plain in zip(
        torch.autograd.grad(ours, inputs[:2]), torch.autograd.grad(expected, inputs[:2]), strict=True
    ):
        assert torch.allclose(mine, plain, rtol=1e-10, atol=1e-14)


@pytest.mark.usefixtures("chunked")
def test_gradients_follow_the_scale_from_above() -> None:
    inputs = _inputs(7)
    whole = torch.autograd.grad(_plain(*inputs), inputs[:2])
    scaled = torch.autograd.grad(next_token_loss(*inputs) / 4 * 65536, inputs[:2])
    for mine, plain in zip(scaled, whole, strict=True):
        assert torch.allclose(mine, plain * 65536 / 4, rtol=1e-10)


@pytest.mark.usefixtures("chunked")
def test_accumulated_halves_are_the_whole() -> None:
    x, unembedding, targets = _inputs(12)
    for part in (slice(0, 6), slice(6, 12)):
        (next_token_loss(x[:, part], unembedding, targets[:, part]) / 2).backward()
    expected = torch.autograd.grad(_plain(x, unembedding, targets), (x, unembedding))
    assert x.grad is not None
    assert unembedding.grad is not None
    assert torch.allclose(x.grad, expected[0], rtol=1e-10, atol=1e-14)
    assert torch.allclose(unembedding.grad, expected[1], rtol=1e-10, atol=1e-14)


@pytest.mark.usefixtures("chunked")
def test_without_gradients_chunks_give_the_same_loss() -> None:
    inputs = _inputs(13)
    with torch.no_grad():
        for softcap in (0.0, 2.5):
            assert torch.allclose(next_token_loss(*inputs, softcap), _plain(*inputs, softcap), rtol=1e-12)


@pytest.mark.usefixtures("chunked")
def test_huge_logits_neither_overflow_nor_lose_their_gradient() -> None:
    x, unembedding, targets = _inputs(6)
    x = (x.detach() * 1e4).requires_grad_()
    ours, expected = next_token_loss(x, unembedding, targets), _plain(x, unembedding, targets)
    assert torch.allclose(ours, expected, rtol=1e-12)
    assert torch.allclose(torch.autograd.grad(ours, x)[0], torch.autograd.grad(expected, x)[0], atol=1e-12)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("softcap", [0.0, 1.5])
def test_the_whole_models_gradients_are_those_of_its_logits(softcap: float) -> None:
    model = lively(shape(bias=True, logit_softcap=softcap)).double()
    ids, targets = some_ids(3, 11), some_ids(3, 11, seed=2)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(model.loss(ids, targets), parameters)
    expected = torch.autograd.grad(F.cross_entropy(model(ids).flatten(0, 1), targets.flatten()), parameters)
    for mine, plain in zip(ours, expected, strict=True):
        assert torch.allclose(mine, plain, rtol=1e-9, atol=1e-12)


def test_at_the_size_of_gpt2s_vocabulary_single_precision_agrees() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 200, 8, generator=random, requires_grad=True)
    unembedding = torch.randn(50257, 8, generator=random, requires_grad=True)
    targets = torch.randint(50257, (1, 200), generator=random)
    ours, expected = next_token_loss(x, unembedding, targets), _plain(x, unembedding, targets)
    assert type(ours.grad_fn).__name__ == "_ChunkedLossBackward"  # this size is worth the chunks
    assert float(ours.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for mine, plain in zip(
        torch.autograd.grad(ours, (x, unembedding)), torch.autograd.grad(expected, (x, unembedding)), strict=True
    ):
        assert torch.allclose(mine, plain, atol=1e-5 * float(plain.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("softcap", [0.0, 2.5])
def test_in_bf16_a_processor_takes_chunks_and_rounds_only_what_is_multiplied(softcap: float) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 200, 64, generator=random, requires_grad=True)
    unembedding = (0.1 * torch.randn(50257, 64, generator=random)).requires_grad_()
    targets = torch.randint(50257, (1, 200), generator=random)
    expected = _plain(x, unembedding, targets, softcap)
    with torch.autocast("cpu", torch.bfloat16):
        ours = next_token_loss(x, unembedding, targets, softcap)
        with torch.no_grad():
            measured = next_token_loss(x, unembedding, targets, softcap)
    assert type(ours.grad_fn).__name__ == "_ChunkedLossBackward"
    assert torch.get_float32_matmul_precision() == "highest"
    assert ours.dtype == measured.dtype == torch.float32
    assert float(ours.detach()) == pytest.approx(float(expected.detach()), rel=1e-3)
    if multiplies_in_bf16():
        assert not torch.equal(ours, next_token_loss(x, unembedding, targets, softcap))
    assert float(measured) == pytest.approx(float(ours.detach()), rel=1e-5)
    for mine, plain in zip(
        torch.autograd.grad(ours, (x, unembedding)), torch.autograd.grad(expected, (x, unembedding)), strict=True
    ):
        assert float((mine - plain).norm() / plain.norm()) < 0.01  # a number of bf16 is at most 0.4 % off
