"""From measurements of pretrained models to the verdict on their beliefs and the axis of their values. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from llmlab.core.charts import BARS, DASHED, POINTS, Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import interval_sentence, of_models
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.evidence_prompts import (
    CONDITIONS,
    MASKED,
    RENAMED,
    SHUFFLED,
    TRUE,
    posterior,
)
from llmlab.studies.papers.bayesian_geometry.manifold import random_bound
from llmlab.studies.papers.bayesian_geometry.plan import REAL_MODELS
from llmlab.studies.papers.bayesian_geometry.thresholds import TEXTS
from llmlab.studies.papers.charting import cell, level, numbered, table
from llmlab.studies.papers.records import PapersCriterion, Verdict
from llmlab.studies.papers.statistics import bootstrap_interval, holm

Values = Mapping[str, Any]  # of one model, from `real_models.of_model`


@dataclass(frozen=True)
class Criterion:
    """One thing that is asked of a model. bound: in words. refuted: it speaks against the claim."""

    name: str
    found: str
    bound: str
    met: bool
    refuted: bool = False


@dataclass(frozen=True)
class CorrectedP:
    """p-values of one model after Holm's correction over all of them.

    belief: it follows the posterior within k. axis, axis_within: PC1 follows its entropy, over all prompts and within
    k. texts: PC1 follows the model's own entropy within kinds of text. None where nothing varies.
    """

    belief: float | None
    axis: float | None
    axis_within: float | None
    texts: float | None


def corrected_p(values: Values) -> CorrectedP:
    """The tests of one model."""
    raw = [values["belief_p"], *values["axis_p"], values["texts"]["mixed"]["p_within"]]
    after = iter(holm([p for p in raw if p is not None]))
    return CorrectedP(*(None if p is None else next(after) for p in raw))


def criteria(values: Values, tests: CorrectedP) -> list[Criterion]:
    """All that is asked of one model, in the order in which it is shown."""
    return [*_belief_criteria(values, tests), *_axis_criteria(values, tests), *_control_criteria(values)]


def _criterion(key: str, met: bool, refuted: bool = False, **facts: object) -> Criterion:
    """One of [criteria] in verdicts.toml, with these facts in its words."""
    return Criterion(**TEXTS.words("criteria", key, **facts), met=met, refuted=refuted)


def _belief_criteria(values: Values, tests: CorrectedP) -> Iterator[Criterion]:
    rho, share = values["belief"][TRUE]["rho"], values["belief"][TRUE]["kl"] / values["even_kl"]
    follows = rho >= bounds.BELIEF_RHO and _below(tests.belief)
    yield _criterion("belief", follows, _nothing(tests.belief) or rho <= 0, rho=rho, p=_p(tests.belief))
    yield _criterion("divergence", share <= bounds.BELIEF_KL_SHARE, share=share)


def _axis_criteria(values: Values, tests: CorrectedP) -> Iterator[Criterion]:
    axis, same = values["axes"][TRUE], values["compared"]
    pc1, within = (random_bound([one[name] for one in values["untrained"]]) for name in ("pc1", "within"))
    large = axis["pc1"] >= bounds.PC1_SHARE and same["pc1"] > pc1
    yield _criterion("share", large, pc1=axis["pc1"], same=same["pc1"], random=_bound(pc1, ".0%"))
    follows = axis["rho"] >= bounds.RHO and _below(tests.axis)
    yield _criterion("axis", follows, rho=axis["rho"], p=_p(tests.axis))
    follows, p = axis["within"] >= bounds.RHO_WITHIN and _below(tests.axis_within), tests.axis_within
    yield _criterion("axis-within", follows, _nothing(p), rho=axis["within"], p=_p(p))
    above, as_random = same["within"] > within, same["within"] <= within < math.inf
    yield _criterion("axis-compared", above, as_random, rho=same["within"], random=_bound(within, ".2f"))
    yield _criterion("gain", axis["gain"] >= bounds.R2_GAIN, gain=axis["gain"])


def _control_criteria(values: Values) -> Iterator[Criterion]:
    belief, axes = values["belief"], values["axes"]
    renamed, kept = belief[RENAMED]["rho"], values["order_kept"]
    yield _criterion("renamed", renamed >= bounds.RENAMED_RHO, rho=renamed)
    yield _criterion("order", kept >= bounds.ORDER_KEPT, kept < bounds.ORDER_KEPT, kept=kept)
    for condition in (SHUFFLED, MASKED):
        for what, true, control in (
            ("belief", abs(belief[TRUE]["rho"]), abs(belief[condition]["rho"])),
            ("PC1", axes[TRUE]["within"], axes[condition]["within"]),
        ):
            facts = {"condition": condition, "what": what, "control": control, "true": true}
            yield _criterion("control", control <= bounds.CONTROL_SHARE * true, control >= true, **facts)


def judge_model(asked: Sequence[Criterion]) -> str:
    """One model: a refuting criterion decides, and support needs all of them."""
    if any(one.refuted for one in asked):
        return NOT_SUPPORTED
    return SUPPORTED if all(one.met for one in asked) else INCONCLUSIVE


def real_models_verdict(models: Sequence[Values], refused: Mapping[str, str]) -> Verdict:
    """The claim that pretrained models update like Bayesians in context. refused: why a model could not be asked."""
    if not models:
        return TEXTS.nothing_measured(REAL_MODELS, refused)
    tests = [corrected_p(values) for values in models]
    asked = [criteria(values, one) for values, one in zip(models, tests, strict=True)]
    outcomes = [(values["model"], judge_model(one)) for values, one in zip(models, asked, strict=True)]
    rho = [values["belief"][TRUE]["rho"] for values in models]
    return TEXTS.verdict(
        REAL_MODELS,
        of_models(outcomes, refused, (values["seed"] for values in models)),
        float(np.median(rho)),
        tuple(models[0]["belief_interval"]) if len(models) == 1 else (min(rho), max(rho)),
        said=map(_said, models, asked),
        after=interval_sentence(len(models)),
        n=len(models[0]["reports"]),
        p=max((one.belief for one in tests if one.belief is not None), default=None),
        criterion=_papers(models),
        evidence={
            "models": [name for name, _ in outcomes],
            "outcomes": [outcome for _, outcome in outcomes],
            "p": [vars(one) for one in tests],
        }
        | {name: [values[name] for values in models] for name in _KEPT},
        charts=[chart for number, values in enumerate(models) for chart in _charts(values, number)],
        tables=[*(_table(values["model"], one) for values, one in zip(models, asked, strict=True)), _texts(models)],
    )


# What a verdict keeps of each model's measures.
_KEPT = ("belief", "order_kept", "last_report", "axis_interval", "axis_surplus", "answered", "untrained")


def _table(name: str, asked: Sequence[Criterion]) -> Table:
    rows = [[one.name, one.found, one.bound, "against" if one.refuted else "yes" if one.met else "no"] for one in asked]
    return Table(f"What is asked of {name}", ["", "found", "bound", "met"], rows)


def _said(values: Values, asked: Sequence[Criterion]) -> str:
    belief, axis = values["belief"][TRUE], values["axes"][TRUE]
    numbers = {"belief_rho": belief["rho"], "kl": belief["kl"], "even": values["even_kl"]}
    numbers |= {"n": len(values["reports"]), "pc1": axis["pc1"], "within": axis["within"]}
    said = [TEXTS.say("real-models", model=values["model"], **numbers)]
    against = [one.name for one in asked if one.refuted]
    missing = [one.name for one in asked if not one.met and not one.refuted]
    said += [TEXTS.say("real-models-against", names="; ".join(against))] if against else []
    said += [TEXTS.say("real-models-missing", names="; ".join(missing))] if missing else []
    return " ".join(said)


def _papers(models: Sequence[Values]) -> PapersCriterion:
    one, two = ([values["texts"]["mixed"][name][-1] for values in models] for name in ("pc1", "pc12"))
    chance = [found["pc1"] > bounds.PC1_SHARE for values in models for found in values["untrained"]]
    passing = sum(share > bounds.PC1_SHARE for share in two)  # the share of both is never less than that of the first
    counts = {"passing": passing, "models": len(models), "by_chance": sum(chance), "chance": len(chance)}
    listed = {name: ", ".join(f"{share:.0%}" for share in shares) for name, shares in (("one", one), ("two", two))}
    return PapersCriterion(passing > len(models) / 2, TEXTS.say("real-models-paper", **counts, **listed))


def _below(p: float | None) -> bool:
    return p is not None and p < bounds.P_SUPPORTED


def _nothing(p: float | None) -> bool:
    return p is not None and p > bounds.P_NOTHING


def _p(p: float | None) -> str:
    return "not testable" if p is None else f"p {p:.3f}"


def _bound(bound: float, form: str) -> str:
    return f"{bound:{form}}" if bound < math.inf else f"fewer than {bounds.RANDOM_MODELS} measured"


# Plots ----------------------------------------------------------------------------------------------------------------


def _charts(values: Values, number: int) -> list[Chart]:
    """The charts of one model. number: of it among the models, part of each chart's name."""
    end = "" if number == 0 else f"-{number + 1}"
    texts, within = values["texts"], values["axis"]["values"]["within"]
    reports, layers = [float(k) for k in values["reports"]], numbered(len(within))
    by_layer = [
        Series("values", layers, within),
        Series("residual stream", layers, values["axis"]["residuals"]["within"]),
        Series("values, over all k", layers, values["axis"]["values"]["rho"]),
    ]
    shares = {
        "mixed texts": texts["mixed"]["pc1"][-1],
        f"{texts['domain']} alone": texts["alone"]["pc1"][-1],
        "evidence": values["axes"][TRUE]["pc1"],
    }
    if untrained := values["untrained"]:
        top = max(one["within"] for one in untrained)
        by_layer.append(level("random weights, the highest in the last layer", top, [layers[0], layers[-1]]))
        shares["random weights"] = float(np.mean([one["pc1"] for one in untrained]))
    prompts = Series("evidence prompts", values["entropy"], values["scores"], POINTS, color=reports)
    bars = Series("PC1", numbered(len(shares)), list(shares.values()), BARS)
    named = partial(TEXTS.chart, end=end, model=values["model"])
    return [
        _beliefs_chart(values, end),
        named("real-models-axis", [prompts]),
        named("real-models-layers", by_layer),
        named("real-models-pc1", [bars], list(shares)),
    ]


