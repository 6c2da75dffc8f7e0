"""Loss on held-out text that fine-tuning has nothing to do with: what a model still knows of what it knew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from llmlab.anatomy.modules import base_model
from llmlab.core.errors import LabError
from llmlab.core.settings import PretrainSettings
from llmlab.data.corpora import find_corpus
from llmlab.data.dataset import load_dataset
from llmlab.data.windows import fixed_windows, gather
from llmlab.gpt.model import GPT
from llmlab.models.model import OpenModel
from llmlab.models.open import open_model
from llmlab.models.reference import SavedRun, parse

DEFAULT_TEXT = "austen"  # embedded, and no instruction data
WINDOWS = 48  # with 128 tokens each about 6,000 predictions: the same ones every time, so their noise cancels
_LENGTH = 128
_BATCH = 8
_HELD_OUT = 0.1  # share of a text, at its end, that is read
_MOST_CHARACTERS = 400_000  # of that: more than the windows can hold


@dataclass(frozen=True)
class GeneralText:
    """Windows of a text as a base's tokens. x, y: int64 [window, T]; y is x one token later."""

    name: str
    x: np.ndarray
    y: np.ndarray

    @property
    def tokens(self) -> int:
        """Predictions that one measurement makes."""
        return int(self.y.size)


def general_text(base: str, name: str, outputs: Path) -> GeneralText:
    """The text on which forgetting is measured.

    name: a corpus; "" means the held-out part of what the base was pretrained on, where the lab knows it, else
    DEFAULT_TEXT. LabError where the text is not here, or the base's vocabulary cannot say it.
    """
    reference = parse(base, outputs)
    if not name and isinstance(reference, SavedRun):
        settings = reference.run.info().settings
        if isinstance(settings, PretrainSettings):
            data = load_dataset(settings.data, settings.model.block_size, lambda what, share: None, lambda: False)
            starts = fixed_windows(data.val, settings.model.block_size, WINDOWS)
            title = f"held-out part of {find_corpus(settings.data.corpus).title}"
            return GeneralText(title, *gather(data.val, starts, settings.model.block_size))
    return _of_corpus(open_model(reference, outputs), name or DEFAULT_TEXT)


def _of_corpus(opened: OpenModel, name: str) -> GeneralText:
    corpus = find_corpus(name)
    text = "".join(piece.text for piece in corpus.pieces())
    text = text[-min(_MOST_CHARACTERS, max(1, round(len(text) * _HELD_OUT))) :]
    tokens = np.array(opened.tokenizer.encode(text), dtype=np.int64)
    length = min(_LENGTH, _context(opened))
    if len(tokens) < length + 1:
        raise LabError(
            f"{corpus.title} is too short to measure forgetting on.",
            f"Its end has {len(tokens)} tokens, and a window takes {length + 1}.",
            "Name a longer text: --general CORPUS.",
        )
    return GeneralText(corpus.title, *gather(tokens, fixed_windows(tokens, length, WINDOWS), length))


def _context(opened: OpenModel) -> int:
    if isinstance(opened.model, GPT):
        return opened.model.settings.block_size
    return int(getattr(getattr(opened.model, "config", None), "max_position_embeddings", 0) or _LENGTH)


@torch.no_grad()
def general_loss(model: torch.nn.Module, text: GeneralText) -> float:
    """Mean loss in nats a token; the model in eval mode, on the CPU."""
    total = 0.0
    for first in range(0, len(text.x), _BATCH):
        x = torch.from_numpy(text.x[first : first + _BATCH])  # [B, T]
        y = torch.from_numpy(text.y[first : first + _BATCH])
        if isinstance(model, GPT):
            total += float(model.loss(x, y)) * y.numel()
        else:
            logits = base_model(model)(input_ids=x).logits.float()  # [B, T, V]
            total += float(F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum"))
    return total / text.tokens
