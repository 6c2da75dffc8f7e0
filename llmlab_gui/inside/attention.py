"""Attention: all heads as a mosaic, and the chosen one as a heatmap, as arcs, rolled out, or step by step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from PySide6.QtCore import QSignalBlocker
from PySide6.QtWidgets import QButtonGroup, QLabel, QSpinBox, QWidget

from llmlab.core.errors import LabError
from llmlab.data.token_bytes import character_part
from llmlab.inspection.archive import Archive
from llmlab_gui.charts.arcs import Arcs
from llmlab_gui.charts.color_scale import Values
from llmlab_gui.charts.heatmap import Heat, Heatmap
from llmlab_gui.host.selection import Selection
from llmlab_gui.inside.attention_heads import HeadsPane
from llmlab_gui.inside.attention_stages import StagesPane
from llmlab_gui.inside.inspection_dock import InspectionDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.alternatives import visible
from llmlab_gui.widgets.buttons import toggle_button
from llmlab_gui.widgets.labels import label_of
from llmlab_gui.widgets.layouts import column, split, stack
from llmlab_gui.widgets.numbers import read_out
from llmlab_gui.widgets.saving import Cell, LazyRows, Table
from llmlab_gui.widgets.veil import Veil

HEATMAP, ARCS, ROLLOUT, STAGES = "heatmap", "arcs", "rollout", "stages"
_VIEWS = (
    (HEATMAP, "Heatmap", "Rows attend to columns: the darker, the more weight"),
    (ARCS, "Arcs", "From each token to those that it attends to"),
    (ROLLOUT, "Rollout", "Where each position's information could come from, through all layers up to the chosen one"),
    (STAGES, "Stages", "From queries and keys to the pattern, step by step"),
)
_CAPTIONS = {
    HEATMAP: "Each row is a query token; its attention weights on the tokens up to it sum to one.",
    ARCS: "An arc leads from a token to one that it attends to; the thicker, the more weight.",
    ROLLOUT: "Patterns averaged over heads, half of each kept for the residual stream, multiplied from layer to layer.",
    STAGES: "Queries times keys, scaled, masked, and normalised by softmax.",
}
_BASE = ("heads", "attention")
# Shares of the width: the heads, and the one that is chosen. Of a deep model, the table is beside the mosaic.
_WIDE, _DEEP = [360, 500], [420, 440]


class AttentionDock(InspectionDock):
    """Mosaic and scores to the left, the chosen head to the right."""

    aspects: tuple[str, ...] = _BASE
    asks = ("attention",)

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "attention", "Attention", parent)
        self.view = HEATMAP
        self.heads = HeadsPane()
        self.heatmap = Heatmap("Attention pattern of the chosen head")
        self.rollout = Heatmap("Attention rollout")
        self.arcs = Arcs()
        self.stages = StagesPane()
        self._views: dict[str, QWidget] = {
            HEATMAP: self.heatmap,
            ARCS: self.arcs,
            ROLLOUT: self.rollout,
            STAGES: self.stages,
        }
        self.layer, self.head = QSpinBox(), QSpinBox()
        self.note = QLabel(wordWrap=True)
        self.pattern: Values | None = None  # [T, T] of the chosen head, as mapped
        self._source: tuple[Archive, str] | None = None  # where it is from
        self._heads_of: Archive | None = None  # what the mosaic shows
        self._rolled: Archive | None = None  # what the rollout shows
        self._asked: tuple[object, ...] = ()  # what is shown, or being asked for
        self._key = -1  # the key of the chosen cell
        self._build_controls()
        self._lay_out()
        self.caption(_CAPTIONS[HEATMAP], "attention-patterns")
        self._connect()

    # What the frame asks for -------------------------------------------------------------------------------------

    def draw(self, archive: Archive) -> None:
        """Another inspection: the same head again."""
        tall = self.heads.tall
        self.heads.show_heads(archive)
        if self.heads.tall != tall:
            self._halves.setSizes(_DEEP if self.heads.tall else _WIDE)
        if "heads/mosaic" in archive:
            self._heads_of = archive
        layers, heads = self.heads.mosaic.shape
        for box, most in ((self.layer, layers), (self.head, heads)):
            box.setRange(0, max(0, most - 1))
        self._asked = ()
        self._key = -1
        self._follow_selection()

    def shown_archives(self) -> Sequence[Archive | None]:
        return self._heads_of, self._viewed()

    def stale(self) -> str:
        """Of the heads: the view of one comes after them, and is dimmed by itself until then."""
        archive = self._heads_of or self._viewed()
        return self.session.choice.stale(archive) if archive is not None else ""

    def _viewed(self) -> Archive | None:
        if self.view == ROLLOUT:
            return self._rolled
        if self.view == STAGES:
            return self.stages.archive
        return self._source[0] if self._source is not None else None

    def pictures(self) -> Sequence[QWidget]:
        if self.view == STAGES:
            return (self.stages,)
        return (self._views[self.view].viewport() if self.view == ARCS else self._views[self.view],)  # type: ignore[attr-defined]

    def part_in_sight(self) -> str:
        """The layer and the head of a pattern."""
        layer, head = self._head_in_sight()
        return f", layer {layer}, head {head}" if self.view != ROLLOUT else ""

    def table(self) -> Table | None:
        if self.view == STAGES and self.stages.archive is not None:
            return self._stages_table(self.stages.archive)
        shown = self.rollout if self.view == ROLLOUT else self.heatmap
        return shown.table() if shown.heat is not None else None

    def tensors(self) -> tuple[Archive, Sequence[str]] | None:
        inspection = self.session.look.archive
        if self.view == STAGES and self.stages.archive is not None:
            return self.stages.archive, ("stages/",)
        if self.view == ROLLOUT and inspection is not None and "attention/rollout" in inspection:
            return inspection, ("attention/rollout",)
        if inspection is not None and "attention/0" in inspection:
            return inspection, ("attention/", "heads/")
        return (self._source[0], (self._source[1],)) if self._source is not None else None

    def _mark_stale(self) -> str:
        """The view of one head by itself, when it is of another prompt than the heads, or another head was chosen that
        is not here yet."""
        of_all, viewed = super()._mark_stale(), self._viewed()
        of_prompt = self.session.choice.stale(viewed) if viewed is not None else ""
        of_head = "" if of_all else of_prompt or self._of_another_head()
        self._head_veil.say(of_head)
        return of_all or of_head

    # Views -------------------------------------------------------------------------------------------------------

    def show_view(self, view: str) -> None:
        """One of the four ways to look at a head."""
        self.view = view
        for button, (name, _, _) in zip(self._buttons.buttons(), _VIEWS, strict=True):
            button.setChecked(name == view)
        self._pages.setCurrentWidget(self._views[view])
        self.caption(_CAPTIONS[view], "attention-patterns")
        self.aspects = (*_BASE, "rollout") if view == ROLLOUT else _BASE
        if self._shown:
            self.session.look.need(self.objectName(), self.aspects)
        self.log.setEnabled(True)
        self._asked = ()
        self._follow_selection()
        self.update_state()

    def _build_controls(self) -> None:
        self._buttons = QButtonGroup(self)
        for name, text, tip in _VIEWS:
            button = toggle_button(text, tip)
            button.setChecked(name == HEATMAP)
            button.clicked.connect(partial(self.show_view, name))
            self._buttons.addButton(button)
            self.controls.addWidget(button)
        for box, name in ((self.layer, "Layer"), (self.head, "Head")):
            box.setAccessibleName(f"{name} that is shown")
            box.setKeyboardTracking(False)
            self.controls.add(label_of(name, box), box)
        self.log = toggle_button("Log colours", "Logarithmic colours: small weights become visible")
        self.controls.addWidget(self.log)

    def _lay_out(self) -> None:
        self._pages = stack(*self._views.values())
        shown = column((self._pages, 1))
        self._head_veil = Veil(shown)
        right = column(self.note, (shown, 1), spacing=2)
        self._halves = split(self.heads, (right, 1), across=True, sizes=_WIDE)
        self.set_body(self._halves)

    def _connect(self) -> None:
        session = self.session
        self.heads.chosen.connect(lambda layer, head: session.select(layer=layer, head=head))
        self.layer.valueChanged.connect(lambda layer: session.select(layer=layer))
        self.head.valueChanged.connect(lambda head: session.select(head=head))
        self.log.toggled.connect(self._set_log)
        for heatmap in (self.heatmap, self.rollout):
            heatmap.describe = partial(self._describe, heatmap)
            heatmap.pointed.connect(self._point)
            heatmap.clicked.connect(self._choose_cell)
        self.stages.pointed.connect(self._point)
        self.stages.clicked.connect(self._choose_cell)
        self.arcs.pointed.connect(session.hover)
        self.arcs.clicked.connect(lambda token: session.select(token=token))
        session.selection_changed.connect(self._follow_selection)
        session.hover_changed.connect(self._follow_hover)

    # The chosen head ---------------------------------------------------------------------------------------------

    def _come_to_sight(self) -> None:
        if self._of_another_head():
            self._asked = ()  # it was cancelled, perhaps
        super()._come_to_sight()
        self._follow_selection()  # another head may have been chosen since

    def _follow_selection(self) -> None:
        archive, chosen = self._drawn, self.session.selection
        if archive is None or not self._shown:
            self._asked = ()
            return
        for box, value in ((self.layer, chosen.layer), (self.head, chosen.head)):
            with QSignalBlocker(box):
                box.setValue(value)
        self.heads.choose(chosen.layer, chosen.head)
        self.head.setEnabled(self.view != ROLLOUT)
        if self.view == ROLLOUT:
            self.note.setText(f"All heads of layers 0 to {chosen.layer}")
        else:
            self.note.setText(self.heads.scores.words(chosen.layer, chosen.head))
        self._show_head(archive, chosen)
        self._mark()
        self.update_state()

    def _show_head(self, archive: Archive, chosen: Selection) -> None:
        """What the view needs of the chosen head, from the inspection or from the model."""
        wanted = (archive, self.view, chosen.layer, chosen.head)
        if wanted == self._asked:
            return
        self._asked = wanted
        place = {"layer": chosen.layer, "head": chosen.head}
        if self.view == ROLLOUT:
            if "attention/rollout" in archive:
                self._rolled = archive
                self._show_map(self.rollout, archive["attention/rollout"][chosen.layer])
        elif self.view == STAGES:
            self.session.ask("stages", place, self._take_stages, self._refused, "attention")
        elif f"attention/{chosen.layer}" in archive:
            name = f"attention/{chosen.layer}"
            self._take_pattern(archive, name, archive[name][chosen.head])
        else:
            self.session.ask("pattern", place, self._take_answer, self._refused, "attention")

    def _of_another_head(self) -> str:
        """Which one the view is of; "" for the chosen one. The rollout is of all."""
        (layer, head), chosen = self._head_in_sight(), self.session.selection
        other = self.view != ROLLOUT and (layer, head) != (chosen.layer, chosen.head)
        return f"of layer {layer}, head {head}" if other else ""

    def _head_in_sight(self) -> tuple[int, int]:
        """Layer and head of the view: the chosen ones, as soon as the model has answered."""
        archive, chosen = self._viewed(), self.session.selection
        asked = archive.metadata.question if archive is not None else {}
        return (int(asked["layer"]), int(asked["head"])) if "head" in asked else (chosen.layer, chosen.head)

    def _take_answer(self, archive: Archive) -> None:
        self._take_pattern(archive, "pattern", archive["pattern"])

    def _take_pattern(self, source: Archive, name: str, pattern: Values) -> None:
        self._source, self.pattern = (source, name), pattern
        self._show_map(self.heatmap, pattern)
        self.arcs.show_pattern(pattern, self._names())
        self._mark()
        self.update_state()

    def _take_stages(self, archive: Archive) -> None:
        self.stages.show_stages(archive)
        self._mark()
        self.update_state()

    def _refused(self, error: LabError) -> None:
        """Said where the head would be; the next click asks again."""
        self._asked = ()
        self.note.setText(str(error))

    def _show_map(self, heatmap: Heatmap, values: Values) -> None:
        names = self._names()
        heatmap.show_heat(Heat(values, names, names, "query", "key", high=1.0, unit="share"))

    def _names(self) -> list[str]:
        archive = self._drawn
        return [visible(text) for text in archive.metadata.tokens] if archive is not None else []

    def _describe(self, heatmap: Heatmap, query: int, key: int) -> str:
        names = heatmap.heat.rows if heatmap.heat is not None else ()  # not those of a prompt that comes after it
        if query >= len(names) or key >= len(names):
            return ""
        value = read_out(heatmap.value(query, key), "value")
        verb = "gets from" if heatmap is self.rollout else "attends to"
        words = []
        for token in (query, key):
            part = character_part(names, token)
            words.append(f"{names[token]} ({token}, {part})" if part else f"{names[token]} ({token})")
        return f"{words[0]} {verb} {words[1]}: {value}"

    # Pointing ----------------------------------------------------------------------------------------------------

    def _point(self, query: int, _key: int) -> None:
        self.session.hover(query)

    def _choose_cell(self, query: int, key: int) -> None:
        self._key = key
        self.session.select(token=query)
        self._mark()

    def _follow_hover(self, token: int) -> None:
        if not self._shown:
            return
        if token >= len(self._names()):
            token = -1
        self.arcs.point_at(token)
        for heatmap in (self.heatmap, self.rollout):
            heatmap.point_at(token, token)

    def _mark(self) -> None:
        """The chosen token's row, and the cell in it that was clicked."""
        names = self._names()
        if not names:
            return
        token = self.session.selection.token_at(len(names))
        for heatmap in (self.heatmap, self.rollout, self.stages):
            heatmap.choose(token, self._key)
        self.arcs.choose(token)

    def _set_log(self, log: bool) -> None:
        for view in (self.heatmap, self.rollout, self.stages, self.heads.mosaic):
            view.set_log(log)

    def _stages_table(self, archive: Archive) -> Table:
        names = [name.removeprefix("stages/") for name in archive if archive[name].ndim == 2]
        texts = [visible(text) for text in archive.metadata.tokens]
        count = len(texts)
        shown = [name for name in names if archive.shape(f"stages/{name}") == (count, count)]
        columns = [np.asarray(archive[f"stages/{name}"]) for name in shown]

        def row(place: int) -> list[Cell]:
            query, key = divmod(place, count)
            return [query, texts[query], key, texts[key], *(values[query, key] for values in columns)]

        return ["query", "query text", "key", "key text", *shown], LazyRows(count * count, row)
