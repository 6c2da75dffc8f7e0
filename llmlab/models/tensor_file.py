"""Tensors of safetensors files as numpy arrays, one at a time and without torch: also those in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmlab.core.errors import LabError
from llmlab.core.files import safetensors_header

Array = npt.NDArray[Any]
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}


class TensorFile(Mapping[str, Array]):
    """The floating-point tensors of a file, each read in fp32 (fp64 stays) when it is asked for.

    LabError when the file is missing, cut or foreign.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            header, self._start = safetensors_header(path)
            header.pop("__metadata__", None)
            size = path.stat().st_size
            self._entries = {str(name): _checked(entry, size - self._start) for name, entry in header.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LabError(
                f"{path.name} in {path.parent} cannot be read.", f"It is missing or damaged: {error}."
            ) from (error)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, from the header."""
        return self._entries[name][1]

    def __getitem__(self, name: str) -> Array:
        dtype, shape, begin = self._entries[name]
        try:
            raw = (
                np.memmap(self.path, np.dtype(_DTYPES[dtype]), "r", self._start + begin, shape)
                if 0 not in shape
                else None
            )
        except (OSError, ValueError) as error:
            raise LabError(f"{self.path} cannot be read.", f"{error}.") from error
        if raw is None:
            return np.zeros(shape, np.float32)
        if dtype == "BF16":  # the upper half of a float32
            return (np.asarray(raw).astype(np.uint32) << 16).view(np.float32)
        return np.asarray(raw, np.float64 if dtype == "F64" else np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _checked(entry: Any, size: int) -> tuple[str, tuple[int, ...], int]:
    """dtype, shape and first byte of a header's entry; ValueError when it is no tensor of numbers in the file."""
    dtype, shape = str(entry["dtype"]), tuple(int(extent) for extent in entry["shape"])
    begin, end = (int(offset) for offset in entry["data_offsets"])
    if dtype not in _DTYPES:
        raise ValueError(f"it holds numbers of the type {dtype}")
    width = np.dtype(_DTYPES[dtype]).itemsize
    if min(shape, default=0) < 0 or begin < 0 or end - begin != width * int(np.prod(shape, dtype=object)) or end > size:
        raise ValueError("it is cut short, or its header is wrong")
    return dtype, shape, begin
