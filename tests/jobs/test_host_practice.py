"""The model host asks questions about the model that it holds."""

from __future__ import annotations

import io
import json
from pathlib import Path

from small_runs import new_run, train_here

from llmlab.core.records import from_plain
from llmlab.jobs.model_host import Host
from llmlab.practice.kinds import all_kinds
from llmlab.practice.question import INTERVAL, Question, mark
from llmlab.practice.subject import subject_of
from llmlab.store.checkpoints import select


def test_questions_are_those_that_are_had_without_the_host_one_after_the_other(tmp_path: Path) -> None:
    run = train_here(new_run(tmp_path, model__n_head=2))
    said = io.StringIO()
    host = Host(said, tmp_path)
    kinds = [name for name, kind in all_kinds().items() if kind.concept == "attention-patterns"]
    asked: list[str] = []
    for number in range(len(kinds) + 1):
        request = {"id": number, "do": "practice", "model": "run@latest", "seed": 7, "concept": "attention-patterns"}
        host._answer_or_say_why(request | {"without": asked})
        last = json.loads(said.getvalue().splitlines()[-1])
        assert last["event"] == "asked", last
        if last["question"] is None:
            break
        question = from_plain(Question, last["question"])
        asked.append(question.kind)
        assert question.model == f"run@{select(run.checkpoints).step}"  # the run may save more while it is answered
        assert question == all_kinds()[question.kind].ask(subject_of("run", tmp_path), 7)
        ends = f"{question.low - 1e-3}..{question.high + 1e-3}" if question.form == INTERVAL else f"{question.low}"
        assert mark(question, question.right[0] if question.right else ends).right
    assert sorted(asked) == sorted(kinds)
    live = {"id": 98, "do": "practice", "model": "run@live", "seed": 7, "concept": "attention-patterns", "without": []}
    host._answer_or_say_why(live)
    assert json.loads(said.getvalue().splitlines()[-1])["question"]["model"] == f"run@{select(run.checkpoints).step}"
    assert host.held.opened is not None  # the panels and the questions share one model
    host._answer_or_say_why({"id": 99, "do": "practice", "model": "", "seed": 7, "concept": "tokens", "without": []})
    assert json.loads(said.getvalue().splitlines()[-1])["question"]["concept"] == "tokens"
    host._answer_or_say_why({"id": 100, "do": "practice", "model": "", "seed": 7, "concept": "none", "without": []})
    assert json.loads(said.getvalue().splitlines()[-1])["event"] == "error"
