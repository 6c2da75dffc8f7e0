"""Interventions in a forward pass: parts of a model ablated (zero, mean), scaled or patched.

A change is written as an action and a part:

    zero      head:3.2                the output z of head 2 of layer 3, before the output projection
    mean      attention:3             what layer 3's attention adds to the stream (its output bias included)
    scale:0.5 feed_forward:3          what layer 3's feed-forward adds to the stream
    patch     layer:3                 the whole block: zero skips it, so that its output is its input
              residual:3.pre_attn     the stream or a contribution at a point: pre_attn attn_out mlp_out post_ffn
              token:5                 the stream of one token before the first block: residual:0.pre_attn@5

and, where only some tokens are meant, their positions: `zero head:3.2@5`, `patch residual:3.pre_attn@-1,4`.

With x what the part yields at a position, and x' what it yields there after the change:

    zero     x' = 0
    mean     x' = mean of x over the positions of an unchanged pass over the prompt, or over a reference text
    scale:f  x' = f x
    patch    x' = x of an unchanged pass over another prompt, at the position that is aligned with this one

Replacing a part's value by that of another run is the intervention of Vig et al. 2020 ("Investigating Gender Bias
in Language Models Using Causal Mediation Analysis"); patching single states is Meng et al. 2022 ("Locating and
Editing Factual Associations in GPT", section 2.1), patching heads Wang et al. 2022 ("Interpretability in the Wild",
section 3, who also replace by means instead of zeros, which leave what a model has ever seen).

For `layer`, zero, mean and scale speak of what the block adds, output - input; patch replaces its output.
A norm between a head and the stream (Gemma 2, OLMo2) works on what the changed heads give together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from llmlab.anatomy.anatomy import Anatomy, require
from llmlab.anatomy.capture import Intervener, Observer, Point
from llmlab.core.errors import UsageError
from llmlab.inspection.questions import position_of

Action: TypeAlias = Literal["zero", "mean", "scale", "patch"]
Part: TypeAlias = Literal["head", "attention", "feed_forward", "layer", "residual"]
# Where a value is taken and put: a point of the stream, or the head outputs.
Slot: TypeAlias = tuple[int, str]
HEADS = "heads"
EDITABLE: tuple[Point, ...] = ("pre_attn", "attn_out", "mlp_out", "post_ffn")

_WRITTEN = re.compile(
    r"(?P<action>zero|mean|patch|scale:(?P<factor>[-+.\deE]+))\s+"
    r"(?:token:(?P<token>-?\d+)|(?P<part>[a-z_]+):(?P<layer>\d+)(?:\.(?P<which>\w+))?(?:@(?P<at>-?\d+(?:,-?\d+)*))?)"
)
_FORMS = (
    "It is an action (zero, mean, scale:0.5 or patch) and a part (head:3.2, attention:3, feed_forward:3, layer:3, "
    "residual:3.pre_attn or token:5), with positions if only some are meant: zero head:3.2@5"
)


@dataclass(frozen=True)
class Intervention:
    """One change. positions: as written, from the end where negative; empty: every token."""

    action: Action
    part: Part
    layer: int
    head: int = 0  # of part "head"
    point: Point = "pre_attn"  # of part "residual"
    factor: float = 0.0  # of action "scale"
    positions: tuple[int, ...] = ()

    def __str__(self) -> str:
        action = f"scale:{self.factor:g}" if self.action == "scale" else self.action
        which = {"head": f".{self.head}", "residual": f".{self.point}"}.get(self.part, "")
        at = f"@{','.join(map(str, self.positions))}" if self.positions else ""
        return f"{action} {self.part}:{self.layer}{which}{at}"

    @property
    def puts(self) -> Slot:
        """Where the changed value goes."""
        point = {"head": HEADS, "attention": "attn_out", "feed_forward": "mlp_out", "layer": "post_ffn"}
        return self.layer, point.get(self.part, self.point)

    @property
    def takes(self) -> tuple[Slot, ...]:
        """What must be known of another pass."""
        if self.action not in ("mean", "patch"):
            return ()
        if self.part == "layer" and self.action == "mean":
            return (self.layer, "pre_attn"), (self.layer, "post_ffn")
        return (self.puts,)


def parse_intervention(text: str) -> Intervention:
    """A change as it is written. UsageError, with the forms there are, when it is none."""
    match = _WRITTEN.fullmatch(text.strip().replace(" mlp:", " feed_forward:"))
    if match is None:
        raise UsageError(f"{text!r} is not an intervention.", _FORMS)
    action: Action = "scale" if match["factor"] else match["action"]  # type: ignore[assignment]
    try:
        factor = float(match["factor"] or 0.0)
    except ValueError:
        raise UsageError(f"{match['factor']!r} is not a number to scale by.", _FORMS) from None
    if match["token"]:
        return Intervention(action, "residual", 0, factor=factor, positions=(int(match["token"]),))
    part, which, layer = match["part"], match["which"], int(match["layer"])
    positions = tuple(int(position) for position in match["at"].split(",")) if match["at"] else ()
    if part == "head" and which and which.isdecimal():
        return Intervention(action, "head", layer, head=int(which), factor=factor, positions=positions)
    if part == "residual" and which in EDITABLE:
        return Intervention(action, "residual", layer, point=which, factor=factor, positions=positions)
    if part == "residual" and which == "post_attn":
        raise UsageError(
            "post_attn cannot be set by itself.", "It is pre_attn + attn_out.", "Change one of these two instead."
        )
    if part in get_args(Part) and part not in ("head", "residual") and not which:
        return Intervention(action, part, layer, factor=factor, positions=positions)  # type: ignore[arg-type]
    raise UsageError(f"{text!r} names no part of a model.", _FORMS)


def require_intervention(anatomy: Anatomy, intervention: Intervention) -> None:
    """UsageError where the model has no such part, LabError where that part is refused for its family."""
    if intervention.layer >= anatomy.n_layer:
        raise UsageError(
            f"There is no layer {intervention.layer}.", f"The model has layers 0 to {anatomy.n_layer - 1}."
        )
    if intervention.part == "head":
        require(anatomy.refusals.heads, "Changing a head")
        if intervention.head >= anatomy.n_head:
            raise UsageError(f"There is no head {intervention.head}.", f"A layer has heads 0 to {anatomy.n_head - 1}.")
        if anatomy.blocks[intervention.layer].projection is None:
            raise UsageError(f"Layer {intervention.layer} has no heads.", "It works without attention patterns.")
    elif intervention.puts[1] in ("attn_out", "mlp_out"):
        require(anatomy.refusals.contributions, "Changing a contribution")


# Values of another pass ------------------------------------------------------------------------------------------


class Recorder(Observer):
    """Keeps the values of a pass that are asked for, and nothing else: [T, C], or [T, H, D] of heads."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self.values: dict[Slot, Tensor] = {}
        self._slots = set(slots)

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        if (layer, point) in self._slots:
            self.values[layer, point] = x.clone()

    def heads(self, layer: int, z: Tensor) -> None:
        if (layer, HEADS) in self._slots:
            self.values[layer, HEADS] = z.clone()


