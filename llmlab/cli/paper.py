"""`paper`: what papers claim, and whether it holds here, in a terminal."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, replace

from llmlab.cli import text
from llmlab.cli.experiment import command_of
from llmlab.cli.experiment_follow import begin, cancel, follow, standing
from llmlab.cli.output import DONE, FAILED, print_answer, print_json
from llmlab.cli.words import Commands, add_cluster, add_jobs, add_outputs, add_take_over, outputs_of, parts_of
from llmlab.core.errors import LabError, UsageError, unknown
from llmlab.core.kinds import PAPERS
from llmlab.data.papers import SIZES, Paper, list_papers, read_paper
from llmlab.notebook.locked import read_locked
from llmlab.notebook.predictions import parse_check_prediction
from llmlab.notebook.quantities import CLAIM
from llmlab.notebook.words import stated
from llmlab.studies.papers.agreement import SEEDS_AGREEING
from llmlab.studies.papers.checks import (
    CheckRequest,
    claims_tested,
    inconclusive_anyway,
    inconclusive_words,
    options_of,
    plan_check,
)
from llmlab.studies.papers.own import CLAIMS_FILE, NOTES_FILE, OwnPaper, find_own_paper, own_papers
from llmlab.studies.papers.own_answers import new_paper
from llmlab.studies.papers.records import CheckResult, read_result
from llmlab.studies.plans.records import (
    CheckFolder,
    ExperimentFolder,
    ExperimentRecord,
    ExperimentStatus,
    find_plan,
    list_plans,
    settings_of,
)


def add_commands(commands: Commands) -> None:
    parser = commands.add("paper", paper, "read a paper's claims, and check whether they hold here")
    parser.add_argument("what", metavar="ACTION", help=", ".join(_ACTIONS))
    parser.add_argument("target", metavar="PAPER|ID", nargs="?", help="a paper's name, or a check's id")
    parser.add_argument("--size", default=SIZES[0], metavar="|".join(SIZES), help="how much is trained")
    parser.add_argument("--claims", metavar="A,B", default="", help="only these claims")
    parser.add_argument(
        "--model",
        metavar="REF",
        action="append",
        default=[],
        help="test claims about pretrained models on this one; may be given again (default: those that are here)",
    )
    parser.add_argument("--seeds", metavar="N", type=int, default=0, help="seeds of each task (default: the size's)")
    parser.add_argument("--name", default="", help="the check's id (default: made from date and paper)")
    parser.add_argument(
        "--predict",
        metavar="WHAT",
        dest="predictions",
        action="append",
        default=[],
        help="the verdict that you expect on a claim, locked before the start and scored at the end: "
        'keys="not supported@60%%"; again for each',
    )
    parser.add_argument("--title", default="", help="of the paper that `new` begins")
    parser.add_argument("--link", metavar="URL", default="", help="where that paper can be read")
    parser.add_argument("--plan", action="store_true", help="print the runs and their time, and start nothing")
    add_jobs(parser)
    add_cluster(parser)
    add_take_over(parser)
    add_outputs(parser)


def paper(args: argparse.Namespace) -> int:
    if args.what not in _ACTIONS:
        raise unknown("action", args.what, _ACTIONS)
    if args.what != "list" and args.target is None:
        raise UsageError(f"{args.what} needs a name.", "", "`llmlab-run paper list` lists papers and checks.")
    if args.predictions and args.what != "run":
        raise UsageError(f"{args.what} takes no --predict.", "What is predicted comes before the start: paper run.", "")
    return _ACTIONS[args.what](args)


def _list(args: argparse.Namespace) -> int:
    papers, own, checks = list_papers(), own_papers(outputs_of(args)), list_plans(outputs_of(args), CheckFolder)
    about = [{"name": one.name, "title": one.title, "claims": [claim.id for claim in one.claims]} for one in papers]
    states = [{"id": one.id, "state": one.status().state} for one in checks]
    yours = [
        {"name": one.paper.name, "title": one.paper.title, "standing": one.standing, "folder": str(one.folder)}
        for one in own
    ]
    return print_answer(args, {"papers": about, "own": yours, "checks": states}, _list_lines(papers, own, checks))


def _list_lines(papers: list[Paper], own: list[OwnPaper], checks: list[CheckFolder]) -> Iterator[str]:
    rows = [(one.name, str(one.year), ", ".join(claims_tested(one)) or "-", one.title) for one in papers]
    yield from text.table(("paper", "year", "tested here", "title"), rows)
    if own:
        yield ""
        mine = [(one.paper.name, str(len(one.paper.claims)), one.standing, one.paper.title) for one in own]
        yield from text.table(("your paper", "claims", "notes and claims", "title"), mine, right=(1,))
    if checks:
        yield ""
        yield from text.table(("check", "state", "started", "verdicts"), [_check_row(folder) for folder in checks])


def _check_row(folder: CheckFolder) -> tuple[str, str, str, str]:
    try:
        begun = text.ago(folder.record().created)
    except LabError:
        return folder.id, "damaged", "", ""
    try:
        verdicts = read_result(folder.results_json).each
    except LabError:  # none yet
        verdicts = ""
    return folder.id, folder.status().state, begun, verdicts


def _new(args: argparse.Namespace) -> int:
    folder = new_paper(args.target, outputs_of(args), args.title, args.link)
    lines = (
        f"{folder}",
        f"  {CLAIMS_FILE}  one block per claim, a question above each answer",
        f"  {NOTES_FILE}     what you make of it",
        f"What is still missing: llmlab-run paper missing {args.target}",
    )
    return print_answer(args, {"name": args.target, "folder": str(folder)}, lines)


def _missing(args: argparse.Namespace) -> int:
    own = find_own_paper(args.target, outputs_of(args))
    if own is None:
        here = [one.paper.name for one in own_papers(outputs_of(args))]
        why = f"Yours: {', '.join(here)}." if here else "You have none yet."
        raise UsageError(f"There is no paper of yours named {args.target!r}.", why, "llmlab-run paper new NAME")
    value = {
        "name": own.paper.name,
        "complete": not own.missing,
        "missing": [asdict(one) | {"sentence": one.sentence} for one in own.missing],
    }
    print_answer(args, value, _missing_lines(own))
    return FAILED if own.missing else DONE


def _missing_lines(own: OwnPaper) -> Iterator[str]:
    if not own.missing:
        yield f"{own.paper.name} is complete: {text.counted(len(own.paper.claims), 'claim')}, each with its answers."
        return
    yield f"{own.paper.name}: {own.standing}. {own.folder}"
    for where in ("", *(claim.id for claim in own.paper.claims)):
        found = [one for one in own.missing if one.claim == where]
        if found:
            yield f"\n{where or 'the paper itself'}"
        for one in found:
            yield from text.hanging("  ", one.sentence)


def _paper_of(args: argparse.Namespace) -> Paper:
    """The reader's own, or one of the lab's."""
    own = find_own_paper(args.target, outputs_of(args))
    return own.paper if own is not None else read_paper(args.target)


def _show(args: argparse.Namespace) -> int:
    found = _paper_of(args)
    tested = claims_tested(found)
    return print_answer(args, asdict(found) | {"tested": tested}, _paper_lines(found, tested))


def _paper_lines(found: Paper, tested: Collection[str]) -> Iterator[str]:
    yield f"{found.title}\n{found.authors or 'authors not noted'}, {found.year or 'year not noted'}\n"
    yield from (f"  {link}" for link in found.links)
    for claim in found.claims:
        yield f"\n{claim.id}: {claim.title}{'' if claim.id in tested else ' (no runs test it here yet)'}"
        parts = (
            ("claim", claim.statement),
            ("where", claim.where),
            ("of what", claim.about),
            ("measured", claim.measured),
            ("control", claim.control),
            ("supports", claim.supports),
            ("refutes", claim.refutes),
            ("test", claim.test),
            ("the paper", claim.papers_criterion),
            ("contested", claim.contested),
        )
        for name, words in parts:
            if words:
                yield from text.hanging(f"  {name:10} ", words)


def _run(args: argparse.Namespace) -> int:
    outputs = outputs_of(args)
    claims = parts_of(args.claims)
    paper = _paper_of(args)
    record = plan_check(
        CheckRequest(paper, args.size, outputs, claims, args.seeds, args.model, args.name, command_of(args))
    )
    tested = options_of(record).claims
    predictions = [parse_check_prediction(line, paper, tested) for line in args.predictions]
    undecided = {f"{CLAIM}{paper.name}/{id}" for id in inconclusive_anyway(record)}
    if undecided & {prediction.quantity for prediction in predictions}:
        do = f"Ask for as many with --seeds {SEEDS_AGREEING}, or leave out that --predict."
        raise UsageError("What is predicted cannot come true or fail.", inconclusive_words(record), do)
    planned = replace(record, predictions=[prediction.as_dict() for prediction in predictions])
    folder = CheckFolder(outputs / PAPERS / record.id)

    def is_same(before: ExperimentRecord) -> bool:
        # As settings, which an earlier version may call otherwise; times are estimated anew, and on any machine.
        both = (before, planned)
        options = [replace(options_of(one), judging_seconds=0.0) for one in both]
        trials = [[(trial.run, settings_of(one, trial)) for trial in one.trials] for one in both]
        return options[0] == options[1] and trials[0] == trials[1]

    record = standing(folder, planned, is_same, "It was started with other claims, seeds or sizes.")
    if args.plan:
        rows = [(trial.name, str(trial.seed), text.duration(trial.estimated_seconds)) for trial in record.trials]
        table = text.table(("run", "seed", "about"), rows, right=(1, 2))
        return print_answer(args, asdict(record), (*_plan_lines(record), *table))
    return begin(folder, record, _plan_lines(record), args, _conclude)


def _plan_lines(record: ExperimentRecord) -> Iterator[str]:
    asked = options_of(record)
    parts = [text.counted(len(record.trials), "run")] * bool(record.trials) + asked.models
    about = f"about {text.duration(record.estimated_seconds)}"
    yield f"{record.id}: {', '.join(asked.claims)}; {', '.join(parts)}, {about}"
    if words := inconclusive_words(record):
        yield f"  {words}"
    for values in record.predictions:
        locked = read_locked(values)
        yield f"  you expect  {'something that is damaged' if locked is None else stated(locked.prediction)}"


def _resume(args: argparse.Namespace) -> int:
    return follow(find_plan(args.target, outputs_of(args), CheckFolder), args, _conclude)


def _cancel(args: argparse.Namespace) -> int:
    return cancel(find_plan(args.target, outputs_of(args), CheckFolder), args)


def _verdict(args: argparse.Namespace) -> int:
    folder = find_plan(args.target, outputs_of(args), CheckFolder)
    result = read_result(folder.results_json)
    return print_answer(args, asdict(result), _verdict_lines(result, folder))


def _conclude(folder: ExperimentFolder, status: ExperimentStatus, as_json: bool) -> None:
    result = read_result(folder.results_json)
    if as_json:
        print_json({"event": status.state, "check": folder.id, "report": str(folder.report), "result": asdict(result)})
        return
    print()
    for line in _verdict_lines(result, folder):
        print(line)
    if status.state != "finished":
        print(f"It has not finished. Resume: {folder.resume_command}")


def _verdict_lines(result: CheckResult, folder: ExperimentFolder) -> Iterator[str]:
    rows = []
    for one in result.verdicts:
        value = "-" if one.statistic.value is None else f"{one.statistic.value:.4g} {one.statistic.unit}".rstrip()
        own = {True: "passes", False: "fails", None: "-"}[one.papers_criterion.passes]
        rows.append((one.claim, one.verdict, f"{one.statistic.name} {value}", own))
    yield from text.table(("claim", "verdict", "statistic", "the paper's criterion"), rows)
    if result.overall:
        yield ""
        yield from text.hanging("", result.overall)
    for one in result.verdicts:
        yield ""
        yield from text.hanging(f"{one.claim}: ", one.reason)
        yield from text.hanging("  threshold  ", one.threshold)
        yield from text.hanging("  the paper  ", one.papers_criterion.words)
    if not result.verdicts:
        yield "No run has ended yet, so nothing can be said."
    yield f"\nReport: {folder.report}"


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "show": _show,
    "new": _new,
    "missing": _missing,
    "run": _run,
    "resume": _resume,
    "cancel": _cancel,
    "verdict": _verdict,
}
