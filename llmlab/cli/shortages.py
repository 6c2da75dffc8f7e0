"""What this machine may not have enough of for a run, said before it starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from llmlab.cli import text
from llmlab.cli.output import say
from llmlab.runs.folder import RunSettings


def warn_of_shortages(settings: RunSettings, outputs: Path, memory_bytes: int, checkpoint_bytes: int) -> None:
    """Warns on stderr where a run may need more memory or disk than there is. Both numbers are estimates."""
    # Periodic ones, best, final, and the one that is being written.
    kept = settings.checkpoints.keep_last * (settings.checkpoints.interval > 0) + settings.checkpoints.best + 2
    disk = kept * checkpoint_bytes
    existing = next(folder for folder in (outputs, *outputs.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if disk > free:
        say(f"warning: its checkpoints may need {text.size(disk)}, and {existing} has {text.size(free)} free.")
    memory = psutil.virtual_memory().available
    if memory_bytes > memory and settings.train.device in ("auto", "cpu"):
        say(f"warning: training may need {text.size(memory_bytes)} of memory, and {text.size(memory)} are free.")
