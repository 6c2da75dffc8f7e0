"""`notebook`: predictions and their outcomes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llmlab.cli import text
from llmlab.cli.output import print_answer, say
from llmlab.cli.words import Commands, action_of, add_outputs, outputs_of
from llmlab.core.errors import LabError, UsageError
from llmlab.core.paths import expanded
from llmlab.core.records import to_plain
from llmlab.data.papers import VERDICTS
from llmlab.notebook.calibration import Calibration, calibration
from llmlab.notebook.entries import Entry, statements
from llmlab.notebook.markdown import save_markdown
from llmlab.notebook.notebook import Contents, Notebook
from llmlab.notebook.predictions import parse_prediction
from llmlab.notebook.quantities import CHECK, QUANTITIES, STEPS_TO
from llmlab.notebook.words import outcome_sentence, outcome_text, remarks, state_words, stated, surprise_text, verdict
from llmlab.store.registry import resolve_run
from llmlab.store.worker_folder import WorkerFolder
from llmlab.studies.lab_notebook import lab_notebook


def add_commands(commands: Commands) -> None:
    parser = commands.add("notebook", notebook, "your predictions, their outcomes and your calibration")
    parser.add_argument("action", metavar="ACTION", nargs="?", default="list", help=", ".join(_ACTIONS))
    parser.add_argument("rest", metavar="WORD", nargs="*", help="what the action is about")
    add_outputs(parser)


def notebook(args: argparse.Namespace) -> int:
    return action_of(args, _ACTIONS)(args, lab_notebook(outputs_of(args)))


def _list(args: argparse.Namespace, book: Notebook) -> int:
    _words(args, "list")
    contents = _refreshed(book)
    header = ("about", "predicted", "outcome", "", "surprise", "state")
    table = text.table(header, [row for entry in contents.entries for row in _rows(entry)])
    none = ["Nothing was predicted yet. Start with: llmlab-run pretrain --predict val_loss=1.9..2.2@80%"]
    return print_answer(args, [_plain(entry) for entry in contents.entries], table if contents.entries else none)


def _refreshed(book: Notebook) -> Contents:
    """All that is there; what is damaged or missing is said."""
    contents = book.refresh()
    for sentence in contents.damaged:
        say(f"warning: {sentence}")
    return contents


def _show(args: argparse.Namespace, book: Notebook) -> int:
    (about,) = _words(args, "show ID")
    _refreshed(book)
    return _tell(args, book.find(about))


def _predict(args: argparse.Namespace, book: Notebook) -> int:
    if len(args.rest) < 2:
        raise UsageError("Which run, and what?", "", "llmlab-run notebook predict RUN val_loss=1.9..2.2@80%")
    predictions = [parse_prediction(line) for line in args.rest[1:]]
    return _tell(args, book.predict(resolve_run(args.rest[0], outputs_of(args)).run, predictions))


def _score(args: argparse.Namespace, book: Notebook) -> int:
    contents = _refreshed(book)
    if not args.rest:
        scored = [entry for entry in contents.entries if entry.id in contents.fresh]
        lines = [line for entry in scored for line in _description(entry)]
        count = f"{len(scored)} {'entry' if len(scored) == 1 else 'entries'} scored."
        return print_answer(args, [_plain(entry) for entry in scored], [*lines, count])
    entry = book.find(args.rest[0])
    judged = [_judgement(word) for word in args.rest[1:]]
    if not judged:
        entry = book.score(entry)
    for place, outcome in judged:
        entry = book.judge(entry, place, outcome)
    return _tell(args, entry)


def _judgement(word: str) -> tuple[int, str]:
    """`2=right`: place (counted from 0) and outcome."""
    number, sign, outcome = word.partition("=")
    if not sign or not number.isdecimal() or not 1 <= int(number) <= 1000:
        hint = "Write the number of the prediction and what came: 2=right, or 3=5."
        raise UsageError(f"{word!r} does not state the outcome of a prediction.", "", hint)
    return int(number) - 1, outcome.strip()


def _learned(args: argparse.Namespace, book: Notebook) -> int:
    about, sentence = _words(args, 'learned ID "One sentence."')
    _refreshed(book)
    return _tell(args, book.learn(book.find(about), sentence))


def _calibration(args: argparse.Namespace, book: Notebook) -> int:
    _words(args, "calibration")
    found = calibration(statements(_refreshed(book).entries))
    values = {name: getattr(found, name) for name in _CALIBRATION} | {
        "bins": [vars(each) | {"frequency": each.frequency} for each in found.bins],
        "over_time": [vars(moment) for moment in found.over_time],
        "verdict": found.verdict,
    }
    return print_answer(args, values, _calibration_lines(found))


def _calibration_lines(found: Calibration) -> Iterator[str]:
    if found.bins:
        rows = [
            (
                f"{100 * each.confidence:.0f} %",
                f"{each.right} of {each.count}",
                f"{100 * each.frequency:.0f} %",
                f"{100 * each.low:.0f} to {100 * each.high:.0f} %",
            )
            for each in found.bins
        ]
        yield from text.table(("stated", "came true", "share", "95 % interval"), rows, right=(0, 1, 2, 3))
        yield f"Mean Brier score {found.brier:.3f}; always saying 50 % has 0.25."
    yield found.verdict


def _quantities(args: argparse.Namespace, book: Notebook) -> int:
    _words(args, "quantities")
    rows = [
        (
            q.name,
            q.subject or "all of them",
            " or ".join(q.choices) or q.answer,
            ", ".join(filter(None, (q.title, q.unit))),
        )
        for q in QUANTITIES
    ]
    rows.insert(8, (f"{STEPS_TO}2.5", "run", "number", "steps until the validation loss is 2.5, or any other loss"))
    verdicts = "what a check of a paper says of a claim; `llmlab-run paper show PAPER` lists its claims"
    rows.insert(-2, ("the id of a claim", CHECK, " or ".join(VERDICTS), verdicts))
    table = text.table(("quantity", "of a", "answer", "what it is"), rows)
    return print_answer(args, [vars(quantity) for quantity in QUANTITIES], table)


def _export(args: argparse.Namespace, book: Notebook) -> int:
    (name,) = _words(args, "export FILE.md")
    path = expanded(Path(name))
    entries = _refreshed(book).entries
    save_markdown(entries, path)
    return print_answer(args, {"path": str(path), "entries": len(entries)}, [f"Wrote {path}."])


_ACTIONS: dict[str, Callable[[argparse.Namespace, Notebook], int]] = {
    "list": _list,
    "show": _show,
    "predict": _predict,
    "score": _score,
    "learned": _learned,
    "calibration": _calibration,
    "quantities": _quantities,
    "export": _export,
}


def _words(args: argparse.Namespace, usage: str) -> list[str]:
    """The words after the action, as many as its usage has."""
    wanted = 2 if usage.startswith("learned") else len(usage.split()) - 1
    if len(args.rest) != wanted:
        raise UsageError(f"notebook {args.action} takes {text.counted(wanted, 'word')}.", "", f"notebook {usage}")
    return list(args.rest)


def _tell(args: argparse.Namespace, entry: Entry) -> int:
    return print_answer(args, _plain(entry), _description(entry))


def _description(entry: Entry) -> Iterator[str]:
    yield f"{entry.about}: {entry.title}; {state_words(entry)}"
    if entry.result:
        yield f"  {entry.result}"
    for line in entry.lines():
        yield from text.hanging(f"  {line.place + 1}  ", outcome_sentence(line))
        if line.score is not None and not line.altered:
            parts = (
                ("distance", line.score.distance, " half widths"),
                ("Brier score", line.score.brier, ""),
                ("interval score", line.score.interval, ""),
            )
            words = [f"{name} {value:.3g}{unit}" for name, value, unit in parts if value is not None]
            words += [f"surprise {surprise_text(line.score.surprise)}"] if line.score.surprise is not None else []
            if words:
                yield f"     {', '.join(words)}"
        for remark in remarks(line):
            yield f"     {remark}"
    if entry.learned:
        yield from text.hanging("  learned  ", entry.learned)


def _rows(entry: Entry) -> Iterator[tuple[str, ...]]:
    for line in entry.lines():
        prediction, score = line.locked.prediction, line.score
        yield (
            entry.about,
            stated(prediction),
            "" if score is None else outcome_text(prediction, score),
            verdict(line),
            "" if line.surprise is None else f"{line.surprise:.1f} bits",
            state_words(entry),
        )


def _plain(entry: Entry) -> dict[str, Any]:
    altered = {str(line.place): line.altered for line in entry.lines() if line.altered}
    more = {"state": entry.state, "surprise": entry.surprise, "altered": altered}
    return to_plain(entry.as_dict() | more)


_CALIBRATION = ("count", "right", "altered", "confidence", "brier", "low", "high")


def tell_outcomes(folder: WorkerFolder, created: float, *, as_json: bool) -> None:
    """Scores what was predicted about a run, experiment or check that has just ended, and says what became of it.

    as_json: on stderr, since stdout belongs to the events. A notebook that cannot be written is a remark, no failure:
    the run is done, and the next look at the notebook scores it.
    """
    show = say if as_json else print
    try:
        contents = lab_notebook(folder.outputs).refresh()
    except LabError as error:
        say(f"warning: {error}")
        return
    entry = contents.about(folder, created)
    if entry is None or (entry.scored_at is None and not any(line.altered for line in entry.lines())):
        return
    show("")
    for line in entry.lines():
        bits = surprise_text(line.surprise)
        show(f"{outcome_sentence(line)}{f' {bits[:1].upper()}{bits[1:]}.' if bits else ''}")
    show(f'What did you learn? llmlab-run notebook learned {entry.id} "One sentence."')
