"""The one thing that every inspection panel talks to: the active model, its prompt, and the look at it (`Look`).

Panels set the prompt, the selection and the token under the pointer here and hear of it from here; none knows
another. Questions go to the model's process and come back as archives, which are mapped from a private folder.
What a new model or prompt makes pointless is cancelled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.inspection.archive import Archive
from llmlab.models.reference import without_folders
from llmlab_gui.host.inspection_plan import first_tokens
from llmlab_gui.host.look import Look
from llmlab_gui.host.messages import ModelAbout, TokenizedPrompt
from llmlab_gui.host.model_choice import ModelChoice, Subject
from llmlab_gui.host.process import ModelHost, Request
from llmlab_gui.host.recent import Recent, RecentModel
from llmlab_gui.host.requests import Failed, Pending, Requests, Then
from llmlab_gui.host.selection import PointedAt, PromptToken, Working
from llmlab_gui.widgets.layouts import settling_timer

# After so long without a key, the prompt is looked at.
_TYPING_PAUSE_MS = 300


class InspectionSession(PointedAt):
    """The store of the inspection panels; one per lab."""

    about_changed = Signal()  # another active model, or none
    tokens_changed = Signal()  # the tokens of the prompt
    working_changed = Signal()
    prompt_changed = Signal()  # its text or its beginning, whoever changed it
    recent_changed = Signal()  # models and prompts that were used lately
    failed = Signal(object)  # LabError that no panel shows by itself
    choose_requested = Signal()  # someone wants to choose a model

    def __init__(
        self,
        outputs: Path,
        parent: QObject | None = None,
        host: ModelHost | None = None,
        step_of: Callable[[str], int | None] = lambda run: None,
    ) -> None:
        """step_of: the step that a live run, named by its reference without `@live`, has reached; None if unknown."""
        super().__init__(parent)
        self.host = host or ModelHost(self, outputs=outputs)
        self.about: ModelAbout | None = None
        self.text, self.beginning = "", False
        self.tokens: list[PromptToken] = []
        self.bos_id: int | None = None  # what the model's texts begin with, if anything
        self._unread: LabError | None = None
        self.recent = Recent()
        self.choice = ModelChoice(self._subject, self)
        self._requests = Requests(self)
        self._requests.working_changed.connect(self._working_changed)
        self.look = Look(self.host, self._requests, step_of, self)
        self.look.changed.connect(self._note_look)
        self.look.complete.connect(self._remember_prompt)
        self.look.failed.connect(self.failed)
        self._tokenized = False  # whether `tokens` are those of the prompt
        self._typing = settling_timer(self, _TYPING_PAUSE_MS, self._tokenize_prompt)
        # Whoever points at something of the active model means that one.
        self.selection_changed.connect(self.choice.stay)

    # The model ---------------------------------------------------------------------------------------------------

    def open(self, reference: str) -> None:
        """Makes a model the active one. While it loads, and when that fails, the one before stays.

        What is known of that one is stale from now on: see `choice`.
        """
        self.look.give_way()
        pending = Pending(f"Opening {without_folders(reference)}", bound=False, key="open")
        self._requests.wait(self.host.open(reference), pending, self._take_about, self._take_refusal)
        self.choice.choose(reference)

    def close(self) -> None:
        """No model is active any more, and none is offered again."""
        self.offer_none_again()
        self._typing.stop()
        self._requests.drop_bound()
        self.about = None
        self.choice.choose("")
        self._forget()
        self.about_changed.emit()

    def offer_none_again(self) -> None:
        """The model that is open, or was at an earlier start, is not offered at the next one."""
        self.recent.open = ""
        self.recent_changed.emit()

    # The prompt --------------------------------------------------------------------------------------------------

    def set_prompt(self, text: str, beginning: bool, *, at_once: bool = False) -> None:
        """What the model reads. It is looked at when typing pauses, or `at_once`."""
        self.choice.stay()
        if (text, beginning) == (self.text, self.beginning):
            return
        self.text, self.beginning = text, beginning
        self._tokenized = False
        self._requests.drop_bound()
        self.look.clear()
        self._typing.start(0 if at_once else _TYPING_PAUSE_MS)
        self.prompt_changed.emit()

    @property
    def readable(self) -> int:
        """How many tokens the model reads, when the prompt has more; 0 otherwise."""
        context = self.about.context if self.about is not None else 0
        return context if context < len(self.tokens) else 0

    @property
    def unread(self) -> LabError | None:
        """Why the active model cannot read the prompt."""
        return self.look.trouble if self.look.trouble is self._unread else None

    def shorten(self) -> None:
        """Cuts the prompt where the last token ends that the model reads."""
        if not self._tokenized:  # it has just been shortened
            return
        own = 1 if self.tokens and self.beginning and self.tokens[0].id == self.bos_id else 0
        texts = [token.text for token in self.tokens[own : self.readable]]
        self.set_prompt(first_tokens(self.text, texts), self.beginning, at_once=True)

    def refresh(self) -> None:
        """Looks again, after a failure or a cancellation, or because a live model has learned since."""
        self.choice.stay()
        if self._tokenized:
            self.look.anew()
        else:
            self._tokenize_prompt()

    # Questions ---------------------------------------------------------------------------------------------------

    def ask(
        self,
        question: str,
        values: Mapping[str, Any],
        then: Then,
        failed: Failed | None = None,
        key: str = "",
        model: str = "",
    ) -> Request | None:
        """Asks the active model about the prompt; `then(archive)` unless model or prompt have changed by then.

        key: an unanswered question with the same one is no longer wanted. failed: told instead of the message bar.
        model: another one to ask, by its reference.
        Returns the request, None when nothing can be asked (and `failed` has been told why).
        """
        about, told = self.about, failed or self.failed.emit
        problem = self._why_not()
        if problem is not None or about is None:
            told(problem or LabError("No model is open."))
            return None
        if key != "inspect":
            self.look.give_way()
        asked = model or about.reference
        everything, noted = {**self._prompt(), **values}, self._noting(asked, then)
        return self._requests.ask(
            question, lambda path: self.host.ask(asked, question, everything, path), noted, told, key
        )

    def compare(
        self, first: str, second: str, values: Mapping[str, Any], then: Then, failed: Failed | None = None
    ) -> Request | None:
        """Compares two models on the prompt (or on that in `values`). One at a time: the later one counts."""
        everything, told = {**self._prompt(), **values}, failed or self.failed.emit
        self.look.give_way()
        return self._requests.ask(
            "compare", lambda path: self.host.compare(first, second, everything, path), then, told, "compare"
        )

    def evolve(self, run: str, values: Mapping[str, Any], then: Then, failed: Failed | None = None) -> Request | None:
        """Follows the prompt (or that in `values`) along a run's checkpoints. One at a time, as above."""
        everything, told = {**self._prompt(), **values}, failed or self.failed.emit
        self.look.give_way()
        return self._requests.ask("evolve", lambda path: self.host.evolve(run, everything, path), then, told, "evolve")

    def change(self, model: str, then: Then, failed: Failed) -> Request | None:
        """What fine-tuning changed in a model's base, whatever the prompt is. One at a time, as above."""
        noted = self._noting(model, then)
        return self._requests.ask(
            "change", lambda path: self.host.change(model, path), noted, failed, "change", bound=False
        )

    def cancel(self, request: Request | None = None) -> None:
        """Ends one request early, or all of them. Nobody is told."""
        if request is not None:
            self._requests.drop(request)
            return
        if self.opening:  # whoever chose a folder need not look for it again
            self.recent.add_cancelled(self.choice.model)
            self.recent_changed.emit()
        alone = self.look.decline()
        self._requests.drop_all()
        self.choice.choose(self._subject().model)
        if alone:
            self.look.set_trouble(LabError("The inspection was cancelled.", "", "Inspect again when you like."))

    # What is under way -------------------------------------------------------------------------------------------

    @property
    def opening(self) -> bool:
        """Whether another model is being loaded."""
        return self._requests.running("open")

    @property
    def reading(self) -> bool:
        """Whether a model is being opened or the prompt read: for all panels, so the toolbar has their one Cancel."""
        return self.waits(("open", "inspect"))

    def waits(self, keys: Iterable[str]) -> bool:
        """Whether someone waits for an answer to a question with one of these keys."""
        return any(map(self._requests.running, keys))

    @property
    def working(self) -> Working | None:
        """What the model's process is doing for the panels; None when it rests."""
        return self._requests.working

    def shutdown(self) -> None:
        """Ends the model's process and deletes the archives."""
        self.host.shutdown()
        self.look.archive = None
        self._requests.shutdown()
        self._typing.stop()
        self.look.stop()  # last: the end of a question is a reason to look again

    def _subject(self) -> Subject:
        return Subject(self.about.reference if self.about is not None else "", self.text, self.beginning)

    def _noting(self, model: str, then: Then) -> Then:
        """`then`, with a note of what the archive is about: the prompt of now, since another one drops the question."""
        about = dataclasses.replace(self._subject(), model=model)

        def noted(archive: Archive) -> None:
            self.choice.note(archive, about)
            then(archive)

        return noted

    def _take_refusal(self, error: LabError) -> None:
        self.choice.refuse(error)
        self.failed.emit(error)

    def _working_changed(self) -> None:
        self.working_changed.emit()
        if self.working is None:
            self.look.start()

    def _prompt(self) -> dict[str, Any]:
        return {"text": self.text, "beginning": self.beginning}

    def _why_not(self) -> LabError | None:
        """Why the prompt cannot be asked about."""
        if self.about is None:
            return LabError("No model is open.", "", "Choose one in the toolbar.")
        if not self.text and not self.beginning:
            return LabError("The prompt is empty.", "A model needs at least one token.", "Type one in Prompt.")
        return None

    def _take_about(self, about: ModelAbout) -> None:
        self._requests.drop_bound()
        self.about = about
        self.choice.name(about.reference, about.name)
        self.choice.choose(about.reference)
        self._forget()
        count = (about.n_layer, about.n_head)
        layer, head = (
            min(chosen, max(most - 1, 0))
            for chosen, most in zip((self.selection.layer, self.selection.head), count, strict=True)
        )
        self.recent.add_model(RecentModel(about.reference, about.name, f"{about.kind_name} · {about.size_text}"))
        self.recent_changed.emit()
        self.about_changed.emit()
        self.select(layer=layer, head=head)
        self._tokenize_prompt()

    def _forget(self) -> None:
        """What was found in another model."""
        self._tokenized, self.bos_id = False, None
        self.look.open(self.about)
        self.set_interventions([])
        if self.tokens:
            self.tokens = []
            self.tokens_changed.emit()

    def _tokenize_prompt(self) -> None:
        self._typing.stop()
        if self.about is None:
            return
        self.look.set_trouble(None)
        self.look.clear()
        with_bos = self.beginning and self.bos_id is not None
        request = self.host.tokenize(self.about.reference, self.text, with_bos)
        pending = Pending("Tokenizing", key="tokenize", quiet=True)
        self._requests.wait(request, pending, self._take_tokens, self._take_unread)

    def _take_unread(self, error: LabError) -> None:
        self._unread = error
        self.look.fail(error)

    def _take_tokens(self, prompt: TokenizedPrompt) -> None:
        known, self.bos_id = self.bos_id, prompt.beginning
        if self.beginning and prompt.beginning is None:  # a model that knows none
            self.beginning = False
            self.prompt_changed.emit()
        elif self.beginning and known is None:
            self._tokenize_prompt()
            return
        self._tokenized = True
        self.tokens = list(prompt.tokens)
        if self.about is not None:
            self.choice.tokens = self._subject()
        self.look.at(self._prompt(), len(self.tokens))
        self.hover(-1)
        self.tokens_changed.emit()

    def _note_look(self) -> None:
        if self.look.archive is not None:
            self.choice.note(self.look.archive, self._subject())

    def _remember_prompt(self) -> None:
        self.recent.add_prompt(self.text)
        self.recent_changed.emit()
