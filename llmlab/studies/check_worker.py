"""Running the plan of a check, and judging: the paper's own module measures its runs and gives the verdicts."""

from __future__ import annotations

import platform
from importlib import import_module
from importlib.metadata import version
from typing import cast

from llmlab import __version__
from llmlab.core.errors import LabError
from llmlab.core.files import read_json
from llmlab.core.progress import Work
from llmlab.store.history import read_history
from llmlab.studies.experiment_worker import ExperimentWorker
from llmlab.studies.experiments.gathered import hardware
from llmlab.studies.papers.checks import PLANS, options_of
from llmlab.studies.papers.interface import Check, Judge, Measured
from llmlab.studies.papers.records import CheckResult, Verdict, write_result
from llmlab.studies.plans.records import CheckFolder, ExperimentStatus, Trial
from llmlab.studies.report import write_check_report
from llmlab.training import thread_spin


class CheckWorker(ExperimentWorker):
    """Runs the plan of one check from where it stands, and judges."""

    def __init__(self, folder: CheckFolder) -> None:
        """LabError when there is no such check, or this version of the lab cannot judge it."""
        super().__init__(folder)
        self.options = options_of(self.record)
        plan = PLANS.get(self.options.paper)
        if plan is None:
            raise LabError(f"The lab has no test of {self.options.paper}.", "", "Update the lab to go on with it.")
        self._plan = plan
        with thread_spin.sleeping():
            self._judge = cast(Judge, import_module(plan.judge))
        self._judged: dict[str, Verdict] = {}
        self._to_judge = self.options.judging_seconds  # expected, until that has begun

    def _measure(self, trial: Trial) -> None:
        """What the paper's module wants to know of a run; then all verdicts that can be given by now."""
        run = self.folder.run_of(trial, self.record.track)
        check = self._check()
        check.kept(trial.name, lambda: self._judge.measure(check, trial, run))
        self._write_results()

    def _write_results(self) -> None:
        """Verdicts on what was measured so far."""
        self._judged |= {one.claim: one for one in self._judge.early(self._check())}
        write_result(self.folder.results_json, self._result())

    def _write_report(self) -> None:
        # What takes long waits for all runs, and for another worker when this one is stopping. A stop that is asked for
        # only now ends it at its next step, so that no check is called finished that has not judged all.
        self._write_results()
        if all(trial.ended for trial in self.status.trials.values()) and self.status.state != "stopping":
            self._require_go()
            self._work, self._to_judge = Work(self._to_judge), 0.0
            for verdict in self._judge.late(self._check()):
                self._judged[verdict.claim] = verdict
                write_result(self.folder.results_json, self._result())
            self._work = None
        write_check_report(self.folder, self.record, self._result())

    def _seconds_left(self, status: ExperimentStatus) -> float:
        """Of the runs, and of judging them."""
        return super()._seconds_left(status) + self._to_judge

    def _check(self) -> Check:
        """What the judge is given now."""
        check = Check(
            claims=self.options.claims,
            size=self.options.size,
            models=self.options.models,
            outputs=self.folder.outputs,
            measurements=self.folder.measurements,
            progress=self._tell,
            asked=self._tell_all,
        )
        for trial in self.record.trials:
            values = read_json(check.measurements / f"{trial.name}.json")
            if values is not None and self.status.trials[trial.name].state == "finished":
                check.finished.append(Measured(trial, self.folder.run_of(trial, self.record.track), values))
        return check

    def _tell_all(self, what: str, done: float, total: float) -> None:
        if self._work is not None:
            self._work.tell_all(what, done, total)

    def _tell(self, what: str, done: float, total: float) -> None:
        self._require_go()
        if self._work is not None:
            self._work.tell(what, done, total)
        words = f"{what} ({100 * done / total:.0f} %)" if total else what
        self._update(trials=self.status.trials | self._now(), doing=words)

    def _result(self) -> CheckResult:
        histories = [read_history(run) for run in self.folder.runs_of(self.record)]
        verdicts = [self._judged[claim] for claim in self.options.claims if claim in self._judged]
        return CheckResult(
            paper=self.options.paper,
            size=self.options.size,
            verdicts=verdicts,
            command=self.record.command,
            seeds=self.record.seeds,
            versions={"llmlab": __version__, "python": platform.python_version()}
            | {name: version(name) for name in ("torch", "numpy")},
            hardware=hardware(histories),
            seconds=self._seconds(),
            overall=self._plan.overall(verdicts),
            models=self.options.models,
        )
