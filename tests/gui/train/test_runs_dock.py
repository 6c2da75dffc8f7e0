"""The Runs dock: rows that follow the runs, overlays, filter, sorting, CSV, and deleting."""

from __future__ import annotations

import csv
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import pytest
from fake_archives import ABOUT
from fakes import FakeRun
from PySide6.QtCore import QItemSelectionModel, QPoint, QRect, Qt, QTimer
from PySide6.QtGui import QIcon, QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QApplication, QMenu, QPushButton, QStyleOptionViewItem, QWidget
from pytestqt.qtbot import QtBot
from waits import WAIT
from windows import dock_in_sight, look_again

from llmlab.core.errors import LabError
from llmlab.core.records import from_plain
from llmlab.jobs import launcher
from llmlab.notebook.predictions import parse_prediction
from llmlab.store import requests
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder
from llmlab.studies import upkeep
from llmlab_gui.forms.reference_box import offers
from llmlab_gui.host.messages import ModelAbout
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.lab.training_now import TrainingNow
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.train import run_deletions
from llmlab_gui.train import runs as runs_dock
from llmlab_gui.train.run_actions import RunActions
from llmlab_gui.train.runs import RunsDock, Ticked
from llmlab_gui.train.runs_table import COLUMNS, NAME, SHOW, STATE
from llmlab_gui.widgets import question
from llmlab_gui.widgets.numbers import created_text
from llmlab_gui.widgets.question import LineQuestion
from llmlab_gui.widgets.row_tables import KEY_ROLE, select_row
from llmlab_gui.window.status_bar import StatusBar


@pytest.fixture
def runs(outputs: Path) -> dict[str, FakeRun]:
    """Oldest first: one failed, one finished, one live."""
    return {
        "first": FakeRun(outputs, "first", created=1.70e9).start().advance(30).fail("There was not enough memory."),
        "second": FakeRun(outputs, "second", created=1.71e9, seed=2, steps=300).start().advance(300).finish(),
        "third": FakeRun(outputs, "third", created=1.72e9, seed=3).start().advance(40),
    }


@pytest.fixture
def lab(qtbot: QtBot, outputs: Path, runs: dict[str, FakeRun]) -> Iterator[Lab]:
    made = Lab(outputs)
    yield made
    made.shutdown()


@pytest.fixture
def dock(qtbot: QtBot, lab: Lab) -> Iterator[RunsDock]:
    with dock_in_sight(qtbot, RunsDock(lab), 900, 300) as made:
        qtbot.waitUntil(lambda: len(made.model.rows) == 3)
        yield made


def shown_ids(dock: RunsDock) -> list[str]:
    return [PurePath(dock.proxy.index(row, NAME).data(KEY_ROLE)).name for row in range(dock.proxy.rowCount())]


def cell(dock: RunsDock, run_id: str, title: str, role: int = Qt.ItemDataRole.DisplayRole) -> object:
    column = next(i for i, column in enumerate(COLUMNS) if column.title == title)
    return dock.proxy.index(shown_ids(dock).index(run_id), column).data(role)


def test_a_row_tells_what_a_run_is_and_where_it_stands(dock: RunsDock, runs: dict[str, FakeRun]) -> None:
    assert shown_ids(dock) == ["third", "second", "first"]  # newest first
    assert cell(dock, "second", "State") == "finished"
    assert cell(dock, "second", "Step") == "300 / 300"
    assert cell(dock, "second", "Size") == "0.81M"
    assert cell(dock, "second", "Learns from") == "shakespeare"
    assert cell(dock, "second", "Loss") == f"{runs['second'].step_event(300).loss:.3f}"
    assert cell(dock, "third", "State", Qt.ItemDataRole.DecorationRole) is not None  # a sign, not only a colour
    swatch = dock.model.index(0, 0).data(Qt.ItemDataRole.DecorationRole)
    images = [swatch.pixmap(12, 12, mode).toImage() for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected)]
    assert images[0] == images[1]  # the colour of its curves in a chosen row, too


def test_a_live_run_moves_in_its_row_and_the_selection_stays(
    dock: RunsDock, qtbot: QtBot, runs: dict[str, FakeRun]
) -> None:
    dock.table.selectRow(shown_ids(dock).index("first"))
    runs["third"].advance(100)
    qtbot.waitUntil(lambda: cell(dock, "third", "Step") == "140 / 1,000")
    assert [row.run.id for row in dock.chosen()] == ["first"]


