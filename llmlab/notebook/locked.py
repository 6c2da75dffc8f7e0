"""A prediction as it is locked at the start: when that was, and a hash over all that it says.

The hash tells whether a record was edited before the notebook sealed what stands in it (llmlab.notebook.seals).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmlab.core.errors import UsageError
from llmlab.core.records import fits, require_time
from llmlab.notebook.predictions import Prediction, from_dict
from llmlab.notebook.quantities import require_askable
from llmlab.notebook.seals import ALTERED, BEFORE


@dataclass(frozen=True)
class Locked:
    """A prediction as it stands in run.json, experiment.json, paper.json and the notebook.

    locked_at: Unix seconds. at_step: steps that were done by then; above 0 it was late, and does not count in the
    calibration. seal: of what kind of thing it is about, the time, the step and the prediction.
    """

    prediction: Prediction
    locked_at: float
    at_step: int = 0
    seal: str = ""

    def as_dict(self) -> dict[str, Any]:
        more = {"locked_at": self.locked_at, "at_step": self.at_step, "seal": self.seal}
        return self.prediction.as_dict() | more

    def found(self, subject: str, about: str) -> str:
        """ "" when it still says what it said when it was locked, BEFORE when so by a version without a chain of
        seals, which had the name in its hash; else ALTERED."""
        said = [self.locked_at, self.at_step, self.prediction.as_dict()]
        if self.seal == _hash([subject, *said]):
            return ""
        return BEFORE if self.seal == _hash([subject, about, *said]) else ALTERED


def lock(
    subject: str, predictions: Iterable[Prediction | Mapping[str, Any]], *, at_step: int = 0
) -> list[dict[str, Any]]:
    """Predictions about a run, experiment or check, locked now. subject: which of these.

    What is locked already stays as it is. Raises UsageError for plain values that are no prediction, and for what
    only an experiment can answer where a run is meant.
    """
    now = time.time()
    locked = []
    for given in predictions:
        if isinstance(given, Mapping) and given.get("seal"):
            locked.append(dict(given))
            continue
        prediction = given if isinstance(given, Prediction) else from_dict(given)
        require_askable(prediction.quantity, subject)
        seal = _hash([subject, now, at_step, prediction.as_dict()])
        locked.append(Locked(prediction, now, at_step, seal).as_dict())
    return locked


def read_locked(values: Mapping[str, Any]) -> Locked | None:
    """From plain values; None when they are damaged. Without time and seal it reads as never locked."""
    at, step, seal = values.get("locked_at", 0.0), values.get("at_step", 0), values.get("seal", "")
    if not fits(at, float) or not fits(step, int) or not isinstance(seal, str):
        return None
    try:
        require_time("locked_at", at)
        return Locked(from_dict(values), float(at), step, seal)
    except (UsageError, ValueError):
        return None


def _hash(sealed: list[Any]) -> str:
    return hashlib.sha256(json.dumps(sealed, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
