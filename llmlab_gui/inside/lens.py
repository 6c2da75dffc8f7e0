"""Logit lens: what the model would predict if it stopped after each layer, at every token of the prompt."""

from __future__ import annotations

from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QCheckBox, QLabel, QWidget

from llmlab.inspection.archive import Archive
from llmlab_gui.charts.layer_chart import LayerChart, Line
from llmlab_gui.charts.value_grid import ValueGrid
from llmlab_gui.host.token_texts import texts_of
from llmlab_gui.inside.chosen_interventions import interventions_of_cell, offer_interventions
from llmlab_gui.inside.inspection_dock import AGAIN, InspectionDock
from llmlab_gui.inside.lens_data import (
    ENTROPY,
    KL,
    PROBABILITY,
    RANK,
    LensRow,
    is_read,
    lens_grid,
    lens_rows,
    rank_line,
    rows_read,
    target_text,
)
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.buttons import tool_button
from llmlab_gui.widgets.layouts import choice_box, split
from llmlab_gui.widgets.saving import Table

_COLORINGS = (
    (PROBABILITY, "Probability"),
    (RANK, "Rank of the correct token"),
    (ENTROPY, "Entropy"),
    (KL, "KL to the final"),
)
# Below this height, and where this width leaves room for both, the ranks go beside the table instead of under it.
_LOW, _NARROW = 420, 420
# More lines than these are a tangle, and the theme's colours run out.
_MOST_PINS = 6


