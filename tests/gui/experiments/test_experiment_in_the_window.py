"""The whole way, with real workers: start an experiment, kill its worker, go on, read the result and the report."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from forks import wait_until
from preset_settings import resolve_settings
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from whole_lab import WholeLab

from llmlab.studies.experiments.kinds import find_kind
from llmlab.studies.experiments.plan import Request, lean, make_plan
from llmlab.studies.plans.records import ExperimentFolder
from llmlab_gui.experiments.list_dock import ExperimentsDock
from llmlab_gui.experiments.report_dock import experiment_report
from llmlab_gui.experiments.result import ExperimentResultDock

# torch's import alone takes seconds on a busy machine.
SMALL = {
    "model.n_layer": 1,
    "model.n_head": 2,
    "model.n_embd": 16,
    "model.block_size": 16,
    "data.corpus": "tiny",
    "data.tokenizer": "char",
    "data.batch_size": 4,
    "train.steps": 400,
    "train.warmup_steps": 5,
    "train.eval_interval": 100,
    "train.eval_sequences": 4,
    "train.threads": 1,
}


@pytest.mark.slow
def test_a_killed_experiment_goes_on_where_it_was_and_ends_with_a_report(
    qtbot: QtBot, lab: WholeLab, outputs: Path
) -> None:
    kind = find_kind("learning-rate")
    settings = lean(resolve_settings("baby", overrides=SMALL), kind, SMALL)
    record = make_plan(Request(kind, settings, outputs, id="rates", preset="baby", grid=(1e-3, 1e-2), watched=True))
    docks = (
        ExperimentsDock(lab, lab.experiments),
        ExperimentResultDock(lab, lab.experiments),
        experiment_report(lab, lab.experiments),
    )
    for dock in docks:
        qtbot.addWidget(dock)
        dock.show()
    listed, result, report = docks
    desk = lab.experiments
    first, second = (trial.name for trial in record.trials)

    def standing(trial: str) -> str:
        row = desk.current()
        return row.standing(trial).state if row is not None else ""

    folder = ExperimentFolder(outputs / "experiments" / record.id)
    kept, killed = (folder.run_of(record.trial(trial), record.track) for trial in (first, second))
    desk.controller.start(record)
    # By its files, and nothing else meanwhile: a trial takes a second.
    wait_until(lambda: (now := killed.recorded_status()).state == "running" and killed.has_worker(now))
    psutil.Process(folder.recorded_status().pid).kill()
    qtbot.waitUntil(lambda: listed.study.resume_button.isVisibleTo(listed) and not desk.live())
    qtbot.waitUntil(lambda: standing(first) == "finished")
    events = kept.events.read_bytes()
    qtbot.waitUntil(lambda: not killed.has_worker(killed.recorded_status()))  # it took its run with it

    qtbot.waitUntil(lambda: not any(row.trains_here for row in lab.runs()))  # or it is asked about
    listed.study.resume_button.click()
    qtbot.waitUntil(lambda: bool(desk.live()))
    qtbot.waitUntil(lambda: folder.status().state == "finished")
    qtbot.waitUntil(lambda: desk.outcome.report is not None and standing(second) == "finished")
    assert kept.events.read_bytes() == events  # what had ended was left alone
    assert result.chart.chart is not None
    assert {point.x for curve in result.chart.chart.curves for point in curve.points} == {1e-3, 1e-2}
    QApplication.processEvents()
    assert record.question in report.browser.toPlainText()
    for dock in docks:
        dock.shutdown()
