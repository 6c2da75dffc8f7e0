"""The heatmap and what it is made of: strong cells survive shrinking, numbers stay exact, pictures stay small."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from llmlab_gui.charts.arcs import Arcs
from llmlab_gui.charts.cell_map import MISSING, indexed, shrink
from llmlab_gui.charts.color_scale import ColorScale, from_ground, ground_table
from llmlab_gui.charts.heat_view import HeatView
from llmlab_gui.charts.heatmap import Heat, Heatmap, short
from llmlab_gui.charts.mosaic import Mosaic, grid, resized
from llmlab_gui.charts.picture import image_of
from llmlab_gui.widgets.theme import DARK, LIGHT, apply_theme, current_theme


@pytest.fixture(autouse=True)
def light(qapp: QApplication) -> None:
    apply_theme(qapp, "light")


def pattern(count: int) -> np.ndarray:
    scores = np.random.default_rng(3).normal(size=(count, count)).astype(np.float32) * 4
    scores[np.triu_indices(count, 1)] = -np.inf
    grown = np.exp(scores - scores.max(1, keepdims=True))
    return grown / grown.sum(1, keepdims=True)


def shown(qtbot: QtBot, values: np.ndarray, size: tuple[int, int] = (640, 560), **more: object) -> Heatmap:
    heatmap = Heatmap("test")
    qtbot.addWidget(heatmap)
    heatmap.resize(*size)
    names = [[f"t{place}" for place in range(count)] for count in values.shape]
    heatmap.show_heat(Heat(values, names[0], names[1], "query", "key", **more))
    heatmap.show()
    return heatmap


# Colours ---------------------------------------------------------------------------------------------------------


def lightness(colors: np.ndarray) -> np.ndarray:
    """CIELAB's L* of sRGB rows."""
    parts = colors / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    return 116 * np.cbrt(np.maximum(luminance, 1e-9)) - 16


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_zero_is_the_panels_colour_and_lightness_runs_one_way_evenly(theme: object) -> None:
    table = ground_table(theme)
    assert QColor(*table[0].tolist()) == QColor(theme.surface)
    steps = np.diff(lightness(table[1:].astype(float))[::16])
    assert (np.sign(steps) == np.sign(steps[0])).all()
    assert np.abs(steps).max() < 2.5 * np.abs(steps).mean()
    assert abs(lightness(table.astype(float))[-1] - lightness(table.astype(float))[0]) > 60


def test_indices_span_the_scale_and_keep_one_for_what_is_no_number() -> None:
    values = np.array([[0.0, 0.5, 1.0, 2.0, np.nan, -np.inf]], np.float32)
    assert indexed(values, from_ground(1.0)).tolist() == [[0, 127, 254, 254, MISSING, MISSING]]


def test_powers_of_ten_are_equally_far_apart_on_a_logarithmic_scale() -> None:
    scale = ColorScale(-4.0, 0.0, from_ground(1.0).table)
    places = indexed(np.array([[1e-4, 1e-3, 1e-2, 1e-1, 1.0, 0.0]], np.float32), scale, log=True)[0].astype(int)
    assert np.abs(np.diff(places[:5]) - 63.5).max() <= 1
    assert places[5] == 0


# Shrinking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
def test_the_strongest_of_each_block_survives(signed: bool) -> None:
    values = np.random.default_rng(5).normal(size=(97, 131)).astype(np.float32)
    small = shrink(values, 10, 12, signed=signed)
    rows, columns = np.arange(11) * 97 // 10, np.arange(13) * 131 // 12
    for i in range(10):
        for j in range(12):
            block = values[rows[i] : rows[i + 1], columns[j] : columns[j + 1]].ravel()
            assert small[i, j] == (block[np.abs(block).argmax()] if signed else block.max())


def test_a_number_beside_a_masked_cell_survives_and_small_matrices_stay_as_they_are() -> None:
    values = np.full((4, 4), np.nan, np.float32)
    values[2, 3] = 0.25
    assert np.nanmax(shrink(values, 2, 2)) == np.float32(0.25)
    assert shrink(values, 100, 100) is values


# The heatmap -----------------------------------------------------------------------------------------------------


def test_a_cell_is_found_where_it_is_drawn_also_zoomed_in(qtbot: QtBot) -> None:
    heatmap = shown(qtbot, pattern(37), high=1.0)
    for zooms in range(3):
        rows, columns = heatmap._view.rows(), heatmap._view.columns()
        for row, column in ((rows.start, columns.start), (rows.stop - 1, columns.stop - 1), (rows[5], columns[3])):
            assert heatmap.cell_at(heatmap.center_of(row, column)) == (row, column), zooms
        heatmap._view.zoom(1.5, heatmap._view.shown.center())
    assert len(heatmap._view.rows()) < 37


