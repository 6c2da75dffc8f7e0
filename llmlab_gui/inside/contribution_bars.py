"""From an inspection's tensors to bars: what each layer adds to one token's residual stream. Knows no Qt."""

from __future__ import annotations

from dataclasses import dataclass

from llmlab.inspection.archive import Array
from llmlab_gui.charts.bars import Bar, BarGroup, Bars, Series
from llmlab_gui.inside.film import Inspected
from llmlab_gui.widgets.alternatives import visible
from llmlab_gui.widgets.numbers import exact

NORM, SHARE, LOGIT = "norm", "share", "logit"
ATTENTION, FEED_FORWARD, ENDS, SUM = range(4)

_SERIES = (Series("attention", 0), Series("feed-forward", 1), Series("embedding", 2), Series("sum", -1))
_UNITS = {NORM: "length of what is added (L2 norm)", SHARE: "share of the last residual"}


@dataclass(frozen=True)
class Target:
    """Whose logit the attribution is about, in words. against: "" for none."""

    answer: str = ""
    against: str = ""

    @property
    def unit(self) -> str:
        """`logit of “·Paris”`, `logit of “·Paris” − logit of “·Rome”`."""
        against = f" − logit of “{visible(self.against)}”" if self.against else ""
        return f"logit of “{visible(self.answer)}”{against}" if self.answer else "logit of the most likely token"


def layer_bars(archive: Inspected, mode: str, token: int, target: Target | None = None) -> Bars:
    """One group a layer, ends and sum apart. token: its position in the prompt; an attribution has its own.

    KeyError when the archive lacks what the mode needs.
    """
    if mode == LOGIT:
        return _attribution(archive, target or Target())
    if mode == SHARE:
        return _shares(archive, token)
    return _norms(archive, token)


def head_bars(archive: Inspected, mode: str, layer: int, token: int, target: Target | None = None) -> Bars:
    """The heads of one layer's attention: parts of its logit, else the norms of what they add."""
    if mode != LOGIT:
        norms = archive["contributions/heads"][layer, :, token]
        groups = [_group(str(head), f"layer {layer}, head {head}", norm, 0) for head, norm in enumerate(norms)]
        return Bars(tuple(groups), (Series(f"heads of layer {layer}", 0),), _UNITS[NORM], "head")
    parts = archive["attribution/heads"][layer]
    groups = [_group(str(head), f"layer {layer}, head {head}", part, 0) for head, part in enumerate(parts)]
    if "attribution/attention_bias" in archive:
        bias = archive["attribution/attention_bias"][layer]
        groups.append(_group("bias", f"layer {layer}, output bias", bias, 1, apart=True))
    groups.append(_group("sum", f"layer {layer}, attention", archive["attribution/attention"][layer], 2, apart=True))
    series = (Series(f"heads of layer {layer}", 0), Series("output bias", 2), Series("sum", -1))
    return Bars(tuple(groups), series, (target or Target()).unit, "head")


def neuron_bars(archive: Inspected, layer: int, target: Target | None = None) -> Bars:
    """The neurons of one feed-forward with the largest logit attribution, either sign, the largest first."""
    rows = zip(
        archive["neurons/index"].tolist(),
        archive["neurons/attribution"].tolist(),
        archive["neurons/activation"].tolist(),
        strict=True,
    )
    groups = tuple(
        BarGroup(
            f"#{index}", (Bar(part, 0, f"layer {layer}, neuron {index}: {exact(part)}, activation {exact(value)}"),)
        )
        for index, part, value in rows
    )
    return Bars(groups, (Series(f"neurons of layer {layer}", 1),), (target or Target()).unit, "neuron")


def rows(bars: Bars) -> list[tuple[str, str, float]]:
    """As a table: group, series, value."""
    return [(group.label, bars.series[bar.series].name, bar.value) for group in bars.groups for bar in group.bars]


def _norms(archive: Inspected, token: int) -> Bars:
    """What is in the stream at first, what is added, and what is there at last; norms do not add up."""
    attention = archive["contributions/norm/attn_out"][:, token]
    feed_forward = archive["contributions/norm/mlp_out"][:, token]
    first = archive["contributions/norm/pre_attn"][0, token]
    last = archive["contributions/norm/post_ffn"][-1, token]
    series = (*_SERIES[:3], Series("last residual", -1))
    groups = [_group("emb", "embedding", first, ENDS), *_pairs(attention, feed_forward)]
    return Bars((*groups, _group("last", "last residual", last, SUM, apart=True)), series, _UNITS[NORM], "layer")


def _shares(archive: Inspected, token: int) -> Bars:
    embedding = archive["contributions/share/embedding"][token]
    attention = archive["contributions/share/attention"][:, token]
    feed_forward = archive["contributions/share/feed_forward"][:, token]
    whole = float(embedding) + attention.sum(dtype="float64") + feed_forward.sum(dtype="float64")
    groups = [_group("emb", "embedding", embedding, ENDS), *_pairs(attention, feed_forward)]
    return Bars((*groups, _group("sum", "sum of all", whole, SUM, apart=True)), _SERIES, _UNITS[SHARE], "layer")


def _attribution(archive: Inspected, target: Target) -> Bars:
    def one(name: str) -> float:
        return float(archive[f"attribution/{name}"][0])

    pairs = _pairs(archive["attribution/attention"], archive["attribution/feed_forward"])
    groups = [_group("emb", "embedding", one("embedding"), ENDS), *pairs]
    groups.append(_group("bias", "bias of the final norm and of the unembedding", one("bias"), ENDS))
    total = Bar(one("sum"), SUM, f"sum: {exact(one('sum'))}; the model's logit: {exact(one('logit'))}")
    series = (*_SERIES[:2], Series("embedding, bias", 2), _SERIES[3])
    return Bars((*groups, BarGroup("sum", (total,), apart=True)), series, target.unit, "layer")


def _pairs(attention: Array, feed_forward: Array) -> list[BarGroup]:
    def bar(layer: int, part: str, value: float, series: int) -> Bar:
        return Bar(float(value), series, f"layer {layer}, {part}: {exact(value)}")

    return [
        BarGroup(str(layer), (bar(layer, "attention", a, ATTENTION), bar(layer, "feed-forward", f, FEED_FORWARD)))
        for layer, (a, f) in enumerate(zip(attention.tolist(), feed_forward.tolist(), strict=True))
    ]


def _group(label: str, name: str, value: float, series: int, *, apart: bool = False) -> BarGroup:
    return BarGroup(label, (Bar(float(value), series, f"{name}: {exact(float(value))}"),), apart=apart)
