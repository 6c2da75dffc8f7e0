"""Predictions and what became of them, as sentences: the same in the terminal, the window and the exported file."""

from __future__ import annotations

from llmlab.notebook.entries import DONE, OPEN, TO_JUDGE, TO_LEARN, Entry, Line
from llmlab.notebook.predictions import Prediction, number_text, said
from llmlab.notebook.quantities import CHOICE, CURVE, NUMBER, TEXT
from llmlab.notebook.scoring import Score
from llmlab.notebook.seals import BEFORE, LATE

STATES = {OPEN: "waiting", TO_JUDGE: "to judge", TO_LEARN: "to learn from", DONE: "done"}
# In bits: from there on an outcome is a surprise (one in four), and a great one (one in thirty-two).
SURPRISING, _STRONG = 2.0, 5.0


def stated(prediction: Prediction, *, surely: bool = True) -> str:
    """What a prediction says: `final validation loss: 1.9 to 2.2, 80 % sure`. surely: with the confidence."""
    sure = f", {100 * prediction.confidence:.3g} % sure" if surely and prediction.confidence is not None else ""
    if prediction.kind == TEXT:
        return f"“{prediction.text}”{sure}"
    if prediction.kind == CURVE:
        near = "" if prediction.tolerance is None else f", within {number_text(prediction.tolerance)} on average"
        return f"{prediction.about.label}: a curve through {len(prediction.points)} points{near}{sure}"
    what = said(prediction).replace("..", " to ") if prediction.is_range else said(prediction)
    return f"{prediction.about.label}: {what}{_percent(prediction)}{sure}"


def outcome_text(prediction: Prediction, score: Score) -> str:
    """What came, in four digits: `2.053`, `34.38 %`; of large numbers all: `24,012`."""
    if isinstance(score.outcome, str):
        return score.outcome
    if prediction.kind == CURVE:
        return f"{score.outcome:.3g} away on average"
    # Above, four digits would be written with an exponent.
    number = f"{score.outcome:,.0f}" if abs(score.outcome) >= 10_000 else f"{score.outcome:.4g}"
    return f"{number}{_percent(prediction)}"


def _percent(prediction: Prediction) -> str:
    return " %" if prediction.about.unit == "%" else ""


def verdict(line: Line) -> str:
    """`inside`, `outside`, `right`, `wrong`, or how far away; `altered`; empty when nothing can be said."""
    prediction, score = line.locked.prediction, line.score
    if line.altered:
        return "altered"
    if score is None:
        return ""
    if prediction.kind in (CHOICE, TEXT):
        return "right" if score.right else "wrong"
    if score.right is not None:
        return "inside" if score.right else "outside"
    return f"{score.error:.3g} away" if score.error is not None and prediction.kind == NUMBER else ""


def outcome_sentence(line: Line) -> str:
    """`You predicted val_loss: 1.9 to 2.2, 80 % sure. The outcome was 2.053: inside.`, or what was altered."""
    prediction, score = line.locked.prediction, line.score
    words, judged = f"You predicted {stated(prediction)}.", verdict(line)
    if score is None:
        words += "" if line.altered else f" {_missing(line)}"
    elif prediction.kind == TEXT:
        words += f" You judged it {score.outcome if line.altered else judged}."
    else:
        words += f" {'It lay' if prediction.kind == CURVE else 'The outcome was'} {outcome_text(prediction, score)}"
        words += f": {judged}." if judged and not line.altered else "."
    return f"{words} {altered_sentence(line)}".rstrip()


def altered_sentence(line: Line) -> str:
    """`Altered: run.json says something else now. It counts as a miss.`; empty when it was not."""
    if not line.altered:
        return ""
    counts = line.locked.prediction.confidence is not None
    return f"Altered: {line.altered}.{' It counts as a miss.' if counts else ''}"


def remarks(line: Line) -> list[str]:
    """What else is to be known of a prediction: it was late, or sealed late."""
    found = []
    if line.locked.at_step:
        found.append(f"made at step {line.locked.at_step:,}, so it does not count in the calibration")
    elif line.found == LATE:
        found.append("sealed only after the first step, so it does not count in the calibration")
    elif line.found == BEFORE:
        found.append("made before version 0.5, so it was not sealed at the start")
    return found


def surprise_text(bits: float | None) -> str:
    """`0.3 bits`, with a word for what that means; empty when it cannot be told."""
    if bits is None:
        return ""
    word = "little surprise" if bits < SURPRISING else "a surprise" if bits < _STRONG else "a great surprise"
    return f"{bits:.1f} bits: {word}"


def state_words(entry: Entry) -> str:
    return STATES[entry.state]


def _missing(line: Line) -> str:
    entry = line.entry
    if entry.scored_at is None:
        return "The result is not there yet."
    if line.locked.prediction.about.by_hand:
        return "Only you can say what came of it."
    return "The result does not tell what came of it."
