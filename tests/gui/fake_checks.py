"""Checks of papers without models: their folders as a worker writes them, with verdicts that have charts."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from llmlab.core.charts import Axis, Chart, Series, Table
from llmlab.core.kinds import PAPERS
from llmlab.core.processes import process_start
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, read_paper
from llmlab.studies.launcher import make_folder
from llmlab.studies.papers import checks
from llmlab.studies.papers.checks import CheckRequest, options_of, plan_check
from llmlab.studies.papers.records import CheckResult, PapersCriterion, Statistic, Verdict, write_result
from llmlab.studies.plans.records import CheckFolder, TrialStatus

PAPER, CLAIMS = "induction-heads", ("two-layers", "phase-change")


def curve_chart(points: int = 4) -> Chart:
    """Two curves with a bound."""
    x = [float(place) for place in range(points)]
    return Chart(
        "rise",
        "The score rises",
        Axis("step", "steps"),
        Axis("induction score"),
        [
            Series("seed 1", x, [0.1 * place for place in x], low=[0.1 * p - 0.05 for p in x], high=[0.4] * points),
            Series("chance", [0.0], [0.02], "dashed"),
        ],
        caption="Each seed by itself.",
    )


def bar_chart() -> Chart:
    """Bars by category, and coloured points."""
    return Chart(
        "heads",
        "Heads by layer",
        Axis("layer"),
        Axis("score"),
        [
            Series("trained", [0.0, 1.0], [0.1, 0.9], "bars", [0.05, 0.8], [0.15, 0.95]),
            Series("heads", [0.0, 0.0, 1.0], [0.1, 0.2, 0.9], "points", color=[1.0, 2.0, 3.0]),
        ],
        ["layer 0", "layer 1"],
        color_label="head",
    )


def verdict(claim: str, said: str = INCONCLUSIVE, charts: Sequence[Chart] = ()) -> Verdict:
    """A verdict with a table."""
    return Verdict(
        claim=claim,
        verdict=said,
        statistic=Statistic("score of the best head", 0.934, "bits"),
        threshold="at least 0.5 in four of five seeds",
        n=120,
        seeds=[1],
        papers_criterion=PapersCriterion(True, "They name no bound."),
        reason=f"The reason of {claim}.",
        interval=(0.91, 0.95),
        p=0.004,
        charts=list(charts),
        tables=[Table("Seeds", ["seed", "score | best"], [["1", "0.93"]])],
    )


class FakeCheck:
    """Writes a check's folder as its worker does. Its status names this process, so it counts as alive."""

    def __init__(
        self,
        outputs: Path,
        name: str = "heads",
        *,
        created: float = 1.75e9,
        paper: str = PAPER,
        claims: Sequence[str] = CLAIMS,
        **asked: Any,
    ) -> None:
        request = CheckRequest(read_paper(paper), "minutes", outputs, list(claims), 1, name=name, watched=True, **asked)
        there = mock.patch.multiple(checks, parse=mock.DEFAULT, _parameters=lambda *_: checks.MEASURED_PARAMETERS)
        there = there if request.models else contextlib.nullcontext()
        with there:  # whatever models a test names
            self.record = replace(plan_check(request), created=created)
        self.folder = CheckFolder(outputs / PAPERS / name)
        make_folder(self.folder, self.record)

    def run(self, place: int, step: int = 10, **changes: Any) -> None:
        """The run at that place of the plan trains, those before it have ended."""
        trials = {}
        for number, trial in enumerate(self.record.trials):
            state = "finished" if number < place else "running" if number == place else "planned"
            trials[trial.name] = TrialStatus(state, step if number == place else 0, 100, 2.0, 2.1, wall_seconds=3.0)
        current = self.record.trials[place].name if place < len(self.record.trials) else ""
        self.status(state="running", trial=current, trials=trials, active_seconds=30.0, eta_seconds=90.0, **changes)

    def status(self, **changes: Any) -> None:
        """Changes status.json."""
        pid = os.getpid()
        common = {"pid": pid, "pid_start": process_start(pid), "heartbeat": time.time()}
        self.folder.write_status(replace(self.folder.recorded_status(), **(common | changes)))

    def interrupt(self) -> None:
        """Its worker is gone, although it says that it works."""
        self.status(pid=2**22 + 1, pid_start=1.0, heartbeat=1.0)

    def judge(self, *verdicts: Verdict) -> CheckResult:
        """Writes verdict.json."""
        found = list(verdicts) or [
            verdict(CLAIMS[0], NOT_SUPPORTED, [curve_chart(), bar_chart()]),
            verdict(CLAIMS[1], INCONCLUSIVE, [curve_chart()]),
        ]
        options = options_of(self.record)
        result = CheckResult(options.paper, options.size, found, "llmlab-run paper run", [1], {}, {}, 12.0)
        write_result(self.folder.results_json, result)
        return result

    def finish(self) -> None:
        """All runs have ended, and all is judged."""
        self.run(len(self.record.trials))
        self.status(state="finished", trial="", eta_seconds=0.0)


def work(path: Path) -> None:
    """What the worker of a check does, without training: its runs end, and it judges."""
    check = FakeCheck.__new__(FakeCheck)
    check.folder = CheckFolder(path)
    check.record = check.folder.record()
    check.run(0)
    time.sleep(0.3)  # so that it is seen running
    check.judge()
    check.finish()


if __name__ == "__main__":
    import sys

    work(Path(sys.argv[1]))
