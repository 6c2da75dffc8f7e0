"""The samples of a run by step and prompt, and how they are written to a file. No widgets."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from llmlab_gui.runs.history import RunHistory


@dataclass(frozen=True)
class SampleTable:
    """texts[step][prompt]: the continuation, steps ascending. loss(step): a loss at that step, in words."""

    texts: Mapping[int, Mapping[str, str]]
    loss: Callable[[int], str]

    @property
    def steps(self) -> list[int]:
        return list(self.texts)

    def prompts(self, steps: Iterable[int]) -> list[str]:
        """The prompts of those steps, in the order in which they were first used."""
        return list(dict.fromkeys(prompt for step in steps for prompt in self.texts[step]))


NO_SAMPLES = SampleTable({}, lambda step: "")


def read_table(history: RunHistory) -> SampleTable:
    """All samples that a history holds; two samplings at one step are one column."""
    texts: dict[int, dict[str, str]] = {}
    for event in history.samples:
        for sample in event.samples:
            texts.setdefault(event.step, {})[str(sample.get("prompt", ""))] = str(sample.get("text", ""))
    return SampleTable(texts, partial(loss_at, history))


def loss_at(history: RunHistory, step: int) -> str:
    """The validation loss measured at that step, else the training loss of the nearest step before it."""
    evaluated = history.evaluations["step"]
    place = int(np.searchsorted(evaluated, step))
    if place < len(evaluated) and evaluated[place] == step:
        return f"validation loss {history.evaluations['val_loss'][place]:.3f}"
    trained = history.step_columns["step"]
    place = int(np.searchsorted(trained, step, side="right")) - 1
    if place >= 0:
        return f"training loss {history.step_columns['loss'][place]:.3f}"
    return "not trained yet" if step == 0 else ""


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
            whole = prompt + text
            longest = max((len(run) for run in _runs_of_ticks(whole)), default=0)
            fence = "`" * max(3, longest + 1)
            parts.append(f"Prompt: {_one_line(prompt)}\n\n{fence}text\n{whole}\n{fence}")
    return "\n\n".join(parts) + "\n"


def to_csv(table: SampleTable) -> str:
    """One row a sample: step, loss in words, prompt, continuation."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["step", "loss", "prompt", "text"])
    for step in table.steps:
        for prompt, text in table.texts[step].items():
            writer.writerow([step, table.loss(step), prompt, text])
    return buffer.getvalue()


def _one_line(prompt: str) -> str:
    return "`" + prompt.replace("\n", "⏎").replace("`", "'") + "`"


def _runs_of_ticks(text: str) -> list[str]:
    return [run for run in "".join(sign if sign == "`" else " " for sign in text).split(" ") if run]
