"""The points of curves over steps as a table: copied while a run goes on, and written in the background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmlab_gui.charts.line_chart import LineChart
from llmlab_gui.widgets.saving import quoted, save


@dataclass(frozen=True)
class Points:
    """One curve's points, as they go into a CSV file."""

    run: str
    curve: str
    unit: str
    x: np.ndarray
    y: np.ndarray


def points(charts: Sequence[LineChart]) -> list[Points]:
    """All points of all curves, copied, so that they can be written while the run goes on."""
    found = []
    for chart in charts:
        for curve in chart.curves().values():
            style = curve.style
            found.append(Points(style.group, style.label, chart.y_unit, curve.x.copy(), curve.y.copy()))
    return found


def save_points(found: Sequence[Points], x_name: str, path: Path) -> None:
    """One row a point: run, curve, unit, x, value, at full precision. Touches no Qt. Raises LabError."""
    parts = [f"run,curve,unit,{quoted(x_name)},value\n"]
    for one in found:
        front = ",".join(quoted(text) for text in (one.run, one.curve, one.unit))
        pairs = zip(one.x.tolist(), one.y.tolist(), strict=True)
        parts.append("".join(f"{front},{_number(a)},{_number(b)}\n" for a, b in pairs))
    save(path, "".join(parts).encode())


def _number(value: float) -> str:
    if value != value:
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
