"""The model host: a real process that answers in lines, hears a cancel, survives nonsense, and ends with its input."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import new_run, train_here
from waits import SECONDS

import llmlab
from llmlab.core.settings import Sampling
from llmlab.jobs.model_host import Host
from llmlab.models.generation import next_tokens, unread, write
from llmlab.models.scratch import open_checkpoint
from llmlab.store.checkpoints import list_checkpoints, sealed, select
from llmlab.store.run_folder import RunFolder

FINAL = ("done", "next", "opened", "tokens", "answered", "previewed", "cancelled", "error")
REPOSITORY = Path(llmlab.__file__).parents[1]


class Conversation:
    """A host process; its answers are read in a thread, so that a silent one fails a test and does not hang it."""

    def __init__(self, **variables: str) -> None:
        environment = os.environ | {"PYTHONIOENCODING": "ascii"} | variables  # not to depend on the terminal's
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", "llmlab.jobs.model_host"]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, **pipes)
        self._answers: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, line: dict[str, Any] | bytes) -> None:
        assert self.process.stdin is not None
        data = line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode(errors="surrogatepass")
        self.process.stdin.write(data + b"\n")
        self.process.stdin.flush()

    def until(self, number: int, *events: str) -> list[dict[str, Any]]:
        """All answers to request `number` up to the first whose event is one of `events`."""

        def complete() -> bool:
            return any(answer["event"] in events for answer in self._of(number))

        with self._news:
            assert self._news.wait_for(complete, timeout=SECONDS), self._of(number)
        return self._of(number)

    def ask(self, **request: Any) -> list[dict[str, Any]]:
        """All answers but those of progress, up to the last."""
        self.send(request)
        answers = self.until(request["id"], *FINAL)
        return [answer for answer in answers if answer["event"] != "progress"]

    def end(self) -> int:
        """Closes the input; returns the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(SECONDS)

    def _of(self, number: int) -> list[dict[str, Any]]:
        return [answer for answer in self._answers if answer["id"] == number]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._answers.append(json.loads(line))
                self._news.notify_all()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    outputs = tmp_path_factory.mktemp("host")
    bpe = {"data__tokenizer": "bpe", "data__bpe_vocab_size": 300}
    return train_here(new_run(outputs, 10, **bpe, checkpoints__keep_last=9, checkpoints__best=False))


@pytest.fixture(scope="module")
def host() -> Iterator[Conversation]:
    conversation = Conversation()
    yield conversation
    conversation.process.kill()
    conversation.process.wait()


def _generate(run: RunFolder, number: int, **changes: Any) -> dict[str, Any]:
    plain = {"id": number, "do": "generate", "model": str(run.path), "prompt": "the king"}
    return plain | {"tokens": 6, "temperature": 0.8, "top_k": 0, "seed": 1, "top": 3} | changes


def test_generating_sends_loading_then_tokens_then_done(host: Conversation, run: RunFolder) -> None:
    answers = host.ask(**_generate(run, 1, model=f"{run.path}@5"))
    assert [answer["event"] for answer in answers] == ["loading", *["token"] * 6, "done"]
    opened = open_checkpoint(run, select(run.checkpoints, "5"))
    expected = list(write(opened, "the king", 6, Sampling(0.8, 0), seed=1, top=3))
    for answer, token in zip(answers[1:-1], expected, strict=True):
        assert answer["text"] == token.text
        assert answer["probability"] == pytest.approx(token.probability, rel=1e-4)
        assert [text for text, _ in answer["top"]] == [text for text, _ in token.top]
        assert len(answer["top"]) == 3
        assert [step["name"] for step in answer["steps"]] == ["temperature"]
        assert [list(row) for row in token.steps[0].rows] == [pytest.approx(row) for row in answer["steps"][0]["rows"]]
    assert answers[-1]["seconds"] > 0


def test_a_model_that_is_open_is_not_loaded_again(host: Conversation, run: RunFolder) -> None:
    host.ask(**_generate(run, 10, model=f"{run.path}@5"))
    assert host.ask(**_generate(run, 11, model=f"{run.path}@5"))[0]["event"] == "token"
    assert host.ask(**_generate(run, 12))[0]["event"] == "loading"


def test_next_sends_the_distribution_with_its_entropy(host: Conversation, run: RunFolder) -> None:
    answer = host.ask(id=20, do="next", model=str(run.path), prompt="the", top=5)[-1]
    expected = next_tokens(open_checkpoint(run, select(run.checkpoints)), "the", 5)
    assert answer["event"] == "next"
    assert [text for text, _ in answer["top"]] == [text for text, _ in expected.top]
    assert answer["entropy"] == pytest.approx(expected.entropy, rel=1e-4)
    assert answer["unread"] == 0
    opened, long = open_checkpoint(run, select(run.checkpoints)), "What light through yonder window breaks? " * 10
    assert host.ask(id=21, do="next", model=str(run.path), prompt=long, top=5)[-1]["unread"] == unread(opened, long) > 0


def test_a_cancel_is_heard_while_it_writes_and_before_it_begins(host: Conversation, run: RunFolder) -> None:
    host.send(_generate(run, 30, tokens=10**9, top=0))
    host.send(_generate(run, 31, tokens=10**9, top=0))
    host.until(30, "token")
    host.send({"do": "cancel", "id": 31})
    host.send({"do": "cancel", "id": 30})
    assert host.until(30, "cancelled")[-1]["event"] == "cancelled"
    assert [answer["event"] for answer in host.until(31, "cancelled")] == ["cancelled"]
    assert host.ask(**_generate(run, 32))[-1]["event"] == "done"


