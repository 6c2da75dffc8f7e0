"""A question, its answer by keyboard, and then how it was computed and the panel that shows it."""

from __future__ import annotations

import html
import re

from PySide6.QtCore import QEvent, QObject, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QFont, QKeyEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from llmlab.core.errors import UsageError
from llmlab.models.reference import without_folders
from llmlab.practice.question import CHOICE, HEAD, INTERVAL, Marked, Question, interval_words, mark
from llmlab_gui.lab.lab import Lab
from llmlab_gui.pages.browser import PageBrowser
from llmlab_gui.pages.places import DOCK_PAGES
from llmlab_gui.widgets.labels import PrimaryButton, ProblemLabel, QuietLabel, labelled
from llmlab_gui.widgets.theme import current_theme, theme_notifier

# Panels that show nothing unless the model of the question is open.
_OF_A_MODEL = frozenset(
    ("prompt", "attention", "contributions", "residual", "lens", "interventions", "geometry", "parameters", "write")
)
_WAYS = {"know": "Know", "read": "Read", "predict": "Predict"}


def _rich(text: str) -> str:
    """As HTML, with what stands in backticks as code."""
    coded = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
    return f'<span style="white-space: pre-wrap">{coded}</span>'


class QuestionCard(QWidget):
    """Shows one question at a time. `answered` comes once for each; `next_wanted` when the reader goes on."""

    answered = Signal(object, object)  # Question, Marked
    next_wanted = Signal()

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self._lab = lab
        self.question: Question | None = None
        self.marked: Marked | None = None
        self.page = ""  # in which it stands
        self.kind = QuietLabel()
        self.text = QLabel(wordWrap=True, textFormat=Qt.TextFormat.RichText)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        font = QFont(self.text.font())
        font.setPointSizeF(font.pointSizeF() * 1.1)
        self.text.setFont(font)
        self.choices = _Choices()
        self.choices.setAccessibleName("Choices")
        self.choices.setWordWrap(True)
        self.choices.setTextElideMode(Qt.TextElideMode.ElideNone)
        self.choices.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.choices.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.choices.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.choices.setSpacing(2)
        self.choices.installEventFilter(self)
        self.choices.itemDoubleClicked.connect(lambda _: self.submit())
        self.line = labelled(QLineEdit(), "Answer")
        self.line.returnPressed.connect(self._return_pressed)
        self.problem = ProblemLabel()
        self.result = QLabel(wordWrap=True, textFormat=Qt.TextFormat.RichText)
        self.result.linkActivated.connect(self._lab.concept_requested)
        kinds = Qt.TextInteractionFlag
        self.result.setTextInteractionFlags(kinds.LinksAccessibleByMouse | kinds.LinksAccessibleByKeyboard)
        self.answer_button, self.next_button = PrimaryButton("Answer"), PrimaryButton("Next question")
        self.give_up_button, self.panel_button = QPushButton("I don't know"), QPushButton()
        self.answer_button.clicked.connect(self.submit)
        self.give_up_button.clicked.connect(self.give_up)
        self.panel_button.clicked.connect(self.open_panel)
        self.next_button.clicked.connect(self.next_wanted)
        buttons = QHBoxLayout()
        for button in (self.answer_button, self.give_up_button, self.next_button, self.panel_button):
            buttons.addWidget(button)
        buttons.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        for part in (self.kind, self.text, self.choices, self.line, self.problem, self.result):
            layout.addWidget(part)
        layout.addLayout(buttons)
        layout.addStretch(1)
        lab.inspection.selection_changed.connect(self._head_picked)
        lab.inspection.choice.changed.connect(self._choice_changed)
        theme_notifier.changed.connect(self._show_result)

    def show_question(self, question: Question, note: str = "", given: str = "") -> None:
        """Asks it; the keyboard goes to the answer where it was here before. note: which one of how many it is. given:
        what was typed or chosen before."""
        had = self.isAncestorOf(self.window().focusWidget()) if self.window().focusWidget() is not None else False
        self.question, self.marked = question, None
        active, named = self._lab.inspection.about, without_folders(question.model)
        if active is not None and active.reference == question.model:
            named = active.name
        about = f" · about {named}" if question.model else ""
        self.kind.setText(html.escape(f"{_WAYS[question.way]}{about}{note and f' · {note}'}"))
        self.text.setText(_rich(question.text))
        self.choices.clear()
        self.choices.addItems([f"{number}.  {one}" for number, one in enumerate(question.choices, 1)])
        self.choices.setVisible(question.form == CHOICE)
        self.choices.setCurrentRow(question.choices.index(given) if given in question.choices else -1)
        self.choices.setEnabled(True)
        self.line.setText(given)
        self.line.setReadOnly(False)
        self.line.setPlaceholderText(question.expects)
        self.line.setAccessibleDescription(question.expects)
        self.line.setVisible(question.form != CHOICE)
        self.problem.say("")
        title = DOCK_PAGES[question.panel][0].replace("&", "&&") if question.panel in DOCK_PAGES else ""
        self.panel_button.setText(title and f"Open {title}")
        self._show_result()
        if had:
            self.take_keyboard()

    def take_keyboard(self) -> None:
        """Gives the keyboard to where an answer is given, or to what goes on."""
        if self.marked is not None:
            self.next_button.setFocus()
        elif self.question is not None:
            (self.choices if self.question.form == CHOICE else self.line).setFocus()

    @property
    def given(self) -> str:
        """What is typed or chosen."""
        if self.question is None or self.question.form != CHOICE:
            return self.line.text()
        return self.question.choices[self.choices.currentRow()] if self.choices.selectedItems() else ""

    @property
    def _asks_for_head(self) -> bool:
        return self.question is not None and self.marked is None and self.question.form == HEAD

    def submit(self) -> None:
        """Marks what is typed or chosen; what cannot be an answer is said, and the question stays open."""
        question, given = self.question, self.given
        if question is None or self.marked is not None:
            return
        if not given.strip():
            press = "Choose an answer by its digit or the arrow keys, then press Enter."
            self.problem.say(press if question.form == CHOICE else f"The answer is {question.expects}.", wrong=False)
            return
        try:
            self._end(mark(question, given))
        except UsageError as error:
            self.problem.say(str(error))
            QTimer.singleShot(0, self, self._scroll_to_buttons)

    def give_up(self) -> None:
        """Shows what is right; that counts as missed."""
        if self.question is not None and self.marked is None:
            self._end(Marked(False, ""))

    def open_panel(self) -> None:
        """The panel that shows the answer, on the model and the text that the question is about."""
        question, session = self.question, self._lab.inspection
        if question is None:
            return
        if question.prompt:
            session.set_prompt(question.prompt, False, at_once=True)
        if question.panel in _OF_A_MODEL:
            if question.model and (session.about is None or session.about.reference != question.model):
                session.open(question.model)
        elif question.model and (row := self._lab.row_called(question.model.rpartition("@")[0])) is not None:
            self._lab.set_current(row.id)
        self._lab.dock_requested.emit(question.panel)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """In the choices, a digit chooses that one, and Enter answers with the chosen one."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress and self.marked is None:
            place = event.key() - Qt.Key.Key_1
            if 0 <= place < self.choices.count():
                self.choices.setCurrentRow(place)
                self.problem.say("")
                return True
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self.submit()
                return True
        return super().eventFilter(watched, event)

    def _return_pressed(self) -> None:
        if self.marked is None:
            self.submit()
        else:
            self.next_wanted.emit()

    def _end(self, marked: Marked) -> None:
        assert self.question is not None
        here = self.isAncestorOf(self.window().focusWidget()) if self.window().focusWidget() is not None else False
        self.marked = marked
        self.problem.say("")
        self.choices.setEnabled(False)
        self.line.setReadOnly(True)
        self._show_result()
        if here:
            self.take_keyboard()
        QTimer.singleShot(0, self, self._scroll_to_buttons)  # when it has its place
        self.answered.emit(self.question, marked)

    def _scroll_to_buttons(self) -> None:
        """What was said to an answer is in sight, down to the button that goes on."""
        around = self.parentWidget()
        while around is not None and not isinstance(around, (QScrollArea, PageBrowser)):
            around = around.parentWidget()
        if around is not None:
            around.ensureWidgetVisible(self.answer_button if self.marked is None else self.next_button)

    def _head_picked(self) -> None:
        """A head was clicked in the mosaic: that answers a question for a head of this model, once it is confirmed."""
        session = self._lab.inspection
        open_now = session.about.reference if session.about is not None else ""
        if self._asks_for_head and self.question is not None and self.question.model == open_now:
            self.line.setText(f"{session.selection.layer}.{session.selection.head}")

    def _choice_changed(self) -> None:
        """The model of the question cannot be opened, as where its run has deleted it: another question, unmarked."""
        choice = self._lab.inspection.choice
        if choice.refused and self._asks_for_head and self.question is not None and self.question.model == choice.model:
            self.next_wanted.emit()

    def _show_result(self) -> None:
        done, question = self.marked, self.question
        for button, shown in (
            (self.answer_button, done is None),
            (self.give_up_button, done is None),
            (self.next_button, done is not None),
        ):
            button.setVisible(shown and question is not None)
        helps = done is not None or self._asks_for_head
        self.panel_button.setVisible(question is not None and bool(self.panel_button.text()) and helps)
        self.result.setVisible(done is not None)
        if done is None or question is None:
            return
        theme = current_theme()
        color, word = (theme.good, "Right.") if done.right else (theme.bad, "Not right." if done.given else "Missed.")
        if done.held and not done.right:
            color, word = theme.warning, "Too wide."
        widths = html.escape(interval_words(question, done)) if question.form == INTERVAL else ""
        page = f'<p><a href="{question.concept}" style="color:{theme.accent}">The page that explains it</a></p>'
        said = f"The answer: {question.answer.removesuffix('.')}."
        self.result.setText(
            f'<p><b style="color:{color}">{word}</b> <b>{html.escape(said)}</b> {widths}</p>'
            f"<p>{_rich(question.how)}</p>{page if question.concept != self.page else ''}"
        )
        self.result.setAccessibleName(f"{word} {said} {widths} {question.how}")


class _Choices(QListWidget):
    """As high as what it holds, wrapped at its width."""

    def sizeHint(self) -> QSize:
        return QSize(super().sizeHint().width(), self.contentsSize().height() + 2 * self.frameWidth())

    def minimumSizeHint(self) -> QSize:
        return QSize(super().minimumSizeHint().width(), self.sizeHint().height())

    def updateGeometries(self) -> None:
        super().updateGeometries()
        self.updateGeometry()
