"""The Walk panel: the stages of one prediction at the left, the chosen one at the right."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from PySide6.QtCore import QEvent, QObject, QSignalBlocker, Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QLabel, QLineEdit, QListWidget, QPushButton, QSpinBox, QStackedWidget, QWidget

from llmlab.core.errors import LabError
from llmlab.data.token_bytes import spelled
from llmlab.inspection.archive import Archive
from llmlab.walk.stage import BY_KEY, Stage, from_archive
from llmlab_gui.inside.inspection_dock import AGAIN, AskingDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.walk.draw_row import DrawRow, add_named
from llmlab_gui.walk.stage_view import StageView
from llmlab_gui.widgets.alternatives import visible
from llmlab_gui.widgets.buttons import toggle_button, tool_button
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.labels import EmptyState, ProblemLabel, label_of
from llmlab_gui.widgets.layouts import beside, choice_box, column, settling_timer, split
from llmlab_gui.widgets.saving import Cell, LazyRows, Table
from llmlab_gui.widgets.tab_order import give_keyboard, main_part

_CAPTION = (
    "One prompt on its way through the model. The arrow keys go from stage to stage, and each number is the model's."
)
_CHANGE_HINT = "norm[5]=0.3, token:3=a, or weight:NAME[3,4]=0.1"
_WEIGHT_HINT = "blocks.0.attention.out.weight[3,4]; empty: the one of `up` with the largest gradient"
_CHANGE_NAME = "A number, token or weight to change"
_WINDOW_TIP = "The prompt, or a sequence that the run trains on next: those of its next step, then of the one after"
FORWARDS, BACKWARDS = "walk", "walk_back"
_APPENDED = 16  # characters of what was appended, on the button that takes it back
# Milliseconds after which a field that was typed into is taken for finished.
_SETTLED = 400


class WalkDock(AskingDock):
    """Choosers above, stages at the left, one stage at the right."""

    asks = ("walk",)

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "walk", "Walk", parent)
        self.stages: list[Stage] = []
        self.list, self.view, self.problem = QListWidget(), StageView(), ProblemLabel()
        directions = ((FORWARDS, "Forwards"), (BACKWARDS, "Backwards"))
        self.direction = choice_box("Direction of the walk", directions)
        self.layer, self.head, self.position = QSpinBox(), QSpinBox(), QSpinBox()
        self.drawing = DrawRow()
        self.change, self.undo = QLineEdit(), QPushButton("Undo")
        self.cache = toggle_button("KV cache", "Walk the last token with a cache, and mark what of each stage it holds")
        self.append = tool_button("Append", "Append the sampled token to the text, and walk again", slot=self._append)
        self.take_back = tool_button(
            "Take back", "The prompt without the tokens that were appended", slot=self._take_back
        )
        self.sequence, self.key = QSpinBox(), QSpinBox()
        self._appended: list[int] = []
        self._wanted = ""  # a stage that is to be shown as soon as it is there
        self._place = -1  # in a training sequence, which has no part in the prompt's selection
        self._trouble: LabError | None = None
        self._pages, self._none = QStackedWidget(), EmptyState()
        self._lay_out()
        self.caption(_CAPTION, "attention")
        self._connect()

    def walk_to(self, direction: str, stage: str) -> None:
        """Walks in a direction, and shows a stage of it by its name."""
        self._wanted = stage
        self.direction.setCurrentIndex(self.direction.findData(direction))
        self._fill()

    def main_part(self) -> QWidget | None:
        if self._none.isVisible():
            return main_part(self._none)
        return self.list if self.list.isVisible() else super().main_part()

    def update_state(self) -> None:
        """The walk, or why there is none."""
        super().update_state()
        if self._trouble is not None and self.archive is None and self.session.about is not None:
            self.show_trouble(self._trouble)

    def _say_cancelled(self, cancelled: bool) -> None:
        """Below the choosers: the other direction stays in reach."""
        if cancelled == (self._pages.currentWidget() is self._none):
            return
        self._pages.setCurrentIndex(int(cancelled))
        if cancelled and self.isAncestorOf(self.window().focusWidget()) and (again := main_part(self._none)):
            give_keyboard(again, Qt.FocusReason.OtherFocusReason)  # also from the Cancel that is gone

    def pictures(self) -> list[QWidget]:
        return [self.view.picture] if self.view.is_drawn() else []

    def table(self) -> Table | None:
        """Every value of every stage; a row of them is made when it is written."""
        values = [(stage.name, value) for stage in self.stages for value in stage.values]
        ends = list(accumulate(value.array.size for _, value in values))
        if not values:
            return None

        def row(place: int) -> tuple[Cell, ...]:
            at = bisect_right(ends, place)
            stage, value = values[at]
            index = np.unravel_index(place - (ends[at] - value.array.size), value.array.shape)
            return stage, value.name, " ".join(map(str, index)), float(value.array[index])

        return ("stage", "value", "index", "number"), LazyRows(ends[-1], row)

    # Asking ------------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Unless that is what is shown or asked for."""
        about, session = self.session.about, self.session
        if about is None or not self._shown or not session.tokens or session.readable or session.unread:
            return
        values = self._values()
        asked = (about.reference, session.text, session.beginning, self.direction.currentData(), repr(values))
        if asked != self._asked:
            self._asked, self._cancelled = asked, ()
            self.append.setEnabled(False)  # the token that is shown was drawn for what was asked before
            session.ask(self.direction.currentData(), values, self._take, self._take_refusal, "walk")

    @property
    def _back(self) -> bool:
        return self.direction.currentData() == BACKWARDS

    def _values(self) -> dict[str, Any]:
        return self._values_back() if self._back else self._values_forwards()

    def _values_back(self) -> dict[str, Any]:
        """The prompt is a training sequence: its last token is predicted, and predicts nothing."""
        chosen, count, sequence = self.session.selection, len(self.session.tokens), self.sequence.value()
        values = {"layer": chosen.layer, "head": chosen.head, "weight": self.change.text().strip()}
        if sequence < 0:
            return values | {"position": min(chosen.token_at(count), max(count - 2, 0))}
        return values | {"position": self._place, "sequence": sequence}

    def _values_forwards(self) -> dict[str, Any]:
        chosen, tokens = self.session.selection, self.session.tokens
        count = len(tokens) + len(self._appended)
        position = chosen.token_at(len(tokens))
        if self._appended or self.cache.isChecked():
            position = count - 1
        values: dict[str, Any] = {
            "layer": chosen.layer,
            "head": chosen.head,
            "position": position,
            "drawn": len(self._appended),
            **self.drawing.values(),
        }
        if self.key.value() >= 0:
            values["key"] = min(self.key.value(), count - 1)
        if self.cache.isChecked():
            values["cache"] = True
        if changes := self.change.text().lstrip():
            values["changes"] = [changes]
        if self._appended:
            values["ids"] = [*(token.id for token in tokens), *self._appended]
        return values

    def _take(self, archive: Archive) -> None:
        self.archive, self._answered, self._trouble = archive, self._asked, None
        about, walked = self.session.about, archive.metadata.model
        live = about is not None and about.live
        self.problem.say(f"The run is training: this is {walked}, its newest checkpoint." if live else "", wrong=False)
        self.stages = from_archive(archive)
        self.update_state()
        self._show_choosers()
        self._fill()
        self._wanted = ""  # also where this walk has no such stage: a weight that Muon moves has no AdamW step

    def _refuse(self, error: LabError) -> None:
        """In the place of the walk, unless what was chosen above it is refused, and has to be in reach."""
        if self.archive is None and not (self._back or self.cache.isChecked()):
            self._trouble = error
            self.update_state()
        else:
            self.problem.say(str(error))
            self.take_back.setVisible(bool(self._appended))

    def _forget(self) -> None:
        self.archive, self._asked, self._trouble, self.stages = None, (), None, []
        self._appended, self._place = [], -1
        self.change.clear()
        for box in (self.sequence, self.key):
            with QSignalBlocker(box):
                box.setValue(-1)
        self._fill()
        self.update_state()

    def _look_again(self) -> None:
        """What a live model has learned since is in no checkpoint; the first one is waited for."""
        if self.archive is None:
            super()._look_again()

    # Showing -----------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """The list of stages; the one of the same name stays chosen, unless another is wanted."""
        shown = self._wanted or (self.view.stage.name if self.view.stage is not None else "")
        with QSignalBlocker(self.list):
            self.list.clear()
            for number, stage in enumerate(self.stages, 1):
                self.list.addItem(f"{number}. {'changed · ' if stage.changed else ''}{stage.title}")
                self.list.item(number - 1).setToolTip(stage.why)
            names = [stage.name for stage in self.stages]
            if self._wanted in names:
                self._wanted = ""
            self.list.setCurrentRow(names.index(shown) if shown in names else 0 if names else -1)
        self._show_stage()

    def _show_stage(self) -> None:
        place = self.list.currentRow()
        stage = self.stages[place] if 0 <= place < len(self.stages) else None
        self.view.show_stage(stage)
        self.drawing.setVisible(stage is not None and stage.panel == "write")
        self._key_row.setVisible(stage is not None and stage.panel == "attention" and not self._back)

    def _show_choosers(self) -> None:
        about, archive = self.session.about, self.archive
        if about is None or archive is None:
            return
        asked, tokens = archive.metadata.question, archive.metadata.tokens
        last = not self._back and bool(self._appended or self.cache.isChecked())
        self.position.setEnabled(not last)
        self.position.setToolTip("With a KV cache, and after Append, the last token is walked." if last else "")
        for box, most, value in (
            (self.layer, about.n_layer - 1, int(asked.get("layer", 0))),
            (self.head, about.n_head - 1, int(asked.get("head", 0))),
            (self.position, len(tokens) - 1 - self._back, int(asked.get("position", -1)) % len(tokens)),
        ):
            with QSignalBlocker(box):
                box.setRange(0, max(most, 0))
                box.setValue(value)
        if self._back:
            self._show_sequences(int(archive.metadata.more.get("sequences", 0)))
        with QSignalBlocker(self.key):
            self.key.setMaximum(len(tokens) - 1)
            self.key.setSpecialValueText(_key_words(asked.get("changes", ())))
        self.token.setText(visible(tokens[self.position.value()]))
        appended = tokens[len(tokens) - len(self._appended) :]
        self.take_back.setText(f"Take back {visible(spelled(appended) or ''.join(appended))[-_APPENDED:]}")
        self.take_back.setVisible(bool(self._appended))
        self.append.setEnabled(not self._back and self.position.value() == len(tokens) - 1)

    def _show_sequences(self, count: int) -> None:
        """How many training sequences can be chosen."""
        self.sequence.setMaximum(count - 1)
        self.sequence.setEnabled(count > 0)
        self.sequence.setToolTip(
            _WINDOW_TIP
            if count
            else "Only a run's checkpoint has training text, and only while that text is on this machine."
        )

    def _turn(self) -> None:
        """The other direction: what was typed and appended was for the one before."""
        self._appended, self.archive, self._trouble, self.stages = [], None, None, []
        self._fill()
        self.change.clear()
        self._change_label.setText("Weight" if self._back else "Change")
        self.change.setPlaceholderText(_WEIGHT_HINT if self._back else _CHANGE_HINT)
        self.change.setAccessibleName("The weight whose step is shown" if self._back else _CHANGE_NAME)
        for forwards in (self.undo, self.cache, self.append):
            forwards.setVisible(not self._back)
        self._window_row.setVisible(self._back)
        self._ask()

    def _select(self) -> None:
        if self._back and self.sequence.value() >= 0:
            self._place = self.position.value()
            self.session.select(layer=self.layer.value(), head=self.head.value())
            self._ask()
        else:
            self.session.select(layer=self.layer.value(), head=self.head.value(), token=self.position.value())

    def _append(self) -> None:
        """The drawn token, behind the text."""
        drawn = [stage for stage in self.stages if stage.name == "next"]
        if drawn:
            self._appended.append(int(drawn[0].values[0].array[0]))
            self.change.clear()
            self._ask()

    def _take_back(self) -> None:
        self._appended = []
        self._ask()

    def _undo(self) -> None:
        self.change.clear()
        self._ask()

    def _start_change(self, begun: str) -> None:
        """A number that was clicked can be typed over."""
        if self._back:
            return
        self.change.setText(begun)
        self.change.setFocus(Qt.FocusReason.OtherFocusReason)

    def _change_typed(self) -> None:
        """An unfinished change is waited for."""
        text = self.change.text().strip()
        if not text or not text.endswith("="):
            self._ask()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Left and right, too, go from stage to stage."""
        if event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(Qt.Key(event.key()), 0)
            if step:
                self.list.setCurrentRow(min(max(self.list.currentRow() + step, 0), self.list.count() - 1))
                return True
        return super().eventFilter(watched, event)

    def _connect(self) -> None:
        session = self.session
        session.selection_changed.connect(self._ask)
        session.tokens_changed.disconnect(self._ask)  # what was appended goes first
        session.tokens_changed.connect(self._take_back)
        self.list.currentRowChanged.connect(self._show_stage)
        for part in (self.list, self.view.words):
            part.installEventFilter(self)
        for box in (self.layer, self.head, self.position):
            box.valueChanged.connect(self._select)
        self.direction.currentIndexChanged.connect(self._turn)
        self._settled = settling_timer(self, _SETTLED, self._ask)
        for number in (*self.drawing.fields.values(), self.key, self.sequence):
            number.valueChanged.connect(self._settled.start)
        self.change.returnPressed.connect(self._change_typed)
        self.change.textChanged.connect(lambda text: self.undo.setEnabled(bool(text)))
        self.undo.clicked.connect(self._undo)
        self.cache.toggled.connect(self._ask)
        self.view.panel_wanted.connect(self.lab.dock_requested)
        self.view.number_chosen.connect(self._start_change)

    def _lay_out(self) -> None:
        self.controls.addWidget(self.direction)
        for box, name in ((self.layer, "Layer"), (self.head, "Head"), (self.position, "Position")):
            box.setAccessibleName(f"{name} that is walked through")
            box.setKeyboardTracking(False)
            add_named(self.controls, name, box)
        self.sequence.setRange(-1, 0)
        self.sequence.setSpecialValueText("of the prompt")
        self.sequence.setAccessibleName("Training sequence that is walked back from")
        self.sequence.setKeyboardTracking(False)
        self._window_row = QWidget()
        add_named(FlowRow(self._window_row), "Sequence", self.sequence)
        self._window_row.hide()
        self.controls.addWidget(self._window_row)
        self.token = QLabel()
        self.controls.addWidget(self.token)
        self.take_back.hide()
        for button in (self.cache, self.append, self.take_back):
            self.controls.addWidget(button)
        self.drawing.hide()
        self._key_row = QWidget()
        self.key.setRange(-1, 0)
        self.key.setSpecialValueText(_key_words(()))
        self.key.setAccessibleName("Position whose key, value and score are shown")
        self.key.setKeyboardTracking(False)
        add_named(FlowRow(self._key_row), "Key of position", self.key)
        self._key_row.hide()
        self.change.setAccessibleName(_CHANGE_NAME)
        self.change.setPlaceholderText(_CHANGE_HINT)
        self.change.setToolTip(
            f"Change one number and see what follows: {_CHANGE_HINT}. Enter applies it. A click on a number of a "
            "vector, or Enter, begins its change."
        )
        self.undo.setToolTip("The model's own numbers again")
        self.undo.setEnabled(False)
        self.list.setAccessibleName("Stages of the walk")
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.list.setMinimumWidth(120)
        self._change_label = label_of("Change", self.change)
        row_of_change = beside(self._change_label, self.change, self.undo, grows=self.change)
        stage = column(self.drawing, self._key_row, (self.view, 1), spacing=3)
        halves = split(self.list, (stage, 1), across=True, sizes=[230, 520])
        self._none.say("Walk was cancelled", "", AGAIN, self._ask_again)
        for page in (halves, self._none):
            self._pages.addWidget(page)
        numbers = column((self._pages, 1))
        self.set_body(column((numbers, 1), row_of_change, self.problem, spacing=4), numbers)


def _key_words(changes: Sequence[str]) -> str:
    """Which key a walk writes out where none is chosen: a change keeps it, so that before and after compare."""
    if any(change.startswith(tuple(f"{name}[" for name in BY_KEY)) for change in changes):
        return "the one that is set"
    return "the most attended to before the change" if changes else "the most attended to"
