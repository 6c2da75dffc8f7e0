"""A FakeLab with an inspection session on a FakeModelHost."""

from __future__ import annotations

from pathlib import Path

from fake_lab import FakeLab
from fake_model import FakeModelHost
from PySide6.QtCore import QPoint, Signal
from pytestqt.qtbot import QtBot
from windows import shown

from llmlab_gui.charts.bars import Bars
from llmlab_gui.charts.layer_chart import LayerChart, Line
from llmlab_gui.charts.redraw import RedrawTimer
from llmlab_gui.charts.value_grid import ValueGrid
from llmlab_gui.host.session import InspectionSession
from llmlab_gui.inside.inspection_dock import InspectionDock

PROMPT = "the king said to the queen that"


class InspectionLab(FakeLab):
    """What an inspection dock needs of a lab."""

    said = Signal(str)

    def __init__(self, outputs: Path, host: FakeModelHost | None = None) -> None:
        super().__init__(outputs)
        self.host = host or FakeModelHost()
        self.redraw = RedrawTimer(self)
        self.inspection = InspectionSession(outputs, self, host=self.host)
        self.inspection.failed.connect(self.error_raised)
        self.words: list[str] = []
        self.said.connect(self.words.append)

    def open(self, qtbot: QtBot, dock: InspectionDock, prompt: str = PROMPT, model: str = "bar@150") -> None:
        """Shows the dock with a model that has read a prompt."""
        shown(dock, qtbot, 760, 560)
        self.inspection.open(model)
        qtbot.waitUntil(lambda: self.inspection.about is not None)
        self.inspection.set_prompt(prompt, False, at_once=True)
        if dock.needs_inspection:
            qtbot.waitUntil(lambda: self.inspection.look.archive is not None)
        else:
            qtbot.waitUntil(lambda: bool(self.inspection.tokens))

    def close(self) -> None:
        """Ends what ticks."""
        self.redraw.stop()
        self.inspection.shutdown()


def line_of(chart: LayerChart, label: str) -> Line:
    """A line of a chart."""
    return next(line for line in chart.lines if line.label == label)


def value_of(bars: Bars, label: str, series: int) -> float:
    """A bar's value."""
    group = next(group for group in bars.groups if group.label == label)
    return next(bar.value for bar in group.bars if bar.series == series)


def center_of(grid: ValueGrid, row: int, column: int) -> QPoint:
    """The middle of a cell, in the viewport of its table."""
    return grid.table.visualRect(grid.table.cells.index(row, column)).center()
