"""One forward pass of a walk: what the chosen layer's parts got and gave, and what every layer added to one position.

Numbers can be set on their way (`llmlab.walk.changes`): what follows them is what the model makes of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.attention_call import AttentionCall
from llmlab.anatomy.capture import POINTS, Intervener, Observer, Point, run
from llmlab.core.errors import LabError, UsageError
from llmlab.inspection.stages import HeadStages, stages_of
from llmlab.models.model import OpenModel
from llmlab.walk.parts import LayerParts, layer_parts, position_embedding

# Numbers of all logits of a prompt: 256 MB in fp32.
_MOST_LOGITS = 64 * 1024 * 1024
# Of the stages that can be changed: the point of the stream where that is done. The others are a module's.
_POINTS: dict[str, Point] = {
    "stream": "pre_attn",
    "attention": "attn_out",
    "feed_forward": "mlp_out",
    "after": "post_ffn",
}
# Between the turned query and the weighted sum: what is set there changes the row of the position that is walked.
_IN_ATTENTION = frozenset({"rotation", "score", "softcap", "mask", "softmax"})
Vectors: TypeAlias = Mapping[str, tuple[int, float]]


@dataclass(frozen=True)
class Setting:
    """A number that a module gets or gives is set. index: behind the batch. values: those of the lab's own attention,
    [head, position, component], as it goes on with them."""

    module: nn.Module
    index: tuple[int, ...]
    number: float
    where: Literal["gives", "gets", "values"] = "gives"


@dataclass
class Seen:
    """What a pass showed, in fp32 or wider. T tokens, C width, L layers, D a head's width."""

    logits: Tensor  # [V], at the position
    heads: HeadStages  # of the chosen head
    z: Tensor  # [T, H, D], of the chosen layer
    start: Tensor  # [C], the stream before the first layer, at the position
    final: Tensor  # [C], the stream before the final norm, at the position
    added: dict[Point, Tensor]  # each point of the stream in every layer, at the position, [L, C]
    inputs: dict[nn.Module, Tensor]  # of the watched modules, without the batch
    outputs: dict[nn.Module, Tensor]
    rotary: tuple[Tensor, Tensor] | None  # cosines and sines [T, R], where the layer turns queries and keys
    norm: nn.Module | None  # before attention; None where attention reads the stream as it is
    feed_forward_norm: nn.Module | None
    first_values: Tensor | None  # the first layer's projections [T, C + 2 C_kv], where later values are mixed with it


def watch(
    opened: OpenModel,
    ids: Sequence[int],
    layer: int,
    head: int,
    position: int,
    vectors: Vectors = MappingProxyType({}),
    settings: Iterable[Setting] = (),
) -> Seen:
    """Runs the model once over ids and keeps what a walk shows. LabError where the head's stages cannot be had.

    vectors: numbers that are set, by the stage that has them; settings: those of them that modules get or give.
    """
    anatomy, model = opened.anatomy, opened.model
    if len(ids) * anatomy.vocab_size > _MOST_LOGITS:
        raise UsageError(
            f"The prompt has {len(ids):,} tokens.",
            f"A walk takes at most {_MOST_LOGITS // anatomy.vocab_size:,} of this model's.",
            "Shorten the prompt: a few words are best to follow.",
        )
    parts = layer_parts(anatomy, layer)
    first = getattr(anatomy.blocks[0].attention, "qkv", None) if hasattr(parts.attention, "value_mix") else None
    turning: list[tuple[Tensor, Tensor]] = []
    watcher = _Watcher(anatomy, layer, head, position, vectors)
    changer = _Changer(watcher, layer, head, position, vectors)
    with Hooks(_copied) as hooks:
        for setting in settings:  # first: what is watched is what was changed
            hooks.set(setting)
        everything = {*parts.watched(), anatomy.embedding, anatomy.final_norm, position_embedding(model), first}
        for module in everything - {None}:
            assert module is not None
            hooks.watch(module)
        see = partial(_see_turning, turning)
        hooks.callback(parts.attention.register_forward_pre_hook(see, with_kwargs=True).remove)
        found = run(model, anatomy, ids, [watcher], [changer] if vectors else [])[0, position, : opened.vocab_size]
    logits = _wide(found)
    if "logits" in vectors:
        logits = set_number(logits, *vectors["logits"])
    if not logits.isfinite().all():
        why = "Nothing can be drawn from them."
        raise LabError("The logits are not finite.", why, "Choose a smaller number." if vectors else "")
    heads, z, final = watcher.heads_found, watcher.z, watcher.last
    assert heads is not None
    assert z is not None
    assert final is not None
    start = watcher.added["pre_attn"][0] if changer.start is None else changer.start
    if changer.attn_out is not None:
        watcher.added["attn_out"][layer] = changer.attn_out
    into_up = hooks.raw_inputs.get(parts.up) if parts.up is not None else None
    return Seen(
        logits=logits,
        heads=heads,
        z=z,
        start=start,
        final=final,
        added={point: torch.stack(rows) for point, rows in watcher.added.items()},
        inputs=hooks.inputs,
        outputs=hooks.outputs,
        rotary=turning[0] if turning else _own_rotary(parts, len(ids)),
        norm=hooks.gave(hooks.raw_inputs.get(parts.attention), parts.children),
        feed_forward_norm=hooks.gave(into_up, parts.children),
        first_values=None if first is None else hooks.outputs[first],
    )


