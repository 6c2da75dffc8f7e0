"""The queue in the window: the next run starts when the one before has ended, and the panel shows and changes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeRun
from preset_settings import resolve_settings
from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot
from windows import MakeWindow, dock_in_sight

from llmlab.core.errors import LabError
from llmlab.core.files import locked
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.jobs import launcher
from llmlab.jobs.queue import QueuedRun, RunQueue
from llmlab.notebook.predictions import parse_prediction
from llmlab.store.run_folder import RunFolder
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.training_now import TrainingNow
from llmlab_gui.train.queue import BEGINS, NAME, QueueDock, waits
from llmlab_gui.train.run_setup import PlannedRun
from llmlab_gui.widgets.background import Background
from llmlab_gui.window import closing
from llmlab_gui.window.closing import CloseChoice


class Worker:
    """A process that never ends by itself."""

    def poll(self) -> None:
        return None


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Workers that were started, by their runs; none really is."""
    ids: list[str] = []

    def start(run: RunFolder) -> Worker:
        ids.append(run.id)
        return Worker()

    monkeypatch.setattr(launcher, "start_worker", start)
    return ids


@pytest.fixture
def dock(qtbot: QtBot, lab: Lab) -> Iterator[QueueDock]:
    with dock_in_sight(qtbot, QueueDock(lab), 700, 400) as made:
        yield made


def item(name: str, seconds: float | None = 60.0) -> QueuedRun:
    return QueuedRun(resolve_settings("nano", overrides={"data.corpus": "tiny"}), name, "nano", seconds)


def add(qtbot: QtBot, lab: Lab, *names: str) -> None:
    """Puts runs into the queue and waits until they are seen there."""
    for name in names:
        lab.queue.add(item(name))
    qtbot.waitUntil(lambda: [one.name for one in lab.queue.state.items][-len(names) :] == list(names))


def end(run: RunFolder) -> None:
    run.write_status(replace(run.recorded_status(), state="finished"))


def raises(error: LabError) -> None:
    raise error


def _look(qtbot: QtBot, lab: Lab) -> None:
    """Two looks of the queue's own."""
    for _ in range(2):
        qtbot.waitSignal(lab.queue._timer.timeout).wait()


def names(dock: QueueDock) -> list[str]:
    return [dock.model.index(row, NAME).data() for row in range(dock.model.rowCount())]


def test_each_run_starts_when_the_one_before_has_ended(
    qtbot: QtBot, lab: Lab, outputs: Path, started: list[str]
) -> None:
    live = FakeRun(outputs, "live").start().advance(5)
    qtbot.waitUntil(lambda: len(lab.runs()) == 1)
    add(qtbot, lab, "first", "second")
    _look(qtbot, lab)
    assert started == []
    live.finish()
    qtbot.waitUntil(lambda: started == ["first"])
    qtbot.waitUntil(lambda: (row := lab.current()) is not None and row.run.id == "first")
    lab.set_current("pretraining/live")  # the next one leaves alone what was chosen by hand
    end(RunFolder(outputs / "pretraining" / "first"))
    qtbot.waitUntil(lambda: started == ["first", "second"])
    qtbot.waitUntil(lambda: lab.queue.state.items == () and lab.row("pretraining/second") is not None)
    current = lab.current()
    assert current is not None
    assert current.run.id == "live"


def test_a_queue_from_an_earlier_window_goes_on(qtbot: QtBot, outputs: Path, started: list[str]) -> None:
    RunQueue(outputs).add(item("left"))
    lab = Lab(outputs)
    qtbot.waitUntil(lambda: started == ["left"])
    lab.shutdown()


def test_a_paused_queue_starts_nothing_until_it_goes_on(qtbot: QtBot, lab: Lab, started: list[str]) -> None:
    lab.queue.set_paused(True)
    qtbot.waitUntil(lambda: lab.queue.state.paused)
    add(qtbot, lab, "waits")
    _look(qtbot, lab)
    assert started == []
    lab.queue.toggle_paused()
    qtbot.waitUntil(lambda: started == ["waits"])


