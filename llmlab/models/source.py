"""What a reference leads to: one object that opens the model, and says what is known of it without opening it.

    source_of(parse("bar@150", outputs)).open()

Nothing is read, downloaded or opened before a method says so, and the methods import what they need: torch for an open
model, transformers for settings and tokenizers of Hugging Face. Whatever damages or hides a file is a LabError.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.anatomy.sizes import context_length
from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import read_json, sha256_of
from llmlab.core.finetuning_settings import FULL, FinetuneSettings
from llmlab.core.progress import Progress, quiet
from llmlab.core.settings import ModelSettings, PretrainSettings
from llmlab.core.task_settings import TaskSettings
from llmlab.models.adapter_file import with_adapter
from llmlab.models.available import CONFIG_FILE, cached_models, cached_settings, other_revision
from llmlab.models.base_shape import (
    BaseShape,
    described_model,
    shape_of_folder,
    shape_of_gguf,
    shape_of_gpt,
    shape_of_task,
)
from llmlab.models.gguf_file import GgufWeights, read_gguf_header
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
    is_fine_tuned,
    is_task,
    parse,
)
from llmlab.models.weights import Weights, read_weights, weight_files
from llmlab.store.checkpoints import ADAPTER_WEIGHTS_FILE, MODEL_FILE, Checkpoint, select
from llmlab.store.run_folder import RunFolder

if TYPE_CHECKING:
    from llmlab.data.tokenizers import TextTokenizer
    from llmlab.models.model import OpenModel

# Beside an exported model: which one it is, and the digests of its weights in the lab and in the folder.
EXPORT_FILE = "llmlab_export.json"


def source_of(reference: Reference) -> Source:
    """The source of a model."""
    match reference:
        case SavedRun(run):
            kind = TunedRun if is_fine_tuned(run) else TaskRun if is_task(run) else PretrainedRun
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
    """What fine-tuning begins from. UsageError when nothing is named, nothing bears that name, or it still trains."""
    if not text:
        raise UsageError("No base was named.", "Fine-tuning begins at a model that exists.", "Set model.base.")
    reference = parse(text, outputs)
    if isinstance(reference, LiveRun):
        raise UsageError(
            f"{reference} is still training.",
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


class Source(ABC):
    """What all kinds can be asked.

    A model that was fine-tuned has a `base`, and what it does not say itself is the base's: it reads the same tokens,
    and has the same shape.
    """

    reference: Reference

    def __str__(self) -> str:
        return str(self.reference)

    @property
    def base(self) -> Source | None:
        """What it was fine-tuned from. LabError when that is not here."""
        return None

    @property
    def bottom(self) -> Source:
        """What it stands on in the end: the base of its base, or itself."""
        return self if self.base is None else self.base.bottom

    @abstractmethod
    def open(self, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
        """The model, on the CPU, in eval mode. with_bytes: memory that is needed besides, for an adapter.

        LabError when it is damaged, foreign or too large for memory. Cancelled when `progress` says so.
        """

    @abstractmethod
    def weight_files(self) -> list[Path]:
        """The files that its weights are in, those of its base first. LabError when they are not on this machine."""

    def weights(self) -> Weights:
        """Its weights, one matrix at a time, without torch."""
        return read_weights(self.weight_files())

    def fingerprint(self) -> object:
        """Equal as long as the reference opens the same bytes: a checkpoint saved again or a replaced file differs."""
        return str(self)

    def tokenizer(self) -> TextTokenizer:
        """Its tokenizer."""
        return self._of_base.tokenizer()

    def context(self) -> int:
        """The longest prompt, in tokens (`llmlab.anatomy.sizes`)."""
        return self._of_base.context()

    def shape(self) -> BaseShape:
        """Its sizes. LabError when they cannot be told without downloading or loading it."""
        return self._of_base.shape()

    def families(self) -> set[str]:
        """What its files call its family: transformers' `model_type`, or a GGUF file's architecture; empty for the
        lab's own GPT, and where no file is here."""
        return set() if self.base is None else self.base.families()

    def own_settings(self) -> ModelSettings | None:
        """The shape of the lab's own GPT at its bottom; None for other models."""
        return None if self.base is None else self.base.own_settings()

    def digest(self) -> str:
        """Hex sha256 over its weight files, wherever they are and whatever they are called: an adapter knows its base
        again by it. Reads every byte: a second for two gigabytes or so."""
        try:
            digests = [sha256_of(path) for path in self.weight_files()]
        except OSError as error:
            raise LabError(f"{self} cannot be read.", f"{error}.") from error
        return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def has_digest(self, wanted: str) -> bool:
        """Whether it is the model that has that digest."""
        return self.digest() == wanted

    @property
    def _of_base(self) -> Source:
        assert self.base is not None
        return self.base


