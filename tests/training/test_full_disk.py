"""A disk that is full, gone or read-only ends in a sentence, and what was saved stays."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from forks import Fork, forked, wait_until, work_on
from kills import differences, events_of
from small_runs import all_events, in_step, new_run, quick_settings, train_here
from waits import SECONDS

from llmlab.core.errors import LabError
from llmlab.exercises.pieces import Workbook, find_piece
from llmlab.jobs import worker
from llmlab.jobs.launcher import create_run, prepare_resume, request
from llmlab.store import requests
from llmlab.store.checkpoints import MODEL_FILE, list_checkpoints, select, verify
from llmlab.store.run_folder import RunFolder
from llmlab.training import state

STEPS = 14
SETTINGS = {"checkpoints__best": False, "train__sample_interval": 7}


def _intact(run: RunFolder, steps: list[int]) -> None:
    """These checkpoints are there and verify, and nothing half-written is."""
    saved = list_checkpoints(run.checkpoints)
    assert [checkpoint.step for checkpoint in saved] == steps
    assert [verify(checkpoint) for checkpoint in saved] == [None] * len(steps)
    assert list(run.checkpoints.glob(".tmp-*")) == []


@pytest.mark.parametrize("too_small_for", ["the weights", "the state", "the events"])
def test_a_limit_on_file_sizes_ends_in_a_sentence_with_every_checkpoint_intact(
    run: RunFolder, alone: RunFolder, too_small_for: str
) -> None:
    with in_step(6, partial(requests.send, run.requests, "stop")):
        train_here(run)
    weights = (select(run.checkpoints).path / MODEL_FILE).stat().st_size
    limit = {
        "the weights": weights - 1000,
        "the state": weights + 1000,  # AdamW's two moments are twice as much
        "the events": run.events.stat().st_size + 100,
    }[too_small_for]
    assert Fork(lambda: work_on(run, largest_file=limit)).wait() == 1
    _intact(run, [5, 6])
    said = run.log.read_text().splitlines()[-1]
    assert "could not be" in said
    assert "A limit on the size of files was reached. Raise it, then resume." in said
    error = run.status().error
    assert run.status().state == "failed"
    assert error is not None
    assert "A limit on the size of files" in error["why"]
    if too_small_for != "the events":
        assert all_events(run)[-1]["event"] == "failed"
    train_here(run)
    assert differences(alone, run) == []


@pytest.mark.parametrize("call", [0, 1])
def test_a_full_disk_ends_an_unwatched_run_with_what_it_had_saved(run: RunFolder, alone: RunFolder, call: int) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    effects = [mock.DEFAULT] * call + [full]
    real = state.save_state
    with (
        mock.patch.object(state, "save_state", side_effect=effects, wraps=real),
        pytest.raises(LabError, match=r"The disk is full\. Free some space, then resume\."),
    ):
        train_here(run)
    _intact(run, [5][:call])
    assert run.status().state == "failed"
    assert all_events(run)[-1]["event"] == "failed"
    train_here(run)
    assert differences(alone, run) == []


def _filled(disk: Path, left: int) -> Path:
    """A file that takes all of the disk but `left` bytes."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(filler, max(0, filler.stat().st_size - left))
    return filler


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of one megabyte; only root can have it, on Linux."""
    folder = Path(tempfile.mkdtemp(prefix="small-disk-"))
    mounted = sys.platform == "linux" and os.geteuid() == 0
    if mounted:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
        )
        mounted = made.returncode == 0
    if not mounted:
        folder.rmdir()
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


# Enough for events and the status but not for a checkpoint; and nothing at all.
@pytest.mark.parametrize("left", [24 << 10, 0])
def test_a_watched_run_waits_on_a_full_disk_and_goes_on_when_there_is_room(
    small_disk: Path, alone: RunFolder, left: int
) -> None:
    run = create_run(small_disk, quick_settings(STEPS, **SETTINGS), name="run", watched=True)
    with in_step(6, partial(requests.send, run.requests, "stop")):
        train_here(run)
    filler = None
    requests.send(run.requests, "pause")
    with forked(run) as worker:
        wait_until(lambda: run.status().state == "paused")
        filler = _filled(small_disk, left)
        os.truncate(filler, filler.stat().st_size - 4096)  # room for the request itself
        request(run, "resume")
        wait_until(lambda: "disk is full" in run.events.read_text())
        assert run.status().state == "paused"
        assert "The disk is full. Free some space, then resume." in events_of(run, "paused")[-1]["reason"]
        _intact(run, [5, 6])
        assert worker.poll() is None
        filler.unlink()
        for name in ("resume", "pause"):
            request(run, name)
        wait_until(lambda: len(events_of(run, "paused")) == 3)
        assert (run.path / ".reserve").stat().st_size > 0  # for its words on the next full disk
        request(run, "resume")
        assert worker.wait() == 0
    assert differences(alone, run) == []


@pytest.mark.parametrize("left", [24 << 10, 0])
def test_a_full_disk_ends_a_headless_worker_in_a_sentence(small_disk: Path, alone: RunFolder, left: int) -> None:
    run = new_run(small_disk, STEPS, **SETTINGS)
    with in_step(6, partial(requests.send, run.requests, "stop")):
        train_here(run)
    requests.send(run.requests, "pause")
    with forked(run) as worker:
        wait_until(lambda: run.status().state == "paused")
        filler = _filled(small_disk, left + 4096)
        request(run, "resume")
        assert worker.wait() == 1
    assert run.status().state == "failed"
    error = run.status().error
    assert error is not None
    assert "The disk is full. Free some space, then resume." in error["why"]
    _intact(run, [5, 6])
    filler.unlink()
    train_here(run)
    assert differences(alone, run) == []


def test_a_run_that_waits_on_a_full_disk_can_be_stopped(outputs: Path) -> None:
    run = create_run(outputs, quick_settings(STEPS, **SETTINGS), name="run", watched=True)
    full = OSError(errno.ENOSPC, "No space left on device")
    with mock.patch.object(state, "save_state", side_effect=full), forked(run) as child:
        wait_until(lambda: run.status().state == "paused")
        child.terminate()
        assert child.wait(SECONDS) == 1
    assert run.status().state == "failed"
    assert "The disk is full" in run.log.read_text()


def test_a_full_disk_while_a_run_is_made_leaves_no_half_of_it(small_disk: Path, alone: RunFolder) -> None:
    filler = _filled(small_disk, 20 << 10)
    with pytest.raises(LabError, match="could not be made"):
        create_run(small_disk, alone.info().settings, name="branch", parent=(alone, select(alone.checkpoints, "10")))
    assert not (small_disk / "pretraining" / "branch").exists()
    filler.unlink()
    branch = create_run(
        small_disk, alone.info().settings, name="branch", parent=(alone, select(alone.checkpoints, "10"))
    )
    assert select(branch.checkpoints).step == 10


def test_a_piece_that_found_no_room_is_not_begun(small_disk: Path) -> None:
    workbook, piece = Workbook(small_disk), find_piece("softmax")
    filler = _filled(small_disk, 0)
    with pytest.raises(LabError, match="could not be written"):
        workbook.start(piece)
    filler.unlink()
    assert workbook.start(piece)
    assert workbook.file(piece).read_text() == piece.skeleton


@pytest.mark.parametrize("paused", [True, False])
def test_a_run_whose_folder_is_deleted_ends_and_does_not_come_back(outputs: Path, paused: bool) -> None:
    never = {"train__eval_interval": 0, "train__sample_interval": 0}
    run = new_run(outputs, 1_000_000, **never, checkpoints__interval=2)
    with forked(run) as worker:
        wait_until(lambda: bool(list_checkpoints(run.checkpoints)))
        if paused:
            request(run, "pause")
            wait_until(lambda: run.status().state == "paused")
        gone = outputs / "trash"
        run.path.rename(gone)  # as a desktop's bin does
        assert worker.wait(SECONDS) == 1
    assert not run.path.exists()
    said = (gone / "worker.log").read_text()
    assert "is gone" in said
    assert [verify(saved) for saved in list_checkpoints(gone / "checkpoints")].count(None) > 0


def test_a_run_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="There is no such folder"):
        train_here(RunFolder(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stranger() -> Iterator[Any]:
    """Runs a function as someone who may write nowhere here, and returns its exit code."""
    folder = Path(tempfile.mkdtemp(prefix="read-only-"))
    folder.chmod(0o755)

    def act(work: Any) -> int:
        def as_nobody() -> int:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)  # nobody, by custom
                os.setuid(65534)
            return work()

        return Fork(as_nobody).wait()

    yield folder, act
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


def _read_only(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def test_a_run_that_may_not_be_written_is_a_sentence(stranger: Any, capfd: pytest.CaptureFixture[str]) -> None:
    folder, act = stranger
    run = new_run(folder, STEPS)
    _read_only(folder)
    assert act(lambda: worker.main([str(run.path)])) == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "could not be written" in said
    assert "Permission denied" in said


def test_outputs_that_may_not_be_written_are_a_sentence(stranger: Any) -> None:
    folder, act = stranger

    def make() -> int:
        with pytest.raises(LabError, match=r"could not be made.*Permission denied.*--outputs"):
            create_run(folder, quick_settings(), name="run")
        return 0

    _read_only(folder)
    assert act(make) == 0
    assert list(folder.iterdir()) == []


def test_outputs_that_are_a_file_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("mine")
    with pytest.raises(LabError, match="could not be made"):
        create_run(tmp_path / "outputs", quick_settings(), name="run")
    assert (tmp_path / "outputs").read_text() == "mine"


def test_settings_of_a_run_that_may_not_be_written_change_in_a_sentence_or_not_at_all(run: RunFolder) -> None:
    with (
        mock.patch("llmlab.core.files.os.replace", side_effect=OSError(errno.EROFS, "Read-only file system")),
        pytest.raises(LabError, match="Read-only file system"),
    ):
        prepare_resume(run, {"train.steps": 99})
    assert run.info().settings.train.steps == STEPS
    assert list(run.path.glob(".tmp-*")) == []
