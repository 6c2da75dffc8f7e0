"""The first hour quotes the reader's own runs where they are there, and the lab's where not."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeRun

from llmlab.store.history import read_history
from llmlab_gui.learn.yours import with_yours, yours
from llmlab_gui.pages.library import load_all
from llmlab_gui.pages.page import Page


@pytest.fixture
def pages() -> dict[str, Page]:
    return {page.name: page for page in load_all()}


def test_a_page_quotes_the_readers_own_run_once_it_has_finished(tmp_path: Path, pages: dict[str, Page]) -> None:
    name = "first-hour/1-train"
    run = FakeRun(tmp_path, "first-gpt", steps=600).start()
    run.advance(600)
    assert yours(name, tmp_path) == ""
    run.finish()
    told = yours(name, tmp_path)
    losses = read_history(run.run).evaluations["val_loss"]
    assert f"`first-gpt` went from {losses[0]:.3f} to {losses[-1]:.3f} in" in told
    page = pages[name]
    shown = with_yours(page, told).text
    assert told in shown
    assert "For this page" in page.text
    assert "For this page" not in shown
    assert with_yours(page, "") is page
    assert yours("first-hour/3-predict", tmp_path) == ""  # its second run is not there
    other = FakeRun(tmp_path, "one-layer", steps=600).start()
    other.advance(600)
    other.finish()
    assert "one layer is" in yours("first-hour/3-predict", tmp_path)


def test_pages_that_quote_runs_have_a_place_for_the_readers(pages: dict[str, Page]) -> None:
    for name in ("first-hour/1-train", "first-hour/3-predict", "first-hour/4-fine-tune"):
        assert with_yours(pages[name], "Mine.").text.count("**Yours.** Mine.") == 1
