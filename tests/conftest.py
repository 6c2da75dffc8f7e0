"""Shared by all tests: no display, no network, few threads, folders of their own, and how many run at a time."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fork_server
import pytest
from hypothesis import settings
from processes import TestProcesses

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ["HF_HUB_OFFLINE"] = "1"
# One thread a process: with as many as cores, any other busy process slows both ten times.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
# A busy machine makes any example slow once; that it is not slow again would fail its test.
settings.register_profile("lab", deadline=None)
settings.load_profile("lab")

# Processes that run tests: more of them would take more memory than a laptop has, about 1.5 GB each.
_MOST_PROCESSES = 8
_LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also the tests marked slow, which a run of folders leaves out")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """A run of folders uses the cores, unless told otherwise: one file is done before a second process has begun.

    A file's tests run in one process, since they share what is made once for them.
    """
    option = config.option
    if hasattr(config, "workerinput") or not _whole(config) or not config.pluginmanager.hasplugin("xdist"):
        return
    if option.numprocesses is None and option.dist == "no" and not option.tx and not option.usepdb:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # One more than cores: what begins first waits for processes of its own, which wait for one another.
        option.numprocesses = min(cores + 1, _MOST_PROCESSES) if cores > 1 and option.capture != "no" else 0
    if option.numprocesses and option.dist == "no":
        option.dist, option.loadscopereorder = "loadfile", False  # in the order of the tests
    if option.numprocesses:
        # xdist 3.8 hands on the files that a process had done when it crashed, and then waits for ever.
        option.maxworkerrestart = option.maxworkerrestart or "0"
        fork_server.install(config.args)  # what takes long to import is imported once for all processes that test


def pytest_unconfigure() -> None:
    fork_server.close()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """What may take long begins first, so that no process is left with it at the end."""
    slow = [] if config.option.all or config.option.markexpr or not _whole(config) else _marked(items, "slow")
    if slow:
        items[:] = [item for item in items if item not in set(slow)]
        config.stash[_LEFT_OUT] = len(slow)
        config.hook.pytest_deselected(items=slow)
    yield
    first = {item.path for item in [*_marked(items, "slow"), *_marked(items, "long")]}
    items.sort(key=lambda item: item.path not in first)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left out"] = session.config.stash.get(_LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left out", 0)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if left_out := config.stash.get(_LEFT_OUT, 0):
        terminalreporter.write_line(f"{left_out} slow tests were left out: pytest --all runs them, too.")


def _whole(config: pytest.Config) -> bool:
    """Whether folders are tested, and not files or single tests."""
    return all((config.invocation_params.dir / word).is_dir() for word in config.args)


def _marked(items: list[pytest.Item], name: str) -> list[pytest.Item]:
    return [item for item in items if item.get_closest_marker(name)]


@pytest.fixture(autouse=True, scope="module")
def old_objects_left_alone() -> None:
    """Collections, and tests that look at all objects, pass over those made before: torch alone makes a million."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token caches of the tests: one for all processes that test, and for the workers that they start."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
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
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # a run that an earlier test trained here may have set more
    if device := sys.modules.get("llmlab.core.device"):
        device.available_cores = lambda: 1


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty outputs folder, also for the processes that a test starts."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    monkeypatch.setenv("LLMLAB_OUTPUTS", str(folder))
    return folder


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without figures, whose drawing takes a second and is another test's."""
    monkeypatch.setattr("llmlab.studies.report.draw_charts", lambda charts, folder, title="": [])


def _renderer() -> Any:
    """The process that renders chat templates, if there is one: it serves all tests of this process."""
    module = sys.modules.get("llmlab.data.template_rendering")
    return module and module.running()
