"""Modules as weights and biases, recognised by what they compute and not by their names.

A norm may store its weight as w or as w - 1, a linear layer its matrix as [out, in] or transposed, with an adapter's
difference beside it: what a module does to a few vectors decides which it is. Modules are asked by `forward`, since
a module that is being watched would show its hooks these vectors as if they were the prompt's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import FinalNorm
from llmlab.core.errors import LabError

_EPS_NAMES = ("eps", "variance_epsilon", "epsilon")


@dataclass(frozen=True)
class Linear:
    """x -> x @ weight^T + bias."""

    weight: Tensor  # [out, in]
    bias: Tensor | None  # [out]


def base_model(model: nn.Module) -> nn.Module:
    """The transformers model inside a PEFT wrapper, whose layers hold the adapters; any other model as it is."""
    inner = getattr(model, "get_base_model", None)
    return model if inner is None else inner()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off while a model is measured or asked; the mode of each of its modules is put back.

    A model that is in eval mode already is only looked at: `eval` sets every module's mode, at six times the cost.
    """
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def norm_numbers(module: nn.Module, n_embd: int) -> FinalNorm:
    """A norm module of vectors [n_embd] as numbers.

    LabError when what it computes is neither a LayerNorm nor an RMSNorm of the weights it holds.
    """
    stored, bias = _numbers(module, "weight"), _numbers(module, "bias")
    if stored is None:  # OLMo's norms have no weights at all
        stored = torch.ones(n_embd)
    vectors = torch.randn(6, n_embd, generator=torch.Generator().manual_seed(0)) + 0.5  # LayerNorm takes the mean away
    vectors *= torch.tensor([1.0, 1.0, 30.0, 0.1, 1e-2, 1e-3])[:, None]  # small ones show the eps
    vectors = vectors.to(stored.device, stored.dtype)
    told = module.forward(vectors).float()
    tolerance = 1e-4 if stored.dtype in (torch.float32, torch.float64) else 3e-2
    for kind, weight, eps in product(("rmsnorm", "layernorm"), (stored, stored + 1), _eps(module)):
        norm = FinalNorm(kind, weight, bias, eps)
        ours = FinalNorm(kind, weight.float(), None if bias is None else bias.float(), eps).apply(vectors.float())
        if torch.allclose(ours, told, rtol=tolerance, atol=tolerance):
            return norm
    raise LabError(
        "A norm of this model is of no known kind.",
        f"{type(module).__name__} computes neither a LayerNorm nor an RMSNorm of its weights.",
    )


def _numbers(module: nn.Module, name: str) -> Tensor | None:
    value = getattr(module, name, None)
    return value.detach() if isinstance(value, Tensor) else None


def _eps(module: nn.Module) -> list[float]:
    """What the module may add to the variance: what it says, else the usual numbers."""
    said = [getattr(module, name) for name in _EPS_NAMES if isinstance(getattr(module, name, None), float)]
    return said or [1e-5, 1e-6]


@torch.no_grad()
def linear_numbers(module: nn.Module) -> Linear:
    """A linear layer as numbers, adapters included. LabError when it is not linear.

    Layers that are not plain ones (an adapter beside them, weights in 4 bits) are asked with unit vectors.
    """
    weight, bias = _numbers(module, "weight"), _numbers(module, "bias")
    if type(module) is nn.Linear and weight is not None:
        return Linear(weight, bias)
    if is_conv1d(module) and weight is not None:
        return Linear(weight.T, bias)
    size = getattr(module, "in_features", None)
    if not isinstance(size, int):
        raise LabError("A layer of this model cannot be read.", f"{type(module).__name__} does not tell its inputs.")
    unit = torch.eye(size, dtype=_float_type(module), device=next(module.parameters()).device)
    offset = module.forward(torch.zeros_like(unit[:1]))[0]  # [out]
    columns = module.forward(unit) - offset  # [in, out]
    return Linear(columns.T.contiguous(), offset)


def is_conv1d(module: nn.Module) -> bool:
    """GPT-2's linear layer, whose matrix is transposed. (Importing it would load transformers for every model.)"""
    return f"{type(module).__module__}.{type(module).__name__}" == "transformers.pytorch_utils.Conv1D"


def _float_type(module: nn.Module) -> torch.dtype:
    """What a layer computes in; weights in 4 or 8 bits do not tell."""
    floats = [p.dtype for p in module.parameters() if p.is_floating_point()]
    return floats[0] if floats else getattr(module, "compute_dtype", None) or torch.float32
