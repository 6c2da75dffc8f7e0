"""The queue of runs: kept in a file, in order, started one at a time and never twice."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fakes import CancelAfter, FakeRun
from forks import Fork
from preset_settings import resolve_settings

from llmlab.core.errors import Cancelled, LabError, UsageError
from llmlab.core.files import locked
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.settings import PretrainSettings
from llmlab.jobs.launcher import create_run
from llmlab.jobs.queue import QueuedRun, RunQueue
from llmlab.notebook.seals import held
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder, RunInfo


@pytest.fixture
def queue(outputs: Path) -> RunQueue:
    return RunQueue(outputs)


def plan(name: str, **values: object) -> QueuedRun:
    """A small pretraining run that is to be made. values: `section__field`."""
    changes = {key.replace("__", "."): value for key, value in values.items()}
    return QueuedRun(resolve_settings("nano", overrides={"data.corpus": "tiny", **changes}), name=name, seconds=60.0)


def names(queue: RunQueue) -> list[str | None]:
    return [item.name for item in queue.read().items]


def end(run: RunFolder | None) -> None:
    """As if its worker had finished."""
    assert run is not None
    run.write_status(replace(run.recorded_status(), state="finished"))


def test_what_is_queued_comes_back_from_the_file_as_it_was(outputs: Path, queue: RunQueue) -> None:
    first = plan("first", train__steps=33)
    tuned = QueuedRun(FinetuneSettings(), preset="scratch", predictions=[{"quantity": "val_loss"}])
    queue.add(first)
    queue.add(tuned)
    again = RunQueue(outputs).read()
    assert again.items == (first, tuned)
    assert [item.track for item in again.items] == ["pretraining", "finetuning"]
    assert not again.paused


def test_an_empty_queue_starts_nothing(queue: RunQueue) -> None:
    assert queue.read().items == ()
    assert queue.take() is None


def test_runs_are_moved_and_removed_and_the_others_keep_their_order(queue: RunQueue) -> None:
    items = [plan(name) for name in "abcd"]
    for item in items:
        queue.add(item)
    queue.move(items[3].id, 0)
    assert names(queue) == ["d", "a", "b", "c"]
    queue.move(items[3].id, 2)
    assert names(queue) == ["a", "b", "d", "c"]
    queue.move(items[0].id, 99)
    assert names(queue) == ["b", "d", "c", "a"]
    queue.remove([items[1].id, items[2].id])
    assert names(queue) == ["d", "a"]
    queue.move("gone", 0)
    assert names(queue) == ["d", "a"]


def test_the_next_run_is_made_only_when_none_lives(outputs: Path, queue: RunQueue) -> None:
    live = FakeRun(outputs, "live").start().advance(5)
    queue.add(plan("first"))
    queue.add(plan("second"))
    assert queue.take() is None
    live.pause()
    assert queue.take() is None  # a run that was paused goes on some day
    live.unpause().finish()
    first = queue.take(watched=True)
    assert first is not None
    assert (first.id, first.info().watched, first.status().state) == ("first", True, "queued")
    assert names(queue) == ["second"]
    assert queue.take() is None  # the first has no worker yet, and counts all the same
    end(first)
    second = queue.take()
    assert second is not None
    assert second.info().settings.train == queue_settings(second).train
    assert names(queue) == []


def queue_settings(run: RunFolder) -> PretrainSettings:
    settings = run.info().settings
    assert isinstance(settings, PretrainSettings)
    return settings


def test_a_paused_queue_waits_and_a_chosen_run_starts_all_the_same(outputs: Path, queue: RunQueue) -> None:
    items = [plan("first"), plan("second")]
    for item in items:
        queue.add(item)
    queue.set_paused(True)
    assert queue.read().paused
    assert queue.take() is None  # also while no run lives
    FakeRun(outputs, "live").start().advance(5)
    chosen = queue.take(items[1].id)
    assert chosen is not None
    assert chosen.id == "second"
    assert names(queue) == ["first"]


def test_a_run_that_cannot_be_made_stays_with_its_problem_and_holds_up_nobody(outputs: Path, queue: RunQueue) -> None:
    FakeRun(outputs, "taken").start().advance(5).finish()
    doomed = plan("taken")
    queue.add(doomed)
    queue.add(plan("next"))
    with pytest.raises(UsageError, match="already there"):
        queue.take()
    state = queue.read()
    assert "already there" in state.items[0].problem
    run = queue.take()
    assert run is not None
    assert run.id == "next"
    end(run)
    assert queue.take() is None


def test_two_who_take_at_once_start_each_run_once(outputs: Path) -> None:
    for name in "abc":
        RunQueue(outputs).add(plan(name))
    gate = threading.Barrier(4)
    taken: list[str] = []

    def take() -> None:
        gate.wait()
        run = RunQueue(outputs).take()
        if run is not None:
            taken.append(run.id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == ["a"]  # the others saw that it lives
    assert names(RunQueue(outputs)) == ["b", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"format": 1}',
        '{"items": [{"track": "x"}]}',
        '{"items": [{"track": "finetuning", "settings": 3}]}',
        '{"items": [{"track": "finetuning", "settings": {}, "seconds": NaN}]}',
        '{"items": [{"track": "finetuning", "settings": {}, "added": 1e300}]}',
    ],
)
def test_a_damaged_queue_is_said_and_not_overwritten(queue: RunQueue, text: str) -> None:
    queue.path.write_text(text)
    with pytest.raises(LabError, match=r"queue\.json"):
        queue.read()
    with pytest.raises(LabError):
        queue.add(plan("new"))
    assert queue.path.read_text() == text


def test_a_queue_of_a_newer_lab_is_refused(queue: RunQueue) -> None:
    queue.path.write_text('{"format": 99, "items": []}')
    with pytest.raises(LabError, match="newer version"):
        queue.read()


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("name", [None, "bar"])
def test_a_run_that_was_made_by_one_who_was_killed_is_taken_and_not_made_again(
    outputs: Path, queue: RunQueue, name: str | None
) -> None:
    item = replace(plan(""), name=name)
    queue.add(item)

    def taking() -> int:
        def made_and_killed(*args: Any, **options: Any) -> None:
            create_run(*args, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        with mock.patch("llmlab.jobs.queue.create_run", made_and_killed):
            queue.take()
        return 0

    assert Fork(taking).wait() == -signal.SIGKILL
    (made,) = list_runs(outputs)
    assert [waiting.id for waiting in queue.read().items] == [item.id]
    run = queue.take(item.id)
    assert run is not None
    assert (run.id, [found.id for found in list_runs(outputs)]) == (made.id, [made.id])
    assert queue.read().items == ()


def test_a_run_that_was_begun_before_the_queue_was_written_is_not_made_again(outputs: Path, queue: RunQueue) -> None:
    item, behind = replace(plan(""), name=None), plan("behind")
    queue.add(item)
    queue.add(behind)
    with mock.patch.object(queue, "_write", side_effect=[None, LabError("killed")]), pytest.raises(LabError):
        queue.take()
    (made,) = list_runs(outputs)
    queue._write(replace(queue.read(), items=(replace(item, taken_as=made.id), behind)))  # as it stood then
    made.write_status(replace(made.recorded_status(), state="finished", attempt=1))  # someone started it by hand
    run = queue.take()
    assert run is not None
    assert run.id == "behind"
    assert queue.read().items == ()
    assert {found.id for found in list_runs(outputs)} == {made.id, "behind"}


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_run_of_somebody_else_is_not_taken_for_one_that_was_being_made(outputs: Path, queue: RunQueue) -> None:
    item = plan("bar", train__steps=33)
    queue.add(item)

    def killed(*_args: Any, **_options: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def taking() -> int:
        with mock.patch("llmlab.jobs.queue.create_run", killed):
            queue.take()
        return 0

    assert Fork(taking).wait() == -signal.SIGKILL
    create_run(outputs, resolve_settings("nano", overrides={"data.corpus": "tiny", "train.steps": 44}), name="bar")
    with pytest.raises(LabError, match="already there"):
        queue.take(item.id)
    (left,) = queue.read().items
    assert "already there" in left.problem
    assert left.taken_as == ""


def test_waiting_for_a_queue_that_another_program_holds_can_be_cancelled_and_ends(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs.mkdir(exist_ok=True)
    with locked(outputs / ".queue.lock", "the queue"):
        with pytest.raises(Cancelled):
            RunQueue(outputs, CancelAfter(1)).add(plan("bar"))
        monkeypatch.setattr("llmlab.core.files._LOCK_SECONDS", 0.05)
        with pytest.raises(LabError, match=r"Another program holds the queue\. .* Nothing was saved\."):
            RunQueue(outputs).add(plan("bar"))
    RunQueue(outputs).add(plan("bar"))
    assert names(RunQueue(outputs)) == ["bar"]


def test_a_disk_that_does_not_answer_in_time_is_not_taken_for_another_program(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object) -> RunInfo:
        raise TimeoutError("the disk")

    with pytest.raises(TimeoutError, match="the disk"):
        FakeRun(outputs, "bar").run.change_info(slow)
    monkeypatch.setattr("llmlab.jobs.queue.read_json", slow)
    with pytest.raises(LabError, match=r"The queue in .* could not be changed\. the disk"):
        RunQueue(outputs).add(plan("bar"))
    with pytest.raises(LabError, match=r"The notebook in .* could not be written\. the disk"), held(outputs):
        slow()
