"""The Notebook dock: predictions over results, scores that come by themselves, judging, learning, export."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeRun
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QColor
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QScrollArea, QVBoxLayout, QWidget
from pytestqt.qtbot import QtBot
from windows import dock_in_sight, first_cell

from llmlab.data.papers import VERDICTS, read_paper
from llmlab.jobs.queue import QueuedRun, QueueState
from llmlab.notebook.entries import OPEN, TO_JUDGE, Entry
from llmlab.notebook.locked import lock
from llmlab.notebook.predictions import parse_prediction
from llmlab.notebook.scoring import Score, score_choice
from llmlab.store.events import Evaluated
from llmlab.store.run_folder import RunFolder
from llmlab.studies.upkeep import rename_run
from llmlab_gui.charts.marks import Span
from llmlab_gui.lab.lab import Lab
from llmlab_gui.notebook.charts import ResultChart, StatedChart, belongs_to_loss
from llmlab_gui.notebook.detail import NotebookDetail
from llmlab_gui.notebook.dock import CALIBRATION, LIST, RESULT, SURPRISES, NotebookDock
from llmlab_gui.notebook.table import COLUMNS, VERDICT
from llmlab_gui.widgets.theme import apply_theme, current_theme

LINES = (
    "val_loss=1.9..2.2@80%",
    "loss_curve=1:4,20:2+-0.2@70%",
    "tokens_per_second=1000..2000@90%",
    "text=It works@60%",
)


def predicted(outputs: Path, name: str, *lines: str, created: float) -> FakeRun:
    return FakeRun(outputs, name, steps=20, created=created).predict(*lines)


def ended(fake: FakeRun, loss: float) -> FakeRun:
    fake.losses_of = lambda step: (loss - 0.2, loss)
    fake.start().advance(20, evaluate=False)
    fake.append(Evaluated(10, 1.0, 2.8, 3.0, True, 0.1), Evaluated(20, 1.0, loss - 0.2, loss, True, 0.1))
    return fake.finish()


@pytest.fixture
def live(outputs: Path) -> FakeRun:
    """The newest of three: it trains; the others have finished, one as expected, one not."""
    ended(predicted(outputs, "expected", *LINES, created=1.71e9), 2.05)
    ended(predicted(outputs, "surprising", "val_loss=1.0..1.2@90%", created=1.72e9), 2.2)
    return predicted(outputs, "live", "val_loss=1.9..2.2@80%", created=1.73e9).start().advance(5, evaluate=False)


@pytest.fixture
def lab(qtbot: QtBot, outputs: Path, live: FakeRun) -> Iterator[Lab]:
    made = Lab(outputs)
    yield made
    made.shutdown()


@pytest.fixture
def dock(qtbot: QtBot, lab: Lab) -> Iterator[NotebookDock]:
    with dock_in_sight(qtbot, NotebookDock(lab), 760, 760) as made:
        qtbot.waitUntil(lambda: len(made.model.rows) == 6)
        yield made


def rows(dock: NotebookDock) -> list[list[str]]:
    proxy = dock.proxy
    return [[str(proxy.index(row, column).data()) for column in range(len(COLUMNS))] for row in range(proxy.rowCount())]


def choose(dock: NotebookDock, about: str, quantity: str) -> None:
    line = next(
        line for line in dock.model.rows if line.entry.about == about and line.locked.prediction.quantity == quantity
    )
    dock.choose(line.entry.id, line.place)


def test_the_table_has_prediction_outcome_and_surprise(dock: NotebookDock) -> None:
    found = rows(dock)
    assert [row[0] for row in found] == ["live", "surprising", *["expected"] * 4]  # newest first
    by_words = {row[1]: row for row in found if row[0] == "expected"}
    row = by_words["final validation loss: 1.9 to 2.2"]
    assert row[2:7] == ["2.05", "80 %", "inside", "0.04", "0.0 bits"]
    assert by_words["“It works”"][2:7] == ["", "60 %", "", "", ""]
    assert found[0][7] == "waiting"
    assert found[1][4] == "outside"


def test_the_outcome_of_a_check_is_read_whole(dock: NotebookDock) -> None:
    widths = [dock.table.fontMetrics().horizontalAdvance(word) for word in VERDICTS]
    outcome = [column.title for column in COLUMNS].index("Outcome")
    assert max(widths) + 10 <= dock.table.columnWidth(outcome)  # with the edges of a cell


def test_names_of_two_entries_about_experiments_of_one_kind_and_minute_can_be_told_apart(dock: NotebookDock) -> None:
    first, second = (first_cell(dock.table, f"20261201-{time}-learning-rate") for time in ("203915", "203942"))
    assert first != second
    assert first.endswith("rate")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_was_altered_is_said_in_the_table_and_the_detail(
    dock: NotebookDock, outputs: Path, qtbot: QtBot, theme: str
) -> None:
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    apply_theme(app, theme)
    path = outputs / "pretraining" / "surprising" / "run.json"
    values = json.loads(path.read_text())
    values["predictions"][0] |= {"low": 2.0, "high": 2.3}  # where it ended
    path.write_text(json.dumps(values))
    with qtbot.waitSignal(dock.book.changed):
        dock.book.refresh()
    (row,) = [row for row in range(dock.proxy.rowCount()) if dock.proxy.index(row, 0).data() == "surprising"]
    cell = dock.proxy.index(row, VERDICT)
    assert cell.data() == "altered"
    assert cell.data(Qt.ItemDataRole.ForegroundRole) == QColor(current_theme().bad)
    assert rows(dock)[row][1:7] == [
        "final validation loss: 1 to 1.2",
        "2.2",
        "90 %",
        "altered",
        "",
        "",
    ]  # as it was sealed
    choose(dock, "surprising", "val_loss")
    assert "Altered: run.json says something else now. It counts as a miss." in dock.detail.sentence.text()
    assert current_theme().bad in dock.detail.sentence.text()
    assert dock.detail.scores.isHidden()
    assert "1 was altered and counts as a miss" in dock.verdict.text()
    assert not any("surprising" in dock.surprises.item(place).text() for place in range(dock.surprises.count()))
    apply_theme(app, "light")


def test_the_filter_and_the_states_narrow_the_table(dock: NotebookDock) -> None:
    dock.filter.setText("tokens")
    assert [row[0] for row in rows(dock)] == ["expected"]
    dock.filter.clear()
    for state, abouts in ((OPEN, {"live"}), (TO_JUDGE, {"expected"})):
        dock.shown.setCurrentIndex(dock.shown.findData(state))
        assert {row[0] for row in rows(dock)} == abouts


def test_sorting_by_surprise_puts_the_greatest_first(dock: NotebookDock) -> None:
    dock.table.sortByColumn(5, Qt.SortOrder.DescendingOrder)
    assert rows(dock)[0][0] == "surprising"
    assert rows(dock)[-1][6] == ""


def test_a_range_is_a_band_over_the_loss(dock: NotebookDock) -> None:
    choose(dock, "expected", "val_loss")
    chart = dock.detail.result_chart
    assert dock.detail.chart() is chart
    curves = chart.curves()
    assert curves["actual"].y.tolist() == [3.0, 2.05]
    assert set(curves["low"].y.tolist()) == {1.9}
    assert set(curves["high"].y.tolist()) == {2.2}
    assert (curves["outcome"].x.tolist(), curves["outcome"].y.tolist()) == ([20.0], [2.05])
    assert "The outcome was 2.05: inside." in dock.detail.sentence.text()


def test_a_curve_lies_over_the_loss_with_its_tolerance(dock: NotebookDock) -> None:
    choose(dock, "expected", "loss_curve")
    curves = dock.detail.result_chart.curves()
    assert curves["drawn"].y.tolist() == [4.0, 2.0]
    assert np.allclose(curves["high"].y - curves["low"].y, 0.4)


def test_what_an_experiment_found_is_drawn_with_what_was_predicted(qtbot: QtBot) -> None:
    chart = ResultChart()
    holder = QWidget()
    QVBoxLayout(holder).addWidget(chart)
    qtbot.addWidget(holder)
    points = [[1e-4, 3.8], [1e-3, 2.5], [1e-2, 3.0]]
    stated = [parse_prediction(line) for line in ("best_lr=1e-2@60%", "best_loss=2.4..2.6@80%")]
    entry = Entry("e", "experiment", "lr", "", "", 1.0, predictions=lock("experiment", stated), curve=points)
    entry = replace(
        entry,
        x_axis="learning rate",
        x_log=True,
        scores=[asdict(Score("0.001", False)), asdict(Score(2.5, True))],
        scored_at=2.0,
    )
    choice, loss = entry.lines()
    assert belongs_to_loss(choice)
    chart.show_line(choice, points)
    assert chart.log_x
    assert (chart.curves()["outcome"].x.tolist(), chart.curves()["outcome"].y.tolist()) == ([1e-3], [2.5])
    assert [span for span, _ in chart.marks.spans] == [Span(1e-2, 1e-2)]
    chart.show_line(loss, points)
    assert set(chart.curves()) == {"actual", "low", "high", "outcome"}
    assert chart.curves()["low"].x.tolist() == [1e-4, 1e-2]
    assert chart.marks.spans == []


def test_a_claim_is_shown_by_its_title_with_the_verdict_that_came(qtbot: QtBot) -> None:
    detail = NotebookDetail()
    qtbot.addWidget(detail)
    stated = [parse_prediction("claim:bayesian-geometry/keys=supported@70%")]
    entry = Entry("c", "check", "tunnel", "", "A paper: does it hold here?", 1.0, predictions=lock("check", stated))
    claim = read_paper("bayesian-geometry").claim("keys").title
    detail.show_line(entry.lines()[0], [], stopped=False)
    assert detail.no_chart.text == f"{claim} You expected: supported. The check says: no verdict yet."
    score = score_choice(stated[0], "not supported", options=3)
    entry = replace(entry, scores=[asdict(score)], scored_at=2.0, result="keys not supported.")
    detail.show_line(entry.lines()[0], [], stopped=False)
    assert detail.no_chart.text == f"{claim} You expected: supported. The check says: not supported."
    assert "outcome was not supported: wrong." in detail.sentence.text()
    assert "surprise 2.7 bits" in detail.scores.text()
    assert detail.chart() is None


def test_what_is_no_loss_is_shown_with_what_was_stated(dock: NotebookDock) -> None:
    choose(dock, "expected", "tokens_per_second")
    chart = dock.detail.chart()
    assert isinstance(chart, StatedChart)
    stated = chart.curves()["stated"]
    inside = (stated.x >= 1000) & (stated.x <= 2000)
    log = np.log(stated.x)
    share = np.trapezoid(np.where(inside, stated.y, 0.0), log) / np.trapezoid(stated.y, log)
    whole = 1 - 0.1 ** (np.ptp(log) / 2 / (np.log(2) / 2))  # of the density that is in sight
    assert share * whole == pytest.approx(0.9, abs=0.02)


def test_a_sentence_is_judged_and_something_is_learned(dock: NotebookDock, qtbot: QtBot) -> None:
    choose(dock, "expected", "text")
    assert dock.detail.came_right.isVisible()
    dock.detail.came_right.click()
    qtbot.waitUntil(lambda: dock.book.entries[2].state != TO_JUDGE)
    line = dock.chosen()
    assert line is not None  # the selection stayed
    assert line.locked.prediction.quantity == "text"
    dock.detail.learn.setText("One can know such things.")
    qtbot.keyClick(dock.detail.learn, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: bool(dock.book.entries[2].learned))
    assert rows(dock)[-1][8] == "One can know such things."


def test_an_open_entry_waits_for_its_sentence(dock: NotebookDock) -> None:
    choose(dock, "live", "val_loss")
    assert not dock.detail.learn.isEnabled()
    assert dock.detail.score_now.isHidden()  # it still trains
    assert "not there yet" in dock.detail.sentence.text()


def test_a_run_that_finishes_is_scored_and_told(dock: NotebookDock, lab: Lab, live: FakeRun, qtbot: QtBot) -> None:
    said: list[str] = []
    lab.said.connect(said.append)
    qtbot.waitUntil(lambda: lab.row("pretraining/live") is not None)
    live.losses_of = lambda step: (1.8, 2.5)
    live.advance(15, evaluate=False).append(Evaluated(20, 1.0, 1.8, 2.5, True, 0.1))
    live.finish()
    told = "live: You predicted final validation loss: 1.9 to 2.2, 80 % sure. The outcome was 2.5: outside."
    qtbot.waitUntil(lambda: told in said)
    assert rows(dock)[0][4] == "outside"
    shutil.copytree(live.run.path, live.run.path.with_name("copy"))
    lab.notebook.refresh()
    qtbot.waitUntil(lambda: ("copy", "outside") in [(row[0], row[4]) for row in rows(dock)])
    assert said.count(told) == 1


def test_the_curve_of_a_live_run_grows(dock: NotebookDock, lab: Lab, live: FakeRun, qtbot: QtBot) -> None:
    choose(dock, "live", "val_loss")
    qtbot.waitUntil(lambda: lab.row("pretraining/live") is not None)
    lab.set_current("pretraining/live")
    live.append(Evaluated(5, 1.0, 3.4, 3.5, True, 0.1))
    qtbot.waitUntil(lambda: dock.detail.result_chart.curves()["actual"].y.tolist() == [3.5])


def test_calibration_and_surprises_are_those_of_all_entries(dock: NotebookDock, qtbot: QtBot) -> None:
    dock.show_page(CALIBRATION)
    yours = dock.calibration.curves()["yours"]
    assert yours.x.tolist() == pytest.approx([70.0, 80.0, 90.0])
    assert yours.y.tolist() == pytest.approx([100.0, 100.0, 0.0])
    assert len(dock.brier.curves()["brier"].y) == 4
    assert "came true" in dock.verdict.text()
    dock.show_page(SURPRISES)
    first = dock.surprises.item(0)
    assert "surprise" in first.text()
    texts = [dock.surprises.item(place).text() for place in range(dock.surprises.count())]
    assert not any("0.0 bits" in text for text in texts)
    assert any("surprising" in text for text in texts)
    dock.surprises.itemActivated.emit(first)
    assert dock.page == RESULT
    chosen = dock.chosen()
    assert chosen is not None
    assert chosen.entry.about in first.text()


def test_everything_can_be_exported(dock: NotebookDock, lab: Lab, qtbot: QtBot, tmp_path: Path) -> None:
    def export(write: Callable[[Path], None], path: Path) -> None:
        with qtbot.waitSignal(lab.said, check_params_cb=lambda said: said == f"Saved {path}."):
            write(path)

    export(dock.export, tmp_path / "all.md")
    assert "# Notebook" in (tmp_path / "all.md").read_text(encoding="utf-8")
    export(dock.export_table, tmp_path / "all.csv")
    table = list(csv.reader((tmp_path / "all.csv").open(encoding="utf-8")))
    assert len(table) == 7
    assert table[0][:4] == ["About", "Predicted", "Outcome", "Confidence"]
    choose(dock, "expected", "val_loss")
    for kind in ("png", "svg", "csv"):
        target = tmp_path / f"chart.{kind}"
        export(dock.export_charts, target)
        assert target.stat().st_size > 100
    dock.show_page(CALIBRATION)
    export(dock.export_charts, tmp_path / "calibration.csv")
    assert "yours" in (tmp_path / "calibration.csv").read_text(encoding="utf-8")
    dock.show_page(SURPRISES)
    errors: list[object] = []
    lab.error_raised.connect(errors.append)
    dock.export_charts(tmp_path / "none.png")
    dock.export_table(tmp_path / "no" / "such" / "folder.csv")
    qtbot.waitUntil(lambda: len(errors) == 2)


def test_in_a_low_place_the_table_is_a_page_of_its_own(dock: NotebookDock, qtbot: QtBot) -> None:
    assert dock.page == RESULT
    dock.resize(420, 380)
    qtbot.waitUntil(lambda: dock.page == LIST)
    choose(dock, "expected", "val_loss")
    qtbot.keyClick(dock.table, Qt.Key.Key_Return)
    assert dock.page == RESULT
    assert "outcome was 2.05" in dock.detail.sentence.text()
    dock.resize(420, 760)
    qtbot.waitUntil(lambda: dock.tabs.indexOf(dock.table) < 0)
    assert dock.table.isVisible()


def test_a_chart_takes_the_wheel_only_while_it_has_the_keyboard(dock: NotebookDock, qtbot: QtBot) -> None:
    choose(dock, "expected", "val_loss")
    chart, area = dock.detail.result_chart, dock.tabs.currentWidget()
    assert isinstance(area, QScrollArea)
    dock.resize(420, 380)
    dock.show_page(RESULT)
    QApplication.processEvents()

    def turned() -> tuple[bool, bool]:
        """Whether that scrolled, and zoomed."""
        before = area.verticalScrollBar().value(), chart.getPlotItem().getViewBox().viewRange()
        place = chart.mapTo(dock, chart.rect().center())
        QTest.wheelEvent(dock.windowHandle(), place, QPoint(0, -120))
        QApplication.processEvents()
        after = area.verticalScrollBar().value(), chart.getPlotItem().getViewBox().viewRange()
        return before[0] != after[0], before[1] != after[1]

    dock.table.setFocus()
    assert turned() == (True, False)
    area.verticalScrollBar().setValue(0)
    chart.setFocus()
    assert turned() == (False, True)


def test_the_question_is_switched_on_here(dock: NotebookDock) -> None:
    dock.ask.setChecked(False)
    assert not dock.book.asks
    dock.book.set_asks(True)
    assert dock.ask.isChecked()


def test_an_empty_notebook_says_what_to_do(qtbot: QtBot, outputs: Path) -> None:
    FakeRun(outputs, "unpredicted").start().advance(20).finish()
    lab = Lab(outputs)
    dock = NotebookDock(lab)
    qtbot.addWidget(dock)
    assert "Reading the notebook" in dock._empty.text
    qtbot.waitUntil(lambda: "No predictions yet" in dock._empty.text)
    lab.queue.state = QueueState((QueuedRun(FakeRun(outputs, "other").settings, predictions=[{}]),))
    lab.queue.changed.emit()
    assert "1 prediction waits with the queue" in dock._empty.text
    wanted: list[str] = []
    lab.dock_requested.connect(wanted.append)
    dock._empty._button.click()
    assert wanted == ["setup"]
    lab.shutdown()


def test_a_renamed_run_has_its_new_name_at_once(dock: NotebookDock, outputs: Path, qtbot: QtBot) -> None:
    run = RunFolder(outputs / "pretraining" / "surprising")
    dock.lab.take_renamed(run.full_name, rename_run(run, "astonishing"))
    qtbot.waitUntil(lambda: "astonishing" in [row[0] for row in rows(dock)])
    assert "surprising" not in [row[0] for row in rows(dock)]
