"""The sizes of a base, from what its files say of themselves: config.json, a header, run.json. No torch, no weights.

Families whose settings say all of it are in `_FAMILIES`; of another one the header of its weight files is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmlab.anatomy.sizes import NAMES, context_length, found_name
from llmlab.core.config import from_mapping
from llmlab.core.errors import LabError, UsageError
from llmlab.core.files import read_json
from llmlab.core.finetuning_settings import ATTENTION, FEED_FORWARD
from llmlab.core.settings import ModelSettings, PretrainSettings
from llmlab.core.task_settings import TRANSFORMER, TaskSettings
from llmlab.core.task_settings import shape_of as settings_of
from llmlab.gpt.shapes import block_layers, padded_vocab_size, parameter_count
from llmlab.models.available import CONFIG_FILE
from llmlab.models.gguf_file import read_gguf_header
from llmlab.models.weights import weight_shapes
from llmlab.store.checkpoints import Checkpoint
from llmlab.store.run_folder import RunFolder

_FLOAT = 4  # bytes of a weight


@dataclass(frozen=True)
class Layer:
    """A linear layer inside of a block. part: attention or feed_forward."""

    part: str
    width_in: int
    width_out: int

    @property
    def numbers(self) -> int:
        return self.width_in * self.width_out


@dataclass(frozen=True)
class BaseShape:
    """What decides the cost of training a model, and how it is described before it is opened.

    family: as transformers or a GGUF file calls it. own: the lab's own GPT. vocab_size: rows of the embedding.
    layers: the linear layers of all blocks. parameters: all of them; a tied head counts once. heads, kv_heads: side by
    side, their widths summed. hidden: width of the feed-forward. gated: it has three matrices. rms: its norms are
    RMSNorms. head_norms: queries and keys have norms too. mixed_values: values are mixed with the first block's.
    composed: its non-linearity is written out in small steps, and dropout_heads heads keep their patterns, since
    dropout is applied to them. load_copies: how often its weights are in memory in fp32 while it is opened.
    """

    family: str
    vocab_size: int
    n_embd: int
    n_layer: int
    n_head: int
    context: int
    layers: tuple[Layer, ...]
    parameters: int
    heads: int
    kv_heads: int
    hidden: int
    gated: bool
    own: bool = False
    rms: bool = True
    head_norms: bool = False
    mixed_values: bool = False
    composed: bool = False
    dropout_heads: int = 0
    load_copies: float = 1.0

    def targeted(self, targets: str) -> tuple[Layer, ...]:
        """The layers that get an adapter."""
        return tuple(layer for layer in self.layers if targets in ("all", layer.part))


# The lab's own GPT --------------------------------------------------------------------------------------------------


def described_model(run: RunFolder, checkpoint: Checkpoint) -> tuple[ModelSettings, int]:
    """The settings and the vocabulary's size of a checkpoint's model, as its manifest says. LabError when damaged."""
    try:
        settings = from_mapping(PretrainSettings, {"model": checkpoint.about["model"]}).model
        vocab_size = int(checkpoint.about["vocab_size"])
        # Before memory is taken for it: the description and the weights are two files, and either may be a stranger's.
        size = _FLOAT * parameter_count(settings, vocab_size)
        if vocab_size < 1 or size > checkpoint.bytes:
            raise ValueError(f"the weights are too few for {vocab_size} tokens and {settings}")
        return settings, vocab_size
    except (UsageError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise LabError(
            f"{run.id}@{checkpoint.step} cannot be opened.", f"Its description is damaged: {error}"
        ) from error


def shape_of_gpt(model: ModelSettings, vocab_size: int) -> BaseShape:
    """Of the lab's own GPT with these settings."""
    one = [
        Layer(ATTENTION if attention else FEED_FORWARD, rows, columns)
        for attention, rows, columns in block_layers(model)
    ]
    return BaseShape(
        family="scratch GPT",
        own=True,
        vocab_size=padded_vocab_size(model, vocab_size),
        n_embd=model.n_embd,
        n_layer=model.n_layer,
        n_head=model.n_head,
        context=model.block_size,
        layers=tuple(one) * model.n_layer,
        parameters=parameter_count(model, vocab_size),
        heads=model.n_embd,
        kv_heads=(model.n_kv_head or model.n_head) * (model.n_embd // model.n_head),
        hidden=one[-1].width_in,
        gated=model.activation == "swiglu",
        rms=model.norm == "rmsnorm",
        head_norms=model.qk_norm,
        mixed_values=model.value_residual,
        dropout_heads=model.n_head if model.dropout else 0,
        load_copies=2.0,  # the file's and the model's
    )


def shape_of_task(settings: TaskSettings) -> BaseShape:
    """Of a GPT that learns a task. LabError for another model: the panels look at attention."""
    from llmlab.data.synthetic.known_tasks import task_of

    model = settings.model
    if model.kind != TRANSFORMER:
        raise LabError(f"A model of the kind {model.kind} cannot be looked into.", "It has no attention.")
    shape = shape_of_gpt(settings_of(model, settings.time), task_of(settings.data).layout.vocab_size)
    if model.feed_forward:
        return shape
    missing = sum(layer.numbers for layer in shape.layers if layer.part == FEED_FORWARD)
    return replace(shape, parameters=shape.parameters - missing, layers=shape.targeted(ATTENTION))


# Hugging Face folders -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Family:
    """Where a family departs from Llama. Names as in its settings.

    tied: whether the head is the embedding, where the settings do not say. bias: which layers have one: a setting's
    name, or a set of layers. norms: vectors of the stream's width in a block. head_norms: norms of queries and keys,
    of one head or of all heads. fused: query, key and value are one matrix, as are gate and up.
    """

    tied: bool = False
    attention_bias: str | tuple[str, ...] = ()
    mlp_bias: str = ""
    norms: int = 2
    head_norms: str = ""  # "", "head" or "all"
    fused: bool = False


# transformers, models/<family>/configuration_<family>.py and modeling_<family>.py
_FAMILIES = {
    "llama": _Family(attention_bias="attention_bias", mlp_bias="mlp_bias"),
    "mistral": _Family(),
    "qwen2": _Family(attention_bias=("q", "k", "v")),
    "qwen3": _Family(attention_bias="attention_bias", head_norms="head"),
    "smollm3": _Family(tied=True, attention_bias="attention_bias", mlp_bias="mlp_bias"),
    "granite": _Family(attention_bias="attention_bias", mlp_bias="mlp_bias"),
    "gemma": _Family(tied=True, attention_bias="attention_bias"),
    "gemma2": _Family(tied=True, attention_bias="attention_bias", norms=4),
    "gemma3_text": _Family(tied=True, attention_bias="attention_bias", norms=4, head_norms="head"),
    "olmo2": _Family(attention_bias="attention_bias", head_norms="all"),
    "phi3": _Family(fused=True),
}


def shape_of_folder(folder: Path, name: str) -> BaseShape:
    """Of a Hugging Face folder; of a model that also sees or hears, its decoder's. LabError when its files are damaged,
    or do not tell."""
    config = read_json(folder / CONFIG_FILE)
    if config is None:
        raise LabError(f"{name} cannot be opened.", f"Its {CONFIG_FILE} is missing or damaged.")
    try:
        config = _by_usual_names(config | (config.get("text_config") or {}))
        family = config.get("model_type")
        if family == "gpt2":
            return _gpt2(config)
        if family in _FAMILIES:
            return _llama_like(config, _FAMILIES[family])
        return _from_header(config, weight_shapes(folder, name), _is_block_weight)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise LabError(f"{name} cannot be estimated.", f"Its {CONFIG_FILE} lacks {error}.") from error


def _by_usual_names(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, **{size: config[name] for size in NAMES if (name := found_name(config, size))}}


def _heads(config: Mapping[str, Any]) -> tuple[int, int]:
    """The widths of all heads side by side: of queries, and of keys and values."""
    n_head = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // n_head
    return n_head * head, (config.get("num_key_value_heads") or n_head) * head


def _shape(config: Mapping[str, Any], layers: Iterable[Layer], parameters: int, hidden: int, gated: bool) -> BaseShape:
    heads, kv_heads = _heads(config)
    return BaseShape(
        family=str(config.get("model_type")),
        vocab_size=config["vocab_size"],
        n_embd=config["hidden_size"],
        n_layer=config["num_hidden_layers"],
        n_head=config["num_attention_heads"],
        context=context_length(config),
        layers=tuple(layers),
        parameters=parameters,
        heads=heads,
        kv_heads=kv_heads,
        hidden=hidden,
        gated=gated,
    )


def _llama_like(config: Mapping[str, Any], family: _Family) -> BaseShape:
    n_embd, hidden, n_layer = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, kv_heads = _heads(config)
    if family.fused:
        one = [Layer(ATTENTION, n_embd, heads + 2 * kv_heads), Layer(ATTENTION, heads, n_embd)]
        one += [Layer(FEED_FORWARD, n_embd, 2 * hidden), Layer(FEED_FORWARD, hidden, n_embd)]
    else:
        one = [Layer(ATTENTION, n_embd, size) for size in (heads, kv_heads, kv_heads)]
        one += [Layer(ATTENTION, heads, n_embd)]
        one += [Layer(FEED_FORWARD, n_embd, hidden)] * 2 + [Layer(FEED_FORWARD, hidden, n_embd)]
    bias: Any = family.attention_bias
    if isinstance(bias, str):
        bias = ("q", "k", "v", "o") if config.get(bias) else ()
    biases = sum({"q": heads, "k": kv_heads, "v": kv_heads, "o": n_embd}[part] for part in bias)
    if family.mlp_bias and config.get(family.mlp_bias):
        biases += 2 * hidden + n_embd
    head = heads // config["num_attention_heads"]
    norms = family.norms * n_embd + {"": 0, "head": 2 * head, "all": heads + kv_heads}[family.head_norms]
    embeddings = config["vocab_size"] * n_embd * (1 if config.get("tie_word_embeddings", family.tied) else 2)
    parameters = embeddings + n_layer * (sum(layer.numbers for layer in one) + biases + norms) + n_embd
    return replace(_shape(config, one * n_layer, parameters, hidden, True), head_norms=bool(family.head_norms))


def _gpt2(config: Mapping[str, Any]) -> BaseShape:
    n_embd, n_layer = config["hidden_size"], config["num_hidden_layers"]
    hidden = config.get("intermediate_size") or 4 * n_embd
    one = [Layer(ATTENTION, n_embd, 3 * n_embd), Layer(ATTENTION, n_embd, n_embd)]
    one += [Layer(FEED_FORWARD, n_embd, hidden), Layer(FEED_FORWARD, hidden, n_embd)]
    block = sum(layer.numbers + layer.width_out for layer in one) + 4 * n_embd
    rows = config["vocab_size"] * (1 if config.get("tie_word_embeddings", True) else 2)
    rows += config["max_position_embeddings"]
    return replace(
        _shape(config, one * n_layer, rows * n_embd + n_layer * block + 2 * n_embd, hidden, False),
        rms=False,
        composed=config.get("activation_function", "gelu_new") == "gelu_new",
        dropout_heads=config["num_attention_heads"] if config.get("attn_pdrop", 0.1) > 0 else 0,
    )


# Headers ------------------------------------------------------------------------------------------------------------

# The peak while transformers turns a file's weights back to fp32, measured on SmolLM2-135M in 4 bits.
_GGUF_COPIES = 1.6
_Part = Callable[[str], str | None]


def _is_block_weight(name: str) -> str | None:
    """The part that a weight of a safetensors file belongs to; None when it is no linear layer's of a block."""
    if not re.search(r"\.\d+\..*weight$", name) or "norm" in name:
        return None
    return ATTENTION if "attn" in name or "attention" in name else FEED_FORWARD


def _is_gguf_block_weight(name: str) -> str | None:
    """The same for the names of a GGUF file (gguf, `constants.TENSOR_NAMES`)."""
    match = re.fullmatch(r"blk\.\d+\.(attn|ffn)_(?!norm).*weight", name)
    return None if match is None else {"attn": ATTENTION, "ffn": FEED_FORWARD}[match[1]]


def _from_header(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], part: _Part, *, flipped: bool = False
) -> BaseShape:
    """config: sizes by the usual names. shapes: of all weights, [out, in]; flipped: [in, out]."""
    layers = tuple(_layers(shapes, part, flipped))
    forward = [layer for layer in layers if layer.part == FEED_FORWARD]
    hidden = max((max(layer.width_in, layer.width_out) for layer in forward), default=4 * config["hidden_size"])
    parameters = sum(math.prod(shape) for name, shape in shapes.items() if not name.startswith("rope_"))
    shape = _shape(config, layers, parameters, hidden, len(forward) >= 3 * config["num_hidden_layers"])
    return replace(shape, rms=not any("norm" in name and name.endswith("bias") for name in shapes))


def _layers(shapes: Mapping[str, tuple[int, ...]], part: _Part, flipped: bool) -> Iterator[Layer]:
    for name, shape in shapes.items():
        found = part(name)
        if found is not None and len(shape) == 2:
            yield Layer(found, *(shape if flipped else shape[::-1]))


def shape_of_gguf(path: Path) -> BaseShape:
    """Of a GGUF file. LabError when its header is damaged, or does not tell."""
    header = read_gguf_header(path, path.stem)
    family = header.values.get("general.architecture")
    names = {
        "num_hidden_layers": "block_count",
        "hidden_size": "embedding_length",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "head_dim": "attention.key_length",
        "max_position_embeddings": "context_length",
    }
    found = {ours: header.values.get(f"{family}.{theirs}") for ours, theirs in names.items()}
    config: dict[str, Any] = {name: value for name, value in found.items() if value is not None}
    config["model_type"] = family
    try:
        config["vocab_size"] = header.shapes["token_embd.weight"][1]
        shape = _from_header(config, header.shapes, _is_gguf_block_weight, flipped=True)
        return replace(shape, load_copies=_GGUF_COPIES)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise LabError(f"{path.stem} cannot be estimated.", f"Its header lacks {error}.") from error
