"""Compare: two models or checkpoints on one prompt, where they differ and what both would say."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QCheckBox, QLabel, QWidget

from llmlab.core.errors import LabError
from llmlab.inspection.archive import Archive
from llmlab.models.reference import parse
from llmlab.models.source import base_and_fine_tuned
from llmlab_gui.charts.heatmap import Heat, Heatmap
from llmlab_gui.charts.layer_chart import LayerChart
from llmlab_gui.forms.reference_box import ReferenceBox, offers
from llmlab_gui.host.recent import is_gone
from llmlab_gui.inside import comparison
from llmlab_gui.inside.comparison import POINTS, Names
from llmlab_gui.inside.inspection_dock import AnswerDock
from llmlab_gui.inside.ranked_tokens import RankedTokens
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.buttons import tool_button
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import EmptyState, PrimaryButton, QuietLabel, labelled
from llmlab_gui.widgets.layouts import choice_box, column, stack
from llmlab_gui.widgets.numbers import exact
from llmlab_gui.widgets.saving import Table

PATTERN, HEADS, STREAM, POINT, LAYERS, PREDICTIONS = range(6)
_VIEWS = (
    "Pattern of one head",
    "All heads",
    "Residual stream, layer by token",
    "One point, token by channel",
    "Similarity by layer",
    "Predictions",
)
_CAPTIONS = (
    "A − B of the selected head's attention pattern: orange where A attends more, blue where B does.",
    "How much of each head's attention goes elsewhere in B; click a head to see how its pattern differs.",
    "Angle between the two residual streams (1 − cosine); click to choose layer and token.",
    "A − B of one vector for each token, at the selected layer: orange where A is larger, blue where B is.",
    "Mean cosine over tokens, and CKA, which is also 1 where one stream is the other rotated or scaled.",
    "How far apart the predictions are at each token, and what both predict next.",
)
_WHAT = ("attention", "residual")


class CompareDock(AnswerDock):
    """Two boxes, a button, and one view at a time of what differs."""

    needs_prompt = True
    asks = ("compare",)

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "compare", "Compare", parent)
        self._asked: tuple[str, str] = ("", "")
        self._compared: tuple[str, str] = ("", "")  # what is shown
        self._prompt_then = ("", False)
        self._offering = False
        self._wanted: tuple[str, str] | None = None  # waits for a model and a prompt
        self.a, self.b = ReferenceBox("Model A"), ReferenceBox("Model B")
        self.swap = labelled(tool_button("⇄", "Swap A and B"), "Swap A and B")
        self.align = QCheckBox("align tokens")
        self.align.setToolTip(
            "Compare the tokens that end at the same character, where they tokenize the prompt differently"
        )
        self.compare = PrimaryButton("Compare", self.start)
        self.view, self.point = choice_box("What is compared"), choice_box("Point of the residual stream", POINTS)
        self.view.addItems(_VIEWS)
        self.view.setCurrentIndex(PREDICTIONS)  # what is asked first: what each of them says next
        self.note = QuietLabel()
        self.empty = EmptyState()
        self.map = Heatmap("Difference of A and B", square=False)
        self.chart = LayerChart("similarity")
        self.tokens = RankedTokens("Most likely next tokens of A and B")
        self._views = stack(self.map, column((self.chart, 1), self.tokens), self.empty)
        self._lay_out()
        self.swap.clicked.connect(self._swap)
        for box in (self.a, self.b):
            box.currentTextChanged.connect(self._other_models)
        self.view.currentIndexChanged.connect(self._redraw)
        self.point.currentIndexChanged.connect(self._redraw)
        self.map.clicked.connect(self._choose)
        self.session.selection_changed.connect(self._redraw)
        self.session.hover_changed.connect(self._point_at)
        self.session.about_changed.connect(self._follow_model)
        self.session.tokens_changed.connect(self._forget)
        self.session.tokens_changed.connect(self._start_wanted)
        lab.runs_changed.connect(self._follow_runs)
        lab.compare_requested.connect(self.compare_with_base)
        lab.comparison_requested.connect(self.compare_two)
        self._say_nothing_yet()
        self._follow_model()
        self._redraw()

    def start(self) -> None:
        """Asks for the comparison of what is in the boxes."""
        a, b = self.a.reference, self.b.reference
        if not a or not b:
            self._refuse(LabError("Two models are needed.", "", "Choose both A and B."))
            return
        self._asked = (a, b)
        self._say_nothing_yet()  # what was refused before is about nothing here
        values = {"what": list(_WHAT), "align": self.align.isChecked()}
        self.session.compare(a, b, values, self._take, self._refuse)

    def compare_with_base(self, reference: str) -> None:
        """What was fine-tuned against its base, on the prompt; a model is opened first where none is active."""
        outputs, fine_tuned = self.lab.outputs, self._saved(reference)
        self._background.run(
            lambda: base_and_fine_tuned(parse(fine_tuned, outputs)), self._compare_both, self.lab.error_raised.emit
        )

    def compare_two(self, a: str, b: str) -> None:
        """These two on the prompt; B is opened first where no model is active."""
        self._compare_both((a, b))

    def stale(self) -> str:
        """Of other models than those in the boxes, whichever is active, or of another prompt."""
        if self.archive is None:
            return ""
        if self.session.choice.undecided or self._compared != (self.a.reference, self.b.reference):
            return "of {} and {}".format(*self._compared)
        return "" if self._prompt_then == (self.session.text, self.session.beginning) else "of another prompt"

    def pictures(self) -> list[QWidget]:
        if self.archive is None:
            return []
        if self._view < LAYERS:
            return [self.map]
        return [part for part in (self.chart, self.tokens) if not part.isHidden()]

    def table(self) -> Table | None:
        """The cells of the map, or the points of the lines."""
        if self.archive is None:
            return None
        if self._view < LAYERS:
            return self.map.table()
        return self.chart.table()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._offer()

    @property
    def _view(self) -> int:
        return self.view.currentIndex()

    @property
    def _names(self) -> Names:
        return Names(*self._compared)

    def _lay_out(self) -> None:
        row = FlowRow()
        row.add(QLabel("A"), self.a, self.swap, QLabel("B"), self.b, self.align, self.compare)
        self.controls.add(self.view, self.point)
        numbers = column(self.note, (self._views, 1), spacing=4)
        self.set_body(column(row, (numbers, 1), spacing=4), numbers)

    def _follow_runs(self) -> None:
        """A run that trains deletes checkpoints: one that is gone, and that nothing in sight is about, is not kept.
        While a name is typed, what is there of it may name one that is gone, too."""
        boxes = (self.a, self.b)
        idle = self.isVisible() and self.archive is None and not self.session.waits(self.asks)
        idle = idle and self.window().focusWidget() not in boxes
        if idle and any(is_gone(box.reference, self.lab.outputs) for box in boxes):
            self._offer()

    def _offer(self) -> None:
        """What is here, read off the window's thread."""
        if self._offering:
            return
        self._offering = True
        runs = [row.run for row in self.lab.runs()]
        outputs = self.lab.outputs
        recent = [model.reference for model in self.session.recent.there(outputs)]
        self._background.run(
            lambda: offers(outputs, runs, recent, self._background.check), self._take_offers, self._no_offers
        )

    def _no_offers(self, error: LabError) -> None:
        self._offering = False
        self.lab.error_raised.emit(error)

    def _take_offers(self, found: list[tuple[str, str]]) -> None:
        self._offering = False
        found = [offer for offer in found if not offer[0].endswith("@live")]  # which answers alone, beside no other
        for box in (self.a, self.b):
            box.offer(found)
        self._propose()

    def _propose(self) -> None:
        """A: the active model. B: the first checkpoint of its run, what else there is otherwise."""
        for box in (self.a, self.b):
            if is_gone(box.reference, self.lab.outputs):
                box.choose("")
        if not self.a.reference:
            self.a.choose(self._active())
        if self.b.reference or not self.a.reference:
            return
        others = [str(self.b.itemData(place)) for place in range(self.b.count())]
        others = [other for other in others if other != self.a.reference]
        run = self.a.reference.partition("@")[0]
        same = [other for other in others if other.partition("@")[0] == run]
        there = (other for other in (*reversed(same), *others) if not is_gone(other, self.lab.outputs))
        if (other := next(there, None)) is not None:
            self.b.choose(other)

    def _follow_model(self) -> None:
        if self.session.about is not None:
            self.a.choose(self._active())
            if self.b.reference == self.a.reference:  # it is in A now
                self.b.choose("")
            self._propose()
            if self.isVisible():
                self._offer()  # it is among the recent ones now, with its name
        self._forget()

    def _active(self) -> str:
        """The active model, "" for none."""
        return "" if self.session.about is None else self._saved(self.session.about.reference)

    def _saved(self, reference: str) -> str:
        """The same; the newest checkpoint for a live run, or for a checkpoint that was deleted."""
        newest = reference.endswith("@live") or is_gone(reference, self.lab.outputs)
        return f"{reference.rpartition('@')[0]}@latest" if newest else reference

    def _compare_both(self, both: tuple[str, str]) -> None:
        self._wanted = both
        if self.session.about is None:
            self.session.open(both[1])  # its prompt is what both read
        else:
            self._start_wanted()

    def _start_wanted(self) -> None:
        if self._wanted is None or not self.session.tokens:
            return
        for box, reference in zip((self.a, self.b), self._wanted, strict=True):
            box.choose(reference)
        self._wanted = None
        self.start()

    def _forget(self) -> None:
        """A comparison of another prompt is about nothing here."""
        if self.archive is not None and self._prompt_then != (self.session.text, self.session.beginning):
            self.archive = None
            self._say_nothing_yet()
            self._redraw()
            self.update_state()

    def _other_models(self) -> None:
        """Why two models could not be compared is not said of others."""
        if (self.a.reference, self.b.reference) != self._asked:
            self._say_nothing_yet()
        self.update_state()

    def _say_nothing_yet(self) -> None:
        hint = "Choose two models or checkpoints and press Compare: each reads the prompt, one after the other."
        self.empty.say("No comparison yet", hint)

    def _take(self, archive: Archive) -> None:
        self.archive, self._compared = archive, self._asked
        self._prompt_then = (self.session.text, self.session.beginning)
        self.update_state()
        self._redraw()

    def _refuse(self, error: LabError) -> None:
        self.archive = None
        self.empty.say(error.what, f"{error.why} {error.do}".strip(), *self.shortening())
        self._redraw()
        self.update_state()

    def _swap(self) -> None:
        a, b = self.a.reference, self.b.reference
        self.a.choose(b)
        self.b.choose(a)

    def _redraw(self) -> None:
        view, archive = self._view, self.archive
        self.caption(_CAPTIONS[view], "comparing-models")
        self.point.setVisible(view in (STREAM, POINT))
        self.tokens.setVisible(view == PREDICTIONS)
        self.note.setVisible(archive is not None)
        if archive is None:
            self._views.setCurrentWidget(self.empty)
            return
        self._views.setCurrentIndex(0 if view < LAYERS else 1)
        selection = self.session.selection
        position = selection.token_at(len(archive.metadata.tokens))
        self.note.setText(comparison.summary(archive, position))
        makers: dict[int, Callable[[], Heat | None]] = {
            PATTERN: lambda: comparison.pattern_heat(archive, selection.layer, selection.head),
            HEADS: lambda: comparison.heads_heat(archive),
            STREAM: lambda: comparison.stream_heat(archive, str(self.point.currentData())),
            POINT: lambda: comparison.point_heat(archive, str(self.point.currentData()), selection.layer),
        }
        if view in makers:
            self._show_heat(makers[view](), position)
            return
        lines = comparison.layer_lines(archive) if view == LAYERS else comparison.kl_lines(archive)
        self.chart.setVisible(view == LAYERS or bool(lines))  # no KL between different vocabularies
        if view == LAYERS:
            self.chart.show_lines(lines, x="layer", y="similarity")
        else:
            self.chart.show_lines(lines, x="token", y="KL(A ‖ B)", unit="nats")
            self.tokens.show_columns(comparison.top_columns(archive, self._names, position))

    def _show_heat(self, heat: Heat | None, position: int) -> None:
        if heat is None:
            self.empty.say("There is nothing to compare here", "One model lacks this part, or the sizes differ.")
            self._views.setCurrentWidget(self.empty)
            return
        self.map.describe = lambda row, column: self._words(heat, row, column)
        self.map.show_heat(heat)
        selection = self.session.selection
        chosen = {HEADS: (selection.layer, selection.head), STREAM: (selection.layer, position)}
        self.map.choose(*chosen.get(self._view, (position, -1)))

    def _words(self, heat: Heat, row: int, column: int) -> str:
        """One cell of the map, exactly."""
        value, selection = f"{exact(float(heat.values[row, column]))}", self.session.selection
        match self._view:
            case 0:
                head = f"Layer {selection.layer}, head {selection.head}"
                return f"{head}, from {row} “{heat.rows[row]}” to {column} “{heat.columns[column]}”: A − B = {value}"
            case 1:
                return f"Layer {row}, head {column}: {value} of its attention goes elsewhere"
            case 2:
                return f"Layer {row}, token {column} “{heat.columns[column]}”: 1 − cosine = {value}"
            case _:
                return f"Layer {selection.layer}, token {row} “{heat.rows[row]}”, channel {column}: A − B = {value}"

    def _choose(self, row: int, column: int) -> None:
        match self._view:
            case 1:
                self.session.select(layer=row, head=column)
                self.view.setCurrentIndex(PATTERN)
            case 2:
                self.session.select(layer=row, token=column)
            case _:
                self.session.select(token=row)

    def _point_at(self, token: int) -> None:
        if self._view == STREAM:
            self.map.point_at(-1, token)
        elif self._view in (PATTERN, POINT):
            self.map.point_at(token, -1)
