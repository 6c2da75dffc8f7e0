"""A forked process is what its command would have given."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fork_server
import psutil
import pytest
from _pytest.assertion.rewrite import AssertionRewritingHook
from forks import Fork, wait_until
from processes import MARK
from small_runs import new_run

from llmlab import __version__
from llmlab.core.paths import module_command
from llmlab.jobs.launcher import request, worker_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forked on Linux only")
HERE = [sys.executable, "-m", "llmlab"]


@pytest.mark.parametrize("module", fork_server.SERVED)
def test_the_modules_that_are_forked_are_there(module: str) -> None:
    assert importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("words", ["-m settings --json", "-c runs", "-m show nothing", "-c no-such-word"])
def test_it_prints_and_ends_as_a_real_one(words: str, tmp_path: Path, outputs: Path) -> None:
    form, *words_after = words.split()
    command = [*(HERE if form == "-m" else module_command("llmlab")), *words_after]
    environment = os.environ | {"LLMLAB_OUTPUTS": "here", "COLUMNS": "70"}
    how = {"cwd": tmp_path, "env": environment, "stdin": subprocess.DEVNULL, "capture_output": True}
    forked = subprocess.run(command, **how, check=False)
    assert fork_server.running() is not None
    fork_server.enable(False)
    real = subprocess.run(command, **how, check=False)
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)


def test_it_is_a_child_with_its_own_id_folder_and_session_and_can_be_killed(tmp_path: Path) -> None:
    command = [*module_command("llmlab.jobs.model_host"), "--outputs", str(tmp_path)]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, start_new_session=True) as process:
        seen = psutil.Process(process.pid)
        assert seen.ppid() == os.getpid()
        wait_until(lambda: os.getsid(process.pid) == process.pid)
        wait_until(lambda: seen.cwd() == str(tmp_path))
        process.kill()
        assert process.wait() == -signal.SIGKILL


def test_it_bears_the_mark_of_those_who_asked_so_that_no_others_end_it(tmp_path: Path) -> None:
    command = [*module_command("llmlab.jobs.model_host"), "--outputs", str(tmp_path)]
    mark = "7" * 32
    with subprocess.Popen(command, env=os.environ | {MARK: mark}, stdin=subprocess.PIPE) as process:
        seen = psutil.Process(process.pid)
        wait_until(lambda: seen.environ()[MARK] == mark)
        process.kill()


def test_what_xdist_starts_is_forked() -> None:
    command = pytest.importorskip("execnet.gateway_io").popen_args(pytest.importorskip("execnet").XSpec("popen"))
    assert command[:2] == [sys.executable, "-u"]
    assert fork_server.module_of([command[0], *command[2:]]) == "execnet"


@pytest.mark.slow
def test_what_tests_is_forked_with_tests_whose_assertions_say_what_failed(tmp_path: Path) -> None:
    (tmp_path / "test_lists.py").write_text("def test_lists():\n    one = [1]\n    assert one == [2]\n")

    def imports() -> int:
        paths = sys.path[:]
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, AssertionRewritingHook)]
        fork_server._import_tests([str(tmp_path)])
        try:
            sys.modules["test_lists"].test_lists()
        except AssertionError as failed:
            return int("[1] == [2]" not in str(failed) or sys.path != paths)
        return 1

    assert Fork(imports).wait() == 0


def test_one_that_writes_without_a_buffer_is_forked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, fork = [], fork_server.Template.fork

    def noted(self: fork_server.Template, request: dict[str, Any], files: tuple[int, int, int]) -> int:
        asked.append((request["command"][1:], request["unbuffered"]))
        return fork(self, request, files)

    monkeypatch.setattr(fork_server.Template, "fork", noted)
    done = subprocess.run([sys.executable, "-u", *HERE[1:], "--version"], capture_output=True, text=True, check=True)
    assert (asked, __version__ in done.stdout) == ([(["-m", "llmlab", "--version"], True)], True)


def test_what_it_starts_is_forked_too(outputs: Path) -> None:
    run, template = new_run(outputs, 10**6), fork_server.running() or fork_server._first_template()
    command = [*HERE, "resume", "run", "--outputs", str(outputs)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as resumed:
        wait_until(lambda: run.recorded_status().step > 0)
        worker = run.recorded_status().pid or 0
        words = [psutil.Process(pid).cmdline() for pid in (worker, template.pid)]
        request(run, "stop")
        resumed.wait()
    assert worker != resumed.pid
    assert words[0] == words[1]


def test_what_a_fork_of_a_test_starts_is_a_copy_of_it(tmp_path: Path) -> None:
    def starts() -> int:
        fork_server.serve_copies()
        command = [*module_command("llmlab.jobs.model_host"), "--outputs", str(tmp_path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            words = [psutil.Process(pid).cmdline() for pid in (process.pid, os.getpid())]
            process.kill()
        return int(words[0] != words[1])

    assert Fork(starts).wait() == 0


def test_a_process_that_trains_is_forked_with_all_that_its_environment_has() -> None:
    template = fork_server.running() or fork_server._first_template()
    assert template.fits(os.environ | worker_environment())


def test_a_process_that_begins_otherwise_is_truly_started(tmp_path: Path) -> None:
    other = os.environ | {"PYTHONHASHSEED": "7"}
    with subprocess.Popen([*HERE, "--version"], env=other, stdout=subprocess.DEVNULL) as process:
        words: list[str] = []
        while not words and process.poll() is None:  # for a moment after its start it has none
            words = psutil.Process(process.pid).cmdline()
        assert "llmlab" in words
