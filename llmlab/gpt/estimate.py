"""What a run will need, from its settings alone: parameters, memory, disk, time. No torch.

Memory is what a worker holds at its peak, when the backward pass of a step begins:

    process         interpreter, libraries, the text
    learning        weights, gradients, AdamW's two moments: 16 bytes a parameter (Muon's one moment: 12;
                    an average of the weights: 4 more)
    activations     what each block keeps for the backward pass, for every token of a batch (with activation
                    checkpointing: their inputs, and what one block keeps)
    vocabulary      logits, and gradients of the embedding beside the one that is kept

Of several processes (llmlab/training/parallel.py) each holds that, for its part of every batch; under fsdp2 it keeps
its part of what learns, and holds one block after the other whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llmlab.core.processes import available_cores, multiplies_in_bf16
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import DataSettings, ModelSettings, PretrainSettings, PretrainTrainSettings
from llmlab.gpt.shapes import (
    CHUNK_ROWS,
    FEW_LOGITS,
    HALF_ATTENTION,
    block_layers,
    embedding_parameters,
    feed_forward_dim,
    padded_vocab_size,
    parameter_count,
)

FLOAT = 4  # bytes of a number in fp32
# FLOP of a batch, and n_embd, from which on `auto` computes in bf16 on a processor with units for it: steps above
# both took 0.73 to 0.86 of fp32's time (resources/results/benchmarks.md), smaller ones up to 1.28 times it.
HALF_FROM, HALF_WIDTH = 3e9, 96
# Resident memory of a worker beside what is counted below: interpreter and torch, measured on Linux (274 to 309 MB:
# baby, nano), and torch's compiler, which DDP and FSDP2 load.
_WORKER_BYTES = 290_000_000
COMPILER_BYTES = 80_000_000
# Holes that the allocator leaves among activations, measured.
_SCATTER = 1.05
# Resident memory of torchrun's agent beside its workers: torch, and nothing done with it, measured on Linux.
_TORCHRUN_BYTES = 250_000_000
# What a step of several processes takes beyond computing, by gloo over the loopback: for every byte that each sends
# (ddp in large buckets, fsdp2 layer by layer, in and out of copies), for waiting for each other, and under fsdp2 for
# gathering a layer. Fitted to two passes over such runs on two quiet cores (resources/results/benchmarks.md).
_SENT_PER_SECOND = {"ddp": 6e8, "fsdp2": 2.2e8}
_WAIT_SECONDS = 0.008
_GATHER_SECONDS = 0.0065
# fp32 FLOP/s of a core's matrix products, and the share of it that a small model's training reaches in all: measured on
# two cores of a recent server processor. A guess for other machines.
FLOPS_PER_CORE = 160e9
REACHED = 0.6
# The share that products alone reach, and seconds of a core for each number that is kept for the backward pass, or is a
# logit: memory limits what is done with these, and narrow models have more of them for a product. Least squares over
# eight runs of one thread, widths 128 to 576, from scratch and in fine-tuning (resources/results/benchmarks.md).
_PRODUCTS = 0.87
_NUMBER_SECONDS = 3.1e-9
# How many times as fast products are in bf16 where there are units for it: from the steps of `nano` and `small`, which
# took 0.26 and 2.28 s of one core, with the constants above.
_HALF_SPEED = 2.0
# Fixed cost of a step and of a layer in it, seconds: calls into torch, the event; and AdamW's of a number, one core.
STEP_SECONDS = 0.004
LAYER_SECONDS = 0.0012
_ADAM_SECONDS = 2e-9


@dataclass(frozen=True)
class Memory:
    """Bytes that a worker holds at its peak, by what takes them; of several processes each of them."""

    process: int
    learning: int
    activations: int
    vocabulary: int
    processes: int = 1
    saving: int = 0  # under fsdp2, what the first of them holds more as it collects what the optimizer keeps

    @property
    def of_one(self) -> int:
        """What one process holds."""
        return self.process + self.learning + self.activations + self.vocabulary

    @property
    def total(self) -> int:
        """What all hold, and torchrun, which started them."""
        return self.processes * self.of_one + self.saving + self.torchrun

    @property
    def torchrun(self) -> int:
        """What torchrun holds beside the processes that it starts."""
        return _TORCHRUN_BYTES if self.processes > 1 else 0


@dataclass(frozen=True)
class PretrainEstimate:
    """What a run is expected to need on this machine's processor."""

    parameters: int
    embedding_parameters: int
    memory: Memory
    memory_bytes: int  # the same in all: peak resident memory of the worker
    checkpoint_bytes: int
    flops_per_step: float
    seconds_per_step: float


