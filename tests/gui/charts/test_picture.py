"""In a drawing (SVG) the curves stand at the numbers of the axes, and axes are lines and text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyqtgraph as pg
import pytest
from PySide6.QtGui import QColor, QPaintDevice, QPainter
from PySide6.QtWidgets import QGraphicsItem
from pytestqt.qtbot import QtBot

from llmlab.core.charts import Axis, Chart, Series
from llmlab_gui.charts import picture
from llmlab_gui.charts.curve import CurveStyle
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.charts.picture import save_picture
from llmlab_gui.paper.claim_chart import ClaimChart

SVG = "{http://www.w3.org/2000/svg}"
IDENTITY = (1, 0, 0, 1, 0, 0)
BLUE = "#0072b2"
X = [0.0, 1.0, 2.0, 3.0, 4.0]
Y = [5.0, 3.0, 2.0, 2.5, 1.0]


def curves() -> LineChart:
    chart = LineChart("loss", "nats per token")
    chart.set_curve(
        "train", np.array(X), np.array(Y), CurveStyle(QColor(BLUE), "train", "run-a", width=2.0, markers="o")
    )
    chart.draw()
    return chart


def claim() -> ClaimChart:
    chart = ClaimChart("Evidence")
    chart.show_chart(Chart("a", "A chart", Axis("layer"), Axis("loss"), [Series("one", X, Y)]))
    return chart


@pytest.mark.parametrize("make", [curves, claim])
def test_the_curve_of_a_drawing_stands_at_the_numbers_of_its_axes(
    make: Callable[[], pg.PlotWidget], qtbot: QtBot, tmp_path: Path
) -> None:
    chart = make()
    chart.resize(500, 330)
    qtbot.addWidget(chart)
    with qtbot.waitExposed(chart):
        chart.show()
    path = tmp_path / "chart.svg"
    save_picture([chart], path, "A chart")()
    lines = drawn_lines(path)
    curve = [point for color, points in lines if color == BLUE and len(points) in (2, len(X)) for point in points]
    assert len({tuple(point) for point in curve}) == len(X)
    grid = [points for color, points in lines if color != BLUE and len(points) == 2]
    for axis, other in ((0, 1), (1, 0)):
        places = np.array([(a + b)[axis] / 2 for a, b in grid if abs(a - b)[axis] < 0.1 and abs(a - b)[other] > 50])
        for point in curve:
            assert np.abs(places - point[axis]).min() < 1.0  # all its numbers are whole, and have a line


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_whose_painting_fails_leaves_no_painter_at_work(
    qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """One that is at work when what it paints on goes ends the process."""
    held: list[tuple[QPainter, QPaintDevice]] = []

    def fail(_widgets: object, painter: QPainter, *_: object) -> None:
        held.append((painter, painter.device()))
        raise ZeroDivisionError

    monkeypatch.setattr(picture, "_paint", fail)
    qtbot.addWidget(chart := curves())
    with pytest.raises(ZeroDivisionError):
        save_picture([chart], tmp_path / f"chart{suffix}")
    ((painter, _),) = held
    assert not painter.isActive()


def test_axes_and_symbols_that_the_screen_keeps_as_pixels_are_none_in_a_drawing(qtbot: QtBot, tmp_path: Path) -> None:
    chart = curves()
    qtbot.addWidget(chart)
    with qtbot.waitExposed(chart):
        chart.show()
    path = tmp_path / "chart.svg"
    save_picture([chart], path)()
    assert not list(ElementTree.parse(path).iter(f"{SVG}image"))
    written = {(one.text or "").strip() for one in ElementTree.parse(path).iter(f"{SVG}text")}
    assert {"1", "2", "3", "4"} <= written
    assert chart.getPlotItem().getAxis("left").cacheMode() != QGraphicsItem.CacheMode.NoCache


def drawn_lines(path: Path) -> list[tuple[str, np.ndarray]]:
    """Colour and points of each line, where the drawing has them."""
    found = []
    for group in ElementTree.parse(path).iter(f"{SVG}g"):
        a, b, c, d, e, f = map(
            float, re.findall(r"[-+.\de]+", group.get("transform", "").partition("(")[2]) or IDENTITY
        )
        for line in group:
            pairs = re.findall(r"([-+.\de]+),([-+.\de]+)", line.get("points", line.get("d", "")))
            points = np.array(pairs, dtype=float).reshape(-1, 2)
            found.append((group.get("stroke", ""), points @ np.array([[a, b], [c, d]]) + (e, f)))
    return found