# Runs -------------------------------------------------------------------------------------------------------------


class _SavedRun(Source):
    """A checkpoint of a run."""

    def __init__(self, reference: SavedRun) -> None:
        self.reference: SavedRun = reference
        self.run = reference.run

    @property
    def checkpoint(self) -> Checkpoint:
        """The one that is named now; `latest` may be another one soon."""
        return select(self.run.checkpoints, self.reference.which)

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
        from llmlab.models.scratch import read_tokenizer

        return read_tokenizer(self.run)

    def context(self) -> int:
        return self.own_settings().block_size

    def shape(self) -> BaseShape:
        return shape_of_gpt(*described_model(self.run, self.checkpoint))

    def own_settings(self) -> ModelSettings:
        return described_model(self.run, self.checkpoint)[0]


class TaskRun(PretrainedRun):
    """A checkpoint of a run that learns a task of a paper."""

    def open(self, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
        from llmlab.models.scratch import open_task_checkpoint

        return open_task_checkpoint(self.run, self.checkpoint, self.reference.named)

    def context(self) -> int:
        return self.run.info().settings_as(TaskSettings).time

    def own_settings(self) -> Any:
        """None: its GPT reads no text, and is no other program's model."""
        return None


class TunedRun(_SavedRun):
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

    def __init__(self, reference: LiveRun) -> None:
        self.reference: LiveRun = reference
        self.run = reference.run

    @cached_property
    def base(self) -> Source | None:
        return source_of(_base_of(self.run)) if is_fine_tuned(self.run) else None

    def open(self, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
        raise UsageError(
            f"{self} is a training run: it answers questions itself, and cannot be opened here.",
            "Its weights change from step to step.",
            f"Open {self.reference.named}@latest, its newest checkpoint.",
        )

    def weight_files(self) -> list[Path]:
        raise LabError(f"{self} trains.", "Its weights change from step to step.", "Name a checkpoint.")

    def tokenizer(self) -> TextTokenizer:
        from llmlab.models.scratch import read_tokenizer

        return read_tokenizer(self.run) if self.base is None else self.base.tokenizer()

    def context(self) -> int:
        if self.base is not None:
            return self.base.context()
        info = self.run.info()
        if is_task(self.run):
            return info.settings_as(TaskSettings).time
        return info.settings_as(PretrainSettings).model.block_size

    def shape(self) -> BaseShape:
        if self.base is not None:
            return self.base.shape()
        from llmlab.models.scratch import read_tokenizer

        info = self.run.info()
        if is_task(self.run):
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
        if not (isinstance(below, SavedRun) and is_fine_tuned(below.run)):
            return base
        if below.run.path.resolve() in seen:
            raise LabError(f"{run.id} cannot be opened.", f"Its base, {base}, stands on the run itself.")
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


# Files of Hugging Face and llama.cpp --------------------------------------------------------------------------------


class Files(Source):
    """A model that other programs made, or read. name: for people."""

    name: str

    @abstractmethod
    def _settings(self) -> tuple[Path, str | None]:
        """The folder with settings and tokenizer, and the GGUF file in it that holds them."""

    def config(self) -> Any:
        """Its settings, as transformers reads them."""
        from llmlab.models.huggingface import read_config

        folder, gguf_file = self._settings()
        return read_config(folder, self.name, gguf_file)

    def tokenizer(self) -> TextTokenizer:
        from llmlab.data.hf_tokenizer import load_tokenizer

        folder, gguf_file = self._settings()
        return load_tokenizer(folder, self.name, gguf_file)

    def context(self) -> int:
        return context_length(self.config().get_text_config())


class Folder(Files):
    """A Hugging Face folder."""

    def __init__(self, reference: ModelFolder | HubModel) -> None:
        self.reference: Reference = reference
        self.name = reference.name if isinstance(reference, HubModel) else reference.path.name

    def folder(self) -> Path:
        """Where its weights are. LabError when they are not on this machine."""
        return Path(str(self.reference))

    def fetched(self, progress: Progress = quiet) -> Path:
        """The same, downloaded where it has to be."""
        return self.folder()

    def settings_folder(self) -> Path:
        """Where its settings and tokenizer are, downloaded where they have to be; weights may be missing."""
        return self.folder()

    def settings_here(self) -> Path | None:
        """Where its settings are, if they are on this machine; weights and tokenizer may be missing."""
        return self.folder()

    def open(self, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
        from llmlab.models.huggingface import open_folder

        return open_folder(self.folder(), str(self), progress, with_bytes=with_bytes)

    def weight_files(self) -> list[Path]:
        return weight_files(self.folder(), self.name)

    def fingerprint(self) -> object:
        return _stamps(self.folder())

    def _settings(self) -> tuple[Path, str | None]:
        return self.settings_folder(), None

    def shape(self) -> BaseShape:
        folder = self.settings_here()
        if folder is None:
            why = "Its size is known once its settings were downloaded."
            raise LabError(f"{self.name} is not on this machine yet.", why)
        return shape_of_folder(folder, self.name)

    def families(self) -> set[str]:
        folder = self.settings_here()
        config = (read_json(folder / CONFIG_FILE) if folder else None) or {}
        parts = (config, config.get("text_config"))
        return {str(part.get("model_type")) for part in parts if isinstance(part, dict)}

    def has_digest(self, wanted: str) -> bool:
        """Also where the folder was exported by the lab from the model that has that digest."""
        digest = self.digest()
        note = read_json(self.folder() / EXPORT_FILE) or {}
        return digest == wanted or (note.get("source_sha256") == wanted and note.get("weights_sha256") == digest)


class Hub(Folder):
    """A model of the Hugging Face hub, in its cache or not yet."""

    def folder(self) -> Path:
        folder = cached_models().get(self.name)
        if folder is None:
            raise LabError(f"{self.name} is not on this machine.", "", "Open it once: that downloads it.")
        return folder

    def fetched(self, progress: Progress = quiet) -> Path:
        from llmlab.models.hub import hub_snapshot

        return hub_snapshot(self.name, progress)

    def settings_folder(self) -> Path:
        from llmlab.models.hub import hub_settings

        return hub_settings(self.name)

    def settings_here(self) -> Path | None:
        return cached_settings(self.name)

    def open(self, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
        """One that is not of the newest revision known here says so in its name."""
        from llmlab.models.huggingface import open_folder

        folder = self.fetched(progress)
        revision = other_revision(folder)
        name = f"{self.name} (revision {revision})" if revision else self.name
        return open_folder(folder, self.name, progress, name=name, with_bytes=with_bytes)

    def fingerprint(self) -> object:
        return str(self)


class Gguf(Files):
    """A GGUF file."""

    def __init__(self, reference: GgufFile) -> None:
        self.reference: GgufFile = reference
        self.path, self.name = reference.path, reference.path.stem

    def open(self, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
        from llmlab.models.huggingface import open_gguf

        return open_gguf(self.path, progress, with_bytes=with_bytes)

    def weight_files(self) -> list[Path]:
        return [self.path]

    def weights(self) -> Weights:
        return GgufWeights(self.path)

    def fingerprint(self) -> object:
        return _stamps(self.path.parent, self.path.name)

    def _settings(self) -> tuple[Path, str | None]:
        return self.path.parent, self.path.name

    def shape(self) -> BaseShape:
        return shape_of_gguf(self.path)

    def families(self) -> set[str]:
        return {str(read_gguf_header(self.path, self.name).values.get("general.architecture"))}


class Adapted(Source):
    """An adapter on a base."""

    def __init__(self, reference: AdaptedModel) -> None:
        self.reference: AdaptedModel = reference
        self.adapter = reference.adapter

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
        return self.base.fingerprint(), _stamps(self.adapter)


def _stamps(folder: Path, name: str | None = None) -> object:
    """Names, sizes and times of the files that a model is made of. LabError when they are gone."""

    def found() -> Iterator[tuple[str, int, int]]:
        for path in sorted(folder.iterdir()):
            if path.is_file() and (path.suffix in (".safetensors", ".json") if name is None else path.name == name):
                about = path.stat()
                yield path.name, about.st_size, about.st_mtime_ns

    try:
        return str(folder), tuple(found())
    except OSError as error:
        raise LabError(f"{folder} cannot be read.", f"{error}.", "Was it moved or deleted?") from error
