"""Reading one run's loss curve: what was planted in it is found, and nothing else."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tiny_models
import torch
from preset_settings import resolve_finetune_settings
from small_runs import new_run, train_here

from llmlab.cli.main import main
from llmlab.core.errors import Cancelled, LabError
from llmlab.core.progress import quiet
from llmlab.core.run_settings import TrainSettings
from llmlab.core.settings import PretrainSettings
from llmlab.data.dataset import load_dataset
from llmlab.data.finetuning_data import Batch
from llmlab.data.sequences import Sequences
from llmlab.jobs.launcher import create_run, prepare_resume
from llmlab.jobs.model_host import Host
from llmlab.models.model import OpenModel
from llmlab.models.source import open_model
from llmlab.store.columns import STEP_FIELDS, with_means
from llmlab.store.events import Evaluated
from llmlab.store.history import RunHistory, read_history
from llmlab.store.run_folder import RunFolder
from llmlab.studies.experiments.closely import noise_scale, with_texts
from llmlab.studies.experiments.curves import find_spikes, overfitting_onset, rate_events, smooth, time_to
from llmlab.studies.experiments.outcomes import Spike
from llmlab.training.batches import Batches
from llmlab.training.finetuning.loop import Finetuner
from llmlab.training.loop import Trainer
from llmlab.training.run import TrainingRun
from llmlab.training.schedule import learning_rate

STEPS = np.arange(1, 301)


def history(loss: np.ndarray, **columns: np.ndarray) -> RunHistory:
    """A run of these step losses."""
    values = {name: np.zeros(len(loss)) for name in STEP_FIELDS}
    values |= {"step": np.arange(1, len(loss) + 1), "loss": loss, "active_seconds": np.arange(1, len(loss) + 1) / 10}
    values |= columns
    made = RunHistory()
    made.step_columns.append(with_means(np.array([values[name] for name in STEP_FIELDS], dtype=float)).T)
    return made


def falling(seed: int = 0) -> np.ndarray:
    return 2 + 2.2 * np.exp(-STEPS / 40) + np.random.default_rng(seed).normal(0, 0.03, len(STEPS))


def evaluated(rows: list[tuple[int, float, float]]) -> list[Evaluated]:
    return [Evaluated(step, 1.0, train, val, False, 0.1) for step, train, val in rows]


@pytest.mark.parametrize("seed", range(5))
def test_planted_spikes_are_found_and_a_curve_without_any_has_none(seed: int) -> None:
    loss = falling(seed)
    assert find_spikes(history(loss)) == []
    loss[[49, 180]] += [0.9, 0.5]
    loss[181:184] += 0.3  # it takes some steps to recover: the same spike
    spikes = find_spikes(history(loss))
    assert {spike.step for spike in spikes} == {50, 181}
    assert spikes[0].loss - spikes[0].expected == pytest.approx(0.9 if spikes[0].step == 50 else 0.5, abs=0.15)


def test_a_steep_and_smooth_fall_is_no_spike() -> None:
    assert find_spikes(history(6 - 4 * STEPS / 300)) == []
    assert find_spikes(history(2 + 4 * np.exp(-STEPS / 20))) == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A real run of 60 steps of two batches each."""
    run = new_run(tmp_path_factory.mktemp("outputs"), 60, train__grad_accum=2, checkpoints__interval=20)
    return train_here(run)