def _wide(x: Tensor) -> Tensor:
    return x.detach().to(torch.promote_types(x.dtype, torch.float32)).cpu()


def _own_rotary(parts: LayerParts, time: int) -> tuple[Tensor, Tensor] | None:
    """Of the lab's own GPT, whose attention holds its rotary module."""
    rotary = getattr(parts.attention, "rotary", None)
    return None if rotary is None else (_wide(rotary.cos[:time]), _wide(rotary.sin[:time]))


def _see_turning(found: list[tuple[Tensor, Tensor]], _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    """Cosines and sines, as families hand them to attention."""
    turning = kwargs.get("position_embeddings")
    if isinstance(turning, tuple) and len(turning) == 2:
        found[:] = [(_wide(turning[0][0]), _wide(turning[1][0]))]


class _Watcher(Observer):
    def __init__(self, anatomy: Anatomy, layer: int, head: int, position: int, vectors: Vectors) -> None:
        self._anatomy, self._layer, self._head, self._position = anatomy, layer, head, position
        self._vectors = vectors
        self.added: dict[Point, list[Tensor]] = {point: [] for point in POINTS}
        self.heads_found: HeadStages | None = None
        self.z: Tensor | None = None
        self.last: Tensor | None = None

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        self.added[point].append(_wide(x[self._position]).clone())

    def attention(self, layer: int, call: AttentionCall) -> None:
        if layer == self._layer:
            found = stages_of(call, self._head, sinks=self._anatomy.sinks)
            at_hand: dict[str, Any] = {name: one.cpu() for name, one in vars(found).items() if isinstance(one, Tensor)}
            self.heads_found = _with_row(replace(found, **at_hand), self._position, self._vectors)

    def heads(self, layer: int, z: Tensor) -> None:
        if layer == self._layer:
            self.z = _wide(z).clone()

    def final(self, x: Tensor) -> None:
        self.last = _wide(x[self._position]).clone()


class _Changer(Intervener):
    """Sets single numbers of the stream, and of what attention computes for the chosen head at the position."""

    def __init__(self, watcher: _Watcher, layer: int, head: int, position: int, vectors: Vectors) -> None:
        self._watcher, self._layer, self._head, self._position = watcher, layer, head, position
        self._vectors = vectors
        self.attn_out: Tensor | None = None  # as it was, where the stream behind it is set
        self.start: Tensor | None = None  # as it was, where the stream before the first layer is set

    def residual(self, layer: int, point: Point, x: Tensor) -> Tensor | None:
        changed, here = x, self._vectors.keys() & {name for name, where in _POINTS.items() if where == point}
        if (layer, point) == (0, "pre_attn"):
            if "position" in self._vectors:
                changed = set_number(changed, *self._vectors["position"], at=self._position)
            self.start = _wide(changed[0, self._position]).clone()
        if layer == self._layer:
            for name in here:
                changed = set_number(changed, *self._vectors[name], at=self._position)
        if (layer, point) == (self._layer, "attn_out") and "middle" in self._vectors:
            self.attn_out = _wide(changed[0, self._position]).clone()
            component, number_set = self._vectors["middle"]
            apart = number_set - float(self._watcher.added["pre_attn"][layer][component])
            changed = set_number(changed, component, apart, at=self._position)
        return None if changed is x else changed

    def heads(self, layer: int, z: Tensor) -> Tensor | None:
        own = self._vectors.keys() & _IN_ATTENTION
        if layer != self._layer or not (own or "weighted_sum" in self._vectors):
            return None
        changed, found = z.clone(), self._watcher.heads_found
        if own:
            assert found is not None
            changed[0, self._position, self._head] = (found.pattern[self._position] @ found.value).to(z)
        if "weighted_sum" in self._vectors:
            component, number_set = self._vectors["weighted_sum"]
            changed[0, self._position, self._head, component] = number_in(z, number_set)
        return changed


def set_number(x: Tensor, component: int, value: float, at: int | None = None) -> Tensor:
    """x [..., C], or with `at` the position in x [..., T, C], with one number set."""
    changed = x.clone()
    row = changed if at is None else changed[..., at, :]
    row[..., component] = number_in(x, value)
    return changed


def number_in(x: Tensor, value: float) -> Tensor:
    """As x can have it: infinite where a half has no such number, which Python's own would be an error."""
    return torch.tensor(value, dtype=torch.float64).to(x.dtype)


def _with_row(heads: HeadStages, at: int, vectors: Vectors) -> HeadStages:
    """Numbers set between the turned query and the pattern of position `at`, and what follows of them in its row."""
    rows = {name: one[at] for name, one in vars(heads).items() if isinstance(one, Tensor)}
    moved = False

    def put(name: str, of: str) -> None:
        nonlocal moved
        if name in vectors:
            rows[of], moved = set_number(rows[of], *vectors[name]), True

    put("rotation", "query")
    if moved:
        rows["scores"] = heads.key @ rows["query"]
        rows["scaled"] = rows["scores"] * heads.scale
    put("score", "scaled")
    last = "scaled"
    if heads.softcap is not None:
        if moved:
            rows["capped"] = torch.tanh(rows["scaled"] / heads.softcap) * heads.softcap
        put("softcap", "capped")
        last = "capped"
    if moved:  # with the biases that a family adds, and minus infinity where nothing is seen
        rows["masked"] = rows[last] + (heads.masked[at] - getattr(heads, last)[at])
    put("mask", "masked")
    if moved:
        rows["pattern"] = rows["masked"].softmax(-1)
        if heads.sink is not None:  # whose own score joins the softmax: from its share before
            score = heads.sink[at].clamp(0, 1).logit() + heads.masked[at].logsumexp(-1)
            rows["sink"] = (score - rows["masked"].logsumexp(-1)).sigmoid()
            rows["pattern"] = rows["pattern"] * (1 - rows["sink"])
    put("softmax", "pattern")
    if not moved:
        return heads
    whole = {name: getattr(heads, name).clone() for name in rows.keys() - {"key", "value"}}
    for name, matrix in whole.items():
        matrix[at] = rows[name]
    return replace(heads, **whole)


def _copied(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        return x[0].detach().clone()
    return _wide(x[0] if x.dim() > 2 else x).clone()


class Hooks(contextlib.ExitStack):
    """Keeps what modules get and give, while it is entered."""

    def __init__(self, keep: Callable[[Tensor], Tensor | None]) -> None:
        """keep: what is kept of a tensor, None for nothing."""
        super().__init__()
        self._keep = keep
        self.inputs: dict[nn.Module, Tensor] = {}
        self.outputs: dict[nn.Module, Tensor] = {}
        # As they were passed on, to see whose output is whose input.
        self.raw_inputs: dict[nn.Module | None, Tensor] = {}
        self._raw_outputs: dict[nn.Module, Tensor] = {}

    def watch(self, module: nn.Module) -> None:
        """From now on."""

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs.get("hidden_states")
            if isinstance(x, Tensor) and (kept := self._keep(x)) is not None:
                self.raw_inputs[module], self.inputs[module] = x, kept

        def after(_: nn.Module, args: Any, output: Any) -> None:
            x = output[0] if isinstance(output, tuple) else output
            if isinstance(x, Tensor) and (kept := self._keep(x)) is not None:
                self._raw_outputs[module], self.outputs[module] = x, kept

        self.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        self.callback(module.register_forward_hook(after).remove)

    def set(self, setting: Setting) -> None:
        """Sets a number whenever it comes by."""
        module: Any = setting.module

        def put(x: Tensor) -> Tensor:
            changed = x.clone()
            where: Any = (..., *setting.index)
            changed[where] = number_in(x, setting.number)
            return changed

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            if args:
                return (put(args[0]), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": put(kwargs["hidden_states"])}

        def heads(*given: Any, **named: Any) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = type(module).heads(module, *given, **named)
            return q, k, put(v)

        match setting.where:
            case "gets":
                self.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            case "gives":
                self.callback(module.register_forward_hook(lambda _, args, output: put(output)).remove)
            case "values":
                module.heads = heads
                self.callback(delattr, module, "heads")

    def gave(self, x: Tensor | None, modules: Sequence[nn.Module]) -> nn.Module | None:
        """Which of the modules x comes from, as it is or in another shape."""
        for module in modules:
            output = self._raw_outputs.get(module)
            if x is not None and output is not None and output.data_ptr() == x.data_ptr():
                return module
        return None
