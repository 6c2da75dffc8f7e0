"""4-bit weights: how far they are from what they stand for, that they stay as they are, and where they cannot work."""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import CPU, learn, prepared, settings_for, some_batch
from concept_pages import page
from torch import nn

from llmlab.core.device import Device
from llmlab.core.errors import LabError
from llmlab.core.progress import quiet
from llmlab.models.source import open_model
from llmlab.training.finetuning import backends
from llmlab.training.finetuning import quantise as module
from llmlab.training.finetuning.backends import prepare
from llmlab.training.finetuning.estimate import NF4_BYTES
from llmlab.training.finetuning.loop import hollow
from llmlab.training.finetuning.quantise import full_weight, is_quantised, place, quantise, quantise_layers
from llmlab.training.finetuning.targets import ALL, target_layers

# The 16 values of NF4 (Dettmers et al. 2023, appendix E), rounded to four places.
_NEGATIVE = (-1, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0)
_POSITIVE = (0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1)
NF4 = torch.tensor(_NEGATIVE + _POSITIVE)


def stored(model: nn.Module) -> dict[str, torch.Tensor]:
    """The bytes of all 4-bit weights."""
    return {name: m.weight.data.clone() for name, m in model.named_modules() if is_quantised(m)}


def test_a_weight_is_the_nearest_of_sixteen_values_times_the_largest_of_its_block() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 8, bias=False)
    found = full_weight(quantise(layer, CPU))
    blocks = layer.weight.detach().view(-1, 64)  # rows are as long as a block
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = NF4[(blocks[:, :, None] / scale[:, :, None] - NF4).abs().argmin(-1)] * scale
    # The scales are themselves in 8 bits: within 1 % of the largest of them.
    torch.testing.assert_close(found, nearest.view_as(found), rtol=0.0, atol=0.01 * scale.max().item())


def test_numbers_are_placed_where_torch_places_them() -> None:
    bounds = (NF4[1:] + NF4[:-1]) / 2
    odd = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40])
    close = [torch.nextafter(bounds, torch.full_like(bounds, way)) for way in (-1.0, 1.0)]
    values = torch.cat((bounds, *close, odd, torch.randn(1 << 19, generator=torch.Generator().manual_seed(0)) / 2))
    for given in (values, values[1:].view(-1, 2).T):  # however they lie in memory
        found = place(torch.bucketize, given, bounds, out_int32=True)
        assert torch.equal(found, torch.bucketize(given.contiguous(), bounds, out_int32=True))


def test_the_error_of_normal_weights_is_what_the_page_says() -> None:
    layer = nn.Linear(1024, 1024, bias=False)
    torch.manual_seed(0)
    layer.weight.data = torch.randn(1024, 1024)
    error = (full_weight(quantise(layer, CPU)) - layer.weight).norm() / layer.weight.norm()
    assert f"stayed at {100 * error:.1f} %" in page("quantisation")


@pytest.mark.parametrize(("width_in", "width_out"), [(64, 64), (33, 7), (5, 3), (128, 31)])
def test_layers_of_any_size_compute_with_their_turned_back_weights(width_in: int, width_out: int) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(width_in, width_out)
    quantised, x = quantise(layer, CPU), torch.randn(4, width_in, requires_grad=True)
    with torch.compiler.set_stance("force_eager"):  # bitsandbytes would compile for seconds what odd rows need
        weight, y = full_weight(quantised), quantised(x)
    assert weight.shape == layer.weight.shape
    torch.testing.assert_close(y, x @ weight.T + layer.bias)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, weight.sum(0).expand(4, -1))


