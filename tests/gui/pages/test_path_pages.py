"""Paths as pages: each station's page and places exist, and no concept is left out."""

from __future__ import annotations

from dataclasses import replace

from page_checks import check_pages

from llmlab.learning.progress import State, untouched
from llmlab.learning.stations import learning_paths
from llmlab_gui.pages.library import load_all
from llmlab_gui.pages.links import PAGE, WEB, read_link
from llmlab_gui.pages.page import CONCEPTS, PATHS, links_of
from llmlab_gui.pages.paths import BEGIN, explain_page, page_of_paths, path_page, with_station
from llmlab_gui.practice.page_questions import concept_of

PAGES = load_all()
BY_NAME = {page.name: page for page in PAGES}


def test_each_station_is_a_page_and_what_there_is_to_do_opens_a_place() -> None:
    told = dict(BY_NAME)
    for path in learning_paths().values():
        for station in path.stations:
            page = told[station.page] = with_station(BY_NAME[station.page], path)
            assert BY_NAME[station.concept].group == CONCEPTS
            links = links_of(station.do)
            assert [link for link in links if read_link(link).kind not in (PAGE, WEB)]
            assert not station.questions or f"concept:{station.questions}" in links  # what is asked can be read
            assert page.text.startswith(f"# {page.title}\n\n*Station ")
            assert page.text.endswith(f"{station.do}\n")
            assert concept_of(page) == station.concept  # it asks in the page
    assert check_pages(list(told.values())) == []


def test_a_page_of_no_path_stays_as_it_is() -> None:
    page = BY_NAME["checkpoints"]
    assert all(with_station(page, path) is page for path in learning_paths().values())


def test_every_concept_is_on_a_path_or_beside_them() -> None:
    stations = [name for path in learning_paths().values() for one in path.stations for name in (one.page, one.concept)]
    links = {link.removeprefix("concept:") for link in links_of(BY_NAME[BEGIN].text)}
    concepts = {page.name for page in PAGES if page.group == CONCEPTS}
    assert concepts - set(stations) == links & concepts - set(stations)
    assert all(path_page(name) in links for name in learning_paths())


def test_the_list_begins_with_where_to_begin() -> None:
    names = [page.name for page in PAGES if page.group == PATHS]
    assert [page.name for page in PAGES[: len(names)]] == names
    assert names[:3] == [BEGIN, "paths/text-to-text", "paths/text-to-text/explain"]


def test_a_path_shows_what_was_done_and_what_comes_next() -> None:
    standing = dict(untouched())
    state = standing["text-to-text"]
    assert "**Begin:** [Tokens](concept:tokens)" in page_of_paths(BEGIN, standing, PAGES).text
    done, half = State(read=True, answered=True), State(read=True)
    standing["text-to-text"] = replace(state, stations=(done, half, *state.stations[2:]))
    text = page_of_paths("paths/text-to-text", standing, PAGES).text
    assert "1. ✓ [Tokens](concept:tokens) (done)\\\n   How does text become numbers?\n2. [Emb" in text
    assert "page read, question open" in text
    assert "**1 of 12 stations are done. Next:** [Embeddings and positions](concept:embeddings)." in text
    all_done = replace(state, stations=(done,) * len(state.stations))
    standing["text-to-text"] = all_done
    begin = page_of_paths(BEGIN, standing, PAGES).text
    assert f"**11 of 12 stations are done. Next:** [Explain it back](concept:{explain_page('text-to-text')})" in begin
    standing["text-to-text"] = replace(all_done, explained=True)
    assert "**All 12 stations are done.**" in page_of_paths(BEGIN, standing, PAGES).text