class LensDock(InspectionDock):
    """A table of top tokens; clicking a cell pins its token, whose rank by layer is drawn below."""

    aspects = ("lens",)

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "lens", "Logit lens", parent)
        self._rows: list[LensRow] = []
        self.pins: list[int] = []
        self.coloring = choice_box("What colours the cells", _COLORINGS)
        self.halves = QCheckBox("after attention, too")
        self.unpin = tool_button("Unpin all", "Remove the lines of the pinned tokens", slot=self._unpin)
        self.grid = ValueGrid("Top token by layer and position")
        self.ranks = LayerChart("rank", x_label="layers passed")
        self.ranks.set_log(x=False, y=True)
        self.cut_off = QLabel()
        self.again = tool_button(AGAIN, "Read the rows that are missing", slot=lambda: self.session.look.want_again())
        self.controls.add(self.coloring, self.halves, self.unpin, self.cut_off, self.again)
        self._halves = split(self.grid, self.ranks, sizes=[320, 160], closes=True)
        self.set_body(self._halves)
        self.caption(
            "Each cell: the token that the residual stream at this layer points to, through the model's own last norm "
            "and unembedding. Click one to see the rank of the correct token by layer.",
            "logit-lens",
        )
        self._texts = texts_of(self.session)
        self._texts.arrived.connect(self._texts_arrived)
        self.coloring.currentIndexChanged.connect(self._redraw)
        self.halves.toggled.connect(self._redraw)
        self.grid.clicked.connect(self._choose)
        self.grid.asked.connect(self._offer)
        self.grid.pointed.connect(lambda _row, column: self.session.hover(column))
        self.session.hover_changed.connect(self.grid.hover_column)
        self.session.selection_changed.connect(self._mark)
        self._draw_pins()

    def draw(self, archive: Archive) -> None:
        """The table of a new inspection; pins stay while the prompt has such positions.

        A lens that begins anew, since another question came first, replaces the one in sight when it is as far.
        """
        if "lens/ids" not in archive:  # found for other panels, before this one was in sight
            return
        before = self.archive
        same = before is not None and before.metadata.token_ids == archive.metadata.token_ids
        if before is not None and same and not self.stale():
            model = archive.metadata.weights_sha256
            if before.metadata.weights_sha256 == model and rows_read(archive) < rows_read(before):
                return
        self.archive = archive
        if not same:
            self.pins = []
        self._redraw()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        across = event.size().height() < _LOW and event.size().width() > _NARROW
        self._halves.setOrientation(Qt.Orientation.Horizontal if across else Qt.Orientation.Vertical)

    def pictures(self) -> list[QWidget]:
        return [self.grid, self.ranks] if self.pins else [self.grid]

    def table(self) -> Table | None:
        """One row a cell: the shown rows, all tokens, with every number of the lens."""
        archive = self.archive
        if archive is None:
            return None
        header = ("row", "position", "token", "top", "top_id", "probability", "rank", "target_probability")
        names = ("rank", "target_probability", "entropy", "kl")
        found = []
        for row in self._rows:
            if not is_read(archive, row.place):
                continue
            ids, chances = archive["lens/ids"][row.place, :, 0], archive["lens/probability"][row.place, :, 0]
            rest = [archive[f"lens/{name}"][row.place] for name in names]
            for place, token in enumerate(archive.metadata.tokens):
                numbers = [values[place] for values in rest]
                top = self._text(int(ids[place]))
                found.append((row.label, place, token, top, int(ids[place]), chances[place], *numbers))
        return (*header, "entropy", "kl"), found

    def tensors(self) -> tuple[Archive, list[str]] | None:
        archive = self.archive
        whole = archive is not None and rows_read(archive) == archive.shape("lens/ids")[0]
        return (archive, ["lens/"]) if archive is not None and whole else None

    def update_state(self) -> None:
        """Says, too, how much of a lens there is that was cancelled on its way."""
        super().update_state()
        self._tell_missing()

    def _text(self, token: int) -> str:
        return self._texts.text(self.archive.metadata.model, token) if self.archive is not None else ""

    def _tell_missing(self) -> None:
        archive = self.archive
        read = sum(is_read(archive, row.place) for row in self._rows) if archive is not None else 0
        missing = read < len(self._rows) and not self.stale() and self.session.look.incomplete(self.aspects)
        self.cut_off.setText(f"{read} of {len(self._rows)} rows were read")
        for widget in (self.cut_off, self.again):
            widget.setVisible(missing)

    def _redraw(self) -> None:
        archive = self.archive
        if archive is None:
            return
        by = str(self.coloring.currentData())
        halves = self.halves.isChecked()
        self._rows = lens_rows(archive, halves=halves)
        self.grid.show_grid(lens_grid(archive, by, self._text, halves=halves))
        self._mark()
        self._draw_pins()
        self._tell_missing()

    def _mark(self) -> None:
        if self.archive is None:
            return
        selection = self.session.selection
        column = selection.token_at(len(self.archive.metadata.tokens))
        after = 2 * (selection.layer + 1)
        row = next((number for number, row in enumerate(self._rows) if row.place == after), -1)
        self.grid.mark(row, column)

    def _choose(self, row: int, column: int) -> None:
        """Pins the clicked cell, and selects it in all panels."""
        self.session.select(token=column, layer=max(0, (self._rows[row].place - 1) // 2))
        if column not in self.pins:
            self.pins = [*self.pins, column][-_MOST_PINS:]
            self._draw_pins()
        self.grid.mark(row, column)

    def _offer(self, row: int, column: int, where: QPoint) -> None:
        layer = max(0, (self._rows[row].place - 1) // 2)
        offer_interventions(self.lab, interventions_of_cell(layer, column), self, where)

    def _unpin(self) -> None:
        self.pins = []
        self._draw_pins()

    def _draw_pins(self) -> None:
        self.ranks.setVisible(bool(self.pins))
        self.unpin.setVisible(bool(self.pins))
        archive = self.archive
        if archive is None or not self.pins:
            return
        lines = []
        for color, column in enumerate(self.pins):
            label = f"{column}: “{target_text(archive, column, self._text)}”"
            lines.append(Line(label, *rank_line(archive, column), color=color, markers=True))
        self.ranks.show_lines(lines)

    def _texts_arrived(self) -> None:
        self.grid.draw_again()
        self._draw_pins()
