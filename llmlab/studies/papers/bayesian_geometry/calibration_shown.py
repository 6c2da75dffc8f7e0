"""Errors of the models and of the reasoners that know less, as charts and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmlab.core.charts import DASHED, Axis, Chart, Series, Table
from llmlab.core.task_settings import BIJECTION, DUPLICATES, HMM, LSTM, MLP_POSITION, MLP_PREFIX, TRANSFORMER
from llmlab.data.synthetic.metrics import Calibration

_LEAST = 1e-4  # bits

TITLES = {
    BIJECTION: "Bijection, no key twice",
    DUPLICATES: "Bijection, keys repeat",
    HMM: "Hidden Markov model",
}
KINDS = {
    TRANSFORMER: "transformer",
    LSTM: "LSTM",
    MLP_POSITION: "MLP that sees one token",
    MLP_PREFIX: "MLP on the prefix",
}


@dataclass(frozen=True)
class Calibrated:
    """A finished run's calibration, and that of reasoners that know less, by name (`uniform`, `last 2`)."""

    task: str
    kind: str
    seed: int
    model: Calibration
    floors: dict[str, Calibration]

    def is_transformer_on(self, task: str) -> bool:
        """Whether it is one of those that the claim is about."""
        return (self.task, self.kind) == (task, TRANSFORMER)


def calibration_charts(found: Sequence[Calibrated]) -> list[Chart]:
    """Entropy error by place, a chart a task: a line a seed, with what knowing less costs."""
    charts = []
    for task, title in TITLES.items():
        runs = [one for one in found if one.is_transformer_on(task)]
        if not runs:
            continue
        series = [_line(f"seed {one.seed}", one.model) for one in runs]
        series += [_line(_floor(name), floor, DASHED) for name, floor in runs[0].floors.items()]
        charts.append(
            Chart(
                f"calibration-{task}",
                title,
                Axis("prediction, by its place in the sequence"),
                Axis("entropy error", "bits", log=True),
                series,
                caption="How far the model's entropy is from the exact one, on average over sequences. Dashed: "
                "reasoners that know less.",
            )
        )
    return charts


def calibration_table(found: Sequence[Calibrated]) -> Table:
    """Every model, and what it is held against."""
    rows = []
    for task, title in TITLES.items():
        runs = [one for one in found if one.task == task]
        for one in runs:
            rows.append([title, f"{KINDS[one.kind]}, seed {one.seed}", *_errors(one.model)])
        for name, floor in runs[0].floors.items() if runs else ():
            rows.append([title, _floor(name), *_errors(floor)])
    columns = ["task", "model", "entropy error, bits", "KL, bits", "as the paper averages, bits"]
    return Table("Errors on held-out sequences", columns, rows)


def _line(name: str, found: Calibration, kind: str = "line") -> Series:
    # An axis of logarithms has no place for nothing, and no model comes as near as _LEAST.
    return Series(name, [float(place) for place in found.places], [max(error, _LEAST) for error in found.errors], kind)


def _floor(name: str) -> str:
    return "knowing nothing" if name == "uniform" else f"filter, {name} observations"


def _errors(found: Calibration) -> list[str]:
    return [f"{found.entropy_error:.4f}", f"{found.kl:.4f}", f"{found.paper_error:.4f}"]
