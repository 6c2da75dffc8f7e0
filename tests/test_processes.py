"""The tests clean up after themselves: what one of them starts does not outlive it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
from forks import wait_until
from processes import kill
from waits import SECONDS

# Starts a process whose parent is gone at once, as a run's worker is when its command was killed, and names it.
ORPHAN = """
import os, psutil, signal, subprocess, sys
import processes
processes._SECONDS = 0.2
owner = processes.TestProcesses()
known = owner.known()
sleeper = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(900)'], " \\
    "start_new_session=True, stdout=subprocess.DEVNULL).pid)"
orphan = subprocess.run([sys.executable, "-c", sleeper], stdout=subprocess.PIPE, text=True).stdout
print(orphan, flush=True)
while not psutil.Process(int(orphan)).environ():  # for an instant after its start there is none to be read
    pass
"""


def _run(script: str) -> tuple[int, list[str]]:
    """The orphan's process id, and what the script printed after it."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN + script],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    pid, *rest = done.stdout.split("\n", 1)
    return int(pid), rest


def test_a_process_whose_parent_is_gone_ends_with_the_test_that_started_it() -> None:
    pid, rest = _run("print(owner.end_all_but(known)); owner.close()")
    assert not psutil.pid_exists(pid)
    assert "time.sleep(900)" in rest[0]


def test_a_process_that_is_ending_anyway_is_none_that_tests_left() -> None:
    ending = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(0.3)'])"
    _, rest = _run(f"owner.end_all_but(known); processes._SECONDS = {SECONDS}; {ending}; print(owner.close())")
    assert rest[0].strip() == "[]"


def test_what_a_killed_test_run_started_is_ended() -> None:
    pid, _ = _run("os.kill(os.getpid(), signal.SIGKILL)")
    wait_until(lambda: not psutil.pid_exists(pid))


def test_a_child_that_is_killed_before_its_busy_parent_holds_nothing_up() -> None:
    child = "import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1).pid, "
    busy = child + "flush=True); time.sleep(900)"
    with subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        both = [psutil.Process(int(parent.stdout.readline())), psutil.Process(parent.pid)]
        assert len(kill(both)) == 2
    assert not any(process.is_running() for process in both)
