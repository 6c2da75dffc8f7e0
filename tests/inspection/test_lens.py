"""The lens reads every depth as the model reads its last one, and measures what it finds as defined."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from small_models import VOCAB, some_ids
from torch import Tensor
from watched_models import SETTINGS, name, scratch, watch_all

from llmlab.anatomy.anatomy import Anatomy, Refusals
from llmlab.anatomy.capture import run
from llmlab.anatomy.finding import scratch_anatomy
from llmlab.core.errors import Cancelled, LabError
from llmlab.gpt.model import GPT
from llmlab.inspection import lens
from llmlab.inspection.lens import Lens, parts_of


def looked(model: GPT, anatomy: Anatomy, ids: Tensor, **options: Any) -> dict[str, Tensor]:
    watcher = Lens(anatomy, ids.tolist(), **options)
    run(model, anatomy, ids, [watcher], last=True)
    return watcher.results()


def every_row(model: GPT, anatomy: Anatomy, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of all rows by the model's own modules [2 L + 1, T, V], and the model's logits [T, V]."""
    seen, logits = watch_all(model, anatomy, ids)
    streams = [seen.points[point, layer] for layer in range(anatomy.n_layer) for point in ("pre_attn", "post_attn")]
    rows = [model.logits(model.final_norm(x)) for x in (*streams, seen.final_residual)]
    return torch.stack(rows), logits


@pytest.mark.parametrize("options", SETTINGS, ids=name)
@pytest.mark.parametrize("at_once", [1000, 5 * VOCAB, 1])
def test_every_row_is_read_as_defined_whatever_is_in_memory_at_once(
    options: dict[str, Any], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lens, "_NUMBERS", at_once)
    model = scratch(options)
    anatomy, ids = scratch_anatomy(model), some_ids(12)
    found = looked(model, anatomy, ids, top=4)
    rows, logits = every_row(model, anatomy, ids)
    p = rows.double().softmax(-1)
    targets = [*ids[1:].tolist(), int(logits[-1].argmax())]
    for row in range(5):
        for position, target in enumerate(targets):
            distribution = p[row, position].tolist()
            order = sorted(range(VOCAB), key=lambda token: -distribution[token])
            assert found["lens/ids"][row, position].tolist() == order[:4]
            wanted = [distribution[token] for token in order[:4]]
            assert found["lens/probability"][row, position].tolist() == pytest.approx(wanted, rel=1e-4)
            assert found["lens/rank"][row, position] == order.index(target) + 1
            assert found["lens/target_probability"][row, position].item() == pytest.approx(
                distribution[target], rel=1e-4
            )
            entropy = -sum(x * math.log(x) for x in distribution)
            assert found["lens/entropy"][row, position].item() == pytest.approx(entropy, abs=1e-5)
            final = p[-1, position].tolist()
            kl = sum(x * math.log(x / y) for x, y in zip(final, distribution, strict=True))
            assert found["lens/kl"][row, position].item() == pytest.approx(kl, abs=1e-5)


@pytest.mark.parametrize("options", SETTINGS, ids=name)
def test_the_last_row_is_the_models_own_prediction(options: dict[str, Any]) -> None:
    model = scratch(options)
    anatomy, ids = scratch_anatomy(model), some_ids(12)
    found = looked(model, anatomy, ids, top=VOCAB)
    probabilities = run(model, anatomy, ids)[0].softmax(-1)
    assert torch.allclose(found["lens/probability"][-1], probabilities.sort(-1, descending=True).values, rtol=1e-4)
    assert torch.equal(found["lens/ids"][-1, :, 0].long(), probabilities.argmax(-1))
    assert not found["lens/kl"][-1].any()
    assert found["lens/rank"][-1, -1] == 1
    assert {what: x.dtype for what, x in found.items() if x.dtype != torch.float32} == {
        "lens/ids": torch.int32,
        "lens/rank": torch.int32,
    }


