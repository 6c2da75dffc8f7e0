"""Ctrl+F for a text view: a line that finds the next and the one before."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent, QKeySequence, QShortcut, QTextCursor, QTextDocument
from PySide6.QtWidgets import QLabel, QLineEdit, QPlainTextEdit, QTextEdit, QWidget

from llmlab_gui.widgets.buttons import flat_button
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import beside


class FindBar(QWidget):
    """Hidden until Ctrl+F in `owner`. Enter finds on, Shift+Enter back, Esc closes; the search wraps around."""

    closed = Signal()

    def __init__(self, owner: QWidget) -> None:
        super().__init__(owner)
        self._view: QPlainTextEdit | QTextEdit | None = None
        self.field = labelled(QLineEdit(self, placeholderText="Find", clearButtonEnabled=True), "Find")
        self.field.textEdited.connect(lambda: self.search(from_start=True))
        self.field.installEventFilter(self)
        self._said = QLabel(self)
        back = flat_button("▲", "Find previous (Shift+Enter)", lambda: self.search(backward=True))
        on = flat_button("▼", "Find next", self.search)
        close = flat_button("✕", "Close the search", self.close_bar, "Close (Esc)")
        beside(self.field, self._said, back, on, close, grows=self.field, into=self)
        shortcut = QShortcut(QKeySequence.StandardKey.Find, owner)
        shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        shortcut.activated.connect(self.open_bar)
        self.hide()

    def set_view(self, view: QPlainTextEdit | QTextEdit) -> None:
        """The text that is searched."""
        self._view = view
        self._said.clear()

    def open_bar(self) -> None:
        """Shows the bar and puts the keyboard into it."""
        self.show()
        self.field.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.field.selectAll()

    def close_bar(self) -> None:
        """Hides the bar and gives the keyboard back to the text."""
        self.hide()
        if self._view is not None:
            self._view.setFocus(Qt.FocusReason.OtherFocusReason)
        self.closed.emit()

    def search(self, *, backward: bool = False, from_start: bool = False) -> bool:
        """Moves to the next match; says so when there is none."""
        wanted = self.field.text()
        self._said.clear()
        if self._view is None or not wanted:
            return False
        flags = QTextDocument.FindFlag.FindBackward if backward else QTextDocument.FindFlag(0)
        if from_start:  # while one types, the match grows in place
            cursor = self._view.textCursor()
            cursor.setPosition(cursor.selectionStart())
            self._view.setTextCursor(cursor)
        if self._view.find(wanted, flags):
            return True
        before = self._view.textCursor()
        end = QTextCursor.MoveOperation.End if backward else QTextCursor.MoveOperation.Start
        self._view.moveCursor(end)
        if self._view.find(wanted, flags):
            return True
        self._view.setTextCursor(before)
        self._said.setText("not found")
        return False

    def eventFilter(self, watched, event) -> bool:  # type: ignore[no-untyped-def]
        """Keys of the field: Enter, Shift+Enter, Esc."""
        if watched is self.field and isinstance(event, QKeyEvent) and event.type() == QKeyEvent.Type.KeyPress:
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self.search(backward=bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier))
                return True
            if event.key() == Qt.Key.Key_Escape:
                self.close_bar()
                return True
        return super().eventFilter(watched, event)
