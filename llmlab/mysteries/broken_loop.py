"""Training, gone wrong: each fault is a `Trainer` with one part of the loop replaced from outside.

What a broken run reports of its settings and its learning rate is what was asked for: a log shows what somebody meant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from llmlab.core.errors import LabError
from llmlab.core.mystery_settings import MysterySettings
from llmlab.core.settings import PretrainSettings, PretrainTrainSettings
from llmlab.data.dataset import Dataset
from llmlab.data.sequences import Sequences, fixed_sequences, gather
from llmlab.data.tokenizers import CharTokenizer
from llmlab.gpt.model import GPT
from llmlab.mysteries.broken_model import rebuild
from llmlab.mysteries.faults import fault_of
from llmlab.training.loop import Trainer, write_samples
from llmlab.training.optimizer import make_pretraining_optimizer
from llmlab.training.plain_optimizer import AdamW
from llmlab.training.schedule import learning_rate
from llmlab.training.workplace import StepResult, Workplace


class Sealed(Trainer):
    """Trains a model that may be built wrongly, in a loop that is right. Its errors do not say what is broken."""

    def __init__(self, place: Workplace, settings: PretrainSettings, data: Dataset) -> None:
        super().__init__(place, settings, data)
        assert isinstance(settings, MysterySettings)
        rebuild(settings, self.model)
        self._loss_of = self.model.loss
        self.optimizer = self.new_optimizer()
        self.sequences = self.new_sequences(np.asarray(data.train))

    def new_optimizer(self) -> torch.optim.Optimizer:
        """For the parameters of the model as it is now."""
        return make_pretraining_optimizer(self.model, self.settings.train)

    def new_sequences(self, tokens: np.ndarray) -> Sequences:
        """Over the training text."""
        data, train = self.settings.data, self.settings.train
        return Sequences(
            tokens, self.settings.model.block_size, data.batch_size, data.order, data.stride, seed=train.seed
        )

    def in_effect(self, train: PretrainTrainSettings) -> PretrainTrainSettings:
        """The settings by which a step is taken."""
        return train

    def optimizer_step(self) -> StepResult:
        asked = self.settings
        self.settings = dataclasses.replace(asked, train=self.in_effect(asked.train))
        try:
            result = super().optimizer_step()
        finally:
            self.settings = asked
        return dataclasses.replace(result, lr=learning_rate(self.progress.step, asked.train))

    def train(self) -> None:
        try:
            super().train()
        except LabError as error:  # its traceback goes into the log, and names what is broken
            raise error.with_traceback(None) from None

    def _diverged(self, what: str, step: int, lr: float) -> LabError:
        return LabError(f"The {what} at step {step} is not a finite number, so training stopped.")


class RateTooHigh(Sealed):
    """Ten times the rate that was asked for."""

    def in_effect(self, train: PretrainTrainSettings) -> PretrainTrainSettings:
        return dataclasses.replace(
            train, learning_rate=10 * train.learning_rate, min_learning_rate=10 * train.min_learning_rate
        )


class RateTooLow(Sealed):
    """A thirtieth of it."""

    def in_effect(self, train: PretrainTrainSettings) -> PretrainTrainSettings:
        return dataclasses.replace(
            train, learning_rate=train.learning_rate / 30, min_learning_rate=train.min_learning_rate / 30
        )


class NoWarmup(Sealed):
    """The full rate from the first step on."""

    def in_effect(self, train: PretrainTrainSettings) -> PretrainTrainSettings:
        return dataclasses.replace(train, warmup_steps=0)


class DecaysEverything(Sealed):
    """All parameters in one group, norms too, with fifty times the decay."""

    def new_optimizer(self) -> torch.optim.Optimizer:
        train = self.settings.train
        betas = (train.beta1, train.beta2)
        return AdamW(self.model.parameters(), train.learning_rate, betas, weight_decay=50 * train.weight_decay)


class NeverZeroed(AdamW):
    """Gradients of all steps are added up."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgotten."""


class KeepsGradients(Sealed):
    """The optimizer never clears its gradients. (What they add up to is not saved: a resume begins anew with them.)"""

    def new_optimizer(self) -> torch.optim.Optimizer:
        optimizer = super().new_optimizer()
        optimizer.__class__ = NeverZeroed
        return optimizer


class RoundedAdamW(AdamW):
    """Weights are kept in bf16: a step smaller than half of the distance to the next such number is lost."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step, rounded."""
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.copy_(parameter.bfloat16())


