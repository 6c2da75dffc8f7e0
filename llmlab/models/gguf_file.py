"""Opening a GGUF file: transformers turns its quantized weights back into fp32 and knows its tokenizer."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from llmlab.core.memory import require_memory
from llmlab.core.progress import Progress, quiet
from llmlab.data.hf_tokenizer import load_tokenizer
from llmlab.models.gguf_header import count_gguf_parameters
from llmlab.models.huggingface import Bar, load_model
from llmlab.models.model import OpenModel

_FLOAT = 4  # bytes of a weight in fp32


def open_gguf(path: Path, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
    """A GGUF file in fp32 on the CPU. with_bytes: memory that is needed besides, for an adapter.

    LabError when it is cut or foreign, of an architecture that transformers cannot read from GGUF, or too large.
    """
    name = path.stem
    progress("Reading the header", 0, 0)
    numbers = count_gguf_parameters(path, name)
    require_memory(numbers * _FLOAT + with_bytes, name)
    with _read_once(progress):
        model = load_model(path.parent, name, progress, numbers=numbers, gguf_file=path.name)
        progress("Reading the tokenizer", 0, 0)
        tokenizer = load_tokenizer(path.parent, name, path.name)
    return OpenModel(str(path), name, "gguf", model, tokenizer)


@contextlib.contextmanager
def _read_once(progress: Progress) -> Iterator[None]:
    """While it lasts, transformers' four readings of the file share one, and its bar is told to `progress`.

    gguf's reader takes seconds to walk through a large vocabulary, and transformers makes a new one each time.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as legacy

    def bar(iterable: Any, **options: Any) -> Bar:
        return Bar(progress, iterable, **options)

    with _replaced(gguf, "GGUFReader", functools.lru_cache(1)(gguf.GGUFReader)), _replaced(legacy, "tqdm", bar):
        yield


@contextlib.contextmanager
def _replaced(module: ModuleType, name: str, by: Any) -> Iterator[None]:
    """While it lasts, a module's `name` is another; nothing happens where a version has no such name."""
    plain = getattr(module, name, None)
    if plain is None:
        yield
        return
    setattr(module, name, by)
    try:
        yield
    finally:
        setattr(module, name, plain)
