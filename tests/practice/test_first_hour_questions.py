"""What the first hour asks of the reader's own fine-tuned run and check: from their files, and of no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from asked import ask
from fakes import FakeRun

from llmlab.core.charts import Axis, Chart, Series
from llmlab.core.kinds import PAPERS
from llmlab.data.papers import NOT_SUPPORTED
from llmlab.practice.kinds import NothingToAsk
from llmlab.practice.subject import subject_of
from llmlab.store.events import Scored
from llmlab.studies.papers.records import CheckResult, PapersCriterion, Statistic, Verdict, write_result


def _check(outputs: Path, name: str, *, model: str, shares: list[float], age: int, unit: str = "%") -> None:
    scale = 100 if unit == "%" else 1  # "" until version 0.4
    chart = Chart(
        "share", "Share", Axis("layer"), Axis("share"), [Series(model, [*map(float, range(len(shares)))], shares)]
    )
    verdict = Verdict(
        "sink", NOT_SUPPORTED, Statistic("share", scale * 0.0471, unit), "the interval lies above 30 %", 60, [],
        PapersCriterion(None, ""), "", [scale * 0.0444, scale * 0.0498], charts=[chart], evidence={"uniform": 0.0594},
    )  # fmt: skip
    path = outputs / PAPERS / name / "verdict.json"
    path.parent.mkdir(parents=True)
    write_result(path, CheckResult("attention-sinks", "minutes", [verdict], "", [], {}, {}, 1.0, models=[model]))
    os.utime(path, (1e9 - age, 1e9 - age))


def test_the_answers_that_are_asked_about_are_the_runs_last(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, "answers", steps=600).start()
    items: list[dict[str, str | bool]] = [
        {"prompt": "Repeat: a", "expected": "a", "answer": " a", "right": True},
        {"prompt": "Repeat: b c", "expected": "b c", "answer": " b d", "right": False},
        {"prompt": "Sort: 2 1", "expected": "1 2", "answer": " 2", "right": False},
        {"prompt": "Sort: 4 3", "expected": "3 4", "answer": " 3", "right": False},
    ]
    before = [item | {"answer": "And I have", "right": False} for item in items]
    run.append(Scored(0, run.time_of(0), 0, 4, before, 0.1))
    run.advance(600)
    subject = subject_of("", tmp_path)
    assert subject.run is None  # without a checkpoint it is not what is asked about
    run.save_checkpoint(("final",))
    for kind in ("first-answers-right", "first-answers-form"):
        with pytest.raises(NothingToAsk):
            ask(subject_of("answers@final", tmp_path), kind)
    run.append(Scored(600, run.time_of(600), 1, 4, items, 0.1))
    run.finish()
    subject = subject_of("answers@final", tmp_path)
    which = ask(subject, "first-answers-right")
    assert which.right == ("Repeat: a",)
    assert set(which.choices) == {item["prompt"] for item in items}
    assert "“Sort: 2 1”: “2”, not “1 2”." in which.how
    form = ask(subject, "first-answers-form")
    assert form.right == ("fewer than half",)
    assert form.how.startswith("1 of 3.")
    losses = subject.history.evaluations["val_loss"]
    assert f"from {losses[0]:.3f} to {losses[-1]:.3f}" in form.how


def test_the_check_that_is_asked_about_is_the_newest_of_the_first_hours_model(tmp_path: Path) -> None:
    subject = subject_of("", tmp_path)
    for number, (model, above) in enumerate((("other@final", 4), ("first-gpt@final", 2), ("first-gpt@best", 4))):
        if number < 2:
            with pytest.raises(NothingToAsk):
                ask(subject, "first-check-layers")
        _check(tmp_path, f"c{number}", model=model, shares=[0.06] * above + [0.05] * (4 - above), age=number)
    layers, bound = ask(subject, "first-check-layers"), ask(subject, "first-check-bound")
    assert layers.right == ("half or more",)
    assert layers.how.startswith("2 of 4. Layer by layer: 6.0 %, 6.0 %, 5.0 %, 5.0 %.")
    assert bound.right[0].startswith("4.44 %, the lower end")
    assert {choice[:6] for choice in bound.choices} == {"4.44 %", "4.71 %", "4.98 %", "5.94 %"}
    _check(tmp_path, "old", model="first-gpt@final", shares=[0.06], age=-1, unit="")
    assert ask(subject, "first-check-bound").right == bound.right
