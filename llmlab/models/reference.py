"""How models are named, everywhere in the lab: by one line of text that can be read and written again.

    ID, ID@best, ID@final, ID@latest, ID@150    a checkpoint of a run, by its id, by TRACK/ID where two tracks have
                                                that id, or by its folder; of a run that fine-tunes, its base with
                                                what it learned
    ID@live                                     a run that trains right now
    FOLDER                                      a Hugging Face folder
    PUBLISHER/NAME                              a model of the Hugging Face hub
    FILE.gguf, or a folder with one             a GGUF file
    BASE+ADAPTER                                an adapter on any of these but a live run: a PEFT adapter's folder, or
                                                ID@WHICH of a run that fine-tunes
    NAME                                        a model of $LLMLAB_MODELS or of an installed package

What is on this machine comes first: a name is taken for one on the hub only when nothing here bears it.
No torch is needed here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from llmlab.core.errors import LabError, UsageError, did_you_mean
from llmlab.core.files import kind_of_no_file, read_json
from llmlab.models.available import (
    ADAPTER_FILE,
    CONFIG_FILE,
    GGUF_SUFFIX,
    cached_models,
    folder_name,
    ggufs_in,
    located,
    named_models,
)
from llmlab.store.checkpoints import select
from llmlab.store.registry import list_runs, runs_called
from llmlab.store.run_folder import RunFolder

LIVE = "live"
LATEST = "latest"
_WORDS = ("final", "best", LATEST, LIVE)
# huggingface_hub, `validate_repo_id`: 1 to 96 letters, digits, -, _ and ., no -- and no .. in it.
_HUB_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class SavedRun:
    """A checkpoint. named: the run's id, TRACK/ID where two tracks have it, or its folder when it is elsewhere.
    which: final, best, latest or a step."""

    run: RunFolder
    named: str
    which: str = LATEST

    def __str__(self) -> str:
        return f"{self.named}@{self.which}"


@dataclass(frozen=True)
class LiveRun:
    """A run that trains, answered by its own worker."""

    run: RunFolder
    named: str

    def __str__(self) -> str:
        return f"{self.named}@{LIVE}"


@dataclass(frozen=True)
class ModelFolder:
    """A Hugging Face folder."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class HubModel:
    """A model of the Hugging Face hub, in its cache or not yet."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


Base: TypeAlias = "SavedRun | ModelFolder | HubModel | GgufFile"


@dataclass(frozen=True)
class AdaptedModel:
    """A PEFT adapter's folder (or a checkpoint of a run that fine-tunes, which is one) on its base."""

    base: Base
    adapter: Path

    def __str__(self) -> str:
        return f"{self.base}+{self.adapter}"


Reference: TypeAlias = "SavedRun | LiveRun | ModelFolder | HubModel | GgufFile | AdaptedModel"


def parse(text: str, outputs: Path) -> Reference:
    """What `text` names; `parse(str(reference))` is `reference` again.

    UsageError when nothing here bears that name (with the nearest names), or when several things do.
    """
    if not text.strip():
        raise UsageError("No model was named.", "", "`llmlab-run models` lists what can be opened.")
    found = list(dict.fromkeys(_Search(outputs).all_of(text)))
    if len(found) == 1:
        return found[0]
    if found:
        raise AmbiguousName(
            f"{_shown(text)} can mean {len(found)} things.",
            f"{'; '.join(_described(reference) for reference in found)}.",
            "Write the whole path, or the full name, of the one you mean.",
        )
    if _HUB_NAME.fullmatch(text):
        return HubModel(text)
    raise _missing(text, outputs)


def with_run(reference: Reference, path: Path, to: RunFolder, *, by_track: bool) -> Reference | None:
    """What a reference is once a run is `to`; None where it is none of that run. path: of the run, without links.

    by_track: named by its full name, as before.
    """
    if isinstance(reference, (SavedRun, LiveRun)):
        # A file of that name where this process works would be taken for it.
        name = to.full_name if by_track else to.id
        named = str(to.path) if Path(name).exists() else name
        return replace(reference, run=to, named=named) if reference.run.path.resolve() == path else None
    if not isinstance(reference, AdaptedModel):
        return None
    below, adapter = with_run(reference.base, path, to, by_track=by_track), reference.adapter.resolve()
    inside = adapter.is_relative_to(path)
    if not (isinstance(below, SavedRun) or inside):
        return None
    base = below if isinstance(below, SavedRun) else reference.base
    return AdaptedModel(base, to.path / adapter.relative_to(path) if inside else reference.adapter)


class AmbiguousName(UsageError):
    """Several things bear a name."""


