"""One setting in a form: its name, its editor, its unit, and the way back to the preset's value."""

from __future__ import annotations

from typing import Any, cast

from PySide6.QtCore import QEvent, QObject, QSignalBlocker, QSize, Signal
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QLabel, QToolButton, QWidget

from llmlab.core.errors import UsageError
from llmlab.core.setting_info import SettingInfo, parse_value
from llmlab_gui.forms.editors import Editor, make_editor, number_text
from llmlab_gui.widgets.icons import icon
from llmlab_gui.widgets.labels import ProblemLabel, QuietLabel, labelled
from llmlab_gui.widgets.theme import current_theme, theme_notifier


class Field(QObject):
    """The widgets of a setting; whoever lays out the form places them. Knows the value that it counts as unchanged."""

    edited = Signal()
    entered = Signal(object)  # this field: the mouse or the keyboard is on it

    def __init__(self, info: SettingInfo, editor: Editor | None = None, parent: QWidget | None = None) -> None:
        """editor: another than the usual one for such a setting. parent: its editor is made in it."""
        super().__init__(parent)
        self.info = info
        self.baseline: Any = info.default
        self._complaint = ""  # of what it does not fit together with
        self._marked = (False, False)  # changed, wrong: as the widgets say now
        self._colored = False  # its text has a colour of its own, from when it was first wrong on
        self._is_shown = self._is_enabled = True
        self._value: Any = info.default  # until there is an editor
        self._row: _Row | None = None
        self._editor = editor
        if editor is not None:
            self._watch(editor)

    @property
    def editor(self) -> Editor:
        """Made when it is first asked for: most fields of a window are in parts of forms that stay folded."""
        if self._editor is None:
            self._editor = editor = make_editor(self.info)
            editor.set_value(self._value)
            editor.setParent(cast("QWidget", self.parent()))
            editor.setEnabled(self._is_enabled)
            if not self._is_shown:
                editor.hide()
            self._watch(editor)
        return self._editor

    @property
    def row(self) -> _Row:
        """What stands around the editor; made when it is first asked for."""
        if self._row is None:
            self._row = row = _Row(self.info, self.editor.parentWidget())
            row.name.setBuddy(self._target)
            # Level with the first line of an editor that has more.
            row.name.setMinimumHeight(self._target.sizeHint().height())
            for widget in (row.name, row.unit):
                widget.installEventFilter(self)
            row.reset.clicked.connect(self.reset)
            self._explain()
            self._mark()
            self._say_problem()
        return self._row

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
        return parse_value(self.info, self.value())

    def value(self) -> Any:
        """What is in it now, unchecked."""
        return self._value if self._editor is None else self._editor.value()

    def short_text(self) -> str:
        """The value for people; `?` where it cannot be read."""
        try:
            return value_text(self.parsed())
        except UsageError:
            return "?"

    def set_value(self, value: Any) -> None:
        """Shows a checked value."""
        before = self.value()
        if self._editor is None:
            self._value = value
        else:
            with QSignalBlocker(self._editor):
                self._editor.set_value(value)
        if self.value() == before:
            self._update()
        else:
            self._edited()

    def set_baseline(self, value: Any) -> None:
        """The value that counts as unchanged, and shows it."""
        self.baseline = value
        self.set_value(value)
        self._explain()

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
        self._is_shown = visible
        if self._editor is not None:
            self._editor.setVisible(visible)
        if self._row is not None:
            self._row.name.setVisible(visible)
            self._row.unit.setVisible(visible and bool(self.info.unit))
            self._row.reset.setVisible(visible and self.changed)
            self._row.keep_room(visible)
            self._say_problem()

    def set_enabled(self, enabled: bool) -> None:
        """Whether it can be changed."""
        self._is_enabled = enabled
        if self._editor is not None:
            self._editor.setEnabled(enabled)

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

    def _watch(self, editor: Editor) -> None:
        self._target.setAccessibleName(self.info.name.replace("_", " "))
        self._target.setAccessibleDescription(f"{self.info.help} {self.info.range_text}")
        for widget in {editor, self._target}:
            widget.installEventFilter(self)
        editor.edited.connect(self._edited)
        theme_notifier.changed.connect(self._restyle)
        self._explain()

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
        self._mark()
        if wrong or self._colored:
            self._color()

    def _explain(self) -> None:
        """As tool tips: what it is, and where the way back leads."""
        if self._editor is None:
            return
        widgets = {self._editor, self._target}
        if self._row is not None:
            widgets |= {self._row.name, self._row.unit}
            self._row.reset.setToolTip(f"Back to the preset's value: {value_text(self.baseline)}")
        tip = self.help_text()
        for widget in widgets:
            widget.setToolTip(tip)

    def _mark(self) -> None:
        """What was changed has a bold name, and a way back."""
        if self._row is None:
            return
        changed = self._marked[0]
        self._row.reset.setVisible(changed and not self.editor.isHidden())
        font = self._row.name.font()
        font.setBold(changed)
        self._row.name.setFont(font)

    def _color(self) -> None:
        self._colored = True
        target, theme = self._target, current_theme()
        palette = QPalette(target.palette())
        palette.setColor(QPalette.ColorRole.Text, QColor(theme.bad if self._marked[1] else theme.text))
        target.setPalette(palette)

    def _say_problem(self) -> None:
        if self._row is None:
            return
        try:
            self.parsed()
        except UsageError as error:
            wrong = str(error)
        else:
            wrong = self._complaint
        self._row.problem.say("" if self.editor.isHidden() else wrong)

    def _restyle(self) -> None:
        if self._row is not None:
            self._row.restyle()
        if self._colored:
            self._color()


class _Row:
    """Left and right of an editor its name, its unit and the way back; under it what is wrong."""

    def __init__(self, info: SettingInfo, parent: QWidget | None) -> None:
        self.name = QLabel(info.name.replace("_", "_\u200b"), wordWrap=True)  # may break where a narrow form needs it
        self.unit = QuietLabel(info.unit)
        if not info.unit:
            self.unit.hide()
        self.reset = labelled(QToolButton(autoRaise=True), f"Reset {info.name}")
        self.reset.setIconSize(QSize(14, 14))
        self.keep_room(True)
        self.problem = labelled(ProblemLabel(), f"Error in {info.name}")
        for widget in (self.name, self.unit, self.reset, self.problem):
            widget.setParent(parent)
        self.restyle()

    def keep_room(self, kept: bool) -> None:
        """For the way back, so that nothing moves when it appears."""
        policy = self.reset.sizePolicy()
        policy.setRetainSizeWhenHidden(kept)
        self.reset.setSizePolicy(policy)

    def restyle(self) -> None:
        """The theme's accent."""
        self.reset.setIcon(icon("undo", current_theme().accent))


def value_text(value: Any) -> str:
    """A setting's value for people; `nothing` for an empty text."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " | ".join(text.replace("\n", "\\n") for text in value) or "nothing"
    return number_text(value) if isinstance(value, (int, float)) else str(value) or "nothing"
