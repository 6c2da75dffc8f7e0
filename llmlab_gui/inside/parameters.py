"""Parameters: how large weights and gradients are, how matrices spread, and which neurons a text leaves silent."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem, QWidget

from llmlab.core.errors import LabError
from llmlab.core.signs import minus
from llmlab.inspection.archive import Archive
from llmlab_gui.charts.layer_chart import LayerChart, Line, numbered
from llmlab_gui.inside.inspection_dock import AskingDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.labels import EmptyState, QuietLabel
from llmlab_gui.widgets.layouts import choice_box, column, split, stack
from llmlab_gui.widgets.numbers import read_out
from llmlab_gui.widgets.saving import Table

LAYERS, NEURONS, TENSORS = range(3)
_VIEWS = ("Norms by layer", "Neurons by layer", "All tensors")
_CAPTIONS = (
    ("The length of all weights of a layer together, and of their gradient while the run trains.", "optimisation"),
    ("How many neurons stay silent on this prompt; a short text leaves more silent than a long one.", "feed-forward"),
    ("Every weight tensor; click a matrix to see its singular values, and how many of them matter.", "optimisation"),
)
# By the rule that the archive names (llmlab.inspection.parameters).
_DEAD = {
    "never positive": "A neuron counts as dead when it is never above zero on this prompt.",
    "below threshold": "A neuron counts as dead when it never reaches a hundredth of its layer's typical activation.",
}
_COLUMNS = ("tensor", "shape", "numbers", "norm", "rms", "largest", "gradient")
_NORMS = (("layers/norm", "weights"), ("layers/gradient", "gradient"))
_NEURONS = (("neurons/dead", "dead on this prompt"), ("neurons/positive", "activations above zero"))
_ORDER = int(Qt.ItemDataRole.UserRole)


class ParametersDock(AskingDock):
    """One of three views; a matrix that was clicked shows its singular values below the table."""

    asks = ("parameters", "parameters.singular")

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "parameters", "Parameters", parent)
        self.view = choice_box("View of the parameters")
        self.view.addItems(_VIEWS)
        self.note = QuietLabel()
        self.chart = LayerChart("L2 norm")
        self.list = QTreeWidget()
        self.spectrum = LayerChart("singular value", x_label="rank")
        self.spectrum.set_log(x=False, y=True)
        self._problem = EmptyState()  # why there are no numbers; nothing while they are awaited
        self._lay_out()
        self.view.currentIndexChanged.connect(self._redraw)
        self.list.itemSelectionChanged.connect(self._choose)
        self._redraw()

    def pictures(self) -> list[QWidget]:
        if self.archive is None:
            return []
        if self.view.currentIndex() != TENSORS:
            return [self.chart]
        return [self.list, self.spectrum] if self.spectrum.isVisibleTo(self) else [self.list]

    def table(self) -> Table | None:
        """All tensors with all their numbers, or the lines of the chart."""
        archive = self.archive
        if archive is None:
            return None
        if self.view.currentIndex() != TENSORS:
            return self.chart.table()
        return _COLUMNS, [(name, "x".join(map(str, shape)), *numbers) for name, shape, *numbers in _tensors(archive)]

    # Asking ------------------------------------------------------------------------------------------------------

    def _draw_answer(self, archive: Archive) -> None:
        self._fill_list(archive)
        self._redraw()

    def _refuse(self, error: LabError) -> None:
        self._forget()
        self._problem.say(error.what, f"{error.why} {error.do}".strip(), "Try again", self._ask)

    def _forget(self) -> None:
        self.archive, self._asked = None, ()
        self._problem.say("", "")
        self.list.clear()
        self.spectrum.hide()
        self.note.hide()
        self._redraw()
        self.update_state()

    def _choose(self) -> None:
        """The singular values of a matrix."""
        items = self.list.selectedItems()
        name = items[0].text(0) if items else ""
        if not items or len(items[0].text(1).split(" × ")) != 2:
            self.spectrum.hide()
            return

        def take(archive: Archive) -> None:
            self._draw_spectrum(archive, name)

        self.session.ask("parameters", {"singular": [name]}, take, self._no_spectrum, "parameters.singular")

    def _no_spectrum(self, error: LabError) -> None:
        self.spectrum.hide()
        self._say([str(error)])

    # Drawing -----------------------------------------------------------------------------------------------------

    def _redraw(self) -> None:
        view, archive = self.view.currentIndex(), self.archive
        self.caption(*_CAPTIONS[view])
        if archive is None:
            self._views.setCurrentWidget(self._problem)
            return
        self._views.setCurrentIndex(1 if view == TENSORS else 0)
        notes = list(archive.metadata.notes)
        if view == LAYERS:
            self.chart.set_log(x=False, y="layers/gradient" in archive)  # gradients are far shorter than weights
            self.chart.show_lines(lines_of(archive, _NORMS), y="L2 norm")
            if "layers/gradient" not in archive:
                notes.append("Gradients are seen on a run while it trains.")
        elif view == NEURONS:
            self.chart.set_log(x=False, y=False)
            self.chart.show_lines(lines_of(archive, _NEURONS), y="share of the layer's neurons")
            rule = archive.metadata.more.get("dead")
            notes.append(_DEAD.get(rule or "", "This model's neurons cannot be inspected."))
        self._say(notes)

    def _say(self, notes: Sequence[str]) -> None:
        self.note.setText(" ".join(notes))
        self.note.setVisible(bool(notes))

    def _draw_spectrum(self, archive: Archive, name: str) -> None:
        values = np.asarray(archive[f"singular/{name}"], np.float64)
        places = np.arange(1, len(values) + 1, dtype=np.float64)
        self.spectrum.show()
        self.spectrum.show_lines([Line(name, places, values)])
        self._say(archive.metadata.notes)  # of a large matrix: that only its first singular values are there

    def _fill_list(self, archive: Archive) -> None:
        self.list.clear()
        for name, shape, count, *numbers in _tensors(archive):
            texts = [name, " × ".join(map(str, shape)), f"{count:,}"]
            texts += ["–" if math.isnan(number) else read_out(number, "value") for number in numbers]
            item = _Row(texts)
            for place, number in enumerate((count, *numbers), 2):
                item.setData(place, _ORDER, float(number))
                item.setTextAlignment(place, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                item.setToolTip(place, minus(f"{number:.9g}"))
            self.list.addTopLevelItem(item)

    def _lay_out(self) -> None:
        self.controls.addWidget(self.view)
        tree = self.list
        tree.setAccessibleName("Weight tensors")
        tree.setHeaderLabels(list(_COLUMNS))
        tree.setRootIsDecorated(False)
        tree.setUniformRowHeights(True)
        tree.setSortingEnabled(True)
        tree.sortByColumn(-1, Qt.SortOrder.AscendingOrder)  # the model's own order at first
        tree.header().setStretchLastSection(False)
        tree.header().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        tree.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        both = split(tree, self.spectrum, sizes=[260, 180], closes=True)
        self.spectrum.hide()
        self._views = stack(self.chart, both, self._problem)
        self.note.hide()
        numbers = column((self._views, 1))
        self.set_body(column((numbers, 1), self.note), numbers)


class _Row(QTreeWidgetItem):
    """Sorts numbers as numbers."""

    def __lt__(self, other: QTreeWidgetItem) -> bool:
        tree = self.treeWidget()
        column = tree.sortColumn() if tree is not None else 0
        ours, theirs = self.data(column, _ORDER), other.data(column, _ORDER)
        if ours is None or theirs is None:
            return self.text(column) < other.text(column)
        return float(ours) < float(theirs)


def lines_of(archive: Archive, parts: Sequence[tuple[str, str]]) -> list[Line]:
    """A line a layer for each part (name, words) that the archive has."""
    return [
        numbered(words, archive[name], color=color, markers=True)
        for color, (name, words) in enumerate(parts)
        if name in archive
    ]


def _tensors(archive: Archive) -> list[tuple]:
    """name, shape, count, norm, rms, largest, gradient of each, in the model's order."""
    more = archive.metadata.more
    names, shapes = json.loads(more["names"]), json.loads(more["shapes"])
    columns = [archive[f"parameters/{part}"].tolist() for part in ("count", "norm", "rms", "largest")]
    gradient = "parameters/gradient"
    columns.append(archive[gradient].tolist() if gradient in archive else [math.nan] * len(names))
    return list(zip(names, shapes, *columns, strict=True))
