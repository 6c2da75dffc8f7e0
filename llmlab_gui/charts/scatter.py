"""Points with names: as many names as there is room for, all of them when one comes closer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyqtgraph as pg
from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QResizeEvent
from PySide6.QtWidgets import QToolTip

from llmlab_gui.charts.axes import NumberAxis, bare_plot, name_style
from llmlab_gui.widgets.alternatives import plain_tip
from llmlab_gui.widgets.theme import current_theme, theme_notifier

_NEAR = 12.0  # pixels: how close the mouse has to come to a point
_LABEL_ROW, _LABEL_STEP, _LABEL_LENGTH = 4, 8, 14  # pixels of a cell down and across; characters of a long name
_MOST_LABELS = 150
_SIZES = ((2000, 7), (10_000, 4))  # most points, their pixels; smaller still beyond

Points = npt.NDArray[np.float64]


class Scatter(pg.PlotWidget):
    """Points in the plane. clicked(i) and pointed(i): a point by its place, -1 for none.

    Earlier points keep their names when there is no room for all: order them by what matters.
    """

    clicked = Signal(int)
    pointed = Signal(int)

    def __init__(self, name: str) -> None:
        self._axes = {"bottom": NumberAxis("bottom"), "left": NumberAxis("left")}
        super().__init__(enableMenu=False, axisItems=self._axes)
        self.points: Points = np.zeros((0, 2))
        self.names: list[str] = []
        self._tips: list[str] = []
        self._axis_names = ("", "")
        self._marked: dict[int, str] = {}
        self._under = -1
        self._pressed = QPointF()
        self._view = bare_plot(self, name)
        plot = self.getPlotItem()
        plot.setAspectLocked(True)
        self._dots = pg.ScatterPlotItem(pen=None)
        self._chosen = pg.ScatterPlotItem(size=11, brush=None)
        plot.addItem(self._dots)
        plot.addItem(self._chosen, ignoreBounds=True)
        self.viewport().setMouseTracking(True)
        theme_notifier.changed.connect(self.apply_theme)
        self.apply_theme()

    def show_points(self, points: Points, names: Sequence[str], tips: Sequence[str], axes: tuple[str, str]) -> None:
        """points [N, 2]; a name and a hover text each; what the axes are."""
        self.points, self.names, self._tips = np.asarray(points, np.float64), list(names), list(tips)
        self._marked, self._under = {}, -1
        self._axis_names = axes
        self.setAccessibleDescription(f"{len(names)} points")
        self.apply_theme()
        self._view.autoRange(padding=0.06)
        self._fit_left()

    def mark(self, places: Sequence[int]) -> None:
        """Rings the points, the first one in the accent colour, and names them before all others."""
        theme = current_theme()
        self._marked = {place: theme.accent if not number else theme.text for number, place in enumerate(places)}
        where = self.points[list(places)] if places else np.zeros((0, 2))
        pens = [
            pg.mkPen(QColor(color), width=1.2 if number else 2.5) for number, color in enumerate(self._marked.values())
        ]
        self._chosen.setData(where[:, 0], where[:, 1], pen=pens or None)
        self.viewport().update()

    def place_of(self, point: int) -> QPointF:
        """Where a point is in the viewport."""
        return QPointF(self.mapFromScene(self._view.mapViewToScene(QPointF(*self.points[point].tolist()))))

    def point_at(self, where: QPointF) -> int:
        """The nearest point to a place of the viewport, -1 when none is near."""
        if not len(self.points):
            return -1
        shown = self._on_screen()
        distances = np.hypot(shown[:, 0] - where.x(), shown[:, 1] - where.y())
        nearest = int(distances.argmin())
        return nearest if distances[nearest] <= _NEAR else -1

    def apply_theme(self) -> None:
        """Takes the theme's colours."""
        theme = current_theme()
        self.setBackground(QColor(theme.surface))
        for axis in self._axes.values():
            axis.setPen(pg.mkPen(QColor(theme.grid)))
            axis.setTextPen(pg.mkPen(QColor(theme.quiet)))
            axis.follow_font()
        self.getPlotItem().setLabel("bottom", self._axis_names[0], **name_style(theme.text))
        self._fit_left()
        color = QColor(theme.series[0])
        color.setAlpha(190 if len(self.points) <= _SIZES[0][0] else 110)
        size = next((pixels for most, pixels in _SIZES if len(self.points) <= most), 3)
        self._dots.setData(self.points[:, 0], self.points[:, 1], brush=pg.mkBrush(color), size=size, pen=None)
        self.mark(list(self._marked))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if hasattr(self, "_view"):  # PlotWidget's constructor resizes too
            self._fit_left()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._pressed = event.position()
        super().mousePressEvent(event)
        event.accept()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        event.accept()
        moved = (event.position() - self._pressed).manhattanLength()
        if event.button() == Qt.MouseButton.LeftButton and moved < 4:  # not the end of a drag
            found = self.point_at(event.position())
            if found >= 0:
                self.clicked.emit(found)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        found = self.point_at(event.position())
        if found != self._under:
            self._under = found
            self.pointed.emit(found)
            tip = plain_tip(self._tips[found]) if found >= 0 else ""  # which hides it
            QToolTip.showText(event.globalPosition().toPoint(), tip, self)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """A double click shows all points again."""
        super().mouseDoubleClickEvent(event)
        self._view.autoRange(padding=0.06)

    def drawForeground(self, painter: QPainter, rect: QRectF) -> None:
        """The names, over the points; painted here so that exported pictures have them."""
        super().drawForeground(painter, rect)
        if not len(self.points):
            return
        theme, area = current_theme(), self._view.sceneBoundingRect()
        metrics = painter.fontMetrics()
        taken: set[tuple[int, int]] = set()
        shown = self._in_scene()
        inside = (
            (shown[:, 0] > area.left())
            & (shown[:, 0] < area.right())
            & (shown[:, 1] > area.top())
            & (shown[:, 1] < area.bottom())
        )
        order = [*self._marked, *(int(place) for place in np.flatnonzero(inside) if place not in self._marked)]
        half = metrics.height() / 2 - 1
        drawn, first = 0, next(iter(self._marked), -1)
        for place in order:
            if drawn >= _MOST_LABELS:
                break
            name = self.names[place][:_LABEL_LENGTH]
            x, y = shown[place].tolist()
            width = metrics.horizontalAdvance(name)
            columns = range(int(x) // _LABEL_STEP, int(x + width + 18) // _LABEL_STEP + 1)
            rows = range(int(y - half) // _LABEL_ROW, int(y + half) // _LABEL_ROW + 1)
            cells = {(column, row) for column in columns for row in rows}
            if place != first and (cells & taken or x + width + 8 > area.right()):
                continue
            taken |= cells
            drawn += 1
            painter.setPen(QColor(self._marked.get(place, theme.quiet)))
            left = x + 7 if x + width + 8 <= area.right() else x - 7 - width
            painter.drawText(QPointF(left, y + metrics.ascent() / 2 - 1), name)

    def _fit_left(self) -> None:
        axis, name = self._axes["left"], self._axis_names[1]
        axis.write_name(axis.fitting_name([name, name.split(" (")[0]]), current_theme().text)
        axis.set_room(axis.needed_width())

    def _in_scene(self) -> Points:
        """[N, 2]: where the points are in the scene."""
        (x0, x1), (y0, y1) = self._view.viewRange()
        area = self._view.sceneBoundingRect()
        x = area.left() + (self.points[:, 0] - x0) / (x1 - x0) * area.width()
        y = area.bottom() - (self.points[:, 1] - y0) / (y1 - y0) * area.height()
        return np.stack([x, y], axis=1)

    def _on_screen(self) -> Points:
        offset = self.mapFromScene(QPointF(0, 0))
        return self._in_scene() + np.array([offset.x(), offset.y()])
