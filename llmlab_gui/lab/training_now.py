"""The runs that train on this machine while another is to start, and the question what becomes of them."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.widgets.question import ask


class TrainingNow:
    """What trains while a run is to start."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.rows = self._training()

    def ask(self, parent: QWidget, title: str, *, may_wait: bool = False) -> str:
        """`pause` them, train `both` (at once where nothing trains), `queue` the new one (if it may wait), or
        `cancel`. title: what the person is about to do."""
        if not self.rows:
            return "both"
        one = len(self.rows) == 1
        answers = {"queue": "Add to the queue"} if may_wait else {}
        answers |= {"pause": f"Pause {'it' if one else 'them'} and start", "both": f"Train {'both' if one else 'all'}"}
        text = f"{' and '.join(row.name for row in self.rows)} {'is' if one else 'are'} training now."
        more = "Two runs on one processor slow each other down several times over."
        return ask(parent, title, text, more, answers, default=next(iter(answers)), harmful="both") or "cancel"

    def may_start(self, parent: QWidget, title: str) -> bool:
        """Asks, and pauses them where that is the answer; False where the new run is not to start."""
        answer = self.ask(parent, title)
        if answer == "pause":
            self.pause()
        return answer != "cancel"

    def pause(self) -> None:
        """Those that still train: some may have ended while a question was answered."""
        training = {row.id for row in self._training()}
        for row in self.rows:
            if row.id in training:
                self._lab.controller.pause(row.run)

    def _training(self) -> list[RunRow]:
        return [row for row in self._lab.runs() if row.trains_here]
