"""A question with its answer, and how what was given is marked. No torch: the window marks with it, too.

Four forms. A choice is one of a few; a number is right inside a stated range; an interval should hold the value with a
confidence of 80 %, and be narrow enough to be useful: it is scored as predictions are (llmlab.notebook.scoring); a head
is LAYER.HEAD, typed or picked in the mosaic of Attention.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from llmlab.core.errors import UsageError
from llmlab.notebook.predictions import range_ends
from llmlab.notebook.scoring import interval_score

KNOW, READ, PREDICT = WAYS = ("know", "read", "predict")
CHOICE, VALUE, INTERVAL, HEAD = "choice", "number", "interval", "head"
# The pages of the first hour that have questions of their own: they are asked there, and nowhere else.
LOOK_INSIDE, FINE_TUNE, CHECK = OF_FIRST_HOUR = (
    "first-hour/2-look-inside",
    "first-hour/4-fine-tune",
    "first-hour/5-check-a-claim",
)
TRAINING = "Training two small models"  # begins what is said while a question takes that: it can be skipped
MOST_SCORE = 5.0  # useful widths that a score counts for in a mean: one huge interval is one mistake
CONFIDENCE = 0.8  # of an interval: of ten, eight should hold the value
_NUMBER = re.compile(
    r"([-+]?(?:\d{1,3}(?:,\d{3})+\.?\d*|[\d_]*\.?\d*)(?:[eE][-+]?\d+)?)\s*(?:([kKMBGT])(?![A-Za-z]))?\s*(\D*)",
    re.DOTALL,
)
_FRACTION = re.compile(r"([^/]*\d)\s*/\s*(\d+(?:\.\d+)?)(?!\s*/)(\D*)", re.DOTALL)
_FACTORS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
_FACTOR_WORDS = {"thousand": 1e3, "million": 1e6, "billion": 1e9}
_BYTES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30}


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and all that is told once it was answered.

    form: choice, number, interval or head. choices: of a choice, in the order shown. answer: what came, as text for
    people. right: the choices or heads that are right. low, high: of a number, the range that is; of an interval, the
    value twice. useful: of an interval, the width above which it says too little; 0 for none. unit: of numbers, also
    shown. how: how it was computed. prompt: the text that it is about, for the panel.
    kind: its name in `llmlab.practice.kinds`. way: know, read or predict. concept: the page that explains it. panel:
    the dock that shows it. model, seed: with the kind, these give the same question again.
    """

    form: str
    text: str
    answer: str
    how: str
    choices: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    useful: float = 0.0
    unit: str = ""
    prompt: str = ""
    kind: str
    way: str
    concept: str
    panel: str
    model: str = ""
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def expects(self) -> str:
        """What can be answered, in a few words."""
        if self.form == CHOICE:
            return f"a number from 1 to {len(self.choices)}"
        if self.form == HEAD:
            return "LAYER.HEAD, counted from 0, like 2.1"
        unit = f" in {self.unit}" if self.unit else ""
        if self.form == INTERVAL:
            return f"an interval{unit} that contains the value with 80 % probability, like 2..5 or 2 to 5"
        return f"a number{unit}, {self._tolerance}"

    @property
    def _tolerance(self) -> str:
        """How far from the answer a number may be: a share of it, or so much in its unit."""
        slack, middle = (self.high - self.low) / 2, abs(self.high + self.low) / 2
        if not slack:
            return "exactly"
        percent = 100 * slack / middle if middle else 0.0
        if percent and abs(percent - round(percent)) < 1e-6:
            return f"within {percent:.0f} %"
        return f"within {slack:.3g}"


@dataclass(frozen=True)
class Marked:
    """What came of an answer. given: as it was understood.

    Of an interval: missed: how far outside the value lies, in its widths. held: whether it holds the value; it is right
    where it is narrow enough to be useful as well. score: its interval score in useful widths, 0 where none is known.
    """

    right: bool
    given: str
    missed: float = 0.0
    held: bool = False
    score: float = 0.0


def mark(question: Question, given: str) -> Marked:
    """Whether an answer is right. UsageError for what cannot be an answer to this question, which then stays open."""
    text = given.strip()
    if question.form == CHOICE:
        chosen = _chosen(question, text)
        return Marked(chosen in question.right, chosen)
    if question.form == HEAD:
        if not re.fullmatch(r"\d+\.\d+", text):
            raise UsageError(f"{given!r} is not a head.", f"The answer is {question.expects}.")
        head = ".".join(str(int(part)) for part in text.split("."))
        return Marked(head in question.right, head)
    if question.form == INTERVAL:
        ends = range_ends(text)
        if len(ends) != 2:
            raise UsageError(f"{given!r} is not an interval.", f"The answer is {question.expects}.")
        low, high = (number(end, question.unit) for end in ends)
        if not low < high:
            raise UsageError(f"{given!r} is not an interval.", "Its first end has to be the smaller one.")
        outside = max(low - question.low, question.low - high, 0.0)
        score = interval_score(low, high, question.low, CONFIDENCE) / question.useful if question.useful else 0.0
        narrow = high - low <= question.useful * (1 + 1e-9)  # 3.2 - 2.2 is a little more than 1
        right = outside == 0 and (not question.useful or narrow)
        return Marked(right, f"{low:g}..{high:g}", outside / (high - low), outside == 0, score)
    value = number(text, question.unit)
    if question.unit == "%" and text[-1:].isdigit() and question.low <= 100 * value <= question.high:
        value *= 100  # a share that is written as one, 0.34, is the same number
    return Marked(question.low <= value <= question.high, f"{value:g}")


