"""Before a plan of several runs starts: whether something else trains, and whether that is no matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QWidget

from llmlab_gui.widgets.question import ask

if TYPE_CHECKING:
    from llmlab_gui.lab.lab import Lab


def busy_with(lab: Lab) -> list[str]:
    """Ids of what runs now: experiments and checks, or else runs of their own."""
    plans = [row.id for desk in lab.desks for row in desk.live()]
    return plans or [row.name for row in lab.runs() if row.status.state == "running"]


def ask_to_start(parent: QWidget, busy: list[str]) -> bool:
    """Whether to start although these are running."""
    text = f"{', '.join(busy[:4])} {'is' if len(busy) == 1 else 'are'} running now."
    more = "Two runs on one processor slow each other down several times over."
    return bool(ask(parent, "Start", text, more, {"start": "Start anyway"}))
