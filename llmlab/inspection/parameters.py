"""Parameters in numbers: norms of weights and gradients, singular values, and silent neurons.

The archive (kind `parameters`) holds, for N parameter tensors (metadata `names`, a JSON list; `layers`, the layer of
each, -1 outside of the blocks; `shapes`) and L layers:

    parameters/norm [N]         L2 norm, sqrt(sum w^2)
    parameters/rms [N]          norm / sqrt(number of entries): does not grow with the tensor
    parameters/largest [N]      largest |w|
    parameters/count [N] int64  number of entries; a tied matrix is listed once
    parameters/gradient [N]     L2 norm of the gradient, NaN where there is none; absent without any gradient
    layers/norm, layers/gradient [L]    sqrt of the sum of squares over all tensors of a block
    singular/{name} [k]         singular values of the matrices asked for, falling

and, where a text was given, from one pass over its T tokens, with a [T, F] what a layer's neurons give after their
activation (what its last linear layer reads; in gated layers the product):

    neurons/largest/{layer} [F]     largest |a| of each neuron over the text
    neurons/positive [L]            share of all a > 0
    neurons/rms [L]                 sqrt(mean a^2)
    neurons/dead [L]                share of dead neurons; metadata `dead` says by which rule:
        never positive    where no activation is negative (ReLU and its like): never above 0 on this text
        below threshold   elsewhere (GELU, SwiGLU never fall silent entirely): its largest |a| < threshold times the
                          median of that over the layer's neurons; not times rms, which a few of them can dominate

A neuron that a short text leaves silent may be alive on another one.
"""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.attention_call import AttentionCall
from llmlab.anatomy.capture import Observer, run
from llmlab.core.errors import UsageError, did_you_mean
from llmlab.core.progress import Progress, quiet
from llmlab.inspection.archive import Array, write_archive
from llmlab.inspection.inspect import describe
from llmlab.inspection.questions import Prompt
from llmlab.inspection.spectra import singular_values
from llmlab.models.model import OpenModel


@dataclass(frozen=True, kw_only=True)
class Parameters(Prompt):
    """What is measured. The neurons are those of the prompt; without one there are none.

    singular: names of matrices, `*` standing for anything; values: how many are kept of a matrix that is too large
    to find all; threshold: see the module.
    """

    singular: tuple[str, ...] = ()
    values: int = 64
    threshold: float = 0.01


