"""Does much attention rest on the first token? What decides, the verdict and its plots. Each model is judged alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmlab.core.charts import DASHED, Chart, Series, Table
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import of_models
from llmlab.studies.papers.attention_sinks import thresholds as bounds
from llmlab.studies.papers.attention_sinks.plan import SINK
from llmlab.studies.papers.attention_sinks.reading import Found, Reading, about, in_the_middle, listed, uniform_share
from llmlab.studies.papers.attention_sinks.thresholds import TEXTS
from llmlab.studies.papers.charting import interval_band, level, table
from llmlab.studies.papers.records import Verdict
from llmlab.studies.papers.statistics import bootstrap_interval


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
    read = [(one, one.text) for one in found if one.text is not None]
    if not read:
        return TEXTS.nothing_measured(SINK, refused)
    outcomes = {one.name: judge_sink(text, one.untrained) for one, text in read}
    shown, text = in_the_middle(read, lambda text: float(text.upper.mean()))
    rates = {one.name: sink_heads(text) for one, text in read}
    shares = {"share": text.upper.mean(), "even": uniform_share(text.tokens), "early": early_share(text)}
    chance = untrained_share(shown.untrained)
    return TEXTS.verdict(
        SINK,
        of_models([*outcomes.items()], refused),
        float(text.upper.mean()),
        bootstrap_interval(text.upper),
        said=[TEXTS.say("sink", model=shown.name, tokens=text.tokens, random=chance, **shares)],
        after="n counts prompts.",
        n=len(text.shares),
        facts={"rates": listed(rates, "{:.0%}")},
        charts=[_chart(read)],
        tables=[_table(read, list(outcomes.values())), _domains(read)],
        evidence={"outcomes": outcomes, "uniform": shares["even"]},
    )


def _chart(read: Sequence[tuple[Found, Reading]]) -> Chart:
    """The share on the first token by layer."""
    series = [interval_band(one.name, [*map(float, text.layers)], np.array(text.shares)) for one, text in read]
    for one, text in read:
        if one.untrained:
            chance = np.mean([np.array(other.shares).mean(0) for other in one.untrained], axis=0).tolist()
            series.append(Series(f"{one.name}, random weights", [*map(float, text.layers)], chance, DASHED))
    lengths = {text.tokens for _, text in read}
    for tokens in sorted(lengths):
        last = float(max(text.layers[-1] for _, text in read if text.tokens == tokens))
        name = "uniform attention" if len(lengths) == 1 else f"uniform attention, {tokens} tokens"
        series.append(level(name, uniform_share(tokens), [0.0, last]))
    return TEXTS.chart("share-on-the-first-token", series)


def _table(read: Sequence[tuple[Found, Reading]], outcomes: Sequence[str]) -> Table:
    """What was judged, a row a model."""
    texts = [text for _, text in read]
    ends = [bootstrap_interval(text.upper) for text in texts]
    columns = about(read) | {
        "first token, upper half": [
            f"{text.upper.mean():.1%} ({low:.1%} to {high:.1%})" for text, (low, high) in zip(texts, ends, strict=True)
        ],
        "uniform": [f"{uniform_share(text.tokens):.1%}" for text in texts],
        "best of the next tokens": [f"{early_share(text):.1%}" for text in texts],
        "random weights, at most": [
            f"{untrained_share(one.untrained):.1%}" if one.untrained else "-" for one, _ in read
        ],
        f"heads above {bounds.SINK_SHARE:.0%}": [f"{sink_heads(text):.0%}" for text in texts],
        "says": outcomes,
    }
    return table("Attention on the first token", columns)


def _domains(read: Sequence[tuple[Found, Reading]]) -> Table:
    """The share by kind of text."""
    domains = dict.fromkeys(domain for _, text in read for domain in text.domains)

    def share(text: Reading, domain: str) -> str:
        here = np.array(text.domains) == domain
        return f"{text.upper[here].mean():.1%}" if here.any() else "-"

    columns = {domain: [share(text, domain) for _, text in read] for domain in domains}
    title = "On the first token in the upper half, by kind of text"
    return table(title, {"model": [one.name for one, _ in read]} | columns)
