"""What passed, used: runs with the learner's pieces beside the lab's own, their LoRA and their lens on a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from PySide6.QtCore import QUrl
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QLineEdit, QPushButton, QSpinBox, QWidget

from llmlab.core.config import with_values
from llmlab.core.errors import Cancelled, LabError
from llmlab.core.finetuning_settings import FULL, FinetuneSettings
from llmlab.core.presets import default_preset, of_preset
from llmlab.core.rebuilt_settings import RebuiltSettings, RetunedSettings
from llmlab.core.settings import PretrainSettings
from llmlab.core.signs import minus
from llmlab.exercises.pieces import Piece, Workbook
from llmlab.exercises.rebuilding import LENS, LORA, ON_A_MODEL
from llmlab.jobs.rebuilt import Beside, beside, make_ours, make_yours, plain_settings
from llmlab.models.reference import without_folders
from llmlab.store.history import read_history
from llmlab.store.run_folder import RunFolder
from llmlab_gui.forms.reference_box import ReferenceBox, offers
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.lab.training_now import TrainingNow
from llmlab_gui.notebook.asking import ask_of_run
from llmlab_gui.pages.browser import PageBrowser
from llmlab_gui.pages.page import Page
from llmlab_gui.rebuild.checks import ExerciseCommand
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.layouts import beside as in_a_row
from llmlab_gui.widgets.layouts import column, flow
from llmlab_gui.widgets.theme import theme_notifier

_TRACKS = (RebuiltSettings.track, RetunedSettings.track)
_BOTH = "runs:both"
_MOST_STEPS = 1_000_000
_NOTHING = {
    LORA: "**Fine-tune with mine** trains the model above with your LoRA layer. **Read with mine** takes a run that "
    "was fine-tuned, and computes its adapters by your functions, beside ours.",
    LENS: "**Read with mine** shows what your lens reads in the model above after each layer, beside ours.",
}
_NOT_PASSED = "A piece can be used here once its saved file has passed: save it, or press Check."
_NO_RUN = "**Train with mine** trains the smallest preset with all pieces of yours that have passed."


class Browser(PageBrowser):
    """A page of an exercise; none has figures."""

    def figure(self, name: str) -> QImage | None:
        return None


class UsePanel(QWidget):
    """Of the piece that is chosen: the controls that it has a use for, and what came of it."""

    def __init__(
        self, lab: Lab, workbook: Workbook, pieces: list[Piece], background: Background, command: tuple[str, ...]
    ) -> None:
        super().__init__()
        self._lab, self._workbook, self._pieces, self._background = lab, workbook, pieces, background
        self._name = ""  # of the piece
        self._making = False  # a run to train, which is not in the list of runs yet
        self._made: dict[str, str] = {}  # ids of the lab's own runs that are to stop where yours did, and yours
        self._reading = self._asked = ""  # the piece that reads, and the prompt
        self._shown: tuple[object, ...] = ()  # what the outcome is of
        self._read: dict[str, str] = {}  # what was found on a model, by the piece, as Markdown
        self._steps: dict[type, int] = {}  # that were chosen, by the kind of training
        self.steps, self.train, self.ours = QSpinBox(), QPushButton("Train with mine"), QPushButton("Train ours")
        self.model, self.prompt, self.read = ReferenceBox("Model"), QLineEdit("The king"), QPushButton("Read with mine")
        self.outcome = Browser("Your run beside ours", background)
        self._reader = ExerciseCommand(lab.outputs, self, command)
        self._lay_out()
        self._connect()

    def shutdown(self) -> None:
        self._reader.end()

    def show_piece(self, name: str) -> None:
        """Turns to a piece, as it stands now."""
        if name != self._name:
            if self._name:
                self._steps[self._kind] = self.steps.value()
            self._name = name
            kind = self._kind
            self.steps.setValue(self._steps.get(kind) or of_preset(kind, default_preset(kind)).train.steps)
            self._label()
            if name in ON_A_MODEL:
                self._offer()
        self.update_state()

    def update_state(self) -> None:
        """As pieces and runs stand."""
        for ours_id, yours_id in list(self._made.items()):
            self._stop_where_yours_did(self._lab.row(yours_id), self._lab.row(ours_id))
        if not self._name or not self.isVisibleTo(self.window()):
            return
        both = self._scratch  # pieces of one run
        used = [one for one in self._pieces if one.name == self._name or (both and one.name not in ON_A_MODEL)]
        passed = any(self._workbook.state(piece) == "passed" for piece in used)
        one = not self._making and not any(row.info.track in _TRACKS and row.status.live for row in self._lab.runs())
        yours, ours = self._pair()
        self.train.setEnabled(passed and one and (self._name != LORA or bool(self.model.reference)))
        self.ours.setEnabled(one and yours is not None and ours is None and _compares(yours))
        readable = self._name != LORA or self._has_adapter()
        self.read.setEnabled((passed and readable) or self._reader.running)
        self.read.setToolTip("" if readable else "Only a run that was fine-tuned with LoRA has adapters to compute")
        self.read.setText("Cancel" if self._reader.running else "Read with mine")
        self._show(yours, ours, passed=passed)

    # What there is -----------------------------------------------------------------------------------------------

    @property
    def _scratch(self) -> bool:
        return self._name not in ON_A_MODEL

    @property
    def _kind(self) -> type[PretrainSettings] | type[FinetuneSettings]:
        return FinetuneSettings if self._name == LORA else PretrainSettings

    def _has_adapter(self) -> bool:
        row = self._lab.row_called(self.model.reference.rpartition("@")[0] or self.model.reference)
        settings = row.info.settings if row is not None else None
        return isinstance(settings, FinetuneSettings) and settings.model.method != FULL

    def _lay_out(self) -> None:
        self.steps.setRange(1, _MOST_STEPS)
        self.steps.setGroupSeparatorShown(True)
        self.steps.setSuffix(" steps")
        self.steps.setAccessibleName("Steps to train")
        self.prompt.setAccessibleName("Prompt")
        self._on = column(in_a_row(self.model, self.prompt, self.read, grows=self.model))
        self._runs = flow(self.steps, self.train, self.ours)
        column(self._on, self._runs, (self.outcome, 1), into=self)

    def _connect(self) -> None:
        self.train.clicked.connect(self._train)
        self.ours.clicked.connect(self._train_ours)
        self.read.clicked.connect(self._read_or_cancel)
        self.prompt.returnPressed.connect(self._begin_reading)
        self.model.editTextChanged.connect(lambda _: self.update_state())
        self.outcome.stale.connect(self._show_again)
        theme_notifier.changed.connect(self._show_again)
        self.outcome.anchorClicked.connect(self._follow)
        self._reader.answered.connect(self._take)
        self._reader.failed.connect(self._refused)

    def _label(self) -> None:
        fine_tunes = self._name == LORA
        self._on.setVisible(not self._scratch)
        self._runs.setVisible(self._name != LENS)
        self.train.setText("Fine-tune with mine" if fine_tunes else "Train with mine")
        self.ours.setText("Fine-tune ours" if fine_tunes else "Train ours")
        scratch = "The smallest preset, with all pieces of yours that have passed"
        self.train.setToolTip("The model above, with your LoRA" if fine_tunes else scratch)
        self.ours.setToolTip("The lab's own run of the same settings and seed, to compare with yours")

    def _offer(self) -> None:
        """Models that are here, read off the window's thread."""
        runs, outputs = [row.run for row in self._lab.runs()], self._lab.outputs
        recent = [model.reference for model in self._lab.inspection.recent.there(outputs)]
        self._background.run(
            lambda: offers(outputs, runs, recent, self._background.check),
            self._take_offers,
            self._lab.error_raised.emit,
        )

    def _take_offers(self, found: list[tuple[str, str]]) -> None:
        self.model.offer(found)
        if not self.model.reference:
            about = self._lab.inspection.about
            newest = next((f"{row.name}@latest" for row in self._lab.runs() if row.pretrained), "")
            self.model.choose(about.reference if about is not None and not about.live else newest)

    def _pair(self) -> tuple[RunRow | None, RunRow | None]:
        """The newest run with what is chosen, and ours of the same settings and seed, if that came as far."""
        rows, track = self._lab.runs(), RetunedSettings.track if self._name == LORA else RebuiltSettings.track
        yours = next((row for row in rows if row.info.track == track), None)  # newest first
        if yours is None or self._name == LENS:
            return None, None
        plain = plain_settings(yours.info)
        same = (row for row in rows if row.info.settings == plain)
        return yours, next((row for row in same if row.status.live or _as_far(row, yours)), None)

    # What came of it ---------------------------------------------------------------------------------------------

    def _show_again(self) -> None:
        self._shown = ()
        self.update_state()

    def _show(self, yours: RunRow | None, ours: RunRow | None, *, passed: bool) -> None:
        rows = tuple((row.id, row.status.step, row.status.state) for row in (yours, ours) if row is not None)
        state = (self._name if not self._scratch else "", rows, self._read.get(self._name), passed)
        if state == self._shown:
            return
        self._shown = state
        if yours is None or ours is None:
            nothing = _NOTHING.get(self._name, _NO_RUN) if passed else _NOT_PASSED
            self._put(_one_run(yours) if yours is not None else nothing)
            return

        def read() -> Beside:
            if state != self._shown:  # they are further by now, and a later reading waits behind this one
                raise Cancelled
            return beside(read_history(yours.run), read_history(ours.run))

        def show(found: Beside) -> None:
            if state == self._shown:
                self._put(_outcome(yours, ours, found))

        self._background.run(read, show, self._lab.error_raised.emit)

    def _put(self, text: str) -> None:
        found = self._read.get(self._name, "")
        self.outcome.show_page(
            Page("rebuilt-runs", "Use", f"# Yours and ours\n\n{found}{text}\n"), self.outcome.place()
        )

    def _follow(self, url: QUrl) -> None:
        yours, ours = self._pair()
        if url.toString() == _BOTH and yours is not None and ours is not None:
            self._lab.set_current(yours.id)
            self._lab.set_shown_runs([yours.id, ours.id])
            self._lab.dock_requested.emit("loss")

    # What is done ------------------------------------------------------------------------------------------------

    def _train(self) -> None:
        kind, preset = self._kind, default_preset(self._kind)
        changed: dict[str, Any] = {"train.steps": self.steps.value()}
        if kind is FinetuneSettings:
            changed["model.base"] = self.model.reference
        try:
            settings = with_values(of_preset(kind, preset), changed)
        except LabError as error:
            self._lab.error_raised.emit(error)
            return
        predict = partial(ask_of_run, self, self._lab, settings, preset)
        predictions = TrainingNow(self._lab).predicted(self, self.train.text(), predict)
        if predictions is not None:
            make = partial(make_yours, self._lab.outputs, (), settings, preset=preset)
            self._make(partial(make, watched=True, predictions=predictions))

    def _train_ours(self) -> None:
        yours, _ = self._pair()
        if yours is not None and TrainingNow(self._lab).may_start(self, self.ours.text()):
            self._make(partial(make_ours, yours.run, watched=True), yours)

    def _make(self, make: Callable[[], RunFolder], yours: RunRow | None = None) -> None:
        """Makes a run and trains it; until it has ended there is no second one. yours: shown in the charts beside."""

        def made(run: RunFolder) -> None:
            self._making = False
            self._lab.controller.train_made(run)
            if yours is not None:
                self._made[run.full_name] = yours.id
                self._lab.set_shown_runs([*self._lab.overlaid(), yours.id, run.full_name])
            self._lab.refresh()

        def failed(error: LabError) -> None:
            self._making = False
            self.update_state()
            self._lab.error_raised.emit(error)

        self._making = True
        self.update_state()
        self._background.run(make, made, failed)

    def _stop_where_yours_did(self, yours: RunRow | None, ours: RunRow | None) -> None:
        """Ours has the same schedule, and so as many steps; what it does beyond yours compares with nothing."""
        if yours is None or ours is None or yours.status.live or ours.status.state != "running":
            return
        if yours.status.step <= ours.status.step < ours.info.settings.train.steps:
            del self._made[ours.id]  # resumed, it trains on
            self._lab.controller.stop(ours.run)

    def _read_or_cancel(self) -> None:
        if self._reader.running:
            self._reader.end()
            self._read.pop(self._reading, None)
            self.update_state()
        else:
            self._begin_reading()

    def _begin_reading(self) -> None:
        if self._reader.running or not self.read.isEnabled():
            return
        self._reading, self._asked = self._name, self.prompt.text()
        self._read[self._name] = f"Opening {without_folders(self.model.reference)} …\n\n"
        # One word each: a prompt may begin like an option.
        self._reader.begin("use", self._name, f"--model={self.model.reference}", f"--prompt={self._asked}")
        self.update_state()

    def _take(self, found: dict[str, Any]) -> None:
        table = _lens_table if self._reading == LENS else _lora_table
        self._read[self._reading] = table(found, self._asked)
        self.update_state()

    def _refused(self, error: LabError) -> None:
        self._read.pop(self._reading, None)
        self.update_state()
        self._lab.error_raised.emit(error)


