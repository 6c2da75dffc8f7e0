"""The link to the model's process: answers, cancellation, crashes, and that nothing is left behind."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import psutil
import pytest
from pytestqt.qtbot import QtBot
from windows import FAKE_HOST

from llmlab.core.errors import LabError
from llmlab.models.replies import WrittenToken
from llmlab_gui.host.messages import Generation
from llmlab_gui.host.process import ModelHost, Request

MODEL = "fake@100"


class Heard:
    """What a request told."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.tokens: list[WrittenToken] = []
        self.ends: list[object] = []
        request.token.connect(self.tokens.append)
        request.answered.connect(self.ends.append)
        request.cancelled.connect(lambda: self.ends.append("cancelled"))
        request.failed.connect(self.ends.append)

    @property
    def end(self) -> object:
        (end,) = self.ends
        return end

    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


@pytest.fixture
def host(qtbot: QtBot) -> Iterator[ModelHost]:
    host = ModelHost(command=FAKE_HOST)
    yield host
    host.shutdown()


def finished(qtbot: QtBot, *requests: Heard) -> None:
    qtbot.waitUntil(lambda: all(request.ends for request in requests))


def test_tokens_come_with_probabilities_and_alternatives_and_then_done(qtbot: QtBot, host: ModelHost) -> None:
    request = Heard(host.generate(MODEL, "The king", Generation(tokens=5)))
    assert host.busy
    finished(qtbot, request)
    assert isinstance(request.end, float)
    assert [token.probability for token in request.tokens] == [0.6] * 5
    assert request.tokens[0].top[1] == (" other", 0.3)
    assert not host.busy


def test_next_answers_the_distribution_with_its_entropy(qtbot: QtBot, host: ModelHost) -> None:
    request = Heard(host.ask_next(MODEL, "The"))
    finished(qtbot, request)
    answer = request.end
    assert answer.top == ((" the", 0.5), ("\n", 0.25), (" 3", 0.25))
    assert answer.entropy == pytest.approx(1.5 * math.log(2))


def test_lines_in_pieces_and_noise_between_them_lose_nothing(qtbot: QtBot, host: ModelHost) -> None:
    request = Heard(host.generate(MODEL, "partial", Generation(tokens=6, seed=5)))
    plain = Heard(host.generate(MODEL, "whole", Generation(tokens=6, seed=5)))
    finished(qtbot, request, plain)
    assert len(request.tokens) == 6
    assert request.text() == plain.text()


def test_a_long_prompt_arrives_whole(qtbot: QtBot, host: ModelHost) -> None:
    request = Heard(host.ask_next(MODEL, "é\n" * 5000))
    finished(qtbot, request)
    assert (" 10000", 0.25) in request.end.top


def test_a_cancelled_generation_ends_and_the_next_one_runs(qtbot: QtBot, host: ModelHost) -> None:
    request = Heard(host.generate(MODEL, "endless", Generation()))
    qtbot.waitUntil(lambda: len(request.tokens) > 3)
    request.request.cancel()
    finished(qtbot, request)
    assert request.end == "cancelled"
    following = Heard(host.ask_next(MODEL, "The"))
    finished(qtbot, following)


def test_an_error_of_the_host_has_its_three_parts(qtbot: QtBot, host: ModelHost) -> None:
    request = Heard(host.generate(MODEL, "error", Generation()))
    finished(qtbot, request)
    error = request.end
    assert isinstance(error, LabError)
    assert (error.what, error.why, error.do) == ("The model cannot read this.", "É is unknown.", "Leave it out.")


def test_an_answer_that_does_not_fit_its_question_ends_it_with_an_error(qtbot: QtBot, host: ModelHost) -> None:
    asked = Heard(host.ask_next(MODEL, "misfit"))
    written = Heard(host.generate(MODEL, "misfit endless", Generation()))
    following = Heard(host.ask_next(MODEL, "The"))
    finished(qtbot, asked, written, following)
    for request, event in ((asked, "opened"), (written, "token")):
        assert isinstance(request.end, LabError)
        assert "cannot read" in request.end.what
        assert f"{event!r} does not fit" in request.end.why
    assert len(written.tokens) == 2
    assert not isinstance(following.end, LabError), "the host still writes what nobody waits for"
    assert not host.busy


