"""report.md: what was asked, what was predicted, what came. Blocks of Markdown, with an empty line between them.

Every number in it is one of results.json, or of a check's verdict.json.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from llmlab.core.errors import LabError, explained
from llmlab.core.figures import draw_charts
from llmlab.core.files import write_atomic
from llmlab.data.papers import read_paper
from llmlab.notebook.entries import Entry, Line
from llmlab.notebook.quantities import CLAIM
from llmlab.notebook.seals import LATE
from llmlab.notebook.words import altered_sentence, outcome_sentence, remarks, said, surprise_text
from llmlab.studies.experiments.outcomes import ExperimentResults, Finding, Spike, TrialResult
from llmlab.studies.lab_notebook import lab_notebook
from llmlab.studies.papers.records import CheckResult, Verdict
from llmlab.studies.plans.records import ExperimentFolder, ExperimentRecord, Trial

_SHOWN_CHARACTERS = 160  # of a batch's row


def write_report(
    folder: ExperimentFolder, record: ExperimentRecord, results: ExperimentResults, *, seconds: float | None = None
) -> Path:
    """Draws the figures and writes report.md; returns it. seconds: time spent by the experiment's workers, with
    starting runs and measuring. Raises LabError when the folder cannot be written."""
    taken = folder.recorded_status().active_seconds if seconds is None else seconds
    again = f"Its numbers are in results.json. Make room, then: llmlab-run experiment report {folder.id}"
    with explained(f"The report could not be written to {folder.path}.", again):
        figures = draw_charts(results.drawn(), folder.figures, results.id)
        blocks = _experiment(record, results, figures, _entry(folder, record), taken)
        write_atomic(folder.report, ("\n\n".join(blocks) + "\n\n").encode())
    return folder.report


def write_check_report(folder: ExperimentFolder, record: ExperimentRecord, result: CheckResult) -> Path:
    """Draws the figures and writes report.md; returns it. Raises OSError."""
    for verdict in result.verdicts:
        draw_charts(verdict.charts, folder.figures)
    blocks = _check(record, result, _entry(folder, record))
    write_atomic(folder.report, ("\n\n".join(blocks) + "\n").encode())
    return folder.report


def _entry(folder: ExperimentFolder, record: ExperimentRecord) -> Entry | None:
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


def _predicted(entry: Entry | None) -> list[Line]:
    return entry.lines() if entry is not None else []


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> str:
    """right: columns of numbers."""
    ruler = ["---:" if name in right else "---" for name in columns]
    lines = [[cell.replace("|", "\\|") for cell in cells] for cells in (columns, ruler, *rows)]  # |rho| is one cell
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _hardware(facts: Mapping[str, str]) -> list[str]:
    return [f"- {name[:1].upper()}{name[1:]}: {value}" for name, value in facts.items()]


def _versions(versions: Mapping[str, str]) -> str:
    return f"- Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}"


# Experiments ---------------------------------------------------------------------------------------------------------


def _experiment(
    record: ExperimentRecord, results: ExperimentResults, figures: Sequence[Path], entry: Entry | None, seconds: float
) -> Iterator[str]:
    yield f"# {record.title}: {record.id}"
    if not results.complete:
        ended = sum(trial.state in ("finished", "diverged", "failed") for trial in results.trials)
        yield f"**Not complete:** {ended} of {len(results.trials)} runs have ended."
    yield from ("## Question", record.question)
    yield from ("## Hypothesis", record.hypothesis, f"Source: {record.source}.")
    yield from ("## What was varied", *_varied(record))
    yield from ("## Prediction", *_prediction(record, entry))
    yield "## What happened"
    if results.findings:
        yield _table(("what", "value", "range", ""), map(_finding, results.findings), right=("value",))
    yield from (f"![{figure.stem}](figures/{figure.name})" for figure in figures)
    if record.trials:
        yield from _runs(record, results)
    if results.spikes:
        yield "### Spikes and their batches"
        yield "\n".join(line for spike in results.spikes for line in _spike(spike))
        yield "Before each row: its loss under the last checkpoint before the spike, or else the first after it."
    if results.notes:
        yield "\n".join(f"- {note}" for note in results.notes)
    yield from ("## How surprising it was", *_surprise(entry))
    yield "## What was learned"
    ask = f'Not written yet: `llmlab-run notebook learned {record.id} "One sentence."`, or in the Notebook dock.'
    yield (entry.learned if entry is not None else "") or ask
    yield from ("## How it was done", "\n".join(_how(record, results, seconds)))


def _varied(record: ExperimentRecord) -> Iterator[str]:
    if record.subject:
        yield f"Nothing. The run looked at is `{record.subject}`."
        return
    yield record.varies
    values = dict.fromkeys(_varied_text(trial) for trial in record.trials)
    groups = [group for group in dict.fromkeys(trial.group for trial in record.trials) if group]
    compared = f" Compared: {', '.join(groups)}." if groups else ""
    count = len(record.seeds)
    seeds = f"{count} seed{'' if count == 1 else 's'} each ({', '.join(map(str, record.seeds))})"
    yield f"Values: {'; '.join(values)}.{compared} {seeds}. {record.rule.text()}"


def _varied_text(trial: Trial) -> str:
    return ", ".join(f"{key}={_value(value)}" for key, value in trial.varied.items())


def _prediction(record: ExperimentRecord, entry: Entry | None) -> Iterator[str]:
    lines = _predicted(entry)
    if not lines:
        yield "It can no longer be read." if record.predictions else "No prediction was made before it began."
    for line in lines:
        more = "".join(f" {remark[:1].upper()}{remark[1:]}." for remark in remarks(line))
        yield f"- {outcome_sentence(line)}{more}"


def _surprise(entry: Entry | None) -> Iterator[str]:
    lines = _predicted(entry)
    told = [line for line in lines if line.surprise is not None]
    if any(line.altered for line in lines) and not told:
        yield "What was predicted was altered, so nothing here can be called surprising."
    elif not told:
        yield "Nobody predicted anything that could be scored, so nothing here can be called surprising."
    yield from (f"- `{line.locked.prediction}`: {surprise_text(line.surprise)}." for line in told)


def _finding(finding: Finding) -> list[str]:
    unit = f" {finding.unit}" if finding.unit and finding.value is not None else ""
    known = finding.low is not None and finding.high is not None
    spread = f"{_value(finding.low)} to {_value(finding.high)}" if known else ""
    text = finding.text.replace("|", "\\|").replace("\n", " ")
    return [f"{finding.label} (`{finding.name}`)", f"{finding.choice or _value(finding.value)}{unit}", spread, text]


def _runs(record: ExperimentRecord, results: ExperimentResults) -> Iterator[str]:
    yield "### Runs"
    scored = any(trial.score is not None for trial in results.trials)
    numbers = ["seed", "steps", "train loss", "validation loss", "lowest", *["score"] * scored, "training"]
    columns = ["run", "varied", "seed", "state", *numbers[1:]]
    yield _table(columns, (_run(record.trial(trial.name), trial, scored) for trial in results.trials), right=numbers)
    yield "Losses in nats per token; ranges are one standard error over seeds, or 90 % where a fit gives them."
    if notes := [f"- `{trial.run}`: {trial.note}" for trial in results.trials if trial.note]:
        yield "\n".join(notes)


def _run(trial: Trial, result: TrialResult, scored: bool) -> list[str]:
    varied = ", ".join(part for part in (trial.group, _varied_text(trial)) if part)
    losses = (result.train_loss, result.val_loss, result.best_val_loss)
    score = ["-" if result.score is None else f"{100 * result.score:.1f} %"] * scored
    return [
        *(f"`{result.run}`", varied, str(result.seed), result.state, str(result.steps)),
        *("-" if loss is None else f"{loss:.4f}" for loss in losses),
        *(*score, f"{result.seconds:.1f} s"),
    ]


def _spike(spike: Spike) -> Iterator[str]:
    yield (
        f"- **Step {spike.step}**: loss {spike.loss:.3f}, expected {spike.expected:.3f} ({spike.sigmas:.1f} robust "
        f"standard deviations), gradient norm {spike.grad_norm:.3g}, learning rate {spike.lr:.3g}."
    )
    for row in spike.batch:
        text = row.text[:_SHOWN_CHARACTERS] + ("..." if len(row.text) > _SHOWN_CHARACTERS else "")
        text = text.replace("\n", "⏎").replace("`", "'").strip() or " "
        yield f"    - {'' if row.loss is None else f'{row.loss:.3f} '}`{text}`"


def _how(record: ExperimentRecord, results: ExperimentResults, seconds: float) -> Iterator[str]:
    if record.command:
        yield f"- Command: `{record.command}`"
    if record.trials:
        yield f"- Seeds: {', '.join(map(str, record.seeds))}"
    yield f"- Base: preset `{record.preset or 'none'}`, all settings in `experiment.json`"
    yield from _hardware(results.hardware)
    if record.trials:
        took = f"{seconds:.0f} s in all, of which {results.seconds:.0f} s training"
        yield f"- Duration: {took} (estimated before: {record.estimated_seconds:.0f} s)"
    else:  # what trained was there before
        yield f"- Duration: {seconds:.0f} s; the run had trained for {results.seconds:.0f} s"
    yield _versions(results.versions)
    yield f"- Started: {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(record.created))}"


def _value(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# Checks --------------------------------------------------------------------------------------------------------------

# Columns of a check's table that stay also where no verdict has anything in them: claim, verdict, statistic.
_ALWAYS = 3


def _check(record: ExperimentRecord, result: CheckResult, entry: Entry | None) -> Iterator[str]:
    paper, predicted = read_paper(result.paper), dict(_expected(entry))
    yield f"# {paper.title}: does it hold here?"
    columns = ("claim", "verdict", "statistic", "interval", "p", "the paper's own criterion")
    rows = [_verdict(one, paper.claim(one.claim).title) for one in result.verdicts]
    said = [place for place in range(len(columns)) if place < _ALWAYS or any(row[place] != "-" for row in rows)]
    yield _table([columns[place] for place in said], ([row[place] for place in said] for row in rows))
    if result.overall:
        yield result.overall
    if not result.verdicts:
        yield "No run has ended yet, so nothing can be said."
    for verdict in result.verdicts:
        claim = paper.claim(verdict.claim)
        yield from (f"## {claim.title}: {verdict.verdict}", f"The paper: {claim.statement}", verdict.reason)
        facts = [predicted.get(verdict.claim, ""), f"Threshold: {verdict.threshold}"]
        facts.append(f"The paper's own criterion: {verdict.papers_criterion.words}")
        facts.append(f"Contested: {claim.contested}" if claim.contested else "")
        yield "\n".join(f"- {fact}" for fact in facts if fact)
        for table in verdict.tables:
            yield f"**{table.title}**"
            yield _table(table.columns, ([cell.replace("|", r"\|") for cell in row] for row in table.rows))
        for chart in verdict.charts:
            yield f"![{chart.title}](figures/{chart.name}.png)"
            if chart.caption:
                yield chart.caption
    yield "## How it was made"
    seeds = f"; seeds: {', '.join(map(str, result.seeds))}; {len(record.trials)} runs" if record.trials else ""
    models = [f"- Models: {', '.join(f'`{model}`' for model in result.models)}"] if result.models else []
    yield "\n".join(
        [
            f"- Command: `{result.command}`",
            f"- Size: {result.size}{seeds}",
            *models,
            f"- Duration: {result.seconds:.0f} s (estimated before: {record.estimated_seconds:.0f} s)",
            _versions(result.versions),
            *_hardware(result.hardware),
        ]
    )


def _expected(entry: Entry | None) -> Iterator[tuple[str, str]]:
    """Claims with what was expected of each."""
    for line in _predicted(entry):
        prediction = line.locked.prediction
        if prediction.quantity.startswith(CLAIM):
            sure = "" if prediction.confidence is None else f", {100 * prediction.confidence:.0f} % sure"
            altered = f". {altered_sentence(line)}" if line.altered else ""
            when = "after" if line.found == LATE else "before"
            yield prediction.about.label, f"Predicted {when} it began: {said(prediction)}{sure}{altered}"


def _verdict(verdict: Verdict, title: str) -> list[str]:
    statistic = verdict.statistic
    value = "-" if statistic.value is None else f"{statistic.value:.4g} {statistic.unit}".strip()
    interval = "-" if verdict.interval is None else f"{verdict.interval[0]:.4g} to {verdict.interval[1]:.4g}"
    p = "-" if verdict.p is None else f"{verdict.p:.2g}"
    passes = {True: "passes", False: "fails", None: "-"}[verdict.papers_criterion.passes]
    return [f"{title} ({verdict.claim})", verdict.verdict, f"{statistic.name} {value}", interval, p, passes]
