"""The claims about geometry, checked on trained models and on ones of their shape with random weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from llmlab.core.progress import Progress, quiet
from llmlab.data.synthetic.tasks import Task
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.ablation import Ablation, ablate, layers_verdict
from llmlab.studies.papers.bayesian_geometry.alignment import Alignment, alignment, alignment_verdict
from llmlab.studies.papers.bayesian_geometry.causal import AxisEffects, axis_effects, causal_verdict
from llmlab.studies.papers.bayesian_geometry.corrected import corrected
from llmlab.studies.papers.bayesian_geometry.geometry import ModelGeometry, Population, Samples, measure, samples_of
from llmlab.studies.papers.bayesian_geometry.geometry_verdicts import keys_verdict, manifold_tests, manifold_verdict
from llmlab.studies.papers.bayesian_geometry.plan import ALIGNMENT, CAUSAL, KEYS, LAYERS, MANIFOLD
from llmlab.studies.papers.records import Verdict

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
    work = _Work(progress, _parts(subjects, claims))
    shapes, hmm = None, None
    effects: dict[int, AxisEffects] = {}
    followed: dict[int, Alignment] = {}
    followed_random: list[Alignment] = []
    if subjects.hmm is not None and {MANIFOLD, KEYS} & {*claims}:
        hmm = _population(subjects.hmm, min(sequences, _HMM_SEQUENCES), work)
    if (models := subjects.repeats) is not None:
        if {MANIFOLD, KEYS} & {*claims}:
            shapes = _population(models, sequences, work)
        if CAUSAL in claims:
            samples, answers = samples_of(models.task, sequences), models.task.layout.answers
            for seed, model in sorted(models.trained.items()):
                effects[seed] = axis_effects(model, samples, answers, seed, work.next())
    if shapes is not None and KEYS in claims:
        yield keys_verdict(shapes, hmm)
    if (models := subjects.deep) is not None:
        if LAYERS in claims:
            samples, answers = samples_of(models.task, sequences), models.task.layout.answers
            missed: dict[int, Ablation] = {}
            for seed, model in sorted(models.trained.items()):
                missed[seed] = ablate(model, samples, answers, work.next())
            yield layers_verdict(missed, len(samples.entropy))
        if ALIGNMENT in claims:
            samples = samples_of(models.task, min(sequences, _QUERY_SEQUENCES))
            followed = {seed: alignment(model, samples, work.next()) for seed, model in sorted(models.trained.items())}
            followed_random = [alignment(model, samples, work.next()) for model in _random(models)]
    p = corrected(
        {
            MANIFOLD: manifold_tests(shapes.trained) if shapes is not None and MANIFOLD in claims else {},
            ALIGNMENT: {seed: (one.p,) for seed, one in followed.items()},
            CAUSAL: {seed: (one.p,) for seed, one in effects.items()},
        }
    )
    if shapes is not None and MANIFOLD in claims:
        yield manifold_verdict(shapes, p[MANIFOLD], hmm)
    if followed:
        yield alignment_verdict(followed, followed_random, p[ALIGNMENT])
    if effects:
        assert subjects.repeats is not None
        yield causal_verdict(effects, len(samples_of(subjects.repeats.task, sequences).entropy), p[CAUSAL])


class _Work:
    """Progress over parts of about the same length."""

    def __init__(self, progress: Progress, parts: int) -> None:
        self._progress, self._parts, self._begun = progress, parts, 0

    def next(self) -> Progress:
        """The progress of the next part."""
        number = self._begun
        self._begun += 1
        return lambda what, done, total: self._progress(what, number + (done / total if total else 0), self._parts)


def _parts(subjects: Subjects, claims: Collection[str]) -> int:
    repeats, deep, hmm = (
        len(models.trained) if models is not None else 0 for models in (subjects.repeats, subjects.deep, subjects.hmm)
    )
    parts = repeats * (CAUSAL in claims) + deep * (LAYERS in claims)
    if {MANIFOLD, KEYS} & {*claims}:
        parts += sum(count + bounds.RANDOM_MODELS for count in (repeats, hmm) if count)
    if ALIGNMENT in claims and deep:
        parts += deep + bounds.RANDOM_MODELS
    return parts


def _population(models: Models, sequences: int, work: _Work) -> Population:
    samples: Samples = samples_of(models.task, sequences)
    trained: dict[int, ModelGeometry] = {}
    for seed, model in sorted(models.trained.items()):
        trained[seed] = measure(model, samples, seed, work.next())
    random = [measure(model, samples, number, work.next()) for number, model in enumerate(_random(models))]
    return Population(trained, random, samples)


def _random(models: Models) -> Iterator[nn.Module]:
    for number in range(bounds.RANDOM_MODELS):
        yield models.fresh(_RANDOM_SEED + number).eval()