def align(text: str, time: int, source_time: int) -> dict[int, int]:
    """Position in the prompt -> position in the source, by `text`: "", "start", "end", or pairs "3=4,5=6".

    "" stands for equal positions and demands equal lengths: where they differ, nobody can know which tokens belong
    together, and a guess would show up as an effect. UsageError then, and for positions that are not there.
    """
    common = min(time, source_time)
    match text:
        case "":
            if time != source_time:
                raise UsageError(
                    f"The prompt has {time} tokens and the source {source_time}.",
                    "Patching puts the source's values at the same positions of the prompt.",
                    "Reword one of them, or say how they align: start, end, or pairs of positions such as 3=4,5=6.",
                )
            return {position: position for position in range(time)}
        case "start":
            return {position: position for position in range(common)}
        case "end":
            return {time - common + position: source_time - common + position for position in range(common)}
    if not re.fullmatch(r"-?\d+=-?\d+(,-?\d+=-?\d+)*", text):
        raise UsageError(f"{text!r} is not an alignment.", "It is start, end, or pairs of positions such as 3=4,5=6.")
    pairs = (pair.split("=") for pair in text.split(","))
    return {position_of(int(ours), time): position_of(int(theirs), source_time) for ours, theirs in pairs}


# The pass --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ready:
    """A change with all that it needs: where it works, and what it puts there.

    positions [n]; value [n, C or D] of a patch, [C or D] of a mean; None for zero and scale.
    """

    intervention: Intervention
    positions: Tensor
    value: Tensor | None = None


