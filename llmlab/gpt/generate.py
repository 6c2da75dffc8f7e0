"""Generation: one token after the other, each sampled from the model's distribution.

Each token is a pass of the model over the text, a choice, and the token put behind the text. While the text fits into
the context, the pass is over the newest token alone: a cache keeps what is needed of the others (`llmlab.gpt.cache`).
Beyond it the context slides, and each pass is over all of the window, which costs as much as having no cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llmlab.gpt.cache import Cache
from llmlab.gpt.model import GPT


@dataclass(frozen=True)
class NextToken:
    """One written token and the distribution that it was drawn from."""

    id: int
    logits: Tensor  # [vocab_size], before temperature and top-k

    def top(self, count: int) -> list[tuple[int, float]]:
        """The most likely ids with their probabilities (at temperature 1), most likely first."""
        p, ids = self.logits.softmax(-1).topk(min(count, len(self.logits)))
        return list(zip(ids.tolist(), p.tolist(), strict=True))

    @property
    def probability(self) -> float:
        """Of the token that was written, at temperature 1."""
        return float(self.logits.softmax(-1)[self.id])


def generate(
    model: GPT, prompt: Sequence[int], tokens: int, *, temperature: float, top_k: int, seed: int
) -> Iterator[NextToken]:
    """Continues `prompt` (at least one id) by `tokens` ids, seeing the last `block_size` of them at each step.

    temperature: 0 takes the most likely; else logits are divided by it. top_k: draw among that many; 0 means all.
    Draws from a generator of its own, so that training is not disturbed and equal seeds give equal texts. The
    model should be in eval mode.
    """
    for (token,) in generate_batch(model, [prompt], tokens, temperature=temperature, top_k=top_k, seeds=[seed]):
        yield token


@torch.no_grad()
def generate_batch(
    model: GPT, prompts: Sequence[Sequence[int]], tokens: int, *, temperature: float, top_k: int, seeds: Sequence[int]
) -> Iterator[list[NextToken]]:
    """`generate` for several prompts at once, of any lengths: at each step the next token of every text.

    One pass serves them all, and each draws from a generator of its own: every text is what it is when written alone.
    """
    context = model.settings.block_size
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    texts = [list(prompt)[-context:] for prompt in prompts]
    cache = Cache(model.settings.n_layer, min(context, max(map(len, texts)) + tokens))
    unread = texts  # by the cache: the prompts first, then one token of each
    for _ in range(tokens):
        logits = _next_logits(model, texts, unread, cache).cpu()  # [B, vocab_size]
        chosen = [choose(row, temperature, top_k, draw) for row, draw in zip(logits, generators, strict=True)]
        yield [NextToken(id, row) for id, row in zip(chosen, logits, strict=True)]
        unread = [[id] for id in chosen]
        texts = [text + new for text, new in zip(texts, unread, strict=True)]


def _next_logits(model: GPT, texts: list[list[int]], unread: list[list[int]], cache: Cache) -> Tensor:
    """Logits [B, vocab_size] of the token after each text, of which the last `unread` ids are not in the cache yet."""
    context, device = model.settings.block_size, model.token_embedding.weight.device
    logits = torch.zeros(len(texts), model.vocab_size, device=device)
    slid = [row for row, text in enumerate(texts) if len(text) > context]
    if slid:
        windows = torch.tensor([texts[row][-context:] for row in slid], device=device)
        logits[slid] = model.next_token(windows).to(logits)
    if within := [row for row in range(len(texts)) if row not in slid]:
        longest = max(map(len, unread))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in unread], device=device)  # [B, T]
        read = torch.tensor([[len(text) - len(row)] for text, row in zip(texts, unread, strict=True)], device=device)
        # A text that has slid is read in vain, at the last position.
        cache.expect((read + torch.arange(longest, device=device)).clamp(max=context - 1))
        stream = model.residual_stream(ids, cache)  # [B, T, C]
        last = stream[within, [len(unread[row]) - 1 for row in within]]  # [B', C]
        logits[within] = F.linear(last, model.unembedding)[:, : model.vocab_size].to(logits)
    return logits


def choose(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    """An id drawn from softmax(logits [V] / temperature), among the `top_k` most likely; the most likely at 0."""
    if temperature == 0:
        return int(logits.argmax())
    scaled = logits / temperature
    if 0 < top_k < len(scaled):
        scaled = scaled.masked_fill(scaled < scaled.topk(top_k).values[-1], -torch.inf)
    return int(torch.multinomial(scaled.softmax(-1), 1, generator=generator))
