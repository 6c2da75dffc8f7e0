"""The process that trains a run: `python -m llmlab.jobs.worker <run folder>`.

It takes the run's lock, reads what was asked, finds its place in the newest good checkpoint, trains, and turns
every error into a sentence. Exit codes: llmlab.jobs.worker_process.

A run of several processes has one such process for each (llmlab.jobs.ranks starts them): what is said here is what
rank 0 does, and the others follow it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch

from llmlab.core.device import Device, choose_device, choose_threads, is_out_of_memory, peak_flops
from llmlab.core.errors import Cancelled, LabError
from llmlab.core.files import clear_litter, write_json
from llmlab.core.memory import available_bytes
from llmlab.core.processes import follow_parent, multiplies_in_bf16
from llmlab.core.run_settings import RunSettings
from llmlab.data.tokenizers import Tokenizer
from llmlab.gpt.estimate import precision_of
from llmlab.jobs.earlier_attempts import changes_since, failures_before, load_newest, set_aside
from llmlab.jobs.ranks import follow_rank_0, run_ranks, say_now_and_then, say_where, started_by_torchrun, tell_torchrun
from llmlab.jobs.worker_process import listen_to_signals, log, work_as
from llmlab.store import checkpoints
from llmlab.store.events import Failed, Started, Stopped, Warned
from llmlab.store.recorder import Recorder
from llmlab.store.run_folder import RunFolder, RunInfo
from llmlab.training.control import Control, disk_advice
from llmlab.training.kinds import kind_of
from llmlab.training.parallel import join
from llmlab.training.processes import LOST, Connected, Place, Processes, is_lost_contact
from llmlab.training.room import ran_out
from llmlab.training.state import load_state, restore
from llmlab.training.workplace import Workplace

# Whoever sends SIGTERM kills soon after (Docker after 10 seconds, Slurm after 30). A step that takes longer is not
# waited for.
SIGTERM_SECONDS = 8.0
# What a process that follows rank 0 waits longer, for the step at whose end rank 0 saves.
_FOLLOWING_SECONDS = 4.0


def main(argv: list[str] | None = None) -> int:
    return work_as("llmlab.jobs.worker", "run", _work, argv)


def _work(path: Path) -> None:
    run, place = RunFolder(path), Place.from_environment()
    count = run.info().settings.distributed.count
    if started_by_torchrun():  # which cannot end this process any more, once it is gone itself
        follow_parent(os.getppid())
    if place is not None and place.rank > 0:
        _follow(run)
    elif place is None and not started_by_torchrun() and count > 1:  # torchrun may start one process alone
        _lead(run, count)
    else:
        if started_by_torchrun():  # by hand it has a terminal, or a cluster's log; by the lab, worker.log
            say_now_and_then(run)
        train_run(run, handle_signals=True)
        if started_by_torchrun():
            say_where(run)


def _lead(run: RunFolder, count: int) -> None:
    """Has `count` processes train a run, and records their end where they could not. LabError when they failed.

    When one is lost, torchrun ends the others with a SIGTERM, and rank 0 takes it for somebody's wish to stop.
    """
    began = run.recorded_status().attempt
    died = run_ranks(run, count)
    if died is None:
        return
    with run.held():
        status = run.recorded_status()
        if status.live or status.state == "stopped":
            recorder = Recorder(run)
            if status.attempt > began:
                recorder.take_over()
            _record_failure(run, run.info(), recorder, died)
            recorder.close()
    if status.state != "finished":
        raise died


def train_run(run: RunFolder, *, handle_signals: bool = False) -> None:
    """Trains `run` in this process until it is finished, stopped or failed; all of it is in its folder.

    handle_signals: SIGTERM or Ctrl-C asks for a stop that saves, and ends this process when a step does not end in
    time (only possible in a process's main thread).
    Raises filelock.Timeout when another worker holds the run, and LabError with what was recorded as `failed`.
    """
    info = run.info()
    try:
        with run.held():
            checkpoints.clean_staging(run.checkpoints)
            for folder in (run.path, run.requests, run.inspections):
                clear_litter(folder)
            recorder = Recorder(run)
            control = Control(run, recorder, watched=info.watched)
            if handle_signals:
                _listen_to_signals(run, recorder, control)
            _train_or_fail(run, info, recorder, control)
    except filelock.Timeout:
        raise
    except OSError as error:  # a folder that may not be written: nothing can be recorded there
        raise explain(error, info.settings, run.outputs) from error


def _follow(run: RunFolder) -> None:
    """What a process of rank 1 and higher does. Raises LabError with what it told the others."""
    from llmlab.training.loop import Loop  # with all that a model needs

    info = run.info()
    settings = info.settings
    # A signal comes to all processes at once, and this one is needed for the step at whose end rank 0 stops.
    listen_to_signals(lambda: None, lambda: False, lambda: None, SIGTERM_SECONDS + _FOLLOWING_SECONDS)
    processes: Processes | None = None
    try:
        device = _device(info)
        processes = join(settings.distributed.strategy, device, settings.distributed.timeout)
        assert isinstance(processes, Connected)
        torch.set_num_threads(choose_threads(settings.train, 0, False, processes.size))
        follow_rank_0(run, settings.distributed.timeout, partial(processes.say_failed, LOST))
        what, step = processes.hear()
        if what == "end":
            return
        nobody: Any = None  # only rank 0 writes, and only rank 0 is asked
        place = Workplace(run, device, nobody, nobody, torch.get_num_threads(), _versions(), 1.0, processes)
        trainer = kind_of(settings).make(place, settings)
        assert isinstance(trainer, Loop), "one process trains a run of this kind"
        if step < 0:
            trainer.distribute()
        else:
            checkpoint = checkpoints.select(run.checkpoints, str(step))
            trainer.load_weights(checkpoint)
            loaded = load_state(checkpoint.path)  # before: from then on, rank 0 waits no longer than a step's timeout
            trainer.distribute()
            restore(loaded, trainer.model, trainer.optimizer, trainer.scaler)
        trainer.follow(processes)
    except Exception as error:
        failure = LOST if is_lost_contact(error) else explain(error, settings, run.outputs)
        if failure is not LOST:  # which is said by the one that is to blame
            log(traceback.format_exc())
            tell_torchrun(failure)
        if isinstance(processes, Connected):
            processes.say_failed(failure)
        raise failure from error


def _listen_to_signals(run: RunFolder, recorder: Recorder, control: Control) -> None:
    def ask() -> None:
        control.stop_signal.set()
        recorder.stopping()

    listen_to_signals(
        ask,
        lambda: control.stop_heard.is_set() or control.saving,
        lambda: _give_up(run, recorder, control),
        SIGTERM_SECONDS,
    )


def _give_up(run: RunFolder, recorder: Recorder, control: Control) -> None:
    """The last words of a worker that ends in the middle of a step: as somebody asked, or torchrun, when the other
    processes have given it up."""
    if not recorder.seize():
        return
    if (failure := control.given_up()) is not None:
        _record_failure(run, run.info(), recorder, failure)
        recorder.close()
        return
    step, seconds = recorder.status.step, recorder.reached()[1]
    saved = checkpoints.list_checkpoints(run.checkpoints)
    newest = saved[-1] if saved else None
    with contextlib.suppress(OSError):
        if recorder.begun:
            if newest is None or newest.step < step:
                lost = "what it learned" if newest is None else f"what it learned after step {newest.step}"
                recorder.record(
                    Warned(step, time.time(), f"It was ended by a signal in the middle of a step: {lost} is not saved.")
                )
            recorder.record(Stopped(step, time.time(), seconds, newest.name if newest else None))
        recorder.update(state="stopped", doing="")
    recorder.close()


def _train_or_fail(run: RunFolder, info: RunInfo, recorder: Recorder, control: Control) -> None:
    try:
        _train(run, info, recorder, control)
    except Exception as error:
        if not run.path.is_dir():  # nothing can be recorded, and nothing is to be made again
            raise run.gone() from error
        failure = explain(error, info.settings, run.outputs)
        _record_failure(run, info, recorder, failure)
        log(traceback.format_exc())
        raise failure from error
    finally:
        recorder.close()


def _device(info: RunInfo) -> Device:
    return choose_device(info.settings.train, info.precision_on_a_processor or precision_of(info.settings))


def _train(run: RunFolder, info: RunInfo, recorder: Recorder, control: Control) -> None:
    settings = info.settings
    device = _device(info)
    if Place.from_environment() is not None:
        recorder.update(doing="Waiting for the other processes")
    processes = join(settings.distributed.strategy, device, settings.distributed.timeout)
    control.given_up = processes.given_up
    threads = choose_threads(settings.train, info.threads, info.watched, processes.size)
    torch.set_num_threads(threads)
    versions = _versions()
    kept = threads if processes.size == 1 else info.threads
    # Read anew: what was predicted since this worker began stays in it.
    run.change_info(
        lambda now: dataclasses.replace(
            now, threads=kept, device=device.kind, precision=device.precision, versions=versions
        )
    )
    recorder.update(steps=settings.train.steps, doing="Measuring the device")
    peak = processes.size * peak_flops(device)
    place = Workplace(run, device, recorder, control, threads, versions, peak, processes, info.compiled)
    try:
        _train_at(place, info)
    except Exception as error:
        if isinstance(processes, Connected) and is_lost_contact(error):
            raise processes.why_lost(error) from error
        raise


def _train_at(place: Workplace, info: RunInfo) -> None:
    run, recorder, settings, processes = place.run, place.recorder, info.settings, place.processes
    try:
        trainer = kind_of(settings).make(place, settings)
    except Cancelled:
        place.control.stop_heard.set()
        begun = _started_early(run, info, recorder, place.device.kind, place.device.precision)
        _let_go(processes, 0)
        recorder.begin_early(begun)
        recorder.record(Stopped(begun.step, time.time(), begun.active_seconds, None))
        recorder.update(state="stopped", doing="")
        return
    if processes.size == 1 and trainer.origin.compiled != info.compiled:
        run.change_info(lambda now: dataclasses.replace(now, compiled=trainer.origin.compiled))
    loaded, skipped = load_newest(run, trainer)
    if isinstance(trainer.tokenizer, Tokenizer):  # the lab's own; a base of another kind keeps its own
        write_json(run.tokenizer_json, trainer.tokenizer.to_json())
    changed = changes_since(type(settings), loaded, trainer.origin) if loaded is not None else []
    failed = failures_before(run)
    processes.order("join", -1 if loaded is None else loaded.progress.step)
    trainer.distribute()
    if loaded is not None:
        trainer.progress = loaded.progress
        restore(loaded, trainer.model, trainer.optimizer, trainer.scaler)
        damaged = recorder.begin(loaded.progress.step, loaded.events_bytes)
        if damaged:
            skipped.append(set_aside(run, damaged))
    else:
        recorder.begin(-1, 0)  # from the start again: nothing of an attempt without checkpoints counts
    recorder.update(state="running", doing="")
    recorder.record(trainer.started(changed))
    for sentence in [*failed, *skipped, *_slow(run, place.device), *trainer.warnings]:
        recorder.record(Warned(trainer.progress.step, time.time(), sentence))
    trainer.choose_prompts()
    trainer.train()
    _let_go(processes, trainer.progress.step)


def _slow(run: RunFolder, device: Device) -> list[str]:
    """That it computes in bf16 where that is slow: a run that began on another processor keeps its precision."""
    if device != Device("cpu", "bf16") or multiplies_in_bf16():
        return []
    return [
        "The run computes in bf16, and this processor has no units for it (AMX) that the lab can find: steps may take "
        f"longer than in fp32. `llmlab-run doctor` compares both; `llmlab-run resume {run.id} --set "
        "train.precision=fp32` changes it, and with it the rounding from there on."
    ]


def _let_go(processes: Processes, step: int) -> None:
    """Tells the others that this is all. Who is gone before needs no telling: the run has ended without it."""
    try:
        processes.order("end", step)
    except RuntimeError as error:
        if not is_lost_contact(error):
            raise


def _started_early(run: RunFolder, info: RunInfo, recorder: Recorder, device: str = "", precision: str = "") -> Started:
    """For a worker that ends before it trains. device and precision: as far as they were chosen."""
    settings = info.settings
    step, active_seconds = recorder.reached()
    return Started(
        step=step,
        time=time.time(),
        run=run.id,
        attempt=recorder.status.attempt + 1,
        steps=settings.train.steps,
        parameters=None,
        vocab_size=None,
        train_tokens=None,
        val_tokens=None,
        tokens_per_step=settings.tokens_per_step,
        uniform_loss=None,
        unigram_loss=None,
        floor_loss=None,
        device=device,
        precision=precision,
        threads=torch.get_num_threads(),
        peak_flops=None,
        tokenizer=settings.tokenizer,
        comparable=settings.tokenizer == "gpt2",
        active_seconds=active_seconds,
        pid=os.getpid(),
    )


def explain(error: Exception, settings: RunSettings, outputs: Path) -> LabError:
    """Any error of training as what happened, why, and what to do; the traceback is in worker.log."""
    if isinstance(error, LabError):
        return error
    if is_out_of_memory(error):
        return ran_out(settings, outputs, available_bytes())
    if isinstance(error, OSError):
        return LabError("The run's folder could not be written.", disk_advice(error))
    return LabError(
        f"Training ended by an error that the lab did not expect: {type(error).__name__}.",
        str(error).strip().split("\n")[0],
        "The full error is in worker.log.",
    )


def _record_failure(run: RunFolder, info: RunInfo, recorder: Recorder, failure: LabError) -> None:
    """As far as the disk allows."""
    if not recorder.begun:
        with contextlib.suppress(OSError):  # what is said below matters more
            recorder.begin_early(_started_early(run, info, recorder))
    try:
        failed = Failed(recorder.status.step, time.time(), **failure.as_dict())
        recorder.announce(failed, state="failed", error=failure.as_dict(), doing="")
    except OSError as error:
        log(f"This could not be recorded: {failure} ({error})")


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


if __name__ == "__main__":
    raise SystemExit(main())
