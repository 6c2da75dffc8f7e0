"""Position or token? The same prompts with other first tokens, and the same tokens at another position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from llmlab.anatomy.anatomy import anatomy_of
from llmlab.anatomy.capture import run
from llmlab.core.charts import BARS, DASHED, Axis, Chart, Series, Table
from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, quiet
from llmlab.data.papers import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED
from llmlab.studies.papers.agreement import by_models
from llmlab.studies.papers.attention_sinks import thresholds as bounds
from llmlab.studies.papers.attention_sinks.plan import POSITION
from llmlab.studies.papers.attention_sinks.reading import (
    Array,
    FirstTokens,
    Found,
    Shares,
    in_the_middle,
    in_upper_half,
    models_sentence,
    nothing_measured,
    uniform_share,
    watched_layers,
    with_intervals,
)
from llmlab.studies.papers.attention_sinks.sink import SHARE_AXIS
from llmlab.studies.papers.prompts import Prompts, always_first
from llmlab.studies.papers.records import PapersCriterion, Statistic, Verdict
from llmlab.studies.papers.statistics import bootstrap_interval

if TYPE_CHECKING:
    from llmlab.data.tokenizers import TextTokenizer


OWN, BEGINNING = "the text's own", "beginning of text"
# Marks and words, frequent and rare, of which each tokenizer's first token is taken.
WORDS = {"line break": "\n", "The": "The", "full stop": ".", "7": "7", "Zebra": "Zebra", "brace": "{"}
_DIGITS = 6


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


def put_first(model: nn.Module, prompts: Prompts, tokens: dict[str, int], progress: Progress = quiet) -> FirstTokens:
    """Two passes a prompt and token. tokens: by name. LabError where the model's attention cannot be watched."""
    anatomy = anatomy_of(model)
    layers = watched_layers(anatomy)
    upper = [layers[place] for place in in_upper_half(layers, anatomy.n_layer)]
    time = len(prompts.ids[0])
    elsewhere = time // 4

    def shares(ids: list[int]) -> Array:
        """On the first position, and on the other one."""
        observer = Shares(anatomy, time, (0, elsewhere))
        run(model, anatomy, ids, [observer], last=True)
        found: Array = observer.results()[:, upper].mean((1, 2))
        return found

    first, moved = [], []
    for done, ids in enumerate(prompts.ids):
        rows = [shares(ids)]
        for number, id in enumerate(tokens.values()):
            progress("Putting other tokens first", done * len(tokens) + number, len(prompts.ids) * len(tokens))
            at_first, at_other = list(ids), list(ids)
            at_first[0] = at_other[elsewhere] = id
            rows.append(np.array([shares(at_first)[0], shares(at_other)[1]]))
        by_token = np.stack(rows)  # [tokens, 2]
        first.append(by_token[:, 0])
        moved.append(by_token[:, 1])
    return FirstTokens(
        names=[OWN, *tokens],
        place=elsewhere,
        tokens=time,
        first=np.stack(first, 1).astype(float).round(_DIGITS).tolist(),
        moved=np.stack(moved, 1).astype(float).round(_DIGITS).tolist(),
    )


# Verdict --------------------------------------------------------------------------------------------------------------


_TINY = 1e-6  # of a share: the last digit that is kept


def place_kept(first: FirstTokens) -> tuple[float, float, float]:
    """What the first position keeps with the token that draws least, over the one that draws most; low, high."""
    return _with_interval(np.array(first.first), lambda means: means.min(0) / means.max(0))


def taken_along(first: FirstTokens) -> tuple[float, float, float]:
    """The most that a token draws at the other position, over what it draws at the first; low, high.

    The text's own tokens are left out: they are not the same at the two positions.
    """
    rows = np.concatenate([np.array(first.first)[1:], np.array(first.moved)[1:]])  # [2 tokens, P]
    half = len(rows) // 2
    return _with_interval(rows, lambda means: (means[half:] / np.maximum(means[:half], _TINY)).max(0))


def has_sink(first: FirstTokens) -> bool:
    """Whether, with the token that draws most, the first position gets clearly more than uniform attention gives it."""
    rows = np.array(first.first)
    best = rows[rows.mean(1).argmax()]
    return bootstrap_interval(best)[0] >= bounds.SINK_OVER_UNIFORM * uniform_share(first.tokens)


