"""The claims of a paper as the window shows them: what is known of each, and what was predicted. Touches no Qt."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from llmlab.core.errors import LabError
from llmlab.core.signs import minus
from llmlab.data.papers import Claim, Paper
from llmlab.notebook.entries import Line
from llmlab.notebook.quantities import CLAIM
from llmlab.studies.papers.checks import CheckOptions, options_of
from llmlab.studies.papers.records import CheckResult, Statistic, Verdict
from llmlab_gui.experiments.poller import ExperimentRow

NO_TEST, NO_CHECK, NOT_ASKED, NO_VERDICT = "not tested here", "not checked yet", "not in this check", "no verdict"
_LARGEST_WHOLE = 1e9  # written with all its digits
# What a check that has no verdict on a claim says of it.
_WITHOUT_VERDICT = {"running": "running", "stopping": "running", "finished": NO_VERDICT}


@dataclass(frozen=True)
class ClaimRow:
    """state: the verdict, or why there is none. final: nothing that the check still does changes it. predicted: what
    the notebook has about it."""

    claim: Claim
    state: str
    verdict: Verdict | None = None
    final: bool = True
    predicted: Line | None = None


def claim_rows(
    paper: Paper,
    tested: Collection[str],
    check: ExperimentRow | None,
    result: CheckResult | None,
    lines: Sequence[Line] = (),
) -> list[ClaimRow]:
    """Every claim of a paper. tested: those that the lab has a test of. check: the one that is looked at. lines: what
    was predicted of it."""
    options = check_options(check)
    expected = {line.locked.prediction.quantity: line for line in reversed(lines)}
    verdicts = {verdict.claim: verdict for verdict in result.verdicts} if result is not None else {}
    rows = []
    for claim in paper.claims:
        verdict = verdicts.get(claim.id) if check is not None else None
        final = check is None or check.status.state == "finished"
        predicted = expected.get(f"{CLAIM}{paper.name}/{claim.id}") if check is not None else None
        if verdict is not None:
            state = verdict.verdict
        elif claim.id not in tested:
            state = NO_TEST
        elif check is None or options is None:
            state = NO_CHECK
        elif claim.id not in options.claims:
            state = NOT_ASKED
        else:
            state = _WITHOUT_VERDICT.get(check.status.state, check.status.state)
        rows.append(ClaimRow(claim, state, verdict, final, predicted))
    return rows


def check_options(check: ExperimentRow | None) -> CheckOptions | None:
    """What was asked of a check; None for no check, or when that cannot be read."""
    if check is None:
        return None
    try:
        return options_of(check.record)
    except LabError:
        return None


def prediction_text(row: ClaimRow) -> str:
    """`supported, 70 % sure`, with a sign for whether it came true, or `altered`; empty where nothing was predicted."""
    if row.predicted is None:
        return ""
    predicted = row.predicted.locked.prediction
    sure = "" if predicted.confidence is None else f", {100 * predicted.confidence:.0f} % sure"
    sign = ""
    if row.predicted.altered:
        sign = "✗ altered: "
    elif row.verdict is not None and row.final:
        sign = "✓ " if predicted.choice == row.verdict.verdict else "✗ "
    return f"{sign}{predicted.choice}{sure}"


def statistic_text(verdict: Verdict | None) -> str:
    """`0.0135 (0.0131 to 0.0139) bits: entropy error`: the number is in sight where the name has no room."""
    if verdict is None:
        return ""
    return f"{value_text(verdict.statistic, verdict.interval)}: {verdict.statistic.name}"


def value_text(statistic: Statistic, interval: tuple[float, float] | None) -> str:
    """`0.0135 (0.0131 to 0.0139) bits`."""
    value = "–" if statistic.value is None else number(statistic.value)
    between = f" ({number(interval[0])} to {number(interval[1])})" if interval else ""
    return f"{value}{between} {statistic.unit}".rstrip()


def p_text(p: float | None) -> str:
    """`0.003`; empty where no test was made."""
    if p is None or not math.isfinite(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def criterion_text(verdict: Verdict | None) -> str:
    """What the paper's own bound says."""
    if verdict is None:
        return ""
    return {True: "passes", False: "fails", None: "–"}[verdict.papers_criterion.passes]


def number(value: float) -> str:
    """Three significant digits, or all of a whole number."""
    if not math.isfinite(value):
        return "–"
    if 1000 <= abs(value) < _LARGEST_WHOLE or (abs(value) < _LARGEST_WHOLE and value == round(value)):
        return minus(f"{value:,.0f}")
    return minus(f"{value:.3g}")
