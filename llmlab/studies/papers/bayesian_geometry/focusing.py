"""Does attention become sharper with depth, and is it more than a sink? Measurements on any model that can be watched.

At the last token of a text of T tokens a head's pattern a_1 .. a_T has the entropy -sum a_j log2 a_j, which uniform
attention makes log2 T bits: their ratio is 1 for a head that looks at all alike, 0 for one that looks at one token.
Taken for each head and then averaged (the mean of patterns would be flatter than any of them), in two ways:

    all         over all T tokens
    others      without the first token: a_2 .. a_T over their sum, against log2 (T - 1)

A head that rests on the first token, whatever the text, is sharp in the first way and not in the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from llmlab.anatomy.anatomy import require
from llmlab.anatomy.capture import Observer, run
from llmlab.anatomy.finding import anatomy_of
from llmlab.core.charts import DASHED, Chart, Series, Table
from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, parts, quiet
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.models.model import OpenModel, untrained_like
from llmlab.studies.papers.agreement import interval_sentence, of_models
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.manifold import random_bound
from llmlab.studies.papers.bayesian_geometry.plan import FOCUSING
from llmlab.studies.papers.bayesian_geometry.pretrained import TOKENS, Keep, at_once, text_prompts
from llmlab.studies.papers.bayesian_geometry.thresholds import TEXTS
from llmlab.studies.papers.charting import numbered, table
from llmlab.studies.papers.prompts import draw_prompts
from llmlab.studies.papers.records import PapersCriterion, Verdict
from llmlab.studies.papers.statistics import bootstrap_interval

Array = np.ndarray
ALL, OTHERS = WAYS = ("all", "others")
_TINY = 1e-300  # 0 log 0 is 0
_DIGITS = 5


@dataclass(frozen=True)
class Size:
    """texts: mixed ones that the model reads. Of each domain: pool, to choose them from; untrained, read by each model
    with random weights, whose attention is nearly uniform in every text.
    """

    texts: int
    pool: int
    untrained: int


SIZES = {"minutes": Size(75, 40, 1), "hour": Size(150, 80, 2), "paper": Size(300, 160, 4)}


def of_model(
    opened: Callable[[], OpenModel], size: Size, seed: int = 0, progress: Progress = quiet, keep: Keep = at_once
) -> dict[str, Any]:
    """Entropies by layer, and their fall from the first to the last layer: plain values, as `focusing_verdict` takes
    them.

    opened, keep: as in `real_models.of_model`. LabError where the model's attention cannot be watched, or its tokenizer
    reads no ordinary text.
    """
    models = range(seed * bounds.RANDOM_MODELS, (seed + 1) * bounds.RANDOM_MODELS)
    told = parts([size.texts, *(size.untrained for _ in models)], progress)
    found = dict(keep("patterns", lambda: _of_trained(opened(), size, seed, told[0])))
    untrained = [
        keep(f"patterns of random weights {number}", partial(_of_untrained, opened, size, seed, number, say))
        for number, say in zip(models, told[1:], strict=True)
    ]
    for way in WAYS:
        found[way] |= {
            "untrained": [one[way]["fall"] for one in untrained],
            "untrained_layers": np.mean([one[way]["layers"] for one in untrained], axis=0).round(_DIGITS).tolist(),
        }
    return found


def _of_trained(opened: OpenModel, size: Size, seed: int, progress: Progress) -> dict[str, Any]:
    choosing, reading = parts([size.pool, size.texts], progress)
    texts = text_prompts(opened, size.texts, size.pool, seed, choosing).mixed
    about = {"model": opened.name, "reference": opened.reference, "seed": seed, "prompts": len(texts)}
    return about | {"tokens": len(texts[0])} | _by_way(last_token_entropies(opened.model, texts, reading))


def _of_untrained(
    opened: Callable[[], OpenModel], size: Size, seed: int, number: int, progress: Progress
) -> dict[str, Any]:
    texts = draw_prompts(opened().tokenizer, TOKENS, size.untrained, seed).ids
    return _by_way(last_token_entropies(untrained_like(opened().model, number), texts, progress))


def _by_way(entropies: Array) -> dict[str, Any]:
    """Means by layer with their intervals, and the fall, of entropies [2, P, L]."""
    found: dict[str, Any] = {}
    for name, one in zip(WAYS, entropies, strict=True):
        fell = falls(one)
        ends = [bootstrap_interval(layer) for layer in one.T]
        found[name] = {
            "layers": one.mean(0).round(_DIGITS).tolist(),
            "low": [low for low, _ in ends],
            "high": [high for _, high in ends],
            "fall": float(fell.mean()),
            "interval": list(bootstrap_interval(fell)),
            "quarters": float(falls(one, quarters=True).mean()),
        }
    return found


def falls(entropies: Array, quarters: bool = False) -> Array:
    """The share by which entropy [P, L] falls from the first to the last layer, of each prompt [P].

    quarters: between the means of the first and the last quarter of the layers. 0 where the first has none to lose.
    """
    size = max(1, entropies.shape[1] // 4) if quarters else 1
    first, last = entropies[:, :size].mean(1), entropies[:, -size:].mean(1)
    return 1 - np.divide(last, first, out=np.ones_like(last), where=first > 0)


def last_token_entropies(model: nn.Module, prompts: Sequence[list[int]], progress: Progress = quiet) -> Array:
    """Mean over heads of the normalised entropy, with and without the first token, of every layer that has a pattern:
    [2, P, L]. LabError where attention cannot be watched, or fewer than two layers have any."""
    anatomy = anatomy_of(model)
    require(anatomy.refusals.attention, "Attention patterns")
    layers = [layer for layer, block in enumerate(anatomy.blocks) if block.attention is not None]
    if len(layers) < 2:
        raise LabError("Fewer than two of its layers have an attention pattern.", "Nothing can fall between them.")
    found = []
    for done, ids in enumerate(prompts):
        progress("Reading patterns", done, len(prompts))
        last = _LastRows(len(ids))
        run(model, anatomy, ids, [last], last=True)
        found.append([normalised_entropies(last.rows[layer]) for layer in layers])
    return np.array(found).transpose(2, 0, 1)


def normalised_entropies(rows: Array) -> tuple[float, float]:
    """Of patterns at the last token [H, T], T > 2: means over heads, with the first token and without it.

    Without it, heads that give the others nothing at all are left out; where all are, it is 0.
    """
    others = rows[:, 1:].sum(1)
    seen = others > 0
    without = rows[seen, 1:] / others[seen, None]
    return float(_ratio(rows).mean()), float(_ratio(without).mean()) if seen.any() else 0.0


def _ratio(rows: Array) -> Array:
    """Entropy of each row [N, T] over that of a uniform one."""
    return -(rows * np.log2(np.maximum(rows, _TINY))).sum(1) / np.log2(rows.shape[1])


class _LastRows(Observer):
    """The pattern at the last token, of every head, in float64."""

    def __init__(self, time: int) -> None:
        self._last = time - 1
        self.rows: dict[int, Array] = {}

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        """Keeps the last row, [H, T]; rows of models with sinks sum to less than one and are scaled up."""
        if first + pattern.shape[1] > self._last:
            row = pattern[:, self._last - first].double().cpu()
            self.rows[layer] = (row / row.sum(-1, keepdim=True)).numpy()


# Verdict --------------------------------------------------------------------------------------------------------------

_NUMBERS = ("fall", "interval", "quarters", "untrained")  # that are kept with the verdict
Values = Mapping[str, Any]  # of one model, from `focusing.of_model`


def judge_model(others: Mapping[str, Any]) -> str:
    """One model, by its entropies without the first token.

    Not supported where random weights fall as much, or where what falls is small and may be nothing.
    """
    fall, (low, _), most = others["fall"], others["interval"], random_bound(others["untrained"])
    if fall <= most < math.inf or (fall < bounds.FOCUSING and low <= 0):
        return NOT_SUPPORTED
    return SUPPORTED if fall > most and fall >= bounds.FOCUSING and low > 0 else INCONCLUSIVE


def focusing_verdict(models: Sequence[Values], refused: Mapping[str, str]) -> Verdict:
    """The claim that attention becomes sharper with depth. refused: why a model could not be asked."""
    if not models:
        return TEXTS.nothing_measured(FOCUSING, refused)
    outcomes = [(values["model"], judge_model(values[OTHERS])) for values in models]
    falls = [values[OTHERS]["fall"] for values in models]
    return TEXTS.verdict(
        FOCUSING,
        of_models(outcomes, refused, (values["seed"] for values in models)),
        float(np.median(falls)),
        tuple(models[0][OTHERS]["interval"]) if len(models) == 1 else (min(falls), max(falls)),
        said=map(_said, models),
        after=interval_sentence(len(models)),
        n=models[0]["prompts"],
        criterion=_papers(models),
        evidence={"models": [name for name, _ in outcomes], "outcomes": [outcome for _, outcome in outcomes]}
        | {way: [{name: one[way][name] for name in _NUMBERS} for one in models] for way in WAYS},
        charts=[_chart(values, number) for number, values in enumerate(models)],
        tables=[_table(models)],
    )


def _said(values: Values) -> str:
    others, (low, high) = values[OTHERS], values[OTHERS]["interval"]
    falls = {"all": values[ALL]["fall"], "others": others["fall"], "quarters": others["quarters"]}
    about = {name: values[name] for name in ("model", "prompts", "tokens")} | {"low": low, "high": high}
    said = TEXTS.say("focusing", **about, **{name: _moved(fall) for name, fall in falls.items()})
    most = random_bound(others["untrained"])
    chance = TEXTS.say("focusing-few") if most == math.inf else TEXTS.say("focusing-random", most=_percent(most))
    return f"{said} {chance}"


def _moved(fall: float) -> str:
    return f"falls by {_percent(fall)}" if fall >= 0 else f"rises by {_percent(-fall)}"


def _percent(share: float) -> str:
    """Without the sign of what rounds to 0."""
    return f"{round(share, 2) + 0.0:.0%}"


def _papers(models: Sequence[Values]) -> PapersCriterion:
    falls = [values[ALL]["fall"] for values in models]
    passing = sum(fall >= bounds.FOCUSING for fall in falls)
    without = sum(values[OTHERS]["fall"] >= bounds.FOCUSING for values in models)
    facts = {"models": len(models), "falls": ", ".join(f"{fall:.0%}" for fall in falls), "without": without}
    words = [TEXTS.say("focusing-paper", passing=passing, **facts)]
    words += [TEXTS.say("focusing-paper-sink")] if passing > without else []
    return PapersCriterion(passing > len(models) / 2, " ".join(words))


def _chart(values: Values, number: int) -> Chart:
    everything, others = values[ALL], values[OTHERS]
    layers = numbered(len(everything["layers"]))
    series = [
        Series(name, layers, found["layers"], low=found["low"], high=found["high"])
        for name, found in (("with the first token", everything), ("without it", others))
    ]
    series.append(Series("random weights, without it", layers, others["untrained_layers"], DASHED))
    end = "" if number == 0 else f"-{number + 1}"
    return TEXTS.chart("focusing", series, end=end, model=values["model"])


def _table(models: Sequence[Values]) -> Table:
    ways = ((ALL, "with the first token"), (OTHERS, "without it"))
    rows = [(values["model"], name, values[way]) for values in models for way, name in ways]
    found = [one for _, _, one in rows]
    most = [random_bound(one["untrained"]) for one in found]
    columns = {
        "model": [model for model, _, _ in rows],
        "": [name for _, name, _ in rows],
        "first layer": [f"{one['layers'][0]:.2f}" for one in found],
        "last layer": [f"{one['layers'][-1]:.2f}" for one in found],
        "fall": ["{fall:.0%} ({interval[0]:.0%} to {interval[1]:.0%})".format(**one) for one in found],
        "fall, quarters": [_percent(one["quarters"]) for one in found],
        "random weights, most": ["" if fall == math.inf else _percent(fall) for fall in most],
    }
    return table("Entropy of attention, 1 for uniform", columns)
