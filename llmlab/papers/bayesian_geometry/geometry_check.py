"""The claims about geometry, checked on trained models and on ones of their shape with random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from llmlab.papers.bayesian_geometry import thresholds as bounds
from llmlab.papers.bayesian_geometry.causal import axis_effects, causal_verdict
from llmlab.papers.bayesian_geometry.geometry import measure, samples_of
from llmlab.papers.bayesian_geometry.geometry_verdicts import keys_verdict, manifold_verdict
from llmlab.papers.records import Verdict
from llmlab.papers.tasks import Task
from llmlab.progress import Progress, quiet

MANIFOLD, KEYS, CAUSAL = CLAIMS = ("manifold", "keys", "causal")
# About 2,500 samples of the small task: a rank correlation among so many is known to about 0.04.
SEQUENCES = 400
# Seeds of random weights, apart from any that a run is likely to have.
_RANDOM_SEED = 7_000_000


def check_geometry(
    trained: Mapping[int, nn.Module],
    with_random_weights: Callable[[int], nn.Module],
    task: Task,
    claims: Sequence[str] = CLAIMS,
    sequences: int = SEQUENCES,
    progress: Progress = quiet,
) -> list[Verdict]:
    """Verdicts on `claims`, of CLAIMS, in that order.

    trained: models of one shape by their seed. with_random_weights: a fresh model of that shape, by seed. Models that
    the task's tokens fit; LabError where their attention cannot be watched.
    """
    samples = samples_of(task, sequences)
    seeds, shapes = sorted(trained), bool({MANIFOLD, KEYS} & {*claims})
    parts = (len(trained) + bounds.RANDOM_MODELS) * shapes + len(trained) * (CAUSAL in claims)
    numbers = iter(range(parts))

    def next_part() -> Progress:
        number = next(numbers)
        return lambda what, done, total: progress(what, number + (done / total if total else 0), parts)

    found: list[Verdict] = []
    if shapes:
        measured = {seed: measure(trained[seed].eval(), samples, seed, next_part()) for seed in seeds}
        random = [
            measure(with_random_weights(_RANDOM_SEED + number).eval(), samples, number, next_part())
            for number in range(bounds.RANDOM_MODELS)
        ]
        if MANIFOLD in claims:
            found.append(manifold_verdict(measured, random, samples, MANIFOLD))
        if KEYS in claims:
            found.append(keys_verdict(measured, random, KEYS))
    if CAUSAL in claims:
        answers = task.layout.answers
        effects = {seed: axis_effects(trained[seed].eval(), samples, answers, seed, next_part()) for seed in seeds}
        found.append(causal_verdict(effects, len(samples.entropy), CAUSAL))
    return found
