"""Checkpoints on disk: complete or absent, verified, kept by a rule. Knows files, not tensors.

checkpoints/step-00000500/
    model.safetensors     weights; of an adapter: adapter_model.safetensors and adapter_config.json, as PEFT has them
    training_state.pt     optimizer, random generators, position in the data (tensors and plain values); the weights
                          that were trained, where those of the model are their average
    manifest.json         written last: sizes and sha256 of the others, and the sha256 of what it says itself
    pinned                an empty file, where someone pinned it
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmlab.core.errors import LabError, explained
from llmlab.core.files import fsync_file, fsync_folder, read_json, sha256_of, write_json
from llmlab.core.progress import Progress, quiet

MODEL_FILE = "model.safetensors"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
STATE_FILE = "training_state.pt"
MANIFEST_FILE = "manifest.json"
PINNED_FILE = "pinned"
CHECKPOINT_FORMAT = 1
# What a manifest says of itself besides; those of the lab's first versions lack it.
_SEAL = "sha256"
# Labels of checkpoints that the keep rule never deletes.
_LASTING = {"spaced", "requested", "branch"}
_KEYS = {"format", "step", "labels", "time", "val_loss", "files", "about"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder with a readable manifest. `verify` tells whether its bytes are what they were."""

    path: Path
    step: int
    labels: tuple[str, ...]  # why it was saved: periodic spaced best final requested stopped branch
    time: float
    val_loss: float | None
    bytes: int
    pinned: bool
    about: dict[str, Any]  # the manifest's "about": run, model, tokenizer, tokens, parameters

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def why(self) -> str:
        """Its labels, and whether it is pinned, as people read them."""
        return " ".join([*self.labels, *(["pinned"] if self.pinned else [])])

    @property
    def weights(self) -> Path:
        """The file with what was trained: the whole model, or an adapter."""
        adapter = self.path / ADAPTER_WEIGHTS_FILE
        return adapter if adapter.is_file() else self.path / MODEL_FILE


