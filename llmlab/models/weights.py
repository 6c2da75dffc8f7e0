"""Weight files, read without torch: their shapes from headers alone, and their numbers one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from llmlab.core.errors import LabError
from llmlab.core.files import read_json, safetensors_header

# Whoever only looks for models should not wait for numpy and safetensors.
if TYPE_CHECKING:
    import numpy.typing as npt

INDEX_FILE = "model.safetensors.index.json"
_SINGLE_FILE = "model.safetensors"
# Weights in files that are Python programs when read: never opened.
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
# How newer and older releases of safetensors say that a file ends elsewhere than its header says.
_CUT = ("not fully covered", "MetadataIncompleteBuffer")

Array: TypeAlias = "npt.NDArray[Any]"
# A parameter's full name ("blocks.0.attention.qkv.weight") -> its numbers, None where the model has no such one.
Weights: TypeAlias = "Callable[[str], Array | None]"


def count_parameters(folder: Path, name: str, single: str = _SINGLE_FILE) -> int:
    """How many numbers the safetensors weights in a folder hold. LabError like `weight_shapes`."""
    return sum(math.prod(shape) for shape in weight_shapes(folder, name, single).values())


def weight_shapes(folder: Path, name: str, single: str = _SINGLE_FILE) -> dict[str, tuple[int, ...]]:
    """The shapes of the safetensors weights in a folder, by their names.

    LabError when there are none, when they are pickled, cut, or foreign.
    """
    files = weight_files(folder, name, single)
    if not files:
        pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
        if pickled:
            raise LabError(
                f"{name} cannot be opened.",
                f"{pickled[0]} is a pickle: to read it is to run whatever program it holds.",
                f"Use a copy of the model whose weights are in {single}.",
            )
        raise LabError(f"{name} cannot be opened.", f"There is no {single} in {folder}.")
    return {weight: shape for path in files for weight, shape in TensorFile(path, name).shapes.items()}


def weight_files(folder: Path, name: str, single: str = _SINGLE_FILE) -> list[Path]:
    """The safetensors files of a folder's model, none if there are none. LabError when its index is damaged."""
    if (folder / single).is_file():
        return [folder / single]
    if single != _SINGLE_FILE or not (folder / INDEX_FILE).is_file():
        return []
    places = (read_json(folder / INDEX_FILE) or {}).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise LabError(f"{name} cannot be opened.", f"{INDEX_FILE} is damaged.")
    files = sorted({str(file) for file in places.values()})
    for file in files:
        if Path(file).name != file or not (folder / file).is_file():
            raise LabError(f"{name} cannot be opened.", f"{INDEX_FILE} names {file!r}, which is not in its folder.")
    return [folder / file for file in files]


class TensorFile(Mapping[str, Array]):
    """A safetensors file: `shapes` of its tensors, and each of them in fp32 (fp64 stays) when it is asked for.

    LabError when the file is missing, cut or foreign, by the checks of the safetensors library. name: of the model.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        from safetensors import SafetensorError, safe_open  # whoever only looks for models should not wait for it

        self.path = path
        try:
            # The library checks that the header and the file agree, and does not say where a tensor begins.
            with safe_open(path, "np") as file:
                about = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (a file is no mapping)
                self.shapes = {key: tuple(part.get_shape()) for key, part in about.items()}
                self.dtypes = {key: str(part.get_dtype()) for key, part in about.items()}
            self._header, self._start = safetensors_header(path)
        except (OSError, SafetensorError, ValueError) as error:
            why = str(error).removeprefix("Error while deserializing header: ")
            if any(said in why for said in _CUT):
                why = "it is cut short, or its header is wrong"
            raise LabError(
                f"{name or path} cannot be opened.",
                f"{path.name} is damaged or foreign: {why}.",
                "Choose another model.",
            ) from error

    def __getitem__(self, name: str) -> Array:
        import numpy as np

        dtype, shape = self.dtypes[name], self.shapes[name]
        if dtype not in _DTYPES:
            raise LabError(f"{self.path} cannot be read.", f"Its {name} holds numbers of the type {dtype}.")
        if 0 in shape:
            return np.zeros(shape, np.float32)
        place = self._start + self._header[name]["data_offsets"][0]
        try:
            raw = np.memmap(self.path, np.dtype(_DTYPES[dtype]), "r", place, shape)
        except (OSError, ValueError) as error:
            raise LabError(f"{self.path} cannot be read.", f"{error}.", "Open the model again.") from error
        if dtype == "BF16":  # the upper half of a float32; numpy has no such type
            return (np.asarray(raw).astype(np.uint32) << 16).view(np.float32)
        return np.asarray(raw, np.float64 if dtype == "F64" else np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def read_weights(paths: Iterable[Path]) -> Weights:
    """The weights in a model's files. LabError when one is damaged."""
    files = {name: file for file in map(TensorFile, paths) for name in file}

    def read(name: str) -> Array | None:
        # A family's inner model is saved with or without the name that its head's class has for it.
        found = next((key for key in (name, name.partition(".")[2]) if key in files), None)
        return None if found is None else files[found][found]

    return read
