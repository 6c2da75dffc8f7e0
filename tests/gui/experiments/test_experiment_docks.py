"""The docks about experiments: rows and progress, losses of all runs, result, report; what they say when empty."""

from __future__ import annotations

import csv
import math
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyqtgraph as pg
import pytest
from fake_experiments import RATES, STEPS, FakeExperiment, rate_plan
from PySide6.QtCore import QCoreApplication, QEvent, QSize, Qt, QUrl
from PySide6.QtGui import QImage, QTextDocument
from PySide6.QtWidgets import QApplication, QToolTip
from pytestqt.qtbot import QtBot
from whole_lab import WholeLab
from windows import first_cell, shown, wait_until_freed

from llmlab.data.example_preview import BatchText
from llmlab.notebook.locked import lock
from llmlab.notebook.notebook import Contents
from llmlab.notebook.predictions import parse_prediction
from llmlab.notebook.quantities import EXPERIMENT
from llmlab.studies.experiments.outcomes import Finding, Point, Spike, write_results
from llmlab.studies.plans.records import ExperimentFolder
from llmlab_gui.experiments import list_dock as experiments_module
from llmlab_gui.experiments.list_dock import ExperimentsDock
from llmlab_gui.experiments.losses import ExperimentLossesDock
from llmlab_gui.experiments.report_dock import experiment_report
from llmlab_gui.experiments.result import ExperimentResultDock, expectations, finding_text, spikes_html
from llmlab_gui.experiments.result_chart import Expected, ResultChart
from llmlab_gui.experiments.setup import ExperimentDock
from llmlab_gui.experiments.tables import trial_colors
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.training_now import TrainingNow
from llmlab_gui.widgets import question
from llmlab_gui.widgets.icons import state_color
from llmlab_gui.widgets.theme import current_theme, theme_notifier


@pytest.fixture
def fake(outputs: Path) -> FakeExperiment:
    """Two seeds of three rates: one finished, one diverged, one on its way."""
    made = FakeExperiment(outputs, seeds=2)
    made.begin(0, 50)
    made.end(0)
    made.begin(2, 20)
    made.end(2, "diverged", "Cut at step 20.")
    made.begin(3, 50)
    return made


def found(lab: WholeLab, qtbot: QtBot, *, curves: int = 0) -> None:
    """Waits until the experiment is known as it stands now, and so many of its runs' losses."""

    def known() -> bool:
        row = lab.experiments.current()
        return row is not None and row.status == row.folder.status()

    lab.experiments.refresh()
    qtbot.waitUntil(known)
    qtbot.waitUntil(lambda: len(lab.experiments.curves) >= curves)


def text(dock: LabDock) -> str:
    return dock._empty.text if dock._stack.currentWidget() is dock._empty else ""


