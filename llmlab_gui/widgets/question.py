"""A question that holds up the window until it is answered."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtWidgets import QCheckBox, QMessageBox, QWidget

GONE_FOR_GOOD = " The trash of this system cannot hold it, so this cannot be undone."


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
    cancel = box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(buttons.get(default, cancel))
    box.setEscapeButton(cancel)
    box.exec()
    chosen = box.clickedButton()
    box.deleteLater()
    return next((key for key, button in buttons.items() if button is chosen), "")


def ask_to_delete(parent: QWidget, what: str, more: str, *, for_good: bool, check: QCheckBox | None = None) -> bool:
    """Whether to move it to the trash; or, with `for_good`, to delete it where no trash can hold it."""
    text = f"Delete {what} for good?" if for_good else f"Move {what} to the trash?"
    answers = {"delete": "Delete for good" if for_good else "Move to trash"}
    return bool(ask(parent, "Delete", text, more, answers, harmful="delete", check=check))
