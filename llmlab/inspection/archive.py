"""The file of an inspection: one safetensors file, what it holds described in its header.

A safetensors file is the length of its header (8 bytes, little-endian), the header as JSON, then the tensors'
bytes (github.com/huggingface/safetensors, README "Format"). All shapes are known before a forward pass begins, so
the header is written first and every tensor goes to its place as soon as a layer has produced it: the attention
patterns of a whole model never lie in memory together.

Names and shapes are the contract with whoever reads: see `llmlab.inspection.answers`.
This module needs no torch, so the window reads archives with it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from llmlab.core.errors import LabError, explained
from llmlab.core.files import parse_json, safetensors_header
from llmlab.core.records import field_types, from_plain

SCHEMA = 1
_DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "BOOL": np.dtype("bool"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
# Left free in the header for what a pass adds: some dozens of small tensors, a few notes, an answer.
_ROOM_IN_HEADER = 32 * 1024

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Slot = tuple[npt.DTypeLike, Sequence[int]]


@dataclass(frozen=True)
class Metadata:
    """What an archive says of itself; each field is a string in the header, lists and mappings as JSON.

    kind: inspection, pattern, stages, neurons, intervention, sweep, comparison, evolution, geometry, parameters.
    notes: sentences a reader must know (a virtual post_attn, a refused panel, what was sampled).
    question: what was asked. more: fields of this kind alone, as strings.
    """

    kind: str
    model: str
    weights_sha256: str
    token_ids: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    dtype: str = "float32"
    attention_path: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    question: dict[str, Any] = field(default_factory=dict)
    more: dict[str, str] = field(default_factory=dict)

    def to_strings(self) -> dict[str, str]:
        """The header's `__metadata__`: strings only, as the format demands."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "more"}
        texts = {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in values.items()
        }
        return {"schema": str(SCHEMA), **texts, **self.more}

    @classmethod
    def from_strings(cls, texts: Mapping[str, str]) -> Metadata:
        """The inverse of `to_strings`. ValueError or KeyError where a field is missing or of another type."""
        rest = dict(texts)
        rest.pop("schema")
        kinds = {name: kind for name, kind in field_types(cast(type, cls)).items() if name != "more"}
        values = {name: rest.pop(name) if kind is str else parse_json(rest.pop(name)) for name, kind in kinds.items()}
        return from_plain(cls, {**values, "more": rest})


class ArchiveWriter:
    """Writes an archive piece by piece; it appears under its name when complete, or not at all.

    Used as a context manager: leaving it by an error removes what was written. OSError when the disk is full.
    """

    def __init__(self, path: Path, shapes: Mapping[str, Slot], metadata: Metadata) -> None:
        """shapes: dtype and shape of every tensor, by name. What is never written reads as zeros.

        LabError when they do not fit on the disk.
        """
        self._path = path
        self._staging = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex[:8]}")
        header: dict[str, Any] = {}
        self._places: dict[str, tuple[int, np.dtype[Any], Shape]] = {}
        end = 0
        # Wider types first keeps every tensor aligned to its own width, as safetensors' readers expect.
        for name in sorted(shapes, key=lambda n: (-np.dtype(shapes[n][0]).itemsize, n)):
            dtype, shape = np.dtype(shapes[name][0]), tuple(int(size) for size in shapes[name][1])
            size = dtype.itemsize * math.prod(shape)
            header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [end, end + size]}
            self._places[name] = (end, dtype, shape)
            end += size
        self.bytes = end
        self.metadata = metadata  # may be replaced until the archive is closed: an answer is known after the pass
        self._header = header
        text = self._encoded_header()
        room = len(text) + _ROOM_IN_HEADER
        self._start = 8 + room + (-room % 8)
        path.parent.mkdir(parents=True, exist_ok=True)
        if end > (free := shutil.disk_usage(path.parent).free):
            raise LabError(
                f"The archive would need {end / 1e6:,.1f} MB.",
                f"{path.parent} has {free / 1e6:,.1f} MB free.",
                "Shorten the prompt, or leave out `attention` and `residual`.",
            )
        self._file = self._staging.open("wb")
        try:
            self._file.truncate(self._start + end)
        except BaseException:
            self._remove()
            raise

    def write(self, name: str, values: npt.ArrayLike, *index: int, first_row: int = 0) -> None:
        """Puts values at `name[index]`, from row `first_row` of the rest on; they must fill whole rows there."""
        start, dtype, shape = self._places[name]
        array = np.ascontiguousarray(values, dtype=dtype)
        inner = shape[len(index) :]
        if array.shape[1:] != inner[1:] or (inner and first_row + len(array) > inner[0]):
            raise ValueError(f"{array.shape} from row {first_row} on does not fit into {name}{list(index)} of {shape}")
        for depth, place in enumerate(index):
            start += place * dtype.itemsize * math.prod(shape[depth + 1 :])
        start += first_row * dtype.itemsize * math.prod(inner[1:])
        self._file.seek(self._start + start)
        self._file.write(array.data if array.size else b"")

    def add(self, name: str, values: npt.ArrayLike) -> None:
        """Appends a whole tensor whose shape was not known at the start. Few and small ones: see `_ROOM_IN_HEADER`."""
        array = _plain(np.asarray(values))
        end = self.bytes + array.nbytes
        self._header[name] = {
            "dtype": _CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [self.bytes, end],
        }
        self._file.seek(self._start + self.bytes)
        self._file.write(np.ascontiguousarray(array).data if array.size else b"")
        self.bytes = end

    def _encoded_header(self) -> bytes:
        text = json.dumps({"__metadata__": self.metadata.to_strings(), **self._header}, ensure_ascii=False)
        return text.encode(errors="replace")  # a prompt or a path may hold half of a surrogate pair

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                text = self._encoded_header().ljust(self._start - 8)  # spaces: JSON and the format allow them
                if len(text) > self._start - 8:
                    raise ValueError("what was added does not fit into the header")
                self._file.seek(0)
                self._file.write((self._start - 8).to_bytes(8, "little") + text)
            self._file.close()
            if kind is None:
                os.replace(self._staging, self._path)
        finally:
            self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):  # what the buffer still holds may find no room either
            self._file.close()
        self._staging.unlink(missing_ok=True)


