"""Training does what was set, and what only watches it never changes it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from kills import differences, events_of, final_tensors
from small_runs import (
    all_events,
    kill_and_resume,
    names_of_events,
    new_run,
    quick_settings,
    same_weights,
    train_here,
    weights_of,
)

from llmlab.core import device as device_module
from llmlab.core.device import Device, peak_flops
from llmlab.core.errors import LabError
from llmlab.core.records import from_plain
from llmlab.core.run_settings import CheckpointSettings, TrainSettings
from llmlab.gpt.model import GPT
from llmlab.jobs import worker
from llmlab.jobs.launcher import create_run, prepare_resume
from llmlab.store import requests
from llmlab.store.checkpoints import STATE_FILE, list_checkpoints, select
from llmlab.training import loop
from llmlab.training import run as training_run
from llmlab.training.loop import Loop, Trainer
from llmlab.training.pace import STEPS, Progress
from llmlab.training.schedule import early_evaluations, evaluates, learning_rate
from llmlab.training.state import load_state, moments, restore


def _trainer(outputs: Path, name: str, **overrides: Any) -> Trainer:
    """A trainer that has not stepped yet, as a worker makes it; without dropout, so that two can be compared."""
    made: list[Trainer] = []
    with mock.patch.object(Trainer, "train", lambda self: made.append(self)):
        train_here(new_run(outputs, 20, name, **({"model__dropout": 0.0} | overrides)))
    made[0].model.train()
    return made[0]


def _gradient(trainer: Trainer) -> torch.Tensor:
    return torch.cat(
        [parameter.grad.flatten() for parameter in trainer.model.parameters() if parameter.grad is not None]
    )


def test_a_measurement_of_the_whole_held_out_text_predicts_each_of_its_tokens_once(outputs: Path) -> None:
    trainer = _trainer(outputs, "run", train__eval_sequences=0)
    block, model, held_out = trainer.settings.model.block_size, trainer.model.eval(), trainer.data.val.astype(np.int64)
    predicted = len(held_out) - 1 - (len(held_out) - 1) % block
    rows = (torch.from_numpy(part[:predicted]).view(-1, block) for part in (held_out, held_out[1:]))
    with torch.no_grad():
        assert trainer.losses()[1] == pytest.approx(float(model.loss(*rows)), rel=1e-5)


def test_150_steps_on_tiny_lower_the_validation_loss_far_below_letter_frequencies(outputs: Path) -> None:
    shape = {"model__n_layer": 2, "model__n_head": 4, "model__n_embd": 64, "model__block_size": 32}
    data = {"data__batch_size": 8, "train__grad_accum": 1, "model__dropout": 0.0, "train__warmup_steps": 20}
    rates = {"train__learning_rate": 2e-3, "train__eval_sequences": 32, "train__eval_interval": 50}
    run = train_here(new_run(outputs, 150, **shape, **data, **rates))
    started, measured = events_of(run, "started")[0], [event["val_loss"] for event in events_of(run, "evaluated")]
    assert measured[0] == pytest.approx(started["uniform_loss"], abs=0.1)
    assert measured[-1] < started["unigram_loss"] - 0.4
    assert measured[-1] < measured[0] - 1.5
    assert events_of(run, "finished")[0]["val_loss"] == measured[-1]


def test_watching_a_run_closely_gives_bitwise_equal_training(outputs: Path) -> None:
    never = {"train__eval_interval": 0, "train__sample_interval": 0, "checkpoints__interval": 0}
    alone = train_here(new_run(outputs, 12, "alone", **never, train__log_interval=1000))
    always = {"train__eval_interval": 1, "train__sample_interval": 1, "checkpoints__interval": 1}
    watched = train_here(new_run(outputs, 12, "watched", **always, train__log_interval=1))
    ours, theirs = final_tensors(alone), final_tensors(watched)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert events_of(watched, "step")[-1]["loss"] == events_of(alone, "step")[-1]["loss"]


def test_the_seed_decides_everything_and_another_one_changes_it(outputs: Path) -> None:
    first, again, other = (
        train_here(new_run(outputs, 6, name, train__seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same_weights(first, again)
    assert not same_weights(first, other)
    losses = [[event["loss"] for event in events_of(run, "step")] for run in (first, again)]
    assert losses[0] == losses[1]


def test_an_interval_of_zero_means_never_and_a_final_checkpoint_is_saved_all_the_same(outputs: Path) -> None:
    never = {"train__eval_interval": 0, "train__sample_interval": 0, "checkpoints__interval": 0}
    run = train_here(new_run(outputs, 7, **never, train__log_interval=3))
    assert names_of_events(run) == ["started", *["step"] * 4, "checkpoint_saved", "finished"]
    assert [event["step"] for event in events_of(run, "step")] == [1, 3, 6, 7]
    (saved,) = list_checkpoints(run.checkpoints)
    assert (saved.step, saved.labels, saved.val_loss) == (7, ("final",), None)


def test_things_happen_every_interval_and_at_the_last_step(outputs: Path) -> None:
    intervals = {"train__eval_interval": 4, "train__sample_interval": 5, "checkpoints__interval": 3}
    run = train_here(new_run(outputs, 10, **intervals, checkpoints__keep_last=100, checkpoints__best=False))
    assert [event["step"] for event in events_of(run, "evaluated")] == [0, 4, 8, 10]
    assert [event["step"] for event in events_of(run, "sampled")] == [0, 5, 10]
    assert [event["step"] for event in events_of(run, "checkpoint_saved")] == [3, 6, 9, 10]
    assert select(run.checkpoints, "final").step == 10


def test_log_spaced_checkpoints_are_all_kept_and_leave_training_as_it_is(outputs: Path) -> None:
    few = {"train__sample_interval": 0, "train__eval_interval": 0, "checkpoints__interval": 5}
    few["checkpoints__keep_last"] = 1
    spaced = train_here(new_run(outputs, 24, "spaced", **few, checkpoints__per_decade=5))
    plain = train_here(new_run(outputs, 24, "plain", **few))
    labels = {saved.step: saved.labels for saved in list_checkpoints(spaced.checkpoints)}
    # 10^(k/5): 1, 1.58, 2.51, 3.98, 6.31, 10, 15.8; 20 is the last periodic one, 24 the final one
    assert list(labels) == [1, 2, 3, 4, 6, 10, 16, 20, 24]
    assert (labels[3], labels[10], labels[20]) == (("spaced",), ("periodic", "spaced"), ("periodic",))
    assert same_weights(spaced, plain)


def test_the_steps_of_log_spaced_checkpoints_are_the_rounded_powers_that_the_setting_says() -> None:
    for per_decade in (1, 2, 3, 7, 10, 100):
        wanted = CheckpointSettings(per_decade=per_decade)
        for steps in (1, 2, 9, 10, 11, 999, 1000, 31_623, 1_000_000):
            near = (round(10 ** (k / per_decade)) for k in range(per_decade * 7 + 1))  # far beyond
            assert wanted.log_spaced(steps) == sorted({step for step in near if step <= steps})
    assert CheckpointSettings(per_decade=10).log_spaced(20) == [1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20]
    assert CheckpointSettings().log_spaced(10**9) == []


def test_early_evaluations_show_the_first_fall_and_leave_training_as_it_is(outputs: Path) -> None:
    rare = {"train__eval_interval": 40, "train__sample_interval": 0, "checkpoints__interval": 0}
    early = train_here(new_run(outputs, 42, **rare))
    plain = train_here(new_run(outputs, 42, name="plain", **rare, train__eval_early=False))
    assert [event["step"] for event in events_of(early, "evaluated")] == [0, 10, 30, 40, 42]
    assert [event["step"] for event in events_of(plain, "evaluated")] == [0, 40, 42]
    losses = [[event["loss"] for event in events_of(run, "step")] for run in (early, plain)]
    assert losses[0] == losses[1]
    assert early_evaluations(TrainSettings()) == [10, 30, 100]
    assert early_evaluations(TrainSettings(steps=20)) == [10]
    assert early_evaluations(TrainSettings(eval_interval=0)) == []
    assert early_evaluations(TrainSettings(eval_interval=10**6, steps=10**7))[-1] == 300_000
    assert [step for step in range(700) if evaluates(step, TrainSettings())] == [0, 10, 30, 100, 250, 500]


def test_events_tell_a_run_from_started_to_finished(outputs: Path) -> None:
    before = time.time()
    run = train_here(new_run(outputs, 8, train__sample_interval=4))
    events = all_events(run)
    assert (events[0]["event"], events[-1]["event"]) == ("started", "finished")
    assert all(list(event)[:3] == ["event", "time", "step"] for event in events)
    assert all(isinstance(event["time"], float) and isinstance(event["step"], int) for event in events)
    times = [before, *(event["time"] for event in events), time.time()]
    assert times == sorted(times)
    steps = [event["step"] for event in events]
    assert steps == sorted(steps)
    assert all(set(sample) == {"prompt", "text"} for event in events_of(run, "sampled") for sample in event["samples"])


def test_step_events_count_tokens_and_follow_the_schedule(outputs: Path) -> None:
    run = train_here(new_run(outputs, 8))
    settings = run.info().settings
    per_step = 2 * 4 * 16  # grad_accum x batch_size x block_size
    for number, event in enumerate(events_of(run, "step")):
        assert event["step"] == number + 1
        assert event["tokens"] == per_step * (number + 1)
        assert event["lr"] == learning_rate(number, settings.train)
        assert event["grad_norm"] > 0
        assert event["memory_bytes"] > 0
        assert event["mfu"] == pytest.approx(
            loop.flops_per_token(settings.model, events_of(run, "started")[0]["vocab_size"])
            * event["tokens_per_second"]
            / 1e11
        )


def test_a_step_that_beats_the_peak_measures_it_anew(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was measured while others held the machine."""
    monkeypatch.setenv("LLMLAB_CACHE", str(outputs / "cache"))
    run = new_run(outputs, 8)
    with mock.patch.object(worker, "peak_flops", return_value=1.0):
        worker.train_run(run)
    shares = [event["mfu"] for event in events_of(run, "step")]
    assert 0 < max(shares) <= 1
    device = Device("cpu", events_of(run, "started")[0]["precision"])
    with mock.patch.object(device_module, "_measure", side_effect=AssertionError("the new peak is remembered")):
        assert peak_flops(device) > 1e6


