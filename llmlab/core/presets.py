"""Presets: the settings that a run starts from, by name. Order: preset, then file, then --set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from llmlab.core.config import from_mapping, read_toml
from llmlab.core.errors import unknown
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.paths import resources_dir
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainSettings

S = TypeVar("S", bound=RunSettings)

DEFAULT_PRESET = "baby"
FINETUNE_PRESET = "scratch"  # fine-tuning's default
_FOLDER = resources_dir() / "presets"
_FOLDERS: dict[type[RunSettings], Path] = {PretrainSettings: _FOLDER, FinetuneSettings: _FOLDER / "finetuning"}


@dataclass(frozen=True)
class Preset(Generic[S]):
    """A named starting point, from a file of that name."""

    name: str
    title: str
    description: str
    settings: S
    minutes: float = 0.0  # roughly, of fine-tuning: its base may not be here; pretraining's are estimated


def of_preset(kind: type[S], name: str) -> S:
    """A preset's settings; the defaults of a kind that has no presets. UsageError when there is no such preset."""
    return _load(name, kind).settings if kind in _FOLDERS else kind()


def default_preset(kind: type[RunSettings]) -> str:
    """The name of the preset that a run takes where none was chosen."""
    return FINETUNE_PRESET if kind is FinetuneSettings else DEFAULT_PRESET


def presets_of(kind: type[S]) -> list[Preset[S]]:
    """All presets of a kind: the smallest model first, then the shortest run; to fine-tune, those in minutes first."""
    return sorted((_load(path.stem, kind) for path in _FOLDERS[kind].glob("*.toml")), key=_order)


def preset_names(kind: type[RunSettings] = PretrainSettings) -> list[str]:
    """Their names."""
    return [preset.name for preset in presets_of(kind)]


def _order(preset: Preset[Any]) -> tuple[Any, ...]:
    settings = preset.settings
    if not isinstance(settings, PretrainSettings):
        return preset.minutes, preset.name
    model, steps = settings.model, settings.train.steps
    # Characters come before a 50,257-token vocabulary at equal width.
    return model.n_layer * model.n_embd**2, settings.data.tokenizer != "char", model.n_embd, steps, preset.name


def load_preset(name: str) -> Preset[PretrainSettings]:
    """The pretraining preset of that name; UsageError naming the nearest when there is none."""
    return _load(name, PretrainSettings)


def _load(name: str, kind: type[S]) -> Preset[S]:
    folder = _FOLDERS[kind]
    path = folder / f"{name}.toml"
    if not path.is_file() or path.parent != folder:
        names = sorted(file.stem for file in folder.glob("*.toml"))
        raise unknown("preset", name, names)
    values = read_toml(path)
    about = values.pop("preset")
    settings, minutes = from_mapping(kind, values), float(about.get("minutes", 0.0))
    return Preset(name, about["title"], about["description"], settings, minutes)