def write_archive(path: Path, tensors: Mapping[str, npt.ArrayLike], metadata: Metadata) -> None:
    """Writes tensors that are in memory. Floats become float32, whole numbers int32 or int64 as they are."""
    arrays = {name: _plain(np.asarray(values)) for name, values in tensors.items()}
    with ArchiveWriter(path, {name: (array.dtype, array.shape) for name, array in arrays.items()}, metadata) as writer:
        for name, array in arrays.items():
            writer.write(name, array)


class Archive(Mapping[str, Array]):
    """An archive on disk; tensors are read when they are asked for, as read-only views of the mapped file.

    It equals itself alone: comparing what two of them hold would read every tensor.
    """

    def __init__(self, path: Path, metadata: Metadata, places: Mapping[str, tuple[int, np.dtype[Any], Shape]]) -> None:
        self.path = path
        self.metadata = metadata
        self._places = dict(places)

    def __getitem__(self, name: str) -> Array:
        start, dtype, shape = self._places[name]
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(self.path, dtype=dtype, mode="r", offset=start, shape=shape or (1,)).reshape(shape)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def shape(self, name: str) -> Shape:
        """The shape of a tensor, without reading it."""
        return self._places[name][2]


def read_archive(path: Path) -> Archive:
    """Opens an archive. LabError when it is missing, cut, not an inspection, or from a newer lab."""
    try:
        with explained(f"{path} cannot be read."):
            size = path.stat().st_size
            header, start = safetensors_header(path)
        texts = header.pop("__metadata__", {})
        schema = int(texts["schema"]) if "schema" in texts else 0
    except (ValueError, AttributeError, TypeError) as error:
        raise LabError(f"{path.name} is not an inspection of this lab.", f"{error}.", "Choose another file.") from error
    if schema > SCHEMA:
        raise LabError(
            f"{path.name} was written by a newer lab.",
            f"Its schema is {schema}, this one reads {SCHEMA}.",
            "Update the lab.",
        )
    try:
        places = {name: _place(entry, start, size) for name, entry in header.items()}
        return Archive(path, Metadata.from_strings(texts), places)
    except EOFError as error:
        raise LabError(f"{path.name} is cut short.", f"{error}.", "Run the inspection again.") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        why = f"Its header lacks or garbles {error}." if isinstance(error, KeyError) else f"{error}."
        raise LabError(f"{path.name} is not an inspection of this lab.", why, "Choose another file.") from error


def _place(entry: Mapping[str, Any], start: int, size: int) -> tuple[int, np.dtype[Any], Shape]:
    dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
    first, last = entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
        raise ValueError("a tensor's shape or place is not made of whole numbers")
    if last - first != dtype.itemsize * math.prod(shape):
        raise ValueError("a tensor's shape and length differ")
    if start + last > size:
        raise EOFError(f"It should have {start + last:,} bytes and has {size:,}")
    return start + first, dtype, shape


def _plain(array: Array) -> Array:
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    return array if array.dtype in _CODES else array.astype(np.int64)
