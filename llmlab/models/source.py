"""What a reference leads to: one object that opens the model, and says what is known of it without opening it.

    source_of(parse("bar@150", outputs)).open()

Nothing is read, downloaded or opened before a method says so, and the methods import what they need: torch for an open
model, transformers for settings and tokenizers of Hugging Face. Whatever damages or hides a file is a LabError.
"""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.core.errors import LabError, UsageError
from llmlab.core.finetuning_settings import FULL, FinetuneSettings
from llmlab.core.kinds import registered
from llmlab.core.mystery_settings import MysterySettings
from llmlab.core.progress import Progress, quiet
from llmlab.core.settings import ModelSettings, PretrainSettings
from llmlab.core.task_settings import TaskSettings
from llmlab.models.adapter_file import with_adapter
from llmlab.models.base_shape import BaseShape, described_model, shape_of_gpt, shape_of_task
from llmlab.models.file_sources import Folder, Gguf, Hub, Source, stamps
from llmlab.models.reference import (
    LATEST,
    AdaptedModel,
    AmbiguousName,
    GgufFile,
    HubModel,
    LiveRun,
    ModelFolder,
    Reference,
    SavedRun,
    parse,
)
from llmlab.models.weights import Weights, read_weights
from llmlab.store.checkpoints import ADAPTER_WEIGHTS_FILE, MODEL_FILE, Checkpoint, select
from llmlab.store.run_folder import RunFolder

if TYPE_CHECKING:
    from llmlab.data.tokenizers import TextTokenizer
    from llmlab.models.model import OpenModel


def source_of(reference: Reference) -> Source:
    """The source of a model."""
    match reference:
        case SavedRun(run):
            if run.sealed:
                return SealedRun(reference)
            kind = FineTunedRun if run.fine_tunes else TaskRun if run.on_task else PretrainedRun
            return kind(reference)
        case LiveRun():
            return Live(reference)
        case ModelFolder():
            return Folder(reference)
        case HubModel():
            return Hub(reference)
        case GgufFile():
            return Gguf(reference)
        case AdaptedModel():
            return Adapted(reference)


def open_model(reference: str | Reference, outputs: Path, progress: Progress = quiet) -> OpenModel:
    """Opens what `reference` names, on the CPU, in eval mode. outputs: where runs are found by their ids.

    UsageError when nothing bears that name; LabError when it is damaged, foreign or too large for memory.
    Cancelled when `progress` says so.
    """
    return source_of(parse(reference, outputs) if isinstance(reference, str) else reference).open(progress)


def base_named(text: str, outputs: Path) -> Source:
    """What fine-tuning begins from. UsageError when nothing is named, nothing bears that name, or it has not ended."""
    if not text:
        raise UsageError("No base was named.", "Fine-tuning begins at a model that exists.", "Set model.base.")
    reference = parse(text, outputs)
    if isinstance(reference, LiveRun):
        raise UsageError(
            f"{reference} has not ended.",
            "A base must not change while it is fine-tuned.",
            f"Name {reference.named}@latest, its newest checkpoint.",
        )
    return source_of(reference)


def base_and_fine_tuned(reference: Reference) -> tuple[str, str]:
    """References of a base and of what fine-tuning made of it, which are compared to see what that did.

    Of a live run, its newest checkpoint. LabError when nothing was fine-tuned there, or the base is not here.
    """
    base = source_of(reference).base
    if base is None:
        raise LabError(f"{reference} was not fine-tuned.", "It has no base to be compared with.")
    if not isinstance(reference, (SavedRun, LiveRun)):
        return str(base), str(reference)
    which = reference.which if isinstance(reference, SavedRun) else LATEST
    return str(base), f"{reference.named}@{select(reference.run.checkpoints, which).step}"


class _SavedRun(Source):
    """A checkpoint of a run."""

    def __init__(self, reference: SavedRun) -> None:
        self.reference: SavedRun = reference
        self.run = reference.run

    @property
    def checkpoint(self) -> Checkpoint:
        """The one that is named now; `latest` may be another one soon."""
        return select(self.run.checkpoints, self.reference.which)

    @property
    def kind(self) -> str:
        checkpoint, settings = self.checkpoint, self.run.info().settings
        loss = f", validation loss {checkpoint.val_loss:.3f}" if checkpoint.val_loss is not None else ""
        return f"Step {checkpoint.step:,} of a run on {settings.reads}{loss}"

    def weight_files(self) -> list[Path]:
        return [*([] if self.base is None else self.base.weight_files()), self.checkpoint.weights]

    def weights(self) -> Weights:
        return read_weights([self.checkpoint.path / MODEL_FILE])

    def fingerprint(self) -> object:
        checkpoint = self.checkpoint
        return checkpoint.path, checkpoint.time, None if self.base is None else self.base.fingerprint()


