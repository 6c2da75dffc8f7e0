"""The chart docks show what the histories hold, for every shown run, in every theme."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import shiboken6
from fake_lab import FakeLab
from fakes import FakeRun
from PySide6.QtCore import QPointF, QSettings, Qt, Signal
from PySide6.QtGui import QColor, QImage
from PySide6.QtWidgets import QApplication, QMainWindow, QScrollArea, QWidget
from pytestqt.qtbot import QtBot
from windows import shown, wait_until_freed

from llmlab.core.errors import LabError
from llmlab.core.signs import minus
from llmlab.data.example_preview import BatchText
from llmlab.store.events import Evaluated, Finished, Shared, Started, StepEvent
from llmlab.store.history import RunHistory
from llmlab.studies.experiments.curves import find_spikes
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.charts.panel import ChartChoices
from llmlab_gui.charts.redraw import RedrawTimer
from llmlab_gui.charts.smoothing import smooth
from llmlab_gui.host.process import Request
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.train.chart_dock import ChartDock
from llmlab_gui.train.loss import LossDock, gap_note
from llmlab_gui.train.step_charts import LearningRateDock, ThroughputDock
from llmlab_gui.widgets.theme import DARK, LIGHT, apply_theme, mix, theme_notifier

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


class FakeChartLab(FakeLab):
    """A FakeLab that also knows which runs are overlaid, and in which colours."""

    said = Signal(str)

    def __init__(self, outputs: Path) -> None:
        super().__init__(outputs)
        self.redraw = RedrawTimer(self)

    def shown_runs(self) -> list[str]:
        others = [row.id for row in self.runs() if row.id != self._current]
        return ([self._current] if self._current else []) + others

    def color(self, run_id: str) -> QColor:
        return QColor(COLORS[list(self._fakes).index(run_id)])


@pytest.fixture
def lab(tmp_path: Path, qtbot: QtBot) -> Iterator[FakeChartLab]:
    fake = FakeChartLab(tmp_path)
    yield fake
    fake.redraw.stop()


def _shown(dock: ChartDock, qtbot: QtBot) -> ChartDock:
    shown(dock, qtbot, 700, 500)
    return dock


def _points(chart: LineChart, key: str) -> tuple[list[float], list[float]]:
    curve = chart.curves()[key]
    return curve.x.tolist(), curve.y.tolist()


def _unread(dock: ChartDock, size: tuple[int, int], qtbot: QtBot) -> list[tuple[str, float]]:
    """In a dock of that size: the charts whose curves are lower than 60 pixels, or whose axis has no whole name."""
    dock.resize(*size)
    QApplication.processEvents()
    _wait(dock, qtbot)
    charts = [(chart, chart._shown_name, chart.getPlotItem().getViewBox().height()) for chart in dock.panel.charts]
    return [(chart.y_label, high) for chart, name, high in charts if high < 60 or not name or name.endswith("…")]


def _wait(dock: ChartDock, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: not dock.panel.dirty)


def test_loss_shows_exactly_what_the_events_say(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock = LossDock(lab)
    _shown(dock, qtbot)
    fake = lab.add(FakeRun(tmp_path, steps=2000, floor_loss=1.1).start().advance(600))
    _wait(dock, qtbot)
    steps = [event for event in fake.written if isinstance(event, StepEvent)]
    evaluated = [event for event in fake.written if isinstance(event, Evaluated)]
    assert _points(dock.chart, "pretraining/fake/train") == ([e.step for e in steps], [e.loss for e in steps])
    assert _points(dock.chart, "pretraining/fake/val") == ([e.step for e in evaluated], [e.val_loss for e in evaluated])
    assert _points(dock.chart, "pretraining/fake/evaluated")[1] == [e.train_loss for e in evaluated]
    labels = [line.label for line, _ in dock.chart.marks.lines]
    assert [label.split(":")[0] for label in labels] == ["uniform 4.17", "unigram 3.34", "floor 1.10"]
    gap = evaluated[-1].val_loss - evaluated[-1].train_loss
    assert gap_note(lab.history("pretraining/fake")) == f"validation − train: {minus(f'{gap:+.3f}')}"


def test_the_first_steps_of_a_run_never_come_with_the_curves_of_the_run_before(
    lab: FakeChartLab, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "shown_runs", lambda: [lab._current] if lab._current else [])
    dock = LossDock(lab)
    _shown(dock, qtbot)
    lab.add(FakeRun(tmp_path, "before", steps=200).start().advance(100))
    lab.set_current("pretraining/before")
    _wait(dock, qtbot)
    assert "pretraining/before/train" in dock.chart.curves()
    fake = lab.add(FakeRun(tmp_path, "now", steps=200).start())
    lab.set_current("pretraining/now")
    assert not dock.panel.isVisible()
    fake.advance(5)
    lab.pump(fake)
    assert dock.panel.isVisible()
    assert "pretraining/now/train" in dock.chart.curves()
    assert "pretraining/before/train" not in dock.chart.curves()


def test_losses_of_different_tokens_are_shown_in_bits_per_byte(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock = LossDock(lab)
    _shown(dock, qtbot)
    char = lab.add(FakeRun(tmp_path, "char", bytes_per_token=1.0).start().advance(30))
    _wait(dock, qtbot)
    assert dock.chart.y_unit == "nats per token"
    lab.add(FakeRun(tmp_path, "bpe", tokenizer="bpe", vocab_size=512, bytes_per_token=2.7).start().advance(30))
    _wait(dock, qtbot)
    assert dock.chart.y_unit == "bits per byte"
    assert dock.unit.button.isChecked()
    assert "tokens differ" in dock.panel._note.text()
    for name, size in (("char", 1.0), ("bpe", 2.7)):
        loss = lab.history(f"pretraining/{name}").step_columns["loss"]
        np.testing.assert_allclose(_points(dock.chart, f"pretraining/{name}/train")[1], loss / math.log(2) / size)
    uniform = dock.chart.marks.lines[0][0]
    assert uniform.value == pytest.approx(math.log2(lab.history(lab.shown_runs()[0]).started.vocab_size) / 2.7)
    dock.unit.button.click()  # by hand: nats again, as long as these are shown
    _wait(dock, qtbot)
    assert dock.chart.y_unit == "nats per token"
    assert _points(dock.chart, "pretraining/char/train")[1] == [
        e.loss for e in char.written if isinstance(e, StepEvent)
    ]
    lab.add(FakeRun(tmp_path, "old", tokenizer="bpe", vocab_size=512).start().advance(30))
    dock.unit.button.click()
    _wait(dock, qtbot)
    assert "pretraining/old/train" not in dock.chart.curves()
    lab.add(FakeRun(tmp_path, "soon", tokenizer="bpe", vocab_size=512))
    dock.panel.mark_dirty()
    _wait(dock, qtbot)
    assert "old: bytes per token unknown" in dock.chart.legend.names
    assert "soon" in dock.chart.legend.names  # which has not said yet what its tokens are


def test_the_smoothed_curve_is_kept_up_live_and_after_a_cut(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock = LossDock(lab)
    _shown(dock, qtbot)
    fake = lab.add(FakeRun(tmp_path, steps=2000).start().advance(300))
    _wait(dock, qtbot)
    fake.advance(200)
    lab.pump(fake)
    _wait(dock, qtbot)
    live = _points(dock.chart, "pretraining/fake/smoothed")
    assert np.allclose(live[1], _smoothed(lab.history("pretraining/fake"), dock.panel.memory), rtol=1e-12)
    fake.resume_from(250).advance(250)
    began = next(i for i, event in enumerate(fake.written) if isinstance(event, Started) and event.attempt == 2)
    # As many steps as before the cut, with other losses from it on.
    other = [replace(e, loss=e.loss + 1.0) if isinstance(e, StepEvent) else e for e in fake.written[began:]]
    assert lab.history("pretraining/fake").extend(other)
    lab.history_reset.emit("pretraining/fake")
    _wait(dock, qtbot)
    again = _points(dock.chart, "pretraining/fake/smoothed")
    assert len(live[0]) == len(again[0]) == 500
    kept = 250 - dock.panel.memory  # later ones look beyond the cut
    assert np.allclose(again[1][:kept], live[1][:kept], rtol=1e-12)
    assert np.allclose(again[1], _smoothed(lab.history("pretraining/fake"), dock.panel.memory), rtol=1e-12)
    assert np.all(np.array(again[1][300:]) > np.array(live[1][300:]) + 0.5)


def test_another_smoothing_is_computed_anew(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock = LossDock(lab)
    _shown(dock, qtbot)
    lab.add(FakeRun(tmp_path).start().advance(100))
    for memory in (20, 100, 20):
        dock.panel.set_memory(memory)
        _wait(dock, qtbot)
        assert np.allclose(
            _points(dock.chart, "pretraining/fake/smoothed")[1],
            _smoothed(lab.history("pretraining/fake"), memory),
            rtol=1e-12,
        )


def _smoothed(history: RunHistory, memory: int) -> np.ndarray:
    """A whole history at once."""
    return smooth(history.step_columns["step"], history.step_columns["loss"], memory)


@pytest.mark.parametrize(("steps", "best"), [(500, 500), (2000, 1250)])
def test_best_and_final_validation_are_marked_where_they_are(
    lab: FakeChartLab, qtbot: QtBot, tmp_path: Path, steps: int, best: int
) -> None:
    dock = LossDock(lab)
    _shown(dock, qtbot)
    fake = lab.add(FakeRun(tmp_path, steps=2000).start().advance(steps))
    _wait(dock, qtbot)
    assert "pretraining/fake/final" not in dock.chart.curves()
    fake.finish()
    lab.pump(fake)
    _wait(dock, qtbot)
    finished = fake.written[-1]
    assert isinstance(finished, Finished)
    assert finished.best_step == best
    assert _points(dock.chart, "pretraining/fake/best") == ([finished.best_step], [finished.best_val_loss])
    if best == steps:  # one mark for one place
        assert "pretraining/fake/final" not in dock.chart.curves()
    else:
        assert _points(dock.chart, "pretraining/fake/final") == ([steps], [finished.val_loss])


@pytest.mark.parametrize("make", [LossDock, LearningRateDock])
def test_charts_show_where_the_run_paused(
    make: type[LossDock | LearningRateDock], lab: FakeChartLab, qtbot: QtBot, tmp_path: Path
) -> None:
    dock = make(lab)
    _shown(dock, qtbot)
    lab.add(FakeRun(tmp_path).start().advance(40).pause().unpause().advance(10))
    _wait(dock, qtbot)
    for chart in [dock.chart] if isinstance(dock, LossDock) else [dock.rate_chart, dock.norm_chart]:
        assert [(span.low, span.high) for span, _ in chart.marks.spans] == [(40.0, 40.0)]


def test_a_chart_remembers_its_axes_and_smoothing(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    settings = WindowSettings(tmp_path / "window.ini")
    first, other = LossDock(lab), LearningRateDock(lab)
    for dock in (first, other):
        qtbot.addWidget(dock)
        dock.remember(settings)
    first.panel.set_x_axis("tokens")
    first.panel.set_log(x=False, y=True)
    first.panel.set_memory(500)
    again = LossDock(lab)
    qtbot.addWidget(again)
    before = other.panel.choices
    again.remember(WindowSettings(tmp_path / "window.ini"))
    assert again.panel.choices == ChartChoices("tokens", log_x=False, log_y=True, memory=500)
    assert again.chart.log_y
    assert other.panel.choices == before  # each dock has its own


@pytest.mark.parametrize("kept", ["", "null", "[]", "7", '{"x_axis": 5}', '{"x_axis": "nothing"}', "{"])
def test_choices_that_make_no_sense_change_nothing(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path, kept: str) -> None:
    file = QSettings(str(tmp_path / "window.ini"), QSettings.Format.IniFormat)
    file.setValue("pretraining/charts/loss", kept)
    file.sync()
    dock = LossDock(lab)
    qtbot.addWidget(dock)
    dock.remember(WindowSettings(tmp_path / "window.ini"))
    assert dock.panel.choices.x_axis == "step"


def test_smoothing_off_leaves_the_raw_curve_alone(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock = LossDock(lab)
    _shown(dock, qtbot)
    lab.add(FakeRun(tmp_path).start().advance(50))
    dock.panel.set_memory(0)
    _wait(dock, qtbot)
    assert set(dock.chart.curves()) == {"pretraining/fake/train", "pretraining/fake/val", "pretraining/fake/evaluated"}
    assert dock.chart.curves()["pretraining/fake/train"].style.alpha == 255


def test_runs_are_overlaid_in_their_colours_and_leave_when_deselected(
    lab: FakeChartLab, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dock = LossDock(lab)
    _shown(dock, qtbot)
    lab.add(FakeRun(tmp_path, "first", seed=1).start().advance(300))
    lab.add(FakeRun(tmp_path, "second", seed=2).start().advance(300))
    _wait(dock, qtbot)
    curves = dock.chart.curves()
    assert curves["pretraining/first/train"].style.color == QColor(COLORS[0])
    assert curves["pretraining/second/train"].style.color == QColor(COLORS[1])
    assert (
        curves["pretraining/second/train"].style.z > curves["pretraining/first/val"].style.z
    )  # the current run is in front
    assert dock.chart.legend.names[:2] == ["second", "first"]
    widths = {entry.label: (entry.width, entry.edge) for entry in dock.chart._entries}
    for key in ("smoothed", "val"):  # as thick in the legend as the line of the run in front, not as that behind it
        style = curves[f"pretraining/second/{key}"].style
        assert widths[style.label] == (style.width, 0.0)
        assert curves[f"pretraining/first/{key}"].style.edge > 0
    monkeypatch.setattr(lab, "shown_runs", lambda: ["pretraining/second"])
    lab.shown_runs_changed.emit()
    _wait(dock, qtbot)
    assert {key.rpartition("/")[0] for key in dock.chart.curves()} == {"pretraining/second"}


def test_of_two_runs_with_equal_losses_both_are_seen(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock = LossDock(lab)
    _shown(dock, qtbot)
    for name in ("first", "second"):
        lab.add(FakeRun(tmp_path, name, seed=1).start().advance(300))
    _wait(dock, qtbot)
    view = dock.chart.getPlotItem().getViewBox().sceneBoundingRect().toRect()
    image = dock.chart.grab(view).toImage().convertToFormat(QImage.Format.Format_RGB32)
    pixels = np.frombuffer(image.constBits(), np.uint32)
    assert min(np.sum(pixels == QColor(color).rgb()) for color in COLORS[:2]) > 0.45 * view.width()


class BatchHost:
    """A model's process that is asked what steps read."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.requests: list[Request] = []

    def batch(self, run: str, step: int) -> Request:
        self.asked.append((run, step))
        self.requests.append(Request(lambda: None))
        return self.requests[-1]

    def shutdown(self) -> None:
        pass