def test_a_prompt_of_ten_thousand_characters_and_of_any_script_is_answered(host: Conversation, run: RunFolder) -> None:
    for number, prompt in enumerate(("What light! " * 834, "日本語 🙂", "", "\ud800", "\0"), start=40):
        assert host.ask(**_generate(run, number, prompt=prompt, tokens=2))[-1]["event"] == "done", prompt


@pytest.mark.parametrize(
    ("number", "changes", "said"),
    [
        (100, {"model": "RUN@99"}, "no checkpoint @99"),
        (102, {"model": "RUN@../../etc"}, "names no checkpoint"),
        (104, {"model": "RUN@live"}, "is a training run"),
        (106, {"model": "/nowhere/at all"}, "There is no model"),
        (108, {"model": "\0"}, ""),
        (110, {"model": 5}, ""),
        (112, {"do": "explode"}, "cannot 'explode'"),
        (114, {"tokens": "many"}, ""),
        (116, {"temperature": "hot"}, ""),
        (118, {"temperature": float("nan")}, ""),
        (120, {"seed": 10**40}, ""),
        (122, {"top": -5}, ""),
    ],
)
def test_what_cannot_be_answered_is_a_sentence_and_the_host_lives_on(
    host: Conversation, run: RunFolder, number: int, changes: dict[str, Any], said: str
) -> None:
    if "model" in changes:
        changes = changes | {"model": str(changes["model"]).replace("RUN", str(run.path))}
    answer = host.ask(**(_generate(run, number) | changes))[-1]
    assert answer["event"] == "error"
    assert said in answer["what"]
    assert answer["what"].endswith(".")
    assert host.ask(**_generate(run, number + 1))[-1]["event"] == "done"


def test_lines_that_are_no_requests_are_passed_over(host: Conversation, run: RunFolder) -> None:
    for line in (
        b"",
        b"hello",
        b"[1, 2]",
        b"null",
        b"{}",
        b'{"do": "generate"}',
        b'{"do": "cancel", "id": 1e999}',
        b'{"id": "x", "do": "next"}',
        b'{"id": [], "do": ["generate"]}',
        b"\xff\xfe\x80 not utf-8",
        b"[" * 200_000,
        b"1" * 10_000,
        b'{"id": 1' + b" " * 1_000_000,
    ):
        host.send(line)
    assert host.ask(**_generate(run, 50))[-1]["event"] == "done"


def test_a_request_without_its_fields_names_the_missing_one(host: Conversation) -> None:
    answer = host.ask(id=60, do="generate")[-1]
    assert answer["event"] == "error"
    assert "model" in answer["why"]


def test_the_end_of_input_ends_the_process_after_what_was_asked(run: RunFolder) -> None:
    conversation = Conversation()
    conversation.send(_generate(run, 1))
    assert conversation.end() == 0
    assert conversation.until(1, "done")[-1]["event"] == "done"


def _answers(run: RunFolder, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """What a host inside this process says."""
    output = io.StringIO()
    host = Host(output)
    host.listen(io.StringIO("".join(json.dumps(request) + "\n" for request in requests)))
    host.answer_all()
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_checkpoint_that_was_saved_again_is_loaded_again(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(run.path, tmp_path / "copy")))
    output = io.StringIO()
    host = Host(output)
    for _ in range(2):
        host.listen(io.StringIO(json.dumps(_generate(copy, 1)) + "\n"))
        host.answer_all()
        saved = select(copy.checkpoints)
        manifest = json.loads((saved.path / "manifest.json").read_text())
        (saved.path / "manifest.json").write_text(json.dumps(sealed(manifest | {"time": manifest["time"] + 1})))
    assert output.getvalue().count('"loading"') == 2


def test_a_model_that_is_open_answers_when_its_checkpoint_is_gone(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(run.path, tmp_path / "copy")))
    output = io.StringIO()
    host = Host(output)

    def events(*names: str) -> list[str]:
        output.truncate(output.seek(0))
        for name in names:
            asked = {"id": 1, "do": "next", "model": name, "prompt": "the", "top": 2}
            host.listen(io.StringIO(json.dumps(asked) + "\n"))
            host.answer_all()
        said = [json.loads(line)["event"] for line in output.getvalue().splitlines()]
        return [event for event in said if event != "progress"]

    assert events(f"{copy.path}@5") == ["loading", "next"]
    shutil.rmtree(select(copy.checkpoints, "5").path)
    assert events(f"{copy.path}@5") == ["next"]
    assert events(f"{copy.path}@10", f"{copy.path}@5") == ["loading", "next", "error"]  # it is held no more


def test_a_damaged_checkpoint_is_a_sentence_and_another_one_answers(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(run.path, tmp_path / "copy")))
    first, last = list_checkpoints(copy.checkpoints)
    (last.path / "model.safetensors").write_bytes(b"x")
    answers = _answers(copy, _generate(copy, 1), _generate(copy, 2, model=f"{copy.path}@{first.step}"))
    events = [answer["event"] for answer in answers if answer["id"] == 1]
    assert [events[0], events[-1]] == ["loading", "error"]
    assert next(answer for answer in answers if answer["event"] == "error")["do"] == "Choose another checkpoint."
    assert answers[-1]["event"] == "done"
