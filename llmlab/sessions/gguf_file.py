"""Opening a GGUF file: transformers turns its quantized weights back into fp32 and knows its tokenizer."""

from __future__ import annotations

from pathlib import Path

from llmlab.errors import LabError
from llmlab.progress import Progress, quiet
from llmlab.sessions.hf_tokenizer import load_tokenizer
from llmlab.sessions.huggingface import load_model, translated
from llmlab.sessions.memory import require_memory
from llmlab.sessions.model import OpenModel

_FLOAT = 4  # bytes of a weight in fp32


def open_gguf(path: Path, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
    """A GGUF file in fp32 on the CPU. with_bytes: memory that is needed besides, for an adapter.

    LabError when it is cut or foreign, of an architecture that transformers cannot read from GGUF, or too large.
    """
    name = path.stem
    progress("Reading the header", 0, 0)
    require_memory(_numbers(path, name) * _FLOAT + with_bytes, name)
    model = load_model(path.parent, name, progress, gguf_file=path.name)
    progress("Reading the tokenizer", 1, 1)
    return OpenModel(str(path), name, "gguf", model, load_tokenizer(path.parent, name, path.name))


def _numbers(path: Path, name: str) -> int:
    """How many numbers it holds, by its header. LabError when it is cut or no GGUF file."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise LabError(f"{name} cannot be opened.", f"{path.name} is no GGUF file: it does not begin like one.")
    from gguf import GGUFReader

    with translated(name):
        reader = GGUFReader(path)
        size = path.stat().st_size
        total = 0
        for tensor in reader.tensors:
            if int(tensor.data_offset) + int(tensor.n_bytes) > size:
                raise LabError(f"{name} cannot be opened.", f"{path.name} is cut short: it has {size:,} bytes.")
            total += int(tensor.n_elements)
    return total