def interval_words(question: Question, marked: Marked) -> str:
    """What is to be said of an interval beside hit or miss; "" where there is nothing."""
    said = []
    if marked.given and not marked.held:
        said.append(f"The value lies {marked.missed:.1f} widths of your interval outside.")
    if marked.held and not marked.right:
        low, high = map(float, marked.given.split(".."))
        wide, useful = _counted(high - low, 4, question.unit), _counted(question.useful, 3, question.unit)
        said.append(f"Your interval holds the value, but it is too wide to be useful: {wide}. {useful} would do.")
    if marked.score:
        much = f" It counts as {MOST_SCORE:g} in the mean." if marked.score > MOST_SCORE else ""
        said.append(
            f"Interval score: {marked.score:.2f} (lower is better; an interval that contains the value scores 1 "
            f"at {_counted(question.useful, 3, question.unit)} wide).{much}"
        )
    return " ".join(said)


def _counted(number: float, digits: int, unit: str) -> str:
    """With its unit: 2.5 nats, 1 nat."""
    said = f"{number:.{digits}g}"
    said = f"{float(said):,.0f}" if "e+" in said else said
    unit = unit.removesuffix("s") if said == "1" and not unit.endswith("/s") else unit
    return f"{said} {unit}".rstrip()


def number(text: str, unit: str = "") -> float:
    """A number as people write it, in the unit that is asked for: 1,234, 1.2k, 3.5 million, 40 %, 6 MB, 1/128.

    UsageError when it is none, or in another unit than one that can be converted.
    """
    parts = _FRACTION.fullmatch(text.strip())
    if parts is not None and parts[3].strip() in _FACTORS.keys() - {""} and unit not in ("kB", "MB", "GB"):
        over, letter = f"{parts[1]}/{parts[2]}", parts[3].strip()
        two = f"As {over} of 1{letter}, or as {parts[1]} over {parts[2]}{letter}."
        raise UsageError(f"{text.strip()!r} can be read in two ways.", two, "Write the thousands or millions out.")
    if parts is not None and float(parts[2]):
        whole = 100.0 if unit == "%" and not parts[3].strip() else 1.0
        return whole * number(f"{parts[1]}{parts[3]}", unit) / float(parts[2])
    match = _NUMBER.fullmatch(text.strip().replace("−", "-"))
    try:
        if match is None:
            raise ValueError(text)
        digits, letter, word = match.groups(default="")
        value = float(digits.replace(",", "").replace("_", ""))
    except ValueError:
        raise UsageError(f"{text.strip()!r} is not a number.", "Write digits, like 1234, 1.2k, 3e5 or 1/8.") from None
    factor = _factor(letter, word.strip(), unit)
    if factor is None:
        raise UsageError(f"{text.strip()!r} is in another unit.", f"The answer is a number in {unit}.")
    if not math.isfinite(value * factor):
        raise UsageError(f"{text.strip()!r} is not a finite number.")
    return value * factor


def _factor(letter: str, word: str, unit: str) -> float | None:
    """What a number before `letter` (k, M ...) and `word` is multiplied by to be in `unit`; None where it cannot be."""
    if unit in ("kB", "MB", "GB"):  # 6 M are 6 MB there, and 6 B are bytes
        prefix = (letter + word).lower().removesuffix("bytes").removesuffix("byte").removesuffix("b")
        return 1.0 if not letter + word else _BYTES[prefix] / _BYTES[unit[0].lower()] if prefix in _BYTES else None
    first, _, rest = word.partition(" ")
    factor = _FACTORS[letter] * _FACTOR_WORDS.get(first.lower(), 1.0)
    rest = rest if first.lower() in _FACTOR_WORDS else word
    if rest in ("%", "percent", "per cent"):
        return factor if unit == "%" else 0.01 * factor if not unit else None
    if not unit:  # whatever is counted: 32 dimensions, 1.5 MFLOPs
        return factor * (_FACTORS.get(rest[0], 1.0) if rest[1:].lower().startswith("flop") else 1.0)
    return factor if unit.lower().startswith(rest.lower()) else None


def _chosen(question: Question, text: str) -> str:
    """A choice by its number or its words."""
    if text in question.choices:
        return text
    if text.isdecimal() and 1 <= int(text) <= len(question.choices):
        return question.choices[int(text) - 1]
    raise UsageError(f"{text!r} is none of the choices.", f"The answer is {question.expects}.")
