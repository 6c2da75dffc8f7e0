"""A run that was killed, paused, stopped or branched ends bitwise equal to one left alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from forks import Fork, forked, start_fork, wait_until
from kills import differences, events_of, train_to_the_end, train_with_kills
from small_runs import all_events, in_step, kill_and_resume, new_run, same_weights, train_here, weights_of

from llmlab.core.config import with_values
from llmlab.core.errors import LabError
from llmlab.core.progress import quiet
from llmlab.core.settings import DataSettings, PretrainSettings
from llmlab.data import shard_sources
from llmlab.data.build_tokenizer import build_tokenizer
from llmlab.data.corpora import find_corpus
from llmlab.data.shard_build import build_shards
from llmlab.data.shard_sources import shard_source
from llmlab.jobs import worker
from llmlab.jobs.earlier_attempts import changes_since
from llmlab.jobs.launcher import create_run, prepare_resume, request, start_worker
from llmlab.models.scratch import open_checkpoint
from llmlab.store import requests
from llmlab.store.checkpoints import list_checkpoints, select, verify
from llmlab.store.run_folder import RunFolder
from llmlab.training.loop import Trainer
from llmlab.training.state import load_state

pytestmark = pytest.mark.long
STEPS = 24
SETTINGS = {"train__sample_interval": 8}


@contextlib.contextmanager
def _asking(run: RunFolder, **asked: int) -> Iterator[None]:
    """Each request is sent while the step of that number is computed; holds for forks that begin inside."""
    plain = Trainer.optimizer_step

    def step(self: Trainer) -> Any:
        for name, number in asked.items():
            if self.progress.step + 1 == number and self.run == run:
                requests.send(run.requests, name)
        return plain(self)

    with mock.patch.object(Trainer, "optimizer_step", step):
        yield


def _steps(run: RunFolder) -> list[int]:
    return [event["step"] for event in events_of(run, "step")]


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_one_left_alone(run: RunFolder, alone: RunFolder, outputs: Path) -> None:
    begin = time.monotonic()
    train_to_the_end(new_run(outputs, STEPS, "measured"), start_fork)  # how long that takes on this machine, today
    kills = train_with_kills(run, 8, 1, longest=(time.monotonic() - begin) / 2, start=start_fork)
    assert kills > 0
    assert differences(alone, run) == []
    assert _steps(run) == list(range(1, STEPS + 1))
    assert events_of(run, "started")[-1]["attempt"] <= kills + 1


def test_a_real_worker_killed_and_resumed_ends_as_one_left_alone(run: RunFolder, alone: RunFolder) -> None:
    requests.send(run.requests, "save")
    requests.send(run.requests, "pause")
    worker = start_worker(run)
    wait_until(lambda: run.status().state == "paused")
    worker.kill()
    worker.wait()
    assert run.status().state == "interrupted"
    train_to_the_end(run)
    assert differences(alone, run) == []
    assert events_of(run, "started")[-1]["attempt"] == 2


@pytest.mark.parametrize("order", ["random", "sliding"])
def test_a_killed_run_on_shards_ends_as_one_on_their_text_left_alone(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shard_sources, "BLOCK_CHARS", 2000)
    whole = "".join(piece.text for piece in find_corpus("tiny").pieces())
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": whole[i : i + 900]}) + "\n" for i in range(0, len(whole), 900)))
    source = shard_source(str(text), "text")
    learned = build_tokenizer(DataSettings(tokenizer="bpe", bpe_vocab_size=300), source, quiet)
    built = build_shards(source, "built", learned, quiet, processes=1, shard_tokens=1000)
    assert len(built.manifest.shards) > 10
    asked = SETTINGS | {"data__tokenizer": "bpe", "data__bpe_vocab_size": 300, "data__order": order}
    alone = train_here(new_run(outputs, 12, "text", data__corpus=str(text), **asked))
    killed = kill_and_resume(new_run(outputs, 12, "shards", data__corpus="built", **asked), before_step=8)
    assert differences(alone, killed) == []


def test_a_killed_run_on_a_mixture_ends_as_one_left_alone_and_measures_each_source(
    alone: RunFolder, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = "".join(piece.text for piece in find_corpus("tiny").pieces())
    for name, text in (("a", whole[:6000]), ("b", whole[6000:20_000].upper())):
        (tmp_path / f"{name}.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    asked = SETTINGS | {"data__corpus": "a.txt:0.3,b.txt:0.7", "data__order": "sliding", "train__eval_sequences": 10}
    quiet_one, killed = (new_run(outputs, 12, name, **asked) for name in ("quiet", "killed"))
    assert quiet_one.info().settings.data.corpus == f"{tmp_path / 'a.txt'}:0.3,{tmp_path / 'b.txt'}:0.7"
    assert quiet_one.info().settings.words.makes.endswith("on a.txt:0.3,b.txt:0.7")
    train_here(quiet_one)
    kill_and_resume(killed, before_step=8)
    assert differences(quiet_one, killed) == []
    for event in events_of(killed, "evaluated"):
        assert event["val_losses"].keys() == {"a.txt", "b.txt"}
        means = 0.3 * event["val_losses"]["a.txt"] + 0.7 * event["val_losses"]["b.txt"]
        assert event["val_loss"] == pytest.approx(means)
    assert "val_losses" not in events_of(alone, "evaluated")[0]  # of one corpus


def test_a_pause_holds_in_place_and_loses_nothing(run: RunFolder, alone: RunFolder) -> None:
    with _asking(run, pause=9), forked(run) as worker:
        wait_until(lambda: run.events.is_file() and '"paused"' in run.events.read_text())
        paused = all_events(run)
        assert run.status().state == "paused"
        assert (paused[-1]["event"], paused[-1]["step"], paused[-1]["reason"]) == ("paused", 9, "requested")
        assert run.status().step == 9
        request(run, "pause")  # once more changes nothing
        request(run, "save")
        request(run, "sample", prompts=["the"])
        wait_until(lambda: "sampled" in [event["event"] for event in all_events(run)[len(paused) :]])
        assert [event["event"] for event in all_events(run)[len(paused) :]] == ["checkpoint_saved", "sampled"]
        assert worker.poll() is None
        request(run, "resume")
        assert worker.wait() == 0
    resumed = events_of(run, "resumed")[0]
    assert resumed["step"] == 9
    assert 0 < resumed["paused_seconds"] < 60
    assert differences(alone, run) == []
    assert _steps(run) == list(range(1, STEPS + 1))
    assert events_of(run, "finished")[0]["active_seconds"] < all_events(run)[-1]["time"] - all_events(run)[0]["time"]


def test_a_save_at_once_keeps_that_step_and_changes_nothing_nor_does_a_resume_without_a_pause(
    run: RunFolder, alone: RunFolder
) -> None:
    with _asking(run, resume=5, save=7):
        train_here(run)
    assert select(run.checkpoints, "7").labels == ("requested",)
    assert differences(alone, run) == []
    assert events_of(run, "resumed") == []


def test_a_stop_or_sigterm_while_paused_saves_where_it_stands(run: RunFolder, alone: RunFolder) -> None:
    for step in (6, 11):
        with _asking(run, pause=step), forked(run) as worker:
            wait_until(lambda: run.status().state == "paused")
            worker.terminate() if step == 6 else request(run, "stop")
            assert worker.wait() == 0
        assert (run.status().state, select(run.checkpoints).step) == ("stopped", step)
    train_here(run)
    assert differences(alone, run) == []


def test_each_stop_saves_once_and_the_rest_ends_as_one_left_alone(run: RunFolder, alone: RunFolder) -> None:
    requests.send(run.requests, "stop")  # before the first step
    train_here(run)
    assert (run.status().state, select(run.checkpoints).step) == ("stopped", 0)
    for step in (10, 13):  # the first of them is saved already
        with _asking(run, stop=step):
            train_here(run)
        stopped = all_events(run)[-1]
        assert (stopped["event"], stopped["step"], stopped["checkpoint"]) == ("stopped", step, f"step-{step:08}")
        assert (run.status().state, run.status().step) == ("stopped", step)
        assert [event["step"] for event in events_of(run, "checkpoint_saved")].count(step) == 1
    assert select(run.checkpoints).labels == ("stopped",)
    train_here(run)
    assert differences(alone, run) == []
    assert [event["changed"] for event in events_of(run, "started")] == [[]] * 4
    assert [event["step"] for event in events_of(run, "evaluated")] == [0, 4, 8, 12, 16, 20, 24]
    progress = [load_state(select(ended.checkpoints, "final").path).progress for ended in (alone, run)]
    assert progress[0].evaluations_without_better == progress[1].evaluations_without_better
    assert (progress[0].best_val_loss, progress[0].best_step) == (progress[1].best_val_loss, progress[1].best_step)


@pytest.mark.parametrize("interrupted", [1, 17])
def test_resuming_reads_where_every_generator_stood(run: RunFolder, interrupted: int) -> None:
    states: dict[str, Any] = {}
    plain = Trainer.optimizer_step

    def look(self: Trainer) -> Any:
        states["before"] = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        states.setdefault("first", states["before"])
        return plain(self)

    random.seed(interrupted)
    np.random.seed(interrupted)
    with mock.patch.object(Trainer, "optimizer_step", look):
        with _asking(run, stop=interrupted):
            train_here(run)
        after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        random.seed(99)
        np.random.seed(99)
        torch.manual_seed(99)
        states.clear()
        train_here(run)
    assert states["first"] == after


def test_what_was_written_after_the_checkpoint_is_cut_also_half_a_line(run: RunFolder, alone: RunFolder) -> None:
    with _asking(run, stop=12):
        train_here(run)
    before = run.events.read_bytes()
    step = next(line for line in before.splitlines() if b'"event": "step"' in line)
    later = json.loads(step) | {"step": 13}
    with run.events.open("ab") as file:
        file.write(json.dumps(later).encode() + b'\n{"event": "step", "ti')
    train_here(run)
    assert run.events.read_bytes().startswith(before)
    assert differences(alone, run) == []


def test_a_damaged_line_is_set_aside_with_a_warning_and_the_curve_around_it_stays(
    run: RunFolder, alone: RunFolder
) -> None:
    with _asking(run, stop=12):
        train_here(run)
    lines = run.events.read_bytes().splitlines(keepends=True)
    fourth = next(number for number, line in enumerate(lines) if json.loads(line)["step"] == 4)
    lines[fourth] = b"\x00" * 17 + b"\n"
    run.events.write_bytes(b"".join(lines))
    train_here(run)
    assert _steps(run) == [step for step in _steps(alone) if step != 4]
    (warning,) = events_of(run, "warned")
    assert warning["message"].startswith("A line of events.jsonl could not be read, and is set aside in events.damaged")
    assert run.damaged_events.read_bytes() == lines[fourth]
    assert same_weights(alone, run)
    prepare_resume(run, {"train.steps": STEPS + 2})
    train_here(run)  # the place of the checkpoint is right again
    assert len(events_of(run, "warned")) == 1
    assert _steps(run) == [step for step in range(1, STEPS + 3) if step != 4]


@pytest.mark.parametrize("at", [2, 13], ids=["before it saved", "after a checkpoint"])
def test_a_resumed_run_says_how_it_failed_before(run: RunFolder, alone: RunFolder, at: int) -> None:
    gone = LabError("Process 1 is gone.", "Something killed it.", "Resume it.")
    with in_step(at + 1, mock.Mock(side_effect=gone)), pytest.raises(LabError, match="is gone"):
        train_here(run)
    train_here(run)
    (warning,) = events_of(run, "warned")
    assert warning["message"] == (
        f"Before it was resumed it failed at step {at}: Process 1 is gone. Something killed it."
    )
    assert same_weights(alone, run)


def test_a_run_whose_events_were_deleted_goes_on(run: RunFolder, alone: RunFolder) -> None:
    with _asking(run, stop=12):
        train_here(run)
    run.events.unlink()
    train_here(run)
    assert same_weights(alone, run)
    assert _steps(run) == list(range(13, STEPS + 1))


def test_a_run_that_never_saved_starts_over_and_leaves_no_trace_of_the_first_time(
    run: RunFolder, alone: RunFolder
) -> None:
    with _asking(run, pause=3), forked(run):
        wait_until(lambda: run.status().state == "paused")
    assert run.status().state == "interrupted"
    assert list_checkpoints(run.checkpoints) == []
    train_here(run)
    assert differences(alone, run) == []
    assert len(events_of(run, "started")) == 1
    assert events_of(run, "started")[0]["attempt"] == 2


def test_more_steps_after_the_end_are_as_if_they_had_been_planned(outputs: Path) -> None:
    constant = {"train__schedule": "constant", "train__eval_interval": 0}
    planned = train_here(new_run(outputs, 14, "planned", **constant))
    longer = train_here(new_run(outputs, 6, "longer", **constant))
    assert prepare_resume(longer, {"train.steps": 14}) == [
        "train.steps: 6 -> 14; from here on the run differs from one left alone."
    ]
    train_here(longer)
    assert same_weights(planned, longer)
    assert [event["event"] for event in all_events(longer)].count("finished") == 2
    assert select(longer.checkpoints, "final").step == 14
    (change,) = events_of(longer, "started")[1]["changed"]
    assert change.startswith("train.steps: 6 -> 14; the run is no longer")


def test_the_former_end_of_a_run_that_is_trained_longer_stays_also_when_it_is_killed_on_the_way(outputs: Path) -> None:
    kept = {"train__eval_interval": 0, "checkpoints__interval": 4, "checkpoints__keep_last": 3}
    longer = train_here(new_run(outputs, 6, "longer", **kept))
    prepare_resume(longer, {"train.steps": 14})
    with _asking(longer, pause=13), forked(longer):
        wait_until(lambda: longer.status().state == "paused")
    former = select(longer.checkpoints, "final")
    assert (former.step, verify(former)) == (6, None)
    train_here(longer)
    assert [saved.step for saved in list_checkpoints(longer.checkpoints)] == [6, 8, 12, 14]


def test_a_loss_of_another_step_is_not_told_as_that_of_a_checkpoint(outputs: Path) -> None:
    # As one of version 0.5: it was stopped where only later ones measure.
    rare = {"train__eval_interval": 20, "checkpoints__interval": 0, "train__eval_early": False}
    run = new_run(outputs, STEPS, **rare)
    with _asking(run, stop=10):
        train_here(run)
    (stopped,) = list_checkpoints(run.checkpoints)
    assert (stopped.step, stopped.val_loss) == (10, None)
    prepare_resume(run, {"train.eval_early": True})
    requests.send(run.requests, "save")
    train_here(run)
    losses = {saved.step: saved.val_loss for saved in list_checkpoints(run.checkpoints)}
    assert losses == {10: None, STEPS: events_of(run, "evaluated")[-1]["val_loss"]}
    # What was measured when it was saved first stays when it is saved again.
    prepare_resume(run, {"train.steps": STEPS + 1})
    requests.send(run.requests, "save")
    train_here(run)
    (again,) = (saved for saved in list_checkpoints(run.checkpoints) if saved.step == STEPS)
    assert ("requested" in again.labels, again.val_loss) == (True, losses[STEPS])


def test_a_stopped_run_saves_the_log_spaced_checkpoints_that_one_left_alone_does(outputs: Path) -> None:
    spaced = {"checkpoints__per_decade": 4, "checkpoints__interval": 0, "checkpoints__best": False}
    alone = train_here(new_run(outputs, STEPS, "alone", **SETTINGS, **spaced))
    run = new_run(outputs, STEPS, "stopped", **SETTINGS, **spaced)
    with _asking(run, stop=10):  # a log-spaced step
        train_here(run)
    train_here(run)
    steps = [[saved.step for saved in list_checkpoints(each.checkpoints)] for each in (alone, run)]
    assert steps[0] == steps[1] == [1, 2, 3, 6, 10, 18, 24]
    assert differences(alone, run) == []


def test_a_stopped_run_of_a_model_with_the_newer_parts_ends_as_one_left_alone(outputs: Path) -> None:
    newer = {"model__qk_norm": True, "model__activation": "relu2", "model__zero_init": True}
    newer |= {"model__untied_head": True, "model__logit_softcap": 3.0}
    newer |= {"model__n_layer": 2, "model__value_residual": True, "model__mup_base_width": 8}
    alone = train_here(new_run(outputs, STEPS, "alone", **SETTINGS, **newer))
    run = new_run(outputs, STEPS, "stopped", **SETTINGS, **newer)
    with _asking(run, stop=10):
        train_here(run)
    train_here(run)
    assert differences(alone, run) == []


def test_settings_changed_on_resume_are_listed_and_what_breaks_exactness_is_said(run: RunFolder) -> None:
    with _asking(run, stop=6):
        train_here(run)
    said = prepare_resume(run, {"train.eval_interval": "3", "train.learning_rate": "1e-4", "model.dropout": "0.2"})
    assert [sentence.split(":")[0] for sentence in said] == [
        "model.dropout",
        "train.learning_rate",
        "train.eval_interval",
    ]
    assert [("differs" in sentence) for sentence in said] == [True, True, False]
    train_here(run)
    changed = events_of(run, "started")[1]["changed"]
    assert [sentence.split(":")[0] for sentence in changed] == [
        "model.dropout",
        "train.learning_rate",
        "train.eval_interval",
    ]
    assert "training is not touched" in changed[2]
    assert run.info().settings.train.eval_interval == 3
    assert events_of(run, "step")[6]["lr"] <= 1e-4


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("threads", 7, "The number of threads changed (1 -> 7)"),
        ("device", "cuda", "The device changed (cpu -> cuda)"),
        ("precision", "bf16", "The precision changed (fp32 -> bf16)"),
        ("versions", {"torch": "9.9"}, "The torch version changed"),
        ("data_key", "other", "The token file changed"),
        ("compiled", True, "Whether the model is compiled changed (no -> yes)"),
    ],
)
def test_whatever_else_breaks_exactness_is_said(alone: RunFolder, field: str, value: Any, said: str) -> None:
    loaded = load_state(select(alone.checkpoints).path)
    assert changes_since(PretrainSettings, loaded, loaded.origin) == []
    (sentence,) = changes_since(PretrainSettings, loaded, dataclasses.replace(loaded.origin, **{field: value}))
    assert sentence.startswith(said)


def test_auto_takes_the_precision_that_the_first_worker_took(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(outputs, 4)
    monkeypatch.setattr(worker, "precision_of", lambda settings: "bf16")
    monkeypatch.setattr(worker, "multiplies_in_bf16", lambda: True)
    train_here(run)
    monkeypatch.setattr(worker, "multiplies_in_bf16", lambda: False)
    monkeypatch.setattr(worker, "precision_of", lambda settings: "fp32")
    prepare_resume(run, {"train.steps": "6"})
    train_here(run)
    assert [event["precision"] for event in events_of(run, "started")] == ["bf16", "bf16"]
    (slow,) = events_of(run, "warned")  # on the second processor
    assert "bf16" in slow["message"]
    assert "train.precision=fp32" in slow["message"]
    old = new_run(outputs, 4, "before-0.5")
    old.change_info(lambda now: dataclasses.replace(now, device="cpu", threads=1))
    monkeypatch.setattr(worker, "precision_of", lambda settings: "bf16")
    assert events_of(train_here(old), "started")[0]["precision"] == "fp32"
    settings = with_values(old.info().settings, {"train.steps": 6})
    branch = train_here(create_run(outputs, settings, name="branch", parent=(old, select(old.checkpoints))))
    assert events_of(branch, "started")[0]["changed"] == [
        "train.steps: 4 -> 6; the run is no longer what one uninterrupted run would be."
    ]
    old.change_info(lambda now: dataclasses.replace(now, device="cuda", precision="fp16"))
    assert old.info().precision_on_a_processor == ""  # open again: rounding is another there in any case


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run whose every fifth step is kept."""
    return train_here(new_run(tmp_path_factory.mktemp("parent"), STEPS, "parent", checkpoints__keep_last=99))