def test_zooming_keeps_what_is_under_the_pointer_and_a_double_click_shows_everything(qtbot: QtBot) -> None:
    heatmap = shown(qtbot, pattern(200), high=1.0)
    place = heatmap.center_of(150, 40)
    heatmap._view.zoom(2.0, place)
    row, column = heatmap.cell_at(place)
    assert abs(row - 150) <= 1
    assert abs(column - 40) <= 1
    heatmap.mouseDoubleClickEvent(None)
    assert len(heatmap._view.rows()) == 200


def test_the_line_below_has_the_exact_number(qtbot: QtBot) -> None:
    values = pattern(500)
    heatmap = shown(qtbot, values, high=1.0, unit="share")
    with qtbot.waitSignal(heatmap.pointed) as pointed:
        qtbot.mouseMove(heatmap, heatmap.center_of(321, 123).toPoint())
    row, column = pointed.args
    assert heatmap.words(row, column).startswith(f"t{row}, t{column}: {values[row, column]:#.4g}".rstrip("."))


@pytest.mark.parametrize(
    ("value", "top", "text"),
    [
        (0.0229, 0.039, "0.023"),
        (0.0229, 1.0, "0.02"),
        (-1.234, 8.0, "−1.23"),
        (12.34, 40.0, "12.3"),
        (150.2, 1.0, "150"),
    ],
)
def test_the_numbers_in_cells_have_two_digits_of_the_largest(value: float, top: float, text: str) -> None:
    assert short(value, "value", top) == text


def test_the_picture_has_the_scales_colours(qtbot: QtBot) -> None:
    values = np.array([[0.0, 1.0], [0.5, np.nan]], np.float32)
    heatmap = shown(qtbot, values, high=1.0)
    image = heatmap.grab().toImage()

    def color(row: int, column: int) -> QColor:
        return image.pixelColor(heatmap._view.rect(row, column).topLeft().toPoint() + QPoint(8, 8))

    table = ground_table(current_theme())
    assert color(0, 0) == QColor(LIGHT.surface)
    assert color(0, 1) == QColor(*table[255].tolist())
    assert color(1, 1) == QColor(LIGHT.background)


def test_the_row_that_is_chosen_is_framed_and_not_covered(qtbot: QtBot) -> None:
    heatmap = shown(qtbot, pattern(53), (260, 200))
    before = heatmap.grab().toImage()
    heatmap.choose(40, -1)
    after = heatmap.grab().toImage()
    row, view = heatmap._view.row_rect(40), heatmap._view
    assert row.height() < 4
    x = round(view.shown.center().x())
    inside = [y for y in range(before.height()) if row.top() + 0.5 <= y + 0.5 <= row.bottom() - 0.5]
    assert inside
    assert [before.pixelColor(x, y) for y in inside] == [after.pixelColor(x, y) for y in inside]
    assert before != after


def test_a_file_frames_a_cell_that_it_reads_and_no_row_that_nothing_is_said_of(qtbot: QtBot) -> None:
    heatmap = shown(qtbot, pattern(8))

    def framed() -> bool:
        image = image_of([heatmap], "A pattern")
        places = [(x, y) for x in range(0, image.width(), 2) for y in range(0, image.height(), 2)]
        return QColor(current_theme().accent).rgb() in {image.pixel(*place) for place in places}

    heatmap.choose(3, -1)
    assert not framed()
    heatmap.choose(3, 2)
    assert framed()


def test_arrow_keys_move_the_chosen_cell(qtbot: QtBot) -> None:
    heatmap = shown(qtbot, pattern(9), high=1.0)
    heatmap.clicked.connect(heatmap.choose)
    heatmap.choose(4, 4)
    for key in (Qt.Key.Key_Down, Qt.Key.Key_Left, Qt.Key.Key_Left):
        qtbot.keyClick(heatmap, key)
    assert heatmap.chosen == (5, 2)
    qtbot.mouseClick(heatmap, Qt.MouseButton.LeftButton, pos=heatmap.center_of(8, 1).toPoint())
    assert heatmap.chosen == (8, 1)


def test_its_table_has_every_number(qtbot: QtBot) -> None:
    values = pattern(3)
    header, rows = shown(qtbot, values, high=1.0).table()
    assert header == ["query", "query text", "key", "key text", "value"]
    assert rows[5] == [1, "t1", 2, "t2", values[1, 2]]
    assert len(rows) == 9


@pytest.mark.slow
def test_of_four_thousand_tokens_a_picture_of_the_views_size_is_drawn_and_kept_while_it_is_pointed_at(
    qtbot: QtBot,
) -> None:
    heatmap = shown(qtbot, pattern(4000), (900, 900), high=1.0)
    heatmap.grab()
    picture = heatmap._image
    assert picture is not None
    assert max(picture.width(), picture.height()) <= 900 * heatmap.devicePixelRatioF()
    heatmap.point_at(17, 5)
    heatmap.choose(20, 3)
    heatmap.grab()
    assert heatmap._image is picture
    heatmap._view.zoom(1.5, QPointF(300, 300))
    heatmap.grab()
    assert heatmap._image is not picture


