"""The notebook of an outputs folder: outputs/notebook/*.json, one file an entry.

Entries follow from what was locked in run.json, experiment.json and paper.json: `refresh()` makes those that are
missing and scores those whose outcome is known. So it does not matter who starts a run, and nothing is lost when a
program ends between two writes. Once made, an entry outlives its run.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmlab.errors import LabError, UsageError
from llmlab.experiments.records import ExperimentFolder, list_experiments
from llmlab.files import read_json, write_json
from llmlab.notebook.entries import Entry, full_name_of, judged, read_entry, scored, with_sentence
from llmlab.notebook.locked import lock
from llmlab.notebook.outcomes import Outcomes, check_facts, experiment_facts, read_facts
from llmlab.notebook.predictions import Prediction
from llmlab.notebook.quantities import CHECK, EXPERIMENT, RUN
from llmlab.papers.checks import CheckFolder, list_checks
from llmlab.papers.settings import TaskSettings
from llmlab.records import to_plain
from llmlab.runs.folder import RunFolder, RunInfo, RunSettings
from llmlab.runs.registry import list_runs
from llmlab.settings import PretrainSettings

NOTEBOOK = "notebook"  # the folder beside the tracks
# Whoever holds the lock reads run files and writes a few small ones.
_LOCK_SECONDS = 30.0


@dataclass(frozen=True)
class Contents:
    """All that is there, newest first. damaged: what cannot be read, as sentences. fresh: ids just scored."""

    entries: list[Entry]
    damaged: list[str]
    fresh: list[str]


class Notebook:
    """Cheap to make; reads nothing until asked. Changes are made under a lock, each file replaced as a whole."""

    def __init__(self, outputs: Path) -> None:
        self._outputs = outputs

    @property
    def folder(self) -> Path:
        return self._outputs / NOTEBOOK

    def read(self) -> Contents:
        """What is written there, whether or not something new could be scored."""
        entries, damaged = [], []
        with contextlib.suppress(OSError):  # none yet
            for path in sorted(self.folder.glob("*.json")):
                entry = _read(path)
                if isinstance(entry, str):
                    damaged.append(entry)
                else:
                    entries.append(entry)
        entries.sort(key=lambda entry: (entry.created, entry.id), reverse=True)
        return Contents(entries, damaged, [])

    def refresh(self) -> Contents:
        """Makes the entries that are missing, scores what can be scored, and reads all. Raises LabError.

        A result that cannot be read keeps nothing from the others: its entry waits, and `damaged` says why.
        """
        subjects = list(self._subjects())
        if not subjects and not self.folder.is_dir():
            return Contents([], [], [])
        with self._locked():
            before = self.read()
            known = {(entry.subject, entry.full_name, entry.created): entry for entry in before.entries}
            fresh, damaged = [], []
            for subject in subjects:
                old = known.get((subject.kind, full_name_of(subject.folder), subject.created))
                entry = self._taken_up(subject, old)
                try:
                    outcomes = subject.outcomes(entry) if entry.scored_at is None else None
                except LabError as error:
                    outcomes = None
                    damaged.append(f"{subject.about}: {error}")
                if outcomes is not None:
                    entry = scored(entry, outcomes)
                    fresh.append(entry.id)
                if entry != old:
                    self._write(entry)
            contents = self.read()
        return replace(contents, damaged=[*contents.damaged, *damaged], fresh=fresh)

    def find(self, text: str) -> Entry:
        """The entry with that id, or the newest about what has that id, or that full name (`TRACK/ID`).

        UsageError when several things have that id, or none has (with the nearest ones).
        """
        entries = self.read().entries
        found = [entry for entry in entries if text in (entry.id, entry.about, entry.full_name)]
        names = list(dict.fromkeys(entry.full_name for entry in found if entry.id != text))
        if len(names) > 1:
            raise UsageError(f"{text!r} is the name of {len(names)} things.", "", f"Write {' or '.join(names)}.")
        if found:
            return found[0]
        nearest = difflib.get_close_matches(text, [entry.about for entry in entries], n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "`llmlab-run notebook` lists them."
        raise UsageError(f"The notebook has nothing about {text!r}.", f"Looked in {self.folder}.", hint)

    def predict(self, run: RunFolder, predictions: Sequence[Prediction]) -> Entry:
        """Adds predictions to a run that has not ended; those after its first step are marked as late.

        Raises UsageError when it has ended: its outcome is known.
        """
        info, status = run.info(), run.status()
        if status.state in ("finished", "failed"):
            raise UsageError(
                f"{run.id} cannot be predicted any more.",
                f"It has {status.state}: what became of it is known.",
                "Predict the next one: llmlab-run pretrain --predict val_loss=1.9..2.2@80%",
            )
        locked = lock(RUN, run.id, predictions, at_step=status.step)
        run.write_info(replace(info, predictions=[*info.predictions, *locked]))
        self.refresh()
        return self.find(run.full_name)

    def score(self, entry: Entry) -> Entry:
        """Scores an entry with what there is now, also of a run that was stopped before its end. Raises LabError."""
        outcomes = self._outcomes_now(entry)
        return self._change(entry.id, lambda now: scored(now, outcomes))

    def judge(self, entry: Entry, place: int, outcome: str) -> Entry:
        """Says what came of a prediction that no program can check. Raises UsageError when that cannot be."""
        return self._change(entry.id, lambda now: judged(now, place, outcome))

    def learn(self, entry: Entry, sentence: str) -> Entry:
        """Keeps the one sentence of what was learned."""
        return self._change(entry.id, lambda now: with_sentence(now, sentence))

    # Behind the scenes -----------------------------------------------------------------------------------------

    def _subjects(self) -> Iterator[_Subject]:
        yield from self._runs()
        yield from self._experiments()
        yield from self._checks()

    def _runs(self) -> Iterator[_Subject]:
        for run in list_runs(self._outputs):
            # Only the predictions are looked for: most runs have none, and their settings need not be understood.
            if (read_json(run.run_json) or {}).get("predictions"):
                with contextlib.suppress(LabError):  # a damaged run.json tells nothing
                    yield _run_subject(run, run.info())

    def _experiments(self) -> Iterator[_Subject]:
        for folder in list_experiments(self._outputs):
            if (read_json(folder.experiment_json) or {}).get("predictions"):
                with contextlib.suppress(LabError):
                    yield _experiment_subject(folder)

    def _checks(self) -> Iterator[_Subject]:
        for folder in list_checks(self._outputs):
            if (read_json(folder.experiment_json) or {}).get("predictions"):
                with contextlib.suppress(LabError):
                    yield _check_subject(folder)

    def _taken_up(self, subject: _Subject, old: Entry | None) -> Entry:
        """The entry of a subject; predictions that were added since are added to it too. What is there never changes:
        a file that was edited after the start shows in its seal."""
        if old is None:
            return Entry(
                self._free_id(subject),
                subject.kind,
                subject.about,
                subject.folder,
                subject.title,
                subject.created,
                subject.steps,
                subject.predictions,
            )
        more = subject.predictions[len(old.predictions) :]
        return replace(old, predictions=[*old.predictions, *more]) if more and old.scored_at is None else old

    def _free_id(self, subject: _Subject) -> str:
        stem = f"{subject.kind}-{re.sub(r'[^A-Za-z0-9._+-]', '-', subject.about)}"
        name, number = stem, 1
        while (self.folder / f"{name}.json").exists():
            number += 1
            name = f"{stem}-{number}"
        return name

    def _outcomes_now(self, entry: Entry) -> Outcomes:
        for subject in self._subjects():
            found = (subject.kind, full_name_of(subject.folder), subject.created)
            if found == (entry.subject, entry.full_name, entry.created):
                outcomes = subject.now(entry)
                if outcomes is not None:
                    return outcomes
        raise LabError(
            f"Nothing can be said yet about what was predicted of {entry.about}.",
            "It has no results, or it is gone.",
            "It is scored by itself when it has finished.",
        )

    def _change(self, entry_id: str, change: Callable[[Entry], Entry]) -> Entry:
        with self._locked():
            now = _read(self.folder / f"{entry_id}.json")
            if isinstance(now, str):
                raise LabError("The entry could not be changed.", now)
            changed = change(now)
            if changed != now:
                self._write(changed)
            return changed

    def _write(self, entry: Entry) -> None:
        write_json(self.folder / f"{entry.id}.json", to_plain(entry.as_dict()))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        import filelock  # seldom needed, and 25 ms of every start

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.folder / ".lock", timeout=_LOCK_SECONDS):
                yield
        except filelock.Timeout as error:
            why = "Another program holds it and did not let go."
            raise LabError("The notebook cannot be changed now.", why, "Try again.") from error
        except OSError as error:
            raise LabError("The notebook could not be written.", str(error), "Make room, or try again.") from error


@dataclass(frozen=True)
class _Subject:
    """A run, experiment or check about which something was predicted.

    outcomes: what became of it, None before it has finished. now: the same with what there is already.
    """

    kind: str
    about: str
    folder: str
    title: str
    created: float
    steps: int
    predictions: list[dict[str, Any]]
    outcomes: Callable[[Entry], Outcomes | None]
    now: Callable[[Entry], Outcomes | None]


def _run_subject(run: RunFolder, info: RunInfo) -> _Subject:
    def now(entry: Entry) -> Outcomes | None:
        return read_facts(run, entry.steps)

    def outcomes(entry: Entry) -> Outcomes | None:
        return now(entry) if run.recorded_status().state == "finished" else None

    steps = info.settings.train.steps
    title = title_of(info.settings)
    return _Subject(RUN, run.id, str(run.path), title, info.created, steps, info.predictions, outcomes, now)


def _experiment_subject(folder: ExperimentFolder) -> _Subject:
    record = folder.record()

    def now(_entry: Entry) -> Outcomes | None:
        return experiment_facts(folder)

    def outcomes(_entry: Entry) -> Outcomes | None:
        facts = experiment_facts(folder)
        return facts if facts is not None and facts.results.complete else None

    runs = f"an experiment of {len(record.arms)} run{'' if len(record.arms) == 1 else 's'}"
    title = f"{record.title}, {runs if record.arms else f'a look at {record.subject}'}"
    return _Subject(
        EXPERIMENT, folder.id, str(folder.path), title, record.created, 0, record.predictions, outcomes, now
    )


def _check_subject(folder: CheckFolder) -> _Subject:
    record = folder.record()

    def now(_entry: Entry) -> Outcomes | None:
        return check_facts(folder)

    def outcomes(_entry: Entry) -> Outcomes | None:
        # Until it has finished, verdicts on what is there so far may still change.
        return check_facts(folder) if folder.recorded_status().state == "finished" else None

    title = f"{record.title}: does it hold here?"
    return _Subject(CHECK, folder.id, str(folder.path), title, record.created, 0, record.predictions, outcomes, now)


def title_of(settings: RunSettings) -> str:
    """A run in a few words: what it does, on what, for how long."""
    steps = f"{settings.train.steps:,} steps"
    if isinstance(settings, PretrainSettings):
        model, text = settings.model, Path(settings.data.corpus).name
        layers = f"{model.n_layer} layer{'' if model.n_layer == 1 else 's'}"
        return f"{layers} of width {model.n_embd} on {text}, {steps}"
    if isinstance(settings, TaskSettings):
        return f"{settings.model.kind} on the task {settings.data.task}, {steps}"
    method = {"lora": "LoRA", "qlora": "QLoRA", "full": "full fine-tuning"}[settings.model.method]
    return f"{method} of {Path(settings.model.base).name} on {Path(settings.data.source).name}, {steps}"


def _read(path: Path) -> Entry | str:
    """The entry in a file, or why there is none, as a sentence."""
    values = read_json(path)
    if values is None:
        return f"{path.name} cannot be read: it is no JSON object."
    try:
        return read_entry(values | {"id": path.stem})
    except LabError as error:
        return f"{path.name}: {error}"
