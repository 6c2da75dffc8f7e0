"""The arithmetic under the charts: smoothing, envelopes, numbers, axes, and the redraw timer."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PySide6.QtGui import QFontMetrics, QGuiApplication
from pytestqt.qtbot import QtBot

from llmlab_gui.charts import smoothing
from llmlab_gui.charts.axes import NumberAxis, chart_font
from llmlab_gui.charts.color_scale import curve_colors, sequence_colors
from llmlab_gui.charts.curve import drawn, envelope
from llmlab_gui.charts.redraw import RedrawTimer
from llmlab_gui.charts.smoothing import smooth
from llmlab_gui.widgets.numbers import duration, read_out, ticks, unbroken
from llmlab_gui.widgets.theme import current_theme

# Smoothing


def _by_definition(steps: np.ndarray, values: np.ndarray, reach: float) -> list[float]:
    """The docstring's fit, one point at a time."""
    fitted = []
    stands_for = np.diff(steps, prepend=steps[0] - 1.0)
    for at, value in zip(steps, values, strict=True):
        half = min(reach, 2 + (at - steps[0]) / 2)
        near = (np.abs(steps - at) <= half) & np.isfinite(values)
        if not math.isfinite(value) or near.sum() < 2:
            fitted.append(float(value))
            continue
        roots = np.sqrt(stands_for[near])
        line = np.stack([roots, roots * (steps[near] - at)], axis=1)
        fitted.append(float(np.linalg.lstsq(line, roots * values[near], rcond=None)[0][0]))
    return fitted


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(1, 900), st.one_of(st.floats(-1e3, 1e3), st.just(math.nan))), min_size=1, max_size=60
    ),
    st.sampled_from([5, 20, 1000]),
    st.integers(0, 59),
)
def test_a_smoothed_value_is_that_of_the_line_through_its_neighbours(
    points: list[tuple[int, float]], reach: int, begin: int
) -> None:
    steps = np.cumsum([gap for gap, _ in points]).astype(float)
    values = np.array([value for _, value in points])
    expected = _by_definition(steps, values, reach)
    rounding = 1e-7 * max(1.0, np.nanmax(np.abs(values), initial=0.0))  # of sums over all that is near
    np.testing.assert_allclose(smooth(steps, values, reach, begin=begin), expected[begin:], rtol=1e-6, atol=rounding)


