"""Rollout is the sum over all paths, and does not depend on how a pattern's rows come."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from small_models import some_ids
from test_heads import random_patterns
from torch import Tensor
from watched_models import SETTINGS, name, scratch, watch_all

from llmlab.anatomy.capture import run
from llmlab.anatomy.finding import scratch_anatomy
from llmlab.core.errors import LabError
from llmlab.inspection.rollout import Rollout


def path_sums(patterns: Tensor) -> Tensor:
    """[L, H, T, T] -> [L, T, T]: for each path down through the layers, the product of its steps, summed."""
    layers, heads, time, _ = patterns.shape
    reached = torch.zeros(layers, time, time)
    for depth in range(layers):
        for path in itertools.product(range(time), repeat=depth + 2):
            weight = 1.0
            for step in range(depth + 1):
                layer, here, below = depth - step, path[step], path[step + 1]
                attention = sum(float(patterns[layer, head, here, below]) for head in range(heads)) / heads
                whole = float(patterns[layer, :, here].sum()) / heads
                weight *= (0.5 * attention + 0.5 * (here == below)) / (0.5 * whole + 0.5)
            reached[depth, path[0], path[-1]] += weight
    return reached


def rolled(patterns: Tensor, step: int) -> Tensor:
    kept: dict[int, Tensor] = {}
    anatomy = scratch_anatomy(scratch(SETTINGS[0], n_layer=len(patterns)))
    watcher = Rollout(anatomy, patterns.shape[-1], lambda layer, x: kept.update({layer: x.clone()}))
    for layer, pattern in enumerate(patterns):
        for first in range(0, pattern.shape[1], step):
            watcher.pattern(layer, first, pattern[:, first : first + step, : first + step])
    return torch.stack([kept[layer] for layer in range(len(patterns))])


@pytest.mark.parametrize("step", [4, 3, 1])
@pytest.mark.parametrize("sink", [1.0, 0.6])
def test_rollout_is_the_sum_over_all_paths(step: int, sink: float) -> None:
    patterns = sink * random_patterns(4, layers=3, heads=2)
    patterns[:, 0] /= sink  # rows whose sums differ from head to head
    reached = rolled(patterns, step)
    assert torch.allclose(reached, path_sums(patterns), atol=1e-6)
    assert torch.allclose(reached.sum(-1), torch.ones(3, 4))


@pytest.mark.parametrize("options", SETTINGS[:2], ids=name)
def test_rollout_of_a_pass_is_that_of_its_patterns(options: dict[str, Any]) -> None:
    model = scratch(options, n_layer=2)
    anatomy, ids, kept = scratch_anatomy(model), some_ids(5), []
    run(model, anatomy, ids, [Rollout(anatomy, 5, lambda layer, x: kept.append(x.clone()))])
    assert torch.allclose(torch.stack(kept), path_sums(watch_all(model, anatomy, ids)[0].all_patterns()), atol=1e-6)


def test_a_model_with_a_layer_without_pattern_is_refused() -> None:
    anatomy = scratch_anatomy(scratch(SETTINGS[0]))
    blocks = (anatomy.blocks[0], dataclasses.replace(anatomy.blocks[1], attention=None))
    with pytest.raises(LabError, match="Layer 1 mixes tokens"):
        Rollout(dataclasses.replace(anatomy, blocks=blocks), 4, lambda layer, x: None)
