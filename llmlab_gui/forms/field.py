"""One setting in a form: its name, its editor, its unit, and the way back to the preset's value."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QEvent, QObject, QSignalBlocker, QSize, Signal
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QLabel, QToolButton, QWidget

from llmlab.core.config import SettingInfo, parse_value
from llmlab.core.errors import UsageError
from llmlab_gui.forms.editors import Editor, make_editor, number_text
from llmlab_gui.widgets.icons import icon
from llmlab_gui.widgets.labels import ProblemLabel, QuietLabel, labelled
from llmlab_gui.widgets.theme import current_theme, theme_notifier


class Field(QObject):
    """The widgets of a setting; whoever lays out the form places them. Knows the value that it counts as unchanged."""

    edited = Signal()
    entered = Signal(object)  # this field: the mouse or the keyboard is on it

    def __init__(self, info: SettingInfo, editor: Editor | None = None, parent: QObject | None = None) -> None:
        """editor: another than the usual one for such a setting."""
        super().__init__(parent)
        self.info = info
        self.baseline: Any = info.default
        self._complaint = ""  # of what it does not fit together with
        self._marked = (False, False)  # changed, wrong: as the widgets say now
        self._colored = False  # its text has a colour of its own, from when it was first wrong on
        self.editor = editor or make_editor(info)
        self.label = QLabel(info.name.replace("_", "_\u200b"), wordWrap=True)  # may break where a narrow form needs it
        self.unit = QuietLabel(info.unit)
        if not info.unit:
            self.unit.hide()
        self.problem = labelled(ProblemLabel(), f"Error in {info.name}")
        self.reset_button = labelled(QToolButton(autoRaise=True), f"Reset {info.name}")
        self.reset_button.setIconSize(QSize(14, 14))
        policy = self.reset_button.sizePolicy()
        policy.setRetainSizeWhenHidden(True)  # nothing moves when it appears
        self.reset_button.setSizePolicy(policy)
        self.reset_button.hide()
        target = self.editor.focusProxy() or self.editor
        target.setAccessibleName(info.name.replace("_", " "))
        target.setAccessibleDescription(f"{info.help} {info.range_text}")
        self.label.setBuddy(target)
        self.label.setMinimumHeight(target.sizeHint().height())  # level with the first line of an editor that has more
        for widget in (self.label, self.editor, target, self.unit):
            widget.installEventFilter(self)
        self.reset_button.clicked.connect(self.reset)
        self.editor.edited.connect(self._edited)
        theme_notifier.changed.connect(self._restyle)
        self.reset_button.setIcon(icon("undo", current_theme().accent))

    @property
    def widgets(self) -> tuple[QWidget, QWidget, QWidget, QWidget]:
        """Left to right."""
        return self.label, self.editor, self.unit, self.reset_button

    def complain(self, text: str) -> None:
        """Says under it what is wrong although its value can be read; nothing with an empty text."""
        if text != self._complaint:
            self._complaint = text
            self._say_problem()

    @property
    def changed(self) -> bool:
        """Whether it differs from the preset, or cannot be read."""
        try:
            return bool(self.parsed() != self.baseline)
        except UsageError:
            return True

    def parsed(self) -> Any:
        """The value, checked against the setting's own range. UsageError."""
        return parse_value(self.info, self.editor.value())

    def short_text(self) -> str:
        """The value for people; `?` where it cannot be read."""
        try:
            return value_text(self.parsed())
        except UsageError:
            return "?"

    def set_value(self, value: Any) -> None:
        """Shows a checked value."""
        before = self.editor.value()
        with QSignalBlocker(self.editor):
            self.editor.set_value(value)
        if self.editor.value() == before:
            self._update()
        else:
            self._edited()

    def set_baseline(self, value: Any) -> None:
        """The value that counts as unchanged, and shows it."""
        self.baseline = value
        self.set_value(value)
        tip = self.help_text()
        for widget in {self.label, self.editor, self.editor.focusProxy() or self.editor, self.unit}:
            widget.setToolTip(tip)
        self.reset_button.setToolTip(f"Back to the preset's value: {value_text(value)}")

    def reset(self) -> None:
        """Back to the preset's value."""
        self.set_value(self.baseline)

    def help_text(self) -> str:
        """What it means, what it takes, and what the preset says, as rich text."""
        unit = f" {self.info.unit}" if self.info.unit else ""
        return (
            f"<b>{self.info.key}</b><br>{self.info.help}<br>"
            f"{self.info.range_text}{unit} · preset: {value_text(self.baseline)}"
        )

    def set_visible(self, visible: bool) -> None:
        """Shows or hides all of it."""
        for widget in (self.label, self.editor):
            widget.setVisible(visible)
        self.unit.setVisible(visible and bool(self.info.unit))
        self.reset_button.setVisible(visible and self.changed)
        self._say_problem()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        kind = event.type()
        if kind in (QEvent.Type.Enter, QEvent.Type.FocusIn):
            self.entered.emit(self)
        elif kind == QEvent.Type.StyleChange and self._colored and watched is self._target:
            self._color()  # another style sheet brings the palette of before it back
        return False

    @property
    def _target(self) -> QWidget:
        """What is typed into."""
        return self.editor.focusProxy() or self.editor

    def _edited(self) -> None:
        self._update()
        self.edited.emit()

    def _update(self) -> None:
        """Marks what differs from the preset, and what cannot be read."""
        self._say_problem()
        try:
            changed, wrong = bool(self.parsed() != self.baseline), False
        except UsageError:
            changed = wrong = True
        if (changed, wrong) == self._marked:
            return
        self._marked = (changed, wrong)
        self.reset_button.setVisible(changed and not self.editor.isHidden())
        font = self.label.font()
        font.setBold(changed)
        self.label.setFont(font)
        if wrong or self._colored:
            self._color()

    def _color(self) -> None:
        self._colored = True
        target, theme = self._target, current_theme()
        palette = QPalette(target.palette())
        palette.setColor(QPalette.ColorRole.Text, QColor(theme.bad if self._marked[1] else theme.text))
        target.setPalette(palette)

    def _say_problem(self) -> None:
        try:
            self.parsed()
        except UsageError as error:
            wrong = str(error)
        else:
            wrong = self._complaint
        self.problem.say("" if self.editor.isHidden() else wrong)

    def _restyle(self) -> None:
        self.reset_button.setIcon(icon("undo", current_theme().accent))
        if self._colored:
            self._color()


def value_text(value: Any) -> str:
    """A setting's value for people; `nothing` for an empty text."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " | ".join(text.replace("\n", "\\n") for text in value) or "nothing"
    return number_text(value) if isinstance(value, (int, float)) else str(value) or "nothing"