@pytest.mark.parametrize("reach", [5, 20, 50_000])
def test_smoothing_leaves_a_ramp_where_it_is_up_to_both_ends(reach: int) -> None:
    steps = np.arange(1.0, 30_001.0)
    ramp = 9.0 - 2e-4 * steps
    np.testing.assert_allclose(smooth(steps, ramp, reach), ramp, rtol=1e-10)
    # Downsampled: each row has the mean of the steps since the row before, which belongs to their middle.
    every, means = steps[6::7], ramp[: len(steps) // 7 * 7].reshape(-1, 7).mean(axis=1)
    found = smooth(every, means, max(reach, 20), counts=np.full(len(every), 7.0))
    np.testing.assert_allclose(found[3:], ramp[6::7][3:], rtol=1e-10)


def test_a_smoothed_history_does_not_hang_on_how_many_rows_are_fitted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = np.arange(7.0, 2000.0, 7.0)  # downsampled: a mean may reach into the rows before the next block
    means, counts = np.random.default_rng(0).normal(size=len(steps)), np.full(len(steps), 7.0)
    whole = smooth(steps, means, 20, counts=counts)
    monkeypatch.setattr(smoothing, "_BLOCK_ROWS", 50)
    np.testing.assert_allclose(smooth(steps, means, 20, counts=counts), whole, rtol=1e-9)


def test_smoothing_shifts_a_parabola_by_a_bounded_amount() -> None:
    steps = np.arange(1.0, 4001.0)
    bend, reach = 2e-6, 50
    off = np.abs(smooth(steps, bend * (steps - 1500) ** 2 / 2, reach) - bend * (steps - 1500) ** 2 / 2)
    halves = np.minimum(reach, 2 + (steps - 1) / 2)
    assert np.all(off <= bend * (halves + 1) ** 2 / 6)
    assert off[-1] <= bend * reach**2 / 12


def test_a_smoothed_fall_is_where_the_data_are() -> None:
    steps = np.arange(1.0, 301.0)
    fall = 2.0 + 6.0 * np.exp(-steps / 30)
    found = smooth(steps, fall, 20)
    assert np.abs(found - fall)[[0, 9, 49, 299]].max() < 0.1
    assert np.abs(found - fall).max() < 0.2  # an average of the steps before is up to 1.1 off


# Envelopes


def test_few_points_are_drawn_as_they_are() -> None:
    x, y = np.arange(100.0), np.random.default_rng(0).random(100)
    drawn_x, drawn_y = envelope(x, y, 0.0, 99.0, 200)
    assert np.array_equal(drawn_x, x)
    assert np.array_equal(drawn_y, y)


@settings(max_examples=60)
@given(
    st.integers(2000, 6000),
    st.integers(10, 300),
    st.floats(0.0, 0.9),
    st.floats(0.01, 1.0),
    st.booleans(),
    st.integers(0, 1_000_000),
)
def test_no_spike_in_view_vanishes(count: int, pixels: int, begin: float, width: float, log_x: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = np.cumsum(random.random(count)) + 1.0
    y = random.standard_normal(count)
    low = x[0] + begin * (x[-1] - x[0])
    high = low + width * (x[-1] - low)
    drawn_x, drawn_y = envelope(x, y, low, high, pixels, log_x=log_x)
    inside = (x >= low) & (x <= high)
    if inside.any():
        assert drawn_y.max() >= y[inside].max()
        assert drawn_y.min() <= y[inside].min()
    assert np.all(np.diff(drawn_x) >= 0)
    assert set(drawn_y.tolist()) <= set(y.tolist())
    assert len(drawn_x) <= 4 * pixels + 4


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_straight_line_of_many_points_is_drawn_straight(sign: float) -> None:
    x = np.arange(10_000.0)
    drawn_x, drawn_y = envelope(x, sign * x, 0.0, 9_999.0, 200)
    assert len(drawn_x) < 500
    assert np.array_equal(drawn_y, sign * drawn_x)


def test_a_gap_stays_a_gap_among_many_points() -> None:
    x = np.arange(100_000.0)
    y = np.ones(100_000)
    y[50_000] = math.nan
    places, values = envelope(x, y, 0.0, 99_999.0, 500)
    assert np.isnan(values).sum() == 1
    assert abs(places[np.isnan(values)][0] - 50_000) <= 200


def test_log_leaves_out_what_is_not_above_zero() -> None:
    assert np.array_equal(drawn(np.array([-1.0, 0.0, 1.0, 100.0, math.nan]), True)[2:4], [0.0, 2.0])
    assert np.isnan(drawn(np.array([-1.0, 0.0]), True)).all()
    values = np.array([-1.0, 0.0])
    assert drawn(values, False) is values


# Numbers and axes


@pytest.mark.parametrize(
    ("value", "spacing", "kind", "text"),
    [
        (0.0, 500.0, "count", "0"),
        (1500.0, 500.0, "count", "1.5k"),
        (2_000_000.0, 1_000_000.0, "count", "2M"),
        (2.2, 0.2, "value", "2.2"),
        (0.0003, 0.0001, "value", "3e-4"),
        (0.00025, 0.00005, "value", "2.5e-4"),
        (0.0216, 0.0002, "value", "0.0216"),
        (3.2885, 0.0005, "value", "3.2885"),
        (90.0, 30.0, "seconds", "1 min 30 s"),
        (90_000.0, 43_200.0, "seconds", "1 d 1 h"),
        (91_200.0, 600.0, "seconds", "1 d 1 h 20 min"),
        (90_030.0, 30.0, "seconds", "1 d 1 h 30 s"),
        (10_000.0, 10_000.0, "seconds", "2 h 46 min"),
    ],
)
def test_ticks_have_as_many_digits_as_they_need(value: float, spacing: float, kind: str, text: str) -> None:
    assert ticks([value], spacing, kind) == [text]


@pytest.mark.parametrize(
    ("values", "spacing", "texts"),
    [
        ([0.009, 0.0095, 0.01], 0.0005, ["0.0090", "0.0095", "0.0100"]),
        ([0.0, 0.0005, 0.001], 0.0005, ["0", "5e-4", "1.0e-3"]),
        ([8e5, 1e6], 2e5, ["8e5", "1.0e6"]),
        ([1e-4, 1e-3, 0.02, 1.0], None, ["1e-4", "1e-3", "2e-2", "1e0"]),
        ([0.001, 0.02, 10.0], None, ["0.001", "0.02", "10"]),
    ],
)
def test_the_numbers_of_an_axis_have_one_notation(values: list[float], spacing: float | None, texts: list[str]) -> None:
    assert ticks(values, spacing, "value") == texts


def test_no_line_breaks_between_a_number_and_its_unit() -> None:
    joined = "About 1\u00a0h 30\u00a0min · 9.7\u00a0MB a checkpoint (14\u00a0%), 5 kept, 1.54M tokens"
    assert unbroken(joined.replace("\u00a0", " ")) == joined


def test_read_outs_are_sensible() -> None:
    assert read_out(1234567.0, "count") == "1,234,567"
    assert read_out(1.23456789, "value") == "1.235"
    assert read_out(1.35, "value") == "1.350"
    assert read_out(1234.4, "value") == "1234"
    assert read_out(24087.88, "value") == "24,088"
    assert read_out(41.26, "percent") == "41.3 %"
    assert read_out(math.nan, "value") == "–"
    assert [duration(s) for s in (0.25, 59.0, 60.0, 5400.0, 90_000.0, 604_800.0)] == [
        "0.25 s",
        "59 s",
        "1 min",
        "1 h 30 min",
        "1 d 1 h",
        "7 d",
    ]


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.62), (-4.0, -3.0), (0.0, 6.0), (-310.0, 310.0), (0.30, 0.31)])
def test_log_axes_always_have_labelled_ticks(qtbot: QtBot, low: float, high: float) -> None:
    axis = NumberAxis("left")
    axis.setLogMode(y=True)
    (spacing, labelled), *_ = axis.tickValues(low, high, 400)
    texts = axis.tickStrings(labelled, 1.0, spacing)
    assert len(labelled) >= 2
    assert len(set(texts)) == len(texts)