def test_a_branch_with_the_same_settings_ends_as_its_parent_did_also_without_it(
    parent: RunFolder, outputs: Path
) -> None:
    mortal = RunFolder(Path(shutil.copytree(parent.path, outputs / "pretraining" / "mortal")))
    begin = select(mortal.checkpoints, "10")
    branch = create_run(outputs, mortal.info().settings, name="branch", parent=(mortal, begin))
    origin = branch.info().parent
    assert origin is not None
    assert (origin["run"], origin["checkpoint"], origin["step"]) == ("mortal", "step-00000010", 10)
    assert select(branch.checkpoints).labels == ("branch",)
    opened, original = open_checkpoint(branch, select(branch.checkpoints)), open_checkpoint(mortal, begin)
    assert opened.tokenizer.to_json() == original.tokenizer.to_json()
    assert same_weights(parent, branch, "10")
    shutil.rmtree(mortal.path)
    train_here(branch)
    assert same_weights(parent, branch)
    assert _steps(branch) == list(range(11, STEPS + 1))
    assert all_events(branch)[0]["event"] == "started"
    assert all_events(branch)[0]["step"] == 10
    assert [event["loss"] for event in events_of(branch, "step")] == [
        event["loss"] for event in events_of(parent, "step")[10:]
    ]
    assert select(branch.checkpoints, "10").labels == ("branch",)


