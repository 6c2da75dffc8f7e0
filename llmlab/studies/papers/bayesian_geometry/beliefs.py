"""From measurements of pretrained models to the verdict on their beliefs and the axis of their values. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmlab.core.charts import BARS, DASHED, POINTS, Axis, Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import by_models
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.evidence_prompts import (
    CONDITIONS,
    MASKED,
    RENAMED,
    SHUFFLED,
    TRUE,
    posterior,
)
from llmlab.studies.papers.bayesian_geometry.plan import REAL_MODELS
from llmlab.studies.papers.bayesian_geometry.pretrained import highest, models_sentence, nothing_measured
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict
from llmlab.studies.papers.statistics import bootstrap_interval, holm

Values = Mapping[str, Any]  # of one model, from `real_models.of_model`
_STATISTIC = "Spearman(belief, posterior) at equal k"
_THRESHOLD = (
    f"belief: rho at least {bounds.BELIEF_RHO:g} at equal k and at most {bounds.BELIEF_KL_SHARE:.0%} of the "
    "divergence of a belief of one half; values: the bounds of the manifold, with k as the stratum; shuffled "
    f"or masked evidence leaves at most {bounds.CONTROL_SHARE:.0%} of either, renamed labels at least "
    f"{bounds.RENAMED_RHO:g}, a new order at least {bounds.ORDER_KEPT:.0%} of the variance. Not supported "
    "where nothing is left at equal k, random weights or shuffled labels do as well, or the order decides"
)


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


def _belief_criteria(values: Values, tests: CorrectedP) -> list[Criterion]:
    rho, share = values["belief"][TRUE]["rho"], values["belief"][TRUE]["kl"] / values["even_kl"]
    return [
        Criterion(
            "belief follows the posterior at equal k",
            f"rho {rho:.2f}, {_p(tests.belief)}",
            f"at least {bounds.BELIEF_RHO:g}, p < {bounds.P_SUPPORTED:g}; against: p > {bounds.P_NOTHING:g}",
            rho >= bounds.BELIEF_RHO and _below(tests.belief),
            _nothing(tests.belief) or rho <= 0,
        ),
        Criterion(
            "divergence from the posterior, in that of a belief of one half",
            f"{share:.2f}",
            f"at most {bounds.BELIEF_KL_SHARE:g}",
            share <= bounds.BELIEF_KL_SHARE,
        ),
    ]


def _axis_criteria(values: Values, tests: CorrectedP) -> list[Criterion]:
    axis, same = values["axes"][TRUE], values["compared"]
    pc1_bound = highest([one["pc1"] for one in values["untrained"]])
    within_bound = highest([one["within"] for one in values["untrained"]])
    return [
        Criterion(
            "share of PC1",
            f"{axis['pc1']:.0%}; on the prompts of random weights {same['pc1']:.0%}",
            f"at least {bounds.PC1_SHARE:.0%}, above random weights ({_bound(pc1_bound, '.0%')})",
            axis["pc1"] >= bounds.PC1_SHARE and pc1_bound is not None and same["pc1"] > pc1_bound,
        ),
        Criterion(
            "PC1 follows entropy",
            f"|rho| {axis['rho']:.2f}, {_p(tests.axis)}",
            f"at least {bounds.RHO:g}, p < {bounds.P_SUPPORTED:g}",
            axis["rho"] >= bounds.RHO and _below(tests.axis),
        ),
        Criterion(
            "PC1 follows entropy at equal k",
            f"|rho| {axis['within']:.2f}, {_p(tests.axis_within)}",
            f"at least {bounds.RHO_WITHIN:g}, p < {bounds.P_SUPPORTED:g}; against: p > {bounds.P_NOTHING:g}",
            axis["within"] >= bounds.RHO_WITHIN and _below(tests.axis_within),
            _nothing(tests.axis_within),
        ),
        Criterion(
            "the same, on the prompts of random weights",
            f"|rho| {same['within']:.2f}",
            f"above random weights ({_bound(within_bound, '.2f')}); against: not above",
            within_bound is not None and same["within"] > within_bound,
            within_bound is not None and same["within"] <= within_bound,
        ),
        Criterion(
            "what values add to k in R^2 of entropy",
            f"{axis['gain']:.3f}",
            f"at least {bounds.R2_GAIN:g}",
            axis["gain"] >= bounds.R2_GAIN,
        ),
    ]


def _control_criteria(values: Values) -> list[Criterion]:
    belief, axes = values["belief"], values["axes"]
    renamed, kept = belief[RENAMED]["rho"], values["order_kept"]
    found = [
        Criterion(
            "renamed labels: belief follows the posterior",
            f"rho {renamed:.2f}",
            f"at least {bounds.RENAMED_RHO:g}",
            renamed >= bounds.RENAMED_RHO,
        ),
        Criterion(
            "new order: share of the log-odds' variance that stays",
            f"{kept:.2f}",
            f"at least {bounds.ORDER_KEPT:g}; against: less",
            kept >= bounds.ORDER_KEPT,
            kept < bounds.ORDER_KEPT,
        ),
    ]
    for condition in (SHUFFLED, MASKED):
        for what, true, control in (
            ("belief", abs(belief[TRUE]["rho"]), abs(belief[condition]["rho"])),
            ("PC1", axes[TRUE]["within"], axes[condition]["within"]),
        ):
            found.append(
                Criterion(
                    f"{condition}: {what} at equal k",
                    f"|rho| {control:.2f} against {true:.2f}",
                    f"at most {bounds.CONTROL_SHARE:.0%} of it; against: as much",
                    control <= bounds.CONTROL_SHARE * true,
                    control >= true,
                )
            )
    return found


def judge_model(asked: Sequence[Criterion]) -> str:
    """One model: a refuting criterion decides, and support needs all of them."""
    if any(one.refuted for one in asked):
        return NOT_SUPPORTED
    return SUPPORTED if all(one.met for one in asked) else INCONCLUSIVE


def real_models_verdict(models: Sequence[Values], refused: Mapping[str, str]) -> Verdict:
    """The claim that pretrained models update like Bayesians in context. refused: why a model could not be asked."""
    if not models:
        return nothing_measured(REAL_MODELS, _STATISTIC, _THRESHOLD, refused)
    names = [values["model"] for values in models]
    tests = [corrected_p(values) for values in models]
    asked = [criteria(values, one) for values, one in zip(models, tests, strict=True)]
    outcomes = [judge_model(one) for one in asked]
    rho = [values["belief"][TRUE]["rho"] for values in models]
    p = [one.belief for one in tests if one.belief is not None]
    return Verdict(
        claim=REAL_MODELS,
        verdict=by_models(outcomes),
        statistic=Statistic(_STATISTIC, float(np.median(rho))),
        interval=models[0]["belief_interval"] if len(models) == 1 else [min(rho), max(rho)],
        p=max(p) if p else None,
        threshold=_THRESHOLD,
        n=len(models[0]["reports"]),
        seeds=sorted({values["seed"] for values in models}),
        papers_criterion=_papers(models),
        reason=" ".join(
            [*(_words(values, one) for values, one in zip(models, asked, strict=True)), _seen(names, outcomes, refused)]
        ),
        evidence={
            "models": names,
            "outcomes": outcomes,
            "p": [vars(one) for one in tests],
            "belief": [values["belief"] for values in models],
            "order_kept": [values["order_kept"] for values in models],
            "last_report": [values["last_report"] for values in models],
            "axis_interval": [values["axis_interval"] for values in models],
            "axis_surplus": [values["axis_surplus"] for values in models],
            "answered": [values["answered"] for values in models],
            "untrained": [values["untrained"] for values in models],
        },
        charts=[chart for number, values in enumerate(models) for chart in real_model_charts(values, number)],
        tables=[*(_table(name, one) for name, one in zip(names, asked, strict=True)), texts_table(models)],
    )


def _table(name: str, asked: Sequence[Criterion]) -> Table:
    rows = [[one.name, one.found, one.bound, "against" if one.refuted else "yes" if one.met else "no"] for one in asked]
    return Table(f"What is asked of {name}", ["", "found", "bound", "met"], rows)


def _words(values: Values, asked: Sequence[Criterion]) -> str:
    belief, axis = values["belief"][TRUE], values["axes"][TRUE]
    against = [one.name for one in asked if one.refuted]
    missing = [one.name for one in asked if not one.met and not one.refuted]
    said = (
        f"{values['model']}, {len(values['reports'])} evidence prompts: the rank correlation of belief with the "
        f"posterior is {belief['rho']:.2f} at equal k, and belief diverges from it by {belief['kl']:.2f} bits (one of "
        f"one half: {values['even_kl']:.2f}). In the last layer's values PC1 has {axis['pc1']:.0%} of the "
        f"variance and |rho| {axis['within']:.2f} with entropy at equal k."
    )
    said += f" Against the claim: {'; '.join(against)}." if against else ""
    return said + (f" Not met: {'; '.join(missing)}." if missing else "")


def _seen(names: Sequence[str], outcomes: Sequence[str], refused: Mapping[str, str]) -> str:
    interval = " The interval is over prompts." if len(names) == 1 else " The interval is from the least to the most."
    return models_sentence(names, outcomes, refused) + interval


def _papers(models: Sequence[Values]) -> PapersCriterion:
    texts = [values["texts"]["mixed"] for values in models]
    one, two = [found["pc1"][-1] for found in texts], [found["pc12"][-1] for found in texts]
    chance = [found["pc1"] for values in models for found in values["untrained"]]
    by_chance = sum(share > bounds.PC1_SHARE for share in chance)
    passing = sum(share > bounds.PC1_SHARE for share in two)  # the share of both is never less than that of the first
    return PapersCriterion(
        passing > len(models) / 2,
        f"PC1, or PC1 and PC2, of the last layer's values above {bounds.PC1_SHARE:.0%} on mixed texts: {passing} of "
        f"{len(models)} models (PC1 {_listed(one)}, both {_listed(two)}); PC1 of models with random weights, on "
        f"evidence prompts: {by_chance} of {len(chance)}. It does not ask whether the component is entropy. For "
        "beliefs they name no bound.",
    )


def _listed(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:.0%}" for share in shares)


def _below(p: float | None) -> bool:
    return p is not None and p < bounds.P_SUPPORTED


def _nothing(p: float | None) -> bool:
    return p is not None and p > bounds.P_NOTHING


def _p(p: float | None) -> str:
    return "not testable" if p is None else f"p {p:.3f}"


def _bound(bound: float | None, form: str) -> str:
    return f"fewer than {bounds.RANDOM_MODELS} measured" if bound is None else f"{bound:{form}}"


# Plots ----------------------------------------------------------------------------------------------------------------


def real_model_charts(values: Values, number: int) -> list[Chart]:
    """The charts of one model. number: of it among the models, part of each chart's name."""
    end = "" if number == 0 else f"-{number + 1}"
    return [
        _beliefs_chart(values, end),
        _axis_chart(values, end),
        _layers_chart(values, end),
        _shares_chart(values, end),
    ]


