"""Where experiments meet the rest of the window: the queue waits for them, closing stops them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_experiments import FakeExperiment
from preset_settings import resolve_settings
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot
from whole_lab import WholeLab
from windows import MakeWindow

from llmlab.jobs.queue import QueuedRun
from llmlab_gui.lab import training_now
from llmlab_gui.lab.training_now import TrainingNow
from llmlab_gui.window import closing
from llmlab_gui.window.closing import CloseChoice, StoppingDialog


def test_the_queue_waits_between_two_runs_of_an_experiment(
    qtbot: QtBot, lab: WholeLab, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(lab.controller, "start_queued", lambda *asked: started.append(asked))
    fake = FakeExperiment(outputs)
    fake.status(state="running")  # none of its runs trains just now
    lab.experiments.refresh()
    qtbot.waitUntil(lambda: bool(lab.experiments.live()))
    lab.queue.add(QueuedRun(resolve_settings("baby")))
    qtbot.waitUntil(lambda: lab.looked and bool(lab.queue.waiting()))
    lab.queue.runs_changed()
    assert started == []
    fake.status(state="running", host="another-machine")
    qtbot.waitUntil(lambda: len(started) == 1)


def test_a_paused_run_of_an_experiment_is_resumed_without_a_question(
    qtbot: QtBot, lab: WholeLab, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_now, "ask", lambda *_, **__: "")
    FakeExperiment(outputs).begin(0, 10).pause()
    lab.refresh()
    lab.experiments.refresh()
    qtbot.waitUntil(lambda: bool(lab.experiments.live()) and bool(lab.runs()))
    assert TrainingNow(lab).may_start(QWidget(), "Resume")


def test_closing_with_stop_also_stops_the_experiment_and_waits_for_it(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeExperiment(outputs)
    run = fake.begin(0, 10)
    window = make_main_window(docks=False)
    qtbot.waitUntil(lambda: bool(window.experiments.live()) and bool(window.lab.runs()))
    monkeypatch.setattr(closing, "runs_to_ask_about", lambda lab: lab.runs())
    said: list[str] = []
    monkeypatch.setattr(closing.question, "ask", lambda *texts, **_: (said.append(texts[2]), "stop")[1])
    window.close()
    name = window.lab.runs()[0].name
    assert said == [f"{name} is still training. {fake.folder.id} has not ended either, and may start more runs."]
    qtbot.waitUntil(lambda: bool(list(fake.folder.requests.glob("*.json"))))
    assert list(run.run.requests.glob("*.json"))
    run.stop()
    dialog = window.findChild(StoppingDialog)
    qtbot.waitUntil(lambda: dialog.text.text() == f"Stopping…\n{fake.folder.id}: stopping")
    assert window.isVisible()
    fake.status(state="stopped")
    qtbot.waitUntil(lambda: not window.isVisible())


@pytest.mark.parametrize("answer", ["stop", "keep"])
def test_closing_asks_about_a_plan_of_which_no_run_trains(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    fake = FakeExperiment(outputs)
    fake.status(state="running")
    window = make_main_window(docks=False)
    qtbot.waitUntil(lambda: bool(window.experiments.live()))
    said: list[str] = []
    monkeypatch.setattr(closing.question, "ask", lambda *texts, **_: (said.append(texts[2]), answer)[1])
    window.close()
    assert said == [f"{fake.folder.id} has not ended."]
    if answer == "stop":
        qtbot.waitUntil(lambda: bool(list(fake.folder.requests.glob("*.json"))))
        assert window.isVisible()
        fake.status(state="stopped")
    qtbot.waitUntil(lambda: not window.isVisible())
    assert bool(list(fake.folder.requests.glob("*.json"))) is (answer == "stop")


def test_closing_asks_nothing_about_a_plan_of_another_machine_or_of_a_terminal(
    make_main_window: MakeWindow, qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeExperiment(outputs, "there").status(state="running", host="another-machine")
    typed = FakeExperiment(outputs, "typed")
    typed.folder.write_record(replace(typed.record, watched=False))
    typed.status(state="running")
    window = make_main_window(docks=False)
    qtbot.waitUntil(lambda: len(window.experiments.rows()) == 2)
    monkeypatch.setattr(closing, "ask", lambda *_: CloseChoice.CANCEL)
    assert window.close()
