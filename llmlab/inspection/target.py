"""The target of a question: a token's logit at one position, or its difference to a counterfactual token's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from llmlab.inspection.archive import Array
from llmlab.inspection.questions import Target, token_of
from llmlab.inspection.readout import text_of
from llmlab.models.model import OpenModel


@dataclass(frozen=True)
class LogitTarget:
    """What is watched: the logit of `answer` at a position, minus that of `against` where there is one."""

    position: int
    answer: int
    against: int | None

    def value(self, logits: Tensor) -> float:
        """logits [V] -> logit(answer) - logit(against)."""
        return float(logits[self.answer] - (0.0 if self.against is None else logits[self.against]))

    def logits(self, logits: Tensor) -> Array:
        """logits [V] -> both [2]; NaN for an against that is not there."""
        against = float("nan") if self.against is None else float(logits[self.against])
        return np.array([float(logits[self.answer]), against], dtype=np.float32)

    def strings(self, opened: OpenModel) -> dict[str, str]:
        """For an archive's metadata."""
        return {
            "position": str(self.position),
            "answer": str(self.answer),
            "answer_text": text_of(opened, self.answer),
            "against": "" if self.against is None else str(self.against),
            "against_text": "" if self.against is None else text_of(opened, self.against),
        }


def target_of(opened: OpenModel, question: Target, logits: Tensor, position: int) -> LogitTarget:
    """The target of a question. logits [V]: the unchanged pass at `position`; its most likely token is the default."""
    answer = token_of(opened, question.answer, "answer") if question.answer else int(logits.argmax())
    return LogitTarget(position, answer, token_of(opened, question.against, "against") if question.against else None)
