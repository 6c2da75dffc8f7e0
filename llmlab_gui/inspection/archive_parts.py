"""A part of an archive as a file of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from llmlab.core.errors import LabError
from llmlab.inspection.archive import Archive, ArchiveWriter


def names_of(archive: Archive, wanted: Iterable[str]) -> list[str]:
    """Names in the archive: those wanted, and all below those that end with "/"."""
    chosen = list(wanted)
    return [name for name in archive if any(name == w or (w.endswith("/") and name.startswith(w)) for w in chosen)]


def save_part(archive: Archive, wanted: Iterable[str], path: Path) -> None:
    """Writes the wanted tensors with the archive's metadata. LabError when there is none, or no room."""
    names = names_of(archive, wanted)
    if not names:
        raise LabError("There are no tensors to save.", "What is shown is not in the archive.")
    try:
        shapes = {name: (archive[name].dtype, archive.shape(name)) for name in names}
        with ArchiveWriter(path, shapes, archive.metadata) as writer:
            for name in names:
                writer.write(name, archive[name])
    except OSError as error:
        raise LabError(f"{path.name} could not be written.", str(error), "Choose another folder.") from error
