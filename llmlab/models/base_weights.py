"""The weights of a model that is not opened, one matrix at a time: from its files, in fp32, without torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import FULL, FinetuneSettings
from llmlab.models.adapter_file import other_form, read_factors
from llmlab.models.available import cached_models
from llmlab.models.gguf_header import count_gguf_parameters
from llmlab.models.reference import (
    AdaptedModel,
    GgufFile,
    HubModel,
    LiveRun,
    ModelFolder,
    Reference,
    SavedRun,
    is_fine_tuned,
)
from llmlab.models.tensor_file import Array, TensorFile
from llmlab.models.tuned import base_of
from llmlab.models.weights import weight_files
from llmlab.store.checkpoints import MODEL_FILE, select

# A parameter's full name ("blocks.0.attention.qkv.weight") -> its numbers, None where the model has no such one.
Weights: TypeAlias = Callable[[str], Array | None]


def weights_of(reference: Reference) -> Weights:
    """LabError when the model is not on this machine, or its files are damaged."""
    match reference:
        case LiveRun():
            raise LabError(f"{reference} trains.", "Its weights change from step to step.", "Name a checkpoint.")
        case SavedRun(run, _, which):
            folder = select(run.checkpoints, which).path
            if is_fine_tuned(run) and run.info().settings_as(FinetuneSettings).model.method != FULL:
                return _with_adapter(weights_of(base_of(run)), folder)
            return _from_files([folder / MODEL_FILE])
        case AdaptedModel(base, adapter):
            return _with_adapter(weights_of(base), adapter)
        case ModelFolder(path):
            return _from_files(weight_files(path, path.name))
        case HubModel(name):
            snapshot = cached_models().get(name)
            if snapshot is None:
                raise LabError(f"{name} is not on this machine.", "", "Open it once: that downloads it.")
            return _from_files(weight_files(snapshot, name))
        case GgufFile(path):
            return _GgufWeights(path)


def _from_files(paths: list[Path]) -> Weights:
    places = {name: file for file in map(TensorFile, paths) for name in file}

    def read(name: str) -> Array | None:
        # A family's inner model is saved with or without the name that its head's class has for it.
        for candidate in (name, name.partition(".")[2]):
            if candidate in places:
                return places[candidate][candidate]
        return None

    return read


def _with_adapter(below: Weights, folder: Path) -> Weights:
    pairs = read_factors(folder)
    pairs += [other for pair in pairs if (other := other_form(pair))]
    factors = {f"{pair.module}.weight": pair for pair in pairs}

    def read(name: str) -> Array | None:
        weight, pair = below(name), factors.get(name)
        return weight if weight is None or pair is None else weight + pair.delta

    return read


class _GgufWeights:
    """llama.cpp's names and order of rows: norms are right, rows of queries and keys stand in another order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        count_gguf_parameters(path, path.stem)  # LabError when it is cut or foreign

    def __call__(self, name: str) -> Array | None:
        import gguf

        module, _, kind = name.rpartition(".")
        place = self._names.get_name(module)
        tensor = self._tensors.get(f"{place}.{kind}") if place else None
        return None if tensor is None else np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)

    @cached_property
    def _reader(self) -> Any:
        import gguf

        return gguf.GGUFReader(self._path)

    @cached_property
    def _tensors(self) -> dict[str, Any]:
        return {tensor.name: tensor for tensor in self._reader.tensors}

    @cached_property
    def _names(self) -> Any:
        import gguf

        fields = self._reader.fields
        family = str(fields["general.architecture"].contents())
        arch = next((key for key, text in gguf.MODEL_ARCH_NAMES.items() if text == family), None)
        if arch is None:
            raise LabError(f"The weights of {self._path.name} cannot be told apart.", f"Its family is {family!r}.")
        return gguf.get_tensor_name_map(arch, int(fields[f"{family}.block_count"].contents()))