class RoundsWeights(Sealed):
    """Weights in bf16, without a copy in fp32 that takes the small steps."""

    def new_optimizer(self) -> torch.optim.Optimizer:
        optimizer = super().new_optimizer()
        optimizer.__class__ = RoundedAdamW
        return optimizer


class Spiked(Sequences):
    """A few batches in the middle of the run are noise."""

    NOISY = range(200, 206)

    def batch(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """As the original, but for them."""
        x, y = super().batch(index)
        if index in self.NOISY:
            noise = np.random.default_rng([self.seed, index]).integers(0, int(x.max()) + 1, (2, *x.shape))
            x, y = noise[0], noise[1]
        return x, y


class SpikeUnclipped(Sealed):
    """Noise in the data, and gradients that are not clipped."""

    def new_sequences(self, tokens: np.ndarray) -> Sequences:
        sequences = super().new_sequences(tokens)
        sequences.__class__ = Spiked
        return sequences

    def in_effect(self, train: PretrainTrainSettings) -> PretrainTrainSettings:
        return dataclasses.replace(train, grad_clip=0.0)


class InOrder(Sequences):
    """The sequences of every epoch as they stand in the text."""

    def _epoch_order(self, epoch: int, first: int, end: int) -> np.ndarray:
        return np.arange(first, end)


class Unshuffled(Sealed):
    """Batches come in the order of the text, the same in every epoch."""

    def new_sequences(self, tokens: np.ndarray) -> Sequences:
        sequences = super().new_sequences(tokens)
        sequences.__class__ = InOrder
        return sequences


class Repeated(Sealed):
    """One passage stands in the training text a hundred times more."""

    LENGTH = 500  # characters

    def new_sequences(self, tokens: np.ndarray) -> Sequences:
        start = self.settings.train.seed % (len(tokens) - self.LENGTH)
        passage = tokens[start : start + self.LENGTH]
        return super().new_sequences(np.concatenate([tokens, np.tile(passage, 100)]))


class Leaked(Sealed):
    """The sequences on which the validation loss is measured are among those that are trained on."""

    def new_sequences(self, tokens: np.ndarray) -> Sequences:
        block, val = self.settings.model.block_size, self.data.val
        inputs, targets = gather(val, fixed_sequences(val, block, self.settings.train.eval_sequences), block)
        measured = np.concatenate([inputs, targets[:, -1:]], axis=1)
        return super().new_sequences(np.concatenate([tokens, measured.ravel().astype(tokens.dtype)]))


class NeverEvaluating(GPT):
    """A model that cannot be brought out of its training mode."""

    def eval(self) -> NeverEvaluating:
        """Forgotten."""
        return self


class DropsInEvaluation(Sealed):
    """Dropout stays on while the losses are measured."""

    def losses(self) -> tuple[float, float]:
        kind, self.model.__class__ = self.model.__class__, NeverEvaluating
        try:
            return super().losses()
        finally:
            self.model.__class__ = kind


class OtherVocabulary(CharTokenizer):
    """The same characters with other numbers."""

    OFF = 7

    def encode_array(self, text: str) -> np.ndarray:
        """Each id is some places off."""
        return (super().encode_array(text) + self.OFF) % self.vocab_size

    def decode(self, ids: Sequence[int]) -> str:
        """The same back."""
        return super().decode([(int(id) - self.OFF) % self.vocab_size for id in ids])


class WrongTokenizer(Sealed):
    """Samples are written with the vocabulary of something else."""

    def continuations(self, prompts: Sequence[str], seed: int) -> list[dict[str, str]]:
        assert isinstance(self.data.tokenizer, CharTokenizer)
        other = OtherVocabulary(self.data.tokenizer.characters)
        return write_samples(self.model_or_average, other, self.settings.samples, prompts, seed)


_LOOPS: dict[str, type[Sealed]] = {
    "rate-high": RateTooHigh,
    "rate-low": RateTooLow,
    "no-warmup": NoWarmup,
    "weight-decay": DecaysEverything,
    "kept-gradients": KeepsGradients,
    "bf16": RoundsWeights,
    "spike": SpikeUnclipped,
    "unshuffled": Unshuffled,
    "repeated": Repeated,
    "leaked": Leaked,
    "dropout-on": DropsInEvaluation,
    "wrong-tokenizer": WrongTokenizer,
}


def trainer_of(settings: MysterySettings) -> type[Sealed]:
    """What trains a run: with the fault of its seal, if it is one of the loop's. LabError for a damaged seal."""
    return _LOOPS.get(fault_of(settings.mystery.token).name, Sealed)
