"""Which linear layers of a model get an adapter: those of its blocks, told apart into attention and feed-forward.

Adapters never sit on embeddings or on the head: they are outside of the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from llmlab.anatomy.modules import base_model, is_conv1d
from llmlab.core.errors import LabError, UsageError
from llmlab.core.finetuning_settings import ALL, ATTENTION, FEED_FORWARD
from llmlab.gpt.model import GPT

# What attention is called by families that nobody described.
_ATTENTION_NAMES = ("attn", "attention")
# Settings that say how many experts there are: a linear layer of that width chooses among them, and is not part of
# what they compute.
_EXPERT_SETTINGS = ("num_experts", "num_local_experts", "n_routed_experts")


def target_layers(model: nn.Module, targets: str) -> list[str]:
    """Full names of the linear layers of `targets` (attention, feed_forward or all), in the order of the model.

    LabError when the model has none.
    """
    parts = _scratch_parts(model) if isinstance(model, GPT) else _transformers_parts(base_model(model))
    found = [name for name, part in parts if targets in (ALL, part)]
    if not found:
        which = {ATTENTION: "attention ", FEED_FORWARD: "feed-forward "}.get(targets, "")
        raise LabError(
            f"No {which}layer of {type(model).__name__} can take an adapter.",
            "An adapter sits on a plain linear layer inside of a block, and there is none.",
            "Set lora.targets=all, or model.method=full." if which else "Set model.method=full.",
        )
    return found


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model, adapters inside."""
    if isinstance(model, GPT):
        return list(model.blocks)
    plain = base_model(model)
    config: Any = plain.config.get_text_config()  # type: ignore[operator, union-attr]
    return [block for _, block in _blocks(plain, config.num_hidden_layers)]


def layer_size(layer: nn.Module) -> tuple[int, int]:
    """(in, out) of a linear layer, whichever way its matrix lies."""
    if is_conv1d(layer):
        rows, columns = layer.get_parameter("weight").shape
        return rows, columns
    width_in, width_out = layer.in_features, layer.out_features
    assert isinstance(width_in, int)
    assert isinstance(width_out, int)
    return width_in, width_out


def require_rank(model: nn.Module, names: Sequence[str], rank: int) -> None:
    """UsageError when an adapter of that rank would be wider than the narrowest of the layers."""
    narrowest = min(names, key=lambda name: min(layer_size(model.get_submodule(name))))
    width = min(layer_size(model.get_submodule(narrowest)))
    if rank > width:
        raise UsageError(
            f"lora.rank={rank} is more than the model has room for.",
            f"{narrowest} is {width} wide: no change of it has a higher rank than that.",
            f"Set lora.rank to {width} or less.",
        )


def short_names(model: nn.Module, names: Sequence[str]) -> list[str]:
    """The shortest endings that mean these layers and no other: what PEFT's `target_modules` are usually written as."""
    wanted = set(names)
    linear = [name for name, module in model.named_modules() if is_linear(module)]
    endings: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        tails = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        endings[next(tail for tail in tails if {n for n in linear if _ends(n, tail)} <= wanted)] = None
    return list(endings)


def is_linear(module: nn.Module) -> bool:
    """Whether an adapter can sit on a module: a linear layer, in 4 bits or not, or GPT-2's."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def lies_on_its_side(layer: nn.Module) -> bool:
    """Whether a layer's matrix is [in, out] in the model's file (GPT-2), even where it was quantised since."""
    source = getattr(layer, "source_cls", None)  # transformers keeps it on layers that it quantises
    return is_conv1d(layer) or (isinstance(source, type) and source.__name__ == "Conv1D")


def _ends(name: str, tail: str) -> bool:
    return name == tail or name.endswith(f".{tail}")


def _scratch_parts(model: GPT) -> Iterator[tuple[str, str]]:
    for name, module in model.blocks.named_modules(prefix="blocks"):
        if is_linear(module):
            yield name, ATTENTION if ".attention." in name else FEED_FORWARD


def _transformers_parts(model: nn.Module) -> Iterator[tuple[str, str]]:
    """(name, attention or feed_forward) of the linear layers in the blocks of a transformers model."""
    from llmlab.anatomy.family_table import FAMILIES

    config: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
    family = FAMILIES.get(config.model_type)
    experts = {getattr(config, name, None) for name in _EXPERT_SETTINGS}
    for path, block in _blocks(model, config.num_hidden_layers):
        inside: set[nn.Module] = set()
        if family is not None:
            described = family.layout.describe(block, config)
            inside = set((described.attention or described.attn.module).modules())
        for name, module in block.named_modules():
            if not is_linear(module) or layer_size(module)[1] in experts:
                continue
            by_name = any(word in name for word in _ATTENTION_NAMES)
            attention = module in inside if family is not None else by_name
            yield f"{path}.{name}", ATTENTION if attention else FEED_FORWARD


def _blocks(model: nn.Module, layers: int) -> Iterator[tuple[str, nn.Module]]:
    """The blocks with their paths: the first list of as many modules as there are layers."""
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            yield from ((f"{path}.{number}", block) for number, block in enumerate(module))
            return
