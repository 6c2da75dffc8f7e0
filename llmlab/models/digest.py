"""Which model a reference names, by the bytes of its files: an adapter knows its base again. No torch is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from llmlab.core.errors import LabError
from llmlab.core.files import read_json, sha256_of, write_json
from llmlab.models.available import cached_models
from llmlab.models.reference import (
    AdaptedModel,
    GgufFile,
    HubModel,
    LiveRun,
    ModelFolder,
    Reference,
    SavedRun,
    is_fine_tuned,
)
from llmlab.models.tuned import base_of
from llmlab.models.weights import weight_files
from llmlab.store.checkpoints import ADAPTER_WEIGHTS_FILE, select

# The name of a base's digest in an adapter's safetensors metadata and in a checkpoint's manifest.
BASE_DIGEST = "base_sha256"
# Beside an exported model: which one it is, and the digests of its weights in the lab and in the folder.
EXPORT_FILE = "llmlab_export.json"


def digest_of(reference: Reference) -> str:
    """Hex sha256 over the weight files that the model is made of, wherever they are and whatever they are called.

    Reads every byte: a second for two gigabytes or so. LabError when they are not here or cannot be read.
    """
    try:
        return _of(list(_files(reference)))
    except OSError as error:
        raise LabError(f"{reference} cannot be read.", f"{error}.") from error


def is_of(reference: Reference, wanted: str) -> bool:
    """Whether the model has that digest, or is a folder that the lab wrote of a model that has it.

    LabError as `digest_of`.
    """
    digest = digest_of(reference)
    if digest == wanted or not isinstance(reference, ModelFolder):
        return digest == wanted
    note = read_json(reference.path / EXPORT_FILE) or {}
    return note.get("source_sha256") == wanted and note.get("weights_sha256") == digest


def note_export(folder: Path, source: Reference, digest: str) -> None:
    """Writes down in an exported folder which model it is, so that adapters of that model know it again.

    digest: of `source`. The folder's own goes along: with other weights in it, the note says nothing.
    """
    note = {"source": str(source), "source_sha256": digest, "weights_sha256": digest_of(ModelFolder(folder))}
    write_json(folder / EXPORT_FILE, note)


def _files(reference: Reference) -> Iterable[Path]:
    match reference:
        case SavedRun(run, _, which):
            if is_fine_tuned(run):
                yield from _files(base_of(run))
            yield select(run.checkpoints, which).weights
        case ModelFolder(path):
            yield from weight_files(path, path.name)
        case HubModel(name):
            folder = cached_models().get(name)
            if folder is None:
                raise LabError(f"{name} is not on this machine.")
            yield from weight_files(folder, name)
        case GgufFile(path):
            yield path
        case AdaptedModel(base, adapter):
            yield from _files(base)
            yield adapter / ADAPTER_WEIGHTS_FILE
        case LiveRun():
            raise LabError(f"{reference} changes from step to step.")


def _of(files: list[Path]) -> str:
    digests = [sha256_of(path) for path in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
