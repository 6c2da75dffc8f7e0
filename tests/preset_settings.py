"""Settings as a command line or a link makes them: a preset's, with some of them changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmlab.core.config import with_overrides
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.presets import DEFAULT_PRESET, FINETUNE_PRESET, of_preset
from llmlab.core.settings import PretrainSettings


def resolve_settings(
    preset: str = DEFAULT_PRESET, file: Path | None = None, overrides: Mapping[str, Any] | Sequence[str] = ()
) -> PretrainSettings:
    return with_overrides(of_preset(PretrainSettings, preset), file, overrides)


def resolve_finetune_settings(
    preset: str = FINETUNE_PRESET, file: Path | None = None, overrides: Mapping[str, Any] | Sequence[str] = ()
) -> FinetuneSettings:
    return with_overrides(of_preset(FinetuneSettings, preset), file, overrides)
