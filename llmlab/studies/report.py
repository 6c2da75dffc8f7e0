"""report.md: what was asked, what was predicted, what came.

Every number in it is one of results.json, or of a check's verdict.json.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmlab.core.charts import Table
from llmlab.core.errors import LabError
from llmlab.core.figures import draw_charts
from llmlab.core.files import write_atomic
from llmlab.data.papers import read_paper
from llmlab.notebook.entries import Entry
from llmlab.notebook.quantities import CLAIM
from llmlab.notebook.seals import LATE
from llmlab.notebook.words import altered_sentence, outcome_sentence, remarks, said, surprise_text
from llmlab.studies.experiments.figures import draw_figures
from llmlab.studies.experiments.outcomes import ArmResult, ExperimentResults, Finding, Spike
from llmlab.studies.lab_notebook import lab_notebook
from llmlab.studies.papers.records import CheckResult, Verdict
from llmlab.studies.records import Arm, ExperimentFolder, ExperimentRecord

# Experiments ----------------------------------------------------------------------------------------------------------


_SHOWN_CHARACTERS = 160  # of a batch's row


def write_report(
    folder: ExperimentFolder, record: ExperimentRecord, results: ExperimentResults, *, seconds: float | None = None
) -> Path:
    """Draws the figures and writes report.md; returns it. seconds: time spent by the experiment's workers, with
    starting runs and measuring. Raises LabError when the folder cannot be written."""
    taken = folder.recorded_status().active_seconds if seconds is None else seconds
    try:
        figures = draw_figures(results, folder.figures)
        lines = list(_lines(record, results, figures, entry_of(folder, record), taken))
        write_atomic(folder.report, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise LabError(
            f"The report of {folder.id} could not be written.",
            f"{error.strerror or error}.",
            f"Its numbers are in results.json. Make room, then: llmlab-run experiment report {folder.id}",
        ) from error
    return folder.report


def entry_of(folder: ExperimentFolder, record: ExperimentRecord) -> Entry | None:
    """What the notebook has about an experiment or a check, scored as far as it can be."""
    book = lab_notebook(folder.outputs)
    try:
        contents = book.refresh()
    except LabError:  # a notebook that cannot be read or written is no reason to have no report
        try:
            contents = book.read()
        except LabError:
            return None
    return contents.about(folder, record.created)


def _lines(
    record: ExperimentRecord,
    results: ExperimentResults,
    figures: Sequence[Path],
    entry: Entry | None,
    seconds: float,
) -> Iterator[str]:
    yield f"# {record.title}: {record.id}"
    yield ""
    if not results.complete:
        ended = sum(arm.state in ("finished", "diverged", "failed") for arm in results.arms)
        yield f"**Not complete:** {ended} of {len(results.arms)} runs have ended."
        yield ""
    yield from _section("Question", record.question)
    yield from _section("Hypothesis", f"{record.hypothesis}", f"Source: {record.source}.")
    yield from _section("What was varied", *_varied(record))
    yield from _section("Prediction", *_prediction(record, entry))
    yield "## What happened"
    yield ""
    if results.findings:
        yield from _findings(results.findings)
    for figure in figures:
        yield f"![{figure.stem}](figures/{figure.name})"
        yield ""
    if record.arms:
        yield from _runs(record, results)
    if results.spikes:
        yield from _spikes(results.spikes)
    for note in results.notes:
        yield f"- {note}"
    if results.notes:
        yield ""
    yield from _section("How surprising it was", *_surprise(entry))
    learned = entry.learned if entry is not None else ""
    yield from _section("What was learned", learned or _ask(record))
    yield from _section("How it was done", *_how(record, results, seconds))


def _section(title: str, *paragraphs: str) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    for paragraph in paragraphs:
        yield paragraph
        yield ""


def _varied(record: ExperimentRecord) -> Iterator[str]:
    if record.subject:
        yield f"Nothing. The run looked at is `{record.subject}`."
        return
    yield record.varies
    values = list(
        dict.fromkeys(", ".join(f"{key}={_value(value)}" for key, value in arm.varied.items()) for arm in record.arms)
    )
    groups = [group for group in dict.fromkeys(arm.group for arm in record.arms) if group]
    text = f"Values: {'; '.join(values)}."
    if groups:
        text += f" Compared: {', '.join(groups)}."
    count = len(record.seeds)
    seeds = f"{count} seed{'' if count == 1 else 's'} each ({', '.join(map(str, record.seeds))})"
    yield f"{text} {seeds}. {record.rule.text()}"


def _prediction(record: ExperimentRecord, entry: Entry | None) -> Iterator[str]:
    lines = entry.lines() if entry is not None else []
    if not lines:
        yield "It cannot be read any more." if record.predictions else "None was written before it began."
        return
    for line in lines:
        more = "".join(f" {remark[:1].upper()}{remark[1:]}." for remark in remarks(line))
        yield f"- {outcome_sentence(line)}{more}"


def _surprise(entry: Entry | None) -> Iterator[str]:
    lines = entry.lines() if entry is not None else []
    told = [line for line in lines if line.surprise is not None]
    if any(line.altered for line in lines) and not told:
        yield "What was predicted was altered, so nothing here can be called surprising."
        return
    if not told:
        yield "Nobody predicted anything that could be scored, so nothing here can be called surprising."
        return
    for line in told:
        yield f"- `{line.locked.prediction}`: {surprise_text(line.surprise)}."


def _ask(record: ExperimentRecord) -> str:
    return f'Not written yet: `llmlab-run notebook learned {record.id} "One sentence."`, or in the Notebook dock.'


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    yield "| what | value | range | |"
    yield "| --- | ---: | --- | --- |"
    for finding in findings:
        value = finding.choice or _value(finding.value)
        unit = f" {finding.unit}" if finding.unit and finding.value is not None else ""
        spread = (
            "" if finding.low is None or finding.high is None else f"{_value(finding.low)} to {_value(finding.high)}"
        )
        yield f"| {finding.label} (`{finding.name}`) | {value}{unit} | {spread} | {_cell(finding.text)} |"
    yield ""


def _runs(record: ExperimentRecord, results: ExperimentResults) -> Iterator[str]:
    yield "### Runs"
    yield ""
    scored = any(arm.score is not None for arm in results.arms)
    header = ["run", "varied", "seed", "state", "steps", "train loss", "validation loss", "lowest"]
    header += ["score"] * scored + ["training"]
    yield f"| {' | '.join(header)} |"
    yield f"| {' | '.join('---' if name in ('run', 'varied', 'state') else '---:' for name in header)} |"
    for arm in results.arms:
        yield _run(record.arm(arm.name), arm, scored)
    yield ""
    yield "Losses in nats a token; ranges are one standard error over seeds, or 90 % where a fit gives them."
    yield ""
    for arm in results.arms:
        if arm.note:
            yield f"- `{arm.run}`: {arm.note}"
    if any(arm.note for arm in results.arms):
        yield ""


def _run(arm: Arm, result: ArmResult, scored: bool) -> str:
    varied = ", ".join([arm.group] * bool(arm.group) + [f"{key}={_value(value)}" for key, value in arm.varied.items()])
    cells = [f"`{result.run}`", varied, str(result.seed), result.state, str(result.steps)]
    cells += [_loss(loss) for loss in (result.train_loss, result.val_loss, result.best_val_loss)]
    if scored:
        cells.append("-" if result.score is None else f"{result.score:.1%}")
    return f"| {' | '.join([*cells, f'{result.seconds:.1f} s'])} |"


def _spikes(spikes: Sequence[Spike]) -> Iterator[str]:
    yield "### Spikes and their batches"
    yield ""
    for spike in spikes:
        yield (
            f"- **Step {spike.step}**: loss {spike.loss:.3f} where {spike.expected:.3f} was to be expected "
            f"({spike.sigmas:.1f} deviations), gradient norm {spike.grad_norm:.3g}, learning rate {spike.lr:.3g}."
        )
        for row in spike.batch:
            loss = "" if row.loss is None else f"{row.loss:.3f} "
            yield f"    - {loss}`{_code(row.text)}`"
    yield ""
    yield "Before a row: its loss under the last checkpoint before the spike (or the first after it)."
    yield ""


def _how(record: ExperimentRecord, results: ExperimentResults, seconds: float) -> Iterator[str]:
    facts = [f"- Command: `{record.command}`"] if record.command else []
    facts += [f"- Seeds: {', '.join(map(str, record.seeds))}"] if record.arms else []
    facts.append(f"- Base: preset `{record.preset or 'none'}`, all settings in `experiment.json`")
    facts += [f"- {name[:1].upper()}{name[1:]}: {value}" for name, value in results.hardware.items()]
    if record.arms:
        took = f"{seconds:.0f} s in all, of which {results.seconds:.0f} s training"
        facts.append(f"- Duration: {took} (estimated before: {record.estimated_seconds:.0f} s)")
    else:  # what trained was there before
        facts.append(f"- Duration: {seconds:.0f} s; the run had trained for {results.seconds:.0f} s")
    facts.append(f"- Versions: {', '.join(f'{name} {version}' for name, version in results.versions.items())}")
    facts.append(f"- Begun: {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(record.created))}")
    yield "\n".join(facts)


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"


def _value(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _code(text: str) -> str:
    shown = text[:_SHOWN_CHARACTERS] + ("..." if len(text) > _SHOWN_CHARACTERS else "")
    return shown.replace("\n", "⏎").replace("`", "'").strip() or " "


# Checks ---------------------------------------------------------------------------------------------------------------


def write_check_report(folder: ExperimentFolder, record: ExperimentRecord, result: CheckResult) -> Path:
    """Draws the figures and writes report.md; returns it. Raises OSError."""
    for verdict in result.verdicts:
        draw_charts(verdict.charts, folder.figures)
    lines = list(_check_lines(record, result, entry_of(folder, record)))
    write_atomic(folder.report, ("\n".join(lines) + "\n").encode())
    return folder.report


def _check_lines(record: ExperimentRecord, result: CheckResult, entry: Entry | None) -> Iterator[str]:
    paper, predicted = read_paper(result.paper), dict(_expected(entry))
    yield f"# {paper.title}: does it hold here?"
    yield ""
    yield "| claim | verdict | statistic | interval | p | the paper's own criterion |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for verdict in result.verdicts:
        yield _verdict_row(verdict)
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


def _expected(entry: Entry | None) -> Iterator[tuple[str, str]]:
    """Claims with what was expected of each."""
    for line in entry.lines() if entry is not None else []:
        prediction = line.locked.prediction
        if prediction.quantity.startswith(CLAIM):
            sure = "" if prediction.confidence is None else f", {prediction.confidence:.0%} sure"
            altered = f". {altered_sentence(line)}" if line.altered else ""
            when = "after" if line.found == LATE else "before"
            yield prediction.about.label, f"Predicted {when} it began: {said(prediction)}{sure}{altered}"


def _verdict_row(verdict: Verdict) -> str:
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
