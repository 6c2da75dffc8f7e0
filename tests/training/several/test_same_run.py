"""Several processes train the run that one trains, and it goes on with any number of them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import safetensors.torch
import torch
from forks import wait_until
from kills import differences, events_of
from ranks import BOUND, SETTINGS, be_killed, losses, ranks, train_by
from small_runs import in_step, names_of_events, new_run, quick_settings, train_here

from llmlab.core.device import Device
from llmlab.core.errors import UsageError
from llmlab.jobs.launcher import prepare_resume, request
from llmlab.store.checkpoints import select
from llmlab.store.run_folder import RunFolder
from llmlab.training.parallel import Several
from llmlab.training.state import load_state

STEPS = 22  # two more than are measured before it is told how the work was shared


def test_two_processes_follow_the_curve_of_one(outputs: Path, alone: RunFolder) -> None:
    run = train_by(new_run(outputs, STEPS, **SETTINGS), 2)
    assert losses(run) == pytest.approx(losses(alone), rel=BOUND)
    assert [event["tokens"] for event in events_of(run, "step")] == [
        event["tokens"] for event in events_of(alone, "step")
    ]
    assert events_of(run, "started")[0]["processes"] == 2
    shares = events_of(run, "shared")[-1]["busy"]
    assert [event["step"] for event in events_of(run, "shared")] == [20, STEPS]
    assert len(shares) == 2
    assert all(0 < share <= 1 for share in shares)


@pytest.mark.slow
def test_parts_of_a_model_are_gathered_in_bf16_as_the_whole_is_multiplied(outputs: Path) -> None:
    both = []
    for strategy in ("ddp", "fsdp2"):
        settings = SETTINGS | {"distributed__strategy": strategy, "train__precision": "bf16"}
        both.append(losses(train_by(new_run(outputs, 5, strategy, **settings), 2)))
    assert both[0] == pytest.approx(both[1], rel=BOUND)


def test_each_process_draws_its_own_numbers_for_a_batch_and_the_same_ones_again() -> None:
    drawn = []
    for rank in (0, 1, 0):
        processes = object.__new__(Several)
        processes.rank, processes._device = rank, Device("cpu", "fp32")
        processes._seed(1, 2)
        drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_a_run_killed_and_resumed_on_as_many_processes_is_bitwise_the_same(outputs: Path, strategy: str) -> None:
    """With dropout, whose masks each process draws for itself."""
    count = 3 if strategy == "ddp" else 2  # of two numbers the sum has only one order
    settings = SETTINGS | {"model__dropout": 0.1, "train__grad_accum": 2, "train__sample_interval": 4}
    settings |= {"checkpoints__interval": 2, "distributed__strategy": strategy}
    alone = train_by(new_run(outputs, 4, "alone", **settings), count)
    run = new_run(outputs, 4, "run", **settings)
    with in_step(4, be_killed), ranks(run, count) as forks:
        assert forks[0].wait() == -signal.SIGKILL
        assert [fork.wait() for fork in forks[1:]] == [1] * (count - 1)  # they hear of it at once
    assert run.status().state == "interrupted"
    train_by(run, count)
    assert differences(alone, run) == []
    assert [event["step"] for event in events_of(run, "started")] == [0, 2]


@pytest.mark.slow
def test_a_run_is_resumed_on_another_number_of_processes_and_strategy_within_the_bound(
    outputs: Path,
) -> None:
    """Its losses are those of one process whoever computed them, also while most of three have no sequence."""
    alone, run = (new_run(outputs, 7, name, **SETTINGS | {"checkpoints__interval": 3}) for name in ("alone", "run"))
    for strategy, count, step in (("fsdp2", 3, 4), ("ddp", 2, 7)):
        prepare_resume(run, {"distributed.strategy": strategy})
        with in_step(step, be_killed), ranks(run, count) as forks:
            assert forks[0].wait() == -signal.SIGKILL
    train_here(run)
    assert losses(run) == pytest.approx(losses(train_here(alone)), rel=BOUND)
    assert [event["step"] for event in events_of(run, "step")] == list(range(1, 8))
    told = [sentence for event in events_of(run, "started") for sentence in event["changed"]]
    assert [sentence.partition(";")[0] for sentence in told] == [
        "distributed.strategy: fsdp2 -> ddp",
        "The number of processes changed (3 -> 2)",
        "The number of processes changed (2 -> 1)",
    ]


@pytest.mark.slow
def test_muon_and_averaged_weights_go_on_with_another_number_of_processes(outputs: Path) -> None:
    settings = SETTINGS | {"train__optimizer": "muon", "train__ema_decay": 0.9, "checkpoints__interval": 3}
    alone = train_here(new_run(outputs, 7, "alone", **settings))
    run = new_run(outputs, 7, **settings)
    for count, step in ((2, 4), (3, 7)):
        with in_step(step, be_killed), ranks(run, count) as forks:
            assert forks[0].wait() == -signal.SIGKILL
    train_here(run)
    assert [event["step"] for event in events_of(run, "step")] == list(range(1, 8))
    assert [event["step"] for event in events_of(run, "started")] == [0, 3, 6]
    assert losses(run) == pytest.approx(losses(alone), rel=BOUND)
    ended = [load_state(select(each.checkpoints, "final").path) for each in (alone, run)]
    for (name, mine), theirs in zip(ended[0].weights.items(), ended[1].weights.values(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5), name


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_pause_save_sample_inspect_and_stop_work_as_on_one_process(outputs: Path, strategy: str) -> None:
    run = new_run(outputs, 2000, **SETTINGS | {"distributed__strategy": strategy})
    with ranks(run, 2) as forks:
        wait_until(lambda: run.recorded_status().step > 2)
        request(run, "pause")
        wait_until(lambda: run.status().state == "paused")
        request(run, "save")
        request(run, "sample", prompts=["the"])
        request(run, "inspect", question="parameters", values={}, out="parameters-0123456789ab")
        wait_until(lambda: "inspected" in names_of_events(run))
        answer = safetensors.torch.load_file(run.inspections / "parameters-0123456789ab.safetensors")
        norms = answer["parameters/gradient"].square().sum().sqrt()
        assert float(norms) == pytest.approx(min(1.0, events_of(run, "step")[-1]["grad_norm"]), rel=1e-4)
        at = run.recorded_status().step
        assert names_of_events(run)[-4:] == ["paused", "checkpoint_saved", "sampled", "inspected"]
        request(run, "resume")
        wait_until(lambda: run.recorded_status().step > at)
        request(run, "stop")
        assert [fork.wait() for fork in forks] == [0, 0]
    assert (run.status().state, events_of(run, "stopped")[0]["step"]) == ("stopped", run.status().step)


def test_what_does_not_work_in_parts_of_a_model_is_refused() -> None:
    for key, value in (("optimizer", "muon"), ("ema_decay", 0.9), ("compile", True), ("precision", "fp16")):
        with pytest.raises(UsageError, match=f"train.{key}.* does not work with distributed.strategy=fsdp2"):
            quick_settings(distributed__strategy="fsdp2", **{f"train__{key}": value})


def test_a_run_of_one_process_is_not_trained_by_several(outputs: Path) -> None:
    run = new_run(outputs, 4)
    with ranks(run, 2) as forks:
        assert forks[0].wait() == 1
    assert run.status().error["why"] == "Its distributed.strategy is none."
