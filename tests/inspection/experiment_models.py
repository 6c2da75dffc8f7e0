"""Small open models that read characters, for the tests of interventions, sweeps and comparisons."""

from __future__ import annotations

import string
from typing import Any

import torch
from small_models import lively, shape

from llmlab.data.tokenizers import CharTokenizer
from llmlab.models.model import OpenModel

CHARACTERS = string.ascii_lowercase + " .,!?"  # 31 of them: the vocabulary of small_models


class CharReader(CharTokenizer):
    """The lab's own tokenizer of characters, for models that know no beginning of a text."""

    beginning = None


def opened(seed: int = 0, *, double: bool = True, name: str = "model", **changes: Any) -> OpenModel:
    """A lively GPT; in float64, so that what should be equal is equal to many digits."""
    model = lively(shape(**changes), seed=seed)
    return OpenModel(name, name, "scratch", model.double() if double else model, CharReader(CHARACTERS))


def weights(model: OpenModel) -> dict[str, torch.Tensor]:
    """A copy of all weights."""
    return {name: weight.clone() for name, weight in model.model.state_dict().items()}


def hooks_of(model: OpenModel) -> int:
    """How many hooks hang on the model's modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.model.modules())
