"""A line chart shows exactly its numbers, on any axis, and lets itself be moved, read and saved."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyqtgraph as pg
import pytest
from PySide6.QtCore import QEvent, QObject, QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QFont, QImage, QPainter
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from llmlab.core.errors import LabError
from llmlab_gui.charts.curve import CurveStyle
from llmlab_gui.charts.layer_chart import LayerChart, numbered
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.charts.marks import ReferenceLine, Span
from llmlab_gui.charts.panel import ChartChoices, ChartPanel
from llmlab_gui.charts.picture import save_picture, save_shown
from llmlab_gui.charts.redraw import RedrawTimer
from llmlab_gui.widgets.theme import current_theme

STYLE = CurveStyle(QColor("#0072b2"), "train", "run-a", width=2.0)
X = np.arange(1.0, 501.0)
Y = 4.0 / np.sqrt(X) + 0.1 * np.sin(X)


class Drawing:
    """A panel with one chart and one curve."""

    def __init__(self, qtbot: QtBot) -> None:
        self.chart = LineChart("loss", "nats per token")
        self.redraw = RedrawTimer()
        self.x, self.y = X, Y
        self.panel = ChartPanel([(self.chart, 1)], self._fill, self.redraw, lambda work, _: work(), smoothing=50)
        self.panel.resize(700, 400)
        qtbot.addWidget(self.panel)
        with qtbot.waitExposed(self.panel):
            self.panel.show()
        qtbot.waitUntil(lambda: not self.panel.dirty)

    def _fill(self) -> None:
        self.chart.set_curve("train", self.x, self.y, STYLE)

    def drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """What the plot's item holds, after a redraw."""
        self.panel.redraw_if_dirty()
        x, y = self.chart.curves()["train"].item.getData()
        return x, y

    def settle(self) -> None:
        """Draws until nothing moves any more: numbers and names that fit change how much room there is.

        The panel is at least as large as it needs, as in a dock, which scrolls what it has no room for.
        """
        for _ in range(3):
            self.panel.resize(self.panel.size().expandedTo(self.panel.minimumSizeHint()))
            self.chart.draw()
            QApplication.processEvents()

    def view(self) -> tuple[list[float], list[float]]:
        x, y = self.chart.getPlotItem().getViewBox().viewRange()
        return x, y


@pytest.fixture
def drawing(qtbot: QtBot) -> Iterator[Drawing]:
    made = Drawing(qtbot)
    yield made
    made.panel.shutdown()


def test_the_plot_holds_exactly_the_numbers(drawing: Drawing) -> None:
    x, y = drawing.drawn()
    assert np.array_equal(x, X)
    assert np.array_equal(y, Y)


@pytest.mark.parametrize("log_x", [False, True])
def test_a_curve_whose_places_are_not_known_yet_leaves_the_others_in_sight(drawing: Drawing, log_x: bool) -> None:
    drawing.chart.keep_only([])
    drawing.chart.set_curve("starting", np.array([math.nan]), np.array([9.0]), STYLE)  # the first, as Loss makes it
    drawing._fill()
    drawing.panel.set_log(x=log_x, y=False)
    drawing.settle()
    low, high = drawing.view()[0]
    first, last = np.log10(X[[0, -1]]) if log_x else X[[0, -1]]
    assert low <= first < last <= high < 1.1 * last
    drawing.panel._point(123.3)
    assert "nan" not in drawing.chart.cross_hair.box.text()
    assert drawing.view()[1][1] < 9.0


def test_new_points_appear_at_the_next_redraw(drawing: Drawing, qtbot: QtBot) -> None:
    drawing.x, drawing.y = np.append(X, 501.0), np.append(Y, 7.5)
    drawing.panel.mark_dirty()
    qtbot.waitUntil(lambda: not drawing.panel.dirty)
    assert drawing.drawn()[1][-1] == 7.5
    assert 501.0 <= drawing.view()[0][1] < 530.0
    assert drawing.view()[1][1] > 7.5


