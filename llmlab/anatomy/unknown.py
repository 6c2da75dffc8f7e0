"""Models of undescribed families: finds their parts from one forward pass.

Its blocks are the list of as many equal modules as it has layers. One pass keeps what every child of a block reads
and returns; then sums decide, and no name: attention is what, added to the block's input, is the input of a later
child (sequential, sandwich or scaled), and the feed-forward what, added to that, is the block's output. Where there is
no such child, attention and feed-forward may still add up to what the block adds (parallel). What is found holds for
all layers or not at all, and `llmlab.anatomy.probe` has the last word on it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from llmlab.anatomy.family_table import Family, Trunk
from llmlab.anatomy.hf_attention import can_attend
from llmlab.anatomy.layouts import Layout, Parallel, Parts, Sandwich, Scaled, Sequential
from llmlab.core.errors import LabError

_TOKENS = 7


@dataclass(frozen=True)
class _Part:
    """A module inside a block in one pass: the first tensor that it read, and the first that it returned."""

    name: str
    module: nn.Module
    reads: Tensor
    gives: Tensor


@dataclass(frozen=True)
class _Block:
    """A block in one pass: its parts in the order in which they finished."""

    reads: Tensor
    gives: Tensor
    parts: list[_Part]

    @property
    def children(self) -> list[_Part]:
        return [part for part in self.parts if "." not in part.name]


def discover(model: Any, config: Any) -> Family:
    """A description of the model's family that its first block agrees with. LabError when none does."""
    trunk = _trunk(model, config)
    first = model.get_submodule(trunk.decoder).get_submodule(trunk.blocks)[0]
    block = _watched(model, first)
    layout = _sequential(block, 1.0) or _parallel(block)
    for name, value in vars(first).items():
        if layout is None and isinstance(value, float):
            layout = _sequential(block, value, name)
    if layout is None:
        raise _unlike("what its first block adds to the stream is not made of what its parts return")
    return Family(config.model_type, layout, trunk)


def _unlike(why: str) -> LabError:
    return LabError(
        "This model cannot be looked into.",
        f"The lab does not know its family, and {why}.",
        "Models of the families Llama, Qwen, Mistral, Gemma, Phi, GPT-2, GPT-NeoX and their relatives can be.",
    )


def _trunk(model: nn.Module, config: Any) -> Trunk:
    lists = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == config.num_hidden_layers
        and any(name and can_attend(part) for name, part in module[0].named_modules())
    ]
    if len(lists) != 1:
        raise _unlike(f"it has {len(lists)} lists of {config.num_hidden_layers} layers with attention")
    decoder, _, blocks = lists[0].rpartition(".")
    norms = [
        name
        for name, module in model.get_submodule(decoder).named_children()
        if "norm" in type(module).__name__.lower() and "emb" not in name
    ]
    if len(norms) != 1:
        raise _unlike(f"it has {len(norms)} norms beside its layers")
    return Trunk(decoder, blocks, norms[0])


def _watched(model: Any, block: nn.Module) -> _Block:
    """One short pass, in which the block's parts are kept."""
    began: dict[str, Tensor] = {}
    parts: list[_Part] = []

    def begin(name: str, _: nn.Module, args: Any, kwargs: Any) -> None:
        values = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if values:
            began[name] = values[0].clone()

    def end(name: str, module: nn.Module, args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if name in began and isinstance(first, Tensor):
            parts.append(_Part(name, module, began[name], first.clone()))

    embedding = model.get_input_embeddings().weight
    ids = torch.randint(embedding.shape[0], (1, _TOKENS), generator=torch.Generator().manual_seed(0))
    with contextlib.ExitStack() as stack, torch.inference_mode():
        for name, module in block.named_modules():
            stack.callback(module.register_forward_pre_hook(partial(begin, name), with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(partial(end, name)).remove)
        model(input_ids=ids.to(embedding.device), use_cache=False)
    whole = [part for part in parts if not part.name]
    if len(whole) != 1:
        raise _unlike(f"its first block ran {len(whole)} times in one pass")
    return _Block(whole[0].reads, whole[0].gives, [part for part in parts if part.name])


def _sequential(block: _Block, scale: float, multiplier: str = "") -> Layout | None:
    """Two additions one after the other, of what parts return times `scale`."""
    attention = _attention(block)
    for attn, mid in product(block.children, block.children):
        if not _adds(block.reads, [attn.gives], mid.reads, scale):
            continue
        for mlp in block.children:
            if mlp is attn or not _adds(mid.reads, [mlp.gives], block.gives, scale):
                continue
            if attn.name == attention.name.split(".")[0]:
                parts = _parts(block, attention, mlp)
                return Scaled(parts, mid.name, multiplier) if multiplier else Sequential(parts, mid.name)
            if multiplier:
                continue
            # What is added is a norm's output: the feed-forward is what that norm reads.
            inner = next((part for part in block.children if torch.equal(part.gives, mlp.reads)), mlp)
            return Sandwich(_parts(block, attention, inner), attn.name, mlp.name, mid.name)
    return None


def _parallel(block: _Block) -> Layout | None:
    """One addition of both halves."""
    attention = _attention(block)
    for mlp in block.children:
        if mlp.name != attention.name and _adds(block.reads, [attention.gives, mlp.gives], block.gives):
            return Parallel(_parts(block, attention, mlp))
    return None


def _attention(block: _Block) -> _Part:
    for part in block.parts:
        if can_attend(part.module):
            return part
    raise _unlike("no part of its first block attends")


def _parts(block: _Block, attention: _Part, mlp: _Part) -> Parts:
    return Parts(attention.name, _last_linear(block, attention) or attention.name, mlp.name, _last_linear(block, mlp))


def _last_linear(block: _Block, whole: _Part) -> str | None:
    """The part of `whole` that returns what the whole returns."""
    inside = [part for part in block.parts if part.name.startswith(f"{whole.name}.")]
    for part in inside:
        weight = getattr(part.module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() == 2 and torch.equal(part.gives, whole.gives):
            return part.name
    return None


def _adds(before: Tensor, added: list[Tensor], total: Tensor, scale: float = 1.0) -> bool:
    """Whether before + scale * each of `added` is the total, up to rounding."""
    if any(part.shape != before.shape for part in (*added, total)):
        return False
    whole = before + scale * torch.stack(added).sum(0)
    return bool((whole - total).norm() <= 4 * torch.finfo(total.dtype).eps * total.norm())
