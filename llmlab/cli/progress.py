"""A run's events as a terminal shows them: JSON lines, plain lines, or a live progress line."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from llmlab.cli import text
from llmlab.cli.output import MovingLine, can_redraw, now_and_then, say, silence_stdout
from llmlab.cli.words import spoken
from llmlab.core.signs import count_text
from llmlab.store.checkpoints import checkpoint_name
from llmlab.store.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    Finished,
    Paused,
    Resumed,
    Sampled,
    Scored,
    Shared,
    Started,
    StepEvent,
    Stopped,
    Warned,
    to_line,
)
from llmlab.store.run_folder import RunFolder

_SAMPLE_LINES = 3
_SAMPLE_WIDTH = 96


class Report:
    """Shows what happens in a run; this one shows nothing."""

    def preparing(self, doing: str) -> None:
        """Called again and again while no step is computed. doing: the worker's own words, or nothing yet."""

    def event(self, event: Event) -> None:
        """One event of the run, in order."""

    def flush(self) -> None:
        """Called after the events that came together: whoever reads the output wakes once for all of them."""

    def note(self, sentence: str) -> None:
        """A remark of the command itself."""

    def close(self) -> None:
        """Ends whatever moves on the screen."""

    def summary(self, last: Event | None) -> None:
        """How it ended, and what to do next. last: the final event, if there was one."""


class StartTimes:
    """Where the time went from the command to the first step: a table in seconds, once that is done."""

    def __init__(self) -> None:
        # All that this process did so far, Python's start included: processor time, since nobody tells when it began.
        self._seconds = {"The command itself": time.process_time()}
        self._last = 0.0  # when the event before this one happened
        self._told = False

    def take(self, event: Event) -> list[str]:
        """The table's lines when this event ends it; or else none."""
        if self._told:
            return []
        match event:
            case Started():
                self._seconds |= event.preparation
            case Evaluated():
                self._count("Measuring the loss", event)
            case Sampled():
                self._count("Writing samples", event)
            case StepEvent():
                self._count(f"Step {event.step}", event)
        self._last = event.time
        if not isinstance(event, StepEvent):
            return []
        self._told = True
        rows = [*self._seconds.items(), ("In all", sum(self._seconds.values()))]
        return ["From the command to the first step:"] + [f"  {what:<40}{seconds:>7.2f} s" for what, seconds in rows]

    def _count(self, what: str, event: Event) -> None:
        self._seconds[what] = self._seconds.get(what, 0.0) + max(0.0, event.time - self._last)


class Output:
    """Stdout. Losing its reader ends the showing, never the training."""

    def __init__(self, run: RunFolder) -> None:
        self._run, self.lost = run, False

    def line(self, line: str, *, flush: bool = True) -> None:
        with self.guarded():
            print(line, flush=flush)

    def flush(self) -> None:
        with self.guarded():
            sys.stdout.flush()

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """For whatever writes to stdout; from the first failure on, it all goes nowhere."""
        try:
            yield
        except OSError:  # the pipe's reader or the terminal is gone
            if self.lost:
                return
            self.lost = True
            silence_stdout()
            say(f"Nothing reads the output any more; {self._run.id} keeps training. Ctrl-C stops it and saves.")


class JsonReport(Report):
    """Every event as one line on stdout, as it stands in events.jsonl, and nothing else there."""

    def __init__(self, run: RunFolder) -> None:
        self._output = Output(run)

    def event(self, event: Event) -> None:
        self._output.line(to_line(event), flush=False)

    def flush(self) -> None:
        self._output.flush()

    def note(self, sentence: str) -> None:
        say(sentence)


