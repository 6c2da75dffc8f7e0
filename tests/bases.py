"""Small bases of every kind, and what tests of fine-tuning ask of them."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny_models
import torch
from small_runs import new_run, train_here
from transformers import Qwen2Config, Qwen2ForCausalLM

from llmlab.core.device import Device
from llmlab.core.finetuning_settings import BaseSettings, FinetuneSettings, LoraSettings
from llmlab.core.progress import quiet
from llmlab.data.finetuning_data import Batch
from llmlab.training.finetuning.backends import Prepared, prepare

CPU = Device("cpu", "fp32")
KINDS = ("scratch", "llama", "qwen2", "gpt2", "gguf")


def qwen2(seed: int = 0) -> Any:
    """Biases on queries, keys and values; tied."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=tiny_models.TOKENIZER.vocab_size,
        hidden_size=tiny_models.WIDTH,
        intermediate_size=tiny_models.HIDDEN,
        num_hidden_layers=tiny_models.LAYERS,
        num_attention_heads=tiny_models.HEADS,
        num_key_value_heads=2,
        max_position_embeddings=tiny_models.CONTEXT,
        tie_word_embeddings=True,
    )
    return tiny_models.lively(Qwen2ForCausalLM(config), seed)


def make_bases(outputs: Path) -> dict[str, str]:
    """References of small bases by their kind."""
    train_here(new_run(outputs, 2, name="base", model__n_embd=32, model__n_head=4, model__n_layer=2))
    found = {"scratch": "base@final"}
    for kind, model in (("llama", tiny_models.llama()), ("qwen2", qwen2()), ("gpt2", tiny_models.gpt2())):
        found[kind] = str(tiny_models.save(model, outputs / f"{kind}-folder"))
    found["gguf"] = str(tiny_models.save_gguf(tiny_models.llama(tie_word_embeddings=False), outputs / "tiny.gguf"))
    return found


def settings_for(base: str, method: str = "lora", **lora: Any) -> FinetuneSettings:
    """Rank 4 unless told otherwise."""
    adapters = LoraSettings(**({"rank": 4, "alpha": 8.0} | lora))
    return replace(FinetuneSettings(), model=BaseSettings(base=base, method=method), lora=adapters)


def prepared(base: str, outputs: Path, method: str = "lora", seed: int = 0, **lora: Any) -> Prepared:
    """A base made ready: a copy of what is made once, since to open one takes five times as long."""
    what = _prepared(base, outputs, method, seed, tuple(lora.items()))
    return copy.deepcopy(what, {id(what.tokenizer): what.tokenizer})


@functools.cache
def _prepared(base: str, outputs: Path, method: str, seed: int, lora: tuple[tuple[str, Any], ...]) -> Prepared:
    return prepare(settings_for(base, method, **dict(lora)), outputs, CPU, quiet, seed)


def some_batch(rows: int = 2, tokens: int = 9, seed: int = 1) -> Batch:
    """Random ids that every base knows."""
    ids = torch.randint(60, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    return Batch(ids, ids.clone(), torch.ones_like(ids))


def shaken(what: Prepared, seed: int = 3, size: float = 0.1) -> Prepared:
    """With all that learns moved away from where it began."""
    generator = torch.Generator().manual_seed(seed)
    weights = what.trained_weights()
    what.load_trained({n: w + size * torch.randn(w.shape, generator=generator) for n, w in weights.items()})
    return what


def loss_of(what: Prepared, batch: Batch) -> torch.Tensor:
    """Mean next-token loss."""
    logits = what.logits(batch)[:, :-1].flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, batch.ids[:, 1:].flatten())


def learn(what: Prepared, batch: Batch, steps: int = 12, rate: float = 2e-2) -> tuple[float, float]:
    """The losses before and after some steps on one batch."""
    optimizer = torch.optim.AdamW([p for p in what.model.parameters() if p.requires_grad], lr=rate)
    what.model.train()
    first = loss_of(what, batch).item()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(what, batch).backward()
        optimizer.step()
    return first, loss_of(what, batch).item()
