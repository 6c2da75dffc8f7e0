"""Several examples in one row: which of them share one, and which models read them as if each stood alone.

transformers keeps the examples of a row apart by positions that begin anew (`llmlab.data.finetuning_data.Batch`) where
a family hands them to its attention mask. Some do not, and what mixes tokens without attention (convolutions, linear
attention) knows no mask: there an example would be read as going on from the one before it, and packing is refused.
No torch is needed until a model is tried.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmlab.core.errors import LabError, UsageError
from llmlab.models.reference import parse
from llmlab.models.source import source_of

if TYPE_CHECKING:
    from torch import Tensor

    from llmlab.data.chat import Encoded
    from llmlab.data.finetuning_data import FinetuningData
    from llmlab.training.finetuning.backends import Prepared

# Families of transformers 5.24 that read a row of several examples as one text, by `model_type`: tiny models of every
# family that the lab knows were tried. Of others a run finds out when it starts.
MIXED = frozenset({"opt", "bloom", "mpt", "gpt_oss", "qwen3_next", "qwen3_5_text", "lfm2"})
# Tokens of each of the two examples that a model is tried on.
_TRIED = 32
# How far rounding alone may move logits, in their standard deviations. Measured on SmolLM2-135M: 1.3e-5 in fp32, 0.15
# in bf16.
# An example before it moves logits by 4.5 there, and by 0.9 to 4 in tiny models of the families above.
_ROUNDING = {"fp32": 0.01, "bf16": 0.3}


def packing_refusal(base: str, outputs: Path) -> UsageError | None:
    """Why examples cannot be packed for this base, as far as its family says; None also where that is unknown."""
    try:
        mixed = source_of(parse(base, outputs)).families() & MIXED
    except LabError:  # whoever opens it says what is wrong
        return None
    return _refusal(base, f"Models of its family ({min(mixed)}) read a row of examples as one text.") if mixed else None


def require_apart(prepared: Prepared, data: FinetuningData, precision: str) -> None:
    """UsageError when the model reads an example otherwise because another stands before it in its row.

    The first two that share a row are read, which the model should do in eval mode and in the run's precision.
    """
    shared = next((row for row in data.rows if len(row) > 1), None)
    if shared is None:
        return
    first, second = (data.train[place] for place in shared[:2])
    if (moved := influence(prepared, first, second, data.chat.pad_id)) > _ROUNDING[precision]:
        why = f"An example before it in its row moves an example's logits by {moved:.2g} of their standard deviations."
        raise _refusal(prepared.base, why)


def influence(prepared: Prepared, before: Encoded, example: Encoded, pad_id: int) -> float:
    """How far an example's logits are from those that it has alone, when `before` shares its row.

    The largest difference, in standard deviations of the logits that it has alone; both without their mean, which
    decides nothing. At most 32 tokens of each are read.
    """
    import torch

    from llmlab.data.finetuning_data import padded

    first, second = (one.cut_to(_TRIED) for one in (before, example))
    with torch.no_grad():
        alone = prepared.logits(padded([[second]], pad_id))[0]  # [T, vocab_size]
        together = prepared.logits(padded([[first, second]], pad_id, positions=True))[0, len(first.ids) :]
    alone, together = _centred(alone), _centred(together)
    return float((together - alone).abs().max() / alone.std())


def _centred(logits: Tensor) -> Tensor:
    return logits.float() - logits.float().mean(-1, keepdim=True)


def _refusal(base: str, why: str) -> UsageError:
    return UsageError(f"{base} cannot be fine-tuned on packed examples.", why, "Set data.packing=false.")
