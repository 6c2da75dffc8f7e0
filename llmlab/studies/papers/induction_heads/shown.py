"""Curves, heads and ablations as charts and tables. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from llmlab.core.charts import BARS, DASHED, LINE, POINTS, Axis, Chart, Series, Table
from llmlab.studies.papers.induction_heads import thresholds as bounds
from llmlab.studies.papers.induction_heads.curves import fall_inside, half_way, rise_window
from llmlab.studies.papers.induction_heads.found import Found
from llmlab.studies.papers.induction_heads.verdicts import BySeed, lag_of
from llmlab.studies.papers.records import Verdict

_LOSS = Axis("loss of the second reading", "nats")


def show_layers(verdict: Verdict, two: BySeed, one: BySeed) -> Verdict:
    """Loss and best induction score along training, of both kinds of model."""
    groups = {"two layers": two, "one layer": one}
    first, end = two[min(two)], max(float(found.steps[-1]) for group in groups.values() for found in group.values())
    verdict.charts = [
        Chart(
            "loss-by-step",
            "Loss of the second reading",
            Axis("step"),
            _LOSS,
            [
                _band(name, [(found.x, np.array(found.loss)) for found in group.values()])
                for name, group in groups.items()
            ]
            + [_level("ln V: knowing nothing", first.ln_v, end), _level("counts and places", first.by_counting, end)],
            caption="What each token costs that could be copied: medians of seeds, from the least to the largest. "
            "Dashed: what it costs to know nothing, and what a reasoner pays that counts tokens and knows places, but "
            "compares no two places.",
        ),
        Chart(
            "induction-by-step",
            "Induction score of the best head",
            Axis("step"),
            Axis("induction score"),
            [_band(name, [(found.x, found.best) for found in group.values()]) for name, group in groups.items()]
            + [_level("an induction head", bounds.HEAD, end)],
            caption="How much of a head's attention goes from a token to what followed it the first time; 1 is all. "
            "Medians of seeds, from the least to the largest.",
        ),
    ]
    rows = [
        [f"{name}, seed {seed}", f"{found.loss[-1]:.3f}", f"{found.best[-1]:.2f}"]
        for name, group in groups.items()
        for seed, found in sorted(group.items())
    ]
    verdict.tables = [Table("After training", ["model", "loss, nats", "best induction score"], rows)]
    return verdict


def show_change(verdict: Verdict, two: BySeed) -> Verdict:
    """Score and loss of each run on one axis, and when each changed."""
    scores, losses, rows = [], [], []
    for seed, found in sorted(two.items()):
        window = rise_window(found.x, found.best, bounds.RISE_SHARE)
        loss = np.array(found.loss)
        if window is None or loss[-1] >= loss[0]:
            continue
        times = found.x / half_way(found.x, found.best)
        scores.append((times, _done(found.best)))
        losses.append((times, _done(loss)))
        rows.append(
            [
                str(seed),
                f"{window.begin:.0f} to {window.end:.0f}",
                f"{window.share:.2f}",
                f"{fall_inside(found.x, loss, window):.2f}",
                f"{lag_of(found):+.2f}",
            ]
        )
    if rows:
        verdict.charts = [
            Chart(
                "change-together",
                "Score and loss change together",
                Axis("step, of the one at which the score is half-way up"),
                Axis("share of the whole change"),
                [_band("induction score, risen", scores), _band("loss, fallen", losses)],
                caption="Each run on its own clock: at 1 its best induction score is half-way up. Medians of seeds, "
                "from the least to the largest.",
            )
        ]
        columns = ["seed", "steps of the rise", "of training until then", "fall of the loss in it", "loss's lag"]
        verdict.tables = [Table("The change, seed by seed", columns, rows)]
    return verdict


def show_composition(verdict: Verdict, two: BySeed) -> Verdict:
    """What every head does, and what is left without each head of the first layer."""
    verdict.charts = [_heads([found for _, found in sorted(two.items())])]
    found = [one for _, one in sorted(two.items()) if one.removed]
    heads = min((len(one.removed) for one in found), default=0)
    if not heads:
        return verdict
    names = ["the most", "second", "third", "fourth", *(f"{place}th" for place in range(5, heads + 1))][:heads]
    score = np.array([[head.induction for head in one.by_previous[:heads]] for one in found])
    loss = np.array([[head.loss for head in one.by_previous[:heads]] for one in found])
    intact = _level("no head removed", float(np.median([one.best[-1] for one in found])), heads - 1)
    nothing = _level("ln V: knowing nothing", found[0].ln_v, heads - 1)
    verdict.charts += [
        _bars("ablation-score", "Induction score without one head", Axis("induction score"), names, score, intact),
        _bars("ablation-loss", "Loss without one head", _LOSS, names, loss, nothing),
    ]
    together = [one for one in found if len(one.together) == heads]
    if together:
        verdict.charts.append(_together(together, heads))
    verdict.tables = [_removals(two)]
    return verdict


def _heads(found: Sequence[Found]) -> Chart:
    """All heads of the last checkpoints, by what they do."""
    previous, induction = (np.array([getattr(one, name)[-1] for one in found]) for name in ("previous", "induction"))
    return Chart(
        "heads-by-layer",
        "What each head does",
        Axis("previous-token score"),
        Axis("induction score"),
        [
            Series(f"layer {layer}", previous[:, layer].ravel().tolist(), induction[:, layer].ravel().tolist(), POINTS)
            for layer in range(previous.shape[1])
        ],
        caption="Every head of every seed after training. Right: it attends to the token before. Up: to what came "
        "after the same token the last time.",
    )


def _bars(name: str, title: str, y_axis: Axis, names: list[str], values: np.ndarray, level: Series) -> Chart:
    """values: [seeds, heads]."""
    bars = Series(
        "one head zeroed",
        _numbers(range(values.shape[1])),
        np.median(values, axis=0).tolist(),
        BARS,
        values.min(0).tolist(),
        values.max(0).tolist(),
    )
    return Chart(
        name,
        title,
        Axis("head of the first layer, by how much it attends to the token before"),
        y_axis,
        [bars, level],
        names,
        caption="Medians of seeds, from the least to the largest. Each head is zeroed alone.",
    )


def _together(found: Sequence[Found], heads: int) -> Chart:
    """Whether heads stand in for one another."""
    lines = []
    for name in ("together", "others_first"):
        left = np.array([[one.best[-1], *getattr(one, name)] for one in found])  # [seeds, heads + 1]
        title = "most previous first" if name == "together" else "least previous first"
        middle, low, high = np.median(left, axis=0), left.min(0), left.max(0)
        lines.append(Series(title, _numbers(range(heads + 1)), middle.tolist(), LINE, low.tolist(), high.tolist()))
    return Chart(
        "ablation-together",
        "Induction score without several heads",
        Axis("heads of the first layer that are zeroed at once"),
        Axis("induction score"),
        lines,
        caption="Medians of seeds, from the least to the largest. Where one head takes little and several take all, "
        "they stand in for one another.",
    )


def _removals(two: BySeed) -> Table:
    rows = []
    for seed, found in sorted(two.items()):
        for head in found.by_previous:
            rows.append(
                [
                    str(seed),
                    f"{head.layer}.{head.head}",
                    f"{head.previous:.2f}",
                    f"{head.induction:.2f} of {found.best[-1]:.2f}",
                    f"{head.loss:.2f} from {found.loss[-1]:.2f}",
                ]
            )
    return Table(
        "Heads zeroed, one at a time", ["seed", "head", "previous-token score", "induction score", "loss, nats"], rows
    )


def _level(name: str, y: float, end: float) -> Series:
    return Series(name, [0.0, float(end)], [y, y], DASHED)


def _band(name: str, curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> Series:
    """Curves (x, y) [N] as their median with the least and the largest, on the x of the first that all have."""
    end = min(x[-1] for x, _ in curves)
    x = curves[0][0][curves[0][0] <= end]
    y = np.array([np.interp(x, *curve) for curve in curves])
    return Series(name, x.tolist(), np.median(y, 0).tolist(), LINE, y.min(0).tolist(), y.max(0).tolist())


def _done(y: np.ndarray) -> np.ndarray:
    """y [N] as the share of its whole change that has come."""
    done: np.ndarray = (y - y[0]) / (y[-1] - y[0])
    return done


def _numbers(values: Iterable[int]) -> list[float]:
    return [float(value) for value in values]
