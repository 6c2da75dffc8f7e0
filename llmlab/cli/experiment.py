"""`experiment`: plans, runs, resumes and reports a group of runs that vary one setting."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from llmlab.cli import text
from llmlab.cli import words as options
from llmlab.cli.experiment_follow import begin, cancel, findings_table, follow, standing
from llmlab.cli.output import DONE, print_answer, print_json
from llmlab.core.config import parse_assignments, with_overrides
from llmlab.core.errors import LabError, UsageError, unknown
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.presets import DEFAULT_PRESET, FINETUNE_PRESET, of_preset, preset_names
from llmlab.core.settings import PretrainSettings
from llmlab.store.registry import resolve_run, short_name
from llmlab.studies.experiments.kinds import FINETUNING, KINDS, PRETRAINING, Kind, find_kind
from llmlab.studies.experiments.outcomes import read_results, write_results
from llmlab.studies.experiments.plan import Request, lean, make_plan
from llmlab.studies.plans.records import (
    EXPERIMENTS,
    ExperimentFolder,
    ExperimentRecord,
    ExperimentStatus,
    find_plan,
    list_plans,
    settings_of,
)

_ACTIONS = ("list", "show", "resume", "cancel", "report")


def add_commands(commands: options.Commands) -> None:
    parser = commands.add(
        "experiment", experiment, "vary one thing, predict, run, and read the report", kinds=", ".join(KINDS)
    )
    parser.add_argument("what", metavar="KIND|ACTION", help="an experiment, or list, show, resume, cancel, report")
    parser.add_argument(
        "target", metavar="RUN|ID", nargs="?", help="loss-curves: the run; actions: the experiment's id"
    )
    parser.add_argument("--preset", metavar="NAME", help="where the runs start from, of pretraining or fine-tuning")
    parser.add_argument("--model", metavar="REF", help="fine-tune this base: model.base")
    parser.add_argument("--data", metavar="NAME|PATH", help="fine-tuning examples: data.source")
    parser.add_argument("--corpus", metavar="NAME|PATH", help="what pretraining reads: data.corpus")
    options.add_settings(parser)
    parser.add_argument("--seed", metavar="N", help="the first seed: train.seed")
    options.add_settings_file(parser)
    parser.add_argument("--grid", metavar="A,B,...", help="values of what is varied")
    parser.add_argument(
        "--compare",
        metavar="A,B",
        help="what to compare: lora,full; attention,all; baseline,record (speedrun); values of n_embd",
    )
    parser.add_argument("--seeds", metavar="N", type=int, default=0, help="runs a value")
    parser.add_argument("--general", metavar="CORPUS", default="", help="forgetting: the general text")
    parser.add_argument("--target", metavar="LOSS", type=float, dest="loss", help="loss-curves: a loss to time")
    parser.add_argument("--name", help="the experiment's id (default: made from date and kind)")
    parser.add_argument("--plan", action="store_true", help="print the plan and its time, and run nothing")
    options.add_jobs(parser)
    options.add_cluster(parser)
    options.add_take_over(parser)
    options.add_predict(parser)
    options.add_outputs(parser)


def experiment(args: argparse.Namespace) -> int:
    if args.what in _ACTIONS:
        return {"list": _list, "show": _show, "resume": _resume, "cancel": _cancel, "report": _report}[args.what](args)
    if args.what not in KINDS:
        raise unknown("experiment or action", args.what, [*KINDS, *_ACTIONS])
    return _begin(args, find_kind(args.what))


def _begin(args: argparse.Namespace, kind: Kind) -> int:
    outputs = options.outputs_of(args)
    record = make_plan(_request(args, kind, outputs))
    folder = ExperimentFolder(outputs / EXPERIMENTS / record.id)

    def is_same(before: ExperimentRecord) -> bool:
        # As settings: those of an earlier version lack what was added since, which then has its default.
        both = (before, record)
        plans = [(one.kind, settings_of(one), [trial.settings for trial in one.trials], one.subject) for one in both]
        return plans[0] == plans[1]

    record = standing(folder, record, is_same, "It was started with other settings.")
    if args.plan:
        return print_answer(args, asdict(record), (*_plan_lines(record), *_trial_table(record)))
    return begin(folder, record, _plan_lines(record), args)


def _request(args: argparse.Namespace, kind: Kind, outputs: Path) -> Request:
    predictions = [prediction.as_dict() for prediction in args.predictions]
    request = partial(Request, kind=kind, outputs=outputs, predictions=predictions, command=command_of(args))
    if not kind.trains:
        if args.target is None:
            raise UsageError(
                f"{kind.name} analyses a run, and none was named.", "", f"llmlab-run experiment {kind.name} RUN"
            )
        run = resolve_run(args.target, outputs).run
        return request(
            settings=run.info().settings,
            id=args.name or f"{run.id[: 59 - len(kind.name)]}-{kind.name}",
            preset=run.info().preset,
            subject=short_name(run, outputs),
            options={} if args.loss is None else {"target": args.loss},
        )
    if args.target is not None:
        raise UsageError(f"{kind.name} takes no {args.target!r}.", "It trains runs of its own.", "")
    track, preset = _track(args, kind)
    assignments = options.finetuning_assignments_of(args) if track == FINETUNING else options.assignments_of(args)
    base = of_preset(FinetuneSettings if track == FINETUNING else PretrainSettings, preset)
    base = with_overrides(base, args.settings, assignments)
    return request(
        settings=lean(base, kind, parse_assignments(assignments)),
        id=args.name or "",
        preset=preset,
        grid=options.parts_of(args.grid),
        groups=options.parts_of(args.compare),
        seeds=args.seeds,
        options={"general": args.general} if args.general else {},
    )


def _track(args: argparse.Namespace, kind: Kind) -> tuple[str, str]:
    """pretraining or finetuning, as the words say, and the preset."""
    fine_tunes = bool(args.model or args.data) or kind.tracks == (FINETUNING,)
    if args.preset is not None:
        fine_tunes |= args.preset in preset_names(FinetuneSettings) and args.preset not in preset_names()
    if fine_tunes and FINETUNING not in kind.tracks:
        hint = "Leave out --model, --data and presets of fine-tuning."
        raise UsageError(f"{kind.title} is an experiment of pretraining.", "", hint)
    if fine_tunes:
        return FINETUNING, args.preset or FINETUNE_PRESET
    return PRETRAINING, args.preset or DEFAULT_PRESET


def _plan_lines(record: ExperimentRecord) -> Iterator[str]:
    yield f"{record.id}: {record.title}"
    yield from text.hanging("  question    ", record.question)
    yield from text.hanging("  hypothesis  ", record.hypothesis)
    if record.trials:
        yield from text.hanging("  varied      ", record.varies)
        seeds = f", {len(record.seeds)} seeds each" if len(record.seeds) > 1 else ""
        runs = text.counted(len(record.trials), "run")
        yield f"  plan        {runs}{seeds}, about {text.duration(record.estimated_seconds)}"
    for prediction in record.predictions:
        yield f"  predicted   {prediction.get('quantity', 'something that is damaged')} (locked now)"


def _trial_table(record: ExperimentRecord) -> Iterator[str]:
    yield ""
    cells = []
    for trial in record.trials:
        changed = (f"{key}={text.value(value)}" for key, value in trial.settings.items() if key != "train.seed")
        cells.append((trial.name, str(trial.seed), text.duration(trial.estimated_seconds), ", ".join(changed)))
    yield from text.table(("run", "seed", "about", "changed"), cells, right=(1, 2))


def _list(args: argparse.Namespace) -> int:
    outputs = options.outputs_of(args)
    rows = []
    for folder in list_plans(outputs, ExperimentFolder):
        status = folder.status()
        try:
            record = folder.record()
        except LabError:
            rows.append((folder.id, "", "damaged", "", "", ""))
            continue
        left = text.duration(status.eta_seconds) if status.live else ""
        ended = f"{status.ended_trials}/{len(record.trials)}" if record.trials else "-"
        rows.append((folder.id, record.kind, status.state, ended, left, text.ago(record.created)))
    names = ("id", "kind", "state", "runs", "left", "begun")
    table = text.table(("experiment", *names[1:-1], "started"), rows, right=(3, 4))
    none = [f"There are no experiments in {outputs} yet. Start with: llmlab-run experiment learning-rate --steps 200"]
    return print_answer(args, [dict(zip(names, row, strict=True)) for row in rows], table if rows else none)


def _show(args: argparse.Namespace) -> int:
    folder = _named(args)
    record, status, results = folder.record(), folder.status(), read_results(folder)
    found = asdict(results) if results is not None else None
    value = {"record": asdict(record), "status": asdict(status), "results": found}
    return print_answer(args, value, _description(folder, record, status))


def _description(folder: ExperimentFolder, record: ExperimentRecord, status: ExperimentStatus) -> Iterator[str]:
    yield from _plan_lines(record)
    at = ", ".join(status.training) or status.trial
    yield f"  state       {status.state}{f', at {at}' if at else ''}"
    if status.error:
        yield f"  error       {' '.join(part for part in status.error.values() if part)}"
    yield ""
    rows = []
    for trial in record.trials:
        one = status.trials.get(trial.name)
        if one is not None:
            steps = f"{one.step}/{one.steps}" if one.steps else ""
            rows.append((trial.run, one.state, steps, text.loss(one.val_loss), one.note))
    if rows:
        yield from text.table(("run", "state", "step", "validation", ""), rows, right=(2, 3))
    if found := list(findings_table(folder)):
        yield from ("", *found)
    if folder.report.is_file():
        yield f"\nReport: {folder.report}"


def _resume(args: argparse.Namespace) -> int:
    return follow(_named(args), args)


def _cancel(args: argparse.Namespace) -> int:
    return cancel(_named(args), args)


def _report(args: argparse.Namespace) -> int:
    from llmlab.studies.experiments.results import build_results
    from llmlab.studies.report import write_report

    folder = _named(args)
    record = folder.record()
    results = build_results(folder, record, look_closely=True)
    write_results(folder, results)
    path = write_report(folder, record, results)
    if args.json:
        print_json({"report": str(path), "complete": results.complete})
    else:
        _print_report(path.read_text(encoding="utf-8"))
        figures = f"\nFigures: {folder.figures}" if folder.figures.is_dir() else ""
        print(f"{figures}\nReport: {path}")
    return DONE


def _print_report(report: str) -> None:
    """As it is in the file; on a terminal as headings and tables, without the figures."""
    if not sys.stdout.isatty():
        print(report, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    words = "\n".join(line for line in report.split("\n") if not line.startswith("!["))
    Console().print(Markdown(text.printable(words), hyperlinks=False))


def _named(args: argparse.Namespace) -> ExperimentFolder:
    if args.target is None:
        raise UsageError(f"{args.what} needs an experiment's id.", "", "`llmlab-run experiment list` lists them.")
    return find_plan(args.target, options.outputs_of(args), ExperimentFolder)


def command_of(args: argparse.Namespace) -> str:
    """The command line, without what names only a place on this machine, or how much of it to use."""
    words: list[str] = args.words
    left_out = ("--outputs", "--jobs", "--cluster", "--cluster-set")
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if before not in left_out and word.partition("=")[0] not in left_out
    ]
    return shlex.join(["llmlab-run", *kept])
