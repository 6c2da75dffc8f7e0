"""Both themes can be read, and runs are told apart with any colour vision."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from cases import each
from PySide6.QtCore import QRect, Qt
from PySide6.QtGui import QAction, QColor, QPalette
from PySide6.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QMainWindow,
    QMenu,
    QPlainTextEdit,
    QProgressBar,
    QSlider,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QToolButton,
    QWidget,
)
from pytestqt.qtbot import QtBot

from llmlab.core.paths import resources_dir
from llmlab_gui.charts.color_scale import sequence_colors
from llmlab_gui.widgets import progress_bar
from llmlab_gui.widgets.icons import icon, state_color, state_icon
from llmlab_gui.widgets.labels import PrimaryButton
from llmlab_gui.widgets.progress_bar import ProgressBar
from llmlab_gui.widgets.row_tables import tool_bar
from llmlab_gui.widgets.theme import DARK, LIGHT, Theme, apply_theme, current_theme, mix, style_sheet, theme_notifier
from llmlab_gui.widgets.veil import SHADE

BOTH = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
STATES = ("queued", "running", "paused", "stopping", "stopped", "finished", "failed", "interrupted")


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2.2."""
    values = np.array(QColor(color).getRgbF()[:3])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@BOTH
def test_text_can_be_read_on_every_ground(theme: Theme) -> None:
    for ground in (theme.background, theme.surface, theme.raised):
        for text in (theme.text, theme.quiet, theme.accent, theme.good, theme.warning, theme.bad):
            assert contrast(text, ground) >= 4.5, (text, ground)
    assert contrast(theme.on_accent, theme.accent) >= 4.5


@BOTH
def test_text_can_be_read_on_tinted_grounds(theme: Theme) -> None:
    """Chosen rows, pressed buttons, messages, call-outs of pages."""
    chosen, pressed = mix(theme.surface, theme.accent, 0.2).name(), mix(theme.raised, theme.accent, 0.3).name()
    said = mix(theme.surface, theme.bad, 0.12).name()
    assert min(contrast(theme.text, ground) for ground in (chosen, pressed, said)) >= 4.5
    code = mix(theme.surface, theme.text, 0.06).name()
    assert min(contrast(color, code) for color in (theme.quiet, theme.accent, theme.good, theme.warning)) >= 4.5
    for color in (theme.warning, theme.good):
        ground = mix(theme.surface, color, 0.10).name()
        assert min(contrast(text, ground) for text in (theme.text, theme.accent, color)) >= 4.5


@BOTH
def test_text_under_a_veil_can_be_read(theme: Theme) -> None:
    assert contrast(mix(theme.text, theme.surface, SHADE).name(), theme.surface) >= 4.5


@BOTH
def test_the_name_of_a_group_in_a_list_can_be_read(theme: Theme, qapp: QApplication, qtbot: QtBot) -> None:
    """It cannot be chosen, and was as faint as a button without use."""
    apply_theme(qapp, theme.name)
    pages, table = QListWidget(), QTableWidget(1, 1)
    heading, cell = QListWidgetItem("Concepts"), QTableWidgetItem("By page")
    pages.addItem(heading)
    table.setItem(0, 0, cell)
    table.setShowGrid(False)
    try:
        for part, item in ((pages, heading), (table, cell)):
            qtbot.addWidget(part)
            item.setFlags(Qt.ItemFlag.NoItemFlags)
            part.setStyleSheet(style_sheet(theme))
            image = part.viewport().grab(QRect(2, 2, 80, 20)).toImage()
            drawn = {image.pixelColor(x, y).name() for x in range(80) for y in range(20)}
            assert max(contrast(color, theme.surface) for color in drawn) >= 4.5
    finally:
        apply_theme(qapp, LIGHT.name)


