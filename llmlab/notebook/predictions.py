"""Predictions: what they can say, and how they are written in one line.

val_loss=1.9..2.2@80%              a range, and how sure one is that the outcome lies in it
val_loss=2.05+-0.15@80%            the same as a number with a tolerance
val_loss=2.05                      a number alone: only its distance is measured
best_lr=1e-3@60%                   a choice among the trials of an experiment; overfits=yes@70% among two answers
keys=not supported@60%             the verdict on a claim of a paper, where it is known which
loss_curve=0:4.4,100:3,400:2.1     a curve, step:loss; with +-0.1@70%: so near it will be on average
text=It overfits before step 500@70%      a sentence, which the learner judges afterwards
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from llmlab.core.errors import UsageError, did_you_mean
from llmlab.core.records import from_plain
from llmlab.data.papers import VERDICTS, Paper
from llmlab.notebook.quantities import CHOICE, CLAIM, CURVE, NUMBER, QUANTITIES, TEXT, Quantity, find_quantity

# Nobody is surer than this: beyond, one surprise would outweigh everything else that was ever predicted.
LEAST_CONFIDENCE, MOST_CONFIDENCE = 0.01, 0.99
_LONGEST = 2000  # characters of a sentence
_MOST_POINTS = 1000
_NAMED = re.compile(r"\s*([A-Za-z_][\w.:/-]*)\s*=\s*(.*)", re.DOTALL)
_SURE = re.compile(r"(.*?)\s*@\s*([^@\s%]+)\s*(%?)\s*", re.DOTALL)
_SURE_AT_END = re.compile(r"(.*?)\s*@\s*(\d+(?:\.\d+)?)\s*(%)\s*", re.DOTALL)
_EXAMPLES = "Write val_loss=1.9..2.2@80%, val_loss=2.05+-0.1@80%, overfits=yes@70% or text=... ."


@dataclass(frozen=True)
class Prediction:
    """One prediction of one quantity.

    kind: number, choice, curve or text. confidence: from 0.01 to 0.99, None when none was stated. A number has low
    and high (a range), or is alone (low == high). points: [step, loss], steps ascending. tolerance: of a curve, the
    mean distance within which it will lie.
    """

    quantity: str
    kind: str
    confidence: float | None = None
    low: float | None = None
    high: float | None = None
    choice: str = ""
    points: list[list[float]] = field(default_factory=list)
    tolerance: float | None = None
    text: str = ""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def about(self) -> Quantity:
        return find_quantity(self.quantity)

    @property
    def is_range(self) -> bool:
        return self.low is not None and self.high is not None and self.high > self.low

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without those that say nothing."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "", [])}

    def __str__(self) -> str:
        return format_prediction(self)


def from_dict(values: Mapping[str, Any]) -> Prediction:
    """A prediction from `as_dict`. UsageError when it is none."""
    try:
        return from_plain(Prediction, values)
    except (ValueError, TypeError) as error:
        raise UsageError("A prediction in a file cannot be read.", f"{error}.") from error


def parse_prediction(line: str) -> Prediction:
    """The prediction that a line states. Raises UsageError in a sentence that says how to write it."""
    named = _NAMED.fullmatch(line)
    if named is None:
        if "=" in line or len(line.split()) < 2:
            raise UsageError(f"{line!r} is not a prediction.", "", _EXAMPLES)
        return _text(line)
    name, said = named[1], named[2].strip()
    quantity = find_quantity(name)
    if quantity.answer == TEXT:
        return _text(said)
    if not said:
        raise UsageError(f"{name} is given no value.", "", _EXAMPLES)
    said, confidence = _confidence(said)
    if quantity.answer == CURVE:
        said, tolerance = _tolerance(said)
        return Prediction(name, CURVE, confidence, points=_points(name, said), tolerance=tolerance)
    if ends := range_ends(said):
        if len(ends) != 2:
            raise UsageError(f"{said!r} is not a range.", "A range has two ends.", f"Write {name}=1.9..2.2@80%.")
        return Prediction(name, NUMBER, confidence, low=_number(name, ends[0]), high=_number(name, ends[1]))
    middle, tolerance = _tolerance(said)
    if tolerance is not None:
        at = _number(name, middle)
        return Prediction(name, NUMBER, confidence, low=_tidy(at - tolerance), high=_tidy(at + tolerance))
    if quantity.answer == CHOICE:
        return Prediction(name, CHOICE, confidence, choice=said)
    at = _number(name, said)
    return Prediction(name, NUMBER, confidence, low=at, high=at)


def parse_check_prediction(line: str, paper: Paper, tested: Sequence[str]) -> Prediction:
    """The prediction that a line states about a check of that paper: `keys=not supported@60%`, or `text=...`.

    tested: ids of the claims on which the check will say something. UsageError for others, and for no verdict.
    """
    name, sign, said = line.partition("=")
    id = name.strip().removeprefix(f"{CLAIM}{paper.name}/")
    known = {claim.id for claim in paper.claims}
    if not sign or (id not in known and any(id == q.name for q in QUANTITIES if not q.subject)):
        return parse_prediction(line)
    paper.claim(id)  # or it says which there are
    if id not in tested:
        raise UsageError(
            f"This check does not test {id!r}, so nothing would come of the prediction.",
            f"It tests: {', '.join(tested)}.",
            "Choose the claims with --claims.",
        )
    verdict, at, sure = said.partition("@")
    return parse_prediction(f"{CLAIM}{paper.name}/{id}={_verdict(id, verdict)}{at}{sure}")


def _verdict(id: str, words: str) -> str:
    """`Not-supported` is `not supported`; UsageError for what is not a verdict, with the nearest one."""
    verdict = " ".join(words.casefold().replace("-", " ").replace("_", " ").split())
    if verdict not in VERDICTS:
        raise UsageError(
            f"{words.strip()!r} is not a verdict.",
            f"There are: {', '.join(VERDICTS)}.",
            did_you_mean(verdict, VERDICTS, cutoff=0.4) or f'Write "{id}=not supported@60%".',
        )
    return verdict


def range_ends(said: str) -> list[str]:
    """What stands around `..`, or around `to` between numbers: 1.9..2.2, 1.9 to 2.2; [] where neither is there."""
    ends = re.split(r"\.\.|\s+to\s+(?=[-+−.\d])", said)
    return ends if len(ends) > 1 else []


def format_prediction(prediction: Prediction) -> str:
    """The line that `parse_prediction` reads back as the same prediction."""
    sure = "" if prediction.confidence is None else f"@{number_text(_tidy(100 * prediction.confidence))}%"
    return f"{prediction.quantity}={said(prediction)}{sure}"


def said(prediction: Prediction) -> str:
    """What it says, without the name and the confidence."""
    if prediction.kind == TEXT:
        return prediction.text
    if prediction.kind == CHOICE:
        return prediction.choice
    if prediction.kind == CURVE:
        points = ",".join(f"{number_text(step)}:{number_text(loss)}" for step, loss in prediction.points)
        return points if prediction.tolerance is None else f"{points}+-{number_text(prediction.tolerance)}"
    low, high = prediction.low or 0.0, prediction.high or 0.0
    return f"{number_text(low)}..{number_text(high)}" if high > low else number_text(low)


def number_text(value: float) -> str:
    """A number in as few digits as read back as the same."""
    for digits in range(6, 17):
        text = f"{value:.{digits}g}"
        if float(text) == value:
            return text
    return repr(value)


def _tidy(value: float) -> float:
    """Without what binary fractions add to decimal ones: 2.05 - 0.1 is 1.95."""
    return float(f"{value:.12g}")


def _text(words: str) -> Prediction:
    sure = _SURE_AT_END.fullmatch(words)  # a sentence may hold other @ signs
    confidence = None if sure is None else _share(sure[2], percent=True)
    return Prediction("text", TEXT, confidence, text=" ".join((words if sure is None else sure[1]).split()))


def _confidence(words: str) -> tuple[str, float | None]:
    if "@" not in words:
        return words, None
    sure = _SURE.fullmatch(words)
    if sure is None:
        raise UsageError(f"What is written after @ in {words!r} is not a confidence.", "", "Write @80%.")
    return sure[1], _share(sure[2], percent=bool(sure[3]))


def _share(words: str, *, percent: bool) -> float:
    """80%, 80 and 0.8 are the same."""
    try:
        value = float(words)
    except ValueError:
        raise UsageError(f"{words!r} is not a confidence.", "", "Write @80%.") from None
    # Through the decimal text, so that 55 % is 0.55 and not 0.5500000000000001.
    return float(f"{value / 100 if percent or value > 1 else value:.6g}")


def _tolerance(words: str) -> tuple[str, float | None]:
    before, sign, after = words.replace("±", "+-").partition("+-")
    if not sign:
        return words, None
    tolerance = _number("The tolerance", after)
    if tolerance <= 0:
        raise UsageError(f"A tolerance is above 0, and not {after.strip()}.", "", "Write val_loss=2.05+-0.1@80%.")
    return before, tolerance


def _points(name: str, words: str) -> list[list[float]]:
    points = []
    for place in words.split(","):
        step, colon, loss = place.partition(":")
        if not colon:
            raise UsageError(f"{place!r} is not a point of a curve.", "", f"Write {name}=0:4.4,100:3,400:2.1.")
        points.append([_number(name, step), _number(name, loss)])
    return points


def _number(name: str, words: str) -> float:
    try:
        value = float(words)
    except ValueError:
        hint = f"Write the range with two dots: {name}=1.9..2.2@80%." if re.search(r"\d\s*-\s*\d", words) else _EXAMPLES
        raise UsageError(f"{name} is a number, and not {words.strip()!r}.", "", hint) from None
    return value


def _check(prediction: Prediction) -> None:
    name, confidence = prediction.quantity, prediction.confidence
    quantity = find_quantity(name)
    if confidence is not None and not LEAST_CONFIDENCE <= confidence <= MOST_CONFIDENCE:
        raise UsageError(
            f"{name} is predicted with a confidence of {100 * confidence:g} %.",
            "A confidence is between 1 % and 99 %.",
            "Write @80%.",
        )
    allowed = {NUMBER: (NUMBER,), CHOICE: (CHOICE, NUMBER), CURVE: (CURVE,), TEXT: (TEXT,)}[quantity.answer]
    if prediction.kind not in allowed:
        raise UsageError(f"{name} is no {prediction.kind}.", f"It is the {quantity.title}.", _EXAMPLES)
    {NUMBER: _check_number, CHOICE: _check_choice, CURVE: _check_curve, TEXT: _check_text}[prediction.kind](
        prediction, quantity
    )


def _check_number(prediction: Prediction, quantity: Quantity) -> None:
    low, high = prediction.low, prediction.high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(f"{quantity.name} is predicted as something that is not a number.", "", _EXAMPLES)
    if quantity.answer == CHOICE and quantity.choices:
        raise UsageError(f"{quantity.name} is one of {' or '.join(quantity.choices)}.", "", _EXAMPLES)
    if low > high:
        raise UsageError(
            f"The range of {quantity.name} goes from {low:g} down to {high:g}.", "", "Write its lower end first."
        )
    if quantity.log and low <= 0:
        raise UsageError(f"The range reaches {low:g}, and the {quantity.title} is above 0.", "", "Raise its lower end.")
    if low == high and prediction.confidence is not None:
        raise UsageError(
            f"{quantity.name} is predicted as exactly {low:g}, with a confidence.",
            "No measured number is ever exactly that.",
            f"Say how near it will be: {quantity.name}={low:g}+-{abs(low) / 20 or 1:.1g}@80%.",
        )


def _check_choice(prediction: Prediction, quantity: Quantity) -> None:
    if not prediction.choice.strip():
        raise UsageError(f"{quantity.name} has an empty prediction.", "", _EXAMPLES)
    if quantity.choices and prediction.choice not in quantity.choices:
        raise UsageError(f"{quantity.name} is {' or '.join(quantity.choices)}, and not {prediction.choice!r}.")


def _check_curve(prediction: Prediction, quantity: Quantity) -> None:
    points, tolerance = prediction.points, prediction.tolerance
    whole = all(len(point) == 2 and all(math.isfinite(value) for value in point) for point in points)
    if not whole or not 2 <= len(points) <= _MOST_POINTS:
        raise UsageError(
            f"The curve of {quantity.name} needs 2 to {_MOST_POINTS} points.", "", f"Write {quantity.name}=0:4.4,400:2."
        )
    if points[0][0] < 0 or any(before[0] >= after[0] for before, after in pairwise(points)):
        raise UsageError(f"The steps of {quantity.name} must ascend from 0 or later.")
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance > 0):
        raise UsageError(f"The tolerance of {quantity.name} is above 0.")
    if (tolerance is None) != (prediction.confidence is None):
        raise UsageError(
            f"A curve takes both a tolerance and a confidence, or neither: {quantity.name}.",
            "",
            "Write both, 0:4.4,400:2+-0.1@70%, or neither.",
        )


def _check_text(prediction: Prediction, quantity: Quantity) -> None:
    if not prediction.text.strip() or len(prediction.text) > _LONGEST:
        raise UsageError(f"A prediction in words has 1 to {_LONGEST} characters.")
