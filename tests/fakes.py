"""A run without a model: its folder, with plausible events, written as fast or as slowly as a test likes."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from preset_settings import resolve_settings

from llmlab.core.errors import Cancelled
from llmlab.core.processes import process_start
from llmlab.core.settings import PretrainSettings
from llmlab.notebook.locked import lock
from llmlab.notebook.predictions import parse_prediction
from llmlab.notebook.quantities import RUN
from llmlab.notebook.seals import seal_new
from llmlab.store.checkpoints import MODEL_FILE, STATE_FILE, checkpoint_name, commit
from llmlab.store.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    Failed,
    Finished,
    Paused,
    Resumed,
    Sampled,
    Started,
    StepEvent,
    Stopped,
    Warned,
    to_line,
)
from llmlab.store.run_folder import RunFolder, RunInfo, RunStatus

TOKENS_PER_STEP = 768  # 12 windows of 64 tokens, as the `baby` preset has
TOKENS_PER_SECOND = 24_000.0
STEP_SECONDS = TOKENS_PER_STEP / TOKENS_PER_SECOND
_LINE = (
    '{{"event": "step", "time": {:.6f}, "step": {}, "loss": {!r}, "lr": {!r}, "grad_norm": {!r}, "tokens": {}, '
    '"tokens_per_second": {!r}, "active_seconds": {!r}, "eta_seconds": {!r}, "memory_bytes": {}, "mfu": {!r}}}\n'
)


class CancelAfter:
    """The progress of work that nobody wants any more after so many calls."""

    def __init__(self, calls: int = 0) -> None:
        self._calls = calls

    def __call__(self, what: str, done: float, total: float) -> None:
        if self._calls == 0:
            raise Cancelled
        self._calls -= 1


class FakeRun:
    """Writes a run folder as a worker does. Its status names this process, so it counts as alive.

    `written` holds what events.jsonl holds now, in order (but for `write_lines`). The losses are a pure function
    of (seed, step): two runs of one seed, or one run that was cut back, write the same numbers.
    """

    def __init__(
        self,
        outputs: Path,
        name: str = "fake",
        *,
        steps: int = 1000,
        seed: int = 0,
        settings: PretrainSettings | None = None,
        vocab_size: int = 65,
        floor_loss: float | None = None,
        tokenizer: str = "char",
        bytes_per_token: float | None = None,
        created: float = 1.75e9,
    ) -> None:
        base = settings or resolve_settings("baby")
        self.settings = replace(base, train=replace(base.train, steps=steps, seed=seed))
        self.run = RunFolder(outputs / "pretraining" / name)
        self.steps, self.seed = steps, seed
        self.vocab_size, self.floor_loss, self.created = vocab_size, floor_loss, created
        self.tokenizer, self.bytes_per_token = tokenizer, bytes_per_token
        self.step = 0
        self.written: list[Event] = []
        self.paused_seconds = 0.0
        self.best_val_loss, self.best_step = math.inf, 0
        self._offsets: list[int] = []  # bytes of events.jsonl before each written event
        self.run.requests.mkdir(parents=True)
        self.run.checkpoints.mkdir()
        self.run.write_status(RunStatus(heartbeat=time.time(), steps=steps))  # first: whoever sees the run sees it live
        self.run.write_info(RunInfo(name, "pretraining", created, self.settings, preset="baby"))

    def predict(self, *lines: str) -> FakeRun:
        """What the learner expects of it, locked and sealed as where a run is made."""
        locked = lock(RUN, [parse_prediction(line) for line in lines])
        self.run.write_info(replace(self.run.info(), predictions=locked))
        seal_new(self.run, RUN, self.created, locked)
        return self

    # Where a worker stands -------------------------------------------------------------------------------------

    def start(self) -> FakeRun:
        """The first worker begins."""
        self._begin(step=0, events_start=0)
        return self

    def resume_from(self, step: int, changed: list[str] | None = None) -> FakeRun:
        """A new worker goes on from the checkpoint of `step`: cuts events.jsonl back, then says `started`."""
        # As the worker: what happened at the checkpoint's step itself stays, what came later goes.
        kept = next((i for i, event in enumerate(self.written) if event.step > step), len(self.written))
        offset = self._offsets[kept] if kept < len(self.written) else self.run.events.stat().st_size
        del self.written[kept:], self._offsets[kept:]
        os.truncate(self.run.events, offset)
        self.step = step
        self._begin(step, offset, changed or [])
        return self

    def advance(self, steps: int, *, evaluate: bool = True) -> FakeRun:
        """Appends so many steps, with evaluations, samples and checkpoints at the settings' intervals."""
        events: list[Event] = []
        for event in self._step_events(np.arange(self.step + 1, self.step + steps + 1)):
            events.append(event)
            if evaluate:
                events += self._between(event.step)
        self.step += steps
        self.append(*events)
        self._write_status("running")
        return self

    def pause(self, reason: str = "requested") -> FakeRun:
        """Waits, as on a request."""
        self.append(Paused(self.step, self.time_of(self.step), reason))
        self._write_status("paused")
        return self

    def unpause(self, paused_seconds: float = 60.0) -> FakeRun:
        """Goes on after a pause of so many seconds."""
        self.paused_seconds += paused_seconds
        self.append(Resumed(self.step, self.time_of(self.step), paused_seconds))
        self._write_status("running")
        return self

    def warn(self, message: str) -> FakeRun:
        self.append(Warned(self.step, self.time_of(self.step), message))
        return self

    def finish(self) -> FakeRun:
        """All steps done: a final checkpoint, then `finished`."""
        checkpoint = checkpoint_name(self.step)
        at = self.time_of(self.step)
        active = self.step * STEP_SECONDS
        self.append(CheckpointSaved(self.step, at, checkpoint, ["final"], 3_300_000, 0.1))
        train, val = self.losses_of(self.step)
        self.append(
            Finished(self.step, at, "steps", train, val, self.best_val_loss, self.best_step, active, checkpoint)
        )
        self._write_status("finished")
        return self

    def stop(self) -> FakeRun:
        """Ended on request, with a checkpoint."""
        at, checkpoint = self.time_of(self.step), checkpoint_name(self.step)
        self.append(CheckpointSaved(self.step, at, checkpoint, ["stopped"], 3_300_000, 0.1))
        self.append(Stopped(self.step, at, self.step * STEP_SECONDS, checkpoint))
        self._write_status("stopped")
        return self

    def fail(self, what: str, why: str = "", do: str = "") -> FakeRun:
        self.append(Failed(self.step, self.time_of(self.step), what, why, do))
        self._write_status("failed", error={"what": what, "why": why, "do": do})
        return self

    def save_checkpoint(self, labels: tuple[str, ...] = ("periodic",), *, bytes_each: int = 1000) -> FakeRun:
        """A checkpoint folder that verifies (its files hold noise), and its event."""

        def write(folder: Path) -> None:
            (folder / MODEL_FILE).write_bytes(os.urandom(bytes_each))
            (folder / STATE_FILE).write_bytes(os.urandom(bytes_each))

        val_loss = self.losses_of(self.step)[1]
        about = {"run": self.run.id, "tokens": self.step * TOKENS_PER_STEP, "parameters": 800_000}
        saved = commit(self.run.checkpoints, self.step, write, labels=labels, val_loss=val_loss, about=about)
        self.append(CheckpointSaved(self.step, self.time_of(self.step), saved.name, list(labels), saved.bytes, 0.1))
        return self

    # What it writes --------------------------------------------------------------------------------------------

    def append(self, *events: Event) -> None:
        """Adds lines to events.jsonl, in one write."""
        position = self.run.events.stat().st_size if self.run.events.exists() else 0
        lines = [(to_line(event) + "\n").encode() for event in events]
        for event, line in zip(events, lines, strict=True):
            self._offsets.append(position)
            self.written.append(event)
            position += len(line)
        with self.run.events.open("ab") as file:
            file.write(b"".join(lines))

    def write_lines(self, count: int, *, eval_every: int = 0, spikes: dict[int, float] | None = None) -> FakeRun:
        """Appends `count` steps as fast as it can (about 0.15M lines a second), not kept in `written`.

        eval_every: an evaluation and a checkpoint at each so many steps. spikes: loss of single steps.
        """
        chunk = 20_000
        with self.run.events.open("ab", buffering=1 << 20) as file:
            for first in range(self.step + 1, self.step + count + 1, chunk):
                steps = np.arange(first, min(first + chunk, self.step + count + 1))
                columns = [column.tolist() for column in self._columns(steps)]
                for step, loss in (spikes or {}).items():
                    if steps[0] <= step <= steps[-1]:
                        columns[2][step - first] = loss
                lines = [_LINE.format(*row) for row in zip(*columns, strict=True)]
                if eval_every:
                    for step in range(-(-first // eval_every) * eval_every, int(steps[-1]) + 1, eval_every):
                        lines[step - first] += "".join(to_line(event) + "\n" for event in self._evaluation(step))
                file.write("".join(lines).encode())
        self.step += count
        self._write_status("running")
        return self

    def step_event(self, step: int) -> StepEvent:
        """The event of one step; the same numbers each time."""
        return self._step_events(np.array([step]))[0]

    def losses_of(self, step: int) -> tuple[float, float]:
        """Train and validation loss that an evaluation at `step` measures; they part as the run overfits."""
        train = float(self._trend(np.array([float(step)]))[0])
        return train, train + 0.02 + 0.25 * (step / self.steps) ** 2

    def time_of(self, step: int) -> float:
        return self.created + 5 + step * STEP_SECONDS + self.paused_seconds

    def _begin(self, step: int, events_start: int, changed: list[str] | None = None) -> None:
        self.attempt = self.run.recorded_status().attempt + 1
        self._write_status("running", events_start=events_start)
        uniform = math.log(self.vocab_size)
        self.append(
            Started(
                step,
                self.time_of(step),
                self.run.id,
                self.attempt,
                self.steps,
                parameters=809_856,
                vocab_size=self.vocab_size,
                train_tokens=1_003_854,
                val_tokens=111_540,
                tokens_per_step=TOKENS_PER_STEP,
                uniform_loss=uniform,
                unigram_loss=0.8 * uniform,
                floor_loss=self.floor_loss,
                device="cpu",
                precision="fp32",
                threads=1,
                peak_flops=1.2e11,
                tokenizer=self.tokenizer,
                comparable=True,
                active_seconds=step * STEP_SECONDS,
                pid=os.getpid(),
                changed=changed or [],
                bytes_per_token=self.bytes_per_token,
            )
        )

    def _between(self, step: int) -> list[Event]:
        train, checkpoints = self.settings.train, self.settings.checkpoints
        events: list[Event] = []
        if train.eval_interval and step % train.eval_interval == 0:
            events += self._evaluation(step)[: 2 if checkpoints.best else 1]
        if train.sample_interval and step % train.sample_interval == 0:
            text = f"The king of step {step} speaks:\nwhat say you, my lord?"
            samples = [{"prompt": prompt, "text": text} for prompt in self.settings.samples.prompts]
            events.append(Sampled(step, self.time_of(step), samples))
        if checkpoints.interval and step % checkpoints.interval == 0:
            name = checkpoint_name(step)
            events.append(CheckpointSaved(step, self.time_of(step), name, ["periodic"], 3_300_000, 0.1))
        return events

    def _evaluation(self, step: int) -> list[Event]:
        """An evaluation, and the checkpoint that it earns when it is the best so far."""
        train, val = self.losses_of(step)
        best = val < self.best_val_loss
        at = self.time_of(step)
        events: list[Event] = [Evaluated(step, at, train, val, best, 0.4)]
        if best:
            self.best_val_loss, self.best_step = val, step
            events.append(CheckpointSaved(step, at, checkpoint_name(step), ["best"], 3_300_000, 0.1))
        return events

    def _trend(self, steps: np.ndarray) -> np.ndarray:
        """Noise-free training loss: from ln(vocabulary) down to a third of it, fast at first."""
        uniform = math.log(self.vocab_size)
        return uniform / 3 + uniform * 2 / 3 * (1 + steps / (self.steps / 60)) ** -0.5

    def _step_events(self, steps: np.ndarray) -> list[StepEvent]:
        columns = [column.tolist() for column in self._columns(steps)]
        return [StepEvent(step, when, *rest) for when, step, *rest in zip(*columns, strict=True)]

    def _columns(self, steps: np.ndarray) -> tuple[np.ndarray, ...]:
        """Columns in the order of a `step` line, for int64 `steps`."""
        # A hash of (seed, step) as noise: independent of how many steps are written at once.
        mixed = (steps.astype(np.uint64) + np.uint64(self.seed * 1_000_003)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        noise = ((mixed >> np.uint64(11)).astype(np.float64) / 2**53 - 0.5) * 2  # -1 to 1
        train = self.settings.train
        warm = np.minimum(1.0, steps / max(1, train.warmup_steps))
        share = np.clip((steps - train.warmup_steps) / max(1, self.steps - train.warmup_steps), 0, 1)
        span = train.learning_rate - train.min_learning_rate
        lr = np.where(warm < 1, train.learning_rate * warm, 0.0)
        lr = np.where(warm < 1, lr, train.min_learning_rate + span * (1 + np.cos(np.pi * share)) / 2)
        speed = TOKENS_PER_SECOND * (1 + 0.03 * noise)
        return (
            self.created + 5 + steps * STEP_SECONDS + self.paused_seconds,
            steps,
            self._trend(steps) + 0.08 * noise,
            lr,
            0.4 + 1.5 * np.exp(-steps / (self.steps / 20)) + 0.1 * np.abs(noise),
            steps * TOKENS_PER_STEP,
            speed,
            steps * STEP_SECONDS,
            np.maximum(0, self.steps - steps) * STEP_SECONDS,
            np.full(len(steps), 410_000_000) + steps % 7 * 4096,
            0.4 * speed / TOKENS_PER_SECOND,
        )

    def _write_status(
        self, state: str, *, events_start: int | None = None, error: dict[str, str] | None = None
    ) -> None:
        before = self.run.recorded_status()
        last = self.step_event(self.step) if self.step else None
        self.run.write_status(
            RunStatus(
                state=state,
                step=self.step,
                steps=self.steps,
                pid=os.getpid(),
                pid_start=process_start(os.getpid()),
                heartbeat=time.time(),
                attempt=self.attempt,
                events_start=before.events_start if events_start is None else events_start,
                loss=last.loss if last else None,
                val_loss=self.losses_of(self.step)[1] if last else None,
                best_val_loss=self.best_val_loss if math.isfinite(self.best_val_loss) else None,
                tokens_per_second=last.tokens_per_second if last else None,
                eta_seconds=last.eta_seconds if last else None,
                error=error,
            )
        )
