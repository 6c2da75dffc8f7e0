"""What every question before a start has: a sentence of one's own, and the buttons. Enter starts, Escape goes back."""

from __future__ import annotations

from PySide6.QtCore import QPoint, Qt, Signal
from PySide6.QtGui import QMoveEvent, QResizeEvent
from PySide6.QtWidgets import QApplication, QCheckBox, QDialog, QLabel, QStackedWidget, QStyle, QWidget
from shiboken6 import isValid

from llmlab.core.errors import UsageError
from llmlab.notebook.predictions import Prediction
from llmlab_gui.lab.book import Anchors, Book, Unread
from llmlab_gui.notebook.prediction_form import AnswerRow, SentenceRow
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import PrimaryButton, ProblemLabel, QuietLabel, labelled, scrolled
from llmlab_gui.widgets.layouts import beside, column, settling_timer

_TALLEST = 460  # pixels of what is asked; more is scrolled
_AROUND = 330  # pixels of the dialog around that, and of its frame
_MARGINS, _BESIDE_BAR = 24, 8  # pixels beside it, and between it and the bar that scrolls it
_PROBLEM_LINES = 2  # of the longest problem
_ANCHOR_LINES = 2
_SETTLE_MS = 200  # of a window manager, to place a window


class StartQuestion(QDialog):
    """`predictions` is what was stated: empty when the question was skipped, None when nothing is to start.

    Nothing moves while one types: what is wrong is said when its row is left, in the place of a hint.
    """

    put_aside = Signal(object)  # list[Prediction | Unread]: what the form said when it was gone back from

    def __init__(
        self, book: Book, about: str, why: str, parent: QWidget | None = None, *, anchors: Anchors | None = None
    ) -> None:
        """anchors: looks up what to go by, in words."""
        super().__init__(parent)
        self.setWindowTitle("What do you expect?")
        self.predictions: list[Prediction] | None = None
        self.sentence = SentenceRow()
        self.problem = labelled(ProblemLabel(), "Errors")
        self.ask_again = labelled(QCheckBox("Ask before every run"), tip="It can be switched on again in the Notebook")
        self.ask_again.setChecked(book.asks)
        self.ask_again.toggled.connect(book.set_asks)
        self.start_button = PrimaryButton("Lock the prediction", self.start)
        self.skip_button = push_button("Without a prediction", self.skip)
        self.back_button = push_button("Back", self.reject, tip="Start nothing (Escape)")
        self._what = QLabel(about, wordWrap=True)
        self.anchors = QuietLabel()
        self.anchors.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.anchors.setMinimumHeight(_ANCHOR_LINES * self.fontMetrics().lineSpacing())  # nothing moves when it comes
        self.anchors.setVisible(anchors is not None)
        if anchors is not None:
            book.look_up(anchors, self._show_anchors)
        self._below = QStackedWidget()
        self._below.setFixedHeight(_PROBLEM_LINES * self.fontMetrics().lineSpacing())
        for label in (QuietLabel(f"Locked at the start, compared with the outcome. {why}"), self.problem):
            label.setAlignment(Qt.AlignmentFlag.AlignTop)
            self._below.addWidget(label)
        self._rows: list[AnswerRow] = [self.sentence]
        self.sentence.changed.connect(self.check)
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        app.focusChanged.connect(self._focus_moved)
        self._settle = settling_timer(self, _SETTLE_MS, self._come_into_sight)

    def answers(self) -> list[Prediction | None]:
        """What is stated beside the sentence. UsageError when it cannot be."""
        return []

    def stated(self) -> list[Prediction]:
        """What the form says now. UsageError when it cannot be."""
        found = [*self.answers(), self.sentence.prediction()]
        return [prediction for prediction in found if prediction is not None]

    def left(self) -> list[Prediction | Unread]:
        """What the form says now, with what was typed where that cannot be stated."""
        found: list[Prediction | Unread | None] = []
        for row in self._rows:
            if not row.isHidden():
                try:
                    found.append(row.prediction())
                except UsageError:
                    found.append(row.unread())
        return [one for one in found if one is not None]

    def start(self) -> None:
        """Locks what was stated; when it cannot be, stays open, with the keyboard at what is wrong."""
        for row in self._rows:
            try:
                row.prediction()
            except UsageError:
                self.complain()
                row.setFocus()
                return
        self.predictions = self.stated()
        self.accept()

    def skip(self) -> None:
        """Starts without a prediction, whatever was filled in."""
        self.predictions = []
        self.accept()

    def reject(self) -> None:
        """Starts nothing."""
        self.put_aside.emit(self.left())
        super().reject()

    def check(self) -> None:
        """Enter locks what was stated, or starts without; a problem that is solved is no longer shown."""
        problem = self._problem()
        filled = bool(problem) or bool(self.stated())
        self.start_button.setEnabled(filled)
        (self.start_button if filled else self.skip_button).setDefault(True)
        if not problem:
            self._say("")

    def complain(self) -> None:
        """Says what is wrong."""
        self._say(self._problem())

    def ask(self) -> list[Prediction] | None:
        """Shows it, and waits for the answer; it cannot be shown again."""
        self.exec()
        self.deleteLater()
        return self.predictions

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Its buttons stay on the screen when what is asked becomes more."""
        super().resizeEvent(event)
        frame, room = self.frameGeometry(), self.screen().availableGeometry()
        if self.isVisible() and frame.bottom() > room.bottom():
            self.move(frame.left(), max(room.top(), room.bottom() + 1 - frame.height()))
        self._settle.start()

    def moveEvent(self, event: QMoveEvent) -> None:
        super().moveEvent(event)
        self._settle.start()

    def _come_into_sight(self) -> None:
        """Centred where its title is above the screen: so a busy machine left it that changed its size before the
        window manager had placed it."""
        frame, parent = self.frameGeometry(), self.parentWidget()
        title = QPoint(frame.center().x(), frame.top())
        screen = QApplication.screenAt(title) or self.screen()  # it may lie on two, one above the other
        top = screen.availableGeometry().top()
        if self.isVisible() and frame.top() < top:
            frame.moveCenter((parent.window() if parent is not None else self.screen()).geometry().center())
            self.move(frame.left(), max(top, frame.top()))

    def lay_out(self, content: QWidget, width: int) -> None:
        """The question, what is asked, scrolled where it is high, the sentence, and the buttons."""
        self._content, self._area = content, scrolled(content)
        self._area.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # what it scrolls is a form: Tab scrolls it
        buttons = beside(self.ask_again, 1, self.back_button, self.skip_button, self.start_button)
        parts = (self._what, self.anchors, (self._area, 1), self.sentence, self._below, buttons)
        column(*parts, into=self, spacing=10, margins=None)
        self.setMinimumWidth(width)
        self.fit()

    def fit(self) -> None:
        """Gives what is asked its room, as far as the screen has it."""
        bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
        self.setMinimumWidth(max(self.minimumWidth(), self._content.minimumSizeHint().width() + bar + _MARGINS))
        room = min(_TALLEST, self.screen().availableSize().height() - _AROUND)
        height = self._content.sizeHint().height()
        self._content.setContentsMargins(0, 0, _BESIDE_BAR if height > room else 0, 0)
        self._area.setMinimumHeight(min(room, height))

    def _show_anchors(self, words: str) -> None:
        if isValid(self):  # somebody may have answered meanwhile
            self.anchors.setText(words)
            needed = self.anchors.heightForWidth(self.anchors.width())
            self.anchors.setMinimumHeight(max(needed, self.anchors.minimumHeight()))

    def _problem(self) -> str:
        try:
            self.stated()
        except UsageError as error:
            return str(error)
        return ""

    def _say(self, problem: str) -> None:
        self.problem.setText(problem)
        self.problem.setToolTip(problem)
        self._below.setCurrentIndex(1 if problem else 0)

    def _focus_moved(self, left: QWidget | None, entered: QWidget | None) -> None:
        def inside(whole: QWidget, widget: QWidget | None) -> bool:
            return widget is not None and whole.isAncestorOf(widget)

        if inside(self, entered) and any(inside(row, left) and not inside(row, entered) for row in self._rows):
            self.complain()
