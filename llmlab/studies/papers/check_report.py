"""report.md of a check: its verdicts, what they rest on, and how to repeat it. Every number is one of verdict.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llmlab.core.charts import Table
from llmlab.core.figures import draw_charts
from llmlab.core.files import write_atomic
from llmlab.data.papers import read_paper
from llmlab.notebook.entries import Entry
from llmlab.notebook.quantities import CLAIM
from llmlab.notebook.seals import LATE
from llmlab.notebook.words import altered_sentence, said
from llmlab.studies.experiments.records import ExperimentFolder, ExperimentRecord
from llmlab.studies.experiments.report import entry_of
from llmlab.studies.papers.records import CheckResult, Verdict


def write_check_report(folder: ExperimentFolder, record: ExperimentRecord, result: CheckResult) -> Path:
    """Draws the figures and writes report.md; returns it. Raises OSError."""
    for verdict in result.verdicts:
        draw_charts(verdict.charts, folder.figures)
    lines = list(_lines(record, result, entry_of(folder, record)))
    write_atomic(folder.report, ("\n".join(lines) + "\n").encode())
    return folder.report


def _lines(record: ExperimentRecord, result: CheckResult, entry: Entry | None) -> Iterator[str]:
    paper, predicted = read_paper(result.paper), dict(_predictions(entry))
    yield f"# {paper.title}: does it hold here?"
    yield ""
    yield "| claim | verdict | statistic | interval | p | the paper's own criterion |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for verdict in result.verdicts:
        yield _row(verdict)
    yield ""
    if result.overall:
        yield result.overall
        yield ""
    if not result.verdicts:
        yield "No run has ended yet, so nothing can be said."
        yield ""
    for verdict in result.verdicts:
        claim = paper.claim(verdict.claim)
        yield f"## {claim.title}: {verdict.verdict}"
        yield ""
        yield f"The paper: {claim.statement}"
        yield ""
        yield verdict.reason
        yield ""
        if expected := predicted.get(verdict.claim):
            yield f"- {expected}"
        yield f"- Threshold: {verdict.threshold}"
        yield f"- The paper's own criterion: {verdict.papers_criterion.words}"
        if claim.contested:
            yield f"- Contested: {claim.contested}"
        yield ""
        for table in verdict.tables:
            yield from _table(table)
        for chart in verdict.charts:
            yield from (f"![{chart.title}](figures/{chart.name}.png)", "")
            if chart.caption:
                yield from (chart.caption, "")
    yield "## How it was made"
    yield ""
    yield f"- Command: `{result.command}`"
    seeds = f"; seeds: {', '.join(map(str, result.seeds))}; {len(record.arms)} runs" if record.arms else ""
    yield f"- Size: {result.size}{seeds}"
    if result.models:
        yield f"- Models: {', '.join(f'`{model}`' for model in result.models)}"
    yield f"- Duration: {result.seconds:.0f} s (estimated before: {record.estimated_seconds:.0f} s)"
    yield f"- Versions: {', '.join(f'{name} {number}' for name, number in result.versions.items())}"
    for name, value in result.hardware.items():
        yield f"- {name[:1].upper()}{name[1:]}: {value}"


def _predictions(entry: Entry | None) -> Iterator[tuple[str, str]]:
    """Claims with what was expected of each."""
    for line in entry.lines() if entry is not None else []:
        prediction = line.locked.prediction
        if prediction.quantity.startswith(CLAIM):
            sure = "" if prediction.confidence is None else f", {prediction.confidence:.0%} sure"
            altered = f". {altered_sentence(line)}" if line.altered else ""
            when = "after" if line.found == LATE else "before"
            yield prediction.about.label, f"Predicted {when} it began: {said(prediction)}{sure}{altered}"


def _row(verdict: Verdict) -> str:
    statistic = verdict.statistic
    value = "-" if statistic.value is None else f"{statistic.value:.4g} {statistic.unit}".strip()
    interval = "-" if verdict.interval is None else f"{verdict.interval[0]:.4g} to {verdict.interval[1]:.4g}"
    p = "-" if verdict.p is None else f"{verdict.p:.2g}"
    passes = {True: "passes", False: "fails", None: "-"}[verdict.papers_criterion.passes]
    return f"| {verdict.claim} | {verdict.verdict} | {statistic.name} {value} | {interval} | {p} | {passes} |"


def _table(table: Table) -> Iterator[str]:
    yield f"**{table.title}**"
    yield ""
    yield f"| {' | '.join(table.columns)} |"
    yield f"| {' | '.join('---' for _ in table.columns)} |"
    for row in table.rows:
        cells = [cell.replace("|", r"\|") for cell in row]
        yield f"| {' | '.join(cells)} |"
    yield ""
