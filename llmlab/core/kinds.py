"""The kinds of training, by the names that files have for them. A new one is added here.

The rest of a kind is in two files of its own: its settings beside this one, and, named there, what trains it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.mystery_settings import MysterySettings
from llmlab.core.rebuilt_settings import RebuiltSettings, RetunedSettings
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainSettings
from llmlab.core.task_settings import TaskSettings

KINDS: dict[str, type[RunSettings]] = {
    kind.track: kind
    for kind in (PretrainSettings, FinetuneSettings, TaskSettings, MysterySettings, RebuiltSettings, RetunedSettings)
}
PRETRAINING, FINETUNING, PAPERS = PretrainSettings.track, FinetuneSettings.track, TaskSettings.track
MYSTERIES = MysterySettings.track


def fine_tunes(track: object) -> bool:
    """Whether runs of a track begin from a model that exists."""
    kind = KINDS.get(str(track))
    return kind is not None and issubclass(kind, FinetuneSettings)


def registered(place: str) -> Any:
    """What a kind's settings name as MODULE:NAME: it lies in a layer above them, and is imported when asked for."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
