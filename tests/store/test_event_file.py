"""Damage to events.jsonl takes what it hit and no other line, wherever a worker goes on from."""

from __future__ import annotations

import errno
import io
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fakes import FakeRun
from hypothesis import example, given, settings
from hypothesis import strategies as st
from preset_settings import resolve_settings

from llmlab.core.processes import process_start
from llmlab.store.event_file import whole_bytes
from llmlab.store.events import Evaluated, Failed, StepEvent, Warned, from_line, to_line
from llmlab.store.recorder import Recorder
from llmlab.store.run_folder import RunFolder, RunStatus

_SAVED = 6  # the checkpoint's step
_LAST = 12


def _lines_of_a_killed_run() -> tuple[list[bytes], int]:
    """Of a run that saved at step 6 and was killed after 12: its lines, and the bytes before its checkpoint's line."""
    often = resolve_settings("baby", overrides={"train.eval_interval": 3, "train.sample_interval": 4})
    with tempfile.TemporaryDirectory() as folder:
        fake = FakeRun(Path(folder), steps=20, settings=often).start().advance(_SAVED)
        before = fake.run.events.stat().st_size
        fake.save_checkpoint().warn("hot").advance(_LAST - _SAVED)
        return fake.run.events.read_bytes().splitlines(keepends=True), before


LINES, SAVED_AT = _lines_of_a_killed_run()
COUNTED = [line for line in LINES if from_line(line).step <= _SAVED]


def _begin(folder: Path, content: bytes, step: int, scan_from: int) -> tuple[RunFolder, int]:
    """What a worker that goes on after `step` makes of such a file; how many lines it says it set aside."""
    run = RunFolder(folder)
    run.events.write_bytes(content)
    recorder = Recorder(run)
    damaged = recorder.begin(step, scan_from)
    recorder.record(Warned(step, 1.0, "goes on"))
    recorder.close()
    assert run.recorded_status().events_start + len(to_line(Warned(step, 1.0, "goes on"))) + 1 == (
        run.events.stat().st_size
    )
    return run, damaged


def _lines(content: bytes) -> list[bytes]:
    """Its lines as events.jsonl has them: only a line feed ends one."""
    return io.BytesIO(content).readlines()


def _hit(line: bytes, kind: str, chance: random.Random) -> bytes:
    """The line, damaged so that it is no event any more; its line break stays."""
    body = bytearray(line[:-1])
    while True:
        at = chance.randrange(len(body))
        match kind:
            case "byte":
                body[at] = chance.randrange(256)
            case "cut":
                del body[at:]
            case "hole":
                del body[at : at + 1 + chance.randrange(20)]
            case "zeros":
                body[at : at + 16] = bytes(len(body[at : at + 16]))
        # A line break inside only makes two damaged lines of it.
        if body and from_line(bytes(body)) is None and b"\n" not in body:
            return bytes(body) + b"\n"
        body = bytearray(line[:-1])


@pytest.mark.slow
@settings(max_examples=100)
@given(
    st.dictionaries(st.integers(0, len(LINES) - 1), st.sampled_from(["byte", "cut", "hole", "zeros"]), max_size=6),
    st.integers(0, 2**32),
    st.booleans(),
)
@example({0: "cut"}, 1, True)
@example({0: "byte"}, 14588, True)  # into a carriage return, which ends no line
@example({len(LINES) - 1: "byte"}, 1, True)
def test_every_line_that_was_not_hit_survives_and_no_step_is_there_twice(
    hits: dict[int, str], seed: int, known_place: bool
) -> None:
    chance = random.Random(seed)
    lines = [_hit(line, hits[number], chance) if number in hits else line for number, line in enumerate(LINES)]
    survivors = [line for number, line in enumerate(LINES) if number not in hits and line in COUNTED]
    with tempfile.TemporaryDirectory() as folder:
        run, damaged = _begin(Path(folder), b"".join(lines), _SAVED, SAVED_AT if known_place else 0)
        kept = _lines(run.events.read_bytes())[:-1]
        assert [line for line in kept if line in COUNTED] == survivors
        assert all(line in COUNTED or line in lines for line in kept)  # damage before the place stays where it is
        steps = [event.step for line in kept if isinstance(event := from_line(line), StepEvent)]
        assert steps == sorted(set(steps))
        aside = run.damaged_events.read_bytes() if damaged else b""
        assert aside.count(b"\n") == damaged
        # What is neither kept nor set aside came after the step, and is void.
        gone = [line for number, line in enumerate(lines) if number in hits and line not in kept and line not in aside]
        assert all(lines.index(line) > len(COUNTED) - 1 for line in gone)


def test_a_failure_after_the_checkpoint_is_void_though_it_names_the_step_that_was_logged_last(tmp_path: Path) -> None:
    later = [Warned(_SAVED + 1, 1.0, "hot"), Failed(_SAVED, 1.0, "It failed.", "", "")]
    run, damaged = _begin(tmp_path, b"".join([*COUNTED, *(to_line(one).encode() + b"\n" for one in later)]), _SAVED, 0)
    assert _lines(run.events.read_bytes())[:-1] == COUNTED
    assert damaged == 0


