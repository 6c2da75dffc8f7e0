"""The Interventions dock: predictions before and after ablation or patching, and patching sweeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QLabel, QSizePolicy, QTabWidget, QWidget

from llmlab.core.errors import LabError
from llmlab.core.signs import minus
from llmlab.inspection.archive import Archive
from llmlab_gui.charts.heatmap import Heat, Heatmap
from llmlab_gui.charts.layer_chart import LayerChart, numbered
from llmlab_gui.host.selection import ChosenIntervention
from llmlab_gui.host.token_texts import TokenTexts, texts_of
from llmlab_gui.inside.chosen_interventions import written
from llmlab_gui.inside.inspection_dock import BEFORE_CHANGE, InspectionDock
from llmlab_gui.inside.intervention_form import InterventionForm
from llmlab_gui.inside.ranked_tokens import Ranked, RankedTokens
from llmlab_gui.inside.sweep_view import SweepView
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.widgets.alternatives import visible
from llmlab_gui.widgets.buttons import toggle_button
from llmlab_gui.widgets.labels import EmptyState
from llmlab_gui.widgets.layouts import column, settling_timer, stack
from llmlab_gui.widgets.numbers import exact
from llmlab_gui.widgets.saving import Table

_DRAFT = "interventions/"
# Several clicks and keys are one question.
_SETTLE_MS = 250
_MOVED_TAB = 1
_HINT = (
    "{} an intervention, or choose a head in another panel: the predictions before and after the change "
    "appear here. The model itself stays as it is."
)


@dataclass(frozen=True)
class Draft:
    """The interventions that were left, the fields beside them, and the reference of the model that they were for."""

    model: str = ""
    edits: list[ChosenIntervention] = field(default_factory=list)
    target: dict[str, str] = field(default_factory=dict)

    def is_of(self, model: str) -> bool:
        """Whether a model is that one, or its run at another step: a live run is offered by its last checkpoint."""
        return _without_step(model) == _without_step(self.model)


class InterventionsDock(InspectionDock):
    """A form, and below it the effect of the chosen interventions, or a patching sweep."""

    needs_inspection = False
    needs_prompt = True
    asks_active = True
    asks = ("intervene", "sweep")

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "interventions", "Interventions", parent)
        session = self.session
        self.form = InterventionForm(session, self.controls)
        self.effect = InterventionEffect(texts_of(session))
        self.sweep = SweepView(session, self._target)
        self.empty = EmptyState()
        self._before_after = stack(self.empty, self.effect)
        self.tabs = QTabWidget(documentMode=True)
        self.tabs.addTab(self._before_after, "Before and after")
        self.tabs.addTab(self.effect.moved, "Where it spread")
        self.tabs.addTab(self.sweep, "Sweep")
        self.fields = toggle_button("Fields", "Show the fields above the results; hide them to give a map their room")
        self.fields.setChecked(True)
        numbers = column((self.tabs, 1))
        self.set_body(column(self.form, (numbers, 1)), numbers, self.tabs, self.fields)
        self.caption(
            "What the model would predict if a part were ablated (zero or mean) or patched from another prompt.",
            "ablation-and-patching",
        )
        self._settle = settling_timer(self, _SETTLE_MS, self._ask)
        self._read_at = -1  # the position that was asked about
        self._made_by: tuple[object, ...] = ()  # what the effect in sight is of
        self._left: Draft | None = None  # until a model is open
        self._say_nothing_yet()
        for changed in (self.form.changed, session.interventions_changed):
            changed.connect(self._settle.start)
            changed.connect(self.update_state)
        session.tokens_changed.connect(self._settle.start)
        session.selection_changed.connect(self._follow_selection)
        session.look.changed.connect(self._look_again)
        self.effect.chosen.connect(lambda token: session.select(token=token))
        self.sweep.chosen.connect(self._choose_cell)
        self.sweep.drawn.connect(self.update_state)
        for changed in (self.tabs.currentChanged, self.fields.toggled):
            changed.connect(self._show_fields)
        self.tabs.currentChanged.connect(self.update_state)

    def remember(self, settings: WindowSettings) -> None:
        super().remember(settings)
        if self.session.about is None and (left := self.draft_left(_DRAFT, Draft)) is not None:
            self._left = left
            self.form.show_target(left.target)
        self.session.about_changed.connect(self._take_up)
        for changed in (self.form.changed, self.session.interventions_changed):
            changed.connect(self.keep_later)

    def keep(self) -> None:
        about, left = self.session.about, self._left or Draft()
        model, edits = (about.reference, self.session.edits) if about is not None else (left.model, left.edits)
        self.save_draft(_DRAFT, Draft(model, edits, self.form.target()))

    def ready(self) -> bool:
        return (self.sweep.archive if self._sweeping else self.effect.archive) is not None

    def shown_archives(self) -> list[Archive | None]:
        return [self.sweep.archive if self._sweeping else self.effect.archive]

    def stale(self) -> str:
        """Of another model or prompt; or of other interventions, until the model has answered."""
        other = not self._sweeping and self.effect.archive is not None and self._made_by != self._makes()
        return super().stale() or (BEFORE_CHANGE if other else "")

    def pictures(self) -> list[QWidget]:
        if self._sweeping:
            return [self.sweep.map] if self.sweep.archive is not None else []
        if self.effect.archive is None:
            return []
        if self.tabs.currentWidget() is self.effect.moved:
            return [self.effect.moved]
        return [self.effect.headline, self.effect.tokens, self.effect.kl]

    def table(self) -> Table | None:
        """Before and after: position, token, KL, and the most likely tokens of both. Sweep: its cells."""
        if self._sweeping:
            return self.sweep.map.table() if self.sweep.archive is not None else None
        archive = self.effect.archive
        if archive is None:
            return None
        if self.tabs.currentWidget() is self.effect.moved:
            return self.effect.moved.table()
        texts, model = texts_of(self.session), archive.metadata.model
        rows = []
        for at, token in enumerate(archive.metadata.tokens):
            for name in ("before", "after"):
                ids, chances = archive[f"{name}/ids"][at], archive[f"{name}/probability"][at]
                for rank, (id, chance) in enumerate(zip(ids, chances, strict=True), 1):
                    rows.append((at, token, archive["kl"][at], name, rank, texts.text(model, int(id)), chance))
        return ("position", "token", "kl", "when", "rank", "next", "probability"), rows

    def tensors(self) -> tuple[Archive, list[str]] | None:
        archive = self.sweep.archive if self._sweeping else self.effect.archive
        return (archive, list(archive)) if archive is not None else None

    @property
    def _sweeping(self) -> bool:
        return self.tabs.currentWidget() is self.sweep

    @property
    def _token(self) -> int:
        return self.session.selection.token_at(len(self.session.tokens))

    def _target(self) -> dict[str, object]:
        return {**self.form.target(), "position": self._token}

    def _makes(self) -> tuple[object, ...]:
        """What an effect follows from, beside model and prompt. It has every position; its headline names its own."""
        return (*self.session.edits, *self.form.target().items())

    def _take_up(self) -> None:
        """What was left, where the first model after a start is the one that it was for."""
        left, self._left = self._left, None
        if left is not None and self.session.about is not None and left.is_of(self.session.about.reference):
            self.session.set_interventions(left.edits)

    def _ask(self) -> None:
        """The two passes, whenever there is something to change."""
        session = self.session
        self._read_at = self._token
        if not session.edits or session.about is None:
            self._say_nothing_yet()
            return
        edits = [written(edit) for edit in session.edits]
        take = partial(self._take, self._makes())
        session.ask("intervene", {**self._target(), "edits": edits}, take, self._refuse, "intervene")

    def _take(self, made_by: tuple[object, ...], archive: Archive) -> None:
        if not self.session.edits:
            return
        self._made_by = made_by
        self.effect.show_effect(archive, self._token)
        self._before_after.setCurrentWidget(self.effect)
        self._show_moved("change/post_ffn" in archive)
        self.update_state()

    def _refuse(self, error: LabError) -> None:
        self.empty.say(error.what, f"{error.why} {error.do}".strip())
        self._show_empty_page()

    def _show_fields(self) -> None:
        """As many as are wanted; and no tab needs the height of another."""
        shown = self.fields.isChecked()
        self._row.setVisible(shown)
        self.form.edits.setVisible(shown and not self._sweeping)  # a sweep makes its own
        if not self.session.edits:
            self._say_nothing_yet()
        for page in (self._before_after, self.effect.moved, self.sweep):
            seen = page is self.tabs.currentWidget()
            height = QSizePolicy.Policy.Expanding if seen else QSizePolicy.Policy.Ignored
            page.setSizePolicy(QSizePolicy.Policy.Expanding, height)

    def _say_nothing_yet(self) -> None:
        selection = self.session.selection
        head = ChosenIntervention("head", selection.layer, selection.head)
        words = f"Zero-ablate head {head.head} of layer {head.layer}"
        hint = _HINT.format("Add" if self.fields.isChecked() else "Press Fields to add")
        self.empty.say("No intervention yet", hint, words, lambda: self._begin_with(head))
        self._show_empty_page()

    def _begin_with(self, head: ChosenIntervention) -> None:
        """The button that was pressed goes, and what was added takes the keyboard."""
        self.session.add_intervention(head)
        self.form.list.setCurrentRow(0)
        self.form.list.setFocus(Qt.FocusReason.OtherFocusReason)

    def _show_empty_page(self) -> None:
        self.effect.archive = None
        self._show_moved(False)
        self._before_after.setCurrentWidget(self.empty)
        self.update_state()

    def _show_moved(self, shown: bool) -> None:
        """Qt keeps the room of a hidden tab where it is told twice before the bar is painted."""
        if self.tabs.isTabVisible(_MOVED_TAB) != shown:
            self.tabs.setTabVisible(_MOVED_TAB, shown)

    def _follow_selection(self) -> None:
        """Another token: the lists at once, the watched logit when the model has answered."""
        if not self.session.edits:
            self._say_nothing_yet()
        if self._token != self._read_at and self.session.edits:
            self.effect.show_token(self._token)
            self._settle.start()

    def _look_again(self) -> None:
        """A live model has learned since."""
        about = self.session.about
        if about is not None and about.live and self.session.edits and self._shown:
            self._settle.start()

    def _choose_cell(self, layer: int, column: int) -> None:
        if self.sweep.over_heads:
            self.session.select(layer=layer, head=column)
        else:
            self.session.select(layer=layer, token=column)
        self.sweep.map.choose(layer, column)


class InterventionEffect(QWidget):
    """Shows an archive of kind `intervention` at one token. `chosen(token)`: a place was clicked.

    moved: a map of where the change went, for whoever has room for it.
    """

    chosen = Signal(int)

    def __init__(self, texts: TokenTexts) -> None:
        super().__init__()
        self._texts = texts
        self.archive: Archive | None = None
        self._token = 0
        self.headline = QLabel(wordWrap=True, textInteractionFlags=Qt.TextInteractionFlag.TextSelectableByMouse)
        self.tokens = RankedTokens("Most likely next tokens, before and after")
        self.kl = LayerChart("KL", "nats", x_label="token")
        self.moved = Heatmap("How far the residual stream moved, layer by token", square=False)
        self.kl.setToolTip("KL(before ‖ after) of the predictions at each token, in nats")
        column(self.headline, self.tokens, (self.kl, 1), into=self)
        self.moved.clicked.connect(lambda _layer, token: self.chosen.emit(token))
        texts.arrived.connect(self._redraw)

    def show_effect(self, archive: Archive, token: int) -> None:
        """Another intervention, read at one token."""
        self.archive, self._token = archive, token
        self.kl.show_lines([numbered("KL", archive["kl"], markers=True, legend="")])
        self._draw_moved(archive)
        self._redraw()

    def show_token(self, token: int) -> None:
        """The same, read elsewhere."""
        self._token = token
        self._redraw()

    def _redraw(self) -> None:
        archive = self.archive
        if archive is None:
            return
        place = min(self._token, len(archive.metadata.tokens) - 1)
        self.tokens.show_columns(
            [Ranked(name, self._pairs(archive, name, place), color) for color, name in enumerate(("before", "after"))]
        )
        self.headline.setText(headline(archive, place))
        self.moved.choose(-1, place)

    def _pairs(self, archive: Archive, name: str, place: int) -> tuple[tuple[str, float], ...]:
        ids, chances = archive[f"{name}/ids"][place].tolist(), archive[f"{name}/probability"][place].tolist()
        model = archive.metadata.model
        return tuple((self._texts.text(model, id), chance) for id, chance in zip(ids, chances, strict=True))

    def _draw_moved(self, archive: Archive) -> None:
        if "change/post_ffn" not in archive:  # it would have taken too much memory
            return
        values = np.asarray(archive["change/post_ffn"])
        tokens = [visible(token) for token in archive.metadata.tokens]
        self.moved.describe = lambda layer, token: (
            f"After layer {layer}, token {token} “{tokens[token]}”: the residual stream moved by "
            f"{exact(values[layer, token])} of its length"
        )
        rows = [str(layer) for layer in range(len(values))]
        self.moved.show_heat(Heat(values, rows, tokens, "layer", "token", unit="of its length"))


def headline(archive: Archive, place: int) -> str:
    """The watched logit before and after, in a sentence; and the KL at the position that is read."""
    more = archive.metadata.more
    before, after = (float(archive[f"target/{name}"][0]) for name in ("before", "after"))
    against = f" − “{visible(more['against_text'])}”" if more.get("against_text") else ""
    text = (
        f"Logit of “{visible(more.get('answer_text', ''))}”{against} at token {more.get('position', '')}: "
        f"{minus(f'{before:.4f}')} → {minus(f'{after:.4f}')} ({minus(f'{after - before:+.4f}')})"
    )
    if "target/source" in archive:
        text += f"; in the source {minus(format(float(archive['target/source'][0]), '.4f'))}"
    return f"{text}. KL at token {place}: {minus(format(float(archive['kl'][place]), '.4g'))} nats."


def _without_step(model: str) -> str:
    return model.rpartition("@")[0] or model
