"""The lab: runs found and followed, one colour each, histories that survive cuts, and threads that end."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeRun
from pytestqt.qtbot import QtBot
from waits import WAIT
from windows import FAKE_HOST, look_again

from llmlab.core.errors import LabError
from llmlab.store.events import Paused, Resumed
from llmlab.studies.upkeep import rename_run
from llmlab_gui.inside.lens import LensDock
from llmlab_gui.lab import runs_poller as poller_module
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_ends import unended_pause
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.lab.runs_poller import RunsPoller
from llmlab_gui.window.notices import sentence


def wait_for_runs(qtbot: QtBot, lab: Lab, count: int) -> None:
    qtbot.waitUntil(lambda: len(lab.runs()) == count)


def current_id(lab: Lab) -> str:
    row = lab.current()
    return row.run.id if row else ""


def test_at_the_start_it_turns_to_what_still_trains_and_then_to_no_run_that_begins_elsewhere(
    qtbot: QtBot, outputs: Path
) -> None:
    live = FakeRun(outputs, "live", created=1.7e9).start().advance(20)
    FakeRun(outputs, "newer", created=1.71e9).start().advance(20).finish()
    lab = Lab(outputs)
    wait_for_runs(qtbot, lab, 2)
    assert current_id(lab) == "live"
    assert [row.run.id for row in lab.runs()] == ["newer", "live"]
    with qtbot.waitSignal(lab.run_ended):
        live.finish()
    with qtbot.waitSignal(lab.run_appeared):
        FakeRun(outputs, "elsewhere", created=1.72e9).start().advance(5)
    assert current_id(lab) == "live"  # Stop would stop the other one
    queued = FakeRun(outputs, "queued", created=1.73e9).start().advance(5)
    lab.controller.took_turn.emit(queued.run)  # of this window's queue, and the one before has ended
    assert current_id(lab) == "queued"
    lab.shutdown()


def test_events_arrive_once_each_and_in_order(qtbot: QtBot, lab: Lab, outputs: Path) -> None:
    seen: list[int] = []
    lab.events_arrived.connect(lambda _, events: seen.extend(e.step for e in events if e.name == "step"))
    fake = FakeRun(outputs).start().advance(100)
    qtbot.waitUntil(lambda: len(seen) == 100)
    fake.advance(50)
    qtbot.waitUntil(lambda: len(seen) == 150)
    assert seen == list(range(1, 151))


def test_a_worker_that_goes_back_cuts_the_history(qtbot: QtBot, lab: Lab, outputs: Path) -> None:
    fake = FakeRun(outputs).start().advance(100)
    qtbot.waitUntil(lambda: len(lab.history("pretraining/fake").step_columns) == 100)
    with qtbot.waitSignal(lab.history_reset) as told:
        fake.resume_from(60)
    assert told.args == ["pretraining/fake"]
    assert len(lab.history("pretraining/fake").step_columns) == 60


def test_shown_runs_are_followed_and_hidden_ones_let_go(qtbot: QtBot, lab: Lab, outputs: Path) -> None:
    for number, name in enumerate("abc"):
        FakeRun(outputs, name, created=1.7e9 + number).start().advance(30 + number)
    wait_for_runs(qtbot, lab, 3)
    lab.set_current("pretraining/c")
    lab.set_shown_runs(["pretraining/a", "pretraining/b"])
    assert lab.shown_runs() == ["pretraining/c", "pretraining/a", "pretraining/b"]
    qtbot.waitUntil(lambda: [len(lab.history(f"pretraining/{name}").step_columns) for name in "abc"] == [30, 31, 32])
    assert len({lab.color(f"pretraining/{name}").name() for name in "abc"}) == 3
    before = lab.color("pretraining/c").name()
    lab.set_shown_runs(["pretraining/a"])
    assert lab.shown_runs() == ["pretraining/c", "pretraining/a"]
    assert len(lab.history("pretraining/b").step_columns) == 0
    assert lab.color("pretraining/c").name() == before
    lab.forget("pretraining/a")  # it is deleted: another of that name is not chosen by that
    assert lab.overlaid() == []


def test_a_run_keeps_its_colour_whatever_is_chosen_beside_it(qtbot: QtBot, lab: Lab, outputs: Path) -> None:
    ids = [f"pretraining/run{number}" for number in range(11)]
    for number in range(11):
        FakeRun(outputs, f"run{number}", created=1.7e9 + number).start().advance(1)
    wait_for_runs(qtbot, lab, 11)
    first: dict[str, str] = {}
    for current, others in [(9, ()), (1, ()), (0, ()), (9, (0, 1)), (2, (1, 9)), (10, (3, 4, 5)), (1, (0, 2, 10))]:
        lab.set_current(ids[current])
        lab.set_shown_runs([ids[other] for other in others])
        shown = {run_id: lab.color(run_id).name() for run_id in lab.shown_runs()}
        assert len(set(shown.values())) == len(shown)
        assert {run_id: first.setdefault(run_id, color) for run_id, color in shown.items()} == shown


def test_a_reference_to_a_run_of_another_folder_means_none_of_the_same_name_here(
    qtbot: QtBot, lab: Lab, outputs: Path, tmp_path: Path
) -> None:
    fake = FakeRun(outputs, "bar").start()
    elsewhere = FakeRun(tmp_path / "elsewhere", "bar")
    wait_for_runs(qtbot, lab, 1)
    for name in ("bar", "pretraining/bar", str(fake.run.path)):
        assert lab.row_called(name) is lab.row("pretraining/bar")
    assert lab.row_called(str(elsewhere.run.path)) is None


def test_a_run_that_is_made_here_takes_the_place_of_one_elsewhere_that_has_its_track_and_id(
    qtbot: QtBot, lab: Lab, outputs: Path, tmp_path: Path
) -> None:
    elsewhere = FakeRun(tmp_path / "elsewhere", "bar", created=1.7e9).start().advance(30).finish()
    lab.open_run(elsewhere.run)
    qtbot.waitUntil(lambda: len(lab.history("pretraining/bar").step_columns) == 30)
    here = FakeRun(outputs, "bar", created=1.71e9).start().advance(50)

    def row_is_here() -> bool:
        row = lab.row("pretraining/bar")
        return row is not None and row.run.path == here.run.path

    qtbot.waitUntil(row_is_here)
    qtbot.waitUntil(lambda: len(lab.history("pretraining/bar").step_columns) == 50)
    assert row_is_here()


@pytest.mark.parametrize("told", [True, False])  # by who started it, or found by the poller
def test_a_run_that_takes_the_name_of_one_that_came_to_nothing_is_followed_from_its_beginning(
    qtbot: QtBot, lab: Lab, outputs: Path, tmp_path: Path, told: bool
) -> None:
    failed = FakeRun(outputs, "bar", created=1.7e9).start().fail("There was not enough memory.")
    qtbot.waitUntil(lambda: lab.history("pretraining/bar").ended is not None)
    again = FakeRun(tmp_path / "again", "bar", created=1.71e9).start().advance(50)
    failed.run.path.rename(failed.run.path.with_name(".tmp-bar"))
    again.run.path.rename(failed.run.path)
    if told:
        lab.controller.started.emit(failed.run)
        assert lab.history("pretraining/bar").ended is None  # at once
    lab.refresh()
    qtbot.waitUntil(lambda: len(lab.history("pretraining/bar").step_columns) == 50)
    row, started = lab.row("pretraining/bar"), lab.history("pretraining/bar").started
    assert row is not None
    assert row.status.state != "failed"
    assert started is not None
    assert started.time > 1.71e9


def test_switching_back_and_forth_leaves_what_is_shown_alone_followed(qtbot: QtBot, lab: Lab, outputs: Path) -> None:
    for number, name in enumerate("ab"):
        FakeRun(outputs, name, created=1.7e9 + number).start().advance(20)
    wait_for_runs(qtbot, lab, 2)
    for _ in range(5):
        lab.set_current("pretraining/a")
        lab.set_current("pretraining/b")
    assert list(lab._followed._statuses) == ["pretraining/b"]
    qtbot.waitUntil(lambda: len(lab._followed._watcher._watched) == 1)
    qtbot.waitUntil(lambda: len(lab.history("pretraining/b").step_columns) == 20)


def test_a_deleted_run_goes_from_the_list_and_from_sight(qtbot: QtBot, lab: Lab, outputs: Path) -> None:
    FakeRun(outputs, "stays", created=1.7e9).start().advance(5).finish()
    doomed = FakeRun(outputs, "doomed", created=1.71e9).start().advance(5).finish()
    wait_for_runs(qtbot, lab, 2)
    qtbot.waitUntil(lambda: not any(row.status.live for row in lab.runs()))  # it may be seen on its way
    lab.set_current("pretraining/doomed")
    errors: list[LabError] = []
    lab.error_raised.connect(errors.append)
    shutil.rmtree(doomed.run.path)
    wait_for_runs(qtbot, lab, 1)
    assert current_id(lab) == "stays"
    assert not errors


def test_of_a_live_run_whose_folder_was_deleted_the_window_says_so(qtbot: QtBot, lab: Lab, outputs: Path) -> None:
    fake = FakeRun(outputs).start().advance(20)
    qtbot.waitUntil(lambda: current_id(lab) == "fake")
    with qtbot.waitSignal(lab.error_raised) as told:
        fake.run.path.rename(outputs / "elsewhere")  # at once: a run without its lock alone was interrupted
    assert told.args[0].what == "The folder of fake is gone."


def test_what_was_said_of_a_runs_end_or_pause_is_over_once_it_goes_on(qtbot: QtBot, lab: Lab, outputs: Path) -> None:
    fake = FakeRun(outputs).start().advance(20)
    qtbot.waitUntil(lambda: current_id(lab) == "fake")
    over: list[LabError] = []
    lab.error_over.connect(over.append)
    for stop, go_on in (
        (lambda: fake.fail("There was not enough memory."), lambda: fake.resume_from(20)),
        (lambda: fake.pause("The disk is full."), fake.unpause),
    ):
        over.clear()
        with qtbot.waitSignal(lab.error_raised) as told:
            stop()
        qtbot.wait(400)  # its status is looked at meanwhile
        assert over == []
        go_on()
        qtbot.waitUntil(lambda: len(over) == 1)
        assert over[0] is told.args[0]
    with qtbot.waitSignal(lab.error_raised) as told:
        lab.controller.complained.emit(fake.run, LabError("It was killed."))
    lab.controller.started.emit(fake.run)
    assert over[-1] is told.args[0]
    fake.advance(1)
    qtbot.waitUntil(lambda: lab._followed._statuses[fake.run.full_name] is not None)  # that it lives
    with qtbot.waitSignal(lab.error_raised) as told:
        fake.fail("It failed once more.")
    renamed = rename_run(fake.run, "other")
    lab.take_renamed(fake.run.full_name, renamed)
    lab.controller.started.emit(renamed)
    assert over[-1] is told.args[0]


def test_a_run_of_several_processes_that_was_killed_from_here_is_not_said_to_have_failed(
    qtbot: QtBot, lab: Lab, outputs: Path
) -> None:
    fake = FakeRun(outputs).start().advance(20)
    qtbot.waitUntil(lambda: current_id(lab) == "fake")
    told: list[LabError] = []
    lab.error_raised.connect(told.append)
    for killed in (True, False):
        if killed:
            lab.controller.killed.add(fake.run.path)
        with qtbot.waitSignal(lab.run_ended):
            fake.fail("Process 0 of the run's 2 was killed (SIGKILL).")  # as the one that started them writes it
        assert len(told) == (not killed)
        row = lab.current()
        assert row is not None
        assert (sentence(row, 1.0, killed=killed)[0] == "fake was killed") == killed
        if killed:
            fake.resume_from(20)
            qtbot.waitUntil(lambda: lab.current().status.live)


def test_a_run_that_fails_or_pauses_by_itself_says_why_and_one_that_finishes_how_well(
    qtbot: QtBot, lab: Lab, outputs: Path
) -> None:
    fake = FakeRun(outputs).start().advance(20)
    qtbot.waitUntil(lambda: current_id(lab) == "fake")
    with qtbot.waitSignal(lab.error_raised) as told:
        fake.fail("There was not enough memory.", "About 3 GB are needed.", "Try less.")
    assert (told.args[0].what, told.args[0].do) == ("There was not enough memory.", "Try less.")
    fake.resume_from(20)
    qtbot.waitUntil(lambda: lab.row("pretraining/fake").status.live)
    with qtbot.waitSignal(lab.error_raised) as told:
        fake.pause().unpause().pause("The disk is full. Free some space, then resume.")
    assert told.args[0].what == "fake has paused by itself at step 20."
    assert told.args[0].why == "The disk is full. Free some space, then resume."
    fake.unpause()
    said: list[str] = []
    lab.said.connect(said.append)
    qtbot.waitUntil(lambda: lab.row("pretraining/fake").status.live)
    before = lab.runs()
    with qtbot.waitSignal(lab.run_ended):
        fake.advance(10).finish()
    look_again(qtbot, lab._poller)  # who follows the run has seen it; so does who lists all runs, now
    for shown in ("pretraining/fake", ""):  # no longer followed, it is known from lists alone
        lab.set_current(shown)
        lab._take_rows(before)  # a list that was read before the end, and comes after it
        assert not lab.row("pretraining/fake").status.live
    (once,) = said
    assert once.startswith("fake has finished. Validation loss ")


def test_of_a_log_that_is_read_again_only_a_pause_that_holds_counts() -> None:
    over, resumed, holds = Paused(20, 1.0, "The disk is full."), Resumed(20, 2.0, 1.0), Paused(30, 3.0, "Full again.")
    assert unended_pause([over, resumed]) is None
    assert unended_pause([over, resumed, holds]) is holds


def test_a_run_whose_process_is_gone_says_so_and_where_it_would_go_on(
    qtbot: QtBot, lab: Lab, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRun(outputs).start().advance(20).save_checkpoint().advance(10)
    qtbot.waitUntil(lambda: current_id(lab) == "fake")
    with monkeypatch.context() as dying, qtbot.waitSignal(lab.error_raised) as told:
        dying.setattr("llmlab.store.worker_folder.process_alive", lambda pid, started: False)
    assert told.args[0].what == "fake was interrupted at step 30."
    assert "newest checkpoint, step 20." in told.args[0].do
    qtbot.waitUntil(lambda: lab.row("pretraining/fake").status.live)
    lab.controller.killed.add(fake.run.path)  # by the window itself, which says so
    lab.error_raised.connect(lambda error: pytest.fail(str(error)))
    monkeypatch.setattr("llmlab.store.worker_folder.process_alive", lambda pid, started: False)
    with qtbot.waitSignal(lab.run_ended):
        pass


def test_a_live_model_gives_way_to_the_newest_checkpoint_when_its_run_ends(
    qtbot: QtBot, lab: Lab, outputs: Path
) -> None:
    fake = FakeRun(outputs).start().advance(20)
    wait_for_runs(qtbot, lab, 1)
    session, told = lab.inspection, list[LabError]()
    lab.error_raised.connect(told.append)
    session.host._command = list(FAKE_HOST)
    session.open(f"{fake.run.path}@live")
    qtbot.waitUntil(lambda: session.about is not None and session.about.live)
    refusal = LabError("fake does not train now.")
    session.look.live_failed.emit(refusal)  # it trains: something is wrong
    assert told == [refusal]
    fake.advance(10).save_checkpoint().finish()
    session.look.live_failed.emit(refusal)  # asked before anybody heard that it has ended
    assert told == [refusal]
    newest = f"{fake.run.path}@latest"
    qtbot.waitUntil(lambda: session.about is not None and session.about.reference == newest)


def test_a_damaged_run_is_told_once_and_hides_nothing(qtbot: QtBot, outputs: Path) -> None:
    broken = FakeRun(outputs, "broken")
    broken.run.run_json.write_text("{ not json")
    FakeRun(outputs, "sound").start().advance(5)
    lab = Lab(outputs)
    errors: list[LabError] = []
    lab.error_raised.connect(errors.append)
    wait_for_runs(qtbot, lab, 1)
    for _ in range(3):
        look_again(qtbot, lab._poller)
    assert len(errors) == 1
    assert "broken" in errors[0].what
    lab.shutdown()


def test_nothing_is_told_while_nothing_changes(qtbot: QtBot, lab: Lab, outputs: Path) -> None:
    FakeRun(outputs).start().advance(10).finish()
    wait_for_runs(qtbot, lab, 1)
    qtbot.waitUntil(lambda: len(lab.history("pretraining/fake").step_columns) == 10)
    look_again(qtbot, lab._poller)
    qtbot.waitUntil(  # what was on its way has arrived
        lambda: lab._followed._statuses["pretraining/fake"] is not None and not lab._news.isActive()
    )
    told: list[int] = []
    lab.runs_changed.connect(lambda: told.append(1))
    for _ in range(3):
        look_again(qtbot, lab._poller)
    assert not told


def test_a_damaged_first_line_hides_the_size_of_no_run_that_was_resumed(outputs: Path) -> None:
    fake = FakeRun(outputs).start().advance(10).resume_from(5).finish()
    fake.run.events.write_bytes(b"\x00" + fake.run.events.read_bytes()[1:])
    assert [row.parameters for row in RunsPoller(outputs).look()] == [809_856]


def test_files_that_did_not_change_are_not_read_again(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRun(outputs).start().advance(10).finish()
    poller = RunsPoller(outputs)
    assert [row.parameters for row in poller.look()] == [809_856]
    reads: list[str] = []
    monkeypatch.setattr(poller_module.RunFolder, "info", lambda self: reads.append("info"))
    monkeypatch.setattr(poller_module.RunFolder, "status", lambda self: reads.append("status"))
    assert len(poller.look()) == 1
    assert reads == []
    monkeypatch.undo()
    fake.run.write_status(replace(fake.run.recorded_status(), state="failed"))
    assert [row.status.state for row in poller.look()] == ["failed"]


def test_a_process_that_died_is_noticed_without_any_file_changing(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRun(outputs).start().advance(10)
    poller = RunsPoller(outputs)
    assert [row.status.state for row in poller.look()] == ["running"]
    status = fake.run.recorded_status()
    stamp = fake.run.status_json.stat()
    monkeypatch.setattr("llmlab.store.worker_folder.process_alive", lambda pid, started: False)
    assert [row.status.state for row in poller.look()] == ["interrupted"]
    assert fake.run.status_json.stat() == stamp
    assert fake.run.recorded_status() == status


@pytest.mark.slow
def test_two_hundred_runs_are_looked_at_within_the_poll(outputs: Path) -> None:
    for number in range(200):
        FakeRun(outputs, f"run-{number}").start().advance(1).finish()
    poller = RunsPoller(outputs)
    assert len(poller.look()) == 200
    began = time.process_time()
    poller.look()
    assert time.process_time() - began < 0.2


def test_a_name_that_is_taken_costs_neither_run_its_row(qtbot: QtBot, outputs: Path) -> None:
    for name in ("one", "two"):
        FakeRun(outputs, name).start().advance(10).finish()
    lab = Lab(outputs)
    try:
        ids = ["pretraining/one", "pretraining/two"]
        qtbot.waitUntil(lambda: sorted(row.id for row in lab.runs()) == ids)
        lab.set_current("pretraining/two")
        lab.begin_renaming("pretraining/one", "pretraining/two")
        lab._take_rows(lab.runs())  # as the next look finds them
        assert sorted(row.id for row in lab.runs()) == ids
        lab.end_renaming("pretraining/one")
        assert lab.current().id == "pretraining/two"
        lab.begin_renaming("pretraining/one", "pretraining/two")
        lab._take_rows([row for row in lab.runs() if row.id == "pretraining/two"])  # a look that finds the new name
        lab.take_renamed("pretraining/one", lab.runs()[0].run)
        assert [row.id for row in lab.runs()] == ["pretraining/two"]
    finally:
        lab.shutdown()


@pytest.mark.parametrize("change", ["renamed", "started"])
def test_a_look_that_began_before_a_run_was_renamed_or_started_does_not_lose_it(
    qtbot: QtBot, outputs: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    hold, read, tell = threading.Event(), threading.Event(), threading.Event()

    def slow_look(poller: RunsPoller) -> list[RunRow]:
        rows = look(poller)
        if hold.is_set():
            read.set()
            assert tell.wait(WAIT / 1000)
        return rows

    look = RunsPoller.look
    monkeypatch.setattr(RunsPoller, "look", slow_look)
    fake = FakeRun(outputs, "one", created=1.7e9).start().advance(10).finish()
    lab = Lab(outputs)
    try:
        wait_for_runs(qtbot, lab, 1)
        hold.set()
        FakeRun(outputs, "other", created=1.6e9).start().advance(10).finish()  # so that this look has news
        lab.refresh()
        qtbot.waitUntil(read.is_set)
        if change == "renamed":
            lab.take_renamed("pretraining/one", rename_run(fake.run, "two"))
        else:
            lab.controller.started.emit(FakeRun(outputs, "two", created=1.71e9).start().run)
        currents: list[str] = []
        lab.current_changed.connect(currents.append)
        hold.clear()
        tell.set()
        qtbot.waitUntil(lambda: lab.row("pretraining/other") is not None)
        assert [row.run.id for row in lab.runs()] == ["two", *(["one"] if change == "started" else []), "other"]
        assert (current_id(lab), currents) == ("two", [])
    finally:
        tell.set()
        lab.shutdown()


def test_a_panel_without_a_model_offers_that_of_the_current_run(qtbot: QtBot, lab: Lab, outputs: Path) -> None:
    dock = LensDock(lab)
    qtbot.addWidget(dock)
    lab.inspection.host._command = list(FAKE_HOST)
    assert dock._empty._button.text() == "Choose a model"
    fake = FakeRun(outputs).start().advance(20)
    wait_for_runs(qtbot, lab, 1)
    qtbot.waitUntil(lambda: dock._empty._button.text() == "Open the current run's model")
    assert lab.current_model() == f"{fake.run.path}@live"  # a checkpoint may be deleted while it is looked at
    assert lab.current_model(live=False) == ""  # it has saved nothing yet
    fake.save_checkpoint().advance(1).finish()
    newest = f"{fake.run.path}@latest"
    qtbot.waitUntil(lambda: lab.current_model() == newest)
    dock._empty._button.click()
    qtbot.waitUntil(lambda: lab.inspection.about is not None and lab.inspection.about.reference == newest)
