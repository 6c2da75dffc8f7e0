"""Spills tensors of a forward pass to disk until its end, when they can be compared.

Every contribution of a 135M model to 512 tokens is 72 MB, of a 7B model 540 MB. Written to a temporary file and read
back they cost a few percent of the pass, and of memory only the operating system's file cache, which it takes back
when it needs to. Nothing is rounded.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Spill:
    """Matrices [T, C] of one shape, numbered in the order they come. The file goes with the object."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: where the file is; the system's temporary folder if None. OSError when it cannot be made there."""
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - lives as long as the object
        self._shape: tuple[int, int] = (0, 0)
        self._device = torch.device("cpu")
        self._count = 0

    def put(self, x: Tensor) -> int:
        """Appends x [T, C], in float32, and returns its number. OSError when the disk is full."""
        assert self._count == 0 or x.shape == self._shape, "all matrices of a spill have one shape"
        self._shape, self._device = (x.shape[0], x.shape[1]), x.device
        rest = x.detach().float().contiguous().cpu().numpy().data.cast("B")
        self._file.seek(self._count * rest.nbytes)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._count += 1
        return self._count - 1

    def get(self, number: int, first: int = 0, last: int | None = None) -> Tensor:
        """Rows first to last - 1 of a matrix, [n, C], on the device it came from."""
        time, width = self._shape
        last = time if last is None else last
        self._file.seek((number * time + first) * width * 4)
        rows = np.fromfile(self._file, np.float32, (last - first) * width)
        if len(rows) < (last - first) * width:
            raise EOFError(f"matrix {number} was never put aside")
        return torch.from_numpy(rows.reshape(-1, width)).to(self._device)

    def close(self) -> None:
        self._file.close()
