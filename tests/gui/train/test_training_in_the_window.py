"""The whole way, with a real worker: train, pause, resume, save, stop, close.
And what the window adds to the panels of training, predictions and papers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_checks import PAPER, FakeCheck
from fakes import FakeRun
from preset_settings import resolve_settings
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot
from windows import SMALL, MakeWindow, press_train, state_of

from llmlab.core.errors import LabError
from llmlab.jobs import launcher
from llmlab.jobs.queue import RunQueue
from llmlab.notebook.predictions import parse_prediction
from llmlab.store.checkpoints import final_of, list_checkpoints
from llmlab.store.run_folder import RunFolder
from llmlab_gui.lab.dock import is_seen
from llmlab_gui.notebook.prediction_dialog import PredictionDialog
from llmlab_gui.pages.places import PAPER as WORKSPACE
from llmlab_gui.pages.places import TRAIN
from llmlab_gui.paper.claim_rows import NOT_ASKED
from llmlab_gui.paper.claims import VERDICT_COLUMN, ClaimsDock
from llmlab_gui.paper.evidence import EvidenceDock
from llmlab_gui.train.loss import LossDock
from llmlab_gui.window import closing
from llmlab_gui.window.closing import CloseChoice
from llmlab_gui.window.main_window import MainWindow

MORE = 1000  # steps of a run that is to end: two or three seconds


@pytest.fixture
def same_window(same_window: MainWindow) -> Iterator[MainWindow]:
    """At the end without the process that the examples of a fine-tuning are asked of."""
    yield same_window
    same_window.use_workspace(TRAIN)
    same_window.lab.inspection.host.shutdown()


@pytest.fixture
def window(make_main_window: MakeWindow, qtbot: QtBot) -> MainWindow:
    """To be closed: it has no docks, which closing does not ask."""
    made = make_main_window(docks=False)
    qtbot.waitUntil(lambda: made.lab.looked)
    return made


def endless_run(window: MainWindow, qtbot: QtBot, name: str) -> RunFolder:
    """One that this window started and that is at work."""
    preset, overrides = SMALL["preset"], {key: value for key, value in SMALL.items() if key != "preset"}
    settings = resolve_settings(preset, overrides=overrides | {"train.steps": "1000000"})
    with qtbot.waitSignal(window.lab.controller.started) as started:
        window.lab.controller.start(settings, name, preset)
    run: RunFolder = started.args[0]
    qtbot.waitUntil(lambda: run.recorded_status().step > 0 and state_of(window, name) == "running")
    return run


def steps_drawn(window: MainWindow, name: str) -> int:
    """Steps in the loss chart as it is drawn."""
    dock = window.docks["loss"]
    assert isinstance(dock, LossDock)
    curve = dock.chart.curves().get(f"pretraining/{name}/train")
    return len(curve.x) if curve is not None else 0


@pytest.mark.slow
def test_from_train_to_the_final_checkpoint(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    run = press_train(window, qtbot, "real", 100_000)  # it does not end before somebody has looked
    qtbot.waitUntil(lambda: steps_drawn(window, "real") > 10)
    qtbot.waitUntil(lambda: "tokens/s" in window.status.speed.text())
    drawn = steps_drawn(window, "real")
    qtbot.waitUntil(lambda: steps_drawn(window, "real") > drawn)

    window.run_actions.pause.trigger()
    qtbot.waitUntil(lambda: state_of(window, "real") == "paused")
    held = run.recorded_status().step
    qtbot.waitUntil(lambda: len(window.lab.history("pretraining/real").step_columns) == held)
    window.run_actions.save.trigger()
    qtbot.waitUntil(lambda: [c.step for c in list_checkpoints(run.checkpoints)][-1:] == [held])
    assert run.recorded_status().step == held  # it has held meanwhile
    window.run_actions.resume.trigger()
    qtbot.waitUntil(lambda: run.recorded_status().step > held)
    window.run_actions.stop.trigger()
    qtbot.waitUntil(lambda: state_of(window, "real") == "stopped")
    steps = run.recorded_status().step + MORE
    window.lab.controller.resume(run, {"train.steps": steps})
    qtbot.waitUntil(lambda: state_of(window, "real") == "finished")
    qtbot.waitUntil(lambda: steps_drawn(window, "real") == steps)
    final = final_of(list_checkpoints(run.checkpoints))
    assert final is not None
    assert final.step == steps
    history = window.lab.history("pretraining/real")
    assert history.evaluations["val_loss"][-1] < history.evaluations["val_loss"][0]
    assert len(history.samples) >= 4
    assert not window.covers.messages.messages


def test_a_run_that_could_not_start_keeps_its_name_and_predictions(
    same_window: MainWindow, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = same_window

    def refuse(*_: object, **__: object) -> None:
        raise LabError("The disk is full.")

    monkeypatch.setattr(launcher, "create_run", refuse)
    monkeypatch.setattr(RunQueue, "add", refuse)
    stated = (parse_prediction("val_loss=1..2@80%"),)
    window.lab.setup_requested.emit(SMALL | {"name": "mine", "predictions": stated})
    setup = window.setups.scratch
    for way in (setup.train, setup.queue):
        qtbot.waitUntil(setup.train_button.isEnabled)
        with qtbot.waitSignal(window.lab.error_raised):
            way()
        assert setup.name.text() == "mine"
        assert setup.plan().predictions == stated
    window.lab.setup_requested.emit(SMALL)
    assert (setup.name.text(), setup.plan().predictions) == ("", ())


def test_a_stopped_run_goes_on_where_it_was(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    run = press_train(window, qtbot, "stopped", 100_000)
    qtbot.waitUntil(lambda: steps_drawn(window, "stopped") > 5)
    window.run_actions.stop.trigger()
    assert not window.run_actions.stop.isEnabled()
    qtbot.waitUntil(lambda: state_of(window, "stopped") == "stopped")
    ended = run.recorded_status().step
    qtbot.waitUntil(window.run_actions.resume.isEnabled)
    window.run_actions.resume.trigger()
    qtbot.waitUntil(lambda: run.recorded_status().step > ended)
    qtbot.waitUntil(lambda: state_of(window, "stopped") == "running")
    steps = window.lab.history("pretraining/stopped").step_columns["step"]
    assert list(steps) == list(range(1, len(steps) + 1))  # none twice, none lost
    window.run_actions.stop.trigger()
    qtbot.waitUntil(lambda: state_of(window, "stopped") == "stopped")


@pytest.mark.slow
def test_closing_with_a_live_run_can_be_cancelled_leaves_it_to_be_found_again_or_stops_it(
    make_main_window: MakeWindow, window: MainWindow, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = endless_run(window, qtbot, "live")
    asked: list[list[str]] = []
    answers = iter([CloseChoice.CANCEL, CloseChoice.KEEP, CloseChoice.STOP])

    def ask(_parent: QWidget, rows: list, *_: object) -> CloseChoice:
        asked.append([row.run.id for row in rows])
        return next(answers)

    monkeypatch.setattr(closing, "ask", ask)
    assert not window.close()
    assert window.isVisible()
    assert window.close()
    again = make_main_window(docks=False)
    before = run.recorded_status().step
    qtbot.waitUntil(lambda: run.recorded_status().step > before)
    qtbot.waitUntil(lambda: len(again.lab.history("pretraining/live").step_columns) > 5)
    QApplication.processEvents()
    assert state_of(again, "live") == "running"
    again.close()
    qtbot.waitUntil(lambda: not again.isVisible())
    assert asked == [["live"]] * 3
    assert run.status().state == "stopped"
    assert list_checkpoints(run.checkpoints)


# What is set up, predictions, papers ----------------------------------------------------------------------------------


def test_train_means_the_set_up_that_is_in_sight_and_so_do_examples_that_are_dropped(
    same_window: MainWindow, qtbot: QtBot, tmp_path: Path
) -> None:
    window = same_window
    qtbot.waitUntil(lambda: window.setups.shown_setup is window.docks["setup"])
    window.use_workspace("Fine-tune")
    qtbot.waitUntil(lambda: window.setups.shown_setup is window.docks["finetune_setup"])
    window.use_workspace("Train")
    window.lab.finetune_requested.emit({"preset": "scratch"})  # beside Set-up, which stays in sight
    qtbot.waitUntil(lambda: window.setups.shown_setup is window.docks["finetune_setup"])

    table, lines = tmp_path / "a.csv", tmp_path / "a.jsonl"
    table.write_text("prompt,completion\n1+1,2\n")
    lines.write_text('{"prompt": "1+1", "completion": "2"}\n')
    tuning: Any = window.docks["finetune_setup"]
    window.use_workspace("Train")
    window.reset_layout()
    window.open_path(lines)
    assert window.setups.scratch.corpus.value() == str(lines)  # a text, where texts are chosen
    window.open_path(table)
    assert tuning.examples.value() == str(table)
    window.use_workspace("Fine-tune")
    qtbot.waitUntil(lambda: window.setups.shown_setup is tuning)
    window.open_path(lines)
    assert tuning.examples.value() == str(lines)


def test_what_set_up_describes_goes_into_the_queue_with_its_estimate(
    same_window: MainWindow, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = same_window
    live = FakeRun(window.lab.outputs, "at work").start().advance(5)
    qtbot.waitUntil(lambda: bool(window.lab.queue.live))
    window.lab.setup_requested.emit(SMALL)
    monkeypatch.setattr(window.run_actions, "ask_prediction", lambda plan: [])
    qtbot.waitUntil(window.setups.shown_setup.queue_button.isEnabled)
    window.setups.shown_setup.queue_button.click()
    qtbot.waitUntil(lambda: len(window.lab.queue.state.items) == 1)
    (queued,) = window.lab.queue.state.items
    assert queued.preset == "baby"
    assert queued.seconds
    assert window.status.waiting.text() == "1 in the queue"
    window.status.waiting.click()
    assert is_seen(window.docks["queue"])
    window.lab.queue.remove([queued.id])
    qtbot.waitUntil(lambda: not window.lab.queue.state.items)
    live.finish()
    qtbot.waitUntil(lambda: not window.lab.queue.live)


def test_train_asks_first(same_window: MainWindow, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    window = same_window
    window.lab.notebook.set_asks(True)
    window.lab.setup_requested.emit(SMALL)
    qtbot.waitUntil(window.setups.scratch.train_button.isEnabled)
    started: list[list[str]] = []
    monkeypatch.setattr(
        window.lab.controller, "start", lambda *given: started.append([str(prediction) for prediction in given[3]])
    )

    def act(answer: str) -> None:
        asked = QApplication.activeModalWidget()
        if not isinstance(asked, PredictionDialog):  # it is about to come
            QTimer.singleShot(10, window, partial(act, answer))
        elif answer == "fill":
            asked.rows[0].low.setText("1.9")
            asked.rows[0].high.setText("2.2")
            asked.start_button.click()
        else:
            (asked.skip_button if answer == "skip" else asked.back_button).click()

    for answer, wanted in (("fill", [["val_loss=1.9..2.2@80%"]]), ("skip", [[]]), ("cancel", [])):
        started.clear()
        window.setups.scratch.raise_()
        qtbot.waitUntil(lambda: is_seen(window.setups.scratch))
        QTimer.singleShot(0, window, partial(act, answer))
        window.run_actions.train.trigger()
        assert started == wanted, answer
    window.lab.notebook.set_asks(False)


def test_a_link_to_a_claim_brings_the_workspace_with_it(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    FakeCheck(window.lab.outputs).finish()
    window.lab.paper_requested.emit(PAPER, "composition")
    qtbot.waitUntil(lambda: window.papers.claim is not None)
    claims, evidence = window.docks["claims"], window.docks["evidence"]
    assert isinstance(claims, ClaimsDock)
    assert isinstance(evidence, EvidenceDock)
    assert claims.isVisible()
    qtbot.waitUntil(lambda: evidence.badge.state == NOT_ASKED)
    kinds = {command.kind for command in window.menus.commands()}
    assert {"Paper", "Workspace"} <= kinds
    assert WORKSPACE in {command.text for command in window.menus.commands()}
    assert claims.table.itemDelegateForColumn(VERDICT_COLUMN) is not None