def test_a_hidden_panel_is_not_redrawn(drawing: Drawing, qtbot: QtBot) -> None:
    drawing.panel.hide()
    drawing.panel.mark_dirty()
    drawing.redraw._tick()
    assert drawing.panel.dirty
    drawing.panel.show()
    qtbot.waitUntil(lambda: not drawing.panel.dirty)


def test_log_axes_leave_out_zero_and_below(drawing: Drawing) -> None:
    drawing.x, drawing.y = np.arange(0.0, 6.0), np.array([1.0, 10.0, 0.0, -3.0, math.nan, 100.0])
    drawing.panel.set_log(x=True, y=True)
    x, y = drawing.drawn()
    finite = np.isfinite(x) & np.isfinite(y)
    assert np.allclose(x[finite], np.log10([1.0, 5.0]))
    assert np.allclose(y[finite], [1.0, 2.0])
    assert all(math.isfinite(end) for pair in drawing.view() for end in pair)


def test_log_axes_with_nothing_to_show_do_not_fail(drawing: Drawing) -> None:
    drawing.x, drawing.y = np.array([0.0]), np.array([-1.0])
    drawing.panel.set_log(x=True, y=True)
    drawing.panel.grab()
    assert all(math.isfinite(end) for pair in drawing.view() for end in pair)


def test_zooming_lets_go_and_follow_takes_hold_again(drawing: Drawing, qtbot: QtBot) -> None:
    whole = drawing.view()
    view = drawing.chart.getPlotItem().getViewBox()
    view.scaleBy((0.5, 0.5))
    view.sigRangeChangedManually.emit([True, True])  # as pyqtgraph does after a wheel
    frozen = drawing.view()
    assert not drawing.panel._follow.isChecked()
    drawing.x, drawing.y = np.append(X, 9000.0), np.append(Y, 50.0)
    drawing.panel.mark_dirty()
    drawing.panel.redraw_if_dirty()
    assert drawing.view() == frozen
    qtbot.mouseClick(drawing.panel._follow, Qt.MouseButton.LeftButton)
    drawing.panel.redraw_if_dirty()
    assert drawing.view()[0][0] == 0.0
    assert 9000.0 <= drawing.view()[0][1] < 9500.0
    assert drawing.view() != whole


def test_a_million_points_become_a_screenful_with_the_spike(drawing: Drawing) -> None:
    drawing.x = np.arange(1.0, 1_000_001.0)
    drawing.y = np.ones(1_000_000)
    drawing.y[123_456] = 30.0
    drawing.panel.mark_dirty()
    x, y = drawing.drawn()
    assert len(x) < 10_000
    assert y.max() == 30.0
    assert drawing.view()[1][1] > 30.0


def test_the_cross_hair_reads_the_nearest_values(drawing: Drawing) -> None:
    drawing.panel._point(123.3)
    text = drawing.chart.cross_hair.box.text()
    assert "step 123" in text
    assert f"{Y[122]:#.4g}" in text
    assert not drawing.chart.cross_hair.box.isHidden()
    drawing.panel._point(math.nan)
    assert drawing.chart.cross_hair.box.isHidden()


