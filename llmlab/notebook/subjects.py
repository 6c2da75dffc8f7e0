"""What can be predicted about, as the notebook sees it: runs here, experiments and checks from whoever knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from llmlab.notebook.entries import Entry
from llmlab.notebook.outcomes import Outcomes, read_facts
from llmlab.notebook.quantities import RUN
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder


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
    return Subject(
        RUN,
        run.id,
        run.run_json.name,
        begun,
        str(run.path),
        info.settings.title,
        info.created,
        steps,
        info.predictions,
        outcomes,
        now,
    )
