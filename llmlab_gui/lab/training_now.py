"""What trains on this machine while another run is to start, and the question what becomes of it."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtWidgets import QWidget

from llmlab.notebook.predictions import Prediction
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.widgets.question import ask

_NAMED = 4  # of those that train, at most


class TrainingNow:
    """Runs that train; or, where none is live, experiments and checks, which are between two runs or judge."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._rows = self._training()
        plans = [plan.id for desk in lab.desks for plan in desk.live() if not lab.queue.live]
        self._names = [row.name for row in self._rows] or plans

    def ask(self, parent: QWidget, title: str, *, may_wait: bool = False) -> str:
        """`pause` them, start `beside` them (at once where there are none), `queue` the new one (if it may wait), or
        `cancel`. title: what the person is about to do."""
        if not self._names:
            return "beside"
        one = len(self._names) == 1
        them, doing = "it" if one else "them", "training" if self._rows else "running"
        answers = {"queue": "Add to the queue"} if may_wait else {}
        answers |= {"pause": f"Pause {them} and start"} if self._rows else {}
        default = next(iter(answers), "")
        answers["beside"] = f"Start beside {them}"
        text = f"{' and '.join(self._names[:_NAMED])} {'is' if one else 'are'} {doing} now."
        more = "Two runs on one processor slow each other down several times over."
        return ask(parent, title, text, more, answers, default=default, harmful="beside") or "cancel"

    def predicted(
        self, parent: QWidget, title: str, predict: Callable[[], list[Prediction] | None]
    ) -> list[Prediction] | None:
        """What `predict` gives, asked last so that no answer is lost; None where the new run is not to start. Pauses
        them where that is the answer."""
        answer = self.ask(parent, title)
        predictions = predict() if answer != "cancel" else None
        if predictions is not None and answer == "pause":
            self.pause()
        return predictions

    def may_start(self, parent: QWidget, title: str) -> bool:
        """The same of a run that nobody predicts."""
        return self.predicted(parent, title, list) is not None

    def pause(self) -> None:
        """Those that still train: some may have ended while a question was answered."""
        training = {row.id for row in self._training()}
        for row in self._rows:
            if row.id in training:
                self._lab.controller.pause(row.run)

    def _training(self) -> list[RunRow]:
        return [row for row in self._lab.runs() if row.trains_here]
