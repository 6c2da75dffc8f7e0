"""What every inspection panel has: the active model and prompt, and their work with its cancel."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from functools import partial

from PySide6.QtWidgets import QTabWidget, QWidget

from llmlab.core.errors import LabError
from llmlab.data.token_bytes import spelled
from llmlab.inspection.archive import Archive
from llmlab_gui.host.findings import sources, step_of
from llmlab_gui.host.inspection_plan import refusal_of, too_long
from llmlab_gui.host.progress_strip import ProgressStrip
from llmlab_gui.inside.exporting_dock import ExportingDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.flow import FlowRow
from llmlab_gui.widgets.layouts import beside, column, settling_timer
from llmlab_gui.widgets.veil import Veil

AGAIN = "Inspect again"
_WORD = re.compile(r"[^\W_]+")
_FILE_WORDS = 4  # of a prompt, in the name of a file
_LONGEST_PROMPT = 200  # characters, above a picture
# Of numbers that were asked for with other fields than those in sight.
BEFORE_CHANGE = "before the last change"


class InspectionDock(ExportingDock):
    """A dock about the active model and its prompt. Subclasses

    - set `aspects`: what of `llmlab.inspection.questions.ASPECTS` they need while they are in sight; and `refusals`:
      fields of `llmlab.anatomy.anatomy.Refusals` that forbid the panel beside those that speak about its aspects,
    - call `set_body(widget)` once, and put their controls into `self.controls` before or after,
    - write `draw(archive)`: called with the inspection when there is one to show, and again when it changes,
    - keep in `archive`, or else say in `shown_archives()`, what is in sight was drawn from. As soon as another model or
      prompt is chosen, it is dimmed and named; `update_state()` looks again,
    - set `asks`: the keys of the questions that they put to the session,
    - write `pictures()`, `table()` and `tensors()` for export and copy.

    `needs_inspection = False`: the panel is about the model, or asks by itself; `draw` is not called. With
    `needs_prompt = True` it still says so when there is no prompt to ask about; with `asks_active = True`, when the
    active model cannot read it.
    """

    aspects: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    needs_inspection = True
    needs_prompt = False
    asks_active = False
    asks: tuple[str, ...] = ()
    archive: Archive | None = None

    def __init__(self, lab: Lab, dock_id: str, title: str, parent: QWidget | None = None) -> None:
        super().__init__(lab, dock_id, title, parent)
        self._drawn: Archive | None = None
        self._drawn_from: tuple[Archive, ...] = ()  # where the tensors of its aspects are
        self._shown = False
        self.strip = ProgressStrip(self.session, words=self._strip_words, cancels=lambda: not self.session.reading)
        self._veil: Veil | None = None
        self._row = QWidget()
        self.controls = FlowRow(self._row)  # within a widget: what is added has a parent at once
        session, look = self.session, self.session.look
        of_the_prompt = (session.prompt_changed, session.tokens_changed, look.changed, look.trouble_changed)
        for changed in (session.about_changed, session.choice.changed, *of_the_prompt, session.working_changed):
            changed.connect(self.update_state)
        for changed in (lab.current_changed, lab.runs_changed):  # whose model can be opened
            changed.connect(self._offer_model)
        self.visibilityChanged.connect(self._see)

    # What subclasses write ---------------------------------------------------------------------------------------

    def draw(self, archive: Archive) -> None:
        """Shows what was found. archive.metadata.tokens are the tokens that it is about."""
        raise NotImplementedError

    def shown_archives(self) -> Sequence[Archive | None]:
        """The archives that what is in sight was drawn from."""
        return [self.archive]

    def stale(self) -> str:
        """What that is about when it is not what is chosen: `of alpha, step 300`; "" when it is."""
        words = (self.session.choice.stale(archive) for archive in self.shown_archives() if archive is not None)
        return next((said for said in words if said), "")

    def trouble(self) -> LabError | None:
        """Why there is nothing to show, or nothing of the prompt of now."""
        if self.needs_inspection:
            return self.session.look.trouble
        found = [archive for archive in self.shown_archives() if archive is not None]
        holds = bool(found) and not any(map(self.session.choice.stale, found))
        return self.session.unread if self.asks_active and not holds else None

    def part_in_sight(self) -> str:
        """What of the model is shown, for the title of a picture; "" for all that the panel's name says."""
        return ""

    @property
    def picture_title(self) -> str:
        """With the prompt that it is of, and with the step where the model is live."""
        prompt = textwrap.shorten(self._prompt_in_sight(), _LONGEST_PROMPT, placeholder=" …")
        title = f"{super().picture_title}{self._step_in_sight()}{self.part_in_sight()}"
        return f"{title}, of “{prompt}”" if prompt else title

    @property
    def export_name(self) -> str:
        """With the beginning of the prompt: what is saved of another one does not replace it."""
        return "-".join([super().export_name, *_WORD.findall(self._prompt_in_sight())[:_FILE_WORDS]])

    def _step_in_sight(self) -> str:
        """Of a live model, whose name has none."""
        if self.session.about is None or not self.session.about.live:
            return ""
        steps = [step_of(archive) for archive in self.shown_archives() if archive is not None]
        return next((f", step {step:,}" for step in reversed(steps) if step is not None), "")

    def _prompt_in_sight(self) -> str:
        """Of what is shown, which may be another one than is typed by now; on one line."""
        texts = [spelled(archive.metadata.tokens) for archive in self.shown_archives() if archive is not None]
        return " ".join(next((text for text in reversed(texts) if text), "").split())

    def ready(self) -> bool:
        """Whether there is something to show."""
        return not self.needs_inspection or self.session.look.archive is not None

    # The frame ---------------------------------------------------------------------------------------------------

    def set_body(
        self, widget: QWidget, numbers: QWidget | None = None, tabs: QTabWidget | None = None, *corner: QWidget
    ) -> None:
        """The panel's content, under a row of its controls with export and copy at the right end.

        numbers: the part of it that is about the model and the prompt, no splitter; all of it if not given.
        tabs: whose row, which progress does not cover, has room for the two where the controls fill theirs.
        corner: what stands before them there.
        """
        if tabs is None:
            self.controls.addStretch(1)
            self.controls.add(self.copy_button, self.export_button)
        else:
            tabs.setCornerWidget(column(beside(*corner, self.copy_button, self.export_button)))
        content = column((widget, 1))  # a splitter would make a pane of what lies over it
        super().set_body(column(self._row, (content, 1), spacing=4))
        self._veil = Veil(numbers or content)
        for strip in (self.strip, self._exports_strip):
            strip.lie_over(numbers or content, under=None if tabs is None else tabs.tabBar())
        self.update_state()

    def update_state(self) -> None:
        """Shows the content, or says why there is none and what to do."""
        session, about, look = self.session, self.session.about, self.session.look
        reason, stale = self._refusal(), self._note_stale()
        if about is None:
            self._no_model()
        elif reason is not None:
            self.show_empty(f"{self.windowTitle()} cannot be shown for {about.name}", reason)
        elif session.readable and (self.needs_inspection or self.asks_active):
            error = too_long(about, len(session.tokens))
            self.show_empty(error.what, error.why, *self.shortening())
        elif (trouble := self.trouble()) is not None:
            self.show_trouble(trouble, AGAIN, session.refresh)
        elif not self.needs_inspection and not (self.needs_prompt and self._no_prompt):
            self.show_body()
        elif self._no_prompt:
            show = partial(self.lab.dock_requested.emit, "prompt")
            self.show_empty("The prompt is empty", "Type one in Prompt, or take an example there.", "Prompt", show)
        elif look.archive is None and session.working is None and not stale:
            self.show_empty("Nothing was inspected yet", "The prompt is read as soon as a panel is visible.")
        elif look.archive is not None and look.incomplete(self.aspects) and not self._found(look.archive):
            self.show_empty("The inspection was not completed", "It was cancelled or failed.", AGAIN, look.want_again)
        else:
            self.show_body()
            self._draw_if_seen()

    def show_trouble(self, trouble: LabError, action_text: str = "", slot: Callable[[], object] | None = None) -> None:
        """In place of the content."""
        self.show_empty(trouble.what, f"{trouble.why} {trouble.do}".strip(), action_text, slot)

    def shutdown(self) -> None:
        self.session.look.need(self.objectName(), ())
        self._drawn, self._drawn_from = None, ()
        super().shutdown()

    def _see(self, shown: bool) -> None:
        """In sight or not: a dock behind another's tab has had its showEvent, and costs the model nothing."""
        if shown == self._shown:
            return
        self._shown = shown
        self.session.look.need(self.objectName(), self.aspects if shown else ())
        if shown:
            self._come_to_sight()

    def _strip_words(self, what: str) -> str:
        """What is said of what the model's process does: "" where this panel has all that it needs."""
        look = self.session.look
        if self.session.waits(("open", *self.asks)):
            return what
        if not self.needs_inspection:
            return ""
        if look.archive is None or look.looks_for(self.aspects):
            return what
        return f"Waits for: {what}" if look.lacks(self.aspects) else ""

    def _come_to_sight(self) -> None:
        self._draw_if_seen()

    def _draw_if_seen(self) -> None:
        archive = self.session.look.archive
        if archive is None:
            self._drawn, self._drawn_from = None, ()
        elif self._shown and self.needs_inspection and self._refusal() is None:
            mine = self._found(archive) or (archive,)
            if mine == self._drawn_from:  # what came is for other panels
                return
            self._drawn, self._drawn_from = archive, mine
            self.draw(archive)
            self._note_stale()

    def _found(self, archive: Archive) -> tuple[Archive, ...]:
        """Where the tensors of its aspects are; () where there is none of them."""
        found = sources(archive)
        return tuple({found[name]: None for name in found if name.split("/")[0] in self.aspects})

    def _note_stale(self) -> str:
        """Dims what is stale, which cannot be saved or copied; returns what it is about."""
        stale = self._mark_stale()
        for button in (self.export_button, self.copy_button):
            button.setEnabled(self.ready() and self._refusal() is None and not stale)
        return stale

    def _mark_stale(self) -> str:
        """Dims what is about another model or prompt and says about which; returns that."""
        if self._veil is None:
            return ""
        words = self.stale()
        self._veil.say(words, *(self._way_out() if words else ()))
        for strip in (self.strip, self._exports_strip):
            strip.raise_()  # its progress and its Cancel are current
        return words

    def _way_out(self) -> tuple[()] | tuple[str, Callable[[], object]]:
        """The words and the work of a button beside what is stale, where there is one."""
        return ("Stay with it", self.session.choice.stay) if self.session.choice.refused else ()

    def shortening(self) -> tuple[str, Callable[[], object] | None]:
        """The words and the work of a button, where the active model cannot read the whole prompt."""
        count = self.session.readable
        return (f"Shorten to {count:,} tokens", self.session.shorten) if count else ("", None)

    def _refusal(self) -> str | None:
        about = self.session.about
        if about is None:
            return None
        reasons = [refusal_of(about, name) for name in self.aspects]
        reasons += [about.refusals.get(name) for name in self.refusals]
        return next((reason for reason in reasons if reason), None)

    def _no_model(self) -> None:
        working = self.session.working
        if working is not None and self.session.opening:
            self.show_empty(f"{working.what}…", "The panels open with the model.")
        else:
            hint = "Open a run's checkpoint, a run that trains, a Hugging Face folder or a GGUF file."
            words, ask = "Choose a model", self.session.choose_requested.emit
            if left := self.session.recent.left_open(self.lab.outputs):
                hint = f"{left.name} was open when the window was closed."
                again = left.reference == self.session.recent.open
                words = "Open it again" if again else "Open its newest checkpoint"
                ask = partial(self.session.open, left.reference)
            elif model := self.lab.current_model():
                words, ask = "Open the current run's model", partial(self.session.open, model)
            self.show_empty("No model is open", hint, words, ask)

    def _offer_model(self) -> None:
        if self.session.about is None:
            self.update_state()

    @property
    def _no_prompt(self) -> bool:
        return not self.session.text and not self.session.beginning


