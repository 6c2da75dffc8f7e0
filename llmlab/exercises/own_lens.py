"""The learner's logit lens on a model, beside the lab's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmlab.anatomy.capture import run
from llmlab.core.errors import LabError, UsageError
from llmlab.exercises.functions import require_finite, require_shape
from llmlab.inspection.intervening import Recorder
from llmlab.inspection.lens import Lens
from llmlab.models.model import OpenModel

# Probabilities that the learner's function returns at once: 256 MB.
_MOST = 64 * 1024 * 1024


@dataclass(frozen=True)
class LensRow:
    """After one layer, at the last position: the most likely token and its probability, by both. apart: the largest
    difference of the probabilities of ours, over all positions and the tokens that ours names."""

    layer: int
    yours: int
    your_probability: float
    ours: int
    our_probability: float
    apart: float


@torch.no_grad()
def lens_beside_ours(opened: OpenModel, ids: Sequence[int], logit_lens: Callable[..., Tensor]) -> list[LensRow]:
    """Runs both on one pass. UsageError for a prompt that is too long; LabError for a model whose logits are more than
    a product, and as `load_functions`."""
    anatomy, vocab = opened.anatomy, opened.vocab_size
    if anatomy.unembedding_bias is not None or anatomy.logit_softcap is not None:
        why = "Its logits are not a plain product: a bias or a softcap follows."
        raise LabError(
            f"Your logit lens cannot read {opened.name}.", why, "Choose a GPT of your own, or Llama, or Qwen."
        )
    if anatomy.n_layer * len(ids) * vocab > _MOST:
        most = _MOST // (anatomy.n_layer * vocab)
        raise UsageError(
            f"The prompt has {len(ids):,} tokens.", f"Yours reads at most {most:,} of this model's at once."
        )
    streams, lens = (
        Recorder([(layer, "post_ffn") for layer in range(anatomy.n_layer)]),
        Lens(anatomy, ids, vocab_size=vocab),
    )
    run(opened.model, anatomy, ids, [streams, lens])
    after = torch.stack([streams.values[layer, "post_ffn"].float() for layer in range(anatomy.n_layer)])  # [L, T, C]
    unembedding = anatomy.unembedding[:vocab].float() * anatomy.logit_scale
    found = logit_lens(after, anatomy.norm.apply, unembedding)
    require_shape(found, (anatomy.n_layer, len(ids), vocab), "logit-lens")
    found = found.float()
    require_finite(float(found.sum()), "logit-lens")
    ours = lens.results()
    rows = []
    for layer in range(anatomy.n_layer):
        at = 2 * (layer + 1)  # of the rows of the lab's lens, which also reads the stream after attention
        named, probability = ours["lens/ids"][at].long(), ours["lens/probability"][at]  # [T, K]
        apart = float((found[layer].gather(1, named) - probability).abs().max())
        best = int(found[layer, -1].argmax())
        rows.append(
            LensRow(layer, best, float(found[layer, -1, best]), int(named[-1, 0]), float(probability[-1, 0]), apart)
        )
    return rows