def test_a_run_that_cannot_start_says_why_and_the_next_one_starts(
    qtbot: QtBot, lab: Lab, dock: QueueDock, outputs: Path, started: list[str]
) -> None:
    FakeRun(outputs, "taken").start().advance(5).finish()
    errors: list[LabError] = []
    lab.error_raised.connect(errors.append)
    lab.queue.set_paused(True)
    qtbot.waitUntil(lambda: lab.queue.state.paused)
    add(qtbot, lab, "taken", "next")
    lab.queue.set_paused(False)
    qtbot.waitUntil(lambda: started == ["next"])
    assert [error.what for error in errors] == ["A run named 'taken' is already there."]
    qtbot.waitUntil(lambda: names(dock) == ["taken"])
    assert dock.model.index(0, BEGINS).data() == "cannot start"
    dock.table.selectRow(0)
    assert "already there" in dock.problem.text()


def test_runs_are_moved_by_keys_and_by_dragging_and_removed(
    qtbot: QtBot, lab: Lab, dock: QueueDock, outputs: Path
) -> None:
    FakeRun(outputs, "live").start().advance(5)
    qtbot.waitUntil(lambda: len(lab.runs()) == 1)
    add(qtbot, lab, "a", "b", "c")
    qtbot.waitUntil(lambda: names(dock) == ["a", "b", "c"])
    actions = {action.objectName(): action for action in dock.table.actions()}
    assert actions["action.queue_up"].shortcut() == QKeySequence("Alt+Up")
    dock.table.selectRow(2)
    actions["action.queue_up"].trigger()
    qtbot.waitUntil(lambda: names(dock) == ["a", "c", "b"])
    assert [one.name for one in dock.chosen()] == ["c"]  # the selection goes with the run
    dragged = dock.model.mimeData([dock.model.index(2, 0)])  # b, to the top
    dock.model.dropMimeData(dragged, Qt.DropAction.MoveAction, 0, 0, dock.table.rootIndex())
    qtbot.waitUntil(lambda: names(dock) == ["b", "a", "c"])
    dragged = dock.model.mimeData([dock.model.index(0, 0)])  # b again, between a and c
    dock.model.dropMimeData(dragged, Qt.DropAction.MoveAction, 2, 0, dock.table.rootIndex())
    qtbot.waitUntil(lambda: names(dock) == ["a", "b", "c"])
    dock.table.selectRow(1)
    actions["action.queue_remove"].trigger()
    qtbot.waitUntil(lambda: names(dock) == ["a", "c"])


def test_a_chosen_run_starts_at_once(
    qtbot: QtBot, lab: Lab, dock: QueueDock, outputs: Path, started: list[str]
) -> None:
    FakeRun(outputs, "live").start().advance(5)
    qtbot.waitUntil(lambda: len(lab.runs()) == 1)
    add(qtbot, lab, "a", "b")
    qtbot.waitUntil(lambda: len(names(dock)) == 2)
    dock.table.selectRow(1)
    dock.start_now()
    qtbot.waitUntil(lambda: started == ["b"])
    qtbot.waitUntil(lambda: names(dock) == ["a"])


def test_when_each_begins_follows_from_those_before() -> None:
    items = [item("a", 60.0), replace(item("b", 30.0), problem="It cannot."), item("c", None), item("d", 10.0)]
    assert [row.begins for row in waits(items, 100.0)] == [100.0, None, 160.0, None]
    assert [row.begins for row in waits(items, None)] == [None] * 4


def test_the_panel_says_what_it_waits_for(qtbot: QtBot, lab: Lab, dock: QueueDock, outputs: Path) -> None:
    live = FakeRun(outputs, "live").start().advance(5)
    qtbot.waitUntil(lambda: len(lab.runs()) == 1)
    add(qtbot, lab, "a")
    qtbot.waitUntil(lambda: dock.now.text().startswith("Waits for live: "))
    live.pause()
    qtbot.waitUntil(lambda: dock.now.text() == "Waits for live, which is paused.")
    lab.queue.set_paused(True)
    qtbot.waitUntil(lambda: dock.now.text() == "The queue is paused: nothing is started.")


