"""A question that holds up the window until it is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PySide6.QtWidgets import QCheckBox, QDialog, QDialogButtonBox, QLabel, QLineEdit, QMessageBox, QWidget

from llmlab.core.errors import LabError
from llmlab_gui.widgets.labels import ProblemLabel, labelled
from llmlab_gui.widgets.layouts import column

GONE_FOR_GOOD = " The trash of this system cannot hold it, so this cannot be undone."
_LINE_WIDTH = 60  # characters: most names of runs, whole


def ask(
    parent: QWidget,
    title: str,
    text: str,
    more: str,
    answers: Mapping[str, str],
    *,
    default: str = "",
    harmful: str = "",
    check: QCheckBox | None = None,
) -> str:
    """The key of the chosen answer; "" for Cancel, which is always offered.

    answers: their words, by key. default: what Enter chooses, Cancel unless given. harmful: the answer that does most
    harm. check: a choice of its own within the question.
    """
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Warning if harmful and not default else QMessageBox.Icon.Question)
    box.setWindowTitle(title)
    box.setText(text)
    box.setInformativeText(more)
    if check is not None:
        box.setCheckBox(check)
    roles = {True: QMessageBox.ButtonRole.DestructiveRole, False: QMessageBox.ButtonRole.AcceptRole}
    buttons = {key: box.addButton(words, roles[key == harmful]) for key, words in answers.items()}
    cancel = box.addButton("Cancel", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(buttons.get(default, cancel))
    box.setEscapeButton(cancel)
    box.exec()
    chosen = box.clickedButton()
    box.deleteLater()
    return next((key for key, button in buttons.items() if button is chosen), "")


def ask_where_to_resume(parent: QWidget, name: str, host: str, *, paused: bool = False) -> str:
    """What to do about work that another machine has, by its own word: "ask" it to go on after a pause, go on "here",
    or "" for nothing."""
    more = (
        f"Resume it here only if you know that nothing works on it there any more, or if {host} is an earlier name of "
        "this machine. It resumes from its newest checkpoint; two processes at once would damage it."
    )
    answers = ({"ask": "Ask it to resume there"} if paused else {}) | {"here": "Resume here"}
    return ask(parent, "Resume", f"{name} was last seen on {host}.", more, answers, harmful="here")


class LineQuestion(QDialog):
    """A question that is answered with a line of text.

    check: raises LabError for an answer that cannot be taken; that is said in the dialog, which stays with what was
    typed. It should take no longer than a key.
    """

    def __init__(self, parent: QWidget, title: str, text: str, answer: str, check: Callable[[str], None]) -> None:
        super().__init__(parent)
        self._check = check
        self.setWindowTitle(title)
        label = QLabel(text, wordWrap=True)
        self.line = labelled(QLineEdit(answer), text.rstrip(":"))
        self.line.selectAll()
        self.problem = ProblemLabel()
        buttons = QDialogButtonBox()
        buttons.addButton(title, QDialogButtonBox.ButtonRole.AcceptRole)
        buttons.addButton("Cancel", QDialogButtonBox.ButtonRole.RejectRole)
        column(label, self.line, self.problem, buttons, into=self, margins=None)
        self.setMinimumWidth(self.fontMetrics().averageCharWidth() * _LINE_WIDTH)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        self.line.textEdited.connect(lambda: self._say(""))

    @property
    def answer(self) -> str:
        """What was typed."""
        return self.line.text().strip()

    def accept(self) -> None:
        """Closes it, with an answer that can be taken."""
        try:
            self._check(self.answer)
        except LabError as error:
            self._say(str(error))
            self.line.setFocus()
        else:
            super().accept()

    def _say(self, problem: str) -> None:
        self.problem.say(problem)
        self.line.setAccessibleDescription(problem)
        self.adjustSize()


def ask_to_delete(parent: QWidget, what: str, more: str, *, for_good: bool, check: QCheckBox | None = None) -> bool:
    """Whether to move it to the trash; or, with `for_good`, to delete it where no trash can hold it."""
    text = f"Delete {what} for good?" if for_good else f"Move {what} to the trash?"
    answers = {"delete": "Delete for good" if for_good else "Move to trash"}
    return bool(ask(parent, "Delete", text, more, answers, harmful="delete", check=check))
