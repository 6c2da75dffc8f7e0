"""What is measured on a run's checkpoints once it has finished; kept as files, so that it is measured once."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from llmlab.anatomy.modules import base_model
from llmlab.core.errors import LabError
from llmlab.core.files import write_json
from llmlab.core.finetuning_settings import FULL, FinetuneSettings
from llmlab.core.progress import quiet
from llmlab.core.records import to_plain
from llmlab.core.settings import PretrainSettings
from llmlab.data.corpora import find_corpus
from llmlab.data.dataset import load_dataset
from llmlab.data.sequences import fixed_sequences, gather
from llmlab.gpt.model import GPT
from llmlab.inspection.weight_change import adapter_change, effective_rank
from llmlab.models.model import OpenModel, context_of
from llmlab.models.reference import SavedRun, parse
from llmlab.models.source import open_model
from llmlab.store.checkpoints import list_checkpoints, select
from llmlab.studies.experiments.outcomes import BASE, LENGTH, SEQUENCES, Measurement, read_measurement
from llmlab.studies.plans.records import ExperimentFolder, ExperimentRecord, Trial, settings_of


def measure_trial(folder: ExperimentFolder, record: ExperimentRecord, trial: Trial, go: Callable[[], None]) -> None:
    """Measures a finished run, unless that was done. go: called in between; raises when it is to end.

    What could not be measured is noted, and tried again the next time.
    """
    known = read_measurement(folder, trial.name)
    if known is not None and not known.note:
        return
    try:
        if record.kind == "forgetting":
            measured = _forgotten(folder, record, trial, go)
        else:
            measured = _rank_used(folder, record, trial)
    except LabError as error:  # the run is as good as it was
        measured = Measurement(note=str(error))
    _write(folder, trial.name, measured)


def _write(folder: ExperimentFolder, name: str, measured: Measurement) -> None:
    folder.measurements.mkdir(exist_ok=True)
    write_json(folder.measurements / f"{name}.json", to_plain(dataclasses.asdict(measured)))


def _forgotten(folder: ExperimentFolder, record: ExperimentRecord, trial: Trial, go: Callable[[], None]) -> Measurement:
    settings = settings_of(record)
    assert isinstance(settings, FinetuneSettings)
    outputs = folder.outputs
    text = general_text(settings.model.base, str(record.options.get("general", "")), outputs)
    base = read_measurement(folder, BASE)
    if base is None:
        loss = general_loss(open_model(settings.model.base, outputs).model, text)
        base = Measurement(text.name, text.tokens, [[0.0, loss]])
        _write(folder, BASE, base)
    run = folder.run_of(trial, record.track)
    rows = [list(base.general[0])]
    for checkpoint in list_checkpoints(run.checkpoints):
        go()
        opened = open_model(f"{run.full_name}@{checkpoint.step}", outputs)
        rows.append([float(checkpoint.step), general_loss(opened.model, text)])
        del opened
        gc.collect()
    return Measurement(text.name, text.tokens, rows)


def _rank_used(folder: ExperimentFolder, record: ExperimentRecord, trial: Trial) -> Measurement:
    """How many directions the adapters really use, and how large their change is."""
    settings = settings_of(record, trial)
    if isinstance(settings, FinetuneSettings) and settings.model.method == FULL:
        return Measurement()
    run = folder.run_of(trial, record.track)
    rows = adapter_change(select(run.checkpoints, "final").path)
    ranks = [effective_rank(row.singular) for row in rows if row.singular]
    norm = sum(row.norm**2 for row in rows) ** 0.5
    return Measurement(effective_rank=sum(ranks) / len(ranks) if ranks else None, change_norm=norm)


# Loss on general text -------------------------------------------------------------------------------------------------

DEFAULT_TEXT = "austen"  # embedded, and no instruction data
_BATCH = 8
_HELD_OUT = 0.1  # share of a text, at its end, that is read
_MOST_CHARACTERS = 400_000  # of that: more than the sequences can hold


@dataclass(frozen=True)
class GeneralText:
    """Sequences of a text as a base's tokens. x, y: int64 [sequence, T]; y is x one token later."""

    name: str
    x: np.ndarray
    y: np.ndarray

    @property
    def tokens(self) -> int:
        """Predictions that one measurement makes."""
        return int(self.y.size)


def general_text(base: str, name: str, outputs: Path) -> GeneralText:
    """The text on which forgetting is measured.

    name: a corpus; "" means the held-out part of what the base was pretrained on, where the lab knows it, else
    DEFAULT_TEXT. LabError where the text is not here, or the base's vocabulary cannot say it.
    """
    reference = parse(base, outputs)
    if not name and isinstance(reference, SavedRun):
        settings = reference.run.info().settings
        if isinstance(settings, PretrainSettings):
            length = settings.model.block_size
            held_out = load_dataset(settings.data, length, quiet).val
            title = f"held-out part of {find_corpus(settings.data.corpus).title}"
            return GeneralText(title, *gather(held_out, fixed_sequences(held_out, length, SEQUENCES), length))
    return _of_corpus(open_model(reference, outputs), name or DEFAULT_TEXT)


def _of_corpus(opened: OpenModel, name: str) -> GeneralText:
    corpus = find_corpus(name)
    text = "".join(piece.text for piece in corpus.pieces())
    text = text[-min(_MOST_CHARACTERS, max(1, round(len(text) * _HELD_OUT))) :]
    tokens = np.array(opened.tokenizer.encode(text), dtype=np.int64)
    length = min(LENGTH, context_of(opened.model))
    if len(tokens) < length + 1:
        raise LabError(
            f"{corpus.title} is too short to measure forgetting on.",
            f"Its end has {len(tokens)} tokens, and a sequence takes {length + 1}.",
            "Name a longer text: --general CORPUS.",
        )
    return GeneralText(corpus.title, *gather(tokens, fixed_sequences(tokens, length, SEQUENCES), length))


@torch.no_grad()
def general_loss(model: torch.nn.Module, text: GeneralText) -> float:
    """Mean loss in nats per token; the model in eval mode, on the CPU."""
    total = 0.0
    for first in range(0, len(text.x), _BATCH):
        x = torch.from_numpy(text.x[first : first + _BATCH])  # [B, T]
        y = torch.from_numpy(text.y[first : first + _BATCH])
        if isinstance(model, GPT):
            total += float(model.loss(x, y)) * y.numel()
        else:
            logits = base_model(model)(input_ids=x).logits.float()  # [B, T, V]
            total += float(F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum"))
    return total / text.tokens
