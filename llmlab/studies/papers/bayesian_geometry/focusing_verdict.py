"""From entropies of attention by layer to the verdict on focusing. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmlab.core.charts import DASHED, Axis, Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import by_models
from llmlab.studies.papers.bayesian_geometry import thresholds as bounds
from llmlab.studies.papers.bayesian_geometry.of_models import highest, models_sentence, nothing_measured
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict

Values = Mapping[str, Any]  # of one model, from `focusing.of_model`
_ALL, _OTHERS = "all", "others"
_STATISTIC = "fall of attention's entropy, first token left out"
_THRESHOLD = (
    f"from the first to the last layer, without the first token and over log2 of the length, at least "
    f"{bounds.FOCUSING:.0%}, above 0 with 95 % and above {bounds.RANDOM_MODELS} models with random weights. "
    "Not supported where random weights fall as much, or a smaller fall may be none"
)


def judge_model(others: Mapping[str, Any]) -> str:
    """One model, by its entropies without the first token.

    Not supported where random weights fall as much, or where what falls is small and may be nothing.
    """
    fall, (low, _), most = others["fall"], others["interval"], highest(others["untrained"])
    if (most is not None and fall <= most) or (fall < bounds.FOCUSING and low <= 0):
        return NOT_SUPPORTED
    return SUPPORTED if most is not None and fall >= bounds.FOCUSING and low > 0 else INCONCLUSIVE


def focusing_verdict(models: Sequence[Values], refused: Mapping[str, str], claim: str = "focusing") -> Verdict:
    """The claim that attention becomes sharper with depth. refused: why a model could not be asked."""
    if not models:
        return nothing_measured(claim, _STATISTIC, _THRESHOLD, refused)
    names = [values["model"] for values in models]
    outcomes = [judge_model(values[_OTHERS]) for values in models]
    falls = [values[_OTHERS]["fall"] for values in models]
    interval = models[0][_OTHERS]["interval"] if len(models) == 1 else [min(falls), max(falls)]
    which = "over prompts" if len(models) == 1 else "from the least to the most"
    said = f"{models_sentence(names, outcomes, refused)} The interval is {which}."
    return Verdict(
        claim=claim,
        verdict=by_models(outcomes),
        statistic=Statistic(_STATISTIC, float(np.median(falls))),
        interval=interval,
        threshold=_THRESHOLD,
        n=models[0]["prompts"],
        seeds=sorted({values["seed"] for values in models}),
        papers_criterion=_papers(models),
        reason=" ".join([*map(_words, models), said]),
        evidence={"models": names, "outcomes": outcomes}
        | {way: [_numbers(one[way]) for one in models] for way in (_ALL, _OTHERS)},
        charts=[_chart(values, number) for number, values in enumerate(models)],
        tables=[_table(models)],
    )


def _numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("fall", "interval", "quarters", "untrained")}


def _words(values: Values) -> str:
    everything, others = values[_ALL], values[_OTHERS]
    low, high = others["interval"]
    most = highest(others["untrained"])
    said = (
        f"{values['model']}, {values['prompts']} texts of {values['tokens']} tokens: from the first to the last layer "
        f"entropy {_moved(everything['fall'])}. Without the first token it {_moved(others['fall'])} (interval of the "
        f"fall {low:.0%} to {high:.0%}), between the first and the last quarter of the layers it "
        f"{_moved(others['quarters'])}."
    )
    if most is None:
        return f"{said} Fewer than {bounds.RANDOM_MODELS} models with random weights were measured."
    return f"{said} The most that it falls with random weights is {_percent(most)}."


def _moved(fall: float) -> str:
    return f"falls by {_percent(fall)}" if fall >= 0 else f"rises by {_percent(-fall)}"


def _percent(share: float) -> str:
    """Without the sign of what rounds to 0."""
    return f"{round(share, 2) + 0.0:.0%}"


def _papers(models: Sequence[Values]) -> PapersCriterion:
    falls = [values[_ALL]["fall"] for values in models]
    passing = sum(fall >= bounds.FOCUSING for fall in falls)
    without = sum(values[_OTHERS]["fall"] >= bounds.FOCUSING for values in models)
    apart = " The difference is attention that rests on the first token, which has nothing to do with evidence."
    return PapersCriterion(
        passing > len(models) / 2,
        f"At least {bounds.FOCUSING:.0%} from the first to the last layer, the first token included: {passing} of "
        f"{len(models)} models ({', '.join(f'{fall:.0%}' for fall in falls)}); without it {without}."
        + (apart if passing > without else ""),
    )


def _chart(values: Values, number: int) -> Chart:
    everything, others = values[_ALL], values[_OTHERS]
    layers = [float(layer) for layer in range(len(everything["layers"]))]
    series = [
        Series(name, layers, found["layers"], low=found["low"], high=found["high"])
        for name, found in (("with the first token", everything), ("without it", others))
    ]
    series.append(Series("random weights, without it", layers, others["untrained_layers"], DASHED))
    return Chart(
        f"focusing{'' if number == 0 else f'-{number + 1}'}",
        f"{values['model']}: entropy of attention at the last token",
        Axis("layer"),
        Axis("entropy over that of uniform attention"),
        series,
        caption=(
            "Means over heads and texts with 95 % intervals over texts. Where only the first line falls, later layers "
            "rest on the first token; where both fall, they choose among the others."
        ),
    )


def _table(models: Sequence[Values]) -> Table:
    rows = []
    for values in models:
        for way, name in ((_ALL, "with the first token"), (_OTHERS, "without it")):
            found = values[way]
            most = highest(found["untrained"])
            rows.append(
                [
                    values["model"],
                    name,
                    f"{found['layers'][0]:.2f}",
                    f"{found['layers'][-1]:.2f}",
                    f"{found['fall']:.0%} ({found['interval'][0]:.0%} to {found['interval'][1]:.0%})",
                    _percent(found["quarters"]),
                    "" if most is None else _percent(most),
                ]
            )
    columns = ["model", "", "first layer", "last layer", "fall", "fall, quarters", "random weights, most"]
    return Table("Entropy of attention, 1 for uniform", columns, rows)