def judge_position(first: FirstTokens) -> str:
    """One model."""
    if not has_sink(first) or len(first.names) < 2:
        return INCONCLUSIVE
    _, kept_low, kept_high = place_kept(first)
    _, along_low, along_high = taken_along(first)
    if kept_high < bounds.PLACE_LOST or along_low >= bounds.TOKEN_TAKES_ALONG:
        return NOT_SUPPORTED
    supported = kept_low >= bounds.PLACE_KEPT and along_high <= bounds.TOKEN_LEFT_BEHIND
    return SUPPORTED if supported else INCONCLUSIVE


def _with_interval(rows: Array, statistic: Callable[[Array], Array]) -> tuple[float, float, float]:
    """A statistic of the rows' means [R] over prompts (rows [R, P]), with its bootstrap interval over prompts."""
    low, high = bootstrap_interval(rows.T, lambda drawn, axis: statistic(drawn.mean(axis).T))
    return float(statistic(rows.mean(1))), low, high


def position_verdict(found: Sequence[Found], refused: dict[str, str]) -> Verdict:
    """The claim that the position draws attention, and not the word. refused: why a model could not be asked."""
    threshold = (
        f"the first position keeps at least {bounds.PLACE_KEPT:.0%} of its share whatever stands there, and no token "
        f"draws more than {bounds.TOKEN_LEFT_BEHIND:.0%} as much elsewhere. Not supported where a token leaves less "
        f"than {bounds.PLACE_LOST:.0%}, or draws at least {bounds.TOKEN_TAKES_ALONG:.0%} as much elsewhere. Nothing "
        f"can be said where the first position gets less than {bounds.SINK_OVER_UNIFORM:g} times the uniform share"
    )
    firsts = {one.name: one.first for one in found if one.first is not None}
    if not firsts:
        return nothing_measured(POSITION, threshold, refused)
    outcomes = {name: judge_position(first) for name, first in firsts.items()}
    middle_one = in_the_middle([one for one in found if one.first], lambda one: place_kept(firsts[one.name])[0])
    shown_one = firsts[middle_one.name]
    kept, low, high = place_kept(shown_one)
    means = np.array(shown_one.first).mean(1)
    least, most = shown_one.names[int(means.argmin())], shown_one.names[int(means.argmax())]
    words = (
        f"In {middle_one.name} the first position gets most with {_quoted(most)} ({means.max():.1%}) and least with "
        f"{_quoted(least)} ({means.min():.1%}). "
    )
    if len(shown_one.names) > 1:
        along = taken_along(shown_one)[0]
        words += f"At position {shown_one.place} a token draws at most {along:.0%} of what it draws at the first. "
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
        charts=[first_tokens_chart(found), moved_chart(found)],
        tables=[position_table(found, outcomes)],
        evidence={"outcomes": outcomes},
    )


def _quoted(name: str) -> str:
    return name if " " in name else f"“{name}”"


def first_tokens_chart(found: Sequence[Found]) -> Chart:
    """The share on the first position with other tokens there."""
    return _by_token(
        found,
        "first-tokens",
        "Attention on the first position, by what stands there",
        "Mean over heads in the upper half of the layers, with 95 % intervals over prompts; the rest of each prompt is "
        "the same. Where the position matters, bars are alike.",
        moved=False,
    )


def moved_chart(found: Sequence[Found]) -> Chart:
    """The share of the same tokens elsewhere."""
    return _by_token(
        found,
        "moved-tokens",
        "Attention on another position, by what stands there",
        "The same tokens a quarter into the prompt, with 95 % intervals over prompts. A token that draws attention "
        "here as it does in the first position is a sink by itself.",
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
        series.append(with_intervals(model, places, rows.T, BARS))
        even[uniform_share(first.tokens, first.place if moved else 0)] = None
    for share in even:
        series.append(Series("uniform attention", [0.0, float(len(tokens) - 1)], [share] * 2, DASHED))
    return Chart(
        name=name,
        title=title,
        x_axis=Axis("token"),
        y_axis=SHARE_AXIS,
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
    return Table("Position or token", columns, rows)
