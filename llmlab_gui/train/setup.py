"""The Set-up dock: the next pretraining run's settings and costs, and the button that starts it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtWidgets import QWidget

from llmlab.core.presets import Preset
from llmlab.core.settings import PretrainSettings
from llmlab.core.signs import count_text
from llmlab.data.build_tokenizer import cut_anew
from llmlab.gpt.estimate import estimate_pretraining, follows_from_text
from llmlab.training.kinds import as_watched, kind_of
from llmlab_gui.forms.corpus_editor import CorpusEditor
from llmlab_gui.lab.lab import Lab
from llmlab_gui.train.run_costs import Costs, checkpoints_text, memory_text, time_text
from llmlab_gui.train.run_setup import RunSetupDock
from llmlab_gui.widgets.numbers import minutes_text


def _seconds(settings: PretrainSettings, outputs: Path) -> float:
    """Of the whole run, as experiments count it: its start, steps and evaluations."""
    return kind_of(settings).seconds(as_watched(settings), outputs)


def _titled(preset: Preset[PretrainSettings], outputs: Path) -> str:
    """With what decides the time, beside the model's size."""
    settings = preset.settings
    tokens = count_text(settings.tokens_until(settings.train.steps))
    return f"{preset.title} · {tokens} tokens · {minutes_text(_seconds(settings, outputs) / 60)}"


class SetupDock(RunSetupDock[PretrainSettings]):
    """What learners change first: the text, the steps, the seed. All else is in the form."""

    def __init__(self, lab: Lab, parent: QWidget | None = None) -> None:
        self.corpus = CorpusEditor()
        super().__init__(
            lab,
            "setup",
            "Set-up",
            settings_type=PretrainSettings,
            essentials={"data.corpus": self.corpus, "train.steps": None, "train.seed": None},
            titled=partial(_titled, outputs=lab.outputs),
            parent=parent,
        )
        self.caption("Settings of the run. Bold ones differ from the preset.", "optimisation")
        self.corpus.state_changed.connect(self.update_all)
        self.corpus.failed.connect(lab.error_raised)
        lab.setup_requested.connect(self.fill)
        self.update_all()

    def set_corpus(self, path: str) -> None:
        """Reads this text, all else as it is."""
        self.corpus.set_value(path)
        self.show()
        self.raise_()

    def check(self) -> None:
        self.corpus.check()

    def reads(self) -> str:
        return self.corpus.combo.currentText()

    def work_out(self, settings: PretrainSettings) -> None:
        needed = estimate_pretraining(as_watched(settings))
        seconds = _seconds(settings, self.lab.outputs)
        about = "about " if follows_from_text(settings.data) else ""
        parts = [
            time_text(settings, seconds / 60),
            f"{count_text(needed.parameters)} parameters "
            f"({about}{count_text(needed.embedding_parameters)} in embeddings)",
            memory_text(needed.memory),
            checkpoints_text(settings, needed.checkpoint_bytes),
            f"{count_text(settings.tokens_until(settings.train.steps))} tokens read",
        ]
        disk = needed.checkpoint_bytes * settings.checkpoints.at_once(settings.train.steps)
        data, corpus = settings.data, self.corpus.corpus
        remarks = [
            f"{one.title} was built with another vocabulary ({one.manifest.tokenizer}, {one.manifest.vocab_size:,} "
            f"tokens): this run tokenizes its text again, with {data.tokenizer}."
            for one in (cut_anew(data, corpus) if corpus is not None else ())
        ]
        self.show_costs(Costs(settings, parts, needed.memory_bytes, disk, seconds, remarks))
