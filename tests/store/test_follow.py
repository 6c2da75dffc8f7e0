"""The follower hands on every event once and in order, however the file arrives."""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
from pathlib import Path

import pytest
from fakes import FakeRun
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.store.events import Event, Started, StepEvent, Warned, to_line
from llmlab.store.run_folder import RunFolder, RunStatus
from llmlab.store.run_log import EventFollower


def _apply(events: list[Event], new: list[Event]) -> None:
    """What a consumer does: a worker that begins voids what came after its step."""
    for event in new:
        if isinstance(event, Started):
            events[:] = [old for old in events if old.step <= event.step]
        events.append(event)


def _drain(follower: EventFollower, events: list[Event], max_bytes: int) -> None:
    while new := follower.poll(max_bytes):
        _apply(events, new)


def test_lines_that_arrive_in_pieces_are_read_once_each(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).start().advance(30)
    data = fake.run.events.read_bytes()
    fake.run.events.write_bytes(b"")
    follower = EventFollower(fake.run)
    seen: list[Event] = []
    for begin in range(0, len(data), 37):
        with fake.run.events.open("ab") as file:
            file.write(data[begin : begin + 37])
        seen += follower.poll()
    assert seen == fake.written
    assert follower.offset == len(data)


def test_a_line_longer_than_a_block_is_read_whole(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).start()
    fake.warn("x" * 5000).advance(3)
    seen: list[Event] = []
    _drain(EventFollower(fake.run), seen, max_bytes=256)
    assert seen == fake.written


def test_damaged_lines_are_passed_over(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).start().advance(2)
    with fake.run.events.open("ab") as file:
        file.write(b'{"event": "step", "time": 1\n\xff\xfe\n{"event": "unheard_of", "time": 1, "step": 2}\n[]\n')
    fake.advance(2)
    seen = EventFollower(fake.run).poll()
    assert seen == fake.written


def test_a_resumed_worker_voids_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).start().advance(20)
    follower = EventFollower(fake.run)
    seen: list[Event] = []
    _drain(follower, seen, 1 << 20)
    fake.resume_from(8).advance(30)
    _drain(follower, seen, 1 << 20)
    assert seen == fake.written
    assert [event.step for event in seen if isinstance(event, StepEvent)] == list(range(1, 39))


def test_what_a_worker_writes_between_two_looks_of_the_follower_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRun(tmp_path).start().advance(20)
    follower = EventFollower(fake.run, fake.run.events.stat().st_size - 200)  # in a line that the worker cuts off
    recorded, looks = EventFollower._recorded_status, itertools.count()

    def looked(follower: EventFollower) -> RunStatus:
        status = recorded(follower)
        if next(looks) == 0:  # the status was read, the events are not
            fake.resume_from(8).advance(30)
        return status

    monkeypatch.setattr(EventFollower, "_recorded_status", looked)
    seen: list[Event] = []
    while new := follower.poll():
        seen += new
    began = max(place for place, event in enumerate(fake.written) if isinstance(event, Started))
    assert seen == fake.written[began:]


def test_the_status_is_read_again_only_after_it_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRun(tmp_path).start().advance(20)
    follower, read, reads = EventFollower(fake.run), RunFolder.recorded_status, itertools.count()

    def counted(run: RunFolder) -> RunStatus:
        next(reads)
        return read(run)

    monkeypatch.setattr(RunFolder, "recorded_status", counted)
    for _ in range(5):
        follower.poll()
    fake.run.write_status(read(fake.run))
    for _ in range(5):
        follower.poll()
    assert next(reads) == 1


def test_a_run_that_is_not_there_yet_has_no_events(tmp_path: Path) -> None:
    assert EventFollower(RunFolder(tmp_path / "later")).poll() == []


# One action: write a piece of what is due, poll with some block size, or die and resume at a share of the steps.
_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 400)),
        st.tuples(st.just("poll"), st.integers(1, 300)),
        st.tuples(st.just("resume"), st.integers(0, 100)),
    ),
    max_size=60,
)


@settings(max_examples=60)
@given(_ACTIONS)
def test_random_writes_polls_and_cuts_lose_and_repeat_nothing(actions: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        worker = _PieceWriter(RunFolder(Path(folder)))
        follower = EventFollower(worker.run)
        seen: list[Event] = []
        for action, amount in actions:
            if action == "write":
                worker.write(amount)
            elif action == "poll":
                _apply(seen, follower.poll(amount))
            else:
                worker.resume(amount)
        worker.finish_line()
        _drain(follower, seen, 1 << 20)
        assert seen == worker.whole_events()


class _PieceWriter:
    """A worker that writes a few bytes at a time, so that a poll or a cut can meet half a line."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._step = self._attempt = 0
        self._lines: list[tuple[Event, bytes]] = []
        self._pending = b""
        run.events.touch()
        self._begin(0)

    def write(self, count: int) -> None:
        while count:
            if not self._pending:
                self._step += 1
                # Long and short lines; a line break inside a message must not look like the end of a line.
                self._queue(Warned(self._step, 1.0, "a\nb\r\u2028" * (self._step % 5)))
            piece, self._pending = self._pending[:count], self._pending[count:]
            count -= len(piece)
            with self.run.events.open("ab") as file:
                file.write(piece)

    def finish_line(self) -> None:
        self.write(len(self._pending))

    def resume(self, share: int) -> None:
        if self._pending:  # killed in the middle of a line
            self._lines.pop()
        step = self._step * share // 100
        self._lines = [pair for pair in self._lines if pair[0].step <= step]
        os.truncate(self.run.events, sum(len(line) for _, line in self._lines))
        self._begin(step)

    def whole_events(self) -> list[Event]:
        return [event for event, _ in self._lines]

    def _begin(self, step: int) -> None:
        self._step = step
        self._attempt += 1
        size = self.run.events.stat().st_size
        self.run.write_status(RunStatus(state="running", attempt=self._attempt, events_start=size))
        self._queue(dataclasses.replace(_STARTED, step=step, attempt=self._attempt))

    def _queue(self, event: Event) -> None:
        self._pending = (to_line(event) + "\n").encode()
        self._lines.append((event, self._pending))


_STARTED = Started(
    step=0,
    time=1.0,
    run="pieces",
    attempt=1,
    steps=10,
    parameters=1,
    vocab_size=2,
    train_tokens=1,
    val_tokens=1,
    tokens_per_step=1,
    uniform_loss=0.7,
    unigram_loss=0.6,
    floor_loss=None,
    device="cpu",
    precision="fp32",
    threads=1,
    peak_flops=1.0,
    tokenizer="char",
    comparable=True,
    active_seconds=0.0,
    pid=1,
)
