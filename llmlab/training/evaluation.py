"""Measuring a model on fixed sequences, and letting it write; neither moves the training's random numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from llmlab.core.device import Device
from llmlab.core.settings import SampleSettings
from llmlab.data.tokenizers import Tokenizer
from llmlab.gpt.generate import generate
from llmlab.gpt.model import GPT


@torch.no_grad()
def mean_loss(model: GPT, batches: Iterable[tuple[np.ndarray, np.ndarray]], device: Device) -> float:
    """Mean loss in nats a token over (x, y) batches of ids [batch, time], dropout off."""
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for x, y in batches:
        ids, targets = torch.from_numpy(x).to(device.kind), torch.from_numpy(y).to(device.kind)
        with device.autocast():
            total += float(model.loss(ids, targets)) * targets.numel()
        count += targets.numel()
    model.train(was_training)
    return total / count


def write_samples(
    model: GPT, tokenizer: Tokenizer, samples: SampleSettings, prompts: Sequence[str], seed: int
) -> list[dict[str, str]]:
    """A continuation of each prompt, as the `sampled` event holds them. An empty prompt begins at a text's start."""
    was_training = model.training
    model.eval()
    written = []
    for number, prompt in enumerate(prompts):
        ids = tokenizer.encode(prompt) or [0 if tokenizer.end_of_text is None else tokenizer.end_of_text]
        tokens = generate(
            model, ids, samples.tokens, temperature=samples.temperature, top_k=samples.top_k, seed=seed + number
        )
        written.append({"prompt": prompt, "text": tokenizer.decode([token.id for token in tokens])})
    model.train(was_training)
    return written
