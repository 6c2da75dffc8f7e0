"""Bars, value grids and scatters draw what they are given, quickly, and say what is clicked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from inspection_lab import center_of
from PySide6.QtCore import QEvent, QPoint, QPointF, QRect, QRectF, Qt
from PySide6.QtGui import QAccessible, QColor, QContextMenuEvent, QFont, QImage, QPainter
from PySide6.QtWidgets import QApplication, QLabel
from pytestqt.qtbot import QtBot
from windows import shown

from llmlab_gui.charts.bars import Bar, BarChart, BarGroup, Bars, Series
from llmlab_gui.charts.color_scale import fitted, ink, one_sided, two_sided
from llmlab_gui.charts.grid_cells import Grid
from llmlab_gui.charts.scatter import Scatter
from llmlab_gui.charts.value_grid import ValueGrid
from llmlab_gui.widgets.theme import DARK, LIGHT, apply_theme


@pytest.fixture(autouse=True)
def light(qapp: QApplication) -> None:
    apply_theme(qapp, "light")


def picture(widget: BarChart) -> QImage:
    image = QImage(widget.size(), QImage.Format.Format_RGB32)
    painter = QPainter(image)
    widget.paint(painter)
    painter.end()
    return image


def test_zero_has_the_panels_colour_and_equal_distances_equal_strength() -> None:
    scale = two_sided(2.0)
    middle = QColor(LIGHT.surface).lightnessF()
    assert scale.color(0.0).lightnessF() == pytest.approx(middle, abs=0.01)
    assert scale.color(-5.0) == scale.color(-2.0) == QColor("#0072b2")
    assert scale.color(2.0) == QColor("#d55e00")
    assert fitted(np.array([-3.0, 1.0, np.nan]), signed=True).high == 3.0


def test_words_read_on_every_colour() -> None:
    def contrast(a: QColor, b: QColor) -> float:
        def light(color: QColor) -> float:
            parts = [
                part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color.getRgbF()[:3]
            ]
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

        high, low = max(light(a), light(b)), min(light(a), light(b))
        return (high + 0.05) / (low + 0.05)

    for scale in (one_sided(0, 1), two_sided(1)):
        for value in np.linspace(scale.low, scale.high, 64):
            ground = scale.color(float(value))
            assert contrast(ground, ink(ground)) >= 4.5


def some_bars() -> Bars:
    series = (Series("attention", 0), Series("feed-forward", 1), Series("sum", -1))
    layers = [BarGroup(str(layer), (Bar(1.0 + layer, 0), Bar(-2.0, 1))) for layer in range(4)]
    return Bars((*layers, BarGroup("sum", (Bar(2.0, 2),), apart=True)), series, "logit")


def test_a_bar_is_as_high_as_its_value_and_stands_on_zero(qtbot: QtBot) -> None:
    chart = BarChart("bars")
    qtbot.addWidget(chart)
    chart.resize(600, 300)
    chart.show_bars(some_bars())
    image = picture(chart)
    color = QColor(LIGHT.series[0]).rgb()

    def height(group: int, bar: int) -> int:
        x = chart.center_of(group, bar).x() + 4
        return sum(image.pixel(x, y) == color for y in range(image.height()))

    one, four = height(0, 0), height(3, 0)
    assert one > 10
    assert four == pytest.approx(4 * one, abs=4)
    chart.show_bars(replace(some_bars(), across="layer"))  # written before the names of the groups
    named = picture(chart)
    under = QRect(0, image.height() - chart.fontMetrics().height() - 4, 56, chart.fontMetrics().height())
    assert named.copy(under) != image.copy(under)
    assert named.copy(60, 0, 540, 300) == image.copy(60, 0, 540, 300)


@pytest.mark.parametrize("width", [180, 260, 420, 900])
def test_what_the_bars_are_is_written_in_full_above_them(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    unit = "logit of “·Paris”"
    series = tuple(Series(name, place) for place, name in enumerate(("attention", "feed-forward", "sum")))
    chart = BarChart("bars")
    qtbot.addWidget(chart)
    chart.resize(width, 200)
    chart.show_bars(Bars((BarGroup("0", (Bar(1.0, 0),)),), series, unit))
    drawn: dict[str, QRectF] = {}
    monkeypatch.setattr(QPainter, "drawText", lambda _painter, room, _how, text: drawn.update({text: room}))
    picture(chart)
    assert {unit, "attention", "feed-forward", "sum"} <= set(drawn)
    rooms = [drawn[text] for text in (unit, "attention", "feed-forward", "sum")]
    for room, text in zip(rooms, (unit, "attention", "feed-forward", "sum"), strict=True):
        assert room.width() >= chart.fontMetrics().horizontalAdvance(text)
        assert chart.rect().contains(room.toAlignedRect())
        assert not any(room.intersects(other) for other in rooms if other is not room)
    assert chart.center_of(0, 0).y() > max(room.bottom() for room in rooms)


def test_the_name_of_the_axis_does_not_touch_that_of_the_first_group(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [BarGroup(name, (Bar(1.0, 0),)) for name in ("emb", *map(str, range(30)))]
    chart = BarChart("bars")
    qtbot.addWidget(chart)
    chart.resize(560, 200)
    chart.show_bars(Bars((*groups, BarGroup("sum", (Bar(1.0, 0),), apart=True)), (Series("a", 0),), "", across="layer"))
    drawn: dict[str, QRectF] = {}
    monkeypatch.setattr(QPainter, "drawText", lambda _painter, room, _how, text: drawn.update({text: room}))
    picture(chart)
    first = drawn["emb"].center().x() - chart.fontMetrics().horizontalAdvance("emb") / 2
    assert first - drawn["layer"].right() >= 4


def test_clicking_a_bar_names_it(qtbot: QtBot) -> None:
    chart = shown(BarChart("bars"), qtbot, 600, 300)
    chart.show_bars(some_bars())
    clicked: list[tuple[int, int]] = []
    chart.clicked.connect(lambda *place: clicked.append(place))
    qtbot.mouseClick(chart, Qt.MouseButton.LeftButton, pos=chart.center_of(2, 1))
    assert clicked == [(2, 1)]
    assert chart.tip(2, 1) == "2, feed-forward: −2 logit"
    chart.setFocus()
    qtbot.keyClick(chart, Qt.Key.Key_Right)
    qtbot.keyClick(chart, Qt.Key.Key_Return)
    assert clicked[-1] == (0, 0)


def test_many_layers_fit_and_no_numbers_are_no_bars(qtbot: QtBot) -> None:
    chart = BarChart("bars")
    qtbot.addWidget(chart)
    chart.resize(500, 200)
    groups = tuple(BarGroup(str(n), (Bar(float("nan"), 0), Bar(1.0, 1))) for n in range(80))
    chart.show_bars(Bars(groups, (Series("a", 0), Series("b", 1)), "norm"))
    assert chart.center_of(79, 1).x() < 500
    picture(chart)
    chart.show_bars(Bars())
    picture(chart)


def token_grid(columns: int, asked: Callable[[int, int], object] = lambda row, column: None) -> Grid:
    values = np.arange(31 * columns, dtype=np.float64).reshape(31, columns)

    def text(row: int, column: int) -> str:
        asked(row, column)
        return f"{row}.{column}"

    return Grid(
        values,
        tuple(f"layer {row}" for row in range(31)),
        tuple(f"t{column}" for column in range(columns)),
        one_sided(0, float(values.max())),
        lambda row, column: f"{row},{column}: {values[row, column]}",
        text,
        unit="rank",
    )


def shown_grid(qtbot: QtBot, grid: Grid) -> ValueGrid:
    widget = shown(ValueGrid("grid"), qtbot, 700, 400)
    widget.show_grid(grid)
    return widget


def test_of_four_thousand_tokens_only_those_in_sight_are_painted(qtbot: QtBot) -> None:
    painted: set[tuple[int, int]] = set()
    grid = shown_grid(qtbot, token_grid(4000, lambda *cell: painted.add(cell)))
    for column in range(0, 4000, 500):
        grid.mark(20, column)
        painted.clear()
        grid.grab()
        rows, columns = ({cell[side] for cell in painted} for side in (0, 1))
        assert column in columns
        assert len(columns) <= 700 // 76 + 2
        assert len(painted) == len(rows) * len(columns)
        assert len(rows) < 31


def test_words_are_cut_for_the_font_that_they_are_drawn_in(qtbot: QtBot) -> None:
    grid = shown_grid(qtbot, token_grid(9))
    for size in (8, 40):
        grid.table.setFont(QFont("monospace", size))
        grid.grab()
        metrics, cuts = grid.table.fontMetrics(), grid.table._delegate.cuts
        assert cuts
        assert all(metrics.horizontalAdvance(cut) <= room for (_, room), cut in cuts.items())


def test_a_click_tells_the_cell_also_when_scrolled(qtbot: QtBot) -> None:
    grid = shown_grid(qtbot, token_grid(200))
    grid.mark(28, 150)
    clicked: list[tuple[int, int]] = []
    grid.clicked.connect(lambda *cell: clicked.append(cell))
    qtbot.mouseClick(grid.table.viewport(), Qt.MouseButton.LeftButton, pos=center_of(grid, 28, 149))
    qtbot.keyClick(grid.table, Qt.Key.Key_Left)
    assert clicked == [(28, 149), (28, 148)]
    assert [(index.row(), index.column()) for index in grid.table.selectedIndexes()] == [(28, 148)]


def test_the_last_row_stays_in_sight_under_the_chosen_cell(qtbot: QtBot) -> None:
    grid = shown_grid(qtbot, token_grid(200))
    clicked: list[tuple[int, int]] = []
    grid.clicked.connect(lambda *cell: clicked.append(cell))

    def seen(row: int, column: int) -> bool:
        table = grid.last if row == 30 and grid.last.isVisible() else grid.table
        rect = table.visualRect(table.cells.index(row, column))
        return not rect.isEmpty() and table.viewport().rect().contains(rect)

    for size in ((700, 400), (300, 160), (500, 240), (420, 200)):
        grid.resize(*size)
        for row, column in ((0, 0), (3, 190), (30, 199), (29, 100), (30, 5), (12, 120)):
            grid.mark(row, column)
            assert seen(row, column)
            assert seen(30, column)
            assert grid.last.columnViewportPosition(column) == grid.table.columnViewportPosition(column)
            assert grid.last.viewport().height() - grid.last.rowHeight(30) in (0, 1, 2)
            assert grid.last.viewport().width() == grid.table.viewport().width()
            assert not grid.last.verticalScrollBar().isVisible()  # one row has nowhere to scroll to
    grid.resize(200, 140)
    assert seen(12, 120)
    assert seen(30, 120)

    # Another look of the window has wider or narrower scroll bars.
    grid.mark(12, 199)
    for width in (30, 4, 16):
        grid.setStyleSheet(f"QScrollBar:vertical {{ width: {width}px }}")
        QApplication.processEvents()
        assert seen(12, 199), width
        assert seen(30, 199), width
    grid.setStyleSheet("")

    # It is chosen by mouse and by keys as any other.
    place = grid.last.visualRect(grid.last.cells.index(30, 120)).center()
    qtbot.mouseClick(grid.last.viewport(), Qt.MouseButton.LeftButton, pos=place)
    grid.mark(29, 120)
    for key in (Qt.Key.Key_Down, Qt.Key.Key_Left, Qt.Key.Key_Up):
        qtbot.keyClick(grid.table, key)
    assert clicked == [(30, 120), (30, 120), (30, 119), (29, 119)]

    # Where all rows have room there is one table.
    grid.resize(700, 900)
    assert not grid.last.isVisible()
    assert seen(30, 119)


def test_a_marked_cell_is_brought_into_sight_and_a_column_is_marked_as_a_whole(qtbot: QtBot) -> None:
    grid = shown_grid(qtbot, token_grid(200))
    grid.mark(29, 120)
    assert grid.table.viewport().rect().contains(center_of(grid, 29, 120))
    grid.mark(-1, 60)
    selected = grid.table.selectionModel().selectedIndexes
    assert {index.column() for index in selected()} == {60}
    assert len(selected()) == 31
    grid.mark(-1, -1)
    assert not selected()


def test_a_screen_reader_reads_each_cells_token_and_number_and_the_labels(qtbot: QtBot) -> None:
    grid = shown_grid(qtbot, token_grid(8))
    table = QAccessible.queryAccessibleInterface(grid.table)
    assert table.role() == QAccessible.Role.Table

    def read(row: int, column: int) -> str:
        """Row 0 and column 0 are the labels'."""
        return table.child(9 * row + column).text(QAccessible.Text.Name)

    assert table.childCount() == 9 * 32
    assert (read(10, 0), read(0, 6), read(10, 6)) == ("layer 9", "t5", "9.5, 77.00")


