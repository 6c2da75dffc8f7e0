"""`runs`, `show`, `request`, `delete` and `rename`: runs are listed, shown, asked while they live, and removed."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llmlab.cli import text
from llmlab.cli.output import DONE, print_answer, say, terminal_progress
from llmlab.cli.progress import baselines
from llmlab.cli.words import Commands, add_outputs, add_run, outputs_of, spoken
from llmlab.core.config import differences, to_mapping
from llmlab.core.errors import LabError, UsageError
from llmlab.core.presets import of_preset
from llmlab.core.run_settings import RunSettings
from llmlab.core.signs import count_text
from llmlab.jobs.launcher import request as send_request
from llmlab.notebook.entries import Line
from llmlab.notebook.notebook import Contents
from llmlab.notebook.words import altered_sentence, stated
from llmlab.store.checkpoints import Checkpoint, list_checkpoints
from llmlab.store.events import Evaluated, Started
from llmlab.store.registry import RunReference, list_runs, resolve_run, short_name
from llmlab.store.run_folder import SILENT, SILENT_ELSEWHERE, RunFolder, RunInfo, RunStatus
from llmlab.studies.lab_notebook import lab_notebook

# A request is answered at the next step boundary; a long step answers later than this.
_ANSWER_SECONDS = 10.0
_SHOWN_EVALUATIONS = 10

_ANSWERED: dict[str, tuple[str, ...]] = {
    "pause": ("paused",),
    "resume": ("running",),
    "stop": ("stopped", "finished", "failed", "interrupted"),
}


def add_commands(commands: Commands) -> None:
    add_outputs(commands.add("runs", runs, "list the runs, newest first"))
    parser = commands.add("show", show, "show one run: state, settings, losses, checkpoints")
    add_run(parser)
    said = "the text that step STEP read, the highest loss first; without STEP, of the highest spike of the loss"
    parser.add_argument("--batch", nargs="?", const=True, type=int, metavar="STEP", help=said)
    parser = commands.add("request", request, "ask a live run to pause, resume, stop or save")
    add_run(parser)
    parser.add_argument("request", choices=("pause", "resume", "stop", "save"))
    parser = commands.add("delete", delete, "move runs to the trash, with all their checkpoints")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's id, TRACK/ID or folder")
    parser.add_argument("--yes", action="store_true", help="do not ask, also where there is no trash")
    add_outputs(parser)
    parser = commands.add("rename", rename, "give a run another name")
    add_run(parser)
    parser.add_argument("new", metavar="NEW", help="its new name")


def runs(args: argparse.Namespace) -> int:
    outputs = outputs_of(args)
    found = [_RunLine.of(run, outputs) for run in list_runs(outputs)]
    header = ("run", "state", "reads", "size", "step", "loss", "validation", "tokens/s", "started")
    table = text.table(header, [line.row() for line in found], right=(3, 4, 5, 6, 7))
    none = [f"There are no runs in {outputs} yet. Start with: llmlab-run pretrain"]
    return print_answer(args, [line.as_dict() for line in found], table if found else none)


def show(args: argparse.Namespace) -> int:
    from llmlab.store.history import read_history  # brings numpy, which `--help` should not wait for

    run = resolve_run(args.run, outputs_of(args)).run
    if args.batch is not None:
        return _batch(args, run)
    info, status = run.info(), run.status()
    saved = list_checkpoints(run.checkpoints)
    history = read_history(run, every_step=False)
    predicted = _notebook(run.outputs).lines(run, info.created, info.predictions)
    about = _RunLine(run, run.id, status, info).as_dict() | {
        "predictions": info.predictions,
        "altered": {str(line.place): line.altered for line in predicted if line.altered},
        "parent": info.parent,
        "settings": to_mapping(info.settings),
        "versions": info.versions,
        "checkpoints": [checkpoint_dict(checkpoint) for checkpoint in saved],
        "evaluations": [vars(event) for event in history.evaluated],
        "error": status.error,
    }
    lines = [*_description(run, info, status, history.worker, predicted), *_evaluation_table(history.evaluated)]
    names = ", ".join(f"{checkpoint.step} ({checkpoint.why})" for checkpoint in saved) or "none"
    lines.append(f"{text.counted(len(saved), 'checkpoint')}: {names}")
    if not status.live:
        more = f" --steps {2 * status.step}" if status.state == "finished" else ""
        lines.append(f"\nResume it: llmlab-run resume {spoken(run)}{more}")
    return print_answer(args, about, lines)


def _batch(args: argparse.Namespace, run: RunFolder) -> int:
    """What a step read."""
    from llmlab.models.source import open_model
    from llmlab.store.history import read_history
    from llmlab.studies.experiments.curves import find_spikes
    from llmlab.training.batches import Batches, nearest

    history, step, said = read_history(run), args.batch, ""
    if step is True:  # none was named
        highest = next(iter(find_spikes(history, 0.0)), None)
        if highest is None:
            raise UsageError(f"{run.id} has too few steps for one to stand out.", "", "Name a step: --batch 10")
        step, said = highest.step, f": loss {highest.loss:.3f} where {highest.expected:.3f} was expected"
    if not 1 <= step <= history.last_step:
        raise UsageError(f"{run.id} has taken no step {step}.", f"Its steps are 1 to {history.last_step}.")
    with terminal_progress(not args.json) as progress:
        opener = partial(open_model, outputs=outputs_of(args), progress=progress)
        rows = Batches(run, history).rows(step, opener, progress)
    plain = {"run": run.id, "step": step, "rows": [vars(row) for row in rows]}
    texts = [(text.loss(row.loss), text.printable(row.text)) for row in rows]
    checkpoint = nearest(run, step) if rows[0].loss is not None else None
    under = "" if checkpoint is None else f"; below, under {checkpoint.name}"
    table = text.table(("loss", "text"), texts, right=(0,))
    return print_answer(args, plain, (f"{run.id}, step {step}{said}{under}", *table))


def _notebook(outputs: Path) -> Contents:
    """What was predicted; one that cannot be read is no reason not to show a run."""
    try:
        return lab_notebook(outputs).read()
    except LabError as error:
        say(f"warning: {error}")
        return Contents()


def request(args: argparse.Namespace) -> int:
    """Asks a live run and waits a while for its answer."""
    run = resolve_run(args.run, outputs_of(args)).run
    before = run.status()
    wanted = _ANSWERED.get(args.request, ())
    if before.state in wanted and before.live:
        said, answered = f"{run.id} is already {before.state}.", True
    else:
        saved = _saved(run)
        send_request(run, args.request)
        if args.request == "save":
            answered = _wait_until(lambda: bool(_saved(run) - saved))
            said = f"{run.id} saved {', '.join(sorted(name for name, _ in _saved(run) - saved))}."
        else:
            answered = _wait_until(lambda: run.status().state in wanted)
            said = f"{run.id} is {run.status().state} at step {run.status().step}."
    if not answered:
        said = f"{run.id} has not answered yet; it will at the end of its current step."
    state = run.status().state
    return print_answer(args, {"run": run.id, "request": args.request, "answered": answered, "state": state}, [said])


def checkpoint_dict(checkpoint: Checkpoint) -> dict[str, Any]:
    values = dataclasses.asdict(checkpoint)
    return {"name": checkpoint.name, **values, "path": str(checkpoint.path), "labels": list(checkpoint.labels)}


@dataclasses.dataclass(frozen=True)
class _RunLine:
    """One line about a run. name: what to call it. info: None when its run.json cannot be read."""

    run: RunFolder
    name: str
    status: RunStatus
    info: RunInfo | None

    @staticmethod
    def of(run: RunFolder, outputs: Path) -> _RunLine:
        name = short_name(run, outputs)
        try:
            return _RunLine(run, name, run.status(), run.info())
        except LabError:
            return _RunLine(run, name, run.recorded_status(), None)

    def row(self) -> tuple[str, ...]:
        status, info = self.status, self.info
        if info is None:
            return (self.name, "damaged", "", "", "", "", "", "", "")
        speed = "" if status.tokens_per_second is None or not status.live else count_text(status.tokens_per_second)
        return (
            self.name,
            status.words,
            info.settings.reads.rpartition("/")[2],
            info.settings.words.size,
            f"{status.step}/{info.settings.train.steps}",
            text.loss(status.loss),
            text.loss(status.val_loss),
            speed,
            text.ago(info.created),
        )

    def as_dict(self) -> dict[str, Any]:
        status, info = self.status, self.info
        values: dict[str, Any] = {"id": self.run.id, "path": str(self.run.path)}
        if info is None:
            return values | {"state": "damaged"}
        values |= {"state": status.state, "track": info.track, "created": info.created, "preset": info.preset}
        values |= info.settings.words.summary
        values |= {"step": status.step, "steps": info.settings.train.steps}
        names = ("loss", "val_loss", "best_val_loss", "tokens_per_second", "eta_seconds", "host", "pid", "silent_since")
        return values | {name: getattr(status, name) for name in names}


def _description(
    run: RunFolder, info: RunInfo, status: RunStatus, started: Started | None, predicted: Sequence[Line]
) -> Iterator[str]:
    settings = info.settings
    at = f" at step {status.step} of {settings.train.steps}" if status.state != "queued" else ""
    yield f"{run.id}: {status.words}{at}"
    if status.silent_since is not None:
        said = f"on {status.host}. {SILENT_ELSEWHERE}" if status.elsewhere else f"process {status.pid}. {SILENT}"
        yield f"  silent       {said}"
    if status.error:
        yield f"  error        {' '.join(part for part in status.error.values() if part)}"
    yield f"  folder       {run.path}"
    yield f"  started      {text.clock(info.created)} ({text.ago(info.created)})"
    if info.parent:
        yield f"  branch of    {info.parent.get('run')}@{info.parent.get('step')}"
    for line in predicted:
        yield f"  predicted    {stated(line.locked.prediction)}{f'. {altered_sentence(line)}' if line.altered else ''}"
    for label, fact in settings.words.facts.items():
        yield f"  {label:<12} {fact}"
    if started is not None and started.parameters is not None:
        yield f"  model        {count_text(started.parameters)} parameters, vocabulary {started.vocab_size}"
        yield f"  computed on  {started.device} {started.precision}, {started.workers_text}"
        if started.unigram_loss is not None:
            yield f"  compare      {baselines(started)}"
    yield f"  loss         train {text.loss(status.loss)}, validation {text.loss(status.val_loss)}"
    changed = [f"{row[0].key}={text.value(row[2])}" for row in differences(_preset_settings(info), settings)]
    yield f"  settings     preset {info.preset or 'none'}{': ' if changed else ''}{' '.join(changed)}"
    yield f"  log          {run.log}"


def _preset_settings(info: RunInfo) -> RunSettings:
    try:
        return of_preset(type(info.settings), info.preset)
    except UsageError:  # made without one, or with one that is gone
        return type(info.settings)()


def _evaluation_table(evaluations: list[Evaluated]) -> Iterator[str]:
    yield ""
    if not evaluations:
        return
    # Evenly chosen, the last always among them.
    stride = -(-len(evaluations) // _SHOWN_EVALUATIONS)
    shown = evaluations[::-1][::stride][::-1]
    rows = [(str(e.step), text.loss(e.train_loss), text.loss(e.val_loss), "best" if e.best else "") for e in shown]
    yield from text.table(("step", "train", "validation", ""), rows, right=(0, 1, 2))
    yield ""


def _saved(run: RunFolder) -> set[tuple[str, float]]:
    """Checkpoints by name and time, since a step can be saved again."""
    return {(checkpoint.name, checkpoint.time) for checkpoint in list_checkpoints(run.checkpoints)}


def _wait_until(answered: Callable[[], bool]) -> bool:
    end = time.monotonic() + _ANSWER_SECONDS
    while time.monotonic() < end:
        if answered():
            return True
        time.sleep(0.05)
    return answered()


# Removed and renamed ------------------------------------------------------------------------------------------------


def delete(args: argparse.Namespace) -> int:
    """Moves runs to the trash. None is touched when one of them cannot be deleted."""
    from llmlab.studies.upkeep import (  # brings numpy, for which --help should not wait
        delete_run,
        require_at_rest,
        what_rests_on,
    )

    outputs = outputs_of(args)
    runs = list(dict.fromkeys(_whole(resolve_run(name, outputs), name) for name in args.runs))
    for run in runs:
        require_at_rest(run)
    for run, resting in zip(runs, what_rests_on(runs), strict=True):
        for line in (f"{run.full_name} ({text.size(_bytes(run))})", *(f"  {said}" for said in resting)):
            print(line) if not args.json else say(line)
    if not args.yes and not _agreed(f"Move {_these(runs)} to the trash?"):
        return DONE
    kept = [run for run in runs if not delete_run(run)]
    if kept and not args.yes and not _agreed(f"No trash here can hold {_these(kept)}. Delete for good?"):
        return DONE
    for run in kept:
        delete_run(run, for_good=True)
    values = [{"run": run.full_name, "deleted": "for good" if run in kept else "to the trash"} for run in runs]
    lines = (
        f"Deleted {run.full_name} for good." if run in kept else f"Moved {run.full_name} to the trash." for run in runs
    )
    return print_answer(args, values, lines)


def rename(args: argparse.Namespace) -> int:
    from llmlab.studies.upkeep import rename_run  # brings numpy, for which --help should not wait

    run = _whole(resolve_run(args.run, outputs_of(args)), args.run)
    renamed = rename_run(run, args.new)
    value = {"run": renamed.id, "was": run.id, "path": str(renamed.path)}
    return print_answer(args, value, [f"Renamed {run.id} to {renamed.id}."])


def _whole(reference: RunReference, name: str) -> RunFolder:
    if reference.which is not None:
        raise UsageError(
            f"{name} is one checkpoint.", "This command takes a whole run.", "See llmlab-run checkpoints --help"
        )
    return reference.run


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("Nothing was deleted.", "There is no terminal to answer in.", "Add --yes to agree.")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _these(runs: Sequence[RunFolder]) -> str:
    return runs[0].full_name if len(runs) == 1 else f"{len(runs)} runs"


def _bytes(run: RunFolder) -> int:
    return sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
