"""Measures and judges the claims about the geometry of attention on the runs of a check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

from llmlab.core.records import from_plain
from llmlab.core.task_settings import BIJECTION, DUPLICATES, HMM
from llmlab.data.synthetic.metrics import Calibration
from llmlab.models.scratch import open_task
from llmlab.models.task_models import make_model
from llmlab.store.checkpoints import select
from llmlab.store.run_folder import RunFolder
from llmlab.studies.experiments.records import Arm
from llmlab.studies.papers.bayesian_geometry.architecture import architecture_verdict, compared
from llmlab.studies.papers.bayesian_geometry.calibration_shown import Calibrated, calibration_charts, calibration_table
from llmlab.studies.papers.bayesian_geometry.floors import floors
from llmlab.studies.papers.bayesian_geometry.geometry_check import Models, Subjects, check_geometry
from llmlab.studies.papers.bayesian_geometry.models_check import check_models
from llmlab.studies.papers.bayesian_geometry.plan import (
    ALIGNMENT,
    ARCHITECTURE,
    CALIBRATION,
    CAUSAL,
    DEEP,
    KEYS,
    LAYERS,
    MANIFOLD,
    OF_MODELS,
    SIZES,
)
from llmlab.studies.papers.bayesian_geometry.verdicts import HmmRun, calibration_verdict
from llmlab.studies.papers.judging import Check, Measured
from llmlab.studies.papers.records import Verdict
from llmlab.training.task_run import measure as calibration_of


def measure(check: Check, arm: Arm, run: RunFolder) -> dict[str, Any]:
    """Calibration of the last checkpoint, and of the reasoners that know less."""
    model, task = open_task(run, select(run.checkpoints, "final"))
    count = SIZES[check.size].sequences
    lines = {name: asdict(found) for name, found in floors(task, count).items()}
    return {"model": asdict(calibration_of(model, task, count)), "floors": lines}


def early(check: Check) -> list[Verdict]:
    """Calibration, and the models beside the transformer."""
    found = calibrations(check)
    verdicts = []
    bijection = {one.seed: one.model for one in found if one.is_transformer_on(BIJECTION)}
    hmm = {one.seed: HmmRun(one.model, one.floors) for one in found if one.is_transformer_on(HMM)}
    if CALIBRATION in check.claims and (bijection or hmm):
        verdict = calibration_verdict(bijection, hmm, CALIBRATION)
        verdict.charts = calibration_charts(found)
        verdict.tables = [calibration_table(found)]
        verdicts.append(verdict)
    if ARCHITECTURE in check.claims and compared(found):
        verdicts.append(architecture_verdict(found, ARCHITECTURE))
    return verdicts


def late(check: Check) -> Iterator[Verdict]:
    """Geometry, then pretrained models."""
    yield from _geometry(check)
    yield from check_models(check, [claim for claim in OF_MODELS if claim in check.claims])


def _geometry(check: Check) -> list[Verdict]:
    """Verdicts from all runs together, kept: they stay as they are while the runs do."""
    claims = {MANIFOLD, KEYS, CAUSAL, ALIGNMENT, LAYERS} & {*check.claims}
    if not claims:
        return []

    def found() -> dict[str, Any]:
        subjects = Subjects(
            repeats=_models(check, DUPLICATES), deep=_models(check, SIZES[check.size].deep), hmm=_models(check, HMM)
        )
        return {"verdicts": [asdict(one) for one in check_geometry(subjects, claims, progress=check.progress)]}

    kept = check.kept(f"geometry of {', '.join(one.run.id for one in check.finished)}", found)
    return [from_plain(Verdict, values) for values in kept["verdicts"]]


def _models(check: Check, group: str) -> Models | None:
    """The finished runs of a group; None without any."""
    runs = check.measured(group)
    if not runs:
        return None
    opened = {one.arm.seed: open_task(one.run, select(one.run.checkpoints, "final")) for one in runs}
    task, shape = next(iter(opened.values()))[1], runs[0].run.info().task.model

    def fresh(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return make_model(shape, task.layout)

    return Models(task, {seed: model for seed, (model, _) in opened.items()}, fresh)


def calibrations(check: Check) -> list[Calibrated]:
    """Of all finished runs in the plan's order, those of another depth left out."""
    return [_calibrated(one) for one in check.finished if one.arm.group != DEEP]


def _calibrated(one: Measured) -> Calibrated:
    settings = one.arm.settings
    lines = {name: from_plain(Calibration, line) for name, line in one.values["floors"].items()}
    model = from_plain(Calibration, one.values["model"])
    return Calibrated(settings["data.task"], settings["model.kind"], one.arm.seed, model, lines)