def test_labels_of_a_log_axis_do_not_touch_however_low_it_is(qtbot: QtBot) -> None:
    axis = NumberAxis("left", "count")
    axis.setLogMode(y=True)
    line = QFontMetrics(QGuiApplication.font()).height()
    for low, high in ((0.0, 1.2), (0.0, 2.3), (-0.1, 3.2), (0.0, 4.7), (-3.0, 9.0)):
        for size in (40, 60, 90, 140, 300):
            labelled = sorted(axis.tickValues(low, high, size)[0][1])
            assert labelled
            apart = np.diff(labelled) * size / (high - low)
            assert np.all(apart >= line), (low, high, size)


@pytest.mark.parametrize("log", [False, True])
def test_every_axis_has_three_labels_at_least_and_none_touches_another(qtbot: QtBot, log: bool) -> None:
    line = QFontMetrics(chart_font()).height()
    for low, high in product((0.002, 0.3, 1.05, 3.8, 4.4, 7.1), (1.02, 1.08, 1.2, 1.5, 2.3, 5.0, 7.9, 9.0, 30.0)):
        ends = (math.log10(low), math.log10(low * high)) if log else (low, low * high)
        axis = NumberAxis("left")
        axis.setLogMode(y=log)
        for size in (110, 150, 220, 400):
            shown = sorted(at for at in axis.tickValues(*ends, size)[0][1] if ends[0] <= at <= ends[1])
            assert len(shown) >= 3, (low, high, size)
            assert np.all(np.diff(shown) * size / (ends[1] - ends[0]) >= line - 1e-6), (low, high, size)


