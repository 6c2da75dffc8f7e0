"""A run answers questions while it trains, and ends as if nobody had asked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from kills import differences, events_of
from small_runs import names_of_events, new_run, train_here

from llmlab.core.errors import Cancelled, LabError
from llmlab.core.progress import Progress
from llmlab.inspection import answers
from llmlab.inspection.archive import read_archive
from llmlab.models.model import OpenModel
from llmlab.store import requests
from llmlab.store.run_folder import RunFolder
from llmlab.training.inspections import unwrapped
from llmlab.training.loop import Trainer

QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("inspect", {"text": "the king said"}),
    ("stages", {"text": "the king said", "layer": 0, "head": 1}),
    ("pattern", {"text": "the king said", "layer": 0, "head": 0}),
    ("neurons", {"text": "the king said", "layer": 0}),
    ("inspect", {"text": "the queen", "what": ["heads", "lens"]}),
    ("parameters", {"text": "the queen", "singular": ["blocks.0.*"]}),
    ("geometry", {}),
    ("sweep", {"text": "the king", "over": "layer,head", "action": "zero"}),
]


def _asking(run: RunFolder, steps: Mapping[int, tuple[str, dict[str, Any]]]) -> Any:
    """Each question is sent while the step of its number is computed, so that it is answered right after it."""
    plain = Trainer.optimizer_step

    def step(self: Trainer) -> Any:
        asked = steps.get(self.progress.step + 1)
        if asked is not None and self.run == run:
            requests.send(
                run.requests, "inspect", question=asked[0], values=asked[1], out=f"at-{self.progress.step + 1}"
            )
        return plain(self)

    return mock.patch.object(Trainer, "optimizer_step", step)


def _answering(instead: Callable[..., Any]) -> Any:
    return mock.patch.object(answers, "answer_question", instead)


def _error_of(run: RunFolder, name: str) -> str:
    return (run.inspections / f"{name}.error.json").read_text()


def test_a_run_that_was_asked_after_each_step_ends_bitwise_as_one_left_alone(outputs: Path) -> None:
    plain = answers.answer_question

    def unruly(opened: OpenModel, *rest: Any) -> Path:
        """Draws from every generator and leaves the model in another mode, which no answer should."""
        random.random(), np.random.rand(), torch.rand(3)
        try:
            return plain(opened, *rest)
        finally:
            opened.model.eval()

    alone = train_here(new_run(outputs, 18, "alone", train__sample_interval=6))
    asked = new_run(outputs, 18, "asked", train__sample_interval=6)
    with _asking(asked, {step: QUESTIONS[step % len(QUESTIONS)] for step in range(1, 17)}), _answering(unruly):
        train_here(asked)
    inspected = events_of(asked, "inspected")
    assert [event["step"] for event in inspected] == list(range(1, 17))
    assert [event["path"] for event in inspected] == [f"inspections/at-{step}.safetensors" for step in range(1, 17)]
    for event in inspected:
        archive = read_archive(asked.path / event["path"])
        assert archive.metadata.model == "asked@live"
        assert archive.metadata.kind != "parameters" or archive["layers/gradient"].min() > 0
        assert all(np.isfinite(archive[name]).all() for name in archive if not name.startswith("stages/masked"))
    assert differences(alone, asked) == []
    assert {path.suffix for path in asked.inspections.iterdir()} == {".safetensors"}


def test_each_answer_is_of_the_weights_of_its_step(outputs: Path) -> None:
    run = new_run(outputs, 6)
    seen: dict[int, list[str]] = {}

    def note(opened: OpenModel, *rest: Any) -> None:
        assert opened.step is not None
        assert opened.kind == "live"
        assert not opened.model.training
        seen[opened.step] = [opened.weights_sha256, opened.name]

    with _asking(run, dict.fromkeys((2, 3, 4), QUESTIONS[0])), _answering(note):
        train_here(run)
    assert list(seen) == [2, 3, 4]
    assert len({digest for digest, _ in seen.values()}) == 3
    assert seen[3][1] == "run, step 3"


@pytest.mark.parametrize("decay", [0.0, 0.8])  # an average shows those of the weights that are trained
def test_the_gradients_of_the_last_step_are_still_there_when_it_is_asked(outputs: Path, decay: float) -> None:
    run = new_run(outputs, 4, train__ema_decay=decay)
    norms = []

    def look(opened: OpenModel, *rest: Any) -> None:
        norms.append([float(parameter.grad.norm()) for parameter in opened.model.parameters()])

    with _asking(run, {2: QUESTIONS[0]}), _answering(look):
        train_here(run)
    assert all(norm > 0 for norm in norms[0])


@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), MemoryError(), ZeroDivisionError(), LabError("No.", "It is so.")]
)
def test_no_error_of_an_answer_stops_training(outputs: Path, error: Exception) -> None:
    run = new_run(outputs, 6)
    with _asking(run, {2: QUESTIONS[0], 4: QUESTIONS[0]}), _answering(mock.Mock(side_effect=error)):
        train_here(run)
    assert names_of_events(run)[-1] == "finished"
    assert "inspected" not in names_of_events(run)
    said = _error_of(run, "at-4")
    assert "It is so." in said if isinstance(error, LabError) else type(error).__name__ in said


@pytest.mark.parametrize(
    ("question", "values", "said"),
    [
        ("explode", {}, "There is no question 'explode'"),
        ("inspect", {"text": "日本"}, "lacks '日'"),
        ("inspect", {"text": ""}, "The prompt is empty"),
        ("inspect", {"text": "the king " * 10}, "at most 16"),
        ("inspect", {"text": "the", "what": "everything"}, "cannot be 'everything'"),
        ("stages", {"text": "the", "layer": 9, "head": 0}, "layer"),
    ],
)
def test_what_cannot_be_answered_is_a_sentence_for_whoever_asked(
    outputs: Path, question: str, values: dict[str, Any], said: str
) -> None:
    run = new_run(outputs, 4)
    with _asking(run, {2: (question, values)}):
        train_here(run)
    assert said in _error_of(run, "at-2")
    assert names_of_events(run)[-1] == "finished"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"question": "inspect", "values": {}, "out": "../../escape"},
        {"question": "inspect", "values": {}, "out": ".hidden"},
        {"question": "inspect", "values": {}, "out": 5},
        {"question": ["inspect"], "values": {}, "out": "a"},
        {"question": "inspect", "values": [], "out": "a"},
    ],
)
def test_a_request_that_is_none_of_ours_is_passed_over(outputs: Path, options: dict[str, Any]) -> None:
    run = new_run(outputs, 3)
    requests.send(run.requests, "inspect", **options)
    before = {path for path in outputs.rglob("*") if path.is_dir()}
    train_here(run)
    assert names_of_events(run)[-1] == "finished"
    assert {path for path in outputs.rglob("*") if path.is_dir()} - before <= set(run.checkpoints.iterdir())


def test_the_time_of_an_answer_is_not_training_time(outputs: Path) -> None:
    run, clock, answered = new_run(outputs, 6), time.perf_counter, list[None]()

    def now() -> float:
        return clock() + 1000 * len(answered)

    with (
        mock.patch("time.perf_counter", now),
        _asking(run, {2: QUESTIONS[0], 3: QUESTIONS[0]}),
        _answering(lambda *_: answered.append(None)),  # each takes 1,000 seconds
    ):
        train_here(run)
    assert len(answered) == 2
    assert events_of(run, "finished")[0]["active_seconds"] < 1000


def test_work_that_nobody_waits_for_any_more_is_given_up(outputs: Path) -> None:
    run = new_run(outputs, 4)
    given_up = []

    def long_work(opened: OpenModel, question: str, values: Any, out: Path, progress: Progress) -> None:
        out.with_name("at-2.cancel").touch()
        try:
            for done in range(1000):
                time.sleep(0.01)
                progress("Working", done, 1000)
        except Cancelled:
            given_up.append(done)
            raise

    with _asking(run, {2: QUESTIONS[0]}), _answering(long_work):
        train_here(run)
    assert len(given_up) == 1
    assert list(run.inspections.iterdir()) == []


def test_a_stop_ends_an_answer_early_and_says_so(outputs: Path) -> None:
    run = new_run(outputs, 500)

    def long_work(opened: OpenModel, question: str, values: Any, out: Path, progress: Progress) -> None:
        requests.send(run.requests, "stop")
        for done in range(1000):
            time.sleep(0.01)
            progress("Working", done, 1000)

    with _asking(run, {2: QUESTIONS[0]}), _answering(long_work):
        train_here(run)
    assert names_of_events(run)[-1] == "stopped"
    assert "asked to stop" in _error_of(run, "at-2")


def test_the_model_inside_its_wrappers_is_asked() -> None:
    class Wrapper(torch.nn.Module):
        """As DistributedDataParallel holds a model."""

        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__()
            self.module = module

    plain = torch.nn.Linear(2, 2)
    assert unwrapped(plain) is plain
    assert unwrapped(Wrapper(plain)) is plain
    assert unwrapped(torch.compile(Wrapper(plain), backend="eager")) is plain
