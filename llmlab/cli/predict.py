"""`--predict`: the user's predictions, locked before the start, and their outcomes."""

from __future__ import annotations

import argparse

from llmlab.cli.output import say
from llmlab.cli.words import Parser
from llmlab.core.errors import LabError
from llmlab.notebook.predictions import Prediction, parse_prediction
from llmlab.notebook.words import outcome_sentence, surprise_text
from llmlab.store.worker_folder import WorkerFolder
from llmlab.studies.lab_notebook import lab_notebook


def add_predict(parser: Parser) -> None:
    """--predict PREDICTION, again for each."""
    parser.add_argument(
        "--predict",
        metavar="WHAT",
        dest="predictions",
        action="append",
        type=parse_prediction,
        default=[],
        help="what you expect, locked before the start and scored at the end: val_loss=1.9..2.2@80%%; again for each "
        "(`llmlab-run notebook quantities` lists what can be predicted)",
    )


def predictions_of(args: argparse.Namespace) -> list[Prediction]:
    """What the command line predicts; what cannot be read was refused when the words were read."""
    return list(args.predictions)


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
