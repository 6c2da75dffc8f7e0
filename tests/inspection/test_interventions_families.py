"""Changes mean the same in every family: what is set, skipped or taken out is the model's own part."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from cases import each
from family_models import KINDS, TIME, family_anatomy, family_model, some_ids
from torch import Tensor, nn
from watched_models import Everything

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.capture import run
from llmlab.inspection.archive import read_archive
from llmlab.inspection.intervening import EDITABLE, Interventions, Recorder, Sources, parse_intervention
from llmlab.inspection.sweep import PatchingSweep, patching_sweep, row_bytes
from llmlab.models.model import OpenModel

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # transformers' and peft's own
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning"),
]
NAMES = list(KINDS)
LAYER, HEAD = 1, 2
SOURCE = some_ids(seed=9)


class Numbers:
    """Reads tokens written as numbers."""

    beginning = None

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def token_text(self, id: int) -> str:
        return str(id)


@functools.cache
def opened(name: str) -> OpenModel:
    """A family's model."""
    model = OpenModel(name, name, "huggingface", family_model(name), Numbers())
    vars(model)["anatomy"] = family_anatomy(name)
    return model


def logits(model: nn.Module, anatomy: Anatomy, *edits: str, sources: Sources | None = None) -> Tensor:
    changes = [parse_intervention(edit) for edit in edits]
    return run(model, anatomy, some_ids(), interventions=[Interventions(changes, TIME, sources)] if edits else [])[0]


def patched_from(model: nn.Module, anatomy: Anatomy, ids: Tensor, *edits: str) -> Sources:
    recorder = Recorder(slot for edit in edits for slot in parse_intervention(edit).takes)
    run(model, anatomy, ids, [recorder])
    return Sources(patches=recorder.values, alignment={position: position for position in range(TIME)})


def heads_of(anatomy: Anatomy) -> int | None:
    """A layer whose heads can be changed; None where the family has none."""
    if anatomy.refusals.heads is not None:
        return None
    return next((layer for layer, block in enumerate(anatomy.blocks) if block.projection is not None), None)


def points_of(anatomy: Anatomy) -> tuple[str, ...]:
    return EDITABLE if anatomy.refusals.contributions is None else ("pre_attn", "post_ffn")


@pytest.mark.slow
@each("name", NAMES)
def test_patching_with_itself_changes_nothing(name: str) -> None:
    model, anatomy = opened(name).model, opened(name).anatomy
    edits = [f"patch residual:{layer}.{point}" for layer in range(3) for point in points_of(anatomy)]
    if (layer := heads_of(anatomy)) is not None:
        edits += [f"patch head:{layer}.{head}" for head in range(anatomy.n_head)]
    before = logits(model, anatomy)
    after = logits(model, anatomy, *edits, sources=patched_from(model, anatomy, some_ids(), *edits))
    assert torch.equal(before, after)


@each("name", NAMES)
def test_patching_the_stream_of_the_last_layer_gives_the_sources_predictions(name: str) -> None:
    model, anatomy = opened(name).model, opened(name).anatomy
    sources = patched_from(model, anatomy, SOURCE, "patch layer:2")
    assert torch.equal(logits(model, anatomy, "patch layer:2", sources=sources), run(model, anatomy, SOURCE)[0])


@each("name", NAMES)
def test_a_zeroed_head_is_one_whose_output_weights_are_zero(name: str) -> None:
    model, anatomy = opened(name).model, opened(name).anatomy
    layer = heads_of(anatomy)
    if layer is None:
        pytest.skip(anatomy.refusals.heads or "no heads")
    without = copy.deepcopy(model)
    path = next(path for path, module in model.named_modules() if module is anatomy.blocks[layer].projection)
    weight = without.get_submodule(path).weight
    assert isinstance(weight, Tensor)
    with torch.no_grad():
        by_input = weight if type(anatomy.blocks[layer].projection).__name__ == "Conv1D" else weight.T
        by_input.unflatten(0, (anatomy.n_head, -1))[HEAD] = 0
        expected = without(input_ids=some_ids()[None]).logits[0]
    found = logits(model, anatomy, f"zero head:{layer}.{HEAD}")
    assert torch.allclose(found, expected, atol=2e-5)
    assert not torch.allclose(found, logits(model, anatomy), atol=1e-3)


