"""Predictions at every position of a prompt, without holding all logits in memory at once.

The logits of 4,000 tokens over a vocabulary of 150,000 are 2.4 GB. The stream before the final norm is a hundredth
of that, and the logits of a few rows are had from it when they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.capture import Intervener, Observer, run
from llmlab.data.tokenizers import TextTokenizer
from llmlab.inspection.archive import Array
from llmlab.inspection.questions import Target, token_of
from llmlab.models.model import OpenModel

# Logits that lie in memory together (64 MB in fp32).
_NUMBERS = 16 * 1024 * 1024


@dataclass(frozen=True)
class Readout:
    """Logits by position. stream [T, C] or, where the way from it to the logits is refused, the logits [T, V].

    vocab_size: V, tokens that can come next; rows of the unembedding behind them are padding and left out.
    """

    anatomy: Anatomy
    vocab_size: int
    stream: Tensor | None
    logits: Tensor | None

    @property
    def time(self) -> int:
        kept = self.stream if self.stream is not None else self.logits
        assert kept is not None
        return len(kept)

    @torch.inference_mode()
    def rows(self, first: int, last: int) -> Tensor:
        """Logits of positions first to last - 1, in float32 or wider: [n, V]."""
        if self.stream is not None:
            logits = self.anatomy.logits(self.stream[first:last])
        else:
            assert self.logits is not None
            logits = self.logits[first:last]
        logits = logits[:, : self.vocab_size]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def at(self, position: int) -> Tensor:
        """Logits at one position [V]."""
        return self.rows(position, position + 1)[0]

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """All rows in pieces that fit: first position, logits [n, V]."""
        step = max(1, _NUMBERS // self.vocab_size)
        for first in range(0, self.time, step):
            yield first, self.rows(first, min(first + step, self.time))


class _Final(Observer):
    stream: Tensor

    def final(self, x: Tensor) -> None:
        self.stream = x.clone()


def logits_made(anatomy: Anatomy, time: int) -> int:
    """Positions of a prompt of `time` tokens whose logits the pass of `read` makes."""
    return 1 if anatomy.refusals.attribution is None else time


def read(
    opened: OpenModel, ids: Sequence[int], observers: Sequence[Observer] = (), interventions: Sequence[Intervener] = ()
) -> Readout:
    """One forward pass and what it predicts. Errors as in `llmlab.anatomy.capture.run`."""
    model, anatomy = opened.model, opened.anatomy
    if anatomy.refusals.attribution is not None:
        return Readout(anatomy, opened.vocab_size, None, run(model, anatomy, ids, observers, interventions)[0])
    final = _Final()
    run(model, anatomy, ids, [*observers, final], interventions, last=True)
    return Readout(anatomy, opened.vocab_size, final.stream, None)


def predictions(readout: Readout, top: int) -> dict[str, Array]:
    """The `top` most likely tokens at every position: ids [T, K] int32, their probabilities as `probability` [T, K]."""
    best = [logits.softmax(-1).topk(min(top, logits.shape[-1]), -1) for _, logits in readout.chunks()]
    ids = torch.cat([one.indices for one in best]).int().cpu().numpy()
    return {"ids": ids, "probability": torch.cat([one.values for one in best]).cpu().numpy()}


def divergence(before: Readout, after: Readout) -> Tensor:
    """KL(before || after) at every position, in nats [T]: sum over tokens of p ln(p / q) (Kullback & Leibler 1951)."""
    parts = []
    for first, logits in before.chunks():
        p = logits.log_softmax(-1)
        q = after.rows(first, first + len(logits)).log_softmax(-1)
        parts.append((p.exp() * (p - q)).sum(-1).clamp_min(0.0))
    return torch.cat(parts)


def text_of(tokenizer: TextTokenizer, id: int) -> str:
    """One token as text; `[id]` where only padding of the vocabulary has this id, which no text has."""
    try:
        return tokenizer.token_text(id)
    except (LookupError, ValueError, OverflowError):
        return f"[{id}]"


@dataclass(frozen=True)
class LogitTarget:
    """What is watched: the logit of `answer` at a position, minus that of `against` where there is one."""

    position: int
    answer: int
    against: int | None

    def value(self, logits: Tensor) -> float:
        """logits [V] -> logit(answer) - logit(against)."""
        return float(logits[self.answer] - (0.0 if self.against is None else logits[self.against]))

    def logits(self, logits: Tensor) -> Array:
        """logits [V] -> both [2]; NaN for an against that is not there."""
        against = float("nan") if self.against is None else float(logits[self.against])
        return np.array([float(logits[self.answer]), against], dtype=np.float32)

    def strings(self, opened: OpenModel) -> dict[str, str]:
        """For an archive's metadata."""
        return {
            "position": str(self.position),
            "answer": str(self.answer),
            "answer_text": text_of(opened.tokenizer, self.answer),
            "against": "" if self.against is None else str(self.against),
            "against_text": "" if self.against is None else text_of(opened.tokenizer, self.against),
        }


def target_of(opened: OpenModel, question: Target, logits: Tensor, position: int) -> LogitTarget:
    """The target of a question. logits [V]: the unchanged pass at `position`; its most likely token is the default."""
    answer = token_of(opened, question.answer, "answer") if question.answer else int(logits.argmax())
    return LogitTarget(position, answer, token_of(opened, question.against, "against") if question.against else None)