def estimate_pretraining(settings: PretrainSettings, vocab_size: int | None = None) -> PretrainEstimate:
    """Estimates a run; vocab_size as the tokenizer gives it, or a guess from the settings."""
    model, data, train = settings.model, settings.data, settings.train
    vocab = vocab_size or expected_vocab_size(data)
    parameters = parameter_count(model, vocab)
    tokens = data.batch_size * model.block_size
    flops = tokens * train.grad_accum * flops_per_token(model, vocab)
    muon = muon_flops(model, train) if train.optimizer == "muon" else 0.0
    flops += muon
    numbers = model.n_layer * kept_by_a_block(model)
    if train.activation_checkpointing:  # the blocks' forward pass, a third of what they cost, once more
        head = 6.0 * padded_vocab_size(model, vocab) * model.n_embd
        flops += tokens * train.grad_accum * (flops_per_token(model, vocab) - head) / 3
        numbers *= 4 / 3
    numbers += padded_vocab_size(model, vocab)
    slower = muon * (_speed(settings) - 1)  # it computes in fp32, and is counted as what takes that long in bf16
    seconds = seconds_of_step(settings, flops + slower, tokens * numbers, parameters, parameters, model.n_layer)
    memory = _memory(settings, vocab, parameters)
    return PretrainEstimate(
        parameters=parameters,
        embedding_parameters=embedding_parameters(model, vocab),
        memory=memory,
        memory_bytes=memory.total,
        checkpoint_bytes=FLOAT * (parameters + _kept(settings, parameters)),
        flops_per_step=flops,
        seconds_per_step=seconds,
    )


def precision_of(settings: RunSettings) -> str:
    """What train.precision=auto takes on this machine's processor: bf16 where products are most of a step and there are
    units for them; several processes compute in it only when asked to, runs with pieces of the learner's own, too."""
    if type(settings) is not PretrainSettings or settings.distributed.count > 1 or not multiplies_in_bf16():
        return "fp32"
    tokens = settings.data.batch_size * settings.model.block_size
    flops = tokens * flops_per_token(settings.model, expected_vocab_size(settings.data))
    return "bf16" if flops >= HALF_FROM and settings.model.n_embd >= HALF_WIDTH else "fp32"


def precision_of_all(runs: Iterable[RunSettings]) -> str:
    """The same of runs that are compared: bf16 only where each would take it, since one that rounds otherwise, or is
    faster, for its size alone is not like the others."""
    return "bf16" if {precision_of(one) for one in runs} == {"bf16"} else "fp32"


def flops_per_token(model: ModelSettings, vocab_size: int) -> float:
    """FLOP of forward and backward for one token: 6 a weight that multiplies, plus attention's own products.

    Two FLOP a weight forward, twice that backward (Kaplan et al. 2020, section 2.1); attention: QK^T and
    pattern x V over the whole context, 12 n_layer n_embd block_size (Chowdhery et al. 2022, appendix B).
    """
    head = padded_vocab_size(model, vocab_size) * model.n_embd  # what is looked up does not multiply
    weights = parameter_count(model, vocab_size) - embedding_parameters(model, vocab_size) + head
    return 6.0 * weights + 12.0 * model.n_layer * model.n_embd * model.block_size


def bytes_sent(settings: RunSettings, parameters: float, learning: int) -> float:
    """What each of several processes sends the others in a step, by resources/concepts/many-processes.md.

    parameters: as numbers of fp32, which weights in 4 bits are fewer. learning: how many of them learn. Under fsdp2 all
    weights are gathered, twice for each batch.
    """
    ranks = settings.distributed.count
    gathered = 2 * settings.train.grad_accum * parameters if settings.distributed.strategy == "fsdp2" else learning
    return (gathered + learning) * (ranks - 1) / ranks * FLOAT


def seconds_of_step(
    settings: RunSettings, flops: float, numbers: float, parameters: float, learning: int, layers: int, own: float = 0.0
) -> float:
    """What a step takes on this machine's cores. Of several processes: where there are fewer cores, they take turns.

    flops: of the whole step. numbers: kept for the backward pass of one of its batches, logits among them. parameters,
    learning: as `bytes_sent` has them. own: seconds of a core of what every process does for all rows alike.
    """
    ranks, cores, train = settings.distributed.count, available_cores(), settings.train
    threads = min(cores, ranks * (train.threads or 1) if ranks > 1 else train.threads or cores)
    turns = max(1.0, ranks / cores)  # of what each process does, however many share a batch
    products = FLOPS_PER_CORE * _PRODUCTS * _speed(settings)
    seconds = (flops / products + train.grad_accum * numbers * _NUMBER_SECONDS) / threads
    seconds += turns * (train.grad_accum * (STEP_SECONDS + layers * LAYER_SECONDS) + own)
    held = learning / ranks if settings.distributed.strategy == "fsdp2" else learning
    return seconds + turns * (held * _ADAM_SECONDS + _seconds_sending(settings, parameters, learning, layers))


