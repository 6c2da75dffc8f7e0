"""An open model: what every panel and every command works on, whatever it was opened from."""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.finding import anatomy_of
from llmlab.anatomy.modules import base_model
from llmlab.anatomy.probe import probe
from llmlab.anatomy.sizes import LONGEST_PROMPT, context_limit
from llmlab.core.errors import LabError
from llmlab.core.memory import require_memory
from llmlab.data.tokenizers import TextTokenizer
from llmlab.gpt.model import GPT

ModelKind: TypeAlias = Literal["scratch", "huggingface", "gguf", "adapter", "finetuned", "live"]


@dataclass(frozen=True)
class OpenModel:
    """A model in eval mode with its tokenizer.

    reference: the text that opens exactly this model again ("bar@150"). name: for people. step: of a run.
    """

    reference: str
    name: str
    kind: ModelKind
    model: nn.Module
    tokenizer: TextTokenizer
    step: int | None = None

    @cached_property
    def parameters(self) -> int:
        """Tied ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @cached_property
    def bytes(self) -> int:
        return sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())

    @property
    def vocab_size(self) -> int:
        """Tokens that can come next; an embedding may have more rows than that, for padding."""
        return self.model.vocab_size if isinstance(self.model, GPT) else self.anatomy.vocab_size

    @cached_property
    def anatomy(self) -> Anatomy:
        """Where its parts are, and which panels are refused. LabError when nothing of it could be trusted."""
        if self.kind == "live" or isinstance(self.model, GPT):  # one that trains is another one at every look
            found = anatomy_of(self.model)
            return probe(self.model, found) if getattr(self.model, "rebuilt", False) else found
        from llmlab.anatomy.families import transformers_anatomy  # loads transformers, which takes seconds
        from llmlab.anatomy.kept_probe import probed_once

        return transformers_anatomy(self.model, probed_once)

    @cached_property
    def weights_sha256(self) -> str:
        """Hex digest over the names, shapes and bytes of all weights, by name: equal models have equal digests."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.model.named_parameters()):
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
            flat = weight.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
        return digest.hexdigest()


def context_of(model: nn.Module) -> int:
    """The longest row of tokens that a model reads."""
    return context_limit_of(model) or LONGEST_PROMPT


def context_limit_of(model: nn.Module) -> int | None:
    """How many tokens a model can read at once; None where nothing limits it (`llmlab.anatomy.sizes`)."""
    if isinstance(model, GPT):
        return model.settings.block_size
    plain: Any = base_model(model)
    return context_limit(plain.config.get_text_config())


def require_finite(model: nn.Module, name: str) -> None:
    """LabError when a weight is NaN or infinite: so would be everything that is computed with it.

    Packed weights of a quantized model are whole numbers, and left out, like those of a model without memory (meta).
    """
    for key, parameter in model.named_parameters():
        weight = parameter.detach()
        # A sum is finite only where each number is; only one that overflowed has to be looked at more closely.
        if weight.is_meta or not weight.is_floating_point() or math.isfinite(weight.sum()):
            continue
        if not torch.isfinite(weight).all():
            raise LabError(
                f"{name} cannot be used.",
                f"Its weight {key} holds numbers that are not finite, and so would be all that is computed with it.",
                "Take another copy or an earlier checkpoint: the file is damaged, or its training diverged.",
            )


def untrained_like(model: nn.Module, seed: int) -> nn.Module:
    """A fresh model with the settings of `model`, in fp32 and eval mode; `model` and torch's own draws are untouched.

    Equal seeds give equal weights. LabError when a second one does not fit into memory beside the first.
    """
    weights = sum(parameter.numel() for parameter in model.parameters())
    require_memory(4 * weights, "A model of its shape with random weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(model, GPT):
            return type(model)(model.settings, model.vocab_size).eval()
        plain: Any = base_model(model)  # an adapter has nothing to do with the shape
        fresh: nn.Module = type(plain)(copy.deepcopy(plain.config))  # transformers draws weights as the family does
    return fresh.float().eval()
