"""Puts tensors of a forward pass aside until its end, when they can be compared: in memory, what is too much on disk.

Every contribution of a 135M model to 512 tokens is 72 MB, of a 7B model 540 MB. A temporary file takes of memory only
the operating system's file cache, which it takes back when it needs to, but writing and reading 72 MB is 2 to 10 % of
the pass, most of it in the kernel; in memory that the process has already it is 1 %. Nothing is rounded.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Spill:
    """Matrices [T, C] of one shape, numbered in the order they come. The file goes with the object."""

    def __init__(self, folder: Path | None = None, memory: int = 0) -> None:
        """folder: where the file is; the system's temporary folder if None. OSError when it cannot be made there.

        memory: bytes for the first matrices, which are kept without the file.
        """
        self._kept: list[Tensor] = []
        self._memory = memory
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - lives as long as the object
        self._shape: tuple[int, int] = (0, 0)
        self._device = torch.device("cpu")
        self._count = 0

    def put(self, x: Tensor) -> int:
        """Appends x [T, C], in float32, and returns its number. OSError when the disk is full."""
        assert self._count == 0 or x.shape == self._shape, "all matrices of a spill have one shape"
        self._shape, self._device = (x.shape[0], x.shape[1]), x.device
        self._count += 1
        if self._count * x.numel() * 4 <= self._memory:
            self._kept.append(x.detach().to("cpu", torch.float32, copy=True))
            return self._count - 1
        rest = x.detach().float().contiguous().cpu().numpy().data.cast("B")
        self._file.seek((self._count - 1) * rest.nbytes)  # a hole stands for what is in memory
        while rest:
            rest = rest[self._file.write(rest) :]
        return self._count - 1

    def get(self, number: int, first: int = 0, last: int | None = None) -> Tensor:
        """Rows first to last - 1 of a matrix, [n, C], on the device it came from; not to be changed."""
        if number >= self._count:
            raise EOFError(f"matrix {number} was never put aside")
        time, width = self._shape
        last = time if last is None else last
        if number < len(self._kept):
            return self._kept[number][first:last].to(self._device)
        self._file.seek((number * time + first) * width * 4)
        rows = np.fromfile(self._file, np.float32, (last - first) * width)
        return torch.from_numpy(rows.reshape(-1, width)).to(self._device)

    def close(self) -> None:
        self._kept.clear()
        self._file.close()
