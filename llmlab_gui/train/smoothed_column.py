"""A history's column with its moving average, kept up as the run goes on."""

from __future__ import annotations

import numpy as np

from llmlab.store.columns import Columns
from llmlab.store.history import RunHistory
from llmlab_gui.charts.smoothing import MovingAverage


class SmoothedColumn:
    """The average of one column of one run. Only new rows are computed; a change of history or memory starts over."""

    def __init__(self, history: RunHistory, column: str) -> None:
        """column: `loss` or `grad_norm`, whose means over thinned rows the history keeps."""
        self.history = history
        self._column = f"{column}_mean"
        self._count = f"{column}_count"
        self._key: tuple[int, int] | None = None

    def values(self, memory: int) -> np.ndarray:
        """The average at each row; memory in steps, above zero."""
        steps = self.history.step_columns
        if self._key != (self.history.version, memory):
            self._key = (self.history.version, memory)
            self._averages = Columns(("average",))
            self._average = MovingAverage(memory)
        done = len(self._averages)
        if done < len(steps):
            counted = steps[self._count][done:] > 0
            means = np.where(counted, steps[self._column][done:], np.nan)
            self._averages.append(self._average.extend(steps["step"][done:], means)[:, None])
        return self._averages["average"]