@pytest.mark.parametrize("kind", ["count", "seconds", "value"])
def test_a_narrow_chart_says_more_of_its_horizontal_axis_than_0(qtbot: QtBot, kind: str) -> None:
    for high in (40.0, 402.0, 990.0, 1100.0, 2010.0, 60_300.0):
        axis = NumberAxis("bottom", kind)
        shown = axis.tickValues(0.0, high, 160)[0][1]
        assert len([at for at in shown if 0 <= at <= high]) >= 2, high


@pytest.mark.parametrize(
    ("where", "low", "high", "size"),
    [
        ("left", 0.0, 3.3, 130),
        ("bottom", 117_400.0, 125_200.0, 300),
        ("bottom", 90_000.0, 93_000.0, 600),
        ("bottom", 90_000.0, 90_040.0, 600),
        ("bottom", 3_600.0, 3_602.0, 600),
        ("bottom", 201_521.0, 201_529.0, 600),
        ("bottom", 10_746.0, 10_802.0, 200),
        ("bottom", 10.56, 10.64, 600),
    ],
)
def test_finer_ticks_of_a_time_axis_are_not_written_alike(
    qtbot: QtBot, where: str, low: float, high: float, size: float
) -> None:
    axis = NumberAxis(where, "seconds")
    (step, values), *_ = axis.tickValues(low, high, size)
    written = axis.tickStrings(values, 1.0, step)
    assert len(set(written)) == len(written) > 0
    if where == "bottom":
        widest = max(map(QFontMetrics(chart_font()).horizontalAdvance, written))
        assert step * size / (high - low) >= widest


@pytest.mark.parametrize("size", [120, 200, 300, 600])
def test_times_below_a_logarithmic_axis_neither_touch_nor_read_alike(qtbot: QtBot, size: int) -> None:
    axis = NumberAxis("bottom", "seconds")
    axis.setLogMode(x=True)
    near = (math.log10(1192.1), math.log10(1193.9)), (math.log10(251_943), math.log10(255_974))
    for low, high in ((0.0, 4.2), (1.0, 5.0), (2.5, 4.4), (-1.0, 6.0), (3.3, 4.1), *near):
        (step, shown), *_ = axis.tickValues(low, high, size)
        texts = axis.tickStrings(shown, 1.0, step)
        assert len(set(texts)) == len(texts)
        widths = [QFontMetrics(chart_font()).horizontalAdvance(text) for text in texts]
        places = np.array(shown) * size / (high - low)
        assert all(
            (one + other) / 2 <= apart
            for one, other, apart in zip(widths[:-1], widths[1:], np.diff(places), strict=True)
        ), (low, high, texts)


def test_a_logarithmic_axis_of_time_is_divided_as_a_clock_is(qtbot: QtBot) -> None:
    axis = NumberAxis("bottom", "seconds")
    axis.setLogMode(x=True)
    (step, shown), *_ = axis.tickValues(math.log10(2.5), math.log10(110_000), 920)
    assert axis.tickStrings(shown, 1.0, step) == ["10 s", "1 min", "10 min", "1 h", "10 h", "1 d"]
    (step, shown), *_ = axis.tickValues(math.log10(0.08), math.log10(70), 920)
    assert axis.tickStrings(shown, 1.0, step)[:5] == ["0.1 s", "0.2 s", "0.5 s", "1 s", "2 s"]
    for low in range(8, 12):  # years, as where a clock was set in between
        assert axis.tickValues(low + 0.4, low + 1.4, 920)[0][1]