def parameters(opened: OpenModel, question: Parameters, out: Path, progress: Progress = quiet) -> None:
    """Measures the weights, their gradients if they have any, and the neurons on the prompt.

    UsageError for a name that no matrix has; errors of the pass as in `llmlab.anatomy.capture.run`.
    """
    if question.values < 1 or not question.threshold > 0:
        raise UsageError("values and threshold must be above 0.")
    anatomy = opened.anatomy
    named = dict(opened.model.named_parameters())
    layers = layers_of(anatomy, named)
    chosen = chosen_matrices(named, question.singular)
    tensors, notes = _sizes(named, layers, anatomy.n_layer, progress)
    for name in chosen:
        found, exact = singular_values(named[name].detach(), question.values, progress)
        tensors[f"singular/{name}"] = found.cpu().numpy()
        if not exact:
            notes.append(f"{name} is large: its first {len(found)} singular values, by randomised subspace iteration.")
    more = {
        "names": json.dumps(list(named)),
        "layers": json.dumps([layers[name] for name in named]),
        "shapes": json.dumps([list(weight.shape) for weight in named.values()]),
    }
    ids: list[int] = []
    if question.text or question.ids:
        ids = question.token_ids(opened)
        progress("Reading the text", 0, 0)
        neurons = _Neurons()
        kept = _Kept()
        run(opened.model, anatomy, ids, [neurons] if anatomy.refusals.attention else [neurons, kept], last=True)
        if kept.bytes:
            notes.append(_cache_words(kept.bytes // len(ids), anatomy.context))
        more["dead"] = neurons.add_to(tensors, anatomy.n_layer, question.threshold)
        if missing := [str(layer) for layer in range(anatomy.n_layer) if layer not in neurons.largest]:
            notes.append(
                f"The neurons of layers {', '.join(missing)} cannot be inspected: no single linear layer reads them."
            )
    about = describe(opened, "parameters", ids, question, **more)
    write_archive(out, tensors, replace(about, notes=[*about.notes, *notes]))


class _Kept(Observer):
    """Bytes of the keys and values of all layers, which a key-value cache keeps."""

    bytes = 0

    def attention(self, layer: int, call: AttentionCall) -> None:
        self.bytes += sum(kept.numel() * kept.element_size() for kept in (call.key, call.value))


def _cache_words(each: int, context: int) -> str:
    whole = f", {each * context / 1e6:,.3g} MB for its context of {context:,}" if context else ""
    return (
        f"Its key-value cache (KV cache) takes {each:,} bytes for each token: {each * 1024 / 1e6:,.3g} MB for 1,024 "
        f"tokens{whole}."
    )


def layers_of(anatomy: Anatomy, named: Mapping[str, nn.Parameter]) -> dict[str, int]:
    """The block that each parameter belongs to, -1 outside of them."""
    block_of = {id(p): layer for layer, block in enumerate(anatomy.blocks) for p in block.block.parameters()}
    return {name: block_of.get(id(weight), -1) for name, weight in named.items()}


def chosen_matrices(named: Mapping[str, nn.Parameter], patterns: tuple[str, ...]) -> list[str]:
    """The matrices that the patterns name, in the model's order. UsageError for a pattern that names none."""
    matrices = [name for name, weight in named.items() if weight.dim() == 2]
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = fnmatch.filter(matrices, pattern)
        if not fitting:
            hint = did_you_mean(pattern, matrices, cutoff=0.3) or "Ask for another."
            raise UsageError(f"There is no matrix {pattern!r}.", "", hint)
        chosen.update(fitting)
    return [name for name in matrices if name in chosen]


def _sizes(
    named: Mapping[str, nn.Parameter], layers: Mapping[str, int], n_layer: int, progress: Progress
) -> tuple[dict[str, Array], list[str]]:
    """Norms of weights and gradients, by tensor and by layer; notes."""
    squares, largest, counts, gradients = [], [], [], []
    for done, weight in enumerate(named.values()):
        progress("Measuring the weights", done, len(named))
        squares.append(_square(weight.detach()))
        largest.append(float(weight.detach().abs().max()) if weight.numel() else 0.0)
        counts.append(weight.numel())
        gradients.append(math.nan if weight.grad is None else _square(weight.grad))
    sizes, numbers, slopes = np.array(squares), np.array(counts, dtype=np.int64), np.array(gradients)
    tensors: dict[str, Array] = {
        "parameters/norm": np.sqrt(sizes),
        "parameters/rms": np.sqrt(sizes / np.maximum(numbers, 1)),
        "parameters/largest": np.array(largest),
        "parameters/count": numbers,
        "layers/norm": np.sqrt(_by_layer(sizes, layers, n_layer)),
    }
    if np.isnan(slopes).all():
        return tensors, []
    tensors["parameters/gradient"] = np.sqrt(slopes)
    tensors["layers/gradient"] = np.sqrt(_by_layer(np.nan_to_num(slopes), layers, n_layer))
    return tensors, ["Gradients are those of the last step's batch, after clipping."]


def _square(x: Tensor) -> float:
    """The sum of squares, in float64, a few million entries at a time."""
    return sum(float(part.cpu().double().square().sum()) for part in x.reshape(-1).split(1 << 22))


def _by_layer(values: Array, layers: Mapping[str, int], n_layer: int) -> Array:
    sums = np.zeros(n_layer)
    for value, layer in zip(values, layers.values(), strict=True):
        if layer >= 0:
            sums[layer] += value
    return sums


class _Neurons(Observer):
    """What is needed of every layer's activations [T, F]; a layer at a time is in memory."""

    def __init__(self) -> None:
        self.largest: dict[int, Tensor] = {}  # of |a|, by neuron [F]
        self._highest: dict[int, Tensor] = {}  # of a, by neuron [F]
        self._positive: dict[int, float] = {}
        self._rms: dict[int, float] = {}
        self._lowest = math.inf

    def neurons(self, layer: int, x: Tensor) -> None:
        x = x.float()
        self.largest[layer] = x.abs().amax(0).cpu()
        self._highest[layer] = x.amax(0).cpu()
        self._lowest = min(self._lowest, float(x.min()))
        self._positive[layer] = float((x > 0).float().mean())
        self._rms[layer] = float(x.square().mean().sqrt())

    def add_to(self, tensors: dict[str, Array], n_layer: int, threshold: float) -> str:
        """Adds the tensors -> the rule for `neurons/dead`. NaN for layers whose neurons were not seen."""
        silent = self._lowest >= 0
        dead, positive, rms = (np.full(n_layer, np.nan) for _ in range(3))
        for layer, largest in self.largest.items():
            rms[layer], positive[layer] = self._rms[layer], self._positive[layer]
            still = self._highest[layer] <= 0 if silent else largest < threshold * largest.median()
            dead[layer] = float(still.float().mean())
            tensors[f"neurons/largest/{layer}"] = largest.numpy()
        tensors |= {"neurons/dead": dead, "neurons/positive": positive, "neurons/rms": rms}
        return "never positive" if silent else "below threshold"
