"""Opening a long run: a week of training leaves 5 million lines and more than a gigabyte of events.jsonl.

Every line is read (by pyarrow, in blocks, so memory stays bounded), but only some 20,000 steps are kept: the
smallest and the largest values of each stretch, so that no spike vanishes. The window has this done by a process
of its own: its interpreter stays free, and the memory goes back when the process ends.
"""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np

from llmlab.core.errors import LabError, explained
from llmlab.core.paths import module_command
from llmlab.store.columns import STEP_COLUMNS, STEP_FIELDS, downsample, step_rows, with_means
from llmlab.store.events import Event, Started, StepEvent, from_line, to_line
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import STEP_PREFIX, readable, whole_lines

# Shorter files are simply followed from their start: that takes about a second.
LONG_FILE_BYTES = 20 << 20
MAX_ROWS = 20_000
_BLOCK_BYTES = 16 << 20
_STEP_PREFIX = np.frombuffer(STEP_PREFIX, dtype=np.uint8)


@dataclass(frozen=True)
class Overview:
    """A long run at a glance.

    steps: STEP_COLUMNS as [column, row], at most MAX_ROWS rows. events: all others, in order. offset: byte of
    events.jsonl from which to follow. attempt: the worker that was writing when reading began; when another has
    begun since, the overview may hold steps that were cut, and is to be read anew.
    """

    steps: np.ndarray
    events: list[Event]
    offset: int
    attempt: int


def is_long(run: RunFolder) -> bool:
    """Whether a run's events take an overview to open."""
    try:
        return run.events.stat().st_size > LONG_FILE_BYTES
    except OSError:
        return False


def read_overview(run: RunFolder, max_rows: int = MAX_ROWS) -> Overview:
    """Reads all of events.jsonl in this process. Raises LabError when the file cannot be read."""
    gathered = _Gathered(max_rows)
    attempt = run.recorded_status().attempt
    offset = 0
    with explained(f"{run.events} cannot be read."):
        end = run.events.stat().st_size  # what a live worker adds meanwhile is followed afterwards
        with run.events.open("rb") as file:
            while offset < end and (block := whole_lines(file, offset, min(_BLOCK_BYTES, end - offset))):
                gathered.add(block)
                offset += len(block)
    return Overview(gathered.steps(), gathered.events, offset, attempt)


