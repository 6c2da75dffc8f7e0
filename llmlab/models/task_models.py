"""What learns the tasks: the lab's GPT, and three models beside it that show what attention is needed for.

All of them turn ids [B, T] into logits [B, P, C] at a task's P positions, by `answers`.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmlab.core.task_settings import LSTM, MLP_POSITION, TRANSFORMER, TaskModelSettings, shape_of
from llmlab.data.synthetic.hmm import ROW_BASE
from llmlab.data.synthetic.tasks import Layout
from llmlab.gpt.model import GPT

# A row's numbers are about 1/3 and differ by less; so scaled, they stand out beside a position's vector from the start.
_ROW_SCALE = 10.0
_HIDDEN = 4  # widths of a hidden layer, as in GPT-2's feed-forward


class Answering(Protocol):
    """What a model of a task can do besides being a module."""

    def answers(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> logits [B, P, C] of what is predicted."""


def make_model(settings: TaskModelSettings, layout: Layout) -> nn.Module:
    """A model with fresh weights from torch's global generator; it is `Answering`."""
    if settings.kind == TRANSFORMER:
        return TaskGPT(settings, layout)
    if settings.kind == LSTM:
        return TaskLSTM(settings, layout)
    return TaskMLP(settings, layout, prefix=settings.kind != MLP_POSITION)


class TaskGPT(GPT):
    """The lab's GPT with a task's vocabulary: the answer is read where its tokens' logits are."""

    def __init__(self, settings: TaskModelSettings, layout: Layout) -> None:
        super().__init__(shape_of(settings, layout.time), layout.vocab_size)
        self.layout = layout
        if not settings.feed_forward:
            for block in self.blocks:
                block.feed_forward = NoFeedForward()
                block.feed_forward_norm.requires_grad_(False)  # nothing reads it, so nothing could teach it
        if layout.row_width:
            self.token_embedding = RowEmbedding(layout, settings.n_embd)
            self.initialise()

    def answers(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> logits [B, P, C]."""
        first, end = self.layout.answers
        stream = self.residual_stream(ids)[:, list(self.layout.positions)]  # [B, P, width]
        return F.linear(stream, self.unembedding[first:end])


class NoFeedForward(nn.Module):
    """Stands where a feed-forward would, and adds nothing: a block is attention alone."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised stream [B, T, C] -> zeros [B, T, C]."""
        return torch.zeros_like(x)


class TaskLSTM(nn.Module):
    """A recurrent network: what it knows of the tokens before must fit into its state (Hochreiter & Schmidhuber)."""

    def __init__(self, settings: TaskModelSettings, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.token_embedding = _embedding(layout, settings.n_embd)
        self.lstm = nn.LSTM(settings.n_embd, settings.n_embd, settings.n_layer, batch_first=True)
        self.head = nn.Linear(settings.n_embd, layout.answers[1] - layout.answers[0])

    def answers(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> logits [B, P, C]."""
        states: Tensor = self.lstm(self.token_embedding(ids))[0]  # [B, T, width]
        return self.head(states[:, list(self.layout.positions)])


class TaskMLP(nn.Module):
    """Layers without attention or memory.

    prefix: all tokens up to a position are seen at once, each in slots of its own, later ones as zeros. Otherwise only
    the token at the position is seen, as the paper's control does: it has no context to reason from.
    """

    seen: Tensor

    def __init__(self, settings: TaskModelSettings, layout: Layout, *, prefix: bool) -> None:
        super().__init__()
        self.layout = layout
        self.prefix = prefix
        n_embd, hidden = settings.n_embd, _HIDDEN * settings.n_embd
        self.token_embedding = _embedding(layout, n_embd)
        self.place_embedding = nn.Embedding(len(layout.positions), hidden)
        self.first = nn.Linear(layout.time * n_embd if prefix else n_embd, hidden)
        self.rest = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(settings.n_layer - 1))
        self.head = nn.Linear(hidden, layout.answers[1] - layout.answers[0])
        seen = torch.arange(layout.time) <= torch.tensor(layout.positions)[:, None]  # [P, T]
        self.register_buffer("seen", seen[..., None].float(), persistent=False)

    def answers(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> logits [B, P, C]."""
        tokens = self.token_embedding(ids)  # [B, T, width]
        if self.prefix:
            x = (tokens[:, None] * self.seen).flatten(2)  # [B, P, T x width]
        else:
            x = tokens[:, list(self.layout.positions)]
        x = F.gelu(self.first(x) + self.place_embedding.weight)  # [B, P, hidden]
        for layer in self.rest:
            x = F.gelu(layer(x))
        return self.head(x)


class RowEmbedding(nn.Embedding):
    """Token embedding in which an id from the vocabulary's size on is a row of numbers (`hmm.row_ids`).

    Such a row [row_width] is multiplied by a matrix of its own; which row it is, its position says.
    """

    powers: Tensor

    def __init__(self, layout: Layout, n_embd: int) -> None:
        super().__init__(layout.vocab_size, n_embd)
        self.id_limit = layout.vocab_size + ROW_BASE**layout.row_width  # ids that it reads, for llmlab.inspection
        self.rows = nn.Linear(layout.row_width, n_embd, bias=False)
        self.register_buffer("powers", ROW_BASE ** torch.arange(layout.row_width), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """ids [B, T] -> [B, T, width]."""
        plain = F.embedding(input.clamp(max=self.num_embeddings - 1), self.weight)
        codes = (input - self.num_embeddings).clamp(min=0)
        numbers = (codes[..., None] // self.powers % ROW_BASE).to(plain.dtype) / (ROW_BASE - 1)  # [B, T, row_width]
        return torch.where((input < self.num_embeddings)[..., None], plain, self.rows(_ROW_SCALE * numbers))


def _embedding(layout: Layout, n_embd: int) -> nn.Embedding:
    return RowEmbedding(layout, n_embd) if layout.row_width else nn.Embedding(layout.vocab_size, n_embd)
