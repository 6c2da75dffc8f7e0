"""Figures show what a chart says: its points, intervals and notes, in the colours that tell its series apart."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest

from llmlab.core.charts import FAINT, FIT, LINE, MEASURED, POINTS, Axis, Chart, Note, NotedChart, Series, have_order
from llmlab.core.figures import chart_figure, save_figure
from llmlab.store.events import NATS
from llmlab.studies.experiments.outcomes import Chart as ExperimentChart
from llmlab.studies.experiments.outcomes import Curve, Point

STEPS, LOSS = Axis("step", "steps"), Axis("loss", NATS)


def test_names_have_an_order_that_differ_in_a_number_and_its_plural() -> None:
    assert have_order(["1 head", "2 heads", "4 heads"])
    assert have_order(["rank 4", "rank 8"])
    assert not have_order(["1 head", "2 layers"])
    assert not have_order(["AdamW", "Muon"])


def of_kind(kind: str) -> Chart:
    return Chart("c", "C", STEPS, LOSS, [Series("s", [1.0, 2.0], [3.0, 2.0], kind, [2.5, 1.5], [3.5, 2.5])])


@pytest.mark.parametrize("kind", [MEASURED, FAINT, POINTS, LINE, FIT])
def test_an_interval_is_a_bar_at_each_measured_point_and_a_band_along_a_line(kind: str) -> None:
    (axes,) = chart_figure(of_kind(kind) if kind != FIT else _with_curve(of_kind(kind))).axes
    assert bool(axes.containers) == (kind in (MEASURED, FAINT, POINTS))
    if kind in (MEASURED, FAINT, POINTS):
        (segments,) = [one.get_segments() for one in axes.containers[0].lines[2]]
        assert [segment[:, 1].tolist() for segment in segments] == [[2.5, 3.5], [1.5, 2.5]]


def _with_curve(chart: Chart) -> Chart:
    return Chart("c", "C", STEPS, LOSS, [Series("measured", [1.0], [3.0], MEASURED), *chart.series])


def test_a_chart_of_an_experiment_says_its_points_marks_and_limit() -> None:
    points = [Point(1.0, 2.0, 1.5, 2.5, 2, label="two runs"), Point(2.0, 9.0, label="step 2"), Point(3.0, math.inf)]
    chart = ExperimentChart("c", "C", STEPS, LOSS, [Curve("s", points)])
    drawn = chart.drawn(start=4.0)
    assert drawn.notes == [Note(1.0, "two runs", 2.0)]
    (axes,) = chart_figure(drawn).axes
    assert axes.get_ylim()[1] == pytest.approx(4.4)  # the run that diverged does not squeeze the others
    assert [text.get_text() for text in axes.texts] == ["two runs"]
    assert chart.drawn(start=None).top is None


def test_a_figure_is_written_twice_as_the_same_bytes_with_150_pixels_an_inch(tmp_path: Path) -> None:
    first, second = (
        [path.read_bytes() for path in save_figure(chart_figure(of_kind(LINE)), tmp_path, "c")] for _ in "12"
    )
    assert first == second
    inches = chart_figure(of_kind(LINE)).get_size_inches()
    assert struct.unpack(">II", first[0][16:24]) == tuple((150 * inches).round())  # a PNG's width and height in pixels


@pytest.mark.parametrize(("count", "hues"), [(4, "#0072b2"), (5, "#440154")])
def test_more_than_four_measured_curves_have_the_colours_of_a_scale(count: int, hues: str) -> None:
    from matplotlib.colors import to_hex

    series = [Series(str(at), [1.0, 2.0], [at, at], MEASURED) for at in range(count)]
    (axes,) = chart_figure(NotedChart("c", "C", STEPS, LOSS, series)).axes
    assert to_hex(axes.lines[0].get_color()) == hues
    assert len({to_hex(line.get_color()) for line in axes.lines}) == count


@pytest.mark.parametrize(("last", "ticks"), [(30, [0, 5, 10, 15, 20, 25, 30]), (3, [0, 1, 2, 3])])
def test_whole_numbers_have_round_ticks_and_no_halves(last: int, ticks: list[int]) -> None:
    figure = chart_figure(Chart("c", "C", STEPS, LOSS, [Series("s", [0.0, last], [3.0, 2.0])]))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [tick for tick in axes.get_xticks() if 0 <= tick <= last] == ticks


@pytest.mark.parametrize(
    ("x", "texts"), [([3e-4, 1e-3, 1e-2], ["3e-4", "1e-3", "1e-2"]), ([0.003, 1.0, 3e4], ["0.003", "1", "30k"])]
)
def test_the_values_below_a_logarithmic_axis_have_one_notation(x: list[float], texts: list[str]) -> None:
    figure = chart_figure(Chart("c", "C", Axis("rate", log=True), LOSS, [Series("s", x, [3.0, 2.0, 1.0])]))
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == texts