def test_a_spike_is_told_with_the_texts_of_its_own_batches(trained: RunFolder) -> None:
    lines = [json.loads(line) for line in trained.events.read_text().splitlines()]
    planted = next(line for line in lines if line["event"] == "step" and line["step"] == 31)
    before = trained.events.read_bytes()
    planted["loss"] += 3.0
    trained.events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        told = read_history(trained)
        spikes, notes = with_texts(trained, told, find_spikes(told), trained.path.parent.parent)
    finally:
        trained.events.write_bytes(before)
    assert [spike.step for spike in spikes] == [31]
    assert notes == []
    settings = trained.info().settings
    assert isinstance(settings, PretrainSettings)
    data = load_dataset(settings.data, 16, quiet)
    windows = Sequences(data.train, 16, 4, settings.data.order, settings.data.stride, settings.train.seed)
    read = [windows.batch(index)[0] for index in (60, 61)]  # step 31 is the 61st and 62nd batch
    texts = {data.tokenizer.decode(row.tolist()) for rows in read for row in rows}
    assert len(spikes[0].batch) == 6
    assert {row.text for row in spikes[0].batch} <= texts
    losses = [row.loss for row in spikes[0].batch]
    assert losses == sorted(losses, key=lambda loss: -(loss or 0.0))


def test_the_text_of_a_step_is_told_in_the_terminal_and_by_the_model_host(
    trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Batches(trained, read_history(trained)).rows(31, partial(open_model, outputs=trained.outputs))
    assert len(rows) == 8  # of two batches of four
    assert main(["show", str(trained.path), "--batch", "31", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": trained.id, "step": 31, "rows": [vars(row) for row in rows]}
    said = io.StringIO()
    host = Host(said, trained.outputs)
    events = trained.events.read_bytes()
    trained.events.write_bytes(b"")  # its worker is counted, and has not said yet that it began
    host._answer_or_say_why({"id": 1, "do": "batch", "run": str(trained.path), "step": 31})
    trained.events.write_bytes(events)
    assert "Nothing tells which worker" in said.getvalue()
    with mock.patch("llmlab.training.batches.load_dataset", side_effect=load_dataset) as read:
        for step in (30, 31):
            host._answer_or_say_why({"id": step, "do": "batch", "run": str(trained.path), "step": step})
    assert read.call_count == 1  # the text is kept for the next step
    assert json.loads(said.getvalue().splitlines()[-1])["rows"] == [[row.text, row.loss] for row in rows]
    assert main(["show", str(trained.path), "--batch"]) == 0  # the step that stands out most
    assert re.search(r"step \d+: loss \d.* where .* was expected; below, under \w", capsys.readouterr().out)
    for none in ("0", "61"):
        assert main(["show", str(trained.path), "--batch", none]) == 2
        assert "Its steps are 1 to 60" in capsys.readouterr().err


def test_the_text_of_a_step_is_told_without_losses_where_its_checkpoint_goes_meanwhile(trained: RunFolder) -> None:
    def gone(reference: str) -> OpenModel:
        raise LabError(f"{reference} is gone.")

    rows = Batches(trained, read_history(trained)).rows(31, gone)
    whole = Batches(trained, read_history(trained)).rows(31, partial(open_model, outputs=trained.outputs))
    assert {row.loss for row in rows} == {None}
    assert sorted(row.text for row in rows) == sorted(row.text for row in whole)


def test_reading_the_text_of_a_step_can_be_cancelled_while_its_tokens_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train_here(new_run(tmp_path, 2))
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "empty"))

    def stop(what: str, done: float, total: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        Batches(run, read_history(run)).rows(1, lambda _: pytest.fail("opened"), stop)


SPIKES = [Spike(step, loss=9.0, expected=1.0, sigmas=9.0, grad_norm=1.0, lr=1e-3) for step in range(1, 13)]


@contextlib.contextmanager
def recording(kind: type[TrainingRun], method: str, read: Callable[..., list[str]]) -> Iterator[dict[int, list[str]]]:
    """What `method` is given or gives while a run trains, by step; `read` says the texts in it."""
    found: dict[int, list[str]] = {}
    plain = getattr(kind, method)

    def recorded(self: Any, taken: Any) -> Any:
        made = plain(self, taken)
        if self.model.training:
            found.setdefault(self.progress.step + 1, []).extend(read(self, taken, made))
        return made

    with mock.patch.object(kind, method, recorded):
        yield found


def trained_in_two_parts(run: RunFolder, **changes: Any) -> None:
    """Six steps, then settings change, then six more."""
    train_here(run)
    prepare_resume(run, {"train.steps": 12} | {key.replace("__", "."): value for key, value in changes.items()})
    train_here(run)


@pytest.mark.parametrize("warmup", [0, 9])
@pytest.mark.parametrize("order", ["random", "sliding"])
def test_the_texts_of_a_step_are_those_that_training_read_also_before_its_settings_changed(
    tmp_path: Path, order: str, warmup: int
) -> None:
    growing = {"data__batch_warmup_steps": warmup, "data__length_warmup_steps": warmup}
    run = new_run(
        tmp_path, 6, data__batch_size=3, train__grad_accum=2, data__order=order, checkpoints__interval=4, **growing
    )

    def texts(trainer: Trainer, index: int, batch: tuple[torch.Tensor, torch.Tensor]) -> list[str]:
        return [trainer.tokenizer.decode(row.tolist()) for row in batch[0]]

    with recording(Trainer, "_batch", texts) as read:
        trained_in_two_parts(run, data__batch_size=2, train__grad_accum=3, train__seed=5)
    spikes, notes = with_texts(run, read_history(run), SPIKES, tmp_path)
    assert notes == []
    assert {spike.step: sorted(row.text for row in spike.batch) for spike in spikes} == {
        step: sorted(texts) for step, texts in read.items()
    }
    assert all(row.loss is not None for spike in spikes for row in spike.batch)


@pytest.mark.slow
@pytest.mark.parametrize("packing", [False, True])
def test_the_examples_of_a_step_are_those_that_fine_tuning_read_cut_as_it_cut_them(
    tmp_path: Path, packing: bool
) -> None:
    base = str(tiny_models.save(tiny_models.llama(), tmp_path / "llama"))
    source = tmp_path / "pairs.jsonl"
    # Some outgrow the model's 64 tokens; not all that do lose all of their answer, and with it their place.
    pairs = [{"prompt": f"<{n}> {'the ' * (n % 40)}", "completion": "king queen"} for n in range(100, 160)]
    source.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    settings = resolve_finetune_settings(
        "scratch",
        overrides={
            "model.base": base, "data.source": str(source), "data.batch_size": 2, "data.max_length": 200,
            "data.packing": packing, "data.scored": 0, "lora.rank": 2, "train.steps": 6, "train.grad_accum": 2,
            "train.eval_interval": 0, "train.sample_interval": 0, "train.threads": 1,
        },
    )  # fmt: skip
    run = create_run(tmp_path, settings, name="tuned")

    def texts(tuner: Finetuner, batch: Batch, loss: torch.Tensor) -> list[str]:
        return [tuner.tokenizer.decode(row.tolist()) for row in batch.ids]

    with recording(Finetuner, "loss_sum", texts) as read:
        trained_in_two_parts(run, data__batch_size=3, train__grad_accum=1, train__seed=4)
    with mock.patch("llmlab.studies.experiments.closely._ROWS", 100):
        spikes, notes = with_texts(run, read_history(run), SPIKES, tmp_path)
    assert notes == []
    assert set(read) == set(range(1, 13))
    for spike in spikes:
        told = [re.findall(r"<(\d+)>", row.text)[0] for row in spike.batch]
        assert sorted(told) == sorted(re.findall(r"<\s*(\d+)\s*>", " ".join(read[spike.step])))


def test_texts_that_are_gone_or_changed_are_a_remark(tmp_path: Path) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("the king and the queen of the sea. " * 200)
    run = train_here(new_run(tmp_path, 4, data__corpus=str(text)))
    told = read_history(run)
    text.write_text("the queen and the king of the sea. " * 200)
    spikes, notes = with_texts(run, told, SPIKES[:3], tmp_path)
    assert [spike.batch for spike in spikes] == [[], [], []]
    assert len(notes) == 1
    assert "is not what it was" in notes[0]
    text.unlink()
    spikes, notes = with_texts(run, told, SPIKES[:3], tmp_path)
    assert [spike.batch for spike in spikes] == [[], [], []]
    assert "could not be read" in notes[0]


def test_a_run_of_an_earlier_version_tells_the_texts_of_its_steps_unless_settings_changed_later(tmp_path: Path) -> None:
    run = new_run(tmp_path, 6)
    trained_in_two_parts(run, data__batch_size=2)
    told = read_history(run)
    for worker in told.workers:  # as they were before settings and data were recorded
        worker.settings, worker.data_key = {}, ""
    spikes, notes = with_texts(run, told, SPIKES, tmp_path)
    assert [bool(spike.batch) for spike in spikes] == [False] * 6 + [True] * 6
    assert "were changed after step 1" in notes[0]


def test_overfitting_begins_at_the_lowest_validation_loss_when_it_turns_up() -> None:
    run = history(falling())
    run.evaluated = evaluated([(0, 4, 4), (50, 2.5, 2.6), (100, 2.2, 2.4), (150, 2.0, 2.42), (200, 1.5, 2.6)])
    assert overfitting_onset(run) == 100


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 4, 4), (50, 2.5, 2.6), (100, 2.2, 2.4), (150, 2.1, 2.41)],  # up by less than 1 %
        [(0, 4, 4), (50, 2.5, 2.6), (100, 2.2, 2.4), (150, 3.0, 3.2)],  # both rise: that is no overfitting
        [(0, 4, 4), (50, 2.5, 2.6)],
    ],
)
def test_other_curves_do_not_overfit(rows: list[tuple[int, float, float]]) -> None:
    run = history(falling())
    run.evaluated = evaluated(rows)
    assert overfitting_onset(run) is None


