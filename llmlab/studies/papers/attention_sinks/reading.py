"""What a model does with a set of prompts: how much attention the first tokens get, and how long the stream is.

All of it comes from the lab's own watched pass (`llmlab.anatomy.capture`) and is summed up while it passes by, so
memory holds one layer's pattern at a time. With A [T, T] a head's pattern (row: query i, column: key j), the share on
the key j is the mean of A_ij over the queries behind it, i > j: a token always sees itself, which says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy, require
from llmlab.anatomy.capture import Observer, Point, run
from llmlab.anatomy.finding import anatomy_of
from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, quiet
from llmlab.core.signs import count_text
from llmlab.studies.papers.attention_sinks.thresholds import OTHER_EARLY
from llmlab.studies.papers.prompts import Prompts

K = TypeVar("K")
T = TypeVar("T")
Array = np.ndarray
_TINY = 1e-30  # a stream of zeros has no logarithm
_DIGITS = 6  # of a share: an interval over prompts is a thousand times as wide


def uniform_share(tokens: int, key: int = 0) -> float:
    """What uniform causal attention gives the key, over the queries behind it: the mean of 1 / (i + 1), i > key.

    For the first of T tokens (1/2 + ... + 1/T) / (T - 1): 0.059 of 64.
    """
    return float(np.mean([1 / (query + 1) for query in range(key + 1, tokens)]))


class Shares(Observer):
    """Mean attention to some keys, of every head, in one prompt."""

    def __init__(self, anatomy: Anatomy, time: int, keys: Sequence[int]) -> None:
        """time: tokens of the prompt, T. keys: positions, each before the last token."""
        self._time, self._keys = time, keys
        self._sums = torch.zeros(len(keys), anatomy.n_layer, anatomy.n_head, device=anatomy.unembedding.device)

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        """Adds rows `first` on of a layer's patterns [H, q, K]."""
        for place, key in enumerate(self._keys):
            behind = max(key + 1 - first, 0)
            self._sums[place, layer] += pattern[:, behind:, key : key + 1].float().sum((1, 2))

    def results(self) -> Array:
        """[keys, L, H]; 0 in layers without a pattern."""
        queries = torch.tensor([self._time - 1 - key for key in self._keys], device=self._sums.device)
        return np.asarray((self._sums / queries[:, None, None]).cpu().numpy())


class StreamNorms(Observer):
    """Norms of the residual stream before the first block and after each one: logs of them, since they grow."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.others = np.zeros(anatomy.n_layer + 1)  # mean ln |x| over all tokens but the first
        self.first = np.zeros(anatomy.n_layer + 1)  # ln |x| of the first token

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        """Measures the stream at the ends of a block, [T, C]."""
        if point == "post_ffn" or (point == "pre_attn" and layer == 0):
            logs = torch.linalg.vector_norm(x.double(), dim=-1).clamp_min(_TINY).log()
            place = layer + (point == "post_ffn")
            self.first[place], self.others[place] = float(logs[0]), float(logs[1:].mean())


@dataclass
class Reading:
    """What one model did with P prompts of T tokens. L: layers with a pattern, in the order of `layers`.

    depth: blocks of the model. shares: on the first token, mean over heads [P, L]. heads: the same of each head, mean
    over prompts [L, H]. early: on each of the tokens behind it, upper half of the layers [P, OTHER_EARLY].
    norms, first_norms: ln of the stream's norm before the first block and after each [P, depth + 1], the mean over
    all tokens but the first, and the first token's. domains: of each prompt.
    """

    tokens: int
    depth: int
    layers: list[int]
    shares: list[list[float]]
    heads: list[list[float]]
    early: list[list[float]]
    norms: list[list[float]]
    first_norms: list[list[float]]
    domains: list[str]

    @property
    def upper(self) -> Array:
        """The share on the first token in the upper half of the layers, of each prompt [P]."""
        return np.asarray(np.array(self.shares)[:, in_upper_half(self.layers, self.depth)].mean(1))


def in_upper_half(layers: Sequence[int], depth: int) -> list[int]:
    """The positions in `layers` of those from depth / 2 (rounded down) on."""
    return [place for place, layer in enumerate(layers) if layer >= depth // 2]


def watched_layers(anatomy: Anatomy) -> list[int]:
    """Layers that have a pattern. LabError where none of the upper half has, or patterns cannot be trusted."""
    require(anatomy.refusals.attention, "Attention patterns")
    layers = [layer for layer, block in enumerate(anatomy.blocks) if block.attention is not None]
    if not in_upper_half(layers, anatomy.n_layer):
        raise LabError("Its upper layers have no attention pattern.", "", "Name a model with attention in its layers.")
    return layers


def read(model: nn.Module, prompts: Prompts, progress: Progress = quiet) -> Reading:
    """One watched pass a prompt. LabError where the model's attention cannot be watched."""
    anatomy = anatomy_of(model)
    layers = watched_layers(anatomy)
    tokens = len(prompts.ids[0])
    keys = range(min(1 + OTHER_EARLY, tokens - 1))
    shares, norms = [], []
    for done, ids in enumerate(prompts.ids):
        progress("Reading prompts", done, len(prompts.ids))
        observers = Shares(anatomy, tokens, keys), StreamNorms(anatomy)
        run(model, anatomy, ids, observers, last=True)
        shares.append(observers[0].results()[:, layers])
        norms.append(observers[1])
    found = np.stack(shares)  # [P, keys, L, H]
    upper = in_upper_half(layers, anatomy.n_layer)
    return Reading(
        tokens=tokens,
        depth=anatomy.n_layer,
        layers=layers,
        shares=plain(found[:, 0].mean(-1)),
        heads=plain(found[:, 0].mean(0)),
        early=plain(found[:, 1:, upper].mean((-2, -1))),
        norms=plain(np.stack([one.others for one in norms])),
        first_norms=plain(np.stack([one.first for one in norms])),
        domains=prompts.domains,
    )


def plain(x: Array) -> list[list[float]]:
    return list(x.astype(float).round(_DIGITS).tolist())


@dataclass
class FirstTokens:
    """Attention to one position, mean over heads in the upper half of the layers, by token [tokens, P].

    names: of the tokens, beginning with the text's own (what the tokenizer puts before every text, where it does).
    first: on the first position, where the token stands there. moved: on `place`, where it stands there instead; of the
    text's own, what that position has anyway. tokens: of a prompt.
    """

    names: list[str]
    place: int
    tokens: int
    first: list[list[float]]
    moved: list[list[float]]


# Several models -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """One model.

    name: as the learner named it. parameters: how many it has. text: on ordinary prompts; untrained: the same
    of models of its shape with random weights; first: with other first tokens. None, or none, where no claim asks.
    """

    name: str
    parameters: int
    text: Reading | None = None
    untrained: tuple[Reading, ...] = ()
    first: FirstTokens | None = None


def in_the_middle(found: Iterable[tuple[K, T]], by: Callable[[T], float]) -> tuple[K, T]:
    """The model whose number is the median one (the higher of the two in the middle): it is shown for all."""
    ordered = sorted(found, key=lambda one: by(one[1]))
    return ordered[len(ordered) // 2]


def about(read: Sequence[tuple[Found, Reading]]) -> dict[str, Sequence[str]]:
    """First columns of a table."""
    return {
        "model": [one.name for one, _ in read],
        "parameters": [count_text(one.parameters) for one, _ in read],
        "blocks": [str(text.depth) for _, text in read],
    }


def listed(numbers: dict[str, float], how: str) -> str:
    return ", ".join(f"{how.format(number)} ({name})" for name, number in numbers.items())
