"""Norms, gradients, singular values and dead neurons, against the same by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from experiment_models import hooks_of, opened
from torch import Tensor

from llmlab.core.errors import UsageError
from llmlab.gpt.cache import Cache
from llmlab.gpt.model import GPT
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import Archive, read_archive
from llmlab.models.model import OpenModel

PROMPT = "the king said"


def measured(model: OpenModel, folder: Path, **values: object) -> Archive:
    answer_question(model, "parameters", values, folder / "parameters")
    return read_archive(folder / "parameters")


def activations(model: OpenModel, layer: int) -> Tensor:
    """What the last linear layer of a feed-forward reads [T, F]."""
    seen: list[Tensor] = []
    down = model.model.get_submodule(f"blocks.{layer}.feed_forward.down")
    hook = down.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    with torch.no_grad():
        model.model(torch.tensor([model.tokenizer.encode(PROMPT)]))
    hook.remove()
    return seen[0]


def test_norms_are_those_of_every_tensor_and_of_every_block(tmp_path: Path) -> None:
    model = opened(bias=True)
    archive = measured(model, tmp_path)
    names, shapes = (json.loads(archive.metadata.more[name]) for name in ("names", "shapes"))
    layers = json.loads(archive.metadata.more["layers"])
    weights = dict(model.model.named_parameters())
    assert names == list(weights)
    by_block = [0.0, 0.0]
    for number, (name, weight) in enumerate(weights.items()):
        flat = weight.detach().flatten()
        assert archive["parameters/norm"][number] == pytest.approx(float(flat.norm()), rel=1e-6)
        assert archive["parameters/rms"][number] == pytest.approx(float(flat.square().mean().sqrt()), rel=1e-6)
        assert archive["parameters/largest"][number] == pytest.approx(float(flat.abs().max()), rel=1e-6)
        assert archive["parameters/count"][number] == flat.numel()
        assert shapes[number] == list(weight.shape)
        assert layers[number] == (int(name.split(".")[1]) if name.startswith("blocks.") else -1)
        if layers[number] >= 0:
            by_block[layers[number]] += float(flat.square().sum())
    np.testing.assert_allclose(archive["layers/norm"], np.sqrt(by_block), rtol=1e-6)
    assert "parameters/gradient" not in archive
    assert not [name for name in archive if name.startswith("neurons/")]


def test_gradients_are_there_where_the_model_has_some(tmp_path: Path) -> None:
    model = opened()
    ids = torch.tensor([model.tokenizer.encode("the king")])
    model.model.loss(ids[:, :-1], ids[:, 1:]).backward()
    model.model.get_parameter("final_norm.weight").grad = None
    archive = measured(model, tmp_path)
    expected = [np.nan if weight.grad is None else float(weight.grad.norm()) for weight in model.model.parameters()]
    np.testing.assert_allclose(archive["parameters/gradient"], expected, rtol=1e-6)
    layers = json.loads(archive.metadata.more["layers"])
    of_block = [g for g, layer in zip(expected, layers, strict=True) if layer == 1]
    assert archive["layers/gradient"][1] == pytest.approx(np.sqrt(np.square(of_block).sum()), rel=1e-6)
    assert np.isnan(archive["parameters/gradient"]).sum() == 1


def test_singular_values_are_those_of_the_matrices_named(tmp_path: Path) -> None:
    model = opened(block_size=16)
    archive = measured(model, tmp_path, singular=["blocks.*.attention.out.weight", "token_embedding.weight"])
    names = {name for name in archive if name.startswith("singular/")}
    matrices = ["blocks.0.attention.out.weight", "blocks.1.attention.out.weight", "token_embedding.weight"]
    assert names == {f"singular/{name}" for name in matrices}
    for name in matrices:
        expected = np.linalg.svd(model.model.state_dict()[name].numpy(), compute_uv=False)
        np.testing.assert_allclose(archive[f"singular/{name}"], expected, rtol=1e-4)
    with pytest.raises(UsageError, match="Did you mean token_embedding"):
        measured(model, tmp_path, singular=["token_embeding.weight"])


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_smooth_neurons_are_dead_below_the_threshold_everywhere(activation: str, tmp_path: Path) -> None:
    model = opened(block_size=16, activation=activation, bias=True)
    with torch.no_grad():  # three neurons of layer 1 that hardly move
        for name in ("up", "gate") if activation == "swiglu" else ("up",):
            for parameter in model.model.get_submodule(f"blocks.1.feed_forward.{name}").parameters():
                parameter[[2, 5, 7]] *= 1e-4
    archive = measured(model, tmp_path, text=PROMPT, threshold=0.01)
    assert archive.metadata.more["dead"] == "below threshold"
    for layer in range(2):
        a = activations(model, layer)
        rms = a.square().mean().sqrt()
        dead = a.abs().amax(0) < 0.01 * a.abs().amax(0).median()
        assert archive["neurons/dead"][layer] == pytest.approx(float(dead.double().mean()))
        assert archive["neurons/positive"][layer] == pytest.approx(float((a > 0).double().mean()))
        assert archive["neurons/rms"][layer] == pytest.approx(float(rms), rel=1e-5)
        np.testing.assert_allclose(archive[f"neurons/largest/{layer}"], a.abs().amax(0), rtol=1e-5)
    assert archive["neurons/dead"][1] >= 3 / a.shape[1]
    assert hooks_of(model) == 0


def test_neurons_that_never_rise_above_zero_are_dead_where_nothing_is_negative(tmp_path: Path) -> None:
    model = opened(block_size=16, activation="relu2", bias=True)
    with torch.no_grad():
        model.model.get_parameter("blocks.0.feed_forward.up.bias")[:10] = -100
    archive = measured(model, tmp_path, text=PROMPT)
    assert archive.metadata.more["dead"] == "never positive"
    for layer in range(2):
        assert archive["neurons/dead"][layer] == pytest.approx(
            float((activations(model, layer) <= 0).all(0).double().mean())
        )
    assert archive["neurons/dead"][0] >= 10 / 128


def test_wrong_numbers_are_refused(tmp_path: Path) -> None:
    for values in ({"values": 0}, {"threshold": 0.0}, {"threshold": float("nan")}):
        with pytest.raises(UsageError, match="above 0"):
            measured(opened(), tmp_path, **values)


@pytest.mark.parametrize("heads", [0, 1])
def test_the_key_value_cache_is_as_large_as_one_that_was_filled(heads: int, tmp_path: Path) -> None:
    model = opened(n_kv_head=heads)
    assert isinstance(model.model, GPT)
    ids = torch.tensor([model.tokenizer.encode("the king")])
    cache = Cache(model.model.settings.n_layer, ids.shape[1])
    cache.expect(torch.arange(ids.shape[1])[None])
    with torch.no_grad():
        model.model.residual_stream(ids, cache)
    kept = [value for layer in cache.layers for value in layer.kept]
    each = sum(value.numel() * value.element_size() for value in kept) // ids.shape[1]
    notes = " ".join(measured(model, tmp_path, text="the king").metadata.notes)
    assert f"takes {each:,} bytes for each token: {each * 1024 / 1e6:,.3g} MB for 1,024 tokens" in notes
