"""Looking at a run with its model: which text stood in a spike's batch, and how noisy its gradients are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from llmlab.core.errors import LabError
from llmlab.core.settings import PretrainSettings
from llmlab.data.sequences import Sequences
from llmlab.gpt.model import GPT
from llmlab.models.source import open_model
from llmlab.store.checkpoints import Checkpoint, list_checkpoints
from llmlab.store.history import RunHistory
from llmlab.store.run_folder import RunFolder
from llmlab.studies.experiments.outcomes import Finding, Spike
from llmlab.training.batches import Batches, sequences_of

_ROWS = 6  # of a batch that are shown, those with the highest loss first
# Batches whose gradients are compared: their mean is then known to a quarter of one batch's noise.
_NOISE_BATCHES = 16

Remarks = list[str]


def with_texts(
    run: RunFolder, history: RunHistory, spikes: Sequence[Spike], outputs: Path
) -> tuple[list[Spike], Remarks]:
    """The spikes with the rows of their batches. A batch follows from the step and the settings of the worker that
    took it, so it can be had again.

    A row's loss is that under the last checkpoint before the spike, or the first after it, and says which row
    stands out. Texts that are gone or were changed, and settings that were not recorded, are a remark and no error.
    """
    batches, found, remarks = Batches(run, history), [], []
    for spike in spikes:
        try:
            found.append(replace(spike, batch=batches.rows(spike.step, partial(open_model, outputs=outputs))[:_ROWS]))
        except LabError as error:
            found.append(spike)
            remarks.append(f"The texts of the spikes could not be read. {error}")
    return found, list(dict.fromkeys(remarks))


def gradient_noise(run: RunFolder, outputs: Path) -> tuple[list[Finding], Remarks]:
    """The simple noise scale at the newest checkpoint, B = tr(S) / |G|^2 (McCandlish et al. 2018, equation 2.9).

    S: covariance of one sequence's gradient; G: the mean gradient. Both from the squared norms of the gradients of
    small batches and of all of them together (appendix A.1), which are unbiased. For scratch runs; others give a
    remark.
    """
    settings = run.info().settings
    saved = list_checkpoints(run.checkpoints)
    if not isinstance(settings, PretrainSettings) or not saved:
        return [], ["The gradient noise was not measured: that is done for pretraining runs that have a checkpoint."]
    try:
        _, sequences = sequences_of(settings)
        model = _opened(run, saved[-1], outputs)
    except LabError as error:
        return [], [f"The gradient noise was not measured. {error}"]
    small = settings.data.batch_size
    # Batches that training has not read: beyond its last.
    first = settings.train.steps * settings.train.grad_accum
    scale = noise_scale(_gradient_of(model, sequences, first), small, _NOISE_BATCHES)
    if scale is None:
        drowned = f"drowns the mean gradient of {_NOISE_BATCHES} batches"
        return [], [f"The gradient noise at step {saved[-1].step} {drowned}."]
    text = f"at step {saved[-1].step}, where a batch has {small * settings.train.grad_accum}"
    return [Finding("noise_scale", "gradient noise scale", scale, unit="sequences", text=text)], []


def noise_scale(gradient: Callable[[int], torch.Tensor], small: int, batches: int) -> float | None:
    """tr(S) / |G|^2 in rows, from `batches` gradients of `small` rows each; None where no mean gradient shows.

    gradient(i): the mean gradient of batch i as one vector.
    """
    squared, mean = 0.0, None
    for i in range(batches):
        one = gradient(i)
        squared += float(one @ one) / batches
        mean = one / batches if mean is None else mean + one / batches
    assert mean is not None
    large, squared_mean = small * batches, float(mean @ mean)
    signal = (large * squared_mean - small * squared) / (large - small)
    noise = (squared - squared_mean) / (1 / small - 1 / large)
    return noise / signal if signal > 0 and noise > 0 else None


def _gradient_of(model: GPT, sequences: Sequences, first: int) -> Callable[[int], torch.Tensor]:
    parameters = list(model.parameters())

    def gradient(index: int) -> torch.Tensor:
        x, y = sequences.batch(first + index)
        grads = torch.autograd.grad(model.loss(torch.from_numpy(x), torch.from_numpy(y)), parameters)
        return torch.cat([grad.flatten() for grad in grads])

    return gradient


def _opened(run: RunFolder, checkpoint: Checkpoint, outputs: Path) -> GPT:
    model = open_model(f"{run.path}@{checkpoint.step}", outputs).model
    assert isinstance(model, GPT)  # opened from a pretraining run
    return model.requires_grad_(True)
