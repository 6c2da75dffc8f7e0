"""A run that cannot fit into memory is refused before it starts, and what is advised would fit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from preset_settings import resolve_finetune_settings, resolve_settings
from small_runs import new_run, train_here

from llmlab.cli import train
from llmlab.cli.main import main
from llmlab.core.config import with_values
from llmlab.core.device import Device
from llmlab.core.errors import LabError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.run_settings import RunSettings
from llmlab.gpt.estimate import Memory
from llmlab.gpt.estimate import estimate_pretraining as estimate
from llmlab.training.kinds import kind_of
from llmlab.training.room import crowded, needed_text, ran_out, require_room

GB = 10**9
# Ten terabytes of weights, gradients and moments, and far more of activations.
VAST = {
    "model.n_layer": 200,
    "model.n_embd": 16384,
    "model.n_head": 128,
    "model.block_size": 65536,
    "data.batch_size": 512,
}


def refused(settings: RunSettings, free: int, outputs: Path = Path()) -> LabError:
    need = kind_of(settings).memory(settings, outputs)
    assert need is not None
    with pytest.raises(LabError) as said:
        require_room(settings, need, free, outputs)
    return said.value


def advised(error: LabError) -> dict[str, Any]:
    return dict(re.findall(r"([a-z]+\.[a-z_]+)=(\w+)", error.do))


@pytest.mark.parametrize(
    ("preset", "changes", "free", "named"),
    [
        ("baby", {"data.batch_size": 4096}, 2 * GB, {"data.batch_size", "train.grad_accum"}),  # activations
        (
            "baby",
            {"data.batch_size": 1, "model.block_size": 16384, "train.precision": "fp32"},
            0.8 * GB,
            {"model.block_size"},
        ),
        ("nano", {}, 0.5 * GB, {"data.tokenizer"}),  # the vocabulary
        ("nano", {"model.n_embd": 1024}, 1.5 * GB, {"data.tokenizer"}),  # what learns, most of it the embedding
        ("baby", {"model.n_embd": 2048, "model.n_layer": 12}, 5 * GB, {"model.n_layer"}),  # what learns
        ("gpt2", VAST, 20 * GB, {"data.batch_size", "train.grad_accum", "model.n_layer", "model.block_size"}),
    ],
)
def test_what_is_advised_fits_and_makes_smaller_what_takes_most(
    preset: str, changes: dict[str, Any], free: float, named: set[str]
) -> None:
    settings = resolve_settings(preset, overrides=changes)
    error = refused(settings, int(free))
    assert "GB are needed: " in error.why
    assert named <= set(advised(error))
    smaller = with_values(settings, advised(error))
    assert estimate(smaller).memory_bytes <= free
    assert smaller.tokens_per_step >= settings.tokens_per_step or "model.block_size" in named


@pytest.mark.parametrize("strategy", ["none", "ddp", "fsdp2"])
def test_what_is_said_of_memory_adds_up(strategy: str) -> None:
    memory = estimate(resolve_settings("baby", overrides={"distributed.strategy": strategy})).memory
    each, *beside = needed_text(memory).partition(" are needed")[2].split("; ")
    parts = [[float(part) for part in re.findall(r"([0-9.]+) GB", text)] for text in (each, *beside)]
    total = memory.processes * sum(parts[0]) + sum(part for one in parts[1:] for part in one)
    assert total == pytest.approx(memory.total / GB, abs=0.02)


def test_an_estimate_that_is_a_little_too_high_refuses_nothing() -> None:
    settings = resolve_settings("baby")
    require_room(settings, Memory(0, 110, 0, 0), 100, Path())
    assert refused(settings, int(0.8 * estimate(settings).memory_bytes)).what == "This run does not fit into memory."


@pytest.mark.slow
def test_fewer_weights_learn_where_learning_takes_most(tmp_path: Path) -> None:
    wide = {"data__tokenizer": "gpt2", "model__n_embd": 192, "model__n_head": 4}
    little = {"data__batch_size": 1, "train__grad_accum": 1, "train__eval_interval": 0, "checkpoints__interval": 0}
    train_here(new_run(tmp_path, 1, "base", **wide, **little))
    full = resolve_finetune_settings("scratch", overrides={"model.base": "base@final", "model.method": "full"})
    methods = {method: with_values(full, {"model.method": method}) for method in ("full", "lora")}
    needs = {method: kind_of(settings).memory(settings, tmp_path) for method, settings in methods.items()}
    assert needs["full"] is not None
    assert needs["lora"] is not None
    error = refused(full, int(0.8 * needs["full"].total), tmp_path)
    assert advised(error) == {"model.method": "lora"}
    plain = with_values(full, {"model.method": "qlora"})
    assert "choose a smaller model" in refused(plain, GB // 4, tmp_path).do


def test_a_fine_tuning_run_that_ran_out_is_advised_smaller_batches(tmp_path: Path) -> None:
    train_here(new_run(tmp_path, 2, "base"))
    settings = resolve_finetune_settings("scratch", overrides={"model.base": "base@final"})
    assert isinstance(settings, FinetuneSettings)
    said = ran_out(settings, tmp_path, 100 * GB)
    assert said.what == "There was not enough memory."
    half = settings.data.batch_size // 2
    assert advised(said)["data.batch_size"] == str(half)


def test_the_command_line_refuses_what_cannot_fit_and_makes_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = [part for key, value in VAST.items() for part in ("--set", f"{key}={value}")]
    assert (
        main(["pretrain", "--corpus", "tiny", *changes, "--set", "train.device=cpu", "--outputs", str(tmp_path)]) == 1
    )
    said = capsys.readouterr().err
    assert "does not fit into memory" in said
    assert "data.batch_size=" in said
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_refuses_a_base_that_cannot_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_here(new_run(tmp_path, 2, "base"))
    monkeypatch.setattr(train, "available_bytes", lambda: GB // 10)
    assert main(["finetune", "--model", "base@final", "--set", "train.device=cpu", "--outputs", str(tmp_path)]) == 1
    assert "does not fit into memory" in capsys.readouterr().err
    assert not (tmp_path / "finetuning").exists()


def test_the_worker_looks_again_whoever_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(tmp_path, 2)
    monkeypatch.setattr(Device, "free_bytes", lambda self: GB // 10)
    with pytest.raises(LabError, match="does not fit into memory"):
        train_here(run)
    assert json.loads(run.events.read_text().splitlines()[-1])["event"] == "failed"
    assert run.status().state == "failed"


@pytest.mark.parametrize(
    ("cores", "count", "threads", "said"),
    [
        (2, 2, 0, ""),
        (2, 4, 0, "4 processes share 2 cores: more than 2 are not faster here."),
        (16, 2, 0, "2 processes of one thread use 2 of 16 cores: try train.threads=8."),
        (16, 2, 8, ""),
        (16, 16, 0, "16 processes share 12 sequences a batch: 4 of them have nothing to compute."),
        (1, 1, 0, ""),
    ],
)
def test_processes_that_do_not_fit_the_cores_or_the_batch_are_told_of(
    monkeypatch: pytest.MonkeyPatch, cores: int, count: int, threads: int, said: str
) -> None:
    monkeypatch.setattr("llmlab.training.room.available_cores", lambda: cores)
    values = {"distributed.strategy": "ddp", "distributed.processes": count, "train.threads": threads}
    assert crowded(resolve_settings("baby", overrides=values | {"train.device": "cpu"})) == said