class _Search:
    """Looks for what a text can mean; runs and caches are listed once, and only when asked for."""

    def __init__(self, outputs: Path) -> None:
        self._outputs = outputs.resolve()

    def all_of(self, text: str) -> Iterator[Reference]:
        """Everything here that bears the name; `@` and `+` may belong to a name, so the whole is looked for first."""
        whole = [*self._here(text)]
        yield from whole
        if whole:
            return
        sums = [match.start() for match in re.finditer(r"\+", text)]
        adapted = [found for place in sums for found in self._adapted(text[:place], text[place + 1 :])]
        yield from adapted
        name, at, which = text.rpartition("@")
        if at and name and (_is_which(which) or not adapted):
            yield from self._chosen(name, which)

    def _here(self, text: str) -> Iterator[Reference]:
        path = _existing(text)
        if path is not None:
            yield from self._at(path, text)
        for run in self._runs(text):
            yield SavedRun(run, self._named(run))
        if path is None:
            if text in (named := named_models()):
                yield from self._at(located(named[text]), text)
            elif text in cached_models():
                yield HubModel(text)

    def _at(self, path: Path, text: str) -> Iterator[Reference]:
        """What a file or folder is. UsageError when it is nothing to open, and no run has that name."""
        if not path.is_dir():
            if path.suffix == GGUF_SUFFIX and path.is_file():
                yield GgufFile(path)
            elif not self._runs(text):
                raise _not_a_model(path)
            return
        if (path / "run.json").is_file():
            yield SavedRun(RunFolder(path), self._named(RunFolder(path)))
        elif re.fullmatch(r"step-\d{8,}", path.name) and (path.parent.parent / "run.json").is_file():
            run = RunFolder(path.parent.parent)
            yield SavedRun(run, self._named(run), str(int(path.name.removeprefix("step-"))))
        elif (path / ADAPTER_FILE).is_file():
            yield from self._with_base(path)
        elif (path / CONFIG_FILE).is_file():
            yield ModelFolder(path)
        elif files := ggufs_in(path):
            if len(files) > 1:
                names = ", ".join(file.name for file in files)
                raise UsageError(f"{path} holds {len(files)} GGUF files.", f"They are {names}.", "Name one of them.")
            yield GgufFile(files[0])
        elif not self._runs(text):
            raise _not_a_model(path)

    def _chosen(self, name: str, which: str) -> Iterator[Reference]:
        """`name@which`, where `name` is a run."""
        for run in self._runs_at(name):
            if which == LIVE:
                yield LiveRun(run, self._named(run))
            elif _is_which(which):
                yield SavedRun(run, self._named(run), str(int(which)) if which.isdecimal() else which)
            else:
                nearest = difflib.get_close_matches(which, _WORDS, n=1)
                raise UsageError(
                    f"@{which} names no checkpoint.",
                    "There are @final, @best, @latest, @live and @ with a step.",
                    f"Did you mean {name}@{nearest[0]}?" if nearest else "",
                )

    def _adapted(self, base_text: str, adapter_text: str) -> Iterator[Reference]:
        """`BASE+ADAPTER`, where ADAPTER is an adapter's folder, or a checkpoint of a run that fine-tunes."""
        adapters = list(dict.fromkeys(self._adapters(adapter_text)))
        if not adapters:
            return
        bases = list(dict.fromkeys(self.all_of(base_text)))
        if not bases and _HUB_NAME.fullmatch(base_text):
            bases = [HubModel(base_text)]
        for base in bases:
            if isinstance(base, (LiveRun, AdaptedModel)):
                raise UsageError(
                    f"An adapter cannot sit on {base_text}.",
                    "It takes a model that stays as it is, without another adapter.",
                    f"Name {base.named}@latest, its newest checkpoint."
                    if isinstance(base, LiveRun)
                    else "`llmlab-run export` writes most bases and their adapter as one model; it says of which not.",
                )
            for adapter in adapters:
                yield AdaptedModel(base, adapter)

    def _adapters(self, text: str) -> Iterator[Path]:
        """Folders of adapters with that name. UsageError for a run that has none."""
        path = _existing(text) or named_models().get(text)
        if path is not None and (path / ADAPTER_FILE).is_file():
            yield path.resolve()
            return
        name, at, which = text.rpartition("@")
        named = [(text, LATEST), (name, which)] if at and name and _is_which(which) else [(text, LATEST)]
        for run_text, chosen in named:
            for run in self._runs_at(run_text):
                if run.fine_tunes and chosen != LIVE:
                    yield self._adapter_of(run, chosen)

    def _adapter_of(self, run: RunFolder, which: str) -> Path:
        try:
            folder = select(run.checkpoints, which).path
        except LabError as error:
            raise UsageError(error.what, error.why, error.do) from error
        if not (folder / ADAPTER_FILE).is_file():
            raise UsageError(
                f"{run.id} has no adapter.",
                "It changes all weights of its base.",
                f"Open it by itself: {self._named(run)}@{which}",
            )
        return folder

    def _with_base(self, adapter: Path) -> Iterator[Reference]:
        """An adapter named alone sits on the base that its own settings name."""
        base_text = (read_json(adapter / ADAPTER_FILE) or {}).get("base_model_name_or_path")
        if isinstance(base_text, str) and base_text and not self._leads_to_adapter(base_text):
            bases = [base for base in self.all_of(base_text) if not isinstance(base, (LiveRun, AdaptedModel))]
            yield from (AdaptedModel(base, adapter) for base in bases)
            if bases:
                return
        if isinstance(base_text, str) and _HUB_NAME.fullmatch(base_text):
            yield AdaptedModel(HubModel(base_text), adapter)
            return
        raise UsageError(
            f"{adapter} is an adapter, which needs its base.",
            f"Its settings name {base_text!r}, which is not here.",
            f"Write BASE+{adapter}.",
        )

    def _leads_to_adapter(self, text: str) -> bool:
        """Whether a text is about an adapter itself: to follow it could lead around in a circle."""
        path = _existing(text) or named_models().get(text)
        if path is not None:
            return (path / ADAPTER_FILE).is_file()
        return "+" in text and not self._runs(text.rpartition("@")[0] or text)

    def _runs(self, name: str) -> list[RunFolder]:
        return runs_called(name, list_runs(self._outputs))

    def _runs_at(self, text: str) -> Iterable[RunFolder]:
        """The run in the folder of that name, and those that are called so."""
        path = _existing(text)
        here = [RunFolder(path)] if path is not None and (path / "run.json").is_file() else []
        return dict.fromkeys([*here, *self._runs(text)])

    def _named(self, run: RunFolder) -> str:
        """A run's id, or its full name, where that names it and nothing else; else its folder."""
        if run.outputs != self._outputs:
            return str(run.path)
        if len(self._runs(run.id)) == 1:
            return run.id if _existing(run.id) is None else str(run.path)
        return pinned_name(run)


