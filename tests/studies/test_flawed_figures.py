"""Each figure of the pages "How to read" has the flaw that its answer names, and the pages' numbers are the data's."""

from __future__ import annotations

import math

import numpy as np

from llmlab.core.paths import resources_dir
from llmlab.studies import flawed_figures
from llmlab.studies.flawed_figures import (
    FIGURES,
    FIGURES_DIR,
    FLOOR,
    QUESTIONS,
    VOCABULARY,
    ablation_table,
    attention_figure,
    benchmark_score,
    loss_curve,
    probing_result,
    scaling_plot,
)

PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (resources_dir() / "how-to-read").glob("*.md")}
ANSWERS = {
    part.partition("**:")[0]: part for part in PAGES["7-answers"].replace("\n\n**", "\0").split("\0")[1:]
}  # by term


def test_one_run_of_the_loss_curve_was_not_fresh() -> None:
    baseline, ours = loss_curve().series
    assert abs(baseline.y[0] - math.log(VOCABULARY)) < 0.05
    assert ours.y[0] < math.log(VOCABULARY) - 3
    assert f"ln {VOCABULARY:,} = {math.log(VOCABULARY):.2f}" in ANSWERS["Loss curve"]
    assert f"begins at {ours.y[0]:.1f} nats" in ANSWERS["Loss curve"]


def test_the_line_of_the_scaling_plot_misses_all_large_models_ever_more() -> None:
    models, line = scaling_plot().series
    off = np.array(models.y) / np.array(line.y) - 1
    assert np.all(off[5:] > 0.05)
    assert np.all(np.diff(off[5:]) > 0)
    assert np.abs(off[:5]).max() < 0.03
    small, loss = np.log(np.array(models.x)), np.array(models.y)
    with_floor = np.polyfit(small, np.log(loss - FLOOR), 1, full=True)[1]
    straight = np.polyfit(small, np.log(loss), 1, full=True)[1]
    assert with_floor / np.var(np.log(loss - FLOOR)) < 0.1 * straight / np.var(np.log(loss))
    assert f"the largest by {100 * off[-1]:.0f} %" in ANSWERS["Scaling plot"]


def test_what_the_ablation_loses_is_its_parameters() -> None:
    rows = {name: (float(count.removesuffix("M")), float(loss)) for name, count, loss, _ in ablation_table().rows}
    whole, gate = rows["all parts"], rows["no gate"]
    assert gate[0] < 0.8 * whole[0]
    law = [FLOOR + flawed_figures.SCALE / (1e6 * count) ** flawed_figures.EXPONENT for count, _ in (whole, gate)]
    assert abs((gate[1] - whole[1]) - (law[1] - law[0])) < 0.01
    assert all(abs(loss - whole[1]) < 0.01 for name, (_, loss) in rows.items() if name != "no gate")
    table = ["| " + " | ".join(row) + " |" for row in ablation_table().rows]
    assert "\n".join(table) in PAGES["3-ablation-table"]
    assert f"rises by {gate[1] - whole[1]:.3f}" in PAGES["3-ablation-table"]
    assert f"{gate[0]} million parameters, the full one {whole[0]}" in ANSWERS["Ablation table"]


def test_the_bars_of_the_attention_figure_lack_the_first_token() -> None:
    chart = attention_figure()
    shown = sum(chart.series[0].y)
    assert "The" not in chart.categories
    assert max(chart.series[0].y) < 1 - shown
    assert f"sum to {shown:.2f}" in ANSWERS["Attention figure"]
    assert f"other {1 - shown:.2f}" in ANSWERS["Attention figure"]


def test_nearly_all_that_the_probe_reads_is_there_at_layer_0() -> None:
    accuracy = probing_result().series[0].y
    first, best = accuracy[0], max(accuracy)
    assert first > 0.95 * best
    words = ANSWERS["Probing result"]
    assert f"At layer 0 the accuracy is {first:.3f}, at its highest {best:.3f}" in words
    assert f"{100 * first / best:.0f} %" in words
    assert f"add {round(best, 3) - round(first, 3):.3f}" in words


def test_the_two_models_of_the_benchmark_are_one() -> None:
    chart = benchmark_score()
    low, high = (score / 100 for score in chart.series[0].y)
    share = round((low + high) / 2, 2)  # all that a reader knows
    error = math.sqrt(2 * share * (1 - share) / QUESTIONS)
    assert 0 < high - low < 1.96 * error
    assert not chart.series[0].low  # no interval is drawn
    words = ANSWERS["Benchmark score"]
    assert f"{low * QUESTIONS:.0f} against {high * QUESTIONS:.0f} right answers" in words
    assert f"= {100 * error:.1f} points" in words
    assert f"± {196 * error:.1f}" in words
    assert f"{flawed_figures.ABILITY}." in words


def test_every_figure_is_on_its_page_and_every_exercise_has_an_answer() -> None:
    text = "".join(PAGES.values())
    for make in FIGURES:
        name = make().name
        assert f"(figures/{name}.png)" in text
        assert (FIGURES_DIR / f"{name}.png").is_file()
    exercises = [page for page in PAGES.values() if "## Exercise" in page]
    assert len(exercises) == len(ANSWERS) == 6
    assert all("\n? " in page and "[Answer](concept:how-to-read/7-answers#" in page for page in exercises)
