"""The whole notebook as one Markdown file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmlab.core.errors import explained
from llmlab.core.files import write_atomic
from llmlab.notebook.calibration import calibration
from llmlab.notebook.entries import Entry, Line, statements
from llmlab.notebook.words import (
    SURPRISING,
    altered_sentence,
    outcome_text,
    remarks,
    state_words,
    stated,
    surprise_text,
    verdict,
)

# A list of surprises is there to be read.
_MOST_SURPRISES = 10


def save_markdown(entries: Sequence[Entry], path: Path) -> None:
    """Writes it. LabError when that is impossible."""
    with explained(f"{path} could not be written.", "Choose another file."):
        write_atomic(path, notebook_markdown(entries).encode())


def notebook_markdown(entries: Sequence[Entry]) -> str:
    """Calibration, surprises, then every entry, newest first."""
    return "\n".join(_lines(entries)) + "\n"


def _lines(entries: Sequence[Entry]) -> Iterator[str]:
    yield f"# Notebook\n\n{len(entries)} entries, written on {_day(time.time())}.\n"
    yield from _calibration(entries)
    surprising = [entry for entry in entries if (entry.surprise or 0.0) >= SURPRISING]
    surprising.sort(key=lambda entry: -(entry.surprise or 0.0))
    if surprising:
        yield "## Surprises\n"
        for entry in surprising[:_MOST_SURPRISES]:
            sentence = f" {_plain(entry.learned)}" if entry.learned else ""
            yield f"- **{surprise_text(entry.surprise)}** {_code(entry.about)}.{sentence}"
        yield ""
    yield "## Entries"
    for entry in entries:
        yield from _entry(entry)


def _calibration(entries: Sequence[Entry]) -> Iterator[str]:
    found = calibration(statements(entries))
    brier = f" Mean Brier score {found.brier:.3f} (0.25: always saying 50 %)." if found.count else ""
    yield f"## Calibration\n\n{found.verdict}{brier}\n"
    if found.bins:
        yield "| stated | came true | of | share | 95 % interval |"
        yield "| ---: | ---: | ---: | ---: | :---: |"
        for each in found.bins:
            share = f"{100 * each.frequency:.0f} % | {100 * each.low:.0f} to {100 * each.high:.0f} %"
            yield f"| {100 * each.confidence:.0f} % | {each.right} | {each.count} | {share} |"
        yield ""


def _entry(entry: Entry) -> Iterator[str]:
    yield f"\n### {_plain(entry.about)}\n"
    yield f"{_plain(entry.title)}; made {_day(entry.created)}; {state_words(entry)}."
    if entry.result:
        yield f"\nResult: {_plain(entry.result)}"
    yield "\n| predicted | outcome | | distance | Brier | interval score | surprise |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: |"
    yield from (_row(line) for line in entry.lines())
    notes = [
        f"- {_plain(stated(line.locked.prediction))}: {_plain(note)}"
        for line in entry.lines()
        for note in [altered_sentence(line), *remarks(line)]
        if note
    ]
    if notes:
        yield from ("", *notes)
    if entry.learned:
        yield f"\n> Learned: {_plain(entry.learned)}"


def _row(line: Line) -> str:
    prediction, score = line.locked.prediction, line.score
    cells = [_plain(stated(prediction))]
    cells += ["–" if score is None else _plain(outcome_text(prediction, score)), verdict(line) or "–"]
    if score is None or line.altered:
        cells += ["–"] * 4
    else:
        cells += [_number(value) for value in (score.distance, score.brier, score.interval, score.surprise)]
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _plain(words: str) -> str:
    """On one line, with nothing that Markdown would take for its own."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in " ".join(words.split()))


def _code(words: str) -> str:
    return f"`{words.replace('`', '')}`"


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
