"""Choosing what is learned from: the built-in tasks, a file of examples, or a data set of the hub."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from llmlab.core.errors import UsageError
from llmlab.core.kinds import fine_tunes
from llmlab.data.example_files import SUFFIXES, is_hub_name
from llmlab.data.examples import TASKS
from llmlab_gui.forms.named_editor import NamedEditor
from llmlab_gui.lab.lab import Lab
from llmlab_gui.widgets.numbers import bytes_text

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
