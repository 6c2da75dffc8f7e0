"""What the wheel passes over while a form is scrolled keeps its value, and does not take the keyboard."""

from __future__ import annotations

from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QApplication,
    QComboBox,
    QDoubleSpinBox,
    QLineEdit,
    QScrollArea,
    QSlider,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from pytestqt.qtbot import QtBot

from llmlab_gui.forms.preset_form import PresetBox
from llmlab_gui.widgets.one_line import OneLineBox
from llmlab_gui.widgets.wheel import WheelGuard


def test_the_wheel_over_what_is_not_in_use_scrolls_and_changes_nothing(qtbot: QtBot, qapp: QApplication) -> None:
    guard = WheelGuard(qapp)
    line, slider, within = QLineEdit(), QSlider(Qt.Orientation.Horizontal), QWidget()
    editable = QComboBox()
    editable.setEditable(True)
    boxes: list[QComboBox] = [QComboBox(), OneLineBox(), editable, PresetBox("presets", [], "", str)]
    numbers = [QSpinBox(), QDoubleSpinBox(), slider]
    for box in boxes:
        box.addItems(["a", "b", "c"])
        box.setCurrentIndex(1)
    for number in numbers:
        number.setValue(5)
    layout = QVBoxLayout(within)
    layout.addWidget(line)
    layout.setSpacing(60)
    for widget in (*boxes, *numbers):
        layout.addWidget(widget)
    form = QScrollArea()
    form.setWidgetResizable(True)
    form.setWidget(within)
    qtbot.addWidget(form)
    form.resize(400, 300)
    with qtbot.waitActive(form):
        form.show()
    line.setFocus()

    def turn(widget: QWidget) -> None:
        form.ensureWidgetVisible(widget)
        place = widget.mapTo(form, widget.rect().center())
        QTest.wheelEvent(form.windowHandle(), place, QPoint(0, -120))
        QApplication.processEvents()

    def values() -> list[float]:
        return [*(box.currentIndex() for box in boxes), *(number.value() for number in numbers)]

    before = values()
    for widget in (*boxes, *numbers):
        form.verticalScrollBar().setValue(0)
        form.ensureWidgetVisible(widget)
        was = form.verticalScrollBar().value()
        turn(widget)
        assert values() == before, widget
        assert form.verticalScrollBar().value() > was or was == form.verticalScrollBar().maximum(), widget
        assert line.hasFocus(), widget
    numbers[0].setFocus()
    turn(numbers[0])
    assert numbers[0].value() == 4  # it is in use
    for box in boxes:  # a window that opens a form gives the keyboard to the first one
        box.setFocus()
        turn(box)
        assert box.currentIndex() == 1
    beside, number = QWidget(), QSpinBox()  # a window that never had the keyboard, as a floating panel at the start
    qtbot.addWidget(beside)
    QVBoxLayout(beside).addWidget(number)
    number.setValue(5)
    beside.setWindowFlags(Qt.WindowType.ToolTip)  # which is not given it when it is shown
    beside.move(500, 0)
    beside.show()
    QApplication.processEvents()
    line.setFocus()
    QTest.wheelEvent(beside.windowHandle(), number.geometry().center(), QPoint(0, -120))
    assert line.hasFocus()
    assert number.value() == 5
    qapp.focusChanged.disconnect(guard._listen)
    guard.deleteLater()
