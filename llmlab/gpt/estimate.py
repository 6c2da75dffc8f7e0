"""What a run will need, from its settings alone: parameters, memory, disk, time. No torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from llmlab.gpt.shapes import embedding_parameters, feed_forward_width, padded_vocab_size, parameter_count
from llmlab.settings import DataSettings, ModelSettings, PretrainSettings

FLOAT = 4  # bytes of a number in fp32
# Resident memory of a worker before its first step: interpreter and torch, measured on Linux.
_WORKER_BYTES = 300_000_000
# Share of the logits held at once by the chunked loss (llmlab/gpt/head.py) and rows of a chunk.
_CHUNK_ROWS = 192
# fp32 FLOP/s of a core's matrix products, and the share of it that training reaches: measured on two cores of a
# recent server processor (300-370 GFLOP/s in all, 60 % of it in a step). A guess for other machines.
FLOPS_PER_CORE = 160e9
REACHED = 0.6
# Fixed cost of a step and of a layer in it, seconds: calls into torch, the optimizer, the event.
STEP_SECONDS = 0.004
LAYER_SECONDS = 0.0012


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to need on this machine's processor."""

    parameters: int
    embedding_parameters: int
    memory_bytes: int  # peak resident memory of the worker
    checkpoint_bytes: int
    flops_per_step: float
    seconds_per_step: float
    minutes: float  # all steps, evaluations and samples left out


def estimate(settings: PretrainSettings, vocab_size: int | None = None) -> Estimate:
    """Estimates a run; vocab_size as the tokenizer gives it, or a guess from the settings."""
    model, data, train = settings.model, settings.data, settings.train
    vocab = vocab_size or expected_vocab_size(data)
    parameters = parameter_count(model, vocab)
    tokens = data.batch_size * model.block_size
    flops = tokens * train.grad_accum * flops_per_token(model, vocab)
    cores = train.threads or os.cpu_count() or 1
    seconds = flops / (FLOPS_PER_CORE * cores * REACHED)
    seconds += train.grad_accum * (STEP_SECONDS + model.n_layer * LAYER_SECONDS)
    return Estimate(
        parameters=parameters,
        embedding_parameters=embedding_parameters(model, vocab),
        memory_bytes=_WORKER_BYTES + _memory(model, tokens, vocab, parameters),
        checkpoint_bytes=3 * FLOAT * parameters,  # weights and AdamW's two moments
        flops_per_step=flops,
        seconds_per_step=seconds,
        minutes=train.steps * seconds / 60,
    )


def flops_per_token(model: ModelSettings, vocab_size: int) -> float:
    """FLOP of forward and backward for one token: 6 a weight that multiplies, plus attention's own products.

    Two FLOP a weight forward, twice that backward (Kaplan et al. 2020, section 2.1); attention: QK^T and
    pattern x V over the whole context, 12 n_layer n_embd block_size (Chowdhery et al. 2022, appendix B).
    """
    norms_and_positions = embedding_parameters(model, vocab_size) - padded_vocab_size(model, vocab_size) * model.n_embd
    weights = parameter_count(model, vocab_size) - norms_and_positions
    return 6.0 * weights + 12.0 * model.n_layer * model.n_embd * model.block_size


def expected_vocab_size(data: DataSettings) -> int:
    """Vocabulary that a tokenizer is likely to have, before it was built."""
    return {"gpt2": 50257, "char": 100, "compact": 25000, "bpe": data.bpe_vocab_size}[data.tokenizer]


def _memory(model: ModelSettings, tokens: int, vocab_size: int, parameters: int) -> int:
    """Weights, gradients, two moments; activations kept for the backward pass; the head's buffers."""
    width, hidden = model.n_embd, feed_forward_width(model)
    kv_width = (model.n_kv_head or model.n_head) * width // model.n_head
    # Per token and layer: two norms' inputs and outputs, q k v, attention's output, and the hidden layer twice.
    activations = tokens * model.n_layer * (7 * width + 2 * kv_width + 2 * hidden) * FLOAT
    logits = 2 * min(tokens, _CHUNK_ROWS) * vocab_size * FLOAT
    return 4 * FLOAT * parameters + activations + logits
