"""The bars of a logit sum to it, layer by layer, head by head and neuron by neuron."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from cases import each
from small_models import some_ids
from watched_models import SETTINGS, name, scratch, watch_all

from llmlab.anatomy.anatomy import Anatomy, Refusals
from llmlab.anatomy.capture import run
from llmlab.anatomy.finding import scratch_anatomy
from llmlab.core.errors import LabError
from llmlab.inspection.attribution import AttributionAt, NeuronsAt


@each("options", SETTINGS)
@each(("position", "answer", "against"), [(0, 3, None), (11, 5, 9), (6, 30, 0)])
def test_the_bars_sum_to_the_models_own_logit(
    options: dict[str, Any], position: int, answer: int, against: int | None
) -> None:
    model = scratch(options)
    anatomy, ids = scratch_anatomy(model), some_ids(12)
    watcher = AttributionAt(anatomy, position)
    logits = run(model, anatomy, ids, [watcher])[0, position]
    bars = watcher.results(answer, against)
    capped = logits[answer] - (0 if against is None else logits[against])
    cap = options.get("logit_softcap", 0.0)
    # Bars sum to what scale and cap are put on.
    before = (torch.atanh(logits / cap) * cap if cap else logits) / anatomy.logit_scale
    wanted = before[answer] - (0 if against is None else before[against])
    assert bars["attribution/sum"].item() == pytest.approx(wanted.item(), rel=1e-5, abs=2e-5)
    assert bars["attribution/logit"].item() == pytest.approx(wanted.item(), rel=1e-5, abs=2e-5)
    split = bars["attribution/heads"].sum(-1) + bars["attribution/attention_bias"]
    assert torch.allclose(split, bars["attribution/attention"], atol=1e-5)
    assert (bars["attribution/attention_bias"].abs().max() > 1e-3) == options["bias"]
    said = watcher.after(answer, against)
    assert said is None if not cap else f"softly at 3; afterwards it is {capped:.4f}" in str(said)


@pytest.mark.parametrize("options", SETTINGS, ids=name)
def test_a_bar_is_what_the_logit_loses_without_its_part_while_the_scale_stays(options: dict[str, Any]) -> None:
    model = scratch(options)
    anatomy, ids, norm = scratch_anatomy(model), some_ids(12), scratch_anatomy(model).norm
    seen, _ = watch_all(model, anatomy, ids)
    watcher = AttributionAt(anatomy, 8)
    run(model, anatomy, ids, [watcher])
    bars = watcher.results(4)
    final = seen.final_residual[8]

    def logit(stream: torch.Tensor) -> float:
        frozen = (final - final.mean()).square().mean() if norm.kind == "layernorm" else final.square().mean()
        centred = stream - stream.mean() if norm.kind == "layernorm" else stream
        y = centred / (frozen + 1e-5).sqrt() * norm.weight + (0 if norm.bias is None else norm.bias)
        return float(y @ anatomy.unembedding[4])

    for layer in range(2):
        for what, point in (("attention", "attn_out"), ("feed_forward", "mlp_out")):
            lost = logit(final) - logit(final - seen.points[point, layer][8])
            assert bars[f"attribution/{what}"][layer].item() == pytest.approx(lost, abs=1e-5)
    lost = logit(final) - logit(final - seen.points["pre_attn", 0][8])
    assert bars["attribution/embedding"].item() == pytest.approx(lost, abs=1e-5)
    assert bars["attribution/bias"].item() == pytest.approx(logit(final - final), abs=1e-5)


@pytest.mark.parametrize("options", SETTINGS, ids=name)
def test_neurons_and_bias_sum_to_the_layers_bar(options: dict[str, Any]) -> None:
    model = scratch(options)
    anatomy, ids = scratch_anatomy(model), some_ids(12)
    whole, watcher = AttributionAt(anatomy, 7), NeuronsAt(anatomy, 1, 7)
    run(model, anatomy, ids, [whole, watcher])
    hidden = model.blocks[1].feed_forward.down.weight.shape[1]
    found, bar = watcher.results(2, 6, top=10_000), whole.results(2, 6)["attribution/feed_forward"][1].item()
    assert len(found["neurons/index"]) == hidden
    assert found["neurons/sum"].item() == pytest.approx(bar, abs=1e-5)
    assert (found["neurons/attribution"].sum() + found["neurons/bias"]).item() == pytest.approx(bar, abs=1e-5)
    seen, _ = watch_all(model, anatomy, ids)
    assert torch.equal(found["neurons/activation"], seen.activations[1][7][found["neurons/index"].long()])
    first = watcher.results(2, 6, top=3)
    assert torch.equal(first["neurons/index"], found["neurons/index"][:3])
    sizes = found["neurons/attribution"].abs()
    assert (sizes[:-1] >= sizes[1:]).all()


def changed(anatomy: Anatomy, **block: Any) -> Anatomy:
    return dataclasses.replace(
        anatomy, blocks=tuple(dataclasses.replace(described, **block) for described in anatomy.blocks)
    )


def test_experts_and_wrong_neurons_are_refused() -> None:
    model = scratch(SETTINGS[0])
    anatomy, ids = scratch_anatomy(model), some_ids(12)
    with pytest.raises(LabError, match="mixture of experts"):
        NeuronsAt(changed(anatomy, neurons=None), 0, 3)
    wrong, other = NeuronsAt(anatomy, 1, 3), NeuronsAt(anatomy, 0, 3)
    run(model, anatomy, ids, [wrong])
    wrong._into = other._into  # the weights of another layer
    with pytest.raises(LabError, match="differs from what the feed-forward gave"):
        wrong.results(1)


def test_a_family_whose_stream_is_not_a_sum_is_refused() -> None:
    anatomy = dataclasses.replace(
        scratch_anatomy(scratch(SETTINGS[0])), refusals=Refusals(contributions="Its stream is not additive.")
    )
    with pytest.raises(LabError, match="not additive"):
        AttributionAt(anatomy, 0)


def test_scale_and_softcap_are_told_and_left_out_of_the_bars() -> None:
    model = scratch(SETTINGS[3])
    anatomy, ids = scratch_anatomy(model), some_ids(12)
    capped = dataclasses.replace(anatomy, logit_scale=0.5, logit_softcap=2.0)
    watcher = AttributionAt(capped, 11)
    logits = run(model, capped, ids, [watcher])[0, 11]  # the scratch model itself has neither
    assert watcher.results(3)["attribution/sum"].item() == pytest.approx(logits[3].item(), abs=1e-5)
    after = 2 * torch.tanh(logits[3] * 0.5 / 2).item()
    assert watcher.after(3) == (
        "Bars sum to the logit before this family multiplies its logits by 0.5 and caps them softly at 2; "
        f"afterwards it is {after:.4f}."
    )
