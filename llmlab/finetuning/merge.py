"""Writing what was trained for other programs: merged into one model, or as the adapter that it is.

    hf       a folder for transformers: settings, safetensors in fp32, tokenizer with its chat template
    adapter  a folder for PEFT: the two matrices of each module, and which base they belong to
    gguf     a file for llama.cpp and its kin (`llmlab.finetuning.gguf_export`)

Each is written beside its place and renamed: it is whole, or not there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from llmlab.errors import LabError, UsageError
from llmlab.files import is_disk_full, write_json
from llmlab.finetuning.adapter_file import ADAPTER_WEIGHTS_FILE, read_settings
from llmlab.finetuning.settings import FULL
from llmlab.progress import Progress, quiet
from llmlab.runs.checkpoints import select, verify
from llmlab.sessions.available import ADAPTER_FILE
from llmlab.sessions.model import OpenModel
from llmlab.sessions.open import open_model
from llmlab.sessions.reference import AdaptedModel, Reference, SavedRun, is_tuned, parse
from llmlab.sessions.tuned import base_of

HF, ADAPTER, GGUF = KINDS = ("hf", "adapter", "gguf")
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
        from llmlab.finetuning.gguf_export import write_gguf

        with staged(out, opened.parameters * (2 if precision == "f16" else 4)) as staging:
            write_gguf(opened, staging, precision)
        return
    with staged(out, opened.bytes) as staging:
        staging.mkdir()
        _write_folder(opened, staging)


def require_new(out: Path, to: str) -> None:
    """UsageError when something is at `out`, or when its name does not suit the kind."""
    if to == GGUF and out.suffix != ".gguf":
        raise UsageError(f"{out} is no name for a GGUF file.", "It is one file, and its name ends in .gguf.")
    if out.exists() and (to == GGUF or not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already.", "An export never overwrites.", "Choose another --out.")


@contextlib.contextmanager
def staged(out: Path, size: int) -> Iterator[Path]:
    """A path beside `out` to write to, which becomes `out` when all went well. size: bytes that will be written.

    LabError when they do not fit, or when writing fails; nothing is left then.
    """
    staging = out.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{out.name}")
    try:
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
    except OSError as error:
        why = "The disk is full." if is_disk_full(error) else f"{error}."
        raise LabError(f"The export could not be written to {out}.", why) from error
    finally:
        if staging.is_dir():
            shutil.rmtree(staging, ignore_errors=True)
        else:
            staging.unlink(missing_ok=True)


def _write_folder(opened: OpenModel, folder: Path) -> None:
    from transformers.utils import logging

    from llmlab.corpora.tokenizers import Tokenizer, save_hf_tokenizer
    from llmlab.gpt.hf import save_hf
    from llmlab.gpt.model import GPT
    from llmlab.sessions.hf_tokenizer import HuggingFaceTokenizer

    logging.disable_progress_bar()
    if isinstance(opened.model, GPT):
        save_hf(opened.model, folder)
    else:
        opened.model.save_pretrained(folder)  # type: ignore[operator]
    if isinstance(opened.tokenizer, Tokenizer):
        save_hf_tokenizer(opened.tokenizer, folder)
    elif isinstance(opened.tokenizer, HuggingFaceTokenizer):
        opened.tokenizer.inner.save_pretrained(folder)


def _write_adapter(named: Reference, out: Path) -> None:
    folder, base = _adapter_of(named)
    settings = read_settings(folder) | {"base_model_name_or_path": str(base), "inference_mode": True}
    with staged(out, (folder / ADAPTER_WEIGHTS_FILE).stat().st_size) as staging:
        staging.mkdir()
        shutil.copyfile(folder / ADAPTER_WEIGHTS_FILE, staging / ADAPTER_WEIGHTS_FILE)
        write_json(staging / ADAPTER_FILE, settings)


def _adapter_of(named: Reference) -> tuple[Path, Reference]:
    """An adapter's folder, and what it stands on."""
    if isinstance(named, AdaptedModel):
        return named.adapter, named.base
    if not (isinstance(named, SavedRun) and is_tuned(named.run)):
        raise UsageError(f"{named} has no adapter to export.", "It was not fine-tuned.", "Use --to hf for the model.")
    if named.run.info().finetuning.model.method == FULL:
        raise UsageError(f"{named} has no adapter to export.", "It changes all weights.", "Use --to hf for the model.")
    checkpoint = select(named.run.checkpoints, named.which)
    if problem := verify(checkpoint):
        raise LabError(f"{named} cannot be exported.", problem, "Choose another checkpoint.")
    return checkpoint.path, base_of(named.run)