class AnswerDock(InspectionDock):
    """Shows one archive that it has asked for by itself; None until that has come."""

    needs_inspection = False

    def ready(self) -> bool:
        return self.archive is not None

    def tensors(self) -> tuple[Archive, list[str]] | None:
        return (self.archive, list(self.archive)) if self.archive is not None else None


class AskingDock(AnswerDock):
    """Asks the first of `asks` about the prompt.

    Subclasses write `_question()`, `_draw_answer(archive)`, `_refuse(error)` and `_forget()`.
    """

    needs_prompt = True
    asks_active = True

    def __init__(self, lab: Lab, dock_id: str, title: str, parent: QWidget | None = None) -> None:
        super().__init__(lab, dock_id, title, parent)
        self._asked: tuple[object, ...] = ()
        self._cancelled: tuple[object, ...] = ()
        self._answered: tuple[object, ...] = ()  # what the archive is about
        self._refused: tuple[object, ...] = ()
        self._rest = settling_timer(self, 0, self._note_cancelled)  # an answer is taken when nobody waits any more
        self.session.working_changed.connect(self._rest.start)
        self.session.tokens_changed.connect(self._ask)
        self.session.about_changed.connect(self._forget)
        self.session.look.changed.connect(self._look_again)

    def update_state(self) -> None:
        """The answer, or that it was cancelled, or why the prompt cannot be read."""
        super().update_state()
        self._say_cancelled(self._is_cancelled and self.archive is None)

    def stale(self) -> str:
        """Of another model or prompt; or of other fields, where the question about those in sight was cancelled."""
        return super().stale() or (BEFORE_CHANGE if self._is_cancelled else "")

    @property
    def _is_cancelled(self) -> bool:
        return self.session.about is not None and bool(self._asked) and self._asked == self._cancelled

    def _way_out(self) -> tuple[()] | tuple[str, Callable[[], object]]:
        return super()._way_out() or ((AGAIN, self._ask_again) if self._is_cancelled else ())

    def _say_cancelled(self, cancelled: bool) -> None:
        if cancelled:
            self.show_empty(f"{self.windowTitle()} was cancelled", "", AGAIN, self._ask_again)

    def _come_to_sight(self) -> None:
        super()._come_to_sight()
        if self.archive is None and self.session.working is None:  # it was cancelled, perhaps
            self._asked = self._cancelled = ()
        self._ask()

    def _ask_again(self) -> None:
        self._asked = self._cancelled = ()
        self._ask()

    def _note_cancelled(self) -> None:
        """Nobody waits any more for what was asked, and it has not come."""
        answered = self._asked in ((), self._refused) or (self.archive is not None and self._asked == self._answered)
        if not answered and not self.session.waits(self.asks):
            self._cancelled = self._asked
            self.update_state()

    def _question(self) -> dict[str, object]:
        """The values of the question."""
        return {}

    def _ask(self) -> None:
        """Unless that is what is shown or asked for."""
        about, question = self.session.about, self._question()
        asked = (about.reference, self.session.text, *question.values()) if about is not None else ()
        if asked and asked != self._asked and self._shown and self.session.tokens:
            self._asked, self._cancelled = asked, ()
            self.session.ask(self.asks[0], question, self._take, self._take_refusal, self.asks[0])

    def _take(self, archive: Archive) -> None:
        self.archive, self._answered = archive, self._asked
        self.update_state()
        self._draw_answer(archive)

    def _take_refusal(self, error: LabError) -> None:
        self._refused = self._asked
        self._refuse(error)

    def _draw_answer(self, archive: Archive) -> None:
        """Draws the answer."""
        raise NotImplementedError

    def _refuse(self, error: LabError) -> None:
        """Says why there is none."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Another model is open."""
        raise NotImplementedError

    def _look_again(self) -> None:
        """A live model has learned since."""
        about = self.session.about
        if about is not None and about.live and self.session.look.archive is not None:
            self._ask_again()
