"""What was measured along a run's checkpoints, and at which steps something happened.

A step that is read off checkpoints is known to their interval only. So `fitted` is the first checkpoint at which the
training sums are learned, and `late_times` counts up to the last one at which the held-out sums were not: an interval
that is too wide makes a run look less late than it was, never later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from llmlab.core.errors import LabError
from llmlab.core.progress import Progress, quiet
from llmlab.core.task_settings import MODULAR, TaskSettings
from llmlab.data.synthetic.modular import ModularSum
from llmlab.data.synthetic.tasks import TRAIN
from llmlab.models.scratch import open_task
from llmlab.models.task_models import make_model
from llmlab.store.checkpoints import Checkpoint, list_checkpoints
from llmlab.store.run_folder import RunFolder
from llmlab.studies.papers.grokking.fourier import excluded, key_frequencies, power_shares, restricted
from llmlab.studies.papers.grokking.thresholds import FITTED, GENERALISED, KEY_SHARE, ONSET, RANDOM_EMBEDDINGS


@dataclass
class Trajectory:
    """One run. Lists hold a number for each of `steps`; losses are in nats a sum, accuracies shares.

    held_mirrored: held-out accuracy where b + a was trained on; held_new: where it was not (empty: no such sum).
    restricted_loss: over all sums, with the last checkpoint's key frequencies alone; excluded_loss: over training
    sums, without them (Nanda et al. 2023, section 5.1); restricted_accuracy and excluded_accuracy: of such logits, on
    held-out sums. waves: of the logits' variation over sums, the share that is waves in a + b at these frequencies.
    spectra: share of the embedding's power in each frequency, at a few of the steps, the last among them.
    restricted_held_loss: on held-out sums, at the last step. random_keys: how many key frequencies each embedding with
    random weights has; random_spectrum: its mean shares.
    """

    modulus: int
    weight_decay: float
    seed: int
    train_sums: int
    steps: list[int]
    train_accuracy: list[float]
    held_accuracy: list[float]
    train_loss: list[float]
    held_loss: list[float]
    restricted_loss: list[float]
    excluded_loss: list[float]
    restricted_accuracy: list[float]
    excluded_accuracy: list[float]
    waves: list[float]
    held_mirrored: list[float]
    held_new: list[float]
    key_count: list[int]
    spectra: dict[str, list[float]]
    restricted_held_loss: float
    random_keys: list[int] = field(default_factory=list)
    random_spectrum: list[float] = field(default_factory=list)

    @property
    def fitted(self) -> int | None:
        """Place in `steps` of the first checkpoint that knows the training sums; None where none does."""
        return first_reaching(self.train_accuracy, FITTED)

    @property
    def generalised(self) -> int | None:
        """Place of the first one that gets the held-out sums right."""
        return first_reaching(self.held_accuracy, GENERALISED)

    @property
    def late_times(self) -> float | None:
        """How many times as many steps held-out sums took, at the least; None where either was never reached."""
        if self.fitted is None or self.generalised is None:
            return None
        before = self.steps[self.generalised - 1] if self.generalised else 0
        return before / self.steps[self.fitted]

    @property
    def onset(self) -> int | None:
        """Place of the last checkpoint before held-out accuracy leaves the first tenth of its way.

        The way goes from its level at the fit to generalising. Checkpoints in a spike of the loss, at which the
        training sums are lost for a while, stand on no plateau and are passed over. None where both come at the same
        checkpoint, or never.
        """
        fitted, generalised = self.fitted, self.generalised
        if fitted is None or generalised is None or fitted >= generalised:
            return None
        way = np.array(self.held_accuracy[fitted : generalised + 1])
        known = np.array(self.train_accuracy[fitted : generalised + 1]) >= FITTED
        low = known & (way <= way[0] + ONSET * (way[-1] - way[0]))
        return fitted + int(np.flatnonzero(low)[-1])

    def gone(self, losses: list[float]) -> float | None:
        """Of a loss's own way from the fit to generalising, the share that is behind it at the onset; below 0 where
        it first went the other way. None without an onset, or where the loss ends as it began."""
        if self.onset is None or self.fitted is None or self.generalised is None:
            return None
        begin, end = losses[self.fitted], losses[self.generalised]
        return (losses[self.onset] - begin) / (end - begin) if end != begin else None

    @property
    def grows(self) -> bool:
        """Whether, from the fit to generalising, the key frequencies alone do better and all else does worse."""
        if self.fitted is None or self.generalised is None:
            return False
        restricted, excluded = (
            losses[self.generalised] - losses[self.fitted] for losses in (self.restricted_loss, self.excluded_loss)
        )
        return restricted < 0 < excluded

    @property
    def keys(self) -> list[int]:
        """Key frequencies of the last checkpoint's embedding, the strongest first."""
        return key_frequencies(np.array(self.spectra[LAST]), KEY_SHARE)


LAST, AT_FIT, FIRST = "last", "fitted", "first"  # names in `spectra`


def first_reaching(values: list[float], level: float) -> int | None:
    """Place of the first value at or above a level, None where there is none."""
    reached = np.flatnonzero(np.array(values) >= level)
    return int(reached[0]) if len(reached) else None


# Following a run ------------------------------------------------------------------------------------------------------

# Sums that are read at once: with p = 113 their logits take 2 MB.
_AT_ONCE = 4096
_NOTHING = 1e-300  # variation of logits that do not vary at all
_RANDOM_SEED = 1_000_000  # of the first model with random weights: no run has it


