"""Writing what was trained for other programs: merged into one model, or as the adapter that it is.

    hf       a folder for transformers: settings, safetensors in fp32, tokenizer with its chat template
    adapter  a folder for PEFT: the two matrices of each module, which base they belong to, and the same tokenizer
    gguf     a file for llama.cpp and its kin (`llmlab.models.export.gguf`)

What was fine-tuned answers a chat elsewhere as it does in the lab: the chat template and the tokens that end an answer
go along. Each is written beside its place and renamed: it is whole, or not there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmlab.core.errors import LabError, UsageError, explained
from llmlab.core.files import write_json
from llmlab.core.finetuning_settings import FULL
from llmlab.core.progress import Progress, quiet
from llmlab.gpt.gpt2_settings import refusal
from llmlab.gpt.hf import refusal_of, to_hf
from llmlab.gpt.model import GPT
from llmlab.models.available import GENERATION_FILE
from llmlab.models.export.adapter import write_adapter
from llmlab.models.export.chat_files import FINE_TUNED, set_ends, write_tokenizer
from llmlab.models.file_sources import EXPORT_FILE, Source
from llmlab.models.model import OpenModel
from llmlab.models.reference import ModelFolder, Reference, SavedRun, parse
from llmlab.models.source import Adapted, FineTunedRun, open_model, source_of
from llmlab.models.weights import count_parameters
from llmlab.store.checkpoints import ADAPTER_WEIGHTS_FILE, verify

HF, ADAPTER, GGUF = KINDS = ("hf", "adapter", "gguf")
_FLOAT = 4  # bytes of a weight in fp32
# Settings and tokenizer, which are written beside the weights.
_BESIDE_BYTES = 64 << 20


def export(
    reference: str, outputs: Path, out: Path, to: str, *, precision: str = "f16", progress: Progress = quiet
) -> None:
    """Writes what `reference` names to `out`, a new or empty folder, or a new .gguf file. to: one of KINDS.

    precision: of a GGUF file's matrices, f16 or f32. UsageError when `out` is taken, or when there is no adapter to
    write; LabError when the model cannot be opened, is of a family that the format has no place for, or does not
    fit on the disk.
    """
    require_new(out, to)
    named = parse(reference, outputs)
    if to == ADAPTER:
        _write_adapter(named, out)
        return
    opened = open_model(named, outputs, progress)
    progress(f"Writing {out.name}", 0, 0)
    if to == GGUF:
        from llmlab.models.export.gguf import write_gguf

        with staged(out, opened.parameters * (2 if precision == "f16" else 4)) as staging:
            write_gguf(opened, staging, precision)
        return
    if why := refusal_of(opened.model):
        raise LabError(f"{opened.name} cannot be written for transformers.", why, "The lab alone opens it.")
    with staged(out, opened.bytes) as staging:
        staging.mkdir()
        _write_folder(opened, staging)
        _note_export(staging, source_of(parse(opened.reference, outputs)))


def require_new(out: Path, to: str) -> None:
    """UsageError when something is at `out`, or when its name does not suit the kind."""
    if to == GGUF and out.suffix != ".gguf":
        raise UsageError(f"{out} cannot be the name of a GGUF file.", "It is one file, and its name ends in .gguf.")
    if out.exists() and (to == GGUF or not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already.", "An export never overwrites.", "Choose another --out.")


@contextlib.contextmanager
def staged(out: Path, size: int) -> Iterator[Path]:
    """A path beside `out` to write to, which becomes `out` when all went well. size: bytes that will be written.

    LabError when they do not fit, or when writing fails; nothing is left then.
    """
    staging = out.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{out.name}")
    try:
        with explained(f"The export could not be written to {out}."):
            out.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(out.parent).free
            if size + _BESIDE_BYTES > free:
                raise LabError(
                    f"The export to {out} needs {(size + _BESIDE_BYTES) / 1e6:,.0f} MB.",
                    f"{out.parent} has {free / 1e6:,.0f} MB free.",
                    "Make room, or choose another --out.",
                )
            yield staging
            if out.is_dir():
                out.rmdir()
            os.replace(staging, out)
    finally:
        if staging.is_dir():
            shutil.rmtree(staging, ignore_errors=True)
        else:
            staging.unlink(missing_ok=True)


def _write_folder(opened: OpenModel, folder: Path) -> None:
    from transformers import GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    model: Any = to_hf(opened.model) if isinstance(opened.model, GPT) else opened.model
    fine_tuned = opened.kind in FINE_TUNED
    generation, model.generation_config = model.generation_config, GenerationConfig()
    set_ends(generation, opened.tokenizer, fine_tuned=fine_tuned)
    if isinstance(opened.model, GPT):
        model.config.bos_token_id = generation.bos_token_id
        model.config.eos_token_id = generation.eos_token_id
    model.save_pretrained(folder)
    # Also settings of sampling that nothing uses, which many models have and `save_pretrained` refuses to write.
    generation.to_json_file(folder / GENERATION_FILE)
    write_tokenizer(opened.tokenizer, folder, fine_tuned=fine_tuned)


def _note_export(folder: Path, source: Source) -> None:
    """Writes down in an exported folder which model it is, so that adapters of that model know it again.

    The folder's own digest goes along: with other weights in it, the note says nothing.
    """
    own = source_of(ModelFolder(folder)).digest()
    note = {"source": str(source), "source_sha256": source.digest(), "weights_sha256": own}
    write_json(folder / EXPORT_FILE, note)


def _write_adapter(named: Reference, out: Path) -> None:
    folder, base = _adapter_of(named)
    size = count_parameters(folder, f"The adapter {folder.name}", ADAPTER_WEIGHTS_FILE) * _FLOAT
    with staged(out, size) as staging:
        staging.mkdir()
        write_adapter(folder, base, staging)


def _adapter_of(named: Reference) -> tuple[Path, Source]:
    """An adapter's folder, and what it stands on."""
    source = source_of(named)
    if isinstance(source, Adapted):
        return source.adapter, source.base
    if not isinstance(source, FineTunedRun):
        raise UsageError(f"{named} has no adapter to export.", "It was not fine-tuned.", _whole_model(named))
    if source.method == FULL:
        raise UsageError(f"{named} has no adapter to export.", "It changes all weights.", _whole_model(named))
    checkpoint = source.checkpoint
    if problem := verify(checkpoint):
        raise LabError(f"{named} cannot be exported.", problem, "Choose another checkpoint.")
    return checkpoint.path, source.base


def _whole_model(named: Reference) -> str:
    """How to export a model that is no adapter, where that can be done."""
    own = source_of(named).own_settings()
    task = isinstance(named, SavedRun) and named.run.on_task
    return "" if task or (own is not None and refusal(own)) else "Use --to hf for the model."
