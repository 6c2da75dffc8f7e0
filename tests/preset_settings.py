"""Settings as a command line or a link makes them: a preset's, with some of them changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmlab.core import finetuning_settings
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.settings import DEFAULT_PRESET, PretrainSettings, with_overrides


def resolve_settings(
    preset: str = DEFAULT_PRESET, file: Path | None = None, overrides: Mapping[str, Any] | Sequence[str] = ()
) -> PretrainSettings:
    return with_overrides(PretrainSettings.of_preset(preset), file, overrides)


def resolve_finetune_settings(
    preset: str = finetuning_settings.DEFAULT_PRESET,
    file: Path | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
) -> FinetuneSettings:
    return with_overrides(FinetuneSettings.of_preset(preset), file, overrides)