def test_ranks_are_read_as_they_are_though_their_colours_are_powers_of_ten(qtbot: QtBot) -> None:
    ranks = replace(token_grid(8), values=np.full((31, 8), 3.0), scale=one_sided(0, 4), kind="count", log=True)
    grid = shown_grid(qtbot, ranks)
    assert grid.table.cells.index(0, 0).data(Qt.ItemDataRole.AccessibleTextRole) == "0.0, 1,000"
    assert {"1", "10,000"} <= {label.text() for label in grid.findChildren(QLabel)}


def test_the_menu_key_and_a_right_click_ask_about_a_cell_and_choose_none(qtbot: QtBot) -> None:
    grid = shown_grid(qtbot, token_grid(8))
    grid.mark(3, 4)
    asked: list[tuple[int, int]] = []
    grid.asked.connect(lambda row, column, place: asked.append((row, column)))
    grid.clicked.connect(lambda *cell: pytest.fail(f"{cell} was chosen"))
    for reason, cell in ((QContextMenuEvent.Reason.Keyboard, (0, 0)), (QContextMenuEvent.Reason.Mouse, (2, 6))):
        where = center_of(grid, *cell)
        event = QContextMenuEvent(reason, where, grid.table.viewport().mapToGlobal(where))
        QApplication.sendEvent(grid.table.viewport(), event)
    assert asked == [(3, 4), (2, 6)]


