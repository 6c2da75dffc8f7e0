"""The overview of a long run says what reading every line would say, only shorter."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeRun
from forks import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlab.core.errors import LabError
from llmlab.store import overview as overview_module
from llmlab.store.columns import STEP_COLUMNS, STEP_FIELDS, Columns, downsample, step_rows, with_means
from llmlab.store.events import Started, StepEvent, Warned, from_line
from llmlab.store.overview import Overview, OverviewReader, read_overview
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import EventFollower

LOSSES = st.one_of(st.floats(-1e300, 1e300), st.sampled_from([math.nan, math.inf, -math.inf]))
SPIKES = {1234: 40.0, 4321: 0.01, 5999: 25.0}


def read_apart(run: RunFolder) -> Overview:
    with closing(OverviewReader(run)) as reader:
        wait_until(lambda: reader.done)
        return reader.result()


@pytest.fixture
def long_run(tmp_path: Path) -> FakeRun:
    fake = FakeRun(tmp_path, steps=6000).start()
    fake.write_lines(4000, eval_every=500, spikes=SPIKES)
    fake.warn("half way").write_lines(2000, eval_every=500, spikes=SPIKES)
    return fake


def _column(overview: Overview, name: str) -> np.ndarray:
    return overview.steps[STEP_COLUMNS.index(name)]


def _all_steps(run: RunFolder) -> np.ndarray:
    """Brute force: every line by itself. [column, row]"""
    events = [from_line(line) for line in run.events.read_bytes().splitlines()]
    return step_rows(event for event in events if isinstance(event, StepEvent)).T


def test_every_kept_row_is_a_row_of_the_file(long_run: FakeRun) -> None:
    overview = read_overview(long_run.run)
    every = _all_steps(long_run.run)
    kept = np.isin(every[0], overview.steps[0])
    # Every kept row is a row of the file, unchanged.
    fields = len(STEP_FIELDS)
    assert np.array_equal(overview.steps[:fields], every[:fields, kept])
    assert overview.offset == long_run.run.events.stat().st_size


@pytest.mark.parametrize("max_rows", [200, 1000, 20_000])
def test_spikes_survive(long_run: FakeRun, max_rows: int) -> None:
    overview = read_overview(long_run.run, max_rows)
    every = _all_steps(long_run.run)
    assert overview.steps.shape[1] <= max_rows
    losses = dict(zip(_column(overview, "step"), _column(overview, "loss"), strict=True))
    for step, loss in SPIKES.items():
        assert losses[step] == loss
    for name in ("loss", "grad_norm", "tokens_per_second"):
        column = every[STEP_COLUMNS.index(name)]
        assert _column(overview, name).max() == column.max()
        assert _column(overview, name).min() == column.min()
    assert _column(overview, "step")[0] == 1
    assert _column(overview, "step")[-1] == 6000


def test_averages_count_every_step(long_run: FakeRun) -> None:
    overview = read_overview(long_run.run, 200)
    every = _all_steps(long_run.run)
    counts, means = _column(overview, "loss_count"), _column(overview, "loss_mean")
    assert counts.sum() == 6000
    assert (counts * means).sum() / 6000 == pytest.approx(every[STEP_COLUMNS.index("loss")].mean())
    # Each row stands for the steps since the row before.
    assert np.array_equal(np.cumsum(counts), _column(overview, "step"))


def test_all_other_events_are_kept_in_order(long_run: FakeRun) -> None:
    overview = read_overview(long_run.run, 200)
    events = [from_line(line) for line in long_run.run.events.read_bytes().splitlines()]
    assert overview.events == [event for event in events if event is not None and not isinstance(event, StepEvent)]
    assert any(isinstance(event, Warned) for event in overview.events)


def test_blocks_cut_anywhere_give_the_same(long_run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmlab.store.overview._BLOCK_BYTES", 5000)
    small = read_overview(long_run.run, 2000)
    assert _column(small, "loss_count").sum() == 6000
    assert _column(small, "loss").max() == 40.0
    assert len(small.events) == len(read_overview(long_run.run).events)


def test_a_process_of_its_own_gives_the_same(long_run: FakeRun) -> None:
    here, apart = read_overview(long_run.run), read_apart(long_run.run)
    assert np.array_equal(here.steps, apart.steps, equal_nan=True)
    assert (here.events, here.offset, here.attempt) == (apart.events, apart.offset, apart.attempt)


def test_what_comes_after_the_overview_is_followed_from_its_end(long_run: FakeRun) -> None:
    with long_run.run.events.open("ab") as file:
        file.write(b'{"event": "step", "time": 17')  # the worker is in the middle of a line
    overview = read_overview(long_run.run)
    with long_run.run.events.open("ab") as file:
        file.write(b'00.0, "step": 6001, "damaged": \n')
    before = len(long_run.written)
    long_run.advance(3, evaluate=False)
    assert EventFollower(long_run.run, overview.offset).poll() == long_run.written[before:]


def test_what_a_worker_adds_while_the_overview_is_read_is_followed_afterwards(
    long_run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, end = len(long_run.written), long_run.run.events.stat().st_size
    plain = overview_module._Gathered.add

    def add(self: overview_module._Gathered, block: bytes) -> None:
        plain(self, block)
        long_run.advance(2, evaluate=False)

    monkeypatch.setattr(overview_module._Gathered, "add", add)
    overview = read_overview(long_run.run)
    assert overview.offset == end
    assert EventFollower(long_run.run, overview.offset).poll() == long_run.written[before:]


def test_damaged_and_foreign_lines_are_passed_over(long_run: FakeRun) -> None:
    with long_run.run.events.open("ab") as file:
        file.write(b'{"event": "step", "time": 1.0, "st\n\n\xff\xff\n{"event": "step", "time": "late", "step": 7}\n')
        file.write(b'{"time": 9.0, "event": "step"}\n{"event": "unheard_of"}\n')
    before = read_overview(long_run.run)
    long_run.write_lines(10)
    after = read_overview(long_run.run)
    assert _column(before, "loss_count").sum() == 6000
    assert _column(after, "loss_count").sum() == 6010


def test_steps_that_a_later_worker_voided_are_left_out(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).start().advance(300)
    started = fake.written[0]
    assert isinstance(started, Started)
    # A worker that began at step 100 without cutting the file: its `started` alone says what is void.
    fake.step = 100
    fake.append(Started(**{**vars(started), "step": 100, "attempt": 2}))
    fake.advance(50)
    steps = _column(read_overview(fake.run), "step")
    assert steps[-1] == 150
    assert np.all(np.diff(steps) > 0)


def test_values_that_are_not_finite_are_gaps_that_stay(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).start()
    fake.write_lines(500)
    broken = fake.step_event(501)
    broken.loss = math.nan
    fake.append(broken)
    fake.step = 501
    fake.write_lines(500)
    overview = read_overview(fake.run, 100)
    gaps = np.isnan(_column(overview, "loss"))
    assert _column(overview, "step")[gaps].tolist() == [501]
    assert _column(overview, "loss_count").sum() == 1000


def test_a_missing_file_is_an_error_in_words(tmp_path: Path) -> None:
    for read in (read_overview, read_apart):
        with pytest.raises(LabError, match="cannot be read"):
            read(RunFolder(tmp_path / "nowhere"))


@pytest.mark.slow
def test_a_process_that_still_reads_ends_when_it_is_closed(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, steps=100_000).start().write_lines(100_000)
    reader = OverviewReader(fake.run)
    reader.close()
    assert reader.done


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(LOSSES, min_size=1, max_size=12) | st.lists(LOSSES, min_size=60, max_size=200), st.integers(9, 40))
def test_thinning_keeps_extremes_ends_and_counts(losses: list[float], bucket: int) -> None:
    fields = np.zeros((len(STEP_FIELDS), len(losses)))
    fields[STEP_FIELDS.index("step")] = np.arange(len(losses))
    fields[STEP_FIELDS.index("loss")] = losses
    rows = with_means(fields)
    loss, count = STEP_COLUMNS.index("loss"), STEP_COLUMNS.index("loss_count")
    once = downsample(rows, bucket)
    assert {*range(bucket - 1, len(losses), bucket), len(losses) - 1} <= {*once[0].astype(int)}  # each bucket's last
    downsampled = downsample(once, bucket)
    finite = rows[loss][np.isfinite(rows[loss])]
    kept = downsampled[loss][np.isfinite(downsampled[loss])]
    if len(finite):
        assert (kept.min(), kept.max()) == (finite.min(), finite.max())
    assert downsampled[count].sum() == len(finite)
    assert (downsampled[0, 0], downsampled[0, -1]) == (0, len(losses) - 1)
    assert np.all(np.diff(downsampled[0]) > 0)


def test_columns_grow_and_are_cut() -> None:
    columns = Columns(("a", "b"))
    for start in range(0, 5000, 50):
        block = np.arange(start, start + 50, dtype=float)
        columns.append(np.stack([block, -block], axis=1))
    assert np.array_equal(columns["b"], -np.arange(5000.0))
    columns.truncate(10)
    assert len(columns["a"]) == len(columns) == 10
    with pytest.raises(ValueError, match="read-only"):
        columns["a"][0] = 1.0


# What a line may become that is still JSON, or looks like it; `from_line` refuses all of them.
_NEARLY = (
    lambda line: line.replace(b'"loss"', b'"lozs"'),
    lambda line: line.replace(b'"step": ', b'"step": -'),
    lambda line: line.replace(b'"step": ', b'"step": 0.'),
    lambda line: line.replace(b'"step": ', b'"step": null, "stop": '),
    lambda line: line.replace(b'"time": ', b'"time": -'),
    lambda line: line.replace(b'"tokens": ', b'"tokens": 0.'),
    lambda line: line.replace(b"\n", b" ") + line,
    lambda line: line[: len(line) // 2] + b"\n",
    lambda line: b"\n",
)


@pytest.mark.slow
@pytest.mark.parametrize("damage", _NEARLY)
def test_the_overview_and_the_follower_take_the_same_lines_for_damaged(damage: Any, long_run: FakeRun) -> None:
    lines = long_run.run.events.read_bytes().splitlines(keepends=True)
    hit = [number for number, line in enumerate(lines) if b'"event": "step"' in line][70:4000:500]
    for number in hit:
        lines[number] = damage(lines[number])
    long_run.run.events.write_bytes(b"".join(lines))
    every = _all_steps(long_run.run)
    overview = read_overview(long_run.run)
    assert every.shape[1] == 6000 - len(hit)
    kept, fields = np.isin(every[0], overview.steps[0]), len(STEP_FIELDS)
    assert np.array_equal(overview.steps[:fields], every[:fields, kept])
    # Each row stands for the steps since the row before.
    assert np.array_equal(np.cumsum(_column(overview, "loss_count")), np.flatnonzero(kept) + 1)
