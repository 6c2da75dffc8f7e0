"""An error of the system names the file or folder, says why, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeRun

from llmlab.core.errors import LabError, explained
from llmlab.jobs.launcher import request
from llmlab.jobs.queue import RunQueue
from llmlab.mysteries.case import CASE, SCORES, Case, _keep_score, _write
from llmlab.notebook.markdown import save_markdown
from llmlab.notebook.seals import held
from llmlab.store.checkpoints import PINNED_FILE, Checkpoint, select, set_pinned
from llmlab.store.overview import read_overview
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import read_events


def _held(folder: Path) -> None:
    with held(folder):
        pass


def _saved(run: RunFolder) -> Checkpoint:
    return select(run.checkpoints)


_CASE = Case(1, ["nothing"], answer={"nothing": 1.0}, bits=0.0, cause="nothing")
# What fails when a folder lies where it has a file, and when a file lies where it has a folder.
_FILES: dict[str, tuple[Callable[[RunFolder], Path], Callable[[RunFolder], object]]] = {
    "an overview": (lambda run: run.events, read_overview),
    "events": (lambda run: run.events, lambda run: list(read_events(run))),
    "a mystery": (lambda run: run.path / CASE, lambda run: _write(run, _CASE)),
    "its score": (lambda run: run.path.parent / SCORES, lambda run: _keep_score(run, _CASE)),
    "a pin": (lambda run: _saved(run).path / PINNED_FILE, lambda run: set_pinned(_saved(run), False)),
    "the notebook's text": (lambda run: run.path / "n.md", lambda run: save_markdown([], run.path / "n.md")),
}
_FOLDERS: dict[str, tuple[Callable[[RunFolder], Path], Callable[[RunFolder], object]]] = {
    "a request": (lambda run: run.requests, lambda run: request(run, "pause")),
    "the queue": (lambda run: run.path / "o", lambda run: RunQueue(run.path / "o").set_paused(True)),
    "the notebook": (lambda run: run.path / "notebook", lambda run: _held(run.path / "notebook")),
}


@pytest.mark.parametrize("what", [*_FILES, *_FOLDERS])
def test_what_lies_in_the_place_of_a_file_or_folder_is_named_with_what_to_do(tmp_path: Path, what: str) -> None:
    run = FakeRun(tmp_path).start().advance(1).save_checkpoint().run
    place, work = (_FILES | _FOLDERS)[what]
    path = place(run)
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.mkdir() if what in _FILES else path.touch()
    with pytest.raises(LabError) as raised:
        work(run)
    error = raised.value
    assert str(path) in str(error)
    assert error.why.startswith(tuple(os.strerror(code) for code in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST)))
    assert error.do


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_a_full_disk_is_told_with_the_file_that_the_system_does_not_name(tmp_path: Path) -> None:
    run = FakeRun(tmp_path).start().run
    scores = run.path.parent / SCORES
    scores.symlink_to("/dev/full")
    with pytest.raises(LabError) as raised:
        _keep_score(run, _CASE)
    assert (raised.value.why, raised.value.do) == ("No space left on device.", "Make room there, then try again.")
    assert str(scores) in raised.value.what


def test_the_systems_file_is_named_where_it_is_another_and_a_staging_file_never() -> None:
    for named, told in (("/a/parent", "Permission denied (/a/parent)."), ("/a/.tmp-b-1", "Permission denied.")):
        with pytest.raises(LabError) as raised, explained("/a/b could not be written."):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), named)
        assert (raised.value.why, raised.value.do) == (told, "Change its permissions, or use another folder.")
