"""Looking at a run with its model: which text stood in a spike's batch, and how noisy its gradients are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from llmlab.core.config import from_mapping
from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.progress import quiet
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainSettings
from llmlab.core.task_settings import TaskSettings
from llmlab.data.dataset import Dataset, load_dataset
from llmlab.data.sequences import Sequences
from llmlab.gpt.model import GPT
from llmlab.models.reference import parse
from llmlab.models.source import open_model, source_of
from llmlab.store.checkpoints import Checkpoint, list_checkpoints
from llmlab.store.events import Started
from llmlab.store.history import RunHistory
from llmlab.store.run_folder import RunFolder
from llmlab.studies.experiments.outcomes import BatchText, Finding, Spike

_ROWS = 6  # of a batch that are shown, those with the highest loss first
_CHARACTERS = 400  # of a row
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
    if spikes and isinstance(run.info().settings, TaskSettings):
        return list(spikes), ["A task's sequences are drawn anew at every step, so no text stands out."]
    found, remarks = [], []
    batches: dict[int, Callable[[int], list[BatchText]]] = {}  # by the step after which a worker began
    for spike in spikes:
        try:
            settings, worker = _as_trained(run, history, spike.step)
            if worker.step not in batches:
                batches[worker.step] = _batches(run, settings, worker, outputs)
            found.append(replace(spike, batch=_worst(batches[worker.step](spike.step))))
        except LabError as error:
            found.append(spike)
            remarks.append(f"The texts of the spikes could not be read. {error}")
    return found, list(dict.fromkeys(remarks))


def _as_trained(run: RunFolder, history: RunHistory, step: int) -> tuple[RunSettings, Started]:
    """The settings that a step was taken with, and the worker that took it. LabError where they are not known."""
    settings = run.info().settings
    before = [worker for worker in history.workers if worker.step < step]
    if not before:
        raise LabError(f"Nothing tells which worker took step {step}.", "The run's events do not say that one began.")
    worker, later = before[-1], history.workers[len(before) :]
    if worker.settings:
        return from_mapping(type(settings), worker.settings), worker
    if any(other.changed for other in later):
        raise LabError(
            f"The settings were changed after step {step}.", "The version that trained it did not record the old ones."
        )
    return settings, worker


def _batches(run: RunFolder, settings: RunSettings, worker: Started, outputs: Path) -> Callable[[int], list[BatchText]]:
    """What gives the rows of a step's batches. LabError when the text is not the one that the worker read."""
    if isinstance(settings, FinetuneSettings):
        return _finetuning_batches(settings, worker, outputs)
    assert isinstance(settings, PretrainSettings)
    data, sequences = _sequences(settings)
    _require_same(data.key, worker, settings.data.corpus)
    accumulated = settings.train.grad_accum

    def rows(step: int) -> list[BatchText]:
        first = (step - 1) * accumulated
        batches = [sequences.batch(first + micro) for micro in range(accumulated)]
        count, length = settings.batch_at(step - 1)  # less of them in a warm-up
        x, y = (np.concatenate(parts)[:count, :length] for parts in zip(*batches, strict=True))  # [rows, T] each
        losses: list[float | None] = [None] * len(x)
        if (checkpoint := _nearest(run, step)) is not None:
            model = _opened(run, checkpoint, outputs)
            with torch.no_grad():
                rows = zip(torch.from_numpy(x).split(1), torch.from_numpy(y).split(1), strict=True)
                losses = [float(model.loss(*row)) for row in rows]
        return [BatchText(data.tokenizer.decode(ids.tolist()), loss) for ids, loss in zip(x, losses, strict=True)]

    return rows


def _finetuning_batches(settings: FinetuneSettings, worker: Started, outputs: Path) -> Callable[[int], list[BatchText]]:
    from llmlab.data.finetuning_data import load_finetuning_data

    base, accumulated = source_of(parse(settings.model.base, outputs)), settings.train.grad_accum
    data = load_finetuning_data(settings.data, settings.train.seed, base.tokenizer(), base.context(), quiet)
    _require_same(data.key, worker, settings.data.source)

    def rows(step: int) -> list[BatchText]:
        first = (step - 1) * accumulated
        examples = [example for micro in range(accumulated) for example in data.examples_in(first + micro)]
        return [BatchText("\n".join(f"{one.role}: {one.content}" for one in example.messages)) for example in examples]

    return rows


def _require_same(key: str, worker: Started, source: str) -> None:
    """LabError when the tokens are others than those that a worker read, as far as it recorded which."""
    if worker.data_key and worker.data_key != key:
        raise LabError(f"{source} is not what it was.", "Its tokens are others than those that were trained on.")


def _worst(rows: Sequence[BatchText]) -> list[BatchText]:
    ordered = sorted(rows, key=lambda row: -(row.loss or 0.0))
    return [replace(row, text=row.text[:_CHARACTERS]) for row in ordered[:_ROWS]]


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
        _, sequences = _sequences(settings)
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


def _sequences(settings: PretrainSettings) -> tuple[Dataset, Sequences]:
    """The batches of a run, as it read them."""
    asked, length = settings.data, settings.model.block_size
    data = load_dataset(asked, length, quiet)
    return data, Sequences(data.train, length, asked.batch_size, asked.order, asked.stride, settings.train.seed)


def _opened(run: RunFolder, checkpoint: Checkpoint, outputs: Path) -> GPT:
    model = open_model(f"{run.path}@{checkpoint.step}", outputs).model
    assert isinstance(model, GPT)  # opened from a pretraining run
    return model.requires_grad_(True)


def _nearest(run: RunFolder, step: int) -> Checkpoint | None:
    """The last checkpoint before a step was done, or the first after it."""
    saved = list_checkpoints(run.checkpoints)
    before = [checkpoint for checkpoint in saved if checkpoint.step < step]
    return before[-1] if before else (saved[0] if saved else None)
