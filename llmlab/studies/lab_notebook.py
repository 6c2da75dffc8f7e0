"""The lab's notebook: what experiments and checks of papers are to predictions about them, and what came of each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llmlab.core.progress import Progress, quiet
from llmlab.notebook.entries import Entry
from llmlab.notebook.notebook import Notebook
from llmlab.notebook.outcomes import Outcome, Outcomes
from llmlab.notebook.quantities import CHOICE, CLAIM, find_quantity
from llmlab.notebook.subjects import Candidate, Subject, runs
from llmlab.store.events import BITS
from llmlab.studies.experiments.kinds import KINDS
from llmlab.studies.experiments.outcomes import ExperimentResults, read_results
from llmlab.studies.papers.records import CheckResult, read_verdicts
from llmlab.studies.plans.records import CheckFolder, ExperimentFolder, ExperimentRecord, list_plans


def lab_notebook(outputs: Path, progress: Progress = quiet) -> Notebook:
    """The notebook of an outputs folder, about runs, experiments and checks. Cheap to make."""
    return Notebook(outputs, (runs, _plans), progress)


def _plans(outputs: Path) -> Iterator[Candidate]:
    for folder in (*list_plans(outputs, ExperimentFolder), *list_plans(outputs, CheckFolder)):
        yield Candidate(folder.noun, folder.experiment_json, partial(_subject, folder))


def _subject(folder: ExperimentFolder) -> Subject:
    record, status = folder.record(), folder.recorded_status()
    count = len(record.trials)
    about = f"an experiment of {count} run{'' if count == 1 else 's'}" if count else f"a look at {record.subject}"
    check = isinstance(folder, CheckFolder)

    def now(_entry: Entry) -> Outcomes | None:
        return check_facts(folder) if check else experiment_facts(folder)

    def outcomes(entry: Entry) -> Outcomes | None:
        # Until a check has finished, verdicts on what is there so far may still change.
        if check and folder.recorded_status().state != "finished":
            return None
        facts = now(entry)
        return None if isinstance(facts, ExperimentFacts) and not facts.results.complete else facts

    return Subject(
        folder.subject,
        folder.id,
        folder.experiment_json.name,
        status.state != "planned" or any(trial.state != "planned" for trial in status.trials.values()),
        str(folder.path),
        f"{record.title}: does it hold here?" if check else f"{record.title}, {about}",
        record.created,
        0,
        record.predictions,
        outcomes,
        now,
    )


@dataclass(frozen=True)
class ExperimentFacts(Outcomes):
    """What an experiment's results say."""

    record: ExperimentRecord
    results: ExperimentResults

    @property
    def curve(self) -> list[list[float]]:
        """Of the main chart, the curve that reaches lowest."""
        curves = [curve for chart in self.results.charts[:1] for curve in chart.curves if curve.points and curve.line]
        lowest = min(curves, key=lambda curve: min(point.y for point in curve.points), default=None)
        return [] if lowest is None else sorted([point.x, point.y] for point in lowest.points)

    @property
    def x_axis(self) -> str:
        """As its chart names it."""
        axis = self.record.x_axis
        return f"{axis.label}{f' ({axis.unit})' if axis.unit else ''}"

    @property
    def x_log(self) -> bool:
        """As its chart draws it."""
        return self.record.x_axis.log

    @property
    def result(self) -> str:
        """Its findings."""
        found = [
            f"{finding.label} {finding.choice or f'{finding.value:.4g}'}"
            for finding in self.results.findings
            if finding.choice or finding.value is not None
        ]
        return f"{'; '.join(found)}." if found else "Nothing was found."

    def of(self, name: str) -> Outcome | None:
        """A finding; of a choice, the trial's value nearest to what was found (a fit's minimum lies between).

        None for a loss in bits per byte: losses are predicted in nats per token.
        """
        finding = next((one for one in self.results.findings if one.name == name and one.unit != BITS), None)
        if finding is None or finding.choice:
            return None if finding is None else finding.choice
        value, tried = finding.value, self._tried() if find_quantity(name).answer == CHOICE else []
        if value is None or not tried:
            return value
        return min(tried, key=lambda one: abs(math.log(one / value)) if one > 0 < value else abs(one - value))

    def options(self, name: str) -> int:
        """As many as there are trials that differ in the varied setting."""
        if find_quantity(name).answer != CHOICE:
            return 0
        return len(self.record.trials) if name == "best_arm" else len(self._tried())

    def _tried(self) -> list[float]:
        """The values of the varied setting."""
        kind = KINDS.get(self.record.kind)
        values = {trial.settings.get(kind.setting) for trial in self.record.trials} if kind is not None else set()
        return sorted(float(value) for value in values if isinstance(value, (int, float)))


@dataclass(frozen=True)
class CheckFacts(Outcomes):
    """What a check of a paper's claims says."""

    found: CheckResult

    @property
    def result(self) -> str:
        """Its verdicts."""
        said = [f"{verdict.claim} {verdict.verdict}" for verdict in self.found.verdicts]
        return f"{'; '.join(said)}." if said else "There is no verdict."

    def of(self, name: str) -> Outcome | None:
        """The verdict on a claim of this paper; None when the check has none."""
        of_this = {f"{CLAIM}{self.found.paper}/{verdict.claim}": verdict.verdict for verdict in self.found.verdicts}
        return of_this.get(name)


def experiment_facts(folder: ExperimentFolder) -> ExperimentFacts | None:
    """What came out of an experiment; None before there are results. LabError when its record cannot be read."""
    results = read_results(folder)
    return None if results is None else ExperimentFacts(folder.record(), results)


def check_facts(folder: ExperimentFolder) -> CheckFacts | None:
    """What a check says so far; None before there is a verdict. LabError when verdict.json is damaged."""
    found = read_verdicts(folder)
    return CheckFacts(found) if found is not None and found.verdicts else None
