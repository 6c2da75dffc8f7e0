"""The training loop: read `Trainer.train` first, it is the whole of it."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from llmlab.corpora.dataset import Dataset
from llmlab.corpora.windows import Windows, fixed_windows, gather
from llmlab.errors import LabError
from llmlab.gpt.estimate import flops_per_token
from llmlab.gpt.model import GPT
from llmlab.runs import checkpoints
from llmlab.runs.folder import RunFolder
from llmlab.settings import PretrainSettings
from llmlab.training import state
from llmlab.training.control import Control, StopRequested
from llmlab.training.device import Device
from llmlab.training.evaluation import mean_loss, write_samples
from llmlab.training.events import CheckpointSaved, Evaluated, Event, Finished, Sampled, StepEvent, Stopped
from llmlab.training.optimizer import make_optimizer
from llmlab.training.recorder import Recorder
from llmlab.training.schedule import learning_rate
from llmlab.training.state import Origin, Progress

# Steps over which speed is averaged: long enough to be calm, short enough to follow a change within seconds.
_SPEED_STEPS = 20
# Seconds between readings of the memory in use; a reading costs as much as a tenth of a small step.
_MEMORY_SECONDS = 1.0


@dataclass
class StepResult:
    """What one optimizer step did; tensors on the device until someone needs the numbers."""

    step: int  # counted from 1
    loss: torch.Tensor  # mean over the step's tokens, nats
    grad_norm: torch.Tensor  # before clipping
    lr: float


class Trainer:
    """A model, its data, and how far it has come. `train` runs until the end, a stop, or an error."""

    def __init__(
        self,
        run: RunFolder,
        settings: PretrainSettings,
        data: Dataset,
        device: Device,
        recorder: Recorder,
        control: Control,
        origin: Origin,
        peak_flops: float,
    ) -> None:
        self.run, self.settings, self.data, self.device = run, settings, data, device
        self.recorder, self.control, self.origin, self.peak_flops = recorder, control, origin, peak_flops
        train, model, batches = settings.train, settings.model, settings.data
        torch.manual_seed(train.seed)
        self.model = GPT(model, data.tokenizer.vocab_size).to(device.kind)
        self.optimizer = make_optimizer(self.model, train)
        self.scaler = torch.amp.GradScaler(device.kind, enabled=device.precision == "fp16")
        self.windows = Windows(
            data.train, model.block_size, batches.batch_size, batches.order, batches.stride, train.seed
        )
        self.progress = Progress()
        self.tokens_per_step = train.grad_accum * settings.data.batch_size * model.block_size
        self._flops_per_step = self.tokens_per_step * flops_per_token(model, data.tokenizer.vocab_size)
        self._loss_of = torch.compile(self.model.loss) if train.compile else self.model.loss
        self._recent: deque[float] = deque(maxlen=_SPEED_STEPS)
        self._memory, self._memory_read = 0, -math.inf
        self._prompts: list[str] = []

    def use_prompts(self, prompts: Sequence[str]) -> None:
        """Chooses the prompts of the samples; those that the vocabulary cannot say are left out with a warning."""
        self._prompts = []
        for prompt in prompts:
            try:
                self.data.tokenizer.encode(prompt)
                self._prompts.append(prompt)
            except LabError as error:
                self.control.warn(self, f"The prompt {prompt!r} is left out of the samples. {error}")

    def train(self) -> None:
        """Optimizer steps until `train.steps`, with everything that happens between them."""
        train, progress = self.settings.train, self.progress
        self.model.train()
        try:
            if progress.step == 0:  # where learning begins from; a checkpoint of step 0 has been through this
                if train.eval_interval and progress.val_loss is None:
                    self.evaluate()
                if train.sample_interval and not progress.sample_seconds:
                    self.sample(self._prompts)
            while progress.step < train.steps and not self._early_stop_due():
                self.control.handle_requests(self)
                begin = time.perf_counter()
                result = self.optimizer_step()
                progress.step += 1
                progress.tokens += self.tokens_per_step
                self._measure_speed(begin)
                step, last = progress.step, progress.step == train.steps
                if step == 1 or step % train.log_interval == 0 or last:
                    self.report(result)
                better = self._due(step, train.eval_interval) and self.evaluate()
                if self._due(step, train.sample_interval):
                    self.sample(self._prompts)
                labels = self._labels(better)
                if labels and not last and not self._early_stop_due():
                    self.control.until_written(self, partial(self.save, labels, result))
            self.finish()
        except StopRequested:
            self.stop()

    def optimizer_step(self) -> StepResult:
        """One step of AdamW on the mean gradient of `grad_accum` batches."""
        train = self.settings.train
        lr = learning_rate(self.progress.step, train)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device.kind)
        for micro in range(train.grad_accum):
            ids, targets = self._batch(self.progress.step * train.grad_accum + micro)
            with self.device.autocast():
                share = self._loss_of(ids, targets) / train.grad_accum
            self.scaler.scale(share).backward()
            loss += share.detach()
        self.scaler.unscale_(self.optimizer)
        limit = train.grad_clip or math.inf
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit, foreach=True)
        result = StepResult(self.progress.step + 1, loss, grad_norm, lr)
        if self.device.kind == "cpu":  # on a GPU looking at a number waits for all queued work: see `report`, `save`
            self._require_finite(result)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return result

    def report(self, result: StepResult) -> None:
        """Writes the `step` event."""
        self._require_finite(result)
        progress = self.progress
        now = time.monotonic()
        if now - self._memory_read > _MEMORY_SECONDS:
            self._memory, self._memory_read = self.device.memory_bytes(), now
        self._record(
            StepEvent(
                step=progress.step,
                time=time.time(),
                loss=float(result.loss),
                lr=result.lr,
                grad_norm=float(result.grad_norm),
                tokens=progress.tokens,
                tokens_per_second=self.tokens_per_step / progress.step_seconds,
                active_seconds=progress.active_seconds,
                eta_seconds=self._seconds_left(),
                memory_bytes=self._memory,
                mfu=self._flops_per_step / progress.step_seconds / self.peak_flops,
            )
        )

    def evaluate(self) -> bool:
        """Measures both losses on fixed windows and writes `evaluated`; returns whether validation is the best yet.

        LabError when one is not finite: weights that say nothing must not be saved as if they were good.
        """
        begin = time.perf_counter()
        progress, size = self.progress, self.settings.data.batch_size
        block, count = self.settings.model.block_size, self.settings.train.eval_windows
        losses = []
        for tokens in (self.data.train, self.data.val):
            starts = fixed_windows(tokens, block, count)
            batches = (gather(tokens, starts[i : i + size], block) for i in range(0, len(starts), size))
            losses.append(mean_loss(self.model, batches, self.device))
        progress.train_loss, progress.val_loss = losses
        better = math.isfinite(losses[1]) and (progress.best_val_loss is None or losses[1] < progress.best_val_loss)
        if better:
            progress.best_val_loss, progress.best_step = losses[1], progress.step
            progress.evaluations_without_better = 0
        else:
            progress.evaluations_without_better += 1
        progress.evaluation_seconds = time.perf_counter() - begin
        self._record(Evaluated(progress.step, time.time(), losses[0], losses[1], better, progress.evaluation_seconds))
        for loss, split in zip(losses, ("train", "validation"), strict=True):
            if not math.isfinite(loss):
                raise self._diverged(f"{split} loss", progress.step, learning_rate(progress.step, self.settings.train))
        return better

    def sample(self, prompts: Sequence[str]) -> None:
        """Lets the model continue the prompts and writes `sampled`."""
        begin = time.perf_counter()
        seed = self.settings.train.seed + self.progress.step
        written = write_samples(self.model, self.data.tokenizer, self.settings.samples, prompts, seed)
        self.progress.sample_seconds = time.perf_counter() - begin
        self._record(Sampled(self.progress.step, time.time(), written))

    def save(self, labels: set[str], result: StepResult | None = None) -> str:
        """Saves a checkpoint, deletes what the keep rule drops, and returns its name."""
        if result is not None:
            self._require_finite(result)
        begin = time.perf_counter()
        progress, settings = self.progress, self.settings
        # The validation loss belongs to this checkpoint only where it was measured at this very step.
        measured = self._due(progress.step, settings.train.eval_interval)
        saved = checkpoints.commit(
            self.run.checkpoints,
            progress.step,
            lambda folder: state.save_files(
                folder, self.model, self.optimizer, self.scaler, progress, self.origin, self.recorder.bytes
            ),
            labels=labels,
            val_loss=progress.val_loss if measured else None,
            about={
                "run": self.run.id,
                "model": self.origin.settings["model"],
                "vocab_size": self.model.vocab_size,
                "tokenizer": self.data.tokenizer.key(),
                "tokens": progress.tokens,
                "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            },
        )
        seconds = time.perf_counter() - begin
        self.recorder.record(
            CheckpointSaved(progress.step, time.time(), saved.name, sorted(labels), saved.bytes, seconds)
        )
        checkpoints.prune(self.run.checkpoints, settings.checkpoints.keep_last, saved.name)
        return saved.name

    def finish(self) -> None:
        """The promise: a final checkpoint is always saved."""
        progress = self.progress
        early = progress.step < self.settings.train.steps
        labels = {"final"} | ({"best"} if progress.best_step == progress.step else set())
        name = self.control.until_written(self, partial(self.save, labels))
        self.recorder.record(
            Finished(
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
        self.recorder.update(state="stopping", step=self.progress.step)
        name = checkpoints.checkpoint_name(self.progress.step)
        if all(saved.name != name for saved in checkpoints.list_checkpoints(self.run.checkpoints)):
            self.save({"stopped"})
        self.recorder.record(Stopped(self.progress.step, time.time(), self.progress.active_seconds, name))
        self.recorder.update(state="stopped", step=self.progress.step)

    def _record(self, event: Event) -> None:
        self.control.until_written(self, partial(self.recorder.record, event))

    def _batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = self.windows.batch(index)  # int64 [batch, block]
        ids, targets = torch.from_numpy(x), torch.from_numpy(y)
        if self.device.kind == "cuda":  # pinned memory lets the copy run beside the computation
            return ids.pin_memory().to("cuda", non_blocking=True), targets.pin_memory().to("cuda", non_blocking=True)
        return ids.to(self.device.kind), targets.to(self.device.kind)

    def _labels(self, better: bool) -> set[str]:
        """Why a checkpoint is due at this step, if it is."""
        wanted = self.settings.checkpoints
        labels = {"periodic"} if self._due(self.progress.step, wanted.interval) else set()
        return labels | ({"best"} if better and wanted.best else set())

    def _due(self, step: int, interval: int) -> bool:
        """Whether something that happens every `interval` steps, and at the last one, happens now; 0 means never."""
        return interval > 0 and (step % interval == 0 or step == self.settings.train.steps)

    def _early_stop_due(self) -> bool:
        patience = self.settings.train.early_stop
        return patience > 0 and self.progress.evaluations_without_better >= patience

    def _measure_speed(self, begin: float) -> None:
        seconds = time.perf_counter() - begin
        self._recent.append(seconds)
        self.progress.active_seconds += seconds
        # After a resume the speed of the last worker holds until this one has warmed up.
        if len(self._recent) == _SPEED_STEPS or self.progress.step_seconds == 0 or self.progress.step <= _SPEED_STEPS:
            self.progress.step_seconds = sum(self._recent) / len(self._recent)

    def _seconds_left(self) -> float:
        train, progress = self.settings.train, self.progress
        left = (train.steps - progress.step) * progress.step_seconds
        for interval, seconds in (
            (train.eval_interval, progress.evaluation_seconds),
            (train.sample_interval, progress.sample_seconds),
        ):
            if interval:  # the last step counts also where it is no multiple of the interval
                left += (-(-train.steps // interval) - progress.step // interval) * seconds
        return left

    def _require_finite(self, result: StepResult) -> None:
        loss, grad_norm = float(result.loss), float(result.grad_norm)
        # fp16's scaler expects infinite gradients now and then, skips the step and lowers its scale.
        if math.isfinite(loss) and (math.isfinite(grad_norm) or self.scaler.is_enabled()):
            return
        raise self._diverged("loss" if not math.isfinite(loss) else "gradient", result.step, result.lr)

    def _diverged(self, what: str, step: int, lr: float) -> LabError:
        saved = checkpoints.list_checkpoints(self.run.checkpoints)
        kept = f"The last good checkpoint is {saved[-1].name}." if saved else "No checkpoint had been saved yet."
        train = self.settings.train
        clip = "" if train.grad_clip else ", or clip the gradient (train.grad_clip=1)"
        return LabError(
            f"The {what} at step {step} is not a finite number, so training stopped. {kept}",
            f"The learning rate there was {lr:.3g}.",
            f"Lower it (train.learning_rate={train.learning_rate / 3:.1g}), warm up longer "
            f"(train.warmup_steps={max(100, 2 * train.warmup_steps)}){clip}.",
        )
