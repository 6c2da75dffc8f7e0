"""What the verdict on pretrained models shows: beliefs and posterior, the axis, texts mixed and alone. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmlab.core.charts import BARS, DASHED, POINTS, Axis, Chart, Series, Table
from llmlab.studies.papers.bayesian_geometry.evidence_prompts import CONDITIONS, TRUE, posterior
from llmlab.studies.papers.statistics import bootstrap_interval

Values = Mapping[str, Any]


def real_model_charts(values: Values, number: int) -> list[Chart]:
    """The charts of one model. number: of it among the models, part of each chart's name."""
    end = "" if number == 0 else f"-{number + 1}"
    return [_beliefs(values, end), _axis(values, end), _layers(values, end), _shares(values, end)]


def _beliefs(values: Values, end: str) -> Chart:
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


def _axis(values: Values, end: str) -> Chart:
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


def _layers(values: Values, end: str) -> Chart:
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


def _shares(values: Values, end: str) -> Chart:
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
