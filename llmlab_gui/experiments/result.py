"""The Result dock: what an experiment's results say so far, as its charts and as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QWidget

from llmlab.core.signs import minus
from llmlab.notebook.entries import Line
from llmlab.store.events import BITS, NATS
from llmlab.studies.experiments.outcomes import Chart, ExperimentResults, Finding, Spike
from llmlab.studies.plans.records import TRIAL_ENDED_STATES, ExperimentRecord
from llmlab_gui.experiments.desk import ExperimentDesk
from llmlab_gui.experiments.figure_pane import FigurePane
from llmlab_gui.experiments.result_chart import Expected, ResultChart
from llmlab_gui.lab.dock import LabDock
from llmlab_gui.lab.lab import Lab
from llmlab_gui.train.loss_unit import BITS_TIP, NO_BYTES
from llmlab_gui.widgets.buttons import toggle_button
from llmlab_gui.widgets.labels import labelled, scrolled
from llmlab_gui.widgets.layouts import split
from llmlab_gui.widgets.theme import current_theme, theme_notifier

# What a prediction can be about (llmlab.notebook.quantities) that the main chart has an axis for.
_ON_X, _ON_Y = ("best_lr", "best_rank", "best"), ("best_loss", "next_loss")
_MOST_SPIKES, _SHOWN_CHARACTERS = 5, 120
_CHART_SHARE = 70  # per cent of the height
_LEAST_FOUND = 2  # lines: more would scroll a low dock beside what is scrolled in it
_CAPTION = "Points are runs, or means over seeds with one standard error; dashed: the fit, with its 90 % band."


class ExperimentResultDock(LabDock):
    """Drawn from results.json, and anew whenever another run has ended."""

    def __init__(self, lab: Lab, desk: ExperimentDesk[ExperimentResults], parent: QWidget | None = None) -> None:
        super().__init__(lab, "experiment_result", "Result", parent)
        self.desk = desk
        self._shown = ""  # the experiment whose charts the choice offers
        self._in_bits: bool | None = None  # as chosen by hand for it; or else as its results have it
        self.chart = ResultChart("Result of the experiment")
        self.findings = labelled(QLabel(wordWrap=True), "What was found")
        self.findings.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.findings.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._below = scrolled(self.findings)
        self._below.setMinimumHeight(_LEAST_FOUND * self.fontMetrics().lineSpacing())  # less than Qt's own
        both = split((self.chart, 5), (self._below, 2))
        both.setSizes([_CHART_SHARE, 100 - _CHART_SHARE])
        self.bits = toggle_button("bits/byte", BITS_TIP)
        self.pane = FigurePane(self, self.chart, self.chart.table, both, controls=[self.bits])
        self.set_body(self.pane)
        self.caption(_CAPTION, "experiments")
        self.pane.wanted.connect(self._draw)
        self.bits.clicked.connect(self._choose_unit)
        self.desk.outcome_changed.connect(self._refresh)
        self.desk.changed.connect(self._update_empty)
        self.lab.notebook.changed.connect(self._draw)
        theme_notifier.changed.connect(self._refresh)
        self._refresh()
        self.lab.notebook.refresh()

    @property
    def _results(self) -> ExperimentResults | None:
        return self.desk.outcome.results

    def _refresh(self) -> None:
        results = self._results
        charts = results.charts if results is not None else []
        self.pane.offer([(chart.name, chart.title) for chart in charts], keep=self._shown == self.desk.outcome.id)
        self.pane.charts.setVisible(len(charts) > 0)
        if self._shown != self.desk.outcome.id:
            self._in_bits = None
        self._shown = self.pane.study = self.desk.outcome.id
        told = findings_html(results.findings) + spikes_html(results.spikes) if results is not None else ""
        self.findings.setText(told)
        self._below.setVisible(bool(told))
        self._draw()
        self._update_empty()

    def _choose_unit(self, in_bits: bool) -> None:
        self._in_bits = in_bits
        self._draw()

    def _draw(self) -> None:
        results, row = self._results, self.desk.current()
        charts, others = (results.charts, results.other_unit) if results is not None else ([], [])
        wanted = self.pane.charts.currentData()
        chart, other = (next((one for one in some if one.name == wanted), None) for some in (charts, others))
        first = chart is not None and chart is charts[0]
        if other is not None and self._in_bits not in (None, _is_in(BITS, chart)):
            chart = other
        self.bits.setVisible(_is_in(NATS, chart) or _is_in(BITS, chart))
        self.bits.setEnabled(other is not None)
        self.bits.setToolTip(BITS_TIP if other is not None else f"{BITS_TIP} Here: {NO_BYTES}.")
        self.bits.setChecked(_is_in(BITS, chart))
        lines = self.lab.notebook.lines(row.folder, row.record) if first and row is not None else []
        expected = expectations(row.record, lines) if row is not None else []
        # Losses are predicted in nats per token.
        self.chart.show_chart(chart, [one for one in expected if one.on_x or not _is_in(BITS, chart)])
        self.pane.drawn()

    def _update_empty(self) -> None:
        row, results = self.desk.current(), self._results
        ended = results is not None and any(trial.state in TRIAL_ENDED_STATES for trial in results.trials)
        if row is None:
            hint = "Set one up, or choose one in Experiments: its result is drawn here, point by point."
            plan_one = partial(self.lab.dock_requested.emit, "experiment")
            self.show_empty("No experiment is selected", hint, "Set one up", plan_one)
        elif results is None or not results.charts or not ended:
            hint = "The first point appears when a run has ended." if row.record.trials else "It is being analysed."
            if not row.status.live:
                hint = "No run has ended. Resume it in Experiments."
            self.show_empty("No result yet", hint)
        else:
            self.show_body()


def _is_in(unit: str, chart: Chart | None) -> bool:
    return chart is not None and unit in (chart.x_axis.unit, chart.y_axis.unit)


def expectations(record: ExperimentRecord, lines: Sequence[Line]) -> list[Expected]:
    """What was predicted of the main chart's axes: where its lowest point lies, and how low that is."""
    found = []
    varied = all(next(iter(trial.varied.values()), None) == trial.x for trial in record.trials)  # x is what is varied
    for line in lines:
        stated = line.locked.prediction
        on_x, on_y = stated.quantity in _ON_X and varied, stated.quantity in _ON_Y
        low, high = stated.low, stated.high
        if stated.choice:
            low = high = _as_number(stated.choice)
        if (on_x or on_y) and low is not None and high is not None:
            sure = "" if stated.confidence is None else f", {100 * stated.confidence:.0f} % sure"
            altered = " (altered since)" if line.altered else ""
            found.append(Expected(on_x, low, high, f"you expected{sure}{altered}"))
    return found


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def findings_html(findings: list[Finding]) -> str:
    """A table: what, how much with its range, and what it means."""
    theme = current_theme()
    rows = []
    for finding in findings:
        value = finding_text(finding)
        if value:
            said = "" if finding.text == value else escape(finding.text)
            text = f'<td style="color:{theme.quiet}">{said}</td>'
            label = f'<td style="color:{theme.quiet}">{escape(finding.label)}&nbsp;&nbsp;</td>'
            rows.append(f"<tr>{label}<td><b>{escape(value)}</b>&nbsp;&nbsp;</td>{text}</tr>")
    return f'<table cellspacing="0" cellpadding="1">{"".join(rows)}</table>' if rows else ""