class PlainReport(Report):
    """A line for whatever is worth one; for a log, a pipe, or a terminal that cannot redraw."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._output = Output(run)
        self._doing = ""
        self._started: Started | None = None
        self._last_step: StepEvent | None = None
        self._evaluated: Evaluated | None = None
        self._shared: Shared | None = None
        self._pace = now_and_then()
        self._scores: list[Scored] = []

    def note(self, sentence: str) -> None:
        self._print(sentence)

    def preparing(self, doing: str) -> None:
        what = doing.partition(" (")[0]  # without its percentage
        if what and what != self._doing:
            self._doing = what
            self._print(f"{what} ...")

    def event(self, event: Event) -> None:
        match event:
            case Started():
                self._started = event
                for line in _introduction(event):
                    self._print(line)
            case StepEvent():
                self._step(event)
                self._last_step = event
            case Evaluated():
                self._evaluated = event
                best = "   best so far" if event.best and event.step else ""
                losses = f"train {text.loss(event.train_loss)}   validation {text.loss(event.val_loss)}"
                each = ", ".join(f"{source} {text.loss(loss)}" for source, loss in event.val_losses.items())
                self._print(f"step {event.step}   {losses}{f' ({each})' if each else ''}{best}")
            case Sampled():
                for sample in event.samples:
                    for line in _answer(sample) if self._run.fine_tunes else _sample(sample):
                        self._print(line, "dim")
            case Scored():
                self._doing = ""  # is said again, of those at the end
                self._scores.append(event)
                self._print(f"step {event.step}   {event.correct} of {event.total} held-out items answered right")
            case Shared():
                self._shared = event
            case CheckpointSaved() if "requested" in event.labels:
                self._print(f"step {event.step}   saved {event.checkpoint} ({text.size(event.bytes)})")
            case Paused():
                why = "" if event.reason == "requested" else f" {event.reason}"
                self._print(f"Paused at step {event.step}.{why} Resume: llmlab-run request {spoken(self._run)} resume")
            case Resumed():
                self._print(f"Resumed after {text.duration(event.paused_seconds)}.")
            case Warned():
                self._print(f"warning: {event.message}")

    def summary(self, last: Event | None) -> None:
        losses = _closing_losses(last, self._started, self._last_step, self._evaluated)
        if len(self._scores) > 1:
            before, after = self._scores[0], self._scores[-1]
            losses.append(f"  right        {before.correct} of {before.total} before, {after.correct} after")
        if self._shared is not None:
            losses.append(f"  shared by    {self._shared.words}")
        for line in _summary(self._run, last, losses):
            self._print(line)

    def _step(self, event: StepEvent) -> None:
        if self._pace.due():
            steps = self._started.steps if self._started else 0
            self._print(f"step {event.step}/{steps}   {_numbers(event, self._evaluated)}")

    def _print(self, line: str, style: str = "") -> None:
        self._output.line(line)


class LiveReport(PlainReport):
    """Plain lines that scroll above one progress line that moves."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__(run)
        self._line = MovingLine()

    def preparing(self, doing: str) -> None:
        with self._output.guarded():
            self._line.move("", f"{doing or 'Starting'} ...", 0, None)

    def close(self) -> None:
        with self._output.guarded():
            self._line.close()

    def _step(self, event: StepEvent) -> None:
        steps = self._started.steps if self._started else None
        at = f"step {event.step}/{steps}" if steps else ""
        with self._output.guarded():
            self._line.move(at, _numbers(event, self._evaluated), event.step, steps)

    def _print(self, line: str, style: str = "") -> None:
        with self._output.guarded():
            self._line.above(line, style)


def make_report(run: RunFolder, as_json: bool) -> Report:
    if as_json:
        return JsonReport(run)
    return LiveReport(run) if can_redraw() else PlainReport(run)


def _introduction(event: Started) -> list[str]:
    """What begins, and what its losses will mean; nothing for a worker that ends before it trains."""
    if event.parameters is None or event.train_tokens is None:
        return []
    where = f"{event.device} {event.precision}, {event.workers_text}"
    if event.compile_seconds is not None:
        where += f", compiled in {event.compile_seconds:.0f} s"
    begins = f"resumes at step {event.step}" if event.step else "starts"
    lines = [
        f"{event.run} {begins}: {count_text(event.parameters)} parameters, {count_text(event.train_tokens)} tokens "
        f"({event.tokenizer}, vocabulary {event.vocab_size}), on {where}"
    ]
    if not event.step and event.unigram_loss is not None:
        floor = "" if event.floor_loss is None else f", and {event.floor_loss:.3f} is the lowest there can be"
        lines.append(
            f"In nats per token, knowing nothing costs {event.uniform_loss:.3f}, knowing how often each token occurs "
            f"{event.unigram_loss:.3f}{floor}."
        )
    return lines + [f"changed: {sentence}" for sentence in event.changed]


