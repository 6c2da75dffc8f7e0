"""What was forgotten is measured on the same predictions every time, and told as the runs and measurements have it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeRun
from small_runs import new_run, train_here
from tiny_models import llama, save

from llmlab.core.config import with_values
from llmlab.core.errors import LabError
from llmlab.core.files import write_json
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.progress import quiet
from llmlab.core.settings import PretrainSettings
from llmlab.data.dataset import load_dataset
from llmlab.data.sequences import gather
from llmlab.gpt.model import GPT
from llmlab.models.source import open_model
from llmlab.store.events import Evaluated
from llmlab.store.run_folder import RunFolder, RunInfo
from llmlab.studies.experiments import measure
from llmlab.studies.experiments.kinds import find_kind
from llmlab.studies.experiments.measure import GeneralText, general_loss, general_text, measure_trial
from llmlab.studies.experiments.outcomes import BASE, Measurement, read_measurement, write_results
from llmlab.studies.experiments.plan import Request, make_plan
from llmlab.studies.experiments.results import build_results
from llmlab.studies.launcher import create_experiment
from llmlab.studies.plans.records import ExperimentFolder, Trial
from llmlab.studies.report import write_report
from llmlab.training.finetuning.kind import Finetuning


def test_a_scratch_base_is_measured_on_what_its_pretraining_held_out(outputs: Path) -> None:
    run = train_here(new_run(outputs))
    text = general_text("run@final", "", outputs)
    settings = run.info().settings
    assert isinstance(settings, PretrainSettings)
    data = load_dataset(settings.data, 16, quiet)
    held_out = {tuple(window) for window in gather(data.val, torch.arange(len(data.val) - 16).numpy(), 16)[0].tolist()}
    assert all(tuple(row) in held_out for row in text.x.tolist())
    model = open_model("run@final", outputs).model
    assert isinstance(model, GPT)
    with torch.no_grad():
        log_probabilities = model(torch.from_numpy(text.x)).log_softmax(-1)  # [window, T, V]
    by_hand = -log_probabilities.gather(-1, torch.from_numpy(text.y)[..., None]).mean()
    assert general_loss(model, text) == pytest.approx(float(by_hand), rel=1e-5)
    assert general_loss(model, text) == general_loss(model, text)


def test_the_loss_of_a_model_of_transformers_is_its_own(outputs: Path, tmp_path: Path) -> None:
    folder = save(llama(), tmp_path / "llama")
    text = general_text(str(folder), "tiny", outputs)
    model = open_model(str(folder), outputs).model
    whole = torch.from_numpy(text.x)
    with torch.no_grad():
        logits = llama()(input_ids=whole).logits.float()
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(text.y).flatten())
    assert general_loss(model, text) == pytest.approx(float(expected), rel=1e-4)


def test_a_text_that_is_too_short_is_refused(outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("the king " * 4)
    with pytest.raises(LabError, match="too short to measure forgetting"):
        general_text(str(save(llama(), tmp_path / "llama")), str(tmp_path / "short.txt"), outputs)


@pytest.fixture
def folder(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> ExperimentFolder:
    """Ranks 1 and 4 and full, all finished: task losses 1.5, 1.2 and 1.0, with checkpoints' losses measured."""
    monkeypatch.setattr(Finetuning, "seconds", lambda self, settings, outputs: 10.0)
    monkeypatch.setattr("llmlab.studies.experiments.plan._measuring_seconds", lambda request, settings: 0.0)
    monkeypatch.setattr(Finetuning, "pinned", lambda self, settings, outputs: settings)
    settings = with_values(FinetuneSettings(), {"model.base": "bar@100"})
    record = make_plan(Request(find_kind("forgetting"), settings, outputs, id="f", grid=[1, 4]))
    folder = create_experiment(outputs, record)
    folder.measurements.mkdir()
    ends = {"r1": (1.5, 2.1), "r4": (1.2, 2.3), "full": (1.0, 2.9)}
    for trial in record.trials:
        _finish(folder, trial, ends[trial.name][0])
        rows = [[0.0, 2.0], [20.0, ends[trial.name][1]]]
        write_json(folder.measurements / f"{trial.name}.json", dataclasses.asdict(Measurement("the text", 100, rows)))
    write_json(folder.measurements / f"{BASE}.json", dataclasses.asdict(Measurement("the text", 100, [[0.0, 2.0]])))
    return folder


