"""From what was measured on models to a verdict a claim. Each model is judged alone; then they are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from llmlab.data.papers import INCONCLUSIVE
from llmlab.studies.papers.agreement import by_models
from llmlab.studies.papers.attention_sinks import shown
from llmlab.studies.papers.attention_sinks import thresholds as bounds
from llmlab.studies.papers.attention_sinks.findings import Found, in_the_middle, models_sentence
from llmlab.studies.papers.attention_sinks.growth import Growth
from llmlab.studies.papers.attention_sinks.outcomes import (
    early_share,
    first_ratio,
    growth_of,
    has_sink,
    judge_norms,
    judge_position,
    judge_sink,
    place_kept,
    sink_heads,
    taken_along,
    untrained_share,
)
from llmlab.studies.papers.attention_sinks.plan import NORMS, POSITION, SINK
from llmlab.studies.papers.attention_sinks.reading import Reading, uniform_share
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict
from llmlab.studies.papers.statistics import bootstrap_interval

# Sink --------------------------------------------------------------------------------------------------------------


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
        return _nothing(SINK, threshold, refused)
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
            f"{bounds.SINK_SHARE:.0%} have a sink: {_listed(rates, '{:.0%}')} of all heads.",
        ),
        reason=f"{words} {models_sentence(outcomes, refused)} n counts prompts.",
        charts=[shown.shares_chart(found)],
        tables=[shown.sink_table(found, outcomes), shown.domains_table(found)],
        evidence={"outcomes": outcomes, "uniform": even},
    )


# Place or token ----------------------------------------------------------------------------------------------------


def position_verdict(found: Sequence[Found], refused: dict[str, str]) -> Verdict:
    """The claim that the place draws attention, and not the word. refused: why a model could not be asked."""
    threshold = (
        f"the first place keeps at least {bounds.PLACE_KEPT:.0%} of its share whatever stands there, and no token "
        f"draws more than {bounds.TOKEN_LEFT_BEHIND:.0%} as much elsewhere. Not supported where a token leaves less "
        f"than {bounds.PLACE_LOST:.0%}, or draws at least {bounds.TOKEN_TAKES_ALONG:.0%} as much elsewhere. Nothing "
        f"can be said where the first place gets less than {bounds.SINK_OVER_UNIFORM:g} times the uniform share"
    )
    firsts = {one.name: one.first for one in found if one.first is not None}
    if not firsts:
        return _nothing(POSITION, threshold, refused)
    outcomes = {name: judge_position(first) for name, first in firsts.items()}
    middle_one = in_the_middle([one for one in found if one.first], lambda one: place_kept(firsts[one.name])[0])
    shown_one = firsts[middle_one.name]
    kept, low, high = place_kept(shown_one)
    means = np.array(shown_one.first).mean(1)
    least, most = shown_one.names[int(means.argmin())], shown_one.names[int(means.argmax())]
    words = (
        f"In {middle_one.name} the first place gets most with {_quoted(most)} ({means.max():.1%}) and least with "
        f"{_quoted(least)} ({means.min():.1%}). "
    )
    if len(shown_one.names) > 1:
        along = taken_along(shown_one)[0]
        words += f"At place {shown_one.place} a token draws at most {along:.0%} of what it draws at the first. "
    if without := [name for name, first in firsts.items() if not has_sink(first)]:
        words += f"There is no sink to ask about in {', '.join(without)}. "
    return Verdict(
        claim=POSITION,
        verdict=by_models(list(outcomes.values())),
        statistic=Statistic("share kept with the least attractive first token", kept),
        interval=[low, high],
        threshold=threshold,
        n=len(shown_one.first[0]),
        seeds=[],
        papers_criterion=PapersCriterion(
            None, "Xiao et al. compare perplexities of windowed models, which the lab does not measure."
        ),
        reason=f"{words}{models_sentence(outcomes, refused)} n counts prompts.",
        charts=[shown.first_tokens_chart(found), shown.moved_chart(found)],
        tables=[shown.position_table(found, outcomes)],
        evidence={"outcomes": outcomes},
    )


def _quoted(name: str) -> str:
    return name if " " in name else f"“{name}”"


# Norms -------------------------------------------------------------------------------------------------------------


def norms_verdict(found: Sequence[Found], refused: dict[str, str]) -> Verdict:
    """The claim that the stream grows by a factor a layer. refused: why a model could not be asked."""
    threshold = (
        f"over the middle layers (an eighth at each end left out) ln of the norm is a straight line with R^2 at least "
        f"{bounds.STRAIGHT_R2:g}, its slope's interval above 0, and its AIC at least {bounds.CLEAR_AIC:g} below that "
        "of a linear and of a root curve; and that interval lies above the slope of every untrained model of which the "
        "same can be said. Not supported where the slope's interval reaches 0, or where another "
        f"curve's AIC is {bounds.CLEAR_AIC:g} lower. Nothing can be said of fewer than {bounds.MIDDLE_POINTS} layers"
    )
    texts = {one.name: one.text for one in found if one.text is not None}
    if not texts:
        return _nothing(NORMS, threshold, refused)
    curves = {name: growth_of(text) for name, text in texts.items()}
    chance = {one.name: [growth_of(other) for other in one.untrained] for one in found}
    outcomes = {name: judge_norms(curve, chance[name]) for name, curve in curves.items()}
    fitted = [one for one in found if curves.get(one.name) is not None]
    statistic, interval, words, count = Statistic("growth a layer", None), None, "", 0
    if fitted:
        middle_one = in_the_middle(fitted, lambda one: _slope(curves[one.name]))
        curve = curves[middle_one.name]
        assert curve is not None
        interval = [float(np.expm1(end)) for end in (curve.low, curve.high)]
        statistic = Statistic("growth a layer", float(np.expm1(curve.slope)))
        count = len(texts[middle_one.name].norms)
        words = f"In {middle_one.name} the norm of all tokens but the first grows {_curve_words(curve)}. "
        if (one := next(iter(chance[middle_one.name]), None)) is not None:
            words += f"With random weights it grows {_curve_words(one)}. "
    if short := [name for name, one in curves.items() if one is None]:
        words += f"Too few layers to tell curves apart: {', '.join(short)}. "
    words += f"The first token's norm is up to {_listed(first_over_others(texts), '{:,.1f} times')} the others'. "
    return Verdict(
        claim=NORMS,
        verdict=by_models(list(outcomes.values())),
        statistic=statistic,
        interval=interval,
        threshold=threshold,
        n=count,
        seeds=[],
        papers_criterion=PapersCriterion(
            None, "Heimersheim and Turner name no bound; they see straight lines in logarithmic plots."
        ),
        reason=f"{words}{models_sentence(outcomes, refused)} n counts prompts.",
        charts=[shown.norms_chart(found, curves), shown.first_norm_chart(found)],
        tables=[shown.norms_table(found, curves, outcomes)],
        evidence={"outcomes": outcomes, "growth": {name: asdict(one) for name, one in curves.items() if one}},
    )


def first_over_others(texts: dict[str, Reading]) -> dict[str, float]:
    """By model, the most that the first token's norm is of the others', over layers."""
    return {name: float(first_ratio(text).max()) for name, text in texts.items()}


def _curve_words(curve: Growth) -> str:
    rate, rival = np.expm1(curve.slope), curve.aic[curve.rival]
    than = f"{abs(rival):.1f} {'more' if rival >= 0 else 'less'} than the exponential's"
    return (
        f"by {rate:.1%} a layer after blocks {curve.at[0]} to {curve.at[-1]} (R^2 {curve.r2:.3f}); the best other "
        f"curve is {curve.rival}, with an AIC of {than}"
    )


def _slope(curve: Growth | None) -> float:
    return curve.slope if curve is not None else -np.inf


def _listed(numbers: dict[str, float], how: str) -> str:
    return ", ".join(f"{how.format(number)} ({name})" for name, number in numbers.items())


def _nothing(claim: str, threshold: str, refused: dict[str, str]) -> Verdict:
    return Verdict(
        claim=claim,
        verdict=INCONCLUSIVE,
        statistic=Statistic("nothing was measured", None),
        threshold=threshold,
        n=0,
        seeds=[],
        papers_criterion=PapersCriterion(None, "No model could be asked."),
        reason=models_sentence({}, refused),
    )
