"""Following a model that trains: how often it is looked at again, and whether it has learned since."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, QTimer, Signal

from llmlab_gui.host.messages import ModelAbout

# How often a model that trains is looked at again, at first.
FOLLOW_SECONDS = 5.0
_LEAST_MS = 200


class Following(QObject):
    """Asks for another look now and then, while a live model is open and someone wants it."""

    due = Signal()

    def __init__(self, step_of: Callable[[str], int | None], parent: QObject | None = None) -> None:
        """step_of: the step that a live run, named by its reference without `@live`, has reached; None if unknown."""
        super().__init__(parent)
        self.wanted = True
        self._step_of = step_of
        self._run = ""  # the open model's, where it is live
        self._seen: int | None = None  # the step at the last look
        self._timer = QTimer(self, interval=round(FOLLOW_SECONDS * 1000))
        self._timer.timeout.connect(self.due)

    @property
    def seconds(self) -> float:
        """How often."""
        return self._timer.interval() / 1000

    def set(self, wanted: bool, seconds: float | None = None) -> None:
        """Whether a live model is looked at again, and how often."""
        if seconds is not None:
            self._timer.setInterval(max(_LEAST_MS, round(seconds * 1000)))
        self.wanted = wanted
        self._update()

    def open(self, about: ModelAbout | None) -> None:
        """Another model is the active one, or none."""
        self._run = about.reference.removesuffix("@live") if about is not None and about.live else ""
        self._update()

    def stop(self) -> None:
        """Until the next model, or the next wish."""
        self._timer.stop()

    def saw(self) -> None:
        """It was looked at just now."""
        self._seen = self.step

    @property
    def step(self) -> int | None:
        """The one that the open model's run has reached; None if it is not live, or unknown."""
        return self._step_of(self._run) if self._run else None

    @property
    def has_news(self) -> bool:
        """Whether it may have learned since."""
        return self.step is None or self.step != self._seen

    def _update(self) -> None:
        if self.wanted and self._run:
            self._timer.start()
        else:
            self._timer.stop()
