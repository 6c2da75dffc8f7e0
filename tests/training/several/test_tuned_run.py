"""Several processes fine-tune the model that one does."""

from __future__ import annotations

import json
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tiny_models
import torch
from forks import wait_until
from kills import differences, events_of
from preset_settings import resolve_finetune_settings
from ranks import BOUND, be_killed, losses, ranks, train_by
from small_runs import in_step, names_of_events, new_run, train_here

from llmlab.core.errors import UsageError
from llmlab.jobs.launcher import create_run, prepare_resume, request
from llmlab.models.source import open_model
from llmlab.store.checkpoints import select
from llmlab.store.run_folder import RunFolder

pytestmark = pytest.mark.long
STEPS = 4


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def bases(outputs: Path) -> dict[str, str]:
    wide = {"data__tokenizer": "bpe", "data__bpe_vocab_size": 300, "model__block_size": 64, "model__dropout": 0.0}
    train_here(new_run(outputs, 2, "wide", **wide))
    return {"scratch": "wide@final", "llama": str(tiny_models.save(tiny_models.llama(), outputs / "llama"))}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Answers of one to four words: a mean over rows is not the mean over tokens."""
    path = tmp_path_factory.mktemp("examples") / "pairs.jsonl"
    words = ("the", "king", "queen", "sea", "sky", "old")
    rows = [
        {"prompt": f"{a} {b}?", "completion": " ".join([b] * (1 + n % 4))} for n, a in enumerate(words) for b in words
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def tuning(outputs: Path, base: str, examples: str, name: str, **changed: Any) -> RunFolder:
    """Batches of three rows, of which two processes read one and two."""
    values = {
        "model.base": base,
        "data.source": examples,
        "data.max_length": 48,
        "data.batch_size": 3,
        "data.scored": 2,
        "lora.rank": 4,
        "train.steps": STEPS,
        "train.learning_rate": 0.01,
        "train.warmup_steps": 2,
        "train.grad_accum": 2,
        "train.eval_interval": 2,
        "train.eval_sequences": 4,
        "train.sample_interval": 4,
        "train.threads": 1,
        "samples.tokens": 3,
        "checkpoints.interval": 2,
        "checkpoints.keep_last": 9,
    }
    values |= {key.replace("__", "."): value for key, value in changed.items()}
    return create_run(outputs, resolve_finetune_settings("scratch", overrides=values), name=name)


def learned(run: RunFolder) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(select(run.checkpoints, "final").weights)


CASES = [("scratch", "lora", "ddp", {})]
RARER = [
    ("llama", "qlora", "ddp", {"train__activation_checkpointing": True}),
    ("llama", "lora", "fsdp2", {"train__activation_checkpointing": True}),
    ("scratch", "full", "fsdp2", {"data__batch_size": 1}),  # one of them has no row
    ("llama", "full", "ddp", {"data__packing": True}),
]


@pytest.mark.parametrize(
    ("kind", "method", "strategy", "changed"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in RARER)],
)
def test_two_processes_follow_the_curve_of_one_and_save_the_same(
    outputs: Path, bases: dict[str, str], examples: str, kind: str, method: str, strategy: str, changed: dict[str, Any]
) -> None:
    name, changed = f"{kind}-{method}-{strategy}", changed | {"model__method": method}
    _pair(outputs, bases[kind], examples, name, strategy, changed)


def _pair(outputs: Path, base: str, examples: str, name: str, strategy: str, changed: dict[str, Any]) -> RunFolder:
    """Trained by two, after it was held against the run of one process."""
    alone = train_here(tuning(outputs, base, examples, f"{name}-alone", **changed))
    pair = train_by(tuning(outputs, base, examples, name, distributed__strategy=strategy, **changed), 2)
    assert losses(pair) == pytest.approx(losses(alone), rel=BOUND)
    for run in (alone, pair):
        assert {"sampled", "evaluated"} <= set(names_of_events(run))
        assert ("scored" in names_of_events(run)) == (run.info().settings.reads == "tasks")
    written = [[sample["text"] for sample in events_of(run, "sampled")[-1]["samples"]] for run in (alone, pair)]
    assert written[0] == written[1]
    ours, theirs = learned(pair), learned(alone)
    assert ours.keys() == theirs.keys()
    for weight, tensor in theirs.items():
        torch.testing.assert_close(ours[weight], tensor, rtol=1e-3, atol=1e-4)
    assert [event["tokens"] for event in events_of(pair, "step")] == [
        event["tokens"] for event in events_of(alone, "step")
    ]
    assert events_of(pair, "started")[0]["processes"] == 2
    assert len(events_of(pair, "shared")[-1]["busy"]) == 2
    assert open_model(f"{pair.id}@final", outputs).name
    return pair


@pytest.mark.slow
def test_a_run_that_answers_and_loses_a_process_says_so_and_goes_on_in_one_or_bitwise_in_two(
    outputs: Path, bases: dict[str, str], examples: str
) -> None:
    """In parts of a model, which must be gathered to be saved; with ddp each process has the whole."""
    changed = {"data__source": "tasks", "data__max_examples": 40, "data__packing": True, "model__method": "qlora"}
    whole = _pair(outputs, bases["scratch"], examples, "whole", "fsdp2", changed)
    run = tuning(outputs, bases["scratch"], examples, "killed", distributed__strategy="fsdp2", **changed)
    pauses = partial(request, run, "pause")
    with in_step(1, pauses), in_step(STEPS, be_killed, rank=1), ranks(run, 2) as forks:
        wait_until(lambda: run.status().state == "paused")
        request(run, "save")
        request(run, "sample", prompts=["the sea?"])
        request(run, "inspect", question="parameters", values={}, out="parameters-0123456789ab")
        wait_until(lambda: "inspected" in names_of_events(run))
        assert run.recorded_status().step == 1
        assert names_of_events(run)[-4:] == ["paused", "checkpoint_saved", "sampled", "inspected"]
        request(run, "resume")
        assert (forks[0].wait(), forks[1].wait()) == (1, -signal.SIGKILL)
    assert run.status().state == "failed"
    assert "Process 1 of the run's 2 was ended from outside" in events_of(run, "failed")[0]["why"]
    moved = RunFolder(shutil.copytree(run.path, run.path.with_name("moved")))
    train_by(run, 2)
    assert differences(whole, run) == []
    prepare_resume(moved, {"distributed.strategy": "none"})
    train_here(moved)
    assert losses(moved) == pytest.approx(losses(whole), rel=BOUND)
    assert [event["step"] for event in events_of(moved, "started")] == [0, 2]


def test_what_cannot_be_trained_by_several_is_refused(outputs: Path, examples: str) -> None:
    for changed, words in (
        ({"model__backend": "unsloth", "distributed__strategy": "ddp"}, "Unsloth trains in one process"),
    ):
        with pytest.raises(UsageError, match=words):
            tuning(outputs, "base@final", examples, "refused", **changed)