def _seconds_sending(settings: RunSettings, parameters: float, learning: int, layers: int) -> float:
    """What a step takes longer because several processes take it together, each on a core."""
    if settings.distributed.count == 1:
        return 0.0
    strategy = settings.distributed.strategy
    seconds = _WAIT_SECONDS + bytes_sent(settings, parameters, learning) / _SENT_PER_SECOND[strategy]
    if strategy == "fsdp2":
        seconds += settings.train.grad_accum * layers * _GATHER_SECONDS
    return seconds


def muon_flops(model: ModelSettings, train: PretrainTrainSettings) -> float:
    """FLOP of Muon's step: Newton-Schulz iterations of X <- a X + (b A + c A^2) X, with A = X X^T, per matrix.

    X [m, n] with m <= n: two products of 2 m^2 n and one of 2 m^3 in each (Jordan et al. 2024).
    """
    (_, n_embd, qkv), *others = block_layers(model)
    head = model.n_embd // model.n_head
    matrices = [(n_embd, head)] * (qkv // head) if train.muon_heads else [(n_embd, qkv)]
    sides = [sorted(sizes) for sizes in (*matrices, *((width_in, width_out) for _, width_in, width_out in others))]
    return train.muon_iterations * model.n_layer * sum(4.0 * m**2 * n + 2.0 * m**3 for m, n in sides)


def expected_vocab_size(data: DataSettings) -> int:
    """Vocabulary that a tokenizer is likely to have, before it was built."""
    return {"gpt2": 50257, "char": 100, "compact": 25000, "bpe": data.bpe_vocab_size}[data.tokenizer]


def follows_from_text(data: DataSettings) -> bool:
    """Whether the vocabulary is as large as the text makes it: what is expected is a guess."""
    return data.tokenizer in ("char", "compact")


def _kept(settings: PretrainSettings, parameters: int) -> int:
    """Numbers kept beside the weights: two a parameter of AdamW's, one a weight of Muon's, and one of the average's."""
    model, train = settings.model, settings.train
    matrices = model.n_layer * sum(width_in * width_out for _, width_in, width_out in block_layers(model))
    moments = 2 * parameters - (matrices if train.optimizer == "muon" else 0)
    return moments + (parameters if train.ema_decay else 0)


def _half(settings: RunSettings) -> bool:
    """Whether products are in half precision, as "auto" chooses on a processor: a GPU's is known where it is."""
    precision = precision_of(settings) if settings.train.precision == "auto" else settings.train.precision
    return precision in ("bf16", "fp16")


def _speed(settings: RunSettings) -> float:
    """How many times as fast as in fp32 its products are."""
    return _HALF_SPEED if _half(settings) and multiplies_in_bf16() else 1.0


def _memory(settings: PretrainSettings, vocab_size: int, parameters: int) -> Memory:
    model, half = settings.model, _half(settings)
    on_a_processor = settings.train.device in ("auto", "cpu")  # "auto" may be one
    ranks = settings.distributed.count
    tokens = -(-settings.data.batch_size // ranks) * model.block_size
    vocab = padded_vocab_size(model, vocab_size)
    # SDPA's plain way, which dropout takes on a processor, computes in fp32 in any case.
    whole = half and on_a_processor and bool(model.dropout or model.block_size < HALF_ATTENTION)
    block, layers = kept_by_a_block(model, half, whole), model.n_layer
    kept = layers * model.n_embd + block if settings.train.activation_checkpointing else layers * block
    per_token = kept + _passing(model)
    beside, saving = _kept(settings, parameters), 0
    learning = FLOAT * (2 * parameters + beside)
    chunked = tokens * vocab >= FEW_LOGITS and (on_a_processor or not half)
    if half:  # products read copies of the weights, of 2 bytes each, but not those that make logits chunk by chunk
        learning += 2 * (parameters - (embedding_parameters(model, vocab_size) if chunked else 0))
    activations = round(FLOAT * _SCATTER * tokens * per_token)
    vocabulary = FLOAT * _vocabulary(settings, tokens, vocab, half, activations // FLOAT if chunked else None)
    if settings.distributed.strategy == "fsdp2" and ranks > 1:
        gathered = _gathered(model, parameters)
        learning = FLOAT * (2 * parameters + beside) // ranks + gathered
        saving = max(0, FLOAT * beside - gathered - activations - vocabulary)
    process = _WORKER_BYTES + (COMPILER_BYTES if ranks > 1 else 0)
    return Memory(process, learning, activations, vocabulary, ranks, saving)


def _gathered(model: ModelSettings, parameters: int) -> int:
    """Bytes of what a process holds whole under fsdp2 for a moment: all outside the blocks, and two blocks, one of
    which is computed while the next is fetched; each with its gradient."""
    block = sum(width_in * width_out for _, width_in, width_out in block_layers(model))
    return 2 * FLOAT * (parameters - max(0, model.n_layer - 2) * block)


def kept_by_a_block(model: ModelSettings, half: bool = False, whole: bool = False) -> float:
    """Numbers of fp32 that a block keeps for one token until the backward pass, as autograd saves them.

    The stream twice, each norm's output, what attention multiplies and its output, the hidden layer before and after
    the non-linearity. half: all but the stream in 2 bytes a number; whole: and attention, from queries
    to output, in 4 all the same.
    """
    n_embd, hidden = model.n_embd, feed_forward_dim(model)
    kv_dim = (model.n_kv_head or model.n_head) * (n_embd // model.n_head)
    grouped, rotary, normed, mixed = kv_dim < n_embd, model.position == "rotary", model.qk_norm, model.value_residual
    products = 2 * n_embd  # the norms' outputs
    products += n_embd  # attention's output
    products += (4 if model.activation == "swiglu" else 2) * hidden
    products += n_embd if half and model.activation == "swiglu" else 0  # gate and up: a copy of the norm's output each
    stream: float = 2 * n_embd + (2 * n_embd if model.norm == "rmsnorm" else 0)  # RMSNorm keeps what it multiplies
    if whole:  # copies in fp32, the output among them where no pattern is kept
        stream += 3 * n_embd + (3 * model.n_head * model.block_size if model.dropout else n_embd)
        products += (2 * n_embd if model.dropout else 0) + (n_embd + 2 * kv_dim if mixed else 0)
    elif model.dropout:
        # Attention is taken apart then: queries, keys and values as they are multiplied; the pattern, what was drawn
        # for it, and their product. What is drawn for a dropout is kept as fp32.
        products += 3 * n_embd + 3 * model.n_head * model.block_size + 2 * n_embd
        products += n_embd + 2 * kv_dim if normed or mixed else 0
    else:
        # As they leave their one matrix.
        products += 0 if grouped and rotary and not (normed or mixed) else n_embd + 2 * kv_dim
        changed = rotary or normed
        products += n_embd if changed else 0  # queries, turned or normalised
        # Keys and values repeated, or those that have changed.
        products += 2 * n_embd if grouped else kv_dim * (changed + mixed)
    if normed:  # likewise those of queries and keys, and what they read, as fp32
        stream += (2 if half else 1) * (n_embd + kv_dim)
    return stream + (products / 2 if half else products)


def _passing(model: ModelSettings) -> float:
    """Numbers for one token that are there once, not in each block: gradients of one block's parts on their way, and
    input, output and gradient of the final norm."""
    pattern = 3 * model.n_head * model.block_size if model.dropout else 0
    return (4 if model.activation == "swiglu" else 2) * feed_forward_dim(model) + pattern + 6 * model.n_embd


def _vocabulary(settings: PretrainSettings, tokens: int, vocab: int, half: bool, activations: int | None) -> int:
    """Numbers of fp32 that come from there being a vocabulary.

    A tied embedding has a gradient as the head and one as the input, which are added at the end; under accumulation a
    third is there from the batch before. activations: numbers that are gone during an evaluation; None where all logits
    are held at once.
    """
    gradient = vocab * settings.model.n_embd
    again = gradient if settings.train.grad_accum > 1 else 0
    both = 0 if settings.model.untied_head else gradient
    capped = 1 if settings.model.logit_softcap else 0  # its slope at every logit
    if activations is None:  # all logits, their log-softmax, their gradient; in half precision two of them twice
        return (4 + capped if half else 3 + capped) * tokens * vocab + both + again
    # The chunk, which becomes its own gradient; the head's gradient before and after the mean is taken. An evaluation
    # takes the log-softmax of a chunk beside it.
    chunk = min(tokens, CHUNK_ROWS) * vocab
    evaluation = 2 * chunk - activations if settings.train.eval_interval else 0
    return max((1 + capped) * chunk, evaluation) + gradient + both + again
