"""The notebook of an outputs folder: outputs/notebook/*.json, one file an entry, and seals.jsonl.

Entries follow from what was locked in run.json, experiment.json and paper.json: `refresh()` seals what is not sealed
yet (llmlab.notebook.seals), makes the entries that are missing, and scores those whose outcome is known. So it does not
matter who starts a run, and nothing is lost when a program ends between two writes. Once made, an entry outlives its
run; of a run that was renamed it takes the new name, by the moment at which that was made.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmlab.core.errors import LabError, UsageError, did_you_mean
from llmlab.core.files import read_json, write_json
from llmlab.core.progress import Progress, quiet
from llmlab.core.records import to_plain
from llmlab.notebook.entries import (
    ENTRY_FORMAT,
    Entry,
    Line,
    Record,
    full_name_of,
    judged,
    read_entry,
    scored,
    with_seals,
    with_sentence,
)
from llmlab.notebook.locked import lock, read_locked
from llmlab.notebook.outcomes import Outcomes
from llmlab.notebook.predictions import Prediction
from llmlab.notebook.quantities import RUN
from llmlab.notebook.seals import (
    CHAIN,
    LATE,
    NOTEBOOK,
    PREDICTED,
    SCORED,
    Chain,
    Seal,
    append,
    chain_bytes,
    free_id,
    held,
    read_chain,
)
from llmlab.notebook.subjects import Source, Subject
from llmlab.store.run_folder import RunFolder
from llmlab.store.worker_folder import WorkerFolder

_LARGEST = 1 << 24  # bytes of an entry's file: the curves of a thousand predictions have less


@dataclass(frozen=True)
class Contents:
    """All that is there, newest first. damaged: what cannot be read, as sentences. fresh: ids just scored."""

    entries: list[Entry] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)

    def about(self, folder: WorkerFolder, created: float) -> Entry | None:
        """The entry on the run, experiment or check of that folder, which was made at that time."""
        key = (folder.full_name, created)
        return next((entry for entry in self.entries if (entry.full_name, entry.created) == key), None)

    def lines(self, folder: WorkerFolder, created: float, predictions: list[dict[str, Any]]) -> list[Line]:
        """What was predicted of a run, experiment or check; as its record has it where there is no entry yet."""
        entry = self.about(folder, created)
        if entry is None:
            entry = Entry("", folder.subject, folder.id, str(folder.path), "", created, predictions=predictions)
        return entry.lines()


class Notebook:
    """Cheap to make; reads nothing until asked. Changes are made under a lock, each file replaced as a whole."""

    def __init__(self, outputs: Path, sources: Sequence[Source], progress: Progress = quiet) -> None:
        """sources: whatever can be predicted about, of each kind; what they leave out, the notebook takes for gone.
        progress: called while another program holds the notebook."""
        self._outputs, self._sources, self._progress = outputs, sources, progress

    @property
    def folder(self) -> Path:
        return self._outputs / NOTEBOOK

    def read(self) -> Contents:
        """What is written there, whether or not something new could be scored. Raises LabError when the seals cannot be
        read.

        Without the lock: where another program sealed something meanwhile, all is read again, since its entry may
        be newer than the seals it is compared with.
        """
        while True:
            found = self._look()
            if chain_bytes(self.folder) == found.chain.data:
                return found.contents()

    def refresh(self) -> Contents:
        """Seals and makes what is missing, scores what can be scored, and reads all. Raises LabError.

        A result that cannot be read keeps nothing from the others: its entry waits, and `damaged` says why.
        """
        if not self.folder.is_dir() and not list(self._subjects(())):
            return Contents()
        with held(self.folder, self._progress):
            found = self._sealed(self._look())
            fresh, damaged, made, changed = [], [], False, []
            for entry in found.entries.values():
                subject = found.subjects.get(entry.id)
                old = found.files.get(entry.id)
                if old is None and (entry.id in found.unreadable or entry.scored_at is not None):
                    continue  # removed by hand: it is shown from its seals
                if old is None and subject is None:
                    continue  # nothing is known of it but its seals
                now = replace(entry, format=ENTRY_FORMAT) if subject is None else _taken_up(entry, subject)
                if old is None or now.as_dict() != old.as_dict():
                    self._write(found, [now])  # so that an entry is there before it is scored
                    made = True
                if subject is not None and (old is None or old.scored_at is None):
                    try:
                        outcomes = subject.outcomes(now)
                    except LabError as error:
                        outcomes = None
                        damaged.append(f"{subject.about}: {error}")
                    if outcomes is not None:
                        changed.append(_scored_once(now, outcomes))
                        fresh.append(now.id)
            self._write(found, changed)
            contents = self.read() if made or changed else found.contents()
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
        hint = did_you_mean(text, [entry.about for entry in entries], 3, 0.4) or "`llmlab-run notebook` lists them."
        raise UsageError(f"The notebook has nothing about {text!r}.", f"Looked in {self.folder}.", hint)

    def predict(self, run: RunFolder, predictions: Sequence[Prediction]) -> Entry:
        """Adds predictions to a run that has not ended; those after its first step are marked as late.

        Raises UsageError when it has ended: its outcome is known.
        """
        status = run.status()
        if status.state in ("finished", "failed"):
            raise UsageError(
                f"{run.id} can no longer be predicted.",
                f"It has {status.state}: its outcome is known.",
                "Predict the next one: llmlab-run pretrain --predict val_loss=1.9..2.2@80%",
            )
        locked = lock(RUN, predictions, at_step=status.step)
        run.change_info(lambda info: replace(info, predictions=[*info.predictions, *locked]))
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

    def _look(self, chain: Chain | None = None) -> _Found:
        """Everything that is there, compared. chain: where it was read already."""
        chain = read_chain(self.folder) if chain is None else chain
        files, unreadable, damaged = {}, set(), []
        with contextlib.suppress(OSError):  # none yet
            for path in sorted(self.folder.glob("*.json")):
                read = _read(path)
                if isinstance(read, str):
                    damaged.append(read)
                    unreadable.add(path.stem)
                else:
                    files[path.stem] = read
        entries = {entry.id: entry for entry in _from_seals(chain) if entry.id not in files} | files
        for first in _first_seals(chain):  # what it is about was sealed, too
            if first.entry in files:
                entries[first.entry] = replace(entries[first.entry], subject=first.subject, created=first.created)
        subjects, new = _matched(list(entries.values()), list(self._subjects(entries.values())))
        for id, entry in entries.items():
            subject = subjects.get(id)
            record = Record(subject.record, subject.predictions) if subject is not None else None
            seals = chain.of(id)
            here = id in files or (id not in unreadable and not any(seal.what == SCORED for seal in seals))
            entries[id] = with_seals(entry, seals, record, here=here)
            damaged += [
                f"{entry.about}: prediction {place + 1} cannot be read."
                for place, sealed in entries[id].sealed.items()
                if sealed.locked is None
            ]
        if chain.missing:
            lines = "1 seal is" if chain.missing == 1 else f"{chain.missing} seals are"
            damaged.append(f"{lines} missing from the notebook: lines were taken out of {self.folder / CHAIN}.")
        return _Found(chain, files, unreadable, entries, subjects, new, damaged)

    def _sealed(self, found: _Found) -> _Found:
        """With a seal on every prediction that has none, and on the scores from before there were seals."""
        seals = [seal for entry in found.entries.values() for seal in _open(entry, found.subjects.get(entry.id))]
        chain = found.chain
        for subject in found.new:
            taken = replace(chain, seals=[*chain.seals, *seals])
            entry = _new_entry(free_id(self.folder, taken, subject.kind, subject.about), subject)
            seals += _open(entry, subject)
        if not seals:
            return found
        return self._look(append(self.folder, chain, seals))

    def _subjects(self, entries: Collection[Entry]) -> Iterator[Subject]:
        """What has predictions, or had them: an entry is about it."""
        known = {(entry.subject, entry.created) for entry in entries}
        for candidate in itertools.chain.from_iterable(source(self._outputs) for source in self._sources):
            # Only the predictions are looked for: most runs have none, and their settings need not be understood.
            values = read_json(candidate.record) or {}
            created = values.get("created")
            if values.get("predictions") or (isinstance(created, float) and (candidate.kind, created) in known):
                with contextlib.suppress(LabError):  # a damaged record tells nothing
                    yield candidate.read()

    def _outcomes_now(self, entry: Entry) -> Outcomes:
        subject = self._look().subjects.get(entry.id)
        outcomes = subject.now(entry) if subject is not None else None
        if outcomes is not None:
            return outcomes
        raise LabError(
            f"The prediction for {entry.about} cannot be scored yet.",
            "It has no results, or it is gone.",
            "It is scored by itself when it has finished.",
        )

    def _change(self, entry_id: str, change: Callable[[Entry], Entry]) -> Entry:
        with held(self.folder, self._progress):
            found = self._sealed(self._look())
            if entry_id not in found.files:
                why = "Its file in the notebook was removed, or cannot be read."
                raise LabError("The entry could not be changed.", why, "Put the file back.")
            now = found.entries[entry_id]
            changed = change(now)
            if changed != now:
                self._write(found, [changed])
            return self._look().entries[entry_id]

    def _write(self, found: _Found, entries: Sequence[Entry]) -> None:
        """Seals the scores that were made since `found`, then writes the entries. What was edited in a
        file is not sealed."""
        seals = []
        for entry in entries:
            before = found.entries[entry.id].scores
            for place, values in enumerate(entry.scores):
                if values and (place >= len(before) or values != before[place]):
                    seals.append(Seal(SCORED, entry.id, place, to_plain(values)))
        append(self.folder, found.chain, seals)
        for entry in entries:
            write_json(self.folder / f"{entry.id}.json", to_plain(entry.as_dict()))


@dataclass(frozen=True)
class _Found:
    """What is in a notebook's folder.

    files: by id, what can be read, as it stands there; unreadable: ids of the others.
    entries: by id, compared with seals and records, those whose file is gone among them. subjects: by the entry's id,
    what it is about, where that is still there; new: those without an entry.
    """

    chain: Chain
    files: dict[str, Entry]
    unreadable: set[str]
    entries: dict[str, Entry]
    subjects: dict[str, Subject]
    new: list[Subject]
    damaged: list[str]

    def contents(self) -> Contents:
        entries = sorted(self.entries.values(), key=lambda entry: (entry.created, entry.id), reverse=True)
        return Contents(entries, self.damaged)


def _matched(entries: Sequence[Entry], subjects: Sequence[Subject]) -> tuple[dict[str, Subject], list[Subject]]:
    """By its entry's id, what each entry is about; and what has none. Of that name and moment, or renamed since: of
    several, which are copies of each other, the one with the entry's predictions."""
    left = {(subject.kind, subject.created, full_name_of(subject.folder)): subject for subject in subjects}
    found = {}
    for entry in entries:
        if (key := (entry.subject, entry.created, entry.full_name)) in left:
            found[entry.id] = left.pop(key)
    for entry in entries:
        renamed = [key for key in left if key[:2] == (entry.subject, entry.created)]
        if entry.id not in found and renamed:
            said = entry.predictions
            found[entry.id] = left.pop(max(renamed, key=lambda key: left[key].predictions[: len(said)] == said))
    return found, list(left.values())


