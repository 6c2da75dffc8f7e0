"""The figures of the pages "How to read": each is drawn from made-up data in which one flaw is planted. No torch.

`python -m llmlab.studies.flawed_figures` draws them anew into resources/how-to-read/figures. tests/studies holds that
the flaw of each is in its data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llmlab.core.charts import BARS, DASHED, Axis, Chart, Series, Table
from llmlab.core.figures import chart_figure
from llmlab.core.paths import resources_dir
from llmlab.core.signs import count_text

FIGURES_DIR = resources_dir() / "how-to-read" / "figures"
VOCABULARY = 50257  # GPT-2's
# Of a made-up law, loss = E + A / N^alpha; the form is that of Hoffmann et al. 2022, Section 3.3, the numbers are ours.
FLOOR, SCALE, EXPONENT = 1.9, 40.0, 0.28
QUESTIONS, ABILITY = 200, 0.62  # of the benchmark: how many, and what share either model answers in the long run


def loss_curve() -> Chart:
    """Two runs, said to be fresh; one begins far below what a model that knows nothing gets, ln V."""
    rng, steps = np.random.default_rng(1), np.arange(0, 4001, 50)
    series = []
    for name, start, end, pace in (("baseline", math.log(VOCABULARY), 3.30, 420), ("ours", 6.9, 3.21, 420)):
        loss = end + (start - end) * np.exp(-((steps / pace) ** 0.6)) + 0.015 * rng.standard_normal(len(steps))
        series.append(Series(name, steps.astype(float).tolist(), loss.tolist()))
    title = f"Validation loss, both trained from scratch, {VOCABULARY:,} tokens in the vocabulary"
    return Chart("loss-curve", title, Axis("step"), Axis("loss", "nats"), series)


def scaling_plot() -> Chart:
    """Losses that flatten towards a floor, and a straight line through the smaller half of them."""
    sizes = np.logspace(5, 9, 9)
    loss = _law(sizes) * np.exp(0.004 * np.random.default_rng(2).standard_normal(len(sizes)))
    slope, at = np.polyfit(np.log(sizes[:5]), np.log(loss[:5]), 1)
    line = np.exp(at + slope * np.log(sizes))
    series = [
        Series("models", sizes.tolist(), loss.tolist()),
        Series("power law", sizes.tolist(), line.tolist(), kind=DASHED),
    ]
    title = "Loss falls as a power of size"
    return Chart("scaling-plot", title, Axis("parameters", log=True), Axis("loss", "nats", log=True), series)


def ablation_table() -> Table:
    """Parts are left out one at a time; the loss follows the parameters that go with them, and nothing else."""
    rng, whole = np.random.default_rng(3), 12_600_000
    rows = []
    for name, gone in (("all parts", 0), ("no gate", 3_150_000), ("no second norm", 2_048), ("no head bias", 3_072)):
        count = whole - gone
        loss = _law(np.array([float(count)]))[0] + 0.001 * rng.standard_normal()
        rows.append([name, count_text(count), f"{loss:.3f}", "3"])
    return Table("Each part left out in turn", ["model", "parameters", "loss (nats)", "seeds"], rows)


def attention_figure() -> Chart:
    """How much a head attends to each earlier token, with the first token, which gets most of it, left out."""
    rng, tokens = np.random.default_rng(4), ["The", "keys", "that", "the", "man", "lost", "are"]
    scores = rng.normal(0.0, 0.3, len(tokens))
    scores[0], scores[1] = 3.6, 1.5
    pattern = np.exp(scores) / np.exp(scores).sum()
    shown = pattern[1:].tolist()
    series = [Series("attention from the last token", [float(n) for n in range(len(shown))], shown, kind=BARS)]
    title = "Head 5.3 attends from the verb to its subject"
    return Chart("attention", title, Axis("attended token"), Axis("attention"), series, categories=tokens[1:])


def probing_result() -> Chart:
    """A probe's accuracy, layer by layer, on an axis that begins near what layer 0 gets."""
    layers = np.arange(13)
    hump = np.exp(-(((layers - 7) / 3.2) ** 2))
    accuracy = 0.912 + 0.031 * hump + 0.002 * np.random.default_rng(5).standard_normal(len(layers))
    series = [Series("probe", layers.astype(float).tolist(), accuracy.tolist())]
    title = "Part of speech is computed in the middle layers"
    return Chart("probing", title, Axis("layer, 0 before the first block"), Axis("accuracy"), series)


def benchmark_score() -> Chart:
    """Two models that answer with the same probability, and the questions that each happened to get right."""
    right = np.random.default_rng(6).binomial(QUESTIONS, ABILITY, size=2)
    scores = sorted((100 * right / QUESTIONS).tolist())
    series = [Series("score", [0.0, 1.0], scores, kind=BARS)]
    title = f"Ours is ahead on {QUESTIONS} questions"
    return Chart("benchmark", title, Axis("model"), Axis("right", "%"), series, categories=["baseline", "ours"])


FIGURES: tuple[Callable[[], Chart], ...] = (loss_curve, scaling_plot, attention_figure, probing_result, benchmark_score)


def draw(folder: Path = FIGURES_DIR) -> None:
    """Writes each figure as `probing.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    for make in FIGURES:
        figure = make()
        chart_figure(figure).savefig(folder / f"{figure.name}.png", dpi=120)


def _law(parameters: np.ndarray) -> np.ndarray:
    return FLOOR + SCALE / parameters**EXPONENT


if __name__ == "__main__":
    draw()
