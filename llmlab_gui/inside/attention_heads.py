"""The left part of the Attention dock: all heads as a mosaic, and under it their scores to sort and filter by."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QItemSelectionModel, QModelIndex, QSignalBlocker, QSortFilterProxyModel, Qt, Signal
from PySide6.QtWidgets import QAbstractItemView, QComboBox, QDoubleSpinBox, QScrollArea, QStyle, QTableView, QWidget

from llmlab.core.signs import minus
from llmlab.inspection.archive import Archive
from llmlab_gui.charts.mosaic import Mosaic
from llmlab_gui.inside.head_scores import HeadScores
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import choice_box, column, split, turn
from llmlab_gui.widgets.row_tables import SORT_ROLE, Index, show_whole_rows

_UNDER = [240, 210]  # pixels: the mosaic, and the table under it
_NUMBER, _CELL_PAD = "0.000", 16  # the longest of a score, and pixels beside a text


class HeadsPane(QWidget):
    """chosen(layer, head): by a click, a row or a key."""

    chosen = Signal(int, int)

    def __init__(self) -> None:
        super().__init__()
        self.mosaic = Mosaic()
        self.scores = HeadScores(self)
        self.mosaic.describe = self._words
        self.by = choice_box("Score to filter the heads by")
        self.by.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.least = labelled(QDoubleSpinBox(decimals=2, singleStep=0.05), "Smallest score of a head that is shown")
        self.least.setRange(0, 10_000)
        self._ranked = ""  # the score whose best head is to be chosen
        self._rows = _Rows(self.scores, self)
        self.table = labelled(QTableView(), "Heads and their scores")
        self.table.setModel(self._rows)
        self._lay_out()
        self.mosaic.clicked.connect(self.chosen)
        self.table.selectionModel().currentRowChanged.connect(self._row_chosen)
        self.by.currentIndexChanged.connect(self._sort)
        self.by.currentIndexChanged.connect(self._filter)
        self.least.valueChanged.connect(self._filter)

    def show_heads(self, archive: Archive) -> None:
        """Another inspection."""
        before = [shown.title for shown in self.scores.columns]
        self.scores.show_archive(archive)
        if before != [shown.title for shown in self.scores.columns]:
            self._fit_columns()
        if "heads/mosaic" in archive:
            self.mosaic.show_heads(np.array(archive["heads/mosaic"]))
            self._arrange()
        offered = [("", "All heads"), *((score.key, f"{score.title} at least") for score in self.scores.scores)]
        self.by.fill(offered, self.by.currentData())
        self._filter()
        self._rank()

    def rank(self, score: str) -> None:
        """Chooses the head that has most of a score; where no heads are shown yet, once they are."""
        self._ranked = score
        self._rank()

    def choose(self, layer: int, head: int) -> None:
        """Marks a head in both."""
        self.mosaic.choose(layer, head)
        index = self._rows.mapFromSource(self.scores.index(self.scores.row_of(layer, head), 0))
        model = self.table.selectionModel()
        if index.isValid():
            flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
            with QSignalBlocker(model):
                model.setCurrentIndex(index, flags)
            self.table.scrollTo(index)
        else:
            with QSignalBlocker(model):
                model.clear()
        self.table.viewport().update()

    @property
    def tall(self) -> bool:
        """Whether the mosaic is much higher than it is wide."""
        layers, heads = self.mosaic.shape
        return layers > 1.5 * heads

    def _lay_out(self) -> None:
        table = self.table
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        show_whole_rows(table, ())
        table.setSortingEnabled(True)
        table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        row = FlowRow()
        row.add(self.by, self.least)
        area = QScrollArea(widgetResizable=True)
        area.setWidget(self.mosaic)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setMinimumSize(60, 80)
        self._halves = split((area, 1), column(row, (table, 1)), sizes=_UNDER, closes=True)
        column(self._halves, into=self)

    def _arrange(self) -> None:
        """The table beside a tall mosaic, and under a wide one; where the person put it once it is right."""
        if self.tall:
            bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
            mosaic = min(
                self.mosaic.minimumSizeHint().width() + bar, self.width() // 2
            )  # 0 for the table would close it
            turn(self._halves, across=True, sizes=[mosaic, self.width() - mosaic], shares=(0, 1))
        else:
            turn(self._halves, across=False, sizes=_UNDER, shares=(1, 0))

    def _fit_columns(self) -> None:
        """As wide as title and numbers: Qt would leave room for the sign of order, which stands over the title."""
        metrics = self.table.fontMetrics()
        for at, shown in enumerate(self.scores.columns):
            self.table.setColumnWidth(at, metrics.horizontalAdvance(max(shown.title, _NUMBER, key=len)) + _CELL_PAD)

    def _row_chosen(self, current: QModelIndex, _before: QModelIndex) -> None:
        if current.isValid():
            self.chosen.emit(*self.scores.head_of(self._rows.mapToSource(current).row()))

    def _words(self, layer: int, head: int) -> str:
        """A head, with the score that the heads are filtered by."""
        key = self.by.currentData()
        score = minus(f"{self.scores.value(key, layer, head):.3f}") if key else ""
        return f"Layer {layer}, head {head}" + (f": {self.by.currentText().split()[0].lower()} {score}" if key else "")

    def _sort(self) -> None:
        """The chosen score beside the names, the highest first."""
        column, header = self.scores.column_of(self.by.currentData() or ""), self.table.horizontalHeader()
        if column:
            header.moveSection(header.visualIndex(column), 1)
        order = Qt.SortOrder.DescendingOrder if column else Qt.SortOrder.AscendingOrder
        self.table.sortByColumn(column, order)

    def _rank(self) -> None:
        place = self.by.findData(self._ranked) if self._ranked else -1
        if place < 0:
            return
        self._ranked = ""
        self.by.setCurrentIndex(place)
        self._sort()  # the table may have been sorted otherwise meanwhile
        best = self.scores.best(self.by.currentData())
        if best is not None:
            self.chosen.emit(*best)

    def _filter(self) -> None:
        key = self.by.currentData() or ""
        self.least.setVisible(bool(key))
        self._rows.set_filter(key, self.least.value())
        if self.mosaic.chosen[0] >= 0:
            self.choose(*self.mosaic.chosen)
        self.mosaic.dim(self.scores.below(key, self.least.value()) if key else None)


class _Rows(QSortFilterProxyModel):
    """Sorts by the numbers themselves, highest first where a score is; hides heads below a score."""

    def __init__(self, scores: HeadScores, parent: QWidget) -> None:
        super().__init__(parent)
        self._scores, self._key, self._least = scores, "", 0.0
        self.setSourceModel(scores)
        self.setSortRole(SORT_ROLE)

    def set_filter(self, key: str, least: float) -> None:
        self._key, self._least = key, least
        self.invalidate()  # not row by row: the chosen head stays chosen, also while its row is hidden

    def filterAcceptsRow(self, source_row: int, source_parent: Index) -> bool:
        if not self._key:
            return True
        return self._scores.value(self._key, *self._scores.head_of(source_row)) >= self._least
