"""The tokenizer that a reference names, without its model's weights."""

from __future__ import annotations

from llmlab.sessions.hf_tokenizer import load_tokenizer
from llmlab.sessions.hub import hub_settings
from llmlab.sessions.model import TextTokenizer
from llmlab.sessions.reference import (
    AdaptedModel,
    GgufFile,
    HubModel,
    LiveRun,
    ModelFolder,
    Reference,
    SavedRun,
    is_tuned,
)
from llmlab.sessions.scratch import read_tokenizer
from llmlab.sessions.tuned import base_of


def tokenizer_of(reference: Reference) -> TextTokenizer:
    """What is fine-tuned reads as its base does. LabError when the tokenizer is missing or damaged."""
    match reference:
        case SavedRun(run) | LiveRun(run):
            return tokenizer_of(base_of(run)) if is_tuned(run) else read_tokenizer(run)
        case AdaptedModel(base):
            return tokenizer_of(base)
        case ModelFolder(path):
            return load_tokenizer(path, path.name)
        case HubModel(name):
            return load_tokenizer(hub_settings(name), name)
        case GgufFile(path):
            return load_tokenizer(path.parent, path.stem, path.name)
