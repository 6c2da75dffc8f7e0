"""What a learner can read off the checkpoints of a run, in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llmlab.anatomy.capture import Observer
from llmlab.anatomy.capture import run as watch
from llmlab.core.errors import LabError
from llmlab.core.mystery_settings import MysterySettings
from llmlab.core.progress import Progress, quiet
from llmlab.data.dataset import Dataset, load_dataset
from llmlab.data.sequences import fixed_sequences, gather
from llmlab.gpt.model import GPT
from llmlab.gpt.shapes import parameter_count
from llmlab.models.model import OpenModel
from llmlab.models.reference import SavedRun
from llmlab.models.source import SealedRun
from llmlab.store.checkpoints import list_checkpoints
from llmlab.store.run_folder import RunFolder

# Rows of a pattern before this one are uneven by few tokens.
_FIRST_ROW = 8


@dataclass(frozen=True)
class Measures:
    """Of the latest checkpoint and the earliest one, in eval mode. Losses in nats per token.

    step, early: of the two. same: validation loss on the sequences that the run measured, as it measures. other: on
    other held-out ones. asked: loss against the token read, the next one, the one after it. parameters, expected:
    counted, and as the settings give them. moved: change of all weights since the earliest checkpoint, in lengths of
    them; by_block the same. norms: mean size of the norm weights; at_one: share of them that is exactly 1. bf16: share
    of all weights that is a number of bf16. uneven: relative standard deviation of the pattern's rows after the
    earliest checkpoint's step. refused: why panels are withheld, by panel.
    """

    step: int
    early: int
    same: float
    other: float
    asked: list[float]
    parameters: int
    expected: int
    moved: float
    by_block: list[float]
    norms: float
    at_one: float
    bf16: float
    uneven: float
    refused: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        read, next_one, after = self.asked
        blocks = ", ".join(f"{100 * moved:.3g} %" for moved in self.by_block)
        early = f"step {self.early:,}"
        return [
            f"Checkpoint of step {self.step:,}, compared with that of {early}; losses in nats per token.",
            f"Validation loss, measured again: {self.same:.3f}; on other held-out text: {self.other:.3f}",
            f"Predictions scored against the token just read: {read:.3f}; the next one: {next_one:.3f}; the one after: "
            f"{after:.3f}",
            f"Parameters: {self.parameters:,}; by the settings: {self.expected:,}",
            f"Change of the weights since {early}: {100 * self.moved:.3g} % of their length; by block: {blocks}",
            f"Normalisation weights: {self.norms:.3f} on average; {100 * self.at_one:.0f} % are exactly 1",
            f"Weights that bf16 can hold exactly: {100 * self.bf16:.0f} %",
            f"Attention at {early}: the weights of a position differ by {100 * self.uneven:.2g} % of their mean",
            *(f"{panel.capitalize()} is withheld. {why}" for panel, why in self.refused.items()),
        ]


def measures_of(run: RunFolder, data: Dataset, progress: Progress = quiet) -> Measures:
    """Of a run with a checkpoint of its end and an earlier one. LabError where they are not there, or are damaged."""
    settings, saved = run.info().settings_as(MysterySettings), list_checkpoints(run.checkpoints)
    if len(saved) < 2:
        raise LabError(f"{run.id} has no two checkpoints.", "Its weights are compared between them.")
    progress("Measuring the checkpoints", 0, 0)
    early, late = (_open(run, saved[at].step) for at in (0, -1))
    model = late.model
    assert isinstance(model, GPT)
    block, count = settings.model.block_size, settings.train.eval_sequences
    same, other = (gather(data.val, fixed_sequences(data.val, block, count, seed), block) for seed in (0, 1))
    with torch.no_grad():
        rows = torch.from_numpy(np.concatenate([other[0], other[1][:, -1:]], axis=1))  # [count, block + 1]
        losses = [float(model.loss(*(torch.from_numpy(part) for part in pair))) for pair in (same, other)]
        asked = _asked(model, rows)
    before, weights = (dict(each.model.named_parameters()) for each in (early, late))
    vectors = torch.cat([weight.flatten() for weight in weights.values() if weight.dim() == 1])
    numbers = torch.cat([weight.detach().flatten() for weight in weights.values()])
    blocks = [
        {name for name in weights if name.startswith(f"blocks.{layer}.")} for layer in range(settings.model.n_layer)
    ]
    refusals = late.anatomy.refusals
    return Measures(
        step=saved[-1].step,
        early=saved[0].step,
        same=losses[0],
        other=losses[1],
        asked=asked,
        parameters=late.parameters,
        expected=parameter_count(settings.model, data.tokenizer.vocab_size),
        moved=_moved(before, weights, set(weights)),
        by_block=[_moved(before, weights, names) for names in blocks],
        norms=float(vectors.detach().abs().mean()),
        at_one=float((vectors == 1).float().mean()),
        bf16=float((numbers == numbers.bfloat16()).float().mean()),
        uneven=_uneven(early, rows[0, :-1].tolist()),
        refused={name: why for name, why in asdict(refusals).items() if why is not None},
    )


def data_of(run: RunFolder, progress: Progress = quiet) -> Dataset:
    """The text that a run reads, from the cache."""
    settings = run.info().settings_as(MysterySettings)
    return load_dataset(settings.data, settings.model.block_size, progress)


def _open(run: RunFolder, step: int) -> OpenModel:
    return SealedRun(SavedRun(run, run.id, str(step))).open()


def _asked(model: GPT, rows: Tensor) -> list[float]:
    """Loss for the token read, the next, and the one after it: at the same positions."""
    positions = rows.shape[1] - 2
    logits = model(rows[:, :-1])[:, :positions].flatten(0, 1)
    return [float(F.cross_entropy(logits, rows[:, off : off + positions].flatten())) for off in range(3)]


def _moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor], names: set[str]) -> float:
    apart = sum(float((after[name] - before[name]).detach().square().sum()) for name in names)
    length = sum(float(before[name].detach().square().sum()) for name in names)
    return math.sqrt(apart / length)


class _Unevenness(Observer):
    """Relative standard deviation of each row of a pattern over what it may see."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def pattern(self, layer: int, first: int, pattern: Tensor) -> None:
        for row in range(max(_FIRST_ROW - first, 0), pattern.shape[1]):
            seen = pattern[:, row, : first + row + 1]  # [H, row + 1]
            self.found.append(float((seen.std(-1) / seen.mean(-1)).mean()))


def _uneven(opened: OpenModel, ids: list[int]) -> float:
    observer = _Unevenness()
    watch(opened.model, opened.anatomy, ids, [observer])
    return float(np.mean(observer.found))
