"""What the command does with its worker: every way in which a worker can end, and every way to interrupt it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn
from unittest import mock

import pytest
from fakes import FakeRun

import llmlab
from llmlab.__main__ import main as entry
from llmlab.cli import follow, train
from llmlab.cli.main import main
from llmlab.cli.progress import JsonReport
from llmlab.store import requests
from llmlab.store.events import Stopped
from llmlab.store.registry import list_runs
from llmlab.store.run_folder import RunFolder

REPOSITORY = Path(llmlab.__file__).parents[1]
PRETRAIN = ["pretrain", "--corpus", "tiny", "--name", "bar"]

Behave = Callable[[str], list[subprocess.Popen[bytes]]]


@pytest.fixture
def behave(monkeypatch: pytest.MonkeyPatch, outputs: Path) -> Behave:
    """Makes the next worker a fake one that behaves so; returns the list in which it will stand."""

    def use(behaviour: str) -> list[subprocess.Popen[bytes]]:
        started: list[subprocess.Popen[bytes]] = []

        def start(run: RunFolder, *, follow_parent: bool) -> subprocess.Popen[bytes]:
            assert follow_parent
            command = [sys.executable, str(Path(__file__).with_name("fake_worker.py")), str(run.path), behaviour]
            environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
            with run.log.open("ab") as log:
                started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
            return started[0]

        monkeypatch.setattr(follow, "start_worker", start)
        return started

    return use


def test_a_finished_run_ends_with_losses_and_what_to_do_next(
    behave: Behave, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    behave("finishes")
    assert main(PRETRAIN) == 0
    output = capsys.readouterr().out
    assert "0.81M parameters" in output
    assert "knowing nothing costs 4.174" in output
    assert "train loss   1.000 in step 3" in output  # the last evaluation was at another step
    assert "best         1.250 on validation, at step 2" in output
    assert "uniform 4.174, unigram 3.300" in output
    assert str(outputs / "pretraining" / "bar") in output
    assert "llmlab-run resume bar --steps 6" in output
    assert 'llmlab-run generate bar --prompt "The king"' in output
    assert "llmlab-gui" in output
    assert "\x1b" not in output  # no control codes where nobody can see them


@pytest.mark.parametrize("as_json", [False, True])
def test_a_finished_run_says_what_became_of_its_prediction(
    behave: Behave, outputs: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    behave("finishes")
    stated = ["--predict", "val_loss=1..1.4@80%", "--predict", "text=It learns@60%"]
    assert main([*PRETRAIN, *stated, *(["--json"] if as_json else [])]) == 0
    output = capsys.readouterr()
    told = output.err if as_json else output.out
    assert "You predicted final validation loss: 1 to 1.4, 80 % sure. The outcome was 1.5: outside." in told
    assert "Only you can say what came of it." in told
    assert "notebook learned run-bar" in told
    if as_json:  # stdout is the events alone
        assert all(json.loads(line)["event"] for line in output.out.splitlines())
    entry = json.loads((outputs / "notebook" / "run-bar.json").read_text(encoding="utf-8"))
    assert entry["scores"][0]["right"] is False


def test_a_failed_run_says_what_why_and_what_to_do(behave: Behave, capsys: pytest.CaptureFixture[str]) -> None:
    behave("fails")
    assert main([*PRETRAIN, "--json"]) == 1
    output = capsys.readouterr()
    assert output.err == "error: The loss is not a number. It was 7. Lower it.\n"
    assert json.loads(output.out.splitlines()[-1])["event"] == "failed"


def test_a_worker_that_dies_is_reported_with_its_last_words_and_its_log(
    behave: Behave, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    behave("dies")
    assert main(PRETRAIN) == 1
    error = capsys.readouterr().err
    assert "exit code 7" in error
    assert "Its last words: Segmentation fault in a library" in error
    assert str(outputs / "pretraining" / "bar" / "worker.log") in error
    assert "llmlab-run resume bar" in error
    assert "Traceback" not in error


def test_a_worker_that_the_system_kills_is_reported_with_the_likely_reason(
    behave: Behave, capsys: pytest.CaptureFixture[str]
) -> None:
    behave("is_killed")
    assert main(PRETRAIN) == 1
    assert "memory runs out" in capsys.readouterr().err


def test_a_worker_that_finds_the_run_taken_is_reported(behave: Behave, capsys: pytest.CaptureFixture[str]) -> None:
    behave("refused")
    assert main(PRETRAIN) == 1
    assert "Another worker holds this run." in capsys.readouterr().err


def test_control_c_once_stops_and_gives_130(behave: Behave, capsys: pytest.CaptureFixture[str]) -> None:
    behave("stops")
    assert main(PRETRAIN) == 130
    output = capsys.readouterr().out
    assert "Stopped at step 3; what was learned is saved." in output
    assert "llmlab-run resume bar" in output


def test_sigterm_is_passed_on_as_it_is_and_what_is_not_saved_is_said(
    behave: Behave, capsys: pytest.CaptureFixture[str]
) -> None:
    behave("is_terminated")
    assert main(PRETRAIN) == 130
    output = capsys.readouterr().out
    assert "Stopped at step 3, in the middle of the next; saved is step-00000002." in output


def test_a_worker_that_falls_silent_is_told_once_and_so_is_that_it_is_heard_again(
    behave: Behave, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_LOOK_SECONDS", 0.0)
    behave("is_silent")
    run = FakeRun(outputs, "bar").run
    told: list[str] = []

    class Listener(JsonReport):
        def note(self, sentence: str) -> None:
            told.append(sentence)
            requests.send(run.requests, "stop")  # which lets the fake worker go on

    assert follow.train(run, Listener(run)) == 0
    assert len(told) == 2
    assert re.match(r"Process \d+ is running, silent since 1970-.*Its process is stopped, or it hangs", told[0])
    assert told[1] == "It is heard again."


def test_control_c_twice_kills_a_deaf_worker_at_once(
    behave: Behave, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = behave("is_deaf")
    assert main(PRETRAIN) == 130
    assert workers[0].returncode == -signal.SIGKILL
    assert RunFolder(outputs / "pretraining" / "bar").status().state == "interrupted"
    assert "llmlab-run resume bar" in capsys.readouterr().out


def test_control_c_ends_a_worker_that_has_not_begun_and_does_not_answer(
    behave: Behave, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_PATIENCE_SECONDS", 0.1)
    workers = behave("never_begins")
    assert main(PRETRAIN) == 130
    assert workers[0].returncode is not None
    assert RunFolder(outputs / "pretraining" / "bar").status().state == "stopped"


def test_the_signals_of_the_program_are_as_before_afterwards(behave: Behave) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    behave("stops")
    main(PRETRAIN)
    assert [signal.getsignal(number) for number in numbers] == before


def test_the_last_words_of_a_worker_that_ends_between_two_looks_are_read(outputs: Path) -> None:
    run, report = FakeRun(outputs).run, mock.Mock()
    last = Stopped(3, 0.0, 1.0, None)
    follower = mock.Mock(**{"poll.side_effect": [[], [last]]})
    worker = mock.Mock(returncode=0, poll=lambda: 0 if follower.poll.called else None)  # it ends after the first look
    assert follow._Following(run, worker, follower, report, follow.Interrupts(), None).to_the_end() is last


def test_a_hang_up_is_left_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with follow.Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.count == 0
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupts.count == 1
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_before_there_is_a_worker_is_passed_on_as_soon_as_there_is_one() -> None:
    asked: list[int] = []
    with follow.Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        interrupts.answer_first_with(asked.append)
    assert asked == [signal.SIGTERM]


def test_a_run_that_was_interrupted_before_it_had_a_worker_is_stopped(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make = train.create_run

    def interrupted(*arguments: Any, **named: Any) -> RunFolder:
        run = make(*arguments, **named)
        os.kill(os.getpid(), signal.SIGINT)
        return run

    monkeypatch.setattr(train, "create_run", interrupted)
    assert main(PRETRAIN) == 130
    assert capsys.readouterr().err == "Interrupted.\n"
    (run,) = list_runs(outputs)
    assert (run.recorded_status().state, run.log.exists()) == ("stopped", False)


def test_control_c_is_heard_while_the_command_line_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> NoReturn:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "llmlab.cli.main", Interrupted("llmlab.cli.main"))
    assert entry() == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_json_has_the_events_exactly_as_the_file_has_them(
    behave: Behave, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    behave("finishes")
    assert main([*PRETRAIN, "--json"]) == 0
    output = capsys.readouterr()
    assert output.out == list_runs(outputs)[0].events.read_text()
    assert output.err == ""
