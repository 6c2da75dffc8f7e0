"""Embedding geometry: tokens or positions on their principal components, and which are nearest to one."""

from __future__ import annotations

import json

import numpy as np
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHeaderView, QLabel, QLineEdit, QTreeWidget, QTreeWidgetItem, QWidget

from llmlab.core.errors import LabError
from llmlab.core.signs import minus
from llmlab.inspection.archive import Archive
from llmlab_gui.charts.scatter import Scatter
from llmlab_gui.inside.inspection_dock import AskingDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.alternatives import visible
from llmlab_gui.widgets.labels import QuietLabel, labelled
from llmlab_gui.widgets.layouts import choice_box, column, split
from llmlab_gui.widgets.saving import Table

_MATRICES = (("tokens", "Token embeddings"), ("unembedding", "Unembedding"), ("positions", "Position embeddings"))
_PAIRS = ((1, 2), (1, 3), (2, 3))  # of components
_SAMPLES = (200, 500, 2000)
_COMPONENTS = 3


class GeometryDock(AskingDock):
    """A scatter with names, and the list of neighbours of the token that was clicked."""

    asks = ("geometry",)

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "geometry", "Embedding geometry", parent)
        self.matrix = choice_box("Which embedding", _MATRICES)
        self.pair = choice_box("Which components", [(pair, "components {} and {}".format(*pair)) for pair in _PAIRS])
        self.sample = choice_box("How many are shown", [(count, f"up to {count:,}") for count in _SAMPLES])
        self.near = labelled(QLineEdit(placeholderText="a token"), "Token whose neighbours are listed")
        self.near.setMaximumWidth(130)
        self.near.setToolTip("Press Enter; a leading space counts: “ king” is another token than “king”")
        self.scatter = Scatter("Embeddings on two principal components")
        self.neighbours = labelled(QTreeWidget(), "Nearest tokens")
        self.note = QuietLabel()
        self._lay_out()
        self.caption(
            "A projection onto two dimensions: what is far apart here is far apart, but touching points may still "
            "be far apart.",
            "embeddings",
        )
        for combo in (self.matrix, self.sample):
            combo.currentIndexChanged.connect(self._ask_anew)
        self.pair.currentIndexChanged.connect(self._redraw)
        self.near.returnPressed.connect(self._ask)
        self.scatter.clicked.connect(self._choose)
        self.neighbours.itemActivated.connect(lambda item, _column: self._find(str(item.data(0, _TEXT))))

    def stale(self) -> str:
        """Of another model or prompt; or of another embedding, until the model has answered."""
        shown = self.archive.metadata.question.get("matrix", _MATRICES[0][0]) if self.archive is not None else None
        other = shown not in (None, self.matrix.currentData())
        return super().stale() or (f"of {dict(_MATRICES)[str(shown)].lower()}" if other else "")

    def pictures(self) -> list[QWidget]:
        return [self.scatter] if self.archive is not None else []

    def table(self) -> Table | None:
        """id, text, coordinates and norm of every point shown."""
        archive = self.archive
        if archive is None:
            return None
        points, norms = archive["geometry/points"], archive["geometry/norm"]
        header = ["id", "text", *(f"component {number + 1}" for number in range(points.shape[1])), "norm"]
        ids, names = archive["geometry/ids"].tolist(), archive.metadata.tokens
        rows = [(id, name, *point, norm) for id, name, point, norm in zip(ids, names, points, norms, strict=True)]
        return header, rows

    # Asking ------------------------------------------------------------------------------------------------------

    def _question(self) -> dict[str, object]:
        return {
            "matrix": self.matrix.currentData(),
            "sample": self.sample.currentData(),
            "components": _COMPONENTS,
            "near": self.near.text(),
        }

    def _ask_anew(self) -> None:
        self.near.clear()
        self._ask()
        self.update_state()

    def _forget(self) -> None:
        self.archive, self._asked = None, ()
        self.near.clear()
        self.neighbours.clear()
        self.scatter.show_points(np.zeros((0, 2)), [], [], ("", ""))
        self.note.setText("")
        self.update_state()

    def _draw_answer(self, archive: Archive) -> None:
        self._redraw()

    def _refuse(self, error: LabError) -> None:
        self.note.setText(str(error))

    # Drawing -----------------------------------------------------------------------------------------------------

    def _redraw(self) -> None:
        archive = self.archive
        if archive is None:
            return
        points = np.asarray(archive["geometry/points"], np.float64)
        explained = archive["geometry/explained"].tolist()
        first, second = self._pair(points.shape[1])
        ids, norms = archive["geometry/ids"].tolist(), archive["geometry/norm"].tolist()
        names = [visible(name) for name in archive.metadata.tokens]
        tips = [f"{name}  id {id}, norm {norm:.4g}" for name, id, norm in zip(names, ids, norms, strict=True)]
        x, y = (f"component {n + 1} ({100 * explained[n]:.3g} %" for n in (first, second))
        self.scatter.show_points(points[:, [first, second]], names, tips, (f"{x} of the variance)", f"{y})"))
        self._list_neighbours(archive)
        self.note.setText(" ".join(archive.metadata.notes))

    def _pair(self, components: int) -> tuple[int, int]:
        first, second = self.pair.currentData()
        return min(first, components) - 1, min(second, components) - 1

    def _list_neighbours(self, archive: Archive) -> None:
        self.neighbours.clear()
        listed = "neighbours/ids" in archive
        self.neighbours.setVisible(listed)
        if not listed:
            return
        texts = json.loads(archive.metadata.more.get("texts", "{}"))
        places = {id: place for place, id in enumerate(archive["geometry/ids"].tolist())}
        ids, cosines = archive["neighbours/ids"].tolist(), archive["neighbours/cosine"].tolist()
        for id, cosine in zip(ids, cosines, strict=True):
            text = texts.get(str(id), f"[{id}]")
            item = QTreeWidgetItem([visible(text), minus(f"{cosine:.4f}")])
            item.setData(0, _TEXT, text)
            item.setTextAlignment(1, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            item.setToolTip(1, f"cosine {minus(f'{cosine:.7g}')}")
            self.neighbours.addTopLevelItem(item)
        self.neighbours.setHeaderLabels([f"near {visible(archive.metadata.more.get('near', ''))}", "cosine"])
        chosen = int(archive.metadata.more.get("near_id", "-1"))
        self.scatter.mark([places[id] for id in (chosen, *ids) if id in places])

    def _choose(self, place: int) -> None:
        if self.archive is not None:
            self._find(self.archive.metadata.tokens[place])

    def _find(self, text: str) -> None:
        self.near.setText(text)
        self._ask()

    def _lay_out(self) -> None:
        self.sample.setCurrentIndex(1)
        self.controls.add(self.matrix, self.pair, self.sample, QLabel("nearest to"), self.near)
        self.neighbours.setColumnCount(2)
        self.neighbours.setRootIsDecorated(False)
        self.neighbours.setUniformRowHeights(True)
        self.neighbours.header().setStretchLastSection(False)
        self.neighbours.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.neighbours.header().setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self.neighbours.hide()
        both = split(self.scatter, self.neighbours, across=True, sizes=[520, 190], closes=True)
        numbers = column((both, 1))
        self.set_body(column((numbers, 1), self.note), numbers)


_TEXT = int(Qt.ItemDataRole.UserRole)
