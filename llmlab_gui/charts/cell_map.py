"""What maps of cells share: one is pointed at, one is chosen by mouse or arrow keys, and a line says what it is.

A large matrix becomes an image of the view's size: nothing strong is lost where many cells share a pixel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QFontMetricsF, QImage, QPainter
from PySide6.QtWidgets import QWidget

from llmlab_gui.charts.color_scale import ColorScale, Values
from llmlab_gui.widgets.theme import theme_notifier

PAD = 4.0
NONE = (-1, -1)
PICTURED = "pictured"  # a property: it is painted for a file, which nobody can point at
_STEPS = {Qt.Key.Key_Up: (-1, 0), Qt.Key.Key_Down: (1, 0), Qt.Key.Key_Left: (0, -1), Qt.Key.Key_Right: (0, 1)}


class CellMap(QWidget):
    """Subclasses say which cell is where, and forget their picture when its colours change."""

    pointed = Signal(int, int)  # row and column under the mouse, -1 for none
    clicked = Signal(int, int)  # also by keyboard

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.chosen = self.under = NONE
        self.log = False
        theme_notifier.changed.connect(self.forget_picture)

    def forget_picture(self) -> None:
        """Numbers, colours or the theme are others."""
        raise NotImplementedError

    def set_log(self, log: bool) -> None:
        """Colours by powers of ten (for what is not signed)."""
        self.log = log
        self.forget_picture()

    def choose(self, row: int, column: int) -> None:
        """Outlines a cell; -1 for a whole column or row, twice -1 for none."""
        if (row, column) != self.chosen:
            self.chosen = (row, column)
            self.update()

    def leaveEvent(self, event: QEvent) -> None:
        self.point(NONE)

    def point(self, cell: tuple[int, int]) -> None:
        """The mouse is over another cell."""
        if cell != self.under:
            self.under = cell
            self.update()
            self.pointed.emit(*cell)

    def reached(self, key: int, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """The cell that an arrow key leads to from the chosen one; None for another key, or without cells."""
        step = _STEPS.get(Qt.Key(key))
        if step is None or not all(shape):
            return None
        row, column = (max(place, 0) + by for place, by in zip(self.chosen, step, strict=True))
        return min(max(row, 0), shape[0] - 1), min(max(column, 0), shape[1] - 1)

    def paint_line(self, painter: QPainter, text: str, color: str, height: float) -> None:
        """One line at the foot, as much of it as there is room for."""
        place = QRectF(PAD, self.height() - height, self.width() - 2 * PAD, height)
        shown = QFontMetricsF(self.font()).elidedText(text, Qt.TextElideMode.ElideRight, place.width())
        painter.setPen(QColor(color))
        painter.drawText(place, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, shown)

    def cell_at(self, point: QPointF) -> tuple[int, int]:
        """The cell there, (-1, -1) for none."""
        raise NotImplementedError


def picture_of(places: Indices, scale: ColorScale, rest: str) -> QImage:
    """One pixel an index of `shrink.indexed`. rest: the colour of what is no number."""
    height, width = places.shape
    image = QImage(places.data, width, height, width, QImage.Format.Format_Indexed8).copy()
    table = scale.table.tolist()
    colors = [QColor(*table[round(place * 255 / (MISSING - 1))]).rgb() for place in range(MISSING)]
    image.setColorTable([*colors, QColor(rest).rgb()])
    return image


Indices = npt.NDArray[np.uint8]
# The last index is kept for what is no number; the others span the scale.
MISSING = 255
_TOP = 254


def shrink(values: Values, rows: int, columns: int, *, signed: bool = False) -> Values:
    """[R, C] as at most [rows, columns]: each cell the largest of the block it covers (signed: furthest from zero).

    NaN and infinities count as nothing where a number is beside them.
    """
    rows, columns = max(1, min(rows, values.shape[0])), max(1, min(columns, values.shape[1]))
    if (rows, columns) == values.shape or not values.size:
        return values
    down, across = _starts(values.shape[0], rows), _starts(values.shape[1], columns)
    above = _reduce(np.fmax, values, down, across)
    if not signed:
        return above
    below = _reduce(np.fmin, values, down, across)
    return np.where(np.abs(below) > np.abs(above), below, above)


def indexed(values: Values, scale: ColorScale, *, log: bool = False) -> Indices:
    """Places in the scale's table, 0 to 254; 255 for what is no number. log: low and high are powers of ten."""
    with np.errstate(divide="ignore", invalid="ignore"):
        numbers = np.asarray(values, np.float32)
        missing = ~np.isfinite(numbers)
        if log:
            numbers = np.log10(numbers)
        span = scale.high - scale.low or 1.0
        places = (numbers - np.float32(scale.low)) * np.float32(_TOP / span)
        np.clip(places, 0, _TOP, out=places)
        places[missing] = MISSING
        np.nan_to_num(places, copy=False)
        return np.rint(places).astype(np.uint8)


def _starts(size: int, parts: int) -> npt.NDArray[np.intp]:
    return (np.arange(parts, dtype=np.int64) * size // parts).astype(np.intp)


def _reduce(function: np.ufunc, values: Values, down: npt.NDArray[np.intp], across: npt.NDArray[np.intp]) -> Values:
    """Rows first, block by block: they lie together on the disk, and it is ten times as fast as `reduceat`."""
    stops = [*down[1:].tolist(), len(values)]
    rows = np.stack([function.reduce(values[start:stop], axis=0) for start, stop in zip(down, stops, strict=True)])
    return function.reduceat(rows, across, axis=1)
