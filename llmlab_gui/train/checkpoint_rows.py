"""The checkpoints of a run as a table shows them, damaged ones included; and what may be deleted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llmlab.core.errors import explained
from llmlab.core.files import read_json
from llmlab.core.progress import Progress, quiet
from llmlab.store import checkpoints

# What a checkpoint was saved for, in words.
LABEL_WORDS = {
    "periodic": "periodic",
    "spaced": "log-spaced",
    "best": "best so far",
    "final": "final",
    "requested": "on request",
    "stopped": "when stopped",
    "branch": "where it branched",
}


@dataclass(frozen=True)
class CheckpointRow:
    """One `step-...` folder. checkpoint is None when its manifest cannot be read; damage says what is wrong."""

    path: Path
    step: int
    checkpoint: checkpoints.Checkpoint | None
    damage: str | None = None
    best: bool = False  # the lowest validation loss of those that are here
    verified: bool = False  # its hashes were compared in this session

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def pinned(self) -> bool:
        return self.checkpoint is not None and self.checkpoint.pinned

    @property
    def why(self) -> str:
        """Why it was saved, in words; "best saved" is only said of the one that still is."""
        if self.checkpoint is None:
            return ""
        words = [LABEL_WORDS.get(label, label) for label in self.checkpoint.labels if label != "best"]
        if self.best:
            words.insert(0, "best saved")
        elif not words:
            words = ["was best"]
        return ", ".join(words)


def read_rows(folder: Path) -> list[CheckpointRow]:
    """Every checkpoint folder, oldest step first; sizes are compared with the manifest, hashes are not."""
    good = {checkpoint.name: checkpoint for checkpoint in checkpoints.list_checkpoints(folder)}
    best = checkpoints.best_of(good.values())
    rows = [
        CheckpointRow(found.path, found.step, found, _size_damage(found), best is not None and found.name == best.name)
        for found in good.values()
    ]
    try:
        names = os.listdir(folder)
    except OSError:
        names = []
    for name in names:
        digits = name.removeprefix("step-")
        if name.startswith("step-") and digits.isdigit() and name not in good:
            rows.append(CheckpointRow(folder / name, int(digits), None, _manifest_damage(folder / name, int(digits))))
    return sorted(rows, key=lambda row: row.step)


def verify_row(row: CheckpointRow, progress: Progress = quiet) -> CheckpointRow:
    """The row with its files' hashes compared. Reads every byte: not on the window's thread."""
    if row.checkpoint is None:
        return row
    return replace(row, damage=checkpoints.verify(row.checkpoint, progress), verified=True)


def keep_check(row: CheckpointRow, checked: CheckpointRow | None) -> CheckpointRow:
    """A row read anew with the result of its earlier verification, if it is still the same save."""
    if checked is None or row.checkpoint is None or checked.checkpoint is None or row.damage is not None:
        return row
    if checked.checkpoint.time != row.checkpoint.time:
        return row
    return replace(row, damage=checked.damage, verified=True)


@dataclass(frozen=True)
class Deletion:
    """Which of the chosen rows go, and why the others stay."""

    rows: tuple[CheckpointRow, ...]
    kept: tuple[str, ...]


def plan_deletion(chosen: Sequence[CheckpointRow], every: Iterable[CheckpointRow], live: bool) -> Deletion:
    """Pinned checkpoints stay; so does the newest sound one of a live run, if no other sound one would remain.

    A live run that is killed goes on from its newest checkpoint: without one it would begin again.
    """
    kept = [f"{row.name} is pinned. Unpin it first." for row in chosen if row.pinned]
    going = [row for row in chosen if not row.pinned]
    left = [row for row in every if row.damage is None and row.name not in {gone.name for gone in going}]
    if live and not left:
        sound = [row for row in going if row.damage is None]
        if sound:
            newest = max(sound, key=lambda row: row.step)
            going.remove(newest)
            kept.append(f"{newest.name} stays: if this live run were killed, it would start over without it.")
    return Deletion(tuple(going), tuple(kept))


def delete_rows(rows: Iterable[CheckpointRow]) -> None:
    """Deletes them; one that is gone already is passed over. LabError naming what could not be deleted."""
    for row in rows:
        checkpoint = row.checkpoint or _unread(row.path, row.step)
        with explained(f"{row.path} could not be deleted."), contextlib.suppress(FileNotFoundError):
            checkpoints.delete(checkpoint)


def _size_damage(checkpoint: checkpoints.Checkpoint) -> str | None:
    if problem := checkpoints.manifest_damage(checkpoint):
        return problem
    files = (read_json(checkpoint.path / checkpoints.MANIFEST_FILE) or {}).get("files", {})
    for name in (checkpoint.weights.name, checkpoints.STATE_FILE):
        try:
            size = (checkpoint.path / name).stat().st_size
        except OSError:
            return f"{name} is missing."
        expected = files.get(name, {}).get("bytes")
        if size != expected:
            return f"{name} has {size:,} bytes instead of {expected}."
    return None


def _manifest_damage(path: Path, step: int) -> str:
    if not (path / checkpoints.MANIFEST_FILE).is_file():
        return "Its manifest.json is missing: the checkpoint is not complete."
    return checkpoints.manifest_damage(_unread(path, step)) or "Its manifest.json does not describe a checkpoint."


def _unread(path: Path, step: int) -> checkpoints.Checkpoint:
    """A folder whose manifest says nothing."""
    return checkpoints.Checkpoint(path, step, (), 0.0, None, 0, False, {})
