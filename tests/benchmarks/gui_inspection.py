"""How long charts of long prompts take to repaint, beside the same charts of short ones, interleaved; time of the CPU.

python tests/benchmarks/gui_inspection.py
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
from PySide6.QtCore import QPointF
from PySide6.QtWidgets import QApplication, QWidget

from llmlab_gui.charts.arcs import Arcs
from llmlab_gui.charts.color_scale import one_sided
from llmlab_gui.charts.grid_cells import Grid
from llmlab_gui.charts.heatmap import Heat, Heatmap
from llmlab_gui.charts.mosaic import Mosaic
from llmlab_gui.charts.value_grid import ValueGrid
from llmlab_gui.widgets.theme import apply_theme

SHORT, LONG = 40, 4000
_windows: list[QWidget] = []  # nothing else holds them

W = TypeVar("W", bound=QWidget)
Case = tuple[QWidget, Callable[[], object]]  # what is repainted, and a change before each repaint


def main() -> None:
    """Each case is repainted after a small change, short and long in turns, so that both meet the same load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=LONG)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    app = QApplication.instance() or QApplication([])
    apply_theme(app, "light")
    # Of the short prompt's time at most: what is painted depends on the view and hardly on the prompt, but zooming
    # looks at every cell in sight for the strongest of each pixel.
    for name, make, bar in (
        ("value grid, scrolled", _grid, 3),
        ("heatmap, pointed at", _heatmap, 3),
        ("heatmap, zoomed", _zoomed, 10),
        ("arcs, pointed at", _arcs, 3),
        ("mosaic of 1,024 heads, one chosen", _mosaic, 3),
    ):
        cases = [make(SHORT), make(arguments.tokens)]
        app.processEvents()
        times: list[list[float]] = [[], []]
        for turn in range(arguments.rounds + 1):
            for place, (widget, change) in enumerate(cases):
                change()
                begin = time.process_time()
                widget.repaint()
                if turn:  # the first builds what later ones keep
                    times[place].append((time.process_time() - begin) * 1e3)
        short, long = (statistics.median(values) for values in times)
        met = long / short < bar
        print(f"{name:36} {SHORT} tokens {short:6.1f} ms, {arguments.tokens:,} tokens {long:6.1f} ms, ", end="")
        print(f"{long / short:4.1f}x (bar {bar}x): {'met' if met else 'MISSED'}")


def _grid(tokens: int) -> Case:
    grid = _shown(ValueGrid("grid"), 900, 600)
    values = np.random.default_rng(0).random((31, tokens))
    rows, columns = (tuple(f"t{place}" for place in range(count)) for count in values.shape)
    tip = text = lambda row, column: f"{row}.{column}"
    grid.show_grid(Grid(values, rows, columns, one_sided(0, 1), tip, text))
    bar, places = grid.table.horizontalScrollBar(), _places(tokens)
    return grid.table.viewport(), lambda: bar.setValue(bar.maximum() * next(places) // tokens)


def _heatmap(tokens: int) -> Case:
    heatmap, places = _map(tokens), _places(tokens)
    return heatmap, lambda: heatmap.point_at(next(places), 5)


def _zoomed(tokens: int) -> Case:
    heatmap, factors = _map(tokens), itertools.cycle((1.1, 1 / 1.1))
    return heatmap, lambda: heatmap._view.zoom(next(factors), QPointF(300, 300))


def _map(tokens: int) -> Heatmap:
    heatmap = _shown(Heatmap("map"), 900, 900)
    names = [f"t{place}" for place in range(tokens)]
    heatmap.show_heat(Heat(_pattern(tokens), names, names, high=1.0))
    return heatmap


def _arcs(tokens: int) -> Case:
    arcs, places = _shown(Arcs(), 500, 700), _places(tokens)
    arcs.show_pattern(_pattern(tokens), [f"t{place}" for place in range(tokens)])
    return arcs.viewport(), lambda: arcs.point_at(next(places))


def _mosaic(tokens: int) -> Case:
    mosaic, places = _shown(Mosaic(), 700, 700), _places(32)
    side = min(64, tokens)  # as the model's process sends them
    mosaic.show_heads(np.random.default_rng(1).random((32, 32, side, side)).astype(np.float32))
    return mosaic, lambda: mosaic.choose(3, next(places))


def _pattern(tokens: int) -> np.ndarray:
    scores = np.random.default_rng(3).normal(size=(tokens, tokens)).astype(np.float32) * 4
    scores[np.triu_indices(tokens, 1)] = -np.inf
    grown = np.exp(scores - scores.max(1, keepdims=True))
    return grown / grown.sum(1, keepdims=True)


def _places(count: int) -> Iterator[int]:
    return itertools.cycle(range(0, count, max(1, count // 16)))


def _shown(widget: W, width: int, height: int) -> W:
    widget.resize(width, height)
    widget.show()
    _windows.append(widget)
    return widget


if __name__ == "__main__":
    main()
