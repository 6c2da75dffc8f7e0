"""One entry of the notebook: what was predicted about a run, an experiment or a check, what came, what was learned."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from typing import Any

from llmlab.errors import LabError, UsageError
from llmlab.notebook.calibration import Statement
from llmlab.notebook.locked import Locked, read_locked
from llmlab.notebook.outcomes import Outcomes
from llmlab.notebook.scoring import Score, score
from llmlab.records import from_plain, require_time

ENTRY_FORMAT = 1
# Of an entry: its outcome is not known, something is left for the learner to judge, it can be learned from, all done.
OPEN, TO_JUDGE, TO_LEARN, DONE = "open", "to judge", "to learn", "done"
_LONGEST_SENTENCE = 1000


@dataclass(frozen=True)
class Entry:
    """A file of outputs/notebook/.

    subject: run, experiment or check; about: its id; folder: where it lay; created: when it was made, Unix seconds.
    steps: that it was to have. predictions: `Locked` as plain values; scores: `Score` likewise, in the same places,
    empty until there is one. judged: by place ("0"), what the learner says came of it. curve: [step, validation loss],
    or the main chart of an experiment, whose x is x_axis.
    result: what became of the subject, in words.
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

    def lines(self) -> list[Line]:
        """Its predictions with what came of them; damaged ones are left out."""
        found = []
        for place, values in enumerate(self.predictions):
            locked = read_locked(values)
            if locked is not None:
                sound = locked.sound(self.subject, self.about)
                found.append(Line(self, place, locked, _score(self.scores, place), sound))
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
        return DONE if self.learned else TO_LEARN

    @property
    def surprise(self) -> float | None:
        """Bits of the prediction that surprised most; None when none can be told."""
        bits = [line.score.surprise for line in self.lines() if line.score and line.score.surprise is not None]
        return max(bits, default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Line:
    """One prediction of an entry. place: counted from 0. sound: its seal fits."""

    entry: Entry
    place: int
    locked: Locked
    score: Score | None
    sound: bool


def full_name_of(folder: str) -> str:
    """`TRACK/ID` of what lies in a folder, wherever the outputs folder is now."""
    return "/".join(PurePath(folder).parts[-2:])


def read_entry(values: dict[str, Any]) -> Entry:
    """From plain values. Raises LabError when they are damaged or from a newer version."""
    version = values.get("format")
    if isinstance(version, int) and version > ENTRY_FORMAT:
        raise LabError("An entry was written by a newer version of the lab.", "", "Update the lab to read it.")
    try:
        entry = from_plain(Entry, values)
        for name in ("created", "scored_at", "learned_at"):
            require_time(name, getattr(entry, name))
        if any(len(point) != 2 for point in entry.curve):
            raise ValueError("its curve has points that are none")
        return entry
    except (ValueError, TypeError) as error:
        raise LabError("An entry of the notebook is damaged.", f"{error}.") from error


def scored(entry: Entry, outcomes: Outcomes) -> Entry:
    """The entry with all scores that its outcome allows, and what the learner judged."""
    scores: list[dict[str, Any]] = []
    for place, values in enumerate(entry.predictions):
        locked = read_locked(values)
        if locked is None:
            scores.append({})
            continue
        name = locked.prediction.quantity
        outcome = entry.judged.get(str(place), outcomes.of(name))
        found = score(locked.prediction, outcome, outcomes.options(name))
        scores.append({} if found is None else asdict(found))
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
            f"What became of {prediction.quantity} is read from the result, not told by hand.",
            "",
            f"`llmlab-run notebook show {entry.about}` shows it.",
        )
    found = score(prediction, outcome)
    if found is None or (prediction.kind == "text" and outcome not in ("right", "wrong")):
        wanted = "right or wrong" if prediction.kind == "text" else "what came"
        raise UsageError(f"{outcome!r} cannot be what came of {prediction.quantity}.", "", f"Say {wanted}.")
    scores = [*entry.scores, *({} for _ in range(len(entry.predictions) - len(entry.scores)))]
    scores[place] = asdict(found)
    return replace(
        entry,
        judged=entry.judged | {str(place): outcome},
        scores=scores,
        scored_at=entry.scored_at or time.time(),
    )


def with_sentence(entry: Entry, sentence: str) -> Entry:
    """The entry with what was learned, on one line; an empty sentence takes it back."""
    sentence = " ".join(sentence.split())
    if len(sentence) > _LONGEST_SENTENCE:
        raise UsageError(f"One sentence of at most {_LONGEST_SENTENCE} characters is kept.", f"It has {len(sentence)}.")
    return replace(entry, learned=sentence, learned_at=time.time() if sentence else None)


def statements(entries: Iterable[Entry]) -> list[Statement]:
    """What counts in the calibration: scored, with a confidence, locked before the first step, and sound."""
    return [
        Statement(
            entry.scored_at,
            line.locked.prediction.confidence,
            line.score.right,
            line.score.brier,
            line.score.surprise,
            f"{entry.about}: {line.locked.prediction}",
        )
        for entry in entries
        if entry.scored_at is not None
        for line in entry.lines()
        if line.sound
        and line.locked.at_step == 0
        and line.locked.prediction.confidence is not None
        and line.score is not None
        and line.score.right is not None
        and line.score.brier is not None
        and line.score.surprise is not None
    ]


def _score(scores: list[dict[str, Any]], place: int) -> Score | None:
    if place >= len(scores) or not scores[place]:
        return None
    try:
        return from_plain(Score, scores[place])
    except (ValueError, TypeError):
        return None
