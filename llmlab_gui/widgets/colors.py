"""Mixing two colours."""

from __future__ import annotations

from PySide6.QtGui import QColor


def mix(ground: QColor | str, top: QColor | str, share: float) -> QColor:
    """`share` (0 to 1) of `top` laid over `ground`."""
    below, above = QColor(ground), QColor(top)
    pairs = ((below.red(), above.red()), (below.green(), above.green()), (below.blue(), above.blue()))
    return QColor(*(round((1 - share) * a + share * b) for a, b in pairs))
