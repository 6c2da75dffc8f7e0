"""How long OpenMP's threads spin before they sleep: long while they have their cores to themselves, else briefly.

The threads of one matrix product wait for each other hundreds of times a step. A thread that spins goes on at once
when the others are done; one that sleeps has to be woken. But where another process wants the core, a spinning thread
keeps it from the very thread that it waits for. So a long spin is best on a quiet machine and worst on a busy one, and
no fixed one is right. The spin decides how long a step takes, and nothing of what it computes.

GNU's OpenMP (libgomp) reads its two spins once, when a process begins (`ENVIRONMENT`): the long one holds while it
manages no more threads than there are cores, the short one beyond. So a few threads that do nothing, and count,
change from one to the other while a run goes on. Nothing here brings torch before a worker asks.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from llmlab.core.processes import available_cores
from llmlab.store.worker_folder import REMARK

# What a process that trains is started with. libgomp's own spin is 300,000 rounds; from 10,000 on a step on a quiet
# machine is as fast. OMP_WAIT_POLICY sets the short spin: 1,000 rounds with `active`, else 100.
_POLICY = "OMP_WAIT_POLICY"
ENVIRONMENT = {"GOMP_SPINCOUNT": "10000", _POLICY: "active"}
# In LLVM's and Intel's OpenMP, which reads it too, `active` means to spin for ever, unless this says how long: the
# milliseconds that they have by themselves.
_OF_OTHERS = {"KMP_BLOCKTIME": "200"}
# Numbers that a thread takes of a tensor at least, where torch divides one (at::internal::GRAIN_SIZE).
_GRAIN = 32_768

_LOOK_SECONDS = 1.0
# Seconds a second that threads which could run had no core, all threads together. Beyond the first, steps of the
# smallest preset on two cores were 5 to 90 % faster with the short spin; below the second, 3 to 7 % with the long one.
_BUSY, _QUIET = 0.11, 0.075
_QUIET_LOOKS = 3  # in a row, before the spin is long again: what others do comes in bursts


class Spin:
    """Looks once a second how long threads wait for a core, and chooses.

    short: what holds now. changes: whether this process can choose (`fixed_by`).
    """

    def __init__(
        self,
        change: Callable[[bool], None] | None = None,
        waited: Callable[[], float | None] | None = None,
        tell: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """change: makes the spin short (True) or long; by default the real one. waited: see `waited_for_cores`."""
        self.changes = change is not None or not fixed_by(os.environ)
        self.short = False
        self._change, self._waited = change or _Threads().use, waited or waited_for_cores
        self._tell, self._clock = tell or _log, clock
        self._told = False
        self._quiet = 0  # looks in a row
        self._begin()

    def look(self) -> None:
        """To be called after each step."""
        seconds = self._clock() - self._since
        if not self.changes or seconds < _LOOK_SECONDS:
            return
        waited = self._waited()
        if waited is None or self._before is None:
            self.changes = False
            self._use(True, "this system does not say whether others want the cores")
            return
        share = (waited - self._before) / seconds
        self._quiet = self._quiet + 1 if share < _QUIET else 0
        short = self._quiet < _QUIET_LOOKS if self.short else share > _BUSY
        others = f"others want the cores (threads wait {share:.2f} s for one in a second)"
        self._use(short, others if short else "no other process wants the cores")
        self._begin()

    def _begin(self) -> None:
        self._since, self._before = self._clock(), self._waited() if self.changes else None

    def _use(self, short: bool, why: str) -> None:
        if short != self.short or not self._told:
            self._told = True
            self._tell(f"Threads spin {'briefly' if short else 'long'}: {why}.")
        if short != self.short:
            self._change(short)
            self.short = short


def environment() -> Mapping[str, str]:
    """What to start a process that trains with; nothing where the environment has chosen a spin, or on systems whose
    torch comes with another OpenMP than GNU's."""
    if sys.platform != "linux" or ENVIRONMENT.keys() & os.environ.keys():
        return {}
    return _OF_OTHERS | {name: os.environ[name] for name in _OF_OTHERS if name in os.environ} | ENVIRONMENT


@contextlib.contextmanager
def sleeping() -> Iterator[None]:
    """To import torch in, the first time: the threads of this process then never spin, for one that computes now and
    then beside others that train. What is started from it chooses for itself.

    Measured with 2 threads on two cores, on which seven other processes worked: 11 s in place of 84.
    """
    if environment():
        os.environ[_POLICY] = "passive"
        try:
            yield
        finally:
            del os.environ[_POLICY]
    else:
        yield


def fixed_by(started_with: Mapping[str, str]) -> str:
    """Why the spin of a process that starts so stays as it is; empty where it can be chosen."""
    import torch

    if torch.get_num_threads() == 1:
        return "there is only one thread"
    if torch.get_num_threads() > available_cores():  # which libgomp takes for a busy machine
        return "there are more threads than cores"
    if sys.platform != "linux" or "libgomp" not in _libraries():
        return "this OpenMP is not GNU's"
    ours = ENVIRONMENT.items() <= started_with.items()
    return "" if ours else f"the environment decides it ({' or '.join(ENVIRONMENT)})"


def waited_for_cores() -> float | None:
    """Seconds that threads of this process could run and had no core, all together; None where Linux does not tell.

    Source: /proc/PID/task/*/schedstat (Documentation/scheduler/sched-stats.rst): time on the processor, time waiting
    for it, in nanoseconds.
    """
    ran = total = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        try:
            on, waiting, _ = map(int, file.read_text().split())
        except (OSError, ValueError):  # the thread has ended
            continue
        ran, total = ran + on, total + waiting
    return total / 1e9 if ran else None  # a kernel that does not count writes zeros


def _log(text: str) -> None:
    """To worker.log, as far as the disk allows."""
    with contextlib.suppress(OSError):
        print(f"{REMARK}{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _libraries() -> str:
    try:
        return Path("/proc/self/maps").read_text()
    except OSError:
        return ""


class _Threads:
    """Threads beyond the number of cores, while they are wanted."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []

    def use(self, short: bool) -> None:
        """Makes them, or ends them."""
        import torch

        if not short:
            self._end.set()
            for thread in self._threads:
                thread.join()
            self._threads = []
            return
        self._end = threading.Event()
        # Each thread that computes brings threads - 1 more of its own. Those of the training itself do not count here:
        # how many it has depends on how large its tensors are.
        for _ in range(math.ceil(available_cores() / (torch.get_num_threads() - 1))):
            there = threading.Event()
            thread = threading.Thread(target=self._compute_once, args=(there,), daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system gives no more threads, and the training goes on without
                return
            there.wait()
            self._threads.append(thread)

    def _compute_once(self, there: threading.Event) -> None:
        import torch

        end = self._end
        try:
            torch.zeros(_GRAIN * torch.get_num_threads(), dtype=torch.uint8).add_(1)  # a part for every thread
        finally:
            there.set()
        end.wait()
