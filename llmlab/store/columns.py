"""A run's step events as columns of numbers; long runs are downsampled without losing a spike. No Qt, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from operator import attrgetter

import numpy as np

from llmlab.store.events import StepEvent

STEP_FIELDS = tuple(field.name for field in fields(StepEvent) if field.name != "eta_seconds")
# A row also stands for the steps between the row before and itself: the means of their losses and gradient norms,
# and how many of them were finite. Smoothing uses these, so that it stays right where rows were downsampled.
MEAN_FIELDS = ("loss_mean", "loss_count", "grad_norm_mean", "grad_norm_count")
STEP_COLUMNS = STEP_FIELDS + MEAN_FIELDS
EVALUATION_COLUMNS = ("step", "time", "train_loss", "val_loss", "best")

# The columns whose smallest and largest value in every bucket survive downsampling.
EXTREMES = ("loss", "grad_norm", "tokens_per_second")


class Columns:
    """Float64 columns of equal length that grow in place. `columns["loss"]` is a read-only view of what is there.

    A view stays valid until the next change, and is meant to be taken anew for each use.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._index = {name: i for i, name in enumerate(self.names)}
        self._values = np.empty((len(self.names), 1024))
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> np.ndarray:
        view = self._values[self._index[name], : self._length]
        view.flags.writeable = False
        return view

    @property
    def values(self) -> np.ndarray:
        """All columns, [column, row], a read-only view."""
        view = self._values[:, : self._length]
        view.flags.writeable = False
        return view

    def append(self, rows: np.ndarray) -> None:
        """Adds rows, [row, column]."""
        needed = self._length + len(rows)
        if needed > self._values.shape[1]:
            grown = np.empty((len(self.names), max(needed, self._values.shape[1] * 3 // 2)))
            grown[:, : self._length] = self._values[:, : self._length]
            self._values = grown
        self._values[:, self._length : needed] = rows.T
        self._length = needed

    def truncate(self, length: int) -> None:
        """Drops all rows from `length` on."""
        self._length = min(self._length, length)

    def replace_front(self, count: int, columns: np.ndarray) -> None:
        """Puts `columns`, [column, row], in the place of the first `count` rows."""
        kept = self._values[:, count : self._length]
        joined = np.concatenate([columns, kept], axis=1)
        self._length = joined.shape[1]
        self._values = joined


def step_rows(events: Iterable[StepEvent]) -> np.ndarray:
    """One row a step event, [row, column] in the order of STEP_COLUMNS."""
    read = attrgetter(*STEP_FIELDS)
    rows = [read(event) for event in events]
    return with_means(np.array(rows, dtype=np.float64).reshape(len(rows), len(STEP_FIELDS)).T).T


def with_means(columns: np.ndarray) -> np.ndarray:
    """STEP_FIELDS columns, [column, row], completed to STEP_COLUMNS: each row stands for itself alone."""
    columns = np.where(np.isfinite(columns), columns, np.nan)
    means = []
    for name in ("loss", "grad_norm"):
        values = columns[STEP_FIELDS.index(name)]
        finite = np.isfinite(values)
        means += [np.where(finite, values, 0.0), finite.astype(np.float64)]
    return np.concatenate([columns, np.array(means).reshape(len(MEAN_FIELDS), columns.shape[1])])


def downsample(columns: np.ndarray, bucket: int) -> np.ndarray:
    """Fewer rows of STEP_COLUMNS, [column, row]: of every `bucket` rows those with the smallest or largest value.

    At most eight rows of a bucket stay: the extremes of each column in EXTREMES, the first that is not a number
    (so that a gap stays a gap), and the bucket's last. The last carries on what the dropped rows after the other
    kept ones add to the means, so no step's loss leaves the averages.
    """
    rows = columns.shape[1]
    if rows == 0:
        return columns
    starts = np.arange(0, rows, bucket)
    padded = np.full((len(starts), bucket), np.nan)
    flat = padded.reshape(-1)
    keep = np.zeros(len(starts) * bucket, dtype=bool)
    for name in EXTREMES:
        flat[:rows] = columns[STEP_COLUMNS.index(name)]
        missing = np.isnan(padded)
        keep[starts + np.where(missing, np.inf, padded).argmin(axis=1)] = True
        keep[starts + np.where(missing, -np.inf, padded).argmax(axis=1)] = True
        if name == "loss":
            gaps = starts + missing.argmax(axis=1)
            keep[gaps[missing.any(axis=1)]] = True
    keep = keep[:rows]
    keep[starts[1:] - 1] = True
    keep[0] = keep[-1] = True
    kept = np.flatnonzero(keep)
    downsampled = columns[:, kept]
    # Each kept row stands for the rows after the kept one before it, up to itself.
    first = np.concatenate([[0], kept[:-1] + 1])
    for name in ("loss", "grad_norm"):
        mean, count = STEP_COLUMNS.index(f"{name}_mean"), STEP_COLUMNS.index(f"{name}_count")
        counts = np.add.reduceat(columns[count], first)
        sums = np.add.reduceat(columns[mean] * columns[count], first)
        downsampled[count] = counts
        downsampled[mean] = sums / np.maximum(counts, 1.0)
    return downsampled
