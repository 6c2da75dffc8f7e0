"""`runs`, `show`, `request` and `checkpoints` on runs that a fake wrote."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeRun
from safetensors.numpy import save_file

from llmlab.cli import runs
from llmlab.cli.main import main
from llmlab.store import requests
from llmlab.store.checkpoints import list_checkpoints


def _json(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> object:
    assert main([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


# runs and show --------------------------------------------------------------------------------------------------


def test_runs_lists_every_run_with_its_state_and_losses(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FakeRun(outputs, "first", steps=500).start().advance(500).finish()
    FakeRun(outputs, "second", steps=500).start().advance(250).pause()
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["second", "paused"], ["first", "finished"]]
    assert "500/500" in lines[2]
    rows = _json(capsys, "runs")
    assert isinstance(rows, list)
    assert [(row["id"], row["state"], row["step"], row["corpus"]) for row in rows] == [
        ("second", "paused", 250, "shakespeare"),
        ("first", "finished", 500, "shakespeare"),
    ]


def test_an_empty_outputs_folder_says_how_to_begin(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    assert "llmlab-run pretrain" in capsys.readouterr().out
    assert _json(capsys, "runs") == []


def test_a_damaged_run_is_listed_and_hides_no_other(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FakeRun(outputs, "good").start()
    FakeRun(outputs, "bad").run.run_json.write_text("{")
    assert main(["runs"]) == 0
    assert {tuple(line.split()[:2]) for line in capsys.readouterr().out.splitlines()[1:]} == {
        ("good", "running"),
        ("bad", "damaged"),
    }
    assert main(["show", "bad"]) == 1
    assert "run.json" in capsys.readouterr().err


def test_show_has_settings_references_evaluations_and_checkpoints(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRun(outputs, "bar", steps=1000, floor_loss=0.9).start().advance(1000)
    fake.save_checkpoint(("final",)).finish()
    assert main(["show", "bar"]) == 0
    printed = capsys.readouterr().out
    assert "finished at step 1000 of 1000" in printed
    assert "uniform 4.174, unigram 3.340, floor 0.900" in printed
    assert "train.steps=1000" in printed  # not the preset's 2000
    assert "1000 (final)" in printed
    assert "llmlab-run resume bar --steps 2000" in printed
    assert [line.split()[0] for line in printed.splitlines() if line.endswith("best")] == ["250", "500", "750"]
    about = _json(capsys, "show", str(fake.run.path))
    assert isinstance(about, dict)
    assert [row["step"] for row in about["evaluations"]] == [250, 500, 750, 1000]
    assert about["settings"]["train"]["steps"] == 1000
    assert [row["step"] for row in about["checkpoints"]] == [1000]


def test_show_tells_the_error_of_a_failed_run(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FakeRun(outputs, "bar").start().advance(5).fail("The loss is not a number.", "It was 7.", "Lower it.")
    assert main(["show", "bar"]) == 0
    assert "The loss is not a number. It was 7. Lower it." in capsys.readouterr().out


# request --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "word", "answer"), [("running", "pause", "paused"), ("paused", "resume", "running")]
)
def test_a_request_waits_for_its_answer(
    before: str, word: str, answer: str, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRun(outputs, "bar").start().advance(7)
    if before == "paused":
        fake.pause()
    with _Answering(fake):
        assert main(["request", "bar", word]) == 0
    assert capsys.readouterr().out == f"bar is {answer} at step 7.\n"


def test_a_requested_save_names_its_checkpoint(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with _Answering(FakeRun(outputs, "bar").start().advance(7)):
        assert main(["request", "bar", "save"]) == 0
    assert capsys.readouterr().out == "bar saved step-00000007.\n"


def test_a_request_that_is_not_answered_in_time_says_so(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "_ANSWER_SECONDS", 0.1)
    fake = FakeRun(outputs, "bar").start().advance(7)
    answer = _json(capsys, "request", "bar", "stop")
    assert answer == {"run": "bar", "request": "stop", "answered": False, "state": "running"}
    assert [request.name for request in requests.take(fake.run.requests)] == ["stop"]


def test_a_run_that_has_ended_answers_no_request(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeRun(outputs, "bar").start().advance(7).stop()
    assert main(["request", "bar", "pause"]) == 1
    assert "llmlab-run resume bar" in capsys.readouterr().err
    assert requests.take(fake.run.requests) == []


class _Answering:
    """Does what is asked of a fake run, in a thread, as its worker would."""

    def __init__(self, fake: FakeRun) -> None:
        self._fake = fake
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._answer)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _answer(self) -> None:
        while not self._over.wait(0.01):
            for request in requests.take(self._fake.run.requests):
                match request.name:
                    case "pause":
                        self._fake.pause()
                    case "resume":
                        self._fake.unpause()
                    case "save":
                        self._fake.save_checkpoint(("requested",))


# checkpoints ----------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(outputs: Path) -> FakeRun:
    """A run `bar` with checkpoints at 10 and 20."""
    fake = FakeRun(outputs, "bar", steps=20).start().advance(10)
    fake.save_checkpoint()
    fake.advance(10).save_checkpoint(("final", "best"))
    return fake.finish()


def test_checkpoints_lists_steps_losses_and_why(saved: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", "bar"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0] for row in rows] == ["10", "20"]
    assert [row[-1] for row in rows] == ["periodic", "final"]
    assert float(rows[1][1]) == pytest.approx(saved.losses_of(20)[1], abs=5e-4)


def test_a_pin_protects_until_it_is_taken_off(saved: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", "bar", "pin", "10"]) == 0
    assert main(["checkpoints", "bar", "delete", "10"]) == 2
    assert "is pinned" in capsys.readouterr().err
    assert main(["checkpoints", "bar", "unpin", "@10"]) == 0
    assert main(["checkpoints", "bar@10", "delete"]) == 0
    assert [checkpoint.step for checkpoint in list_checkpoints(saved.run.checkpoints)] == [20]


def test_a_checkpoint_must_be_named_before_it_is_deleted(saved: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", "bar", "delete"]) == 2
    assert main(["checkpoints", "bar", "delete", "15"]) == 1
    assert "Saved steps: 10, 20." in capsys.readouterr().err
    assert len(list_checkpoints(saved.run.checkpoints)) == 2


def test_verify_finds_a_changed_byte(saved: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", "bar", "verify"]) == 0
    file = saved.run.checkpoints / "step-00000010" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[17] ^= 1
    file.write_bytes(content)
    capsys.readouterr()
    assert main(["checkpoints", "bar", "verify"]) == 1
    assert "step-00000010 is not what was saved" in capsys.readouterr().out
    assert main(["checkpoints", "bar", "verify", "final"]) == 0


def test_verify_names_checkpoints_whose_manifest_is_gone(saved: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    (saved.run.checkpoints / "step-00000010" / "manifest.json").unlink()
    (saved.run.checkpoints / ".tmp-step-00000030-1234abcd").mkdir()  # a save under way is none
    assert main(["checkpoints", "bar", "verify"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "step-00000010 has no manifest that can be read.",
        "step-00000020 is intact.",
    ]
    for words in (["bar", "verify", "10"], ["bar@10", "verify"]):
        assert _json(capsys, "checkpoints", *words, code=1) == [
            {"name": "step-00000010", "problem": "step-00000010 has no manifest that can be read."}
        ]
    assert main(["checkpoints", "bar", "verify", "20"]) == main(["checkpoints", "bar", "verify", "final"]) == 0
    assert main(["checkpoints", "bar", "verify", "15"]) == 1


def _write_header(fake: FakeRun, header: bytes, length: int | None = None) -> None:
    file = fake.run.checkpoints / "step-00000020" / "model.safetensors"
    file.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + bytes(64))


def test_inspect_names_every_weight_with_its_shape(saved: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = {f"blocks.{n}.weight": np.zeros((2, n + 1), np.float32) for n in (10, 2, 0)}
    save_file(tensors, saved.run.checkpoints / "step-00000020" / "model.safetensors", {"by": "a test"})
    assert main(["checkpoints", "bar", "inspect", "final"]) == 0
    printed = capsys.readouterr().out
    names = [line.split()[0] for line in printed.splitlines() if line.startswith("blocks.")]
    assert names == ["blocks.0.weight", "blocks.2.weight", "blocks.10.weight"]
    assert "30 parameters in 3 tensors" in printed
    assert "2 x 11" in printed


@pytest.mark.parametrize(
    ("header", "length"), [(b"[1, 2]", None), (b'{"a": 1}', None), (b"{", None), (b"{}", 2**60), (b'{"a": {}}', None)]
)
def test_inspect_refuses_hostile_weights_with_a_sentence(
    header: bytes, length: int | None, saved: FakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_header(saved, header, length)
    assert main(["checkpoints", "bar", "inspect", "20"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: model.safetensors of step-00000020 cannot be opened.")
