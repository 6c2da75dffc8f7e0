"""The samples of a run by step and prompt, and how they are written to a file. No widgets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from llmlab.store.history import RunHistory
from llmlab_gui.widgets.saving import csv_text


@dataclass(frozen=True)
class SampleTable:
    """texts[step][prompt]: the continuation, steps ascending. loss_at(step): a loss then, and what it is of."""

    texts: Mapping[int, Mapping[str, str]]
    loss_at: Callable[[int], tuple[float | None, str]]

    def loss(self, step: int) -> str:
        """A loss at that step, in words."""
        value, of = self.loss_at(step)
        return of if value is None else f"{of} loss {value:.3f}"

    @property
    def steps(self) -> list[int]:
        return list(self.texts)

    def prompts(self, steps: Iterable[int]) -> list[str]:
        """The prompts of those steps, in the order in which they were first used."""
        return list(dict.fromkeys(prompt for step in steps for prompt in self.texts[step]))


NO_SAMPLES = SampleTable({}, lambda step: (None, ""))
_NOTHING = "(nothing)"  # the model ended its answer at once


@dataclass(frozen=True)
class CheckedAnswer:
    """What the model answered, and whether a program found it right."""

    text: str
    right: bool


@dataclass(frozen=True)
class CheckedItem:
    """An item that a program checks. answers: by step."""

    prompt: str
    expected: str
    answers: dict[int, CheckedAnswer]


def read_table(history: RunHistory, *, answers: bool = False) -> SampleTable:
    """All samples that a history holds; two samplings at one step are one column.

    answers: the texts answer their prompts, as of a run that fine-tunes, and begin in a line of their own.
    """
    texts: dict[int, dict[str, str]] = {}
    for event in history.samples:
        for sample in event.samples:
            text = str(sample.get("text", ""))
            shown = f"\n{text.strip() or _NOTHING}" if answers else text
            texts.setdefault(event.step, {})[str(sample.get("prompt", ""))] = shown
    return SampleTable(texts, partial(loss_at, history))


def read_answers(history: RunHistory) -> list[CheckedItem]:
    """The items that a program checks, with the model's answers before and after.

    Items that changed sides come first, then those that are wrong.
    """
    found: dict[str, CheckedItem] = {}
    for event in history.scores:
        for item in event.items:
            prompt = str(item.get("prompt", ""))
            checked = found.setdefault(prompt, CheckedItem(prompt, str(item.get("expected", "")), {}))
            answer = str(item.get("answer", "")).strip() or _NOTHING
            checked.answers[event.step] = CheckedAnswer(answer, bool(item.get("right")))
    rights = {prompt: [given.right for given in item.answers.values()] for prompt, item in found.items()}
    return sorted(found.values(), key=lambda item: (len(set(rights[item.prompt])) == 1, all(rights[item.prompt])))


def score_at(history: RunHistory, step: int) -> str:
    """`12 of 32 right`, where the model was asked at that step."""
    found = next((event for event in reversed(history.scores) if event.step == step), None)
    return f"{found.correct} of {found.total} right" if found is not None else ""


def score_note(history: RunHistory) -> str:
    """The exact matches before and after, in a sentence; empty before the first."""
    if not history.scores:
        return ""
    first, newest = history.scores[0], history.scores[-1]
    before = f"{first.correct} of {first.total} held-out items were answered exactly right before training"
    return f"{before}." if newest is first else f"{before}, {newest.correct} of {newest.total} at step {newest.step:,}."


def loss_at(history: RunHistory, step: int) -> tuple[float | None, str]:
    """The validation loss measured at that step, else the training loss of the nearest step before it, in nats per
    token; and which of both it is, or why there is none."""
    evaluated = history.evaluations["step"]
    place = int(np.searchsorted(evaluated, step))
    if place < len(evaluated) and evaluated[place] == step:
        return float(history.evaluations["val_loss"][place]), "validation"
    trained = history.step_columns["step"]
    place = int(np.searchsorted(trained, step, side="right")) - 1
    if place >= 0:
        return float(history.step_columns["loss"][place]), "training"
    return None, "not trained yet" if step == 0 else ""


def spread(steps: Sequence[int], count: int) -> list[int]:
    """At most `count` of the steps, the first and the newest among them, the others evenly between."""
    if len(steps) <= count:
        return list(steps)
    if count <= 1:
        return [steps[-1]]
    return [steps[round(place * (len(steps) - 1) / (count - 1))] for place in range(count)]


def to_markdown(title: str, table: SampleTable) -> str:
    """All samples, a section a step; texts are fenced, so that nothing in them is read as Markdown."""
    parts = [f"# {title}"]
    for step in table.steps:
        loss = f" ({words})" if (words := table.loss(step)) else ""
        parts.append(f"## Step {step}{loss}")
        for prompt, text in table.texts[step].items():
            parts.append(f"Prompt: {_one_line(prompt)}\n\n{fenced(prompt + text)}")
    return "\n\n".join(parts) + "\n"


def fenced(text: str) -> str:
    """As a block in which nothing is read as Markdown."""
    longest = max((len(run) for run in _runs_of_ticks(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def to_csv(table: SampleTable) -> str:
    """One row a sample: step, loss and what it is of, prompt, continuation."""
    rows = [(step, *table.loss_at(step), *pair) for step in table.steps for pair in table.texts[step].items()]
    return csv_text(("step", "loss (nats per token)", "loss of", "prompt", "text"), rows)


def _one_line(prompt: str) -> str:
    return "`" + prompt.replace("\n", "⏎").replace("`", "'") + "`"


def _runs_of_ticks(text: str) -> list[str]:
    return [run for run in "".join(sign if sign == "`" else " " for sign in text).split(" ") if run]
