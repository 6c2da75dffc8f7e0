"""GGUF files, dequantized once: to read one takes seconds to minutes, and the folder that it becomes takes one.

A file's folder is cache_dir()/gguf/<key>/, a Hugging Face folder with fp32 weights and manifest.json: which file it
is of, and size and sha256 of each of its own. It appears whole or not at all. One that is not as it was written is
not read.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from llmlab.core.errors import Cancelled
from llmlab.core.files import fsync_file, new_folder, open_file, remove_folder, sha256_of, write_json
from llmlab.core.memory import available_bytes
from llmlab.core.paths import cache_dir
from llmlab.core.progress import Progress
from llmlab.core.records import read_record
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer, load_tokenizer
from llmlab.models.available import GENERATION_FILE
from llmlab.models.model import OpenModel

# Raised when what is written changes: older folders are then made again.
_FORMAT = 1
MANIFEST_FILE = "manifest.json"
_ENDS = 1 << 20  # bytes at the beginning and the end of a file by which it is known, besides its size and time
# A folder is made where this many of its size are free: a cache must not fill the disk.
_ROOM = 4


@dataclass(frozen=True)
class _Manifest:
    source: str
    sha256: dict[str, str]  # of each file


def gguf_folder(path: Path) -> Path:
    """Where a GGUF file's folder is or would be. Another one as soon as the file, or what reads it, is another."""
    about, digest = path.stat(), hashlib.sha256()
    with open_file(path) as file:
        for start in (0, max(0, about.st_size - _ENDS)):
            file.seek(start)
            digest.update(file.read(_ENDS))
    readers = (metadata.version(name) for name in ("transformers", "gguf"))
    parts = (_FORMAT, path.resolve(), about.st_size, about.st_mtime_ns, digest.hexdigest(), *readers)
    return cache_dir() / "gguf" / hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:32]


def is_whole(folder: Path, progress: Progress) -> bool:
    """Whether a folder is here, and each of its files is what was written."""
    manifest = read_record(_Manifest, folder / MANIFEST_FILE)
    if manifest is None:
        return False
    try:
        names = {path.name for path in folder.iterdir()} - {MANIFEST_FILE}
        return names == manifest.sha256.keys() and all(
            sha256_of(folder / name, progress) == sha256 for name, sha256 in manifest.sha256.items()
        )
    except OSError:
        return False


def keep(opened: OpenModel, path: Path, folder: Path, progress: Progress) -> None:
    """Writes down what was read from a GGUF file, where there is room. What goes wrong only costs the next opening."""
    progress("Keeping the weights for the next time", 0, 0)
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        # To write safetensors takes the weights a second time in memory.
        if _ROOM * opened.bytes > shutil.disk_usage(cache_dir()).free or 2 * opened.bytes > available_bytes():
            return
        for old in _useless(folder):
            remove_folder(old)
        with new_folder(folder) as staging:
            _write(opened, staging)
            digests = {}
            for file in sorted(staging.iterdir()):
                fsync_file(file)
                digests[file.name] = sha256_of(file, progress)
            write_json(staging / MANIFEST_FILE, asdict(_Manifest(str(path.resolve()), digests)))
    except Cancelled:
        raise
    except Exception:  # a full disk is another error with each library
        return


def _useless(folder: Path) -> Iterator[Path]:
    """The folder itself, which is damaged if it is there, and those of files that are gone or have changed."""
    for other in folder.parent.glob("[!.]*"):
        manifest = read_record(_Manifest, other / MANIFEST_FILE)
        try:
            useful = manifest is not None and other != folder and gguf_folder(Path(manifest.source)) == other
        except OSError:
            useful = False
        if not useful:
            yield other


def _write(opened: OpenModel, folder: Path) -> None:
    from transformers import GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    model: Any = opened.model
    generation, model.generation_config = model.generation_config, GenerationConfig()
    try:
        model.save_pretrained(folder)
    finally:
        model.generation_config = generation
    generation.to_json_file(folder / GENERATION_FILE)
    assert isinstance(opened.tokenizer, HuggingFaceTokenizer)
    opened.tokenizer.inner.save_pretrained(folder)
    if _facts(load_tokenizer(folder, opened.name)) != _facts(opened.tokenizer):
        raise ValueError("The tokenizer, read back, is another.")


def _facts(tokenizer: Any) -> object:
    """What two tokenizers that read alike have in common."""
    inner = tokenizer.inner
    backend = getattr(inner, "backend_tokenizer", None)
    pipeline = backend.to_str() if backend is not None else ""
    special = inner.special_tokens_map, inner.all_special_ids, getattr(inner, "chat_template", None)
    return tokenizer.beginning, tokenizer.adds_bos, inner.get_vocab(), special, pipeline