def _numbers(event: StepEvent, evaluated: Evaluated | None) -> str:
    validation = "" if evaluated is None else f"   validation {text.loss(evaluated.val_loss)}"
    speed = f"{count_text(event.tokens_per_second)} tokens/s"
    return f"loss {text.loss(event.loss)}{validation}   {speed}   {text.duration(event.eta_seconds)} left"


def _sample(sample: dict[str, str]) -> list[str]:
    """A sample's first lines, behind a bar."""
    lines = (sample.get("prompt", "") + sample.get("text", "")).strip("\n").split("\n")
    shown = [line[:_SAMPLE_WIDTH].rstrip() for line in lines if line.strip()]
    return [f"  | {text.printable(line)}" for line in shown[:_SAMPLE_LINES]]


def _answer(sample: dict[str, str]) -> list[str]:
    asked, answer = (text.printable(" ".join(sample.get(part, "").split())) for part in ("prompt", "text"))
    return [f"  | {asked[:_SAMPLE_WIDTH]}  ->  {answer[:_SAMPLE_WIDTH]}"]


def _summary(run: RunFolder, last: Event | None, losses: list[str]) -> list[str]:
    name = spoken(run)
    if last is None:
        return ["", f"Stopped before it started. Resume: llmlab-run resume {name}"]
    commands = [("llmlab-gui", "see its curves, its samples, and what it expects next")]
    if isinstance(last, Finished):
        why = "the validation loss no longer fell" if last.reason == "early_stop" else "all steps are done"
        how = f"Finished at step {last.step} after {text.duration(last.active_seconds)} of training: {why}."
        commands.insert(0, (f"llmlab-run resume {name} --steps {2 * last.step}", "train it longer"))
    else:
        how = _stopped(last)
        commands.insert(0, (f"llmlab-run resume {name}", "continue it"))
    if last.step and run.fine_tunes:
        commands.insert(0, (f"llmlab-run adapter {name}@latest", "what it changed, layer by layer"))
        commands.insert(0, (f'llmlab-run generate {name} --chat --prompt "Repeat: red sea"', "ask it"))
    elif last.step:
        commands.insert(0, (f'llmlab-run generate {name} --prompt "The king"', "let it write"))
    lines = ["", how, *losses]
    if isinstance(last, (Finished, Stopped)) and last.checkpoint:
        lines.append(f"  checkpoint   {last.checkpoint}")
    lines += [f"  folder       {run.path}", "", "Next:"]
    widest = max(len(command) for command, _ in commands)
    return lines + [f"  {command.ljust(widest)}   {meaning}" for command, meaning in commands]


def _stopped(last: Event) -> str:
    if not last.step:
        return "Stopped before step 1."
    saved = last.checkpoint if isinstance(last, Stopped) else None
    if saved == checkpoint_name(last.step):
        return f"Stopped at step {last.step}; what was learned is saved."
    return f"Stopped at step {last.step}, in the middle of the next; saved is {saved or 'nothing'}."


def _closing_losses(
    last: Event | None, started: Started | None, step: StepEvent | None, evaluated: Evaluated | None
) -> list[str]:
    """The losses at the end, in nats per token, and what to hold them against."""
    lines = []
    if evaluated is not None and last is not None and evaluated.step == last.step:
        lines.append(f"  train loss   {text.loss(evaluated.train_loss)}")
        lines.append(f"  validation   {text.loss(evaluated.val_loss)}")
    elif step is not None:
        lines.append(f"  train loss   {text.loss(step.loss)} in step {step.step}")
    if isinstance(last, Finished) and last.best_step not in (None, last.step):
        lines.append(f"  best         {text.loss(last.best_val_loss)} on validation, at step {last.best_step}")
    if started is not None and started.reached_training and started.unigram_loss is not None:
        lines.append(f"  compare      {baselines(started)}")
    return lines


def baselines(started: Started) -> str:
    """What to hold a loss against, in nats per token."""
    floor = "" if started.floor_loss is None else f", floor {started.floor_loss:.3f}"
    return f"uniform {started.uniform_loss:.3f}, unigram {started.unigram_loss:.3f}{floor}"
