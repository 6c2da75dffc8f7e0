"""Naming something, as examples to learn from: a box that offers what is here and takes any name as typed, and a line
that says what it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PySide6.QtCore import Signal

from llmlab.core.errors import LabError, UsageError
from llmlab.core.kinds import fine_tunes
from llmlab.data.example_files import SUFFIXES, is_hub_name
from llmlab.data.examples import TASKS
from llmlab_gui.forms.editors import Editor
from llmlab_gui.forms.reference_box import ReferenceBox
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.buttons import FileButton
from llmlab_gui.widgets.labels import ProblemLabel, QuietLabel
from llmlab_gui.widgets.layouts import beside, column, settling_timer
from llmlab_gui.widgets.numbers import bytes_text

# After the last key, before the disk is asked what the name means.
_SETTLE_MS = 250


class NothingNamed(LabError):
    """Nobody has chosen anything yet, which is no mistake."""


class NamedEditor(Editor):
    """`problem`: why what is named cannot be used. Subclasses say what a name means, away from the window's thread."""

    state_changed = Signal()  # it became known what the name means

    def __init__(self, name: str, hint: str, to_do: str, choose: str) -> None:
        """name: for screen readers. hint: in the empty box. to_do: a sentence, where nothing was named. choose: what
        the button beside it does, in words."""
        super().__init__()
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


_FILES = f"Examples ({' '.join(f'*{suffix}' for suffix in SUFFIXES)});;All files (*)"
_MOST_RECENT = 8


class ExamplesEditor(NamedEditor):
    """The value is what `llmlab.data.examples.read_source` reads. What is in it, the Data dock shows."""

    def __init__(self, lab: Lab) -> None:
        hint = "tasks, a file, or a dataset on the Hugging Face Hub"
        super().__init__("Examples", hint, f"Choose examples to learn from: {hint}.", "Choose examples")
        self._lab = lab
        self.button.menu().addAction("The built-in tasks", lambda: self.set_value(TASKS))
        self.button.add_file(f"A file: {', '.join(SUFFIXES)}…", "Examples", _FILES)

    def describe(self, name: str) -> str:
        if name == TASKS:
            return "600 short instructions made by the lab, with answers that a program checks."
        path = Path(name).expanduser()
        if path.is_file():
            if path.suffix.lower() not in SUFFIXES:
                raise UsageError(f"{path.name} is not a file of examples.", f"The lab reads {', '.join(SUFFIXES)}.")
            return f"{bytes_text(path.stat().st_size)}. The Data panel shows how each line is read."
        if path.suffix.lower() not in SUFFIXES and is_hub_name(name):
            return "A dataset on the Hugging Face Hub, read when the run starts."
        raise UsageError(
            f"There are no examples {name!r}.",
            "It is neither a file here nor the name of a dataset on the Hub (owner/name).",
            f"Name a {', '.join(SUFFIXES)} file, or take {TASKS}, which is built in.",
        )

    def offers(self) -> Iterable[tuple[str, str]]:
        earlier = [row.info.settings.reads for row in self._lab.runs() if fine_tunes(row.info.track)]
        names = list(dict.fromkeys([TASKS, *earlier]))[:_MOST_RECENT]
        return [(name, name) for name in names]
