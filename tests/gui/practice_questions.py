"""Questions of every form, and a model's process that hands them out when it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmlab.core.errors import LabError
from llmlab.practice.question import CHOICE, HEAD, INTERVAL, VALUE, Question
from llmlab_gui.host.process import Request

_FORMS: dict[str, dict[str, Any]] = {
    VALUE: {"low": 3.9, "high": 4.1, "unit": "MB"},
    INTERVAL: {"low": 4.0, "high": 4.0},
    HEAD: {"right": ("1.0",), "panel": "attention", "prompt": "The king", "model": "bar@150"},
    CHOICE: {"choices": ("one <b>", "two"), "right": ("two",)},
}


def question(form: str, number: int = 0) -> Question:
    values = {
        "way": "know",
        "concept": "attention",
        "panel": "parameters",
        "text": "How much?",
        "answer": "4",
        "how": "So.",
    }
    return Question(kind=f"{form}-{number}", form=form, **(values | _FORMS[form]))


class Questions:
    """A model's process that hands out these questions when it is told to."""

    def __init__(self, questions: Sequence[Question | LabError | None]) -> None:
        self.left, self.requests, self.asked = list(questions), [], []

    def practice(self, model: str, seed: int, concept: str, without: Sequence[str], quick: bool = False) -> Request:
        self.asked.append((model, concept, list(without)))
        self.quick = quick
        self.requests.append(Request(lambda: None))
        return self.requests[-1]

    def say(self) -> None:
        """Answers what was asked last."""
        request, said = self.requests.pop(), self.left.pop(0)
        request.end(request.failed if isinstance(said, LabError) else request.answered, said)

    def open(self, model: str) -> Request:
        return Request(lambda: None)

    def tokenize(self, model: str, text: str, beginning: bool) -> Request:
        return Request(lambda: None)

    def shutdown(self) -> None:
        pass
