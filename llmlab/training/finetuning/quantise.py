"""Weights in 4 bits: what the frozen layers of QLoRA are stored in (Dettmers et al. 2023, "QLoRA").

NF4 has 16 values, chosen so that normally distributed weights use each about equally often. A weight is stored as the
nearest of them, times the largest absolute weight of its block of 64; these largest ones are stored in 8 bits, in
blocks of 256 (double quantisation). That makes 4 + 8/64 + 32/(64 * 256) = 4.127 bits a weight. Products are computed
after turning the weights back, in the precision of the run; gradients pass through them, and only adapters learn.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmlab.anatomy.modules import is_conv1d
from llmlab.core.device import Device
from llmlab.core.errors import LabError
from llmlab.core.memory import give_back
from llmlab.core.progress import Progress
from llmlab.models.huggingface import open_folder, replaced, without_compiler  # also keeps libraries from fetching
from llmlab.models.model import OpenModel

_KIND = "nf4"
_PIECE = 1 << 18  # numbers that are placed at a time: what is made of them besides stays in the cache
_UNKNOWN = 255


def require_four_bits(device: Device) -> None:
    """LabError when weights cannot be held in 4 bits here."""
    do = "Set model.method=lora, which keeps the weights as they are."
    if device.kind == "mps":
        raise LabError("4-bit weights do not work on this device.", "bitsandbytes has no NF4 for mps.", do)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise LabError("4-bit weights do not work here.", "bitsandbytes is not installed.", do)
    try:
        _bitsandbytes()
        quantise(nn.Linear(8, 8), device)
    except Exception as error:  # a library that was built for another machine can fail in any way
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise LabError("4-bit weights do not work here.", f"bitsandbytes says: {why}.", do) from error


def open_quantised(folder: Path, reference: str, name: str, device: Device, progress: Progress) -> OpenModel:
    """A Hugging Face folder whose linear layers, except the head, are quantised while it is read, on `device`.

    Only one layer at a time is in memory in full. LabError like `llmlab.models.huggingface.open_folder`.
    """
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=_KIND,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=_compute_type(device),
    )
    loading = {"quantization_config": settings, "device_map": {"": device.kind}}
    with _placed_quickly():
        opened = open_folder(folder, reference, progress, name=name, loading=loading)
    for module in opened.model.modules():
        _keep_exact(module)
    return opened


def quantise_layers(model: nn.Module, names: Collection[str], device: Device, progress: Progress) -> None:
    """Quantises the linear layers of those names, in place, one after the other, onto `device`."""
    for number, name in enumerate(names):
        progress("Quantising the weights", number, len(names))
        model.set_submodule(name, quantise(model.get_submodule(name), device))
    for parameter in model.parameters():
        if parameter.is_floating_point():  # as long as one is a part of the mapped file, all of that counts as held
            parameter.data = parameter.data.clone()
    give_back()
    # What peft asks, as it asks a model that was quantised while it was read.
    model.__dict__["is_loaded_in_4bit"] = True


@torch.no_grad()
def quantise(layer: nn.Module, device: Device) -> nn.Module:
    """A linear layer [out, in] (or GPT-2's, whose matrix is transposed) with its weights in NF4."""
    bnb = _bitsandbytes()
    weight = layer.get_parameter("weight").detach()
    weight = (weight.T if is_conv1d(layer) else weight).contiguous()
    bias = layer.bias
    with torch.device("meta"):  # its own first weights are not needed
        quantised = bnb.nn.Linear4bit(
            weight.shape[1], weight.shape[0], bias is not None, _compute_type(device), True, _KIND
        )
    quantised.weight = bnb.nn.Params4bit(
        weight, requires_grad=False, compress_statistics=True, quant_type=_KIND, module=quantised
    )
    if isinstance(bias, Tensor):
        quantised.bias = nn.Parameter(bias.detach(), requires_grad=False)
    with _placed_quickly():
        quantised = quantised.to(device.kind)  # this is when it is quantised
    _keep_exact(quantised)
    assert isinstance(quantised, nn.Module)
    return quantised


def is_quantised(module: nn.Module) -> bool:
    """Whether a layer holds its weights in 4 bits, or its part of them (FSDP2)."""
    return getattr(module, "quant_state", None) is not None and hasattr(module, "compute_dtype")


def number_count(parameter: Tensor) -> int:
    """How many numbers a parameter is; two in 4 bits share a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


@torch.no_grad()
def full_weight(layer: Any) -> Tensor:
    """The weights of a linear layer [out, in] in fp32, turned back from 4 bits where they are in 4 bits."""
    if is_quantised(layer):
        weight: Tensor = _bitsandbytes().functional.dequantize_4bit(layer.weight.data, layer.quant_state)
        return weight.float()
    own: Tensor = layer.weight.T if is_conv1d(layer) else layer.weight
    return own.float()


def forget_quantisation(model: nn.Module) -> None:
    """Takes the marks of quantisation from a model of transformers whose layers are plain again."""
    for name in ("hf_quantizer", "quantization_method", "is_loaded_in_4bit", "is_quantized"):
        model.__dict__.pop(name, None)
    config: Any = getattr(model, "config", None)
    if hasattr(config, "quantization_config"):
        del config.quantization_config


def _compute_type(device: Device) -> torch.dtype:
    return torch.bfloat16 if device.precision == "bf16" else torch.float32


def _keep_exact(module: nn.Module) -> None:
    """Held-out losses are computed as training losses are: on some processors bitsandbytes would repack the weights
    of a model in eval mode, and compute in bf16."""
    if hasattr(module, "support_avx512bf16_for_cpu"):
        module.__dict__["support_avx512bf16_for_cpu"] = False


def _placed_quickly() -> AbstractContextManager[None]:
    """While it lasts, bitsandbytes' search for the nearest of NF4's values, most of its time on a CPU, is `place`."""
    return replaced(torch, "bucketize", functools.partial(place, torch.bucketize))


def place(plain: Callable[..., Tensor], values: Tensor, bounds: Tensor, **options: Any) -> Tensor:
    """What `plain`, torch.bucketize, gives; of many values in fp32 on a CPU in a third of its time.

    The upper 16 of a number's 32 bits tell where it belongs, unless a bound lies among the numbers that share them.
    """
    given = values.device.type, values.dtype, options
    if given != ("cpu", torch.float32, {"out_int32": True}) or values.numel() < _PIECE or len(bounds) >= _UNKNOWN:
        return plain(values, bounds, **options)
    bits = torch.arange(1 << 16, dtype=torch.int32) << 16
    first, last = (plain(ends.view(torch.float32), bounds) for ends in (bits, bits | 0xFFFF))
    places = torch.where(first == last, first, _UNKNOWN).to(torch.uint8)
    found = torch.empty(values.shape, dtype=torch.int32)
    for some, into in zip(values.reshape(-1).split(_PIECE), found.view(-1).split(_PIECE), strict=True):
        placed = places.index_select(0, (some.view(torch.int32) >> 16) & 0xFFFF)
        into.copy_(placed)
        unknown = (placed == _UNKNOWN).nonzero().squeeze(1)
        into[unknown] = plain(some[unknown], bounds, **options)
    return found


def _bitsandbytes() -> Any:
    with warnings.catch_warnings(), without_compiler():
        warnings.simplefilter("ignore")  # about devices that are not here
        import bitsandbytes
    return bitsandbytes
