"""What became of a run or an experiment, read from its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeRun

from llmlab.core.charts import Axis
from llmlab.notebook.outcomes import RunFacts, read_facts
from llmlab.notebook.scoring import NotBefore
from llmlab.store.events import Evaluated, Scored
from llmlab.studies.experiments.outcomes import Chart, Curve, ExperimentResults, Finding, Point, write_results
from llmlab.studies.lab_notebook import experiment_facts
from llmlab.studies.plans.records import ExperimentFolder, ExperimentRecord, Trial


def evaluated(fake: FakeRun, *losses: float, every: int = 10) -> FakeRun:
    """Evaluations with these validation losses, training losses half a nat lower."""
    best = float("inf")
    for place, loss in enumerate(losses, start=1):
        fake.append(Evaluated(place * every, 1.0, loss - 0.5, loss, loss < best, 0.1))
        best = min(best, loss)
    return fake


def test_every_number_of_a_run_is_read(outputs: Path) -> None:
    fake = FakeRun(outputs, "bar", steps=40).start().advance(40, evaluate=False)
    facts = read_facts(evaluated(fake, 4.0, 3.0, 2.0, 2.5).run)
    assert facts.of("val_loss") == 2.5
    assert facts.of("train_loss") == 2.0
    assert facts.of("gap") == 0.5
    assert facts.of("best_val_loss") == 2.0
    assert facts.of("best_step") == 30.0
    assert facts.of("overfits") == "yes"
    assert facts.of("steps_to_2.5") == 25.0  # straight between 3.0 at 20 and 2.0 at 30
    assert facts.of("steps_to_4.5") == 10.0  # before the first evaluation: no earlier step is known
    assert facts.of("steps_to_1.5") == NotBefore(40.0)
    assert facts.of("loss_curve") == [[10.0, 4.0], [20.0, 3.0], [30.0, 2.0], [40.0, 2.5]]
    last = fake.step_event(40)
    assert facts.of("tokens_per_second") == pytest.approx(last.tokens / last.active_seconds)
    assert facts.of("minutes") == pytest.approx(last.active_seconds / 60)
    assert facts.of("score") is None
    assert facts.of("best_lr") is None  # of experiments
    assert "2.500 at step 40" in facts.result


def test_a_run_without_events_tells_nothing(outputs: Path) -> None:
    facts = read_facts(FakeRun(outputs, "bar").run)
    assert facts == RunFacts()
    for name in ("val_loss", "overfits", "steps_to_2.5", "loss_curve", "minutes", "score_before"):
        assert facts.of(name) is None
    assert facts.result == "No loss was measured."


def test_losses_that_do_not_rise_are_no_overfitting(outputs: Path) -> None:
    assert read_facts(evaluated(FakeRun(outputs, "a").start(), 3.0, 2.0, 2.019).run).of("overfits") == "no"
    assert read_facts(evaluated(FakeRun(outputs, "b").start(), 3.0, 2.0, 2.021).run).of("overfits") == "yes"


def test_what_a_resumed_worker_took_back_is_not_counted(outputs: Path) -> None:
    fake = evaluated(FakeRun(outputs, "bar", steps=40).start().advance(10, evaluate=False), 4.0)
    fake.advance(10, evaluate=False).append(Evaluated(20, 1.0, 0.5, 1.0, True, 0.1))
    assert read_facts(fake.run).of("val_loss") == 1.0
    fake.append(replace(fake.written[0], step=10, attempt=2))  # nobody has cut the file
    assert read_facts(fake.run).of("loss_curve") == [[10.0, 4.0]]
    fake.append(Evaluated(20, 2.0, 2.0, 3.0, True, 0.1))
    assert read_facts(fake.run).of("loss_curve") == [[10.0, 4.0], [20.0, 3.0]]


def test_what_came_after_the_planned_steps_is_left_out(outputs: Path) -> None:
    fake = FakeRun(outputs, "bar", steps=20).start().advance(20, evaluate=False)
    evaluated(fake, 4.0, 3.0)
    fake.resume_from(20)
    fake.append(Evaluated(30, 2.0, 1.0, 1.5, True, 0.1))
    assert read_facts(fake.run, until=20).of("val_loss") == 3.0
    assert read_facts(fake.run).of("val_loss") == 1.5


def test_damaged_lines_are_passed_over(outputs: Path) -> None:
    fake = evaluated(FakeRun(outputs, "bar").start(), 4.0)
    with fake.run.events.open("ab") as file:
        file.write(b'{"event": "evaluated", "time": 1\n\xff\xfe\n{"event": "step", "half\n')
    assert read_facts(fake.run).of("val_loss") == 4.0


def test_a_damaged_last_step_leaves_the_one_before_it(outputs: Path) -> None:
    fake = FakeRun(outputs, "bar").start().advance(7)
    with fake.run.events.open("ab") as file:
        file.write(b'{"event": "step", "half\n')
    assert read_facts(fake.run).of("minutes") == fake.step_event(7).active_seconds / 60


def test_right_answers_are_told_before_and_after(outputs: Path) -> None:
    fake = FakeRun(outputs, "bar").start()
    fake.append(Scored(0, 1.0, 2, 8, [], 0.1), Scored(100, 2.0, 6, 8, [], 0.1))
    facts = read_facts(evaluated(fake, 4.0).run)
    assert (facts.of("score_before"), facts.of("score")) == (25.0, 75.0)
    assert "75 % of the answers right" in facts.result


def experiment(
    outputs: Path, findings: list[Finding], charts: Sequence[Chart] = (), *, complete: bool = True
) -> ExperimentFolder:
    folder = ExperimentFolder(outputs / "experiments" / "lr")
    folder.path.mkdir(parents=True, exist_ok=True)
    trials = [
        Trial(f"a{i}", f"lr-a{i}", {"train.learning_rate": rate}, {"learning rate": rate}, seed, rate)
        for i, (rate, seed) in enumerate([(1e-4, 1), (1e-3, 1), (1e-2, 1), (1e-3, 2)])
    ]
    x = Axis("learning rate", log=True)
    folder.write_record(
        ExperimentRecord(
            "lr",
            "learning-rate",
            "Learning rate",
            "?",
            "!",
            "",
            "pretraining",
            1.0,
            {},
            trials,
            [1, 2],
            x,
            Axis("loss"),
        )
    )
    write_results(folder, ExperimentResults("lr", "learning-rate", complete, [], list(charts), findings))
    return folder


def test_the_best_of_an_experiment_is_one_of_its_arms(outputs: Path) -> None:
    findings = [Finding("best_lr", "best learning rate", 7e-4), Finding("best_loss", "loss of it", 2.25)]
    facts = experiment_facts(experiment(outputs, findings))
    assert facts is not None
    assert facts.of("best_lr") == 1e-3  # the nearest on the logarithmic grid
    assert facts.options("best_lr") == 3  # two seeds of one rate are one answer
    assert facts.of("best_loss") == 2.25
    assert facts.of("exponent") is None
    assert facts.options("best_loss") == 0
    assert "2.25" in facts.result
    in_bits = experiment_facts(experiment(outputs, [Finding("best_loss", "loss of it", 0.9, unit="bits per byte")]))
    assert in_bits is not None
    assert in_bits.of("best_loss") is None  # it was predicted in nats per token


def minimum() -> Chart:
    """Loss against learning rate, of two groups; the second reaches lower."""
    x, y = Axis("learning rate", log=True), Axis("loss")
    one = Curve("full", [Point(1e-4, 4.0), Point(1e-3, 3.5)])
    two = Curve("lora", [Point(1e-2, 3.0), Point(1e-4, 3.8), Point(1e-3, 2.5)])
    return Chart("result", "Result", x, y, [one, two, Curve("seeds", [Point(1e-3, 1.0)], line=False)])


def test_the_curve_of_an_experiment_is_the_one_that_reaches_lowest(outputs: Path) -> None:
    facts = experiment_facts(experiment(outputs, [], [minimum()]))
    assert facts is not None
    assert facts.curve == [[1e-4, 3.8], [1e-3, 2.5], [1e-2, 3.0]]
    assert (facts.x_axis, facts.x_log) == ("learning rate", True)
    bare = experiment_facts(experiment(outputs, []))
    assert bare is not None
    assert bare.curve == []


def test_an_experiment_without_results_tells_nothing(outputs: Path) -> None:
    folder = experiment(outputs, [])
    assert experiment_facts(replace(folder, path=folder.path)) is not None
    folder.results_json.unlink()
    assert experiment_facts(folder) is None
