"""Experiments without models: their folders as a worker writes them, with fake runs as their trials."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fakes import FakeRun
from preset_settings import resolve_settings
from PySide6.QtCore import QBuffer, QIODevice
from PySide6.QtGui import QColor, QImage

from llmlab.core.charts import Axis
from llmlab.core.processes import process_start
from llmlab.studies.experiments.kinds import find_kind
from llmlab.studies.experiments.outcomes import (
    LOSS_AXIS,
    STEP_AXIS,
    Chart,
    Curve,
    ExperimentResults,
    Finding,
    Fit,
    Mark,
    Point,
    TrialResult,
    write_results,
)
from llmlab.studies.experiments.plan import Request, lean, make_plan
from llmlab.studies.launcher import create_experiment
from llmlab.studies.plans.records import ExperimentFolder, ExperimentRecord, TrialStatus

RATES = (1e-3, 1e-2, 1e-1)
STEPS = 100


def rate_plan(outputs: Path, name: str = "rates", *, seeds: int = 1, grid: Sequence[float] = RATES) -> ExperimentRecord:
    """A plan of learning rates for runs of 100 steps."""
    kind = find_kind("learning-rate")
    settings = resolve_settings("baby", overrides={"data.corpus": "tiny", "train.steps": STEPS})
    return make_plan(
        Request(kind, lean(settings, kind, ()), outputs, id=name, preset="baby", grid=grid, seeds=seeds, watched=True)
    )


class FakeExperiment:
    """Writes an experiment's folder as its worker does. Its status names this process, so it counts as alive."""

    def __init__(
        self, outputs: Path, name: str = "rates", *, seeds: int = 1, created: float = 1.75e9, **plan: Any
    ) -> None:
        self.outputs = outputs
        self.record = replace(rate_plan(outputs, name, seeds=seeds, **plan), created=created)
        self.folder: ExperimentFolder = create_experiment(outputs, self.record)
        self.runs: dict[str, FakeRun] = {}

    def begin(self, place: int, steps: int, **about: Any) -> FakeRun:
        """The trial at that place of the plan trains, and has made so many steps. about: what FakeRun takes."""
        trial = self.record.trials[place]
        run = FakeRun(
            self.outputs, trial.run, steps=STEPS, seed=trial.seed, created=self.record.created + place, **about
        )
        self.runs[trial.name] = run
        run.start().advance(steps)
        self.say(trial.name, "running", steps)
        return run

    def end(self, place: int, state: str = "finished", note: str = "") -> None:
        """The trial that trains has ended."""
        trial = self.record.trials[place]
        run = self.runs[trial.name]
        if state == "finished":
            run.advance(STEPS - run.step).finish()
        else:
            run.stop()
        self.say(trial.name, state, run.step, note)

    def say(self, trial: str, state: str, step: int, note: str = "") -> None:
        """Notes where a trial stands, and that the worker lives."""
        run = self.runs[trial]
        standing = TrialStatus(
            state, step, STEPS, run.step_event(step).loss, run.losses_of(step)[1], wall_seconds=step / 10, note=note
        )
        self.status(state="running", trial=trial, trials=self.folder.recorded_status().trials | {trial: standing})

    def status(self, **changes: Any) -> None:
        """Changes status.json."""
        pid = os.getpid()
        common = {"pid": pid, "pid_start": process_start(pid), "heartbeat": time.time()}
        common |= {"active_seconds": 10.0, "eta_seconds": 30.0}
        self.folder.write_status(replace(self.folder.recorded_status(), **(common | changes)))

    def write_results(self, losses: Sequence[float] = (3.3, 3.1, 3.2), **more: Any) -> ExperimentResults:
        """Results with a basin, its fit, a diverged place, and a second chart. more: what else they say."""
        points = [Point(x, y, y - 0.02, y + 0.02, 2) for x, y in zip(RATES, losses, strict=True)]
        minimum = Chart(
            "basin",
            "Validation loss by learning rate",
            Axis("learning rate", log=True),
            LOSS_AXIS,
            [Curve("validation loss", points)],
            [
                Fit(
                    "parabola",
                    "y0 + k u^2",
                    {"x0": 0.02},
                    [1e-3, 1e-2, 1e-1],
                    [3.3, 3.1, 3.2],
                    [3.2, 3.0, 3.1],
                    [3.4] * 3,
                )
            ],
            [Mark(1.0, "diverged")],
        )
        curves = [Curve(f"{x:g}", [Point(0, 4.2), Point(STEPS, y)]) for x, y in zip(RATES, losses, strict=True)]
        curves.append(Curve("1", [Point(0, 4.2), Point(20, 190.0)]))
        steps = Chart("over-steps", "Validation loss along training", STEP_AXIS, LOSS_AXIS, curves)
        trials = [
            TrialResult(trial.name, trial.run, trial.group, trial.x, trial.seed, "finished", val_loss=y)
            for trial, y in zip(self.record.trials, losses, strict=False)
        ]
        findings = [
            Finding("best_lr", "best learning rate", 0.01, 0.006, 0.015, text="of the grid"),
            Finding("best_arm", "best arm", None, choice="lr1e-2"),
            Finding("lora_to_full", "not found", None),
        ]
        results = ExperimentResults(
            self.record.id, self.record.kind, True, trials, [minimum, steps], findings, seconds=12.0, **more
        )
        write_results(self.folder, results)
        return results

    def write_report(self, text: str = "The basin is flat.") -> None:
        """report.md with a figure of 1000 x 400 pixels."""
        image = QImage(1000, 400, QImage.Format.Format_RGB32)
        image.fill(QColor("#808080"))
        buffer = QBuffer()
        buffer.open(QIODevice.OpenModeFlag.WriteOnly)
        assert image.save(buffer, "PNG")
        self.folder.figures.mkdir(exist_ok=True)
        (self.folder.figures / "basin.png").write_bytes(bytes(buffer.data().data()))
        report = (
            f"# {self.record.title}\n\n{text}\n\n![basin](figures/basin.png)\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"
        )
        self.folder.report.write_text(report, encoding="utf-8")