def test_a_killed_branch_resumes_without_a_step_twice(parent: RunFolder, outputs: Path) -> None:
    begin = select(parent.checkpoints, "10")
    branch = create_run(outputs, parent.info().settings, name="branch", parent=(parent, begin))
    for pause in (12, 18):  # before its own first checkpoint, and after it
        with _asking(branch, pause=pause), forked(branch) as worker:
            wait_until(lambda: branch.status().state == "paused")
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
    train_here(branch)
    assert same_weights(parent, branch)
    assert _steps(branch) == list(range(11, STEPS + 1))


def test_a_branch_that_never_saved_starts_again_from_its_parents_place(parent: RunFolder, outputs: Path) -> None:
    settings = with_values(parent.info().settings, {"checkpoints.interval": 0, "checkpoints.best": False})
    branch = create_run(outputs, settings, name="branch", parent=(parent, select(parent.checkpoints, "5")))
    with _asking(branch, pause=20), forked(branch):  # its events are longer by now than its parent's were at step 5
        wait_until(lambda: branch.status().state == "paused")
    train_here(branch)
    assert same_weights(parent, branch)
    assert _steps(branch) == list(range(6, STEPS + 1))
    assert [event["step"] for event in events_of(branch, "started")] == [5, 5]


def test_a_branch_may_change_how_it_learns(parent: RunFolder, outputs: Path) -> None:
    settings = with_values(parent.info().settings, {"train.learning_rate": 0.02, "train.steps": 15})
    branch = train_here(create_run(outputs, settings, name="branch", parent=(parent, select(parent.checkpoints, "10"))))
    assert not torch.equal(*(weights_of(run, "15")["token_embedding.weight"] for run in (parent, branch)))
    assert any(sentence.startswith("train.learning_rate") for sentence in all_events(branch)[0]["changed"])