def test_a_logarithmic_axis_between_ends_that_are_the_same_number_has_no_ticks(qtbot: QtBot) -> None:
    axis = NumberAxis("bottom")
    axis.setLogMode(x=True)
    low = 0.001
    assert axis.logTickValues(low, math.nextafter(low, 3.0), 300, None) == []


def test_a_thousand_is_written_alike_whatever_the_distance_of_the_ticks() -> None:
    assert [ticks([1000.0], spacing, "count") for spacing in (50.0, 500.0, 1000.0)] == [["1k"]] * 3
    assert ticks([1500.0, 10_000.0], 500.0, "count") == ["1.5k", "10k"]


@pytest.mark.parametrize(("high", "size"), [(90.0, 600), (5400.0, 600), (604_800.0, 600), (6e6, 300), (3.0, 600)])
def test_time_axes_have_a_handful_of_ticks(qtbot: QtBot, high: float, size: float) -> None:
    axis = NumberAxis("bottom", "seconds")
    (spacing, labelled), *_ = axis.tickValues(0.0, high, size)
    assert 2 <= len(labelled) <= 12
    assert len(set(axis.tickStrings(labelled, 1.0, spacing))) == len(labelled)


# The redraw timer


class FakeChart:
    """Counts its redraws."""

    def __init__(self, visible: bool) -> None:
        self.visible = visible
        self.dirty = False
        self.redraws = 0

    def isVisible(self) -> bool:
        return self.visible

    def redraw_if_dirty(self) -> None:
        self.redraws += 1
        self.dirty = False


def test_only_visible_charts_that_are_out_of_date_redraw(qtbot: QtBot) -> None:
    timer = RedrawTimer()
    charts = [FakeChart(True), FakeChart(True), FakeChart(False)]
    for chart in charts:
        timer.register(chart)
    charts[0].dirty = charts[2].dirty = True
    timer.wake()
    qtbot.waitUntil(lambda: charts[0].redraws == 1)
    # With nothing left to do it rests.
    qtbot.waitUntil(lambda: not timer._timer.isActive())
    assert [chart.redraws for chart in charts] == [1, 0, 0]
    charts[2].visible = True
    timer.wake()
    qtbot.waitUntil(lambda: charts[2].redraws == 1)


def test_charts_that_are_always_out_of_date_redraw_in_turns(qtbot: QtBot) -> None:
    timer, charts = RedrawTimer(), [FakeChart(True), FakeChart(True)]
    for chart in charts:
        timer.register(chart)
    for _ in range(4):
        for chart in charts:
            chart.dirty = True
        timer._tick()
    assert [chart.redraws for chart in charts] == [2, 2]


def test_a_chart_that_is_gone_is_forgotten(qtbot: QtBot) -> None:
    timer = RedrawTimer()
    chart = FakeChart(True)
    timer.register(chart)
    chart.dirty = True
    del chart
    timer.wake()
    qtbot.waitUntil(lambda: not timer._timer.isActive())


def test_slow_charts_are_given_longer_rests(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("llmlab_gui.charts.redraw.time.perf_counter", lambda: clock[0])
    timer = RedrawTimer()
    chart = FakeChart(True)
    timer.register(chart)
    for seconds, interval in ((0.020, 100), (0.001, 33), (2.0, 250)):
        chart.dirty = True
        timer._tick()
        clock[0] += seconds
        qtbot.waitUntil(lambda wanted=interval: timer._timer.interval() == wanted)


# Colours of curves ------------------------------------------------------------------------------------------------


def test_only_values_of_one_quantity_have_the_colours_of_a_scale() -> None:
    rates = ["0.0001", "3e-4", "0.001", "0.003", "0.01"]
    ranks = [f"rank {rank}" for rank in (1, 2, 4, 8, 16)]
    methods = ["full", "lora", "dora", "ia3", "prompt"]
    assert curve_colors(rates) == curve_colors(ranks) == sequence_colors(5)
    assert curve_colors(rates[:4]) == curve_colors(methods)[:4]
    assert [color.name() for color in curve_colors(methods)] == list(current_theme().series[:5])
