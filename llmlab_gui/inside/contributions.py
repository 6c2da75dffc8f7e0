"""Layer contributions: what attention and feed-forward of each layer add, and how that makes one logit."""

from __future__ import annotations

from PySide6.QtCore import QPoint
from PySide6.QtWidgets import QLabel, QLineEdit, QWidget

from llmlab.core.errors import LabError
from llmlab.inspection.archive import Archive
from llmlab_gui.charts.bars import BarChart, Bars
from llmlab_gui.inside import contribution_bars as bars_of
from llmlab_gui.inside.chosen_interventions import interventions_of_part, offer_interventions
from llmlab_gui.inside.contribution_bars import ATTENTION, FEED_FORWARD, LOGIT, NORM, SHARE, Target
from llmlab_gui.inside.inspection_dock import BEFORE_CHANGE, InspectionDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.alternatives import visible
from llmlab_gui.widgets.buttons import tool_button
from llmlab_gui.widgets.labels import EmptyState, QuietLabel, labelled
from llmlab_gui.widgets.layouts import choice_box, column, settling_timer, split, stack
from llmlab_gui.widgets.saving import Table

_MODES = ((LOGIT, "Logit attribution"), (SHARE, "Share"), (NORM, "Norm"))
_CAPTIONS = {
    LOGIT: "Logit attribution: what each part adds to a token's logit. The bars add up to it.",
    SHARE: "Each part's share of the last residual, along its direction: the shares add up to 1.",
    NORM: "Length of the vector that each part adds to the residual stream at the selected token.",
}
# After so long without a key or another selection, the model is asked.
_SETTLE_MS = 200


