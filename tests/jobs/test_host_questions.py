"""The model host by its newer words: open, tokenize, ask, compare, evolve, models; cancelled, hostile and killed."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tiny_models
import torch
from fakes import FakeRun
from forks import forked, wait_until
from small_runs import new_run, train_here
from test_host import Conversation
from waits import SECONDS

from llmlab.core.errors import LabError
from llmlab.core.memory import NoMemory
from llmlab.inspection.answers import answer_question
from llmlab.inspection.archive import read_archive
from llmlab.jobs import model_host as host_module
from llmlab.jobs.launcher import request
from llmlab.jobs.model_host import Host
from llmlab.models import held, source
from llmlab.models.about import about
from llmlab.models.model import OpenModel
from llmlab.models.source import open_model
from llmlab.store.run_folder import RunFolder

TEXT = "the king and"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run `bar` in an outputs folder, and a model folder."""
    root = tmp_path_factory.mktemp("places")
    bpe = {"data__tokenizer": "bpe", "data__bpe_vocab_size": 300}
    train_here(new_run(root / "outputs", 10, "bar", **bpe, checkpoints__keep_last=9))
    return {"outputs": root / "outputs", "model": tiny_models.save(tiny_models.llama(), root / "tiny")}


@pytest.fixture(scope="module")
def host(places: dict[str, Path]) -> Iterator[Conversation]:
    conversation = Conversation(LLMLAB_OUTPUTS=str(places["outputs"]))
    yield conversation
    conversation.process.kill()
    conversation.process.wait()


def test_open_describes_the_model(host: Conversation, places: dict[str, Path]) -> None:
    for number, reference in enumerate(("bar@5", str(places["model"])), start=1):
        answers = host.ask(id=number, do="open", model=reference)
        assert [said["event"] for said in answers] == ["opened"]
        expected = asdict(about(open_model(reference, places["outputs"])))
        said = answers[0]["about"]
        assert said.pop("memory_bytes") > said["bytes"]
        expected.pop("memory_bytes")
        assert said == expected


def test_opening_says_how_far_it_is(host: Conversation, places: dict[str, Path]) -> None:
    host.ask(id=5, do="open", model="bar")
    host.send({"id": 6, "do": "open", "model": str(places["model"])})
    told = [said for said in host.until(6, "opened") if said["event"] == "progress"]
    assert told
    assert set(told[0]) == {"id", "event", "what", "done", "total", "eta_seconds"}