def _beliefs_chart(values: Values, end: str) -> Chart:
    surplus = np.array(values["surplus"])
    places = np.unique(surplus)
    series = []
    for condition in CONDITIONS:
        belief = np.array(values["beliefs"][condition])
        at = [belief[surplus == place] for place in places]
        ends = [bootstrap_interval(one) for one in at] if condition == TRUE else []
        series.append(
            Series(
                condition,
                x=places.astype(float).tolist(),
                y=[float(one.mean()) for one in at],
                low=[low for low, _ in ends],
                high=[high for _, high in ends],
            )
        )
    fine = np.linspace(places[0], places[-1], 81)
    series.append(Series("posterior", fine.tolist(), posterior(fine).tolist(), DASHED))
    return Chart(
        f"real-models-belief{end}",
        f"{values['model']}: belief after reports",
        Axis("surplus d of reports for the first place"),
        Axis("belief in the first place"),
        series,
        caption=(
            "Means over prompts with the same evidence under the true condition. A Bayesian follows the dashed curve "
            "with renamed and permuted reports as well, and stays level with shuffled and masked ones."
        ),
    )


def _axis_chart(values: Values, end: str) -> Chart:
    reports = [float(k) for k in values["reports"]]
    series = [Series("evidence prompts", values["entropy"], values["scores"], POINTS, color=reports)]
    return Chart(
        f"real-models-axis{end}",
        f"{values['model']}: last layer's values on evidence prompts",
        Axis("entropy of the posterior", "bits"),
        Axis("PC1 of the values"),
        series,
        color_label="reports k",
        caption=(
            "Where points of one colour lie level and colours lie apart, the axis shows how long the prompt is, not "
            "how sure one may be."
        ),
    )


