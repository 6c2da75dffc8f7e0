"""The look at the prompt: what the panels in sight need to know of it, the quick parts first, and again while the model
trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from PySide6.QtCore import QObject, Signal

from llmlab.core.errors import LabError
from llmlab.inspection.archive import Archive
from llmlab_gui.host.findings import Findings
from llmlab_gui.host.following import Following
from llmlab_gui.host.inspection_plan import slow_aspects, too_long, what_to_ask
from llmlab_gui.host.messages import ModelAbout
from llmlab_gui.host.process import ModelHost
from llmlab_gui.host.requests import Requests
from llmlab_gui.widgets.layouts import settling_timer


class Look(QObject):
    """Panels say what they need; what nobody has found yet is asked of the model, and comes as one archive."""

    changed = Signal()  # `archive`
    trouble_changed = Signal()
    needs_changed = Signal()  # what the panels in sight ask for
    complete = Signal()  # all that was asked for has come
    failed = Signal(object)  # LabError, while the rest is shown all the same
    live_failed = Signal(object)  # LabError: a live model, looked at again, answers no more

    def __init__(
        self, host: ModelHost, requests: Requests, step_of: Callable[[str], int | None], parent: QObject
    ) -> None:
        """step_of: as `Following` has it."""
        super().__init__(parent)
        self.archive: Archive | None = None  # all that was found last
        self.trouble: LabError | None = None  # why there is none
        self.following = Following(step_of, self)
        self.following.due.connect(self._look_again)
        self._host, self._requests = host, requests
        self._about: ModelAbout | None = None
        self._prompt: dict[str, Any] | None = None  # as the model is asked; None until its tokens are known
        self._tokens = 0  # how many the prompt had when they were known last
        self._needs: dict[str, tuple[str, ...]] = {}
        self._findings = Findings()
        self._again = False  # the next look is one of many at a live model: nobody is told
        self._timer = settling_timer(self, 0, self._ask)  # several panels that open at once ask once

    # What is looked at -------------------------------------------------------------------------------------------

    def open(self, about: ModelAbout | None) -> None:
        """Another model is the active one, or none: nothing is known of it."""
        self._about, self._tokens = about, 0
        self.following.open(about)
        self.clear()
        self.set_trouble(None)
        self._set_archive(None)

    def clear(self) -> None:
        """The prompt changes; until `at` nothing is looked for. The archive stays until it is replaced."""
        self._prompt, self._again = None, False
        self._findings.clear()

    def at(self, prompt: dict[str, Any], tokens: int) -> None:
        """Looks at a prompt of so many tokens."""
        self._prompt, self._tokens = prompt, tokens
        self.start()

    def anew(self) -> None:
        """Looks again, after a failure or a cancellation, or because a live model has learned since."""
        self.set_trouble(None)
        self._findings.clear()
        self.start()

    def start(self) -> None:
        """Soon asks for what is missing, if anything is."""
        self._timer.start()

    def stop(self) -> None:
        """No more."""
        self.following.stop()
        self._timer.stop()

    # What panels need --------------------------------------------------------------------------------------------

    def need(self, panel: str, aspects: Sequence[str]) -> None:
        """What a panel needs from now on of `llmlab.inspection.questions.ASPECTS`; nothing while it is hidden."""
        if self._needs.get(panel, ()) == tuple(aspects):
            return
        self._needs[panel] = tuple(aspects)
        self.needs_changed.emit()
        if aspects:
            self.start()

    def want_again(self) -> None:
        """Looks for what was cancelled or failed while the rest was found, which stays."""
        self._findings.want_again()
        self.start()

    def incomplete(self, aspects: Iterable[str]) -> bool:
        """Whether one of these was cancelled or failed while the rest was found; `want_again` looks for it."""
        return self._findings.declined(aspects)

    def looks_for(self, aspects: Iterable[str]) -> bool:
        """Whether some of these are being looked for."""
        return self._requests.running("inspect") and self._findings.is_after(aspects)

    def lacks(self, aspects: Iterable[str]) -> bool:
        """Whether some of these were not found yet, and will be looked for."""
        return bool(self._findings.missing(what_to_ask(self._about, self._tokens, aspects)[0]))

    @property
    def restrictions(self) -> list[str]:
        """What is left out because the prompt is long, in sentences."""
        return what_to_ask(self._about, self._tokens, self._wanted())[1]

    def give_way(self) -> None:
        """What is slow comes after what someone waits for; it is asked for again when that is answered."""
        if self._findings.found:
            self._requests.supersede("inspect")

    def decline(self) -> bool:
        """What is being looked for is cancelled; whether there was something, and nothing else is known."""
        return self._requests.running("inspect") and not self._findings.decline()

    def set_trouble(self, trouble: LabError | None) -> None:
        """Why nothing is found; what was found before stays."""
        if trouble is not self.trouble:
            self.trouble = trouble
            self.trouble_changed.emit()

    def fail(self, error: LabError) -> None:
        """Something could not be found; of what was, the rest is shown all the same."""
        if self._findings.decline():
            self.failed.emit(error)
            self.trouble_changed.emit()
            return
        self.set_trouble(error)
        self._set_archive(None)

    # Asking ------------------------------------------------------------------------------------------------------

    def _wanted(self) -> set[str]:
        return {aspect for aspects in self._needs.values() for aspect in aspects}

    def _ask(self) -> None:
        """Asks for what the panels in sight need and nobody has found yet."""
        about, prompt = self._about, self._prompt
        if about is None or prompt is None or self.trouble is not None:
            return
        if not self._tokens:
            self._set_archive(None)
            return
        if about.context and self._tokens > about.context:
            self.fail(too_long(about, self._tokens))
            return
        what = what_to_ask(about, self._tokens, self._wanted())[0]
        slow = slow_aspects(about, self._tokens)
        what = self._findings.next(what, slow, whole=about.live)
        if what and not set(what) & set(slow) and self._findings.waits_for(slow):
            self._requests.supersede("inspect")  # a panel has come into sight that needs what is quick
        if self._requests.busy or self._requests.running("inspect"):
            return  # what someone clicked goes first; the news that it is done leads here again
        again, self._again = self._again, False
        if not what:
            return
        self._findings.ask(what, whole=about.live)
        values = {**prompt, "what": list(what)} | ({"parts": True} if slow and not about.live else {})
        self._requests.ask(
            "inspect",
            lambda path: self._host.ask(about.reference, "inspect", values, path),
            self._take,
            self._stop_looking if again else self.fail,
            "inspect",
            quiet=again,
            part=self._take_part,
        )

    def _take(self, archive: Archive) -> None:
        self.following.saw()
        self.complete.emit()
        self._set_archive(self._findings.take(archive))
        self.start()  # what is slow, or a panel that was opened in the meantime

    def _take_part(self, archive: Archive) -> None:
        self._set_archive(self._findings.with_part(archive))

    def _set_archive(self, archive: Archive | None) -> None:
        if archive is not self.archive:
            self.archive = archive
            self.changed.emit()

    def _look_again(self) -> None:
        """A live model may have learned since."""
        if self._findings.found and not self._requests.running("inspect") and self.following.has_news:
            self._findings.clear()
            self._again = True
            self.start()

    def _stop_looking(self, error: LabError) -> None:
        """A live model answers no more: what was seen last stays."""
        self.following.stop()
        self._findings.give_up(self._wanted())
        self.live_failed.emit(error)