@dataclass(frozen=True)
class Sources:
    """Where changes take values from. means: of the unchanged prompt or a reference; patches: of the source."""

    means: Mapping[Slot, Tensor] = field(default_factory=dict)
    patches: Mapping[Slot, Tensor] = field(default_factory=dict)
    alignment: Mapping[int, int] = field(default_factory=dict)


class Interventions(Intervener):
    """Makes changes in a forward pass, in the order of the computation; at one point, in the order given."""

    def __init__(self, interventions: Sequence[Intervention], time: int, sources: Sources | None = None) -> None:
        """time: tokens of the prompt. UsageError for positions outside of it, or that no source aligns with."""
        self._ready: dict[Slot, list[_Ready]] = {}
        for intervention in interventions:
            ready = _prepare(intervention, time, sources or Sources())
            self._ready.setdefault(intervention.puts, []).append(ready)
        self._skipped = {
            intervention.layer
            for intervention in interventions
            if intervention.part == "layer" and intervention.action != "patch"
        }
        self._entering: Tensor | None = None  # what a changed block got, until its output comes

    def residual(self, layer: int, point: Point, x: Tensor) -> Tensor | None:
        """The stream or a contribution [B, T, C], changed."""
        changed = None
        for ready in self._ready.get((layer, point), []):
            x = changed = _put(x, ready, self._entering if ready.intervention.part == "layer" else None)
        if point == "pre_attn" and layer in self._skipped:
            self._entering = x.clone()  # some families go on in place
        elif point == "post_ffn":
            self._entering = None
        return changed

    def heads(self, layer: int, z: Tensor) -> Tensor | None:
        """All head outputs z [B, T, H, D], changed."""
        changed = None
        for ready in self._ready.get((layer, HEADS), []):
            changed = z.clone() if changed is None else changed
            changed[:, :, ready.intervention.head] = _put(changed[:, :, ready.intervention.head], ready, None)
        return changed


def _prepare(intervention: Intervention, time: int, sources: Sources) -> _Ready:
    positions = [position_of(position, time) for position in intervention.positions] or list(range(time))
    if intervention.action == "mean":
        return _Ready(intervention, torch.tensor(positions), mean_of(intervention, sources.means))
    if intervention.action != "patch":
        return _Ready(intervention, torch.tensor(positions))
    if intervention.positions and (lost := [position for position in positions if position not in sources.alignment]):
        raise UsageError(f"Position {lost[0]} of the prompt is aligned with none of the source.", "", "Align it too.")
    positions = [position for position in positions if position in sources.alignment]
    value = sources.patches[intervention.puts][[sources.alignment[position] for position in positions]]
    return _Ready(
        intervention, torch.tensor(positions), value[:, intervention.head] if intervention.part == "head" else value
    )


def mean_of(intervention: Intervention, values: Mapping[Slot, Tensor]) -> Tensor:
    """Mean over positions of what a part yields: [C], [D] for a head; summed in float32 or wider."""
    x = values[intervention.puts]
    if intervention.part == "layer":
        x = x - values[intervention.layer, "pre_attn"]
    elif intervention.part == "head":
        x = x[:, intervention.head]
    return x.to(torch.promote_types(x.dtype, torch.float32)).mean(0).to(x.dtype)


def _put(x: Tensor, ready: _Ready, entering: Tensor | None) -> Tensor:
    """x [B, T, C] -> the same with the change made at its positions. entering: the block's input, for `layer`."""
    positions = ready.positions.to(x.device)
    old = x[:, positions]  # [B, n, C]
    # What a layer's changes start from: nothing added, so the stream as it came.
    base = torch.zeros_like(old) if entering is None else entering[:, positions]
    match ready.intervention.action:
        case "zero":
            new = base
        case "scale":
            factor = (
                ready.intervention.factor
            )  # lerp is exactly the old at 1 and the base at 0, where a sum would round
            new = old * factor if entering is None else torch.lerp(base, old, factor)
        case "mean":
            assert ready.value is not None
            new = base + ready.value if entering is not None else ready.value.expand_as(old)
        case "patch":
            assert ready.value is not None
            new = ready.value.expand_as(old)
    out = x.clone()
    out[:, positions] = new
    return out