@BOTH
def test_the_edges_of_parts_are_seen(theme: Theme, qapp: QApplication, qtbot: QtBot) -> None:
    """As they are painted: the line of pixels at the middle of the left edge has one that stands out on both sides."""
    apply_theme(qapp, theme.name)
    table = QTableWidget(1, 1)
    cell = QTableWidgetItem("run")
    cell.setCheckState(Qt.CheckState.Unchecked)
    table.setItem(0, 0, cell)
    table.verticalHeader().hide()
    editable = QComboBox()
    editable.setEditable(True)
    fields = (QLineEdit(), QSpinBox(), QDoubleSpinBox(), QComboBox(), editable, QPlainTextEdit(), QCheckBox("tick"))
    try:
        for part in (*fields, table):
            part.setStyleSheet(style_sheet(theme))
            part.resize(160, 60 if isinstance(part, (QPlainTextEdit, QTableWidget)) else 24)
            image = part.grab().toImage()
            row = image.height() // 2 if part is not table else table.horizontalHeader().height() + 14
            across = [image.pixelColor(x, row).name() for x in range(24 if part is table else 8)]
            assert max(contrast(color, theme.background) for color in across) >= 3.0, part
            assert max(contrast(color, theme.surface) for color in across) >= 3.0, part
        menu = QMenu()
        menu.addAction("Loss").setCheckable(True)
        menu.adjustSize()
        image = menu.grab().toImage()
        within = [image.pixelColor(x, image.height() // 2).name() for x in range(3, 20)]  # beyond the menu's own edge
        assert max(contrast(color, theme.surface) for color in within) >= 3.0
        for part in (QSlider(Qt.Orientation.Horizontal), QProgressBar(value=0)):
            part.resize(160, 24)
            image = part.grab().toImage()
            down = [image.pixelColor(120, y).name() for y in range(image.height())]
            assert max(contrast(color, theme.background) for color in down) >= 3.0, part
    finally:
        apply_theme(qapp, "light")


@BOTH
def test_a_bar_of_work_whose_share_is_unknown_is_never_full_and_its_block_moves(
    theme: Theme, qapp: QApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_theme(qapp, theme.name)
    bar = ProgressBar()
    bar.setRange(0, 0)
    bar.resize(200, 8)

    def filled(seconds: float) -> list[int]:
        monkeypatch.setattr(progress_bar.time, "monotonic", lambda: seconds)
        image = bar.grab().toImage()
        return [x for x in range(200) if contrast(image.pixelColor(x, 4).name(), theme.surface) > 2]

    try:
        early, late = filled(0.4), filled(1.2)
    finally:
        apply_theme(qapp, "light")
    assert 50 < len(early) < 80
    assert np.median(late) - np.median(early) > 50
    assert bar._frame.isActive()  # for the next picture


def test_a_primary_button_keeps_its_size_under_the_mouse_and_with_the_keyboard(qtbot: QtBot) -> None:
    """What moves when the mouse comes near is missed by the click."""
    window = QWidget()
    qtbot.addWidget(window)
    window.setStyleSheet(style_sheet(LIGHT))
    button = PrimaryButton("Train")
    button.setParent(window)
    other = QLineEdit(window)
    window.show()
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    other.setFocus()
    button.updateGeometry()
    size = button.sizeHint()
    button.setFocus()
    button.updateGeometry()
    assert button.sizeHint() == size


def test_the_sign_of_order_stands_over_the_title_of_its_column_and_not_in_it(qtbot: QtBot) -> None:
    table = QTableWidget(1, 2)
    qtbot.addWidget(table)
    table.setStyleSheet(style_sheet(LIGHT))
    table.setSortingEnabled(True)
    header = table.horizontalHeader()
    for column, side in enumerate((Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight)):
        title = QTableWidgetItem("Val loss")
        title.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
        table.setHorizontalHeaderItem(column, title)
    table.show()
    titles = QRect(0, header.height() // 2 - 4, header.width(), 8)  # the height of small letters
    pictures = []
    for column in (0, 1):
        table.sortByColumn(column, Qt.SortOrder.AscendingOrder)
        QApplication.processEvents()
        picture = header.grab().toImage()
        pictures.append((picture, picture.copy(titles)))
    assert pictures[0][0] != pictures[1][0]
    assert pictures[0][1] == pictures[1][1]


@BOTH
def test_states_can_be_read(theme: Theme) -> None:
    assert all(contrast(state_color(state, theme), theme.surface) >= 4.5 for state in STATES)


@BOTH
def test_curves_stand_out_from_their_ground(theme: Theme) -> None:
    assert all(contrast(color, theme.surface) >= 3.0 for color in theme.series)


@BOTH
def test_curves_coloured_from_little_to_much_stand_out_from_their_ground(qapp: QApplication, theme: Theme) -> None:
    apply_theme(qapp, theme.name)
    try:
        assert all(contrast(color.name(), theme.surface) >= 3.0 for color in sequence_colors(9))
    finally:
        apply_theme(qapp, "light")


# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
VISIONS = {
    "all cones": np.eye(3),
    "no red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color: str, vision: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour as it is seen."""
    values = np.array(QColor(color).getRgbF()[:3])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(vision @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@BOTH
@pytest.mark.parametrize("vision", VISIONS)
def test_runs_are_told_apart_with_any_colour_vision(theme: Theme, vision: str) -> None:
    seen = [lab(color, VISIONS[vision]) for color in theme.series]
    nearest = min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2))
    assert nearest > 15  # just noticeable is about 2.3; lines are thin


def test_a_choice_changes_palette_and_tells_who_paints_himself(qapp: QApplication, qtbot: QtBot) -> None:
    apply_theme(qapp, "light")
    with qtbot.waitSignal(theme_notifier.changed):
        apply_theme(qapp, "dark")
    assert current_theme() is DARK
    assert qapp.palette().color(QPalette.ColorRole.Base).name() == DARK.surface
    apply_theme(qapp, "light")
    assert current_theme() is LIGHT


@each("name", sorted(path.stem for path in (resources_dir() / "icons").glob("*.svg")))
def test_every_icon_draws_something(qapp: QApplication, name: str) -> None:
    image = icon(name).pixmap(24, 24).toImage()
    assert any(image.pixelColor(x, y).alpha() for x in range(image.width()) for y in range(image.height()))


def test_every_state_has_a_sign_of_its_own_shape(qapp: QApplication) -> None:
    shapes = set()
    for state in STATES:
        image = state_icon(state).pixmap(24, 24).toImage()
        solid = tuple(image.pixelColor(x, y).alpha() > 127 for x in range(24) for y in range(24))
        shapes.add(solid)
    assert len(shapes) == len(STATES)


@BOTH
def test_the_button_of_what_has_no_room_in_a_bar_is_seen(qapp: QApplication, theme: Theme) -> None:
    apply_theme(qapp, theme.name)
    window = QMainWindow()
    try:
        for name in "abcdef":
            window.menuBar().addMenu(name * 9)
        window.setCentralWidget(tool_bar({name: QAction(name * 9, window) for name in "abcdef"}))
        window.resize(200, 100)
        window.setStyleSheet(style_sheet(theme))
        window.show()
        for name in ("qt_toolbar_ext_button", "qt_menubar_ext_button"):
            more = window.findChild(QToolButton, name)
            assert isinstance(more, QToolButton)
            assert more.isVisible()
            seen = window.grab(QRect(more.mapTo(window, more.rect().topLeft()), more.size())).toImage()
            drawn = {seen.pixelColor(x, y).name() for x in range(seen.width()) for y in range(seen.height() - 8)}
            assert max(contrast(color, theme.background) for color in drawn) >= 4.5
    finally:
        window.close()
        apply_theme(qapp, LIGHT.name)
