"""Papers, claims and verdicts as pages: the Markdown that the docks of the workspace Paper show. Touches no Qt."""

from __future__ import annotations

from collections.abc import Iterator

from llmlab.core.charts import Table
from llmlab.data.papers import PAPERS_DIR, Paper
from llmlab.notebook.words import altered_sentence
from llmlab.studies.papers.own import OwnPaper
from llmlab.studies.papers.records import Verdict
from llmlab_gui.pages.page import PAPERS, Page
from llmlab_gui.pages.papers import title_and_notes
from llmlab_gui.paper import claim_rows

# Anyone may have written a verdict.json: what is longer than people read is cut.
_LONGEST_TEXT, _LONGEST_CELL, _MOST_ROWS, _MOST_COLUMNS, _MOST_TABLES = 4000, 200, 60, 16, 20
_WHAT_TO_DO = {
    claim_rows.NO_TEST: "The lab has no test of this claim. Below: what would support or refute it.",
    claim_rows.NO_CHECK: "Choose a size in Check and press Run: you are asked for your prediction first.",
    claim_rows.NOT_ASKED: "The check that is shown was not asked about it. Tick it in Check, and run another.",
    claim_rows.NO_VERDICT: "The check finished without a verdict on it: Check report says more.",
    "planned": "The check has not started. Press Resume in Check.",
    "running": "The check is running: a verdict appears here as soon as there is something to judge.",
    "stopped": "The check was stopped before there was anything to judge. Press Resume in Check: nothing is lost.",
    "interrupted": "The check was interrupted. Press Resume in Check: finished runs are kept.",
    "failed": "The check failed before there was anything to judge. Check says why; Resume tries again.",
}


def notes_page(paper: Paper) -> Page:
    """What the paper says and what is contested, with its authors and links under the title."""
    title, notes = title_and_notes(paper)
    links = " · ".join(f"[{link.partition('://')[2]}]({link})" for link in paper.links)
    text = "\n\n".join([f"# {title}", f"{paper.title}. {paper.authors}, {paper.year}.", links, notes])
    return Page(f"papers/{paper.name}", title, text, PAPERS, PAPERS_DIR / paper.name)


def own_page(own: OwnPaper) -> Page:
    """A reader's own paper: what is still to be answered, then the notes."""
    paper = own.paper
    links = " · ".join(f"[{link.partition('://')[2] or link}]({link})" for link in paper.links)
    about = f"{paper.authors}, {paper.year}" if paper.authors and paper.year else ""
    if own.problem is not None:
        lacks = f"**It cannot be read.** {own.problem}"
    elif own.missing:
        lacks = "\n".join([f"**{own.standing.capitalize()}:**", "", *(f"- {one.sentence}" for one in own.missing)])
    else:
        lacks = "**Complete.** Each question has its answer."
    notes = paper.notes.partition("\n")[2].strip() if paper.notes.startswith("# ") else paper.notes
    parts = [f"# {paper.title}", about, links, lacks, notes]
    return Page(f"papers/{paper.name}", paper.title, "\n\n".join(part for part in parts if part), PAPERS, own.folder)


def claim_page(row: claim_rows.ClaimRow) -> Page:
    """What a claim says, what was found, and what that rests on. Its title and verdict stand above it."""
    return Page(row.claim.id, row.claim.title, "\n\n".join(_parts(row)))


def _parts(row: claim_rows.ClaimRow) -> Iterator[str]:
    claim, verdict = row.claim, row.verdict
    if verdict is None:
        yield _WHAT_TO_DO.get(row.state, _WHAT_TO_DO["stopped"])
    else:
        yield from _found(verdict, final=row.final)
    if row.predicted is not None:
        yield f"**You expected:** {claim_rows.prediction_text(row)}. {altered_sentence(row.predicted)}".rstrip()
    if claim.statement:
        yield f"**The claim.** {claim.statement}" + (f" ({claim.where.rstrip('.')}.)" if claim.where else "")
    for label, words in (
        ("Of what", claim.about),
        ("Measured", claim.measured),
        ("Control", claim.control),
        ("Supported by", claim.supports),
        ("Refuted by", claim.refutes),
        ("Tested here", claim.test),
        ("The paper's own bound", claim.papers_criterion if verdict is None else ""),
        ("Contested", claim.contested),
    ):
        if words:
            yield f"**{label}.** {words}"
    if verdict is not None:
        for table in verdict.tables[:_MOST_TABLES]:
            yield from _table(table)


def _found(verdict: Verdict, *, final: bool) -> Iterator[str]:
    if not final:
        yield "*So far: the check has not finished, and this may change.*"
    yield _sentence(verdict.reason)
    seeds = ", ".join(str(seed) for seed in verdict.seeds[:20])
    about = [f"{_cell(verdict.statistic.name)} **{_cell(claim_rows.value_text(verdict.statistic, verdict.interval))}**"]
    if verdict.p is not None:
        about.append(f"p {_equals(claim_rows.p_text(verdict.p))} after Holm's correction")
    about.append(f"n = {verdict.n:,}")
    if seeds:
        about.append(f"seeds {seeds}" if len(verdict.seeds) > 1 else f"seed {seeds}")
    yield " · ".join(about)
    yield f"**Threshold.** {_sentence(verdict.threshold)}"
    own = {True: " passes", False: " fails", None: ""}[verdict.papers_criterion.passes]
    yield f"**The paper's own criterion{own}.** {_sentence(verdict.papers_criterion.words)}"


def _table(table: Table) -> Iterator[str]:
    columns = [_cell(name) for name in table.columns[:_MOST_COLUMNS]]
    if not columns:
        return
    yield f"**{_cell(table.title)}**"
    lines = [_line(columns), _line(["---"] * len(columns))]
    for row in table.rows[:_MOST_ROWS]:
        cells = [_cell(cell) for cell in row[: len(columns)]]
        lines.append(_line([*cells, *[""] * (len(columns) - len(cells))]))
    yield "\n".join(lines)
    if len(table.rows) > _MOST_ROWS:
        yield f"{len(table.rows) - _MOST_ROWS:,} more rows are in verdict.json."


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """In one line, without what would end a cell."""
    return " ".join(text[:_LONGEST_CELL].replace("|", "\\|").split())


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    if len(text) > _LONGEST_TEXT:
        return f"{text[:_LONGEST_TEXT]}…"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _equals(text: str) -> str:
    return text if text.startswith("<") else f"= {text}"
