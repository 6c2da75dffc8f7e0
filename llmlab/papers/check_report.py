"""report.md of a check: its verdicts, what they rest on, and how to repeat it. Every number is one of verdict.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llmlab.experiments.records import ExperimentFolder, ExperimentRecord
from llmlab.files import write_atomic
from llmlab.inspection.plots import figure_of
from llmlab.papers.bayesian_geometry.plan import CALIBRATION
from llmlab.papers.records import CheckResult, Verdict, read_paper

_FIGURE = "calibration"


def write_check_report(folder: ExperimentFolder, record: ExperimentRecord, result: CheckResult) -> Path:
    """Draws the figure and writes report.md; returns it. Raises OSError."""
    for verdict in result.verdicts:
        if verdict.claim == CALIBRATION:
            _draw(verdict, folder.figures)
    lines = list(_lines(record, result))
    write_atomic(folder.report, ("\n".join(lines) + "\n").encode())
    return folder.report


def _lines(record: ExperimentRecord, result: CheckResult) -> Iterator[str]:
    paper = read_paper(result.paper)
    yield f"# {paper.title}: does it hold here?"
    yield ""
    yield "| claim | verdict | statistic | interval | p | the paper's own criterion |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for verdict in result.verdicts:
        yield _row(verdict)
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
        yield f"- Threshold: {verdict.threshold}"
        yield f"- The paper's own criterion: {verdict.papers_criterion.words}"
        if claim.contested:
            yield f"- Contested: {claim.contested}"
        yield ""
        if verdict.claim == CALIBRATION:
            yield from _errors(verdict.evidence)
            yield f"![Entropy error by place](figures/{_FIGURE}.png)"
            yield ""
    yield "## How it was made"
    yield ""
    yield f"- Command: `{result.command}`"
    yield f"- Size: {result.size}; seeds: {', '.join(map(str, result.seeds))}; {len(record.arms)} runs"
    yield f"- Duration: {result.seconds:.0f} s (estimated before: {record.estimated_seconds:.0f} s)"
    yield f"- Versions: {', '.join(f'{name} {number}' for name, number in result.versions.items())}"
    for name, value in result.hardware.items():
        yield f"- {name[:1].upper()}{name[1:]}: {value}"


def _row(verdict: Verdict) -> str:
    statistic = verdict.statistic
    value = "-" if statistic.value is None else f"{statistic.value:.4g} {statistic.unit}".strip()
    interval = "-" if verdict.interval is None else f"{verdict.interval[0]:.4g} to {verdict.interval[1]:.4g}"
    p = "-" if verdict.p is None else f"{verdict.p:.2g}"
    passes = {True: "passes", False: "fails", None: "-"}[verdict.papers_criterion.passes]
    return f"| {verdict.claim} | {verdict.verdict} | {statistic.name} {value} | {interval} | {p} | {passes} |"


def _errors(evidence: dict[str, Any]) -> Iterator[str]:
    """Errors of every model, and the lines they are held against."""
    yield "| task | model | entropy error, bits | KL, bits | as the paper averages |"
    yield "| --- | --- | --- | --- | --- |"
    for seed, found in evidence["duplicates"].items():
        yield _error_row("duplicates", f"transformer, seed {seed}", found)
    for kind, found in sorted(evidence["beside"].items()):
        yield _error_row("bijection", kind, found)
    for task, found in evidence["uniform"].items():
        yield _error_row(task, "knowing nothing", found)
    for task in ("bijection", "hmm"):
        for seed, found in evidence[task].items():
            error, kl = np.mean(found["errors"]), np.mean(found["kls"])  # each place is scored in every sequence
            gap = np.abs(np.subtract(found["model_entropy"], found["bayes_entropy"])).mean()
            yield f"| {task} | transformer, seed {seed} | {error:.4f} | {kl:.4f} | {gap:.4f} |"
    for name, error in next(iter(evidence["hmm_floors"].values()), {}).items():
        if name != "uniform":
            yield f"| hmm | filter, {name} observations | {error:.4f} | | |"
    yield ""


def _error_row(task: str, name: str, found: dict[str, Any]) -> str:
    return f"| {task} | {name} | {found['entropy_error']:.4f} | {found['kl']:.4f} | {found['paper_error']:.4f} |"


def _draw(verdict: Verdict, folder: Path) -> None:
    """Entropy error by place, a line a seed, with what knowing nothing costs."""
    folder.mkdir(exist_ok=True)
    evidence = verdict.evidence
    shown = [task for task in ("bijection", "duplicates", "hmm") if evidence[task]]
    figure = figure_of(3.6 * len(shown), 3.4)
    for axis, task in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for seed, found in evidence[task].items():
            axis.plot(found["places"], found["errors"], marker="o", markersize=3, label=f"seed {seed}")
        nothing = evidence["uniform"].get(task)
        if nothing is not None:
            axis.plot(nothing["places"], nothing["errors"], "--", color="#888888", label="knowing nothing")
        filters = list(evidence["hmm_floors"].values()) if task == "hmm" else []
        for name, error in filters[0].items() if filters else ():
            if name != "uniform":
                axis.axhline(error, color="#d55e00", linestyle=":", linewidth=0.9)
                axis.annotate(f"{name} seen", (0.99, error), xycoords=("axes fraction", "data"), fontsize=6, ha="right")
        axis.set_title(task, fontsize=9)
        axis.set_xlabel("prediction (by its place)")
        axis.set_yscale("symlog", linthresh=1e-3)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25, linewidth=0.6)
    figure.axes[0].set_ylabel("entropy error (bits)")
    figure.axes[0].legend(frameon=False, fontsize=7)
    for ending in ("png", "svg"):
        figure.savefig(folder / f"{_FIGURE}.{ending}", dpi=140, metadata={"Date": None} if ending == "svg" else None)
