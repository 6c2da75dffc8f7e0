"""Asks the learner for a prediction before a run, an experiment or a check starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PySide6.QtWidgets import QWidget

from llmlab.core.settings import PretrainSettings, RunSettings
from llmlab.gpt.estimate import expected_vocab_size
from llmlab.notebook.predictions import Prediction
from llmlab.notebook.quantities import Quantity, quantities_of_runs
from llmlab.store.run_log import first_started
from llmlab.studies.papers.checks import quantities_of_check
from llmlab.studies.records import ExperimentRecord
from llmlab_gui.lab.book import Book

if TYPE_CHECKING:
    from llmlab_gui.lab.lab import Lab
    from llmlab_gui.lab.runs_poller import RunRow

# Nats a token at which fine-tuning begins: a pretrained model is seldom worse on text that people wrote.
_FINE_TUNING_START = 5.0
_LONGEST_NAME = 40  # characters; more has no place in a sentence


@dataclass(frozen=True)
class Expected:
    """What a chart to draw on has to show. steps: of the run; start_loss: nats per token, where it begins."""

    steps: int
    start_loss: float


def ask(
    parent: QWidget,
    book: Book,
    about: str,
    quantities: Sequence[Quantity],
    expected: Expected | None = None,
    *,
    anchors: str = "",
    before: Sequence[Prediction] = (),
) -> list[Prediction] | None:
    """What the learner expects of a run or experiment that is about to start; None: it is not to start.

    Empty when nothing was predicted; `before` at once when the question is switched off. about: a few words on what
    starts. quantities: the first is the one that is asked for at first. expected: to draw a curve on. anchors: losses
    to go by. before: what was stated when it was set up first.
    """
    if not book.asks:
        return list(before)
    from llmlab_gui.notebook.prediction_dialog import PredictionDialog  # pyqtgraph: half the time of a first window

    dialog = PredictionDialog(book, about, quantities, expected, parent, anchors=anchors, before=before)
    return dialog.ask()


def ask_of_run(
    parent: QWidget, lab: Lab, settings: RunSettings, preset: str = "", before: Sequence[Prediction] = ()
) -> list[Prediction] | None:
    """What the learner expects of a run with these settings; the answers are as those of `ask`."""
    if not lab.notebook.asks:
        return list(before)
    anchors = anchors_of(settings, preset, lab.runs())
    return ask(parent, lab.notebook, *question_about(settings), anchors=anchors, before=before)


def anchors_of(settings: RunSettings, preset: str, runs: Sequence[RunRow]) -> str:
    """Losses that a prediction can go by, as far as they are known without long work.

    runs: newest first. One that read the same tokens knows its vocabulary and what their frequencies alone give.
    """
    parts = []
    if isinstance(settings, PretrainSettings):
        found = (first_started(row.run) for row in runs if _same_tokens(row.info.settings, settings))
        known = next((began for began in found if began is not None and began.reached_training), None)
        vocabulary = known.vocab_size if known is not None else None
        about = "" if vocabulary or settings.data.tokenizer in ("gpt2", "bpe") else "about "
        size = vocabulary or expected_vocab_size(settings.data)
        parts.append(f"uniform guess {about}{math.log(size):.2f} (ln {size:,})")
        if known is not None and known.unigram_loss is not None:
            parts.append(f"token frequencies alone (unigram) {known.unigram_loss:.2f}")
    if last := _last_such(settings, preset, runs):
        steps = f"after {last.status.step:,} steps"
        name = last.name if len(last.name) <= _LONGEST_NAME else f"{last.name[: _LONGEST_NAME - 1]}…"
        parts.append(f"last such run, {name}: {last.status.val_loss:.2f} {steps}")
    return f"Validation loss to go by: {' · '.join(parts)}." if parts else ""


def ask_of_check(parent: QWidget, book: Book, record: ExperimentRecord) -> list[Prediction] | None:
    """What the learner expects of each claim that a check is about to test; the answers are as those of `ask`."""
    if not book.asks:
        return []
    from llmlab_gui.notebook.verdicts_dialog import VerdictsDialog

    return VerdictsDialog(book, record.title, quantities_of_check(record), parent).ask()


def question_about(settings: RunSettings) -> tuple[str, list[Quantity], Expected]:
    """What starts, in a few words; what can be predicted of it, the chief quantity first; and what to draw on."""
    start, scratch = _FINE_TUNING_START, isinstance(settings, PretrainSettings)
    if isinstance(settings, PretrainSettings):
        # A model that has learned nothing gives all tokens the same probability.
        start = math.log(expected_vocab_size(settings.data))
    return settings.title, quantities_of_runs(fine_tuned=not scratch), Expected(settings.train.steps, start)


def _same_tokens(settings: RunSettings, wanted: PretrainSettings) -> bool:
    """Whether both read the same tokens, in whatever batches."""
    if not isinstance(settings, PretrainSettings):
        return False
    batches = {name: getattr(wanted.data, name) for name in ("batch_size", "order", "stride")}
    return replace(settings.data, **batches) == wanted.data


def _last_such(settings: RunSettings, preset: str, runs: Sequence[RunRow]) -> RunRow | None:
    """The newest ended run on the same tokens, or from the same base on the same examples: losses in other tokens
    cannot be compared. Of the same preset, where there is one."""

    def alike(other: RunSettings) -> bool:
        if isinstance(settings, PretrainSettings):
            return _same_tokens(other, settings)
        return (other.track, other.reads, other.base) == (settings.track, settings.reads, settings.base)

    ended = (row for row in runs if row.status.val_loss is not None and not row.status.live)
    such = [row for row in ended if alike(row.info.settings)]
    return next((row for row in such if row.info.preset == preset), such[0] if such else None)