def test_the_text_of_the_highest_spike_is_one_command_away_and_that_of_any_step_a_click_or_a_key(
    lab: FakeChartLab, qtbot: QtBot, tmp_path: Path
) -> None:
    dock, host = LossDock(lab), BatchHost()
    lab.inspection.host = host
    _shown(dock, qtbot)
    fake = FakeRun(tmp_path, steps=200).start().advance(120)
    spike = next(place for place, one in enumerate(fake.written) if isinstance(one, StepEvent) and one.step == 70)
    fake.written[spike] = replace(fake.written[spike], loss=9.0)
    lab.add(fake)
    _wait(dock, qtbot)
    view = dock.batch
    dock.chart.chosen.emit(40.0)
    assert not host.asked  # a click alone asks for nothing
    view.begin()
    assert host.asked == [(str(fake.run.path), 70)]
    host.requests[-1].end(host.requests[-1].answered, (BatchText("never\nseen", 9.0), BatchText("known", 2.0)))
    assert "A spike: loss 9" in view.words.text()
    assert [view.rows.item(row).text() for row in range(2)] == ["9.000   never⏎ seen", "2.000   known"]
    plot = dock.chart.getPlotItem().getViewBox()
    QApplication.processEvents()
    place = dock.chart.mapFromScene(plot.mapViewToScene(QPointF(100.0, plot.viewRect().center().y())))
    qtbot.mouseClick(dock.chart.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert abs(host.asked[-1][1] - 100) <= 1
    qtbot.keyClick(dock.chart, Qt.Key.Key_Right)
    qtbot.keyClick(dock.chart, Qt.Key.Key_Return)
    assert host.asked[-1][1] == 1
    view.step.setValue(33)
    assert host.asked[-1][1] == 33
    host.requests[-1].end(host.requests[-1].failed, LabError("mine.txt is not what it was."))
    assert view.words.text() == "mine.txt is not what it was."
    view.step.setValue(70)
    qtbot.mouseClick(view.further, Qt.MouseButton.LeftButton)
    assert host.asked[-1][1] == find_spikes(lab.history(fake.run.full_name), 0.0)[1].step
    view.button.click()
    assert not view.isVisible()


def test_the_batch_that_is_shown_is_of_a_step_that_the_run_has(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock, host = LossDock(lab), BatchHost()
    lab.inspection.host = host
    _shown(dock, qtbot)
    fake = lab.add(FakeRun(tmp_path, steps=200).start().advance(120))
    _wait(dock, qtbot)
    dock.batch.begin()
    dock.batch.step.setValue(115)
    fake.resume_from(100)
    lab.reload(fake)
    _wait(dock, qtbot)
    assert host.asked[-1][1] == 100


def test_learning_rate_and_gradient_norm_have_the_clip_line(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock = LearningRateDock(lab)
    _shown(dock, qtbot)
    fake = lab.add(FakeRun(tmp_path).start().advance(100))
    _wait(dock, qtbot)
    steps = [event for event in fake.written if isinstance(event, StepEvent)]
    assert _points(dock.rate_chart, "pretraining/fake/lr")[1] == [e.lr for e in steps]
    assert _points(dock.norm_chart, "pretraining/fake/norm")[1] == [e.grad_norm for e in steps]
    line, item = dock.norm_chart.marks.lines[0]
    assert line.value == fake.settings.train.grad_clip
    assert item.pen.style() == Qt.PenStyle.DotLine  # as in the legend
    assert "learning rate" in dock._caption.text.accessibleName()
    for size in ((495, 264), (464, 212)):  # of Train at 1366 x 749 and at 1280 x 640, without the title
        assert _unread(dock, size, qtbot) == []
        area: QWidget | None = dock.norm_chart
        while area is not None and not isinstance(area, QScrollArea):
            area = area.parentWidget()
        assert isinstance(area, QScrollArea)
        assert area.verticalScrollBar().maximum() == 0, size  # both charts are in sight


def test_panning_one_chart_moves_the_other(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock = LearningRateDock(lab)
    _shown(dock, qtbot)
    lab.add(FakeRun(tmp_path).start().advance(100))
    _wait(dock, qtbot)
    view = dock.rate_chart.getPlotItem().getViewBox()
    view.setXRange(20, 30, padding=0)
    view.sigRangeChangedManually.emit([True, False])
    assert dock.norm_chart.getPlotItem().getViewBox().viewRange()[0] == [20, 30]
    assert not dock.rate_chart.follow
    assert not dock.norm_chart.follow


def test_shares_of_different_peaks_are_told_apart(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock = ThroughputDock(lab)
    _shown(dock, qtbot)
    lab.add(FakeRun(tmp_path, "one").start().advance(10))
    _wait(dock, qtbot)
    assert dock.panel._note.text() == ""
    other = FakeRun(tmp_path, "other").start().advance(10)
    first = other.written[0]
    assert isinstance(first, Started)
    other.written[0] = replace(first, peak_flops=1.23e12, precision="bf16")
    lab.add(other)
    _wait(dock, qtbot)
    assert dock.panel._note.text() == "MFU of 0.12 (fp32), 1.23 (bf16) TFLOP/s"


def test_throughput_converts_units_and_shows_pauses(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock = ThroughputDock(lab)
    _shown(dock, qtbot)
    fake = lab.add(FakeRun(tmp_path).start().advance(100).pause().unpause(30.0).advance(100))
    _wait(dock, qtbot)
    steps = [event for event in fake.written if isinstance(event, StepEvent)]
    assert _points(dock.speed_chart, "pretraining/fake")[1] == [e.tokens_per_second for e in steps]
    assert np.allclose(_points(dock.mfu_chart, "pretraining/fake")[1], [e.mfu * 100 for e in steps])
    assert np.allclose(_points(dock.memory_chart, "pretraining/fake")[1], [e.memory_bytes / 2**20 for e in steps])
    assert [(span.low, span.high) for span, _ in dock.speed_chart.marks.spans] == [(100.0, 100.0)]
    dock.panel.set_x_axis("elapsed")
    _wait(dock, qtbot)
    assert list(dock.mfu_chart.curves()) == ["pretraining/fake"]  # of one process: nothing waits
    fake.append(Shared(200, time.time(), [0.5, 0.875]))
    lab.pump(fake)
    _wait(dock, qtbot)
    assert _points(dock.mfu_chart, "pretraining/fake waiting")[1] == [12.5]
    words = "2 processes; 12% of the time goes to communication; process 1 computes longest"
    assert dock.panel._note.text() == words
    ((span, _),) = dock.speed_chart.marks.spans
    assert span.high - span.low == pytest.approx(30.0)
    x, y = _points(dock.speed_chart, "pretraining/fake")
    gaps = [place for place, value in zip(x, y, strict=True) if math.isnan(value)]
    assert gaps == [pytest.approx(span.low)]
    assert _unread(dock, (464, 236), qtbot) == []
    (started,) = [event for event in fake.written if isinstance(event, Started)]
    fake.append(replace(started, step=200, processes=2))
    lab.pump(fake)
    lab.add(FakeRun(tmp_path, "one").start().advance(200))  # of the same settings, on one process
    _wait(dock, qtbot)
    lab.set_current("pretraining/fake")
    _wait(dock, qtbot)
    assert dock.panel._note.text() == f"{words}; 1.00 times as fast as one, 50% of 2"


@pytest.mark.parametrize("kind", [LossDock, LearningRateDock, ThroughputDock])
def test_every_axis_is_drawn_without_complaint(
    kind: type[ChartDock], lab: FakeChartLab, qtbot: QtBot, tmp_path: Path
) -> None:
    dock = _shown(kind(lab), qtbot)
    fake = FakeRun(tmp_path).start().advance(250)
    broken = fake.step_event(251)
    broken.loss = broken.grad_norm = math.nan
    fake.append(broken)
    lab.add(fake)
    for axis in ("step", "tokens", "active_seconds", "elapsed"):
        for log in (False, True):
            dock.panel.set_x_axis(axis)
            dock.panel.set_log(x=log, y=log)
            _wait(dock, qtbot)
            dock.panel._point(100.0)
            assert not dock.grab().isNull()


@pytest.mark.parametrize("kind", [LossDock, LearningRateDock, ThroughputDock])
def test_without_a_run_or_a_step_it_says_what_to_do(
    kind: type[ChartDock], lab: FakeChartLab, qtbot: QtBot, tmp_path: Path
) -> None:
    dock = _shown(kind(lab), qtbot)
    assert not dock.panel.isVisible()
    fake = lab.add(FakeRun(tmp_path).start())
    assert not dock.panel.isVisible()
    assert "appears here as soon as it is done" in dock._empty.text
    lab.pump(fake.pause())
    assert "Resume lets it take its first step" in dock._empty.text
    lab.pump(fake.unpause())
    fake.advance(1)
    lab.shown_runs_changed.emit()
    assert "Reading the steps" in dock._empty.text  # it has taken one, which is not read yet
    lab.pump(fake)
    assert dock.panel.isVisible()


def test_a_new_theme_repaints_the_charts_in_sight_at_once(
    lab: FakeChartLab, qtbot: QtBot, qapp: QApplication, tmp_path: Path
) -> None:
    dock = LossDock(lab)
    _shown(dock, qtbot)
    lab.add(FakeRun(tmp_path).start().advance(10))
    _wait(dock, qtbot)
    lab.redraw.stop()  # it may rest just then
    dock.hide()
    theme_notifier.changed.emit()
    assert dock.panel.dirty  # nobody sees it
    try:
        for theme in (DARK, LIGHT):
            apply_theme(qapp, theme.name)
            dock.show()  # from another workspace, the first time
            assert not dock.panel.dirty
            validation = dock.chart.curves()["pretraining/fake/val"].style.color
            assert validation == mix(lab.color("pretraining/fake"), theme.text, 0.45)
    finally:
        apply_theme(qapp, "light")


def test_docks_that_hear_of_a_long_run_at_once_are_drawn_one_a_tick_and_none_behind_another(
    lab: FakeChartLab, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docks = (_shown(LossDock(lab), qtbot), ThroughputDock(lab), LearningRateDock(lab))
    window = QMainWindow()
    qtbot.addWidget(window)
    for dock in docks[1:]:
        window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, dock)
    window.tabifyDockWidget(docks[1], docks[2])
    window.show()
    docks[2].raise_()
    qtbot.waitUntil(lambda: docks[1].visibleRegion().isEmpty() and not docks[2].visibleRegion().isEmpty())
    drawn: list[str] = []
    for place, dock in enumerate(docks):
        monkeypatch.setattr(dock, "_fill", partial(drawn.append, f"curves {place}"))
        monkeypatch.setattr(dock.panel, "_fill", partial(drawn.append, f"chart {place}"))
    fake = FakeRun(tmp_path).start().advance(10)
    lab._fakes[fake.run.full_name] = fake
    lab.set_current(fake.run.full_name)
    lab.reload(fake)
    lab.redraw._timer.stop()
    first, last = ["curves 0", "chart 0"], ["curves 2", "chart 2"]
    for so_far in (first[:1], first, first, first, [*first, last[0]], [*first, *last]):  # each drawn, then shown
        lab.redraw._tick()
        assert drawn == so_far
    assert docks[0].panel.isVisible()
    docks[2].panel.mark_dirty()
    shiboken6.delete(docks[2])
    while lab.redraw._timer.isActive():  # what it waited for, and its chart, are over
        lab.redraw._tick()
    assert not lab.redraw._others


def test_a_batch_is_beside_a_wide_chart_and_under_a_narrow_one(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    lab.add(FakeRun(tmp_path).start().advance(10))
    dock = _shown(LossDock(lab), qtbot)
    dock.batch.show()
    room = dock.findChild(QScrollArea)
    for width, beside in ((700, True), (330, False), (700, True)):
        dock.resize(width, 300)
        qtbot.waitUntil(lambda beside=beside: (dock.batch.x() > 0) == beside)
        qtbot.waitUntil(lambda: room.horizontalScrollBar().maximum() == 0)
        assert dock.chart.height() > 60


def test_a_closed_dock_is_freed(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    lab.add(FakeRun(tmp_path).start().advance(10))
    dock = LossDock(lab)
    dock.show()
    _wait(dock, qtbot)
    panel = weakref.ref(dock.panel)
    dock.shutdown()
    dock.close()
    with qtbot.waitSignal(dock.destroyed):
        dock.deleteLater()
    del dock
    lab.events_arrived.emit("pretraining/fake", [])
    theme_notifier.changed.emit()
    wait_until_freed(qtbot, panel)


def test_with_several_runs_the_read_out_keeps_to_the_main_curves(
    lab: FakeChartLab, qtbot: QtBot, tmp_path: Path
) -> None:
    dock = LossDock(lab)
    _shown(dock, qtbot)
    lab.add(FakeRun(tmp_path, "first", seed=1).start().advance(600))
    _wait(dock, qtbot)
    dock.panel._point(100.0)
    assert "train, each step" in dock.chart.cross_hair.box.text()
    lab.add(FakeRun(tmp_path, "second", seed=2).start().advance(600))
    _wait(dock, qtbot)
    dock.panel._point(100.0)
    text = dock.chart.cross_hair.box.text()
    assert text.count("train, smoothed") == text.count("validation") == 2
    assert "train, each step" not in text


def test_an_export_is_announced_and_so_is_one_that_fails(lab: FakeChartLab, qtbot: QtBot, tmp_path: Path) -> None:
    dock = ThroughputDock(lab)
    _shown(dock, qtbot)
    lab.add(FakeRun(tmp_path).start().advance(20))
    _wait(dock, qtbot)
    assert dock.panel.export_name == "fake-throughput"
    with qtbot.waitSignal(lab.said) as said:
        dock.panel.export(tmp_path / "speed.svg")
    assert "speed.svg" in said.args[0]
    with qtbot.waitSignal(lab.error_raised) as failed:
        dock.panel.export(tmp_path / "missing" / "speed.csv")
    assert f"{tmp_path / 'missing' / 'speed.csv'} could not be written." in str(failed.args[0])
    dock.shutdown()
