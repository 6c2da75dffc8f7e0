"""Starts, follows and stops experiments and checks of papers in a terminal."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any, TypeAlias

from llmlab.cli import text
from llmlab.cli.follow import Interrupts, ask_to_stop
from llmlab.cli.notebook import tell_outcomes
from llmlab.cli.output import DONE, INTERRUPTED, MovingLine, can_redraw, now_and_then, print_answer, say
from llmlab.core.errors import LabError, UsageError
from llmlab.core.records import to_plain
from llmlab.studies.experiments.outcomes import read_results
from llmlab.studies.launcher import make_folder, start_experiment, stop_experiment
from llmlab.studies.plans.records import ExperimentFolder, ExperimentRecord, ExperimentStatus, TrialStatus

_POLL_SECONDS = 0.2
Conclusion: TypeAlias = Callable[[ExperimentFolder, ExperimentStatus, bool], None]


def standing(
    folder: ExperimentFolder, record: ExperimentRecord, is_same: Callable[[ExperimentRecord], bool], other: str
) -> ExperimentRecord:
    """The plan to go on with: `record`, or what stands under its name already where that is the same.

    is_same: of what is there. UsageError where it is not; other: what differs, as a sentence.
    """
    if not folder.experiment_json.is_file():
        return record
    before = folder.record()
    if is_same(before) and not record.predictions:
        return before
    raise UsageError(
        f"{'An' if folder.noun[0] in 'aeiou' else 'A'} {folder.noun} named {folder.id!r} is already there.",
        "What is predicted comes before the start." if record.predictions else other,
        f"Resume it: {folder.resume_command}, or choose another --name.",
    )


def begin(
    folder: ExperimentFolder,
    record: ExperimentRecord,
    lines: Iterable[str],
    args: argparse.Namespace,
    conclude: Conclusion | None = None,
) -> int:
    """Makes the folder unless it is there, says the plan, and follows it."""
    if not folder.experiment_json.is_file():
        make_folder(folder, record)
    if not args.json:
        print("\n".join(lines))
    return follow(folder, args, conclude)


def cancel(folder: ExperimentFolder, args: argparse.Namespace) -> int:
    stop_experiment(folder)
    said = f"{folder.id} stops: what trains saves first. Resume later: {folder.resume_command}"
    return print_answer(args, {folder.noun: folder.id, "request": "stop"}, [said])


def follow(folder: ExperimentFolder, args: argparse.Namespace, conclude: Conclusion | None = None) -> int:
    """Runs what is left of an experiment and shows it; returns the exit code. LabError when it fails.

    conclude: says what came out, instead of the experiment's findings.

    The first Ctrl-C asks it to stop, and waits until the run that trains has saved; a second one ends it at once.
    """
    record, as_json = folder.record(), args.json
    if args.take_over:
        folder.take_over_all()
    shown = _Shown(record, as_json)
    with Interrupts() as interrupts:
        worker = start_experiment(
            folder, jobs=args.jobs, cluster=args.cluster, cluster_options=dict(args.cluster_options), follow_parent=True
        )
        interrupts.answer_first_with(lambda number: ask_to_stop(folder, worker, number))
        told = False
        try:
            while worker.poll() is None:
                if interrupts.count and not told:
                    told = True
                    shown.note("Stopping: what trains saves first. Press Ctrl-C again to end it immediately.")
                shown.status(folder.recorded_status())
                time.sleep(_POLL_SECONDS)
            shown.status(folder.recorded_status())
        except KeyboardInterrupt:
            worker.kill()  # its run dies with it
            worker.wait()
            shown.close()
            say(f"Ended. Resume from what was saved: {folder.resume_command}")
            return INTERRUPTED
        except BaseException:
            worker.terminate()
            worker.wait()
            raise
        finally:
            shown.close()
    status = folder.recorded_status()
    if status.error is not None:
        raise LabError(status.error.get("what", ""), status.error.get("why", ""), status.error.get("do", ""))
    if worker.returncode:
        raise LabError(
            f"The worker of {folder.id} died (exit code {worker.returncode}).",
            f"All of its log: {folder.log}.",
            f"Resume: {folder.resume_command}",
        )
    (conclude or _conclude)(folder, status, as_json)
    tell_outcomes(folder, record.created, as_json=as_json)
    return INTERRUPTED if interrupts.count else DONE


def _conclude(folder: ExperimentFolder, status: ExperimentStatus, as_json: bool) -> None:
    results = read_results(folder)
    if as_json:
        found = to_plain(asdict(results)) if results is not None else None
        _line({"event": status.state, "experiment": folder.id, "report": str(folder.report), "results": found})
    else:
        print()
        for line in findings_table(folder):
            print(line)
        for note in results.notes if results is not None else []:
            for line in text.hanging("note: ", note):
                print(line)
        print(f"\nReport: {folder.report}")
        if status.state != "finished":
            print(f"Not all runs have ended. Resume: llmlab-run experiment resume {folder.id}")


def findings_table(folder: ExperimentFolder) -> Iterator[str]:
    """What came out, a line a number."""
    results = read_results(folder)
    rows = []
    for finding in results.findings if results is not None else []:
        value = finding.choice or ("-" if finding.value is None else f"{finding.value:.4g}")
        spread = "" if finding.low is None or finding.high is None else f"{finding.low:.4g} to {finding.high:.4g}"
        rows.append((finding.name, value, spread, finding.unit, finding.label))
    if rows:
        yield from text.table(("found", "value", "range", "unit", "what"), rows, right=(1,))


class _Shown:
    """What was said already; a line for each run that ends, and how far the plan is: a moving line where the terminal
    can redraw, elsewhere a line now and then."""

    def __init__(self, record: ExperimentRecord, as_json: bool) -> None:
        self._record, self._json = record, as_json
        self._states: dict[str, str] = {}
        self._line = MovingLine() if not as_json and can_redraw() else None
        self._pace = now_and_then()

    def status(self, status: ExperimentStatus) -> None:
        for number, trial in enumerate(self._record.trials, 1):
            one = status.trials.get(trial.name)
            if one is not None and one.state != self._states.get(trial.name):
                first = trial.name not in self._states
                self._states[trial.name] = one.state
                if not (first and one.state == "planned"):
                    self._trial(number, trial.name, trial.run, one, status)
        if self._line is not None:
            self._line.move(*self._words(status), status.share_done, 1.0)
        elif not self._json and (status.trial or status.doing) and self._pace.due():
            print("  ".join(part for part in self._words(status) if part), flush=True)

    def note(self, sentence: str) -> None:
        """A remark of the command itself."""
        self._line.above(sentence) if self._line is not None else say(sentence)

    def close(self) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.close()

    def _trial(self, number: int, name: str, run: str, one: TrialStatus, status: ExperimentStatus) -> None:
        if self._json:
            about = {"event": "trial", "time": time.time(), "name": name, "run": run, **asdict(one)}
            _line(to_plain(about | {"eta_seconds": status.eta_seconds}))
            return
        if one.state in ("running", "planned"):
            return
        left = f", {text.duration(status.eta_seconds)} left" if status.eta_seconds else ""
        loss = f"validation {text.loss(one.val_loss)}" if one.val_loss is not None else ""
        words = "  ".join(part for part in (loss, text.duration(one.wall_seconds) if one.wall_seconds else "") if part)
        line = f"{number}/{len(self._record.trials)}  {name}  {one.state}  {words}{left}  {one.note}".rstrip()
        self._line.above(line) if self._line is not None else print(line, flush=True)

    def _words(self, status: ExperimentStatus) -> tuple[str, str]:
        """Which run it is, of how many; and what it does, with the time left for the whole plan."""
        one, all_runs, training = status.trials.get(status.trial), len(self._record.trials), status.training
        at = f"step {one.step}/{one.steps}  loss {text.loss(one.loss)}" if one is not None and one.steps else ""
        left = f"{text.duration(status.eta_seconds)} left" if status.eta_seconds is not None else ""
        place = f"run {min(status.ended_trials + 1, all_runs)}/{all_runs}" if all_runs else ""
        if len(training) > 1:
            place = f"runs {status.ended_trials + 1}-{status.ended_trials + len(training)}/{all_runs}"
            at = ", ".join(f"{name} {trial.step}/{trial.steps}" for name, trial in training.items())
            return place, "  ".join(part for part in (status.doing or at, left) if part)
        return place, "  ".join(part for part in (status.trial, status.doing or at, left) if part)


def _line(values: dict[str, Any]) -> None:
    print(json.dumps(values, ensure_ascii=False, allow_nan=False), flush=True)