def test_bytes_are_as_estimated() -> None:
    layer = quantise(nn.Linear(512, 512, bias=False), CPU)
    state = layer.weight.quant_state
    held = layer.weight.numel() + state.absmax.numel() + 4 * state.state2.absmax.numel()
    assert held == pytest.approx(NF4_BYTES * 512 * 512, rel=1e-3)


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2", "gguf", "scratch"])
def test_the_loss_falls_while_4_bit_weights_stay(bases: dict[str, str], outputs: Path, kind: str) -> None:
    what = prepared(bases[kind], outputs, "qlora")
    before = stored(what.model)
    first, last = learn(what, some_batch())
    assert last < 0.95 * first
    after = stored(what.model)
    assert len(before) == len(after) > 0
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_of_exact_weights_does_not_stay_mapped(bases: dict[str, str], outputs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bases["llama"], tmp_path / "base")  # no other test has it open
    model = open_model(str(copy), outputs).model
    assert str(copy / "model.safetensors") in Path("/proc/self/maps").read_text()
    exact = {name: parameter.clone() for name, parameter in model.named_parameters() if "norm" in name}
    quantise_layers(model, target_layers(model, ALL), CPU, quiet)
    assert str(copy) not in Path("/proc/self/maps").read_text(), "it counts as held as long as anything refers to it"
    assert exact
    assert all(torch.equal(model.get_parameter(name), value) for name, value in exact.items())


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2", "gguf", "scratch"])
def test_every_linear_layer_of_the_blocks_is_in_4_bits_and_nothing_else(
    bases: dict[str, str], outputs: Path, kind: str
) -> None:
    # Also where adapters sit on attention alone.
    what = prepared(bases[kind], outputs, "qlora", targets="attention")
    names = [name.removesuffix(".base_layer").removeprefix("base_model.model.") for name in stored(what.model)]
    assert sorted(names) == sorted(target_layers(open_model(bases[kind], outputs).model, "all"))
    floats = [p for p in what.model.parameters() if p.is_floating_point()]
    assert {p.dtype for p in floats} == {torch.float32}


def test_quantised_while_read_is_quantised_after(bases: dict[str, str], outputs: Path) -> None:
    read = prepared(bases["llama"], outputs, "qlora").model
    plain = open_model(bases["llama"], outputs).model
    for name, layer in read.named_modules():
        if is_quantised(layer):
            own = plain.get_submodule(name.removesuffix(".base_layer").removeprefix("base_model.model."))
            assert torch.equal(full_weight(layer), full_weight(quantise(own, CPU)))


@pytest.mark.parametrize("kind", ["llama", "gguf"])  # no dropout, the others have some
def test_evaluation_and_training_compute_alike(bases: dict[str, str], outputs: Path, kind: str) -> None:
    # On processors with bf16, bitsandbytes would repack the weights of a model in eval mode.
    what, batch = prepared(bases[kind], outputs, "qlora"), some_batch()
    what.model.train()
    trained, before = what.logits(batch), stored(what.model)
    what.model.eval()
    with torch.no_grad():
        assert torch.equal(what.logits(batch), trained)
    assert all(torch.equal(weight, before[name]) for name, weight in stored(what.model).items())


def test_where_4_bits_cannot_work(bases: dict[str, str], outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(device: Device) -> str:
        with pytest.raises(LabError) as caught:
            prepare(settings_for(bases["llama"], "qlora"), outputs, device, quiet, 0)
        return str(caught.value)

    assert "no NF4 for mps" in refused(Device("mps", "fp32"))

    def broken(layer: Any, device: Device) -> Any:
        raise RuntimeError("libsomething.so is missing")

    monkeypatch.setattr(module, "quantise", broken)
    said = refused(CPU)
    assert "bitsandbytes says: libsomething.so is missing" in said
    assert "model.method=lora" in said
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "bitsandbytes is not installed" in refused(CPU)


def test_a_copy_to_look_into_turns_each_layer_back_once(
    bases: dict[str, str], outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = prepared(bases["llama"], outputs, "qlora", targets="attention")
    turned: list[nn.Module] = []
    monkeypatch.setattr(backends, "full_weight", lambda layer: turned.append(layer) or full_weight(layer))
    what.merged()
    assert len(turned) == len(set(turned)) == len(stored(what.model))


def test_what_is_held_in_parts_is_whole_again_in_main_memory_with_its_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    layer: Any = quantise(nn.Linear(64, 8), CPU)
    moved: list[tuple[object, str]] = []
    monkeypatch.setattr(type(layer.quant_state), "to", lambda state, device: moved.append((state, device)))
    copied: Any = hollow(layer)  # on a GPU, its parameters are not there yet
    ((state, device),) = moved
    assert (state is copied.quant_state, device) == (True, "cpu")
    assert state is not layer.quant_state