def test_a_lens_is_told_in_parts_with_the_words_of_its_tokens_in_between(
    places: dict[str, Path], tmp_path: Path
) -> None:
    model, out, said = str(places["model"]), tmp_path / "lens.safetensors", io.StringIO()
    values = {"text": TEXT, "what": ["lens"], "parts": True}
    requests = [
        {"id": 1, "do": "ask", "model": model, "question": "inspect", "values": values, "out": str(out)},
        {"id": 2, "do": "tokenize", "model": "bar", "ids": [3]},  # of a model that is not open
        {"id": 3, "do": "tokenize", "model": model, "ids": [3, 4]},
    ]
    host = Host(said, places["outputs"])
    host.listen(map(json.dumps, requests))
    host.answer_all()
    answers = [json.loads(line) for line in said.getvalue().splitlines()]
    told = [(a["id"], a["event"]) for a in answers if a["event"] != "progress"]
    assert [event for number, event in told if number == 1][-2:] == ["part", "answered"]
    assert told.index((3, "tokens")) < told.index((1, "part")) < told.index((1, "answered")) < told.index((2, "tokens"))
    whole = read_archive(out)
    for path in (Path(a["path"]) for a in answers if a["event"] == "part"):
        part = read_archive(path)
        assert (part.metadata.token_ids, part.metadata.more["answer"]) == (
            whole.metadata.token_ids,
            whole.metadata.more["answer"],
        )
        there = part["lens/ids"][:, 0, 0] >= 0
        assert 0 < there.sum() < len(there)
        for name in whole:
            assert np.array_equal(part[name][there], whole[name][there]), name


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), LabError("It is large.")])
def test_a_part_that_has_no_room_on_the_disk_does_not_cost_the_answer(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    full = mock.Mock(side_effect=error)
    monkeypatch.setattr("llmlab.inspection.inspect.write_archive", full)
    out, said = tmp_path / "lens.safetensors", io.StringIO()
    values = {"text": TEXT, "what": ["lens"], "parts": True}
    host = Host(said, places["outputs"])
    asked = {"id": 1, "do": "ask", "model": "bar", "question": "inspect", "values": values, "out": str(out)}
    host.listen([json.dumps(asked)])
    host.answer_all()
    told = [json.loads(line)["event"] for line in said.getvalue().splitlines()]
    assert [event for event in told if event != "progress"] == ["answered"]
    assert full.called
    assert (read_archive(out)["lens/ids"] >= 0).all()


def test_of_a_live_run_its_newest_checkpoint_is_walked(places: dict[str, Path], tmp_path: Path) -> None:
    out, back, said = tmp_path / "walk.safetensors", tmp_path / "back.safetensors", io.StringIO()
    asked = {"do": "ask", "model": "bar@live", "values": {"text": TEXT}}
    host = Host(said, places["outputs"])
    host.listen(
        [
            json.dumps(asked | {"id": 1, "question": "walk", "out": str(out)}),
            json.dumps(asked | {"id": 2, "question": "walk_back", "out": str(back), "values": {"sequence": 1}}),
        ]
    )
    host.answer_all()
    told = [json.loads(line)["event"] for line in said.getvalue().splitlines()]
    assert [event for event in told if event != "progress"] == ["answered", "answered"]
    assert read_archive(out).metadata.model == "bar@10"
    assert int(read_archive(back).metadata.more["sequences"]) > 1


def test_a_comparison_that_is_refused_leaves_the_open_model_open(places: dict[str, Path], tmp_path: Path) -> None:
    said = io.StringIO()
    host = Host(said, places["outputs"])
    values = {"text": TEXT}
    compare = {"do": "compare", "models": ["bar@5", "baz"], "values": values, "out": str(tmp_path / "out")}
    host.listen([json.dumps({"id": 1, "do": "open", "model": "bar@5"}), json.dumps(compare | {"id": 2})])
    host.answer_all()
    assert json.loads(said.getvalue().splitlines()[-1])["event"] == "error"
    assert host.held.opened is not None


def test_an_open_model_answers_on_after_a_comparison_and_an_evolution_although_its_checkpoint_is_gone(
    places: dict[str, Path], tmp_path: Path
) -> None:
    outputs, said = tmp_path / "outputs", io.StringIO()
    shutil.copytree(places["outputs"], outputs)
    host = Host(said, outputs)
    values, out = {"text": TEXT}, str(tmp_path / "out")

    def told(*requests: dict[str, Any]) -> list[str]:
        host.listen(json.dumps({"id": 1, "values": values, "out": out, **request}) for request in requests)
        host.answer_all()
        events = [json.loads(line)["event"] for line in said.getvalue().splitlines()]
        return [event for event in events if event != "progress"]

    ask = {"do": "ask", "model": "bar@5", "question": "parameters", "values": {}}
    told({"do": "open", "model": "bar@5"}, ask)
    shutil.rmtree(next(outputs.glob("*/bar/checkpoints/*5")))
    comparison = {"do": "compare", "models": ["bar@5", "bar@10"]}
    assert told(comparison, {"do": "evolve", "run": "bar"}, ask) == ["opened", *["answered"] * 4]

    def no_room() -> None:
        raise NoMemory("There is no room.")

    with pytest.raises(NoMemory):  # and it stays where there is no room beside it: nothing could open it again
        host.held.with_room(no_room)
    assert host.held.opened is not None


def test_a_comparison_and_an_evolution_leave_the_open_model_open_where_memory_has_room_for_both(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, opened, room = io.StringIO(), [], 2
    host = Host(said, places["outputs"])

    def opening(reference: object, *how: Any) -> OpenModel:
        opened.append(str(reference))
        if (host.held.opened is not None) + 1 > room:
            raise NoMemory("There is no room.")
        return open_model(str(reference), *how)

    monkeypatch.setattr(held, "open_model", opening)
    monkeypatch.setattr(source, "open_model", opening)
    compare = {"id": 2, "do": "compare", "models": ["bar@5", "bar@10"], "values": {"text": TEXT}}
    compare["out"] = str(tmp_path / "out")
    evolve = {"id": 2, "do": "evolve", "run": "bar", "values": {"text": TEXT, "every": 99}, "out": compare["out"]}
    for asked, room, again in ((one, *how) for one in (compare, evolve) for how in ((2, []), (1, ["bar@10"]))):
        opened.clear()
        host.listen([json.dumps({"id": 1, "do": "open", "model": "bar@5"}), json.dumps(asked)])
        host.answer_all()
        assert json.loads(said.getvalue().splitlines()[-1])["event"] == "answered"
        assert opened[-1 - len(again) :] == ["bar@10", *again]
        assert (host.held.opened is None) == (room == 1)


def test_nothing_keeps_the_model_before_when_another_one_is_opened(places: dict[str, Path]) -> None:
    host = Host(io.StringIO(), places["outputs"])
    host._answer_or_say_why({"id": 1, "do": "next", "model": "bar@5", "prompt": TEXT, "top": 3})
    assert host.held.opened is not None
    assert len(host._bigrams) == 1
    before = weakref.ref(host.held.opened.model)
    host._answer_or_say_why({"id": 2, "do": "open", "model": "bar@10"})
    assert before() is None
    assert not host._bigrams


def test_tokenize_cuts_as_the_model_does(host: Conversation, places: dict[str, Path]) -> None:
    end = tiny_models.TOKENIZER.end_of_text
    ids = tiny_models.TOKENIZER.encode(TEXT)
    plain = host.ask(id=10, do="tokenize", model=str(places["model"]), text=TEXT, beginning=False)[-1]
    assert (plain["ids"], plain["beginning"]) == (ids, end)
    assert plain["texts"][:2] == ["the", " king"]
    begun = host.ask(id=11, do="tokenize", model=str(places["model"]), text=TEXT, beginning=True)[-1]
    assert begun["ids"] == [end, *ids]
    assert begun["texts"][0] == "<|endoftext|>"
    assert host.ask(id=12, do="tokenize", model="bar", text="\ud800", beginning=False)[-1]["texts"] == ["?"]
    assert host.ask(id=13, do="tokenize", model="bar", text="", beginning=False)[-1]["ids"] == []


def test_ask_writes_what_the_question_answers_here(host: Conversation, places: dict[str, Path], tmp_path: Path) -> None:
    values = {"text": TEXT, "what": ["heads", "attention", "lens"]}
    for number, reference in enumerate(("bar@10", str(places["model"])), start=20):
        out = tmp_path / "new" / f"{number}.safetensors"
        said = host.ask(id=number, do="ask", model=reference, question="inspect", values=values, out=str(out))[-1]
        assert (said["event"], said["path"]) == ("answered", str(out))
        assert said["seconds"] > 0
        here = read_archive(
            answer_question(open_model(reference, places["outputs"]), "inspect", values, tmp_path / "here")
        )
        there = read_archive(out)
        assert set(there) == set(here)
        assert all(np.allclose(there[name], here[name], atol=1e-5) for name in here)


def test_compare_and_evolve_answer(host: Conversation, places: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "compared.safetensors"
    said = host.ask(id=30, do="compare", models=["bar@5", "bar@5"], values={"text": TEXT}, out=str(out))[-1]
    assert said["event"] == "answered", said
    compared = read_archive(out)
    assert compared.metadata.kind == "comparison"
    assert not any(compared[name].any() for name in compared if name.startswith("difference/"))
    out = tmp_path / "evolved.safetensors"
    said = host.ask(id=31, do="evolve", run="bar", values={"text": TEXT, "what": ["heads"]}, out=str(out))[-1]
    assert said["event"] == "answered", said
    assert len(json.loads(read_archive(out).metadata.more["steps"])) >= 2


def test_generate_and_next_take_a_model_of_any_kind(host: Conversation, places: dict[str, Path]) -> None:
    words = {"model": str(places["model"]), "prompt": TEXT, "top": 2}
    how = {"tokens": 3, "temperature": 0.0, "top_k": 0, "seed": 0}
    events = [said["event"] for said in host.ask(id=50, do="generate", **words, **how)]
    assert events[-1] == "done"
    assert events.count("token") == 3
    assert len(host.ask(id=51, do="next", **words)[-1]["top"]) == 2


def test_a_file_that_was_replaced_is_opened_again(host: Conversation, tmp_path: Path) -> None:
    folder = tiny_models.save(tiny_models.llama(seed=1), tmp_path / "changing")
    asked = {"do": "next", "model": str(folder), "prompt": TEXT, "top": 3}
    first = host.ask(id=60, **asked)
    again = host.ask(id=61, **asked)
    tiny_models.save(tiny_models.llama(seed=2), folder)
    second = host.ask(id=62, **asked)
    assert [said["event"] for said in again] == ["next"]
    assert [said["event"] for said in second] == ["loading", "next"]
    assert first[-1]["top"] == again[-1]["top"] != second[-1]["top"]


ASK = {"do": "ask", "model": "bar", "question": "inspect", "values": {"text": "a"}, "out": "OUT"}


@pytest.mark.parametrize(
    ("number", "asked", "said"),
    [
        (100, {"do": "open", "model": "nothing"}, "There is no model 'nothing'"),
        (101, {"do": "open"}, "could not answer"),
        (102, {"do": "open", "model": None}, "There is no model 'None'"),
        (103, ASK | {"question": "explode"}, "no question 'explode'"),
        (104, ASK | {"values": {"text": ""}}, "empty"),
        (105, ASK | {"values": [1]}, "could not answer"),
        (106, ASK | {"values": {"x": 1}}, "x"),
        (107, ASK | {"out": 5}, "could not answer"),
        (108, ASK | {"out": "/dev/null/x"}, "written"),
        (109, {"do": "compare", "models": ["bar"], "values": {}, "out": "OUT"}, "could not answer"),
        (110, {"do": "compare", "models": ["bar", "baz"], "values": {"text": "the"}, "out": "OUT"}, "no model 'baz'"),
        (111, {"do": "evolve", "run": "nothing", "values": {"text": "the"}, "out": "OUT"}, "nothing"),
        (112, {"do": "tokenize", "model": "bar"}, "could not answer"),
        (113, {"do": ["open"], "model": "bar"}, "cannot ['open']"),
        (114, {"do": "open", "model": "bar@live"}, ""),
        (115, ASK | {"model": "bar@live"}, "does not train now"),
    ],
)
def test_what_cannot_be_answered_is_a_sentence(
    host: Conversation, tmp_path: Path, number: int, asked: dict[str, Any], said: str
) -> None:
    asked = asked | ({"out": str(tmp_path / "out")} if asked.get("out") == "OUT" else {})
    last = host.ask(id=number, **asked)[-1]
    if said:
        assert last["event"] == "error"
        assert said in last["what"]
    assert not (tmp_path / "out").exists()


def test_a_question_is_cancelled_while_it_is_worked_on(places: dict[str, Path], tmp_path: Path) -> None:
    conversation = Conversation(LLMLAB_OUTPUTS=str(places["outputs"]))
    try:
        values = {"text": TEXT, "beginning": False}
        conversation.send({"id": 1, "do": "ask", "model": "bar", "question": "inspect", "values": values, "out": "x"})
        conversation.send({"do": "cancel", "id": 1})
        out = str(tmp_path / "live")
        fake = FakeRun(places["outputs"], "busy").start()
        conversation.until(1, "cancelled", "answered")
        asked = {
            "do": "ask",
            "model": str(fake.run.path) + "@live",
            "question": "inspect",
            "values": values,
            "out": out,
        }
        process = conversation.process
        conversation.send({"id": 2, **asked})
        conversation.until(2, "progress")
        conversation.send({"do": "cancel", "id": 2})
        assert conversation.until(2, "cancelled", "error")[-1]["event"] == "cancelled"
        assert process.poll() is None
        assert conversation.ask(id=3, do="open", model="bar")[-1]["event"] == "opened"
    finally:
        conversation.process.kill()
        conversation.process.wait()


def test_a_live_run_is_described_cut_and_asked_through_its_folder(
    host: Conversation, places: dict[str, Path], tmp_path: Path
) -> None:
    run: RunFolder = new_run(places["outputs"], 3000, "training", checkpoints__interval=0, train__eval_interval=0)
    with forked(run):
        wait_until(lambda: run.status().step > 0)
        request(run, "pause")
        wait_until(lambda: run.status().state == "paused")
        said = host.ask(id=200, do="open", model="training@live")[-1]["about"]
        assert (said["kind"], said["reference"], said["step"]) == ("live", "training@live", run.status().step)
        cut = host.ask(id=201, do="tokenize", model="training@live", text="the king", beginning=False)[-1]
        assert cut["texts"] == list("the king")
        out = tmp_path / "live.safetensors"
        words = {"question": "inspect", "values": {"text": "the king", "what": ["heads"]}, "out": str(out)}
        assert host.ask(id=202, do="ask", model="training@live", **words)[-1]["event"] == "answered"
        archive = read_archive(out)
        assert archive["heads/entropy"].shape == (said["n_layer"], said["n_head"])
        request(run, "save")
        wait_until(lambda: any(run.checkpoints.glob("step-*")))
        saved = host.ask(id=203, do="open", model="training@latest")[-1]["about"]
        differing = {"reference", "name", "kind", "memory_bytes"}
        assert {k: v for k, v in saved.items() if k not in differing} == {
            k: v for k, v in said.items() if k not in differing
        }


def test_a_host_that_is_killed_leaves_nothing_half_written(places: dict[str, Path], tmp_path: Path) -> None:
    conversation = Conversation(LLMLAB_OUTPUTS=str(places["outputs"]))
    conversation.ask(id=1, do="open", model="bar")
    out = tmp_path / "killed.safetensors"
    words = {"question": "inspect", "values": {"text": TEXT}, "out": str(out)}
    conversation.send({"id": 2, "do": "ask", "model": "bar", **words})
    os.kill(conversation.process.pid, signal.SIGKILL)
    assert conversation.process.wait(SECONDS) == -signal.SIGKILL
    assert not out.exists() or len(read_archive(out)) > 0


def test_the_time_left_follows_from_the_pace_and_news_are_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    output, now = io.StringIO(), [100.0]
    monkeypatch.setattr(host_module.time, "monotonic", lambda: now[0])
    progress = host_module._Turn(Host(output), 7)
    progress("Loading", 0, 0)
    now[0] += 60  # what came before says nothing of the pace
    for done in range(1, 101):
        progress("Loading", done, 100)
        now[0] += 0.05
    told = [json.loads(line) for line in output.getvalue().splitlines()]
    assert len(told) <= 1 + 51
    assert told[1]["eta_seconds"] is None
    for said in told[10:]:
        assert said["eta_seconds"] == pytest.approx((100 - said["done"]) * 0.05, abs=1e-6)


def test_a_model_whose_parts_cannot_be_told_is_described_with_the_reason(outputs: Path, tmp_path: Path) -> None:
    opened = open_model(str(tiny_models.save(tiny_models.llama(), tmp_path / "strange")), outputs)

    class Unknown(type(opened)):
        anatomy = property(lambda self: (_ for _ in ()).throw(LabError("No.", "Its stream does not add up.")))

    said = about(Unknown(opened.reference, opened.name, opened.kind, opened.model, opened.tokenizer))
    assert set(said.refusals) == {"attention", "contributions", "heads", "attribution"}
    assert all("does not add up" in reason for reason in said.refusals.values())
    assert (said.family, said.n_layer, said.n_head, said.n_embd, said.context) == ("llama", 2, 4, 32, 64)


def test_the_host_takes_all_cores_and_leaves_half_to_a_run_that_trains(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr("llmlab.core.device.available_cores", lambda: 6)
    host_module.use_free_cores(outputs)
    run = FakeRun(outputs, "busy", steps=10).start()
    host_module.use_free_cores(outputs)
    run.advance(10).finish()
    host_module.use_free_cores(outputs)
    assert taken == [6, 3, 6]
