"""The interface to plans of several runs: experiments and checks of papers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from PySide6.QtCore import QObject, Signal


class LivePlan(Protocol):
    """A plan that a worker of this machine is at."""

    @property
    def id(self) -> str:
        """Its name in the outputs folder."""


class PlansDesk(QObject):
    """Given to `Lab.add_desk`, which says what it says, asks it before other runs start, and ends its threads."""

    started = Signal(str)  # id of one whose worker was just started, or started again
    ended = Signal(str)  # one that lived no longer does
    failed = Signal(object)  # LabError
    said = Signal(str)  # good news, one sentence

    def live(self) -> Sequence[LivePlan]:
        """Those that a worker of this machine is at."""
        raise NotImplementedError

    def shutdown(self) -> None:
        """Ends every thread and waits for it. Workers go on."""
        raise NotImplementedError
