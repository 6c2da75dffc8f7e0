"""Does a pretrained model update its beliefs as Bayes' rule does, and do its values follow the entropy? Measurements.

Two sets of prompts are read, all at their last token. In the evidence prompts (`evidence_prompts`) the posterior is
known, and four controls say what else could give the same picture. In ordinary texts of equal length, mixed or of one
domain, nobody knows it; the model's own entropy over the next token stands in, as in paper III.

Activations come from `geometry.take`. The stream behind the last layer gives the beliefs as well: the model's own
final norm and unembedding make logits of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.finding import anatomy_of
from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, parts, quiet
from llmlab.data.synthetic.metrics import divergence, entropy
from llmlab.models.model import OpenModel, untrained_like
from llmlab.studies.papers import statistics
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.evidence_prompts import (
    CONDITIONS,
    PERMUTED,
    REPORTS,
    TRUE,
    EvidencePrompts,
    evidence_prompts,
)
from llmlab.studies.papers.bayesian_geometry.geometry import Activations, Manifold, Samples, manifold, take
from llmlab.studies.papers.bayesian_geometry.pretrained import TOKENS, Keep, at_once, text_prompts

Array = np.ndarray
_ROWS = 64  # last tokens whose logits over the whole vocabulary are held at once
_DRAWS = 500  # of the bootstrap over prompts: each draw is a rank correlation
_DIGITS = 5
_BY_LAYER = ("pc1", "pc12", "participation", "rho", "within", "gain")


@dataclass(frozen=True)
class Size:
    """evidence: prompts for each number of reports. compared: of those with two reports and more, so many of each are
    read by models with random weights, too. texts: mixed ones, and ones of the domain. pool: of each domain, from
    which the mixed ones are chosen. ValueError for one of evidence or of compared, which has no order.
    """

    evidence: int
    compared: int
    texts: int
    pool: int

    def __post_init__(self) -> None:
        if min(self.evidence, self.compared) < 2:
            raise ValueError(f"evidence is {self.evidence}, compared {self.compared}: both are at least 2")


# Ten models with random weights take most of the time: at the smallest size they read fewer prompts, in all layers.
SIZES = {"minutes": Size(50, 25, 75, 40), "hour": Size(100, 100, 150, 80), "paper": Size(200, 200, 300, 160)}


def of_model(
    opened: Callable[[], OpenModel], size: Size, seed: int = 0, progress: Progress = quiet, keep: Keep = at_once
) -> dict[str, Any]:
    """All measures of one model: plain values, as `real_models_verdict` takes them.

    opened: the model, asked for when a part is made; keep: as `at_once`, or remembers parts. LabError where its
    tokenizer cannot write the prompts, or the attention of its last layer cannot be watched.
    """
    models = range(seed * bounds.RANDOM_MODELS, (seed + 1) * bounds.RANDOM_MODELS)
    counts = [len(CONDITIONS) * len(REPORTS) * size.evidence, 2 * size.texts, *(3 * size.compared for _ in models)]
    told = parts(counts, progress)
    found = dict(keep("evidence", lambda: _of_evidence(opened(), size, seed, told[0])))
    found["texts"] = keep("texts", lambda: _of_texts(opened(), size, seed, told[1]))
    found["untrained"] = [
        keep(f"random weights {number}", partial(_of_untrained, opened, size, seed, number, say))
        for number, say in zip(models, told[2:], strict=True)
    ]
    return found


def compared(evidence: EvidencePrompts, each: int) -> Array:
    """Places of the first `each` prompts of every k with which entropy varies."""
    ks = [k for k in np.unique(evidence.reports) if np.ptp(evidence.surplus[evidence.reports == k] ** 2) > 0]
    return np.concatenate([np.flatnonzero(evidence.reports == k)[:each] for k in ks])


def samples_at_the_end(ids: Sequence[list[int]], entropy: Array, stratum: Array) -> Samples:
    """One sample of each prompt, at its last token."""
    return Samples(list(ids), [[len(one) - 1] for one in ids], entropy, stratum, np.arange(len(ids)))


# Evidence ----------------------------------------------------------------------------------------------------------


def _of_evidence(opened: OpenModel, size: Size, seed: int, progress: Progress) -> dict[str, Any]:
    if opened.anatomy.blocks[-1].attention is None:
        raise LabError("Its last layer has no attention.", "The claim is about the values of the last layer.")
    evidence = evidence_prompts(opened.tokenizer, size.evidence, seed)
    some = compared(evidence, size.compared)
    reports, posterior = evidence.reports, evidence.posterior
    samples = samples_at_the_end(evidence.ids[TRUE], entropies(posterior), reports)
    reader, told = _Reader(opened), iter(parts([len(reports)] * len(CONDITIONS), progress))
    activations = reader.read(samples, next(told))
    layers = {
        name: [manifold(x, samples, seed) for x in getattr(activations, name)] for name in ("values", "residuals")
    }
    axis = layers["values"][-1]
    signed = statistics.stratified_spearman(axis.scores, samples.entropy, reports)
    log_odds, mass, axes = {}, {}, {}
    for condition in CONDITIONS:
        if condition == TRUE:
            values, last = activations.values[-1], activations.residuals[-1]
        else:
            values, last = reader.last(evidence.ids[condition], next(told))
        both = _log_probabilities(opened.anatomy, last, evidence.answers[condition])
        log_odds[condition] = both[:, 0] - both[:, 1]
        mass[condition] = float(np.exp(both).sum(1).mean())
        axes[condition] = _plain(manifold(values, samples, seed), ("pc1", "rho", "within", "gain"))
    beliefs = {condition: 1 / (1 + np.exp(-odds)) for condition, odds in log_odds.items()}
    part = manifold(activations.values[-1][some], _some(samples, some), seed)
    return {
        "model": opened.name,
        "reference": opened.reference,
        "seed": seed,
        "example": evidence.example,
        "words": {condition: list(words) for condition, words in evidence.words.items()},
        "reports": reports.tolist(),
        "surplus": evidence.surplus.tolist(),
        "entropy": samples.entropy.tolist(),
        "beliefs": {condition: _rounded(belief) for condition, belief in beliefs.items()},
        "answered": mass,
        "belief": {condition: belief_measures(belief, evidence) for condition, belief in beliefs.items()},
        "belief_interval": _interval(beliefs[TRUE], posterior, reports),
        "belief_p": statistics.stratified_permutation_p(beliefs[TRUE], posterior, reports, seed=seed),
        "even_kl": belief_measures(np.full(len(reports), 0.5), evidence)["kl"],
        "order_kept": statistics.correlation_within(log_odds[TRUE], log_odds[PERMUTED], reports),
        # At equal evidence, a stratum for each k and d: does the last report count for more than the others?
        "last_report": statistics.stratified_spearman(beliefs[TRUE], evidence.last, reports * 100 + evidence.surplus),
        "axis": {name: _by_layer(found) for name, found in layers.items()},
        "axis_interval": _interval(axis.scores * (1 if signed >= 0 else -1), samples.entropy, reports),
        "axis_p": [axis.p, axis.p_within],
        "axis_surplus": abs(statistics.stratified_spearman(axis.scores, evidence.surplus, reports)),
        "scores": _rounded(axis.scores),
        "axes": axes,
        "compared": _plain(part, ("pc1", "rho", "within")) | {"prompts": len(some)},
    }


def belief_measures(belief: Array, evidence: EvidencePrompts) -> dict[str, float]:
    """Of beliefs in the first place [N]: rho, Spearman with the true prompt's posterior within k; kl, mean
    KL(posterior || belief) in bits; error, mean |belief - posterior|."""
    p, q = evidence.posterior, np.clip(belief, 1e-12, 1 - 1e-12)
    return {
        "rho": statistics.stratified_spearman(q, p, evidence.reports),
        "kl": float(divergence(_both(p), _both(q)).mean()),
        "error": float(np.abs(p - q).mean()),
    }


def entropies(p: Array) -> Array:
    """Of a choice between two, in bits; rounded, since p and 1 - p have the same one and no rank may hang on the
    last digit."""
    return np.asarray(entropy(_both(p)).round(9))


def _both(p: Array) -> Array:
    return np.stack([p, 1 - p], axis=-1)


def _of_untrained(
    opened: Callable[[], OpenModel], size: Size, seed: int, number: int, progress: Progress
) -> dict[str, float]:
    """The last layer's axis, and the belief, of one model of the same shape with random weights."""
    evidence = evidence_prompts(opened().tokenizer, size.evidence, seed)
    some = compared(evidence, size.compared)
    model = untrained_like(opened().model, number)
    samples = _some(samples_at_the_end(evidence.ids[TRUE], entropies(evidence.posterior), evidence.reports), some)
    anatomy = anatomy_of(model)
    activations = take(model, samples, progress, [anatomy.n_layer - 1])
    both = _log_probabilities(anatomy, activations.residuals[-1], evidence.answers[TRUE])
    belief = statistics.stratified_spearman(both[:, 0] - both[:, 1], evidence.posterior[some], evidence.reports[some])
    found = manifold(activations.values[-1], samples, number)
    return _plain(found, ("pc1", "rho", "within")) | {"belief": belief}


