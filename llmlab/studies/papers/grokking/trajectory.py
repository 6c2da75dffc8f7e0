"""What was measured along a run's checkpoints, and at which steps something happened. No torch.

A step that is read off checkpoints is known to their interval only. So `fitted` is the first checkpoint at which the
training sums are learned, and `late_times` counts up to the last one at which the held-out sums were not: an interval
that is too wide makes a run look less late than it was, never later.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from llmlab.studies.papers.grokking.fourier import key_frequencies
from llmlab.studies.papers.grokking.thresholds import FITTED, GENERALISED, KEY_SHARE, ONSET


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
