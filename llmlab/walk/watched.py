"""One forward pass of a walk: what the chosen layer's parts got and gave, and what every layer added to one position.

A walk can be asked with changes, each of one token, one number or one weight:

    token:3= king                    the token at position 3 is another one
    norm[5]=0.3                      component 5 of a stage's vector, at the position that is walked
    weight:blocks.0.attention.out.weight[3,4]=0.1    one weight, for this pass alone

Vectors that can be changed are those of `llmlab.walk.stage.CHANGEABLE`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.capture import POINTS, AttentionCall, Intervener, Observer, Point, run
from llmlab.core.errors import LabError, UsageError
from llmlab.inspection.edits import HEADS, Slot
from llmlab.inspection.questions import token_of
from llmlab.inspection.stages import HeadStages, stages_of
from llmlab.models.model import OpenModel
from llmlab.walk.parts import LayerParts, layer_parts, position_embedding
from llmlab.walk.stage import CHANGEABLE

# Numbers of all logits of a prompt: 256 MB in fp32.
_MOST_LOGITS = 64 * 1024 * 1024
# Of the stages that can be changed: the point of the stream where that is done. The others are a module's.
_POINTS: dict[str, Point] = {
    "stream": "pre_attn",
    "attention": "attn_out",
    "feed_forward": "mlp_out",
    "after": "post_ffn",
}
_NUMBER = r"(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_TOKEN = re.compile(r"token:(?P<position>-?\d+)=(?P<text>.*)", re.DOTALL)
_WEIGHT = re.compile(rf"weight:(?P<name>[\w.]+)\[(?P<index>\d+(?:\s*,\s*\d+)?)\]\s*=\s*{_NUMBER}")
_VECTOR = re.compile(rf"(?P<stage>[a-z_]+)\[(?P<index>\d+)\]\s*=\s*{_NUMBER}")
_FORMS = "A change is token:3= king, or a number such as norm[5]=0.3, or weight:blocks.0.attention.out.weight[3,4]=0.1."


@dataclass(frozen=True)
class Changes:
    """tokens: new text by position. vectors: (component, number) by stage. weights: (name, index, number)."""

    tokens: dict[int, str] = field(default_factory=dict)
    vectors: dict[str, tuple[int, float]] = field(default_factory=dict)
    weights: tuple[tuple[str, tuple[int, ...], float], ...] = ()

    def ids(self, opened: OpenModel, ids: Sequence[int]) -> list[int]:
        """The prompt with its tokens changed. UsageError for a position or a text that is none."""
        changed = list(ids)
        for position, text in self.tokens.items():
            if not -len(ids) <= position < len(ids):
                raise UsageError(f"The prompt has no token {position}.", f"It has {len(ids)}.")
            changed[position] = token_of(opened, text, "token")
        return changed

    @contextlib.contextmanager
    def weights_changed(self, model: nn.Module) -> Iterator[None]:
        """While it lasts, weights are what the changes say. UsageError for one that is not there or is packed."""
        parameters, old = dict(model.named_parameters()), []
        with torch.no_grad():
            try:
                for name, index, value in self.weights:
                    parameter = parameters.get(name)
                    if parameter is None:
                        raise UsageError(f"The model has no weight {name}.", f"One is {next(iter(parameters))}.")
                    if not parameter.is_floating_point():
                        raise UsageError(f"{name} is quantized.", "Its numbers are packed, and cannot be changed.")
                    if len(index) != parameter.dim() or any(
                        i >= size for i, size in zip(index, parameter.shape, strict=True)
                    ):
                        raise UsageError(
                            f"{name} has no place {list(index)}.", f"Its shape is {list(parameter.shape)}."
                        )
                    old.append((parameter, index, parameter[index].clone()))
                    parameter[index] = value
                yield
            finally:
                for parameter, index, before in reversed(old):
                    parameter[index] = before


def parse_changes(texts: Sequence[str]) -> Changes:
    """Changes as they are written. UsageError, with the forms there are, for anything else."""
    tokens: dict[int, str] = {}
    vectors: dict[str, tuple[int, float]] = {}
    weights: list[tuple[str, tuple[int, ...], float]] = []
    for text in texts:
        if match := _TOKEN.fullmatch(text):
            tokens[int(match["position"])] = match["text"]
        elif match := _WEIGHT.fullmatch(text.strip()):
            weights.append((match["name"], tuple(map(int, match["index"].split(","))), float(match["value"])))
        elif (match := _VECTOR.fullmatch(text.strip())) and match["stage"] in CHANGEABLE:
            vectors[match["stage"]] = int(match["index"]), float(match["value"])
        else:
            raise UsageError(f"{text!r} is no change.", f"{_FORMS} Stages: {', '.join(CHANGEABLE)}.")
    return Changes(tokens, vectors, tuple(weights))


@dataclass
class Seen:
    """What a pass showed, in fp32 or wider. T tokens, C width, L layers, D a head's width."""

    logits: Tensor  # [V], at the position
    heads: HeadStages  # of the chosen head
    z: Tensor  # [T, H, D], of the chosen layer
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
    changes: Changes | None = None,
    before: Seen | None = None,
) -> Seen:
    """Runs the model once over ids and keeps what a walk shows. LabError where the head's stages cannot be had.

    before: an unchanged pass, which changes of numbers need: it shows which module is which.
    """
    anatomy, model = opened.anatomy, opened.model
    if len(ids) * anatomy.vocab_size > _MOST_LOGITS:
        raise UsageError(
            f"The prompt has {len(ids):,} tokens.",
            f"A walk takes at most {_MOST_LOGITS // anatomy.vocab_size:,} of this model's.",
            "Shorten the prompt: a few words are best to follow.",
        )
    parts = layer_parts(anatomy, layer)
    changes = changes or Changes()
    first = getattr(anatomy.blocks[0].attention, "qkv", None) if hasattr(parts.attention, "value_mix") else None
    hooks = _Hooks(parts)
    watcher, changer = _Watcher(anatomy, layer, head, position), _Changer(layer, head, position, changes)
    with hooks:
        if before is not None:  # first: what is watched is what was changed
            _change_modules(hooks, parts, anatomy, before, changes, position)
        everything = {*parts.watched(), anatomy.embedding, anatomy.final_norm, position_embedding(model), first}
        for module in everything - {None}:
            assert module is not None
            hooks.watch(module)
        logits = run(model, anatomy, ids, [watcher], [changer])[0, position, : opened.vocab_size]
    if not logits.isfinite().all():
        why = "Nothing can be drawn from them."
        raise LabError("The logits are not finite.", why, "Choose a smaller number." if changes != Changes() else "")
    heads, z, final = watcher.heads_found, watcher.z, watcher.last
    assert heads is not None
    assert z is not None
    assert final is not None
    into_up = hooks.raw_inputs.get(parts.up) if parts.up is not None else None
    return Seen(
        logits=_wide(logits),
        heads=heads,
        z=z,
        final=final,
        added={point: torch.stack(rows) for point, rows in watcher.added.items()},
        inputs=hooks.inputs,
        outputs=hooks.outputs,
        rotary=hooks.rotary or _own_rotary(parts, len(ids)),
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


class _Watcher(Observer):
    def __init__(self, anatomy: Anatomy, layer: int, head: int, position: int) -> None:
        self._anatomy, self._layer, self._head, self._position = anatomy, layer, head, position
        self.added: dict[Point, list[Tensor]] = {point: [] for point in POINTS}
        self.heads_found: HeadStages | None = None
        self.z: Tensor | None = None
        self.last: Tensor | None = None

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        self.added[point].append(_wide(x[self._position]).clone())

    def attention(self, layer: int, call: AttentionCall) -> None:
        if layer == self._layer:
            self.heads_found = stages_of(call, self._head, sinks=self._anatomy.sinks)

    def heads(self, layer: int, z: Tensor) -> None:
        if layer == self._layer:
            self.z = _wide(z).clone()

    def final(self, x: Tensor) -> None:
        self.last = _wide(x[self._position]).clone()


class _Changer(Intervener):
    """Sets single numbers of the stream and of the chosen head's output."""

    def __init__(self, layer: int, head: int, position: int, changes: Changes) -> None:
        self._head, self._position = head, position
        self._at: dict[Slot, tuple[int, float]] = {
            (layer, point): changes.vectors[stage] for stage, point in _POINTS.items() if stage in changes.vectors
        }
        if "weighted_sum" in changes.vectors:
            self._at[layer, HEADS] = changes.vectors["weighted_sum"]

    def residual(self, layer: int, point: Point, x: Tensor) -> Tensor | None:
        if (layer, point) not in self._at:
            return None
        return set_number(x, self._position, *self._at[layer, point])

    def heads(self, layer: int, z: Tensor) -> Tensor | None:
        if (layer, HEADS) not in self._at:
            return None
        changed = z.clone()
        changed[:, :, self._head] = set_number(changed[:, :, self._head], self._position, *self._at[layer, HEADS])
        return changed


def set_number(x: Tensor, position: int, component: int, value: float) -> Tensor:
    """x [B, T, C] with one number set. UsageError where there is no such component."""
    if component >= x.shape[-1]:
        raise UsageError(f"There is no component {component}.", f"The vector has {x.shape[-1]:,}, from 0.")
    changed = x.clone()
    changed[..., position, component] = value
    return changed


def _change_modules(
    hooks: _Hooks, parts: LayerParts, anatomy: Anatomy, before: Seen, changes: Changes, position: int
) -> None:
    """Sets single numbers that modules give, and neurons, which the last linear layer of the feed-forward gets."""
    gives = {
        "norm": before.norm,
        "feed_forward_norm": before.feed_forward_norm,
        "up": parts.up,
        "neurons": parts.down,
        "final_norm": anatomy.final_norm,
    }
    for stage, module in gives.items():
        if stage not in changes.vectors:
            continue
        if module is None:
            raise UsageError(f"{stage} of this layer cannot be changed.", "This family has it nowhere by itself.")
        component, value = changes.vectors[stage]
        if stage == "up" and parts.gated_up:  # the gate's half stands first
            component += before.outputs[module].shape[-1] // 2
        if stage == "neurons":
            take = partial(_changed_input, position, component, value)
            hooks.callback(module.register_forward_pre_hook(take).remove)
        else:
            give = partial(_changed_output, position, component, value)
            hooks.callback(module.register_forward_hook(give).remove)


def _changed_input(position: int, component: int, value: float, _: nn.Module, args: Any) -> tuple[Tensor, ...]:
    return set_number(args[0], position, component, value), *args[1:]


def _changed_output(position: int, component: int, value: float, _: nn.Module, args: Any, output: Any) -> Tensor:
    return set_number(output, position, component, value)


class _Hooks(contextlib.ExitStack):
    """Keeps what modules get and give, while it is entered."""

    def __init__(self, parts: LayerParts) -> None:
        super().__init__()
        self._parts = parts
        self.inputs: dict[nn.Module, Tensor] = {}
        self.outputs: dict[nn.Module, Tensor] = {}
        # As they were passed on, to see whose output is whose input.
        self.raw_inputs: dict[nn.Module | None, Tensor] = {}
        self._raw_outputs: dict[nn.Module, Tensor] = {}
        self.rotary: tuple[Tensor, Tensor] | None = None

    def watch(self, module: nn.Module) -> None:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs.get("hidden_states")
            if isinstance(x, Tensor):
                self.raw_inputs[module], self.inputs[module] = x, self._kept(x)
            turning = kwargs.get("position_embeddings") if module is self._parts.attention else None
            if isinstance(turning, tuple) and len(turning) == 2:
                self.rotary = _wide(turning[0][0]), _wide(turning[1][0])

        def after(_: nn.Module, args: Any, output: Any) -> None:
            x = output[0] if isinstance(output, tuple) else output
            if isinstance(x, Tensor):
                self._raw_outputs[module], self.outputs[module] = x, self._kept(x)

        self.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        self.callback(module.register_forward_hook(after).remove)

    def gave(self, x: Tensor | None, modules: Sequence[nn.Module]) -> nn.Module | None:
        """Which of the modules x comes from, as it is or in another shape."""
        for module in modules:
            output = self._raw_outputs.get(module)
            if x is not None and output is not None and output.data_ptr() == x.data_ptr():
                return module
        return None

    @staticmethod
    def _kept(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x[0].detach().clone()
        return _wide(x[0] if x.dim() > 2 else x).clone()