def test_what_was_cancelled_ends_so_also_where_its_answer_does_not_fit(qtbot: QtBot, host: ModelHost) -> None:
    request = Heard(host.ask_next(MODEL, "The"))
    (number,) = host._waiting
    request.request.cancel()
    host._answer(json.dumps({"id": number, "event": "opened"}).encode())
    assert request.end == "cancelled"


def test_a_crash_fails_what_waits_and_the_next_request_starts_a_new_process(qtbot: QtBot, host: ModelHost) -> None:
    first = Heard(host.generate(MODEL, "crash", Generation()))
    second = Heard(host.ask_next(MODEL, "never answered"))
    finished(qtbot, first, second)
    error = first.end
    assert isinstance(error, LabError)
    assert "code 9" in error.why
    assert "MemoryError: out of memory" in error.why
    assert isinstance(second.end, LabError)
    assert len(first.tokens) == 2
    third = Heard(host.ask_next(MODEL, "The"))
    finished(qtbot, third)
    assert not isinstance(third.end, LabError)


def test_a_host_that_cannot_start_is_an_error_not_a_silence(qtbot: QtBot) -> None:
    host = ModelHost(command=("/nonexistent/python",))
    request = Heard(host.ask_next(MODEL, "The"))
    finished(qtbot, request)
    assert "could not be started" in request.end.what


def test_a_host_deaf_to_a_cancellation_is_killed(
    qtbot: QtBot, host: ModelHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmlab_gui.host.process._CANCEL_PATIENCE_MS", 50)
    request = Heard(host.generate(MODEL, "deaf", Generation()))
    behind = Heard(host.ask_next(MODEL, "The"))
    request.request.cancel()
    finished(qtbot, request, behind)
    assert request.end == "cancelled"
    assert isinstance(behind.end, LabError)
    assert "The window ended it" in behind.end.why
    assert "memory" not in behind.end.do
    again = Heard(host.ask_next(MODEL, "The"))
    finished(qtbot, again)
    assert not isinstance(again.end, LabError)


def test_threads_of_the_host_spin_no_longer_than_those_of_a_run(
    qtbot: QtBot, host: ModelHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"GOMP_SPINCOUNT": "10000", "OMP_WAIT_POLICY": "active"}
    monkeypatch.setattr("llmlab.training.thread_spin.environment", lambda: chosen)
    request = Heard(host.ask_next(MODEL, "The"))
    assert host._process is not None
    started_with = host._process.processEnvironment()
    assert {name: started_with.value(name) for name in chosen} == chosen
    finished(qtbot, request)


@pytest.mark.real_start  # whose process is the one that Qt started
def test_shutdown_leaves_no_process(qtbot: QtBot, host: ModelHost) -> None:
    before = set(psutil.Process().children())
    request = Heard(host.generate(MODEL, "endless", Generation()))
    qtbot.waitUntil(lambda: bool(request.tokens))
    children = set(psutil.Process().children()) - before
    assert len(children) == 1
    host.shutdown()
    assert not any(child.is_running() for child in children)
    assert not host.busy


def test_what_was_dropped_tells_nothing_more_and_the_next_request_is_answered(qtbot: QtBot, host: ModelHost) -> None:
    dropped = Heard(host.generate(MODEL, "endless", Generation()))
    qtbot.waitUntil(lambda: bool(dropped.tokens))
    before = len(dropped.tokens)
    with qtbot.waitSignal(dropped.request.ended):
        dropped.request.drop()
    following = Heard(host.ask_next(MODEL, "The"))
    finished(qtbot, following)
    assert (len(dropped.tokens), dropped.ends) == (before, [])
