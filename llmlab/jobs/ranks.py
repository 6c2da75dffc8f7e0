"""Starting the processes of a run that several train: torchrun's elastic agent, on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from llmlab.core.errors import LabError
from llmlab.core.paths import module_command
from llmlab.core.processes import process_stopped
from llmlab.jobs.worker_process import log
from llmlab.store.run_folder import RunFolder
from llmlab.store.worker_folder import REMARK
from llmlab.training.processes import LOST, failed, not_answering

_LOOPBACK = "127.0.0.1"
# A process that torchrun ends since others gave up says so later than this (llmlab.jobs.worker.SIGTERM_SECONDS).
_STOPPED_SECONDS = 3.0
# How often a process looks whether rank 0 gets on.
_LOOK_SECONDS = 1.0
# How often it must find a process held before it ends it: those that were stopped together go on one after another.
_HELD_LOOKS = 3
_WHY_KILLED = {
    "SIGKILL": "The system does that where memory runs out, and so does Kill in the window.",
    # Seen of a rank 0 that hung and was left: "terminate called", gloo's loop.cc, "epoll_ctl: Bad file descriptor".
    "SIGABRT": "gloo, by which processes send to each other, can do that when another has left this one, perhaps since "
    "it did not answer (distributed.timeout). worker.log has its last words.",
}
_SAY_SECONDS = 5.0  # after which a run that torchrun started first says where it is


def run_ranks(run: RunFolder, count: int) -> LabError | None:
    """Starts `count` workers on `run` and waits for their end; what to say where one of them ended otherwise than by
    itself. A signal to this process is passed on to all of them.

    None of them is started again: a run that failed says so, and is resumed by whoever has seen why. torchrun by hand
    has --max-restarts.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args
    from torch.distributed.run import run as torchrun

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun would set it too, and warn
    for name, value in interface().items():
        os.environ.setdefault(name, value)
    where = ["--standalone", "--local-addr", _LOOPBACK, "--nproc-per-node", str(count), "--max-restarts", "0"]
    worker = ["--no-python", *module_command("llmlab.jobs.worker"), str(run.path)]
    over, held = threading.Event(), set[int]()
    threading.Thread(target=_end_what_is_held, args=(run, count, over, held), daemon=True).start()
    try:
        with tempfile.TemporaryDirectory(prefix="llmlab-") as logs:  # torchrun would leave its own behind
            torchrun(parse_args([*where, "--log-dir", logs, *worker]))
    except SignalException:
        return None
    except ChildFailedError as error:
        for rank, failure in error.failures.items():
            with suppress(ValueError, TypeError):  # torch's own message: it was killed, or says nothing
                return failed(rank, count, LabError(**json.loads(failure.message)))
        if found := [rank for rank, failure in error.failures.items() if failure.pid in held]:
            if len(found) == len(error.failures) and run.recorded_status().state == "stopped":
                return None  # as somebody asked rank 0
            return not_answering(found[0], count, "The system held it (SIGSTOP).")
        # Who was killed comes first: the others end by themselves when they notice, or by torchrun's SIGTERM.
        ends = {rank: failure.exitcode for rank, failure in error.failures.items()}
        rank = min(ends, key=lambda rank: (ends[rank] == -signal.SIGTERM, ends[rank]))
        if ends[rank] > 0 and 0 not in ends:  # others gave up
            status = run.recorded_status()
            if status.state == "stopped" and status.heartbeat < error.failures[rank].timestamp + _STOPPED_SECONDS:
                return None  # as somebody asked rank 0, which did not wait for them
            return not_answering(0, count)
        if ends[rank] > 0:
            return LabError(f"Process {rank} of the run's {count} ended with {ends[rank]}.", "", LOST.do)
        name = signal.Signals(-ends[rank]).name
        return LabError(f"Process {rank} of the run's {count} was killed ({name}).", _WHY_KILLED.get(name, ""), LOST.do)
    finally:
        over.set()
    return None