def _finish(folder: ExperimentFolder, trial: Trial, loss: float) -> None:
    fake = FakeRun(folder.outputs, trial.run, steps=20, seed=trial.seed, bytes_per_token=2.0)
    path = folder.run_of(trial, "finetuning").path
    path.parent.mkdir(exist_ok=True)
    fake.run.path.rename(path)
    fake.run = RunFolder(path)
    fake.run.write_info(RunInfo(trial.run, "finetuning", fake.created, FinetuneSettings()))
    fake.start()
    fake.append(Evaluated(0, fake.time_of(0), 3.0, 3.0, True, 0.1))
    fake.advance(20, evaluate=False)
    fake.append(Evaluated(20, fake.time_of(20), loss, loss, True, 0.1))
    fake.finish()


@pytest.mark.usefixtures("no_figures")
def test_learned_against_forgotten_is_told_by_method(folder: ExperimentFolder) -> None:
    results = build_results(folder, folder.record())
    assert results.value("forgotten_rank_1") == pytest.approx(0.1)
    assert results.value("forgotten") == pytest.approx(0.3)  # of the largest rank
    assert results.value("forgotten_full") == pytest.approx(0.9)
    assert results.value("general_before") == 2.0
    paths = {curve.name: [(point.x, point.y) for point in curve.points] for curve in results.charts[0].curves}
    assert paths["full"] == [(3.0, 2.0), (1.0, 2.9)]
    assert paths["Pareto front"] == [(1.0, 2.9), (1.2, 2.3), (1.5, 2.1), (3.0, 2.0)]
    in_bits = {chart.name: chart for chart in results.other_unit}
    assert set(in_bits) == {"learned-against-forgotten", "over-steps"}
    learned = in_bits["learned-against-forgotten"]  # how many bytes a token of the general text has, no run says
    assert (learned.x_axis.unit, learned.y_axis.unit) == ("bits per byte", "nats per token")
    (full,) = (curve for curve in learned.curves if curve.name == "full")
    assert [point.x for point in full.points] == pytest.approx([3.0 / math.log(4), 1.0 / math.log(4)])
    assert [point.y for point in full.points] == [2.0, 2.9]
    write_results(folder, results)
    report = write_report(folder, folder.record(), results).read_text()
    assert "| rise of the loss on general text, full (`forgotten_full`) | 0.9 nats per token |" in report


def test_results_are_not_complete_before_the_last_run_has_been_measured(folder: ExperimentFolder) -> None:
    assert build_results(folder, folder.record()).complete
    (folder.measurements / "full.json").unlink()  # the notebook would score what was forgotten as not told, for good
    assert not build_results(folder, folder.record()).complete


def test_what_was_measured_is_not_measured_again(folder: ExperimentFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any) -> Measurement:
        raise AssertionError

    trial = folder.record().trials[0]
    before = read_measurement(folder, trial.name)
    monkeypatch.setattr(measure, "_forgotten", never)
    measure_trial(folder, folder.record(), trial, lambda: None)
    assert before is not None
    assert read_measurement(folder, trial.name) == before


def test_what_cannot_be_measured_is_a_note(folder: ExperimentFolder) -> None:
    trial = folder.record().trials[0]
    (folder.measurements / f"{trial.name}.json").unlink()
    measure_trial(
        folder, folder.record(), trial, lambda: None
    )  # there is no run `bar` whose checkpoint could be opened
    measured = read_measurement(folder, trial.name)
    assert measured is not None
    assert "model 'bar'" in measured.note
    assert any("model 'bar'" in note for note in build_results(folder, folder.record()).notes)


def test_general_text_counts_its_predictions() -> None:
    ids = torch.zeros(3, 5, dtype=torch.int64).numpy()
    assert GeneralText("text", ids, ids).tokens == 15
