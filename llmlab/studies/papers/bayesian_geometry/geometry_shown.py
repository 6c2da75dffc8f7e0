"""Manifold and keys as charts and tables. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llmlab.core.charts import DASHED, POINTS, Axis, Chart, Series, Table
from llmlab.studies.papers.bayesian_geometry.thresholds import RHO_WITHIN

if TYPE_CHECKING:
    from llmlab.studies.papers.bayesian_geometry.geometry import Keys, Manifold, ModelGeometry, Population
    from llmlab.studies.papers.bayesian_geometry.geometry_verdicts import KeyLayer

_SHOWN = 1000  # samples of a scatter plot: more cannot be told apart


# Manifold ----------------------------------------------------------------------------------------------------------


def manifold_charts(found: Population) -> list[Chart]:
    """The samples of one model, and the rank correlation within positions by layer."""
    return [_scatter(found, "manifold", "Values of the last layer"), _within(found)]


def manifold_tables(
    found: Population, p: Mapping[int, tuple[float, ...] | None], outcomes: Mapping[int, str], hmm: Population | None
) -> list[Table]:
    """Values and stream of the last layer; the same values in the HMM, where its models were measured."""
    columns = ["model", "PC1", "PC1+2", "directions", "|rho|", "within positions", "R^2 of position", "R^2 gain"]
    rows = []
    for seed, one in sorted(found.trained.items()):
        told = "-" if (tested := p[seed]) is None else f"{max(tested):.2g}"
        rows.append([f"seed {seed}", *_cells(one.values[-1]), told, outcomes[seed]])
    rows += [[name, *_cells(one.values[-1]), "-", "-"] for name, one in _named(found.random)]
    tables = [Table("Values of the last layer, keys repeat", [*columns, "p, corrected", "outcome"], rows)]
    rows = [[f"seed {seed}", *_cells(one.residuals[-1])] for seed, one in sorted(found.trained.items())]
    tables.append(Table("Stream after the last layer, keys repeat", columns, rows))
    if hmm is not None:
        rows = [[f"seed {seed}", *_cells(one.values[-1])] for seed, one in sorted(hmm.trained.items())]
        rows += [[name, *_cells(one.values[-1])] for name, one in _named(hmm.random)]
        tables.append(Table("Values of the last layer, HMM (beside the verdict)", columns, rows))
    return tables


def hmm_chart(hmm: Population) -> Chart:
    """The samples of one model of the HMM."""
    return _scatter(hmm, "manifold-hmm", "Values of the last layer, HMM")


def _scatter(found: Population, name: str, title: str) -> Chart:
    seed = sorted(found.trained, key=lambda one: found.trained[one].values[-1].rho)[len(found.trained) // 2]
    samples = found.samples
    points = Series(
        f"samples of seed {seed}",
        found.trained[seed].values[-1].scores[:_SHOWN].round(4).tolist(),
        samples.entropy[:_SHOWN].round(4).tolist(),
        POINTS,
        color=samples.stratum[:_SHOWN].astype(float).tolist(),
    )
    return Chart(
        name,
        title,
        Axis("first principal component"),
        Axis("entropy of the exact posterior", "bits"),
        [points],
        color_label="position",
        caption="Each point is a prediction, of the seed in the middle by |rho|. The claim is a line; points of one "
        "colour have one position, and only what is left among them cannot be explained by it.",
    )


def _within(found: Population) -> Chart:
    layers = [float(layer) for layer in range(len(next(iter(found.trained.values())).values))]

    def numbers(one: ModelGeometry) -> list[float]:
        return [layer.within or 0.0 for layer in one.values]

    series = [Series(f"seed {seed}", layers, numbers(one)) for seed, one in sorted(found.trained.items())]
    if found.random:
        best = np.max([numbers(one) for one in found.random], axis=0).tolist()
        series.append(Series(f"best of {len(found.random)} with random weights", layers, best, DASHED))
    series.append(Series("bound", layers, [RHO_WITHIN] * len(layers), DASHED))
    return Chart(
        "manifold-within",
        "Entropy along the first component of values, position held fixed",
        Axis("layer"),
        Axis("|rank correlation| within positions"),
        series,
        categories=[str(layer) for layer in range(len(layers))],
        caption="What is left of the correlation among samples at the same position.",
    )


def _cells(one: Manifold) -> list[str]:
    within = "-" if one.within is None else f"{one.within:.2f}"
    shares = [f"{one.pc1:.0%}", f"{one.pc12:.0%}", f"{one.participation:.1f}"]
    return [*shares, f"{one.rho:.2f}", within, f"{one.r2_strata:.3f}", f"{one.gain:.3f}"]


def _named(random: Sequence[ModelGeometry]) -> list[tuple[str, ModelGeometry]]:
    return [(f"random weights {number}", one) for number, one in enumerate(random, 1)]


# Keys --------------------------------------------------------------------------------------------------------------


def keys_chart(layers: Mapping[int, Sequence[KeyLayer]], random: Sequence[Keys], name: str, title: str) -> Chart:
    """Mean |cos| by layer with what it is held against. layers: of each seed."""
    x = [float(layer) for layer in range(len(next(iter(layers.values()))))]
    series = [
        Series(
            f"seed {seed}",
            x,
            [one.cosine for one in own],
            low=[one.low for one in own],
            high=[one.high for one in own],
        )
        for seed, own in sorted(layers.items())
    ]
    gaussian = next(iter(layers.values()))[0].gaussian
    series.append(Series("Gaussian vectors", x, [gaussian] * len(x), DASHED))
    if random:
        means = np.array([one.cosine.mean(0) for one in random])
        series.append(Series(f"mean of {len(random)} with random weights", x, means.mean(0).tolist(), DASHED))
        series.append(Series("nearest of them", x, means.min(0).tolist(), DASHED))
    return Chart(
        name,
        title,
        Axis("layer"),
        Axis("mean |cos| of keys"),
        series,
        categories=[str(layer) for layer in range(len(x))],
        caption="Keys at the scored places of a sequence, head by head; bands are intervals over sequences. The claim "
        "is a line below all dashed ones.",
    )


def keys_tables(
    layers: Mapping[int, Sequence[KeyLayer]],
    outcomes: Mapping[int, str],
    trained: Mapping[int, Keys],
    hmm: Population | None,
) -> list[Table]:
    """By seed and layer, and the columns of W_K; the same keys in the HMM, where its models were measured."""
    count = len(next(iter(layers.values())))
    numbered = [f"layer {layer}" for layer in range(count)]
    rows = []
    for seed, own in sorted(layers.items()):
        cells = [f"{one.cosine:.3f} ({one.low:.3f} to {one.high:.3f})" for one in own]
        rows.append([f"seed {seed}", *cells, outcomes[seed]])
    tables = [Table("Mean |cos| of keys, keys repeat", ["model", *numbered, "outcome"], rows)]
    if first := next((one for one in trained.values() if one.weights), None):
        rows = [[f"seed {seed}", *(f"{value:.3f}" for value in one.weights)] for seed, one in sorted(trained.items())]
        rows.append(["Gaussian vectors", *[f"{first.weights_gaussian:.3f}"] * count])
        tables.append(Table("Mean |cos| of the columns of W_K", ["model", *numbered], rows))
    if hmm is not None:
        models = [(f"seed {seed}", one) for seed, one in sorted(hmm.trained.items())]
        means = [(name, one.keys.cosine.mean(0)) for name, one in [*models, *_named(hmm.random)]]
        rows = [[name, *(f"{value:.3f}" for value in mean)] for name, mean in means]
        depth = len(means[0][1])
        rows.append(["Gaussian vectors", *[f"{models[0][1].keys.gaussian:.3f}"] * depth])
        heads = ["model", *(f"layer {layer}" for layer in range(depth))]
        tables.append(Table("Mean |cos| of keys, HMM (beside the verdict)", heads, rows))
    return tables