# Texts -------------------------------------------------------------------------------------------------------------


def _of_texts(opened: OpenModel, size: Size, seed: int, progress: Progress) -> dict[str, Any]:
    """Shape of the values in mixed texts (strata: domains) and in one domain, against the model's own entropy."""
    told = iter(parts([size.pool, size.texts, size.texts], progress))
    texts = text_prompts(opened, size.texts, size.pool, seed, next(told))
    found: dict[str, Any] = {"domain": texts.domain, "domains": texts.domains, "tokens": TOKENS}
    for name, ids, kinds in (
        ("mixed", texts.mixed, np.array([texts.domains.index(one) for one in texts.mixed_domains])),
        ("alone", texts.alone, np.zeros(len(texts.alone), dtype=int)),
    ):
        samples = samples_at_the_end(ids, np.zeros(len(ids)), kinds)
        activations = take(opened.model, samples, next(told))
        samples = replace(samples, entropy=_own_entropy(opened.anatomy, activations.residuals[-1]))
        layers = [manifold(x, samples, seed) for x in activations.values]
        found[name] = _by_layer(layers) | {
            "p_within": layers[-1].p_within,
            "entropy": _rounded(samples.entropy),
            "scores": _rounded(layers[-1].scores),
            "kinds": kinds.tolist(),
        }
    return found


