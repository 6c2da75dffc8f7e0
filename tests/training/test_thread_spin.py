"""How long OpenMP's threads spin: the choice by how long they wait for cores, and that only time depends on it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from forks import Fork, wait_until

from llmlab.training.thread_spin import ENVIRONMENT, Spin, _Threads, environment, fixed_by, sleeping, waited_for_cores

STEP = 0.05  # seconds


class SimulatedMachine:
    """A run whose threads wait for cores as long as the load makes them: seconds a second."""

    def __init__(self, load: float | None = 0.03) -> None:
        self.now, self.load, self.short = 0.0, load, False
        self.waited: float | None = None if load is None else 7.0
        self.said: list[str] = []
        self.spin = Spin(self._change, lambda: self.waited, self.said.append, lambda: self.now)

    def train(self, seconds: float, load: float | None = None) -> None:
        self.load = self.load if load is None else load
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            if self.waited is not None and self.load is not None:
                self.waited += STEP * self.load
            self.spin.look()

    def _change(self, short: bool) -> None:
        assert short != self.short
        self.short = short


def test_the_spin_is_short_within_two_seconds_of_a_load_and_long_within_five_of_its_end() -> None:
    machine = SimulatedMachine()
    machine.train(60)
    assert not machine.short
    machine.train(2, load=0.7)
    assert machine.short
    machine.train(60)
    assert machine.short
    machine.train(5, load=0.02)
    assert not machine.short
    long = "Threads spin long: no other process wants the cores."
    assert [machine.said[0], *machine.said[2:]] == [long, long]
    assert machine.said[1].startswith("Threads spin briefly: others want the cores (")


def test_a_load_between_the_two_bounds_changes_nothing() -> None:
    for before in (0.0, 0.5):
        machine = SimulatedMachine(before)
        machine.train(10)
        machine.train(60, load=0.09)
        assert machine.short == (before > 0)
        assert len(machine.said) == 1


def test_pauses_in_another_process_s_work_do_not_make_the_spin_long() -> None:
    machine = SimulatedMachine(0.5)
    for _ in range(20):
        machine.train(1, load=0.5)
        machine.train(2, load=0.0)
    assert len(machine.said) == 1


def test_where_the_system_does_not_tell_the_spin_is_short() -> None:
    machine = SimulatedMachine(None)
    machine.train(60)
    assert machine.short
    assert not machine.spin.changes
    assert machine.said == ["Threads spin briefly: this system does not say whether others want the cores."]


# Prints, for the long spin, the short one and the long one again: how many threads there are, and the losses.
_LOSSES = """
import os, threading, torch
from llmlab.training.thread_spin import _Threads, fixed_by
torch.set_num_threads(2)
print(fixed_by(os.environ))
torch.manual_seed(0)
x, w = torch.randn(300, 257), torch.randn(257, 301)
spin = _Threads()
for short in (False, True, False):
    spin.use(short)
    print(threading.active_count(), [float(torch.nn.functional.gelu(x @ w).square().mean()) for _ in range(3)])
"""


@pytest.mark.slow
def test_the_spin_changes_no_bit_of_what_is_computed() -> None:
    started_with = os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": "2"}
    found = subprocess.run(
        [sys.executable, "-c", _LOSSES], env=started_with, capture_output=True, text=True, check=True
    )
    fixed, *lines = found.stdout.splitlines()
    counts, losses = zip(*(line.split(" ", 1) for line in lines), strict=True)
    assert len(set(losses)) == 1
    assert fixed in ("", "this OpenMP is not GNU's")
    if not fixed:
        assert int(counts[1]) > int(counts[0]) == int(counts[2]) == 1


def test_what_the_environment_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert environment().items() >= ENVIRONMENT.items()
    assert not Spin().changes  # this process was started without
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert environment() == {}
    assert not Spin().changes


def test_another_openmp_than_gnus_is_not_told_to_spin_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `active` means to LLVM's: KMP_BLOCKTIME is infinite where nothing sets it."""
    for name in (*ENVIRONMENT, "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    for system in ("darwin", "win32"):  # whose torch never has GNU's
        monkeypatch.setattr(sys, "platform", system)
        assert environment() == {}
    monkeypatch.setattr(sys, "platform", "linux")
    assert environment()["KMP_BLOCKTIME"] == "200"
    monkeypatch.setenv("KMP_BLOCKTIME", "1")
    assert environment()["KMP_BLOCKTIME"] == "1"


def test_more_threads_than_cores_leave_nothing_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr("llmlab.training.thread_spin.available_cores", lambda: 2)
    assert fixed_by(ENVIRONMENT) == "there are more threads than cores"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_threads_beyond_the_cores_are_there_on_a_large_machine_and_end_with_the_short_spin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/task"))

    def use() -> int:
        torch.set_num_threads(60)
        before, threads = count(), _Threads()
        threads.use(True)
        during = count()
        threads.use(False)
        wait_until(lambda: count() == before)
        return int(during - before <= 128)

    monkeypatch.setattr("llmlab.training.thread_spin.available_cores", lambda: 128)
    assert Fork(use).wait() == 0


def test_a_thread_that_finds_no_memory_does_not_keep_the_training_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise RuntimeError("not enough memory")

    said: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: said.append(str(args.exc_value)))
    monkeypatch.setattr(torch, "zeros", none_left)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    threads = _Threads()
    user = threading.Thread(target=threads.use, args=(True,), daemon=True)
    user.start()
    user.join(30)
    assert not user.is_alive()
    threads.use(False)
    assert said


def test_a_system_that_gives_no_thread_does_not_end_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(threading.Thread, "start", none_left)
    threads = _Threads()
    threads.use(True)
    assert not [thread for thread in threading.enumerate() if thread in threads._threads]
    threads.use(False)
    assert threads._threads == []


def test_threads_that_sleep_are_of_this_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    before = environment()
    with sleeping():
        assert os.environ.get("OMP_WAIT_POLICY") == ("passive" if before else None)
    assert environment() == before  # what trains chooses for itself
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    with sleeping():
        assert os.environ["OMP_WAIT_POLICY"] == "active"  # somebody chose it


def test_a_kernel_that_counts_nothing_does_not_say_that_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: "0 0 0\n")
    assert waited_for_cores() is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_time_that_threads_wait_for_cores_is_counted_in_seconds() -> None:
    before = waited_for_cores()
    assert before is None or 0 <= before < 3600
