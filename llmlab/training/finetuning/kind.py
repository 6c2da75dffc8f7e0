"""Fine-tuning before its steps (`llmlab.training.finetuning.loop` takes them). No torch until it is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llmlab.core.config import with_values
from llmlab.core.errors import UsageError
from llmlab.core.finetuning_settings import FULL, LORA, QLORA, FinetuneSettings
from llmlab.core.paths import expanded
from llmlab.core.setting_info import SettingInfo
from llmlab.data.hf_tokenizer import has_tokenizer, no_tokenizer
from llmlab.gpt.estimate import Memory
from llmlab.models.reference import AdaptedModel, ModelFolder, SavedRun, parse, pinned_name
from llmlab.models.weights import weight_shapes
from llmlab.store.checkpoints import select
from llmlab.training.finetuning.estimate import estimate_finetuning
from llmlab.training.kinds import Levers, TrainingKind, smaller_batch

if TYPE_CHECKING:
    from llmlab.training.finetuning.loop import Finetuner
    from llmlab.training.workplace import Workplace

# A row that has hardly any activations: how long the examples are is known once they are read.
_FEW_TOKENS = 16
# What decides the shapes and the meaning of a run's weights.
_ADAPTER = ("model.base", "model.method", "lora.rank", "lora.alpha", "lora.targets")


def _shorter_rows(settings: FinetuneSettings) -> dict[str, Any] | None:
    return {"data.max_length": settings.data.max_length // 2} if settings.data.max_length >= 32 else None


def _recomputed(settings: FinetuneSettings) -> dict[str, Any] | None:
    if settings.train.activation_checkpointing or settings.model.backend == "unsloth":  # which always does
        return None
    return {"train.activation_checkpointing": True}


def _fewer_that_learn(settings: FinetuneSettings) -> dict[str, Any] | None:
    less = {FULL: LORA, LORA: QLORA}.get(settings.model.method)
    return None if less is None else {"model.method": less}


class Finetuning(TrainingKind[FinetuneSettings]):
    """A model that exists learns from examples."""

    levers: ClassVar[Levers] = {
        "activations": (smaller_batch, _recomputed, _shorter_rows),
        "vocabulary": (smaller_batch, _shorter_rows),
        "learning": (_fewer_that_learn,),
    }

    def pinned(self, settings: FinetuneSettings, outputs: Path) -> FinetuneSettings:
        """A base that goes on learning has other weights tomorrow: it is named by its step.

        UsageError when no base is named, or none bears its name; LabError when it lacks weights or a tokenizer.
        """
        if not settings.model.base:
            raise UsageError("No model was named.", "Fine-tuning begins from one.", "`llmlab-run models` lists them.")
        base = parse(settings.model.base, outputs)
        if isinstance(base, ModelFolder):
            _require_whole(base.path)
        if isinstance(base, SavedRun):
            base = _fixed(base)
        if isinstance(base, AdaptedModel) and isinstance(base.base, SavedRun):
            base = replace(base, base=_fixed(base.base))
        path = expanded(settings.data.source)
        source = str(path.resolve()) if path.is_file() else settings.data.source
        return with_values(settings, {"model.base": str(base), "data.source": source})

    def fits(self, changed: SettingInfo, settings: FinetuneSettings) -> bool:
        return changed.key not in _ADAPTER

    def seconds(self, settings: FinetuneSettings, outputs: Path) -> float:
        return estimate_finetuning(settings, outputs).seconds

    def memory(self, settings: FinetuneSettings, outputs: Path, *, read: bool = False) -> Memory:
        """read: rows are full, for all that is known; not read: they may be short."""
        return estimate_finetuning(settings, outputs, row_tokens=0 if read else _FEW_TOKENS).memory

    def make(self, place: Workplace, settings: FinetuneSettings) -> Finetuner:
        from llmlab.training.finetuning.loop import Finetuner

        return Finetuner(place, settings)


def _fixed(saved: SavedRun) -> SavedRun:
    """The same checkpoint by its step, of a run by a name that stays its own."""
    named = pinned_name(saved.run) if saved.named == saved.run.id else saved.named
    return replace(saved, named=named, which=str(select(saved.run.checkpoints, saved.which).step))


def _require_whole(folder: Path) -> None:
    weight_shapes(folder, folder.name)
    if not has_tokenizer(folder):
        raise no_tokenizer(folder.name)
