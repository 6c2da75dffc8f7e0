"""How long the examples are: a histogram, with the length at which they are cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, Qt
from PySide6.QtGui import QColor

from llmlab.core.charts import Axis
from llmlab.data.example_preview import Preview
from llmlab_gui.charts.figure_chart import FigureChart, Line
from llmlab_gui.widgets.saving import Cell
from llmlab_gui.widgets.theme import current_theme

# Of what is shown: room above the highest bar.
_ABOVE = 1.08
_AXES = Axis("tokens of an example"), Axis("examples")


class LengthHistogram(FigureChart):
    """Bars of how many examples have so many tokens; those beyond the maximal length in another colour."""

    def __init__(self) -> None:
        self.preview: Preview | None = None
        super().__init__("Lengths of the examples")

    def show_preview(self, preview: Preview) -> None:
        """Replaces it."""
        self.preview = preview
        self.setAccessibleDescription(
            f"{preview.shortest} to {preview.longest} tokens, half of them up to {preview.median}; {self.cut_words}"
        )
        self.begin(_AXES if preview.lengths else None, fresh=True)

    @property
    def cut_words(self) -> str:
        """How many are longer than what is read."""
        if self.preview is None:
            return ""
        longer = self.preview.longer
        return f"{longer:,} {'is' if longer == 1 else 'are'} longer" if longer else "none is longer"

    def table(self) -> tuple[Sequence[str], list[list[Cell]]]:
        """Header and rows, for export."""
        preview = self.preview
        rows: list[list[Cell]] = []
        if preview is not None:
            for place, count in enumerate(preview.lengths):
                begin = place * preview.bin_width
                rows.append([begin, begin + preview.bin_width - 1, count])
        return ("tokens_from", "tokens_to", "examples"), rows

    def tip_at(self, where: QPointF) -> str:
        """How many examples are so long as the bar over or under the pointer says."""
        preview = self.preview
        x = self._view.mapSceneToView(self.mapToScene(where.toPoint())).x()
        if preview is None or not self._first() <= x < self._end():
            return ""
        place = int(x // preview.bin_width)
        begin, width = place * preview.bin_width, preview.bin_width
        tokens = f"{begin:,}" if width == 1 else f"{begin:,} to {begin + width - 1:,}"
        return f"{tokens} tokens: {preview.lengths[place]:,} examples"

    def _draw(self) -> None:
        theme, preview = current_theme(), self.preview
        assert preview is not None
        for axis in self._axes.values():
            axis.set_kind("count")
        begins = np.arange(len(preview.lengths)) * preview.bin_width
        colors = [QColor(theme.bad if begin > preview.max_length else theme.series[0]) for begin in begins]
        edges = {"x0": begins, "x1": begins + preview.bin_width, "y0": 0, "height": preview.lengths}
        self._add(pg.BarGraphItem(**edges, brushes=colors, pen=pg.mkPen(QColor(theme.surface))))
        limit = preview.max_length + 1
        pen = pg.mkPen(QColor(theme.warning if preview.longer else theme.quiet), style=Qt.PenStyle.DashLine)
        self._add(pg.InfiniteLine(limit, angle=90, pen=pen))
        beyond = " →" if limit > self._end() else ""
        words = f"truncated at {preview.max_length:,} tokens: {self.cut_words}{beyond}"
        self.legend.add(pg.PlotCurveItem(pen=pen), words)

    def _fit_view(self) -> None:
        """Bars stand on the axis."""
        if self.preview is not None and self.preview.lengths:
            highest = _ABOVE * max(self.preview.lengths)
            self._view.setRange(
                xRange=(self._first(), self._end()), yRange=(0, highest), padding=0, disableAutoRange=True
            )

    def _seen(self) -> Line:
        return np.array([self._first(), self._end()]), np.array([0.0, 1.0])

    def _first(self) -> int:
        """Where the axis begins: short of the shortest, or at 0 where that costs little room."""
        assert self.preview is not None
        begin = self.preview.shortest // self.preview.bin_width * self.preview.bin_width
        return 0 if begin < (self._end() - begin) else begin - self.preview.bin_width

    def _end(self) -> int:
        assert self.preview is not None
        return len(self.preview.lengths) * self.preview.bin_width
