"""Bars, value grids and scatters draw what they are given, quickly, and say what is clicked."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QImage, QPainter
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from waits import WAIT

from llmlab_gui.charts.bars import Bar, BarChart, BarGroup, Bars, Series
from llmlab_gui.charts.color_scale import fitted, ink, one_sided, two_sided
from llmlab_gui.charts.scatter import Scatter
from llmlab_gui.charts.value_grid import Grid, ValueGrid
from llmlab_gui.widgets.theme import LIGHT, apply_theme


@pytest.fixture(autouse=True)
def light(qapp: QApplication) -> None:
    apply_theme(qapp, "light")


def picture(widget: BarChart | ValueGrid) -> QImage:
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


def test_clicking_a_bar_names_it(qtbot: QtBot) -> None:
    chart = BarChart("bars")
    qtbot.addWidget(chart)
    chart.resize(600, 300)
    chart.show()
    chart.show_bars(some_bars())
    clicked: list[tuple[int, int]] = []
    chart.clicked.connect(lambda *place: clicked.append(place))
    qtbot.mouseClick(chart, Qt.MouseButton.LeftButton, pos=chart.center_of(2, 1))
    assert clicked == [(2, 1)]
    assert chart.tip(2, 1) == "2, feed-forward: -2 logit"
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


def token_grid(columns: int) -> Grid:
    values = np.arange(31 * columns, dtype=np.float64).reshape(31, columns)
    asked: list[tuple[int, int]] = []

    def text(row: int, column: int) -> str:
        asked.append((row, column))
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


def test_four_thousand_tokens_draw_in_a_frame_of_50_ms(qtbot: QtBot) -> None:
    grid = ValueGrid("grid")
    qtbot.addWidget(grid)
    grid.resize(900, 600)
    grid.show()
    grid.show_grid(token_grid(4000))
    picture(grid)
    times = []
    for place in range(0, 4000, 500):
        grid.horizontalScrollBar().setValue(place * 20)
        begin = time.perf_counter()
        picture(grid)
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.05


def test_a_click_tells_the_cell_also_when_scrolled(qtbot: QtBot) -> None:
    grid = ValueGrid("grid")
    qtbot.addWidget(grid)
    grid.resize(700, 400)
    grid.show()
    grid.show_grid(token_grid(200))
    grid.show_cell(30, 150)
    clicked: list[tuple[int, int]] = []
    grid.clicked.connect(lambda *cell: clicked.append(cell))
    qtbot.mouseClick(grid.viewport(), Qt.MouseButton.LeftButton, pos=grid.center_of(30, 150))
    qtbot.keyClick(grid, Qt.Key.Key_Left)
    assert clicked == [(30, 150), (30, 149)]


def test_a_cell_has_its_values_colour(qtbot: QtBot) -> None:
    grid = ValueGrid("grid")
    qtbot.addWidget(grid)
    grid.resize(700, 400)
    grid.show()
    shown = token_grid(8)
    grid.show_grid(shown)
    image = picture(grid)
    for cell in ((0, 0), (9, 5), (12, 7)):
        corner = grid.center_of(*cell) - QPoint(36, 8)  # beside the words
        assert QColor(image.pixel(corner)) == shown.scale.color(float(shown.values[cell]))


def test_a_point_is_found_where_it_is_drawn(qtbot: QtBot) -> None:
    scatter = Scatter("points")
    qtbot.addWidget(scatter)
    scatter.resize(500, 400)
    scatter.show()
    qtbot.waitExposed(scatter, timeout=WAIT)
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
