"""The Experiment dock: from a form to a plan, a prediction, and a start."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from fake_experiments import FakeExperiment
from fakes import FakeRun
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot
from waits import WAIT
from whole_lab import WholeLab
from windows import dock_in_sight

from llmlab.cli.main import main
from llmlab.core.errors import LabError
from llmlab.core.progress import quiet
from llmlab.core.settings import PretrainSettings
from llmlab.notebook.predictions import parse_prediction
from llmlab.studies.experiments.kinds import KINDS
from llmlab.studies.plans.records import ExperimentRecord, settings_of
from llmlab_gui.experiments import setup
from llmlab_gui.experiments.form import parse_values
from llmlab_gui.experiments.setup import ExperimentDock, plan_text, questions
from llmlab_gui.experiments.study_setup import _SETTLE_MS
from llmlab_gui.lab import training_now
from llmlab_gui.lab.book import Anchors
from llmlab_gui.lab.window_settings import WindowSettings


@pytest.fixture
def dock(qtbot: QtBot, lab: WholeLab) -> Iterator[ExperimentDock]:
    with dock_in_sight(qtbot, ExperimentDock(lab, lab.experiments), 420, 760) as made:
        planned(made, qtbot)
        yield made


def planned(dock: ExperimentDock, qtbot: QtBot) -> ExperimentRecord:
    """The plan of what is in the form now."""
    qtbot.waitUntil(lambda: not dock.setup._settle.isActive() and dock.setup.record is not None)
    assert dock.setup.record is not None
    return dock.setup.record


@pytest.fixture
def started(dock: ExperimentDock, jobs: list[int], monkeypatch: pytest.MonkeyPatch) -> list[ExperimentRecord]:
    """What would be started; `jobs` holds how many runs of it at once."""
    asked: list[ExperimentRecord] = []

    def start(record: ExperimentRecord, at_once: int) -> None:
        asked.append(record)
        jobs.append(at_once)

    monkeypatch.setattr(dock.lab.experiments.controller, "start", start)
    return asked


@pytest.fixture
def jobs() -> list[int]:
    return []


def test_every_kind_has_a_plan_or_says_what_it_lacks(dock: ExperimentDock, qtbot: QtBot) -> None:
    for name, kind in KINDS.items():
        dock.form.set_kind(name)
        assert dock.form.question.text() == kind.question
        assert kind.hypothesis in dock.form.hypothesis.text()
        qtbot.waitUntil(lambda: not dock.setup._settle.isActive())
        qtbot.waitUntil(lambda: dock.setup.record is not None or bool(dock.setup.problem.text()))
        if dock.setup.record is None:  # it needs a model, or a run
            assert not dock.setup.button.isEnabled()
            assert "pretraining" not in kind.grids or not kind.trains
        else:
            assert dock.setup.record.kind == name
            assert [row.name for row in dock.plan.rows] == [trial.name for trial in dock.setup.record.trials]


def test_the_plan_is_the_grid_times_the_seeds_on_the_settings_of_the_form(dock: ExperimentDock, qtbot: QtBot) -> None:
    dock.form.grid.setText("1e-3, 0.01;0.1")
    dock.form.seeds.setValue(2)
    dock.form.scratch.form.set_values({"train.steps": 300, "data.corpus": "tiny", "train.seed": 5})
    record = planned(dock, qtbot)
    assert [(trial.x, trial.seed) for trial in record.trials] == [(x, s) for s in (5, 6) for x in (1e-3, 1e-2, 1e-1)]
    settings = settings_of(record, record.trials[1])
    assert isinstance(settings, PretrainSettings)
    assert (settings.train.learning_rate, settings.train.steps, settings.data.corpus) == (0.01, 300, "tiny")
    assert settings.train.sample_interval == 0  # an experiment leaves out what nobody looks at
    assert record.preset == "baby"
    assert record.watched
    assert record.estimated_seconds == pytest.approx(sum(trial.estimated_seconds for trial in record.trials))
    assert "6 runs, 3 values with 2 seeds each" in dock.setup.estimate.text()
    dock.form.scratch.form.set_values({"train.sample_interval": 50})
    settings = settings_of(planned(dock, qtbot))
    assert settings.train.sample_interval == 50  # unless the learner says so


def test_what_was_planned_is_there_again_after_a_restart(
    dock: ExperimentDock, qtbot: QtBot, lab: WholeLab, tmp_path: Path
) -> None:
    settings, form = WindowSettings(tmp_path / "settings.ini"), dock.form
    dock.remember(settings)
    form.set_kind("batch-size")
    form.grid.setText("2, 4")
    form.seeds.setValue(3)
    form.name.setText("mine")
    form.scratch.form.set_values({"train.steps": 300, "data.corpus": "tiny"})
    assert dock._keeping.isActive()
    dock._keeping.timeout.emit()  # the window was killed some time after, and never closed

    def reopened() -> ExperimentDock:
        again = ExperimentDock(lab, lab.experiments)
        qtbot.addWidget(again)
        again.remember(settings)
        return again

    left = form.draft()
    assert (left.grid, left.given) == ("2, 4", {"train.steps": 300, "data.corpus": "tiny"})
    assert reopened().form.draft() == left
    dock.save_draft("set-up/experiment", replace(left, kind="gone"))
    assert reopened().form.kind == next(iter(KINDS.values()))


def test_what_is_wrong_is_said_and_nothing_can_be_started(
    dock: ExperimentDock, qtbot: QtBot, outputs: Path, started: list[ExperimentRecord]
) -> None:
    FakeExperiment(outputs, "taken")
    for form in (dock.form.scratch.form, dock.form.finetune.form):
        titles = {name: section.header.text() for name, section in form.sections.items()}
        assert all(title != name for name, title in titles.items()), titles  # words, as in the set-up
    wrong: list[tuple[Any, str]] = [
        (lambda: dock.form.grid.setText("fast, slow"), "learning_rate"),
        (lambda: dock.form.grid.setText("0.1"), "at least two"),
        (lambda: (dock.form.grid.setText("1e-3, 1e-2"), dock.form.name.setText("taken")), "already there"),
        (lambda: dock.form.name.setText("a b"), "cannot be"),
    ]
    for change, words in wrong:
        change()
        qtbot.waitUntil(lambda words=words: words in dock.setup.problem.text())
        assert not dock.setup.button.isEnabled()
        assert dock.plan.rows == []
        dock.setup.start()
        assert started == []
    dock.form.name.setText("fine")
    assert planned(dock, qtbot).id == "fine"
    assert dock.setup.problem.text() == ""


def test_what_was_predicted_is_started_with_the_plan(
    dock: ExperimentDock,
    qtbot: QtBot,
    lab: WholeLab,
    started: list[ExperimentRecord],
    jobs: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = planned(dock, qtbot)
    dock.form.jobs.setMaximum(8)  # on a machine with so many cores
    dock.form.jobs.setValue(3)
    asked: list[Any] = []

    def answer(_: object, book: object, about: str, quantities: list[Any], *, anchors: Anchors) -> list[Any] | None:
        asked.append((about, quantities, anchors(quiet)))
        return answers.pop(0)

    answers: list[list[Any] | None] = [None, [parse_prediction("best_lr=1e-3@60%")]]
    monkeypatch.setattr(setup, "ask", answer)
    dock.setup.start()
    assert started == []  # someone thought better of it
    dock.setup.start()
    assert [row["quantity"] for row in started[0].predictions] == ["best_lr"]
    assert started[0].trials == record.trials
    assert jobs == [3]
    assert record.question in asked[0][0]
    assert asked[0][2].startswith("Validation losses to compare with: uniform guess")
    assert dock.setup.button.isEnabled()  # a button that is not loses the keyboard
    dock.setup.start()  # until there is a plan with another name, the same one is meant
    assert len(started) == 1


def test_a_name_tells_when_it_was_started_and_not_when_it_was_planned(
    dock: ExperimentDock, qtbot: QtBot, started: list[ExperimentRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "ask", lambda *_, **__: [])
    earlier = time.time() - 3600
    dock.setup.record = replace(planned(dock, qtbot), id="19990101-000000-learning-rate", created=earlier)
    dock.setup.start()
    dock.form.edited.emit()  # an editor has looked at its value, and nobody has changed it
    qtbot.waitUntil(lambda: len(started) == 1)
    assert started[0].id.startswith("20")
    assert started[0].created > earlier


def test_what_becomes_of_others_neither_loses_a_start_nor_makes_it_twice(
    dock: ExperimentDock, qtbot: QtBot, started: list[ExperimentRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "ask", lambda *_, **__: [])
    controller = dock.setup._controller
    planned(dock, qtbot)

    def others() -> None:
        controller.started.emit("resumed")
        controller.not_started.emit("another")
        controller.failed.emit(LabError("It could not be resumed."))

    others()
    dock.setup.start()
    assert len(started) == 1
    others()
    dock.setup._form.edited.emit()  # an editor that tells of its own value
    qtbot.wait(_SETTLE_MS + 100)
    dock.setup.start()  # a second press means the one that was started
    assert len(started) == 1
    controller.not_started.emit(started[-1].id)
    dock.setup.start()
    qtbot.waitUntil(lambda: len(started) == 2)
    controller.started.emit(started[-1].id)
    dock.setup.start()
    planned(dock, qtbot)
    assert len(started) == 2


def test_a_start_right_after_an_edit_starts_what_was_edited(
    dock: ExperimentDock, qtbot: QtBot, started: list[ExperimentRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "ask", lambda *_, **__: [])
    planned(dock, qtbot)
    plan = dock.setup._steps.plan
    may_go_on = threading.Event()

    def slowly(asked: Any) -> Any:
        assert may_go_on.wait(WAIT / 1000)
        return plan(asked)

    monkeypatch.setattr(dock.setup, "_steps", replace(dock.setup._steps, plan=slowly))
    dock.form.grid.setText("0.1")  # one value is none
    may_go_on.set()
    qtbot.waitUntil(lambda: bool(dock.setup.problem.text()))
    may_go_on.clear()
    dock.form.grid.setText("1e-3, 0.01")
    qtbot.mouseClick(dock.setup.button, Qt.MouseButton.LeftButton)  # before the form has settled
    may_go_on.set()
    qtbot.waitUntil(lambda: len(started) == 1)
    may_go_on.clear()
    dock.form.grid.setText("1e-3, 0.02")
    qtbot.waitUntil(lambda: not dock.setup._settle.isActive())
    qtbot.mouseClick(dock.setup.button, Qt.MouseButton.LeftButton)  # while it is planned
    may_go_on.set()
    qtbot.waitUntil(lambda: len(started) == 2)
    assert [[trial.x for trial in record.trials] for record in started] == [[1e-3, 0.01], [1e-3, 0.02]]


def test_the_question_offers_the_answers_that_the_plan_has(dock: ExperimentDock, qtbot: QtBot) -> None:
    dock.form.grid.setText("0.001, 0.01")
    asked = {quantity.name: quantity for quantity in questions(planned(dock, qtbot))}
    assert list(asked)[:2] == ["best_lr", "best_loss"]
    assert asked["best_lr"].choices == ("0.001", "0.01")
    assert "text" in asked


def test_a_second_experiment_at_once_is_asked_about(
    dock: ExperimentDock,
    qtbot: QtBot,
    lab: WholeLab,
    outputs: Path,
    started: list[ExperimentRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FakeExperiment(outputs, "busy").status(state="running")  # none of its runs trains just now
    lab.experiments.refresh()
    qtbot.waitUntil(lambda: bool(lab.experiments.live()))
    monkeypatch.setattr(setup, "ask", lambda *_, **__: [])
    said: list[object] = []
    answers = iter(["", "beside"])

    def ask(_: object, *words: object, default: str, harmful: str) -> str:
        said.append((*words[:2], words[3], default, harmful))
        return next(answers)

    monkeypatch.setattr(training_now, "ask", ask)
    planned(dock, qtbot)
    dock.setup.start()
    assert started == []
    dock.setup.start()
    assert said == [("Start", "busy is running now.", {"beside": "Start beside it"}, "", "beside")] * 2
    assert len(started) == 1


def test_loss_curves_look_at_a_run_and_train_nothing(
    dock: ExperimentDock,
    qtbot: QtBot,
    lab: WholeLab,
    outputs: Path,
    started: list[ExperimentRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dock.form.set_kind("loss-curves")
    qtbot.waitUntil(lambda: "no run to analyse" in dock.setup.problem.text())
    FakeRun(outputs, "looked", steps=100).start().advance(100).finish()
    lab.refresh()
    qtbot.waitUntil(lambda: dock.form.subject.count() == 1)
    record = planned(dock, qtbot)
    assert record.subject == "looked"
    assert record.trials == []
    assert not dock.plan_table.isVisible()
    assert "nothing is trained" in plan_text(record)
    monkeypatch.setattr(training_now.TrainingNow, "ask", lambda *_: "cancel")  # whatever trains is not slowed
    monkeypatch.setattr(setup, "ask", lambda *_, **__: [])
    dock.setup.start()
    assert len(started) == 1


def test_the_varied_setting_is_not_asked_for_twice(dock: ExperimentDock) -> None:
    rate = dock.form.scratch.essentials["train.learning_rate"]
    assert dock.form.kind.setting == "train.learning_rate"
    assert rate.editor.isHidden()
    dock.form.set_kind("width")
    assert not rate.editor.isHidden()


def test_values_are_separated_as_people_do() -> None:
    assert parse_values(" 1e-3,3e-3; 0.01  0.1 ") == ["1e-3", "3e-3", "0.01", "0.1"]
    assert parse_values("") == []


def test_the_command_makes_the_same_plan_in_a_terminal(
    dock: ExperimentDock, qtbot: QtBot, capsys: pytest.CaptureFixture[str]
) -> None:
    dock.form.grid.setText("1e-3, 0.01")
    dock.form.seeds.setValue(2)
    dock.form.name.setText("same")
    dock.form.scratch.form.set_values(
        {"train.steps": 300, "data.corpus": "tiny", "model.bias": True, "samples.prompts": ("a b", "c")}
    )
    record = planned(dock, qtbot)
    words = shlex.split(record.command)
    assert words[0] == "llmlab-run"
    assert main([*words[1:], "--plan", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    trials = json.loads(json.dumps([asdict(trial) for trial in record.trials]))
    for trial in (*told["trials"], *trials):
        del trial["estimated_seconds"]  # a terminal leaves no core to a window
    assert told["trials"] == trials
    assert told["base"] == json.loads(json.dumps(record.base))
    assert (told["id"], told["kind"], told["preset"]) == (record.id, record.kind, record.preset)


def test_of_a_speedrun_its_parts_are_chosen_and_no_values(
    dock: ExperimentDock, qtbot: QtBot, capsys: pytest.CaptureFixture[str]
) -> None:
    dock.form.set_kind("speedrun")
    assert dock.form.grid.isHidden()
    for part in ("added", "without"):
        dock.form.groups[part].setChecked(False)
    dock.form.seeds.setValue(2)
    record = planned(dock, qtbot)
    assert [trial.group for trial in record.trials] == ["baseline", "record"] * 2
    assert main([*shlex.split(record.command)[1:], "--plan", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [trial["settings"] for trial in told["trials"]] == [trial.settings for trial in record.trials]


def test_another_like_it_has_the_same_plan_under_another_name(
    dock: ExperimentDock, qtbot: QtBot, lab: WholeLab, outputs: Path
) -> None:
    fake = FakeExperiment(outputs, "first", seeds=2)
    dock.form.set_kind("width")
    planned(dock, qtbot)
    base = fake.record.base
    earlier = {name.replace("eval_sequences", "eval_windows"): value for name, value in base["train"].items()}
    assert "eval_windows" in earlier  # as an earlier version wrote it
    with qtbot.waitSignal(lab.dock_requested) as asked:
        lab.experiment_requested.emit(replace(fake.record, base=base | {"train": earlier}))
    assert asked.args == ["experiment"]
    record = planned(dock, qtbot)
    assert record.id != "first"
    assert [trial.settings for trial in record.trials] == [trial.settings for trial in fake.record.trials]
    assert record.base == fake.record.base
    lab.experiment_requested.emit("depth")
    assert dock.form.kind.name == "depth"


def test_a_target_that_is_no_number_is_said(dock: ExperimentDock, qtbot: QtBot, lab: WholeLab, outputs: Path) -> None:
    FakeRun(outputs, "looked", steps=100).start().advance(100).finish()
    lab.refresh()
    dock.form.set_kind("loss-curves")
    assert dock.form.option.isVisible()
    qtbot.waitUntil(lambda: dock.form.subject.count() == 1)
    dock.form.option.setText("low")
    qtbot.waitUntil(lambda: "takes a number" in dock.setup.problem.text())
    dock.form.option.setText("2.5")
    record = planned(dock, qtbot)
    assert record.options == {"target": 2.5}
    assert record.command == "llmlab-run experiment loss-curves looked --target 2.5"
    dock.form.set_kind("width")
    assert not dock.form.option.isVisible()