def _beliefs_chart(values: Values, end: str) -> Chart:
    surplus = np.array(values["surplus"])
    x = np.unique(surplus)
    series = []
    for condition in CONDITIONS:
        belief = np.array(values["beliefs"][condition])
        at = [belief[surplus == one] for one in x]
        low, high = zip(*(bootstrap_interval(one) for one in at), strict=True) if condition == TRUE else ((), ())
        y = [float(one.mean()) for one in at]
        series.append(Series(condition, x.astype(float).tolist(), y, low=list(low), high=list(high)))
    fine = np.linspace(x[0], x[-1], 81)
    series.append(Series("posterior", fine.tolist(), posterior(fine).tolist(), DASHED))
    return TEXTS.chart("real-models-belief", series, end=end, model=values["model"])


def _texts(models: Sequence[Values]) -> Table:
    """Mixed texts against one domain. It is shown, and no verdict rests on it."""
    rows = [(values, name, values["texts"][name]) for values in models for name in ("mixed", "alone")]
    columns = {
        "model": [values["model"] for values, _, _ in rows],
        "texts": ["mixed" if name == "mixed" else f"{values['texts']['domain']} alone" for values, name, _ in rows],
        "n": [str(len(found["scores"])) for _, _, found in rows],
        "PC1": [f"{found['pc1'][-1]:.0%}" for _, _, found in rows],
        "PC1+2": [f"{found['pc12'][-1]:.0%}" for _, _, found in rows],
        "participation": [f"{found['participation'][-1]:.1f}" for _, _, found in rows],
        "|rho|": [f"{found['rho'][-1]:.2f}" for _, _, found in rows],
        "|rho| within kinds": [cell(found["within"][-1], ".2f") for _, _, found in rows],
        "p within kinds": [cell(found["p_within"], ".3f") for _, _, found in rows],
    }
    return table(
        "Last layer's values against the model's own entropy over the next token; p before correction", columns
    )
