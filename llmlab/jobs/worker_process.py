"""Starting the process that works at a folder, and how that process begins and ends. No torch.

Exit codes: 0 finished or stopped, 1 failed, 3 another worker holds the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from llmlab.core.errors import LabError, explained
from llmlab.core.paths import module_command
from llmlab.core.processes import follow_parent, host_name, process_start
from llmlab.store.worker_folder import WorkerFolder

# How often a process that was told to end is looked at, and what it gets after a save to hear of it.
_LISTEN_SECONDS = 0.1
_AFTER_SECONDS = 1.0
# What comes so soon after the first signal is the same request: a terminal's Ctrl-C, and torchrun's word of it.
_SAME_SECONDS = 0.5
# Until `work_as`: the 170,000 objects of torch's modules stay, and looking through them is a tenth of its import.
_NO_GARBAGE = "import gc; gc.disable()"
# What torchrun tells its processes. Where a shell has it, it is of another job, in which this process has no place.
_OF_TORCHRUN = re.compile(r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)$|MASTER_(ADDR|PORT)$|TORCHELASTIC_")


def launch(
    module: str,
    folder: WorkerFolder,
    begin: Callable[[bool], Any],
    environment: Mapping[str, str],
    *,
    die_with_parent: bool,
) -> subprocess.Popen[bytes]:
    """Starts `python -m module FOLDER`, its output in worker.log, unless a process works there or is about to.

    begin: the status to start with; raises when someone is there already. It is asked without the folder's lock, and
    again with it (True), and the process named in status.json then: of two that launch at once, the second finds the
    process of the first.
    die_with_parent: it dies with this process; otherwise it outlives it. LabError when it cannot be started.
    """
    import filelock  # seldom needed, and 25 ms of every start

    if not folder.path.is_dir():  # the lock would make it again
        raise folder.gone()
    begin(False)  # before the lock is waited for: a worker that lives holds it
    with explained(f"The worker of {folder.id} could not be started."):
        try:
            with folder.held():
                return _launch(module, folder, begin(True), environment, die_with_parent)
        except filelock.Timeout as error:
            raise LabError(
                f"{folder.id} is already being worked on.", "Another process holds it.", "Wait until it has ended."
            ) from error


def _launch(
    module: str, folder: WorkerFolder, status: Any, environment: Mapping[str, str], die_with_parent: bool
) -> subprocess.Popen[bytes]:
    command = [*module_command(module, _NO_GARBAGE), str(folder.path)]
    if die_with_parent:
        command += ["--follow-parent", str(os.getpid())]
    status = dataclasses.replace(status, host=host_name())
    folder.write_status(status)
    own = {name: value for name, value in os.environ.items() if not _OF_TORCHRUN.match(name)}
    with folder.log.open("ab") as log:
        worker = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**own, **environment, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C in the terminal reaches the command, which then asks for a stop
        )
    with contextlib.suppress(psutil.Error):  # it has ended already
        folder.write_status(dataclasses.replace(status, pid=worker.pid, pid_start=process_start(worker.pid)))
    return worker


def work_as(module: str, what: str, work: Callable[[Path], None], argv: Sequence[str] | None) -> int:
    """What a process does that `launch` started; returns its exit code. what: the folder is one of these ("run")."""
    import filelock  # only where work is done: 25 ms of every start

    if not gc.isenabled():  # see _NO_GARBAGE
        gc.freeze()
        gc.enable()
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("folder", metavar=what, type=Path, help=f"the {what}'s folder")
    parser.add_argument("--follow-parent", type=int, metavar="PID", help="die with the process that started this one")
    arguments = parser.parse_args(argv)
    if arguments.follow_parent is not None:
        follow_parent(arguments.follow_parent)
    try:
        work(arguments.folder.resolve())
    except filelock.Timeout:
        log(f"Another worker holds this {what}.")
        return 3
    except LabError as error:
        log(str(error))
        return 1
    return 0


def listen_to_signals(
    first: Callable[[], None], waits: Callable[[], bool], give_up: Callable[[], None], seconds: float
) -> None:
    """Makes SIGTERM and Ctrl-C end this process in time; to be called in its main thread, by which it then ends.

    The first calls `first`. After `seconds`, and not while `waits` says so, or when a second comes, `give_up` is called
    and the process ends, whatever its main thread is doing: all three run in a thread of their own, since Python's own
    handlers wait while the main thread is in a long call into a library.
    """
    heard, pipe = socket.socketpair()  # Windows can wait for sockets only
    pipe.setblocking(False)
    signal.set_wakeup_fd(pipe.fileno(), warn_on_full_buffer=False)
    numbers = {signal.SIGTERM, signal.SIGINT}
    for number in numbers:
        signal.signal(number, lambda *_: None)

    def comes_within(timeout: float | None) -> bool:
        readable, _, _ = select.select([heard], [], [], timeout)
        return bool(readable) and not numbers.isdisjoint(heard.recv(64))

    def listen() -> None:
        with heard, pipe:  # which live as long as this thread
            while not comes_within(None):
                pass
            first()
            began = time.monotonic()
            end = began + seconds
            while not comes_within(_LISTEN_SECONDS) or time.monotonic() < began + _SAME_SECONDS:
                if waits():
                    end = max(end, time.monotonic() + _AFTER_SECONDS)
                if time.monotonic() >= end:
                    break
            give_up()
            os._exit(0)

    threading.Thread(target=listen, name="signals", daemon=True).start()


def log(text: str) -> None:
    """To worker.log, as far as the disk allows."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)