def test_the_mouse_moves_the_cross_hair(drawing: Drawing, qtbot: QtBot) -> None:
    viewport = drawing.chart.viewport()
    qtbot.mouseMove(viewport, QPoint(viewport.width() // 2, viewport.height() // 2))
    qtbot.waitUntil(lambda: not drawing.chart.cross_hair.box.isHidden())


def test_keys_read_a_chart_point_by_point_zoom_and_show_everything_again(drawing: Drawing, qtbot: QtBot) -> None:
    drawing.chart.set_reference_lines([ReferenceLine(9.0, "uniform 9.00")])
    drawing.panel.set_follow(True)
    drawing.drawn()
    chart, whole = drawing.chart, drawing.view()
    assert whole[1][1] > 9.0

    def press(*keys: Qt.Key) -> float:
        for key in keys:
            qtbot.keyClick(chart, key)
        return round(chart.cross_hair.place)

    assert press(Qt.Key.Key_Left) == 500  # the newest step
    assert f"{Y[499]:#.4g}" in chart.cross_hair.box.text()
    assert press(*[Qt.Key.Key_Left] * 5) < 496
    at = press(Qt.Key.Key_PageUp)
    assert 430 < at < 460
    assert press(*[Qt.Key.Key_Plus] * 6) == at
    low, high = drawing.view()[0]
    assert low < at < high
    assert high - low == pytest.approx((whole[0][1] - whole[0][0]) / 64)
    visible = Y[math.ceil(low) - 1 : math.floor(high)]
    bottom, top = drawing.view()[1]
    assert bottom < visible.min() < visible.max() < top < 1.0  # as high as the curves in sight
    assert not drawing.panel._follow.isChecked()
    for number in range(1, 20):  # each step now, and the view goes along
        assert press(Qt.Key.Key_Right) == at + number
        assert not chart.cross_hair.box.isHidden()
    at = press(*[Qt.Key.Key_Plus] * 60)
    assert press(Qt.Key.Key_Left) == at - 1  # however close one looks
    press(Qt.Key.Key_Home)
    drawing.panel.redraw_if_dirty()
    assert drawing.panel._follow.isChecked()
    assert drawing.view() == whole
    press(Qt.Key.Key_Minus)
    assert drawing.view() == whole
    drawing.panel.set_log(x=True, y=False)
    press(Qt.Key.Key_Right)
    assert not chart.cross_hair.box.isHidden()
    drawing.panel._follow.setFocus()
    chart.setFocus()
    press(Qt.Key.Key_Right)
    drawing.panel._follow.setFocus()
    assert chart.cross_hair.box.isHidden()


def test_no_curve_goes_through_what_a_reference_line_says(drawing: Drawing) -> None:
    x = np.linspace(0.0, 100.0, 101)
    chart, meaning = drawing.chart, "uniform 4.00: all equally likely"
    drawing.panel.resize(700, 400)
    for log_y in (False, True):
        drawing.panel.set_log(x=False, y=log_y)
        for late in (0.0, 30.0, 45.0, 90.0):  # where the curve has come down to the line
            y = np.maximum(4.05 + (late - x) * 0.04, 1.0)
            drawing.x, drawing.y = x, y
            drawing._fill()
            chart.set_reference_lines([ReferenceLine(4.0, meaning)])
            drawing.settle()
            (_, line) = chart.marks.lines[0]
            words = line.label.mapRectToScene(line.label.boundingRect())
            view = chart.getPlotItem().getViewBox()
            low, high = (view.mapSceneToView(point) for point in (words.bottomLeft(), words.topRight()))
            inside = (low.x() < x) & (x < high.x())
            heights = np.log10(y) if log_y else y
            margin = 0.25 * (high.y() - low.y())  # of the document around its letters
            assert not (inside & (heights > low.y() + margin) & (heights < high.y() - margin)).any(), (log_y, late)


def test_a_spike_moves_the_words_of_a_reference_line_and_they_stay_while_nothing_goes_through_them(
    drawing: Drawing,
) -> None:
    x, chart = np.linspace(0.0, 100.0, 101), drawing.chart
    chart.set_reference_lines([ReferenceLine(4.0, "uniform 4.00: all equally likely")])
    (_, line) = chart.marks.lines[0]
    places = []
    for spike in (None, *range(26, 45), None):  # each is one point wide, under the words' usual place
        drawing.x, drawing.y = x, np.where(x == spike, 5.0, 1.0)
        drawing._fill()
        drawing.settle()
        places.append(line.label.orthoPos)
    assert places[0] == 0.25
    assert places[1] not in (0.25, 0.0)
    assert set(places[1:]) == {places[1]}


@pytest.mark.parametrize("log_x", [False, True])
def test_the_first_marker_is_not_cut_by_the_frame(drawing: Drawing, log_x: bool) -> None:
    first = 1.0 if log_x else 0.0
    marked = CurveStyle(QColor("#0072b2"), "validation", "run-a", markers="o", marker_size=9)
    drawing.chart.set_curve("validation", np.array([first, 250.0, 500.0]), np.array([4.0, 2.0, 1.0]), marked)
    drawing.panel.set_log(x=log_x, y=False)
    drawing.settle()
    view = drawing.chart.getPlotItem().getViewBox()
    at = view.mapViewToScene(QPointF(0.0, 4.0)).x()
    assert 5.0 < at - view.sceneBoundingRect().left() < 7.0  # half of it, and of its pen


@pytest.mark.parametrize("height", [200, 400])
@pytest.mark.parametrize("lower", [2.25, 2.47])
def test_words_of_reference_lines_that_lie_close_do_not_touch(drawing: Drawing, height: int, lower: float) -> None:
    drawing.y = 2.7 / np.sqrt(X)
    lines = [
        ReferenceLine(2.48, "uniform 2.48: all 12 tokens equally likely"),
        ReferenceLine(lower, f"unigram {lower}: only how frequent each token is"),
    ]
    drawing.chart.set_reference_lines(lines)
    drawing._fill()
    drawing.panel.resize(620, height)
    drawing.settle()
    heights = [line.mapRectToScene(line.boundingRect()).center().y() for _, line in drawing.chart.marks.lines]
    letters = []
    for _, line in drawing.chart.marks.lines:
        words = line.label.mapRectToScene(line.label.boundingRect())
        margin = line.label.textItem.document().documentMargin()
        letters.append(words.adjusted(margin, margin, -margin, -margin))
    assert not letters[0].intersects(letters[1])
    assert not any(one.top() < place < one.bottom() for one in letters for place in heights)  # nor a line


def test_words_of_lines_that_come_to_a_view_with_little_room_above_are_not_cut(drawing: Drawing) -> None:
    drawing.panel.resize(620, 220)
    drawing.y = 4.0 / np.sqrt(X)
    drawing._fill()
    drawing.settle()
    for font_size in (9, 14):
        drawing.chart.set_reference_lines([])
        drawing.settle()
        drawing.chart.set_reference_lines([ReferenceLine(3.98, f"uniform 3.98: all {font_size} tokens alike")])
        ((_, line),) = drawing.chart.marks.lines
        line.label.setFont(QFont(drawing.panel.font().family(), font_size))
        drawing.settle()
        words = line.label.mapRectToScene(line.label.boundingRect())
        margin = line.label.textItem.document().documentMargin()
        assert drawing.chart.getPlotItem().getViewBox().sceneBoundingRect().top() <= words.top() + margin + 1


def test_no_line_strikes_through_words_in_a_low_chart_full_of_curves(drawing: Drawing) -> None:
    lines = [
        ReferenceLine(4.43, "uniform 4.43: all 84 tokens equally likely"),
        ReferenceLine(3.33, "unigram 3.33: only how frequent each token is"),
    ]
    drawing.x = np.arange(0.0, 401.0)
    drawing.y = np.where(drawing.x < 150, 2.6 + 1.8 * np.exp(-drawing.x / 10), 2.6 / (1 + (drawing.x / 200) ** 8))
    drawing.chart.set_reference_lines(lines)
    for height in (175, 190, 220, 300):
        drawing.panel.resize(430, height)
        drawing._fill()
        drawing.settle()
        heights = [line.mapRectToScene(line.boundingRect()).center().y() for _, line in drawing.chart.marks.lines]
        for _, line in drawing.chart.marks.lines:
            words = line.label.mapRectToScene(line.label.boundingRect())
            margin = line.label.textItem.document().documentMargin()
            assert not any(words.top() + margin < place < words.bottom() - margin for place in heights), height


def test_words_of_a_reference_line_that_have_moved_are_nearest_to_it(drawing: Drawing) -> None:
    lines = [ReferenceLine(3.91, "uniform 3.91: all tokens alike"), ReferenceLine(2.72, "unigram 2.72: how frequent")]
    drawing.x = np.arange(0.0, 301.0)
    drawing.y = np.where(drawing.x % 2, 2.75, 4.3)  # goes through all words that are beside their line
    drawing.y[0] = 7.0
    drawing.chart.set_reference_lines(lines)
    for height in range(170, 300, 10):
        drawing.panel.resize(900, height)
        drawing._fill()
        drawing.settle()
        items = [line for _, line in drawing.chart.marks.lines]
        heights = [line.mapRectToScene(line.boundingRect()).center().y() for line in items]
        for line, own in zip(items, heights, strict=True):
            words = line.label.mapRectToScene(line.label.boundingRect())
            away = {place: max(words.top() - place, place - words.bottom(), 0.0) for place in heights}
            assert words.bottom() == pytest.approx(own, abs=2) or away[own] <= min(away.values()) + 2, height


def test_words_of_reference_lines_a_pixel_apart_are_both_read_where_curves_leave_no_room_beside_them(
    drawing: Drawing,
) -> None:
    drawing.y = 2.5 + 2.0 / np.sqrt(X)
    words = ["uniform 2.48: all 12 tokens equally likely", "unigram 2.49: only how frequent each token is"]
    drawing.chart.set_reference_lines([ReferenceLine(2.48, words[0]), ReferenceLine(2.49, words[1])])
    drawing._fill()
    for height in (180, 300):
        drawing.panel.resize(470, height)
        drawing.settle()
        labels = [line.label for _, line in drawing.chart.marks.lines]
        boxes = [label.mapRectToScene(label.boundingRect()) for label in labels]
        margins = [label.textItem.document().documentMargin() for label in labels]
        one, other = (box.adjusted(by, by, -by, -by) for box, by in zip(boxes, margins, strict=True))
        assert not one.intersects(other)
        view = drawing.chart.getPlotItem().getViewBox().sceneBoundingRect()
        assert view.contains(one)
        assert view.contains(other)


def test_words_of_reference_lines_beside_one_another_do_not_touch_whatever_their_length(drawing: Drawing) -> None:
    drawing.y = np.where(X % 2, 2.3, 2.7)  # goes through everywhere
    for length in range(10, 40, 6):
        words = ["uniform 2.50: all tokens equally likely", "x" * length]
        drawing.chart.set_reference_lines([ReferenceLine(2.5, words[0]), ReferenceLine(2.505, words[1])])
        drawing._fill()
        drawing.settle()
        labels = [line.label for _, line in drawing.chart.marks.lines]
        one, other = (label.mapRectToScene(label.boundingRect()).adjusted(4, 4, -4, -4) for label in labels)
        assert not one.intersects(other)
        places = [label.pos() for label in labels]
        drawing.chart.draw()
        assert [label.pos() for label in labels] == places


def test_reference_lines_stand_at_their_values_on_both_scales(drawing: Drawing) -> None:
    drawing.chart.set_reference_lines([ReferenceLine(4.0, "uniform 4.00"), ReferenceLine(-1.0, "below zero")])
    (_, uniform), (_, below) = drawing.chart.marks.lines
    assert uniform.value() == 4.0
    assert uniform.label.toPlainText() == "uniform 4.00"
    view = drawing.chart.getPlotItem().getViewBox()
    for height in (400, 160, 130):  # its words stand over it, inside, however low the chart is
        drawing.panel.resize(700, height)
        drawing.chart.set_follow(True)
        drawing.settle()
        words = uniform.label.mapRectToScene(uniform.label.boundingRect())
        assert words.top() >= view.sceneBoundingRect().top() - 1
    meaning = "uniform 4.00: all 64 tokens equally likely"  # whole, as long as the plot is wide enough for it
    drawing.chart.set_reference_lines([ReferenceLine(4.0, meaning), ReferenceLine(-1.0, "below zero")])
    (_, uniform), (_, below) = drawing.chart.marks.lines
    shares = []
    for width in (700, 330, 240):
        drawing.panel.resize(width, 400)
        drawing.settle()
        words = uniform.label.mapRectToScene(uniform.label.boundingRect())
        plot = view.sceneBoundingRect()
        assert plot.left() - 1 <= words.left()
        assert words.right() <= plot.right() + 1
        assert words.bottom() == pytest.approx(uniform.mapRectToScene(uniform.boundingRect()).center().y(), abs=3)
        shares.append((words.left() - plot.left()) / plot.width())
        shown = uniform.label.toPlainText()
        assert shown == meaning or (width == 240 and shown.startswith("uniform 4.00") and shown.endswith("…"))
    assert shares[0] == pytest.approx(0.25, abs=0.02)
    assert shares[1] < 0.2
    drawing.panel.set_log(x=False, y=True)
    assert uniform.value() == pytest.approx(math.log10(4.0))
    assert not below.isVisible()


def test_spans_follow_the_scale(drawing: Drawing) -> None:
    drawing.chart.set_spans([Span(10.0, 100.0)])
    drawing.panel.set_log(x=True, y=False)
    (_, region) = drawing.chart.marks.spans[0]
    assert region.getRegion() == pytest.approx((1.0, 2.0))


def test_curves_that_are_not_kept_go(drawing: Drawing) -> None:
    drawing.chart.set_curve("other", X, Y, STYLE)
    drawing.chart.keep_only({"train"})
    assert set(drawing.chart.curves()) == {"train"}
    curves = [item for item in drawing.chart.getPlotItem().items if isinstance(item, pg.PlotCurveItem)]
    assert curves == [drawing.chart.curves()["train"].item]


def test_csv_round_trip(drawing: Drawing, tmp_path: Path) -> None:
    drawing.y = Y.copy()
    drawing.y[7] = math.nan
    drawing.panel.mark_dirty()
    path = tmp_path / "loss.csv"
    drawing.panel.export(path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["run"], row["curve"], row["unit"]) for row in rows} == {("run-a", "train", "nats per token")}
    assert [float(row["step"]) for row in rows] == X.tolist()
    values = [float(row["value"]) if row["value"] else math.nan for row in rows]
    assert np.array_equal(values, drawing.y, equal_nan=True)


def test_png_and_svg_hold_the_chart(drawing: Drawing, tmp_path: Path) -> None:
    drawing.chart.set_legend([STYLE])
    drawing.panel.export_title = "Loss: run-a"
    drawing.panel.set_note("tokens differ: losses cannot be compared")
    size = drawing.chart.size()
    drawing.panel.export(tmp_path / "loss.png")
    image = QImage(str(tmp_path / "loss.png"))
    assert (image.width(), image.height()) == (1600, 900)  # whatever the dock's shape is
    assert drawing.chart.size() == size
    colors = {image.pixelColor(x, y).name() for x in range(0, image.width(), 3) for y in range(0, image.height(), 3)}
    assert "#0072b2" in colors
    drawing.panel.export(tmp_path / "loss.svg")
    svg = (tmp_path / "loss.svg").read_text()
    for words in ("nats per token", "Loss: run-a", "tokens differ: losses cannot be compared", ">train<"):
        assert words in svg
    assert "clipPath" in svg or "clip-path" in svg
    fonts = re.findall('font-family="([^"]*)"', svg)
    assert fonts
    assert all(font.endswith(", sans-serif") for font in fonts)  # where the one of this machine is not installed
    drawing.panel.set_note(" · ".join(f"note {number}" for number in range(60)))
    drawing.panel.export(tmp_path / "notes.svg")
    lines = re.findall(r">([^<]*note [^<]*)<", (tmp_path / "notes.svg").read_text())
    assert len(lines) > 2  # none goes out of the picture
    assert "note 59" in lines[-1]


def test_the_kind_of_a_file_is_its_names_end_in_capitals_too(drawing: Drawing, tmp_path: Path) -> None:
    save_picture([drawing.chart], tmp_path / "LOSS.SVG")()
    assert "<svg" in (tmp_path / "LOSS.SVG").read_text()
    save_shown([drawing.chart], lambda: (["loss"], [[1.5]]), tmp_path / "LOSS.CSV")()
    assert (tmp_path / "LOSS.CSV").read_text().split() == ["loss", "1.5"]


def test_a_note_that_a_narrow_panel_has_no_room_for_makes_it_no_wider(drawing: Drawing, qtbot: QtBot) -> None:
    note, words = drawing.panel._note, "validation − train: +0.192 · tokens differ: bits per byte"
    least = drawing.panel.minimumSizeHint().width()
    drawing.panel.set_note(words)
    assert drawing.panel.minimumSizeHint().width() == least
    for width, whole in ((900, True), (260, False)):
        drawing.panel.resize(width, 400)
        room = note.fontMetrics().horizontalAdvance(words)
        qtbot.waitUntil(lambda whole=whole, room=room: (note.width() >= room) == whole)
        assert note.geometry().right() <= width
    assert note.toolTip() == words


def test_a_note_with_all_the_room_that_it_asks_for_is_not_cut(drawing: Drawing) -> None:
    note = drawing.panel._note
    for gap in np.linspace(-2, 2, 81):
        note.say(f"validation − train: {gap:+.3f}")
        room = note.sizeHint().width()
        assert note.fontMetrics().elidedText(note.text(), Qt.TextElideMode.ElideRight, room) == note.text()


@pytest.mark.parametrize("kind", ["png", "svg", "csv"])
def test_an_export_to_nowhere_fails_in_words(drawing: Drawing, tmp_path: Path, kind: str) -> None:
    with pytest.raises(LabError, match="could not be written"):
        drawing.panel.export(tmp_path / "missing" / f"loss.{kind}")


def test_the_legend_lies_beside_the_curves_and_counts_what_has_no_room(drawing: Drawing) -> None:
    entries = [CurveStyle(QColor("#0072b2"), f"a kind of line called {number}") for number in range(8)]
    drawing.chart.set_legend(entries)
    for width, height in ((900, 500), (400, 300), (200, 150)):
        drawing.panel.resize(width, height)
        drawing.settle()
        legend, view = drawing.chart.legend, drawing.chart.getPlotItem().getViewBox()
        assert legend.names == [entry.label for entry in entries]
        assert not legend.sceneBoundingRect().intersects(view.sceneBoundingRect())
        assert legend.sceneBoundingRect().right() <= drawing.chart.width()
        left_out = 8 - sum(not words.startswith("+") for words in legend.shown)
        assert left_out == 0 or legend.shown[-1] in (f"+ {left_out} more", f"+ {left_out}")
        assert left_out == 0 or entries[-1].label in legend.toolTip()
        assert view.height() > 0.4 * drawing.chart.height()
    assert left_out > 0
    drawing.chart.legend.clear()
    assert drawing.chart.legend.shown == []  # at once: what was shown may be gone before the next layout


def test_the_first_entry_of_a_legend_is_named_where_there_is_no_room_for_all_of_it(drawing: Drawing) -> None:
    drawing.panel.resize(200, 150)
    drawing.chart.set_legend([CurveStyle(QColor("#0072b2"), f"20261201-{n}-a-run-with-a-long-name") for n in range(3)])
    drawing.settle()
    first, more = drawing.chart.legend.shown
    assert more == "+ 2"
    (named, counted) = drawing.chart.legend._placed
    assert named.at.y() == counted.at.y()
    assert first.startswith("2")  # the run that all docks are about is named
    assert first.endswith("e")


def test_the_legend_fits_what_longer_or_shorter_numbers_leave_it_at_once(drawing: Drawing) -> None:
    chart, widths = drawing.chart, []
    chart.set_legend([STYLE])
    for scale in (1.0, 1000.0, 1.0):
        chart.set_curve("train", X, X * scale, STYLE)
        chart.set_follow(True)
        chart.draw()
        widths.append(chart.legend.size().width())
        assert chart.legend._room[0] == pytest.approx(widths[-1])  # for what its entries were laid out
    assert widths[0] == pytest.approx(widths[2])
    assert widths[1] < widths[0] - 10


def test_an_axis_has_room_for_its_numbers_at_any_size_of_letters(drawing: Drawing, qapp: QApplication) -> None:
    font = qapp.font()
    widths = []
    try:
        for size in (8, 20):
            larger = QFont(font)
            larger.setPointSize(size)
            qapp.setFont(larger)
            drawing.chart.apply_theme(current_theme())
            for top in (3.0, 2.5e6):
                x = np.arange(1.0, 100.0)
                drawing.chart.set_curve("a", x, top * np.linspace(0.1, 1.0, 99), STYLE)
                drawing.chart.set_follow(True)
                drawing.settle()
                axis = drawing.chart.getAxis("left")
                assert axis.needed_width() <= axis.width() < axis.needed_width() + 20
                widths.append(axis.width())
    finally:
        qapp.setFont(font)
    assert widths[2] > widths[0]
    assert widths[1] != widths[0]


def test_the_first_number_of_an_axis_is_written_where_the_curves_begin_at_its_edge(drawing: Drawing) -> None:
    axis, paper = drawing.chart.getAxis("bottom"), QImage(1, 1, QImage.Format.Format_RGB32)
    for last in (3.0, 100.0):
        drawing.chart.set_curve("train", np.array([0.0, last]), np.array([1.0, 2.0]), STYLE)
        drawing.chart.set_follow(True)
        drawing.chart.draw()
        painter = QPainter(paper)
        numbers = [text for _, _, text in axis.generateDrawSpecs(painter)[2]]
        painter.end()
        assert (numbers[0], numbers[-1]) == ("0", f"{last:.0f}")


def test_a_chart_whose_axis_takes_a_longer_name_is_given_the_height_for_it(drawing: Drawing) -> None:
    low = drawing.panel.minimumSizeHint().height()
    drawing.chart.name_y("the longest name that any axis of the lab has")
    assert drawing.panel.minimumSizeHint().height() > low
    drawing.chart.name_y("loss")
    assert drawing.panel.minimumSizeHint().height() <= low


def test_a_name_that_has_no_room_beside_a_low_chart_is_shortened_and_never_cut(drawing: Drawing) -> None:
    named = []
    for height in (500, 150, 70):
        drawing.panel.resize(600, height)
        drawing.settle()
        label = drawing.chart.getAxis("left").label
        named.append(label.toPlainText().strip() if label.isVisible() else "")
    assert named == ["loss (nats per token)", "loss", "loss"]
    drawing.chart.apply_theme(current_theme())  # at once: the next redraw may be long in coming
    assert label.toPlainText().strip() == "loss"


def test_the_choices_of_a_panel_can_be_kept_and_set(drawing: Drawing, qtbot: QtBot) -> None:
    told: list[ChartChoices] = []
    drawing.panel.choices_changed.connect(told.append)
    drawing.panel.set_log(x=True, y=False)
    drawing.panel.set_memory(200)
    drawing.panel.set_x_axis("elapsed")
    chosen = ChartChoices("elapsed", log_x=True, log_y=False, memory=200)
    assert told[-1] == drawing.panel.choices == chosen
    drawing.panel.set_choices(ChartChoices())
    drawing.panel.set_choices(chosen)
    assert drawing.panel.choices == chosen
    drawing.panel.set_choices(ChartChoices("no axis", memory=-7))
    assert drawing.panel.choices == ChartChoices("elapsed", memory=0)


def test_a_line_of_one_point_is_seen_as_a_marker(qtbot: QtBot) -> None:
    chart = LayerChart("norm", "", x_label="layers passed")
    qtbot.addWidget(chart)
    chart.show_lines([numbered("stream", [1.0, 2.0]), numbered("attention adds", [1.5])])  # a model of one layer
    assert [curve.style.markers for curve in chart._curves.values()] == [None, "o"]


def test_a_panel_that_is_asked_for_its_least_size_asks_for_no_layout(drawing: Drawing) -> None:
    """Else the scroll area around it, which asks at every layout, would have one after the other, for ever."""
    drawing.settle()
    asked = []

    class Requests(QObject):
        def eventFilter(self, watched: QObject, event: QEvent) -> bool:
            if event.type() == QEvent.Type.LayoutRequest:
                asked.append(watched)
            return False

    requests = Requests()
    drawing.panel.minimumSizeHint()
    QApplication.processEvents()
    drawing.panel.installEventFilter(requests)
    drawing.panel.minimumSizeHint()
    QApplication.processEvents()
    assert asked == []
