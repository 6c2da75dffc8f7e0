"""What a fine-tuning run will need: trained parameters, memory, disk, time. From what the base's files say. No torch.

Memory is what a worker holds at its peak, when the backward pass begins (or, in small runs, when the base is opened):

    weights         4 bytes a number; in 4 bits 4.127 / 8 bytes for linear layers of blocks
    what learns     its gradient and AdamW's two moments, and for adapters themselves: 12 or 16 bytes a number
    activations     what each layer keeps for the backward pass, for every token of a batch (with activation
                    checkpointing: their inputs, and what one layer keeps)
    logits          of some tokens that are trained on at a time, [tokens, vocabulary] in fp32, which become their own
                    gradient

Of several processes (llmlab/training/parallel.py) each holds that, for its part of every batch; under fsdp2 a part of
what there is besides, and one block after the other whole. Rows are taken to be full (`data.max_length`), which is what
a machine must be able to hold; shorter examples need less.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmlab.core.errors import UsageError
from llmlab.core.finetuning_settings import ATTENTION, FEED_FORWARD, FULL, QLORA, FinetuneSettings
from llmlab.gpt.estimate import COMPILER_BYTES, FLOAT, Memory, seconds_of_step
from llmlab.gpt.shapes import CHUNK_ROWS, FEW_LOGITS
from llmlab.models.base_shape import BaseShape
from llmlab.models.source import base_named
from llmlab.training.finetuning.packing import packing_refusal
from llmlab.training.kinds import steps_and_evaluations

# Bytes of a weight in NF4: 4 bits, 8 bits a block of 64, 32 bits for 256 of these (`quantise` beside this).
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
# Resident memory of a worker before its first step: interpreter, torch, and for all but the lab's own GPT transformers
# and PEFT, on Linux.
_WORKER_BYTES, _OWN_WORKER_BYTES = 560_000_000, 370_000_000
# Holes that the allocator leaves among activations.
_SCATTER = 1.05
# Seconds of a core to turn a weight back from 4 bits: what a step of two models took longer than with the same adapters
# on exact weights, by weights and passes (4.0 and 4.3 ns).
_NF4_SECONDS = 4e-9
# Share of a row that is trained on where answers are: a guess, the examples are not read.
_ANSWERS = 0.5

# A worker's start with transformers, PEFT and a small base. Processor time measured on two cores.
_START_SECONDS = 10.0


@dataclass(frozen=True)
class FinetuneEstimate:
    """What a run is expected to need on this machine's processor.

    row_tokens: how long rows were taken to be. step_seconds: one optimizer step; seconds: the start, all steps and
    evaluations; samples and scoring are left out.
    """

    trainable: int
    total: int
    memory: Memory
    memory_bytes: int
    checkpoint_bytes: int
    row_tokens: int
    step_seconds: float
    seconds: float


def estimate_finetuning(settings: FinetuneSettings, outputs: Path, row_tokens: int = 0) -> FinetuneEstimate:
    """Estimates a run; nothing is loaded. row_tokens: tokens in a row, where they are known; 0 means full rows.

    UsageError when the base is not named, not here, too narrow for the rank, or reads packed examples as one text.
    """
    if settings.data.packing and (refusal := packing_refusal(settings.model.base, outputs)):
        raise refusal
    return estimate_for(base_named(settings.model.base, outputs).shape(), settings, row_tokens)


def estimate_for(base: BaseShape, settings: FinetuneSettings, row_tokens: int = 0) -> FinetuneEstimate:
    """Estimates a run on a base of these sizes."""
    method, data, train = settings.model.method, settings.data, settings.train
    targeted = () if method == FULL else base.targeted(settings.lora.targets)
    _require_rank(base, targeted, settings.lora.rank)
    adapters = sum(settings.lora.rank * (layer.width_in + layer.width_out) for layer in targeted)
    trainable = base.parameters if method == FULL else adapters
    row = min(row_tokens or data.max_length, data.max_length, base.context)
    seconds = _step_seconds(base, settings, row * data.batch_size, row, adapters)
    ranks = settings.distributed.count
    tokens = row * -(-data.batch_size // ranks)  # of one process
    beside = (3 if method == FULL else 4) * FLOAT * trainable
    learning, saving = _weights(base, method) + beside, 0.0
    kept = activations(base, settings, row)
    if train.activation_checkpointing:
        kept = base.n_layer * base.n_embd + kept / base.n_layer
    kept *= FLOAT * _SCATTER * tokens
    logits = _logits(base, settings, tokens)
    if settings.distributed.strategy == "fsdp2" and ranks > 1:
        in_blocks = sum(layer.numbers for layer in base.layers)
        two_blocks = min(2, base.n_layer) * (NF4_BYTES if method == QLORA else FLOAT) * in_blocks / base.n_layer
        gathered = (FLOAT * (base.parameters - in_blocks) + two_blocks) * (2 if method == FULL else 1)
        # To write, the first collects all weights; to save, what the optimizer keeps.
        saving = max(0.0, max(_weights(base, method), 2 * FLOAT * trainable) - gathered - kept - logits)
        learning = learning / ranks + gathered
    process = (_OWN_WORKER_BYTES if base.own else _WORKER_BYTES) + (COMPILER_BYTES if ranks > 1 else 0)
    memory = Memory(process, round(learning), round(kept), round(logits), ranks, round(saving))
    opening = round(base.load_copies * FLOAT * base.parameters)
    if memory.of_one < process + opening:  # each opens the whole of it
        memory = Memory(process, opening, 0, 0, ranks)
    return FinetuneEstimate(
        trainable=trainable,
        total=base.parameters + adapters,
        memory=memory,
        memory_bytes=memory.total,
        checkpoint_bytes=3 * FLOAT * trainable,  # weights and AdamW's two moments
        row_tokens=row,
        step_seconds=seconds,
        seconds=_START_SECONDS + seconds * steps_and_evaluations(settings),
    )


def _require_rank(base: BaseShape, targeted: tuple[object, ...], rank: int) -> None:
    narrowest = min((min(layer.width_in, layer.width_out) for layer in base.layers), default=rank)
    if targeted and rank > narrowest:
        raise UsageError(
            f"lora.rank={rank} is more than the model has room for.",
            f"Its narrowest layer is {narrowest} wide: no change of it has a higher rank than that.",
            f"Set lora.rank to {narrowest} or less.",
        )


def _weights(base: BaseShape, method: str) -> float:
    in_blocks = sum(layer.numbers for layer in base.layers)
    if method == QLORA:
        return FLOAT * (base.parameters - in_blocks) + NF4_BYTES * in_blocks
    return float(FLOAT * base.parameters)


def activations(base: BaseShape, settings: FinetuneSettings, row: int) -> float:
    """Numbers that the blocks keep for one token until the backward pass, as autograd saves them.

    The stream twice and each norm's output (4 C); queries, keys, values and attention's output (4 times the heads'
    width), queries and keys also before their norms, values before they are mixed; what the non-linearity multiplies;
    the inputs of the layers that learn.
    """
    n_embd, heads, hidden, method = base.n_embd, base.heads, base.hidden, settings.model.method
    floats: float = 4 * n_embd + 4 * heads + (base.kv_heads if base.kv_heads < heads else 0)
    head_norms = heads + base.kv_heads if base.head_norms else 0
    floats += head_norms + (base.kv_heads if base.mixed_values else 0)
    floats += (4 if base.gated else 5 if base.composed else 2) * hidden
    # With dropout on patterns, attention is taken apart: the pattern, what was drawn for it, and their product. What
    # was drawn for the outputs of both parts is kept as well.
    floats += 3 * base.dropout_heads * row + (2 * n_embd if base.dropout_heads else 0)
    if method == FULL:
        # What a norm multiplies by its weight.
        return base.n_layer * (floats + (2 * n_embd if base.rms else 0) + head_norms)
    targets = settings.lora.targets
    floats -= n_embd if targets == FEED_FORWARD else hidden + n_embd if targets == ATTENTION else 0
    return base.n_layer * floats + settings.lora.rank * len(base.targeted(targets))


def _logits(base: BaseShape, settings: FinetuneSettings, tokens: int) -> float:
    """Bytes that come from there being a vocabulary (`llmlab.gpt.head`, `llmlab.training.finetuning.head`)."""
    vocab, head = base.vocab_size, base.vocab_size * base.n_embd
    trained = tokens * (1.0 if settings.data.train_on == "all" else _ANSWERS)
    learns = settings.model.method == FULL
    if trained * vocab < FEW_LOGITS:  # all of them, their log-softmax, their gradient
        return FLOAT * (3 * trained * vocab + (head if learns else 0))
    # The chunk, which becomes its own gradient, and the log-softmax of one in an evaluation; the gradient of a head
    # that learns, before the mean is taken.
    chunks = 2 if settings.train.eval_interval else 1
    return FLOAT * (chunks * min(trained, CHUNK_ROWS) * vocab + (head if learns else 0))


def _step_seconds(base: BaseShape, settings: FinetuneSettings, tokens: int, row: int, adapters: int) -> float:
    """2 FLOP a weight and token forward, 2 for the gradient of its input, and 2 for its own where it learns."""
    method = settings.model.method
    multiplied = sum(layer.numbers for layer in base.layers) + base.vocab_size * base.n_embd
    flops = tokens * ((6 if method == FULL else 4) * multiplied + 6 * adapters)
    flops += tokens * 12 * base.n_layer * base.heads * row  # attention's own products, as in pretraining
    numbers = activations(base, settings, row)
    if method != FULL:  # what an adapter gives is added to its layer's output
        numbers += sum(layer.width_out for layer in base.targeted(settings.lora.targets))
    if settings.train.activation_checkpointing:  # the blocks' forward pass once more
        numbers *= 4 / 3
        flops += tokens * (2 * sum(layer.numbers for layer in base.layers) + 4 * base.n_layer * base.heads * row)
    learning = base.parameters if method == FULL else adapters
    numbers, flops = tokens * (numbers + base.vocab_size), settings.train.grad_accum * flops
    gathered, turned_back = _weights(base, method) / FLOAT + adapters, 0.0
    if method == QLORA:
        passes = 3 if settings.train.activation_checkpointing else 2  # forward, perhaps once more, and backward
        turned_back = settings.train.grad_accum * passes * _NF4_SECONDS * sum(layer.numbers for layer in base.layers)
    return seconds_of_step(settings, flops, numbers, gathered, learning, base.n_layer, turned_back)
