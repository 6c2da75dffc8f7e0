"""What a person sees of a run, with and without a terminal; and what doctor finds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fakes import FakeRun

from llmlab.cli import self_test, text
from llmlab.cli.doctor import Finding
from llmlab.cli.main import main
from llmlab.cli.progress import JsonReport, LiveReport, PlainReport
from llmlab.core import progress
from llmlab.core.device import Device
from llmlab.core.errors import LabError
from llmlab.store.events import Resumed, Sampled, Started, StepEvent, Stopped
from llmlab.store.run_folder import RunFolder


@pytest.fixture
def fake(outputs: Path) -> FakeRun:
    """A finished run with evaluations, samples, a pause and a warning."""
    fake = FakeRun(outputs, "bar", steps=500).start().advance(250).pause().unpause(61.0)
    return fake.warn("The disk is nearly full.").advance(250).finish()


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """rich draws as on a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "140")


def _printed(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, without control codes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)


@pytest.mark.parametrize("kind", [PlainReport, LiveReport])
def test_what_matters_of_a_run_is_printed(
    kind: type[PlainReport], fake: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    report = kind(fake.run)
    report.preparing("Reading the corpus (40%)")
    for event in fake.written:
        report.event(event)
    report.close()
    report.summary(fake.written[-1])
    printed = _printed(capsys)
    train, val = fake.losses_of(250)
    assert "Reading the corpus" in printed
    assert f"step 250   train {train:.3f}   validation {val:.3f}   best so far" in printed
    assert "Paused at step 250. Resume: llmlab-run request bar resume" in printed
    assert "Resumed after 1:01." in printed
    assert "warning: The disk is nearly full." in printed
    assert "  | what say you, my lord?" in printed
    assert "Finished at step 500" in printed


def test_without_a_terminal_steps_are_few_lines(
    fake: FakeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    report = PlainReport(fake.run)
    for event in fake.written:
        if isinstance(event, StepEvent):
            report.event(event)
            now[0] += 1 / 16
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["1/0", "161/0", "321/0", "481/0"]


def test_a_worker_that_ends_before_it_trains_is_no_line_of_numbers(
    fake: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    started = fake.written[0]
    assert isinstance(started, Started)
    report = PlainReport(fake.run)
    report.event(replace(started, step=0, parameters=None, train_tokens=None, vocab_size=None, uniform_loss=None))
    report.summary(Stopped(0, 1.0, 0.0, None))
    printed = capsys.readouterr().out
    assert "Stopped before step 1." in printed
    assert "None" not in printed
    assert "compare" not in printed


def test_control_characters_of_a_sample_do_not_reach_the_terminal(
    fake: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    report = PlainReport(fake.run)
    report.event(Sampled(1, 1.0, [{"prompt": "a", "text": "b\x1b[2J\x07c\r\nd"}]))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "\r" not in printed


def test_brackets_in_what_is_shown_are_no_markup(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    report = LiveReport(fake.run)
    report.preparing("Reading /home/me/[bold]texts[/nothing]")
    report.event(fake.written[0])
    report.close()
    assert "[bold]texts[/nothing]" in _printed(capsys)


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (813_056, "813 kB"), (124e6, "124 MB"), (2e9, "2.00 GB")],
)
def test_sizes_have_three_digits(number: float, shown: str) -> None:
    assert text.size(number) == shown


def test_durations_read_like_a_clock() -> None:
    assert [text.duration(seconds) for seconds in (0, 65, 3700, None, float("nan"))] == [
        "0:00",
        "1:05",
        "1:01:40",
        "?",
        "?",
    ]


def test_a_table_wraps_its_last_column_under_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "width", lambda: 34)
    lines = list(text.table(("n", "meaning"), [("1", "a rather long explanation of one"), ("20", "short")], right=(0,)))
    assert lines == [" n  meaning", " 1  a rather long explanation of", "    one", "20  short"]


def test_json_lines_of_events_that_came_together_reach_the_reader_together(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = JsonReport(RunFolder(tmp_path))
    with open(os.dup(1), "w", encoding="utf-8") as piped, contextlib.redirect_stdout(piped):
        for step in range(3):
            report.event(Resumed(step, 1.0, 2.0))
        assert capfd.readouterr().out == ""
        report.flush()
        assert len(capfd.readouterr().out.splitlines()) == 3


# doctor ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_doctor_finds_a_working_machine_with_the_threads_of_a_run(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmlab.core.device.available_cores", lambda: 3)
    before = torch.get_num_threads()
    assert main(["doctor", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    findings = {finding["name"]: finding for finding in answer["findings"]}
    assert answer["ok"] is True
    assert findings["cpu"]["state"] == "ok"
    assert findings["speed"]["values"]["flops"] > 1e8
    assert " in bf16 (train.precision), 3 threads; remembered" in findings["speed"]["said"]
    assert torch.get_num_threads() == before
    assert findings["loss"]["values"]["difference"] < 1e-4
    assert findings["threads"]["state"] == "ok"
    for strategy in ("ddp", "fsdp2"):
        assert findings[strategy]["state"] == "ok"
        assert 0 < findings[strategy]["values"]["difference"] < 1e-4  # others add in another order
    assert str(outputs) in findings["outputs"]["said"]


def test_doctor_gives_1_where_runs_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(self_test, "checks", list)
    file = tmp_path / "file"
    file.touch()
    assert main(["doctor", "--outputs", str(file / "below")]) == 1
    printed = capsys.readouterr().out
    assert any(line.startswith("broken") and "cannot be written" in line for line in printed.splitlines())


def test_doctor_says_what_to_do_where_bf16_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "choose_device", lambda train: Device("cpu", "fp32"))
    found = []
    for units in (False, True):
        monkeypatch.setattr(self_test, "multiplies_in_bf16", lambda units=units: units)
        found.append(
            "train.precision=fp32" in next(check() for name, check in self_test.checks() if name == "devices").said
        )
    assert found == [True, False]


def test_a_device_that_computes_something_else_is_found_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    right = self_test.training_losses(Device("cpu", "fp32"))
    wrong = [loss + 0.01 for loss in right]
    monkeypatch.setattr(self_test, "training_losses", lambda device: right if device.kind == "cpu" else wrong)
    assert self_test.trains(Device("mps", "fp32")).state == "broken"
    assert self_test.trains(Device("cpu", "fp32")).state == "ok"
    monkeypatch.setattr(self_test, "training_losses", lambda device: [4.0] * 20)
    assert self_test.trains(Device("cpu", "fp32")).state == "broken"
    monkeypatch.setattr(self_test, "training_losses", lambda device: [float("nan")] * 20)
    assert self_test.trains(Device("cpu", "fp32")).state == "broken"


def test_one_of_several_processes_that_fails_says_why_and_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one would be there for a minute."""
    fails = "import os, sys, time; time.sleep(60 * (os.environ['RANK'] == '0')); sys.exit('No room for this one.')"
    monkeypatch.setattr(self_test, "module_command", lambda name: [sys.executable, "-c", fails])
    monkeypatch.setattr(self_test, "_SECONDS", 20.0)
    with pytest.raises(LabError, match=r"cannot train together here\. No room for this one."):
        self_test._losses_of_several(Device("cpu", "fp32"))


def test_a_strategy_that_computes_something_else_is_found_broken() -> None:
    cpu = Device("cpu", "fp32")
    right = self_test.training_losses(cpu)
    assert self_test._agrees("ddp", cpu, right).state == "ok"
    for wrong in ([*right[:1], *(loss + 0.001 for loss in right[1:])], [float("nan")] * 20):
        assert self_test._agrees("ddp", cpu, wrong).state == "broken"


def test_a_check_that_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def explode() -> Finding:
        raise RuntimeError("the driver is too old\nand more")

    monkeypatch.setattr(self_test, "checks", lambda: [("cuda", explode)])
    assert main(["doctor"]) == 1
    assert "cuda" in capsys.readouterr().out
