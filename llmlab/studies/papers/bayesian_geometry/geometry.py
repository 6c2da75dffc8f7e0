"""Where beliefs lie: the shape of value vectors, residual stream and keys at positions with a known posterior.

Activations come from the same watched pass as everything else in the lab (`llmlab.anatomy.capture`), so the
measures take any model that it can watch: the lab's GPT, trained or with random weights, and models of transformers.
Letters in shapes: S sequences, N samples (a sequence at a scored position), L layers, H heads of keys, D their width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import require
from llmlab.anatomy.attention_call import AttentionCall
from llmlab.anatomy.capture import Observer, Point, run
from llmlab.anatomy.finding import anatomy_of
from llmlab.core.progress import Progress, quiet
from llmlab.data.synthetic.metrics import entropy
from llmlab.data.synthetic.tasks import Task, held_out
from llmlab.gpt.model import CausalSelfAttention
from llmlab.inspection.spectra import principal_components
from llmlab.studies.papers import statistics

Array = np.ndarray
# Columns that vary less than this share of the largest one's spread are rounding, not signal.
_CONSTANT = 1e-6


@dataclass(frozen=True)
class Samples:
    """Sequences with the positions at which something is known.

    ids: token ids of each sequence. positions: of each, where samples are taken. Over all samples, in that order [N]:
    entropy in bits of the exact posterior (of a real model: of its own prediction), stratum (what could give it away:
    position, length, number of examples), sequence.
    """

    ids: list[list[int]]
    positions: list[list[int]]
    entropy: Array
    stratum: Array
    sequence: Array


def samples_of(task: Task, count: int) -> Samples:
    """The first `count` held-out sequences of a task, its scored positions as samples, strata by position."""
    batches = held_out(task, count)
    ids, posterior, scored = (
        np.concatenate([getattr(batch, name) for batch in batches]) for name in ("ids", "posterior", "scored")
    )
    at = np.array(task.layout.positions)
    sequence, place = np.nonzero(scored)
    # Sums of one posterior in another order differ by rounding, and no rank may hang on that.
    h = entropy(posterior)[sequence, place].round(9)
    return Samples(ids.tolist(), [at[row].tolist() for row in scored], h, at[place], sequence)


@dataclass(frozen=True)
class Activations:
    """What a model has at the samples, by layer: values [N, H D] and residuals (post_ffn) [N, C], keys [N, H, D]."""

    values: list[Array]
    residuals: list[Array]
    keys: list[Array]


class _Taker(Observer):
    """Copies of keys, values and the stream at some positions of one prompt, in some layers."""

    def __init__(self, positions: list[int], layers: Collection[int]) -> None:
        self._positions, self._layers = positions, layers
        self.values: dict[int, Tensor] = {}
        self.keys: dict[int, Tensor] = {}
        self.residuals: dict[int, Tensor] = {}

    def attention(self, layer: int, call: AttentionCall) -> None:
        if layer not in self._layers:
            return
        self.values[layer] = call.value[:, self._positions].transpose(0, 1).flatten(1).float().cpu()  # [P, H D]
        self.keys[layer] = call.key[:, self._positions].transpose(0, 1).float().cpu()  # [P, H, D]

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        if point == "post_ffn" and layer in self._layers:
            self.residuals[layer] = x[self._positions].float().cpu()


def take(
    model: nn.Module, samples: Samples, progress: Progress = quiet, layers: Collection[int] | None = None
) -> Activations:
    """The activations of a model at the samples, one watched pass a sequence. layers: all with attention unless given.

    LabError where the model's attention cannot be watched.
    """
    anatomy = anatomy_of(model)
    require(anatomy.refusals.attention, "Keys and values")
    watched = [layer for layer, block in enumerate(anatomy.blocks) if block.attention is not None]
    chosen = [layer for layer in watched if layers is None or layer in layers]
    takers = []
    for done, (ids, positions) in enumerate(zip(samples.ids, samples.positions, strict=True)):
        progress("Reading sequences", done, len(samples.ids))
        takers.append(_Taker(positions, chosen))
        run(model, anatomy, ids, [takers[-1]], last=True)

    def joined(of: Callable[[_Taker], dict[int, Tensor]]) -> list[Array]:
        # Each layer's parts are let go of as they are joined: of a large model, all of them take gigabytes.
        return [torch.cat([of(taker).pop(layer) for taker in takers]).numpy() for layer in chosen]

    return Activations(joined(lambda t: t.values), joined(lambda t: t.residuals), joined(lambda t: t.keys))


# Manifold ----------------------------------------------------------------------------------------------------------


@dataclass
class Manifold:
    """How samples of one layer lie, and whether their first principal component is entropy.

    pc1, pc12: shares of the variance of z-scored columns along one and two components; participation: how many carry
    it. rho: |Spearman(PC1, H)|; within: the same within strata, None where H is constant in each of them. p, p_within:
    by permuting H within strata, on one sample of each sequence; uncorrected. r2_strata, r2: held-out R² of H from the
    stratum alone, and from stratum and activations; gain: what the latter add. scores: PC1 of each sample, rising with
    H.
    """

    pc1: float
    pc12: float
    participation: float
    rho: float
    within: float | None
    p: float | None
    p_within: float | None
    r2_strata: float
    r2: float
    scores: Array = field(repr=False)

    @property
    def gain(self) -> float:
        return self.r2 - self.r2_strata


def manifold(x: Array, samples: Samples, seed: int = 0) -> Manifold:
    """Measures 1 and 2 of activations [N, C] of one layer."""
    h, strata = samples.entropy, samples.stratum
    z = z_scored(x)
    found = principal_components(torch.from_numpy(z), 2)
    shares = (found.variance / found.total).numpy() if found.total else np.zeros(2)
    scores = ((torch.from_numpy(z).double() - found.mean) @ found.components[0]).numpy()
    rho = statistics.spearman(scores, h)
    varies = any(np.ptp(h[strata == stratum]) > 0 for stratum in np.unique(strata))
    some = statistics.one_of_each(samples.sequence, seed)
    r2_strata, r2 = statistics.r2_beyond_strata(x, h, strata, samples.sequence, seed)
    return Manifold(
        pc1=float(shares[0]),
        pc12=float(shares[:2].sum()),
        participation=statistics.participation_ratio(z),
        rho=abs(rho),
        within=abs(statistics.stratified_spearman(scores, h, strata)) if varies else None,
        p=statistics.overall_permutation_p(scores[some], h[some], strata[some], seed=seed),
        p_within=statistics.stratified_permutation_p(scores[some], h[some], strata[some], seed=seed),
        r2_strata=r2_strata,
        r2=r2,
        scores=scores * (-1 if rho < 0 else 1),
    )


def standard(x: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of the columns of x [N, C]; infinite where one is constant, so that z is 0 there."""
    mean = x.mean(0)
    spread = (x - mean).std(0)
    return mean, np.where(spread <= _CONSTANT * spread.max(initial=0), np.inf, spread)


