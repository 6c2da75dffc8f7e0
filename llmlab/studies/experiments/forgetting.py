"""The forgetting experiment: what was learned of the task against what was lost of general text. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from llmlab.core.charts import Axis
from llmlab.studies.experiments.measure import BASE, Measurement, read_measurement
from llmlab.studies.experiments.outcomes import STEP_AXIS, ArmResult, Chart, Curve, Finding, Point
from llmlab.studies.experiments.results import Gathered, point_of

_GENERAL = Axis("loss on general text", "nats a token")
FULL_GROUP = "full"


def forgetting(gathered: Gathered) -> tuple[list[Chart], list[Finding], list[str]]:
    """Both losses along the checkpoints' steps, the Pareto front, and how much each method forgot."""
    measured = {arm.name: read_measurement(gathered.folder, arm.name) for arm in gathered.finished()}
    notes = sorted({one.note for one in measured.values() if one is not None and one.note})
    paths, general = [], []
    for group in gathered.groups:
        arms = [arm for arm in gathered.finished(group) if measured[arm.name] is not None]
        if points := _path(gathered, arms, measured):
            paths.append(Curve(group, points))
        if points := _along(arms, measured):
            general.append(Curve(group, points))
    front = pareto_front([point for curve in paths for point in curve.points])
    kind = gathered.kind
    curves = [*paths, Curve("Pareto front", front, faint=True)] if len(front) > 1 else paths
    charts = [
        Chart("learned-against-forgotten", "What was learned and what was lost", kind.x_axis, kind.y_axis, curves),
        Chart("general-over-steps", "Loss on general text along training", STEP_AXIS, _GENERAL, general),
    ]
    findings = []
    ranks = [group for group in gathered.groups if group != FULL_GROUP]
    for group in gathered.groups:
        arms = [arm for arm in gathered.finished(group) if measured[arm.name] is not None]
        rises = [_rise(measured[arm.name]) for arm in arms]
        values = [rise for rise in rises if rise is not None]
        if not values:
            continue
        name = "forgotten_full" if group == FULL_GROUP else "forgotten"
        if ranks and group in ranks[:-1]:
            name += "_" + group.replace(" ", "_")
        point = point_of(0.0, values)
        label = f"rise of the loss on general text, {group}"
        findings.append(Finding(name, label, point.y, point.low, point.high, "nats a token"))
        learned = [arm.val_loss for arm in arms if arm.val_loss is not None]
        point = point_of(0.0, learned)
        findings.append(
            Finding(
                f"task_loss_{group.replace(' ', '_')}",
                f"validation loss of the task, {group}",
                point.y,
                point.low,
                point.high,
                "nats a token",
            )
        )
    base = read_measurement(gathered.folder, BASE)
    if base is not None and base.general:
        label = f"loss of the base on {base.text} ({base.tokens:,} tokens)"
        findings.append(Finding("general_before", label, base.general[0][1], unit="nats a token"))
    return charts, findings, notes


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in both losses, by the first: lower is better in both."""
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (one.x, one.y)):
        if not front or point.y < front[-1].y:
            front.append(Point(point.x, point.y, label=point.label))
    return front


def _rise(measured: Measurement | None) -> float | None:
    if measured is None or len(measured.general) < 2:
        return None
    return measured.general[-1][1] - measured.general[0][1]


def _along(arms: Sequence[ArmResult], measured: dict[str, Measurement | None]) -> list[Point]:
    """General loss by step, the mean over seeds."""
    steps: dict[float, list[float]] = {}
    for arm in arms:
        one = measured[arm.name]
        for step, loss in one.general if one is not None else []:
            steps.setdefault(step, []).append(loss)
    return [point_of(step, losses) for step, losses in sorted(steps.items())]


def _path(gathered: Gathered, arms: Sequence[ArmResult], measured: dict[str, Measurement | None]) -> list[Point]:
    """(task loss, general loss) from step to step, the mean over seeds: x stays in the order of steps."""
    steps: dict[int, tuple[list[float], list[float]]] = {}
    for arm in arms:
        task = {row.step: row.val_loss for row in gathered.histories[arm.name].evaluated}
        one = measured[arm.name]
        for step, loss in one.general if one is not None else []:
            if int(step) in task:
                xs, ys = steps.setdefault(int(step), ([], []))
                xs.append(task[int(step)])
                ys.append(loss)
    points = []
    for step, (xs, ys) in sorted(steps.items()):
        points.append(point_of(sum(xs) / len(xs), ys, f"step {step}"))
    return points
