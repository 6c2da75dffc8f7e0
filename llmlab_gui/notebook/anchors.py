"""What a prediction can go by: what guessing costs, or the base as it is, and what came of the last such run,
experiment or check.

It may take a moment, so the questions before a start look it up in the background. No Qt here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.progress import Progress
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainSettings
from llmlab.data.dataset import KnownLosses, known_losses
from llmlab.data.papers import VERDICTS
from llmlab.gpt.estimate import expected_vocab_size, follows_from_text
from llmlab.models.source import base_named
from llmlab.store.events import BITS, Evaluated
from llmlab.store.run_log import first_events, first_started
from llmlab.studies.experiments.outcomes import read_results
from llmlab.studies.papers.checks import options_of
from llmlab.studies.papers.records import read_result
from llmlab.studies.plans.records import CheckFolder, ExperimentFolder, ExperimentRecord, list_plans, settings_of
from llmlab.training.kinds import kind_of
from llmlab_gui.lab.run_rows import RunRow

F = TypeVar("F", bound=ExperimentFolder)
_LONGEST_NAME = 40  # characters; more has no place in a sentence


def anchors_of(
    settings: RunSettings,
    preset: str,
    runs: Sequence[RunRow],
    outputs: Path,
    progress: Progress,
    *,
    parent: RunRow | None = None,
) -> str:
    """Of a run with these settings. runs: newest first. parent: that it branches from. Raises Cancelled."""
    with contextlib.suppress(LabError):  # a name that leads nowhere, which the run will say
        settings = kind_of(settings).pinned(settings, outputs)  # as those of runs are: base@latest is base@300 there
    compared = _last_run(settings, preset, runs) if parent is None else _last_run(settings, preset, [parent], "parent")
    return _sentence([*_guesses(settings, runs, outputs, progress), *compared])


def anchors_of_plan(record: ExperimentRecord, runs: Sequence[RunRow], outputs: Path, progress: Progress) -> str:
    """What the last such experiment found, or run came to; then losses, of the settings that its trials share.

    Raises Cancelled; UsageError for settings that are none.
    """
    settings = settings_of(record)
    last = _last_experiment(record, settings, outputs, progress)
    if last is None:  # what one of its runs may come to
        last = _last_run(settings, record.preset, runs, rated=True)
    found = [f"{part[0].upper()}{part[1:]}." for part in last]
    return " ".join([*found, _sentence(_guesses(settings, runs, outputs, progress))]).strip()


def verdicts_before(record: ExperimentRecord, outputs: Path, progress: Progress) -> str:
    """What the last check of the paper found of the claims that this one tests. Raises Cancelled."""
    asked = options_of(record)
    for folder in _looked_through(list_plans(outputs, CheckFolder), progress):
        with contextlib.suppress(LabError):
            known = options_of(folder.record())
            verdicts = {one.claim: one.verdict for one in read_result(folder.results_json).verdicts}
            found = {said: [claim for claim in asked.claims if verdicts.get(claim) == said] for said in VERDICTS}
            if known.paper == asked.paper and any(found.values()):
                each = "; ".join(f"{said}: {', '.join(claims)}" for said, claims in found.items() if claims)
                return f"The last check of this paper, {_short(folder.id)} ({known.size}), found {each}."
    return ""


def _sentence(parts: Sequence[str]) -> str:
    return f"Validation losses to compare with: {' · '.join(parts)}." if parts else ""


def _guesses(settings: RunSettings, runs: Sequence[RunRow], outputs: Path, progress: Progress) -> list[str]:
    """What knowing nothing costs, and knowing only how frequent tokens are; or what the base of a fine-tuning costs,
    which is far beyond both.

    A run that read the same tokens knows them; else the cache that earlier ones left, as far as it goes.
    """
    if isinstance(settings, FinetuneSettings):
        # A base that is not here or damaged, or says nothing of itself before it is opened.
        with contextlib.suppress(LabError, OSError, ValueError):
            shape = base_named(settings.model.base, outputs).shape()
            about = "about " if shape.own else ""  # whose rows may be more than its tokens
            uniform = f"uniform guess {about}{math.log(shape.vocab_size):.2f} (ln {shape.vocab_size:,})"
            return [f"the base before the first step{_of_base(settings, runs)}", uniform]
    if not isinstance(settings, PretrainSettings):
        return []
    began = (first_started(row.run) for row in runs if _same_tokens(row.info.settings, settings))
    run = next((one for one in began if one is not None and one.reached_training), None)
    known = KnownLosses(run.vocab_size, run.unigram_loss) if run is not None else KnownLosses()
    if None in (known.vocab_size, known.unigram_loss):
        with contextlib.suppress(LabError, OSError):  # a text that is not here, which the run will say
            known = known_losses(settings.data, progress)
    size = known.vocab_size or expected_vocab_size(settings.data)
    uniform = f"{math.log(size):.2f} (ln {size:,})"
    if not known.vocab_size and follows_from_text(settings.data):
        uniform = f"about {math.log(size):.1f} (of about {size:,} tokens)"
    frequent = ": known after the first run" if known.unigram_loss is None else f" {known.unigram_loss:.2f}"
    return [f"uniform guess {uniform}", f"token frequencies alone (unigram){frequent}"]


def _of_base(settings: FinetuneSettings, runs: Sequence[RunRow]) -> str:
    """The loss at which such a run begins, as one that measured it on the same examples tells."""
    batches = {name: getattr(settings.data, name) for name in ("batch_size", "packing", "scored")}
    for row in runs:
        other = row.info.settings
        if (
            isinstance(other, FinetuneSettings)
            and other.base == settings.base
            and replace(other.data, **batches) == settings.data
        ):
            for event in first_events(row.run):
                if isinstance(event, Evaluated) and event.step == 0:
                    return f" {event.val_loss:.2f}"
    return ": known after the first such run"


def _last_run(
    settings: RunSettings, preset: str, runs: Sequence[RunRow], what: str = "last such run", *, rated: bool = False
) -> list[str]:
    """The newest ended run with a step that `_alike` takes: of the same model, where there is one, and of the same
    preset. Of another model it is said what that is. what: in words. rated: with its learning rate."""
    ended = (row for row in runs if row.status.step and row.status.val_loss is not None and not row.status.live)
    such = [row for row in ended if _alike(row.info.settings, settings)]
    such.sort(key=lambda row: (row.info.settings.model != settings.model, row.info.preset != preset))
    if not such:
        return []
    last = such[0]
    of, about = last.info.settings, _short(last.name)
    if of.model != settings.model:
        what, about = "last run on the same data", f"{about} ({of.words.makes})"
    rate = f"learning rate {of.train.learning_rate:g}, validation loss " if rated else ""
    return [f"{what}, {about}: {rate}{last.status.val_loss:.2f} after {last.status.step:,} steps"]


def _last_experiment(
    record: ExperimentRecord, settings: RunSettings, outputs: Path, progress: Progress
) -> list[str] | None:
    """The newest experiment of the kind on the same tokens of which a lowest loss is known."""
    for folder in _looked_through(list_plans(outputs, ExperimentFolder), progress):
        with contextlib.suppress(LabError):
            other = folder.record()
            if other.kind == record.kind and _alike(settings_of(other), settings):
                findings = results.findings if (results := read_results(folder)) is not None else []
                losses = (found.value for found in findings if found.name == "best_loss" and found.unit != BITS)
                lowest = next(losses, None)
                value = next((found.text for found in findings if found.name == "best"), "")
                if lowest is not None:
                    of = f"{value} had the " if value else ""
                    return [f"last such experiment, {_short(folder.id)}: {of}lowest validation loss, {lowest:.2f}"]
    return None


def _looked_through(folders: Iterable[F], progress: Progress) -> Iterator[F]:
    for number, folder in enumerate(folders):
        progress("Looking for the last one", number, 0)
        yield folder


def _alike(other: RunSettings, settings: RunSettings) -> bool:
    """Whether losses compare: on the same tokens, or from the same base on the same examples."""
    if isinstance(settings, PretrainSettings):
        return _same_tokens(other, settings)
    return (other.track, other.reads, other.base) == (settings.track, settings.reads, settings.base)


def _same_tokens(settings: RunSettings, wanted: PretrainSettings) -> bool:
    """Whether both read the same tokens, in whatever batches."""
    if not isinstance(settings, PretrainSettings):
        return False
    batches = {name: getattr(wanted.data, name) for name in ("batch_size", "order", "stride")}
    return replace(settings.data, **batches) == wanted.data


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
