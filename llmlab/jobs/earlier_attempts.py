"""What a worker finds of the attempts before its own, and what it says of them: checkpoints, failures, changes."""

from __future__ import annotations

from llmlab.core.config import differences, from_mapping
from llmlab.core.errors import LabError
from llmlab.core.run_settings import RunSettings
from llmlab.store import checkpoints
from llmlab.store.events import Failed, Started
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import last_events
from llmlab.training.run import TrainingRun
from llmlab.training.state import LoadedState, Origin, load_state


def load_newest(run: RunFolder, trainer: TrainingRun) -> tuple[LoadedState | None, list[str]]:
    """The newest checkpoint that verifies and loads, its weights in the model; and what was passed over, and why.

    Raises LabError when there are checkpoints and none is good: starting over would hide the loss.
    """
    skipped: list[str] = []
    readable = {checkpoint.name: checkpoint for checkpoint in checkpoints.list_checkpoints(run.checkpoints)}
    names = [*readable, *checkpoints.unreadable(run.checkpoints)]
    for name in sorted(names, key=lambda name: (len(name), name), reverse=True):  # newest first
        checkpoint = readable.get(name)
        if checkpoint is None:
            skipped.append(f"{name} has no manifest that can be read. It is passed over.")
            continue
        problem = checkpoints.verify(checkpoint)
        if problem is None:
            trainer.require_same_text(checkpoint)
            try:
                loaded = load_state(checkpoint.path)
                trainer.load_weights(checkpoint)
                if checkpoint.about.get("run") != run.id:  # a branch's first: its place is in the parent's events
                    loaded.events_bytes = 0
                return loaded, skipped
            except LabError as error:
                problem = str(error)
        skipped.append(f"{problem} It is passed over.")
    if skipped:
        raise LabError(
            f"No checkpoint of {run.id} can be used.", " ".join(skipped), "Delete them to train from the start again."
        )
    return None, []


def failures_before(run: RunFolder) -> list[str]:
    """How the last attempt that trained and those after it failed: a resume makes void what said so."""
    failed: list[str] = []
    for event in last_events(run.events):
        if isinstance(event, Started) and event.reached_training:
            failed = []
        elif isinstance(event, Failed):
            why = " ".join(part for part in (event.what, event.why) if part)
            failed.append(f"Before it was resumed it failed at step {event.step}: {why}")
    return failed


def set_aside(run: RunFolder, damaged: int) -> str:
    """That so many lines of the record were damaged."""
    lines = "A line" if damaged == 1 else f"{damaged} lines"
    return (
        f"{lines} of {run.events.name} could not be read, and {'is' if damaged == 1 else 'are'} set aside in "
        f"{run.damaged_events.name}. What happened then is missing from the record; training is not affected."
    )


def changes_since(kind: type[RunSettings], loaded: LoadedState, now: Origin) -> list[str]:
    """What differs from the run that saved the checkpoint, as sentences that say what it does to exactness."""
    old, new = from_mapping(kind, loaded.origin.settings), from_mapping(kind, now.settings)
    sentences = []
    for info, before, after in differences(old, new):
        if info.key == "model.base":  # a name, which `rename` changes; whether it is the same model was looked at
            continue
        effect = "the run is no longer what one uninterrupted run would be" if info.exact else "training is not touched"
        sentences.append(f"{info.key}: {before} -> {after}; {effect}.")
    for name, before, after in (
        ("The token file", loaded.origin.data_key, now.data_key),
        ("The number of threads", loaded.origin.threads, now.threads),
        ("The number of processes", loaded.origin.processes, now.processes),
        ("The device", loaded.origin.device, now.device),
        ("The precision", loaded.origin.precision, now.precision),
        ("Whether the model is compiled", *(("no", "yes")[one.compiled] for one in (loaded.origin, now))),
        ("The torch version", loaded.origin.versions.get("torch"), now.versions.get("torch")),
    ):
        if before != after:
            shown = "" if name == "The token file" else f" ({before} -> {after})"
            sentences.append(f"{name} changed{shown}; rounding or data differ from an uninterrupted run.")
    return sentences
