"""A GPT, written to be learned from: read it from top to bottom.

A decoder-only transformer turns a row of token ids into, at every position, a guess of the next token. Each token
becomes a vector, its *residual stream*. Blocks read that stream and add to it: attention moves information
between positions, the feed-forward works on each position alone. At the end the stream is compared with every
token's embedding, and the best match is the guess.

    ids [batch, time] -> embedding -> block x n_layer -> norm -> logits [batch, time, vocab]

Shapes are written behind each line: B sequences in a batch, T tokens in a sequence, C = n_embd, V = vocabulary,
H heads of width D = C / H. The defaults give GPT-2 (Radford et al. 2019, "Language Models are Unsupervised
Multitask Learners"); every departure from it is a setting, so that its effect can be measured:

    bias            vectors added in linear layers and norms (GPT-2: yes)
    norm            LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019)
    position        a learned vector a position (GPT-2) or rotary: RoPE (Su et al. 2021)
    activation      GELU (Hendrycks & Gimpel 2016), SwiGLU (Shazeer 2020) or squared ReLU (So et al. 2021, "Primer")
    n_kv_head       fewer key-value heads than query heads: grouped-query attention (Ainslie et al. 2023)
    qk_norm         queries and keys of one size, so that scores stay small: Henry et al. 2020, in Qwen3's form
    zero_init       blocks begin by adding nothing to the stream: the idea of Fixup (Zhang et al. 2019)
    untied_head     a matrix of its own turns the stream into logits (Chung et al. 2021), not the token embedding
    logit_softcap   logits bounded by a tanh: Gemma 2 (Gemma Team 2024), after Bello et al. 2016
    value_residual  every block's values are mixed with the first block's (Zhou et al. 2024, ResFormer)
    mup_base_width  sizes that leave the best learning rate where it is as the width grows: muP (Yang et al. 2022)

`cache` and `past` are for generation alone (`llmlab.gpt.cache`): leave them out at the first reading.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llmlab.core.settings import ModelSettings
from llmlab.gpt.cache import Cache, LayerCache
from llmlab.gpt.head import capped, next_token_loss
from llmlab.gpt.shapes import HALF_ATTENTION, feed_forward_dim, padded_vocab_size, width_ratio


class GPT(nn.Module):
    """The whole model. `forward` gives logits, `loss` what training minimises, `next_token` what writing needs."""

    def __init__(self, settings: ModelSettings, vocab_size: int) -> None:
        """vocab_size: tokens that the tokenizer knows; the embedding may be padded (`vocab_multiple`)."""
        super().__init__()
        self.settings = settings
        self.vocab_size = vocab_size
        self.recomputes = False  # whether the backward pass computes blocks anew: `train.activation_checkpointing`
        n_embd = settings.n_embd
        self.token_embedding = nn.Embedding(padded_vocab_size(settings, vocab_size), n_embd)
        if settings.position == "learned":
            self.position_embedding = nn.Embedding(settings.block_size, n_embd)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(settings, layer) for layer in range(settings.n_layer))
        self.final_norm = Norm(settings)
        if settings.untied_head:
            self.head = nn.Linear(n_embd, self.token_embedding.num_embeddings, bias=False)
        self.initialise()

    def forward(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> logits [B, T, V]: how strongly each token is expected next, at every position."""
        return self.logits(self.residual_stream(ids))

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean of -ln p(target) over all positions of ids, targets [B, T]: a scalar, in nats per token."""
        return self.loss_at(self.residual_stream(ids), targets)

    def loss_at(self, stream: Tensor, targets: Tensor) -> Tensor:
        """The same from the stream at its end [B, T, C]."""
        return next_token_loss(self.scaled(stream), self.unembedding, targets, self.settings.logit_softcap)

    def next_token(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> logits [B, vocab_size] of the token after the last; only the last `block_size` are read."""
        last = self.residual_stream(ids[:, -self.settings.block_size :])[:, -1]  # [B, C]
        return self.logits(last)[:, : self.vocab_size]

    def logits(self, stream: Tensor) -> Tensor:
        """The stream at its end [..., C] -> logits [..., V]: how well it fits each token's row."""
        return capped(F.linear(self.scaled(stream), self.unembedding), self.settings.logit_softcap)

    def scaled(self, stream: Tensor) -> Tensor:
        """muP: a logit is a sum of C products that training aligns, so that it would grow as C does."""
        ratio = width_ratio(self.settings)
        return stream if ratio == 1 else stream / ratio

    def residual_stream(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """ids [B, T] -> the stream after all blocks and the final norm [B, T, C].

        cache: what was kept of earlier tokens when a text is generated (`llmlab.gpt.cache`); ids are the new ones.
        """
        _, time = ids.shape
        if time > self.settings.block_size:
            raise ValueError(f"{time} tokens do not fit into a context of {self.settings.block_size}")
        x = self.token_embedding(ids)  # [B, T, C]
        if self.settings.position == "learned":
            positions = slice(time) if cache is None else cache.positions
            x = x + self.position_embedding.weight[positions]  # [T, C], the same for every sequence
        x = self.dropout(x)
        first: list[Tensor] | None = [] if self.settings.value_residual else None  # becomes the first block's values
        for layer, block in enumerate(self.blocks):
            past = None if cache is None else cache.layers[layer]
            if self.recomputes and torch.is_grad_enabled():  # keeps x alone (Chen et al. 2016), and redraws its dropout
                x = checkpoint(block, x, past, first, use_reentrant=False)
            else:
                x = block(x, past, first)
        return self.final_norm(x)

    @property
    def unembedding(self) -> Tensor:
        """[V, C]: a tied head is the token embedding itself (Press & Wolf 2017)."""
        return self.head.weight if self.settings.untied_head else self.token_embedding.weight

    @torch.no_grad()
    def initialise(self) -> None:
        """GPT-2's initialisation, drawn from torch's global generator: equal seeds give equal weights.

        Weights are normal with standard deviation 0.02. The two projections of each block that write into the residual
        stream get 0.02 / sqrt(2 n_layer), since 2 n_layer of them add up in it (GPT-2, section 2.3); with zero_init,
        zeros. They are drawn all the same: every other weight is what it is without.

        muP: a matrix inside a block sums over more terms in a wider model. They are random at first, and their sum
        grows as the root of their number: so the weights are smaller by it (Yang et al. 2022, table 8).
        """
        hidden_std = 0.02 / math.sqrt(width_ratio(self.settings))
        residual_std = 0.0 if self.settings.zero_init else hidden_std / math.sqrt(2 * self.settings.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                parameter.normal_(0.0, residual_std)
            elif parameter.dim() == 2:
                parameter.normal_(0.0, hidden_std if name.startswith("blocks.") else 0.02)
            elif name.endswith("bias"):
                parameter.zero_()  # norm weights stay at one


class Block(nn.Module):
    """Pre-norm block: read a normalised copy of the stream, add the result back to the stream itself."""

    def __init__(self, settings: ModelSettings, layer: int = 0) -> None:
        super().__init__()
        self.attention_norm = Norm(settings)
        self.attention = CausalSelfAttention(settings, layer)
        self.feed_forward_norm = Norm(settings)
        self.feed_forward = FeedForward(settings)

    def forward(self, x: Tensor, past: LayerCache | None = None, first: list[Tensor] | None = None) -> Tensor:
        """The stream before [B, T, C] -> the stream after [B, T, C].

        past: the cached keys and values, if any. first: see `CausalSelfAttention.heads`.
        """
        x = x + self.attention(self.attention_norm(x), past, first)  # gather from earlier positions
        x = x + self.feed_forward(self.feed_forward_norm(x))  # process what was gathered
        return x


class CausalSelfAttention(nn.Module):
    """Each position queries itself and all earlier positions, and takes a weighted mean of their values.

    pattern = softmax(Q K^T / sqrt(D) + mask),  z = pattern V      (Vaswani et al. 2017, equation 1)

    The mask sets later positions to minus infinity: a prediction must not see what it predicts.
    """

    def __init__(self, settings: ModelSettings, layer: int = 0) -> None:
        super().__init__()
        self.n_head = settings.n_head
        self.n_kv_head = settings.n_kv_head or settings.n_head
        self.head_dim = settings.n_embd // settings.n_head
        # Scores are sums over D that training aligns: muP divides by D, with 8 (as microsoft/mup) so that heads of 64,
        # the usual size, have what they have without.
        self.scale = 8 / self.head_dim if settings.mup_base_width else 1 / math.sqrt(self.head_dim)
        self.dropout = settings.dropout
        kv_dim = self.n_kv_head * self.head_dim
        self.dims = [settings.n_embd, kv_dim, kv_dim]
        self.qkv = nn.Linear(settings.n_embd, sum(self.dims), bias=settings.bias)  # three projections in one
        self.out = nn.Linear(settings.n_embd, settings.n_embd, bias=settings.bias)
        self.q_norm = nn.RMSNorm(self.head_dim, Norm.EPS) if settings.qk_norm else None
        self.k_norm = nn.RMSNorm(self.head_dim, Norm.EPS) if settings.qk_norm else None
        # The first block's share in the values of a later one. The paper learns a factor for each of the two; here they
        # sum to one, so that values keep their size.
        self.value_mix = nn.Parameter(torch.full((1,), 0.5)) if settings.value_residual and layer > 0 else None
        self.rotary = Rotary(self.head_dim, settings.block_size) if settings.position == "rotary" else None

    def forward(self, x: Tensor, past: LayerCache | None = None, first: list[Tensor] | None = None) -> Tensor:
        """Normalised stream [B, T, C] -> what attention adds to the stream [B, T, C]."""
        batch, time, n_embd = x.shape
        q, k, v = self.heads(self.qkv(x), None if past is None else past.positions, first)
        if past is not None:  # x are the newest tokens alone: put the keys and values of earlier ones before theirs
            k, v = past.extended(k, v)  # [B, H_kv, S, D]
        if self.n_kv_head < self.n_head:  # each key-value head serves a group of query heads
            k = k.repeat_interleave(self.n_head // self.n_kv_head, dim=1)  # [B, H, T, D]
            v = v.repeat_interleave(self.n_head // self.n_kv_head, dim=1)  # [B, H, T, D]
        # The formula above in one call that never stores the [B, H, T, T] pattern where the device can avoid it.
        drop = self.dropout if self.training else 0.0
        mask = None if past is None else past.mask
        precision: AbstractContextManager[Any] = nullcontext()
        if torch.is_autocast_enabled("cpu") and q.is_cpu and k.shape[2] < HALF_ATTENTION:
            # A run in bf16 on a processor, where fp32 is faster for so few tokens.
            q, k, v = q.float(), k.float(), v.float()
            precision = torch.autocast("cpu", enabled=False)
        with precision:
            y = F.scaled_dot_product_attention(q, k, v, mask, drop, mask is None, scale=self.scale)  # [B, H, T, D]
        y = y.transpose(1, 2).reshape(batch, time, n_embd)  # heads side by side again
        return F.dropout(self.out(y), self.dropout, self.training)

    def heads(
        self, qkv: Tensor, positions: Tensor | None = None, first: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The three projections [B, T, C + 2 C_kv] -> queries [B, H, T, D], keys and values [B, H_kv, T, D].

        first: with value residuals, a list that the first block puts its values in, and later blocks find them there.
        """
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)) for part in qkv.split(self.dims, dim=-1))  # [B, T, H, D]
        if self.q_norm is not None and self.k_norm is not None:  # in the weights' fp32, also under autocast
            q, k = self.q_norm(q.to(self.q_norm.weight)).to(v), self.k_norm(k.to(self.k_norm.weight)).to(v)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [B, H, T, D]
        if self.value_mix is not None:
            assert first is not None, "a later block needs the first one's values"
            share = self.value_mix.to(v)
            v = share * first[0] + (1 - share) * v
        elif first is not None:
            first.append(v)
        if self.rotary is not None:
            q, k = self.rotary(q, positions), self.rotary(k, positions)
        return q, k, v


class FeedForward(nn.Module):
    """Two linear layers with a non-linearity between, at each position alone: where most of the parameters are.

    gelu:        down(GELU(up(x))), with GPT-2's approximation of GELU by tanh, which is at most 0.0005 off
    gelu_exact:  the same with GELU itself, x times the share of a standard normal distribution below x
    swiglu:      down(SiLU(gate(x)) * up(x)), with a hidden width that keeps the number of parameters about equal
    relu2:       down(max(0, up(x))^2)
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        hidden = feed_forward_dim(settings)
        self.activation = settings.activation
        self.up = nn.Linear(settings.n_embd, hidden, bias=settings.bias)
        if self.activation == "swiglu":
            self.gate = nn.Linear(settings.n_embd, hidden, bias=settings.bias)
        self.down = nn.Linear(hidden, settings.n_embd, bias=settings.bias)
        self.dropout = settings.dropout

    def forward(self, x: Tensor) -> Tensor:
        """Normalised stream [B, T, C] -> what the feed-forward adds to the stream [B, T, C]."""
        if self.activation == "swiglu":
            hidden = F.silu(self.gate(x)) * self.up(x)  # [B, T, hidden]
        elif self.activation == "relu2":
            hidden = F.relu(self.up(x)).square()  # [B, T, 4C]
        else:  # GELU itself takes a CPU a third of the time of GPT-2's approximation
            approximate = "none" if self.activation == "gelu_exact" else "tanh"
            hidden = F.gelu(self.up(x), approximate=approximate)  # [B, T, 4C]
        return F.dropout(self.down(hidden), self.dropout, self.training)


class Norm(nn.Module):
    """Brings each position's vector to a standard size, so that blocks meet the same scale at every depth.

    layernorm:  (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
    rmsnorm:     x / sqrt(mean(x^2) + eps) * weight
    """

    EPS = 1e-5  # GPT-2's layer_norm_epsilon

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.kind = settings.norm
        self.weight = nn.Parameter(torch.ones(settings.n_embd))
        with_bias = settings.bias and settings.norm == "layernorm"
        self.bias = nn.Parameter(torch.zeros(settings.n_embd)) if with_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        if self.kind == "rmsnorm":
            return F.rms_norm(x, self.weight.shape, self.weight, self.EPS)
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.EPS)


class Rotary(nn.Module):
    """Turns each pair (i, i + D/2) of a query or key by an angle that grows with its position.

    The product of a query and a key then depends only on how far apart they stand. Angles: position / 10000^(2i/D)
    (Su et al. 2021, equation 15; pairs as in GPT-NeoX and Llama).
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, block_size: int) -> None:
        super().__init__()
        speed = 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)  # [D/2]
        angle = torch.arange(block_size)[:, None] * speed  # [T, D/2]
        self.register_buffer("cos", angle.cos().repeat(1, 2), persistent=False)  # [T, D]
        self.register_buffer("sin", angle.sin().repeat(1, 2), persistent=False)  # [T, D]

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Queries or keys [B, H, T, D] -> the same, turned. positions [B, T]: 0, 1, 2 ... if not given."""
        time = x.shape[-2]
        cos, sin = self.cos[:time], self.sin[:time]  # [T, D]
        if positions is not None:
            cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]  # [B, 1, T, D]
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat((-second, first), dim=-1)
        return (x * cos + turned * sin).to(x.dtype)
