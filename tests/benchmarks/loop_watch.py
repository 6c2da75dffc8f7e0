"""How long the event loop keeps a waiting event: a timer of 5 ms that notes how late it comes."""

from __future__ import annotations

import time

import numpy as np
from PySide6.QtCore import QObject, Qt, QTimer

TICK_MS = 5
P99_BAR_MS, MAX_BAR_MS = 25.0, 50.0


class LoopWatch(QObject):
    """Notes the lateness of every tick, in milliseconds, from `start()` to `stop()`."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[float] = []
        self._due = 0.0
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)

    def start(self) -> None:
        self._due = time.perf_counter() + TICK_MS / 1e3
        self._timer.start()

    def stop(self) -> None:
        self._timer.stop()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.late.append(max(0.0, (now - self._due) * 1e3))
        self._due = now + TICK_MS / 1e3

    def line(self) -> str:
        """p50, p99 and the longest, beside their bars."""
        late = np.array(self.late)
        p50, p99, longest = np.percentile(late, 50), np.percentile(late, 99), late.max()
        met = p99 < P99_BAR_MS and longest < MAX_BAR_MS
        return (
            f"{len(late)} ticks: p50 {p50:.1f} ms, p99 {p99:.1f} ms (bar {P99_BAR_MS:.0f}), "
            f"max {longest:.1f} ms (bar {MAX_BAR_MS:.0f}): {'met' if met else 'MISSED'}"
        )
