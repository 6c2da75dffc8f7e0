"""What a run that has just ended, or paused by itself, has to say."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from llmlab.core.errors import LabError
from llmlab.store.checkpoints import list_checkpoints
from llmlab.store.events import Event, Paused, Resumed, Started
from llmlab_gui.lab.runs_poller import RunRow


def said_at_end(row: RunRow, killed: Collection[Path]) -> LabError | str:
    """Its error or its result; "" for one that somebody stopped. killed: folders of runs that were, from here."""
    status = row.status
    if row.run.path in killed and status.state in ("failed", "interrupted"):
        return ""  # of several processes, those that are left say that one was killed
    if status.state == "failed" and status.error is not None:
        return LabError(*(str(status.error.get(part, "")) for part in ("what", "why", "do")))
    if status.state == "interrupted":
        saved = list_checkpoints(row.run.checkpoints)
        return LabError(
            f"{row.name} was interrupted at step {status.step:,}.",
            "Its process ended without a word, as one does that the system kills when memory runs out.",
            f"Resume starts from its newest checkpoint, step {saved[-1].step:,}."
            if saved
            else "It has no checkpoint: Resume starts from the beginning.",
        )
    if status.state == "finished":
        loss = f" Validation loss {status.val_loss:.3f}." if status.val_loss is not None else ""
        return f"{row.name} has finished.{loss}"
    return ""


def said_at_pause(row: RunRow, events: Sequence[Event]) -> LabError | None:
    """Why a run that is live has paused, where nobody asked for it and these events end in that pause."""
    pause = unended_pause(events)
    if not row.status.live or pause is None or pause.reason == "requested":
        return None
    return LabError(f"{row.name} has paused by itself at step {pause.step:,}.", pause.reason)


def unended_pause(events: Sequence[Event]) -> Paused | None:
    """The pause that these events end in; those of a log that is read again are long over."""
    last = next((event for event in reversed(events) if isinstance(event, (Paused, Resumed, Started))), None)
    return last if isinstance(last, Paused) else None