@pytest.mark.parametrize("where", ["before", "at", "after"])
def test_damage_around_the_checkpoints_place_leaves_every_other_line(where: str, tmp_path: Path) -> None:
    number = b"".join(LINES)[:SAVED_AT].count(b"\n") + {"before": -2, "at": 0, "after": 1}[where]
    lines = list(LINES)
    lines[number] = lines[number][:20] + b"\n"  # shorter: the place that the checkpoint knows is off
    run, damaged = _begin(tmp_path, b"".join(lines), _SAVED, SAVED_AT)
    assert _lines(run.events.read_bytes())[:-1] == [line for line in COUNTED if line != LINES[number]]
    assert damaged == 1
    assert run.damaged_events.read_bytes() == lines[number]


def test_what_is_set_aside_is_added_to_what_was_set_aside_before(tmp_path: Path) -> None:
    for junk in (b"first\n", b"second\n"):
        _begin(tmp_path, LINES[0] + junk + b"".join(LINES[1:]), _SAVED, 0)
    assert RunFolder(tmp_path).damaged_events.read_bytes() == b"first\nsecond\n"


def test_a_line_whose_step_was_damaged_into_another_takes_none_with_it(tmp_path: Path) -> None:
    third = next(line for line in LINES if b'"step": 3,' in line and b'"event": "step"' in line)
    for wrong in (b"95", b"1"):
        liar = third.replace(b'"step": 3,', b'"step": %b,' % wrong)
        content = b"".join(LINES).replace(third, liar)
        for step in (_SAVED, 100):
            run, damaged = _begin(tmp_path, content, step, 0)
            kept = [
                event.step
                for line in run.events.read_bytes().splitlines()
                if isinstance(event := from_line(line), StepEvent)
            ]
            assert kept == [number for number in range(1, min(step, _LAST) + 1) if number != 3]
            assert damaged == 1


def test_an_unfinished_last_line_is_no_damage(tmp_path: Path) -> None:
    run, damaged = _begin(tmp_path, b"".join(COUNTED) + b'{"event": "st', _SAVED, SAVED_AT)
    assert damaged == 0
    assert not run.damaged_events.exists()
    assert run.events.read_bytes().startswith(b"".join(COUNTED) + b'{"event": "warned"')


def test_events_of_a_later_version_are_no_damage(tmp_path: Path) -> None:
    news = b'{"event": "dreamt", "time": 1.0, "step": 2, "sheep": 3}\n'
    run, damaged = _begin(tmp_path, LINES[0] + news + b"".join(LINES[1:]), _SAVED, 0)
    assert damaged == 0
    assert news in run.events.read_bytes()


def test_half_a_line_of_any_length_ends_where_the_line_before_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for whole in (b"", LINES[0]):
        path.write_bytes(whole + b'{"event": "sampled", "text": "' + b"x" * 200_000)
        assert whole_bytes(path) == len(whole)


class _Pipe:
    """os.write that takes a few bytes at a time, and at last no more."""

    def __init__(self, room: int) -> None:
        self._write, self.room = os.write, room

    def __call__(self, file: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self._write(file, bytes(data[: min(7, self.room)]))
        self.room -= taken
        return taken


def _recorder(folder: Path) -> Recorder:
    recorder = Recorder(RunFolder(folder))
    recorder.begin(-1, 0)
    return recorder


def test_an_event_is_written_whole_however_little_the_system_takes_at_a_time(tmp_path: Path) -> None:
    recorder = _recorder(tmp_path)
    events: list[Any] = [Warned(1, 1.0, "hot"), Evaluated(2, 2.0, 1.0, 2.0, True, 0.5)]
    with mock.patch.object(os, "write", _Pipe(10_000)):
        for event in events:
            recorder.record(event)
    assert [from_line(line) for line in RunFolder(tmp_path).events.read_bytes().splitlines()] == events


@pytest.mark.parametrize("room", [0, 5, 20])
def test_a_line_for_which_there_is_no_room_is_taken_back(room: int, tmp_path: Path) -> None:
    recorder = _recorder(tmp_path)
    recorder.record(Warned(1, 1.0, "hot"))
    before = RunFolder(tmp_path).events.read_bytes()
    with mock.patch.object(os, "write", _Pipe(room)), pytest.raises(OSError, match="No space"):
        recorder.record(Warned(2, 2.0, "hotter"))
    assert RunFolder(tmp_path).events.read_bytes() == before


@pytest.mark.parametrize("state", ["queued", "stopped"])
def test_the_start_of_a_worker_that_nobody_announced_is_counted_from_its_process(tmp_path: Path, state: str) -> None:
    fake = FakeRun(tmp_path)
    fake.run.write_status(RunStatus(state=state, heartbeat=time.time() - 1e6))
    recorder = Recorder(fake.run)
    recorder.update(doing="Making the model")
    recorder.close()
    passed = time.time() - process_start(os.getpid())
    assert 0 < recorder.preparation["Starting the worker"] <= passed
