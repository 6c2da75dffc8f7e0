"""The window's notebook: its entries, kept up to date in the background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.core.progress import Progress
from llmlab.notebook.entries import Entry, Line
from llmlab.notebook.notebook import Contents
from llmlab.notebook.predictions import Prediction
from llmlab.notebook.quantities import Quantity, find_quantity
from llmlab.notebook.words import outcome_sentence
from llmlab.studies.lab_notebook import lab_notebook
from llmlab.studies.plans.records import ExperimentFolder, ExperimentRecord
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.widgets.background import Background

Anchors = Callable[[Progress], str]
# A message is one line; the dock has all.
_MOST_SENTENCES = 1


@dataclass(frozen=True)
class Asking:
    """Whether the learner is asked for a prediction before a run starts."""

    before_runs: bool = True


@dataclass(frozen=True)
class Unread:
    """What was typed into a row and cannot be stated: kept while someone looks at something else. sure: in per cent."""

    quantity: str
    words: tuple[str, ...]
    sure: int

    @property
    def about(self) -> Quantity:
        return find_quantity(self.quantity)

    @property
    def kind(self) -> str:
        return self.about.answer


@dataclass(frozen=True)
class Expected:
    """What a chart to draw on has to show. steps: of the run; start_loss: nats per token, where it begins."""

    steps: int
    start_loss: float


class Book(QObject):
    """Nothing here blocks the window. `refresh()` scores what has finished; news comes as signals."""

    changed = Signal()  # `entries`
    asking_changed = Signal(bool)
    failed = Signal(object)  # LabError
    said = Signal(str)  # what became of a prediction, one sentence

    def __init__(self, outputs: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.entries: list[Entry] = []
        self.damaged: list[str] = []
        self.is_read = False
        self.drafts: dict[str, Sequence[Prediction | Unread]] = {}  # gone back from, by what was about to start
        self._background = Background(self)
        self._lookups = Background(self)  # which do not wait until the notebook has been read
        self._notebook = lab_notebook(outputs, self._background.check)
        self._asking = Asking()
        self._settings: WindowSettings | None = None
        self._told = False  # damaged files were named

    # Asking before a run ---------------------------------------------------------------------------------------

    @property
    def asks(self) -> bool:
        """Whether the learner is asked for a prediction before a run."""
        return self._asking.before_runs

    def set_asks(self, on: bool) -> None:
        """Switches the question off or on; kept for the next start."""
        if on == self.asks:
            return
        self._asking = Asking(on)
        if self._settings is not None:
            self._settings.save_choices("notebook/asking", self._asking)
        self.asking_changed.emit(on)

    def remember(self, settings: WindowSettings) -> None:
        """Takes up what was chosen at an earlier start."""
        self._settings = settings
        self._asking = settings.choices("notebook/asking", Asking) or Asking()
        self.asking_changed.emit(self.asks)

    # Entries ---------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Takes up new predictions, scores those whose outcome is known, and reads all entries."""
        self._background.run(self._notebook.refresh, self._take, self.failed.emit)

    def lines(self, folder: ExperimentFolder, record: ExperimentRecord) -> list[Line]:
        """What was predicted of an experiment or a check; as its record has it, until the notebook was read."""
        return Contents(self.entries).lines(folder, record.created, record.predictions)

    def learn(self, entry: Entry, sentence: str) -> None:
        """Keeps the one sentence of what was learned."""
        self._change(lambda: self._notebook.learn(entry, sentence))

    def judge(self, entry: Entry, place: int, outcome: str) -> None:
        """Says what came of a prediction that no program can check."""
        self._change(lambda: self._notebook.judge(entry, place, outcome))

    def score(self, entry: Entry) -> None:
        """Scores an entry with what there is now."""
        self._change(lambda: self._notebook.score(entry))

    def look_up(self, anchors: Anchors, then: Callable[[str], None]) -> None:
        """What a prediction can go by, in a sentence, for the question before a start."""
        self._lookups.run(lambda: anchors(self._lookups.check), then, self.failed.emit)

    def shutdown(self) -> None:
        """Ends its threads, and waits for what they are at."""
        self._lookups.shutdown()
        self._background.shutdown()

    def _change(self, change: Callable[[], object]) -> None:
        def work() -> Contents:
            change()
            return self._notebook.read()

        self._background.run(work, self._take, self.failed.emit)

    def _take(self, contents: Contents) -> None:
        if contents.damaged and not self._told:
            self._told = True
            sentence = " ".join(contents.damaged)
            self.failed.emit(
                LabError("Something in the notebook is missing or cannot be read.", sentence, "The others are shown.")
            )
        # Whoever else looks into the notebook may have scored it first: an experiment's report does.
        waited = {entry.id for entry in self.entries if entry.scored_at is None} | set(contents.fresh)
        ended = [entry for entry in contents.entries if entry.scored_at is not None]
        told = {(entry.subject, entry.created) for entry in ended if entry.id not in waited}
        for entry in ended:
            if (which := (entry.subject, entry.created)) not in told:  # of a folder that was copied, only once
                told.add(which)
                self._tell(entry)
        if not self.is_read or (contents.entries, contents.damaged) != (self.entries, self.damaged):
            self.is_read, self.entries, self.damaged = True, contents.entries, contents.damaged
            self.changed.emit()

    def _tell(self, entry: Entry) -> None:
        sentences = [outcome_sentence(line) for line in entry.lines() if line.score is not None or line.altered]
        if sentences:
            more = "" if len(sentences) <= _MOST_SENTENCES else " The rest is in the Notebook."
            self.said.emit(f"{entry.about}: {' '.join(sentences[:_MOST_SENTENCES])}{more}")