def _as_far(ours: RunRow, yours: RunRow) -> bool:
    """Whether ours has come as far as yours, which may have been stopped."""
    return ours.status.state == "finished" or (not yours.status.live and ours.status.step >= yours.status.step > 0)


def _compares(yours: RunRow) -> bool:
    """Whether a run of theirs has taken a step, or may still take one."""
    return yours.status.live or yours.status.step > 0


def _pieces_of(row: RunRow) -> str:
    return row.info.settings.words.facts["yours"]


def _one_run(yours: RunRow) -> str:
    """Of a run of theirs that has none of ours beside it."""
    step, steps = yours.status.step, yours.info.settings.train.steps
    to = f", up to step {step:,} where yours ended" if not yours.status.live and step < steps else ""
    button = "Fine-tune ours" if isinstance(yours.info.settings, FinetuneSettings) else "Train ours"
    said = "It has taken no step, so there is nothing to compare."
    if _compares(yours):
        said = (
            f"**{button}** trains the lab's own run of the same settings and seed{to}; then both losses are shown here."
        )
    return f"{yours.name}, with your {_pieces_of(yours)}: {yours.status.words}. {said}"


def _outcome(yours: RunRow, ours: RunRow, found: Beside) -> str:
    """As `llmlab-run exercise use` has it."""
    lines = [
        f"Yours is {yours.name}, with your {_pieces_of(yours)}: {yours.status.words}. "
        f"Ours is {ours.name}: {ours.status.words}. [Show both in the charts]({_BOTH})."
    ]
    lines += ["", "| validation loss at step | yours | ours | difference |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {step:,} | {mine:.4f} | {theirs:.4f} | {minus(f'{mine - theirs:+.4f}')} |"
        for step, mine, theirs in found.losses
    ]
    if found.our_speed and found.your_speed:
        share = found.your_speed / found.our_speed
        lines += ["", "| | yours | ours | times as fast |", "| --- | --- | --- | --- |"]
        lines += [f"| tokens per second | {found.your_speed:,.0f} | {found.our_speed:,.0f} | {share:.2f} |"]
    why = "their losses differ by rounding alone where your pieces compute what ours do."
    if isinstance(yours.info.settings, FinetuneSettings):
        why = "they begin with the same loss, and differ later because your `start` draws another A."
    return "\n".join([*lines, "", f"Both have the same seed: {why}"])


def _lens_table(found: dict[str, Any], prompt: str) -> str:
    lines = [f"After each layer of {found['model']}, what comes after `{_code(prompt)}`:", ""]
    lines += ["| after layer | yours | ours | largest difference |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row['layer']} | `{_code(row['your_token'])}` {row['your_probability']:.4f} "
        f"| `{_code(row['our_token'])}` {row['our_probability']:.4f} | {row['apart']:.1g} |"
        for row in found["rows"]
    ]
    return "\n".join([*lines, "", ""])


def _lora_table(found: dict[str, Any], prompt: str) -> str:
    lines = [
        f"Adapters of {found['model']}, what comes after `{_code(prompt)}`. Probabilities differ by at most "
        f"{found['apart']:.1g}, weights of your merged matrices by {found['merged']:.1g}.",
        "",
        "| next token | yours | ours | without the adapters |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{_code(token)}` | {yours:.4f} | {ours:.4f} | {base:.4f} |"
        for token, (_, yours, ours, base) in zip(found["tokens"], found["rows"], strict=True)
    ]
    return "\n".join([*lines, "", ""])


def _code(text: str) -> str:
    """Words of a model in a cell of a table."""
    return text.replace("`", "'").replace("|", "¦").replace("\n", " ")
