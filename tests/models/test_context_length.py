"""One rule says how many tokens a model reads, whatever asks: the panels, the estimate, a fine-tuning run, writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cases import each
from transformers import AutoConfig, AutoModelForCausalLM

from llmlab.core.settings import Sampling
from llmlab.data.hf_tokenizer import IdTokenizer
from llmlab.models.about import about
from llmlab.models.generation import continued
from llmlab.models.model import OpenModel, context_limit_of, context_of
from llmlab.models.reference import parse
from llmlab.models.source import source_of

_SIZES: dict[str, Any] = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
# How each family says that it reads 48 tokens.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**_SIZES, "intermediate_size": 40, "max_position_embeddings": 48},
    "gpt_neox": {**_SIZES, "intermediate_size": 40, "max_position_embeddings": 48},
    "opt": {**_SIZES, "ffn_dim": 40, "word_embed_proj_dim": 32, "max_position_embeddings": 48},
    "gpt2": {"vocab_size": 99, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 48},
    "gptj": {"vocab_size": 99, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 48, "rotary_dim": 4},
    "gpt_neo": {**_SIZES, "attention_types": [[["global"], 1]], "max_position_embeddings": 48},
    "mpt": {"vocab_size": 99, "d_model": 32, "n_layers": 1, "n_heads": 2, "max_seq_len": 48},
    "bloom": {"vocab_size": 99, "hidden_size": 32, "n_layer": 1, "n_head": 2},
}


def _model(family: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family])).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_all_who_ask_hear_the_same_length(family: str, tmp_path: Path) -> None:
    model = _model(family)
    model.save_pretrained(tmp_path)
    source = source_of(parse(str(tmp_path), tmp_path))
    wanted = 2048 if family == "bloom" else 48  # nothing limits ALiBi as BLOOM has it; it was trained on 2048
    opened = OpenModel("x", "x", "huggingface", model, IdTokenizer("x"))
    assert {source.context(), source.shape().context, context_of(model), about(opened).context} == {wanted}
    assert context_limit_of(model) == (None if family == "bloom" else 48)


@pytest.mark.slow
@each("family", FAMILIES)
def test_writing_goes_on_past_the_length(family: str) -> None:
    written = list(continued(_model(family), [1, 2, 3], 60, Sampling(0.0, 0), seed=0))
    assert len(written) == 60 or written[-1].id in (0, 1, 2, 50256)  # an end of text
