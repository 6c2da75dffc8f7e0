"""Collects Python's garbage on the window's thread only: Qt objects must not be freed in any other."""

from __future__ import annotations

import gc

from PySide6.QtCore import QObject, QTimer

# Often enough that a collection stays within a few milliseconds.
_INTERVAL_MS = 1000


class GarbageTimer(QObject):
    """Replaces the automatic collector while it lives, with the collector's own thresholds."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        gc.disable()
        self._timer = QTimer(self, interval=_INTERVAL_MS)
        self._timer.timeout.connect(self.collect)
        self._timer.start()

    def collect(self) -> None:
        """The oldest generation that is due, as the automatic collector would choose."""
        counts, thresholds = gc.get_count(), gc.get_threshold()
        for generation in (2, 1, 0):
            if counts[generation] > thresholds[generation] > 0:
                gc.collect(generation)
                return

    def freeze(self) -> None:
        """Leaves out of later collections what is there now: start-up's objects, which are many and stay."""
        gc.collect()
        gc.freeze()

    def stop(self) -> None:
        """Hands collecting back to the interpreter."""
        self._timer.stop()
        gc.unfreeze()
        gc.enable()
