"""A history's column smoothed, kept up as the run goes on."""

from __future__ import annotations

import numpy as np

from llmlab.store.columns import Columns
from llmlab.store.history import RunHistory
from llmlab_gui.charts.smoothing import smooth


class SmoothedColumn:
    """One column of one run, smoothed. New rows change only the newest; a change of history or reach starts over."""

    def __init__(self, history: RunHistory, column: str) -> None:
        """column: `loss` or `grad_norm`, whose means over thinned rows the history keeps."""
        self.history = history
        self._column = f"{column}_mean"
        self._count = f"{column}_count"
        self._key: tuple[int, int] | None = None

    def values(self, reach: int) -> np.ndarray:
        """The smoothed value at each row; reach as in `smooth`."""
        steps = self.history.step_columns
        if self._key != (self.history.version, reach):
            self._key = (self.history.version, reach)
            self._smoothed = Columns(("smoothed",))
        done, at = len(self._smoothed), steps["step"]
        if done < len(steps):
            # Rows whose windows reached beyond the last one; its neighbour's mean may belong far before its step.
            begin = max(0, int(np.searchsorted(at, at[done - 1] - reach)) - 1) if done else 0
            counts = steps[self._count]
            means = np.where(counts > 0, steps[self._column], np.nan)
            self._smoothed.truncate(begin)
            self._smoothed.append(smooth(at, means, reach, counts=counts, begin=begin)[:, None])
        return self._smoothed["smoothed"]
