"""The process that runs a check: `python -m llmlab.papers.check <check folder>`.

It works as an experiment's worker does (llmlab.experiments.worker), and judges the paper's claims at the end. What was
measured on a run is kept in a file, so a check that is interrupted measures nothing twice.
"""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from llmlab import __version__
from llmlab.experiments.history import read_history
from llmlab.experiments.records import Arm
from llmlab.experiments.results import hardware
from llmlab.experiments.worker import ExperimentWorker, serve
from llmlab.files import read_json, write_json
from llmlab.papers.bayesian_geometry.floors import floors
from llmlab.papers.bayesian_geometry.geometry_check import check_geometry
from llmlab.papers.bayesian_geometry.metrics import Calibration
from llmlab.papers.bayesian_geometry.plan import CALIBRATION, SIZES
from llmlab.papers.bayesian_geometry.verdicts import HmmRun, calibration_verdict
from llmlab.papers.check_report import write_check_report
from llmlab.papers.checks import CheckFolder
from llmlab.papers.records import CheckResult, Verdict, write_result
from llmlab.papers.settings import BIJECTION, DUPLICATES, HMM, TRANSFORMER
from llmlab.papers.task_models import make_model
from llmlab.papers.task_run import measure, open_task
from llmlab.records import from_plain
from llmlab.runs.checkpoints import select


def main(argv: list[str] | None = None) -> int:
    """Entry of the worker process."""
    return serve("llmlab.papers.check", "check", lambda path: CheckWorker(CheckFolder(path)), argv)


class CheckWorker(ExperimentWorker):
    """Runs the plan of one check from where it stands, and judges."""

    def _measure(self, arm: Arm) -> None:
        """Calibration of the last checkpoint, and of the reasoners that know less."""
        path = self._measured(arm)
        if read_json(path) is not None:
            return
        run = self.folder.run_of(arm, self.record.track)
        model, task = open_task(run, select(run.checkpoints, "final"))
        count = SIZES[self.record.options["size"]].sequences
        lines = {name: asdict(found) for name, found in floors(task, count).items()}
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"model": asdict(measure(model, task, count)), "floors": lines})
        write_result(self.folder.results_json, self._result(self._calibration()))

    def _write_results(self) -> None:
        """Nothing yet: what a run says is measured first."""

    def _write_report(self) -> None:
        verdicts = self._calibration()
        # Geometry takes a minute, so it waits for all runs, and for another worker when this one is to stop.
        if all(arm.ended for arm in self.status.arms.values()) and not self._stop_wanted():
            verdicts += self._geometry()
        result = self._result(verdicts)
        write_result(self.folder.results_json, result)
        write_check_report(self.folder, self.record, result)

    def _result(self, verdicts: list[Verdict]) -> CheckResult:
        histories = [read_history(self.folder.run_of(arm, self.record.track)) for arm in self.record.arms]
        return CheckResult(
            paper=self.record.options["paper"],
            size=self.record.options["size"],
            verdicts=verdicts,
            command=self.record.command,
            seeds=self.record.seeds,
            versions={"llmlab": __version__, "python": platform.python_version()}
            | {name: version(name) for name in ("torch", "numpy")},
            hardware=hardware(histories),
            seconds=self._seconds(),
            overall="; ".join(f"{one.claim}: {one.verdict}" for one in verdicts),
        )

    def _calibration(self) -> list[Verdict]:
        """The verdict on calibration, once there is a run to judge and it was asked for."""
        bijection = {arm.seed: found["model"] for arm, found in self._found(BIJECTION)}
        hmm = {arm.seed: HmmRun(found["model"], found["floors"]) for arm, found in self._found(HMM)}
        if CALIBRATION not in self.record.options["claims"] or not (bijection or hmm):
            return []
        verdict = calibration_verdict(bijection, hmm, CALIBRATION)
        verdict.evidence |= self._beside()
        return [verdict]

    def _found(self, task: str, kind: str = TRANSFORMER) -> list[tuple[Arm, dict[str, Any]]]:
        """What was measured on the finished runs of a task: {"model": Calibration, "floors": {name: Calibration}}."""
        found = []
        for arm in self.record.arms:
            if (arm.settings["data.task"], arm.settings["model.kind"]) != (task, kind):
                continue
            values = read_json(self._measured(arm))
            if values is not None and self.status.arms[arm.name].state == "finished":
                lines = {name: from_plain(Calibration, line) for name, line in values["floors"].items()}
                found.append((arm, {"model": from_plain(Calibration, values["model"]), "floors": lines}))
        return found

    def _beside(self) -> dict[str, Any]:
        """Evidence besides the two tasks: repeats, the other models, and what knowing nothing costs."""
        evidence: dict[str, Any] = {"duplicates": {}, "beside": {}, "uniform": {}}
        for task in (BIJECTION, DUPLICATES, HMM):
            for arm, found in self._found(task):
                evidence["uniform"][task] = asdict(found["floors"]["uniform"])
                if task == DUPLICATES:
                    evidence["duplicates"][str(arm.seed)] = asdict(found["model"])
        for kind in {arm.settings["model.kind"] for arm in self.record.arms} - {TRANSFORMER}:
            for _, found in self._found(BIJECTION, kind):
                evidence["beside"][kind] = asdict(found["model"])
        return evidence

    def _geometry(self) -> list[Verdict]:
        """Of the runs with repeated keys, where the entropy varies at each place. Raises Stop when one is wanted."""
        claims = [claim for claim in self.record.options["claims"] if claim != CALIBRATION]
        models, task, settings = {}, None, None
        for arm, _ in self._found(DUPLICATES):
            run = self.folder.run_of(arm, self.record.track)
            models[arm.seed], task = open_task(run, select(run.checkpoints, "final"))
            settings = run.info().task
        if not claims or task is None or settings is None:
            return []
        layout, shape = task.layout, settings.model

        def fresh(seed: int) -> torch.nn.Module:
            torch.manual_seed(seed)
            return make_model(shape, layout)

        def tell(what: str, done: float, total: float) -> None:
            self._require_go()
            self._update(doing=f"Geometry: {what} ({done / total:.0%})" if total else f"Geometry: {what}")

        return check_geometry(models, fresh, task, claims, progress=tell)

    def _measured(self, arm: Arm) -> Path:
        return self.folder.measurements / f"{arm.name}.json"


if __name__ == "__main__":
    raise SystemExit(main())
