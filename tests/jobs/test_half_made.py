"""A folder is there whole or not at all: whoever is killed while it is made leaves its name free."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from forks import Fork
from small_runs import quick_settings

from llmlab.core.errors import UsageError
from llmlab.core.files import new_folder
from llmlab.jobs.launcher import create_run
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder
from llmlab.store.worker_folder import WorkerFolder
from llmlab.studies.experiments.kinds import find_kind
from llmlab.studies.experiments.plan import Request, make_plan
from llmlab.studies.launcher import create_experiment
from llmlab.studies.plans.records import ExperimentFolder, list_plans

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")


def killed(*_args: object, **_options: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(target: object, name: str, make: Callable[[], object]) -> None:
    """Lets a process make something, and kills it when it comes to that function."""

    def work() -> int:
        with mock.patch.object(target, name, killed):
            make()
        return 0

    assert Fork(work).wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("target", "name"), [(WorkerFolder, "write_status"), (RunFolder, "write_info"), (os, "rename")]
)
def test_a_run_whose_making_was_killed_can_be_made(outputs: Path, target: object, name: str) -> None:
    def make() -> RunFolder:
        return create_run(outputs, quick_settings(3), name="bar")

    killed_at(target, name, make)
    assert list_runs(outputs) == []
    assert make().info().id == "bar"
    assert [run.id for run in list_runs(outputs)] == ["bar"]
    with pytest.raises(UsageError, match="already there"):
        make()


@pytest.mark.parametrize(
    ("target", "name"), [(WorkerFolder, "write_status"), (ExperimentFolder, "write_record"), (os, "rename")]
)
def test_an_experiment_whose_making_was_killed_can_be_made(outputs: Path, target: object, name: str) -> None:
    kind = find_kind("learning-rate")
    record = make_plan(Request(kind, quick_settings(3, train__eval_interval=1), outputs, id="lr", grid=[1e-3, 1e-2]))
    killed_at(target, name, lambda: create_experiment(outputs, record))
    assert list_plans(outputs, ExperimentFolder) == []
    assert create_experiment(outputs, record).record().trials == record.trials
    assert [folder.id for folder in list_plans(outputs, ExperimentFolder)] == ["lr"]


def test_what_was_half_made_goes_after_a_day(tmp_path: Path) -> None:
    def make() -> None:
        with new_folder(tmp_path / "old"):
            pass

    killed_at(os, "rename", make)
    (left,) = tmp_path.iterdir()
    with new_folder(tmp_path / "first"):
        assert left.exists()
    assert left.exists()
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(left, (long_ago, long_ago))
    with new_folder(tmp_path / "second"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_an_error_leaves_nothing_and_a_folder_that_is_there_stays(tmp_path: Path) -> None:
    def make(error: Exception | None) -> None:
        with new_folder(tmp_path / "bar") as path:
            (path / "file").write_text("whole")
            if error is not None:
                raise error

    with pytest.raises(ZeroDivisionError):
        make(ZeroDivisionError())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bar").mkdir()  # empty: a rename alone would replace it
    with pytest.raises(FileExistsError):
        make(None)
    assert [path.name for path in tmp_path.rglob("*")] == ["bar"]