# Settings that bring a state of their own, each alone.
LEVERS: dict[str, dict[str, Any]] = {"muon": {"train__optimizer": "muon"}, "average": {"train__ema_decay": 0.8}}


WARMUPS = {"data__batch_warmup_steps": 20, "data__length_warmup_steps": 17, "data__order": "sliding"}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [*LEVERS.values(), WARMUPS, {"train__precision": "bf16"}])
def test_with_each_setting_of_how_it_learns_a_killed_run_ends_as_one_left_alone(
    outputs: Path, alone: RunFolder, changes: dict[str, Any]
) -> None:
    changed = train_here(new_run(outputs, STEPS, "changed", **SETTINGS, **changes))
    run = kill_and_resume(new_run(outputs, STEPS, "killed", **SETTINGS, **changes), before_step=13)
    assert differences(changed, run) == []
    assert not same_weights(alone, run)


@pytest.mark.parametrize("lever", LEVERS)
def test_a_branch_may_take_up_such_a_setting_or_leave_it(parent: RunFolder, outputs: Path, lever: str) -> None:
    begin = select(parent.checkpoints, "10")
    taken = with_values(
        parent.info().settings, {name.replace("__", "."): value for name, value in LEVERS[lever].items()}
    )
    branch = train_here(create_run(outputs, taken, name="branch", parent=(parent, begin)))
    back = create_run(outputs, parent.info().settings, name="back", parent=(branch, select(branch.checkpoints, "20")))
    train_here(back)
    assert (branch.status().state, back.status().state) == ("finished", "finished")
    assert events_of(branch, "step")[0]["loss"] == events_of(parent, "step")[10]["loss"]
    assert events_of(back, "step")[0]["loss"] == events_of(branch, "step")[10]["loss"]


def test_the_next_worker_counts_as_an_attempt_and_answers_no_request_that_an_earlier_one_left(run: RunFolder) -> None:
    with _asking(run, stop=4):
        train_here(run)
    requests.send(run.requests, "stop")
    with mock.patch("subprocess.Popen", return_value=mock.Mock(pid=os.getpid())):
        start_worker(run)
    assert requests.take(run.requests) == []
    train_here(run)
    assert [event["attempt"] for event in events_of(run, "started")] == [1, 2]
    assert run.recorded_status().attempt == 2


def test_a_fork_that_fails_says_so() -> None:
    assert Fork(lambda: 1 // 0).wait() == 70
