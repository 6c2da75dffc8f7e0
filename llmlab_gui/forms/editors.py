"""One editor a kind of setting, all with the same few methods: what is in it, as text; and `edited`."""

from __future__ import annotations

import math
from typing import Any

from PySide6.QtCore import QEvent, QObject, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QCheckBox, QLineEdit, QPlainTextEdit, QWidget

from llmlab.core.setting_info import SettingInfo
from llmlab_gui.widgets.layouts import beside
from llmlab_gui.widgets.one_line import ChoiceBox

_PROMPT_LINES = 4


def make_editor(info: SettingInfo) -> Editor:
    """The editor that fits a setting."""
    if info.kind is bool:
        return SwitchEditor()
    if info.choices:
        return ChoiceEditor(info.choices)
    if info.kind is tuple:
        return LinesEditor()
    if info.kind in (int, float):
        return NumberEditor(info)
    return TextEditor()


class Editor(QWidget):
    """Holds one value. `value()` is what `llmlab.core.setting_info.parse_value` checks: text, a bool, or texts."""

    edited = Signal()

    def value(self) -> Any:
        """What is in it now, unchecked."""
        raise NotImplementedError

    def set_value(self, value: Any) -> None:
        """Shows a checked value. `edited` follows if that changes anything."""
        raise NotImplementedError

    def hold(self, widget: QWidget, target: QWidget | None = None) -> None:
        """Makes `widget` the whole of this editor; `target` in it takes the keyboard."""
        beside(widget, into=self)
        self.setFocusProxy(target or widget)


class TextEditor(Editor):
    """A line of text."""

    def __init__(self) -> None:
        super().__init__()
        self.line = QLineEdit()
        self.hold(self.line)
        self.line.installEventFilter(self)
        self.line.textChanged.connect(lambda _: self.edited.emit())

    def value(self) -> Any:
        return self.line.text()

    def set_value(self, value: Any) -> None:
        self.line.setText(str(value))


class NumberEditor(TextEditor):
    """A number as people write it: 2000, 2e3, 1e-3. Up and Down step it: whole numbers by one, others by 1-2-5."""

    def __init__(self, info: SettingInfo) -> None:
        super().__init__()
        self._info = info
        self.line.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.line.setMinimumWidth(76)

    def value(self) -> Any:
        return self.line.text().strip().replace(",", "").replace(" ", "")

    def set_value(self, value: Any) -> None:
        self.line.setText(number_text(value))
        self.line.setCursorPosition(0)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            steps = {Qt.Key.Key_Up: 1, Qt.Key.Key_Down: -1, Qt.Key.Key_PageUp: 10, Qt.Key.Key_PageDown: -10}
            distance = steps.get(Qt.Key(event.key()))
            if distance is not None:
                self._step(distance)
                return True
        return super().eventFilter(watched, event)

    def _step(self, distance: int) -> None:
        try:
            number = float(self.value())
        except ValueError:
            return
        if self._info.kind is int:
            number = number + distance
        else:
            number = _rung(number, distance)
        low = -math.inf if self._info.low is None else self._info.low
        high = math.inf if self._info.high is None else self._info.high
        number = min(max(number, low), high)
        self.set_value(int(number) if self._info.kind is int else number)


class SwitchEditor(Editor):
    """On or off."""

    def __init__(self) -> None:
        super().__init__()
        self.box = QCheckBox("on")
        self.hold(self.box)
        self.box.toggled.connect(lambda _: self.edited.emit())

    def value(self) -> Any:
        return self.box.isChecked()

    def set_value(self, value: Any) -> None:
        self.box.setChecked(bool(value))


class ChoiceEditor(Editor):
    """One of a few words."""

    def __init__(self, choices: tuple[str, ...]) -> None:
        super().__init__()
        self.combo = ChoiceBox()
        self.combo.addItems(list(choices))
        self.hold(self.combo)
        self.combo.currentIndexChanged.connect(lambda _: self.edited.emit())

    def value(self) -> Any:
        return self.combo.currentText()

    def set_value(self, value: Any) -> None:
        self.combo.setCurrentIndex(self.combo.findText(str(value)))


class LinesEditor(Editor):
    r"""Texts, one a line; a line break within one is written \n."""

    def __init__(self) -> None:
        super().__init__()
        self.text = QPlainTextEdit(tabChangesFocus=True)
        self.text.setFixedHeight(self.fontMetrics().lineSpacing() * _PROMPT_LINES + 14)
        self.hold(self.text)
        self.text.textChanged.connect(self.edited)

    def value(self) -> Any:
        lines = [line for line in self.text.toPlainText().split("\n") if line]
        return [_unescaped(line) for line in lines]

    def set_value(self, value: Any) -> None:
        self.text.setPlainText("\n".join(_escaped(text) for text in value))


def number_text(value: float) -> str:
    """The shortest text that reads back as exactly this number."""
    if isinstance(value, int):
        return str(value)
    text = repr(value)
    short = f"{value:g}"
    return short if float(short) == value else text


def _rung(number: float, distance: int) -> float:
    """The next of ... 0.1 0.2 0.5 1 2 5 10 ... above or below; zero stays zero."""
    if number <= 0:
        return number
    for _ in range(abs(distance) if abs(distance) < 10 else 3):
        exponent = math.floor(math.log10(number) + 1e-9)
        rungs = sorted(base * 10.0**power for power in (exponent - 1, exponent, exponent + 1) for base in (1, 2, 5))
        above = [rung for rung in rungs if rung > number * 1.001]
        below = [rung for rung in rungs if rung < number * 0.999]
        number = float(f"{(above[0] if distance > 0 else below[-1]):.3g}")
    return number


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def _unescaped(text: str) -> str:
    pieces = {"n": "\n", "t": "\t", "\\": "\\"}
    made, place = "", 0
    while place < len(text):
        if text[place] == "\\" and text[place + 1 : place + 2] in pieces and place + 1 < len(text):
            made += pieces[text[place + 1]]
            place += 2
        else:
            made += text[place]
            place += 1
    return made
