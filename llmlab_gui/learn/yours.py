"""What the reader's own runs and answers show, on pages of the first hour: in place of what these quote of ours."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from llmlab.core.errors import LabError
from llmlab.notebook.words import outcome_sentence, surprise_text
from llmlab.practice.deck import Deck
from llmlab.practice.question import LOOK_INSIDE
from llmlab.store.history import RunHistory, read_history
from llmlab.store.registry import list_runs, runs_called
from llmlab.studies.lab_notebook import lab_notebook
from llmlab.studies.papers.checks import options_of
from llmlab.studies.papers.records import read_result
from llmlab.studies.plans.records import CheckFolder, list_plans
from llmlab_gui.pages.page import Page

# The paragraphs that quote the lab's own runs begin so.
_OURS = re.compile(r"^For this page\b.*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
# What the question of the third page begins with.
_GIVEN = re.compile(r"(?<=^\? With four layers the validation loss) ended at [\d.]*\d", re.MULTILINE)


@dataclass(frozen=True)
class Yours:
    """told: what the runs of a page show, in a few sentences; "" where they are not there, or have not ended. given:
    the loss of the run before, in nats, that the page's question begins with."""

    told: str = ""
    given: float | None = None


def with_yours(page: Page, mine: Yours) -> Page:
    """The page with what the reader's runs show in place of what the lab's showed; as it is where nothing is told."""
    text = page.text
    if mine.given is not None:
        text = _GIVEN.sub(f" of your `first-gpt` ended at {mine.given:.3f}", text, count=1)
    if mine.told:
        text = _OURS.sub(lambda _: f"**Yours.** {mine.told}", text, count=1)
    return replace(page, text=text) if text != page.text else page


def yours(page: str, outputs: Path) -> Yours:
    """What the reader's runs have for that page."""
    tell = _PAGES.get(page)
    four = _run(outputs, "first-gpt") if tell is _one_layer else None
    return Yours(tell(outputs) if tell is not None else "", _losses(four)[1][-1] if four is not None else None)


def _first(outputs: Path) -> str:
    run = _run(outputs, "first-gpt")
    if run is None:
        return ""
    steps, losses = _losses(run)
    known = run.started.unigram_loss if run.started is not None else None
    counted = f" Knowing how often each token occurs costs {known:.2f}." if known else ""
    said = _first_line(run.samples[-1].samples[0]["text"]) if run.samples and run.samples[-1].samples else ""
    wrote = f" At the end it wrote “{said}”{'' if said[-1] in '.!?' else '.'}" if said else ""
    minutes = run.active_seconds / 60
    return (
        f"The validation loss of `first-gpt` went from {losses[0]:.3f} "
        f"to {losses[-1]:.3f} in {steps[-1]:,.0f} steps, a "
        f"perplexity of {math.exp(losses[-1]):,.0f}, after {minutes:.1f} minutes of training.{counted}{wrote}"
    )


def _one_layer(outputs: Path) -> str:
    four, one = _run(outputs, "first-gpt"), _run(outputs, "one-layer")
    if four is None or one is None:
        return ""
    before, after = _losses(four)[1][-1], _losses(one)[1][-1]
    differs = after - before
    side = "above" if differs > 0 else "below"
    return (
        f"`one-layer` ended at {after:.3f} and `first-gpt` with four "
        f"at {before:.3f}: one layer is {abs(differs):.3f} nats "
        f"{side} four. It trained for {one.active_seconds / 60:.1f} minutes instead of {four.active_seconds / 60:.1f}."
    )


def _answers(outputs: Path) -> str:
    run = _run(outputs, "answers")
    if run is None or len(run.scores) < 2:
        return ""
    _, losses = _losses(run)
    first, last = run.scores[0], run.scores[-1]
    item = last.items[0] if last.items else {}
    prompt, answer = (_first_line(str(item.get(name, ""))) for name in ("prompt", "answer"))
    asked = f" Asked “{prompt}” it answers “{answer}”." if prompt and answer else ""
    return (
        f"The validation loss of `answers` went from {losses[0]:.3f} to {losses[-1]:.3f} nats. {first.correct} of "
        f"{first.total} held-out questions were answered right before, "
        f"and {last.correct} of {last.total} at the end.{asked}"
    )


def _look(outputs: Path) -> str:
    """What the page's questions were answered with, about the run as it is now."""
    run = _run(outputs, "first-gpt")
    if run is None or run.finished is None:
        return ""
    told: dict[str, str] = {}
    try:
        answers = Deck(outputs).read().answers
    except LabError:  # damaged: Practice says so
        return ""
    for answer in answers:
        own = answer.concept == LOOK_INSIDE and _run_of(answer.model) == "first-gpt"
        if own and answer.time > run.finished.time:
            told[answer.kind] = _first_line(answer.how)
    return " ".join(told.values()) if len(told) == 2 else ""  # what it tells answers both


def _sink(outputs: Path) -> str:
    """The newest verdict on the first hour's model, and what was predicted of it."""
    for folder in list_plans(outputs, CheckFolder):
        try:
            record, result = folder.record(), read_result(folder.results_json)
            models = options_of(record).models
        except LabError:  # it has not ended, or is damaged
            continue
        verdict = next((one for one in result.verdicts if one.claim == "sink"), None)
        if result.paper != "attention-sinks" or verdict is None or [*map(_run_of, models)] != ["first-gpt"]:
            continue
        lines = lab_notebook(outputs).read().lines(folder, record.created, record.predictions)
        predicted = [
            f"{outcome_sentence(line)} {surprise_text(line.surprise)}." for line in lines if line.surprise is not None
        ]
        return " ".join([f"The verdict is **{verdict.verdict}**. {verdict.reason.partition('. ')[0]}.", *predicted])
    return ""


_PAGES: dict[str, Callable[[Path], str]] = {
    "first-hour/1-train": _first,
    "first-hour/2-look-inside": _look,
    "first-hour/3-predict": _one_layer,
    "first-hour/4-fine-tune": _answers,
    "first-hour/5-check-a-claim": _sink,
}


def _run(outputs: Path, name: str) -> RunHistory | None:
    """The past of the run called so, if it has finished and was evaluated."""
    found = runs_called(name, list_runs(outputs))
    try:
        history = read_history(found[0], every_step=False) if len(found) == 1 else None
    except LabError:  # damaged: the page quotes the lab's run
        return None
    return history if history is not None and history.finished is not None and len(history.evaluations) > 1 else None


def _run_of(reference: str) -> str:
    """The run's name in `outputs/pretraining/first-gpt@final`."""
    return PurePath(reference.rpartition("@")[0]).name


def _losses(run: RunHistory) -> tuple[list[float], list[float]]:
    return run.evaluations["step"].tolist(), run.evaluations["val_loss"].tolist()


def _first_line(text: str) -> str:
    """What a model wrote is no Markdown."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return re.sub(r"[`*_<>\[\]]", "", line)
