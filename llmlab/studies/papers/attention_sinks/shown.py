"""What the verdicts show: charts and tables of all models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmlab.core.charts import BARS, DASHED, LINE, Axis, Chart, Series, Table
from llmlab.studies.papers.attention_sinks import thresholds as bounds
from llmlab.studies.papers.attention_sinks.findings import Found
from llmlab.studies.papers.attention_sinks.growth import LINEAR, ROOT, Growth
from llmlab.studies.papers.attention_sinks.outcomes import (
    early_share,
    first_ratio,
    growth_of,
    place_kept,
    sink_heads,
    taken_along,
    untrained_share,
)
from llmlab.studies.papers.attention_sinks.reading import Array, Reading, uniform_share
from llmlab.studies.papers.statistics import bootstrap_interval

_LAYER = Axis("layer")
_PLACE = Axis("blocks passed")
_SHARE = Axis("share of the attention")


def shares_chart(found: Sequence[Found]) -> Chart:
    """The share on the first token by layer."""
    series = []
    for one, text in _texts(found):
        shares = np.array(text.shares)  # [P, L]
        series.append(_with_intervals(one.name, list(map(float, text.layers)), shares))
    for one, text in _texts(found):
        if one.untrained:
            chance = np.array([np.array(other.shares).mean(0) for other in one.untrained]).mean(0)
            series.append(Series(f"{one.name}, random weights", list(map(float, text.layers)), chance.tolist(), DASHED))
    lengths = {text.tokens for _, text in _texts(found)}
    for tokens in sorted(lengths):
        last = float(max(text.layers[-1] for _, text in _texts(found) if text.tokens == tokens))
        name = "uniform attention" if len(lengths) == 1 else f"uniform attention, {tokens} tokens"
        series.append(Series(name, [0.0, last], [uniform_share(tokens)] * 2, DASHED))
    return Chart(
        name="share-on-the-first-token",
        title="Attention on the first token",
        x_axis=_LAYER,
        y_axis=_SHARE,
        series=series,
        caption="Mean over heads and over the queries behind the first token, with 95 % intervals over prompts. The "
        "upper half of the layers is judged.",
    )


def sink_table(found: Sequence[Found], outcomes: dict[str, str]) -> Table:
    """What was judged, a row a model."""
    rows = []
    for one, text in _texts(found):
        low, high = bootstrap_interval(text.upper)
        rows.append(
            [
                *_about(one, text.depth),
                f"{text.upper.mean():.1%} ({low:.1%} to {high:.1%})",
                f"{uniform_share(text.tokens):.1%}",
                f"{early_share(text):.1%}",
                f"{untrained_share(one.untrained):.1%}" if one.untrained else "-",
                f"{sink_heads(text):.0%}",
                outcomes[one.name],
            ]
        )
    columns = ["model", "parameters", "blocks", "first token, upper half", "uniform", "best of the next tokens"]
    columns += ["random weights, at most", f"heads above {bounds.SINK_SHARE:.0%}", "says"]
    return Table("Attention on the first token", columns, rows)


def domains_table(found: Sequence[Found]) -> Table:
    """The share by kind of text."""
    domains = list(dict.fromkeys(domain for _, text in _texts(found) for domain in text.domains))
    rows = []
    for one, text in _texts(found):
        here = np.array(text.domains)
        means = [float(text.upper[here == domain].mean()) if domain in here else None for domain in domains]
        rows.append([one.name, *("-" if mean is None else f"{mean:.1%}" for mean in means)])
    return Table("On the first token in the upper half, by kind of text", ["model", *domains], rows)


def first_tokens_chart(found: Sequence[Found]) -> Chart:
    """The share on the first place with other tokens there."""
    return _by_token(
        found,
        "first-tokens",
        "Attention on the first place, by what stands there",
        "Mean over heads in the upper half of the layers, with 95 % intervals over prompts; the rest of each prompt is "
        "the same. Where the place matters, bars are alike.",
        moved=False,
    )


def moved_chart(found: Sequence[Found]) -> Chart:
    """The share of the same tokens elsewhere."""
    return _by_token(
        found,
        "moved-tokens",
        "Attention on another place, by what stands there",
        "The same tokens a quarter into the prompt, with 95 % intervals over prompts. A token that draws attention "
        "here as it does in the first place is a sink by itself.",
        moved=True,
    )


def _by_token(found: Sequence[Found], name: str, title: str, caption: str, *, moved: bool) -> Chart:
    asked = [(one.name, one.first) for one in found if one.first is not None]
    tokens = list(dict.fromkeys(token for _, first in asked for token in first.names))
    series: list[Series] = []
    even: dict[float, None] = {}
    for model, first in asked:
        places = [float(tokens.index(token)) for token in first.names]
        rows = np.array(first.moved if moved else first.first)  # [tokens, P]
        series.append(_with_intervals(model, places, rows.T, BARS))
        even[uniform_share(first.tokens, first.place if moved else 0)] = None
    for share in even:
        series.append(Series("uniform attention", [0.0, float(len(tokens) - 1)], [share] * 2, DASHED))
    return Chart(
        name=name,
        title=title,
        x_axis=Axis("token"),
        y_axis=_SHARE,
        series=series,
        categories=tokens,
        caption=caption,
    )


def position_table(found: Sequence[Found], outcomes: dict[str, str]) -> Table:
    """What was judged, a row a model."""
    rows = []
    for one in found:
        if one.first is not None:
            kept = "{:.0%} ({:.0%} to {:.0%})".format(*place_kept(one.first))
            moved = "{:.0%} ({:.0%} to {:.0%})".format(*taken_along(one.first)) if len(one.first.names) > 1 else "-"
            rows.append([one.name, str(len(one.first.names)), kept, moved, outcomes[one.name]])
    columns = ["model", "first tokens", "kept with the least attractive", "most drawn elsewhere", "says"]
    return Table("Place or token", columns, rows)


def norms_chart(found: Sequence[Found], curves: dict[str, Growth | None]) -> Chart:
    """The norm of the stream by layer."""
    series, dashed = [], []
    for one, text in _texts(found):
        logs = np.array(text.norms)
        series.append(_with_intervals(one.name, _places(text), logs, as_logs=True))
        if (curve := curves[one.name]) is not None:
            fit = np.exp(curve.intercept + curve.slope * np.array(curve.at))
            dashed.append(Series(f"{one.name}, straight line", list(map(float, curve.at)), fit.tolist(), DASHED))
        if one.untrained:
            chance = np.exp(np.mean([np.array(other.norms).mean(0) for other in one.untrained], axis=0))
            dashed.append(Series(f"{one.name}, random weights", _places(text), chance.tolist(), DASHED))
    return Chart(
        name="norms",
        title="Norm of the residual stream, without the first token",
        x_axis=_PLACE,
        y_axis=Axis("norm", log=True),
        series=[*series, *dashed],
        caption="Geometric means over tokens and prompts. The axis is logarithmic: growth by a factor is a straight "
        "line, growth by an amount bends to the right.",
    )


def first_norm_chart(found: Sequence[Found]) -> Chart:
    """The first token's norm over the others'."""
    series = []
    for one, text in _texts(found):
        ratios = np.array(text.first_norms) - np.array(text.norms)
        series.append(_with_intervals(one.name, _places(text), ratios, as_logs=True))
    return Chart(
        name="first-token-norm",
        title="The first token's norm over the others'",
        x_axis=_PLACE,
        y_axis=Axis("times the others' norm", log=True),
        series=series,
        caption="Geometric means over prompts. Where it is far above 1, the first token has massive activations, and a "
        "mean norm over all tokens measures that one.",
    )


def norms_table(found: Sequence[Found], curves: dict[str, Growth | None], outcomes: dict[str, str]) -> Table:
    """What was judged, a row a model."""
    rows = []
    for one, text in _texts(found):
        largest = f"{first_ratio(text).max():,.1f}"
        rows.append([*_about(one, text.depth), *_fit(curves[one.name]), largest, outcomes[one.name]])
        for other in one.untrained[:1]:
            rows.append(
                [
                    "the same with random weights",
                    "",
                    "",
                    *_fit(growth_of(other)),
                    f"{first_ratio(other).max():,.1f}",
                    "",
                ]
            )
    columns = [
        "model",
        "parameters",
        "blocks",
        "growth a layer",
        "R^2 of the line",
        "AIC of a linear curve less the line's",
    ]
    columns += ["AIC of a root curve less the line's", "first token's norm over the others', at most", "says"]
    return Table("Growth of the norm", columns, rows)


def _fit(curve: Growth | None) -> list[str]:
    """A growth's cells."""
    if curve is None:
        return ["-"] * 4
    rate, low, high = (float(np.expm1(x)) for x in (curve.slope, curve.low, curve.high))
    line = [f"{rate:.2%} ({low:.2%} to {high:.2%})", f"{curve.r2:.3f}"]
    return line + [f"{curve.aic[name]:+.1f}" for name in (LINEAR, ROOT)]


def _texts(found: Sequence[Found]) -> list[tuple[Found, Reading]]:
    return [(one, one.text) for one in found if one.text is not None]


def _about(one: Found, depth: int) -> list[str]:
    return [one.name, f"{one.parameters / 1e6:,.1f} M", str(depth)]


def _places(text: Reading) -> list[float]:
    return [float(place) for place in range(text.depth + 1)]


def _with_intervals(name: str, x: list[float], rows: Array, kind: str = LINE, *, as_logs: bool = False) -> Series:
    """Means of rows [P, X] over prompts with their intervals; of logarithms, what they are the logarithms of."""
    ends = np.array([bootstrap_interval(column) for column in rows.T])  # [X, 2]
    parts = rows.mean(0), ends[:, 0], ends[:, 1]
    y, low, high = (np.exp(part) if as_logs else part for part in parts)
    return Series(name, x, y.tolist(), kind, low.tolist(), high.tolist())
