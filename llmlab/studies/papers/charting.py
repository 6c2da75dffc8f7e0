"""Charts and tables of verdicts from what papers measure: lines with bands, levels, columns of cells. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from llmlab.core.charts import DASHED, LINE, Series, Table
from llmlab.studies.papers.statistics import bootstrap_interval

Array = np.ndarray


def numbered(count: int) -> list[float]:
    """x of the first `count` layers or bars: 0, 1, 2, ..."""
    return [float(number) for number in range(count)]


def level(name: str, y: float, x: Sequence[float]) -> Series:
    """A dashed line at one height."""
    return Series(name, list(x), [float(y)] * len(x), DASHED)


def interval_band(name: str, x: Sequence[float], rows: Array, kind: str = LINE, *, as_logs: bool = False) -> Series:
    """Means of rows [N, X] with their 95 % intervals over N samples; of logarithms, what they are the logarithms of."""
    ends = np.array([bootstrap_interval(column) for column in rows.T])  # [X, 2]
    y, low, high = (np.exp(part) if as_logs else part for part in (rows.mean(0), ends[:, 0], ends[:, 1]))
    return Series(name, list(x), y.tolist(), kind, low.tolist(), high.tolist())


def range_band(name: str, x: Sequence[float], rows: Array, kind: str = LINE) -> Series:
    """Medians of rows [runs, X], from the least to the largest."""
    return Series(name, list(x), np.median(rows, 0).tolist(), kind, rows.min(0).tolist(), rows.max(0).tolist())


def table(title: str, columns: Mapping[str, Sequence[str]]) -> Table:
    """Cells by column."""
    return Table(title, list(columns), [list(row) for row in zip(*columns.values(), strict=True)])


def cell(value: float | None, form: str) -> str:
    """A number as people read it; `-` where there is none."""
    return "-" if value is None else f"{value:{form}}"
