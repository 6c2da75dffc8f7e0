"""Generation: one token after the other, each sampled from the model's distribution.

Each token is a pass of the model over the text, a choice, and the token put behind the text. While the text fits into
the context, the pass is over the newest token alone: a cache keeps what is needed of the others (`llmlab.gpt.cache`).
Beyond it the context slides, and each pass is over all of the window, which costs as much as having no cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmlab.core.settings import Sampling
from llmlab.gpt.cache import Cache
from llmlab.gpt.model import GPT


@dataclass(frozen=True)
class NextToken:
    """One written token and the distribution that it was drawn from."""

    id: int
    logits: Tensor  # [vocab_size], the model's own
    steps: tuple[tuple[str, Tensor], ...] = ()  # what became of them: see `sampling_steps`

    def top(self, count: int) -> list[tuple[int, float]]:
        """The most likely ids with their probabilities (at temperature 1), most likely first."""
        p, ids = self.logits.softmax(-1).topk(min(count, len(self.logits)))
        return list(zip(ids.tolist(), p.tolist(), strict=True))

    @property
    def probability(self) -> float:
        """Of the token that was written, at temperature 1."""
        return float(self.logits.softmax(-1)[self.id])


def generate(model: GPT, prompt: Sequence[int], tokens: int, how: Sampling, *, seed: int) -> Iterator[NextToken]:
    """Continues `prompt` (at least one id) by `tokens` ids, seeing the last `block_size` of them at each step.

    Draws from a generator of its own, so that training is not disturbed and equal seeds give equal texts. The
    model should be in eval mode.
    """
    for (token,) in generate_batch(model, [prompt], tokens, how, seeds=[seed]):
        yield token


@torch.no_grad()
def generate_batch(
    model: GPT, prompts: Sequence[Sequence[int]], tokens: int, how: Sampling, *, seeds: Sequence[int]
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
        rows = zip(logits, texts, generators, strict=True)
        chosen = [choose(row, how, text, generator) for row, text, generator in rows]
        yield chosen
        unread = [[token.id] for token in chosen]
        texts = [text + new for text, new in zip(texts, unread, strict=True)]


def _next_logits(model: GPT, texts: list[list[int]], unread: list[list[int]], cache: Cache) -> Tensor:
    """Logits [B, vocab_size] of the token after each text, of which the last `unread` ids are not in the cache yet."""
    context, device = model.settings.block_size, model.token_embedding.weight.device
    if any(getattr(block.attention, "looks_ahead", False) for block in model.blocks):
        # A variant that was built wrongly: each position changes with what follows it, and nothing of it can be kept.
        return torch.cat([model.next_token(torch.tensor([text], device=device)) for text in texts])
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
        logits[within] = model.logits(last)[:, : model.vocab_size].to(logits)
    return logits


def choose(logits: Tensor, how: Sampling, text: Sequence[int], generator: torch.Generator) -> NextToken:
    """Draws the token after `text`, of which logits [V] are the model's own."""
    steps = tuple(sampling_steps(logits, how, text))
    final = steps[-1][1] if steps else logits
    if how.temperature == 0:
        return NextToken(int(final.argmax()), logits, steps)
    return NextToken(int(torch.multinomial(final.softmax(-1), 1, generator=generator)), logits, steps)


def sampling_steps(logits: Tensor, how: Sampling, text: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
    """The settings that are not neutral by name, each with logits [V] after it; what it rules out is -inf.

    repetition_penalty  of each id in `text`, a positive logit is divided by it, a negative one multiplied
                        (Keskar et al. 2019, CTRL)
    temperature         divides all logits; 0 rules out all but the most likely
    top_k               keeps that many of the most likely (Fan et al. 2018)
    top_p               keeps the fewest of the most likely that have this probability together (Holtzman et al. 2020)
    min_p               keeps what is at least this share as likely as the most likely (Nguyen et al. 2024)

    Each sees what the ones before it left, and order and results are those of transformers' `generate`.
    """
    if how.repetition_penalty != 1:
        logits, seen = logits.clone(), sorted(set(text))
        at = logits[seen]
        logits[seen] = torch.where(at < 0, at * how.repetition_penalty, at / how.repetition_penalty)
        yield "repetition_penalty", logits
    if how.temperature == 0 or (logits.max() / how.temperature).isinf():
        yield "temperature", torch.full_like(logits, -torch.inf).index_fill(0, logits.argmax(), 0.0)
        return
    if how.temperature != 1:
        logits = logits / how.temperature
        yield "temperature", logits
    if 0 < how.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(how.top_k).values[-1], -torch.inf)
        yield "top_k", logits
    if how.top_p < 1:
        rising, order = logits.sort()
        less_likely = rising.softmax(-1).cumsum(-1)  # the probability of each and of all that are less likely
        out = less_likely <= 1 - how.top_p
        out[-1] = False
        logits = logits.index_fill(0, order[out], -torch.inf)
        yield "top_p", logits
    if how.min_p > 0:
        p = logits.softmax(-1)
        logits = logits.masked_fill(p < how.min_p * p.max(), -torch.inf)
        yield "min_p", logits
