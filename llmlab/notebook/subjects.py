"""What can be predicted about, as the notebook sees it: runs here, experiments and checks from whoever knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from llmlab.core.settings import PretrainSettings
from llmlab.core.task_settings import TaskSettings
from llmlab.notebook.entries import Entry
from llmlab.notebook.outcomes import Outcomes, read_facts
from llmlab.notebook.quantities import RUN
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder, RunSettings


@dataclass(frozen=True)
class Subject:
    """A run, experiment or check about which something was predicted.

    record: the file's name that says what was asked. begun: its first step was made. outcomes: what became of it, None
    before it has finished. now: the same with what there is already.
    """

    kind: str
    about: str
    record: str
    begun: bool
    folder: str
    title: str
    created: float
    steps: int
    predictions: list[dict[str, Any]]
    outcomes: Callable[[Entry], Outcomes | None]
    now: Callable[[Entry], Outcomes | None]


@dataclass(frozen=True)
class Candidate:
    """What may be a subject. record: the file in which predictions would stand. read: raises LabError when damaged."""

    kind: str
    record: Path
    read: Callable[[], Subject]


Source: TypeAlias = Callable[[Path], Iterator[Candidate]]


def runs(outputs: Path) -> Iterator[Candidate]:
    """The runs of an outputs folder."""
    for run in list_runs(outputs):
        yield Candidate(RUN, run.run_json, partial(_run_subject, run))


def _run_subject(run: RunFolder) -> Subject:
    info = run.info()

    def now(entry: Entry) -> Outcomes | None:
        return read_facts(run, entry.steps)

    def outcomes(entry: Entry) -> Outcomes | None:
        return now(entry) if run.recorded_status().state == "finished" else None

    steps, begun = info.settings.train.steps, run.recorded_status().step > 0
    title = title_of(info.settings)
    return Subject(
        RUN,
        run.id,
        run.run_json.name,
        begun,
        str(run.path),
        title,
        info.created,
        steps,
        info.predictions,
        outcomes,
        now,
    )


def title_of(settings: RunSettings) -> str:
    """A run in a few words: what it does, on what, for how long."""
    steps = f"{settings.train.steps:,} steps"
    if isinstance(settings, PretrainSettings):
        model, text = settings.model, Path(settings.data.corpus).name
        layers = f"{model.n_layer} layer{'' if model.n_layer == 1 else 's'}"
        return f"{layers} of width {model.n_embd} on {text}, {steps}"
    if isinstance(settings, TaskSettings):
        return f"{settings.model.kind} on the task {settings.data.task}, {steps}"
    method = {"lora": "LoRA", "qlora": "QLoRA", "full": "full fine-tuning"}[settings.model.method]
    return f"{method} of {Path(settings.model.base).name} on {Path(settings.data.source).name}, {steps}"
