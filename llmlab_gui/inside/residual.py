"""Residual stream: norms, what each part adds, and where the direction turns, layer by layer."""

from __future__ import annotations

import numpy as np
from PySide6.QtWidgets import QCheckBox, QWidget

from llmlab.inspection.archive import Archive, Array
from llmlab_gui.charts.heatmap import Heat, Heatmap
from llmlab_gui.charts.layer_chart import LayerChart, Line, numbered
from llmlab_gui.inside.inspection_dock import InspectionDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.alternatives import visible
from llmlab_gui.widgets.labels import QuietLabel
from llmlab_gui.widgets.layouts import choice_box, column, stack
from llmlab_gui.widgets.numbers import exact
from llmlab_gui.widgets.saving import Table

NORMS, COSINES, MAP = "norms", "cosines", "map"
_VIEWS = ((NORMS, "Norms by layer"), (COSINES, "Cosines by layer"), (MAP, "Layer by token"))
_CAPTIONS = {
    NORMS: "The stream's length after each half of a layer, and the length of what is added to it.",
    COSINES: "How much a part turns the residual stream: cosine of the stream before and after it.",
    MAP: "One value per layer and token: hover to read it, click to select the token in all panels.",
}


class ResidualDock(InspectionDock):
    """Lines of the selected token and of the mean, or a map of all tokens."""

    aspects = ("contributions",)

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "residual", "Residual stream", parent)
        self.view = choice_box("View of the residual stream", _VIEWS)
        quantities = [(key, f"{text} ({unit})") for key, text, unit in QUANTITIES]
        self.quantity = choice_box("Quantity in the map", quantities)
        self.mean = QCheckBox("mean of tokens")
        self.mean.setChecked(True)
        self.log = QCheckBox("log y")
        self.chart = LayerChart("L2 norm", x_label="layers passed")
        self.map = Heatmap("Residual stream, layer by token", square=False)
        self.note = QuietLabel()
        self.note.hide()
        self.controls.add(self.view, self.quantity, self.mean, self.log)
        self._views = stack(self.chart, self.map)
        self.set_body(column((self._views, 1), self.note))
        self.view.currentIndexChanged.connect(self._change_view)
        self.quantity.currentIndexChanged.connect(self._redraw)
        self.mean.toggled.connect(self._redraw)
        self.log.toggled.connect(lambda on: self.chart.set_log(x=False, y=on))
        self.map.clicked.connect(lambda row, column: self.session.select(layer=row, token=column))
        self.map.pointed.connect(lambda _row, column: self.session.hover(column))
        self.session.hover_changed.connect(self._point_at)
        self.session.selection_changed.connect(self._redraw)
        self._change_view()

    def draw(self, archive: Archive) -> None:
        """Lines and map of a new inspection."""
        if "contributions/norm/post_ffn" not in archive:  # found for other panels, before this one was in sight
            return
        self.archive, self._columns = archive, Columns(archive)
        note = virtual(archive)
        self.note.setText(note)
        self.note.setVisible(bool(note))
        self._redraw()

    def pictures(self) -> list[QWidget]:
        return [self.map if self._view == MAP else self.chart]

    def table(self) -> Table | None:
        """Lines: line, x, value. Map: layer, position, token, value."""
        if self.archive is None:
            return None
        if self._view != MAP:
            return self.chart.table()
        tokens, values = self.archive.metadata.tokens, self.archive[f"contributions/{self._quantity}"]
        cells = [
            (layer, place, tokens[place], value) for layer, row in enumerate(values) for place, value in enumerate(row)
        ]
        return ("layer", "position", "token", self._quantity), cells

    def tensors(self) -> tuple[Archive, list[str]] | None:
        names = ["contributions/norm/", "contributions/cosine/"]
        return (self.archive, names) if self.archive is not None else None

    @property
    def _view(self) -> str:
        return str(self.view.currentData())

    @property
    def _quantity(self) -> str:
        return str(self.quantity.currentData())

    def _point_at(self, token: int) -> None:
        self.map.point_at(-1, token)

    def _change_view(self) -> None:
        view = self._view
        self.quantity.setVisible(view == MAP)
        self.mean.setVisible(view != MAP)
        self.log.setVisible(view == NORMS)
        self._views.setCurrentWidget(self.map if view == MAP else self.chart)
        self.caption(_CAPTIONS[view], "residual-stream")
        if view == COSINES:
            self.log.setChecked(False)
        self._redraw()

    def _redraw(self) -> None:
        archive = self.archive
        if archive is None:
            return
        tokens = archive.metadata.tokens
        place = self.session.selection.token_at(len(tokens))
        if self._view == MAP:
            self._draw_map(archive, place)
            return
        name = f"“{visible(tokens[place])}”" if tokens else ""
        if self._view == NORMS:
            lines = norm_lines(self._columns, place, name, mean=self.mean.isChecked())
            self.chart.show_lines(lines, x="layers passed", y="L2 norm")
        else:
            lines = cosine_lines(self._columns, place, name, mean=self.mean.isChecked())
            self.chart.show_lines(lines, x="layer", y="cosine")

    def _draw_map(self, archive: Archive, place: int) -> None:
        values = np.asarray(archive[f"contributions/{self._quantity}"])
        tokens = [visible(token) for token in archive.metadata.tokens]
        unit = self.quantity.currentText()
        signed = bool((values < 0).any())
        inner = values[:, 1:] if values.shape[1] > 2 else values  # the first token's are far longer in most models
        self.map.describe = lambda layer, column: (
            f"{unit}, layer {layer}, token {column} “{tokens[column]}”: {exact(values[layer, column])}"
        )
        rows = [str(layer) for layer in range(len(values))]
        high = float(np.nanmax(np.abs(inner))) if inner.size else 1.0
        self.map.show_heat(Heat(values, rows, tokens, "layer", "token", signed=signed, high=high))
        self.map.choose(self.session.selection.layer, place)