def test_a_silent_worker_is_told_with_since_when_in_its_row_and_in_the_status_bar(
    dock: RunsDock, qtbot: QtBot, lab: Lab, runs: dict[str, FakeRun]
) -> None:
    bar = StatusBar(lab)
    qtbot.addWidget(bar)
    run = runs["third"].run
    run.write_status(replace(run.recorded_status(), heartbeat=1.0, patience=120.0))
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(1.0))
    qtbot.waitUntil(lambda: cell(dock, "third", "State") == f"silent since {since}")
    qtbot.waitUntil(lambda: bar.state.text() == f"third · Running, silent since {since}")
    assert (bar.speed.text(), bar.left.text()) == ("", "")  # they are from before
    tip = str(cell(dock, "third", "Name", Qt.ItemDataRole.ToolTipRole))
    assert "Its process is stopped, or it hangs" in tip
    lab.set_current("pretraining/first")
    assert bar.other.text() == f"third: silent since {since}"  # beside another that is looked at: not that it trains
    assert bar.other.toolTip().startswith(f"third is running, silent since {since}: step 40 of 1,000.")


def test_a_run_that_starts_counts_as_one_that_trains(outputs: Path) -> None:
    fake = FakeRun(outputs, "new")
    steps = (lambda: fake, fake.start, lambda: fake.advance(5).stop())
    before, during, after = (RunRow(step().run, fake.run.info(), fake.run.status()) for step in steps)
    assert before.trains_here
    assert during.trains_here
    assert not after.trains_here


def test_another_run_that_trains_is_told_in_the_status_bar_and_a_click_away(
    dock: RunsDock, qtbot: QtBot, lab: Lab, runs: dict[str, FakeRun]
) -> None:
    bar = StatusBar(lab)
    qtbot.addWidget(bar)
    lab.set_current("pretraining/third")
    assert bar.other.isHidden()
    lab.set_current("pretraining/first")
    assert bar.other.text().startswith("third trains")
    assert bar.other.toolTip().startswith("third trains: step 40 of 1,000.")
    bar.other.click()
    assert lab.chosen() == "pretraining/third"
    assert bar.other.isHidden()


