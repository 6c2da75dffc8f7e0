"""A patching sweep as a map: the effect of each single intervention on the watched logit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from llmlab.core.errors import LabError
from llmlab.core.signs import minus
from llmlab.inspection.archive import Archive
from llmlab_gui.charts.heatmap import Heat, Heatmap
from llmlab_gui.host.process import Request
from llmlab_gui.host.selection import Working
from llmlab_gui.host.session import InspectionSession
from llmlab_gui.inside.comparison import POINTS
from llmlab_gui.widgets.alternatives import visible
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import EmptyState, PrimaryButton, QuietLabel
from llmlab_gui.widgets.layouts import choice_box, column, stack
from llmlab_gui.widgets.numbers import exact

POSITIONS, HEADS = "layer,position", "layer,head"
_OVER = ((POSITIONS, "Layer by token"), (HEADS, "Layer by head"))
_ACTIONS = (
    ("patch", "patch", "From the source prompt"),
    ("zero", "zero", "Zero ablation"),
    ("mean", "mean", "Mean ablation"),
)
_POINTS = [point for name in ("pre_attn", "attn_out", "mlp_out", "post_ffn") for point in POINTS if point[0] == name]
_HINT = "One intervention at a time, reading the watched logit: one forward pass per cell."
_WHEN = "Its map is drawn when all of its forward passes are done."
_UNITS = {"normalised": "share", "change": "logits"}  # under the colours; the line below says all of it
_EFFECTS = {"normalised": "0: as in the prompt, 1: as in the source", "change": "change of the watched logit"}


class SweepView(QWidget):
    """Runs sweeps and draws them. `target`: the fields that the form above it gives. `chosen`: layer, column.

    `drawn`: another sweep is shown.
    """

    chosen = Signal(int, int)
    drawn = Signal()

    def __init__(self, session: InspectionSession, target: Callable[[], dict[str, object]]) -> None:
        super().__init__()
        self._session, self._target = session, target
        self.archive: Archive | None = None
        self._about: tuple[object, ...] = ()  # model and prompt of what was asked for last
        self._request: Request | None = None  # for that, until it is answered or a person cancels it
        self._changed = ""  # what has ended that: the prompt or the model
        self._share = 0.0  # of its forward passes
        self._words = ""  # about the map
        self.over = choice_box("Axes of the map", _OVER)
        self.action = choice_box("Intervention in each cell", _ACTIONS)
        self.point = choice_box("Hook point in the residual stream", _POINTS)
        self.run = PrimaryButton("Sweep", self.start)
        self.note, self.empty = QuietLabel(), EmptyState()
        self.map = Heatmap("Effect of each intervention", square=False)
        self._pages = stack(self.empty, column((self.map, 1), self.note, spacing=4))
        row = FlowRow()
        row.add(self.over, self.action, self.point, self.run)
        column(row, (self._pages, 1), into=self, spacing=4)
        self.over.currentIndexChanged.connect(self._show_fields)
        self.map.clicked.connect(self.chosen)
        session.tokens_changed.connect(self._forget)
        session.about_changed.connect(self._forget)
        self._show_fields()
        self._show_none()

    @property
    def over_heads(self) -> bool:
        """Whether the columns of what is shown are heads."""
        return self.archive is not None and self.archive.metadata.question.get("over") == HEADS

    def start(self) -> None:
        """Asks for the sweep that the fields describe, in place of one that is under way."""
        values: dict[str, object] = {"over": self.over.currentData(), "action": self.action.currentData()}
        if self.over.currentData() == POSITIONS:
            values["point"] = self.point.currentData()
        if self.archive is None:
            if self.empty.isAncestorOf(self.window().focusWidget()):  # its button goes
                self.run.setFocus()
            self.empty.say("The sweep is under way", _WHEN)
        self._about, self._changed = self._now(), ""
        self._request = self._session.ask("sweep", {**self._target(), **values}, self._take, self._refuse, "sweep")
        if self._request is not None:
            self._share = 0.0
            self._request.progressed.connect(self._note_share)
            self._request.ended.connect(partial(self._ended, self._request))

    def _note_share(self, news: Working) -> None:
        self._share = news.share or 0.0

    def _ended(self, request: Request) -> None:
        """Says what a person, or another prompt or model, has ended: not what another sweep has replaced."""
        if request is not self._request:
            return
        changed = not request.wanted and self._about != self._now()
        if not changed:
            self._request = None
        if request.wanted:
            return
        if self.archive is None:
            self._show_none() if changed else self._offer_again("The sweep was cancelled")
        elif not changed:
            self.note.setText(f"The next sweep was cancelled: {self._done}. {self._words}")

    @property
    def _done(self) -> str:
        return f"{100 * self._share:.0f} % of its forward passes were done"

    def _take(self, archive: Archive) -> None:
        self.archive = archive
        self._pages.setCurrentIndex(1)
        values = np.asarray(archive["sweep/effect"])
        raw = np.asarray(archive["sweep/logit_difference"])
        more = archive.metadata.more
        heads = self.over_heads
        tokens = [visible(token) for token in archive.metadata.tokens]
        columns = [str(head) for head in range(values.shape[1])] if heads else tokens
        unit = _EFFECTS.get(more.get("effect", ""), "effect")

        def describe(layer: int, column: int) -> str:
            where = f"head {column}" if heads else f"token {column} “{tokens[column]}”"
            effect, logit = exact(values[layer, column]), exact(raw[layer, column])
            return f"Layer {layer}, {where}: effect {effect}, logit {logit} ({unit})"

        self.map.describe = describe
        rows = [str(layer) for layer in range(len(values))]
        self.map.show_heat(
            Heat(
                values,
                rows,
                columns,
                "layer",
                "head" if heads else "token",
                signed=True,
                unit=_UNITS.get(more.get("effect", ""), ""),
            )
        )
        against = f" − “{visible(more['against_text'])}”" if more.get("against_text") else ""
        before = float(archive["sweep/before"][0])
        words = f"Watched: “{visible(more.get('answer_text', ''))}”{against} at token {more.get('position', '')}"
        there = (
            f", in the source {minus(format(float(archive['sweep/source'][0]), '.4f'))}"
            if "sweep/source" in archive
            else ""
        )
        notes = " ".join(archive.metadata.notes)
        self.drawn.emit()
        self._words = f"{words}: {minus(f'{before:.4f}')}{there}. Colours: {unit}. {notes}".strip()
        self.note.setText(self._words)

    def _refuse(self, error: LabError) -> None:
        if self.archive is None:
            self.empty.say(error.what, f"{error.why} {error.do}".strip())
        else:
            self.note.setText(str(error))

    def _show_none(self) -> None:
        """In the map's place, that there is none; and whether another prompt or model has ended the sweep for it."""
        if self._request is None:
            self.empty.say("No sweep yet", _HINT)
        else:
            self._changed = self._changed or ("model" if self._about[0] != self._now()[0] else "prompt")
            self._offer_again(f"The {self._changed} changed during the sweep")
        self._pages.setCurrentWidget(self.empty)

    def _offer_again(self, title: str) -> None:
        self.empty.say(title, f"{self._done}. {_WHEN}", "Sweep again", self.start)

    def _show_fields(self) -> None:
        self.point.setVisible(self.over.currentData() == POSITIONS)

    def _forget(self) -> None:
        """A sweep of another prompt or model is no longer about anything here."""
        if self._about != self._now():
            self.archive = None
            self._show_none()
            self.drawn.emit()

    def _now(self) -> tuple[object, ...]:
        session = self._session
        return session.about.reference if session.about is not None else "", session.text, session.beginning
