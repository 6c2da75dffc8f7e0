"""Norms, cosines, shares and head norms equal their definitions; parts add up to their wholes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import some_ids
from torch import Tensor
from torch.nn.functional import cosine_similarity
from watched_models import SETTINGS, name, scratch, watch_all

from llmlab.anatomy.capture import POINTS, run
from llmlab.anatomy.finding import scratch_anatomy
from llmlab.gpt.model import Block
from llmlab.inspection import residual
from llmlab.inspection.residual import Contributions, ResidualStream
from llmlab.inspection.spill import Spill


@pytest.mark.parametrize("options", SETTINGS, ids=name)
def test_contributions_equal_their_definitions(options: dict[str, Any]) -> None:
    model = scratch(options)
    anatomy, ids = scratch_anatomy(model), some_ids(11)
    watcher = Contributions(anatomy, 11)
    run(model, anatomy, ids, [watcher])
    results, (seen, _) = watcher.results(), watch_all(model, anatomy, ids)
    for point in POINTS:
        assert torch.allclose(results[f"contributions/norm/{point}"], seen.stacked(point).norm(dim=-1), rtol=1e-6)
    for what, before, after in (
        ("attention", "pre_attn", "post_attn"),
        ("feed_forward", "post_attn", "post_ffn"),
        ("block", "pre_attn", "post_ffn"),
    ):
        wanted = cosine_similarity(seen.stacked(before), seen.stacked(after), dim=-1)
        assert torch.allclose(results[f"contributions/cosine/{what}"], wanted, atol=1e-6)
    final = seen.final_residual
    for what, point in (("attention", "attn_out"), ("feed_forward", "mlp_out")):
        wanted = (seen.stacked(point) * final).sum(-1) / final.square().sum(-1)
        assert torch.allclose(results[f"contributions/share/{what}"], wanted, atol=1e-6)


def test_a_cosine_stays_one_where_a_contribution_is_parallel_and_thousands_of_times_as_long() -> None:
    model = scratch(SETTINGS[0], n_layer=1)
    watcher = Contributions(scratch_anatomy(model), 50)
    x = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    for point, times in zip(POINTS, (1, 3000, 3001, -1, 3000), strict=True):
        watcher.residual(0, point, times * x)
    watcher.final(3000 * x)
    results = watcher.results()
    for what in ("attention", "feed_forward", "block"):
        cosine = results[f"contributions/cosine/{what}"]
        assert torch.allclose(cosine, torch.ones(1, 50), atol=1e-6)


@pytest.mark.parametrize("options", SETTINGS, ids=name)
def test_shares_sum_to_one(options: dict[str, Any]) -> None:
    model = scratch(options, n_layer=4)
    watcher = Contributions(scratch_anatomy(model), 12)
    run(model, scratch_anatomy(model), some_ids(12), [watcher])
    shares = {what: watcher_share for what, watcher_share in watcher.results().items() if "/share/" in what}
    whole = sum(share if share.dim() == 1 else share.sum(0) for share in shares.values())
    assert isinstance(whole, Tensor)
    assert torch.allclose(whole, torch.ones(12), atol=1e-5)


def test_contributions_are_the_same_from_memory_and_from_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    model = scratch(SETTINGS[0], n_layer=4)
    found = []
    for memory in (residual._IN_MEMORY, 3000, 0):  # bytes: all of 8 matrices of 1,536, one, none
        monkeypatch.setattr(residual, "_IN_MEMORY", memory)
        watcher = Contributions(scratch_anatomy(model), 12, logits=0)
        run(model, scratch_anatomy(model), some_ids(12), [watcher])
        found.append(watcher.results())
    for what, values in found[0].items():
        assert all(torch.equal(other[what], values) for other in found[1:]), what


@pytest.mark.parametrize("options", SETTINGS, ids=name)
def test_head_norms_are_those_of_what_each_head_adds(options: dict[str, Any]) -> None:
    model = scratch(options)
    anatomy, ids = scratch_anatomy(model), some_ids(12)
    watcher = Contributions(anatomy, 12)
    run(model, anatomy, ids, [watcher])
    norms, (seen, _) = watcher.results()["contributions/heads"], watch_all(model, anatomy, ids)
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        out = block.attention.out
        added = [seen.z[layer][:, head] @ out.weight[:, 8 * head :][:, :8].T for head in range(4)]  # [T, C] each
        wanted = torch.stack([x.norm(dim=-1) for x in added])
        assert torch.allclose(norms[layer], wanted, rtol=1e-5)
        whole = sum(added) + (0 if out.bias is None else out.bias)
        assert torch.allclose(whole, seen.points["attn_out", layer], atol=1e-5)


def test_the_whole_stream_is_handed_on() -> None:
    model = scratch(SETTINGS[1])
    anatomy, ids = scratch_anatomy(model), some_ids(7)
    kept: dict[tuple[str, int | None], Tensor] = {}
    run(model, anatomy, ids, [ResidualStream(lambda what, x, layer=None: kept.update({(what, layer): x.clone()}))])
    seen, _ = watch_all(model, anatomy, ids)
    for (point, layer), x in seen.points.items():
        assert torch.equal(kept[f"residual/{point}", layer], x)
    assert torch.equal(kept["residual/final", None], seen.final_residual)
    assert len(kept) == 11


@pytest.mark.parametrize("memory", [0, 100, 240])  # bytes: of matrices of 80
def test_what_is_put_aside_comes_back_whole_and_in_parts(memory: int) -> None:
    spill, matrices = Spill(memory=memory), torch.randn(3, 5, 4)
    assert [spill.put(x) for x in matrices] == [0, 1, 2]
    for number, matrix in enumerate(matrices.clone()):
        matrices[number] = 0.0  # what was put aside is a copy
        assert torch.equal(spill.get(number), matrix)
        assert torch.equal(spill.get(number, 1, 4), matrix[1:4])
    with pytest.raises(EOFError, match="matrix 3"):
        spill.get(3)
