"""What weight files say of themselves, read from their headers alone: how many numbers, and whether they are whole."""

from __future__ import annotations

import math
import re
from pathlib import Path

from llmlab.core.errors import LabError
from llmlab.core.files import read_json, safetensors_header

INDEX_FILE = "model.safetensors.index.json"
_SINGLE_FILE = "model.safetensors"
# Weights in files that are Python programs when read: never opened.
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_WIDTH = re.compile(r"BOOL|[A-Z]+(\d{1,3})")


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
    return {weight: shape for path in files for weight, shape in _shapes(path, name).items()}


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


def _shapes(path: Path, name: str) -> dict[str, tuple[int, ...]]:
    try:
        size = path.stat().st_size
        header, start = safetensors_header(path)
        header.pop("__metadata__", None)
        shapes, end, held = {}, 0, 0
        for weight, entry in header.items():
            shape = tuple(entry["shape"])
            if any(type(extent) is not int or extent < 0 for extent in shape):
                raise ValueError("a shape is not made of whole numbers")
            first, last = (int(offset) for offset in entry["data_offsets"])
            if first < 0 or 8 * (last - first) != math.prod(shape) * _bits(entry["dtype"]):
                raise ValueError(f"its {weight} has another length than its shape says")
            shapes[weight] = shape
            end, held = max(end, last), held + last - first
        if start + max(end, held) > size:
            raise ValueError(f"it should have {start + max(end, held):,} bytes and has {size:,}: it is cut short")
        return shapes
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        why = f"its header lacks {error}" if isinstance(error, KeyError) else f"{error}"
        raise LabError(f"{name} cannot be opened.", f"{path.name} is damaged or foreign: {why}.") from error


def _bits(dtype: str) -> int:
    """Of one number. A dtype's name says it (F32, BF16, F8_E4M3), but for BOOL, which takes a byte."""
    match = _WIDTH.match(dtype)
    if match is None:
        raise ValueError(f"it holds numbers of the type {dtype}")
    return int(match[1] or 8)
