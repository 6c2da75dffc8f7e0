"""What any source of a model can be asked, and the sources that other programs made or read.

`llmlab.models.source` finds the source of a reference; those of the lab's own runs are there.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmlab.anatomy.sizes import context_length
from llmlab.core.errors import LabError, explained
from llmlab.core.files import read_json, sha256_of
from llmlab.core.progress import Progress, quiet
from llmlab.core.settings import ModelSettings
from llmlab.models.available import CONFIG_FILE, cached_models, cached_settings, other_revision
from llmlab.models.base_shape import BaseShape, shape_of_folder, shape_of_gguf
from llmlab.models.gguf_file import GgufWeights, read_gguf_header
from llmlab.models.reference import GgufFile, HubModel, ModelFolder, Reference
from llmlab.models.weights import Weights, read_weights, weight_files

if TYPE_CHECKING:
    from llmlab.data.tokenizers import TextTokenizer
    from llmlab.models.model import OpenModel

# Beside an exported model: which one it is, and the digests of its weights in the lab and in the folder.
EXPORT_FILE = "llmlab_export.json"


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

    @property
    @abstractmethod
    def kind(self) -> str:
        """What it is, as a sentence begins. LabError when it is not there, or damaged."""

    @property
    def is_here(self) -> bool:
        """Whether its weights are on this machine; others are downloaded when it is opened."""
        return self.base is None or self.base.is_here

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
        return self.shape().context if self.base is None else self.base.context()

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
        with explained(f"{self} cannot be read."):
            digests = [sha256_of(path) for path in self.weight_files()]
        return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def has_digest(self, wanted: str) -> bool:
        """Whether it is the model that has that digest."""
        return self.digest() == wanted

    @property
    def _of_base(self) -> Source:
        assert self.base is not None
        return self.base


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

    @property
    def kind(self) -> str:
        return f"Hugging Face folder of a model of the family {' / '.join(sorted(self.families())) or 'unknown'}"

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
        return stamps(self.folder())

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

    kind = "From the Hugging Face Hub"

    @property
    def is_here(self) -> bool:
        return self.name in cached_models()

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

    kind = "GGUF file"

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
        return stamps(self.path.parent, self.path.name)

    def _settings(self) -> tuple[Path, str | None]:
        return self.path.parent, self.path.name

    def shape(self) -> BaseShape:
        return shape_of_gguf(self.path)

    def families(self) -> set[str]:
        return {str(read_gguf_header(self.path, self.name).values.get("general.architecture"))}


def stamps(folder: Path, name: str | None = None) -> object:
    """Names, sizes and times of the files that a model is made of. LabError when they are gone."""

    def found() -> Iterator[tuple[str, int, int]]:
        for path in sorted(folder.iterdir()):
            if path.is_file() and (path.suffix in (".safetensors", ".json") if name is None else path.name == name):
                about = path.stat()
                yield path.name, about.st_size, about.st_mtime_ns

    with explained(f"{folder} cannot be read.", "Was it moved or deleted?"):
        return str(folder), tuple(found())