def test_edit_takes_a_run_out_and_puts_its_settings_back_into_their_panel(
    qtbot: QtBot, lab: Lab, dock: QueueDock, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeRun(outputs, "live").start().advance(5)
    qtbot.waitUntil(lambda: len(lab.runs()) == 1)
    prediction = parse_prediction("val_loss=1.9..2.2@80%")
    lab.queue.add(QueuedRun(FinetuneSettings(), "tuned", "scratch", predictions=[prediction.as_dict()]))
    qtbot.waitUntil(lambda: names(dock) == ["tuned"])
    dock.table.selectRow(0)
    filled: list[object] = []
    lab.finetune_requested.connect(filled.append)
    with monkeypatch.context() as held, qtbot.waitSignal(lab.error_raised):
        held.setattr(RunQueue, "remove", lambda *_: raises(LabError("The queue is held by another program.")))
        dock.edit()
    assert filled == []  # it still waits: a second one like it is not set up
    with qtbot.waitSignal(lab.finetune_requested) as asked:
        dock.edit()
    assert (asked.args[0]["preset"], asked.args[0]["lora.rank"]) == ("scratch", FinetuneSettings().lora.rank)
    assert (asked.args[0]["name"], asked.args[0]["predictions"]) == ("tuned", (prediction,))
    qtbot.waitUntil(lambda: names(dock) == [])


# In the window -------------------------------------------------------------------------------------------------------


def test_a_second_run_can_wait_instead(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch, started: list[str]
) -> None:
    FakeRun(outputs, "live").start().advance(5)
    window = make_main_window(docks=False)
    qtbot.waitUntil(lambda: len(window.lab.runs()) == 1)
    asked: list[str] = []
    answers, titles = ["cancel", "cancel", "queue"], list[str]()

    def ask(_: TrainingNow, __: QWidget, title: str, **___: bool) -> str:
        titles.append(title)
        return answers.pop(0)

    monkeypatch.setattr(window.run_actions, "ask_prediction", lambda plan: asked.append(plan.name) or [])
    monkeypatch.setattr(TrainingNow, "ask", ask)
    window.run_actions.start(PlannedRun(FinetuneSettings(), "tuned", "full"))
    window.run_actions.start(PlannedRun(item("a").settings, "a", "nano", 5.0))
    assert asked == []  # nobody states what is then lost
    window.run_actions.start(PlannedRun(item("a").settings, "a", "nano", 5.0))
    assert asked == ["a"]
    assert titles == ["Fine-tune", "Train", "Train"]
    qtbot.waitUntil(lambda: [one.name for one in window.lab.queue.state.items] == ["a"])
    assert started == []


@pytest.mark.parametrize(("choice", "paused"), [(CloseChoice.KEEP, False), (CloseChoice.STOP, True)])
def test_closing_keeps_the_queue_and_a_stop_pauses_it(
    make_main_window: MakeWindow,
    qtbot: QtBot,
    outputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    choice: CloseChoice,
    paused: bool,
) -> None:
    live = FakeRun(outputs, "live").start().advance(5)
    live.run.write_info(replace(live.run.info(), watched=True))
    window = make_main_window(docks=False)
    qtbot.waitUntil(lambda: len(window.lab.runs()) == 1)
    add(qtbot, window.lab, "a", "b")
    told: list[int] = []

    def ask(parent: object, rows: object, waiting: int, *_: object) -> CloseChoice:
        told.append(waiting)
        return choice

    monkeypatch.setattr(closing, "ask", ask)
    window.close()
    assert told == [2]
    state = RunQueue(outputs).read()
    assert [one.name for one in state.items] == ["a", "b"]
    if paused:
        qtbot.waitUntil(lambda: RunQueue(outputs).read().paused)
    else:
        assert not state.paused


def test_a_queue_that_another_program_holds_holds_up_neither_the_window_nor_its_end(
    dock: QueueDock, lab: Lab, qtbot: QtBot, outputs: Path, started: list[str]
) -> None:
    FakeRun(outputs, "live").start().advance(5)
    qtbot.waitUntil(lambda: bool(lab.queue.live))
    add(qtbot, lab, "a")
    errors: list[object] = []
    lab.error_raised.connect(errors.append)
    with locked(outputs / ".queue.lock", "the queue"):
        lab.queue.hold()
        assert lab.queue.holding  # it is being written: nothing waited for it
        assert lab.queue.waiting() == []
        lab.shutdown()
    assert (errors, started) == ([], [])
    backgrounds = lab.findChildren(Background)
    assert lab.queue._background in backgrounds
    assert not any(one._pool for one in backgrounds)


def test_the_question_at_the_end_says_what_becomes_of_the_queue() -> None:
    assert closing.queue_words(0) == ""
    assert "The run that waits in the queue is kept" in closing.queue_words(1)
    assert "The 3 runs that wait in the queue are kept" in closing.queue_words(3)
