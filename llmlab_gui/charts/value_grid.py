"""A table of words on the colours of their numbers: what a model says at every layer and token."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QItemSelection, QModelIndex, QPoint, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QContextMenuEvent,
    QCursor,
    QFontDatabase,
    QImage,
    QKeyEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
    QResizeEvent,
)
from PySide6.QtWidgets import QFrame, QHeaderView, QLabel, QSizePolicy, QTableView, QToolTip, QVBoxLayout, QWidget

from llmlab_gui.charts.grid_cells import NOTHING, CellPainter, Grid, GridCells
from llmlab_gui.widgets.labels import QuietLabel
from llmlab_gui.widgets.layouts import beside
from llmlab_gui.widgets.one_line import OneLine
from llmlab_gui.widgets.theme import current_theme, theme_notifier

_CELL_WIDTH, _CELL_PAD = 76, 7  # of cells with words: pixels across, and above and below the line together
_MOST_LABEL = 132  # pixels: width of the row labels
_BAR_WIDTH, _BAR_HEIGHT = 140, 8  # of the scale's legend
_ROLE = Qt.ItemDataRole


class ValueGrid(QWidget):
    """Shows a `Grid`, over its colours' legend. clicked(row, column): by mouse, or arrow keys.

    pointed(row, column): -1, -1 for none. Where not all rows have room, the last one, which the others lead to, stays
    in sight below them.
    """

    clicked = Signal(int, int)
    pointed = Signal(int, int)
    asked = Signal(int, int, QPoint)  # a right click, or the menu key: row, column, place on the screen

    def __init__(self, name: str) -> None:
        super().__init__()
        cells = GridCells(self)
        self.table, self.last = _Table(self, cells), _Table(self, cells)
        self._beside = QWidget()  # the last row, where the scroll bar of those above it is
        self.table.setAccessibleName(name)
        self.last.setAccessibleName(f"{name}: the last row")
        self.last.show_row_of(self.table)
        self._low, self._bar, self._high, self._unit = QuietLabel(), QLabel(), QuietLabel(), OneLine(quiet=True)
        legend = beside(self._low, self._bar, self._high, self._unit, grows=self._unit, margins=(8, 2, 8, 2))
        legend.setSpacing(6)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.table, 1)
        row = beside(self.last, self._beside, grows=self.last)
        row.setSpacing(0)
        layout.addLayout(row)
        layout.addLayout(legend)
        self._legend, self._parts = legend, layout
        self.setFocusProxy(self.table)
        for table in (self.table, self.last):
            table.clicked.connect(self._choose)
            table.entered.connect(self._point)
            for away in (table.left, table.viewportEntered):
                away.connect(lambda: self.pointed.emit(-1, -1))
        theme_notifier.changed.connect(self._recolor)
        self.show_grid(NOTHING)

    @property
    def grid(self) -> Grid:
        """What is shown."""
        return self.table.cells.grid

    def show_grid(self, grid: Grid) -> None:
        """Replaces everything; scrolling and the mark stay where they were if the shape is the same."""
        self.table.cells.show(grid)
        self._fit()
        self.table.setAccessibleDescription(f"{len(grid.rows)} by {len(grid.columns)}: {grid.unit}")
        colors = grid.scale.table
        bar = QImage(colors.tobytes(), len(colors), 1, QImage.Format.Format_RGB888)
        self._bar.setPixmap(QPixmap.fromImage(bar.scaled(_BAR_WIDTH, _BAR_HEIGHT)))
        self._low.setText(grid.read_out(grid.scale.low))
        self._high.setText(grid.read_out(grid.scale.high))
        self._unit.say(grid.unit)

    def mark(self, row: int, column: int) -> None:
        """Outlines the selected cell, and brings it into sight; -1 for a whole column or row."""
        self.table.mark(row, column)
        self.last.scrollTo(self.table.currentIndex())
        self.draw_again()

    def hover_column(self, column: int) -> None:
        """Shows where another panel points; -1 for nowhere."""
        if column != self.table.cells.hovered:
            self.table.cells.hovered = column
            self.draw_again()

    def draw_again(self) -> None:
        """Every cell in sight, whose words came later."""
        for table in (self.table, self.last):
            table.viewport().update()

    def sizeHint(self) -> QSize:
        return QSize(420, 240)

    def minimumSizeHint(self) -> QSize:
        return QSize(160, 100)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        table = self.last if self.last.geometry().contains(event.pos()) else self.table
        view, by_key = table.viewport(), event.reason() == QContextMenuEvent.Reason.Keyboard
        index = table.currentIndex() if by_key else table.indexAt(view.mapFrom(self, event.pos()))
        if index.isValid():
            place = view.mapToGlobal(table.visualRect(index).center()) if by_key else event.globalPos()
            self.asked.emit(index.row(), index.column(), place)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._stay()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.StyleChange:  # other scroll bars; the tables hear of it later
            QTimer.singleShot(0, self, self._stay)

    def _stay(self) -> None:
        """In another size, or beside another scroll bar, the chosen cell is still in sight."""
        self._fit()
        for table in (self.table, self.last):
            table.scrollTo(table.currentIndex())

    def _fit(self) -> None:
        """The last row by itself where not all have room."""
        rows = len(self.grid.rows)
        room = self.height() - self._legend.sizeHint().height()
        apart = rows > 2 and self.table.height_of(rows) > room
        if rows and apart == self.last.isHidden():
            self.last.setVisible(apart)
            policy = Qt.ScrollBarPolicy.ScrollBarAlwaysOff if apart else Qt.ScrollBarPolicy.ScrollBarAsNeeded
            self.table.setHorizontalScrollBarPolicy(policy)  # that of the row below it moves both
        for row in range(rows):
            self.table.setRowHidden(row, apart and row == rows - 1)
            self.last.setRowHidden(row, row < rows - 1)
        self._parts.activate()
        self.table.fit()
        bar = self.table.verticalScrollBar()
        self._beside.setFixedWidth(bar.sizeHint().width() if bar.maximum() else 0)
        self._parts.activate()
        self.last.fit()

    def _recolor(self) -> None:
        self.show_grid(self.grid)

    def _choose(self, index: QModelIndex) -> None:
        self.mark(index.row(), index.column())
        self.clicked.emit(index.row(), index.column())

    def _point(self, index: QModelIndex) -> None:
        self.pointed.emit(index.row(), index.column())
        QToolTip.showText(QCursor.pos(), index.data(_ROLE.ToolTipRole), self.table.viewport())


class _Table(QTableView):
    """The cells, all of one size; keys choose as a click does."""

    left = Signal()

    def __init__(self, parent: QWidget, cells: GridCells) -> None:
        super().__init__(parent)
        self.cells = cells
        self._above: _Table | None = None
        self._below: _Table | None = None
        self.setModel(cells)
        self._delegate = CellPainter(self.cells)
        self.setItemDelegate(self._delegate)
        self.setSelectionMode(self.SelectionMode.NoSelection)  # a click selects by way of `mark`
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)
        self.setCornerButtonEnabled(False)
        self.setMouseTracking(True)
        self.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.verticalHeader().setMaximumWidth(_MOST_LABEL)
        self.verticalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        for header in (self.horizontalHeader(), self.verticalHeader()):
            header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
            header.setTextElideMode(Qt.TextElideMode.ElideRight)
            header.setFont(parent.font())
        self.setHorizontalScrollMode(self.ScrollMode.ScrollPerPixel)
        self.setVerticalScrollMode(self.ScrollMode.ScrollPerPixel)

    def mark(self, row: int, column: int) -> None:
        """Selects a cell, row or column, and makes it the one that keys move from."""
        rows, columns, chosen = len(self.cells.grid.rows), len(self.cells.grid.columns), self.selectionModel()
        if not (row < rows and column < columns) or (row, column) == (-1, -1):
            chosen.clearSelection()
            return
        self.verticalHeader().setHighlightSections(row >= 0)
        first = self.cells.index(max(row, 0), max(column, 0))
        last = self.cells.index(row if row >= 0 else rows - 1, column if column >= 0 else columns - 1)
        chosen.select(QItemSelection(first, last), chosen.SelectionFlag.ClearAndSelect)
        if first != self.currentIndex():  # else a person may have scrolled away
            chosen.setCurrentIndex(first, chosen.SelectionFlag.NoUpdate)
            self.scrollTo(first)
        self.viewport().update()

    def show_row_of(self, above: _Table) -> None:
        """Is one row of another table from now on, scrolled with it and as wide; hidden at first."""
        self._above, above._below = above, self
        self.setSelectionModel(above.selectionModel())
        self.horizontalHeader().hide()
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        for one, other in ((self, above), (above, self)):
            one.horizontalScrollBar().valueChanged.connect(other.horizontalScrollBar().setValue)
        self.hide()

    def height_of(self, rows: int) -> int:
        """What so many rows take at least, with the names of the columns and a scroll bar."""
        bar = self.style().pixelMetric(self.style().PixelMetric.PM_ScrollBarExtent)
        return rows * self._line() + self.horizontalHeader().sizeHint().height() + bar

    def sizeHint(self) -> QSize:
        if self._above is None:
            return super().sizeHint()
        bar = self.horizontalScrollBar().sizeHint().height() if self.horizontalScrollBar().maximum() > 0 else 0
        return QSize(super().sizeHint().width(), self._line() + bar)

    def minimumSizeHint(self) -> QSize:
        hint = super().minimumSizeHint()
        return hint if self._above is None else QSize(hint.width(), self.sizeHint().height())

    def _line(self) -> int:
        return self.fontMetrics().height() + _CELL_PAD

    def fit(self) -> None:
        """Cells take the room there is, within limits."""
        line = self._line()
        if self._above is not None:
            self.horizontalHeader().setDefaultSectionSize(self._above.horizontalHeader().defaultSectionSize())
            self.verticalHeader().setDefaultSectionSize(line)
            self.verticalHeader().setFixedWidth(self._above.verticalHeader().width())
            self.updateGeometries()
            self.updateGeometry()
            return
        for header, room, count, least, most in (
            (self.horizontalHeader(), self.viewport().width(), len(self.cells.grid.columns), _CELL_WIDTH, 2.0),
            (self.verticalHeader(), self.viewport().height(), len(self.cells.grid.rows), line, 1.5),
        ):
            size = min(max(least, room // max(1, count)), int(most * least))
            if size != header.defaultSectionSize():
                header.setDefaultSectionSize(size)
        self.updateGeometries()  # now: a scroll bar that comes later would cover what is brought into sight

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.fit()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._delegate.cuts.clear()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        before = self.currentIndex()
        other = self._above or self._below
        if other is not None and before.isValid() and self.isRowHidden(before.row()):
            other.setFocus()  # which has the chosen cell
            other.keyPressEvent(event)
            return
        super().keyPressEvent(event)
        step = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1}.get(Qt.Key(event.key()), 0)
        beyond = before.siblingAtRow(before.row() + step)
        if step and self.currentIndex() == before and beyond.isValid() and self.isRowHidden(beyond.row()):
            self.setCurrentIndex(beyond)
        now = self.currentIndex()
        if now.isValid() and now != before:
            self.clicked.emit(now)
            seen = other if other is not None and self.isRowHidden(now.row()) else self
            place = seen.viewport().mapToGlobal(seen.visualRect(now).center())
            QToolTip.showText(place, now.data(_ROLE.ToolTipRole), seen.viewport())

    def viewportEvent(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Leave:
            self.left.emit()
        return super().viewportEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        chosen = self.selectionModel().selection()
        if chosen.isEmpty():
            return
        theme, span = current_theme(), chosen.first()
        rows = [row for row in (span.top(), span.bottom() - 1, span.bottom()) if span.top() <= row <= span.bottom()]
        shown = [row for row in rows if not self.isRowHidden(row)]
        if not shown:
            return
        ends = ((shown[0], span.left()), (shown[-1], span.right()))
        first, last = (self.visualRect(self.cells.index(*end)) for end in ends)
        whole = first.united(last)
        with QPainter(self.viewport()) as painter:
            for color, width in ((QColor(theme.surface), 4.0), (QColor(theme.accent), 2.0)):  # seen on every colour
                painter.setPen(QPen(color, width))
                painter.drawRect(whole.adjusted(1, 1, -2, -2))
