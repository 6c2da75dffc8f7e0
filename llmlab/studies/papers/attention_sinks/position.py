"""Position or token? The same prompts with other first tokens, and the same tokens at another position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch import nn

from llmlab.anatomy.capture import run
from llmlab.anatomy.finding import anatomy_of
from llmlab.core.charts import BARS, Chart, Table
from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, quiet
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.data.tokenizers import TextTokenizer
from llmlab.studies.papers.agreement import of_models
from llmlab.studies.papers.attention_sinks import reading
from llmlab.studies.papers.attention_sinks import thresholds as bounds
from llmlab.studies.papers.attention_sinks.plan import POSITION
from llmlab.studies.papers.attention_sinks.thresholds import TEXTS
from llmlab.studies.papers.charting import interval_band, level, table
from llmlab.studies.papers.prompts import Prompts, always_first
from llmlab.studies.papers.records import Verdict
from llmlab.studies.papers.statistics import bootstrap_interval

OWN, BEGINNING = "the text's own", "beginning of text"
# Marks and words, frequent and rare, of which each tokenizer's first token is taken.
WORDS = {"line break": "\n", "The": "The", "full stop": ".", "7": "7", "Zebra": "Zebra", "brace": "{"}


def candidates(tokenizer: TextTokenizer) -> dict[str, int]:
    """What can be put first: the first token of each of WORDS, and the beginning of text. No two alike.

    Words that it cannot read are left out, and a beginning that stands before every text anyway.
    """
    found: dict[str, int] = {}
    own = always_first(tokenizer)
    for name, word in WORDS.items():
        try:
            ids = tokenizer.encode(word)
        except LabError:  # a vocabulary of characters that lacks it
            continue
        if ids and ids[0] not in [*own, *found.values()]:
            found[name] = ids[0]
    if tokenizer.beginning is not None and tokenizer.beginning not in [*own, *found.values()]:
        found[BEGINNING] = tokenizer.beginning
    return found


def put_first(
    model: nn.Module, prompts: Prompts, tokens: dict[str, int], progress: Progress = quiet
) -> reading.FirstTokens:
    """Two passes a prompt and token. tokens: by name. LabError where the model's attention cannot be watched."""
    anatomy = anatomy_of(model)
    layers = reading.watched_layers(anatomy)
    upper = [layers[place] for place in reading.in_upper_half(layers, anatomy.n_layer)]
    time = len(prompts.ids[0])
    elsewhere = time // 4

    def shares(ids: list[int]) -> reading.Array:
        """On the first position, and on the other one."""
        observer = reading.Shares(anatomy, time, (0, elsewhere))
        run(model, anatomy, ids, [observer], last=True)
        return observer.results()[:, upper].mean((1, 2))

    found = []
    for done, ids in enumerate(prompts.ids):
        rows = [shares(ids)]
        for number, id in enumerate(tokens.values()):
            progress("Putting other tokens first", done * len(tokens) + number, len(prompts.ids) * len(tokens))
            at_first, at_other = list(ids), list(ids)
            at_first[0] = at_other[elsewhere] = id
            rows.append(np.array([shares(at_first)[0], shares(at_other)[1]]))
        found.append(rows)
    first, moved = np.array(found).transpose(2, 1, 0)  # [tokens, P] each
    return reading.FirstTokens([OWN, *tokens], elsewhere, time, reading.plain(first), reading.plain(moved))


# Verdict --------------------------------------------------------------------------------------------------------------

_TINY = 1e-6  # of a share: the last digit that is kept


def place_kept(first: reading.FirstTokens) -> tuple[float, float, float]:
    """What the first position keeps with the token that draws least, over the one that draws most; low, high."""
    return _with_interval(np.array(first.first), lambda means: means.min(0) / means.max(0))


def taken_along(first: reading.FirstTokens) -> tuple[float, float, float]:
    """The most that a token draws at the other position, over what it draws at the first; low, high.

    The text's own tokens are left out: they are not the same at the two positions.
    """
    rows = np.concatenate([np.array(first.first)[1:], np.array(first.moved)[1:]])  # [2 tokens, P]
    half = len(rows) // 2
    return _with_interval(rows, lambda means: (means[half:] / np.maximum(means[:half], _TINY)).max(0))


