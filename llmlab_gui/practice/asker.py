"""Asks the model's process for questions, one ahead of the one that is shown, and keeps the answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.practice.deck import Deck, Record
from llmlab.practice.question import Marked, Question
from llmlab_gui.host.process import Request
from llmlab_gui.host.recent import is_gone
from llmlab_gui.host.selection import Working
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.background import Background

_DAY = 86400


class Asker(QObject):
    """Questions about the active model, else the current run, else a preset. One set of kinds, none of them twice."""

    came = Signal(object)  # Question, or None when none is left
    working = Signal(object)  # Working
    failed = Signal(object)  # LabError: the question that was waited for does not come
    kept = Signal(object)  # Record, with the answer that was just given

    def __init__(self, lab: Lab, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._lab = lab
        self._background = Background(self)
        self._asked: list[str] = []
        self.quick = False  # nothing is trained for a question of this set
        self._about = self._concept = ""
        self._request: Request | None = None
        self._ahead: list[Question | None] = []
        self._wanted = False
        self._news = Working("Computing a question")  # of the request that is under way

    def about(self) -> str:
        """The reference of what is asked about; "" for a preset. None that was deleted."""
        about = self._lab.inspection.about
        if about is not None and not is_gone(about.reference, self._lab.outputs):
            return about.reference
        return self._lab.current_model(live=False)

    def begin(self, concept: str = "", about: str = "", asked: Sequence[str] = ()) -> None:
        """A new set: of a page, or of all; what was asked before can come again. about: a reference, if another one.

        asked: kinds that were asked in it already.
        """
        self.end()
        self._asked, self._ahead, self.quick = [*asked], [], False
        self._about, self._concept = about or self.about(), concept

    def changed(self) -> bool:
        """Whether a new set would be about another model than this one."""
        return self.about() != self._about

    def next(self) -> None:
        """Wants one more: `came` or `failed` follows."""
        self._wanted = True
        if self._ahead:
            self._hand_over(self._ahead.pop())
        elif self._request is None:
            self._ask()
        else:
            self.working.emit(self._news)

    def prepare(self) -> None:
        """Has the next one made while this one is answered."""
        if not self._ahead and self._request is None:
            self._ask()

    def skip(self) -> None:
        """Instead of one that small models are trained for, another one; no more such in this set."""
        self.end()
        self.quick = True
        self.next()

    def end(self) -> None:
        """Nobody waits any more."""
        self._wanted = False
        if self._request is not None:
            self._request.drop()
            self._request = None

    def keep(self, question: Question, marked: Marked, page: str = "") -> None:
        """Writes an answer down, and the page on which it was given; `kept` follows."""
        deck = Deck(self._lab.outputs)

        def work() -> Record:
            deck.add(question, marked, time.time(), page)
            return deck.read()

        self._background.run(work, self.kept.emit, self._lab.error_raised.emit)

    def look(self) -> None:
        """Reads what was answered so far; `kept` follows."""
        self._background.run(Deck(self._lab.outputs).read, self.kept.emit, self._lab.error_raised.emit)

    def shutdown(self) -> None:
        self.end()
        self._background.shutdown()

    def _ask(self) -> None:
        seed = int(time.time() // _DAY)
        request = self._lab.inspection.host.practice(self._about, seed, self._concept, self._asked, self.quick)
        request.progressed.connect(self._tell)
        request.answered.connect(partial(self._take, request))
        request.failed.connect(partial(self._fail, request))
        self._request = request
        self._tell(Working("Computing a question"))

    def _tell(self, news: Working) -> None:
        self._news = news
        if self._wanted:
            self.working.emit(news)

    def _take(self, request: Request, question: Question | None) -> None:
        if request is not self._request:
            return
        self._request = None
        if question is not None:
            self._asked.append(question.kind)
        if self._wanted:
            self._hand_over(question)
        else:
            self._ahead.append(question)

    def _hand_over(self, question: Question | None) -> None:
        self._wanted = False
        self.came.emit(question)

    def _fail(self, request: Request, error: LabError) -> None:
        if request is not self._request:
            return
        self._request = None
        if self._wanted:  # otherwise it is asked again when it is wanted, and says so then
            self._wanted = False
            self.failed.emit(error)