class PretrainedRun(_SavedRun):
    """A checkpoint of a run that trains the lab's own GPT from scratch."""

    def open(self, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
        from llmlab.models.scratch import open_checkpoint

        return open_checkpoint(self.run, self.checkpoint, self.reference.named, progress, with_bytes=with_bytes)

    def tokenizer(self) -> TextTokenizer:
        from llmlab.models.scratch import text_tokenizer

        return text_tokenizer(self.run)

    def shape(self) -> BaseShape:
        return shape_of_gpt(*described_model(self.run, self.checkpoint))

    def own_settings(self) -> ModelSettings:
        return described_model(self.run, self.checkpoint)[0]


class TaskRun(PretrainedRun):
    """A checkpoint of a run that learns a task of a paper."""

    def open(self, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
        from llmlab.models.scratch import open_task_checkpoint

        return open_task_checkpoint(self.run, self.checkpoint, self.reference.named)

    def shape(self) -> BaseShape:
        return shape_of_task(self.run.info().settings_as(TaskSettings))

    def own_settings(self) -> Any:
        """None: its GPT reads no text, and is no other program's model."""
        return None


class SealedRun(PretrainedRun):
    """A checkpoint of a run with a sealed fault: it opens as it was built, rightly or wrongly."""

    def open(self, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
        from llmlab.models.scratch import open_checkpoint

        settings = self.run.info().settings_as(MysterySettings)
        rebuild = partial(registered(settings.rebuilt_by), settings)
        named = self.reference.named
        return open_checkpoint(self.run, self.checkpoint, named, progress, with_bytes=with_bytes, rebuild=rebuild)

    def own_settings(self) -> Any:
        """None: it may be no GPT that another program knows."""
        return None


class FineTunedRun(_SavedRun):
    """A checkpoint of a run that fine-tunes: an adapter on its base, or the base with other weights."""

    @cached_property
    def base(self) -> Source:
        return source_of(_base_of(self.run))

    def open(self, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
        from llmlab.models.adapter import open_fine_tuned

        named = self.reference.named
        return open_fine_tuned(self.base, self.run, self.checkpoint, named, progress, with_bytes=with_bytes)

    @property
    def method(self) -> str:
        """How it learned: lora, qlora or full."""
        return self.run.info().settings_as(FinetuneSettings).model.method

    def weights(self) -> Weights:
        if self.method == FULL:
            return super().weights()
        return with_adapter(self.base.weights(), self.checkpoint.path)


class Live(Source):
    """A run that trains: it answers questions itself, and its weights are not to be had."""

    kind = "Run that trains"

    def __init__(self, reference: LiveRun) -> None:
        self.reference: LiveRun = reference
        self.run = reference.run

    @cached_property
    def base(self) -> Source | None:
        return source_of(_base_of(self.run)) if self.run.fine_tunes else None

    def open(self, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
        raise UsageError(
            f"{self} is a training run: it answers questions itself, and cannot be opened here.",
            "Its weights change from step to step.",
            f"Open {self.reference.named}@latest, its newest checkpoint.",
        )

    def weight_files(self) -> list[Path]:
        raise LabError(f"{self} trains.", "Its weights change from step to step.", "Name a checkpoint.")

    def tokenizer(self) -> TextTokenizer:
        from llmlab.models.scratch import text_tokenizer

        return text_tokenizer(self.run) if self.base is None else self.base.tokenizer()

    def shape(self) -> BaseShape:
        if self.base is not None:
            return self.base.shape()
        from llmlab.models.scratch import read_tokenizer

        info = self.run.info()
        if self.run.on_task:
            return shape_of_task(info.settings_as(TaskSettings))
        return shape_of_gpt(info.settings_as(PretrainSettings).model, read_tokenizer(self.run).vocab_size)


def _base_of(run: RunFolder) -> Reference:
    """The model that a fine-tuning run changes; runs are looked for beside it.

    LabError when it is not here, or when bases lead around in a circle.
    """
    base = _named_base(run)
    seen, below = {run.path.resolve()}, base
    while True:
        if isinstance(below, AdaptedModel):
            below = below.base
        if not (isinstance(below, SavedRun) and below.run.fine_tunes):
            return base
        if below.run.path.resolve() in seen:
            raise LabError(f"{run.id} cannot be opened.", f"Its base, {base}, is built on the run itself.")
        seen.add(below.run.path.resolve())
        below = _named_base(below.run)


def _named_base(run: RunFolder) -> Reference:
    text = run.info().settings_as(FinetuneSettings).model.base
    try:
        base = parse(text, run.path.parent.parent)
    except UsageError as error:
        raise LabError(
            f"{run.id} cannot be opened without its base, {text or 'which it does not name'}.",
            f"{error.what} {error.why}".strip(),
            f"Write its full name as model.base into {run.run_json}."
            if isinstance(error, AmbiguousName)
            else "Put the base back where it was when the run began.",
        ) from error
    if isinstance(base, LiveRun):
        raise LabError(f"{run.id} cannot be opened.", f"Its base, {base}, changes from step to step.")
    return base


class Adapted(Source):
    """An adapter on a base."""

    def __init__(self, reference: AdaptedModel) -> None:
        self.reference: AdaptedModel = reference
        self.adapter = reference.adapter

    @property
    def kind(self) -> str:
        return f"Adapter on {self.base}"

    @cached_property
    def base(self) -> Source:
        return source_of(self.reference.base)

    def open(self, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
        from llmlab.models.adapter import open_adapted

        return open_adapted(self.base, self.adapter, str(self), progress, with_bytes=with_bytes)

    def weight_files(self) -> list[Path]:
        return [*self.base.weight_files(), self.adapter / ADAPTER_WEIGHTS_FILE]

    def weights(self) -> Weights:
        return with_adapter(self.base.weights(), self.adapter)

    def fingerprint(self) -> object:
        return self.base.fingerprint(), stamps(self.adapter)