def _layers_chart(values: Values, end: str) -> Chart:
    layers = [float(layer) for layer in range(len(values["axis"]["values"]["within"]))]
    series = [
        Series("values", layers, values["axis"]["values"]["within"]),
        Series("residual stream", layers, values["axis"]["residuals"]["within"]),
        Series("values, over all k", layers, values["axis"]["values"]["rho"]),
    ]
    top = max(one["within"] for one in values["untrained"]) if values["untrained"] else None
    if top is not None:
        series.append(
            Series("random weights, the highest in the last layer", [layers[0], layers[-1]], [top, top], DASHED)
        )
    return Chart(
        f"real-models-layers{end}",
        f"{values['model']}: PC1 and entropy by layer, evidence prompts",
        Axis("layer"),
        Axis("|Spearman(PC1, entropy)| at equal k"),
        series,
        caption="The number of reports is held fixed, but for the line that says otherwise.",
    )


def _shares_chart(values: Values, end: str) -> Chart:
    texts = values["texts"]
    names = ["mixed texts", f"{texts['domain']} alone", "evidence", "random weights"]
    untrained = [one["pc1"] for one in values["untrained"]]
    shares = [texts["mixed"]["pc1"][-1], texts["alone"]["pc1"][-1], values["axes"][TRUE]["pc1"]]
    y = [*shares, float(np.mean(untrained))] if untrained else shares
    return Chart(
        f"real-models-pc1{end}",
        f"{values['model']}: share of PC1 in the last layer's values",
        Axis("prompts"),
        Axis("share of the variance"),
        [Series("PC1", [float(place) for place in range(len(y))], y, BARS)],
        categories=names[: len(y)],
        caption=(
            "If one domain collapses values onto the axis, its bar is higher than that of mixed texts. Random weights: "
            "mean over models, on evidence prompts, which resemble one another."
        ),
    )


def texts_table(models: Sequence[Values]) -> Table:
    """Mixed texts against one domain. It is shown, and no verdict rests on it."""
    rows = []
    for values in models:
        for name, what in (("mixed", "mixed"), ("alone", f"{values['texts']['domain']} alone")):
            found = values["texts"][name]
            p = found["p_within"]
            rows.append(
                [
                    values["model"],
                    what,
                    str(len(found["scores"])),
                    f"{found['pc1'][-1]:.0%}",
                    f"{found['pc12'][-1]:.0%}",
                    f"{found['participation'][-1]:.1f}",
                    f"{found['rho'][-1]:.2f}",
                    "" if found["within"][-1] is None else f"{found['within'][-1]:.2f}",
                    "" if p is None else f"{p:.3f}",
                ]
            )
    columns = ["model", "texts", "n", "PC1", "PC1+2", "participation", "|rho|", "|rho| within kinds", "p within kinds"]
    return Table(
        "Last layer's values against the model's own entropy over the next token; p before correction", columns, rows
    )