class ContributionsDock(InspectionDock):
    """Bars by layer, and under them the heads or neurons of the layer that was clicked."""

    aspects = ("contributions",)
    asks = ("contributions.attribution", "neurons")

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "contributions", "Layer contributions", parent)
        self._inspected: Archive | None = None
        self.attribution: Archive | None = None
        self._neurons: Archive | None = None
        self._detail = ATTENTION  # what the lower chart shows
        self._asked: tuple[object, ...] = ()
        self.mode = choice_box("What the bars show", _MODES)
        self.answer = _token_field("the most likely", "Token whose logit is attributed; a leading space counts")
        self.against = _token_field("none", "Counterfactual token: its logit is subtracted; empty for none")
        self._target_labels = (QLabel("for"), QLabel("compared with"))
        self.chart = BarChart("What each layer adds")
        self.detail = BarChart("Heads or neurons of one layer")
        self.note = QuietLabel()
        self._problem = EmptyState()  # why there is no attribution
        self.close_detail = tool_button("Layers only", "Close the heads or neurons below", slot=self._hide_detail)
        self._settle = settling_timer(self, _SETTLE_MS, self._ask)
        self._lay_out()
        self._set_mode()
        self.mode.currentIndexChanged.connect(self._set_mode)
        for field in (self.answer, self.against):
            field.textChanged.connect(self._change_target)
        self.chart.clicked.connect(self._choose_layer)
        self.detail.clicked.connect(self._choose_part)
        self.chart.asked.connect(self._offer_layer)
        self.detail.asked.connect(self._offer_head)
        self.session.selection_changed.connect(self._follow_selection)

    # What it shows -----------------------------------------------------------------------------------------------

    def draw(self, archive: Archive) -> None:
        """The bars of a new inspection; an attribution is asked for anew."""
        if "contributions/norm/post_ffn" not in archive:  # found for other panels, before this one was in sight
            return
        self._inspected = archive
        self._asked = ()
        self._redraw()
        self._ask()

    def shown_archives(self) -> list[Archive | None]:
        upper = self.attribution if self._mode == LOGIT else self._inspected
        return [upper, self._neurons if self._detail_asks() else None]

    def stale(self) -> str:
        """Of another model or prompt; or of another token or target, until the model has answered."""
        return super().stale() or (self._of_another_question() if self._mode == LOGIT else "")

    def pictures(self) -> list[QWidget]:
        return [self.chart, self.detail] if self._lower.isVisibleTo(self) else [self.chart]

    def table(self) -> Table | None:
        """group, part, value: the layers' bars, then those of the lower chart."""
        found = bars_of.rows(self.chart.bars)
        if self._lower.isVisibleTo(self):
            found += bars_of.rows(self.detail.bars)
        return (("group", "part", self.chart.bars.unit), found) if found else None

    def tensors(self) -> tuple[Archive, list[str]] | None:
        if self._mode == LOGIT:
            return (self.attribution, ["attribution/"]) if self.attribution is not None else None
        return (self._inspected, ["contributions/"]) if self._inspected is not None else None

    @property
    def _mode(self) -> str:
        return str(self.mode.currentData())

    @property
    def _token(self) -> int:
        tokens = self._inspected.metadata.tokens if self._inspected is not None else []
        return self.session.selection.token_at(len(tokens))

    def _lay_out(self) -> None:
        words = self._target_labels
        self.controls.add(self.mode, words[0], self.answer, words[1], self.against, self.close_detail)
        self._lower = column(self.note, (self.detail, 1))
        self._hide_detail()
        self._pages = stack(split(self.chart, self._lower, sizes=[300, 200], closes=True), self._problem)
        self.set_body(self._pages)

    def _set_mode(self) -> None:
        mode = self._mode
        for widget in (*self._target_labels, self.answer, self.against):
            widget.setVisible(mode == LOGIT)
        if self._detail == FEED_FORWARD and mode != LOGIT:
            self._hide_detail()
        self.caption(_CAPTIONS[mode], "direct-attribution" if mode == LOGIT else "residual-stream")
        self._pages.setCurrentIndex(0)
        self._redraw()
        self._asked = ()
        self._ask()
        self.update_state()

    def _redraw(self) -> None:
        """The upper chart, and the lower one when it is open."""
        archive = self.attribution if self._mode == LOGIT else self._inspected
        if archive is None:
            self.chart.show_bars(Bars())
            return
        bars = bars_of.layer_bars(archive, self._mode, self._token, self._target())
        self.chart.show_bars(bars, self._group_of(self.session.selection.layer))
        if self._lower.isVisibleTo(self):
            self._redraw_detail()

    def _redraw_detail(self) -> None:
        layer = self.session.selection.layer
        self.note.setVisible(False)
        if self._detail == FEED_FORWARD:
            if self._neurons is not None:
                self.detail.show_bars(bars_of.neuron_bars(self._neurons, layer, self._target()))
            return
        archive = self.attribution if self._mode == LOGIT else self._inspected
        if archive is None:
            return
        try:
            bars = bars_of.head_bars(archive, self._mode, layer, self._token, self._target())
        except KeyError:
            self._say("This model's heads cannot be separated.")
            return
        self.detail.show_bars(bars, self.session.selection.head)

    def _target(self) -> Target:
        if self.attribution is None:
            return Target(self.answer.text(), self.against.text())
        more = self.attribution.metadata.more
        return Target(more.get("answer_text", self.answer.text()), more.get("against_text", self.against.text()))

    def _come_to_sight(self) -> None:
        if self.attribution is None or self._of_another_question():
            self._asked = ()  # it was cancelled, perhaps
        super()._come_to_sight()
        self._ask()

    def _question(self) -> dict[str, object]:
        return {"position": self._token, "answer": self.answer.text(), "against": self.against.text()}

    def _of_another_question(self) -> str:
        if self.attribution is None:
            return ""
        asked, position = self.attribution.metadata.question, int(self.attribution.metadata.more["position"])
        if position != self._token:
            return f"of token {position}, “{visible(self.attribution.metadata.tokens[position])}”"
        target = asked.get("answer", ""), asked.get("against", "")
        return "" if target == (self.answer.text(), self.against.text()) else BEFORE_CHANGE

    def _ask(self) -> None:
        """Asks for the attribution of the chosen token, unless that is what is shown or asked for."""
        about = self.session.about
        if self._mode != LOGIT or self._inspected is None or about is None:
            return
        question = self._question()
        asked = (self._inspected, *question.values())
        if asked == self._asked or not self._shown:
            return
        self._asked = asked
        if "attribution" in about.refusals:
            self._refuse(LabError("There is no logit attribution of this model.", about.refusals["attribution"]))
            return
        self.session.ask(
            "inspect", {"what": ["attribution"], **question}, self._take, self._refuse, "contributions.attribution"
        )

    def _take(self, archive: Archive) -> None:
        self.attribution = archive
        self._pages.setCurrentIndex(0)
        if not self._detail_asks():
            self.note.setVisible(False)
        self._redraw()
        if self._detail_asks():
            self._ask_neurons()
        self.update_state()

    def _refuse(self, error: LabError) -> None:
        """Says why instead of bars; a token that is none can be taken away."""
        self.attribution = None
        if self._mode != LOGIT:  # another view was chosen meanwhile; this one asks again when it is back
            return
        self.chart.show_bars(Bars())
        self.detail.show_bars(Bars())
        hint, typed = f"{error.why} {error.do}".strip(), self.answer.text() or self.against.text()
        self._problem.say(error.what, hint, "Clear the tokens", self._clear_tokens if typed else None)
        self._pages.setCurrentIndex(1)
        self.update_state()

    def _clear_tokens(self) -> None:
        for field in (self.answer, self.against):
            field.clear()

    def _say(self, text: str) -> None:
        self.note.setText(text)
        self.note.setVisible(True)
        self.detail.show_bars(Bars())

    # Clicks ------------------------------------------------------------------------------------------------------

    def _group_of(self, layer: int) -> int:
        labels = [group.label for group in self.chart.bars.groups]
        return labels.index(str(layer)) if str(layer) in labels else -1

    def _choose_layer(self, group: int, bar: int) -> None:
        label = self.chart.bars.groups[group].label
        if not label.isdecimal():
            return
        self._detail = self.chart.bars.groups[group].bars[bar].series
        self._lower.setVisible(True)
        self.detail.setVisible(True)
        self.close_detail.setVisible(True)
        self.session.select(layer=int(label))
        self.chart.choose(group)
        if self._detail == FEED_FORWARD:
            self._ask_neurons()
        else:
            self._redraw_detail()

    def _choose_part(self, group: int, _bar: int) -> None:
        if self._detail == ATTENTION and self.detail.bars.groups[group].label.isdecimal():
            self.session.select(head=int(self.detail.bars.groups[group].label))

    def _offer_layer(self, group: int, bar: int, where: QPoint) -> None:
        label = self.chart.bars.groups[group].label
        if label.isdecimal():
            part = "feed_forward" if self.chart.bars.groups[group].bars[bar].series == FEED_FORWARD else "attention"
            offer_interventions(self.lab, interventions_of_part(part, int(label)), self, where)

    def _offer_head(self, group: int, _bar: int, where: QPoint) -> None:
        label = self.detail.bars.groups[group].label
        if self._detail == ATTENTION and label.isdecimal():
            offer_interventions(
                self.lab, interventions_of_part("head", self.session.selection.layer, int(label)), self, where
            )

    def _detail_asks(self) -> bool:
        return self._lower.isVisibleTo(self) and self._detail == FEED_FORWARD

    def _ask_neurons(self) -> None:
        layer = self.session.selection.layer
        self._neurons = None
        self.detail.show_bars(Bars())
        question = {"layer": layer, **self._question()}
        self.session.ask("neurons", question, self._take_neurons, lambda error: self._say(str(error)), "neurons")

    def _take_neurons(self, archive: Archive) -> None:
        self._neurons = archive
        self._redraw_detail()
        self.update_state()

    def _hide_detail(self) -> None:
        self._lower.setVisible(False)
        self.close_detail.setVisible(False)

    def _change_target(self) -> None:
        self._settle.start()
        self.update_state()

    def _follow_selection(self) -> None:
        if self._inspected is None:
            return
        if self._mode == LOGIT:
            self._settle.start()
        self.update_state()
        before = self.chart.chosen
        self._redraw()
        if self._detail_asks() and before != self.chart.chosen:
            self._ask_neurons()


def _token_field(placeholder: str, tip: str) -> QLineEdit:
    field = labelled(QLineEdit(placeholderText=placeholder, clearButtonEnabled=True), tip, tip)
    field.setMaximumWidth(130)
    return field
