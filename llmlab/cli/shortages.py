"""Warns before a run starts when memory or disk may not suffice."""

from __future__ import annotations

import shutil
from pathlib import Path

from llmlab.cli import text
from llmlab.cli.output import say
from llmlab.core.memory import available_bytes
from llmlab.core.settings import RunSettings
from llmlab.training.kinds import kind_of
from llmlab.training.room import computes_in_main_memory, require_room


def check_shortages(settings: RunSettings, outputs: Path, memory_bytes: int, checkpoint_bytes: int) -> None:
    """Warns on stderr where a run may need more memory or disk than there is. Both numbers are estimates.

    LabError, with what would fit, when its memory cannot suffice.
    """
    # Periodic ones, best, final, and the one that is being written.
    kept = settings.checkpoints.keep_last * (settings.checkpoints.interval > 0) + settings.checkpoints.best + 2
    disk = kept * checkpoint_bytes
    existing = next(folder for folder in (outputs, *outputs.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if disk > free:
        say(f"warning: its checkpoints may need {text.size(disk)}, and {existing} has {text.size(free)} free.")
    memory = available_bytes()
    if memory_bytes > memory and computes_in_main_memory(settings):
        if (need := kind_of(settings).memory(settings, outputs)) is not None:
            require_room(settings, need, memory, outputs)
        say(f"warning: training may need {text.size(memory_bytes)} of memory, and {text.size(memory)} are free.")
