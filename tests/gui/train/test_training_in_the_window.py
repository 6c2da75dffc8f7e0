"""The whole way, with a real worker: press Train, see the charts move, pause, resume, save, stop, close."""

from __future__ import annotations

import pytest
from preset_settings import resolve_settings
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot
from waits import WAIT
from windows import SMALL, MakeWindow, press_train, state_of

from llmlab.core.errors import LabError
from llmlab.jobs import launcher
from llmlab.jobs.queue import RunQueue
from llmlab.notebook.predictions import parse_prediction
from llmlab.store.checkpoints import final_of, list_checkpoints
from llmlab.store.run_folder import RunFolder
from llmlab_gui.train.loss import LossDock
from llmlab_gui.window import closing
from llmlab_gui.window.closing import CloseChoice
from llmlab_gui.window.main_window import MainWindow

STEPS = 1000  # two or three seconds: long enough to be paused on the way


@pytest.fixture
def window(make_main_window: MakeWindow, qtbot: QtBot) -> MainWindow:
    """To be closed: it has no docks, which closing does not ask."""
    made = make_main_window(docks=False)
    qtbot.waitUntil(lambda: made.lab.looked, timeout=WAIT)
    return made


def endless_run(window: MainWindow, qtbot: QtBot, name: str) -> RunFolder:
    """One that this window started and that is at work."""
    preset, overrides = SMALL["preset"], {key: value for key, value in SMALL.items() if key != "preset"}
    settings = resolve_settings(preset, overrides=overrides | {"train.steps": "1000000"})
    with qtbot.waitSignal(window.lab.controller.started, timeout=WAIT) as started:
        window.lab.controller.start(settings, name, preset)
    run: RunFolder = started.args[0]
    qtbot.waitUntil(lambda: run.recorded_status().step > 0 and state_of(window, name) == "running", timeout=WAIT)
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
    run = press_train(window, qtbot, "real", STEPS)
    qtbot.waitUntil(lambda: steps_drawn(window, "real") > 10, timeout=WAIT)
    qtbot.waitUntil(lambda: "tokens/s" in window.status.speed.text(), timeout=WAIT)
    drawn = steps_drawn(window, "real")
    qtbot.waitUntil(lambda: steps_drawn(window, "real") > drawn, timeout=WAIT)

    window.run_actions.pause.trigger()
    qtbot.waitUntil(lambda: state_of(window, "real") == "paused", timeout=WAIT)
    held = run.recorded_status().step
    qtbot.waitUntil(lambda: len(window.lab.history("pretraining/real").step_columns) == held, timeout=WAIT)
    window.run_actions.save.trigger()
    qtbot.waitUntil(lambda: [c.step for c in list_checkpoints(run.checkpoints)][-1:] == [held], timeout=WAIT)
    assert run.recorded_status().step == held  # it has held meanwhile
    window.run_actions.resume.trigger()
    qtbot.waitUntil(lambda: state_of(window, "real") == "finished", timeout=WAIT)
    qtbot.waitUntil(lambda: steps_drawn(window, "real") == STEPS, timeout=WAIT)
    final = final_of(list_checkpoints(run.checkpoints))
    assert final is not None
    assert final.step == STEPS
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
        qtbot.waitUntil(setup.train_button.isEnabled, timeout=WAIT)
        with qtbot.waitSignal(window.lab.error_raised, timeout=WAIT):
            way()
        assert setup.name.text() == "mine"
        assert setup.plan().predictions == stated
    window.lab.setup_requested.emit(SMALL)
    assert (setup.name.text(), setup.plan().predictions) == ("", ())


def test_a_stopped_run_goes_on_where_it_was(same_window: MainWindow, qtbot: QtBot) -> None:
    window = same_window
    run = press_train(window, qtbot, "stopped", 100_000)
    qtbot.waitUntil(lambda: steps_drawn(window, "stopped") > 5, timeout=WAIT)
    window.run_actions.stop.trigger()
    assert not window.run_actions.stop.isEnabled()
    qtbot.waitUntil(lambda: state_of(window, "stopped") == "stopped", timeout=WAIT)
    ended = run.recorded_status().step
    qtbot.waitUntil(window.run_actions.resume.isEnabled, timeout=WAIT)
    window.run_actions.resume.trigger()
    qtbot.waitUntil(lambda: run.recorded_status().step > ended, timeout=WAIT)
    qtbot.waitUntil(lambda: state_of(window, "stopped") == "running", timeout=WAIT)
    steps = window.lab.history("pretraining/stopped").step_columns["step"]
    assert list(steps) == list(range(1, len(steps) + 1))  # none twice, none lost
    window.run_actions.stop.trigger()
    qtbot.waitUntil(lambda: state_of(window, "stopped") == "stopped", timeout=WAIT)


@pytest.mark.slow
def test_closing_with_a_live_run_can_be_cancelled_or_stops_it(
    window: MainWindow, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is left training: the next test."""
    run = endless_run(window, qtbot, "live")
    asked: list[list[str]] = []
    answers = iter([CloseChoice.CANCEL, CloseChoice.STOP])

    def ask(_parent: QWidget, rows: list, *_: object) -> CloseChoice:  # type: ignore[type-arg]
        asked.append([row.run.id for row in rows])
        return next(answers)

    monkeypatch.setattr(closing, "ask", ask)
    assert not window.close()
    assert window.isVisible()
    before = run.recorded_status().step
    qtbot.waitUntil(lambda: run.recorded_status().step > before, timeout=WAIT)
    window.close()
    qtbot.waitUntil(lambda: not window.isVisible(), timeout=WAIT)
    assert asked == [["live"]] * 2
    assert run.status().state == "stopped"
    assert list_checkpoints(run.checkpoints)


@pytest.mark.slow
def test_a_run_left_in_the_background_is_found_again(
    make_main_window: MakeWindow, window: MainWindow, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = endless_run(window, qtbot, "kept")
    monkeypatch.setattr(closing, "ask", lambda *_: CloseChoice.KEEP)
    assert window.close()
    again = make_main_window(docks=False)
    qtbot.waitUntil(lambda: len(again.lab.history("pretraining/kept").step_columns) > 5, timeout=WAIT)
    QApplication.processEvents()
    assert state_of(again, "kept") == "running"
    again.run_actions.stop.trigger()
    qtbot.waitUntil(lambda: run.status().state == "stopped", timeout=WAIT)