def test_a_run_of_another_machine_is_resumed_here_when_somebody_says_that_it_is_gone(
    qtbot: QtBot, lab: Lab, runs: dict[str, FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or of this one under an earlier name: nothing else tells that from here."""
    window, run, asked, started = QWidget(), runs["third"].run, list[str](), list[str]()
    qtbot.addWidget(window)
    answers = iter(["ask", "", "here"])

    def ask(parent: QWidget, title: str, text: str, more: str, buttons: dict[str, str], **_: object) -> str:
        asked.append(text)
        return next(answers)

    def start(run: RunFolder) -> Any:
        started.append(run.status().state)
        raise LabError("Nothing is started.")

    monkeypatch.setattr(question, "ask", ask)
    monkeypatch.setattr(launcher, "start_worker", start)
    lab.set_current("pretraining/third")
    actions = RunActions(lab, lambda: None, window)
    assert not actions.resume.isEnabled()
    elsewhere = replace(run.recorded_status(), host="dhcp-17", pid=None)
    run.write_status(replace(elsewhere, state="paused"))
    qtbot.waitUntil(actions.resume.isEnabled)
    with monkeypatch.context() as held:
        held.setattr(TrainingNow, "ask", lambda *_: "cancel")  # of what trains here, which that machine does not slow
        actions.resume.trigger()
    assert [request.name for request in requests.take(run.requests)] == ["resume"]
    run.write_status(elsewhere)
    qtbot.waitUntil(lambda: lab.row("pretraining/third").status.state == "running")
    row = lab.row("pretraining/third")
    assert row is not None
    assert not row.trains_here
    actions.resume.trigger()
    assert run.status().elsewhere
    with qtbot.waitSignal(lab.controller.failed):
        actions.resume.trigger()
    assert asked == ["third was last seen on dhcp-17."] * 3
    assert started == ["interrupted"]


def test_a_tick_overlays_a_run_in_a_colour_of_its_own(dock: RunsDock, qtbot: QtBot, lab: Lab) -> None:
    place = shown_ids(dock).index("second")
    index = dock.proxy.index(place, SHOW)
    with qtbot.waitSignal(lab.shown_runs_changed):
        dock.proxy.setData(index, Qt.CheckState.Checked, Qt.ItemDataRole.CheckStateRole)
    assert lab.shown_runs() == ["pretraining/third", "pretraining/second"]
    assert lab.color("pretraining/third") != lab.color("pretraining/second")
    qtbot.waitUntil(lambda: len(lab.history("pretraining/second").step_columns) == 300)
    settings = WindowSettings(lab.outputs / "window.ini")
    dock.remember(settings)
    dock.shutdown()
    dock.proxy.setData(index, Qt.CheckState.Unchecked, Qt.ItemDataRole.CheckStateRole)
    assert lab.shown_runs() == ["pretraining/third"]
    dock.remember(settings)  # as after a restart
    assert lab.shown_runs() == ["pretraining/third", "pretraining/second"]
    elsewhere = Lab(lab.outputs / "elsewhere")  # a window that has not found its runs yet, or has others
    other = RunsDock(elsewhere)
    qtbot.addWidget(other)
    other.remember(settings)
    other.shutdown()
    elsewhere.shutdown()
    assert settings.choices("runs/ticked", Ticked) == Ticked(["pretraining/second"])
    lab.set_shown_runs(["pretraining/second", "pretraining/elsewhere"])  # the latter is in another outputs folder
    dock.proxy.setData(index, Qt.CheckState.Unchecked, Qt.ItemDataRole.CheckStateRole)
    assert lab.overlaid() == ["pretraining/elsewhere"]
    dock._toggle_chosen()
    assert "pretraining/elsewhere" in lab.overlaid()


def test_a_run_has_the_colour_that_it_had_before_a_restart(
    qtbot: QtBot, outputs: Path, runs: dict[str, FakeRun]
) -> None:
    settings, ids = WindowSettings(outputs / "window.ini"), [f"pretraining/{name}" for name in runs]

    def colors(shown: list[str]) -> list[str]:
        """At a start, as the runs are shown one after the other."""
        lab = Lab(outputs)
        qtbot.waitUntil(lambda: lab.looked)
        dock = RunsDock(lab)
        qtbot.addWidget(dock)
        dock.remember(settings)
        for number in range(len(shown)):
            lab.set_shown_runs(shown[: number + 1])
        assert dock._keeping.isActive()
        dock._keeping.timeout.emit()  # the window is killed later
        found = [lab.color(run_id).name() for run_id in ids]
        lab.shutdown()
        return found

    before = colors(ids)
    assert len(set(before)) == len(ids)
    FakeRun(outputs, "older", created=1.0)  # every place by age is another one now
    assert colors(ids[::-1]) == before


def test_the_run_that_was_chosen_is_chosen_again_at_the_next_start_where_none_is_at_work(
    qtbot: QtBot, outputs: Path, runs: dict[str, FakeRun]
) -> None:
    settings = WindowSettings(outputs / "window.ini")

    def start(outputs: Path, chosen: str = "", *, first: bool = True) -> str:
        """Id of the run that is current after a start. first: the dock is there before the runs were read."""
        lab = Lab(outputs)
        if not first:
            qtbot.waitUntil(lambda: lab.looked)
        dock = RunsDock(lab)
        qtbot.addWidget(dock)
        dock.remember(settings)
        qtbot.waitUntil(lambda: lab.looked)
        if chosen:
            lab.set_current(chosen)
        row = lab.current()
        dock.shutdown()
        lab.shutdown()
        return row.id if row is not None else ""

    start(outputs, "pretraining/first")
    assert start(outputs) == "pretraining/third"  # it is live, and has to be chosen by hand to be kept
    runs["third"].finish()
    assert start(outputs) == "pretraining/third"
    start(outputs, "pretraining/first")
    assert start(outputs / "elsewhere") == ""  # which has no part in what was chosen here
    assert start(outputs) == start(outputs, first=False) == "pretraining/first"
    shutil.rmtree(runs["first"].run.path)
    assert start(outputs) == "pretraining/third"


def test_a_row_that_the_keyboard_is_at_is_framed_and_ticked_without_being_opened(
    dock: RunsDock, qtbot: QtBot, lab: Lab
) -> None:
    with qtbot.waitActive(dock):
        dock.activateWindow()
    dock.table.setFocus()
    second = dock.table.visualRect(dock.proxy.index(shown_ids(dock).index("second"), NAME))
    edge = second.bottomLeft() + QPoint(second.width() // 2, 0)
    before = dock.table.viewport().grab().toImage().pixelColor(edge)
    qtbot.keyClick(dock.table, Qt.Key.Key_Down, Qt.KeyboardModifier.ControlModifier)
    assert dock.table.viewport().grab().toImage().pixelColor(edge) != before
    qtbot.keyClick(dock.table, Qt.Key.Key_Space)
    assert lab.shown_runs() == ["pretraining/third", "pretraining/second"]


def test_of_a_long_name_made_from_a_date_the_time_of_day_is_in_sight_and_of_a_state_its_beginning(
    dock: RunsDock,
) -> None:
    option = QStyleOptionViewItem()
    option.initFrom(dock.table)
    names = ("20261130-081913-baby-shakespeare", "a-name-of-ones-own-that-is-as-long")
    model = QStandardItemModel(len(names), STATE + 1)
    for row, name in enumerate(names):
        model.setItem(row, NAME, QStandardItem(name))
    cut = option.fontMetrics.horizontalAdvance("08:19:13 ") + option.fontMetrics.horizontalAdvance("…akespeare") + 8
    for width, shown in ((1000, names), (cut, ("08:19:13 …akespeare", names[1]))):
        option.rect = QRect(0, 0, width, 20)
        for row, expected in enumerate(shown):
            dock.table.itemDelegate().initStyleOption(option, model.index(row, STATE))
            assert option.textElideMode == Qt.TextElideMode.ElideRight
            option.textElideMode = dock.table.textElideMode()
            dock.table.itemDelegate().initStyleOption(option, model.index(row, NAME))
            assert (option.text, option.textElideMode) == (expected, Qt.TextElideMode.ElideMiddle)


def test_clicking_a_row_opens_that_run(dock: RunsDock, qtbot: QtBot, lab: Lab) -> None:
    index = dock.proxy.index(shown_ids(dock).index("second"), NAME)
    with qtbot.waitSignal(lab.current_changed) as changed:
        qtbot.mouseClick(dock.table.viewport(), Qt.MouseButton.LeftButton, pos=dock.table.visualRect(index).center())
    assert changed.args == ["pretraining/second"]


def test_the_filter_keeps_what_fits(dock: RunsDock) -> None:
    dock.filter.setText("FINI")
    assert shown_ids(dock) == ["second"]
    dock.filter.setText("sec(ond")  # no pattern: it is taken as it stands
    assert shown_ids(dock) == []
    dock.filter.clear()
    assert len(shown_ids(dock)) == 3


def test_columns_sort_by_value_not_by_text(dock: RunsDock) -> None:
    steps = next(i for i, column in enumerate(COLUMNS) if column.title == "Step")
    dock.table.sortByColumn(steps, Qt.SortOrder.AscendingOrder)
    assert shown_ids(dock) == ["first", "third", "second"]  # 30, 40, 300
    dock.table.sortByColumn(STATE, Qt.SortOrder.AscendingOrder)
    assert shown_ids(dock) == ["first", "second", "third"]  # failed, finished, running


def test_the_table_is_exported_as_it_is_shown(qtbot: QtBot, dock: RunsDock, tmp_path: Path) -> None:
    dock.filter.setText("second")
    with qtbot.waitSignal(dock.lab.said):
        dock.export(tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["Run"] for row in rows] == ["second"]
    assert rows[0]["Step"] == "300"
    assert float(rows[0]["Val loss (nats per token)"]) > 0
    assert rows[0]["Size (parameters)"] == "809856"
    assert time.mktime(time.strptime(rows[0]["Created"], "%Y-%m-%d %H:%M")) == pytest.approx(1.71e9, abs=60)


def test_a_live_run_is_not_deleted(dock: RunsDock, qtbot: QtBot, lab: Lab, runs: dict[str, FakeRun]) -> None:
    row = lab.row("pretraining/third")
    assert row is not None
    with qtbot.waitSignal(lab.error_raised) as told:
        dock.deletions.delete([row])
    assert "has not ended" in told.args[0].what
    assert runs["third"].run.path.is_dir()


def test_a_deleted_run_goes_to_the_trash_after_a_question(
    dock: RunsDock, qtbot: QtBot, lab: Lab, runs: dict[str, FakeRun], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def trash(path: Path) -> bool:
        path.rename(tmp_path / "trash")
        return True

    monkeypatch.setattr(upkeep, "move_to_trash", trash)
    row = lab.row("pretraining/second")
    assert row is not None
    lab.set_current("pretraining/second")
    monkeypatch.setattr(dock.deletions, "confirm", lambda rows, for_good, rests=(): False)
    dock.deletions.delete([row])
    qtbot.waitUntil(lambda: dock.deletions.working is None)
    assert runs["second"].run.path.is_dir()
    monkeypatch.setattr(dock.deletions, "confirm", lambda rows, for_good, rests=(): not for_good)
    dock.deletions.delete([row])
    qtbot.waitUntil((tmp_path / "trash" / "run.json").is_file)
    qtbot.waitUntil(lambda: shown_ids(dock) == ["third", "first"])
    current = lab.current()
    assert current is not None
    assert current.run.id != "second"


@pytest.mark.parametrize("agreed", [True, False])
def test_without_a_trash_a_run_is_only_deleted_after_a_second_question(
    dock: RunsDock, qtbot: QtBot, lab: Lab, runs: dict[str, FakeRun], monkeypatch: pytest.MonkeyPatch, agreed: bool
) -> None:
    monkeypatch.setattr(upkeep, "move_to_trash", lambda path: False)
    monkeypatch.setattr(dock.deletions, "confirm", lambda rows, for_good, rests=(): agreed or not for_good)
    row = lab.row("pretraining/second")
    assert row is not None
    dock.deletions.delete([row])
    qtbot.waitUntil(lambda: dock.deletions.working is None)
    assert runs["second"].run.path.exists() is not agreed
    assert (lab.row("pretraining/second") is None) is agreed


def test_where_the_trash_takes_one_run_of_two_a_later_run_of_its_name_can_be_deleted_too(
    dock: RunsDock, qtbot: QtBot, lab: Lab, runs: dict[str, FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "move_to_trash", lambda path: path.name == "first" and not shutil.rmtree(path))
    monkeypatch.setattr(dock.deletions, "confirm", lambda rows, for_good, rests=(): True)
    dock.deletions.delete([row for row in lab.runs() if not row.status.live])
    qtbot.waitUntil(lambda: [row.name for row in lab.runs()] == ["third"])
    again = FakeRun(lab.outputs, "first").start().finish()
    lab.refresh()
    qtbot.waitUntil(lambda: lab.row("pretraining/first") is not None)
    row = lab.row("pretraining/first")
    assert row is not None
    dock.deletions.delete([row])
    qtbot.waitUntil(lambda: not again.run.path.exists())


def test_a_long_deletion_leaves_the_window_free_and_can_be_cancelled(
    dock: RunsDock, qtbot: QtBot, lab: Lab, runs: dict[str, FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow_trash(path: Path) -> bool:
        begun.set()
        assert may_end.wait(WAIT / 1000)
        shutil.rmtree(path)
        return True

    monkeypatch.setattr(upkeep, "move_to_trash", slow_trash)
    monkeypatch.setattr(dock.deletions, "confirm", lambda rows, for_good, rests=(): True)
    rows = [row for row in lab.runs() if not row.status.live]
    dock.deletions.delete(rows)
    qtbot.waitUntil(begun.is_set)
    qtbot.waitUntil(dock.strip.isVisible)
    assert dock.strip.what.text() == f"Deleting {rows[0].name}"
    dock.strip.cancel_button.click()
    may_end.set()
    qtbot.waitUntil(lambda: dock.deletions.working is None and dock.strip.isHidden())
    qtbot.waitUntil(lambda: len(lab.runs()) == 2)
    assert [row.run.path.is_dir() for row in rows] == [False, True]


def test_another_run_like_it_is_set_up_with_all_its_settings(dock: RunsDock, qtbot: QtBot, lab: Lab) -> None:
    dock.table.selectRow(shown_ids(dock).index("second"))
    with qtbot.waitSignal(lab.setup_requested) as asked:
        dock._actions["again"].trigger()
    assert asked.args[0]["preset"] == "baby"
    assert asked.args[0]["train.steps"] == 300
    assert asked.args[0]["train.seed"] == 2


def test_times_are_as_short_as_they_can_be() -> None:
    assert created_text(0.0) in ("1970-01-01", "1969-12-31")


def test_without_runs_the_dock_says_how_they_come(qtbot: QtBot, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "nothing")
    dock = RunsDock(lab)
    qtbot.addWidget(dock)
    qtbot.waitUntil(lambda: dock._empty._title.text() == "No runs yet")
    lab.shutdown()


@pytest.fixture
def twins(outputs: Path) -> tuple[FakeRun, FakeRun]:
    """pretraining/bar and finetuning/bar, as older outputs folders hold them."""
    first = FakeRun(outputs, "bar", created=1.7e9).start().advance(30).save_checkpoint().finish()
    second = FakeRun(outputs, "elsewhere", created=1.71e9).start().advance(70).save_checkpoint().finish()
    (outputs / "finetuning").mkdir()
    second.run.path.rename(outputs / "finetuning" / "bar")
    second.run = RunFolder(outputs / "finetuning" / "bar")
    first.predict("val_loss=1..2@80%")
    second.predict("val_loss=3..4@80%")
    return first, second


def test_two_runs_of_one_name_are_two_rows_and_each_is_itself(
    twins: tuple[FakeRun, FakeRun], qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab = Lab(outputs)
    dock = RunsDock(lab)
    qtbot.addWidget(dock)
    qtbot.waitUntil(lambda: len(lab.runs()) == 2)
    names = [dock.proxy.index(place, NAME).data() for place in range(2)]
    assert names == ["finetuning/bar", "pretraining/bar"]
    lab.set_current("pretraining/bar")
    lab.set_shown_runs(["finetuning/bar"])
    ids = ("pretraining/bar", "finetuning/bar")
    qtbot.waitUntil(lambda: [len(lab.history(name).step_columns) for name in ids] == [30, 70])
    assert len({lab.color(name).name() for name in ids}) == 2
    dock.table.selectRow(0)
    chosen = dock.chosen()
    assert [row.run.path for row in chosen] == [outputs / "finetuning" / "bar"]
    lab.notebook.refresh()
    qtbot.waitUntil(lambda: len(lab.notebook.entries) == 2)
    stated = {entry.full_name: entry.lines()[0].locked.prediction for entry in lab.notebook.entries}
    assert stated == {
        "pretraining/bar": parse_prediction("val_loss=1..2@80%"),
        "finetuning/bar": parse_prediction("val_loss=3..4@80%"),
    }
    for name, step in zip(ids, (30, 70), strict=True):
        row = lab.row(name)
        assert row is not None
        assert f"{name}@{step}" in dict(offers(outputs, [row.run], []))
        assert lab.row_called(name) == row

    def trash(path: Path) -> bool:
        path.rename(tmp_path / "trash")
        return True

    monkeypatch.setattr(upkeep, "move_to_trash", trash)
    monkeypatch.setattr(dock.deletions, "confirm", lambda rows, for_good, rests=(): not for_good)
    dock.deletions.delete(chosen)
    qtbot.waitUntil(lambda: [run.id for run in list_runs(outputs)] == ["bar"])
    assert (outputs / "pretraining" / "bar" / "run.json").is_file()
    qtbot.waitUntil(lambda: [row.name for row in lab.runs()] == ["bar"])
    dock.shutdown()
    lab.shutdown()


def test_of_two_runs_of_one_name_the_one_that_is_meant_is_renamed(
    twins: tuple[FakeRun, FakeRun], qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(outputs)
    dock = RunsDock(lab)
    qtbot.addWidget(dock)
    qtbot.waitUntil(lambda: len(lab.runs()) == 2)
    lab.set_current("pretraining/bar")
    lab.set_shown_runs(["finetuning/bar"])
    row = lab.row("finetuning/bar")
    assert row is not None
    monkeypatch.setattr(dock, "ask_name", lambda _row: "foo")
    dock.rename(row)
    qtbot.waitUntil(lambda: lab.row("finetuning/foo") is not None)
    assert lab.shown_runs() == ["pretraining/bar", "finetuning/foo"]
    assert (outputs / "pretraining" / "bar" / "run.json").is_file()
    dock.shutdown()
    lab.shutdown()


def test_a_name_that_cannot_be_taken_is_told_in_the_dialog_which_keeps_what_was_typed(
    dock: RunsDock, qtbot: QtBot, lab: Lab, outputs: Path
) -> None:
    row = lab.row("pretraining/second")
    assert row is not None
    errors: list[object] = []
    lab.error_raised.connect(errors.append)
    told: list[tuple[str, str]] = []

    def type_names() -> None:
        asked = QApplication.activeModalWidget()
        try:
            assert isinstance(asked, LineQuestion)
            for typed in ("my second run", "first", "winner"):
                asked.line.selectAll()
                qtbot.keyClicks(asked.line, typed)
                assert asked.problem.isHidden()  # while one types nothing is wrong
                qtbot.keyClick(asked.line, Qt.Key.Key_Return)
                told.append((asked.line.text(), asked.problem.text() if asked.isVisible() else ""))
        finally:
            if asked is not None:
                asked.close()

    QTimer.singleShot(0, type_names)
    dock.rename(row)
    assert told[0][0] == "my second run"
    assert "'my second run' cannot be a run's name." in told[0][1]
    assert told[1][0] == "first"
    assert "A run named 'first' is already there." in told[1][1]
    assert told[1][1].endswith(" Choose another name.")
    qtbot.waitUntil(lambda: lab.row("pretraining/winner") is not None)
    assert errors == []


def test_a_run_that_is_being_renamed_keeps_its_place_and_the_window_is_free(
    dock: RunsDock, qtbot: QtBot, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()

    def slow(run: RunFolder, new: str) -> RunFolder:
        renamed = upkeep.rename_run(run, new)
        assert may_end.wait(WAIT / 1000)
        return renamed

    monkeypatch.setattr(runs_dock, "rename_run", slow)
    monkeypatch.setattr(dock, "ask_name", lambda _row: "winner")
    lab.set_current("pretraining/second")
    row = lab.row("pretraining/second")
    assert row is not None
    changes: list[str] = []
    lab.current_changed.connect(changes.append)
    dock.rename(row)
    qtbot.waitUntil(lambda: not row.run.path.is_dir())
    look_again(qtbot, lab._poller)
    assert "pretraining/second" in [row.id for row in lab.runs()]
    assert changes == []
    may_end.set()
    qtbot.waitUntil(lambda: changes[-1:] == ["pretraining/winner"])
    assert sorted(row.run.id for row in lab.runs()) == ["first", "third", "winner"]


def test_a_run_that_is_renamed_stays_current_and_in_the_charts(
    dock: RunsDock, qtbot: QtBot, lab: Lab, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.set_current("pretraining/second")
    lab.set_shown_runs(["pretraining/first"])
    renamed: list[tuple[str, str, int]] = []
    lab.run_renamed.connect(lambda old, new: renamed.append((old, new, len(lab.runs()))))
    counts: list[int] = []
    lab.runs_changed.connect(lambda: counts.append(len(lab.runs())))
    for name, new in (("second", "winner"), ("first", "loser")):
        row = lab.row(f"pretraining/{name}")
        assert row is not None
        monkeypatch.setattr(dock, "ask_name", lambda _row, new=new: new)
        dock.filter.setFocus()  # a row that the keyboard chooses is opened a little later
        select_row(dock.table, row.id)
        dock.table.setFocus()
        qtbot.keyClick(dock.table, Qt.Key.Key_F2)
        qtbot.waitUntil(lambda new=new: lab.row(f"pretraining/{new}") is not None)
    assert lab.shown_runs() == ["pretraining/winner", "pretraining/loser"]
    assert renamed == [("pretraining/second", "pretraining/winner", 3), ("pretraining/first", "pretraining/loser", 3)]
    assert set(counts) == {3}  # whoever lists the runs never misses it
    assert {run.id for run in list_runs(outputs)} == {"winner", "loser", "third"}
    qtbot.waitUntil(lambda: len(lab.history("pretraining/winner").step_columns) == 300)
    look_again(qtbot, lab._poller)
    assert sorted(shown_ids(dock)) == ["loser", "third", "winner"]


def test_a_run_that_takes_the_name_of_one_that_came_to_nothing_is_there_once(
    dock: RunsDock, qtbot: QtBot, lab: Lab, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeRun(outputs, "winner", created=1.69e9).start().fail("There was not enough memory.")
    qtbot.waitUntil(lambda: lab.row("pretraining/winner") is not None)
    lab.set_shown_runs(["pretraining/winner"])
    qtbot.waitUntil(lambda: lab.history("pretraining/winner").ended is not None)
    row = lab.row("pretraining/second")
    assert row is not None
    seen: list[list[tuple[str, str]]] = []
    lab.run_renamed.connect(
        lambda *_: lab.runs_changed.connect(
            lambda: seen.append([(row.name, row.status.state) for row in lab.runs() if row.run.id == "winner"])
        )
    )
    monkeypatch.setattr(dock, "ask_name", lambda _: "winner")
    dock.rename(row)
    qtbot.waitUntil(lambda: bool(seen))
    assert seen[0] == [("winner", "finished")]
    qtbot.waitUntil(lambda: len(lab.history("pretraining/winner").step_columns) == 300)


def test_an_open_model_follows_the_run_that_is_renamed(
    dock: RunsDock, qtbot: QtBot, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question names the model anew."""
    opened: list[str] = []
    monkeypatch.setattr(lab.inspection, "open", opened.append)
    for name, new, which in (("second", "winner", "40"), ("first", "loser", "final"), ("winner", "best", "latest")):
        other = "another@5" if name == "first" else f"{name}@{which}"
        lab.inspection.about = from_plain(ModelAbout, {**ABOUT, "reference": other, "name": name})
        row = lab.row(f"pretraining/{name}")
        assert row is not None
        monkeypatch.setattr(dock, "ask_name", lambda _row, new=new: new)
        dock.rename(row)
        qtbot.waitUntil(lambda new=new: lab.row(f"pretraining/{new}") is not None)
    lab.inspection.about = None
    folder = lab.outputs.resolve() / "pretraining"
    assert opened == [f"{folder / 'winner'}@40", f"{folder / 'best'}@latest"]


class ClosedMenu(QMenu):
    """A menu that was left without a choice."""

    def exec(self, *_: object) -> None:
        pass


def test_after_a_menu_on_a_live_run_delete_acts_on_the_row_that_is_selected_then(
    dock: RunsDock, qtbot: QtBot, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        dock.deletions, "confirm", lambda rows, for_good, rests=(): asked.extend(row.run.id for row in rows)
    )
    monkeypatch.setattr(runs_dock, "QMenu", ClosedMenu)
    dock.table.selectRow(shown_ids(dock).index("third"))  # live
    dock._open_menu(QPoint())
    dock.table.selectRow(shown_ids(dock).index("second"))
    dock._actions["delete"].trigger()
    qtbot.waitUntil(lambda: asked == ["second"])


def test_after_a_menu_on_another_row_delete_acts_on_that_row(
    dock: RunsDock, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_dock, "QMenu", ClosedMenu)
    asked: list[list[str]] = []
    monkeypatch.setattr(
        dock.deletions, "confirm", lambda rows, for_good, rests=(): asked.append([row.name for row in rows])
    )
    with qtbot.waitActive(dock):
        dock.activateWindow()
    dock.table.selectRow(shown_ids(dock).index("third"))
    dock.filter.setFocus()
    dock._open_menu(dock.table.visualRect(dock.proxy.index(shown_ids(dock).index("first"), NAME)).center())
    assert [row.name for row in dock.chosen()] == ["first"]
    qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Delete)
    qtbot.waitUntil(lambda: asked == [["first"]])


def test_the_menu_leads_to_what_can_be_done_with_a_run(
    dock: RunsDock, lab: Lab, runs: dict[str, FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    enabled: list[dict[str, bool]] = []

    class SeenMenu(ClosedMenu):
        def exec(self, *_: object) -> None:
            enabled.append({action.text(): action.isEnabled() for action in self.actions() if action.text()})

    monkeypatch.setattr(runs_dock, "QMenu", SeenMenu)
    told: list[tuple[object, ...]] = []
    for signal in (lab.look_requested, lab.write_requested, lab.comparison_requested, lab.compare_requested):
        signal.connect(lambda *given: told.append(given))
    dock.table.selectRow(shown_ids(dock).index("second"))
    dock._open_menu(QPoint(-1, -1))
    wanted = {"Look inside": True, "Write": True, "Compare with its base": False, "Open folder": True, "Rename…": True}
    assert wanted.items() <= enabled[0].items()
    assert enabled[0]["Overlay in the charts"]
    dock.table.selectRow(shown_ids(dock).index("third"))
    dock._open_menu(QPoint(-1, -1))
    assert not enabled.pop()["Take out of the charts"]  # the current run is always there
    dock.table.selectRow(shown_ids(dock).index("second"))
    for name in ("look", "write"):
        dock._actions[name].trigger()
    dock.table.selectAll()
    dock._open_menu(QPoint(-1, -1))
    assert not enabled[1]["Compare the two"]  # of three
    model = dock.table.selectionModel()
    model.select(
        dock.proxy.index(shown_ids(dock).index("first"), NAME),
        QItemSelectionModel.SelectionFlag.Deselect | QItemSelectionModel.SelectionFlag.Rows,
    )
    dock._open_menu(QPoint(-1, -1))
    assert enabled[2]["Compare the two"]
    assert not enabled[2]["Look inside"]
    dock._actions["compare"].trigger()
    second, third = runs["second"].run.path, runs["third"].run.path
    assert told == [(f"{second}@latest",), ("pretraining/second", ""), (f"{second}@latest", f"{third}@live")]


def test_a_filter_without_a_match_says_so_and_is_cleared_by_a_button(dock: RunsDock, qtbot: QtBot) -> None:
    dock.filter.setText("nothing like it")
    assert not dock.table.isVisible()
    assert "No run matches “nothing like it”" in dock._none.text
    assert dock.filter.isVisible()
    qtbot.mouseClick(dock._none.findChild(QPushButton), Qt.MouseButton.LeftButton)
    assert dock.table.isVisible()
    assert len(shown_ids(dock)) == 3


def test_the_question_before_a_deletion_names_what_each_run_belongs_to(
    dock: RunsDock, qtbot: QtBot, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(run_deletions, "ask_to_delete", lambda _, what, more, for_good: asked.append(more))
    belongs, based = "It belongs to the experiment rates.", "tuned cannot be opened without it: it is its base."
    rests = {"first": [belongs], "second": [belongs, based]}
    threads: set[threading.Thread] = set()

    def looked_for(found: list[RunFolder]) -> list[list[str]]:
        threads.add(threading.current_thread())
        return [rests[run.id] for run in found]

    monkeypatch.setattr(run_deletions, "what_rests_on", looked_for)
    rows = [row for name in ("first", "second") if (row := lab.row(f"pretraining/{name}"))]
    dock.deletions.delete(rows[:1])
    dock.deletions.delete(rows[:1])  # pressed twice: one question
    qtbot.waitUntil(lambda: dock.deletions.working is None)
    assert len(asked) == 1
    dock.deletions.delete(rows)
    qtbot.waitUntil(lambda: len(asked) == 2)
    assert threading.main_thread() not in threads
    assert asked[0].endswith(f"\n{belongs}")
    assert "\nfirst, second: it belongs to the experiment rates.\nsecond: tuned cannot be opened" in asked[1]


def test_open_acts_on_the_row_that_is_selected(dock: RunsDock, lab: Lab) -> None:
    places = shown_ids(dock)
    dock.table.selectRow(places.index("second"))
    at = dock.proxy.index(places.index("first"), NAME)
    dock.table.selectionModel().setCurrentIndex(at, QItemSelectionModel.SelectionFlag.NoUpdate)
    dock._actions["open"].trigger()
    current = lab.current()
    assert current is not None
    assert current.run.id == "second"


def test_the_current_run_is_in_sight_when_the_panel_comes_back(qtbot: QtBot, lab: Lab, dock: RunsDock) -> None:
    dock.table.setFixedHeight(70)
    QApplication.processEvents()
    lab.set_current("pretraining/first")  # the last row
    dock.hide()
    dock.table.scrollToTop()  # as after another arrangement of the window
    assert dock.table.verticalScrollBar().maximum() > 0
    dock.show()
    qtbot.waitUntil(lambda: dock.table.verticalScrollBar().value() == dock.table.verticalScrollBar().maximum())
