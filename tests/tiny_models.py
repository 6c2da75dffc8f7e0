"""Small models of transformers on the disk, with a tokenizer of their own: folders, adapters and GGUF files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gguf
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from llmlab.data.gpt2_vocabulary import END_OF_TEXT, byte_symbols
from llmlab.data.tokenizers import BpeTokenizer, save_hf_tokenizer

MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("k", "i"), ("n", "g"), ("ki", "ng"), ("Ġ", "king")]
TOKENIZER = BpeTokenizer(MERGES)
LAYERS, WIDTH, HIDDEN, HEADS, CONTEXT = 2, 32, 48, 4, 64


def lively(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """In eval mode, with weights of which each matters."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def logits(model: nn.Module, ids: list[int]) -> torch.Tensor:
    """[T, V] of the lab's own GPT, or of a model of transformers."""
    with torch.no_grad():
        output = model(torch.tensor([ids]))
    return (output if isinstance(output, torch.Tensor) else output.logits)[0]


def llama(seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Grouped heads, rotary, RMSNorm."""
    values: dict[str, Any] = {
        "vocab_size": TOKENIZER.vocab_size,
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": TOKENIZER.end_of_text,
        "eos_token_id": TOKENIZER.end_of_text,
    }
    torch.manual_seed(seed)
    return lively(LlamaForCausalLM(LlamaConfig(**(values | changes))), seed)


def gpt2(seed: int = 0) -> PreTrainedModel:
    """Learned positions, LayerNorm, tied."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=TOKENIZER.vocab_size,
        n_positions=CONTEXT,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=TOKENIZER.end_of_text,
        eos_token_id=TOKENIZER.end_of_text,
    )
    return lively(GPT2LMHeadModel(config), seed)


def save(model: PreTrainedModel, folder: Path, **how: Any) -> Path:
    """A folder as others publish it: weights, settings, tokenizer."""
    model.save_pretrained(folder, **how)
    save_hf_tokenizer(TOKENIZER, folder)
    return folder


def save_adapter(base: Path, folder: Path, seed: int = 1, **changes: Any) -> Path:
    """A LoRA adapter that changes what its base says."""
    torch.manual_seed(seed)
    values: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of peft about transformers
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**(values | changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    return folder


def save_gguf(model: PreTrainedModel, path: Path) -> Path:
    """A Llama as a GGUF file in fp32. Queries and keys in llama.cpp's order: pairs (2i, 2i + 1) of a head."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(TOKENIZER.vocab_size)
    pieces = list(dict.fromkeys([*byte_symbols().values(), *(a + b for a, b in MERGES)]))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*pieces, END_OF_TEXT])
    writer.add_token_types([gguf.TokenType.NORMAL] * len(pieces) + [gguf.TokenType.CONTROL])
    writer.add_token_merges([f"{a} {b}" for a, b in MERGES])
    writer.add_bos_token_id(len(pieces))
    writer.add_eos_token_id(len(pieces))
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for name, weight in model.state_dict().items():
        place = name.removesuffix(".weight").replace("model.layers.", "blk.")
        for theirs, ours in names.items():
            place = place.replace(theirs, ours)
        heads = {"q": HEADS, "k": 2}.get(name.rpartition("_proj")[0][-1:], 0) if "self_attn" in name else 0
        if heads:
            weight = weight.view(heads, 2, -1, WIDTH).transpose(1, 2).reshape(weight.shape)
        writer.add_tensor(f"{place}.weight", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