class OverviewReader:
    """`read_overview` in a process of its own. Its owner looks now and then whether it is done, then closes it."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._output, self._errors = TemporaryFile(), TemporaryFile()  # noqa: SIM115 - live as long as the object
        command = [*module_command("llmlab.store.overview"), str(run.path)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._errors)

    @property
    def done(self) -> bool:
        return self._process.poll() is not None

    def result(self) -> Overview:
        """What it read, once it is done. LabError when it could not."""
        if self._process.returncode != 0:
            self._errors.seek(0)
            why = self._errors.read().decode(errors="replace").strip().splitlines()
            raise LabError(
                f"The events of {self._run.id} cannot be read.", why[-1] if why else "The reading process ended."
            )
        self._output.seek(0)
        return _unpack(self._output)

    def close(self) -> None:
        """Ends the process if it still reads."""
        self._process.kill()
        self._process.wait()
        self._output.close()
        self._errors.close()


class _Gathered:
    """Steps and other events so far. Steps are downsampled to buckets, which double whenever they are too many."""

    def __init__(self, max_rows: int) -> None:
        self.events: list[Event] = []
        self._max_rows = max_rows
        self._bucket = 16  # of the file's rows; see downsample(): at most eight of a bucket stay
        self._downsampled: list[np.ndarray] = []  # [column, row] each

    def add(self, block: bytes) -> None:
        """Takes whole lines."""
        array = np.frombuffer(block, dtype=np.uint8)
        ends = np.flatnonzero(array == ord("\n")) + 1
        starts = np.concatenate([[0], ends[:-1]])
        fits = ends - starts >= len(_STEP_PREFIX)
        likely = np.zeros(len(starts), dtype=bool)
        likely[fits] = (array[starts[fits, None] + np.arange(len(_STEP_PREFIX))] == _STEP_PREFIX).all(axis=1)
        done = 0
        # Lines of other kinds are few: each is read by itself, the steps between them together.
        steps: list[bytes] = []
        for index in np.flatnonzero(~likely):
            start, end = int(starts[index]), int(ends[index])
            steps.append(block[done:start])
            done = end
            event = from_line(block[start:end])
            if isinstance(event, Started):
                self._add_steps(b"".join(steps))
                steps = []
                self._cut(event)
            if isinstance(event, StepEvent):
                steps.append(block[start:end])
            elif event is not None:
                self.events.append(event)
        steps.append(block[done:])
        self._add_steps(b"".join(steps))

    def steps(self) -> np.ndarray:
        """All steps, downsampled to at most `max_rows`."""
        return np.concatenate([np.empty((len(STEP_COLUMNS), 0)), *self._downsampled], axis=1)

    def _add_steps(self, lines: bytes) -> None:
        if not lines:
            return
        self._downsampled.append(downsample(_parse(lines), self._bucket))
        while sum(part.shape[1] for part in self._downsampled) > self._max_rows:
            self._bucket *= 2
            # Downsampling what was downsampled keeps the extremes: the largest of the largest is the largest.
            self._downsampled = [downsample(np.concatenate(self._downsampled, axis=1), 16)]

    def _cut(self, began: Started) -> None:
        column = STEP_COLUMNS.index("step")
        self._downsampled = [part[:, began.keeps_step(part[column])] for part in self._downsampled]
        self.events = [*filter(began.keeps, self.events)]


def _parse(lines: bytes) -> np.ndarray:
    """STEP_COLUMNS, [column, row], of whole `step` lines. Damaged ones are left out."""
    import pyarrow
    from pyarrow import json as arrow_json

    schema = pyarrow.schema([(name, pyarrow.float64()) for name in STEP_FIELDS])
    parse = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = arrow_json.read_json(
            pyarrow.BufferReader(lines), read_options=arrow_json.ReadOptions(block_size=4 << 20), parse_options=parse
        )
        columns = np.array([table.column(name).to_numpy() for name in STEP_FIELDS], dtype=np.float64)
        if columns.shape[1] == lines.count(b"\n") and _plausible(columns):
            return with_means(columns)
    except pyarrow.ArrowInvalid:
        pass
    # A damaged line among them, or a loss that was not finite: slower, one by one.
    return step_rows(event for event in readable(lines.splitlines()) if isinstance(event, StepEvent)).T


def _plausible(columns: np.ndarray) -> bool:
    """Whether `from_line` would take every row for an event: pyarrow is content with any number, or none."""
    whole = columns[[STEP_FIELDS.index(name) for name in ("step", "tokens", "memory_bytes")]]
    times = columns[[STEP_FIELDS.index(name) for name in ("step", "time")]]
    finite = bool(np.isfinite(columns).all())
    return finite and bool((whole == np.floor(whole)).all()) and bool((times >= 0).all())


def _pack(overview: Overview) -> bytes:
    buffer = io.BytesIO()
    lines = "\n".join(to_line(event) for event in overview.events).encode()
    position = np.array([overview.offset, overview.attempt], dtype=np.int64)
    np.savez(buffer, steps=overview.steps, events=np.frombuffer(lines, dtype=np.uint8), position=position)
    return buffer.getvalue()


def _unpack(packed: IO[bytes]) -> Overview:
    with np.load(packed, allow_pickle=False) as arrays:
        lines = arrays["events"].tobytes().splitlines()
        offset, attempt = (int(number) for number in arrays["position"])
        return Overview(arrays["steps"], list(readable(lines)), offset, attempt)


def main() -> None:
    """`python -m llmlab.store.overview RUN_FOLDER`: the overview, packed, on stdout."""
    try:
        sys.stdout.buffer.write(_pack(read_overview(RunFolder(Path(sys.argv[1])))))
    except LabError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
