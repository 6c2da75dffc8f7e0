"""Asks the learner for a prediction before a run, an experiment or a check starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from PySide6.QtWidgets import QWidget

from llmlab.core.config import differences
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainSettings
from llmlab.gpt.estimate import expected_vocab_size
from llmlab.notebook.predictions import Prediction
from llmlab.notebook.quantities import Quantity, quantities_of_runs
from llmlab.studies.papers.checks import inconclusive_anyway, quantities_of_check
from llmlab.studies.plans.records import ExperimentRecord
from llmlab_gui.forms.field import value_text
from llmlab_gui.lab.book import Anchors, Book, Expected
from llmlab_gui.lab.lab import Lab
from llmlab_gui.lab.run_rows import RunRow
from llmlab_gui.notebook.anchors import anchors_of, verdicts_before

# Nats a token at which fine-tuning begins: a pretrained model is seldom worse on text that people wrote.
_FINE_TUNING_START = 5.0


def ask(
    parent: QWidget,
    book: Book,
    about: str,
    quantities: Sequence[Quantity],
    expected: Expected | None = None,
    *,
    anchors: Anchors | None = None,
    before: Sequence[Prediction] = (),
) -> list[Prediction] | None:
    """What the learner expects of a run or experiment that is about to start; None: it is not to start.

    Empty when nothing was predicted; `before` at once when the question is switched off. about: a few words on what
    starts. quantities: the first is the one that is asked for at first. expected: to draw a curve on. anchors: looks
    up what to go by, in the background. before: what was stated when it was set up first.
    """
    if not book.asks:
        return list(before)
    from llmlab_gui.notebook.prediction_dialog import PredictionDialog  # pyqtgraph: half the time of a first window

    said = before or book.drafts.pop(about, ())
    dialog = PredictionDialog(book, about, quantities, expected, parent, anchors=anchors, before=said)
    dialog.put_aside.connect(partial(book.drafts.__setitem__, about))
    return dialog.ask()


def ask_of_run(
    parent: QWidget,
    lab: Lab,
    settings: RunSettings,
    preset: str = "",
    before: Sequence[Prediction] = (),
    *,
    branched: tuple[RunRow, int] | None = None,
) -> list[Prediction] | None:
    """What the learner expects of a run with these settings; the answers are as those of `ask`. branched: the run that
    it branches from, and after which step."""
    if not lab.notebook.asks:
        return list(before)
    run, step = branched or (None, 0)
    anchors = partial(anchors_of, settings, preset, lab.runs(), lab.outputs, parent=run)
    about, quantities, expected = question_about(settings)
    if run is not None:
        about = (
            f"{about}, of which {settings.train.steps - step:,} remain after the checkpoint{_changes(run, settings)}"
        )
    return ask(parent, lab.notebook, about, quantities, expected, anchors=anchors, before=before)


def _changes(run: RunRow, settings: RunSettings) -> str:
    """What else a branch of a run does otherwise, in words."""
    rows = [row for row in differences(run.info.settings, settings) if row[0].key != "train.steps"]
    changed = [
        f"{info.name.replace('_', ' ')} {value_text(new)} instead of {value_text(old)}" for info, old, new in rows
    ]
    return f"; {', '.join(changed)}" if changed else ""


def ask_of_check(parent: QWidget, lab: Lab, record: ExperimentRecord) -> list[Prediction] | None:
    """What the learner expects of each claim that a check is about to decide; the answers are as those of `ask`."""
    undecided = inconclusive_anyway(record)
    open_claims = [claim for claim in quantities_of_check(record) if claim.label not in undecided]
    if not (lab.notebook.asks and open_claims):
        return []
    from llmlab_gui.notebook.verdicts_dialog import VerdictsDialog

    anchors = partial(verdicts_before, record, lab.outputs)
    return VerdictsDialog(lab.notebook, record.title, open_claims, parent, anchors=anchors).ask()


def question_about(settings: RunSettings) -> tuple[str, list[Quantity], Expected]:
    """What starts, in a few words; what can be predicted of it, the chief quantity first; and what to draw on."""
    start, scratch = _FINE_TUNING_START, isinstance(settings, PretrainSettings)
    if isinstance(settings, PretrainSettings):
        # A model that has learned nothing gives all tokens the same probability.
        start = math.log(expected_vocab_size(settings.data))
    return settings.title, quantities_of_runs(fine_tuned=not scratch), Expected(settings.train.steps, start)
