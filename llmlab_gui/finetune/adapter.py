"""Adapter: what fine-tuning changed in each matrix of the active model, and in how many directions."""

from __future__ import annotations

from functools import partial

from PySide6.QtWidgets import QWidget

from llmlab.core.errors import LabError
from llmlab.core.kinds import fine_tunes
from llmlab.inspection.archive import Archive
from llmlab_gui.charts.bars import BarChart
from llmlab_gui.charts.heatmap import Heatmap
from llmlab_gui.finetune.adapter_views import VIEWS, AdapterTable, read_table
from llmlab_gui.inside.inspection_dock import AnswerDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import QuietLabel, labelled
from llmlab_gui.widgets.layouts import column, split
from llmlab_gui.widgets.one_line import ChoiceBox
from llmlab_gui.widgets.saving import Table

_OPEN = "Open a checkpoint of a fine-tuning run, or a base with an adapter: BASE+ADAPTER."


class AdapterDock(AnswerDock):
    """A map, layer by module, and below it the singular values of the cell that was clicked."""

    asks = ("change",)

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "adapter", "Adapter", parent)
        self.found: AdapterTable | None = None
        self._asked = ""
        self.view = labelled(ChoiceBox(), "What is shown of each matrix")
        for view in VIEWS:
            self.view.addItem(view.title)
        tip = "Both read the prompt, one after the other: see where they differ and what each predicts"
        self.compare = push_button("Compare with its base", self._compare, tip)
        self.note = QuietLabel()
        self.map = Heatmap("What changed, layer by module", square=False)
        self.spectrum = BarChart("Singular values of the change")
        self._lay_out()
        self.view.currentIndexChanged.connect(self._redraw)
        self.map.clicked.connect(self._choose)
        self.session.about_changed.connect(self._forget)
        self._redraw()

    def stale(self) -> str:
        """Of another model: what fine-tuning changed is the same on every prompt."""
        return self.session.choice.stale(self.archive, prompt=False) if self.archive is not None else ""

    def pictures(self) -> list[QWidget]:
        return [self.map, self.spectrum] if self.archive is not None else []

    def table(self) -> Table | None:
        """Every matrix with all its numbers."""
        return self.found.rows() if self.found is not None else None

    def _come_to_sight(self) -> None:
        super()._come_to_sight()
        if self.archive is None and self.session.working is None:  # it was cancelled, perhaps
            self._asked = ""
        self._ask()

    def update_state(self) -> None:
        """As every panel; a model that was not fine-tuned has nothing to show here, and the panel says what has."""
        super().update_state()
        about = self.session.about
        if about is not None and about.fine_tuned:
            return
        row = self.lab.current()
        if row is not None and fine_tunes(row.info.track):
            saved = row.model(live=False)
            open_it = partial(self.session.open, saved)
            if not saved:
                self.show_empty("What did fine-tuning change?", f"{row.name} has saved no checkpoint yet.")
            elif about is not None and about.live:
                hint = "Only checkpoints are measured."
                self.show_empty("This run has not ended", hint, "Open its newest checkpoint", open_it)
            else:
                self.show_empty("What did fine-tuning change?", f"Open {row.name} to see it.", "Open it", open_it)
        elif about is None and not self.session.opening:
            choose = self.session.choose_requested.emit
            self.show_empty("No fine-tuned model is open", _OPEN, "Choose a model", choose)
        elif about is not None:
            choose = self.session.choose_requested.emit
            self.show_empty(f"{about.name} was not fine-tuned", _OPEN, "Choose a model", choose)

    def _offer_model(self) -> None:
        """Also where the model that is open was not fine-tuned: the current run may be, and may have saved by now."""
        if self.session.about is None or not self.session.about.fine_tuned:
            self.update_state()

    # Asking ------------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Unless that is what is shown or asked for."""
        about = self.session.about
        if about is None or not about.fine_tuned or not self._shown or about.reference == self._asked:
            return
        self._asked = about.reference
        self.note.setText("")
        self.session.change(about.reference, self._take, self._refuse)

    def _take(self, archive: Archive) -> None:
        if not self._asked:  # another model has become the active one
            return
        self.archive, self.found = archive, read_table(archive)
        self.update_state()
        self._redraw()
        largest = self.found.largest()
        if largest is not None:
            self._choose(*largest)

    def _refuse(self, error: LabError) -> None:
        self.show_empty(error.what, f"{error.why} {error.do}".strip(), "Measure again", self._ask_again)

    def _ask_again(self) -> None:
        self._asked = ""
        self.update_state()
        self._ask()

    def _forget(self) -> None:
        """Another model."""
        self.archive = self.found = None
        self._asked = ""
        self.note.setText("")
        self._redraw()
        self.update_state()
        self._ask()

    def _compare(self) -> None:
        about = self.session.about
        if about is not None:
            self.lab.compare_requested.emit(about.reference)

    # Drawing -----------------------------------------------------------------------------------------------------

    def _redraw(self) -> None:
        view, found = VIEWS[self.view.currentIndex()], self.found
        self.caption(view.caption, "lora")
        self._both.setVisible(found is not None)
        if found is None:
            return
        self.map.describe = found.words
        self.map.show_heat(found.heat(view))
        self.note.setText(found.totals())

    def _choose(self, row: int, column: int) -> None:
        """The singular values of a matrix."""
        if self.found is not None:
            self.map.choose(row, column)
            self.spectrum.show_bars(self.found.bars(row, column))

    def _lay_out(self) -> None:
        self.controls.addWidget(self.view)
        self.controls.addWidget(self.compare)
        self._both = split((self.map, 2), (self.spectrum, 1))
        self._both.setSizes([320, 150])
        self.set_body(column(self.note, (self._both, 1)))
