"""`llmlab-run` with real workers and a tiny model: what a terminal and a script see."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from waits import SECONDS

import llmlab
from llmlab.cli.main import main
from llmlab.core.settings import PretrainSettings
from llmlab.jobs.launcher import prepare_resume
from llmlab.store import requests
from llmlab.store.checkpoints import list_checkpoints
from llmlab.store.events import Started
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import read_events

REPOSITORY = Path(llmlab.__file__).parents[1]
STEPS = 12
SHAPE = ["model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16", "data.batch_size=4"]
REST = ["data.tokenizer=char", "train.warmup_steps=0", "train.eval_sequences=8", "samples.tokens=8"]
HERE = ["train.threads=1", "train.device=cpu"]
TINY = ["--corpus", "tiny", "--seed", "1", "--json"]
TINY += [word for assignment in (*SHAPE, *REST, *HERE) for word in ("--set", assignment)]
# Enough steps for a test to interrupt, whatever else the machine does.
ENDLESS = [*TINY, "--steps", "1000000", "--set", "train.eval_interval=0", "--set", "train.sample_interval=0"]


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "llmlab", *words]


@contextlib.contextmanager
def _live(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs; killed with its worker when the test is over."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(_command(*words), cwd=REPOSITORY, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def _next(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
    """Reads on until the next event of that name."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == name:
            return event
    raise AssertionError(f"no {name}; stderr: {process.stderr.read() if process.stderr else ''}")


def _wait_until(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "waited too long"
        pause.wait(0.02)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, subprocess.CompletedProcess[str]]:
    """The finished run `bar` and the command that trained it."""
    outputs = tmp_path_factory.mktemp("trained")
    intervals = ["--steps", str(STEPS), "--set", "train.eval_interval=4", "--set", "train.sample_interval=6"]
    words = ["pretrain", *TINY, *intervals, "--name", "bar", "--outputs", str(outputs), "--debug"]
    finished = subprocess.run(
        _command(*words), capture_output=True, text=True, cwd=REPOSITORY, timeout=SECONDS, check=False
    )
    return RunFolder(outputs / "pretraining" / "bar"), finished


@pytest.fixture
def bar(trained: tuple[RunFolder, subprocess.CompletedProcess[str]], tmp_path: Path) -> RunFolder:
    """A copy of the finished run, in a folder that is under no outputs folder."""
    return RunFolder(Path(shutil.copytree(trained[0].path, tmp_path / "somewhere")))


def test_json_on_stdout_is_the_runs_events_and_nothing_else(
    trained: tuple[RunFolder, subprocess.CompletedProcess[str]],
) -> None:
    run, finished = trained
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == run.events.read_text()
    events = [json.loads(line) for line in finished.stdout.splitlines()]
    assert events[0]["event"] == "started"
    assert events[-1]["event"] == "finished"
    assert all(isinstance(event["time"], float) and isinstance(event["step"], int) for event in events)
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(1, STEPS + 1))
    evaluated = [event for event in events if event["event"] == "evaluated"]
    assert {"train_loss", "val_loss"} <= set(evaluated[-1])
    assert [event["step"] for event in evaluated][-3:] == [4, 8, 12]


def test_debug_says_where_the_time_goes_until_the_first_step(
    trained: tuple[RunFolder, subprocess.CompletedProcess[str]],
) -> None:
    run, finished = trained
    title, *rows = finished.stderr.splitlines()
    assert title == "From the command to the first step:"
    seconds = {what.strip(): float(number) for what, number in (row[:-2].rsplit(maxsplit=1) for row in rows)}
    first, last, *middle = "The command itself", "In all", "Starting the worker", "Making the model", "Step 1"
    assert (next(iter(seconds)), list(seconds)[-1]) == (first, last)
    assert {*middle, "Measuring the device", "Measuring the loss", "Writing samples"} < set(seconds)
    assert seconds.pop(last) == pytest.approx(sum(seconds.values()), abs=0.01 * len(seconds))
    started, step = (next(e for e in read_events(run) if e.name == name) for name in ("started", "step"))
    assert isinstance(started, Started)
    begun = started.time - sum(started.preparation.values())  # when the worker was started
    assert seconds.pop(first) > 0
    assert sum(seconds.values()) == pytest.approx(step.time - begun, abs=0.01 * len(seconds))
    assert run.info().created - 0.01 <= begun < started.time


