"""Measures and judges the claims about the geometry of attention, on a check's runs and on models that it names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from llmlab.core.progress import Progress, parts, quiet
from llmlab.core.records import from_plain
from llmlab.core.task_settings import BIJECTION, DUPLICATES, HMM, TaskSettings
from llmlab.data.synthetic.metrics import Calibration
from llmlab.data.synthetic.tasks import Task
from llmlab.models.scratch import open_task
from llmlab.models.source import open_model
from llmlab.models.task_models import make_model
from llmlab.store.checkpoints import select
from llmlab.store.run_folder import RunFolder
from llmlab.studies.papers.agreement import corrected
from llmlab.studies.papers.bayesian_geometry import calibration, focusing, interventions, plan, real_models
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.alignment import Alignment, alignment, alignment_verdict
from llmlab.studies.papers.bayesian_geometry.beliefs import real_models_verdict
from llmlab.studies.papers.bayesian_geometry.focusing import focusing_verdict
from llmlab.studies.papers.bayesian_geometry.geometry import Population, measure_geometry, samples_of
from llmlab.studies.papers.bayesian_geometry.manifold import keys_verdict, manifold_tests, manifold_verdict
from llmlab.studies.papers.interface import Check, Measured, Questions, ask_models
from llmlab.studies.papers.records import Verdict
from llmlab.studies.plans.records import Trial
from llmlab.training.task_run import measure as calibration_of


def measure(check: Check, trial: Trial, run: RunFolder) -> dict[str, Any]:
    """Calibration of the last checkpoint, and of the reasoners that know less."""
    model, task = open_task(run, select(run.checkpoints, "final"))
    count = plan.SIZES[check.size].sequences
    lines = {name: asdict(found) for name, found in calibration.baselines(task, count).items()}
    return {"model": asdict(calibration_of(model, task, count)), "floors": lines}


def early(check: Check) -> list[Verdict]:
    """Calibration, and the models beside the transformer."""
    # Those of another depth are left out.
    found = [_calibrated(one) for one in check.finished if one.trial.group != plan.DEEP]
    verdicts = []
    if plan.CALIBRATION in check.claims and (
        calibration.transformers(found, BIJECTION) or calibration.transformers(found, HMM)
    ):
        verdicts.append(calibration.calibration_verdict(found))
    if plan.ARCHITECTURE in check.claims and calibration.compared(found):
        verdicts.append(calibration.architecture_verdict(found))
    return verdicts


def late(check: Check) -> Iterator[Verdict]:
    """Geometry, then pretrained models."""
    yield from _geometry(check)
    yield from check_models(check, [claim for claim in plan.OF_MODELS if claim in check.claims])


def _geometry(check: Check) -> list[Verdict]:
    """Verdicts from all runs together, kept: they stay as they are while the runs do."""
    claims = {plan.MANIFOLD, plan.KEYS, plan.CAUSAL, plan.ALIGNMENT, plan.LAYERS} & {*check.claims}
    if not claims:
        return []

    def found() -> dict[str, Any]:
        subjects = Subjects(
            repeats=_models_of(check, DUPLICATES),
            deep=_models_of(check, plan.SIZES[check.size].deep),
            hmm=_models_of(check, HMM),
        )
        return {"verdicts": [asdict(one) for one in check_geometry(subjects, claims, progress=check.progress)]}

    kept = check.kept(f"geometry of {', '.join(one.run.id for one in check.finished)}", found)
    return [from_plain(Verdict, values) for values in kept["verdicts"]]


def _models_of(check: Check, group: str) -> Models | None:
    """The finished runs of a group; None without any."""
    runs = check.measured(group)
    if not runs:
        return None
    opened = {one.trial.seed: open_task(one.run, select(one.run.checkpoints, "final")) for one in runs}
    task, shape = next(iter(opened.values()))[1], runs[0].run.info().settings_as(TaskSettings).model

    def fresh(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return make_model(shape, task.layout)

    return Models(task, {seed: model for seed, (model, _) in opened.items()}, fresh)


def _calibrated(one: Measured) -> calibration.Calibrated:
    settings = one.trial.settings
    lines = {name: from_plain(Calibration, line) for name, line in one.values["floors"].items()}
    model = from_plain(Calibration, one.values["model"])
    return calibration.Calibrated(settings["data.task"], settings["model.kind"], one.trial.seed, model, lines)


# Geometry -------------------------------------------------------------------------------------------------------------

# About 2,500 samples of the small task: a rank correlation among so many is known to about 0.04.
SEQUENCES = 400
# The HMM is scored at all its observations, and what is asked of queries is a mean of thousands of rows.
_HMM_SEQUENCES = _QUERY_SEQUENCES = 150
# Seeds of random weights, apart from any that a run is likely to have.
_RANDOM_SEED = 7_000_000


@dataclass(frozen=True)
class Models:
    """Trained models of one shape by seed, in eval mode, and their task. fresh: one with random weights, by seed."""

    task: Task
    trained: Mapping[int, nn.Module]
    fresh: Callable[[int], nn.Module]

    @property
    def by_seed(self) -> list[tuple[int, nn.Module]]:
        """The trained ones in the order of their seeds."""
        return sorted(self.trained.items())


@dataclass(frozen=True)
class Subjects:
    """What is measured; None where no run of it has ended.

    repeats: on the bijection with repeated keys. deep: the same with layers enough for a trend. hmm: on the HMM.
    """

    repeats: Models | None = None
    deep: Models | None = None
    hmm: Models | None = None


def check_geometry(
    subjects: Subjects, claims: Collection[str], sequences: int = SEQUENCES, progress: Progress = quiet
) -> Iterator[Verdict]:
    """Verdicts on those of `claims` that there are models for, each as soon as it stands.

    Those with p-values come last: they are corrected together. LabError where the models' attention cannot be watched.
    """
    work = iter(parts([1] * _parts(subjects, claims), progress))
    shapes, hmm = None, None
    effects: dict[int, interventions.AxisEffects] = {}
    followed: dict[int, Alignment] = {}
    followed_random: list[Alignment] = []
    if subjects.hmm is not None and {plan.MANIFOLD, plan.KEYS} & {*claims}:
        hmm = _population(subjects.hmm, min(sequences, _HMM_SEQUENCES), work)
    if (models := subjects.repeats) is not None:
        if {plan.MANIFOLD, plan.KEYS} & {*claims}:
            shapes = _population(models, sequences, work)
        if plan.CAUSAL in claims:
            samples, answers = samples_of(models.task, sequences), models.task.layout.answers
            for seed, model in models.by_seed:
                effects[seed] = interventions.axis_effects(model, samples, answers, seed, next(work))
    if shapes is not None and plan.KEYS in claims:
        yield keys_verdict(shapes, hmm)
    if (models := subjects.deep) is not None:
        if plan.LAYERS in claims:
            seen, answers = samples_of(models.task, sequences), models.task.layout.answers
            missed = {seed: interventions.ablate(model, seen, answers, next(work)) for seed, model in models.by_seed}
            yield interventions.layers_verdict(missed, len(seen.entropy))
        if plan.ALIGNMENT in claims:
            seen = samples_of(models.task, min(sequences, _QUERY_SEQUENCES))
            followed = {seed: alignment(model, seen, next(work)) for seed, model in models.by_seed}
            followed_random = [alignment(model, seen, next(work)) for model in _random(models)]
    p = corrected(
        {
            plan.MANIFOLD: manifold_tests(shapes.trained) if shapes is not None and plan.MANIFOLD in claims else {},
            plan.ALIGNMENT: {seed: (one.p,) for seed, one in followed.items()},
            plan.CAUSAL: {seed: (one.p,) for seed, one in effects.items()},
        }
    )
    if shapes is not None and plan.MANIFOLD in claims:
        yield manifold_verdict(shapes, p[plan.MANIFOLD], hmm)
    if followed:
        yield alignment_verdict(followed, followed_random, p[plan.ALIGNMENT])
    if effects:
        yield interventions.causal_verdict(effects, len(samples.entropy), p[plan.CAUSAL])


def _parts(subjects: Subjects, claims: Collection[str]) -> int:
    repeats, deep, hmm = (len(one.trained) if one else 0 for one in (subjects.repeats, subjects.deep, subjects.hmm))
    parts = repeats * (plan.CAUSAL in claims) + deep * (plan.LAYERS in claims)
    if {plan.MANIFOLD, plan.KEYS} & {*claims}:
        parts += sum(count + bounds.RANDOM_MODELS for count in (repeats, hmm) if count)
    if plan.ALIGNMENT in claims and deep:
        parts += deep + bounds.RANDOM_MODELS
    return parts


def _population(models: Models, sequences: int, work: Iterator[Progress]) -> Population:
    samples = samples_of(models.task, sequences)
    trained = {seed: measure_geometry(model, samples, seed, next(work)) for seed, model in models.by_seed}
    random = [measure_geometry(model, samples, number, next(work)) for number, model in enumerate(_random(models))]
    return Population(trained, random, samples)


def _random(models: Models) -> Iterator[nn.Module]:
    for number in range(bounds.RANDOM_MODELS):
        yield models.fresh(_RANDOM_SEED + number).eval()


# Pretrained models ----------------------------------------------------------------------------------------------------


def check_models(check: Check, claims: Collection[str]) -> Iterator[Verdict]:
    """Verdicts on `claims`, of FOCUSING and REAL_MODELS. A model that cannot be asked is named with the reason."""

    def questions(reference: str, asked: Progress) -> Questions[dict[str, Any]]:
        told = parts([plan.MODEL_SECONDS[claim] for claim in claims], asked)
        each = zip(claims, told, strict=True)
        return {(claim,): partial(_measured_on, check, claim, reference, by_claim) for claim, by_claim in each}

    found, refused = ask_models(check, questions)
    if plan.FOCUSING in claims:
        yield focusing_verdict(found[plan.FOCUSING], refused[plan.FOCUSING])
    if plan.REAL_MODELS in claims:
        yield real_models_verdict(found[plan.REAL_MODELS], refused[plan.REAL_MODELS])


def _measured_on(check: Check, claim: str, reference: str, asked: Progress) -> dict[str, Any]:
    """What a claim asks of one model, which is opened only where a part is not known yet."""

    def keep(part: str, make: Any) -> dict[str, Any]:
        return check.kept(f"{reference} {claim} {part}", make)

    opened = cache(partial(open_model, reference, check.outputs, check.telling(f"{reference}: opening", quiet)))
    if claim == plan.FOCUSING:
        say = check.telling(f"{reference}: patterns", asked)
        return focusing.of_model(opened, focusing.SIZES[check.size], 0, say, keep)
    say = check.telling(f"{reference}: evidence and texts", asked)
    return real_models.of_model(opened, real_models.SIZES[check.size], 0, say, keep)