def test_pointing_at_a_cell_tells_it_and_leaving_tells_none(qtbot: QtBot) -> None:
    grid = shown_grid(qtbot, token_grid(8))
    pointed: list[tuple[int, int]] = []
    grid.pointed.connect(lambda *cell: pointed.append(cell))
    qtbot.mouseMove(grid.table.viewport(), center_of(grid, 1, 4))
    qtbot.waitUntil(lambda: pointed[-1:] == [(1, 4)])
    QApplication.sendEvent(grid.table.viewport(), QEvent(QEvent.Type.Leave))
    assert pointed[-1] == (-1, -1)


def test_a_cell_has_its_values_colour_and_none_the_themes(qtbot: QtBot, qapp: QApplication) -> None:
    shown = token_grid(8)
    shown.values[5, 5] = np.nan
    grid = shown_grid(qtbot, shown)

    def color(row: int, column: int) -> QColor:
        beside_the_words = center_of(grid, row, column) - QPoint(36, 8)
        return grid.table.viewport().grab().toImage().pixelColor(beside_the_words)

    for cell in ((0, 0), (9, 5), (12, 7)):
        assert color(*cell) == shown.scale.color(float(shown.values[cell]))
    assert color(5, 5) == QColor(LIGHT.background)
    apply_theme(qapp, "dark")
    assert color(5, 5) == QColor(DARK.background)


def test_a_point_is_found_where_it_is_drawn(qtbot: QtBot) -> None:
    scatter = shown(Scatter("points"), qtbot, 500, 400)
    qtbot.waitExposed(scatter)
    points = np.array([[0.0, 0.0], [1.0, 2.0], [-3.0, 1.0]])
    scatter.show_points(points, ["a", "b", "c"], ["A", "B", "C"], ("first", "second"))
    clicked: list[int] = []
    scatter.clicked.connect(clicked.append)
    for number in range(3):
        where = scatter.place_of(number)
        assert scatter.point_at(where) == number
        qtbot.mouseClick(scatter.viewport(), Qt.MouseButton.LeftButton, pos=where.toPoint())
    assert clicked == [0, 1, 2]
    assert scatter.point_at(QPointF(-50, -50)) == -1