def test_a_resume_whose_speed_is_the_last_workers_leaves_the_peak(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have had a faster device; once this worker has warmed up, its own speed counts."""
    monkeypatch.setenv("LLMLAB_CACHE", str(outputs / "cache"))
    run = train_here(new_run(outputs, STEPS + 1))
    prepare_resume(run, {"train.steps": str(2 * STEPS)})
    with mock.patch.object(worker, "peak_flops", return_value=1.0):
        worker.train_run(run)
    shares = [event["mfu"] for event in events_of(run, "step")][STEPS + 1 :]
    assert min(shares) > 1
    prepare_resume(run, {"train.steps": str(3 * STEPS)})
    with mock.patch.object(worker, "peak_flops", return_value=1.0):
        worker.train_run(run)
    assert events_of(run, "step")[-1]["mfu"] <= 1


def test_the_status_says_how_the_run_ended(outputs: Path) -> None:
    run = train_here(new_run(outputs, 8))
    status, last = run.status(), events_of(run, "evaluated")[-1]
    assert (status.state, status.step, status.steps, status.eta_seconds) == ("finished", 8, 8, 0.0)
    assert status.val_loss == last["val_loss"]
    assert status.best_val_loss == min(event["val_loss"] for event in events_of(run, "evaluated"))
    assert status.error is None


def test_accumulated_batches_give_the_gradient_of_one_large_batch(outputs: Path) -> None:
    order = {"data__order": "sliding", "train__grad_clip": 0.0}
    parts = _trainer(outputs, "parts", data__batch_size=2, train__grad_accum=4, **order)
    whole = _trainer(outputs, "whole", data__batch_size=8, train__grad_accum=1, **order)
    for _ in range(3):
        results = [trainer.optimizer_step() for trainer in (parts, whole)]
        assert float(results[0].loss) == pytest.approx(float(results[1].loss), rel=1e-5)
        assert float(results[0].grad_norm) == pytest.approx(float(results[1].grad_norm), rel=1e-4)
        assert torch.allclose(_gradient(parts), _gradient(whole), atol=1e-6)
        for trainer in (parts, whole):
            trainer.progress.step += 1


def test_a_long_gradient_is_shortened_and_keeps_its_direction(outputs: Path) -> None:
    free = _trainer(outputs, "free", train__grad_clip=0.0)
    clipped = _trainer(outputs, "clipped", train__grad_clip=0.01)
    norms = [float(trainer.optimizer_step().grad_norm) for trainer in (free, clipped)]
    assert norms[0] == norms[1] > 0.01  # the norm that is reported is the one before clipping
    assert float(_gradient(free).norm()) == pytest.approx(norms[0], rel=1e-4)
    assert float(_gradient(clipped).norm()) == pytest.approx(0.01, rel=1e-3)
    assert torch.cosine_similarity(_gradient(free), _gradient(clipped), dim=0) == pytest.approx(1.0, abs=1e-5)


def test_a_short_gradient_is_left_alone(outputs: Path) -> None:
    free, clipped = _trainer(outputs, "free", train__grad_clip=0.0), _trainer(outputs, "loose", train__grad_clip=100.0)
    for trainer in (free, clipped):
        trainer.optimizer_step()
    assert torch.equal(_gradient(free), _gradient(clipped))


def test_each_group_of_parameters_gets_the_schedules_rate(outputs: Path) -> None:
    trainer = _trainer(outputs, "run")
    trainer.progress.step = 3
    result = trainer.optimizer_step()
    assert result.lr == learning_rate(3, trainer.settings.train)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [result.lr, result.lr]


def _from_step(number: int, spoil: Any) -> Any:
    """GPT.loss, but what the `number`-th training step computes goes through `spoil`."""
    plain, calls = GPT.loss, itertools.count()

    def loss(self: GPT, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        value = plain(self, ids, targets)
        return spoil(value) if self.training and next(calls) // 2 >= number - 1 else value  # two batches a step

    return mock.patch.object(GPT, "loss", loss)


@pytest.mark.parametrize(
    ("what", "spoil"),
    [
        ("loss", lambda value: value * math.nan),
        ("loss", lambda value: value + math.inf),
        # sqrt has no gradient at zero: the loss is finite, what flows back is not.
        ("gradient", lambda value: value + (value - value.detach()).abs().sqrt()),
    ],
)
def test_training_stops_at_the_first_number_that_is_none_and_keeps_what_was_saved(
    outputs: Path, what: str, spoil: Any
) -> None:
    run = new_run(outputs, 12, checkpoints__interval=5, checkpoints__keep_last=1, checkpoints__best=False)
    with _from_step(8, spoil), pytest.raises(LabError) as stopped:
        train_here(run)
    assert f"The {what} at step 8 is not a finite number" in stopped.value.what
    assert "step-00000005" in stopped.value.what
    assert "train.learning_rate=" in stopped.value.do
    assert [event["step"] for event in events_of(run, "step")] == list(range(1, 8))
    failed = all_events(run)[-1]
    assert (failed["event"], failed["step"], failed["what"]) == ("failed", 7, stopped.value.what)
    status = run.status()
    assert (status.state, status.error) == ("failed", stopped.value.as_dict())
    assert [saved.step for saved in list_checkpoints(run.checkpoints)] == [5]
    assert all(torch.isfinite(weight).all() for weight in weights_of(run).values())
    train_here(run)  # without the spoiled step it goes on from there and ends well
    assert [event["step"] for event in events_of(run, "step")] == list(range(1, 13))


def test_a_step_that_nobody_looks_at_is_checked_before_it_changes_a_weight(outputs: Path) -> None:
    never = {"train__eval_interval": 0, "checkpoints__interval": 0}
    run = new_run(outputs, 12, train__log_interval=100, **never)
    seen: list[dict[str, torch.Tensor]] = []
    plain = Trainer.optimizer_step

    def look(self: Trainer) -> Any:
        seen.append({name: weight.clone() for name, weight in self.model.state_dict().items()})
        try:
            return plain(self)
        finally:
            seen.append({name: weight.clone() for name, weight in self.model.state_dict().items()})

    with (
        mock.patch.object(Trainer, "optimizer_step", look),
        _from_step(8, lambda value: value * math.nan),
        pytest.raises(LabError, match="The loss at step 8 is not a finite number"),
    ):
        train_here(run)
    assert [event["step"] for event in events_of(run, "step")] == [1]
    before, after = seen[-2:]
    assert all(torch.equal(before[name], after[name]) for name in before)


class Watched(torch.Tensor):
    """Notes every look at its numbers: on a GPU each waits until all queued work is done."""

    looks: ClassVar[list[str]] = []
    _LOOKING = ("item", "tolist", "__float__", "__bool__", "cpu", "numpy")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.__name__ in cls._LOOKING:
            cls.looks.append(function.__name__)
        return super().__torch_function__(function, types, args, kwargs or {})


def test_a_logged_step_is_looked_at_once_for_its_event_its_check_and_its_checkpoint(outputs: Path) -> None:
    plain = Trainer.optimizer_step

    def step(self: Trainer) -> Any:
        result = plain(self)
        watched = {name: getattr(result, name).as_subclass(Watched) for name in ("loss", "grad_norm")}
        return dataclasses.replace(result, **watched)

    Watched.looks.clear()
    with mock.patch.object(Trainer, "optimizer_step", step):
        train_here(new_run(outputs, 6, train__log_interval=1, checkpoints__interval=2))
    assert Watched.looks == ["tolist"] * 6


@contextlib.contextmanager
def late(order: list[str]) -> Iterator[None]:
    """Devices as a GPU is: what is begun to be read may be waited for later. order: what is queued and waited for."""
    plain = Loop.optimizer_step

    def step(self: Loop) -> Any:
        result = plain(self)
        order.append(f"queued {result.step}")
        return result

    def begin_reading(device: Device, values: torch.Tensor) -> Callable[[], list[float]]:
        numbers = values.tolist()
        told = [line for line in order if line.startswith("queued")][-1].replace("queued", "read")

        def read() -> list[float]:
            if told not in order:
                order.append(told)
            return list(numbers)

        return read

    with (
        mock.patch.object(Loop, "optimizer_step", step),
        mock.patch.object(Device, "queues", True),
        mock.patch.object(Device, "reads_late", True),
        mock.patch.object(Device, "begin_reading", begin_reading),
    ):
        yield


def test_a_gpu_is_not_waited_for_before_it_has_the_next_step(outputs: Path) -> None:
    order: list[str] = []
    never = {"train__eval_interval": 0, "train__sample_interval": 0, "checkpoints__interval": 0}
    with late(order):
        run = train_here(new_run(outputs, 4, train__log_interval=1, **never))
    assert order == ["queued 1", "queued 2", "read 1", "queued 3", "read 2", "queued 4", "read 3", "read 4"]
    assert [event["step"] for event in events_of(run, "step")] == [1, 2, 3, 4]


def test_events_and_checkpoints_are_the_same_where_numbers_are_read_late(outputs: Path) -> None:
    often = {
        "train__log_interval": 1,
        "train__eval_interval": 4,
        "checkpoints__interval": 3,
        "train__sample_interval": 6,
    }
    plain, run = new_run(outputs, 12, "plain", **often), new_run(outputs, 12, "late", **often)
    train_here(plain)
    requests.send(run.requests, "save")
    with late([]):
        kill_and_resume(run, 8)
    assert differences(plain, run) == []
    order = [(event["event"], event["step"]) for event in all_events(run)]
    for saved in list_checkpoints(run.checkpoints):
        if saved.step:
            assert order.index(("step", saved.step)) < order.index(("checkpoint_saved", saved.step))


def test_a_loss_that_is_read_late_and_is_no_number_is_not_saved(outputs: Path) -> None:
    run = new_run(outputs, 12, train__log_interval=1, train__eval_interval=0, checkpoints__interval=4)
    with late([]), _from_step(8, lambda value: value * math.nan), pytest.raises(LabError) as stopped:
        train_here(run)
    assert "The loss at step 8 is not a finite number" in stopped.value.what
    assert [saved.step for saved in list_checkpoints(run.checkpoints)] == [4]


def test_a_measured_loss_that_is_no_number_stops_before_it_is_saved(outputs: Path) -> None:
    run = new_run(outputs, 12, train__eval_interval=4, checkpoints__interval=3, checkpoints__keep_last=9)
    plain = Trainer.optimizer_step

    def overflow(self: Trainer) -> Any:
        result = plain(self)
        if self.progress.step == 7:
            with torch.no_grad():
                self.model.final_norm.weight.fill_(math.inf)
        return result

    with mock.patch.object(Trainer, "optimizer_step", overflow), pytest.raises(LabError) as stopped:
        train_here(run)
    assert "step 8" in stopped.value.what
    assert "not a finite number" in stopped.value.what
    assert "step-00000006" in stopped.value.what
    assert events_of(run, "evaluated")[-1]["val_loss"] is None  # the curve shows what was measured
    assert 8 not in [saved.step for saved in list_checkpoints(run.checkpoints)]


def test_an_absurd_learning_rate_ends_in_advice_or_in_a_finite_model(outputs: Path) -> None:
    run = new_run(outputs, 30, train__learning_rate=10.0, train__grad_clip=0.0, train__warmup_steps=0)
    with contextlib.suppress(LabError):
        train_here(run)
    if run.status().state == "failed":
        assert "not a finite number" in events_of(run, "failed")[0]["what"]
        assert "train.learning_rate=" in events_of(run, "failed")[0]["do"]
    for saved in list_checkpoints(run.checkpoints):
        assert saved.val_loss is None or math.isfinite(saved.val_loss)
    assert all(torch.isfinite(weight).all() for weight in weights_of(run).values())


def test_early_stopping_ends_after_so_many_measurements_without_a_better_one(outputs: Path) -> None:
    losses = iter([3.0, 2.5, 2.6, 2.55, 2.4, 2.4, 2.41, 9.0])
    steps = {"train__eval_interval": 2, "train__early_stop": 2, "checkpoints__interval": 0}
    run = new_run(outputs, 40, **steps)
    values = itertools.chain.from_iterable((loss + 1, loss) for loss in losses)  # train, then validation
    with mock.patch.object(loop, "mean_loss", side_effect=values):
        train_here(run)
    finished = all_events(run)[-1]
    assert (finished["event"], finished["reason"], finished["step"]) == ("finished", "early_stop", 6)
    assert (finished["best_val_loss"], finished["best_step"]) == (2.5, 2)
    assert (finished["train_loss"], finished["val_loss"]) == (3.55, 2.55)
    assert [event["best"] for event in events_of(run, "evaluated")] == [True, True, False, False]
    assert [(saved.step, saved.labels) for saved in list_checkpoints(run.checkpoints)] == [
        (2, ("best",)),
        (6, ("final",)),
    ]
    assert run.status().state == "finished"


@pytest.mark.slow
def test_early_measurements_do_not_change_when_early_stopping_ends_a_run(outputs: Path) -> None:
    # Step 10 is lower than all that follows; steps 11, 22, 33 fall, as they would without it, and 44, 55 do not.
    known = {0: 3.0, 10: 2.0, 11: 2.8, 22: 2.7, 33: 2.6, 44: 2.65, 55: 2.61, 66: 1.0}
    often = {"train__eval_interval": 11, "train__early_stop": 2, "checkpoints__interval": 0}
    ended = []
    for early in (True, False):
        losses = [loss for step, loss in known.items() if early or step != 10]
        run = new_run(outputs, 66, name=f"early-{early}", train__eval_early=early, **often)
        values = itertools.chain.from_iterable((loss + 1, loss) for loss in losses)
        with mock.patch.object(loop, "mean_loss", side_effect=values):
            train_here(run)
        ended.append(all_events(run)[-1])
    assert [(event["reason"], event["step"]) for event in ended] == [("early_stop", 55)] * 2
    assert [(event["best_step"], event["best_val_loss"]) for event in ended] == [(10, 2.0), (33, 2.6)]


def test_early_stopping_of_a_run_of_version_0_5_goes_on_from_its_best_loss() -> None:
    values = dataclasses.asdict(Progress(step=5, best_val_loss=2.5, best_step=4, evaluations_without_better=1))
    del values["best_at_interval"]
    assert from_plain(Progress, values).best_at_interval == 2.5


class FakeClock:
    """The `time` module of the loop: every look at the performance counter finds `tick` seconds gone."""

    def __init__(self) -> None:
        self.tick, self.now = 0.25, 0.0
        self.wall = itertools.count(1e9, -3600.0)  # a clock that someone turns back an hour, again and again

    def perf_counter(self) -> float:
        self.now += self.tick
        return self.now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return next(self.wall)


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    fake = FakeClock()
    with mock.patch.object(loop, "time", fake), mock.patch.object(training_run, "time", fake):
        yield fake


@pytest.mark.slow
def test_time_left_is_right_from_the_first_step_after_a_resume(outputs: Path, clock: FakeClock) -> None:
    run = new_run(outputs, 25, train__eval_interval=10, train__sample_interval=0, checkpoints__best=False)
    train_here(run)
    assert [event["eta_seconds"] for event in events_of(run, "step")][:2] == [
        24 * 0.25 + 3 * 0.25,  # steps, and measurements at 10, 20 and 25
        23 * 0.25 + 3 * 0.25,
    ]
    prepare_resume(run, {"train.steps": "105"})
    clock.tick = 2.0  # a worker that has just begun is slow
    train_here(run)
    first = events_of(run, "step")[25]
    assert first["step"] == 26
    assert first["tokens_per_second"] == 128 / 0.25
    assert first["eta_seconds"] == pytest.approx(79 * 0.25 + 9 * 0.25)
    later = events_of(run, "step")[60]
    assert later["tokens_per_second"] == 128 / 2.0  # and then what is measured counts
    assert later["eta_seconds"] == pytest.approx((105 - later["step"]) * 2.0 + 5 * 2.0)


@pytest.mark.parametrize("logged", [1, 3])
def test_the_wait_for_what_a_gpu_has_queued_is_time_of_the_steps_that_queued_it(
    outputs: Path, clock: FakeClock, logged: int
) -> None:
    plain, queued = Trainer.optimizer_step, []

    def step(self: Trainer) -> Any:
        queued.append(2.0)
        return plain(self)

    def wait(device: Device) -> None:
        clock.now += sum(queued)
        queued.clear()

    with mock.patch.object(Trainer, "optimizer_step", step), mock.patch.object(Device, "synchronize", wait):
        run = train_here(new_run(outputs, 12, train__log_interval=logged, train__eval_interval=5))
    first, *_, last = events_of(run, "step")
    assert last["tokens_per_second"] == pytest.approx(first["tokens_per_second"]) == 128 / 2.25
    assert last["active_seconds"] == pytest.approx(12 * 2.25)
    assert {event["seconds"] for event in events_of(run, "evaluated")} == {0.25}


def test_durations_do_not_follow_a_clock_that_is_turned_back(outputs: Path, clock: FakeClock) -> None:
    run = train_here(new_run(outputs, 6, checkpoints__interval=3))
    steps = events_of(run, "step")
    assert [event["active_seconds"] for event in steps] == pytest.approx([0.25 * n for n in range(1, 7)])
    assert all(event["seconds"] > 0 for event in events_of(run, "evaluated") + events_of(run, "checkpoint_saved"))
    assert all(event["eta_seconds"] >= 0 for event in steps)


def test_active_time_goes_on_counting_over_workers(outputs: Path, clock: FakeClock) -> None:
    run = train_here(new_run(outputs, 4))
    prepare_resume(run, {"train.steps": "8"})
    train_here(run)
    assert events_of(run, "started")[1]["active_seconds"] == 1.0
    assert events_of(run, "finished")[-1]["active_seconds"] == 2.0


def test_prompts_that_the_vocabulary_cannot_say_are_left_out_and_it_is_said(outputs: Path) -> None:
    settings = quick_settings(4, train__sample_interval=2, samples__prompts=["the", "日本"])
    run = train_here(create_run(outputs, settings, name="run"))
    (warning,) = events_of(run, "warned")
    assert "'日本'" in warning["message"]
    assert [[s["prompt"] for s in event["samples"]] for event in events_of(run, "sampled")] == [["the"]] * 3


def test_bf16_trains_on_a_cpu_with_fp32_weights(outputs: Path) -> None:
    run = train_here(new_run(outputs, 6, train__precision="bf16"))
    assert events_of(run, "started")[0]["precision"] == "bf16"
    assert all(weight.dtype == torch.float32 for weight in weights_of(run).values())
    assert events_of(run, "step")[-1]["loss"] < events_of(run, "step")[0]["loss"] + 0.1


def test_fp16_scales_its_gradients_skips_a_step_that_overflows_and_resumes_exactly(outputs: Path) -> None:
    """On a processor, for which the lab has bf16: the scaler is the same there as on a GPU."""
    plain = _trainer(outputs, "plain")
    with mock.patch.object(worker, "choose_device", return_value=Device("cpu", "fp16")):
        half = _trainer(outputs, "half")
        alone, run = (new_run(outputs, 12, name, train__sample_interval=6) for name in ("alone", "killed"))
        train_here(alone)
        kill_and_resume(run, before_step=8)
    assert events_of(run, "started")[0]["precision"] == "fp16"
    assert load_state(select(run.checkpoints, "final").path).scaler["_growth_tracker"] == 12
    assert differences(alone, run) == []
    for trainer in (plain, half):
        trainer.optimizer_step()
    assert torch.nn.functional.cosine_similarity(_gradient(plain), _gradient(half), dim=0) > 0.999
    half.scaler.update(2.0**40)
    before = [parameter.clone() for parameter in half.model.parameters()]
    assert not math.isfinite(half.optimizer_step().grad_norm)
    assert all(map(torch.equal, before, half.model.parameters()))
    assert half.scaler.get_scale() == 2.0**39


def test_averaging_the_weights_leaves_the_training_as_it_is_bitwise(outputs: Path) -> None:
    plain = train_here(new_run(outputs, 12, "plain"))
    run = train_here(new_run(outputs, 12, "averaged", train__ema_decay=0.8))
    assert [event["loss"] for event in events_of(run, "step")] == [event["loss"] for event in events_of(plain, "step")]
    trained, weights = load_state(select(run.checkpoints, "final").path).weights, weights_of(plain)
    assert trained.keys() == weights.keys()
    assert all(torch.equal(trained[name], weights[name]) for name in weights)
    assert load_state(select(plain.checkpoints, "final").path).weights == {}
    # Only a state with weights is new: every version of the lab resumes the other.
    files = [select(each.checkpoints, "final").path / STATE_FILE for each in (plain, run)]
    assert [torch.load(file, weights_only=True)["format"] for file in files] == [1, 2]


def test_averaged_weights_whose_own_do_not_fit_are_refused_in_a_sentence(outputs: Path) -> None:
    trainer = _trainer(outputs, "averaged", train__ema_decay=0.8)
    run = train_here(new_run(outputs, 6, "other", train__ema_decay=0.8, model__n_embd=32))
    loaded = load_state(select(run.checkpoints, "final").path)
    loaded.optimizer.clear()
    with pytest.raises(LabError, match="The training state does not fit this model"):
        restore(loaded, trainer.model, trainer.optimizer, trainer.scaler)


def test_a_restored_optimizer_has_what_was_saved_as_its_own_and_the_state_keeps_none_of_it(outputs: Path) -> None:
    run = train_here(new_run(outputs, 2))
    folder = select(run.checkpoints, "final").path
    saved = {
        name: {key: value.clone() for key, value in of.items()} for name, of in load_state(folder).optimizer.items()
    }
    trainer, loaded = _trainer(outputs, "restored"), load_state(folder)
    restore(loaded, trainer.model, trainer.optimizer, trainer.scaler)
    with (folder / STATE_FILE).open("r+b") as file:  # what was read is not what the optimizer changes from now on
        file.write(bytes((folder / STATE_FILE).stat().st_size))
    assert (loaded.optimizer, loaded.random, loaded.weights) == ({}, {}, {})
    restored = moments(trainer.model, trainer.optimizer)
    assert restored.keys() == saved.keys()
    for name, values in saved.items():
        assert all(torch.equal(restored[name][key], value) for key, value in values.items()), name


def test_what_is_measured_and_saved_is_the_average_over_the_steps(outputs: Path) -> None:
    every = {"checkpoints__interval": 1, "checkpoints__keep_last": 99, "train__eval_interval": 1}
    run = train_here(new_run(outputs, 12, **every, train__ema_decay=0.8, train__eval_early=False))
    trainer = _trainer(outputs, "first", train__ema_decay=0.8)  # of the same seed: random weights as at the start
    expected = {name: weight.double() for name, weight in trainer.model.state_dict().items()}
    for step, event in enumerate(events_of(run, "evaluated")[1:], start=1):
        keep = min(0.8, (1 + step) / (10 + step))
        for name, weight in load_state(select(run.checkpoints, str(step)).path).weights.items():
            expected[name] = keep * expected[name] + (1 - keep) * weight.double()
        saved = weights_of(run, str(step))
        assert all(torch.allclose(saved[name].double(), expected[name], atol=1e-6) for name in expected)
        trainer.model_or_average.load_state_dict(saved)
        assert trainer.losses()[1] == event["val_loss"] == select(run.checkpoints, str(step)).val_loss
    assert select(run.checkpoints, "final").about["ema_decay"] == 0.8


@pytest.mark.parametrize(("step", "sequences", "length"), [(0, 1, 8), (5, 4, 24), (7, 4, 32), (8, 8, 32), (9, 8, 32)])
def test_a_step_of_a_warm_up_is_the_mean_over_the_beginnings_of_so_many_sequences(
    outputs: Path, step: int, sequences: int, length: int
) -> None:
    warm = {"data__batch_warmup_steps": 8, "data__length_warmup_steps": 7, "model__block_size": 32}
    trainer = _trainer(outputs, "warm", **warm, train__grad_clip=0.0)
    trainer.progress.step = step
    batches = [trainer.sequences.batch(2 * step), trainer.sequences.batch(2 * step + 1)]
    x, y = (np.concatenate([batch[which] for batch in batches])[:sequences, :length] for which in (0, 1))
    loss = trainer.model.loss(torch.from_numpy(x), torch.from_numpy(y))
    loss.backward()
    expected = _gradient(trainer)
    result = trainer.optimizer_step()
    assert result.tokens == sequences * length
    assert float(result.loss) == pytest.approx(float(loss), rel=1e-5)
    assert float(result.grad_norm) == pytest.approx(float(expected.norm()), rel=1e-4)


@pytest.mark.slow
def test_tokens_speed_and_time_left_of_a_warm_up_are_those_of_its_steps(outputs: Path, clock: FakeClock) -> None:
    warm = {"data__batch_warmup_steps": 30, "data__length_warmup_steps": 25, "model__block_size": 32}
    never = {"train__eval_interval": 0, "train__sample_interval": 0}
    run = train_here(new_run(outputs, 60, **warm, **never))
    sizes = [math.prod(run.info().settings.batch_at(step)) for step in range(60)]
    assert sizes[0] == 8
    assert sizes[-1] == 2 * 4 * 32
    for event in events_of(run, "step"):
        done, recent = event["step"], sizes[max(0, event["step"] - 20) : event["step"]]
        assert event["tokens"] == sum(sizes[:done])
        assert event["tokens_per_second"] == pytest.approx(sum(recent) / len(recent) / 0.25)
        length = run.info().settings.batch_at(done - 1)[1]
        flops = loop.flops_per_token(
            dataclasses.replace(run.info().settings.model, block_size=length),
            events_of(run, "started")[0]["vocab_size"],
        )
        assert event["mfu"] == pytest.approx(flops * event["tokens_per_second"] / 1e11)
        # In proportion to their tokens.
        assert event["eta_seconds"] == pytest.approx(sum(sizes[done:]) / event["tokens_per_second"])


def test_a_run_with_muon_that_diverges_is_advised_to_lower_both_rates(outputs: Path) -> None:
    trainer = _trainer(outputs, "muon", train__optimizer="muon", train__muon_learning_rate=0.06)
    with torch.no_grad():
        trainer.model.final_norm.weight.fill_(math.nan)
    with pytest.raises(LabError, match=r"train\.learning_rate=0\.0003 train\.muon_learning_rate=0\.02"):
        trainer.optimizer_step()
