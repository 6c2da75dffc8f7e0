"""The Interventions dock: predictions before and after ablation or patching, and patching sweeps."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QTabWidget, QWidget

from llmlab.core.errors import LabError
from llmlab.inspection.archive import Archive
from llmlab_gui.host.selection import ChosenIntervention
from llmlab_gui.host.token_texts import texts_of
from llmlab_gui.inside.edits import written
from llmlab_gui.inside.inspection_dock import BEFORE_CHANGE, InspectionDock
from llmlab_gui.inside.intervention_effect import InterventionEffect
from llmlab_gui.inside.intervention_form import InterventionForm
from llmlab_gui.inside.sweep_view import SweepView
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.labels import EmptyState
from llmlab_gui.widgets.layouts import column, settling_timer, stack
from llmlab_gui.widgets.saving import Table

# Several clicks and keys are one question.
_SETTLE_MS = 250
_MOVED_TAB = 1
_HINT = (
    "Add an intervention above, or choose a head in another panel: the predictions before and after the change "
    "appear here. The model itself stays as it is."
)


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
        numbers = column((self.tabs, 1))
        self.set_body(column(self.form, (numbers, 1)), numbers)
        self.caption(
            "What the model would predict if a part were ablated (zero or mean) or patched from another prompt.",
            "ablation-and-patching",
        )
        self._settle = settling_timer(self, _SETTLE_MS, self._ask)
        self._read_at = -1  # the position that was asked about
        self._made_by: tuple[object, ...] = ()  # what the effect in sight is of
        self._say_nothing_yet()
        for changed in (self.form.changed, session.interventions_changed):
            changed.connect(self._settle.start)
            changed.connect(self.update_state)
        session.tokens_changed.connect(self._settle.start)
        session.selection_changed.connect(self._follow_selection)
        session.inspection_changed.connect(self._look_again)
        self.effect.chosen.connect(lambda token: session.select(token=token))
        self.sweep.chosen.connect(self._choose_cell)
        self.sweep.drawn.connect(self.update_state)
        self.tabs.currentChanged.connect(self.update_state)

    def ready(self) -> bool:
        """Whether the open tab shows something."""
        return (self.sweep.archive if self._sweeping else self.effect.archive) is not None

    def shown(self) -> list[Archive | None]:
        """What the open tab shows."""
        return [self.sweep.archive if self._sweeping else self.effect.archive]

    def stale(self) -> str:
        """Of another model or prompt; or of other interventions, until the model has answered."""
        other = not self._sweeping and self.effect.archive is not None and self._made_by != self._makes()
        return super().stale() or (BEFORE_CHANGE if other else "")

    def pictures(self) -> list[QWidget]:
        """What the open tab shows."""
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
        """All of the intervention or of the sweep."""
        archive = self.sweep.archive if self._sweeping else self.effect.archive
        return (archive, list(archive)) if archive is not None else None

    # Behind the scenes -------------------------------------------------------------------------------------------

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
        self.tabs.setTabVisible(_MOVED_TAB, "change/post_ffn" in archive)
        self.update_state()

    def _refuse(self, error: LabError) -> None:
        self.empty.say(error.what, f"{error.why} {error.do}".strip())
        self._show_empty_page()

    def _say_nothing_yet(self) -> None:
        selection = self.session.selection
        head = ChosenIntervention("head", selection.layer, selection.head)
        words = f"Zero-ablate head {head.head} of layer {head.layer}"
        self.empty.say("No intervention yet", _HINT, words, lambda: self._begin_with(head))
        self._show_empty_page()

    def _begin_with(self, head: ChosenIntervention) -> None:
        """The button that was pressed goes, and what was added takes the keyboard."""
        self.session.add_intervention(head)
        self.form.list.setCurrentRow(0)
        self.form.list.setFocus(Qt.FocusReason.OtherFocusReason)

    def _show_empty_page(self) -> None:
        self.effect.archive = None
        self.tabs.setTabVisible(_MOVED_TAB, False)
        self._before_after.setCurrentWidget(self.empty)
        self.update_state()

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