def spikes_html(spikes: list[Spike]) -> str:
    """The highest spikes, each with the row of its batch that had the largest loss."""
    theme = current_theme()
    rows = []
    for spike in sorted(spikes, key=lambda spike: -spike.sigmas)[:_MOST_SPIKES]:
        numbers = f"loss {spike.loss:.3f} where {spike.expected:.3f} was expected, gradient norm {spike.grad_norm:.3g}"
        worst = max(spike.batch, key=lambda row: row.loss if row.loss is not None else -1.0, default=None)
        text = " ".join(worst.text.split())[:_SHOWN_CHARACTERS] if worst is not None else ""
        rows.append(
            f"<tr><td><b>step {spike.step:,}</b>&nbsp;&nbsp;</td><td>{numbers}<br>"
            f'<span style="color:{theme.quiet}">{escape(text)}</span></td></tr>'
        )
    return f'<p>Spikes</p><table cellspacing="0" cellpadding="1">{"".join(rows)}</table>' if rows else ""


def finding_text(finding: Finding) -> str:
    """`0.0031 (0.0022 to 0.0044)`, with the unit; the choice where it is no number; empty when nothing was found."""
    if finding.value is None:
        return finding.choice
    unit = f" {finding.unit}" if finding.unit else ""
    between = ""
    if finding.low is not None and finding.high is not None:
        between = f" ({minus(f'{finding.low:.4g}')} to {minus(f'{finding.high:.4g}')})"
    number = f"{finding.value:g}" if finding.value == round(finding.value) else f"{finding.value:.4g}"
    return f"{minus(number)}{between}{unit}"
