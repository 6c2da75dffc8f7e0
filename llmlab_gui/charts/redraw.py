"""The one timer on which all charts redraw."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import shiboken6
from PySide6.QtCore import QObject, QTimer

_INTERVAL_MS = 33
# After a redraw the charts rest so many times as long as it took, painting included: drawing takes at most a sixth
# of the window's time, and leaves the processors to what trains. At the slowest they redraw four times a second.
_REST = 5
_LONGEST_INTERVAL_MS = 250


class Redrawable(Protocol):
    """What the timer redraws: a widget that knows whether what it shows is out of date."""

    def isVisible(self) -> bool: ...

    @property
    def dirty(self) -> bool: ...

    def redraw_if_dirty(self) -> None: ...


class RedrawTimer(QObject):
    """Redraws what is out of date and visible; rests while nothing is.

    One a tick, in turns: so the event loop never waits for more than one, and many charts together cost no more
    than one does. A registered widget calls `wake` when it becomes out of date, or visible again.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._charts: list[weakref.ref[Redrawable]] = []  # the one redrawn longest ago first
        self._others: deque[tuple[QObject, Callable[[], object]]] = deque()
        self._timer = QTimer(self, interval=_INTERVAL_MS)
        self._timer.timeout.connect(self._tick)

    def register(self, chart: Redrawable) -> None:
        """Takes a chart on, for as long as it lives."""
        self._charts.append(weakref.ref(chart))

    def unregister(self, chart: Redrawable) -> None:
        """Lets a chart go before it is deleted."""
        self._charts = [other for other in self._charts if other() not in (chart, None)]

    def once(self, owner: QObject, draw: Callable[[], object]) -> None:
        """Has something else drawn at a tick of its own, before the charts that wait for theirs; unless its owner was
        deleted by then."""
        self._others.append((owner, draw))
        self.wake()

    def wake(self) -> None:
        """Something is out of date: redraw at the next tick."""
        if not self._timer.isActive():
            self._timer.start()

    def stop(self) -> None:
        """Ends all redrawing (the window closes)."""
        self._charts.clear()
        self._others.clear()
        self._timer.stop()

    def _rest(self, begin: float) -> None:
        wanted = _REST * (time.perf_counter() - begin) * 1e3
        self._timer.setInterval(round(min(max(wanted, _INTERVAL_MS), _LONGEST_INTERVAL_MS)))

    def _tick(self) -> None:
        if self._others:
            begin = time.perf_counter()
            owner, draw = self._others.popleft()
            if shiboken6.isValid(owner):
                draw()
            QTimer.singleShot(0, self, partial(self._rest, begin))
            return
        for reference in list(self._charts):
            chart = reference()
            if chart is None or not shiboken6.isValid(chart):
                self._charts.remove(reference)
            elif chart.dirty and chart.isVisible():
                self._charts.remove(reference)
                self._charts.append(reference)
                begin = time.perf_counter()
                chart.redraw_if_dirty()
                # Qt paints before it comes to this timer.
                QTimer.singleShot(0, self, partial(self._rest, begin))
                return
        self._timer.stop()