def _new_entry(id: str, subject: Subject) -> Entry:
    """With its predictions as they are written: nothing more, nothing that cannot be written again."""
    read = [read_locked(values) for values in subject.predictions]
    predictions = [{} if locked is None else locked.as_dict() for locked in read]
    return Entry(
        id, subject.kind, subject.about, subject.folder, subject.title, subject.created, subject.steps, predictions
    )


def _taken_up(entry: Entry, subject: Subject) -> Entry:
    """The entry with what its subject is called now; where it was made from its seals alone, with all about it."""
    new = _new_entry(entry.id, subject)
    if not entry.title:
        return replace(new, predictions=entry.predictions, sealed=entry.sealed)
    return replace(entry, about=new.about, folder=new.folder, format=ENTRY_FORMAT)


def _scored_once(entry: Entry, outcomes: Outcomes) -> Entry:
    """Scored, but for what was sealed already: that is scored again only on request."""
    new = scored(entry, outcomes)
    kept = [*entry.scores, *({} for _ in new.scores)]
    return replace(new, scores=[old or now for old, now in zip(kept, new.scores, strict=False)])


def _open(entry: Entry, subject: Subject | None) -> list[Seal]:
    """The seals that an entry still needs: on predictions, and on scores from before there were any."""
    seals = []
    about = full_name_of(entry.folder if subject is None else subject.folder)
    known = entry.predictions if not entry.sealed else []
    for place, values in enumerate([*known, *(subject.predictions[len(known) :] if subject is not None else [])]):
        locked = read_locked(values) if place not in entry.sealed else None
        if locked is None:
            continue
        found = locked.found(entry.subject, entry.about)  # not the name that the subject was given since
        if not found and not locked.at_step and subject is not None and subject.begun:
            found = LATE
        seals.append(Seal(PREDICTED, entry.id, place, locked.as_dict(), entry.subject, about, entry.created, found))
    if entry.format < ENTRY_FORMAT and not entry.sealed:
        seals += [Seal(SCORED, entry.id, place, values) for place, values in enumerate(entry.scores) if values]
    return seals


def _first_seals(chain: Chain) -> list[Seal]:
    """The first of each entry."""
    first: dict[str, Seal] = {}
    for seal in chain.seals:
        if seal.what == PREDICTED:
            first.setdefault(seal.entry, seal)
    return list(first.values())


def _from_seals(chain: Chain) -> Iterator[Entry]:
    """Every entry as far as its seals tell."""
    for seal in _first_seals(chain):
        yield Entry(seal.entry, seal.subject, seal.about.rpartition("/")[2], seal.about, "", seal.created)


def _read(path: Path) -> Entry | str:
    """The entry in a file, or why there is none, as a sentence."""
    try:
        values = read_json(path) if path.stat().st_size <= _LARGEST else None
    except OSError:
        values = None
    if values is None:
        return f"{path.name} cannot be read: it is no JSON object."
    try:
        return read_entry(values | {"id": path.stem})
    except LabError as error:
        return f"{path.name}: {error}"
