"""A fine-tuning run: what its steps are, and that it ends the same whatever interrupts it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import chat_tokenizers as make
import pytest
import safetensors.torch
import tiny_models
import torch
from forks import forked, start_fork, wait_until
from kills import differences, events_of, train_to_the_end, train_with_kills
from preset_settings import resolve_finetune_settings
from small_runs import names_of_events, new_run, train_here
from torch.nn import functional as F
from tuned_runs import copy_adapter, llama_folder

from llmlab.core.device import Device
from llmlab.core.errors import LabError, UsageError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.progress import quiet
from llmlab.data.finetuning_data import load_finetuning_data
from llmlab.gpt.generate import NextToken
from llmlab.inspection.archive import read_archive
from llmlab.jobs.launcher import create_run, prepare_resume, request
from llmlab.models.live import ask_live
from llmlab.models.reference import LiveRun, parse
from llmlab.models.source import open_model
from llmlab.store import requests
from llmlab.store.checkpoints import list_checkpoints, select
from llmlab.store.run_folder import RunFolder
from llmlab.studies.upkeep import rename_run
from llmlab.training.finetuning import loop
from llmlab.training.finetuning.backends import prepare
from llmlab.training.finetuning.loop import Finetuner
from llmlab.training.schedule import learning_rate

pytestmark = pytest.mark.long
STEPS = 8
WORDS = ("the", "king", "queen", "sea", "sky", "old", "new", "red")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all: a base is made once."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def scratch(outputs: Path) -> str:
    """A trained GPT of the lab's own."""
    overrides = {"data__tokenizer": "bpe", "data__bpe_vocab_size": 300, "model__block_size": 64}
    train_here(new_run(outputs, 2, "base", **overrides))
    return "base@final"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of transformers."""
    return str(llama_folder(tmp_path_factory.mktemp("llama") / "llama"))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Forty questions with answers of one word; answers of several lengths, so that a mean of means would differ."""
    path = tmp_path_factory.mktemp("examples") / "pairs.jsonl"
    rows = [
        {"prompt": f"{first} {second}?", "completion": " ".join([second] * (1 + number % 3))}
        for number, (first, second) in enumerate((a, b) for a in WORDS for b in WORDS[:5])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(params=["scratch", "llama"])
def base(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def settings_of(base: str, examples: str, **overrides: Any) -> FinetuneSettings:
    values = {
        "model.base": base,
        "data.source": examples,
        "data.max_length": 48,
        "data.batch_size": 3,
        "data.scored": 2,
        "lora.rank": 4,
        "lora.dropout": 0.2,
        "train.steps": STEPS,
        "train.learning_rate": 0.01,
        "train.warmup_steps": 3,
        "train.grad_accum": 2,
        "train.eval_interval": 4,
        "train.eval_sequences": 8,
        "train.sample_interval": 6,
        "train.threads": 1,
        "samples.tokens": 2,
        "checkpoints.interval": 5,
    }
    return resolve_finetune_settings(
        "scratch", overrides=values | {k.replace("__", "."): v for k, v in overrides.items()}
    )


def tuning_run(outputs: Path, base: str, examples: str, name: str, **overrides: Any) -> RunFolder:
    name = f"{name}-{os.urandom(3).hex()}"
    return create_run(outputs, settings_of(base, examples, **overrides), name=name)


@contextlib.contextmanager
def _asking(run: RunFolder, name: Any, step: int) -> Iterator[None]:
    """A request is sent while that step is computed; holds for forks that begin inside."""
    plain = Finetuner.loss_sum

    def loss_sum(self: Finetuner, batch: Any) -> Any:
        if self.model.training and self.progress.step + 1 == step and not list(run.requests.iterdir()):
            requests.send(run.requests, name)
        return plain(self, batch)

    with mock.patch.object(Finetuner, "loss_sum", loss_sum):
        yield


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_every_method_learns_the_answers(outputs: Path, llama: str, examples: str, method: str) -> None:
    run = train_here(
        tuning_run(outputs, llama, examples, "learns", model__method=method, train__steps=12, data__batch_size=8)
    )
    losses = [event["val_loss"] for event in events_of(run, "evaluated")]
    assert losses[-1] < 0.8 * losses[0]
    names = names_of_events(run)
    assert (names[0], names[-1]) == ("started", "finished")
    assert open_model(f"{run.id}@final", outputs).name


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_steps_are_those_of_the_plain_loop(outputs: Path, base: str, examples: str, method: str) -> None:
    """AdamW on the mean over a step's trained tokens, clipped, at the schedule's rate: computed here once more."""
    run = train_here(
        tuning_run(outputs, base, examples, "plain", model__method=method, lora__dropout=0.0, train__grad_clip=0.5)
    )
    settings = run.info().settings_as(FinetuneSettings)
    prepared = prepare(settings, outputs, Device("cpu", "fp32"), lambda *_: None, settings.train.seed)
    data = load_finetuning_data(settings.data, settings.train.seed, prepared.tokenizer, prepared.context, quiet)
    learning = [p for p in prepared.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, betas=(0.9, 0.999), weight_decay=0.0)
    prepared.model.train()
    losses = []
    for step in range(STEPS):
        batches = [data.batch(2 * step), data.batch(2 * step + 1)]
        logits = [prepared.logits(batch)[:, :-1].flatten(0, 1) for batch in batches]
        labels = [batch.labels[:, 1:].flatten() for batch in batches]
        loss = F.cross_entropy(torch.cat(logits), torch.cat(labels))  # the mean over both batches' trained tokens
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 0.5)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings.train)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert [event["loss"] for event in events_of(run, "step")] == pytest.approx(losses, rel=1e-4)
    saved = safetensors.torch.load_file(select(run.checkpoints, "final").weights)
    ours = prepared.trained_weights()
    assert saved.keys() == ours.keys()
    for name, weight in saved.items():
        assert torch.allclose(weight, ours[name], atol=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_blocks_that_are_computed_anew_give_the_same_losses_and_weights_bit_for_bit(
    outputs: Path, base: str, examples: str, method: str
) -> None:
    """With the dropout of adapters, which must be drawn again."""
    runs = []
    for anew in (False, True):
        changed = {"model__method": method, "train__activation_checkpointing": anew, "train__steps": 4}
        runs.append(train_here(tuning_run(outputs, base, examples, f"anew-{anew}", **changed)))
    losses = [[(event["loss"], event["grad_norm"]) for event in events_of(run, "step")] for run in runs]
    assert losses[0] == losses[1]
    plain, again = (safetensors.torch.load_file(select(run.checkpoints, "final").weights) for run in runs)
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_bits_per_byte_are_the_bits_of_the_held_out_answers_by_the_bytes_of_their_text(
    outputs: Path, base: str, examples: str
) -> None:
    run = train_here(tuning_run(outputs, base, examples, "bits", train__steps=1, train__eval_sequences=3))
    settings = run.info().settings_as(FinetuneSettings)
    prepared = prepare(settings, outputs, Device("cpu", "fp32"), quiet, settings.train.seed)
    data = load_finetuning_data(settings.data, settings.train.seed, prepared.tokenizer, prepared.context, quiet)
    nats, text = 0.0, ""
    for batch in data.fixed_batches("val", 3):
        logits = prepared.logits(batch)[:, :-1].flatten(0, 1)
        nats += float(F.cross_entropy(logits, batch.labels[:, 1:].flatten(), reduction="sum").detach())
        text += "".join(prepared.tokenizer.decode(row[row >= 0].tolist()) for row in batch.labels)
    answers = text.replace("<|endoftext|>", "").replace("</s>", "")
    assert set(answers.split()) <= set(WORDS)
    before, size = events_of(run, "evaluated")[0]["val_loss"], events_of(run, "started")[0]["bytes_per_token"]
    assert before / math.log(2) / size == pytest.approx(nats / math.log(2) / len(answers.encode()), rel=1e-5)


def test_packed_examples_cost_what_each_costs_alone(outputs: Path, base: str, examples: str) -> None:
    settings = settings_of(base, examples)
    prepared = prepare(settings, outputs, Device("cpu", "fp32"), lambda *_: None, 0)
    sums = []
    for packing in (False, True):
        wanted = replace(settings.data, packing=packing, batch_size=1)
        data = load_finetuning_data(wanted, 0, prepared.tokenizer, prepared.context, quiet)
        batches = [data.batch(index) for index in range(data.batches_per_epoch)]  # each example once
        total = 0.0
        for batch in batches:
            logits = prepared.logits(batch)[:, :-1].flatten(0, 1)
            total += float(F.cross_entropy(logits, batch.labels[:, 1:].flatten(), reduction="sum").detach())
        sums.append((total, sum(batch.predicted for batch in batches), len(batches)))
    assert sums[0][:2] == (pytest.approx(sums[1][0], rel=1e-5), sums[1][1])
    assert sums[1][2] < sums[0][2]


def test_the_tokens_of_a_step_of_packed_examples_are_those_of_whole_rows(
    outputs: Path, llama: str, examples: str
) -> None:
    run = train_here(
        tuning_run(outputs, llama, examples, "packed", data__packing=True, data__max_length=64, train__steps=1)
    )
    alone = train_here(tuning_run(outputs, llama, examples, "single", train__steps=1))
    (step,), (single,) = events_of(run, "step"), events_of(alone, "step")
    assert step["tokens"] > 1.3 * single["tokens"]
    assert events_of(run, "started")[0]["tokens_per_step"] == pytest.approx(step["tokens"], rel=0.15)


def test_an_answer_keeps_the_space_that_a_tokenizer_drops_where_a_text_begins(
    outputs: Path, examples: str, tmp_path: Path
) -> None:
    tokenizer = make.sentencepiece(make.MISTRAL, make.FAMILIES["mistral"].special).inner
    tiny_models.llama(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "spaces")
    tokenizer.save_pretrained(tmp_path / "spaces")
    said = tokenizer.encode("sky sky", add_special_tokens=False)

    def answer(model: object, *_: object, **__: object) -> Iterator[NextToken]:
        return (NextToken(id, torch.zeros(1)) for id in said)

    with mock.patch.object(loop, "continued", answer):
        run = train_here(tuning_run(outputs, str(tmp_path / "spaces"), examples, "spaces", train__steps=1))
    samples = events_of(run, "sampled")[-1]["samples"]
    assert {sample["text"] for sample in samples} == {" sky sky"}


def test_a_run_that_was_stopped_and_resumed_ends_bitwise_as_one_left_alone(
    outputs: Path, base: str, examples: str
) -> None:
    alone = train_here(tuning_run(outputs, base, examples, "alone"))
    run = tuning_run(outputs, base, examples, "stopped")
    with _asking(run, "stop", 7):
        train_here(run)
    assert run.status().state == "stopped"
    train_here(run)
    assert len(events_of(run, "started")) == 2
    assert differences(alone, run) == []


@pytest.mark.slow
def test_a_run_that_was_killed_ends_bitwise_as_one_left_alone(outputs: Path, scratch: str, examples: str) -> None:
    alone, killed = (tuning_run(outputs, scratch, examples, name) for name in ("alone", "killed"))
    train_to_the_end(alone, start_fork)
    train_with_kills(killed, 3, 0, longest=3.0, start=start_fork)
    assert differences(alone, killed) == []


@pytest.mark.slow
def test_a_pause_holds_in_place_and_changes_nothing(outputs: Path, scratch: str, examples: str) -> None:
    alone = train_here(tuning_run(outputs, scratch, examples, "alone"))
    run = tuning_run(outputs, scratch, examples, "paused")
    with _asking(run, "pause", 4), forked(run):
        wait_until(lambda: run.status().state == "paused")
        held = run.status().step
        assert events_of(run, "started")[0]["pid"] == run.status().pid
        request(run, "resume")
        wait_until(lambda: run.status().state == "finished")
    assert held >= 4
    assert len(events_of(run, "started")) == 1
    assert differences(alone, run) == []


def test_a_loss_that_is_no_number_stops_the_run_before_it_spoils_the_weights(
    outputs: Path, llama: str, examples: str
) -> None:
    run = tuning_run(outputs, llama, examples, "diverges", checkpoints__interval=1)
    plain = Finetuner.loss_sum

    def loss_sum(self: Finetuner, batch: Any) -> Any:
        broken = self.model.training and self.progress.step == 5
        return plain(self, batch) * (math.nan if broken else 1.0)

    with mock.patch.object(Finetuner, "loss_sum", loss_sum), pytest.raises(LabError, match="at step 6 is not a finite"):
        train_here(run)
    assert run.status().state == "failed"
    last = list_checkpoints(run.checkpoints)[-1]
    assert last.step == 5
    assert all(torch.isfinite(weight).all() for weight in safetensors.torch.load_file(last.weights).values())


def test_what_it_does_and_how_far_is_said_while_held_out_questions_are_answered(outputs: Path, scratch: str) -> None:
    steps = {"train__steps": 1, "train__eval_interval": 0, "train__sample_interval": 0}
    run = tuning_run(outputs, scratch, "tasks", "answers", **steps)
    said: list[str] = []
    plain = Finetuner._answer

    def answer(self: Finetuner, ids: list[int]) -> str:
        given = plain(self, ids)
        self.recorder.update()
        said.append(run.recorded_status().doing)
        return given

    with mock.patch.object(Finetuner, "_answer", answer):
        train_here(run)
    assert said == 2 * ["Answering held-out questions (0 of 2)", "Answering held-out questions (1 of 2)"]
    assert run.recorded_status().doing == ""
    (before, _), (step,) = (events_of(run, name) for name in ("scored", "step"))
    assert step["eta_seconds"] == pytest.approx(before["seconds"])  # which the answers after the last step take


@pytest.mark.slow
def test_a_live_run_answers_as_its_checkpoint_of_that_step(
    outputs: Path, base: str, examples: str, tmp_path: Path
) -> None:
    run = tuning_run(outputs, base, examples, "live")
    values = {"text": "the king", "what": ["attention", "attribution"]}
    with _asking(run, "pause", 6), forked(run):
        wait_until(lambda: run.status().state == "paused")
        live = parse(f"{run.id}@live", outputs)
        assert isinstance(live, LiveRun)
        answered = read_archive(ask_live(live, "inspect", values, tmp_path / "live.safetensors"))
        request(run, "save")
        wait_until(lambda: any(c.step == run.status().step for c in list_checkpoints(run.checkpoints)))
        step = run.status().step
        request(run, "stop")
        wait_until(lambda: run.status().state == "stopped")
    from llmlab.inspection.answers import answer_question

    answer_question(open_model(f"{run.id}@{step}", outputs), "inspect", values, tmp_path / "saved.safetensors")
    saved = read_archive(tmp_path / "saved.safetensors")
    assert set(saved) == set(answered)
    for name in saved:
        assert torch.allclose(torch.tensor(saved[name]), torch.tensor(answered[name]), atol=1e-5), name


def test_a_base_with_other_weights_is_refused_on_resume(outputs: Path, examples: str, tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "llama")
    run = tuning_run(outputs, str(folder), examples, "moved")
    with _asking(run, "stop", 6):
        train_here(run)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["model.norm.weight"] += 1
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(LabError, match="its base has changed"):
        train_here(run)


def test_a_base_under_another_name_is_no_change(outputs: Path, examples: str) -> None:
    base = train_here(new_run(outputs, 2, "bar", model__block_size=64))
    run = tuning_run(outputs, "bar@final", examples, "stopped")
    with _asking(run, "stop", 6):
        train_here(run)
    rename_run(base, "beer")
    train_here(run)
    assert run.info().settings.base == "pretraining/beer@2"
    assert events_of(run, "started")[-1]["changed"] == []


def test_an_adapter_knows_its_base_again_by_its_bytes(outputs: Path, llama: str, examples: str, tmp_path: Path) -> None:
    run = train_here(tuning_run(outputs, llama, examples, "known", train__steps=1))
    adapter = copy_adapter(select(run.checkpoints, "final").path, tmp_path / "adapter")
    moved = shutil.copytree(llama, tmp_path / "moved")
    assert open_model(f"{moved}+{adapter}", outputs).kind == "adapter"
    twin = llama_folder(tmp_path / "twin", seed=1)  # of the same shape
    with pytest.raises(LabError, match="was not made for"):
        open_model(f"{twin}+{adapter}", outputs)


def test_what_an_adapter_is_made_of_cannot_change_on_resume(outputs: Path, scratch: str, examples: str) -> None:
    run = tuning_run(outputs, scratch, examples, "fixed")
    for change in ({"lora.rank": 2}, {"lora.alpha": 1.0}, {"model.method": "full"}):
        with pytest.raises(UsageError, match="cannot change"):
            prepare_resume(run, change)
    assert prepare_resume(run, {"train.steps": 20}) != []


def test_a_base_that_goes_on_learning_is_pinned_to_its_step(outputs: Path, scratch: str, examples: str) -> None:
    run = tuning_run(outputs, scratch, examples, "pinned")
    assert run.info().settings.base == "pretraining/base@2"


def test_sigterm_saves_and_stops(outputs: Path, scratch: str, examples: str) -> None:
    run = tuning_run(outputs, scratch, examples, "ended", train__steps=5000)
    with forked(run):
        wait_until(lambda: run.status().step > 2)
        os.kill(int(run.status().pid or 0), signal.SIGTERM)
        wait_until(lambda: run.status().state == "stopped")
    assert select(run.checkpoints, "latest").step == run.status().step


def test_a_run_killed_between_its_last_checkpoint_and_its_last_word_only_ends(
    outputs: Path, scratch: str, examples: str
) -> None:
    run = train_here(tuning_run(outputs, scratch, examples, "last-word"))
    whole = safetensors.torch.load_file(select(run.checkpoints, "final").weights)
    run.write_status(replace(run.recorded_status(), state="running", pid=None))
    train_here(run)
    again = safetensors.torch.load_file(select(run.checkpoints, "final").weights)
    assert (run.status().state, run.status().step) == ("finished", STEPS)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