def follow(run: RunFolder, progress: Progress = quiet) -> Trajectory:
    """All of a run's checkpoints. LabError where it has none, or is no run on sums."""
    settings, points = run.info().settings_as(TaskSettings), list_checkpoints(run.checkpoints)
    if settings.data.task != MODULAR or not points:
        raise LabError(f"{run.id} cannot be followed.", "It has no checkpoint of a model that adds.")
    model, task = _opened(run, points[-1])
    shares = power_shares(embedding_of(model, task))
    keys = key_frequencies(shares, KEY_SHARE)
    split = Split(task)
    rows, spectra, mirrored, new = [], [], [], []
    for done, point in enumerate(points):
        progress(f"{run.id} at step {point.step}", done, len(points))
        model, _ = _opened(run, point)
        spectra.append(power_shares(embedding_of(model, task)))
        logits = logits_of_sums(model, task)
        rows.append(_row(logits, keys, split))
        mirrored += [split.accuracy(logits, split.mirrored)] if split.mirrored.any() else []
        new += [split.accuracy(logits, split.new)] if split.new.any() else []
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    fitted = first_reaching(columns["train_accuracy"], FITTED)
    at = {FIRST: 0, LAST: len(points) - 1} | ({} if fitted is None else {AT_FIT: fitted})
    random = random_spectra(settings, task, RANDOM_EMBEDDINGS)
    return Trajectory(
        modulus=task.modulus,
        weight_decay=settings.train.weight_decay,
        seed=settings.train.seed,
        train_sums=task.train_sums,
        steps=[point.step for point in points],
        **columns,
        held_mirrored=mirrored,
        held_new=new,
        key_count=[len(key_frequencies(one, KEY_SHARE)) for one in spectra],
        spectra={name: spectra[place].tolist() for name, place in at.items()},
        restricted_held_loss=split.loss(restricted(logits, keys), split.held),
        random_keys=[len(key_frequencies(one, KEY_SHARE)) for one in random],
        random_spectrum=np.mean(random, axis=0).tolist(),
    )


class Split:
    """Which cells of the table of all sums [p, p] are trained on, and what is measured over such cells."""

    def __init__(self, task: ModularSum) -> None:
        p = task.modulus
        self.train = np.zeros((p, p), dtype=bool)
        self.train.flat[task.parts[TRAIN]] = True
        self.held = ~self.train
        self.mirrored = self.held & self.train.T
        self.new = self.held & ~self.train.T
        self.all = np.ones((p, p), dtype=bool)
        a, b = np.indices((p, p))
        self.answers = (a + b) % p

    def accuracy(self, logits: np.ndarray, cells: np.ndarray) -> float:
        """Share of sums that are right. logits: [p, p, p]; cells: bool [p, p]."""
        return float((logits.argmax(-1) == self.answers)[cells].mean())

    def loss(self, logits: np.ndarray, cells: np.ndarray) -> float:
        """Mean of -ln p(answer), nats."""
        chosen, answers = logits[cells], self.answers[cells]
        highest = chosen.max(-1)
        total = highest + np.log(np.exp(chosen - highest[:, None]).sum(-1))
        return float((total - chosen[np.arange(len(chosen)), answers]).mean())


@torch.no_grad()
def logits_of_sums(model: nn.Module, task: ModularSum) -> np.ndarray:
    """A model's logits of every sum: float64 [p, p, p], at (a, b, answer)."""
    p = task.modulus
    ids = torch.from_numpy(task.read(np.arange(p * p)).ids)
    found = [model.answers(part).double().numpy() for part in ids.split(_AT_ONCE)]  # type: ignore[operator]
    return np.concatenate(found).reshape(p, p, p)


def embedding_of(model: nn.Module, task: ModularSum) -> np.ndarray:
    """The vectors of the numbers: float64 [p, width]. The head is tied, so answers are read by them, too."""
    weight: torch.Tensor = model.token_embedding.weight.detach()  # type: ignore[union-attr, operator]
    return weight[: task.modulus].double().numpy()


def random_spectra(settings: TaskSettings, task: ModularSum, count: int) -> list[np.ndarray]:
    """Power shares of models with random weights, of seeds that no run has."""
    found = []
    for seed in range(count):
        torch.manual_seed(_RANDOM_SEED + seed)
        found.append(power_shares(embedding_of(make_model(settings.model, task.layout), task)))
    return found


def _row(logits: np.ndarray, keys: Sequence[int], split: Split) -> dict[str, float]:
    alone, without = restricted(logits, keys), excluded(logits, keys)
    return {
        "train_accuracy": split.accuracy(logits, split.train),
        "held_accuracy": split.accuracy(logits, split.held),
        "train_loss": split.loss(logits, split.train),
        "held_loss": split.loss(logits, split.held),
        "restricted_loss": split.loss(alone, split.all),
        "excluded_loss": split.loss(without, split.train),
        "restricted_accuracy": split.accuracy(alone, split.held),
        "excluded_accuracy": split.accuracy(without, split.held),
        "waves": 1 - _variation(without) / max(_variation(logits), _NOTHING),
    }


def _variation(logits: np.ndarray) -> float:
    """Sum of squares of logits [p, p, p] about their mean over all sums."""
    return float(((logits - logits.mean((0, 1))) ** 2).sum())


def _opened(run: RunFolder, point: Checkpoint) -> tuple[nn.Module, ModularSum]:
    model, task = open_task(run, point)
    assert isinstance(task, ModularSum)
    return model, task