def pinned_name(run: RunFolder) -> str:
    """A name that no run of another track can take later: its full name, or its folder where that names more."""
    taken = run.full_name in cached_models() or _existing(run.full_name) not in (None, run.path)
    return str(run.path) if taken else run.full_name


def without_folders(reference: str) -> str:
    """`words@40` of `/home/me/outputs/pretraining/words@40`: a reference without the folders before a name."""
    return "+".join(folder_name(Path(part)) if Path(part).is_absolute() else part for part in reference.split("+"))


def _is_which(word: str) -> bool:
    return word in _WORDS or (word.isascii() and word.isdecimal())


def _existing(text: str) -> Path | None:
    """The file or folder of that name, absolute."""
    with suppress(OSError, RuntimeError, ValueError):  # no text that a file could be named by
        path = Path(text).expanduser()
        if path.exists():
            return located(path)
    return None


def _described(reference: Reference) -> str:
    match reference:
        case SavedRun():
            return f"a checkpoint of {reference.named}, the run in {reference.run.path}"
        case LiveRun():
            return f"{reference.named} as it trains, the run in {reference.run.path}"
        case ModelFolder() | GgufFile():
            return f"the model {reference.path}"
        case HubModel():
            return f"{reference.name} of the Hugging Face hub"
        case AdaptedModel():
            return f"the adapter {reference.adapter} on {reference.base}"


def _shown(text: str) -> str:
    """A long one keeps its end: a path's last folders tell it from others."""
    return repr(text if len(text) <= 120 else f"{text[:40]}…{text[-80:]}")


def _not_a_model(path: Path) -> LabError:
    if (kind := kind_of_no_file(path)) is not None:
        return UsageError(f"{path} is not a model.", f"It is {kind}, neither a file nor a folder.")
    if path.is_file():
        hint = "Name the folder that it is in." if (path.parent / CONFIG_FILE).is_file() else ""
        return UsageError(f"{path} is not a model.", "A file that can be opened ends in .gguf.", hint)
    return UsageError(
        f"There is no model in {path}.",
        f"It holds neither {CONFIG_FILE} nor run.json, nor a .gguf file.",
        "`llmlab-run models` lists what can be opened.",
    )


def _missing(text: str, outputs: Path) -> LabError:
    names = [*(run.id for run in list_runs(outputs)), *named_models(), *cached_models()]
    wanted = text.rpartition("@")[0] or text
    if "+" in text and _existing(text.rpartition("+")[2]) is None:
        wanted = text.rpartition("+")[2]
    hint = did_you_mean(wanted, names, 3, 0.4) or "`llmlab-run models` lists what can be opened."
    where = f"Looked for a run in {outputs}, a folder, a file, a model of $LLMLAB_MODELS and of the Hugging Face cache."
    return UsageError(f"There is no model {_shown(wanted)}.", where, hint)
