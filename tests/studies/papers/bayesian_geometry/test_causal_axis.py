"""Removing an axis removes it and nothing else, random axes move the stream as far, and the verdict needs both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import lively, shape
from torch import Tensor, nn

from llmlab.anatomy.capture import Intervener, Point, run
from llmlab.anatomy.finding import anatomy_of
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.synthetic.bijection import Bijection
from llmlab.studies.papers.bayesian_geometry.geometry import samples_of
from llmlab.studies.papers.bayesian_geometry.interventions import (
    AxisEffects,
    Removal,
    axis_effects,
    causal_verdict,
    judge_axis,
    scored_positions,
)
from llmlab.studies.papers.records import Verdict

TASK = Bijection(8, 12, repeats=True)
SAMPLES = samples_of(TASK, 20)
MODEL = lively(shape(n_layer=3, block_size=23), 16).requires_grad_(False)
ANSWERS = TASK.layout.answers


class Seen(Intervener):
    """What the next layer reads, and what a removal made of it."""

    def __init__(self, inner: Intervener) -> None:
        self._inner = inner
        self.before: Tensor | None = None
        self.after: Tensor | None = None

    def residual(self, layer: int, point: Point, x: Tensor) -> Tensor | None:
        changed = self._inner.residual(layer, point, x)
        if changed is not None:
            self.before, self.after = x.clone(), changed.clone()
        return changed


def test_an_axis_is_taken_out_at_the_scored_positions_of_one_layer_alone() -> None:
    random = np.random.default_rng(0)
    axis, mean = random.normal(size=32), random.normal(size=32)
    axis /= np.linalg.norm(axis)
    scored = scored_positions(SAMPLES)
    seen = Seen(Removal(1, scored, mean, axis, axis))
    run(MODEL, anatomy_of(MODEL), torch.tensor(SAMPLES.ids), interventions=[seen])
    assert seen.before is not None
    assert seen.after is not None
    assert torch.equal(seen.after[~scored], seen.before[~scored])
    left = (seen.after[scored] - torch.from_numpy(mean).float()) @ torch.from_numpy(axis).float()
    assert left.abs().max() < 1e-4
    other = seen.after[scored] - seen.before[scored]
    assert np.linalg.matrix_rank(other.numpy(), tol=1e-3) == 1


def test_random_axes_move_the_stream_as_far(monkeypatch: pytest.MonkeyPatch) -> None:
    distances = []
    scored = scored_positions(SAMPLES)
    apply = Removal.residual

    def watched(self: Removal, layer: int, point: Point, x: Tensor) -> Tensor | None:
        changed = apply(self, layer, point, x)
        if changed is not None:
            distances.append(float((changed - x)[scored].square().sum(-1).mean()))
        return changed

    monkeypatch.setattr(Removal, "residual", watched)
    found = axis_effects(MODEL, SAMPLES, ANSWERS)
    assert found.layer == 1
    assert len(distances) == 21
    assert distances == pytest.approx([distances[0]] * 21, rel=1e-3)
    assert min(found.effect, *found.random) > 0


def test_a_belief_that_does_not_read_the_stream_cannot_be_moved() -> None:
    model = lively(shape(n_layer=3, block_size=23), 16).requires_grad_(False)
    model.unembedding.zero_()
    found = axis_effects(model, SAMPLES, ANSWERS)
    assert max(found.effect, *found.random) == pytest.approx(0, abs=1e-6)


def test_an_axis_of_the_place_is_not_one_of_entropy_however_much_it_does() -> None:
    class Blind(nn.Embedding):
        """All tokens look alike: what the model believes depends on the position alone."""

        def forward(self, input: Tensor) -> Tensor:
            return super().forward(torch.zeros_like(input))

    model = lively(shape(n_layer=2, block_size=23), 16).requires_grad_(False)
    model.token_embedding.__class__ = Blind
    # Places lie on a line in the stream, as a model that counts what is left would have them.
    line = torch.linspace(-3, 3, 23)[:, None] * model.position_embedding.weight[0]
    model.position_embedding.weight.copy_(line)
    found = axis_effects(model, SAMPLES, ANSWERS)
    assert found.rho > 0.6
    assert found.p_within is not None
    assert found.p_within > 0.05  # nothing but rounding differs at a position
    assert judge_axis(replace(found, effect=1.0)) == INCONCLUSIVE
    assert judge_axis(replace(found, effect=1.0, p_within=0.01)) == SUPPORTED


FOUND = AxisEffects(0, 0.6, 0.5, 0.1, [0.01 * position for position in range(20)], 0.2, 0.05)


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ({}, SUPPORTED),
        ({"rho": 0.59}, INCONCLUSIVE),
        ({"p_within": 0.051}, INCONCLUSIVE),
        ({"p_within": None}, INCONCLUSIVE),
        ({"effect": 0.1801}, NOT_SUPPORTED),  # the 95th percentile of 0, 0.01, ... 0.19 is 0.1805
        ({"effect": 0.1806}, SUPPORTED),
    ],
)
def test_the_axis_must_follow_entropy_and_do_more_than_random_ones(
    values: dict[str, float | None], outcome: str
) -> None:
    assert judge_axis(replace(FOUND, **values)) == outcome


def judged(trained: dict[int, AxisEffects]) -> Verdict:
    return causal_verdict(trained, 100, {seed: (one.p,) for seed, one in trained.items()})


def test_the_verdict_on_the_axis_needs_four_seeds() -> None:
    inert = replace(FOUND, effect=0.05)
    found = judged(dict.fromkeys(range(4), inert) | {4: FOUND})
    assert found.verdict == NOT_SUPPORTED
    # As many as do as much: those of 0.05 to 0.19, and itself.
    assert found.p == pytest.approx(16 / 21)
    assert found.statistic.value == pytest.approx(0.05 / 0.095)
    assert judged(dict.fromkeys(range(3), FOUND)).verdict == INCONCLUSIVE
    assert judged(dict.fromkeys(range(4), FOUND)).verdict == SUPPORTED
    bars, points = found.charts[0].series
    assert bars.y == [0.05] * 4 + [0.5]
    assert (len(points.x), points.x.count(4.0)) == (100, 20)
