"""The process that runs a check: `python -m llmlab.studies.papers.check <check folder>`.

It works as an experiment's worker does (llmlab.studies.experiments.worker), and asks the paper's own module to
measure and to judge. What was measured on a run is kept in a file, so a check that is interrupted measures nothing
twice.
"""

from __future__ import annotations

import platform
import time
from importlib import import_module
from importlib.metadata import version
from typing import cast

from llmlab import __version__
from llmlab.core.errors import LabError
from llmlab.core.files import read_json
from llmlab.store.history import read_history
from llmlab.studies.experiments.records import Arm, ExperimentStatus
from llmlab.studies.experiments.results import hardware
from llmlab.studies.experiments.worker import ExperimentWorker, serve
from llmlab.studies.papers.catalogue import plan_of
from llmlab.studies.papers.check_report import write_check_report
from llmlab.studies.papers.checks import CheckFolder, options_of
from llmlab.studies.papers.judging import Check, Judge, Measured
from llmlab.studies.papers.records import CheckResult, Verdict, write_result


def main(argv: list[str] | None = None) -> int:
    """Entry of the worker process."""
    return serve("llmlab.studies.papers.check", "check", lambda path: CheckWorker(CheckFolder(path)), argv)


class CheckWorker(ExperimentWorker):
    """Runs the plan of one check from where it stands, and judges."""

    def __init__(self, folder: CheckFolder) -> None:
        """LabError when there is no such check, or this version of the lab cannot judge it."""
        super().__init__(folder)
        self.options = options_of(self.record)
        plan = plan_of(self.options.paper)
        if plan is None:
            raise LabError(f"The lab has no test of {self.options.paper}.", "", "Update the lab to go on with it.")
        self._plan = plan
        self._judge = cast(Judge, import_module(plan.judge))
        self._judged: dict[str, Verdict] = {}
        self._judging_since: float | None = None

    def _measure(self, arm: Arm) -> None:
        """What the paper's module wants to know of a run; then all verdicts that can be given by now."""
        run = self.folder.run_of(arm, self.record.track)
        check = self._check()
        check.kept(arm.name, lambda: self._judge.measure(check, arm, run))
        self._write_results()

    def _write_results(self) -> None:
        """Verdicts on what was measured so far."""
        self._judged |= {one.claim: one for one in self._judge.early(self._check())}
        write_result(self.folder.results_json, self._result())

    def _write_report(self) -> None:
        # What takes long waits for all runs, and for another worker when this one is stopping. A stop that is asked for
        # only now ends it at its next step, so that no check is called finished that has not judged all.
        self._write_results()
        if all(arm.ended for arm in self.status.arms.values()) and self.status.state != "stopping":
            self._require_go()
            self._judging_since = time.monotonic()
            for verdict in self._judge.late(self._check()):
                self._judged[verdict.claim] = verdict
                write_result(self.folder.results_json, self._result())
        write_check_report(self.folder, self.record, self._result())

    def _seconds_left(self, status: ExperimentStatus) -> float:
        """Of the runs, and of judging them."""
        spent = time.monotonic() - self._judging_since if self._judging_since is not None else 0.0
        judging = 0.0 if status.state == "finished" else max(0.0, self.options.judging_seconds - spent)
        return super()._seconds_left(status) + judging

    def _check(self) -> Check:
        """What the judge is given now."""
        check = Check(
            claims=self.options.claims,
            size=self.options.size,
            models=self.options.models,
            outputs=self.folder.outputs,
            measurements=self.folder.measurements,
            progress=self._tell,
        )
        for arm in self.record.arms:
            values = read_json(check.measurements / f"{arm.name}.json")
            if values is not None and self.status.arms[arm.name].state == "finished":
                check.finished.append(Measured(arm, self.folder.run_of(arm, self.record.track), values))
        return check

    def _tell(self, what: str, done: float, total: float) -> None:
        self._require_go()
        self._update(doing=f"{what} ({done / total:.0%})" if total else what)

    def _result(self) -> CheckResult:
        histories = [read_history(self.folder.run_of(arm, self.record.track)) for arm in self.record.arms]
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


if __name__ == "__main__":
    raise SystemExit(main())
