"""Generation: one token after the other, each sampled from the model's distribution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


@torch.no_grad()
def generate(
    model: GPT, prompt: Sequence[int], tokens: int, *, temperature: float, top_k: int, seed: int
) -> Iterator[NextToken]:
    """Continues `prompt` (at least one id) by `tokens` ids, seeing the last `block_size` of them at each step.

    temperature: 0 takes the most likely; else logits are divided by it. top_k: draw among that many; 0 means all.
    Draws from a generator of its own, so that training is not disturbed and equal seeds give equal texts. The
    model should be in eval mode.
    """
    device = model.token_embedding.weight.device
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([list(prompt)[-model.settings.block_size :]], device=device)  # [1, T]
    for _ in range(tokens):
        logits = model.next_token(ids)[0].float().cpu()  # [vocab_size]
        chosen = choose(logits, temperature, top_k, generator)
        yield NextToken(chosen, logits)
        following = torch.tensor([[chosen]], device=device)
        ids = torch.cat((ids, following), dim=1)[:, -model.settings.block_size :]


def choose(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    """An id drawn from softmax(logits [V] / temperature), among the `top_k` most likely; the most likely at 0."""
    if temperature == 0:
        return int(logits.argmax())
    scaled = logits / temperature
    if 0 < top_k < len(scaled):
        scaled = scaled.masked_fill(scaled < scaled.topk(top_k).values[-1], -torch.inf)
    return int(torch.multinomial(scaled.softmax(-1), 1, generator=generator))
