"""Logits are computed where a token is trained on alone, and losses and gradients are those of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import family_models
import pytest
import torch
from bases import KINDS, prepared, shaken, some_batch
from cases import each
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from llmlab.data.finetuning_data import NOT_IN_LOSS, Batch
from llmlab.gpt import head as chunks
from llmlab.training.finetuning.backends import Prepared
from llmlab.training.finetuning.head import find_head


class _Largest(TorchDispatchMode):
    """The most rows of a tensor whose last side is `width`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.rows = width, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        wide = isinstance(made, Tensor) and made.dim() > 1 and made.shape[-1] == self.width
        if wide and made.is_floating_point() and func is not torch.ops.aten.t.default:  # not a weight, transposed
            self.rows = max(self.rows, made.numel() // self.width)
        return made


def _partly(batch: Batch) -> Batch:
    """Only a third of the tokens are trained on; of the first row none."""
    labels = torch.where(torch.arange(batch.labels.shape[1]) % 3 == 0, batch.labels, NOT_IN_LOSS)
    labels[0] = NOT_IN_LOSS
    return replace(batch, labels=labels)


def _plain(what: Prepared, batch: Batch) -> Tensor:
    logits, labels = what.logits(batch)[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten()
    return F.cross_entropy(logits.float(), labels, ignore_index=NOT_IN_LOSS, reduction="sum")


def _gradients(what: Prepared, loss: Tensor) -> dict[str, Tensor]:
    learning = {name: p for name, p in what.model.named_parameters() if p.requires_grad}
    return dict(zip(learning, torch.autograd.grad(loss, list(learning.values())), strict=True))


@contextmanager
def _in_chunks(size: int) -> Iterator[None]:
    """As with a large vocabulary."""
    with mock.patch.object(chunks, "FEW_LOGITS", 0), mock.patch.object(chunks, "CHUNK_ROWS", size):
        yield


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_and_its_gradients_are_those_of_all_logits(
    bases: dict[str, str], outputs: Path, kind: str, method: str
) -> None:
    what, batch = shaken(prepared(bases[kind], outputs, method), size=0.02), _partly(some_batch(rows=4))
    what.model.eval()  # GPT-2 has dropout
    loss = _plain(what, batch)
    expected = _gradients(what, loss)
    for wide in (False, True):
        with _in_chunks(3) if wide else _in_chunks(512):
            found = what.loss_sum(batch)
            assert float(found.detach()) == pytest.approx(float(loss.detach()), rel=1e-5)
            for name, gradient in _gradients(what, found).items():
                torch.testing.assert_close(gradient, expected[name], rtol=2e-4, atol=1e-5, msg=name)
            with torch.no_grad():
                assert float(what.loss_sum(batch)) == pytest.approx(float(loss.detach()), rel=1e-5)


@pytest.mark.slow
@each("kind", family_models.KINDS)
def test_the_head_of_every_family_is_told_apart_and_computes_nothing_elsewhere(kind: str) -> None:
    model = family_models.family_model(kind)

    def logits(ids: Tensor) -> Tensor:
        answer: Tensor = model(input_ids=ids, use_cache=False).logits
        return answer

    head = find_head(model, logits)
    assert head is not None
    batch = _partly(some_batch(rows=4))
    ids = batch.ids % family_models.VOCAB
    places = F.pad(batch.labels[:, 1:] != NOT_IN_LOSS, (0, 1))
    wanted = F.pad(ids[:, 1:], (0, 1))[places]
    expected = F.cross_entropy(logits(ids)[places], wanted, reduction="sum")
    with _Largest(family_models.VOCAB) as seen:
        found = head.loss_sum(lambda: logits(ids), places, wanted)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert seen.rows == len(wanted)


def test_a_row_with_nothing_to_learn_costs_nothing(bases: dict[str, str], outputs: Path) -> None:
    for kind in ("scratch", "llama", "gpt2"):
        what, batch = prepared(bases[kind], outputs), some_batch()
        loss = what.loss_sum(replace(batch, labels=torch.full_like(batch.labels, NOT_IN_LOSS)))
        assert float(loss.detach()) == 0
        assert all(float(gradient.abs().max()) == 0 for gradient in _gradients(what, loss).values())


def test_a_model_that_minds_keeps_all_logits(bases: dict[str, str], outputs: Path) -> None:
    what, batch = prepared(bases["llama"], outputs), _partly(some_batch())
    plain = what.model.forward

    def forward(*given: Any, **named: Any) -> Any:
        made = plain(*given, **named)
        made.logits = made.logits - made.logits.mean(1, keepdim=True)  # over positions: not of each alone
        return made

    with mock.patch.object(what.model, "forward", forward):
        what.head = find_head(what.model, lambda ids: what.logits(Batch(ids, ids, torch.ones_like(ids))))
        assert what.head is None
        torch.testing.assert_close(what.loss_sum(batch), _plain(what, batch))
