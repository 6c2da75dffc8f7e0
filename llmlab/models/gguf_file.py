"""GGUF files, read without torch: the header, which says what is in the file and whether it is whole, and weights.

The gguf package reads the header too, but trusts every count in it.

Format: github.com/ggml-org/ggml, docs/gguf.md. All numbers are little-endian.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, BinaryIO

from llmlab.core.errors import LabError
from llmlab.core.files import open_file
from llmlab.models.weights import Array

_VERSIONS = (2, 3)
# Value types: how those of fixed size are packed, then strings and arrays.
_LAYOUTS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_WIDTHS = {kind: struct.calcsize(layout) for kind, layout in _LAYOUTS.items()}
_STRING, _ARRAY = 8, 9
_DEFAULT_ALIGNMENT = 32
_ALIGNMENT_KEY = b"general.alignment"
# Beyond these a file is nonsense, and to follow it would take forever.
_MOST_TENSORS, _MOST_DIMENSIONS, _LONGEST_STRING = 1 << 20, 4, 1 << 24


@dataclass
class GgufHeader:
    """values: those that are one number or text. shapes: of the tensors, the inner dimension first."""

    values: dict[str, int | float | bool | str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


def count_gguf_parameters(path: Path, name: str) -> int:
    """How many numbers a GGUF file's tensors hold. LabError like `read_gguf_header`."""
    return sum(math.prod(shape) for shape in read_gguf_header(path, name).shapes.values())


def read_gguf_header(path: Path, name: str) -> GgufHeader:
    """What a GGUF file says of itself. LabError when it is cut, foreign, or of a version unknown here."""
    try:
        size = path.stat().st_size
        with open_file(path) as file:
            return _Reader(file, size).header()
    except (OSError, ValueError, EOFError, struct.error, OverflowError) as error:
        raise LabError(
            f"{name} cannot be opened.", f"{path.name} is damaged or foreign: {error}.", "Choose another model."
        ) from error


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self._header = GgufHeader()

    def header(self) -> GgufHeader:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        if self._file.read(4) != b"GGUF":
            raise ValueError("it does not begin like a GGUF file")
        version, tensors, values = self._unpack("<IQQ")
        if version not in _VERSIONS:
            raise ValueError(f"it is of version {version}")
        if tensors > _MOST_TENSORS:
            raise ValueError(f"it claims {tensors:,} tensors")
        alignment = self._read_values(values)
        end = held = 0
        for _ in range(tensors):
            name = self._string()
            (dimensions,) = self._unpack("<I")
            if dimensions > _MOST_DIMENSIONS:
                raise ValueError(f"it claims a tensor of {dimensions} dimensions")
            shape = self._unpack(f"<{dimensions}Q")
            numbers = math.prod(shape)
            kind, offset = self._unpack("<IQ")
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            self._header.shapes[name.decode(errors="replace")] = tuple(int(extent) for extent in shape)
            length = -(-numbers // block) * block_bytes
            end, held = max(end, offset + length), held + length
        start = -(-self._file.tell() // alignment) * alignment
        if start + max(end, held) > self._size:  # tensors that share their bytes would be counted again and again
            raise EOFError(f"it should have {start + max(end, held):,} bytes and has {self._size:,}")
        return self._header

    def _read_values(self, count: int) -> int:
        """Keeps what is one number or text, and goes past the rest; returns the alignment that is named."""
        alignment = _DEFAULT_ALIGNMENT
        for _ in range(count):
            key = self._string()
            (kind,) = self._unpack("<I")
            if kind in _LAYOUTS:
                (value,) = self._unpack(_LAYOUTS[kind])
            elif kind == _STRING:
                value = self._string().decode(errors="replace")
            else:
                self._skip(kind, 1)
                continue
            self._header.values[key.decode(errors="replace")] = value
            if key == _ALIGNMENT_KEY and kind == 4:
                alignment = int(value)
        if alignment < 1:
            raise ValueError("its alignment is 0")
        return alignment

    def _skip(self, kind: int, count: int, depth: int = 0) -> None:
        if kind in _WIDTHS:
            self._seek(count * _WIDTHS[kind])
        elif kind == _STRING:
            for _ in range(count):
                self._seek(self._unpack("<Q")[0])
        elif kind == _ARRAY and depth < 2:
            for _ in range(count):
                inner, length = self._unpack("<IQ")
                self._skip(inner, length, depth + 1)
        else:
            raise ValueError(f"it holds a value of kind {kind}")

    def _seek(self, count: int) -> None:
        if self._file.tell() + count > self._size:
            raise EOFError("it is cut short")
        self._file.seek(count, 1)

    def _string(self) -> bytes:
        (length,) = self._unpack("<Q")
        if length > _LONGEST_STRING:
            raise ValueError(f"it claims a name of {length:,} bytes")
        return self._file.read(length)

    def _unpack(self, layout: str) -> tuple[Any, ...]:
        data = self._file.read(struct.calcsize(layout))
        if len(data) < struct.calcsize(layout):
            raise EOFError("it is cut short")
        return struct.unpack(layout, data)


@cache
def quick_reader() -> type[Any]:
    """gguf.GGUFReader, which takes seconds for the two arrays that it makes of each token of a vocabulary.

    The parts of a field that is an array are its texts as bytes, or its numbers, and nothing else.
    """
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):
        # Without numpy.memmap's own class, whose slices cost three times as much.
        data = property(lambda self: self._data, lambda self, mapped: setattr(self, "_data", np.asarray(mapped)))

        def _get_field_parts(self, start: int, kind: int) -> tuple[int, list[Any], list[int], list[Any]]:
            inner, count = struct.unpack_from("<IQ", self.data, start) if kind == _ARRAY else (_ARRAY, 0)
            end = start + struct.calcsize("<IQ")
            if inner == _ARRAY:
                return super()._get_field_parts(start, kind)
            parts: list[Any] = []
            if inner in _LAYOUTS:
                parts = np.frombuffer(self.data, _LAYOUTS[inner], count, end).tolist()
                end += count * _WIDTHS[inner]
            else:
                for _ in range(count):
                    (length,) = struct.unpack_from("<Q", self.data, end)
                    parts.append(self.data[end + 8 : end + 8 + length].tobytes())
                    end += 8 + length
            types = [gguf.GGUFValueType(kind), gguf.GGUFValueType(inner)]
            return end - start, parts, list(range(count)), types

    return Reader


class GgufWeights:
    """Weights of a GGUF file by transformers' names, one matrix at a time.

    Rows are in llama.cpp's order: norms are right, queries and keys stand in another order. LabError when it is
    damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        count_gguf_parameters(path, path.stem)  # LabError when it is cut or foreign

    def __call__(self, name: str) -> Array | None:
        import gguf
        import numpy as np

        module, _, kind = name.rpartition(".")
        place = self._names.get_name(module)
        tensor = self._tensors.get(f"{place}.{kind}") if place else None
        return None if tensor is None else np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)

    @cached_property
    def _reader(self) -> Any:
        return quick_reader()(self._path)

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
