"""The link to the model's process: answers, cancellation, crashes, and that nothing is left behind."""

from __future__ import annotations

import math
from collections.abc import Iterator

import psutil
import pytest
from conftest import FAKE_HOST
from pytestqt.qtbot import QtBot
from waits import WAIT

from llmlab.core.errors import LabError
from llmlab_gui.host.messages import Generation, Token
from llmlab_gui.host.process import ModelHost

MODEL = "fake@100"


class Heard:
    """What a host's signals said, by request."""

    def __init__(self, host: ModelHost) -> None:
        self.tokens: dict[int, list[Token]] = {}
        self.ends: dict[int, object] = {}
        host.token.connect(lambda request, token: self.tokens.setdefault(request, []).append(token))
        host.next_token.connect(self.ends.__setitem__)
        host.done.connect(self.ends.__setitem__)
        host.cancelled.connect(lambda request: self.ends.__setitem__(request, "cancelled"))
        host.failed.connect(self.ends.__setitem__)

    def text(self, request: int) -> str:
        return "".join(token.text for token in self.tokens.get(request, []))


@pytest.fixture
def host(qtbot: QtBot) -> Iterator[ModelHost]:
    host = ModelHost(command=FAKE_HOST)
    yield host
    host.shutdown()


def finished(qtbot: QtBot, heard: Heard, *requests: int) -> None:
    qtbot.waitUntil(lambda: all(request in heard.ends for request in requests), timeout=WAIT)


def test_tokens_come_with_probabilities_and_alternatives_and_then_done(qtbot: QtBot, host: ModelHost) -> None:
    heard = Heard(host)
    request = host.generate(MODEL, "The king", Generation(tokens=5))
    assert host.busy
    finished(qtbot, heard, request)
    assert isinstance(heard.ends[request], float)
    assert [token.probability for token in heard.tokens[request]] == [0.6] * 5
    assert heard.tokens[request][0].alternatives[1] == (" other", 0.3)
    assert not host.busy


def test_next_answers_the_distribution_with_its_entropy(qtbot: QtBot, host: ModelHost) -> None:
    heard = Heard(host)
    request = host.ask_next(MODEL, "The")
    finished(qtbot, heard, request)
    answer = heard.ends[request]
    assert answer.alternatives == ((" the", 0.5), ("\n", 0.25), (" 3", 0.25))  # type: ignore[attr-defined]
    assert answer.entropy == pytest.approx(1.5 * math.log(2))  # type: ignore[attr-defined]


def test_lines_in_pieces_and_noise_between_them_lose_nothing(qtbot: QtBot, host: ModelHost) -> None:
    heard = Heard(host)
    request = host.generate(MODEL, "partial", Generation(tokens=6, seed=5))
    plain = host.generate(MODEL, "whole", Generation(tokens=6, seed=5))
    finished(qtbot, heard, request, plain)
    assert len(heard.tokens[request]) == 6
    assert heard.text(request) == heard.text(plain)


def test_a_long_prompt_arrives_whole(qtbot: QtBot, host: ModelHost) -> None:
    heard = Heard(host)
    request = host.ask_next(MODEL, "é\n" * 5000)
    finished(qtbot, heard, request)
    assert (" 10000", 0.25) in heard.ends[request].alternatives  # type: ignore[attr-defined]


def test_a_cancelled_generation_ends_and_the_next_one_runs(qtbot: QtBot, host: ModelHost) -> None:
    heard = Heard(host)
    request = host.generate(MODEL, "endless", Generation())
    qtbot.waitUntil(lambda: len(heard.tokens.get(request, [])) > 3, timeout=WAIT)
    host.cancel(request)
    finished(qtbot, heard, request)
    assert heard.ends[request] == "cancelled"
    following = host.ask_next(MODEL, "The")
    finished(qtbot, heard, following)


def test_an_error_of_the_host_has_its_three_parts(qtbot: QtBot, host: ModelHost) -> None:
    heard = Heard(host)
    request = host.generate(MODEL, "error", Generation())
    finished(qtbot, heard, request)
    error = heard.ends[request]
    assert isinstance(error, LabError)
    assert (error.what, error.why, error.do) == ("The model cannot read this.", "É is unknown.", "Leave it out.")


def test_a_crash_fails_what_waits_and_the_next_request_starts_a_new_process(qtbot: QtBot, host: ModelHost) -> None:
    heard = Heard(host)
    first = host.generate(MODEL, "crash", Generation())
    second = host.ask_next(MODEL, "never answered")
    finished(qtbot, heard, first, second)
    error = heard.ends[first]
    assert isinstance(error, LabError)
    assert "code 9" in error.why
    assert "MemoryError: out of memory" in error.why
    assert isinstance(heard.ends[second], LabError)
    assert len(heard.tokens[first]) == 2
    third = host.ask_next(MODEL, "The")
    finished(qtbot, heard, third)
    assert not isinstance(heard.ends[third], LabError)


def test_a_host_that_cannot_start_is_an_error_not_a_silence(qtbot: QtBot) -> None:
    host = ModelHost(command=("/nonexistent/python",))
    heard = Heard(host)
    request = host.ask_next(MODEL, "The")
    finished(qtbot, heard, request)
    assert "could not be started" in heard.ends[request].what  # type: ignore[attr-defined]


def test_a_host_deaf_to_a_cancellation_is_killed(
    qtbot: QtBot, host: ModelHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmlab_gui.host.process._CANCEL_PATIENCE_MS", 50)
    heard = Heard(host)
    request = host.generate(MODEL, "deaf", Generation())
    host.cancel(request)
    finished(qtbot, heard, request)
    assert isinstance(heard.ends[request], LabError)


def test_shutdown_leaves_no_process(qtbot: QtBot, host: ModelHost) -> None:
    heard = Heard(host)
    before = set(psutil.Process().children())
    request = host.generate(MODEL, "endless", Generation())
    qtbot.waitUntil(lambda: bool(heard.tokens.get(request)), timeout=WAIT)
    children = set(psutil.Process().children()) - before
    assert len(children) == 1
    host.shutdown()
    assert not any(child.is_running() for child in children)
    assert not host.busy
