"""Opening a checkpoint of a run: its model and its tokenizer, ready to write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from llmlab.config import from_mapping
from llmlab.corpora.tokenizers import Tokenizer, tokenizer_from_json
from llmlab.errors import LabError, UsageError
from llmlab.files import read_json
from llmlab.gpt.generate import NextToken, generate
from llmlab.gpt.model import GPT
from llmlab.gpt.shapes import parameter_count
from llmlab.runs.checkpoints import Checkpoint, verify
from llmlab.runs.folder import RunFolder
from llmlab.settings import PretrainSettings
from llmlab.training.state import load_weights

_FLOAT = 4  # bytes of a weight


@dataclass(frozen=True)
class WrittenToken:
    """One token that the model wrote, with what it could have written instead (probabilities at temperature 1)."""

    text: str
    probability: float
    top: list[tuple[str, float]]


@dataclass(frozen=True)
class OpenCheckpoint:
    """A model in eval mode with its tokenizer."""

    run: RunFolder
    checkpoint: Checkpoint
    model: GPT
    tokenizer: Tokenizer

    def write(
        self, prompt: str, tokens: int, *, temperature: float, top_k: int, seed: int, top: int = 0
    ) -> Iterator[WrittenToken]:
        """Continues `prompt`, token by token. LabError where the vocabulary lacks its characters."""
        pieces: list[int] = []
        shown = ""
        for token in generate(self.model, self._ids(prompt), tokens, temperature=temperature, top_k=top_k, seed=seed):
            # A character of several bytes may span tokens: show it with the token that completes it.
            pieces.append(token.id)
            text = self.tokenizer.decode(pieces)
            complete = text[:-1] if text.endswith("\ufffd") and len(pieces) < tokens else text
            new, shown = complete[len(shown) :], complete
            yield WrittenToken(new, token.probability, self._named(token, top))

    @torch.no_grad()
    def next(self, prompt: str, top: int) -> tuple[list[tuple[str, float]], float]:
        """The likeliest next tokens with their probabilities, and the distribution's entropy in nats."""
        logits = self.model.next_token(torch.tensor([self._ids(prompt)]))[0].float()
        p = logits.softmax(-1)
        entropy = float(-(p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum())
        return self._named(NextToken(int(logits.argmax()), logits), top), entropy

    def _named(self, token: NextToken, top: int) -> list[tuple[str, float]]:
        return [(self.tokenizer.token_text(id), p) for id, p in token.top(top)] if top else []

    def _ids(self, prompt: str) -> list[int]:
        """At least one id: an empty prompt is the start of a text. Half of a surrogate pair reads as `?`."""
        return self.tokenizer.encode(prompt.encode(errors="replace").decode()) or [self.tokenizer.end_of_text or 0]


def open_checkpoint(run: RunFolder, checkpoint: Checkpoint) -> OpenCheckpoint:
    """Loads a checkpoint on the CPU. LabError when it or its run is damaged."""
    if problem := verify(checkpoint):
        raise LabError(f"{run.id}@{checkpoint.step} cannot be opened.", problem, "Choose another checkpoint.")
    values = read_json(run.tokenizer_json)
    if values is None:
        raise LabError(f"The tokenizer of {run.id} is missing or damaged.", f"It should be {run.tokenizer_json}.")
    try:
        tokenizer = tokenizer_from_json(values)
        settings = from_mapping(PretrainSettings, {"model": checkpoint.about["model"]})
        vocab_size = int(checkpoint.about["vocab_size"])
        # Before memory is taken for it: the description and the weights are two files, and either may be a stranger's.
        if vocab_size < 1 or parameter_count(settings.model, vocab_size) * _FLOAT > checkpoint.bytes:
            raise ValueError(f"the weights are too few for {vocab_size} tokens and {settings.model}")
    except (UsageError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise LabError(
            f"{run.id}@{checkpoint.step} cannot be opened.", f"Its description is damaged: {error}"
        ) from error
    if tokenizer.key() != checkpoint.about.get("tokenizer"):
        raise LabError(
            f"{run.id}@{checkpoint.step} cannot be opened.",
            f"{run.tokenizer_json.name} is not the tokenizer that it was trained with.",
        )
    model = GPT(settings.model, vocab_size)
    load_weights(checkpoint.path, model)
    return OpenCheckpoint(run, checkpoint, model.eval(), tokenizer)
