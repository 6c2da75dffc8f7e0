"""What the learner is asked before a run, from its settings."""

from __future__ import annotations

import math

from llmlab.core.settings import PretrainSettings
from llmlab.gpt.estimate import expected_vocab_size
from llmlab.notebook.notebook import title_of
from llmlab.notebook.quantities import Quantity, quantities_of_runs
from llmlab.store.run_folder import RunSettings
from llmlab_gui.notebook.book import Expected

# Nats a token at which fine-tuning begins: a pretrained model is seldom worse on text that people wrote.
_FINE_TUNING_START = 5.0


def question_about(settings: RunSettings) -> tuple[str, list[Quantity], Expected]:
    """What starts, in a few words; what can be predicted of it, the chief quantity first; and what to draw on."""
    start, scratch = _FINE_TUNING_START, isinstance(settings, PretrainSettings)
    if isinstance(settings, PretrainSettings):
        # A model that has learned nothing gives all tokens the same probability.
        start = math.log(expected_vocab_size(settings.data))
    return title_of(settings), quantities_of_runs(fine_tuned=not scratch), Expected(settings.train.steps, start)