def z_scored(x: Array) -> Array:
    """Columns less their mean, over their standard deviation; constant ones become 0."""
    mean, spread = standard(x)
    return (x - mean) / spread


# Keys --------------------------------------------------------------------------------------------------------------


@dataclass
class Keys:
    """How near to orthogonal keys are.

    cosine: mean |cos| of pairs of scored keys of one sequence, averaged over heads [S', L], for the S' sequences
    with at least two. gaussian: what Gaussian vectors of their width have. weights: mean |cos| of the columns of W_K
    (x W_K, each of the model's width), a layer; empty where they are not at hand. weights_gaussian: theirs.
    """

    cosine: Array
    gaussian: float
    weights: list[float]
    weights_gaussian: float


def keys_of(model: nn.Module, activations: Activations, samples: Samples) -> Keys:
    """Measure 3."""
    layers = []
    for keys in activations.keys:
        own = (keys[samples.sequence == sequence].transpose(1, 0, 2) for sequence in np.unique(samples.sequence))
        layers.append([float(_cosines(rows).mean()) for rows in own if rows.shape[1] > 1])  # rows: [H, P, D]
    weights = key_weights(model)
    return Keys(
        cosine=np.array(layers).T,
        gaussian=statistics.random_cosine(activations.keys[0].shape[-1]),
        weights=[float(_cosines(weight[None]).mean()) for weight in weights],
        weights_gaussian=statistics.random_cosine(weights[0].shape[1]) if weights else 0.0,
    )


def _cosines(rows: Array) -> Array:
    """|cos| of all pairs of different rows [H, P, D] -> [H, pairs]."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    upper = np.triu_indices(rows.shape[1], 1)
    return np.abs(unit @ unit.transpose(0, 2, 1))[:, upper[0], upper[1]]


def key_weights(model: nn.Module) -> list[Array]:
    """The columns of each layer's key projection, as rows [H D, C]; none for models that are not the lab's GPT."""
    found = []
    for block in anatomy_of(model).blocks:
        if isinstance(block.attention, CausalSelfAttention):
            query, key, _ = block.attention.dims
            found.append(block.attention.qkv.weight.detach()[query : query + key].float().cpu().numpy())
    return found


# A whole model -----------------------------------------------------------------------------------------------------


@dataclass
class ModelGeometry:
    """All measures of one model, by layer."""

    values: list[Manifold]
    residuals: list[Manifold]
    keys: Keys


@dataclass(frozen=True)
class Population:
    """Trained models of one shape by seed, ones with random weights, and the samples that all were measured on."""

    trained: Mapping[int, ModelGeometry]
    random: Sequence[ModelGeometry]
    samples: Samples


def measure_geometry(model: nn.Module, samples: Samples, seed: int = 0, progress: Progress = quiet) -> ModelGeometry:
    """Measures 1 to 3 of a model in eval mode. seed: of what is drawn for the tests. Errors as in `take`."""
    found = take(model, samples, progress)
    values, residuals = ([manifold(x, samples, seed) for x in layers] for layers in (found.values, found.residuals))
    return ModelGeometry(values, residuals, keys_of(model, found, samples))