def _end_what_is_held(run: RunFolder, count: int, over: threading.Event, ended: set[int]) -> None:
    """Until `over`: kills the workers of this process that the system holds (SIGSTOP) once another has ended, and adds
    their process ids to `ended`. torchrun's SIGTERM does not reach them, and it would wait 30 seconds for them.
    """
    ranks: list[psutil.Process] = []
    held = 0
    while not over.wait(_LOOK_SECONDS):
        with suppress(psutil.Error):  # one ends at this moment
            if len(ranks) < count:
                ranks = [child for child in psutil.Process().children() if str(run.path) in _command(child)]
                continue
            living = [rank for rank in ranks if rank.is_running()]
            waiting = [rank for rank in living if len(living) < count and process_stopped(rank.pid)]
            held = held + 1 if waiting else 0
            if held > _HELD_LOOKS:
                ended.update(rank.pid for rank in waiting)
                for rank in waiting:
                    rank.kill()


def _command(process: psutil.Process) -> list[str]:
    """Nothing of one that has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def follow_rank_0(run: RunFolder, seconds: float, give_up: Callable[[], None]) -> None:
    """Ends this process, one of those that wait for rank 0's orders, when rank 0 hangs between two of them: no step is
    waited for then, and no connection is closed. torchrun ends rank 0, which `give_up` tells why; where rank 0 cannot
    say so any more, `run_ranks` does.

    It hangs when it has got on with nothing for `seconds` longer than anything took so far (`RunStatus.patience`). A
    pause is none, nor is what it says it does (`RunStatus.doing`): a first save or an answer takes as long as it
    takes. Here, too, it hangs when the system has held it (SIGSTOP) for `seconds`. Looks are counted, and no clock is
    read: all processes may be stopped together, or on machines whose clocks differ.
    """

    def watch() -> None:
        heard, quiet, held = 0.0, 0.0, 0.0
        while True:
            time.sleep(_LOOK_SECONDS)
            status = run.recorded_status()
            held = held + _LOOK_SECONDS if not status.elsewhere and process_stopped(status.pid) else 0.0
            same = status.heartbeat == heard and status.state != "paused" and not status.doing
            quiet = quiet + _LOOK_SECONDS if same else 0.0
            heard = status.heartbeat
            if held > seconds or 0 < status.patience < quiet - seconds:
                give_up()
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def tell_torchrun(error: LabError) -> None:
    """Why this process fails, for the agent, which tells `run_ranks`: it may be the first, and not with the others."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with suppress(OSError):
            said = {"message": json.dumps(error.as_dict()), "timestamp": int(time.time())}
            Path(path).write_text(json.dumps(said), encoding="utf-8")


def started_by_torchrun() -> bool:
    """Whether this process is one of those that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def say_where(run: RunFolder) -> None:
    """To the terminal or log of whoever started torchrun."""
    status = run.recorded_status()
    loss = "" if status.loss is None else f", loss {status.loss:.4f}"
    log(f"{REMARK}{run.id} is {status.state}: {status.doing or f'step {status.step} of {status.steps}{loss}'}")


def say_now_and_then(run: RunFolder) -> None:
    """The same while the run goes on, ever more seldom: each time after a quarter of what has passed, so that no log
    grows with a long run."""

    def say() -> None:
        began = time.monotonic()
        while True:
            time.sleep(max(_SAY_SECONDS, (time.monotonic() - began) / 4))
            say_where(run)

    threading.Thread(target=say, daemon=True).start()


def interface() -> dict[str, str]:
    """By which processes of this machine find each other: variables that torch reads."""
    found = {"USE_LIBUV": "0"} if sys.platform == "win32" else {}  # its torch lacks what the store uses elsewhere
    for name, there in psutil.net_if_addrs().items():
        if any(one.address == _LOOPBACK for one in there):  # the machine's own name may lead nowhere, without a network
            return found | {"GLOO_SOCKET_IFNAME": name}
    return found
