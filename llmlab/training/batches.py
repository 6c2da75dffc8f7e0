"""What a step read: a batch follows from the step and the settings of the worker that took it, so it can be had again.

No torch until a row's loss is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from llmlab.core.config import from_mapping
from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.mystery_settings import MysterySettings
from llmlab.core.progress import Progress, quiet
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainSettings
from llmlab.core.task_settings import TaskSettings
from llmlab.data.dataset import Dataset, load_dataset
from llmlab.data.example_preview import BatchText
from llmlab.data.sequences import Sequences
from llmlab.store.checkpoints import Checkpoint, list_checkpoints
from llmlab.store.events import Started
from llmlab.store.history import RunHistory
from llmlab.store.run_folder import RunFolder

if TYPE_CHECKING:
    from llmlab.models.model import OpenModel

_CHARACTERS = 400  # of a row
Opener: TypeAlias = Callable[[str], "OpenModel"]  # of a checkpoint of the run by its reference
_Rows: TypeAlias = Callable[[int, Opener, Progress], list[BatchText]]


class Batches:
    """The batches of a run, by step. The text is read once for each worker that trained it."""

    def __init__(self, run: RunFolder, history: RunHistory) -> None:
        self._run, self._history = run, history
        self._rows: dict[int, _Rows] = {}  # by the step after which a worker began

    def rows(self, step: int, opener: Opener, progress: Progress = quiet) -> list[BatchText]:
        """What a step read, the highest loss first; steps count from 1. progress: of reading the text, and of the
        losses.

        LabError where the text is gone or was changed, and where the settings of that step were not recorded.
        """
        settings, worker = self._as_trained(step)
        if worker.step not in self._rows:
            self._rows[worker.step] = self._reader(settings, worker, progress)
        rows = self._rows[worker.step](step, opener, progress)
        return sorted(rows, key=lambda row: -(row.loss or 0.0))

    def _as_trained(self, step: int) -> tuple[RunSettings, Started]:
        """The settings that a step was taken with, and the worker that took it."""
        settings = self._run.info().settings
        if isinstance(settings, TaskSettings):
            raise LabError("A task's sequences are drawn anew at every step, so no text stands out.")
        if isinstance(settings, MysterySettings):
            raise LabError(
                "A mystery does not show what it read.", "That may be what is broken, and its settings do not say so."
            )
        before = [worker for worker in self._history.workers if worker.step < step]
        if not before:
            raise LabError(
                f"Nothing tells which worker took step {step}.", "The run's events do not say that one began."
            )
        worker, later = before[-1], self._history.workers[len(before) :]
        if worker.settings:
            return from_mapping(type(settings), worker.settings), worker
        if any(other.changed for other in later):
            raise LabError(
                f"The settings were changed after step {step}.",
                "The version that trained it did not record the old ones.",
            )
        return settings, worker

    def _reader(self, settings: RunSettings, worker: Started, progress: Progress) -> _Rows:
        """What gives the rows of a step. LabError when the text is not the one that the worker read."""
        if isinstance(settings, FinetuneSettings):
            return self._examples(settings, worker, progress)
        assert isinstance(settings, PretrainSettings)
        data, sequences = sequences_of(settings, progress)
        _require_same(data.key, worker, settings.data.corpus)

        def rows(step: int, opener: Opener, progress: Progress) -> list[BatchText]:
            x, y = read_at(settings, sequences, step)
            losses = zip(x, self._losses(step, x, y, opener, progress), strict=True)
            return [BatchText(data.tokenizer.decode(ids.tolist())[:_CHARACTERS], loss) for ids, loss in losses]

        return rows

    def _losses(
        self, step: int, x: np.ndarray, y: np.ndarray, opener: Opener, progress: Progress
    ) -> list[float | None]:
        """Of each row, under the checkpoint that is nearest; None where none can be opened."""
        if (checkpoint := nearest(self._run, step)) is None:
            return [None] * len(x)
        import torch

        from llmlab.gpt.model import GPT

        try:
            model = opener(f"{self._run.path}@{checkpoint.step}").model
        except LabError:  # a run that trains may have deleted it just now: the texts are known all the same
            return [None] * len(x)
        assert isinstance(model, GPT)  # opened from a run from scratch
        found: list[float | None] = []
        with torch.no_grad():
            for row in zip(torch.from_numpy(x).split(1), torch.from_numpy(y).split(1), strict=True):
                progress("Reading the batch", len(found), len(x))
                found.append(float(model.loss(*row)))
        return found

    def _examples(self, settings: FinetuneSettings, worker: Started, progress: Progress) -> _Rows:
        from llmlab.data.finetuning_data import load_finetuning_data
        from llmlab.models.reference import parse
        from llmlab.models.source import source_of

        base = source_of(parse(settings.model.base, self._run.outputs))
        data = load_finetuning_data(settings.data, settings.train.seed, base.tokenizer(), base.context(), progress)
        _require_same(data.key, worker, settings.data.source)
        accumulated = settings.train.grad_accum

        def rows(step: int, _opener: Opener, _progress: Progress) -> list[BatchText]:
            first = (step - 1) * accumulated
            examples = [example for micro in range(accumulated) for example in data.examples_in(first + micro)]
            texts = ("\n".join(f"{one.role}: {one.content}" for one in example.messages) for example in examples)
            return [BatchText(text[:_CHARACTERS]) for text in texts]

        return rows


def sequences_of(settings: PretrainSettings, progress: Progress = quiet) -> tuple[Dataset, Sequences]:
    """The text of a run from scratch and its batches, as it reads them. LabError where the text is not here."""
    asked, length = settings.data, settings.model.block_size
    data = load_dataset(asked, length, progress)
    return data, Sequences(data.train, length, asked.batch_size, asked.order, asked.stride, settings.train.seed)


def read_at(settings: PretrainSettings, sequences: Sequences, step: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of all sequences that a step reads, int64 [rows, T] each; steps count from 1."""
    first = (step - 1) * settings.train.grad_accum
    count, length = settings.batch_at(step - 1)  # less of them in a warm-up
    batches = [sequences.batch(first + micro) for micro in range(-(-count // settings.data.batch_size))]
    x, y = (np.concatenate(parts)[:count, :length] for parts in zip(*batches, strict=True))
    return x, y


def nearest(run: RunFolder, step: int) -> Checkpoint | None:
    """The last checkpoint before a step was done, or the first after it."""
    saved = list_checkpoints(run.checkpoints)
    before = [checkpoint for checkpoint in saved if checkpoint.step < step]
    return before[-1] if before else (saved[0] if saved else None)


def _require_same(key: str, worker: Started, source: str) -> None:
    """LabError when the tokens are others than those that a worker read, as far as it recorded which."""
    if worker.data_key and worker.data_key != key:
        raise LabError(f"{source} is not what it was.", "Its tokens differ from those that were trained on.")
