"""Events of a run as sentences."""

from __future__ import annotations

from dataclasses import dataclass

from llmlab.core.setting_info import describe
from llmlab.core.settings import PretrainSettings
from llmlab.store.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    Failed,
    Finished,
    Inspected,
    Paused,
    Resumed,
    Sampled,
    Scored,
    Started,
    Stopped,
    Warned,
)
from llmlab.store.history import RunHistory
from llmlab_gui.train.checkpoint_rows import LABEL_WORDS
from llmlab_gui.widgets.numbers import bytes_text, duration

_TOKENIZERS = next(info.choices for info in describe(PretrainSettings) if info.key == "data.tokenizer")


@dataclass(frozen=True)
class Sentence:
    """tone: `plain`, `good`, `warning` or `bad`, as the theme colours them."""

    time: float
    step: int
    text: str
    tone: str = "plain"


def history_sentences(history: RunHistory, newest: int) -> list[Sentence]:
    """The notable events that a history holds, in order, the newest so many of each kind."""
    events: list[Event] = [*history.samples[-newest:], *history.scores[-newest:]]
    events += [*history.checkpoints[-newest:], *history.warnings[-newest:]]
    columns = [history.evaluations[name][-newest:].tolist() for name in history.evaluations.names]
    for step, time, train_loss, val_loss, best in zip(*columns, strict=True):
        events.append(Evaluated(int(step), time, train_loss, val_loss, bool(best), 0.0))
    if history.started is not None:
        events.append(history.started)
    for pause in history.interruptions[-newest:]:
        if pause.reason == "paused":
            events.append(Paused(pause.step, pause.start, "requested"))
            if pause.end is not None:
                events.append(Resumed(pause.step, pause.end, pause.end - pause.start))
    if history.ended is not None:
        events.append(history.ended)
    # Sorted by time; what was written in one moment keeps this order.
    order = (Started, Evaluated, Sampled, Scored, CheckpointSaved, Warned, Paused, Resumed)
    rank = {kind: place for place, kind in enumerate(order)}
    events.sort(key=lambda event: (event.time, rank.get(type(event), len(order))))
    return [told for event in events[-newest:] if (told := sentence(event)) is not None]


def sentence(event: Event) -> Sentence | None:
    """The event in words; None for a step, of which there are too many to tell."""
    match event:
        case Started():
            return _say(event, _started(event))
        case Evaluated():
            best = ", the best so far" if event.best else ""
            each = ", ".join(f"{source} {loss:.3f}" for source, loss in event.val_losses.items())
            of = f" ({each})" if each else ""
            text = f"Measured: validation loss {event.val_loss:.3f}{of}{best}; training loss {event.train_loss:.3f}."
            return _say(event, text)
        case Sampled():
            count = len(event.samples)
            return _say(event, "Wrote a sample." if count == 1 else f"Wrote {count} samples.")
        case Scored():
            text = f"Answered {event.correct} of {event.total} held-out items exactly right."
            return _say(event, text)
        case CheckpointSaved():
            why = ", ".join(LABEL_WORDS.get(label, label) for label in event.labels)
            text = (
                f"Saved {event.checkpoint} ({why}): {bytes_text(event.bytes)} in {duration(round(event.seconds, 2))}."
            )
            return _say(event, text)
        case Paused():
            return _say(event, "Paused on request." if event.reason == "requested" else f"Paused: {event.reason}")
        case Resumed():
            return _say(event, f"Resumed after a pause of {duration(event.paused_seconds)}.")
        case Warned():
            return _say(event, event.message, "warning")
        case Inspected():
            return _say(event, f"Answered an inspection: {event.path}.")
        case Finished():
            return _say(event, _finished(event), "good")
        case Stopped():
            saved = f" Saved as {event.checkpoint}." if event.checkpoint else " Nothing was saved."
            return _say(event, f"Stopped on request after {duration(event.active_seconds)} of training.{saved}")
        case Failed():
            return _say(event, " ".join(part for part in (event.what, event.why, event.do) if part), "bad")
    return None


def _say(event: Event, text: str, tone: str = "plain") -> Sentence:
    return Sentence(event.time, event.step, text, tone)


def _started(event: Started) -> str:
    if not event.reached_training:
        return f"Attempt {event.attempt} began to read the text."
    if event.attempt > 1:
        changed = f" Changed: {'; '.join(event.changed)}" if event.changed else ""
        return f"Training resumed from step {event.step:,} (attempt {event.attempt}).{changed}"
    vocabulary = f"{event.tokenizer} vocabulary of {event.vocab_size:,}"
    if event.tokenizer not in _TOKENIZERS:  # a run that fine-tunes names the template that its examples are put into
        vocabulary = f"vocabulary of {event.vocab_size:,}; template {event.tokenizer}"
    data = event.settings.get("data", {})
    up_to = "up to " if data.get("batch_warmup_steps") or data.get("length_warmup_steps") else ""
    steps = f"{event.steps:,} steps of {up_to}{event.tokens_per_step:,} tokens"
    place = f"on {event.device} in {event.precision}, {event.workers_text}"
    if event.compile_seconds is not None:
        place += f", compiled in {event.compile_seconds:.0f} s"
    return f"Training began: {steps}; {event.parameters:,} parameters; {vocabulary}; {place}."


def _finished(event: Finished) -> str:
    early = event.reason == "early_stop"
    how = "Finished early: the validation loss stopped improving." if early else f"Finished all {event.step:,} steps"
    text = how if early else f"{how} in {duration(event.active_seconds)} of training."
    if event.val_loss is not None:
        text += f" Validation loss {event.val_loss:.3f}"
        if event.best_val_loss is not None and event.best_step is not None:
            text += f" (best: {event.best_val_loss:.3f} at step {event.best_step:,})"
        text += "."
    return f"{text} Saved as {event.checkpoint}."