@each("name", NAMES)
def test_a_skipped_layer_adds_neither_attention_nor_feed_forward(name: str) -> None:
    model, anatomy = opened(name).model, opened(name).anatomy
    if anatomy.refusals.contributions is not None:
        pytest.skip(anatomy.refusals.contributions)
    skipped = logits(model, anatomy, f"zero layer:{LAYER}")
    nothing = logits(model, anatomy, f"zero attention:{LAYER}", f"zero feed_forward:{LAYER}")
    assert torch.allclose(skipped, nothing, atol=1e-5)
    assert not torch.allclose(skipped, logits(model, anatomy), atol=1e-3)


@each("name", NAMES)
def test_a_change_of_what_a_layer_adds_is_what_comes_into_the_stream(name: str) -> None:
    """Also where the model multiplies what it adds."""
    model, anatomy = opened(name).model, opened(name).anatomy
    if anatomy.refusals.contributions is not None:
        pytest.skip(anatomy.refusals.contributions)
    plain, changed = Everything(), Everything()
    run(model, anatomy, some_ids(), [plain])
    halves = [parse_intervention(f"scale:0.5 residual:{LAYER}.{point}") for point in ("attn_out", "mlp_out")]
    run(model, anatomy, some_ids(), [changed], [Interventions(halves, TIME)])
    at = {point: changed.points[point, LAYER] for point in EDITABLE}
    assert torch.allclose(at["attn_out"], plain.points["attn_out", LAYER] / 2, atol=1e-6)
    added = at["post_ffn"] - at["pre_attn"]
    assert torch.allclose(at["attn_out"] + at["mlp_out"], added, rtol=1e-3, atol=1e-5)


@each("name", NAMES)
def test_a_change_reaches_no_earlier_token(name: str) -> None:
    model, anatomy = opened(name).model, opened(name).anatomy
    before, after = logits(model, anatomy), logits(model, anatomy, "scale:0.5 layer:0@7")
    assert torch.allclose(before[:7], after[:7], atol=1e-6)
    assert not torch.allclose(before[7], after[7], atol=1e-3)


@pytest.mark.slow
@each("name", NAMES)
def test_a_batch_of_changed_prompts_is_each_of_them_alone(name: str, tmp_path: Path) -> None:
    model = opened(name)
    prompt, source = (tuple(ids.tolist()) for ids in (some_ids(), SOURCE))
    flat = name == "opt"  # its feed-forward gets all positions of all prompts in one row
    heads, point = heads_of(model.anatomy) is not None and not flat, "mlp_out" if flat else "pre_attn"
    aim = {"ids": prompt, "source_ids": source, "answer": "3", "against": "40"}
    question = PatchingSweep(**aim, over="layer,head" if heads else "layer,position", point=point)
    patching_sweep(model, question, tmp_path / "sweep", budget=7 * row_bytes(model.anatomy, TIME))
    grid = read_archive(tmp_path / "sweep")["sweep/logit_difference"]
    part = "head:{}.{}" if heads else f"residual:{{}}.{point}@{{}}"
    edits = {at: f"patch {part.format(*at)}" for at in ((0, 0), (1, 2), (2, 3))}
    for at in [at for at in edits if heads and model.anatomy.blocks[at[0]].projection is None]:
        assert grid[at] != grid[at]  # NaN: nothing to change
        del edits[at]
    sources = patched_from(model.model, model.anatomy, SOURCE, *edits.values())
    for at, edit in edits.items():
        alone = logits(model.model, model.anatomy, edit, sources=sources)[-1].double()
        assert grid[at] == pytest.approx(float(alone[3] - alone[40]), abs=3e-5)
