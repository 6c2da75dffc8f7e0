"""Does much attention rest on the first token? What decides, the verdict and its plots. Each model is judged alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmlab.core.charts import DASHED, Axis, Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import by_models
from llmlab.studies.papers.attention_sinks import thresholds as bounds
from llmlab.studies.papers.attention_sinks.plan import SINK
from llmlab.studies.papers.attention_sinks.reading import (
    Found,
    Reading,
    about,
    in_the_middle,
    listed,
    models_sentence,
    nothing_measured,
    on_texts,
    uniform_share,
    with_intervals,
)
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict
from llmlab.studies.papers.statistics import bootstrap_interval

_LAYER = Axis("layer")
SHARE_AXIS = Axis("share of the attention")


def judge_sink(text: Reading, untrained: Sequence[Reading]) -> str:
    """One model: how much attention the first token gets in the upper half of its layers."""
    if len(untrained) < bounds.UNTRAINED_MODELS:
        return INCONCLUSIVE
    low, high = bootstrap_interval(text.upper)
    early, chance = early_share(text), untrained_share(untrained)
    if high <= max(early, chance):
        return NOT_SUPPORTED
    return SUPPORTED if low >= bounds.SINK_SHARE > chance and low > early else INCONCLUSIVE


def early_share(text: Reading) -> float:
    """The share of the token behind the first that gets most."""
    return float(np.array(text.early).mean(0).max(initial=0.0))


def untrained_share(untrained: Sequence[Reading]) -> float:
    """The largest share that the first token gets with random weights."""
    return max(float(one.upper.mean()) for one in untrained)


def sink_heads(text: Reading) -> float:
    """The share of all heads that give the first token more than SINK_SHARE: the sink metric of Gu et al. 2024."""
    return float((np.array(text.heads) > bounds.SINK_SHARE).mean())


def sink_verdict(found: Sequence[Found], refused: dict[str, str]) -> Verdict:
    """The claim that much attention rests on the first token. refused: why a model could not be asked."""
    threshold = (
        f"in the upper half of the layers the interval of the share on the first token lies above "
        f"{bounds.SINK_SHARE:.0%} and above every other early token, and {bounds.UNTRAINED_MODELS} models of the same "
        f"shape with random weights stay below {bounds.SINK_SHARE:.0%}. Not supported where it lies no higher than "
        "another early token or random weights"
    )
    texts = {one.name: one.text for one in found if one.text is not None}
    if not texts:
        return nothing_measured(SINK, threshold, refused)
    outcomes = {one.name: judge_sink(texts[one.name], one.untrained) for one in found if one.name in texts}
    middle_one = in_the_middle([one for one in found if one.text], lambda one: float(texts[one.name].upper.mean()))
    shown_one = texts[middle_one.name]
    rates = {name: sink_heads(text) for name, text in texts.items()}
    even = uniform_share(shown_one.tokens)
    words = (
        f"In the upper half of the layers of {middle_one.name} the first of {shown_one.tokens} tokens gets "
        f"{shown_one.upper.mean():.1%} of the attention (mean over heads and queries); uniform attention would give it "
        f"{even:.1%}, the next best of the tokens behind it gets {early_share(shown_one):.1%}, and with random weights "
        f"it gets at most {untrained_share(middle_one.untrained):.1%}."
    )
    return Verdict(
        claim=SINK,
        verdict=by_models(list(outcomes.values())),
        statistic=Statistic("attention on the first token, upper half of the layers", float(shown_one.upper.mean())),
        interval=list(bootstrap_interval(shown_one.upper)),
        threshold=threshold,
        n=len(shown_one.shares),
        seeds=[],
        papers_criterion=PapersCriterion(
            None,
            "Xiao et al. name no bound. By the metric of Gu et al. 2024, heads above "
            f"{bounds.SINK_SHARE:.0%} have a sink: {listed(rates, '{:.0%}')} of all heads.",
        ),
        reason=f"{words} {models_sentence(outcomes, refused)} n counts prompts.",
        charts=[shares_chart(found)],
        tables=[sink_table(found, outcomes), domains_table(found)],
        evidence={"outcomes": outcomes, "uniform": even},
    )


def shares_chart(found: Sequence[Found]) -> Chart:
    """The share on the first token by layer."""
    series = []
    for one, text in on_texts(found):
        shares = np.array(text.shares)  # [P, L]
        series.append(with_intervals(one.name, list(map(float, text.layers)), shares))
    for one, text in on_texts(found):
        if one.untrained:
            chance = np.array([np.array(other.shares).mean(0) for other in one.untrained]).mean(0)
            series.append(Series(f"{one.name}, random weights", list(map(float, text.layers)), chance.tolist(), DASHED))
    lengths = {text.tokens for _, text in on_texts(found)}
    for tokens in sorted(lengths):
        last = float(max(text.layers[-1] for _, text in on_texts(found) if text.tokens == tokens))
        name = "uniform attention" if len(lengths) == 1 else f"uniform attention, {tokens} tokens"
        series.append(Series(name, [0.0, last], [uniform_share(tokens)] * 2, DASHED))
    return Chart(
        name="share-on-the-first-token",
        title="Attention on the first token",
        x_axis=_LAYER,
        y_axis=SHARE_AXIS,
        series=series,
        caption="Mean over heads and over the queries behind the first token, with 95 % intervals over prompts. The "
        "upper half of the layers is judged.",
    )


def sink_table(found: Sequence[Found], outcomes: dict[str, str]) -> Table:
    """What was judged, a row a model."""
    rows = []
    for one, text in on_texts(found):
        low, high = bootstrap_interval(text.upper)
        rows.append(
            [
                *about(one, text.depth),
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
    domains = list(dict.fromkeys(domain for _, text in on_texts(found) for domain in text.domains))
    rows = []
    for one, text in on_texts(found):
        here = np.array(text.domains)
        means = [float(text.upper[here == domain].mean()) if domain in here else None for domain in domains]
        rows.append([one.name, *("-" if mean is None else f"{mean:.1%}" for mean in means)])
    return Table("On the first token in the upper half, by kind of text", ["model", *domains], rows)
