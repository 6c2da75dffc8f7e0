"""How many tokens a model can read at once, known without its weights."""

from __future__ import annotations

from typing import Any

from llmlab.anatomy.families import context
from llmlab.core.settings import PretrainSettings
from llmlab.core.task_settings import TaskSettings
from llmlab.models.hub import hub_settings
from llmlab.models.huggingface import read_config
from llmlab.models.reference import (
    AdaptedModel,
    GgufFile,
    HubModel,
    LiveRun,
    ModelFolder,
    Reference,
    SavedRun,
    is_fine_tuned,
    is_task,
)
from llmlab.models.scratch import described_model
from llmlab.models.tuned import base_of
from llmlab.store.checkpoints import select


def context_of(reference: Reference) -> int:
    """Tokens, as training cuts them. LabError when its settings are missing or damaged."""
    match reference:
        case SavedRun(run) | LiveRun(run) if is_fine_tuned(run):
            return context_of(base_of(run))
        case SavedRun(run) | LiveRun(run) if is_task(run):
            return run.info().settings_as(TaskSettings).time
        case SavedRun(run, _, which):
            return described_model(run, select(run.checkpoints, which))[0].block_size
        case LiveRun(run):
            return run.info().settings_as(PretrainSettings).model.block_size
        case AdaptedModel(base):
            return context_of(base)
        case ModelFolder(path):
            return _context(read_config(path, path.name))
        case HubModel(name):
            return _context(read_config(hub_settings(name), name))
        case GgufFile(path):
            return _context(read_config(path.parent, path.stem, path.name))


def _context(config: Any) -> int:
    return context(config.get_text_config())