def test_the_marks_of_a_schedule_are_read_from_its_rates() -> None:
    train = TrainSettings(steps=300, warmup_steps=30, schedule="wsd", decay_fraction=0.2)
    lr = np.array([learning_rate(step, train) for step in range(300)])
    events = rate_events(history(falling(), lr=lr))
    # The step that follows `s` finished ones is number s + 1; wsd begins to fall after step 241's rate.
    assert (events.warmup_end, events.decay_start) == (31, 241)
    assert events.jumps == ()
    lr[149:] /= 10
    assert rate_events(history(falling(), lr=lr)).jumps == (150,)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_a_decay_to_zero_is_no_jump_of_the_rate(schedule: str) -> None:
    train = TrainSettings(steps=300, warmup_steps=30, schedule=schedule, min_learning_rate=0.0)
    lr = np.array([learning_rate(step, train) for step in range(300)])
    assert rate_events(history(falling(), lr=lr)).jumps == ()


def test_smoothing_keeps_constants_and_straight_lines() -> None:
    assert smooth(np.full(50, 3.0), 5) == pytest.approx(np.full(50, 3.0))
    line = np.arange(200.0)  # far from its ends, whose pull halves every two steps
    assert smooth(line, 2)[50:150] == pytest.approx(line[50:150], abs=1e-5)


def test_the_time_to_a_target_lies_between_the_evaluations_around_it() -> None:
    run = history(falling())
    run.evaluated = evaluated([(0, 4, 4.0), (100, 3, 3.0), (200, 2, 2.0)])
    assert time_to(run, 2.5) == (150, pytest.approx(15.0))
    assert time_to(run, 1.0) is None


def test_the_noise_scale_of_gradients_with_a_known_covariance_is_found() -> None:
    # One row's gradient is G + noise of variance 0.5 in each of 2000 places: tr(S) = 1000, |G|^2 = 2000 * 0.01 = 20.
    generator = torch.Generator().manual_seed(0)
    mean = torch.full((2000,), 0.1)

    def gradient(index: int) -> torch.Tensor:
        return mean + torch.randn(8, 2000, generator=generator).mul(0.5**0.5).mean(0)

    assert noise_scale(gradient, small=8, batches=16) == pytest.approx(50.0, rel=0.1)
    assert noise_scale(lambda index: torch.zeros(4), small=8, batches=4) is None
