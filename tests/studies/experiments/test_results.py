"""Results come from the runs' events alone, and the report says nothing that is not in them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_trials import experiment, finish, finish_all
from fakes import FakeRun

from llmlab.notebook.predictions import parse_prediction
from llmlab.studies.experiments.analyses import _spread_over_time, analyse, pareto_front
from llmlab.studies.experiments.gathered import gather
from llmlab.studies.experiments.outcomes import (
    Chart,
    ExperimentResults,
    Point,
    read_forecast,
    read_results,
    write_results,
)
from llmlab.studies.experiments.results import build_results, forecast_next
from llmlab.studies.lab_notebook import lab_notebook
from llmlab.studies.plans.divergence import NOT_FINITE
from llmlab.studies.plans.records import ExperimentFolder, Trial, find_plan, list_plans
from llmlab.studies.report import write_report

RATES = [3e-4, 1e-3, 3e-3, 1e-2]


def minimum(trial: Trial) -> float:
    """A basin with its bottom at 2e-3; the second seed is 0.02 above the first."""
    return 2.0 + 0.1 * math.log(trial.x / 2e-3) ** 2 + 0.02 * (trial.seed - 1337)


def built(folder: ExperimentFolder) -> ExperimentResults:
    results = build_results(folder, folder.record())
    write_results(folder, results)
    return results


def test_the_basin_of_the_learning_rate_with_means_and_errors_over_seeds(outputs: Path) -> None:
    folder = experiment(outputs, "learning-rate", grid=RATES, seeds=2)
    finish_all(folder, minimum)
    results = built(folder)
    assert results.complete
    points = results.charts[0].curves[0].points
    assert [point.x for point in points] == RATES
    for point in points:
        mean = 2.01 + 0.1 * math.log(point.x / 2e-3) ** 2
        assert point.y == pytest.approx(mean)
        # Two runs 0.02 apart: their standard deviation is 0.02 / sqrt(2), the error of their mean half of 0.02.
        assert (point.low, point.high) == (pytest.approx(mean - 0.01), pytest.approx(mean + 0.01))
        assert point.runs == 2
    assert results.value("fitted_lr") == pytest.approx(2e-3, rel=1e-6)
    assert results.value("best_lr") == 3e-3  # |ln 3/2| is less than |ln 1/2|
    assert results.value("best_loss") == pytest.approx(points[2].y)
    assert results.value("spread") == pytest.approx(points[0].y - points[2].y)
    assert results.charts[0].fits[0].parameters["k"] == pytest.approx(0.1)


def test_charts_of_losses_are_there_in_bits_per_byte_too_and_first_where_tokens_differ(outputs: Path) -> None:
    folder = experiment(outputs, "learning-rate", grid=RATES[:3])
    char, bpe = {"bytes_per_token": 1.25}, {"tokenizer": "bpe", "vocab_size": 512, "bytes_per_token": 2.5}
    losses, bits = (2.0, 1.5, 2.5), math.log2(math.e)
    first, second, third = folder.record().trials

    def units(results: ExperimentResults) -> list[set[str]]:
        return [{one.y_axis.unit for one in charts} for charts in (results.charts, results.other_unit)]

    def drawn(charts: list[Chart], name: str) -> list[float]:
        (chart,) = (chart for chart in charts if chart.name == name)
        return [point.y for curve in chart.curves for point in curve.points]

    for trial, loss in ((first, 2.0), (second, 1.5)):
        finish(folder, trial, loss, **char)
    results = built(folder)
    assert units(results) == [{"nats per token"}, {"bits per byte"}]
    for one, other in zip(results.charts, results.other_unit, strict=True):
        assert (one.name, one.title) == (other.name, other.title)
        there = drawn(results.charts, one.name)
        assert drawn(results.other_unit, one.name) == pytest.approx([loss * bits / 1.25 for loss in there])
    assert results.value("best_loss") == 1.5
    finish(folder, third, 2.5, **bpe)  # more a token, and less a byte
    results = built(folder)
    assert units(results) == [{"bits per byte"}, {"nats per token"}]
    sizes = (1.25, 1.25, 2.5)
    wanted = [loss * bits / size for loss, size in zip(losses, sizes, strict=True)]
    assert drawn(results.charts, results.charts[0].name) == pytest.approx(wanted)
    assert drawn(results.other_unit, results.charts[0].name) == pytest.approx(losses)
    (lowest,) = (finding for finding in results.findings if finding.name == "best_loss")
    assert (lowest.value, lowest.unit) == (pytest.approx(2.5 * bits / 2.5), "bits per byte")
    assert any("charts and findings are in bits per byte" in note for note in results.notes)
    assert [trial.val_loss for trial in results.trials] == list(losses)
    assert read_results(folder) == results


def test_without_the_bytes_of_a_run_there_are_losses_per_token_alone(outputs: Path) -> None:
    folder = experiment(outputs, "learning-rate", grid=RATES[:2])
    first, second = folder.record().trials
    finish(folder, first, 2.0, bytes_per_token=1.25)
    finish(folder, second, 2.0, tokenizer="bpe", vocab_size=512)
    results = built(folder)
    assert results.other_unit == []
    assert {chart.y_axis.unit for chart in results.charts} == {"nats per token"}
    assert any("their losses per token do not compare" in note for note in results.notes)


def test_a_run_that_is_looked_at_has_its_losses_in_bits_per_byte_too(outputs: Path) -> None:
    fake = FakeRun(outputs, "looked-at", bytes_per_token=1.25).start().advance(60)
    results = built(experiment(outputs, "loss-curves", subject="looked-at"))
    (loss,) = results.other_unit
    assert (loss.name, loss.y_axis.unit) == ("loss", "bits per byte")
    first = fake.step_event(1).loss
    assert [chart.curves[0].points[0].y for chart in (results.charts[0], loss)] == pytest.approx(
        [first, first / math.log(2) / 1.25]
    )


def test_a_lowest_loss_at_the_end_of_the_grid_is_said_to_be_there(outputs: Path) -> None:
    folder = experiment(outputs, "learning-rate", grid=RATES)
    finish_all(folder, lambda trial: 4 + math.log10(trial.x))
    results = built(folder)
    assert results.value("fitted_lr") is None
    assert any("finer or wider grid" in note for note in results.notes)


@pytest.mark.parametrize(
    ("lora", "ratio"),
    [
        (lambda x: 2.0 + 0.1 * math.log(x / 4e-3) ** 2, 2.0),  # both basins have a bottom: 4e-3 over 2e-3
        (lambda x: 4 - math.log10(x), 1e-2 / 3e-3),  # lora falls to the end of the grid: its rates are compared
    ],
)
def test_the_rates_of_lora_and_full_are_compared_like_with_like(
    outputs: Path, lora: Callable[[float], float], ratio: float
) -> None:
    folder = experiment(outputs, "learning-rate", grid=RATES)
    finish_all(folder, minimum)
    gathered = gather(folder, folder.record())
    trials, results = gathered.record.trials, gathered.trials
    record = replace(
        gathered.record, trials=[replace(trial, group=name) for name in ("lora", "full") for trial in trials]
    )
    both = [replace(trial, group="full") for trial in results]
    both += [replace(trial, group="lora", val_loss=lora(trial.x)) for trial in results]
    _, findings, _ = analyse(replace(gathered, record=record, trials=both))
    (found,) = [finding for finding in findings if finding.name == "lora_to_full"]
    assert found.value == pytest.approx(ratio, rel=1e-6)


def test_a_rate_at_which_a_run_diverged_is_no_part_of_the_basin(outputs: Path) -> None:
    folder = experiment(outputs, "learning-rate", grid=[*RATES, 3e-2], seeds=2)
    *steady, cut = folder.record().trials
    for trial in steady:
        finish(folder, trial, minimum(trial) if trial.x < 3e-2 else 6.0)
    FakeRun(outputs, cut.run).start().advance(5).fail(f"The loss at step 6 {NOT_FINITE}.")
    results = built(folder)
    assert next(trial for trial in results.trials if trial.name == cut.name).state == "diverged"
    assert results.value("fitted_lr") == pytest.approx(2e-3, rel=1e-6)


def test_runs_that_have_not_ended_are_in_no_mean(outputs: Path) -> None:
    folder = experiment(outputs, "width", grid=[16, 32, 64])
    first, *_ = folder.record().trials
    finish(folder, first, 2.5)
    results = built(folder)
    assert not results.complete
    assert [trial.state for trial in results.trials] == ["finished", "planned", "planned"]
    assert [point.x for point in results.charts[0].curves[0].points] == [16]


@pytest.mark.slow
def test_the_next_size_is_predicted_from_the_smaller_ones_before_it_is_run(outputs: Path) -> None:
    folder = experiment(outputs, "scaling", grid=[16, 24, 32, 48, 64], seeds=2)
    record = folder.record()
    noise = np.random.default_rng(0)

    def law(trial: Trial) -> float:
        return 40 * trial.x**-0.4 + 1.2 + noise.normal(0, 0.003)

    finish_all(folder, law, bytes_per_token=1.25)
    last = next(trial for trial in record.trials if trial.forecast)
    forecast_next(folder, record, last)
    forecast = read_forecast(folder)
    assert forecast is not None
    truth = 40 * last.x**-0.4 + 1.2
    assert forecast.value == pytest.approx(truth, abs=0.02)
    assert forecast.low is not None
    assert forecast.high is not None
    assert forecast.low < truth < forecast.high
    assert len(forecast.trials) == 8
    finish(folder, last, truth + 0.5, bytes_per_token=1.25)
    before = folder.forecast_json.read_bytes()
    forecast_next(folder, record, last)
    assert folder.forecast_json.read_bytes() == before
    results = built(folder)
    assert results.value("next_loss") == truth + 0.5
    assert results.value("forecast") == forecast.value
    assert results.value("forecast_error") == pytest.approx(truth + 0.5 - forecast.value)
    predicted = [charts[0].curves[-1].points[0].y for charts in (results.charts, results.other_unit)]
    assert predicted == pytest.approx([forecast.value, forecast.value / math.log(2) / 1.25])
    # The fit stays what it was: the run that was predicted is not part of it.
    assert results.charts[0].fits[0].parameters["b"] == pytest.approx(forecast.b)


def test_a_run_that_has_begun_is_predicted_no_more(outputs: Path) -> None:
    folder = experiment(outputs, "scaling", grid=[16, 24, 32, 48], seeds=2)
    record = folder.record()
    finish_all(folder, lambda trial: 40 * trial.x**-0.4 + 1.2)
    last, again = (trial for trial in record.trials if trial.forecast)
    finish(folder, last, 1.5)
    forecast_next(folder, record, last)
    forecast_next(folder, record, again)  # the same size with another seed
    assert read_forecast(folder) is None
    assert any("No prediction had been written" in note for note in built(folder).notes)


def test_a_speedrun_tells_how_much_faster_the_record_is_and_what_each_lever_is_worth(outputs: Path) -> None:
    folder = experiment(outputs, "speedrun", seeds=2)
    trials = folder.record().trials
    levers = list(dict.fromkeys(trial.varied["lever"] for trial in trials if trial.group == "without"))
    worth = {lever: 0.01 * number for number, lever in enumerate(levers, start=1)}
    for trial in trials:
        loss, has = 2.5 + 0.02 * (trial.seed - 1337), int(trial.x)
        if trial.group == "baseline":
            loss -= 0.1
        elif trial.group == "without":
            loss -= sum(worth.values()) - 2 * worth[trial.varied["lever"]]
        else:
            loss -= sum([*worth.values()][:has])
        finish(folder, trial, loss, steps=20 if trial.group == "baseline" else 5)
    results = built(folder)
    assert results.value("speedup") == pytest.approx(4)
    assert results.value("margin") == pytest.approx(sum(worth.values()) - 0.1)
    assert results.value("tokens_share") == pytest.approx(0.25)
    for lever in levers:
        name = lever.lower().replace(" ", "_").replace("-", "_")
        assert results.value(f"gain_{name}") == pytest.approx(worth[lever])
        assert results.value(f"without_{name}") == pytest.approx(2 * worth[lever])
    charts = {chart.name: chart for chart in results.charts}
    in_turn, alone = charts["loss-by-lever"].curves
    assert [point.label for point in in_turn.points] == ["fewer steps", *levers]
    assert [point.y for point in alone.points] == pytest.approx(
        [in_turn.points[-1].y + 2 * one for one in worth.values()]
    )
    assert [point.runs for point in in_turn.points] == [2] * (1 + len(levers))
    baseline = next(curve for curve in charts["loss-by-time"].curves if curve.name == "baseline 20 steps")
    assert baseline.points[0].x == 0
    assert baseline.points[-1].x == pytest.approx(results.value("baseline_seconds"))
    assert not any("does not reach" in note for note in results.notes)


def test_a_record_that_stays_above_the_baseline_has_no_time_to_its_loss(outputs: Path) -> None:
    folder = experiment(outputs, "speedrun", groups=["baseline", "record"])
    assert built(folder).value("speedup") is None
    finish_all(folder, lambda trial: 2.1 if trial.group == "record" else 2.0)
    assert any("does not reach the baseline's loss" in note for note in built(folder).notes)
    assert built(folder).value("speedup") is None


def test_data_size_is_judged_by_the_lowest_loss(outputs: Path) -> None:
    folder = experiment(outputs, "data-size", grid=[10_000, 100_000])
    for trial in folder.record().trials:
        finish(folder, trial, 3.0, best=2.0 if trial.x == 10_000 else 2.5)
    assert built(folder).value("best_loss") == 2.0


def test_the_smallest_text_is_the_one_of_which_least_was_read(outputs: Path) -> None:
    folder = experiment(outputs, "data-size", grid=[0, 10_000])  # 0: all of it
    finish_all(folder, lambda trial: 3.0)
    gathered = gather(folder, folder.record())
    for trial, read in zip(gathered.trials, (500_000, 10_000), strict=True):
        history = gathered.histories[trial.name]
        assert history.worker is not None
        history.workers = [replace(history.worker, train_tokens=read)]
    findings = {finding.name: finding.value for finding in analyse(gathered)[1]}
    assert findings["repetitions"] == gathered.histories[gathered.trials[1].name].step_columns["tokens"][-1] / 10_000


def test_the_spread_of_ranks_is_that_of_their_means_and_no_seed_is_part_of_it(outputs: Path) -> None:
    folder = experiment(outputs, "width", grid=[16, 32], seeds=2)
    finish_all(folder, lambda trial: 2.0 + (0.1 if trial.x == 32 else 0.0) + 0.5 * (trial.seed - 1337))
    spread = _spread_over_time(gather(folder, folder.record()))
    assert spread is not None
    (_, early), (_, late) = spread
    assert (early, late) == (0.0, pytest.approx(0.1))


def test_the_early_spread_is_that_after_an_interval_and_not_of_the_first_steps(outputs: Path) -> None:
    folder = experiment(outputs, "width", grid=[16, 32])
    finish_all(folder, lambda trial: 2.0 + (0.3 if trial.x == 32 else 0.0))
    gathered = gather(folder, folder.record())
    base = gathered.record.base
    record = replace(gathered.record, base=base | {"train": base["train"] | {"eval_interval": 15}})
    for trial in gathered.trials:  # measured at 0, 10 and 20 so far, of which 10 is an early one then
        rows = gathered.histories[trial.name].evaluated
        rows.insert(2, replace(rows[1], step=15, val_loss=3.0 + (0.1 if trial.x == 32 else 0.0)))
    spread = _spread_over_time(replace(gathered, record=record))
    assert spread == ((15, pytest.approx(0.1)), (20, pytest.approx(0.3)))


def test_arms_that_do_not_say_what_they_vary_still_give_results(outputs: Path) -> None:
    folder = experiment(outputs, "learning-rate", grid=RATES)
    finish_all(folder, minimum)
    record = folder.record()
    folder.write_record(replace(record, trials=[replace(trial, varied={}) for trial in record.trials]))
    assert built(folder).value("best_lr") == 3e-3


def test_results_come_back_from_their_file_as_they_were(outputs: Path) -> None:
    folder = experiment(outputs, "learning-rate", grid=RATES)
    finish_all(folder, minimum)
    results = built(folder)
    assert read_results(folder) == results
    folder.results_json.write_text('{"id": 7}')
    assert read_results(folder) is None


def test_the_pareto_front_is_what_nothing_beats_in_both() -> None:
    points = [Point(1.0, 5.0), Point(2.0, 3.0), Point(2.5, 4.0), Point(3.0, 1.0), Point(3.0, 2.0)]
    assert [(point.x, point.y) for point in pareto_front(points)] == [(1.0, 5.0), (2.0, 3.0), (3.0, 1.0)]


@pytest.mark.slow
def test_every_number_of_the_report_is_one_of_the_results_or_of_the_plan(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = experiment(outputs, "learning-rate", grid=RATES, seeds=2, command="llmlab-run experiment learning-rate")
    finish_all(folder, minimum)
    results = built(folder)
    text = write_report(folder, folder.record(), results, seconds=12.0).read_text()
    body = text[text.index("## What happened") : text.index("## How it was done")]
    body = re.sub(r"!\[.*?\]\(.*?\)|`[^`]*`", "", body)  # figures, names of runs
    known = _numbers(json.loads(folder.results_json.read_text())) + _numbers(
        json.loads(folder.experiment_json.read_text())
    )
    for written in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?", body):
        value, digits = float(written), max(1, len(written.replace(".", "").lstrip("0").partition("e")[0]))
        close = [one for one in known if math.isclose(one, value, rel_tol=10.0 ** (1 - digits), abs_tol=5e-5)]
        assert close or written in ("90", "1"), f"{written} is no result"
    for figure in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (folder.path / figure).stat().st_size > 5000
        assert (folder.path / figure).with_suffix(".svg").is_file()


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [float(value)] if isinstance(value, (int, float)) else []


@pytest.mark.usefixtures("no_figures")
def test_a_prediction_is_told_with_what_came_and_what_was_learned_is_asked(outputs: Path) -> None:
    predictions = [parse_prediction("best_lr=1e-3..5e-3@80%").as_dict()]
    folder = experiment(outputs, "learning-rate", grid=RATES, predictions=predictions)
    assert folder.record().predictions[0]["seal"]
    finish_all(folder, minimum)
    results = built(folder)
    text = write_report(folder, folder.record(), results).read_text()
    assert "learning rate of the lowest loss: 0.001 to 0.005, 80 % sure. The outcome was 0.003: inside." in text
    assert "bits: little surprise" in text
    assert "Not written yet: `llmlab-run notebook learned x" in text
    book = lab_notebook(outputs)
    book.learn(book.find("x"), "The basin is wide.")
    assert "The basin is wide." in write_report(folder, folder.record(), results).read_text()


@pytest.mark.usefixtures("no_figures")
def test_without_a_prediction_nothing_is_called_surprising(outputs: Path) -> None:
    folder = experiment(outputs, "width", grid=[16, 32])
    finish_all(folder, lambda trial: 3.0)
    assert "nothing here can be called surprising" in write_report(folder, folder.record(), built(folder)).read_text()


@pytest.mark.usefixtures("no_figures")
def test_the_training_of_a_run_that_was_there_before_is_no_part_of_the_time(outputs: Path) -> None:
    FakeRun(outputs, "seen", steps=20).start().advance(20).finish()
    folder = experiment(outputs, "loss-curves", subject="seen")
    results = built(folder)
    text = write_report(folder, folder.record(), results, seconds=0.1).read_text()
    assert f"- Duration: 0 s; the run had trained for {results.seconds:.0f} s\n" in text
    assert results.seconds > 0.5


def test_experiments_are_found_by_name_and_damaged_ones_are_told(outputs: Path) -> None:
    folder = experiment(outputs, "width", grid=[16, 32])
    assert [one.id for one in list_plans(outputs, ExperimentFolder)] == ["x"]
    assert find_plan("x", outputs, ExperimentFolder) == folder
    assert folder.status().state == "planned"
    assert folder.record().trial("w16").settings["model.n_embd"] == 16
    with pytest.raises(Exception, match="Did you mean x"):
        find_plan("xx", outputs, ExperimentFolder)
    folder.experiment_json.write_text('{"trials": [{"name": 3}]}')
    with pytest.raises(Exception, match="damaged"):
        folder.record()
    folder.experiment_json.write_text('{"kind": "width", "title": "Width"}')
    with pytest.raises(Exception, match="It lacks question, hypothesis"):
        folder.record()


def test_files_that_call_trials_arms_are_read_as_ever(outputs: Path) -> None:
    folder = experiment(outputs, "scaling", grid=[8, 16, 24, 32])
    finish_all(folder, lambda trial: 40 * trial.x**-0.4 + 1.2)
    forecast_next(folder, folder.record(), folder.record().trials[-1])
    write_results(folder, built(folder))
    before = folder.record(), folder.recorded_status(), read_results(folder), read_forecast(folder)
    assert before[0].trials
    assert before[3] is not None
    for path in (folder.experiment_json, folder.status_json, folder.results_json, folder.forecast_json):
        text = path.read_text()
        former = re.sub(r'"trial(s?)":', r'"arm\1":', text)
        assert former != text
        path.write_text(former)
    assert (folder.record(), folder.recorded_status(), read_results(folder), read_forecast(folder)) == before


def test_the_best_arm_is_the_run_with_the_lowest_loss_and_not_the_first_seed_of_the_best_value(outputs: Path) -> None:
    folder = experiment(outputs, "width", grid=[16, 32], seeds=2)
    losses = dict(zip([trial.name for trial in folder.record().trials], (2.9, 2.7, 2.6, 3.4), strict=True))
    finish_all(folder, lambda trial: losses[trial.name])
    found = {finding.name: finding for finding in built(folder).findings}
    assert found["best_arm"].choice == min(losses, key=losses.__getitem__)
