"""Asking a live run from outside: the same numbers as its checkpoint of that step, and a sentence for every way out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeRun
from forks import Fork, forked, wait_until
from kills import events_of
from small_runs import new_run, train_here

from llmlab.core.errors import Cancelled, LabError
from llmlab.core.files import write_json
from llmlab.data.tokenizers import CharTokenizer
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import read_archive
from llmlab.jobs.launcher import request
from llmlab.models import live
from llmlab.models.about import about_live
from llmlab.models.live import ask_live
from llmlab.models.reference import LiveRun, parse
from llmlab.models.source import open_model
from llmlab.store import requests
from llmlab.store.run_folder import RunFolder, RunStatus

VALUES = {"text": "the king said", "what": ["attention", "heads", "residual", "lens"]}


@pytest.fixture
def paused(outputs: Path) -> Iterator[tuple[RunFolder, Fork]]:
    """A worker that waits after its first steps."""
    run = new_run(outputs, 2000, checkpoints__interval=0, train__eval_interval=0)
    with forked(run) as worker:
        wait_until(lambda: run.status().step > 0)
        request(run, "pause")
        wait_until(lambda: run.status().state == "paused")
        yield run, worker


def _live(run: RunFolder) -> LiveRun:
    reference = parse(f"{run.id}@live", run.path.parent.parent)
    assert isinstance(reference, LiveRun)
    return reference


def test_a_paused_run_answers_what_its_checkpoint_of_that_step_answers(
    paused: tuple[RunFolder, Fork], outputs: Path, tmp_path: Path
) -> None:
    run, _ = paused
    path = ask_live(_live(run), "inspect", VALUES, tmp_path / "new" / "live.safetensors")
    request(run, "save")
    wait_until(lambda: bool(events_of(run, "checkpoint_saved")))
    opened = open_model(f"{run.id}@latest", outputs)
    assert opened.step == run.status().step
    alike = read_archive(answer_question(opened, "inspect", VALUES, tmp_path / "saved.safetensors"))
    archive = read_archive(path)
    assert archive.metadata.weights_sha256 == alike.metadata.weights_sha256 == opened.weights_sha256
    assert archive.metadata.tokens == alike.metadata.tokens
    assert set(archive) == set(alike)
    assert all(np.array_equal(archive[name], alike[name]) for name in archive)
    assert list(run.inspections.iterdir()) == []


def test_a_running_run_answers_and_goes_on(outputs: Path, tmp_path: Path) -> None:
    run = new_run(outputs, 100_000, checkpoints__interval=0, train__eval_interval=0)
    with forked(run) as worker:
        wait_until(lambda: run.status().step > 0)
        told: list[str] = []
        digests = set()
        for number in range(3):
            path = ask_live(_live(run), "inspect", VALUES, tmp_path / f"{number}", lambda what, *_: told.append(what))
            digests.add(read_archive(path).metadata.weights_sha256)
        assert len(digests) == 3
        assert told[0] == "Waiting for the next step"
        request(run, "stop")
        assert worker.wait() == 0
    assert len(events_of(run, "inspected")) == 3


def test_the_workers_own_error_comes_as_it_is(paused: tuple[RunFolder, Fork], tmp_path: Path) -> None:
    run, _ = paused
    with pytest.raises(LabError, match=r"lacks '日'.*data\.tokenizer=gpt2"):
        ask_live(_live(run), "inspect", {"text": "日"}, tmp_path / "x")
    assert list(run.inspections.iterdir()) == []


def test_a_run_that_does_not_train_is_not_asked(outputs: Path, tmp_path: Path) -> None:
    run = train_here(new_run(outputs, 3))
    with pytest.raises(LabError, match=r"run does not train now. It is finished. Open run@latest"):
        ask_live(_live(run), "inspect", VALUES, tmp_path / "x")
    assert list(run.requests.iterdir()) == []


def test_a_worker_that_dies_meanwhile_is_noticed(
    paused: tuple[RunFolder, Fork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, worker = paused
    monkeypatch.setattr(live, "_ALIVE_SECONDS", 0.1)
    killer = threading.Thread(target=worker.kill)

    def kill(*_: Any) -> None:
        if not killer.ident:
            killer.start()
            killer.join()

    plain = requests.send

    def send(*arguments: Any, **options: Any) -> Path:
        kill()
        return plain(*arguments, **options)

    monkeypatch.setattr(requests, "send", send)
    with pytest.raises(LabError, match=r"run ended before it could answer. It is interrupted."):
        ask_live(_live(run), "inspect", VALUES, tmp_path / "x")
    assert list(run.requests.iterdir()) == []


def test_one_that_comes_to_no_step_boundary_is_given_up(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRun(outputs, "busy").start()
    monkeypatch.setattr(live, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(LabError, match="busy has reached no step boundary for"):
        ask_live(_live(fake.run), "inspect", VALUES, tmp_path / "x")
    assert list(fake.run.requests.iterdir()) == []


def test_a_cancel_takes_the_question_back(outputs: Path, tmp_path: Path) -> None:
    fake = FakeRun(outputs, "busy").start()
    begin = time.monotonic()

    def cancel(*_: Any) -> None:
        if time.monotonic() - begin > 0.2:
            raise Cancelled()

    with pytest.raises(Cancelled):
        ask_live(_live(fake.run), "inspect", VALUES, tmp_path / "x", cancel)
    assert list(fake.run.requests.iterdir()) == []
    assert not (fake.run.inspections).exists()


def test_a_cancel_reaches_a_worker_that_has_begun(outputs: Path, tmp_path: Path) -> None:
    fake = FakeRun(outputs, "busy").start()

    def cancel(*_: Any) -> None:
        if requests.take(fake.run.requests):
            fake.run.inspections.mkdir()
            raise Cancelled()

    with pytest.raises(Cancelled):
        ask_live(_live(fake.run), "inspect", VALUES, tmp_path / "x", cancel)
    assert [path.suffix for path in fake.run.inspections.iterdir()] == [".cancel"]


def test_the_workers_progress_is_told(outputs: Path, tmp_path: Path) -> None:
    fake = FakeRun(outputs, "busy").start()
    told: list[tuple[str, float, float]] = []

    def watch(what: str, done: float, total: float) -> None:
        told.append((what, done, total))
        taken = requests.take(fake.run.requests)
        if taken:
            stem = fake.run.inspections / taken[0].options["out"]
            stem.parent.mkdir()
            for said in ("{}", '{"what": 3}', '{"what": "Layers", "done": 2, "total": 7}'):
                stem.with_name(f"{stem.name}.progress.json").write_text(said)
        if told[-1][0] == "Layers":
            raise Cancelled()

    with pytest.raises(Cancelled):
        ask_live(_live(fake.run), "inspect", VALUES, tmp_path / "x", watch)
    assert told[-1] == ("Layers", 2.0, 7.0)


def test_a_live_run_is_not_opened_but_its_newest_checkpoint_is_named(outputs: Path) -> None:
    FakeRun(outputs, "busy").start()
    with pytest.raises(LabError, match="Open busy@latest"):
        open_model("busy@live", outputs)


def test_a_run_that_has_not_begun_is_waited_for(outputs: Path) -> None:
    fake = FakeRun(outputs, "early", vocab_size=8)
    told: list[str] = []

    def begin(what: str, *_: float) -> None:
        told.append(what)
        if len(told) == 2:
            write_json(fake.run.tokenizer_json, CharTokenizer("\n aeghikt").to_json())

    described = about_live(_live(fake.run), begin)
    assert told == ["Waiting for early to begin"] * 2
    assert (described.kind, described.name) == ("live", "early (live)")


def test_a_run_that_ended_before_it_began_is_not_waited_for(outputs: Path) -> None:
    fake = FakeRun(outputs, "early")
    fake.run.write_status(RunStatus(state="failed"))
    with pytest.raises(LabError, match=r"early has not begun to train\. It is failed"):
        about_live(_live(fake.run))
