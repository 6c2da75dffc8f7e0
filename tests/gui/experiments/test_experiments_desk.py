"""What the window knows of experiments: found and followed in a thread, chosen, told when they end."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_experiments import FakeExperiment, rate_plan
from pytestqt.qtbot import QtBot
from windows import look_again

from llmlab.store.events import Evaluated, StepEvent
from llmlab.studies.plans.records import ExperimentFolder
from llmlab_gui.experiments import controller, poller
from llmlab_gui.experiments.desk import ExperimentDesk
from llmlab_gui.experiments.poller import EXPERIMENTS, ExperimentsPoller
from llmlab_gui.experiments.study_panel import standing_text


@pytest.fixture
def desk(qtbot: QtBot, outputs: Path) -> Iterator[ExperimentDesk]:
    made = ExperimentDesk(outputs, EXPERIMENTS)
    yield made
    made.shutdown()


def test_experiments_are_found_newest_first_and_the_newest_live_one_is_current(
    qtbot: QtBot, outputs: Path, desk: ExperimentDesk
) -> None:
    older = FakeExperiment(outputs, "older", created=1.70e9)
    FakeExperiment(outputs, "newer", created=1.71e9)
    older.begin(0, 10)
    desk.refresh()
    qtbot.waitUntil(lambda: len(desk.rows()) == 2 and bool(desk.live()))
    assert [row.id for row in desk.rows()] == ["newer", "older"]
    current = desk.current()
    assert current is not None
    assert current.id == "older"
    assert [row.id for row in desk.live()] == ["older"]
    assert current.standing(older.record.trials[0].name).step == 10
    assert current.standing("unknown").state == "planned"


def test_what_someone_chose_stays_current_when_another_begins(
    qtbot: QtBot, outputs: Path, desk: ExperimentDesk
) -> None:
    FakeExperiment(outputs, "first", created=1.70e9)
    desk.refresh()
    qtbot.waitUntil(lambda: desk.row("first") is not None)
    desk.set_current("first")
    FakeExperiment(outputs, "second", created=1.71e9).begin(0, 5)
    desk.refresh()
    qtbot.waitUntil(lambda: bool(desk.live()))
    current = desk.current()
    assert current is not None
    assert current.id == "first"


def test_the_curves_of_all_runs_are_what_their_events_say(qtbot: QtBot, outputs: Path, desk: ExperimentDesk) -> None:
    fake = FakeExperiment(outputs)
    first, second = fake.begin(0, 60), fake.begin(1, 30)
    desk.refresh()
    qtbot.waitUntil(lambda: len(desk.curves) == 2)
    names = [trial.name for trial in fake.record.trials]
    before, grows = desk.curves[names[0]], desk.curves[names[1]]
    second.advance(30)
    qtbot.waitUntil(lambda: len(desk.curves[names[1]].step_columns) == 60)
    assert desk.curves[names[0]] is before  # nothing new in it: not read again
    assert len(grows.step_columns) == len(grows.x("tokens")) == 30  # what is drawn does not grow under the pen
    for name, run in zip(names, (first, second), strict=False):
        steps = [event for event in run.written if isinstance(event, StepEvent)]
        curve = desk.curves[name]
        assert curve.step_columns["loss"].tolist() == [event.loss for event in steps]
        assert curve.x("step").tolist() == [event.step for event in steps]
        assert curve.x("tokens").tolist() == [event.tokens for event in steps]
        assert np.all(np.diff(curve.x("elapsed")) > 0)
        evaluated = [event for event in run.written if isinstance(event, Evaluated)]
        assert curve.evaluations["val_loss"].tolist() == [event.val_loss for event in evaluated]


def test_a_resumed_run_loses_what_its_worker_cut(qtbot: QtBot, outputs: Path, desk: ExperimentDesk) -> None:
    fake = FakeExperiment(outputs)
    run, name = fake.begin(0, 60), fake.record.trials[0].name
    desk.refresh()
    qtbot.waitUntil(lambda: name in desk.curves and len(desk.curves[name].step_columns) == 60)
    run.resume_from(40).advance(10)
    qtbot.waitUntil(lambda: len(desk.curves[name].step_columns) == 50)
    assert desk.curves[name].x("step")[-1] == 50


def test_results_and_report_appear_when_they_are_written(qtbot: QtBot, outputs: Path, desk: ExperimentDesk) -> None:
    fake = FakeExperiment(outputs)
    desk.refresh()
    qtbot.waitUntil(lambda: desk.current() is not None)
    assert desk.outcome.results is None
    results = fake.write_results()
    fake.write_report()
    with_secret = fake.folder.report.read_text(encoding="utf-8") + "![x](../../secret.png)\n"
    (outputs / "secret.png").write_bytes(b"not of this experiment")
    fake.folder.report.write_text(with_secret, encoding="utf-8")
    qtbot.waitUntil(lambda: desk.outcome.report is not None and "secret" in desk.outcome.report.text)
    assert desk.outcome.results == results
    assert desk.outcome.report is not None
    assert set(desk.outcome.report.images) == {"figures/basin.png"}  # nothing beyond the experiment's own folder


def test_of_a_reports_pictures_those_are_read_for_which_together_there_is_room(
    qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeExperiment(outputs)
    fake.write_report()
    picture = fake.folder.path / "figures" / "basin.png"
    shutil.copy(picture, picture.with_name("again.png"))
    with fake.folder.report.open("a", encoding="utf-8") as report:
        report.write("![x](figures/again.png)\n")
    for short, read in ((0, {"figures/basin.png", "figures/again.png"}), (1, {"figures/basin.png"})):
        monkeypatch.setattr(poller, "_MOST_BYTES", 2 * picture.stat().st_size - short)
        shown = poller._read_report(fake.folder)
        assert shown is not None
        assert set(shown.images) == read


def test_choosing_back_and_forth_shows_each_ones_own(qtbot: QtBot, outputs: Path, desk: ExperimentDesk) -> None:
    one, two = FakeExperiment(outputs, "one", created=1.7e9), FakeExperiment(outputs, "two", created=1.71e9)
    one.begin(0, 20)
    one.write_results((3.0, 2.0, 2.5))
    two.begin(0, 30)
    desk.refresh()
    qtbot.waitUntil(lambda: len(desk.rows()) == 2)
    desk.set_current("two")
    qtbot.waitUntil(lambda: bool(desk.curves))
    for _ in range(3):
        desk.set_current("two")
        desk.set_current("one")
        assert desk.curves == {}  # those of the other are gone at once
        assert desk.outcome.id == "one"
    qtbot.waitUntil(lambda: bool(desk.curves) and desk.outcome.results is not None)
    assert len(next(iter(desk.curves.values())).step_columns) == 20
    desk.set_current("two")
    assert desk.outcome.results is None


def test_an_end_is_told_once_with_its_reason(qtbot: QtBot, outputs: Path, desk: ExperimentDesk) -> None:
    fake = FakeExperiment(outputs)
    fake.begin(0, 10)
    errors, said, ended = [], [], []
    desk.failed.connect(errors.append)
    desk.said.connect(said.append)
    desk.ended.connect(ended.append)
    desk.refresh()
    qtbot.waitUntil(lambda: bool(desk.live()))
    fake.status(state="finished")
    qtbot.waitUntil(lambda: ended == ["rates"])
    assert "has finished" in said[0]
    fake.status(state="running")
    qtbot.waitUntil(lambda: bool(desk.live()))
    fake.status(state="failed", error={"what": "The disk is full.", "why": "", "do": "Make room."})
    qtbot.waitUntil(lambda: len(ended) == 2)
    assert [str(error) for error in errors] == ["The disk is full. Make room."]


def test_a_worker_that_is_gone_leaves_an_interrupted_experiment(
    qtbot: QtBot, outputs: Path, desk: ExperimentDesk
) -> None:
    fake = FakeExperiment(outputs)
    fake.begin(0, 10)
    fake.status(pid=2**22 + 1, pid_start=1.0)  # above the largest process id that Linux gives
    desk.refresh()
    qtbot.waitUntil(lambda: desk.current() is not None)
    current = desk.current()
    assert current is not None
    assert current.status.state == "interrupted"
    assert [trial.state for trial in current.status.trials.values()][:2] == ["interrupted", "planned"]
    assert "left" not in standing_text(current, "")


def test_a_damaged_experiment_is_said_once_and_the_others_are_shown(
    qtbot: QtBot, outputs: Path, desk: ExperimentDesk
) -> None:
    errors: list[object] = []
    desk.failed.connect(errors.append)
    FakeExperiment(outputs, "good")
    broken = FakeExperiment(outputs, "broken").folder
    broken.experiment_json.write_text("{", encoding="utf-8")
    desk.refresh()
    qtbot.waitUntil(lambda: bool(errors) and desk.row("good") is not None)
    for _ in range(2):
        look_again(qtbot, desk._poller)
    assert len(errors) == 1
    assert "broken" in str(errors[0])
    assert [row.id for row in desk.rows()] == ["good"]


def test_a_deleted_experiment_goes_and_another_takes_its_place(
    qtbot: QtBot, outputs: Path, desk: ExperimentDesk
) -> None:
    FakeExperiment(outputs, "stays", created=1.70e9)
    gone = FakeExperiment(outputs, "goes", created=1.71e9)
    desk.refresh()
    qtbot.waitUntil(lambda: len(desk.rows()) == 2)
    desk.set_current("goes")
    shutil.rmtree(gone.folder.path)
    desk.refresh()
    qtbot.waitUntil(lambda: len(desk.rows()) == 1)
    current = desk.current()
    assert current is not None
    assert current.id == "stays"


def test_an_experiment_made_anew_under_its_name_between_two_looks_is_followed_anew(outputs: Path) -> None:
    looks, found = ExperimentsPoller(outputs, EXPERIMENTS), list[set[str]]()
    looks.curves_found.connect(lambda _, curves: found.append(set(curves)))
    looks.choose("rates")
    for created, grid in ((1.70e9, (1e-3, 1e-2)), (1.71e9, (2e-3, 2e-2))):
        shutil.rmtree(outputs / "experiments", ignore_errors=True)
        fake = FakeExperiment(outputs, created=created, grid=grid)
        fake.begin(0, 20)
        looks._look_closely(looks.look())
        assert found[-1] == set(fake.runs)


def test_one_made_anew_under_the_name_of_the_current_one_has_none_of_its_curves(
    qtbot: QtBot, outputs: Path, desk: ExperimentDesk
) -> None:
    FakeExperiment(outputs, created=1.70e9).begin(0, 20)
    desk.refresh()
    qtbot.waitUntil(lambda: bool(desk.curves))
    shutil.rmtree(outputs / "experiments")
    FakeExperiment(outputs, created=1.71e9, grid=(2e-3, 2e-2))
    desk.refresh()
    qtbot.waitUntil(lambda: desk.curves == {})


def test_a_name_that_is_taken_is_said_and_nothing_is_started(qtbot: QtBot, outputs: Path, desk: ExperimentDesk) -> None:
    fake = FakeExperiment(outputs)
    with qtbot.waitSignal(desk.failed) as told:
        desk.controller.start(fake.record)
    assert "already there" in str(told.args[0])
    assert fake.folder.recorded_status().state == "planned"


def test_a_worker_that_dies_before_it_works_is_told_and_one_that_worked_is_not(
    qtbot: QtBot, outputs: Path, desk: ExperimentDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    def start(folder: ExperimentFolder, *, jobs: int | None = None) -> subprocess.Popen[bytes]:
        status = folder.recorded_status()
        folder.write_status(replace(status, state="running", attempt=status.attempt + attempts))
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])

    monkeypatch.setattr(controller, "start_experiment", start)
    with qtbot.waitSignal(desk.controller.failed) as told:
        desk.controller.start(rate_plan(outputs))
    folder = ExperimentFolder(outputs / "experiments" / "rates")
    assert told.args[0].what == "The worker of rates ended before it started work."
    assert told.args[0].why == "Its exit code is 7."
    assert str(folder.log) in told.args[0].do
    assert folder.recorded_status().state == "failed"
    attempts = 1  # a worker counts itself before it works
    with qtbot.assertNotEmitted(desk.controller.failed):
        with qtbot.waitSignal(desk.controller.started):
            desk.controller.go_on(folder)
        qtbot.waitUntil(lambda: not desk.controller._workers)
    assert folder.recorded_status().state == "running"
    with (
        qtbot.waitSignal(desk.controller.failed),
        qtbot.waitSignal(desk.controller.not_started) as told,
    ):
        desk.controller.start(rate_plan(outputs))  # whose name is taken
    assert told.args == ["rates"]
