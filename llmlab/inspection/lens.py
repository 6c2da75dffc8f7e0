"""The logit lens (nostalgebraist 2020, "interpreting GPT: the logit lens"): what the model would predict at each depth.

The stream at every layer is read as if it were the last one: the final norm, with its scale computed from that very
stream (unlike in attribution, which freezes one), then the unembedding, scale and softcap.

    z_r = logits(norm(x_r))  [T, V],   p_r = softmax(z_r)
    rows r: pre_attn 0, post_attn 0, pre_attn 1, ..., post_attn L - 1, final       2 L + 1 of them

The last row is the model's own prediction. In parallel blocks the post_attn rows are virtual (pre_attn + attn_out).
For every row and position:

    ids, probability       the K most likely tokens and their p_r, most likely first
    rank                   of the target token: 1 + how many tokens are likelier
    target_probability     p_r(target); the target is the prompt's next token; at the last position, the
                           model's most likely one
    entropy                sum_v -p_r ln p_r, in nats
    kl                     KL(p_final || p_r) = sum_v p_final ln(p_final / p_r), in nats: 0 in the last row

Streams are put aside on disk during the pass. After it, logits are made for some tokens and one row at a time, so
that only a few matrices of at most 32 MB are alive, whatever the vocabulary is. Making them is most of the cost:
2 L + 1 times what the model's own head takes.

A long prompt takes minutes, so the rows can be had in parts, the most useful layers first: every fourth one from the
last down, with the embedding, shows between which layers a prediction settles; then those between; at last the rows
after attention, which a table by layer leaves out. The model's own distribution is made again for each part, since for
all tokens at once it would take a gigabyte.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from llmlab.anatomy.anatomy import Anatomy, require
from llmlab.anatomy.capture import Observer, Point
from llmlab.core.progress import Progress, quiet
from llmlab.inspection.spill import Spill

# Logits of a row that lie in memory together (32 MB in fp32); about four such matrices are alive at once.
_NUMBERS = 8 * 1024 * 1024


class Lens(Observer):
    """Puts the streams of a pass aside; `results` reads them."""

    def __init__(
        self,
        anatomy: Anatomy,
        ids: Sequence[int],
        *,
        vocab_size: int | None = None,
        top: int = 5,
        folder: Path | None = None,
    ) -> None:
        """ids: the prompt. vocab_size: tokens that the tokenizer knows; rows of the unembedding behind it are padding
        and left out of every softmax. top: K. folder: for the temporary file, 4 x 2 L x T x C bytes.

        LabError where the family's way from the stream to the logits is not this one.
        """
        require(anatomy.refusals.attribution, "The logit lens")
        vocab = min(max(vocab_size or anatomy.vocab_size, max(ids) + 1), anatomy.vocab_size)
        bias = anatomy.unembedding_bias
        self._anatomy = dataclasses.replace(
            anatomy, unembedding=anatomy.unembedding[:vocab], unembedding_bias=None if bias is None else bias[:vocab]
        )
        self._ids, self._top = list(ids), min(top, vocab)
        self._spill = Spill(folder)
        self._places: dict[tuple[Point, int], int] = {}
        self._final = torch.zeros(0)

    @property
    def rows(self) -> int:
        """2 L + 1."""
        return 2 * self._anatomy.n_layer + 1

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        if point in ("pre_attn", "post_attn"):
            self._places[point, layer] = self._spill.put(x)

    def final(self, x: Tensor) -> None:
        self._final = x.float().clone()

    @torch.inference_mode()
    def results(
        self, progress: Progress = quiet, part: Callable[[dict[str, Tensor]], None] | None = None
    ) -> dict[str, Tensor]:
        """lens/{ids|probability} [2 L + 1, T, K], lens/{rank|target_probability|entropy|kl} [2 L + 1, T].

        ids and rank are int32. Cancelled when `progress` says so.
        part: is shown the same when some more rows are there; the others have ids of -1, ranks of 0 and NaN.
        """
        time, vocab = len(self._ids), self._anatomy.vocab_size
        size, device = (self.rows, time), self._final.device
        found = {
            "lens/ids": torch.full((*size, self._top), -1, dtype=torch.int32, device=device),
            "lens/probability": torch.full((*size, self._top), torch.nan, device=device),
            "lens/rank": torch.zeros(size, dtype=torch.int32, device=device),
            "lens/target_probability": torch.full(size, torch.nan, device=device),
            "lens/entropy": torch.full(size, torch.nan, device=device),
            "lens/kl": torch.full(size, torch.nan, device=device),
        }
        step, done = max(1, _NUMBERS // vocab), 0
        chunks = [(first, min(first + step, time)) for first in range(0, time, step)]
        parts = [range(self.rows)] if part is None else parts_of(self._anatomy.n_layer)
        for rows, (first, last) in product(parts, chunks):
            final, last_entropy = log_softmax_and_entropy(self._logits(self._final[first:last]))  # [n, V], [n]
            weights = final.exp()
            agreement = torch.linalg.vecdot(weights, final)
            targets = torch.tensor(self._ids[first + 1 : last + 1], dtype=torch.long, device=device)
            if last == time:
                targets = torch.cat((targets, final[-1].argmax()[None]))
            for row in rows:
                progress("Reading the residual stream at every layer", done, time * self.rows)
                done += last - first
                logs, entropy = final, last_entropy
                if row < self.rows - 1:
                    logs, entropy = log_softmax_and_entropy(self._logits(self._stream(row, first, last)))
                values, ids = logs.topk(self._top)
                target = logs.gather(1, targets[:, None])  # [n, 1]
                here = (row, slice(first, last))
                found["lens/ids"][here], found["lens/probability"][here] = ids.int(), values.exp()
                found["lens/rank"][here] = 1 + (logs > target).sum(1, dtype=torch.int32)
                found["lens/target_probability"][here] = target[:, 0].exp()
                found["lens/kl"][here] = (agreement - torch.linalg.vecdot(weights, logs)).clamp_min(0)
                found["lens/entropy"][here] = entropy
            if part is not None and last == time and rows is not parts[-1]:
                part(found)
        self._spill.close()
        return found

    def _stream(self, row: int, first: int, last: int) -> Tensor:
        point: Point = "post_attn" if row % 2 else "pre_attn"
        return self._spill.get(self._places[point, row // 2], first, last)

    def _logits(self, stream: Tensor) -> Tensor:
        """Stream [n, C] -> its logits [n, V], in float32."""
        anatomy = self._anatomy
        read = anatomy.norm.apply(stream).to(anatomy.unembedding.dtype)
        return anatomy.finish(read @ anatomy.unembedding.T).float()


def parts_of(n_layer: int) -> list[list[int]]:
    """The rows of a lens in the order of their use, none twice and none of the lists empty."""
    whole = [2 * layer for layer in range(n_layer, -1, -1)]  # from the last one down to the embedding
    parts = [sorted({*whole[::4], 0}), whole[2::4], whole[1::2], [2 * layer + 1 for layer in reversed(range(n_layer))]]
    return [rows for part in parts if (rows := [row for row in part if row or part is parts[0]])]


def log_softmax_and_entropy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """ln softmax [n, V], made in place of the logits, and its entropy [n]: one exponential for both.

    With z the logits less their largest one and s = sum e^z:  ln p = z - ln s,  entropy = ln s - sum e^z z / s.
    """
    logits.sub_(logits.amax(-1, keepdim=True))
    weights = logits.exp()
    whole = weights.sum(-1)
    entropy = whole.log() - torch.linalg.vecdot(weights, logits) / whole
    return logits.sub_(whole.log()[:, None]), entropy
