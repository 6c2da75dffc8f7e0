"""A model of the Llama or Qwen2 family as a GGUF file, the way llama.cpp's own converter lays it out.

Names of tensors come from the gguf package. Queries and keys of a Llama are stored with the two halves of each
head's rotary pairs interleaved (llama.cpp, convert_hf_to_gguf.py, `LlamaModel.permute`); a Qwen2's are not. Matrices
are f16 or f32, vectors always f32. The tokenizer goes along: its tokens, merges, special tokens and chat template.

Format: github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmlab.core.errors import LabError
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer
from llmlab.gpt.hf import refusal_of
from llmlab.models.export.chat_files import FINE_TUNED, chat_form
from llmlab.models.model import OpenModel

FAMILIES = ("llama", "qwen2")
# How a text is cut into words before its bytes are merged: the rules that have a name in llama.cpp
# (src/llama-vocab.cpp, `llama_vocab_pre_type`), as the tokenizers library writes them.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_RULES = {_LLAMA3: "llama-bpe", _LLAMA3.replace("{1,3}", ""): "qwen2"}
_F16, _F32 = "f16", "f32"


def write_gguf(opened: OpenModel, path: Path, precision: str = _F16) -> None:
    """Writes it. LabError for another family, for settings that the file could not say, or for another tokenizer."""
    import gguf

    config = _checked(opened)
    family = str(config.model_type)
    tokenizer = _byte_level(opened)
    writer = gguf.GGUFWriter(path, family)
    _write_settings(writer, config, opened.name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if precision == _F16 else gguf.LlamaFileType.ALL_F32)
    _write_tokenizer(writer, opened, tokenizer, int(config.vocab_size))
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family)
    names = gguf.get_tensor_name_map(arch, int(config.num_hidden_layers))
    for name, weight in _weights(opened, config).items():
        module, _, kind = name.rpartition(".")
        place = names.get_name(module)
        if place is None:
            raise _refused(opened, f"Its weight {name} has no place in a GGUF file of the family {family}.")
        if family == "llama" and module.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if module.endswith("q_proj") else config.num_key_value_heads
            weight = _interleaved(weight, int(heads))
        whole = weight.numpy() if weight.dim() < 2 or precision == _F32 else weight.numpy().astype(np.float16)
        writer.add_tensor(f"{place}.{kind}", whole)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _checked(opened: OpenModel) -> Any:
    """The settings of a model that a GGUF file can be."""
    config = getattr(opened.model, "config", None)
    family = getattr(config, "model_type", "the lab's own GPT")
    if config is None or family not in FAMILIES:
        raise _refused(opened, f"The lab writes the families {' and '.join(FAMILIES)}; this is {family}.")
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    head_dim = int(config.hidden_size) // int(config.num_attention_heads)
    odd = {
        "stretches its rotary positions": rope.get("rope_type", "default") not in ("default", None),
        "has another activation than SiLU": config.hidden_act != "silu",
        "has biases that a Llama has not": bool(
            getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", 0)
        ),
        "looks back through a window": bool(getattr(config, "use_sliding_window", False)),
        "has heads of another size than d_model / heads": (getattr(config, "head_dim", None) or head_dim) != head_dim,
    }
    for what, is_so in odd.items():
        if is_so:
            raise _refused(opened, f"It {what}, which readers of the file would not hear of.")
    return config


def _refused(opened: OpenModel, why: str) -> LabError:
    neither = refusal_of(opened.model)
    do = f"Nor can --to hf write it: {neither} The lab alone opens it." if neither else "Use --to hf, for transformers."
    return LabError(f"{opened.name} cannot be written as GGUF.", why, do)


def _write_settings(writer: Any, config: Any, name: str) -> None:
    rope = getattr(config, "rope_parameters", None) or {}
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.rope_theta))
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)


def _weights(opened: OpenModel, config: Any) -> dict[str, Tensor]:
    """By name, in fp32; a tied head is left out, and readers take the embedding in its place."""
    left_out = ("lm_head.weight",) if config.tie_word_embeddings else ()
    weights = ((name, weight) for name, weight in opened.model.named_parameters() if name not in left_out)
    return {name: weight.detach().to("cpu", torch.float32).contiguous() for name, weight in weights}


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """[heads * width, in]: within a head, row i and row i + width / 2, which turn together, become neighbours."""
    halves = weight.view(heads, 2, weight.shape[0] // heads // 2, -1)
    return halves.transpose(1, 2).reshape(weight.shape).contiguous()


# The tokenizer ----------------------------------------------------------------------------------------------------


def _byte_level(opened: OpenModel) -> Mapping[str, Any]:
    """The pipeline of a byte-level BPE, as the tokenizers library writes it. LabError for any other."""
    inner = opened.tokenizer.inner if isinstance(opened.tokenizer, HuggingFaceTokenizer) else None
    backend = getattr(inner, "backend_tokenizer", None)
    if backend is None:
        raise _refused(opened, "It has no tokenizer that could be written along.")
    pipeline: dict[str, Any] = json.loads(backend.to_str())
    if pipeline["model"]["type"] != "BPE" or pipeline.get("normalizer") not in (None, {"type": "NFC"}):
        raise _refused(opened, f"Its tokenizer is a {pipeline['model']['type']}; the lab writes byte-level BPE.")
    _rule(opened, pipeline)
    return pipeline


def _rule(opened: OpenModel, pipeline: Mapping[str, Any]) -> str:
    """llama.cpp's name for how words are cut."""
    steps = pipeline.get("pre_tokenizer") or {}
    steps = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and (rule := _RULES.get(str(steps[0]["pattern"].get("Regex")))):
        return rule
    raise _refused(opened, "Its tokenizer splits text by a rule that has no name in a GGUF file.")


def _write_tokenizer(writer: Any, opened: OpenModel, pipeline: Mapping[str, Any], rows: int) -> None:
    """rows: of the embedding; those beyond the vocabulary become unused tokens."""
    import gguf

    assert isinstance(opened.tokenizer, HuggingFaceTokenizer)
    inner = opened.tokenizer.inner
    tokens = [f"[PAD{id}]" for id in range(rows)]
    kinds = [gguf.TokenType.UNUSED] * rows
    for text, id in pipeline["model"]["vocab"].items():
        tokens[id], kinds[id] = text, gguf.TokenType.NORMAL
    for token in pipeline["added_tokens"]:
        if token["id"] < rows:
            tokens[token["id"]] = token["content"]
            kinds[token["id"]] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in pipeline["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_rule(opened, pipeline))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_add_bos_token(bool(opened.tokenizer.adds_bos))
    writer.add_add_space_prefix(False)
    for id, add in (
        (inner.bos_token_id, writer.add_bos_token_id),
        (inner.eos_token_id, writer.add_eos_token_id),
        (inner.pad_token_id, writer.add_pad_token_id),
        (inner.unk_token_id, writer.add_unk_token_id),
    ):
        if id is not None and id < rows:
            add(int(id))
    template = inner.chat_template
    if opened.kind in FINE_TUNED and (form := chat_form(opened.tokenizer)) is not None:
        template = form.template
        if form.end_ids[:1] != (inner.eos_token_id,):
            writer.add_eot_token_id(form.end_ids[0])
    if isinstance(template, str) and template:
        writer.add_chat_template(template)
