"""Shared by all tests: no display, no network, few threads, and folders of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fork_server
import pytest
from processes import TestProcesses

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ["HF_HUB_OFFLINE"] = "1"
# One thread a process: with as many as cores, any other busy process slows both ten times.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token caches of the tests, shared by one session and by the workers that it starts."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["LLMLAB_CACHE"] = str(folder)
    return folder


@pytest.fixture(autouse=True, scope="session")
def test_processes(own_cache: Path) -> Iterator[TestProcesses]:
    """All processes that tests start. None is left when the last test is over."""
    processes = TestProcesses()
    fork_server.install()
    yield processes
    fork_server.close()
    if renderer := _renderer():
        renderer.end()
    left = processes.close()
    assert not left, f"processes left by the tests: {left}"


@pytest.fixture(autouse=True)
def no_process_left(test_processes: TestProcesses) -> Iterator[None]:
    """A test that leaves a process behind fails, and the process is ended; so it is when the test fails otherwise."""
    known = test_processes.known()
    yield
    if renderer := _renderer():
        known.add(renderer.process_id)
    if template := fork_server.running():
        known.add(template.pid)
    left = test_processes.end_all_but(known)
    assert not left, f"processes left: {left}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    fork_server.enable(item.get_closest_marker("real_start") is None)


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty outputs folder, also for the processes that a test starts."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    monkeypatch.setenv("LLMLAB_OUTPUTS", str(folder))
    return folder


def _renderer() -> Any:
    """The process that renders chat templates, if there is one: it serves all tests of this process."""
    module = sys.modules.get("llmlab.data.template_rendering")
    return module and module.running()
