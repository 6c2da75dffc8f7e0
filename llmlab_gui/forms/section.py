"""A part of a form that folds away, and then says in a few words what is in it."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QGridLayout, QPushButton, QSizePolicy, QToolButton, QWidget

from llmlab_gui.forms.field import Field
from llmlab_gui.widgets.icons import icon
from llmlab_gui.widgets.labels import QuietLabel, demi_bold
from llmlab_gui.widgets.layouts import beside, column
from llmlab_gui.widgets.theme import theme_notifier


class _Header(QToolButton):
    """Right unfolds and Left folds, as in a tree; a tool button would pass the keyboard on."""

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            self.setChecked(event.key() == Qt.Key.Key_Right)
        else:
            super().keyPressEvent(event)


class Section(QWidget):
    """Fields under a title. The advanced ones are behind `more`, which says how many of them were changed."""

    toggled = Signal()

    def __init__(self, title: str, fields: Sequence[Field]) -> None:
        super().__init__()
        self.fields = list(fields)
        self.header = _Header()
        self.header.setText(title)
        self.header.setCheckable(True)
        self.header.setAutoRaise(True)
        self.header.setIconSize(QSize(14, 14))
        self.header.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        demi_bold(self.header)
        self.header.setAccessibleName(f"{title} settings")
        self.summary = QuietLabel()
        self.summary.setWordWrap(False)
        self.summary.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.content = QWidget()
        self.more = QPushButton(self.content, flat=True)
        self.more.setCheckable(True)
        for field in fields:
            field.setParent(self.content)
        column(beside(self.header, self.summary, 0, grows=self.summary), self.content, into=self, spacing=2)
        self.header.toggled.connect(self._fold)
        self.more.toggled.connect(self._show_more)
        theme_notifier.changed.connect(self._restyle)
        self._fold(False)
        self._show_more(False)
        self._restyle()

    @property
    def open(self) -> bool:
        """Whether its fields are shown."""
        return self.header.isChecked()

    def set_open(self, shown: bool) -> None:
        """Folds or unfolds."""
        self.header.setChecked(shown)

    def reveal(self, field: Field) -> None:
        """Unfolds as far as needed to see a field."""
        self.set_open(True)
        if field.info.advanced:
            self.more.setChecked(True)

    def count_changes(self) -> None:
        """Says what differs from the preset, also where it is folded away."""
        changed = [f"{field.info.name} {field.short_text()}" for field in self.fields if field.changed]
        self.summary.setText(f"{len(changed)} changed: {', '.join(changed)}" if changed else "as in the preset")
        advanced = [field for field in self.fields if field.info.advanced]
        hidden = sum(field.changed for field in advanced)
        told = f", {hidden} changed" if hidden else ""
        more = f"{len(advanced)} more setting{'' if len(advanced) == 1 else 's'}{told}"
        self.more.setText("Fewer settings" if self.more.isChecked() else more)

    def _lay_out(self) -> None:
        """Places the fields: when they are first unfolded, which few parts of a form ever are."""
        grid = QGridLayout(self.content)
        grid.setContentsMargins(18, 0, 0, 4)
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(3)
        grid.setColumnStretch(0, 4)
        grid.setColumnStretch(1, 5)
        grid.setColumnStretch(2, 3)
        ordered = sorted(self.fields, key=lambda field: field.info.advanced)
        ordinary = sum(not field.info.advanced for field in ordered)
        # Two rows a field: under it is room for what is wrong with it.
        for place, field in enumerate(ordered):
            row = 2 * place if place < ordinary else 2 * place + 1
            if place == ordinary:
                grid.addWidget(self.more, row - 1, 0, 1, 4)  # in this order, which Tab follows
            for at, widget in enumerate((field.row.name, field.editor, field.row.unit, field.row.reset)):
                grid.addWidget(widget, row, at)
            grid.addWidget(field.row.problem, row + 1, 0, 1, 4)
        self._show_more(self.more.isChecked())

    def _fold(self, shown: bool) -> None:
        if shown and self.content.layout() is None:
            self._lay_out()
        self.content.setVisible(shown)
        self.summary.setVisible(not shown)
        self._restyle()
        self.toggled.emit()

    def _show_more(self, shown: bool) -> None:
        advanced = [field for field in self.fields if field.info.advanced]
        self.more.setVisible(bool(advanced))
        for field in advanced:
            field.set_visible(shown)
        self.count_changes()

    def _restyle(self) -> None:
        self.header.setIcon(icon("unfold" if self.open else "fold"))
