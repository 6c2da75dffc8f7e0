"""How long OpenMP's threads spin: the choice by how long they wait for cores, and that only time depends on it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llmlab.training.spin import ENVIRONMENT, Spin, environment, waited_for_cores

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
    assert machine.said[1].startswith("Threads spin shortly: others want the cores (")


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
    assert machine.said == ["Threads spin shortly: this system does not say whether others want the cores."]


# Prints, for the long spin, the short one and the long one again: how many threads there are, and the losses.
_LOSSES = """
import os, threading, torch
from llmlab.training.spin import _Threads, fixed_by
torch.set_num_threads(2)
print(fixed_by(os.environ))
torch.manual_seed(0)
x, w = torch.randn(300, 257), torch.randn(257, 301)
spin = _Threads()
for short in (False, True, False):
    spin.use(short)
    print(threading.active_count(), [float(torch.nn.functional.gelu(x @ w).square().mean()) for _ in range(3)])
"""


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
    assert environment() == ENVIRONMENT
    assert not Spin().changes  # this process was started without
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert environment() == {}
    assert not Spin().changes


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_time_that_threads_wait_for_cores_is_counted_in_seconds() -> None:
    before = waited_for_cores()
    assert before is None or 0 <= before < 3600