# Reading -----------------------------------------------------------------------------------------------------------


class _Reader:
    """What the last layer has at the last token of prompts; a prompt that was read before is not read again."""

    def __init__(self, opened: OpenModel) -> None:
        self._model, self._last_layer = opened.model, len(opened.anatomy.blocks) - 1
        self._known: dict[tuple[int, ...], tuple[Array, Array]] = {}

    def read(self, samples: Samples, progress: Progress, layers: Sequence[int] | None = None) -> Activations:
        """As `take`."""
        found = take(self._model, samples, progress, layers)
        for ids, values, last in zip(samples.ids, found.values[-1], found.residuals[-1], strict=True):
            self._known[tuple(ids)] = values, last
        return found

    def last(self, prompts: Sequence[list[int]], progress: Progress) -> tuple[Array, Array]:
        """Values [N, H D] of the last layer and the stream behind it [N, C]."""
        new = [ids for ids in dict.fromkeys(map(tuple, prompts)) if ids not in self._known]
        if new:
            none = np.zeros(len(new))
            samples = samples_at_the_end([list(ids) for ids in new], none, none)
            self.read(samples, progress, [self._last_layer])
        rows = [self._known[tuple(ids)] for ids in prompts]
        return np.stack([values for values, _ in rows]), np.stack([last for _, last in rows])


def _log_probabilities(anatomy: Anatomy, last: Array, tokens: tuple[int, int]) -> Array:
    """ln p of two tokens [N, 2] from the stream behind the last layer [N, C]."""
    return _of_logits(anatomy, last, lambda logits: logits.log_softmax(-1)[:, list(tokens)])


def _own_entropy(anatomy: Anatomy, last: Array) -> Array:
    """Entropy over the next token in bits [N]."""
    return _of_logits(anatomy, last, lambda logits: torch.from_numpy(entropy(logits.softmax(-1).cpu().numpy())))


@torch.inference_mode()
def _of_logits(anatomy: Anatomy, last: Array, make: Callable[[Tensor], Tensor]) -> Array:
    rows = torch.from_numpy(last).split(_ROWS)
    found = [make(anatomy.logits(part.to(anatomy.unembedding)).double()) for part in rows]
    return np.asarray(torch.cat(found).cpu().numpy())


def _some(samples: Samples, places: Array) -> Samples:
    ids = [samples.ids[place] for place in places]
    return samples_at_the_end(ids, samples.entropy[places], samples.stratum[places])


def _interval(x: Array, y: Array, strata: Array) -> list[float]:
    """Of stratified_spearman(x, y), over prompts."""

    def drawn(places: Array, axis: int) -> Array:
        return np.array([statistics.stratified_spearman(x[some], y[some], strata[some]) for some in places])

    return list(statistics.bootstrap_interval(np.arange(len(x)), drawn, _DRAWS))


def _by_layer(layers: Sequence[Manifold]) -> dict[str, Any]:
    return {name: [getattr(one, name) for one in layers] for name in _BY_LAYER}


def _plain(found: Manifold, names: Sequence[str]) -> dict[str, float]:
    return {name: getattr(found, name) for name in names}


def _rounded(x: Array) -> list[float]:
    return list(x.round(_DIGITS).tolist())
