"""What every training does between its steps: report, measure, sample, save, answer requests, finish, stop.

`llmlab.training.loop.Trainer` trains a GPT from scratch on top of it, `llmlab.training.finetuning.loop.Finetuner` a
model that exists. Both write the same events and checkpoints.
"""

from __future__ import annotations

import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from llmlab.core.config import to_mapping
from llmlab.core.device import measured_peak
from llmlab.core.errors import LabError
from llmlab.core.progress import Every
from llmlab.core.run_settings import RunSettings
from llmlab.core.settings import PretrainTrainSettings
from llmlab.store import checkpoints, events
from llmlab.store.checkpoints import Checkpoint
from llmlab.training import state
from llmlab.training.pace import Pace, Progress
from llmlab.training.schedule import early_evaluations, evaluates, learning_rate
from llmlab.training.state import Origin
from llmlab.training.thread_spin import Spin
from llmlab.training.workplace import Facts, StepResult, Workplace

if TYPE_CHECKING:
    from llmlab.data.tokenizers import TextTokenizer

# Seconds between readings of the memory in use; a reading costs as much as a tenth of a small step.
_MEMORY_SECONDS = 1.0


class TrainingRun(ABC):
    """A model that trains, and how far it has come. `train` runs until the end, a stop, or an error."""

    model: nn.Module
    averaged: nn.Module | None = None  # the model's weights averaged over the steps, where they are
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    tokenizer: TextTokenizer
    flops_per_token: float  # forward and backward of one token that a step reads, for `mfu`

    def __init__(self, place: Workplace, settings: RunSettings, data_key: str) -> None:
        """data_key: changes when the tokens change, on which an exact resume depends."""
        self.settings = settings
        self.run, self.device, self.recorder, self.control = place.run, place.device, place.recorder, place.control
        self.origin = Origin(
            to_mapping(settings),
            data_key,
            place.threads,
            place.device.kind,
            place.device.precision,
            place.versions,
            place.processes.size,
        )
        self.peak_flops, self.processes = place.peak_flops, place.processes
        self.compile_seconds: float | None = None  # that torch.compile took, where it did anything
        self.warnings: list[str] = []  # of what came before the first step
        self.progress = Progress()
        self._pace = Pace(settings.train, self.tokens_until)
        self._unwritten: tuple[StepResult, Callable[..., events.StepEvent]] | None = None  # a report without numbers
        self._memory, self._memory_reads = 0, Every(_MEMORY_SECONDS)
        self._prompts: list[str] = []
        self._measured: int | None = None  # the step at which this worker measured the losses last
        self.losses_by_source: dict[str, float] = {}  # validation, of a mixture
        self.spin = Spin()
        self._spaced = frozenset(settings.checkpoints.log_spaced(settings.train.steps))  # steps

    # What each kind of training knows ----------------------------------------------------------------------------

    @abstractmethod
    def train(self) -> None:
        """Optimizer steps until `train.steps`, with everything that happens between them."""

    @property
    @abstractmethod
    def tokens_per_step(self) -> float:
        """Tokens that a step reads, on average, once no warm-up makes it smaller."""

    def tokens_until(self, step: int) -> float:
        """Tokens that the first `step` steps read."""
        return step * self.tokens_per_step

    @abstractmethod
    def facts(self) -> Facts:
        """Of text and model."""

    @abstractmethod
    def losses(self) -> tuple[float, float]:
        """Mean training and validation loss on fixed data, nats per token, dropout off."""

    @abstractmethod
    def continuations(self, prompts: Sequence[str], seed: int) -> list[dict[str, str]]:
        """What the model writes after each prompt, as the `sampled` event holds it. LabError for a strange prompt."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What a checkpoint's manifest says of the model."""

    @abstractmethod
    def save_weights(self, folder: Path) -> None:
        """Writes what was trained into a staging folder. OSError when the disk is full."""

    def whole_moments(self) -> dict[str, dict[str, torch.Tensor]]:
        """What the optimizer keeps of each parameter, by its name."""
        return state.moments(self.model, self.optimizer)

    @abstractmethod
    def load_weights(self, checkpoint: Checkpoint) -> None:
        """Takes a verified checkpoint's weights. LabError when they do not fit."""

    def distribute(self) -> None:
        """Goes to work with the other processes, each of which has the same weights."""
        assert self.processes.size == 1, "one process trains a run of this kind"

    @abstractmethod
    def require_same_text(self, checkpoint: Checkpoint) -> None:
        """LabError when the checkpoint's tokens mean something else than today's."""

    @abstractmethod
    def plain_model(self) -> nn.Module:
        """The model as inspection reads it: nothing wrapped around it, adapters merged."""

    @abstractmethod
    def choose_prompts(self) -> None:
        """Decides on the prompts of the samples; those that the vocabulary cannot say are left out with a warning."""

    # Between the steps -------------------------------------------------------------------------------------------

    def started(self, changed: list[str]) -> events.Started:
        """The event that opens this worker's part. changed: settings changed on resume, as sentences."""
        return events.Started(
            step=self.progress.step,
            time=time.time(),
            run=self.run.id,
            attempt=self.recorder.status.attempt,
            steps=self.settings.train.steps,
            tokens_per_step=round(self.tokens_per_step),
            device=self.device.kind,
            precision=self.device.precision,
            threads=torch.get_num_threads(),
            peak_flops=self.peak_flops,
            active_seconds=self.progress.active_seconds,
            pid=os.getpid(),
            changed=changed,
            settings=self.origin.settings,
            data_key=self.origin.data_key,
            processes=self.processes.size,
            preparation=self.recorder.preparation,
            compile_seconds=self.compile_seconds,
            **vars(self.facts()),
        )

    def begin(self) -> None:
        """Where learning begins from is measured and shown; a checkpoint of step 0 has been through this."""
        train, progress = self.settings.train, self.progress
        if progress.step == 0:
            if train.eval_interval and progress.val_loss is None:
                self.evaluate()
            if train.sample_interval and not progress.sample_seconds:
                self.sample(self._prompts)

    @property
    def goes_on(self) -> bool:
        return self.progress.step < self.settings.train.steps and not self._early_stop_due()

    def after_step(self, result: StepResult, begin: float) -> None:
        """Counts a step that was begun at `begin` (`time.perf_counter`), and does what is due after it."""
        train, progress = self.settings.train, self.progress
        progress.step += 1
        progress.tokens += result.tokens
        step, last = progress.step, progress.step == train.steps
        reported = step == 1 or step % train.log_interval == 0 or last
        intervals = (train.sample_interval, self.settings.checkpoints.interval)
        waits = evaluates(step, train) or step in self._spaced or any(map(self._due, intervals))
        if not self.device.reads_late or progress.step_seconds == 0:  # its first report needs a speed to tell
            waits |= reported
        done = waits or self._unwritten is not None  # then all but this step, which is as long as the others
        if waits:  # for what a GPU has queued: that is time of the steps, and not of what follows
            self.device.synchronize()
        self.write_report()  # of the step before, which a GPU has computed while this one was queued
        self._pace.count(progress, time.perf_counter() - begin, done=done)
        self.spin.look()
        self.recorder.beat(max(progress.evaluation_seconds, progress.sample_seconds, progress.score_seconds))
        if reported:
            self.report(result)
        if self.processes.busy and (self._pace.shares_due(progress) or last):
            self.record(events.Shared(step, time.time(), [round(share, 4) for share in self.processes.busy]))
        better = evaluates(step, train) and self.evaluate()
        if self._due(train.sample_interval):
            self.sample(self._prompts)
        labels = self._labels(better)
        if labels and not last and not self._early_stop_due():
            self.control.until_written(self, partial(self.save, labels, result))

    def report(self, result: StepResult) -> None:
        """Writes the `step` event: at once, or, where numbers are read late, when the next step has been queued."""
        progress = self.progress
        if self._memory_reads.due():
            self._memory = self.device.memory_bytes()
        speed = self._pace.tokens_per_second(progress)
        flops = self.flops_per_token * speed
        if flops > self.peak_flops and self._pace.is_own:  # measured while others held the machine: it was no peak
            count = self.processes.size
            self.peak_flops = count * measured_peak(self.device, flops / count)
        event = partial(
            events.StepEvent,
            step=progress.step,
            time=time.time(),
            lr=result.lr,
            tokens=progress.tokens,
            tokens_per_second=speed,
            active_seconds=progress.active_seconds,
            eta_seconds=self._pace.seconds_left(progress),
            memory_bytes=self._memory,
            mfu=flops / self.peak_flops,
        )
        self._unwritten = result, event
        _ = result.read
        if not self.device.reads_late:
            self.write_report()

    def write_report(self) -> None:
        """Writes the `step` event that waits for its numbers, if one does: before anything else is written or done."""
        if self._unwritten is None:
            return
        (result, event), self._unwritten = self._unwritten, None
        self.require_finite(result)
        loss, grad_norm = result.numbers
        self.record(event(loss=loss, grad_norm=grad_norm))

    def evaluate(self) -> bool:
        """Measures both losses and writes `evaluated`; returns whether validation is the best yet.

        LabError when one is not finite: weights that say nothing must not be saved as if they were good.
        """
        begin = time.perf_counter()
        progress = self.progress
        losses = self.losses()
        better = progress.measured(*losses, early=progress.step in early_evaluations(self.settings.train))
        self._measured = progress.step
        progress.evaluation_seconds = seconds = time.perf_counter() - begin
        self.record(events.Evaluated(progress.step, time.time(), *losses, better, seconds, self.losses_by_source))
        for loss, split in zip(losses, ("train", "validation"), strict=True):
            if not math.isfinite(loss):
                raise self._diverged(f"{split} loss", progress.step, learning_rate(progress.step, self.settings.train))
        return better

    def sample(self, prompts: Sequence[str]) -> None:
        begin = time.perf_counter()
        written = self.continuations(prompts, self.settings.train.seed + self.progress.step)
        self.progress.sample_seconds = time.perf_counter() - begin
        self.record(events.Sampled(self.progress.step, time.time(), written))

    def save(self, labels: set[str], result: StepResult | None = None) -> str:
        """Saves a checkpoint, deletes what the keep rule drops, and returns its name."""
        self.write_report()
        if result is not None:
            self.require_finite(result)
        self.control.saving = True
        try:
            with self.busy("Saving a checkpoint"):
                return self._save(labels)
        finally:
            self.control.saving = False

    def busy(self, doing: str) -> AbstractContextManager[None]:
        """Around what takes rank 0 as long as it takes: the others do not count it as silence."""
        return self.recorder.busy(doing) if self.processes.size > 1 else nullcontext()

    def _save(self, labels: set[str]) -> str:
        begin = time.perf_counter()
        progress, settings = self.progress, self.settings

        def write_files(folder: Path) -> None:
            self.save_weights(folder)
            moments, trained = self.whole_moments(), None if self.averaged is None else self.model
            state.save_state(folder, moments, self.scaler, progress, self.origin, self.recorder.bytes, trained)

        # The validation loss belongs to this checkpoint only where it was measured at this very step.
        # One that a worker before this one saved has it in its manifest.
        saved_before = checkpoints.read_checkpoint(self.run.checkpoints / checkpoints.checkpoint_name(progress.step))
        known = saved_before.val_loss if saved_before is not None else None
        saved = checkpoints.commit(
            self.run.checkpoints,
            progress.step,
            write_files,
            labels=labels,
            val_loss=progress.val_loss if self._measured == progress.step else known,
            about={"run": self.run.id, **self.about(), "tokens": progress.tokens},
        )
        seconds = time.perf_counter() - begin
        self.recorder.record(
            events.CheckpointSaved(progress.step, time.time(), saved.name, sorted(labels), saved.bytes, seconds)
        )
        checkpoints.prune(self.run.checkpoints, settings.checkpoints.keep_last, saved.name)
        return saved.name

    def finish(self) -> None:
        """The promise: a final checkpoint is always saved."""
        self.control.stop_heard.set()
        progress = self.progress
        early = progress.step < self.settings.train.steps
        labels = {"final"} | self._spaced_label() | ({"best"} if progress.best_step == progress.step else set())
        name = self.control.until_written(self, partial(self.save, labels))
        self.recorder.record(
            events.Finished(
                step=progress.step,
                time=time.time(),
                reason="early_stop" if early else "steps",
                train_loss=progress.train_loss,
                val_loss=progress.val_loss,
                best_val_loss=progress.best_val_loss,
                best_step=progress.best_step,
                active_seconds=progress.active_seconds,
                checkpoint=name,
            )
        )
        self.recorder.update(state="finished", step=progress.step, eta_seconds=0.0)

    def stop(self) -> None:
        """Saves where it stands, unless that is saved already, and ends."""
        self.write_report()
        self.recorder.update(state="stopping", step=self.progress.step)
        name = checkpoints.checkpoint_name(self.progress.step)
        if all(saved.name != name for saved in checkpoints.list_checkpoints(self.run.checkpoints)):
            self.save({"stopped"})
        self.recorder.record(events.Stopped(self.progress.step, time.time(), self.progress.active_seconds, name))
        self.recorder.update(state="stopped", step=self.progress.step)

    def record(self, event: events.Event) -> None:
        """Writes an event, waiting for room on the disk where someone watches."""
        self.write_report()
        self.control.until_written(self, partial(self.recorder.record, event))

    def require_finite(self, result: StepResult) -> None:
        """LabError when the step's loss or gradient is not finite."""
        loss, grad_norm = result.numbers
        # fp16's scaler expects infinite gradients now and then, skips the step and lowers its scale.
        if math.isfinite(loss) and (math.isfinite(grad_norm) or self.scaler.is_enabled()):
            return
        raise self._diverged("loss" if not math.isfinite(loss) else "gradient", result.step, result.lr)

    def _labels(self, better: bool) -> set[str]:
        """Why a checkpoint is due at this step, if it is."""
        wanted = self.settings.checkpoints
        labels = {"periodic"} if self._due(wanted.interval) else set()
        return labels | self._spaced_label() | ({"best"} if better and wanted.best else set())

    def _spaced_label(self) -> set[str]:
        return {"spaced"} if self.progress.step in self._spaced else set()

    def _due(self, interval: int) -> bool:
        """Whether something that happens every `interval` steps, and at the last one, happens now; 0 means never."""
        step = self.progress.step
        return interval > 0 and (step % interval == 0 or step == self.settings.train.steps)

    def _early_stop_due(self) -> bool:
        patience = self.settings.train.early_stop
        return patience > 0 and self.progress.evaluations_without_better >= patience

    def _diverged(self, what: str, step: int, lr: float) -> LabError:
        saved = checkpoints.list_checkpoints(self.run.checkpoints)
        kept = f"The last good checkpoint is {saved[-1].name}." if saved else "No checkpoint had been saved yet."
        train = self.settings.train
        clip = "" if train.grad_clip else ", or clip the gradient (train.grad_clip=1)"
        lower = f"train.learning_rate={train.learning_rate / 3:.1g}"
        if isinstance(train, PretrainTrainSettings) and train.optimizer == "muon":
            lower += f" train.muon_learning_rate={train.muon_learning_rate / 3:.1g}"
        return LabError(
            f"The {what} at step {step} is not a finite number, so training stopped. {kept}",
            f"The learning rate there was {lr:.3g}.",
            f"Lower it ({lower}), warm up longer (train.warmup_steps={max(100, 2 * train.warmup_steps)}){clip}.",
        )
