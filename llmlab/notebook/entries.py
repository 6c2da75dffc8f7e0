"""One entry of the notebook: what was predicted about a run, an experiment or a check, what came, what was learned."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from typing import Any

from llmlab.core.errors import LabError, UsageError
from llmlab.core.records import from_plain, require_time
from llmlab.notebook.calibration import Statement
from llmlab.notebook.locked import Locked, read_locked
from llmlab.notebook.outcomes import Outcomes
from llmlab.notebook.scoring import Score, brier, score
from llmlab.notebook.seals import ALTERED, BROKEN, LATE, PREDICTED, Seal

ENTRY_FORMAT = 2  # from 2 on, all its predictions and scores are sealed
# Of an entry: its outcome is not known, something is left for the learner to judge, a miss is to be learned from, done.
OPEN, TO_JUDGE, TO_LEARN, DONE = "open", "to judge", "to learn", "done"
_LONGEST_SENTENCE = 1000


@dataclass(frozen=True)
class Entry:
    """A file of outputs/notebook/.

    subject: run, experiment or check; about: its id; folder: where it lay; created: when it was made, Unix seconds.
    steps: that it was to have. predictions: `Locked` as plain values; scores: `Score` likewise, in the same places,
    empty until there is one. judged: by place ("0"), what the learner says came of it. curve: [step, validation loss],
    or the main chart of an experiment, whose x is x_axis.
    result: what became of the subject, in words. sealed: by place, what the chain of seals has (`with_seals`); found
    when it is read, and not written.
    """

    id: str
    subject: str
    about: str
    folder: str
    title: str
    created: float
    steps: int = 0
    predictions: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    judged: dict[str, str] = field(default_factory=dict)
    scored_at: float | None = None
    result: str = ""
    curve: list[list[float]] = field(default_factory=list)
    x_axis: str = ""
    x_log: bool = False
    learned: str = ""
    learned_at: float | None = None
    format: int = ENTRY_FORMAT
    sealed: dict[int, Sealed] = field(default_factory=dict)

    def lines(self) -> list[Line]:
        """Its predictions as they were sealed, with what came of them; those that cannot be read are left out."""
        found = []
        for place in sorted({*range(len(self.predictions)), *self.sealed}):
            sealed = self.sealed.get(place) or _not_sealed(self, place)
            if sealed.locked is not None:
                found.append(Line(self, place, sealed.locked, sealed.score, sealed.altered, sealed.found))
        return found

    @property
    def full_name(self) -> str:
        """`TRACK/ID`: what it is about, also where several tracks have that id."""
        return full_name_of(self.folder)

    @property
    def state(self) -> str:
        """open, to judge, to learn or done."""
        if self.scored_at is None:
            return OPEN
        if any(line.score is None and line.locked.prediction.about.by_hand for line in self.lines()):
            return TO_JUDGE
        right = all(line.score is not None and line.score.right and not line.altered for line in self.lines())
        return DONE if self.learned or right else TO_LEARN

    @property
    def surprise(self) -> float | None:
        """Bits of the prediction that surprised most; None when none can be told."""
        return max((line.surprise for line in self.lines() if line.surprise is not None), default=None)

    def as_dict(self) -> dict[str, Any]:
        plain = asdict(replace(self, sealed={}))
        del plain["sealed"]
        return plain


@dataclass(frozen=True)
class Sealed:
    """What the chain has of one prediction of an entry, compared with entry and record.

    locked: None when it cannot be read. altered: what does not fit, as a sentence without its end, or "". found: how it
    stood when it was sealed (llmlab.notebook.seals).
    """

    locked: Locked | None
    score: Score | None
    altered: str
    found: str


@dataclass(frozen=True)
class Line:
    """One prediction of an entry. place: counted from 0. altered and found: as in `Sealed`."""

    entry: Entry
    place: int
    locked: Locked
    score: Score | None
    altered: str
    found: str

    @property
    def surprise(self) -> float | None:
        """Bits; None where they cannot be told, and of what was altered."""
        return None if self.score is None or self.altered else self.score.surprise


@dataclass(frozen=True)
class Record:
    """The predictions in the record of what an entry is about. file: its name."""

    file: str
    predictions: list[dict[str, Any]]


def with_seals(entry: Entry, seals: Sequence[Seal], record: Record | None, *, here: bool) -> Entry:
    """The entry, compared with its seals and with the record, where that is still there.

    What a program that was killed did not come to write is filled in from the seals. here: its file is there, or was
    not made yet.
    """
    if not seals and entry.format < ENTRY_FORMAT:
        return entry  # from before there were seals, and not taken up yet
    predicted: dict[int, Seal] = {}
    scored: dict[int, list[Seal]] = defaultdict(list)
    for seal in seals:
        if seal.what == PREDICTED:
            predicted.setdefault(seal.place, seal)  # sealed once
        else:
            scored[seal.place].append(seal)
    places = sorted({*range(len(entry.predictions)), *predicted})
    sealed = {p: _compared(entry, p, predicted.get(p), scored[p], record, here=here) for p in places}
    predictions, scores = list(entry.predictions), list(entry.scores)
    for place in places:
        if place == len(predictions):
            predictions.append(predicted[place].values)
        scores += [{}] * (place + 1 - len(scores) if scored[place] else 0)
        if scored[place] and not scores[place]:
            scores[place] = scored[place][-1].values
    times = [scored[place][-1].time for place in places if scored[place]]
    return replace(
        entry,
        predictions=predictions,
        scores=scores,
        scored_at=max(times, default=None) if entry.scored_at is None else entry.scored_at,
        sealed=sealed,
    )


def _compared(
    entry: Entry, place: int, seal: Seal | None, scores: Sequence[Seal], record: Record | None, *, here: bool
) -> Sealed:
    of_entry = _at(entry.predictions, place)
    of_record = _at(record.predictions, place) if record is not None else None
    mine, theirs = (None if values is None else read_locked(values) for values in (of_entry, of_record))
    locked = None if seal is None else read_locked(seal.values)
    score_of_entry = _at(entry.scores, place)
    altered = ""
    if seal is None:
        altered = "its seal is missing from the notebook"
    elif BROKEN in (seal.found, *(score.found for score in scores)):
        altered = "its seal in the notebook was changed"
    elif of_entry is not None and mine != locked:
        altered = "its entry in the notebook says something else now"
    elif record is not None and theirs != locked:
        altered = f"{record.file} says something else now"
    elif seal.found == ALTERED:
        altered = "it was changed after it was locked"
    elif score_of_entry and score_of_entry not in [score.values for score in scores]:
        altered = "its score in the notebook was changed"
    elif not here:
        altered = "its entry in the notebook was removed, or cannot be read"
    value = scores[-1].values if scores else score_of_entry
    return Sealed(locked or mine or theirs, _read_score(value), altered, seal.found if seal is not None else "")


def _not_sealed(entry: Entry, place: int) -> Sealed:
    """As it stands in an entry from before there were seals."""
    locked = read_locked(entry.predictions[place])
    found = "" if locked is None else locked.found(entry.subject, entry.about)
    altered = "it was changed after it was locked" if found == ALTERED else ""
    return Sealed(locked, _read_score(_at(entry.scores, place)), altered, found)


def full_name_of(folder: str) -> str:
    """`TRACK/ID` of what lies in a folder, wherever the outputs folder is now."""
    return "/".join(PurePath(folder).parts[-2:])


def read_entry(values: dict[str, Any]) -> Entry:
    """From plain values. Raises LabError when they are damaged or from a newer version."""
    version = values.get("format")
    if isinstance(version, int) and version > ENTRY_FORMAT:
        raise LabError("An entry was written by a newer version of the lab.", "", "Update the lab to read it.")
    try:
        entry = from_plain(Entry, {"format": 1} | {name: value for name, value in values.items() if name != "sealed"})
        entry.as_dict()  # what nests deeper than anything can be written is damaged
        for name in ("created", "scored_at", "learned_at"):
            require_time(name, getattr(entry, name))
        if any(len(point) != 2 for point in entry.curve):
            raise ValueError("its curve has points that are none")
        return entry
    except (ValueError, TypeError, RecursionError) as error:
        raise LabError("An entry of the notebook is damaged.", f"{error}.") from error


def scored(entry: Entry, outcomes: Outcomes) -> Entry:
    """The entry with all scores that its outcome allows, and what the learner judged."""
    lines = entry.lines()
    scores: list[dict[str, Any]] = [{} for _ in range(1 + max((line.place for line in lines), default=-1))]
    for line in lines:
        prediction = line.locked.prediction
        name = prediction.quantity
        said = entry.judged.get(str(line.place)) if prediction.about.by_hand else None
        outcome = outcomes.of(name) if said is None else said
        found = score(prediction, outcome, outcomes.options(name))
        scores[line.place] = {} if found is None else asdict(found)
    return replace(
        entry,
        scores=scores,
        scored_at=entry.scored_at or time.time(),
        result=outcomes.result,
        curve=outcomes.curve or entry.curve,
        x_axis=outcomes.x_axis,
        x_log=outcomes.x_log,
    )


def judged(entry: Entry, place: int, outcome: str) -> Entry:
    """The entry with what the learner says came of a prediction, scored. Raises UsageError when that cannot be."""
    line = next((line for line in entry.lines() if line.place == place), None)
    if line is None:
        there = ", ".join(str(line.place + 1) for line in entry.lines()) or "none"
        raise UsageError(f"{entry.about} has no prediction {place + 1}.", f"There are: {there}.")
    prediction = line.locked.prediction
    if not prediction.about.by_hand:
        raise UsageError(
            f"{prediction.quantity} is read from the result, not entered by hand.",
            "",
            f"`llmlab-run notebook show {entry.about}` shows it.",
        )
    found = score(prediction, outcome)
    if found is None or (prediction.kind == "text" and outcome not in ("right", "wrong")):
        wanted = "right or wrong" if prediction.kind == "text" else "what came"
        raise UsageError(f"{outcome!r} cannot be the outcome of {prediction.quantity}.", "", f"Say {wanted}.")
    scores = [*entry.scores, *({} for _ in range(place + 1 - len(entry.scores)))]
    scores[place] = asdict(found)
    return replace(
        entry, judged=entry.judged | {str(place): outcome}, scores=scores, scored_at=entry.scored_at or time.time()
    )


def with_sentence(entry: Entry, sentence: str) -> Entry:
    """The entry with what was learned, on one line; an empty sentence takes it back."""
    sentence = " ".join(sentence.split())
    if len(sentence) > _LONGEST_SENTENCE:
        raise UsageError(f"One sentence of at most {_LONGEST_SENTENCE} characters is kept.", f"It has {len(sentence)}.")
    return replace(entry, learned=sentence, learned_at=time.time() if sentence else None)


def statements(entries: Iterable[Entry]) -> list[Statement]:
    """What counts in the calibration: scored, with a confidence, and sealed before the first step; or altered, which is
    a miss whatever came."""
    return [
        Statement(
            entry.created if entry.scored_at is None else entry.scored_at,
            confidence,
            right,
            brier(confidence, right),
            f"{entry.about}: {line.locked.prediction}",
            altered=bool(line.altered),
        )
        for entry in entries
        for line in entry.lines()
        if (confidence := line.locked.prediction.confidence) is not None and (right := _right(line)) is not None
    ]


def _right(line: Line) -> bool | None:
    """Whether it came true, for the calibration; None where it does not count."""
    if line.altered:
        return False
    counts = line.entry.scored_at is not None and line.locked.at_step == 0 and line.found != LATE
    return line.score.right if counts and line.score is not None else None


def _at(values: list[dict[str, Any]], place: int) -> dict[str, Any] | None:
    return values[place] if place < len(values) else None


def _read_score(values: dict[str, Any] | None) -> Score | None:
    try:
        return from_plain(Score, values) if values else None
    except (ValueError, TypeError):
        return None