def checkpoint_name(step: int) -> str:
    """`step-00000500`: sorts by step."""
    return f"step-{step:08d}"


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Every checkpoint with a readable manifest, oldest step first. Unfinished and foreign folders are left out."""
    found = (read_checkpoint(path) for path in _step_folders(folder))
    return sorted((one for one in found if one is not None), key=lambda checkpoint: checkpoint.step)


def unreadable(folder: Path) -> list[str]:
    """Names of the checkpoint folders that `list_checkpoints` leaves out: their manifest is missing or damaged."""
    return sorted(path.name for path in _step_folders(folder) if path.is_dir() and read_checkpoint(path) is None)


def _step_folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if re.fullmatch(r"step-\d{8,}", path.name)]
    except OSError:
        return []


def read_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint in a folder; None when its manifest is missing, damaged, or of another step."""
    manifest = read_json(path / MANIFEST_FILE)
    if manifest is None:
        return None
    try:
        step, val_loss = int(manifest["step"]), manifest["val_loss"]
        if checkpoint_name(step) != path.name or not math.isfinite(val_loss or 0.0):
            return None
        return Checkpoint(
            path,
            step,
            tuple(str(label) for label in manifest["labels"]),
            float(manifest["time"]),
            None if val_loss is None else float(val_loss),
            sum(int(entry["bytes"]) for entry in manifest["files"].values()),
            (path / PINNED_FILE).exists(),
            dict(manifest["about"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with the sha256 of all else that it says; how it is laid out does not count."""
    content = {key: value for key, value in manifest.items() if key != _SEAL}
    return content | {_SEAL: hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def manifest_damage(checkpoint: Checkpoint) -> str | None:
    """What is wrong with a checkpoint's manifest, as a sentence; None when it says what it said when it was saved."""
    manifest = read_json(checkpoint.path / MANIFEST_FILE)
    if manifest is None:
        return f"{checkpoint.name} lacks {MANIFEST_FILE}, or it cannot be read."
    if manifest.get("format", CHECKPOINT_FORMAT) != CHECKPOINT_FORMAT:
        return f"{checkpoint.name} was made by a newer version of the lab."
    try:
        # Without the hash there is nothing else: a flipped bit in its name is not taken for an early version.
        whole = manifest == sealed(manifest) if _SEAL in manifest else manifest.keys() == _KEYS
    except RecursionError:
        whole = False
    return None if whole else f"{MANIFEST_FILE} of {checkpoint.name} is not what was saved: its sha256 is another."


def verify(checkpoint: Checkpoint, progress: Progress = quiet) -> str | None:
    """None when the manifest and every file it names are what was saved, else what is wrong, as a sentence."""
    if (problem := manifest_damage(checkpoint)) is not None:
        return problem
    manifest = read_json(checkpoint.path / MANIFEST_FILE) or {}
    entries = manifest.get("files", {})
    for name in sorted({checkpoint.weights.name, STATE_FILE, *entries}):
        entry = entries.get(name)
        path = checkpoint.path / name
        if entry is None or Path(name).name != name or not path.is_file():
            return f"{checkpoint.name} lacks {name}."
        try:
            size = path.stat().st_size
            if size != entry.get("bytes"):
                return f"{name} of {checkpoint.name} has {size} bytes instead of {entry.get('bytes')}."
            if sha256_of(path, progress) != entry.get("sha256"):
                return f"{name} of {checkpoint.name} is not what was saved: its sha256 differs from the manifest's."
        except OSError as error:
            return f"{name} of {checkpoint.name} cannot be read: {error}."
    return None


def require_whole(checkpoint: Checkpoint, what: str) -> None:
    """LabError saying that `what` cannot be opened, where `verify` finds something wrong."""
    if problem := verify(checkpoint):
        raise LabError(f"{what} cannot be opened.", problem, "Choose another checkpoint.")


def commit(
    folder: Path,
    step: int,
    write_files: Callable[[Path], None],
    *,
    labels: Iterable[str],
    val_loss: float | None,
    about: dict[str, Any],
) -> Checkpoint:
    """Makes a checkpoint appear whole: `write_files(staging)` writes its files, then the folder is renamed.

    At any kill there is the old checkpoint of that step, the new one, or none; never half of one. Raises OSError
    (a full disk) with the staging folder gone and everything saved before intact. A run that someone deleted is
    not made again.
    """
    folder.mkdir(exist_ok=True)
    target = folder / checkpoint_name(step)
    staging = folder / f".tmp-{target.name}-{uuid.uuid4().hex[:8]}"
    try:
        staging.mkdir()
        write_files(staging)
        files = {}
        for name in sorted(path.name for path in staging.iterdir()):
            fsync_file(staging / name)
            files[name] = {"bytes": (staging / name).stat().st_size, "sha256": sha256_of(staging / name)}
        if (target / PINNED_FILE).exists():
            (staging / PINNED_FILE).touch()
        manifest = {
            "format": CHECKPOINT_FORMAT,
            "step": step,
            "labels": sorted(labels),
            "time": time.time(),
            "val_loss": val_loss,
            "files": files,
            "about": about,
        }
        write_json(staging / MANIFEST_FILE, sealed(manifest))
        fsync_folder(staging)
        if target.exists():  # a folder cannot be replaced by a rename: the old one steps aside first
            aside = folder / f".tmp-old-{target.name}-{uuid.uuid4().hex[:8]}"
            os.replace(target, aside)
            try:
                os.replace(staging, target)
            except BaseException:
                os.replace(aside, target)
                raise
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.replace(staging, target)
        fsync_folder(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    checkpoint = read_checkpoint(target)
    if checkpoint is None:
        raise FileNotFoundError(f"{target} was moved or changed as soon as it was saved")
    return checkpoint


def copy_into(folder: Path, checkpoint: Checkpoint, labels: Iterable[str]) -> Checkpoint:
    """A copy of a checkpoint in another run's folder, with labels of its own. Raises OSError like `commit`."""
    files = (read_json(checkpoint.path / MANIFEST_FILE) or {}).get("files")
    if not files:
        raise FileNotFoundError(f"{checkpoint.path} is gone")

    def write_files(staging: Path) -> None:
        for name in files:
            shutil.copyfile(checkpoint.path / name, staging / name)

    return commit(
        folder, checkpoint.step, write_files, labels=labels, val_loss=checkpoint.val_loss, about=checkpoint.about
    )


def prune(folder: Path, keep_last: int, keep: str) -> list[str]:
    """Deletes periodic checkpoints beyond the last `keep_last`; returns the deleted names.

    The former final one of a run that was trained longer counts as periodic. Kept besides: best, the newest final,
    pinned, log-spaced, requested, a branch's first, those whose manifest is damaged, and the one named `keep` (just
    saved, and verified here before anything goes). When `keep` does not verify, nothing is deleted.
    """
    newest = read_checkpoint(folder / keep)
    if newest is None or verify(newest) is not None:
        return []
    every = list_checkpoints(folder)  # only now: to verify takes time, in which someone may pin or delete
    kept = {keep} | {c.name for c in every if c.pinned or _LASTING & set(c.labels) or manifest_damage(c)}
    final = final_of(every)
    ordinary = [c for c in every if "periodic" in c.labels or ("final" in c.labels and c != final)]
    others = (best_of(every), final, *ordinary[max(0, len(ordinary) - keep_last) :])
    kept |= {checkpoint.name for checkpoint in others if checkpoint is not None}
    deleted = []
    for checkpoint in every:
        if checkpoint.name not in kept:
            with contextlib.suppress(OSError):  # gone already; tidying up never ends a training
                delete(checkpoint)
                deleted.append(checkpoint.name)
    return deleted


def clean_staging(folder: Path) -> None:
    """Removes what a killed save left; puts back a checkpoint that was moved aside and not replaced."""
    for path in folder.glob(".tmp-*"):
        original = folder / path.name.removeprefix(".tmp-old-").rpartition("-")[0]
        if path.name.startswith(".tmp-old-") and not original.exists():
            os.replace(path, original)
        else:
            shutil.rmtree(path, ignore_errors=True)


def best_of(checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
    """The checkpoint with the lowest validation loss, of those that know theirs."""
    known = [checkpoint for checkpoint in checkpoints if checkpoint.val_loss is not None]
    return min(known, key=lambda checkpoint: checkpoint.val_loss or 0.0, default=None)


def final_of(checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
    """The newest checkpoint that ended a run as planned."""
    finals = [checkpoint for checkpoint in checkpoints if "final" in checkpoint.labels]
    return max(finals, key=lambda checkpoint: checkpoint.step, default=None)


def select(folder: Path, which: str = "latest") -> Checkpoint:
    """The checkpoint that `final`, `best`, `latest` or a step number names; LabError listing what is there."""
    every = list_checkpoints(folder)
    found: Checkpoint | None = None
    if which == "latest":
        found = every[-1] if every else None
    elif which == "best":
        found = best_of(every)
    elif which == "final":
        found = final_of(every)
    elif which.isdecimal():
        found = next((checkpoint for checkpoint in every if checkpoint.name == f"step-{which:0>8}"), None)
    if found is None:
        there = ", ".join(str(checkpoint.step) for checkpoint in every) or "none"
        newest = "Open @latest, the newest." if every else ""
        raise LabError(f"{folder.parent.name} has no checkpoint @{which}.", f"Saved steps: {there}.", newest)
    return found


def set_pinned(checkpoint: Checkpoint, pinned: bool) -> None:
    """Pins or unpins: a pinned checkpoint is never deleted by the keep rule. LabError when that is impossible."""
    with explained(f"The pin of {checkpoint.path} could not be changed."):
        if pinned:
            (checkpoint.path / PINNED_FILE).touch()
        else:
            (checkpoint.path / PINNED_FILE).unlink(missing_ok=True)


def delete(checkpoint: Checkpoint) -> None:
    """Removes a checkpoint: first out of sight in one rename, then its bytes."""
    aside = checkpoint.path.with_name(f".tmp-deleted-{checkpoint.name}-{uuid.uuid4().hex[:8]}")
    os.replace(checkpoint.path, aside)
    shutil.rmtree(aside, ignore_errors=True)
