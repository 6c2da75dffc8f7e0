"""One head step by step: scores, scaled, masked, pattern, with the numbers of the cell that is pointed at."""

from __future__ import annotations

import html

import numpy as np
from PySide6.QtCore import Signal
from PySide6.QtWidgets import QGridLayout, QLabel, QWidget

from llmlab.inspection.archive import Archive
from llmlab_gui.charts.heatmap import Heat, Heatmap
from llmlab_gui.widgets.alternatives import visible
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import column
from llmlab_gui.widgets.numbers import read_out

# Name in the archive, title, unit, whether it is centred at zero.
_STAGES = (
    ("scores", "1 · scores q·k", "q·k", True),
    ("scaled", "2 · scaled", "logit", True),
    ("masked", "3 · masked", "logit", True),
    ("pattern", "4 · pattern (softmax)", "share", False),
)


class StagesPane(QWidget):
    """pointed(query, key), clicked(query, key)."""

    pointed = Signal(int, int)
    clicked = Signal(int, int)

    def __init__(self) -> None:
        super().__init__()
        self.archive: Archive | None = None
        self.words = labelled(QLabel(wordWrap=True), "Stages of the cell under the pointer")
        self.words.setMinimumHeight(2 * self.words.fontMetrics().height() + 6)
        self.maps = {name: Heatmap(title) for name, title, _, _ in _STAGES}
        self._cell = (-1, -1)
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        for place, (name, title, _, _) in enumerate(_STAGES):
            grid.addWidget(column(QLabel(title), (self.maps[name], 1), spacing=0), place // 2, place % 2)
            self.maps[name].line = False
            self.maps[name].pointed.connect(self._point)
            self.maps[name].clicked.connect(self.clicked)
        maps = QWidget()
        maps.setLayout(grid)
        column((maps, 1), self.words, into=self)

    def show_stages(self, archive: Archive) -> None:
        """An answer to `stages`."""
        self.archive = archive
        names = [visible(text) for text in archive.metadata.tokens]
        for name, _, unit, signed in _STAGES:
            values = archive[f"stages/{name}"]
            high = None if signed else 1.0
            self.maps[name].show_heat(Heat(values, names, names, "query", "key", signed, high, unit))
        self._say()

    def set_log(self, log: bool) -> None:
        """Of the pattern; scores have signs."""
        self.maps["pattern"].set_log(log)

    def choose(self, query: int, key: int) -> None:
        """The cell that is explained while none is pointed at."""
        self._cell = (query, key)
        for heatmap in self.maps.values():
            heatmap.choose(query, key)
        self._say()

    def _point(self, query: int, key: int) -> None:
        for heatmap in self.maps.values():
            if heatmap is not self.sender():
                heatmap.point_at(query, key)
        self._say(query, key)
        self.pointed.emit(query, key)

    def _say(self, query: int = -1, key: int = -1) -> None:
        if query < 0:
            query, key = self._cell
        if self.archive is None or query < 0 or key < 0 or query >= len(self.archive.metadata.tokens):
            self.words.setText("Point at a cell to see every step of its computation.")
            return
        self.words.setText(stage_words(self.archive, query, key))


def stage_words(archive: Archive, query: int, key: int) -> str:
    """Every stage of one cell, as rich text."""

    def at(name: str) -> float:
        return float(archive[f"stages/{name}"][query, key])

    tokens = [html.escape(visible(archive.metadata.tokens[place])) for place in (query, key)]
    scale = archive.metadata.more.get("scale", "")
    steps = [
        f"<b>{tokens[0]}</b> ({query}) at <b>{tokens[1]}</b> ({key}): q·k = {_number(at('scores'))}",
        f"× {_number(float(scale))} = {_number(at('scaled'))}" if scale else f"scaled {_number(at('scaled'))}",
    ]
    if "stages/capped" in archive:
        steps.append(f"softcap {_number(at('capped'))}")
    masked = at("masked")
    if not np.isfinite(masked):
        reason = "it comes later" if key > query else "it is outside the sliding window"
        steps.append(f"masked, since {reason}")
    else:
        before = at("capped") if "stages/capped" in archive else at("scaled")
        steps.append("not masked" if abs(masked - before) < 1e-6 else f"with position bias {_number(masked)}")
    row = np.asarray(archive["stages/masked"][query])
    seen = int(np.isfinite(row).sum())
    steps.append(f"softmax over {seen:,} = <b>{_number(at('pattern'))}</b>")
    return " → ".join(steps)


def _number(value: float) -> str:
    return read_out(value, "value")