def has_sink(first: reading.FirstTokens) -> bool:
    """Whether, with the token that draws most, the first position gets clearly more than uniform attention gives it."""
    rows = np.array(first.first)
    best = rows[rows.mean(1).argmax()]
    return bootstrap_interval(best)[0] >= bounds.SINK_OVER_UNIFORM * reading.uniform_share(first.tokens)


def judge_position(first: reading.FirstTokens) -> str:
    """One model."""
    if not has_sink(first) or len(first.names) < 2:
        return INCONCLUSIVE
    _, kept_low, kept_high = place_kept(first)
    _, along_low, along_high = taken_along(first)
    if kept_high < bounds.PLACE_LOST or along_low >= bounds.TOKEN_TAKES_ALONG:
        return NOT_SUPPORTED
    supported = kept_low >= bounds.PLACE_KEPT and along_high <= bounds.TOKEN_LEFT_BEHIND
    return SUPPORTED if supported else INCONCLUSIVE


def _with_interval(
    rows: reading.Array, statistic: Callable[[reading.Array], reading.Array]
) -> tuple[float, float, float]:
    """A statistic of the rows' means [R] over prompts (rows [R, P]), with its bootstrap interval over prompts."""
    low, high = bootstrap_interval(rows.T, lambda drawn, axis: statistic(drawn.mean(axis).T))
    return float(statistic(rows.mean(1))), low, high


def position_verdict(found: Sequence[reading.Found], refused: dict[str, str]) -> Verdict:
    """The claim that the position draws attention, and not the word. refused: why a model could not be asked."""
    firsts = {one.name: one.first for one in found if one.first is not None}
    if not firsts:
        return TEXTS.nothing_measured(POSITION, refused)
    outcomes = {name: judge_position(one) for name, one in firsts.items()}
    shown, first = reading.in_the_middle(firsts.items(), lambda one: place_kept(one)[0])
    kept, low, high = place_kept(first)
    return TEXTS.verdict(
        POSITION,
        of_models([*outcomes.items()], refused),
        kept,
        (low, high),
        said=_said(shown, first, [name for name, one in firsts.items() if not has_sink(one)]),
        after="n counts prompts.",
        n=len(first.first[0]),
        charts=[_chart(firsts, moved=False), _chart(firsts, moved=True)],
        tables=[_table(firsts, outcomes)],
        evidence={"outcomes": outcomes},
    )


def _said(model: str, first: reading.FirstTokens, without: Sequence[str]) -> Iterator[str]:
    """without: models that have no sink."""
    means = np.array(first.first).mean(1)
    least, most = (_quoted(first.names[int(place)]) for place in (means.argmin(), means.argmax()))
    yield TEXTS.say("position", model=model, most=most, highest=means.max(), least=least, lowest=means.min())
    if len(first.names) > 1:
        yield TEXTS.say("position-elsewhere", place=first.place, along=taken_along(first)[0])
    if without:
        yield TEXTS.say("position-no-sink", models=", ".join(without))


def _quoted(name: str) -> str:
    return name if " " in name else f"“{name}”"


def _chart(firsts: dict[str, reading.FirstTokens], *, moved: bool) -> Chart:
    """The share on the first position with other tokens there, or of the same tokens elsewhere."""
    tokens = list(dict.fromkeys(token for first in firsts.values() for token in first.names))
    series = []
    for model, first in firsts.items():
        x = [float(tokens.index(token)) for token in first.names]
        series.append(interval_band(model, x, np.array(first.moved if moved else first.first).T, BARS))
    even = dict.fromkeys(reading.uniform_share(one.tokens, one.place if moved else 0) for one in firsts.values())
    series += [level("uniform attention", share, [0.0, len(tokens) - 1.0]) for share in even]
    return TEXTS.chart("moved-tokens" if moved else "first-tokens", series, tokens)


def _table(firsts: dict[str, reading.FirstTokens], outcomes: dict[str, str]) -> Table:
    """What was judged, a row a model."""
    shares, found = "{:.0%} ({:.0%} to {:.0%})", firsts.values()
    columns = {
        "model": list(firsts),
        "first tokens": [str(len(one.names)) for one in found],
        "kept with the least attractive": [shares.format(*place_kept(one)) for one in found],
        "most drawn elsewhere": [shares.format(*taken_along(one)) if len(one.names) > 1 else "-" for one in found],
        "says": list(outcomes.values()),
    }
    return table("Position or token", columns)
