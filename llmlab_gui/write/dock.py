"""The Write dock: prompts any checkpoint and shows the probability of each generated token."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from PySide6.QtCore import Qt
from PySide6.QtGui import QFontDatabase, QGuiApplication, QKeySequence, QResizeEvent, QShortcut, QShowEvent, QTextCursor
from PySide6.QtWidgets import QCheckBox, QLabel, QPlainTextEdit, QPushButton, QTabWidget, QWidget

from llmlab.core.errors import LabError
from llmlab.data.token_bytes import BROKEN
from llmlab_gui.host.messages import Generation
from llmlab_gui.host.process import ModelHost
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.widgets.buttons import push_button
from llmlab_gui.widgets.labels import PrimaryButton, QuietLabel, labelled
from llmlab_gui.widgets.layouts import beside, column, settling_timer, split
from llmlab_gui.widgets.one_line import OneLine
from llmlab_gui.widgets.veil import Veil
from llmlab_gui.write.generation_form import Draft, GenerationForm
from llmlab_gui.write.model_picker import ModelPicker
from llmlab_gui.write.next_tokens import Asked, NextTokens, TokenAlternatives
from llmlab_gui.write.second_column import SecondAnswer
from llmlab_gui.write.token_view import TintLegend, TokenView
from llmlab_gui.write.writer import Writer

# After so long without a key, the next token is asked for.
_TYPING_PAUSE_MS = 250
# Below this width the alternatives go under the text instead of beside it.
_NARROW = 600
NEXT_TAB, TOKEN_TAB = 0, 1
_DRAFT = "write/draft"


class WriteDock(LabDock):
    """Prompt above, text below, and beside it what else could have come."""

    def __init__(self, lab: Lab, parent: QWidget | None = None, host: ModelHost | None = None) -> None:
        """host: a process of its own, which goes with the dock; that of the inspection panels if not given."""
        super().__init__(lab, "write", "Write", parent)
        self.host = host or lab.inspection.host  # one process for all models of the window
        self._owned = host
        self.picker = ModelPicker(lab, self._background)
        self.note = QuietLabel()
        self.note.setTextFormat(Qt.TextFormat.RichText)
        self.prompt = labelled(QPlainTextEdit("The king", tabChangesFocus=True), "Prompt")
        self.prompt.moveCursor(QTextCursor.MoveOperation.End)  # what is typed goes on where it ends
        self.prompt.setPlaceholderText("The text that the model continues")
        self.prompt.setMinimumHeight(56)
        self.too_long = QuietLabel()  # below the prompt, so that the next key does not move what is typed
        self.too_long.hide()
        self.form = GenerationForm()
        self._build_buttons()
        self.text = labelled(TokenView(), "What the model wrote")
        self.text.setPlaceholderText("Press Generate. Point at its tokens.")
        self.first_name = OneLine(elide=Qt.TextElideMode.ElideMiddle)  # its end is the step
        self.first_name.hide()
        self._author = ""  # the model that wrote what is shown
        self._wrote = ""  # its reference
        self._asked_of = ("", "")  # what was chosen for it: a run, and which of its checkpoints, in a word
        self.said = QLabel(wordWrap=True)
        self.said.setTextFormat(Qt.TextFormat.PlainText)  # words of a model's template, too
        self.writer = Writer(self.host, self.text, self)
        self.second = SecondAnswer(lab, self.host, self._background)
        self._how = self.form.how()  # of what is being written
        self._prompt_then = ""
        self._pointed_in = self.text
        self.ahead = NextTokens(self.host)
        self.at_token = TokenAlternatives()
        self._text_veil = Veil(self.text)
        self._lay_out()
        self.caption("A model gives every possible next token a probability; the text is sampled from them.", "loss")

        self._typing = settling_timer(self, _TYPING_PAUSE_MS, self._ask_next)
        self._connect()
        self._model_changed()

    def remember(self, settings: WindowSettings) -> None:
        super().remember(settings)
        draft = self.draft_left(_DRAFT, Draft)
        if draft is not None:
            self.prompt.setPlainText(draft.prompt)
            self.prompt.moveCursor(QTextCursor.MoveOperation.End)
            self.form.show_how(draft.how)
            self.chat.setChecked(draft.how.chat)
            self.spaces.setChecked(draft.spaces)
            self.picker.choose_again(draft.run, draft.which)

    def keep(self) -> None:
        how, spaces = self._sampling(), self.spaces.isChecked()
        self.save_draft(_DRAFT, Draft(self.prompt.toPlainText(), how, spaces, *self.picker.chosen))

    def shutdown(self) -> None:
        """Ends the reading thread, and a process of its own if it was given one."""
        self._typing.stop()
        for writer in (self.writer, self.second.writer):
            writer.shutdown()
        if self._owned is not None:
            self._owned.shutdown()
        super().shutdown()

    def generate(self) -> None:
        """Continues the prompt with the chosen model."""
        if self._busy:
            return
        try:
            model = self.picker.reference()
        except LabError as error:
            self.lab.error_raised.emit(error)
            return
        self.tabs.setCurrentIndex(TOKEN_TAB)
        self._how = self._sampling()
        self._prompt_then = self.prompt.toPlainText()
        self.second.text.begin("")
        self.second.said.clear()
        self._stay()
        self._author, self._wrote, self._asked_of = self._first_model(), model, self.picker.choice
        self._name_first()
        self.writer.begin(model, self._prompt_then, self._how)
        self._point(self.text, -1)
        self._mark_stale()
        self._update_buttons()

    def _sampling(self) -> Generation:
        return replace(self.form.how(), chat=self.chat.isChecked())

    def cancel_work(self) -> bool:
        """The generation."""
        busy = self._busy
        self.stop()
        return busy

    def stop(self) -> None:
        """Ends the generation; what is written stays."""
        for writer in (self.writer, self.second.writer):
            writer.stop()

    def show_model(self, run_id: str, checkpoint: str) -> None:
        """Chooses a model; the window brings the dock to the front."""
        self.picker.select(run_id, checkpoint or "latest")
        self.prompt.setFocus(Qt.FocusReason.OtherFocusReason)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if not self.ahead.list.pairs():
            self._typing.start()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        narrow = event.size().width() < _NARROW
        self._sides.setOrientation(Qt.Orientation.Vertical if narrow else Qt.Orientation.Horizontal)

    def _build_buttons(self) -> None:
        self.generate_button = labelled(PrimaryButton("Generate"), tip="Continue the prompt (Ctrl+Enter)")
        self.stop_button = labelled(QPushButton("Stop"), tip="Stop generating (Esc)")
        self.spaces = labelled(QCheckBox("Show spaces"), tip="Show spaces as · and tabs as ⇥")
        tip = (
            "The prompt is what a user says, in the model's chat template (the lab's own where it has none); "
            "the text ends where the answer does"
        )
        self.chat = labelled(QCheckBox("Chat"), tip=tip)
        tip = "A second model answers the same prompt after the first: for a fine-tuned model, its base"
        self.beside = labelled(QCheckBox("Side by side"), tip=tip)
        self.copy_button = push_button("Copy text", lambda: QGuiApplication.clipboard().setText(self.text.text()))

    def _lay_out(self) -> None:
        buttons = beside(self.generate_button, self.stop_button, self.chat, self.beside, self.said, grows=self.said)
        written = column(self.first_name, (self.text, 1), TintLegend(), beside(self.spaces, 1, self.copy_button))
        self.tabs = QTabWidget(documentMode=True)
        self.tabs.addTab(self.ahead, "Next token")
        self.tabs.addTab(self.at_token, "At a token")
        self._token_veil = Veil(self.at_token)
        self._sides = split((written, 1), self.second, self.tabs, across=True, sizes=(560, 280, 280), closes=True)
        self.second.hide()
        above = column(self.picker, self.note, (self.prompt, 1), self.too_long, self.form, buttons)
        self.set_body(split(above, (self._sides, 1), sizes=(170, 400)))

    def _connect(self) -> None:
        lab = self.lab
        self.generate_button.clicked.connect(self.generate)
        self.stop_button.clicked.connect(self.stop)
        for view in (self.text, self.second.text):
            self.spaces.toggled.connect(view.set_show_spaces)
            view.pointed.connect(partial(self._point, view))
            view.chosen.connect(partial(self._point, view))
        self.chat.toggled.connect(lambda _: self._typing.start())
        self.beside.toggled.connect(self._show_second)
        self.writer.said.connect(self.said.setText)
        self.writer.ended.connect(self._first_ended)
        self.second.writer.ended.connect(self._update_buttons)
        for writer in (self.writer, self.second.writer):
            writer.failed.connect(self.lab.error_raised)
        self.note.linkActivated.connect(self._save_now)
        self.prompt.textChanged.connect(self._prompt_changed)
        self.picker.changed.connect(self._model_changed)
        for box in (self.picker.runs, self.picker.which):
            box.currentIndexChanged.connect(self._mark_stale)
        self.second.changed.connect(self._mark_stale)
        self.chat.toggled.connect(self._mark_stale)
        for changed in (self.lab.inspection.about_changed, self.lab.inspection.choice.changed):
            changed.connect(self._mark_stale)
        self.ahead.list.picked.connect(self._append_to_prompt)
        self.ahead.answered.connect(self._mark_stale)
        self.ahead.unread.connect(self._say_unread)
        self.at_token.list.picked.connect(self._branch_text)
        for keys in ("Ctrl+Return", "Ctrl+Enter"):
            shortcut = QShortcut(QKeySequence(keys), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(self.generate_button.click)
        drafted = (self.prompt.textChanged, self.chat.toggled, self.spaces.toggled, self.form.edited)
        for changed in (*drafted, self.picker.changed):
            changed.connect(self.keep_later)
        lab.runs_changed.connect(self._update_note)
        lab.write_requested.connect(self.show_model)

    # The model ---------------------------------------------------------------------------------------------------

    def _model_changed(self) -> None:
        row = self.picker.row
        settings = row.info.settings if row is not None else None
        characters = settings is not None and settings.tokenizer == "char"
        fixed = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        fixed.setPointSizeF(self.font().pointSizeF())
        for view in (self.prompt, self.text, self.second.text):
            view.setFont(fixed if characters else QGuiApplication.font())  # the dock's own is its title's
        self._update_note()
        self.ahead.clear()
        self._mark_stale()
        self._typing.start()
        self._propose()

    def _show_second(self, shown: bool) -> None:
        if shown:  # as wide as the first
            first, _, others = self._sides.sizes()
            self._sides.setSizes((first // 2, first // 2, others))
        self.second.setVisible(shown)
        self._propose()

    def _propose(self) -> None:
        """A second model that suits the first, where two answer."""
        self._name_first()
        if self.beside.isChecked() and self.picker.answers:
            self.second.propose(self.picker.reference())

    def _mark_stale(self) -> None:
        """Dims what another model said than the chosen one, or to another prompt than that in the box, and says so."""
        try:
            model = self.picker.reference()
        except LabError:  # none, or its checkpoints are still being read
            model = ""
        if self.picker.active and self.lab.inspection.choice.undecided:  # another one is to be active
            model = ""
        prompt, chat = self.prompt.toPlainText(), self.chat.isChecked()
        other = "" if prompt == self._prompt_then else "of another prompt"
        saved_since = bool(self._asked_of[0]) and self._asked_of == self.picker.choice  # the same choice, a newer step
        words = "of another model" if model != self._wrote and not saved_since else other  # its name is above it
        self._text_veil.say(words if self._wrote else "")
        self.said.setEnabled(not self._text_veil.words)
        self.second.mark_stale(other)
        self.ahead.mark_stale(model, prompt, chat)
        self._name_first()
        self._mark_pointed()

    def _mark_pointed(self) -> None:
        """What else could have come is about what its text is about."""
        of = self._text_veil if self._pointed_in is self.text else self.second.veil
        self._token_veil.say(of.words if self._pointed_in.current >= 0 or self.at_token.list.pairs() else "")

    def _first_model(self) -> str:
        about, checkpoint = self.lab.inspection.about, self.picker.checkpoint
        active = about.name if self.picker.active and about is not None else ""
        return f"{active or self.picker.runs.currentText()}{f', step {checkpoint.step:,}' if checkpoint else ''}"

    def _name_first(self) -> None:
        """Above the first text: who wrote it, whatever was chosen since; before there is one, who would.

        Where the text stands alone, only while another model would answer now, or to another prompt.
        """
        beside, now = self.beside.isChecked(), self._first_model()
        self.first_name.say(f"A  {self._author or now}" if beside else f"Written by {self._author}")
        level = self.second.box if beside else self.first_name  # as high as B's box: texts begin level
        self.first_name.setFixedHeight(level.sizeHint().height())
        other = self._author != now or bool(self._text_veil.words)
        self.first_name.setVisible(beside or (bool(self._author) and other))

    def _update_note(self) -> None:
        row, checkpoint = self.picker.row, self.picker.checkpoint
        if row is None and not self.picker.active:
            hint = "Train one in Set-up: the default is done in a minute or two. Or choose a model in the tool bar."
            self.show_no_run(hint, "There is no model yet")
        else:
            self.show_body()
        words = ""
        if self.picker.reading:
            words = "Reading which checkpoints there are."
        elif row is not None and row.status.live:
            answers = (
                f"Step {checkpoint.step:,}, the last saved one, answers." if checkpoint else "Nothing is saved yet."
            )
            words = f'Training is at step {row.status.step:,}. {answers} <a href="save">Save now</a>'
        elif row is not None and checkpoint is None:
            words = "This run has no checkpoint yet, so no model can answer."
        if words != self.note.text():
            self.note.setText(words)
        self.note.setVisible(bool(words))
        self._update_buttons()

    def _save_now(self) -> None:
        if (row := self.picker.row) is not None:
            self.lab.controller.save(row.run)

    def _update_buttons(self) -> None:
        busy, both = self._busy, (self.generate_button, self.stop_button)
        had = any(button.hasFocus() for button in both)
        self.generate_button.setEnabled(not busy and self.picker.answers)
        self.stop_button.setEnabled(busy)
        if had:  # Qt moves the keyboard on to a box where the one that is disabled had it
            both[busy].setFocus(Qt.FocusReason.OtherFocusReason)

    # Generating --------------------------------------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        return self.writer.busy or self.second.writer.busy

    def _first_ended(self, whole: bool) -> None:
        """The second model's turn, since one is in memory at a time."""
        if whole and self.beside.isChecked():
            try:
                self.second.begin(self._prompt_then, self._how)
                self._mark_stale()
            except LabError as error:
                self.lab.error_raised.emit(error)
        self._update_buttons()

    def _point(self, view: TokenView, index: int) -> None:
        """Shows what else could have come at token `index` of a text; -1: at the chosen one, if any."""
        index = index if index >= 0 else view.current
        self._pointed_in = view
        self._mark_pointed()
        if index < 0 or index >= len(view.tokens):
            self.at_token.clear()
            return
        self.tabs.setCurrentIndex(TOKEN_TAB)
        self.at_token.show_token(index, view.tokens[index], self._how)

    def _branch_text(self, text: str) -> None:
        """The prompt becomes the text up to the chosen token, then the alternative; no answer of a chat is a prompt."""
        index = self._pointed_in.current
        if index >= 0 and not self._how.chat:
            self._write_on(self._pointed_in.text_before(index), text)

    # The next token ----------------------------------------------------------------------------------------------

    def _append_to_prompt(self, text: str) -> None:
        if not self.chat.isChecked():  # there it is the answer's first token
            self._write_on(self.prompt.toPlainText(), text)

    def _write_on(self, before: str, token: str) -> None:
        """A token that is only some bytes of a character is no text."""
        if BROKEN.search(token):
            self.lab.said.emit(f"{token} is only a part of a character, so no prompt can end with it.")
            return
        cursor = self.prompt.textCursor()
        cursor.select(cursor.SelectionType.Document)
        cursor.insertText(before + token)  # so that Ctrl+Z takes it back
        self.prompt.setTextCursor(cursor)
        self.prompt.ensureCursorVisible()
        self.tabs.setCurrentIndex(NEXT_TAB)

    def _prompt_changed(self) -> None:
        self.tabs.setCurrentIndex(NEXT_TAB)
        self.ahead.forget()
        self._stay()
        self._mark_stale()
        self._typing.start()

    def _stay(self) -> None:
        """The active model is asked after all, since the one that was chosen could not be opened."""
        if self.picker.active:
            self.lab.inspection.choice.stay()

    def _ask_next(self) -> None:
        """Asks while someone looks."""
        if self.isVisible() and self.picker.answers:
            prompt, chat = self.prompt.toPlainText(), self.chat.isChecked()
            self.ahead.ask(Asked(self.picker.reference(), prompt, chat, self._first_model()))

    def _say_unread(self, tokens: int) -> None:
        """Of a prompt beyond the model's context: that its beginning is not read."""
        first = f"first {tokens:,} tokens are" if tokens > 1 else "first token is"
        self.too_long.setText(f"The prompt is longer than the model's context: its {first} not read." if tokens else "")
        self.too_long.setVisible(bool(tokens))
