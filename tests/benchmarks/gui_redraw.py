"""How long a redraw of a million points takes, beside plain pyqtgraph in the same process, interleaved.

python tests/benchmarks/gui_redraw.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
import pyqtgraph as pg
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QApplication, QWidget

from llmlab_gui.charts.curve import CurveStyle
from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.charts.smoothing import smooth

SIZE = (1000, 500)
BAR_MS = 33.0
_windows: list[QWidget] = []  # nothing else holds the plain ones


def main() -> None:
    """Each case redraws with new points, in turns, so that all meet the same load of the machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    app = QApplication.instance() or QApplication([])
    x = np.arange(1.0, arguments.points + 1)
    raw = 1.5 + 3 / np.sqrt(1 + x / 5000) + 0.1 * np.random.default_rng(0).standard_normal(len(x))
    smoothed = smooth(x, raw, 1000)
    cases = {
        "lab: raw + smoothed (width 2)": _lab(x, [(raw, 1.0), (smoothed, 2.0)]),
        "lab: raw, width 1": _lab(x, [(raw, 1.0)]),
        "plain pyqtgraph: raw, width 1": _plain(x, [(raw, 1.0)]),
        "plain, clipToView + peak downsampling": _plain(x, [(raw, 1.0)], downsampled=True),
        "plain, the same: raw + smoothed (width 2)": _plain(x, [(raw, 1.0), (smoothed, 2.0)], downsampled=True),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(arguments.rounds + 1):
        for name, redraw in cases.items():
            begin = time.perf_counter()
            redraw()
            app.processEvents()  # the scene tells the view what changed,
            app.processEvents()  # and the view paints it
            if turn:  # the first builds what later ones keep
                times[name].append((time.perf_counter() - begin) * 1e3)
    best = statistics.median(times["lab: raw, width 1"])
    print(f"{arguments.points:,} points, {SIZE[0]} x {SIZE[1]} pixels, median of {arguments.rounds} (slowest)")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"  {name:44} {median:7.1f} ms ({max(values):.1f})   {median / best:5.1f}x")
    main_case = statistics.median(times["lab: raw + smoothed (width 2)"])
    print(f"bar: under {BAR_MS:.0f} ms: {'met' if main_case < BAR_MS else 'MISSED'} ({main_case:.1f} ms)")


def _lab(x: np.ndarray, curves: list[tuple[np.ndarray, float]]) -> Callable[[], None]:
    chart = _shown(LineChart("loss", "nats per token"))
    styles = [
        CurveStyle(QColor("#0072b2"), "train", width=width, alpha=90 if width == 1 else 255) for _, width in curves
    ]

    def redraw() -> None:
        for index, ((y, _), style) in enumerate(zip(curves, styles, strict=True)):
            chart.set_curve(str(index), x, y, style)
        chart.draw()

    return redraw


def _plain(x: np.ndarray, curves: list[tuple[np.ndarray, float]], *, downsampled: bool = False) -> Callable[[], None]:
    plot = _shown(pg.PlotWidget())
    items = [plot.plot(pen=pg.mkPen("#0072b2", width=width)) for _, width in curves]
    for item in items:
        if downsampled:
            item.setClipToView(True)
            item.setDownsampling(auto=True, method="peak")

    def redraw() -> None:
        for item, (y, _) in zip(items, curves, strict=True):
            item.setData(x, y)

    return redraw


def _shown(widget: QWidget) -> QWidget:
    widget.resize(*SIZE)
    widget.show()
    _windows.append(widget)
    return widget


if __name__ == "__main__":
    main()
