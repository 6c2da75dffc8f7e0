"""Asking a run that trains: its worker answers at its own step boundaries, from the weights it has there.

The question goes into the run's requests/ folder, the answer comes as inspections/NAME.safetensors (or
NAME.error.json). Meanwhile the worker says how far it is in NAME.progress.json, and gives up when NAME.cancel
appears. See `llmlab.training.inspections` for its side.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmlab.core.errors import LabError, UsageError, explained
from llmlab.core.files import read_json
from llmlab.core.progress import Every, Progress, quiet
from llmlab.models.reference import LiveRun, Reference, SavedRun
from llmlab.models.source import source_of
from llmlab.store import requests
from llmlab.store.checkpoints import list_checkpoints
from llmlab.store.run_folder import RunFolder

# A step, an evaluation or samples may stand between a question and its answer; longer than this is worth a word.
PATIENCE_SECONDS = 300.0
_POLL_SECONDS = 0.05
# Looking whether the worker lives costs more than looking for a file.
_ALIVE_SECONDS = 0.5


def ask_live(
    reference: LiveRun, question: str, values: Mapping[str, Any], out: Path, progress: Progress = quiet
) -> Path:
    """Answers `question` (see `llmlab.inspection.answers`) into the file `out` from the run's present weights.

    LabError when the run does not train, ends or fails before it answers, or comes to no step boundary for
    `PATIENCE_SECONDS`; the worker's own errors come as they are. Cancelled when `progress` says so.
    """
    run = reference.run
    _require_alive(run, reference)
    name = f"{question}-{uuid.uuid4().hex[:12]}"
    stem = run.inspections / name
    unasked = f"{reference} could not be asked."
    try:
        with explained(unasked):
            request = requests.send(run.requests, "inspect", question=question, values=dict(values), out=name)
    except ValueError as error:
        raise UsageError(unasked, f"{error}.", "Change what you ask.") from error
    answered = False
    try:
        with explained(f"The answer could not be written to {out}."):
            _wait(reference, stem, progress)
            answered = True
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(stem.with_name(f"{name}.safetensors"), out)
        return out
    finally:
        _clean(request, stem, answered)


def _wait(reference: LiveRun, stem: Path, progress: Progress) -> None:
    run = reference.run
    begin, looks = time.monotonic(), Every(_ALIVE_SECONDS, at_once=False)
    while not _is_answered(stem):
        stands = read_json(stem.with_name(f"{stem.name}.progress.json"))
        if stands is None:
            progress("Waiting for the next step", 0, 0)
        else:
            _tell(stands, progress)
        if looks.due() and not run.status().live and not _is_answered(stem):
            raise LabError(
                f"{run.id} ended before it could answer.",
                f"It is {run.status().state}.",
                f"Open {reference.named}@latest, its newest checkpoint.",
            )
        if time.monotonic() - begin > PATIENCE_SECONDS and stands is None:
            doing = run.status().doing
            raise LabError(
                f"{run.id} has reached no step boundary for {PATIENCE_SECONDS / 60:.0f} minutes.",
                f"It says: {doing}." if doing else "Its steps, evaluations or samples take long, or it hangs.",
                "Ask again later, or open its newest checkpoint.",
            )
        time.sleep(_POLL_SECONDS)


def _is_answered(stem: Path) -> bool:
    """Whether the answer is there. LabError when it is an error."""
    if stem.with_name(f"{stem.name}.safetensors").is_file():
        return True
    error = read_json(stem.with_name(f"{stem.name}.error.json"))
    if error is None:
        return False
    raise LabError(*(str(error.get(part) or "") for part in ("what", "why", "do")))


def _tell(stands: dict[str, Any], progress: Progress) -> None:
    try:
        what, done, total = str(stands["what"]), float(stands["done"]), float(stands["total"])
    except (KeyError, TypeError, ValueError):
        return
    progress(what, done, total)


def still(reference: Reference) -> Reference:
    """Of a run that trains its newest checkpoint, of anything else itself: a walk looks at a model many times, and
    always at the same. UsageError for a run that has saved none yet, and for every mystery, also one that was
    fine-tuned. LabError where its base is gone."""
    bottom = source_of(reference).bottom.reference
    if isinstance(bottom, (LiveRun, SavedRun)) and bottom.run.sealed:
        raise UsageError(
            "A mystery is not walked through.",
            "A walk says of each step whether the model is built as it should be.",
            "Look at it in the other panels, or walk through a run of your own.",
        )
    if not isinstance(reference, LiveRun):
        return reference
    saved = list_checkpoints(reference.run.checkpoints)
    if not saved:
        raise UsageError(
            f"{reference} cannot be walked through yet.",
            "Its weights change from step to step, and it has saved no checkpoint.",
            f"Save one: Save now in the window, or llmlab-run request {reference.named} save",
        )
    return SavedRun(reference.run, reference.named, str(saved[-1].step))


def _require_alive(run: RunFolder, reference: LiveRun) -> None:
    status = run.status()
    if not status.live:
        raise LabError(
            f"{run.id} does not train now.",
            f"It is {status.state}.",
            f"Open {reference.named}@latest, its newest checkpoint, or resume it.",
        )


def _clean(request: Path, stem: Path, answered: bool) -> None:
    """Takes back a question that nobody took up; tells a worker that has taken it that nobody waits any more."""
    with suppress(OSError):
        taken = not request.exists()
        request.unlink(missing_ok=True)
        for ending in ("progress.json", "error.json"):
            path = stem.with_name(f"{stem.name}.{ending}")
            answered = answered or (ending == "error.json" and path.exists())
            path.unlink(missing_ok=True)
        if taken and not answered:
            stem.with_name(f"{stem.name}.cancel").touch()
