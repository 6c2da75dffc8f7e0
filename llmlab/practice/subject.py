"""What questions are about: a model or a run, opened only as far as a kind of question needs it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from llmlab.core.errors import LabError
from llmlab.core.presets import load_preset
from llmlab.core.progress import Progress, quiet
from llmlab.core.settings import ModelSettings, PretrainSettings
from llmlab.gpt.estimate import expected_vocab_size
from llmlab.models.available import GGUF_SUFFIX, folder_name
from llmlab.models.reference import LATEST, LiveRun, ModelFolder, Reference, SavedRun, parse, without_folders
from llmlab.store.checkpoints import list_checkpoints, select
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

    from llmlab.inspection.archive import Archive
    from llmlab.models.model import OpenModel
    from llmlab.store.history import RunHistory

# Tokens of a passage that is read closely, and of each of those whose loss is measured.
PASSAGE, MEASURED = 24, 64
MEASURED_ROWS = 8
_DRAWS = 20
_CHARACTERS = 400_000  # of a corpus, from its start: enough to draw passages from
# Settings of questions where there is no run of the lab's own GPT yet.
_EXAMPLE = "baby"


class Subject:
    """A model, a run, or, where there is neither, the settings of a preset.

    model: its reference, "" for a preset. name: for a sentence, without the folders that it is in and the
    end of a file's name.
    """

    def __init__(
        self,
        reference: Reference | None,
        outputs: Path,
        progress: Progress = quiet,
        opener: Callable[[Reference], OpenModel] | None = None,
    ) -> None:
        """opener: opens the model when a question needs it; where it is held already, from there."""
        reference = _by_step(reference)
        self.reference, self.outputs, self.progress = reference, outputs, progress
        self.model = "" if reference is None else str(reference)
        named = without_folders(self.model).rpartition("/")[2].removesuffix(GGUF_SUFFIX)
        self.name = folder_name(reference.path) if isinstance(reference, ModelFolder) else named or _EXAMPLE
        self.seed, self.kind = 0, ""  # they decide which passages are read; set by whoever asks
        self._opener = opener
        self._given = ""  # the passage, where it is not drawn
        self._seen: dict[tuple[int, ...], Archive] = {}  # by the ids of the passage
        self.twins: dict[int, float] = {}  # losses of twins that were trained, by seed

    def has(self, needs: str) -> bool:
        """Whether a kind that needs this can be asked: see `llmlab.practice.kinds`."""
        match needs:
            case "settings":
                return self.own
            case "run":
                return self.run is not None and self.own and self.reference is not None
            case "model":
                return self.reference is not None and not self._unreadable
        return True

    @property
    def _unreadable(self) -> bool:
        """A run that trains changes under the question; a task of a paper has no text."""
        return isinstance(self.reference, LiveRun) or (self.run is not None and self.run.on_task)

    @property
    def run(self) -> RunFolder | None:
        return self.reference.run if isinstance(self.reference, (SavedRun, LiveRun)) else None

    @property
    def own(self) -> bool:
        """Whether it is the lab's own GPT, trained from scratch: or the preset that stands for one."""
        return self.reference is None or (self.run is not None and not self.run.fine_tunes and not self.run.on_task)

    @cached_property
    def settings(self) -> PretrainSettings:
        """Of a run that trains from scratch, or of the preset."""
        if self.run is None:
            return load_preset(_EXAMPLE).settings
        return self.run.info().settings_as(PretrainSettings)

    @property
    def model_settings(self) -> ModelSettings:
        return self.settings.model

    @cached_property
    def vocab_size(self) -> int:
        """Tokens that can come next; of a preset, as many as are expected."""
        if self.run is None:
            return expected_vocab_size(self.settings.data) if self.reference is None else self.opened.vocab_size
        from llmlab.models.scratch import read_tokenizer

        return read_tokenizer(self.run).vocab_size

    @cached_property
    def history(self) -> RunHistory:
        from llmlab.store.history import read_history

        assert self.run is not None
        return read_history(self.run)

    @cached_property
    def opened(self) -> OpenModel:
        from llmlab.models.source import open_model

        assert self.reference is not None
        if self._opener is not None:
            return self._opener(self.reference)
        return open_model(self.reference, self.outputs, self.progress)

    # Texts -----------------------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The start of the text that it was trained on; of another model, or where that is not here, Austen's."""
        return self._text[1]

    @property
    def corpus(self) -> str:
        """The name of that text's corpus, once it was read; "" before."""
        return self._text[0] if "_text" in vars(self) else ""

    @cached_property
    def _text(self) -> tuple[str, str]:
        """Its corpus's name, and the text."""
        from llmlab.data.corpora import find_corpus

        named = self.settings.data.corpus if self.own else "tiny"
        for name in (named, "tiny"):
            try:
                corpus = find_corpus(name)
                pieces = iter(corpus.pieces()) if corpus.here() else iter(())
                text = ""
                while len(text) < _CHARACTERS and (piece := next(pieces, None)) is not None:
                    text += piece.text
                if len(text) > 2000:
                    return Path(name).name, text[:_CHARACTERS]
            except LabError:  # a text of one's own that was moved or deleted
                continue
        raise LabError("There is no text to ask about.", "The texts that come with the lab are missing.")

    def ids(self, random: Random, count: int) -> list[int]:
        """That many tokens of the text, from the beginning of a word."""
        text, ids = self.text, list[int]()
        tokenizer = self.opened.tokenizer
        for _ in range(_DRAWS):  # until it is no row of spaces, with which a text may be indented, and has so many
            start = random.randrange(max(1, len(text) - 40 * count))
            start = text.find(" ", start) + 1
            piece = text[start : start + 40 * count]
            ids = tokenizer.encode(piece)[:count]
            ids = tokenizer.encode(tokenizer.decode(ids))[:count]  # as a prompt is read: a cut can make tokens fewer
            if len(ids) == count and not piece[:1].isspace():
                break
        if len(ids) < count:
            raise LabError("The text is too short to ask about.", f"{count} tokens are needed.")
        return ids

    @property
    def _context(self) -> int:
        return self.opened.anatomy.context or 10**9

    @contextmanager
    def reading(self, text: str) -> Iterator[None]:
        """Inside, the passage is this text, or as much of its end as the model can read."""
        self._given = text
        try:
            yield
        finally:
            self._given = ""

    @property
    def seen(self) -> Archive:
        """The passage, and all that the panels of Look inside show of it."""
        ids = self.passage
        if tuple(ids) not in self._seen:
            from llmlab.inspection.answers import answer_question
            from llmlab.inspection.archive import read_archive

            path = Path(self._folder.name) / f"{len(self._seen)}.safetensors"
            answer_question(self.opened, "inspect", {"ids": ids}, path, self.progress)
            self._seen[tuple(ids)] = read_archive(path)
        return self._seen[tuple(ids)]

    @property
    def passage(self) -> list[int]:
        """Ids of what is read: another text for each kind of question, so that those of a day do not share one."""
        if self._given:
            return self.opened.tokenizer.encode(self._given)[-self._context :]
        return self.ids(Random(f"passage/{self.kind}/{self.seed}"), min(PASSAGE, self._context))

    @property
    def prompt(self) -> str:
        """The passage as text."""
        return self.opened.tokenizer.decode(self.passage)

    @cached_property
    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="llmlab-practice-", ignore_cleanup_errors=True)

    @property
    def measured(self) -> Tensor:
        """Passages whose loss is measured, [MEASURED_ROWS, T + 1] ids, T at most MEASURED."""
        import torch

        count = min(MEASURED, self._context) + 1
        return torch.tensor([self.ids(Random(f"measured/{self.seed}/{row}"), count) for row in range(MEASURED_ROWS)])


def _by_step(reference: Reference | None) -> Reference | None:
    """A checkpoint by its step, so that what is asked about stays as it is while its run saves more."""
    if not isinstance(reference, SavedRun):
        return reference
    with suppress(LabError):  # there is none: whoever opens it says so
        return replace(reference, which=str(select(reference.run.checkpoints, reference.which).step))
    return reference


def subject_of(text: str, outputs: Path, progress: Progress = quiet) -> Subject:
    """What a reference names; without one, the newest run that has a checkpoint, else the preset that stands for one.

    UsageError when nothing bears that name.
    """
    if text:
        return Subject(parse(text, outputs), outputs, progress)
    for run in sorted(list_runs(outputs), key=lambda run: _created(run), reverse=True):
        if not run.on_task and list_checkpoints(run.checkpoints):
            return Subject(parse(f"{run.path}@{LATEST}", outputs), outputs, progress)
    return Subject(None, outputs, progress)


def _created(run: RunFolder) -> float:
    try:
        return run.info().created
    except LabError:  # damaged: it is not what anyone practises on
        return 0.0