def test_labels_are_thinned_and_marked_ones_stay(qtbot: QtBot) -> None:
    from llmlab_gui.charts.side_labels import spaced

    places = spaced(range(4000), 0.2, 15, {1234})
    assert 1234 in places
    assert all(b - a >= 74 for a, b in pairwise(places))
    assert spaced(range(576), 0.8, 13, ())[:3] == [0, 20, 40]  # and not 0, 17, 34
    assert spaced(range(20), 4.0, 13, ())[:3] == [0, 4, 8]


def test_between_labels_stands_where_others_are_left_out() -> None:
    from llmlab_gui.charts.side_labels import _gaps

    assert _gaps([0, 2, 3, 6]) == [1.0, 4.5]
    assert _gaps(range(9)) == []


def test_names_above_columns_stand_upright_where_they_fit(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    turned: list[float] = []
    monkeypatch.setattr(QPainter, "rotate", lambda _painter, angle: turned.append(angle))
    for count, turns in ((4, False), (40, True)):
        shown(qtbot, pattern(count), (400, 900)).grab()
        assert bool(turned) == turns


def test_a_map_says_what_its_rows_and_columns_are(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmlab_gui.charts import heatmap

    written: list[tuple[object, ...]] = []
    monkeypatch.setattr(heatmap, "paint_names", lambda _painter, _view, *names: written.append(names[:2]))
    shown(qtbot, pattern(4)).grab()
    assert written[-1] == ("query", "key")


def test_square_cells_are_square_and_the_view_never_leaves_the_matrix() -> None:
    from PySide6.QtCore import QRectF

    view = HeatView(square=True)
    view.set_shape((30, 90), keep=False)
    view.set_area(QRectF(50, 20, 700, 400))
    assert view.cell_width == pytest.approx(view.cell_height)
    for _ in range(20):
        view.zoom(1.3, QPointF(60, 30))
        view.pan(QPointF(500, -900))
        assert 0 <= view.rows().start < view.rows().stop <= 30
        assert 0 <= view.columns().start < view.columns().stop <= 90
    for _ in range(40):
        view.zoom(0.7, QPointF(60, 30))
    assert (len(view.rows()), len(view.columns())) == (30, 90)


# The mosaic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [3, 8, 20])
def test_a_thumbnail_keeps_its_strongest_cells_at_any_size(side: int) -> None:
    thumbs = np.random.default_rng(1).random((2, 3, 8, 8)).astype(np.float32)
    small = resized(thumbs, side)
    assert small.shape == (2, 3, side, side)
    assert (small.max((-1, -2)) == thumbs.max((-1, -2))).all()


def test_the_mosaic_puts_layers_below_and_heads_beside_one_another() -> None:
    cells = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1)
    assert grid(cells, 1).tolist() == [[0, 255, 1, 255, 2], [255] * 5, [3, 255, 4, 255, 5]]


def test_a_click_and_the_arrow_keys_choose_a_head(qtbot: QtBot) -> None:
    mosaic = Mosaic()
    qtbot.addWidget(mosaic)
    mosaic.resize(400, 400)
    mosaic.show_heads(np.random.default_rng(1).random((6, 4, 8, 8)))
    mosaic.show()
    mosaic.clicked.connect(mosaic.choose)
    qtbot.mouseClick(mosaic, Qt.MouseButton.LeftButton, pos=mosaic.rect_of(3, 2).center().toPoint())
    assert mosaic.chosen == (3, 2)
    for key in (Qt.Key.Key_Up, Qt.Key.Key_Right, Qt.Key.Key_Right):
        qtbot.keyClick(mosaic, key)
    assert mosaic.chosen == (2, 3)


def test_a_thousand_heads_are_one_picture_which_choosing_another_keeps(qtbot: QtBot) -> None:
    mosaic = Mosaic()
    qtbot.addWidget(mosaic)
    mosaic.resize(700, 700)
    mosaic.show_heads(np.random.default_rng(1).random((32, 32, 64, 64)).astype(np.float32))
    mosaic.show()
    mosaic.grab()
    picture = mosaic._image
    assert picture is not None
    mosaic.choose(3, 7)
    mosaic.grab()
    assert mosaic._image is picture


# Arcs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_arcs_name_whom_a_token_looks_at_and_draw_only_what_is_in_sight_of_long_prompts(qtbot: QtBot) -> None:
    arcs = Arcs()
    qtbot.addWidget(arcs)
    arcs.resize(500, 700)
    values = pattern(2000)
    arcs.show_pattern(values, [f"t{place}" for place in range(2000)])
    arcs.show()
    weights = arcs.weights(10)
    assert [key for key, _ in weights] == [int(key) for key in np.argsort(values[10])[::-1][: len(weights)]]
    assert weights[0][1] == values[10].max()
    assert len(arcs._in_sight()) <= 700 / arcs._line() + 2
    drawn = arcs._arcs()
    assert 0 < len(drawn) <= 1500
    assert {query for query, _, _ in drawn} <= set(arcs._in_sight())
    arcs.choose(1990)
    assert 1990 in arcs._in_sight()
    assert arcs.token_at(arcs.center_of(1990)) == 1990
