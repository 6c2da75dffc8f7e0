"""The Prompt dock: the text that the active model reads, and its tokens; and examples of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PySide6.QtCore import QSignalBlocker
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QCheckBox, QDoubleSpinBox, QPlainTextEdit, QPushButton, QWidget

from llmlab.core.config import read_toml
from llmlab.core.paths import resources_dir
from llmlab.inspection.archive import Archive
from llmlab_gui.host.messages import ModelAbout
from llmlab_gui.inside.inspection_dock import InspectionDock
from llmlab_gui.inside.token_chips import TokenChips
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.window_settings import WindowSettings
from llmlab_gui.widgets.buttons import menu_button
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import beside, column, split, turn
from llmlab_gui.widgets.numbers import bytes_text
from llmlab_gui.widgets.one_line import OneLine
from llmlab_gui.widgets.saving import Table

_CAPTION = "A model reads tokens, not letters. Click a token to select its position in every panel."
_DRAFT = "prompt/"
_LONGEST_IN_MENU = 60
_WIDE = 70  # characters: two columns of a line's length have room
_SHARES = (42, 58)  # per cent of the width: the text, and its tokens beside it
_SIZES = [60, 120]  # pixels: the text, and its tokens under it


@dataclass(frozen=True)
class Draft:
    """The prompt that was left."""

    text: str
    beginning: bool


class PromptDock(InspectionDock):
    """A text to edit; below it its tokens, how many they are, and what looking at them will cost."""

    needs_inspection = False

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        super().__init__(lab, "prompt", "Prompt", parent)
        self.text = labelled(QPlainTextEdit(tabChangesFocus=True), "Prompt of the inspection")
        self.text.setPlaceholderText("The text that the model reads")
        self.text.setMinimumHeight(self.text.fontMetrics().height() + 12)
        self.chips = TokenChips()
        self.count, self.look = OneLine(), labelled(OneLine(quiet=True), "What the example shows")
        self.count.setAccessibleName("Number of tokens, and the memory that inspecting them takes")
        self.look.hide()
        self.shorten = QPushButton()
        self.shorten.hide()
        self.examples_button = menu_button("Examples", "Example prompts")
        self.history_button = menu_button("History", "Earlier prompts")
        self.beginning = QCheckBox("BOS token")
        self.follow = QCheckBox("Inspect again every")
        self.follow.setToolTip("The model is training: inspect it again as it learns")
        self.seconds = QDoubleSpinBox(minimum=0.5, maximum=600, decimals=1, suffix=" s")
        self._lay_out()
        self.caption(_CAPTION, "tokens")
        self._connect()
        self._show_prompt()
        self._show_tokens()
        self._show_model()

    def remember(self, settings: WindowSettings) -> None:
        super().remember(settings)
        draft = self.draft_left(_DRAFT, Draft)
        if draft is not None and self.session.about is None and not self.session.text:
            self.session.set_prompt(draft.text, draft.beginning)
        self.session.prompt_changed.connect(self.keep_later)

    def keep(self) -> None:
        self.save_draft(_DRAFT, Draft(self.session.text, self.session.beginning))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """The tokens beside the text in a wide dock, under it in a narrow one; where the person put them from then."""
        super().resizeEvent(event)
        width = event.size().width()
        if width >= self.fontMetrics().averageCharWidth() * _WIDE:
            turn(self._halves, across=True, sizes=[width * share // 100 for share in _SHARES], shares=_SHARES)
        else:
            turn(self._halves, across=False, sizes=_SIZES, shares=(0, 1))

    def shown_archives(self) -> Sequence[Archive | None]:
        return ()

    def stale(self) -> str:
        return self.session.choice.stale() if self.session.tokens else ""

    def update_state(self) -> None:
        super().update_state()
        self.count.setEnabled(self.session.look.trouble is not None or not self.stale())

    def pictures(self) -> Sequence[QWidget]:
        return (self.chips,)

    def table(self) -> Table | None:
        tokens = self.session.tokens
        return ("position", "id", "text"), [(position, token.id, token.text) for position, token in enumerate(tokens)]

    def ready(self) -> bool:
        return bool(self.session.tokens)

    def _lay_out(self) -> None:
        self.seconds.setValue(self.session.look.following.seconds)
        self.seconds.setAccessibleName("Seconds between two inspections of a model in training")
        self.follow.setChecked(self.session.look.following.wanted)
        self.controls.add(self.examples_button, self.history_button, self.beginning, self.follow, self.seconds)
        typed = column((self.text, 1), self.look, spacing=3)
        read = column(beside(self.count, self.shorten, grows=self.count), (self.chips, 1), spacing=3)
        self._halves = split(typed, (read, 1), sizes=_SIZES)
        self.set_body(self._halves, self.chips)

    def _connect(self) -> None:
        session = self.session
        self.text.textChanged.connect(self._edited)
        self.beginning.toggled.connect(self._edited)
        self.shorten.clicked.connect(session.shorten)
        self.follow.toggled.connect(self._followed)
        self.seconds.valueChanged.connect(self._followed)
        self.chips.pointed.connect(session.hover)
        self.chips.clicked.connect(lambda token: session.select(token=token))
        self.examples_button.menu().aboutToShow.connect(self._fill_examples)
        self.history_button.menu().aboutToShow.connect(self._fill_history)
        session.prompt_changed.connect(self._show_prompt)
        session.tokens_changed.connect(self._show_tokens)
        session.about_changed.connect(self._show_model)
        session.hover_changed.connect(self.chips.point_at)
        session.selection_changed.connect(self._show_selection)
        session.look.needs_changed.connect(self._show_estimate)
        session.look.trouble_changed.connect(self._show_estimate)

    def use(self, example: ExamplePrompt) -> None:
        """Takes an example."""
        self.session.set_prompt(example.text, self.session.beginning, at_once=True)
        self.look.say(example.look)
        self.look.setVisible(True)

    # What the session says ---------------------------------------------------------------------------------------

    def _show_model(self) -> None:
        about = self.session.about
        for widget in (self.follow, self.seconds):
            widget.setVisible(about is not None and about.live)
        if about is not None and not self.session.text and not self.text.toPlainText():
            self.use(examples_for(about)[0])
        self._show_tokens()

    def _show_prompt(self) -> None:
        session = self.session
        self.look.setVisible(False)  # it was about the prompt before; `use` shows it again
        if self.text.toPlainText() != session.text:
            with QSignalBlocker(self.text):
                cursor = self.text.textCursor()
                cursor.select(cursor.SelectionType.Document)
                cursor.insertText(session.text)  # so that Ctrl+Z takes it back
        with QSignalBlocker(self.beginning):
            self.beginning.setChecked(session.beginning)

    def _show_tokens(self) -> None:
        session = self.session
        self.chips.show_tokens(session.tokens)
        self._show_selection()
        has = session.bos_id is not None
        self.beginning.setEnabled(has)
        self.beginning.setToolTip(
            f"Start with token {session.bos_id}, as the model's training texts did"
            if has
            else "This model has no beginning-of-sequence token"
        )
        self._show_estimate()

    def _show_estimate(self) -> None:
        about, number = self.session.about, len(self.session.tokens)
        cut, shorten = self.shortening()
        self.shorten.setText(cut)
        self.shorten.setVisible(shorten is not None)
        if about is None or self.session.look.trouble is not None:
            self.count.say("" if self.session.look.trouble is None else str(self.session.look.trouble))
            return
        context = f" of at most {about.context:,}" if about.context else ""
        words = [f"{number:,} token{'' if number == 1 else 's'}{context}"]
        if number:
            words.append(f"all attention patterns: {bytes_text(about.pattern_bytes(number))}")
        self.count.say(" · ".join([*words, *self.session.look.restrictions]))

    def _show_selection(self) -> None:
        tokens = self.session.tokens
        self.chips.choose(self.session.selection.token_at(len(tokens)) if tokens else -1)

    # What the person does ----------------------------------------------------------------------------------------

    def _edited(self) -> None:
        self.look.setVisible(False)
        self.session.set_prompt(self.text.toPlainText(), self.beginning.isChecked())

    def _followed(self) -> None:
        self.session.look.following.set(self.follow.isChecked(), self.seconds.value())

    def _fill_examples(self) -> None:
        menu = self.examples_button.menu()
        menu.clear()
        for example in examples_for(self.session.about):
            action = menu.addAction(f"{example.title}: {_one_line(example.text)}")
            action.setToolTip(example.look)
            action.triggered.connect(lambda _=False, example=example: self.use(example))

    def _fill_history(self) -> None:
        menu = self.history_button.menu()
        menu.clear()
        for text in self.session.recent.prompts:
            take = menu.addAction(_one_line(text)).triggered
            take.connect(lambda _=False, text=text: self._take(text))
        if not self.session.recent.prompts:
            menu.addAction("There are none yet").setEnabled(False)

    def _take(self, text: str) -> None:
        self.look.setVisible(False)
        self.session.set_prompt(text, self.session.beginning, at_once=True)


def _one_line(text: str) -> str:
    """For a menu, in which & would underline a letter."""
    line = text.strip().replace("\n", " ⏎ ").replace("&", "&&")
    return line if len(line) <= _LONGEST_IN_MENU else line[: _LONGEST_IN_MENU - 1] + "…"


@dataclass(frozen=True)
class ExamplePrompt:
    """title: what it shows. look: where to look for it."""

    title: str
    text: str
    look: str


_EXAMPLES = read_toml(resources_dir() / "window" / "prompt-examples.toml")
GENERAL = tuple(ExamplePrompt(**one) for one in _EXAMPLES["general"])  # for models that learned from many texts
SCRATCH = tuple(ExamplePrompt(**one) for one in _EXAMPLES["scratch"])  # for those that learned from the lab's own


def examples_for(about: ModelAbout | None) -> tuple[ExamplePrompt, ...]:
    """Those that a model can read whole, however it tokenizes them; those first that suit its kind.

    One that reads hardly anything gets the beginning of the first.
    """
    ours = about is not None and about.kind in ("scratch", "live")
    found = (*SCRATCH, *GENERAL) if ours else (*GENERAL, *SCRATCH)
    if about is None or not about.context:
        return found
    # They are ASCII, and no tokenizer makes more tokens than a text has bytes, but some put one before it.
    room = max(about.context - 1, 1)
    return tuple(example for example in found if len(example.text) <= room) or (
        replace(found[0], text=found[0].text[:room]),
    )
