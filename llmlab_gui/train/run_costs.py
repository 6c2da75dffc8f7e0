"""What a run will need, as a set-up panel says it: time, memory, disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmlab.core.run_settings import RunSettings
from llmlab.gpt.estimate import Memory
from llmlab_gui.widgets.numbers import bytes_text, minutes_text


@dataclass(frozen=True)
class Costs:
    """What these settings will need. parts: in words, the first in bold. Memory and disk in bytes, time in seconds.

    remarks: sentences on what nobody would expect of them.
    """

    settings: RunSettings
    parts: Sequence[str]
    memory: int
    disk: int  # of all checkpoints that are kept at once
    seconds: float
    remarks: Sequence[str] = ()


def time_text(settings: RunSettings, minutes: float) -> str:
    """How long a run takes, which is estimated for this machine's processor alone."""
    on_gpu = settings.train.device in ("cuda", "mps")
    return f"About {minutes_text(minutes)} " + ("on the processor; a GPU takes less" if on_gpu else "here")


def memory_text(need: Memory) -> str:
    """What a run holds at its peak, and what each of several processes does."""
    count, text = need.processes, f"{bytes_text(need.total)} of memory"
    if count == 1:
        return text
    rest = bytes_text(need.total - count * need.of_one)  # torchrun, and what the first collects to save
    return f"{text} ({bytes_text(need.of_one)} in each of {count} processes, {rest} beside them)"


def checkpoints_text(settings: RunSettings, each: int) -> str:
    """What the checkpoints take on the disk, of `each` bytes; and to keep every periodic one, where not all are."""
    wanted, steps = settings.checkpoints, settings.train.steps
    kept = wanted.at_once(steps)
    text = f"{bytes_text(each)} a checkpoint, {bytes_text(kept * each)} for the {kept} kept at most"
    dropped = wanted.periodic(steps) - wanted.keep_last
    if dropped > 0:
        text += f" (one every {wanted.interval:,} steps, all kept: {bytes_text((kept + dropped) * each)})"
    return text


def short_of_disk(folder: Path, checkpoints: int) -> str:
    """A warning where less is free in `folder` than so many bytes of checkpoints; "" where they fit."""
    space = _free_space(folder)
    if space is None or checkpoints <= space:
        return ""
    return f"Only {bytes_text(space)} of disk are free for up to {bytes_text(checkpoints)} of checkpoints."


def _free_space(folder: Path) -> int | None:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
