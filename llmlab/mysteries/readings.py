"""What a learner can read off a run, in numbers: its curves and samples, and measures of its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
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
from llmlab.store.history import RunHistory, read_history
from llmlab.store.run_folder import RunFolder

# Steps whose loss is averaged into the first and the last reading of a curve's level.
_LEVEL_STEPS = 50
# Around each step, over which a curve's course is taken away to leave its bumps.
_COURSE_STEPS = 15
# Before it, curves fall too fast for their bumps to be compared.
_SETTLED_STEP = 100
# Rows of a pattern before this one are uneven by few tokens.
_FIRST_ROW = 8


@dataclass(frozen=True)
class Curves:
    """Of the run's events. Losses in nats.

    first: validation loss at step 0 above ln V. early: validation loss after ten steps. train, val: measured at the
    end. steps: mean loss of the last steps. gradient: median norm of the second half; jump: the largest norm after
    warm-up over that median. again: how alike the bumps of the step loss are an epoch apart, a correlation.
    pairs: share of the pairs of characters in the last samples that stand in the training text, too.
    """

    first: float
    early: float
    train: float
    val: float
    steps: float
    gradient: float
    jump: float
    again: float
    pairs: float


@dataclass(frozen=True)
class Measures:
    """Of the final checkpoint and the earliest one, in eval mode. Losses in nats.

    same: validation loss on the sequences that the run measured, as it measures. other: on other held-out ones. asked:
    loss when asked for the token read, the next one, the one after it. parameters, expected: counted, and as the
    settings give them. moved: change of all weights since the earliest checkpoint, in lengths of them; by_block the
    same. norms: mean size of the norm weights; at_one: share of them that is exactly 1. bf16: share of all weights that
    is a number of bf16. uneven: relative standard deviation of the pattern's rows after the earliest checkpoint's step.
    refused: why panels are withheld, by panel.
    """

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
        return [
            f"validation loss, measured again: {self.same:.3f}; on other held-out text: {self.other:.3f}",
            f"asked for the token read: {read:.3f}; for the next one: {next_one:.3f}; for the one after: {after:.3f}",
            f"parameters: {self.parameters:,}; by the settings: {self.expected:,}",
            f"weights moved since the first checkpoint: {100 * self.moved:.3g} %; by block: {blocks}",
            f"norm weights: {self.norms:.3f} on average, {100 * self.at_one:.0f} % are exactly 1",
            f"weights that are numbers of bf16: {100 * self.bf16:.0f} %",
            f"patterns after the first checkpoint's step: rows are uneven by {100 * self.uneven:.2g} %",
            *(f"{panel} is withheld: {why}" for panel, why in self.refused.items()),
        ]


def curves_of(run: RunFolder, data: Dataset) -> Curves:
    """Of a run that has ended. LabError for one that has measured nothing."""
    history, settings = read_history(run), run.info().settings_as(MysterySettings)
    losses, norms = history.step_columns["loss"], history.step_columns["grad_norm"]
    measured = {int(event.step): event for event in history.evaluated}
    if len(losses) < 2 or not measured or history.started is None:
        raise LabError(f"{run.id} has not come far enough.", "", "Wait until it has ended, or resume it.")
    second_half = float(np.median(norms[len(norms) // 2 :]))
    after = min(settings.train.warmup_steps, len(norms) - 1)
    sequences = 1 + (len(data.train) - settings.model.block_size - 1) // settings.model.block_size
    last = measured[max(measured)]
    return Curves(
        first=measured[min(measured)].val_loss - math.log(data.tokenizer.vocab_size),
        early=measured[min(measured, key=lambda step: abs(step - 10))].val_loss,
        train=last.train_loss,
        val=last.val_loss,
        steps=float(losses[-_LEVEL_STEPS:].mean()),
        gradient=second_half,
        jump=float(np.max(norms[after:])) / second_half,
        again=_again(losses, max(1, sequences // settings.data.batch_size)),
        pairs=_known_pairs(history, data),
    )


def measures_of(run: RunFolder, data: Dataset, progress: Progress = quiet) -> Measures:
    """Of a run with a checkpoint of its end and an earlier one. LabError where they are not there, or are damaged."""
    settings, saved = run.info().settings_as(MysterySettings), list_checkpoints(run.checkpoints)
    if len(saved) < 2:
        raise LabError(f"{run.id} has no two checkpoints.", "Its weights are compared between them.")
    progress("Measuring the checkpoints", 0, 0)
    early, late = (_open(run, saved[at].step) for at in (0, -1))
    model = late.model
    assert isinstance(model, GPT)
    block, count = settings.model.block_size, settings.train.eval_windows
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
        for row in range(_FIRST_ROW, pattern.shape[1]):
            seen = pattern[:, row, : first + row + 1]  # [H, row + 1]
            self.found.append(float((seen.std(-1) / seen.mean(-1)).mean()))


def _uneven(opened: OpenModel, ids: list[int]) -> float:
    observer = _Unevenness()
    watch(opened.model, opened.anatomy, ids, [observer])
    return float(np.mean(observer.found))


def _again(losses: np.ndarray, epoch: int) -> float:
    if len(losses) < _SETTLED_STEP + 2 * epoch:
        return 0.0
    window = np.ones(2 * _COURSE_STEPS + 1)
    course = np.convolve(losses, window, "same") / np.convolve(np.ones(len(losses)), window, "same")
    bumps = (losses - course)[_SETTLED_STEP:]
    return float(np.corrcoef(bumps[:-epoch], bumps[epoch:])[0, 1])


def _known_pairs(history: RunHistory, data: Dataset) -> float:
    """1 where nothing was sampled."""
    text = data.tokenizer.decode(np.asarray(data.train).tolist())
    known = set(pairwise(text))
    samples = history.samples[-1].samples if history.samples else []
    written = [pair for sample in samples for pair in pairwise(sample["text"])]
    return sum(pair in known for pair in written) / len(written) if written else 1.0
