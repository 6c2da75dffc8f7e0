"""Naming something: a box that offers what is here and takes any name as typed, and a line that says what it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from llmlab.core.errors import LabError
from llmlab_gui.forms.editors import Editor
from llmlab_gui.forms.reference_box import ReferenceBox
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.buttons import FileButton
from llmlab_gui.widgets.labels import ProblemLabel, QuietLabel
from llmlab_gui.widgets.layouts import beside, column, settling_timer

# After the last key, before the disk is asked what the name means.
_SETTLE_MS = 250


class NothingNamed(LabError):
    """Nobody has chosen anything yet, which is no mistake."""


class NamedEditor(Editor):
    """`problem`: why what is named cannot be used. Subclasses say what a name means, away from the window's thread."""

    state_changed = Signal()  # it became known what the name means

    def __init__(self, name: str, hint: str, to_do: str, choose: str, parent: QWidget | None = None) -> None:
        """name: for screen readers. hint: in the empty box. to_do: a sentence, where nothing was named. choose: what
        the button beside it does, in words."""
        super().__init__(parent)
        self._to_do = to_do
        self._background = Background(self)
        self.problem: LabError | None = None
        self.known = False  # what is named was looked at
        self._filling = False  # the offers are being replaced
        self.box = ReferenceBox(name)
        self.box.setToolTip("")  # a form's fields say what they mean
        line = self.box.lineEdit()
        assert line is not None
        line.setPlaceholderText(hint)
        self.button = FileButton(choose, choose)
        self.button.chosen.connect(self.set_value)
        self.about = QuietLabel()
        self.wrong = ProblemLabel()
        self.hold(column(beside(self.box, self.button, grows=self.box), self.about, self.wrong, spacing=2), self.box)
        self._settle = settling_timer(self, _SETTLE_MS, self.look)
        self.box.editTextChanged.connect(self._changed)

    def describe(self, name: str) -> str:
        """What `name` means, in words. LabError when it means nothing that can be used. Runs in another thread."""
        raise NotImplementedError

    def offers(self) -> Iterable[tuple[str, str]]:
        """Names and words of what is here. Runs in another thread."""
        raise NotImplementedError

    def check(self) -> None:
        """LabError when what is named cannot be used, as far as that is known; NothingNamed without a name."""
        if not self.value():
            raise NothingNamed(self._to_do)
        if self.problem is not None:
            raise self.problem

    def value(self) -> Any:
        return self.box.reference

    def set_value(self, value: Any) -> None:
        self.box.choose(str(value))

    def list_offers(self) -> None:
        """Finds out anew what is here."""
        self._background.run(lambda: list(self.offers()), self._take_offers, lambda _: None)

    def look(self) -> None:
        """Finds out what is named."""
        wanted = self.value()

        def found(words: str) -> None:
            self._found(wanted, words, None)

        def failed(error: LabError) -> None:
            self._found(wanted, "", error)

        self._background.run(lambda: self.describe(wanted), found, failed)

    def look_again(self) -> None:
        """Finds out whether what could not be used can be now: a run may have saved its first checkpoint."""
        if self.problem is not None and self.known:
            self.known = False
            self.look()

    def shutdown(self) -> None:
        """Waits for what is being looked at."""
        self._background.shutdown()

    def _found(self, wanted: str, words: str, error: LabError | None) -> None:
        if wanted != self.value():
            return
        self.problem, self.known = error, True
        self.about.setText(words)
        self.about.setVisible(bool(words))
        self.wrong.say(str(error) if error is not None and wanted else "")
        self.state_changed.emit()

    def _take_offers(self, offers: list[tuple[str, str]]) -> None:
        """The box is emptied and filled; what was in it stays, and nobody is told of that."""
        before = self.value()
        self._filling = True
        self.box.offer(offers)
        self._filling = False
        if self.value() != before:
            self._changed()

    def _changed(self) -> None:
        if self._filling:
            return
        self.known = False
        self.problem = None
        self.wrong.say("")
        self._settle.start()
        self.edited.emit()