def test_json_begins_with_started_even_where_nothing_is_trained(
    outputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short.txt").write_text("to be or not to be")
    words = ["pretrain", *TINY, "--corpus", str(tmp_path / "short.txt"), "--outputs", str(outputs)]
    assert main(words) == 1
    printed = capfd.readouterr().out
    assert printed.count("\n") == 2, printed
    started, failed = (json.loads(line) for line in printed.splitlines())
    assert (started["event"], started["step"], started["parameters"]) == ("started", 0, None)
    assert failed["event"] == "failed"
    assert "too short" in failed["what"]


def test_resume_takes_a_folder_from_anywhere_and_goes_on_where_the_run_ended(
    bar: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", str(bar.path), "--steps", "20", "--json"]) == 0
    output = capfd.readouterr()
    events = [json.loads(line) for line in output.out.splitlines()]
    assert (events[0]["event"], events[0]["step"], events[0]["attempt"]) == ("started", STEPS, 2)
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(STEPS + 1, 21))
    assert events[-1]["event"] == "finished"
    assert "train.steps: 12 -> 20" in output.err
    assert bar.events.read_text().endswith(output.out)
    assert main(["resume", str(bar.path), "--steps", "22", "--set", "train.seed=9"]) == 0
    told = "".join(capfd.readouterr())
    assert (told.count("train.steps: 20 -> 22"), told.count("train.seed: 1 -> 9")) == (1, 1)


def test_generate_at_temperature_0_writes_the_same_each_time(
    bar: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", f"{bar.path}@final", "--prompt", "The king", "--tokens", "24", "--temperature", "0"]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert first == f"The king{answer['text']}\n"
    assert len(answer["tokens"]) == 24
    assert answer["checkpoint"] == "step-00000012"
    assert all(0 < token["probability"] <= 1 for token in answer["tokens"])


def test_generate_says_what_of_a_long_prompt_the_model_does_not_see(
    bar: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", f"{bar.path}@final", "--tokens", "2", "--prompt"]
    assert main([*words, "a" * 40]) == 0
    settings = bar.info().settings
    assert isinstance(settings, PretrainSettings)
    missed = 40 - settings.model.block_size  # a token a character
    assert f"does not see the first {missed:,} tokens" in capsys.readouterr().err
    assert main([*words, "a" * settings.model.block_size]) == 0
    assert capsys.readouterr().err == ""


def test_generate_answers_in_a_chat_what_the_prompt_in_its_form_is_continued_with(
    bar: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", str(bar.path), "--tokens", "8", "--temperature", "0"]
    assert main([*words, "--prompt", "User: The king\nAssistant:"]) == 0
    spelled_out = capsys.readouterr().out
    assert main([*words, "--chat", "--prompt", "The king"]) == 0
    answer = capsys.readouterr().out.removesuffix("\n")
    assert answer
    assert spelled_out.removeprefix("User: The king\nAssistant:").startswith(answer)


def test_generate_names_the_characters_that_a_vocabulary_lacks(
    bar: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", str(bar.path), "--prompt", "Ωmega"]) == 1
    assert "'Ω'" in capsys.readouterr().err
    for flag, value, says in (("temperature", "-1", "0 to 10"), ("top-p", "1.5", "0 to 1"), ("min-p", "x", "0 to 1")):
        assert main(["generate", str(bar.path), f"--{flag}", value]) == 2
        assert says in capsys.readouterr().err


def test_generate_samples_as_it_is_told(bar: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(bar.path), "--prompt", "The king", "--tokens", "12"]
    texts = []
    for how in ("--temperature 0", "--top-p 0", "--min-p 1", "--top-p 1 --min-p 0 --repetition-penalty 1", ""):
        assert main([*words, *how.split()]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == texts[2] != texts[3] == texts[4]
    assert main([*words, "--temperature", "0", "--repetition-penalty", "5"]) == 0
    assert capsys.readouterr().out != texts[0]


def test_an_export_opens_in_transformers_and_writes_what_the_run_writes(
    bar: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hf"
    assert main(["export", str(bar.path), "--to", "hf", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    prompt = tokenizer("The ", return_tensors="pt")
    ids = model.generate(input_ids=prompt["input_ids"], max_new_tokens=8, do_sample=False, pad_token_id=0)
    main(["generate", str(bar.path), "--prompt", "The ", "--tokens", "8", "--temperature", "0"])
    assert capsys.readouterr().out == tokenizer.decode(ids[0]) + "\n"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []
    assert main(["export", str(bar.path), "--to", "hf", "--out", str(out)]) == 2
    assert "never overwrites" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.real_start
def test_control_c_stops_saves_and_gives_130_even_while_nobody_reads_the_output(outputs: Path) -> None:
    run = RunFolder(outputs / "pretraining" / "bar")
    with _live("pretrain", *ENDLESS, "--name", "bar", "--outputs", str(outputs)) as process:
        _next(process, "step")
        _wait_until(lambda: run.status().step > 400)  # some 100 kB of events: more than a pipe holds
        process.send_signal(signal.SIGINT)
        _wait_until(lambda: run.status().state == "stopped")
        last = _next(process, "stopped")
        assert process.wait(SECONDS) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert [checkpoint.name for checkpoint in list_checkpoints(run.checkpoints)] == [last["checkpoint"]]


def test_a_killed_branch_takes_its_worker_with_it_and_resumes_without_repeating_a_step(
    bar: RunFolder, outputs: Path
) -> None:
    branch = RunFolder(outputs / "pretraining" / "branch")
    words = ["--from", f"{bar.path}@final", "--name", "branch", "--steps", "1000000", "--set", "train.eval_interval=0"]
    with _live("pretrain", *words, "--json", "--outputs", str(outputs)) as process:
        started = _next(process, "started")
        assert started["step"] == STEPS
        worker = psutil.Process(started["pid"])
        _wait_until(lambda: branch.events.stat().st_size > 2 * bar.events.stat().st_size)
        process.kill()
        psutil.wait_procs([worker], timeout=SECONDS)
        assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert branch.status().state == "interrupted"
    assert main(["resume", "branch", "--steps", "20", "--json"]) == 0
    events = [json.loads(line) for line in branch.events.read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(STEPS + 1, 21))


def test_a_stop_while_a_resume_still_reads_its_corpus_loses_nothing(
    bar: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmlab.jobs.worker import train_run

    before = bar.events.read_text()
    prepare_resume(bar, {"train.steps": "20"})
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))  # so that there is something to read
    requests.send(bar.requests, "stop")
    train_run(bar)
    after = bar.events.read_text()
    assert after.startswith(before)
    assert [json.loads(line)["event"] for line in after[len(before) :].splitlines()] == ["started", "stopped"]
    assert bar.status().state == "stopped"
    train_run(bar)
    assert bar.status().state == "finished"
    assert bar.events.read_text().startswith(before)


def test_training_goes_on_when_the_reader_of_its_output_leaves(outputs: Path) -> None:
    words = ["pretrain", *TINY, "--steps", "40", "--set", "train.eval_interval=0", "--name", "bar"]
    with _live(*words, "--outputs", str(outputs)) as process:
        _next(process, "started")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(SECONDS) == 0
        assert process.stderr is not None
        errors = process.stderr.read()
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors
    assert RunFolder(outputs / "pretraining" / "bar").status().state == "finished"


@contextlib.contextmanager
def _in_a_terminal(on_hang_up: signal.Handlers, *words: str) -> Iterator[tuple[int, int]]:
    """A command in a terminal of its own: process id, and the terminal, to be closed. on_hang_up: as it inherits it.

    Killed when the block is left, and with it its worker.
    """
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, on_hang_up)
        os.chdir(REPOSITORY)
        os.execv(sys.executable, _command(*words))
    try:
        yield child, terminal
    finally:
        with contextlib.suppress(ChildProcessError):  # it ended, and was waited for
            if os.waitpid(child, os.WNOHANG) == (0, 0):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def _exit_code(child: int) -> int:
    """Of a process that ends; AssertionError when that takes too long."""
    ended: list[int] = []

    def gone() -> bool:
        process, status = os.waitpid(child, os.WNOHANG)
        ended.extend([os.waitstatus_to_exitcode(status)] if process else [])
        return bool(ended)

    _wait_until(gone)
    return ended[0]


def _until_it_trains(terminal: int) -> None:
    shown = b""
    while not re.search(rb"step \d+/", shown):
        shown += os.read(terminal, 1 << 16)


PLAIN_ENDLESS = ["pretrain", *(word for word in ENDLESS if word != "--json"), "--name", "bar"]


@pytest.mark.slow
def test_closing_the_terminal_stops_and_saves(outputs: Path) -> None:
    run = RunFolder(outputs / "pretraining" / "bar")
    with _in_a_terminal(signal.SIG_DFL, *PLAIN_ENDLESS, "--outputs", str(outputs)) as (child, terminal):
        _until_it_trains(terminal)
        os.close(terminal)
        assert _exit_code(child) == 130
    assert run.status().state == "stopped"
    assert len(list_checkpoints(run.checkpoints)) == 1


@pytest.mark.slow
def test_closing_the_terminal_leaves_a_run_under_nohup_alone(outputs: Path) -> None:
    run = RunFolder(outputs / "pretraining" / "bar")
    with _in_a_terminal(signal.SIG_IGN, *PLAIN_ENDLESS, "--outputs", str(outputs)) as (child, terminal):
        _until_it_trains(terminal)
        os.close(terminal)
        closed_at = run.status().step
        _wait_until(lambda: run.status().step > closed_at + 20)
        os.kill(child, signal.SIGTERM)
        assert _exit_code(child) == 130
    assert run.status().state == "stopped"


def test_requests_from_another_terminal_reach_a_run(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with _live("pretrain", *ENDLESS, "--name", "bar", "--outputs", str(outputs)) as process:
        _next(process, "step")
        assert main(["request", "bar", "pause"]) == 0
        assert "bar is paused" in capsys.readouterr().out
        assert main(["request", "bar", "save"]) == 0
        assert "bar saved step-" in capsys.readouterr().out
        assert main(["request", "bar", "resume"]) == 0
        assert "bar is running" in capsys.readouterr().out
        assert main(["request", "bar", "stop"]) == 0
        assert "bar is stopped" in capsys.readouterr().out
        _next(process, "stopped")
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize(
    ("asked", "warned"),
    [
        (["distributed.processes=2"], True),
        (["distributed.processes=2", "distributed.strategy=ddp"], False),
        (["distributed.processes=1"], False),
        ([], False),
    ],
)
def test_processes_without_a_strategy_are_told_of(
    outputs: Path, capsys: pytest.CaptureFixture[str], asked: list[str], warned: bool
) -> None:
    assert main(["pretrain", *TINY, "--no-start", *(word for one in asked for word in ("--set", one))]) == 0
    said = capsys.readouterr().err
    assert ("one process trains it: distributed.strategy is none" in said) == warned
    assert ("torchrun --standalone --nproc-per-node 2 -m llmlab.jobs.worker" in said) == (
        "distributed.strategy=ddp" in asked
    )


def test_no_start_makes_a_folder_that_resume_trains(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", *TINY, "--steps", str(STEPS), "--name", "later", "--no-start"]) == 0
    said = capsys.readouterr()
    run = RunFolder(outputs / "pretraining" / "later")
    assert (said.out, said.err) == ("", f"Made {run.path}. Train it with: llmlab-run resume later\n")
    assert (run.recorded_status().pid, run.log.exists(), list_checkpoints(run.checkpoints)) == (None, False, [])
    assert main(["resume", "later"]) == 0
    assert run.status().state == "finished"
