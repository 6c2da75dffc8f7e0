"""The tokenizer that a reference names, without its model's weights."""

from __future__ import annotations

from llmlab.data.hf_tokenizer import load_tokenizer
from llmlab.data.tokenizers import TextTokenizer
from llmlab.models.hub import hub_settings
from llmlab.models.reference import (
    AdaptedModel,
    GgufFile,
    HubModel,
    LiveRun,
    ModelFolder,
    Reference,
    SavedRun,
    is_fine_tuned,
)
from llmlab.models.scratch import read_tokenizer
from llmlab.models.tuned import base_of


def tokenizer_of(reference: Reference) -> TextTokenizer:
    """What is fine-tuned reads as its base does. LabError when the tokenizer is missing or damaged."""
    match reference:
        case SavedRun(run) | LiveRun(run):
            return tokenizer_of(base_of(run)) if is_fine_tuned(run) else read_tokenizer(run)
        case AdaptedModel(base):
            return tokenizer_of(base)
        case ModelFolder(path):
            return load_tokenizer(path, path.name)
        case HubModel(name):
            return load_tokenizer(hub_settings(name), name)
        case GgufFile(path):
            return load_tokenizer(path.parent, path.stem, path.name)
