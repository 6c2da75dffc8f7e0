"""The first hour quotes the reader's own runs where they are there, and the lab's where not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from fake_checks import FakeCheck, verdict
from fakes import FakeRun
from practice_questions import question

from llmlab.data.papers import NOT_SUPPORTED, read_paper
from llmlab.notebook.predictions import parse_check_prediction
from llmlab.practice.deck import Deck
from llmlab.practice.question import CHOICE, LOOK_INSIDE, mark
from llmlab.store.history import read_history
from llmlab.studies.lab_notebook import lab_notebook
from llmlab_gui.learn.yours import Yours, with_yours, yours
from llmlab_gui.pages.library import load_all
from llmlab_gui.pages.page import FIRST_HOUR, Page


@pytest.fixture
def pages() -> dict[str, Page]:
    return {page.name: page for page in load_all()}


def test_a_page_quotes_the_readers_own_run_once_it_has_finished(tmp_path: Path, pages: dict[str, Page]) -> None:
    name = "first-hour/1-train"
    run = FakeRun(tmp_path, "first-gpt", steps=600).start()
    run.advance(600)
    assert yours(name, tmp_path).told == ""
    run.finish()
    told = yours(name, tmp_path).told
    losses = read_history(run.run).evaluations["val_loss"]
    assert f"`first-gpt` went from {losses[0]:.3f} to {losses[-1]:.3f} in" in told
    page = pages[name]
    shown = with_yours(page, Yours(told)).text
    assert told in shown
    assert "For this page" in page.text
    assert "For this page" not in shown
    assert with_yours(page, Yours()) is page
    third = yours("first-hour/3-predict", tmp_path)
    assert third == Yours("", losses[-1])  # its second run is not there
    asked = with_yours(pages["first-hour/3-predict"], third).text
    assert f"With four layers the validation loss of your `first-gpt` ended at {losses[-1]:.3f}. Where" in asked
    other = FakeRun(tmp_path, "one-layer", steps=600).start()
    other.advance(600)
    other.finish()
    assert "one layer is" in yours("first-hour/3-predict", tmp_path).told


def test_the_second_page_quotes_what_its_questions_found_in_the_readers_model(tmp_path: Path) -> None:
    run = FakeRun(tmp_path, "first-gpt", steps=600).start()
    run.advance(600)
    run.finish()
    deck = Deck(tmp_path)
    ended = read_history(run.run).finished
    assert ended is not None

    def answer(kind: str, how: str, *, model: str = "first-gpt@final", after: float = 1.0) -> None:
        asked = replace(question(CHOICE), kind=kind, concept=LOOK_INSIDE, how=how, model=model)
        deck.add(asked, mark(asked, "1"), ended.time + after)

    answer("first-look", "It settles *early*.")
    answer("first-look-back", "Of another run.", model="other@final")
    answer("first-look-back", "Of the run before.", after=-1.0)
    assert yours(LOOK_INSIDE, tmp_path).told == ""  # one of the two is not answered yet
    answer("first-look-back", "None looks back.")
    assert yours(LOOK_INSIDE, tmp_path).told == "It settles early. None looks back."
    deck.path.write_text("{")
    assert yours(LOOK_INSIDE, tmp_path).told == ""


def test_the_fifth_page_quotes_the_verdict_on_the_readers_model_and_the_prediction(tmp_path: Path) -> None:
    name, claims = "first-hour/5-check-a-claim", ["sink"]
    predicted = parse_check_prediction("sink=supported@60%", read_paper("attention-sinks"), claims)
    for number, model in enumerate(("other@final", "first-gpt@final")):
        assert yours(name, tmp_path).told == ""
        check = FakeCheck(
            tmp_path,
            f"sink-{number}",
            paper="attention-sinks",
            claims=claims,
            models=[model],
            predictions=[predicted.as_dict()],
        )
        assert yours(name, tmp_path).told == ""  # it has no verdict yet
        lab_notebook(tmp_path).refresh()
        check.judge(replace(verdict("sink", NOT_SUPPORTED), reason="The first gets 4.7 %. And more."))
        check.status(state="finished")
    lab_notebook(tmp_path).refresh()
    told = yours(name, tmp_path).told
    assert told.startswith(
        "The verdict is **not supported**. The first gets 4.7 %. You predicted sink: supported, 60 %"
    )
    assert "The outcome was not supported: wrong. 2.3 bits: a surprise" in told


def test_pages_that_quote_runs_have_a_place_for_the_readers(pages: dict[str, Page]) -> None:
    hour = [page for page in pages.values() if page.group == FIRST_HOUR]
    assert len(hour) == 5
    for page in hour:
        assert with_yours(page, Yours("Mine.")).text.count("**Yours.** Mine.") == 1, page.name
        own = with_yours(page, Yours("Mine.")).text
        assert "For this page" not in own, page.name
        assert not re.search(r"\*\*Yours\.\*\* Mine\.\n\n(?!#|Next:)", own), page.name  # no more of ours below it
