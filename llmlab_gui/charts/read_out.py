"""The values under the cross-hair, in a small box beside it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QWidget

from llmlab_gui.charts.curve import CurveStyle
from llmlab_gui.widgets.numbers import read_out
from llmlab_gui.widgets.theme import Theme

_GAP = 14  # pixels between the cross-hair and the box


@dataclass(frozen=True)
class ReadOutRow:
    """One curve's nearest point."""

    style: CurveStyle
    x: float
    y: float


class ReadOut(QLabel):
    """Lies over a chart and lets the mouse through."""

    def __init__(self, chart: QWidget) -> None:
        super().__init__(chart)
        self._chart = chart
        self.setTextFormat(Qt.TextFormat.RichText)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setObjectName("readOut")
        self.hide()

    def show_rows(
        self, rows: list[ReadOutRow], x: float, x_label: str, x_kind: str, y_kind: str, y_unit: str, at: float
    ) -> None:
        """Writes the rows, grouped by run, beside the place `at` (pixels from the chart's left edge)."""
        # Percentages have their sign already, and a long unit is on the axis.
        unit = f" {y_unit}" if y_unit and y_kind != "percent" and len(y_unit) < 10 else ""
        lines = [f"<tr><td colspan=3><b>{escape(x_label)} {read_out(x, x_kind)}</b></td></tr>"]
        group = None
        several = len({row.style.group for row in rows}) > 1
        for row in rows:
            if several and row.style.minor:
                continue
            if several and row.style.group != group:
                group = row.style.group
                lines.append(f"<tr><td colspan=3>{escape(group)}</td></tr>")
            # Evaluations are far apart: say where the value was measured when that is not here.
            away = f" at {read_out(row.x, x_kind)}" if read_out(row.x, x_kind) != read_out(x, x_kind) else ""
            away = away if row.style.markers else ""
            lines.append(
                f'<tr><td><span style="color:{row.style.color.name()}">●</span></td>'
                f"<td>{escape(row.style.label)}&nbsp;</td>"
                f'<td align="right">{read_out(row.y, y_kind)}{unit}{away}</td></tr>'
            )
        self.setText(f"<table cellspacing=0 cellpadding=1>{''.join(lines)}</table>")
        self.adjustSize()
        left = at + _GAP
        if left + self.width() > self._chart.width():
            left = at - _GAP - self.width()
        self.move(int(max(0.0, left)), 10)
        self.show()

    def apply_theme(self, theme: Theme) -> None:
        self.setStyleSheet(
            f"#readOut {{ background: {theme.background}; color: {theme.text}; border: 1px solid {theme.grid};"
            " border-radius: 4px; padding: 4px; }"
        )