def test_padding_rows_of_the_vocabulary_take_no_part() -> None:
    model = scratch(SETTINGS[0], vocab_multiple=64)
    anatomy, ids = scratch_anatomy(model), some_ids(12)
    assert anatomy.vocab_size == 64
    rows, _ = every_row(model, anatomy, ids)
    found = looked(model, anatomy, ids, vocab_size=VOCAB, top=3)
    p = rows[..., :VOCAB].softmax(-1)
    assert torch.allclose(found["lens/entropy"], -(p * p.log()).sum(-1), atol=1e-5)
    assert found["lens/ids"].max() < VOCAB
    assert not torch.allclose(looked(model, anatomy, ids)["lens/entropy"], found["lens/entropy"], atol=1e-2)


def test_scale_softcap_and_bias_of_a_family_are_part_of_every_row() -> None:
    model = scratch(SETTINGS[1])
    bias = torch.linspace(-1, 1, VOCAB)
    anatomy, ids = scratch_anatomy(model), some_ids(9)
    told = dataclasses.replace(anatomy, unembedding_bias=bias, logit_scale=0.5, logit_softcap=1.5)
    rows, _ = every_row(model, anatomy, ids)
    p = (torch.tanh((rows + bias) * 0.5 / 1.5) * 1.5).softmax(-1)
    found = looked(model, told, ids, top=VOCAB)
    assert torch.allclose(found["lens/probability"], p.sort(-1, descending=True).values, rtol=1e-4)


def test_a_prompt_of_one_token_has_its_own_prediction_as_target() -> None:
    model = scratch(SETTINGS[2])
    found = looked(model, scratch_anatomy(model), torch.tensor([3]))
    assert found["lens/rank"].shape == (5, 1)
    assert found["lens/rank"][-1, 0] == 1


def test_parts_of_a_lens_are_its_rows_the_prediction_and_every_fourth_layer_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for n_layer in range(1, 40):
        parts = parts_of(n_layer)
        assert all(parts)
        assert sorted(row for part in parts for row in part) == list(range(2 * n_layer + 1))
        assert {0, 2 * n_layer} <= set(parts[0])
        assert [row % 2 for row in parts[-1]] == [1] * n_layer  # after attention
    assert parts_of(8) == [[0, 8, 16], [12, 4], [14, 10, 6, 2], [15, 13, 11, 9, 7, 5, 3, 1]]

    monkeypatch.setattr(lens, "_NUMBERS", 5 * VOCAB)  # a part is told once, whatever fits into memory at a time
    model = scratch(SETTINGS[0])
    anatomy, ids = scratch_anatomy(model), some_ids(12)
    whole = looked(model, anatomy, ids)
    watcher, told = Lens(anatomy, ids.tolist()), list[dict[str, Tensor]]()
    run(model, anatomy, ids, [watcher], last=True)
    found = watcher.results(part=lambda part: told.append({name: x.clone() for name, x in part.items()}))
    there: list[int] = []
    for rows, part in zip(parts_of(anatomy.n_layer), [*told, found], strict=True):
        there += rows
        rest = sorted(set(range(2 * anatomy.n_layer + 1)) - set(there))
        for key, x in part.items():
            assert torch.equal(x[there], whole[key][there]), key
            missing = {"lens/ids": x == -1, "lens/rank": x == 0}.get(key, x.isnan())
            assert missing[rest].all(), key


def test_the_lens_can_be_refused_and_cancelled() -> None:
    model = scratch(SETTINGS[0])
    anatomy, ids = scratch_anatomy(model), some_ids(12)
    with pytest.raises(LabError, match="No way"):
        Lens(dataclasses.replace(anatomy, refusals=Refusals(attribution="No way.")), [1])

    def stop(what: str, done: float, total: float) -> None:
        assert total == 60
        if done >= 24:
            raise Cancelled

    watcher = Lens(anatomy, ids.tolist())
    run(model, anatomy, ids, [watcher])
    with pytest.raises(Cancelled):
        watcher.results(stop)
