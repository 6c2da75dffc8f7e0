"""The second column of Write: another model that answers the same prompt."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QLabel, QWidget

from llmlab.core.errors import LabError
from llmlab.models.reference import parse
from llmlab.models.source import base_and_fine_tuned
from llmlab_gui.forms.reference_box import ReferenceBox, offers
from llmlab_gui.host.messages import Generation
from llmlab_gui.host.process import ModelHost
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.background import Background
from llmlab_gui.widgets.labels import labelled
from llmlab_gui.widgets.layouts import beside, column
from llmlab_gui.widgets.veil import Veil
from llmlab_gui.write.token_view import TokenView
from llmlab_gui.write.writer import Writer


class SecondAnswer(QWidget):
    """A box that names the model, its text, and how it went. What it proposes: the base of what was fine-tuned.

    `changed`: the box names another model.
    """

    changed = Signal()

    def __init__(self, lab: Lab, host: ModelHost, background: Background) -> None:
        super().__init__()
        self._lab, self._background = lab, background
        self._proposed = ""  # what the box held when nobody had chosen anything
        self.box = ReferenceBox("Model B")
        self.text = labelled(TokenView(), "What model B wrote")
        self.text.setPlaceholderText("It answers after model A.")
        self.said = QLabel(textFormat=Qt.TextFormat.PlainText, wordWrap=True)
        self.writer = Writer(host, self.text, self)
        self.writer.said.connect(self.said.setText)
        self._wrote = ("", "")  # reference and name of the model that wrote what is shown
        self.veil = Veil(self.text)
        self.box.currentTextChanged.connect(self.changed)
        column(beside(QLabel("B"), self.box, grows=self.box), (self.text, 1), self.said, into=self)

    def propose(self, first: str) -> None:
        """Offers what is here, and chooses the model that tells most beside `first`, unless someone has chosen."""
        outputs, runs = self._lab.outputs, [row.run for row in self._lab.runs()]
        recent = [model.reference for model in self._lab.inspection.recent.there(outputs)]

        def look() -> tuple[list[tuple[str, str]], str]:
            try:
                other = base_and_fine_tuned(parse(first, outputs))[0]
            except LabError:  # it was not fine-tuned, or its base is not here
                other = ""
            return offers(outputs, runs, recent), other

        self._background.run(look, lambda found: self._take(*found), self._lab.error_raised.emit)

    def mark_stale(self, words: str) -> None:
        """Dims what another model wrote than the one in the box, and with `words` all of it."""
        reference, name = self._wrote
        if reference and reference != self.box.reference:
            words = f"of {name}"
        self.veil.say(words if self.text.text() else "")
        self.said.setEnabled(not self.veil.words)

    def begin(self, prompt: str, how: Generation) -> None:
        """Answers. LabError when no model is named."""
        if not self.box.reference:
            raise LabError("No second model is chosen.", "", "Choose model B above its column.")
        self._wrote = self.box.reference, self._name()
        self.writer.begin(self.box.reference, prompt, how)

    def _name(self) -> str:
        """As A is named."""
        run, _, step = self.box.reference.rpartition("@")
        return f"{run}, step {int(step):,}" if step.isdecimal() else self.box.currentText()

    def _take(self, found: list[tuple[str, str]], other: str) -> None:
        chosen = self.box.reference
        self.box.offer(found)
        if chosen in ("", self._proposed):
            self._proposed = other
            self.box.choose(other)
