"""QLoRA on a real model of 135 million parameters: skipped where the package that carries it is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kills import events_of
from real_model import smollm2
from small_runs import train_here

from llmlab.core.finetuning_settings import resolve_finetune_settings
from llmlab.inspection.weight_change import change_of
from llmlab.jobs.launcher import create_run
from llmlab.models.source import open_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_qlora_on_smollm2_lowers_the_loss_and_opens_as_base_and_adapter(outputs: Path) -> None:
    torch.set_num_threads(1)
    base = smollm2()
    overrides = {
        "train.steps": 5,
        "train.threads": 1,
        "train.eval_interval": 5,
        "train.eval_windows": 4,
        "train.sample_interval": 0,
        "data.scored": 0,
        "checkpoints.interval": 0,
    }
    run = create_run(outputs, resolve_finetune_settings("smollm2-135m", overrides=overrides), name="real")
    train_here(run)
    before, after = (event["val_loss"] for event in events_of(run, "evaluated"))
    assert after < before - 1
    tuned = open_model("real@final", outputs)
    ids = torch.tensor([tuned.tokenizer.encode("The capital of France is")])
    with torch.no_grad():
        drift = (tuned.model(ids).logits - base.model(ids).logits).abs().max()
    assert drift > 0.01
    assert 0 < (change_of("real@final", outputs).relative or 0) < 0.05
