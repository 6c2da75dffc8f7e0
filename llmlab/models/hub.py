"""Models of the Hugging Face hub: from the cache that all programs share, else downloaded into it."""

from __future__ import annotations

import shutil
from pathlib import Path

from llmlab.core.errors import Cancelled, LabError
from llmlab.core.memory import gigabytes
from llmlab.core.progress import Progress, quiet
from llmlab.data.hf_tokenizer import has_tokenizer
from llmlab.models.available import CONFIG_FILE, cached_models, hub_folder, other_revision
from llmlab.models.weights import count_parameters

# Only what opening needs: weights without code (first), settings, and tokenizers. No pickles, no Python.
_WANTED = (".safetensors", ".json", ".txt", ".jinja", "tokenizer.model", "spiece.model")
_SECONDS = 10.0  # until a hub that does not answer is given up


def hub_snapshot(name: str, progress: Progress = quiet) -> Path:
    """The folder with its files: cached ones as they are, else the newest of the hub, downloaded file by file.

    Where refs/main names a revision without weights, those are fetched; another one that is here whole is opened where
    that cannot be. LabError when it is not cached and cannot be downloaded.
    """
    cached = cached_models().get(name)
    here = cached if cached is not None and _is_complete(cached, name) else None
    if here is not None and other_revision(here) is None:
        return here
    try:
        return _downloaded(name, _WANTED, progress)
    except LabError:
        if here is not None:
            return here
        raise


def hub_settings(name: str) -> Path:
    """The folder with its settings and tokenizer, for what needs no weights; where the weights are, they are there too.

    LabError as `hub_snapshot`.
    """
    cached = cached_models().get(name)
    if cached is not None:
        return cached
    snapshots = hub_folder() / f"models--{name.replace('/', '--')}" / "snapshots"
    for folder in sorted(snapshots.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True):
        if (folder / CONFIG_FILE).is_file() and has_tokenizer(folder):
            return folder
    return _downloaded(name, _WANTED[1:], quiet)


def _downloaded(name: str, wanted: tuple[str, ...], progress: Progress) -> Path:
    """The newest files of the hub with these endings, one by one. LabError when they cannot be had."""
    from huggingface_hub import HfApi, constants, hf_hub_download

    if constants.HF_HUB_OFFLINE:
        raise _not_here(name, "The hub is not asked, since HF_HUB_OFFLINE is set.")
    progress(f"Asking the hub for {name}", 0, 0)
    try:
        about = HfApi().model_info(name, files_metadata=True, timeout=_SECONDS)
        files = [file for file in about.siblings or () if "/" not in file.rfilename]
        if not any(file.rfilename.endswith(_WANTED[0]) for file in files):
            raise LabError(f"{name} cannot be opened.", "It has no safetensors weights on the hub.")
        files = [file for file in files if file.rfilename.endswith(wanted)]
        total, done = float(sum(file.size or 0 for file in files)), 0.0
        _require_disk(total, name)
        folder = None
        for file in sorted(files, key=lambda file: file.size or 0):
            progress(f"Downloading {file.rfilename}", done, total)
            path = hf_hub_download(name, file.rfilename, revision=about.sha, etag_timeout=_SECONDS)
            folder = Path(path).parent
            done += file.size or 0
        assert folder is not None
        return folder
    except (LabError, Cancelled):
        raise
    except Exception as error:  # of the network, of the hub, or of the disk
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise _not_here(name, f"The hub could not give it: {why.rstrip('.')}.") from error


def _require_disk(wanted: float, name: str) -> None:
    """LabError when a download of that many bytes has no room in the cache."""
    folder = hub_folder()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if wanted > free:
        raise LabError(
            f"There is no room to download {name}.",
            f"It takes {gigabytes(wanted)}, and {gigabytes(free)} are free where models are kept ({folder}).",
            "Free some space, or set HF_HOME to a folder on a larger disk.",
        )


def _is_complete(folder: Path, name: str) -> bool:
    try:
        return count_parameters(folder, name) > 0
    except LabError:
        return False


def _not_here(name: str, why: str) -> LabError:
    return LabError(
        f"There is no model {name} on this machine.",
        f"It is neither a folder here nor in the Hugging Face cache. {why}",
        "Name a folder, or connect to the network. `llmlab-run models` lists what is here.",
    )