# Quantities that a map can show: name in the archive (below contributions/), words, what it is.
QUANTITIES = (
    ("norm/post_ffn", "Stream after the layer", "L2 norm"),
    ("norm/post_attn", "Stream after attention", "L2 norm"),
    ("norm/attn_out", "Attention output", "L2 norm"),
    ("norm/mlp_out", "Feed-forward output", "L2 norm"),
    ("cosine/attention", "Stream before and after attention", "cosine"),
    ("cosine/feed_forward", "Stream before and after the feed-forward", "cosine"),
    ("cosine/block", "Stream before and after the layer", "cosine"),
)
# Two points of the stream a layer, then what is added; x counts layers that a vector has passed.
_ADDED = (("attn_out", "attention adds", 1, 0.5), ("mlp_out", "feed-forward adds", 2, 1.0))
_COSINES = (("attention", "attention", 1), ("feed_forward", "feed-forward", 2), ("block", "whole layer", 0))


class Columns:
    """Columns of an inspection's maps, [L] each: of a token, or the mean over all, which is found once."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._means: dict[str, Array] = {}

    def of(self, name: str, token: int | None) -> Array:
        """name: below contributions/. token: None for the mean of all tokens."""
        values = self._archive[f"contributions/{name}"]
        if token is not None:
            return np.asarray(values[:, token], np.float64)
        if name not in self._means:
            self._means[name] = values.mean(axis=1, dtype=np.float64)
        return self._means[name]


def norm_lines(columns: Columns, token: int, name: str, *, mean: bool) -> list[Line]:
    """Norms at a token, and their mean over tokens dotted. Stream: embedding at 0, each layer's halves after it."""
    lines = []
    for at, suffix in [(token, name), *([(None, "mean of tokens")] if mean else [])]:
        dotted = at is None
        legend = "mean of tokens" if dotted else f"stream at {name}"
        lines.append(Line(f"stream, {suffix}", *_stream(columns, at), color=0, dotted=dotted, legend=legend))
        for point, words, color, offset in _ADDED:
            values = columns.of(f"norm/{point}", at)
            x = np.arange(len(values)) + offset
            legend = "" if dotted else words
            lines.append(Line(f"{words}, {suffix}", x, values, color=color, dotted=dotted, legend=legend))
    return lines


def cosine_lines(columns: Columns, token: int, name: str, *, mean: bool) -> list[Line]:
    """Cosine of the stream before and after each part: 1 where it keeps its direction."""
    lines = []
    for at, suffix in [(token, name), *([(None, "mean of tokens")] if mean else [])]:
        for part, words, color in _COSINES:
            values = columns.of(f"cosine/{part}", at)
            first = "mean of tokens" if part == "attention" else ""
            legend = first if at is None else words
            lines.append(numbered(f"{words}, {suffix}", values, color=color, dotted=at is None, legend=legend))
    return lines


def virtual(archive: Archive) -> str:
    """The note that post_attn exists nowhere in the model (parallel blocks), "" where it does."""
    return next((note for note in archive.metadata.notes if "post_attn" in note and "virtual" in note), "")


def _stream(columns: Columns, token: int | None) -> tuple[Array, Array]:
    """x and norm at pre_attn of the first layer, and at post_attn and post_ffn of each."""
    first = columns.of("norm/pre_attn", token)[:1]
    halves = [columns.of(f"norm/{point}", token) for point in ("post_attn", "post_ffn")]
    values = np.concatenate([first, np.stack(halves, axis=1).reshape(-1)])
    return np.arange(len(values)) / 2, values
