"""A row of controls that goes on in a second line where a panel is narrow."""

from __future__ import annotations

from PySide6.QtCore import QPoint, QRect, QSize, Qt
from PySide6.QtWidgets import QLabel, QLayout, QLayoutItem, QSizePolicy, QSpacerItem, QWidget

_LINE_GAP = 2


class FlowRow(QLayout):
    """Used like a QHBoxLayout: stretches push what follows to the right, as long as all is in one line.

    A label stays beside the field after it. In a line without a stretch, fields that can grow share the free room.
    """

    def __init__(self, parent: QWidget | None = None, spacing: int = 6) -> None:
        super().__init__(parent)
        self._items: list[QLayoutItem] = []
        # Until an item changes:
        self._hints: dict[QLayoutItem, QSize] = {}
        self._least: QSize | None = None
        self._heights: dict[int, int] = {}  # by width
        self._placed: QRect | None = None
        self.setContentsMargins(0, 0, 0, 0)
        self.setSpacing(spacing)

    def add(self, *widgets: QWidget) -> None:
        """One after the other."""
        for widget in widgets:
            self.addWidget(widget)

    def addStretch(self, _stretch: int = 1) -> None:
        """Free room, where there is some."""
        self.addItem(QSpacerItem(0, 0, QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum))

    def addItem(self, item: QLayoutItem) -> None:
        self._items.append(item)
        self.invalidate()

    def count(self) -> int:
        return len(self._items)

    def itemAt(self, index: int) -> QLayoutItem | None:
        return self._items[index] if 0 <= index < len(self._items) else None

    def takeAt(self, index: int) -> QLayoutItem | None:
        self.invalidate()
        return self._items.pop(index) if 0 <= index < len(self._items) else None

    def expandingDirections(self) -> Qt.Orientation:
        return Qt.Orientation.Horizontal

    def hasHeightForWidth(self) -> bool:
        return True

    def invalidate(self) -> None:
        self._hints, self._least, self._heights, self._placed = {}, None, {}, None
        super().invalidate()

    def heightForWidth(self, width: int) -> int:
        if width not in self._heights:
            self._heights[width] = self._lay_out(QRect(0, 0, width, 0), move=False)
        return self._heights[width]

    def sizeHint(self) -> QSize:
        sizes = [self._hint(item) for item in self._shown()]
        width = sum(size.width() + self.spacing() for size in sizes)
        return QSize(width, max((size.height() for size in sizes), default=0)) + self._margins()

    def minimumSize(self) -> QSize:
        if self._least is None:
            sizes = [item.minimumSize() for item in self._shown()]
            widest = max((size.width() for size in sizes), default=0)
            self._least = QSize(widest, max((size.height() for size in sizes), default=0)) + self._margins()
        return self._least

    def setGeometry(self, rect: QRect) -> None:
        super().setGeometry(rect)
        if rect != self._placed:
            self._placed = QRect(rect)
            self._lay_out(rect, move=True)

    def _shown(self) -> list[QLayoutItem]:
        """What takes room: stretches, and visible widgets that are not empty."""
        return [item for item in self._items if isinstance(item, QSpacerItem) or not self._is_nothing(item)]

    def _is_nothing(self, item: QLayoutItem) -> bool:
        return item.isEmpty() or self._hint(item).width() == 0

    def _hint(self, item: QLayoutItem) -> QSize:
        if (hint := self._hints.get(item)) is None:
            hint = self._hints[item] = item.sizeHint()
        return hint

    def _margins(self) -> QSize:
        margins = self.contentsMargins()
        return QSize(margins.left() + margins.right(), margins.top() + margins.bottom())

    def _lay_out(self, rect: QRect, *, move: bool) -> int:
        """Places all items (if `move`) and returns the height that they need."""
        margins = self.contentsMargins()
        inside = rect.marginsRemoved(margins)
        top = inside.top()
        for line in self._lines(inside.width()):
            height = max(self._hint(item).height() for item in line)
            if move:
                self._place(line, QRect(inside.left(), top, inside.width(), height))
            top += height + _LINE_GAP
        return top - _LINE_GAP - inside.top() + margins.top() + margins.bottom()

    def _lines(self, width: int) -> list[list[QLayoutItem]]:
        """What stands behind a stretch goes to the next line together, and still to the right of it."""
        groups: list[list[QLayoutItem]] = [[]]
        for item in self._shown():
            if isinstance(item, QSpacerItem):
                groups.append([item])
            else:
                groups[-1].append(item)
        lines: list[list[QLayoutItem]] = [[]]
        for group in groups:
            if lines[-1] and self._width([*lines[-1], *group]) > width:
                lines.append([])
            for unit in self._units(group, width):
                if self._width(lines[-1]) and self._width([*lines[-1], *unit]) > width:
                    lines.append([])
                lines[-1] += unit
        return [line for line in lines if line]

    def _units(self, group: list[QLayoutItem], width: int) -> list[list[QLayoutItem]]:
        """What is never parted: a label and the field that it names, where a line has room for both."""
        units: list[list[QLayoutItem]] = []
        for item in group:
            named = units and isinstance(units[-1][-1].widget(), QLabel) and not isinstance(item.widget(), QLabel)
            if named and self._width([*units[-1], item]) <= width:
                units[-1].append(item)
            else:
                units.append([item])
        return units

    def _width(self, line: list[QLayoutItem]) -> int:
        solid = [self._hint(item).width() for item in line if not isinstance(item, QSpacerItem)]
        return sum(solid) + self.spacing() * max(0, len(solid) - 1)

    def _grows(self, item: QLayoutItem) -> bool:
        across = bool(item.expandingDirections() & Qt.Orientation.Horizontal)
        return across and item.maximumSize().width() > self._hint(item).width()

    def _place(self, line: list[QLayoutItem], area: QRect) -> None:
        stretches = sum(isinstance(item, QSpacerItem) for item in line)
        free = max(0, area.width() - self._width(line))
        growing = [] if stretches else [item for item in line if self._grows(item)]
        left = area.left()
        for item in line:
            if isinstance(item, QSpacerItem):
                left += free // stretches
                continue
            size = self._hint(item).boundedTo(QSize(area.width(), self._hint(item).height()))
            if item in growing:
                size.setWidth(min(size.width() + free // len(growing), item.maximumSize().width()))
            item.setGeometry(QRect(QPoint(left, area.top() + (area.height() - size.height()) // 2), size))
            left += size.width() + self.spacing()
