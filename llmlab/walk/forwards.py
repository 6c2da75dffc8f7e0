"""The walk forwards: one prompt through the model, for one layer, head and position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from llmlab.anatomy.anatomy import require
from llmlab.core.errors import UsageError
from llmlab.core.setting_info import describe, parse_value
from llmlab.core.settings import Sampling
from llmlab.inspection.one_part import require_head
from llmlab.inspection.questions import Prompt, position_of
from llmlab.models.model import OpenModel
from llmlab.walk.attending import attention_stages, normed_query, projected
from llmlab.walk.cached import with_cache
from llmlab.walk.changes import Changes, parse_changes
from llmlab.walk.feeding import feed_forward_stages
from llmlab.walk.focus import Focus
from llmlab.walk.inputs import input_stages
from llmlab.walk.predicting import prediction_stages
from llmlab.walk.stage import BY_KEY, CHANGEABLE, Stage, marked
from llmlab.walk.sums import number
from llmlab.walk.watched import Seen, Setting, watch

_SAMPLING = ("temperature", "top_k", "top_p")


@dataclass(frozen=True, kw_only=True)
class Walk(Prompt):
    """What is walked. key: the position whose score is written out; None for one that a change sets, else the one that
    is attended to most.

    Sampling as `llmlab.core.settings.Sampling`. drawn: how many of the prompt's last tokens this seed drew already.
    changes: see `llmlab.walk.changes`; each value is then marked against what it was without them. cache: also walk the
    newest token with a KV cache, and say what of each stage it holds.
    """

    layer: int = 0
    head: int = 0
    position: int = -1
    key: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    drawn: int = 0
    changes: tuple[str, ...] = ()
    cache: bool = False


@torch.no_grad()
def walk(opened: OpenModel, asked: Walk) -> list[Stage]:
    """The stages in their order. UsageError for a layer, head or position that is not there.

    LabError where the lab does not look into this model's attention or stream.
    """
    check(opened, asked.layer, asked.head)
    for info in describe(Sampling, "sampling"):
        if info.name in _SAMPLING:
            parse_value(info, getattr(asked, info.name))
    ids = asked.token_ids(opened)
    changes = parse_changes(asked.changes)
    position = position_of(asked.position, len(ids))
    seen = watch(opened, ids, asked.layer, asked.head, position)
    key = _key(seen, position, asked.key, changes, len(ids))
    focus = _focus_of(opened, asked, ids, seen, position, key, Changes())
    before = _stages(focus)
    if asked.cache and asked.changes:
        raise UsageError(
            "The KV cache cannot be walked with changes.", "", "Switch the cache off, or take the change out."
        )
    if not asked.changes:
        return with_cache(focus, before) if asked.cache else before
    changes.require(before)
    others, settings = changes.ids(opened, ids), settings_of(focus, changes)
    with changes.weights_changed(opened.model):
        changed = watch(opened, others, asked.layer, asked.head, position, changes.vectors, settings)
        after = _stages(_focus_of(opened, asked, others, changed, position, key, changes))
    return marked(after, [_saying(stage, changes, key) for stage in before])


@torch.no_grad()
def next_token(opened: OpenModel, asked: Walk) -> int:
    """The id that the walk of `asked` draws at its last stage."""
    (token,) = (stage.values[0].array for stage in walk(opened, asked) if stage.name == "next")
    return int(token[0])


def _stages(focus: Focus) -> list[Stage]:
    def all_of() -> Iterator[Stage]:
        yield from input_stages(focus)
        yield from attention_stages(focus)
        yield from feed_forward_stages(focus)
        yield from prediction_stages(focus)

    return list(all_of())


def _focus_of(
    opened: OpenModel, asked: Walk, ids: list[int], seen: Seen, position: int, key: int, changes: Changes
) -> Focus:
    text = asked.text if asked.text and not asked.ids and not changes.tokens else opened.tokenizer.decode(ids)
    how = Sampling(asked.temperature, asked.top_k, asked.top_p)
    return Focus(
        opened, seen, text, tuple(ids), asked.layer, asked.head, position, key, changes, how, asked.seed, asked.drawn
    )


def _key(seen: Seen, position: int, key: int | None, changes: Changes, time: int) -> int:
    """The one that is asked for, else one whose score or weight is set, else the one that is attended to most."""
    if key is not None:
        return position_of(key, time)
    number_set = (changes.vectors[name][0] for name in BY_KEY if name in changes.vectors)
    return next((at for at in number_set if at < time), int(seen.heads.pattern[position].argmax()))


def _saying(stage: Stage, changes: Changes, key: int) -> Stage:
    """A stage before a change, with the number that the change sets, where it writes out another one."""
    for changed, (component, _) in changes.vectors.items():
        name, of = CHANGEABLE[changed]
        if name == stage.name and component != (key if changed in BY_KEY else 0):
            (one,) = (value for value in stage.values if value.name == of)
            array = one.array if one.whole is None else one.whole
            stage = replace(stage, numbers=f"{changed}[{component}] = {number(float(array[component]))}")
    return stage


def check(opened: OpenModel, layer: int, head: int) -> None:
    """UsageError where there is no such head, LabError where the lab does not look into the model's parts."""
    anatomy = opened.anatomy
    refusals = anatomy.refusals
    for refusal in (refusals.attention, refusals.contributions, refusals.heads, refusals.attribution):
        require(refusal, "A walk")
    require_head(anatomy, layer, head)


def settings_of(focus: Focus, changes: Changes) -> Iterator[Setting]:
    """Those that modules get or give; what is changed in the stream or in attention is none. focus: without changes.

    UsageError for a number that this family has nowhere by itself.
    """
    parts, seen, anatomy, p = focus.parts, focus.seen, focus.anatomy, focus.position
    modules = {
        "embedding": anatomy.embedding,
        "norm": seen.norm,
        "output_projection": parts.out,
        "feed_forward_norm": seen.feed_forward_norm,
        "up": parts.up,
        "gate": parts.up if parts.gated_up else parts.gate,
        "neurons": parts.down,
        "down": parts.down,
        "rest": anatomy.final_norm,
        "final_norm": anatomy.final_norm,
    }
    for name, (component, new) in changes.vectors.items():
        if name in ("query", "key", "value"):
            one = projected(focus).get(name)
            if one is None:
                raise _nowhere(name)
            at = p if name == "query" else focus.key
            yield Setting(one.module, (at, int(one.rows[component])), new)
        elif name == "query_norm":
            where = normed_query(focus, projected(focus))
            if where is None:
                raise _nowhere(name)
            yield Setting(parts.query_norms[0], (*where, component), new)
        elif name == "value_mix":
            kv_head = focus.head // (anatomy.n_head // anatomy.n_kv_head)
            yield Setting(parts.attention, (kv_head, focus.key, component), new, "values")
        elif name in modules:
            module = modules[name]
            if module is None:
                raise _nowhere(name)
            if name == "up" and parts.gated_up:  # the gate's half stands first
                component += seen.outputs[module].shape[-1] // 2
            yield Setting(module, (p, component), new, "gets" if name in ("neurons", "rest") else "gives")


def _nowhere(name: str) -> UsageError:
    return UsageError(f"{name} of this layer cannot be changed.", "This family has it nowhere by itself.")
