"""A prediction that can no longer be changed unnoticed: when it was locked, and a seal over all that it says.

The seal is a hash without a secret. It keeps nobody from cheating who wants to; it shows when a file was edited, by
hand or by accident, after the outcome was known.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmlab.errors import UsageError
from llmlab.notebook.predictions import Prediction, from_dict
from llmlab.notebook.quantities import require_askable
from llmlab.records import fits


@dataclass(frozen=True)
class Locked:
    """A prediction as it stands in run.json, experiment.json, paper.json and the notebook.

    locked_at: Unix seconds. at_step: steps that were done by then; above 0 it was late, and does not count in the
    calibration. seal: of the subject, the time, the step and the prediction.
    """

    prediction: Prediction
    locked_at: float
    at_step: int = 0
    seal: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the prediction's own among them."""
        more = {"locked_at": self.locked_at, "at_step": self.at_step, "seal": self.seal}
        return self.prediction.as_dict() | more

    def sound(self, subject: str, about: str) -> bool:
        """Whether it still says what it said when it was locked."""
        return self.seal == _seal(subject, about, self.prediction, self.locked_at, self.at_step)


def lock(
    subject: str, about: str, predictions: Iterable[Prediction | Mapping[str, Any]], *, at_step: int = 0
) -> list[dict[str, Any]]:
    """Predictions about a run, experiment or check, locked now. subject: which of these; about: its id.

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
        seal = _seal(subject, about, prediction, now, at_step)
        locked.append(Locked(prediction, now, at_step, seal).as_dict())
    return locked


def read_locked(values: Mapping[str, Any]) -> Locked | None:
    """From plain values; None when they are damaged. Without time and seal it reads as never locked."""
    try:
        prediction = from_dict(values)
    except UsageError:
        return None
    at, step, seal = values.get("locked_at", 0.0), values.get("at_step", 0), values.get("seal", "")
    if not fits(at, float) or not math.isfinite(at) or not isinstance(step, int) or not isinstance(seal, str):
        return None
    return Locked(prediction, float(at), step, seal)


def _seal(subject: str, about: str, prediction: Prediction, locked_at: float, at_step: int) -> str:
    sealed = [subject, about, locked_at, at_step, prediction.as_dict()]
    return hashlib.sha256(json.dumps(sealed, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