def test_what_another_machine_runs_says_so_and_is_resumed_here_when_somebody_says_that_it_is_gone(
    qtbot: QtBot, lab: WholeLab, fake: FakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    dock = shown(ExperimentsDock(lab, lab.experiments), qtbot)
    fake.folder.write_status(replace(fake.folder.recorded_status(), host="dhcp-17", pid=None))
    found(lab, qtbot)
    qtbot.waitUntil(lambda: "It is running on dhcp-17." in dock.study.standing.text())
    asked, answers, starts = [], iter(["", "here", "here"]), iter(["cancel", "beside"])
    monkeypatch.setattr(question, "ask", lambda *words, **_: asked.append(words[2]) or next(answers))
    monkeypatch.setattr(TrainingNow, "ask", lambda *_: next(starts))
    monkeypatch.setattr(lab.experiments.controller, "_launch", lambda make, *_: make())
    assert dock.study.resume_button.isVisible()
    dock.study.resume_button.click()
    dock.study.resume_button.click()
    assert fake.folder.status().state == "running"
    dock.study.resume_button.click()
    assert fake.folder.status().state == "interrupted"
    assert asked == ["rates was last seen on dhcp-17."] * 3


def test_names_of_two_experiments_of_one_kind_and_minute_can_be_told_apart(qtbot: QtBot, lab: WholeLab) -> None:
    dock = shown(ExperimentsDock(lab, lab.experiments), qtbot)
    assert isinstance(dock, ExperimentsDock)
    first, second = (first_cell(dock.table, f"20261201-{time}-learning-rate") for time in ("203915", "203942"))
    assert first != second
    assert first.endswith("rate")


# Empty states -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [ExperimentsDock, ExperimentLossesDock, ExperimentResultDock, experiment_report])
def test_without_an_experiment_a_dock_says_what_to_do(lab: WholeLab, qtbot: QtBot, make: type[LabDock]) -> None:
    dock = shown(make(lab, lab.experiments), qtbot)
    qtbot.waitUntil(lambda: lab.experiments.looked)
    qtbot.waitUntil(lambda: "experiment" in text(dock).lower())
    with qtbot.waitSignal(lab.dock_requested) as asked:
        dock._empty._button.click()
    assert asked.args == ["experiment"]
    dock.shutdown()


def test_before_anything_ran_each_dock_says_what_will_come(lab: WholeLab, qtbot: QtBot, outputs: Path) -> None:
    FakeExperiment(outputs)
    docks = [
        ExperimentLossesDock(lab, lab.experiments),
        ExperimentResultDock(lab, lab.experiments),
        experiment_report(lab, lab.experiments),
    ]
    for dock in docks:
        shown(dock, qtbot)
    found(lab, qtbot)
    qtbot.waitUntil(lambda: [text(dock)[:9] for dock in docks] == ["No steps ", "No result", "No report"])
    for dock in docks:
        dock.shutdown()


# The list ---------------------------------------------------------------------------------------------------------


def test_the_list_says_where_every_run_stands(lab: WholeLab, qtbot: QtBot, fake: FakeExperiment) -> None:
    dock = shown(ExperimentsDock(lab, lab.experiments), qtbot)
    found(lab, qtbot)
    qtbot.waitUntil(lambda: dock.study.trials.rowCount() == 6)
    row = lab.experiments.current()
    assert row is not None
    states = [dock.study.trials.index(i, 1).data() for i in range(6)]
    assert states == ["finished", "planned", "diverged", "running", "planned", "planned"]
    ink = dock.study.trials.index(2, 1).data(Qt.ItemDataRole.ForegroundRole)
    assert ink.name() == state_color("failed", current_theme())
    assert dock.study.trials.index(3, 2).data() == f"50 / {STEPS}"
    assert "Cut at step 20." in dock.study.trials.tip(dock.study.trials.rows[2])
    assert dock.model.index(0, 2).data() == "2 / 6"
    assert dock.study.bar.value() == round(1000 * 10 / (10 + 30))  # seconds taken, and left
    assert dock.study.standing.text() == f"Run 4 of 6 ({fake.record.trials[3].name}): step 50 of {STEPS}. 30 s left."
    dock.shutdown()


def test_stop_and_continue_are_offered_when_they_make_sense(lab: WholeLab, qtbot: QtBot, fake: FakeExperiment) -> None:
    dock = shown(ExperimentsDock(lab, lab.experiments), qtbot)
    found(lab, qtbot)
    qtbot.waitUntil(lambda: dock.study.stop_button.isVisibleTo(dock))
    assert not dock.study.resume_button.isVisibleTo(dock)
    dock.study.stop_button.click()
    qtbot.waitUntil(lambda: bool(list(fake.folder.requests.glob("*.json"))))
    fake.status(state="stopped")
    qtbot.waitUntil(lambda: dock.study.resume_button.isVisibleTo(dock))
    assert not dock.study.stop_button.isVisibleTo(dock)
    fake.status(state="finished")
    qtbot.waitUntil(lambda: not dock.study.resume_button.isVisibleTo(dock))
    assert dock.study.stop_button.isVisibleTo(dock)  # what is beside it stays where it is
    assert not dock.study.stop_button.isEnabled()
    dock.shutdown()


def test_a_trial_opens_as_the_run_that_all_docks_are_about(lab: WholeLab, qtbot: QtBot, fake: FakeExperiment) -> None:
    dock = shown(ExperimentsDock(lab, lab.experiments), qtbot)
    found(lab, qtbot)
    qtbot.waitUntil(lambda: len(lab.runs()) == 3 and dock.study.trials.rowCount() == 6)
    dock.study.trials_table.selectRow(0)
    dock.study.open_run()
    current = lab.current()
    assert current is not None
    assert current.run.id == fake.record.trials[0].run
    errors: list[object] = []
    lab.error_raised.connect(errors.append)
    dock.study.trials_table.selectRow(1)
    dock.study.open_run()
    assert "has not started" in str(errors[0])
    dock.shutdown()


def test_a_live_experiment_is_not_deleted_and_an_ended_one_only_when_agreed(
    lab: WholeLab, qtbot: QtBot, fake: FakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[object] = []
    lab.error_raised.connect(errors.append)
    dock = shown(ExperimentsDock(lab, lab.experiments), qtbot)
    found(lab, qtbot)
    dock.delete()
    assert "Stop it first" in str(errors[0])
    fake.status(state="stopped")
    qtbot.waitUntil(lambda: not lab.experiments.live())
    monkeypatch.setattr(experiments_module, "move_to_trash", lambda path: False)  # as where there is none
    answers: list[bool | None] = [None]
    monkeypatch.setattr(dock, "confirm_deletion", lambda *_, for_good: answers.pop(0))
    dock.delete()
    assert fake.folder.path.is_dir()
    assert dock.deletions.working is None
    answers += [False, False]  # without its runs; and for good
    dock.delete()
    dock.delete()  # pressed twice: no other question, and no second deletion
    qtbot.waitUntil(lambda: not fake.folder.path.exists())
    assert fake.folder.run_of(fake.record.trials[0], fake.record.track).path.is_dir()
    qtbot.waitUntil(lambda: lab.experiments.current() is None)
    dock.shutdown()


def test_the_question_says_when_runs_are_deleted_for_good_with_their_experiment(
    lab: WholeLab, qtbot: QtBot, fake: FakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    dock = shown(ExperimentsDock(lab, lab.experiments), qtbot)
    found(lab, qtbot)
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        experiments_module, "ask_to_delete", lambda _, what, more, for_good, check: asked.append((what, more))
    )
    row = lab.experiments.current()
    assert row is not None
    runs = [fake.folder.run_of(trial, fake.record.track).path for trial in fake.record.trials[:2]]
    dock.confirm_deletion(row, runs, for_good=True)
    assert asked[0][0] == f"{row.id} and its 2 runs"
    assert "Its runs go with all checkpoints." in asked[0][1]
    dock.confirm_deletion(row, [], for_good=True)
    assert asked[1][0] == row.id
    fake.folder.path.rename(fake.folder.path.with_name("in-the-trash"))  # which took the plan, but not the runs
    dock.confirm_deletion(row, runs, for_good=True)
    assert asked[2][0] == f"the 2 runs of {row.id}"
    dock.shutdown()


def test_the_tables_are_saved_as_they_are_shown(
    lab: WholeLab, qtbot: QtBot, fake: FakeExperiment, tmp_path: Path
) -> None:
    dock = shown(ExperimentsDock(lab, lab.experiments), qtbot)
    found(lab, qtbot)
    qtbot.waitUntil(lambda: dock.study.trials.rowCount() == 6)
    for name, model in (("runs", dock.study.trials), ("all", dock.model)):
        with qtbot.waitSignal(lab.said):
            dock.write_table(model, tmp_path / f"{name}.csv")
    rows = list(csv.DictReader((tmp_path / "runs.csv").open(encoding="utf-8")))
    assert [row["State"] for row in rows] == [row.status.state for row in dock.study.trials.rows]
    assert rows[0]["Value"] == "0.001"
    statuses = [row.status for row in dock.study.trials.rows]
    assert [(int(row["Step"]), int(row["Steps planned"])) for row in rows] == [
        (one.step, one.steps) for one in statuses
    ]
    assert [float(row["Time (s)"] or 0) for row in rows] == [one.wall_seconds for one in statuses]  # and no "21 s"
    row = next(csv.DictReader((tmp_path / "all.csv").open(encoding="utf-8")))
    assert row["Experiment"] == "rates"
    assert time.strftime("%Y-%m-%d %H:%M", time.localtime(dock.model.rows[0].record.created)) == row["Created"]
    dock.shutdown()


def test_all_runs_can_be_overlaid_in_the_other_charts(lab: WholeLab, qtbot: QtBot, fake: FakeExperiment) -> None:
    dock = shown(ExperimentsDock(lab, lab.experiments), qtbot)
    found(lab, qtbot)
    qtbot.waitUntil(lambda: len(lab.runs()) == 3)
    dock.overlay()
    assert set(lab.shown_runs()) == {run.run.full_name for run in fake.runs.values()}
    dock.shutdown()


# Losses of the runs -----------------------------------------------------------------------------------------------


def test_seeds_are_thin_with_their_mean_and_the_diverged_one_is_marked(
    lab: WholeLab, qtbot: QtBot, fake: FakeExperiment
) -> None:
    dock = shown(ExperimentLossesDock(lab, lab.experiments), qtbot)
    found(lab, qtbot, curves=3)
    dock.panel.set_memory(0)
    first, diverged, second = (fake.record.trials[i].name for i in (0, 2, 3))
    qtbot.waitUntil(lambda: f"0/{second}" in dock.chart.curves() and not dock.panel.dirty)
    curves = dock.chart.curves()
    one, two = curves[f"0/{first}"], curves[f"0/{second}"]
    mean = next(curve for key, curve in curves.items() if key.startswith("0/mean/"))
    assert one.style.width < mean.style.width
    assert one.style.color == two.style.color == mean.style.color == trial_colors(fake.record)[first]
    assert len(mean.x) == 50  # as far as both have come
    assert np.allclose(mean.y, (one.y[:50] + two.y[:50]) / 2)
    mark = curves[f"0/diverged/{diverged}"]
    assert mark.x.tolist() == [20.0]
    assert mark.style.markers == "x"
    assert dock.panel._note.text() == "colour: learning_rate · 1 diverged"
    dock.which.setCurrentIndex(1)
    qtbot.waitUntil(lambda: not dock.panel.dirty and any(key.startswith("1/") for key in dock.chart.curves()))
    assert not any(key.startswith("0/") for key in dock.chart.curves())
    dock.shutdown()


def test_losses_of_trials_are_in_bits_per_byte_by_choice_and_by_themselves_where_tokens_differ(
    lab: WholeLab, qtbot: QtBot, outputs: Path
) -> None:
    made = FakeExperiment(outputs)
    made.begin(0, 20, bytes_per_token=1.0)
    dock = shown(ExperimentLossesDock(lab, lab.experiments), qtbot)
    found(lab, qtbot, curves=1)
    dock.panel.set_memory(0)
    names = [trial.name for trial in made.record.trials]

    def drawn(unit: str, *places: int) -> None:
        def there() -> bool:
            keys = [key for key in dock.chart.curves() if "/mean/" not in key]
            return (dock.chart.y_unit, keys) == (unit, [f"0/{names[place]}" for place in places])

        lab.experiments.refresh()
        qtbot.waitUntil(lambda: not dock.panel.dirty and there())
        for place in places:
            size = (1.0, 2.7, 1.0)[place]
            curve = dock.chart.curves()[f"0/{names[place]}"]
            loss = lab.experiments.curves[names[place]].step_columns["loss"]
            np.testing.assert_allclose(curve.y, loss / math.log(2) / size if unit.startswith("bits") else loss)

    drawn("nats per token", 0)
    dock.unit.button.click()
    drawn("bits per byte", 0)
    dock.unit.button.click()
    drawn("nats per token", 0)
    made.begin(1, 20, tokenizer="bpe", vocab_size=512, bytes_per_token=2.7)
    drawn("bits per byte", 0, 1)
    assert dock.panel._note.text() == "colour: learning_rate · tokens differ: bits per byte"
    made.begin(2, 20)  # as runs of before say it
    drawn("nats per token", 0, 1, 2)
    assert "tokens differ: losses cannot be compared" in dock.panel._note.text()
    dock.unit.button.click()
    drawn("bits per byte", 0, 1)
    assert "1 left out, bytes per token unknown" in dock.panel._note.text()
    dock.shutdown()


def test_a_diverged_run_does_not_press_the_others_flat(lab: WholeLab, qtbot: QtBot, fake: FakeExperiment) -> None:
    run = fake.runs[fake.record.trials[2].name]
    run.write_lines(5, spikes=dict.fromkeys(range(21, 26), 500.0))
    dock = shown(ExperimentLossesDock(lab, lab.experiments), qtbot)
    found(lab, qtbot, curves=3)
    dock.panel.set_memory(0)
    name = fake.record.trials[2].name
    qtbot.waitUntil(lambda: f"0/{name}" in dock.chart.curves() and not dock.panel.dirty)
    curves = dock.chart.curves()
    assert curves[f"0/{name}"].y.max() == 500.0
    top = dock.chart.getPlotItem().getViewBox().viewRange()[1][1]
    assert top < 6.0
    assert curves[f"0/diverged/{name}"].y[0] < top  # the mark is in sight
    dock.shutdown()


def test_values_have_colours_in_their_order_and_other_ones_in_another_theme(fake: FakeExperiment) -> None:
    colors = trial_colors(fake.record)
    by_rate = {trial.x: colors[trial.name] for trial in fake.record.trials}
    lightness = [by_rate[rate].lightnessF() for rate in RATES]
    assert len({color.name() for color in by_rate.values()}) == 3
    assert lightness == sorted(lightness)


# Result -----------------------------------------------------------------------------------------------------------


def test_the_result_shows_points_fit_band_and_marks_and_exports_them(
    lab: WholeLab, qtbot: QtBot, fake: FakeExperiment, tmp_path: Path
) -> None:
    fake.write_results()
    dock = shown(ExperimentResultDock(lab, lab.experiments), qtbot)
    found(lab, qtbot)
    qtbot.waitUntil(lambda: dock.pane.charts.count() == 2)
    size = dock.size()
    dock.resize(437, 236)  # as in Experiments at 1280 x 640: what was found is scrolled there, and nothing else
    QApplication.processEvents()
    assert dock._room.verticalScrollBar().maximum() == 0
    dock.resize(size)
    assert dock.chart.log_x
    assert dock.pane.log_x.isChecked()
    assert not dock.pane.log_y.isChecked()
    at = dock.chart.place_of(1e-2, 3.1)
    assert "3.1" in dock.chart.tip_at(at)
    assert "mean of 2 runs" in dock.chart.tip_at(at)
    said = []
    for key in (*[Qt.Key.Key_Right] * 3, Qt.Key.Key_Left, Qt.Key.Key_Down, Qt.Key.Key_Up):
        qtbot.keyClick(dock.chart, key)
        said.append(QToolTip.text())
        line, place = dock.chart._read
        ringed = dock.chart._ring.getData()
        assert ringed[0][0] == pytest.approx(math.log10(dock.chart._spots[line][0][place]))
        assert ringed[1][0] == dock.chart._spots[line][1][place]
    assert len(set(said[:3])) == 3  # a point after the other
    assert said[3] == said[1]
    assert said[5] == said[3]
    assert dock.chart.tip_at(at) in said
    qtbot.keyClick(dock.chart, Qt.Key.Key_Home)
    assert "0.01 (0.006 to 0.015)" in dock.findings.text()
    assert "lr1e-2" in dock.findings.text()
    assert "not found" not in dock.findings.text()
    for suffix in ("png", "svg", "csv"):
        with qtbot.waitSignal(lab.said):
            dock.pane.export(tmp_path / f"basin.{suffix}")
    rows = list(csv.DictReader((tmp_path / "basin.csv").open(encoding="utf-8")))
    measured = [(float(row["x"]), float(row["y"])) for row in rows if row["kind"] == "measured"]
    assert measured == list(zip(RATES, (3.3, 3.1, 3.2), strict=True))
    assert [row["label"] for row in rows if row["kind"] == "mark"] == ["diverged"]
    assert QImage(str(tmp_path / "basin.png")).size() == QSize(1600, 900)
    title = f"{dock.desk.outcome.id}: {dock.pane.charts.currentText()}"
    assert f"<title>{title}</title>" in (tmp_path / "basin.svg").read_text(encoding="utf-8")
    dock.shutdown()


def test_the_result_of_an_experiment_no_run_of_which_has_ended_has_no_empty_axes(
    lab: WholeLab, qtbot: QtBot, fake: FakeExperiment
) -> None:
    fake.status(state="stopped", pid=None)
    results = fake.write_results()
    write_results(fake.folder, replace(results, trials=[replace(one, state="stopped") for one in results.trials]))
    dock = shown(ExperimentResultDock(lab, lab.experiments), qtbot)
    found(lab, qtbot)
    qtbot.waitUntil(lambda: lab.experiments.outcome.results is not None)
    assert "No run has ended" in dock._empty.text
    assert not dock.pane.isVisible()
    dock.shutdown()


def test_the_chosen_chart_stays_while_results_fill(lab: WholeLab, qtbot: QtBot, fake: FakeExperiment) -> None:
    fake.write_results()
    dock = shown(ExperimentResultDock(lab, lab.experiments), qtbot)
    found(lab, qtbot)
    qtbot.waitUntil(lambda: dock.pane.charts.count() == 2)
    dock.pane.charts.setCurrentIndex(1)
    dock.pane.log_y.click()
    fake.write_results((3.3, 2.9, 3.2))
    qtbot.waitUntil(lambda: bool(dock.chart.chart and dock.chart.chart.curves[1].points[-1].y == 2.9))
    assert dock.pane.charts.currentIndex() == 1
    assert dock.chart.log_y
    dock.shutdown()


def test_the_result_is_shown_in_the_other_unit_by_choice(lab: WholeLab, qtbot: QtBot, fake: FakeExperiment) -> None:
    results = fake.write_results()
    dock = shown(ExperimentResultDock(lab, lab.experiments), qtbot)
    found(lab, qtbot)
    qtbot.waitUntil(lambda: dock.pane.charts.count() == 2)
    assert not dock.bits.isEnabled()
    assert "bytes per token unknown" in dock.bits.toolTip()
    basin, axis = results.charts[0], replace(results.charts[0].y_axis, unit="bits per byte")
    halved = [replace(curve, points=[Point(p.x, p.y / 2) for p in curve.points]) for curve in basin.curves]
    fake.write_results(other_unit=[replace(basin, y_axis=axis, curves=halved, fits=[])])
    qtbot.waitUntil(dock.bits.isEnabled)

    def seen() -> tuple[str, list[float], bool]:
        chart = dock.chart.chart
        assert chart is not None
        return chart.y_axis.unit, [point.y for point in chart.curves[0].points], dock.bits.isChecked()

    assert seen() == ("nats per token", [3.3, 3.1, 3.2], False)
    dock.bits.click()
    assert seen() == ("bits per byte", [1.65, 1.55, 1.6], True)
    assert dock.chart.getPlotItem().getViewBox().viewRange()[1][1] < 2
    name = dock.chart._axes["left"]
    assert name.labelText == "validation loss (bits per byte)"
    dock.chart.setFixedHeight(150)
    qtbot.waitUntil(lambda: name.labelText == "bits per byte")  # where there is no room for both
    dock.chart.setFixedHeight(110)
    qtbot.waitUntil(lambda: name.labelText == "loss")  # where there is none for that
    dock.pane.charts.setCurrentIndex(1)  # there is no such drawing of it
    assert seen()[0] == "nats per token"
    assert not dock.bits.isEnabled()
    dock.pane.charts.setCurrentIndex(0)
    dock.bits.click()
    assert seen()[0] == "nats per token"
    dock.shutdown()


def test_a_run_that_rose_does_not_set_the_scale_of_losses_along_training(
    lab: WholeLab, qtbot: QtBot, fake: FakeExperiment
) -> None:
    chart = ResultChart("result")
    qtbot.addWidget(chart)
    chart.resize(500, 300)
    chart.show_chart(fake.write_results().charts[1])
    assert chart.getPlotItem().getViewBox().viewRange()[1][1] < 5.0


def test_what_was_expected_is_drawn_where_the_chart_has_an_axis_for_it(outputs: Path) -> None:
    lines = ("best_lr=1e-2@60%", "best_loss=2..3@80%", "diverged=1", "text=It is flat@50%", "best_arm=lr1e-2")
    stated = [parse_prediction(line).as_dict() for line in lines]
    record = replace(rate_plan(outputs), predictions=lock(EXPERIMENT, stated))
    predicted = Contents().lines(
        ExperimentFolder(outputs / "experiments" / "rates"), record.created, record.predictions
    )
    assert expectations(record, predicted) == [
        Expected(True, 0.01, 0.01, "you expected, 60 % sure"),
        Expected(False, 2.0, 3.0, "you expected, 80 % sure"),
    ]
    moved = replace(record, trials=[replace(trial, x=trial.x * 1e6) for trial in record.trials])
    assert [one.on_x for one in expectations(moved, predicted)] == [False]  # x is something else than what is varied


def test_what_was_expected_is_named_in_the_legend_and_covers_no_curve(fake: FakeExperiment, qtbot: QtBot) -> None:
    chart = ResultChart("result")
    qtbot.addWidget(chart)
    chart.resize(420, 180)
    expected = [Expected(True, 0.01, 0.01, "you expected, 60 % sure"), Expected(False, 2.0, 3.0, "you expected, 80 %")]
    chart.show_chart(replace(fake.write_results().charts[0], marks=[]), expected)
    assert chart.legend.shown[-2:] == [one.label for one in expected]
    _, (low, high) = chart.getPlotItem().getViewBox().viewRange()
    assert low < 2.0 < 3.0 < high
    assert not [item for item in chart.items() if isinstance(item, pg.InfLineLabel)]


@pytest.mark.parametrize(
    ("finding", "words"),
    [
        (Finding("a", "a", 0.1), "0.1"),
        (Finding("a", "a", 3.0, unit="runs"), "3 runs"),
        (Finding("a", "a", 3.15478, 3.1, 3.2, "nats per token"), "3.155 (3.1 to 3.2) nats per token"),
        (Finding("a", "a", None, choice="full"), "full"),
        (Finding("a", "a", None), ""),
    ],
)
def test_a_finding_reads_as_a_number_with_its_range(finding: Finding, words: str) -> None:
    assert finding_text(finding) == words


def test_the_highest_spikes_are_told_with_the_text_that_the_model_knew_least() -> None:
    batch = [BatchText("known", 2.0), BatchText("<b> never\nseen", 9.0)]
    spikes = [Spike(10 + i, 5.0, 3.0, 6.0 + i, 1.5, 1e-3, batch) for i in range(7)]
    told = spikes_html(spikes)
    assert "step 16" in told
    assert "step 11" not in told  # five are enough
    assert "&lt;b&gt; never seen" in told
    assert "known" not in told
    assert spikes_html([]) == ""


# Report -----------------------------------------------------------------------------------------------------------


def test_the_report_is_rendered_with_its_figures_and_saved_with_them(
    lab: WholeLab, qtbot: QtBot, fake: FakeExperiment, tmp_path: Path
) -> None:
    fake.write_report()
    dock = shown(experiment_report(lab, lab.experiments), qtbot)
    found(lab, qtbot)
    qtbot.waitUntil(lambda: "The basin is flat." in dock.browser.toPlainText())
    name = QUrl("figures/basin.png")
    figure = dock.browser.loadResource(QTextDocument.ResourceType.ImageResource.value, name)
    assert 100 < figure.width() <= dock.browser.viewport().width()
    assert dock.browser.loadResource(QTextDocument.ResourceType.ImageResource.value, QUrl("/etc/passwd")) is None
    assert "<table" in dock.browser.toHtml()
    (tmp_path / "kept").mkdir()
    with qtbot.waitSignal(lab.said):
        dock.save(tmp_path / "kept" / "rates.md")
    assert (tmp_path / "kept" / "rates.md").read_text(encoding="utf-8") == fake.folder.report.read_text(
        encoding="utf-8"
    )
    assert not QImage(str(tmp_path / "kept" / "figures" / "basin.png")).isNull()
    fake.write_report("It was surprising.")
    qtbot.waitUntil(lambda: "It was surprising." in dock.browser.toPlainText())
    dock.shutdown()


# All of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [ExperimentDock, ExperimentsDock, ExperimentLossesDock, ExperimentResultDock, experiment_report]
)
def test_a_dock_that_goes_leaves_nothing(
    lab: WholeLab, qtbot: QtBot, fake: FakeExperiment, make: type[LabDock]
) -> None:
    fake.write_results()
    fake.write_report()
    dock = make(lab, lab.experiments)
    dock.resize(600, 400)
    dock.show()
    found(lab, qtbot, curves=3)
    qtbot.waitUntil(lambda: lab.experiments.outcome.report is not None)
    theme_notifier.changed.emit()
    qtbot.wait(300)
    dock.shutdown()
    gone = weakref.ref(dock)
    dock.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    del dock
    wait_until_freed(qtbot, gone)
    fake.status(eta_seconds=5.0)
    lab.experiments.refresh()
    lab.experiments.set_current("")
    theme_notifier.changed.emit()
