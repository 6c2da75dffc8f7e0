"""The paths of Learn as pages: where to begin, a page for each path, and one for each explanation at its end.

What was done is told by `with_standing`, when a page is shown; what a station asks and gives to do, by `with_station`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from llmlab.core.paths import resources_dir
from llmlab.learning.progress import PathState, Standing, untouched
from llmlab.learning.stations import LearningPath, beside
from llmlab_gui.pages.page import CONCEPTS, FIRST_PAGE, PATHS, Page

BEGIN = "paths"  # the page that says where to begin
_EXPLAIN = "explain"
_RULE = (
    "A station is done when its page was read through to its end and one of its questions was answered, rightly or "
    "wrongly; or when you mark it. What you missed comes back in [Practice](dock:practice)."
)


def load_path_pages(pages: Sequence[Page]) -> list[Page]:
    """Their pages, as they are where nothing was done. pages: all others, for their titles."""
    names = [BEGIN]
    for path in untouched():
        names += [path_page(path), explain_page(path)]
    return [page_of_paths(name, untouched(), pages) for name in names]


def path_page(path: str) -> str:
    """The name of a path's page."""
    return f"{BEGIN}/{path}"


def explain_page(path: str) -> str:
    """The name of the page of its last station."""
    return f"{BEGIN}/{path}/{_EXPLAIN}"


def path_of_page(name: str, standing: Standing) -> PathState | None:
    """The path that a page is about, or on which it is a station; None for all others."""
    begin, _, rest = name.partition("/")
    if begin == BEGIN:
        return standing.get(rest.partition("/")[0])
    return next((state for state in standing.values() if state.path.place(name) is not None), None)


def is_explanation(name: str) -> bool:
    """Whether a page is the last station of a path."""
    return name.startswith(f"{BEGIN}/") and name.endswith(f"/{_EXPLAIN}")


def page_of_paths(name: str, standing: Standing, pages: Sequence[Page]) -> Page:
    """One of these pages, with what was done."""
    titles = {page.name: page.title for page in pages}
    state = path_of_page(name, standing)
    if state is None:
        concepts = [page.name for page in pages if page.group == CONCEPTS]
        parts: Iterator[str] = _begin(standing, titles, beside(concepts))
        title = "Where to begin"
    elif is_explanation(name):
        title, parts = f"Explain it back: {state.path.title}", iter([state.path.explain.ask])
    else:
        title, parts = state.path.title, _path(state, titles)
    return Page(name, title, "\n\n".join([f"# {title}", *parts]), PATHS, resources_dir() / "paths")


def with_station(page: Page, path: LearningPath) -> Page:
    """A page with what it answers on a path, under its heading, and what there is to do, at its end."""
    place = path.place(page.name)
    if place is None:
        return page
    station = path.stations[place]
    where = f"*Station {place + 1} of {len(path.stations) + 1} of* [{path.title}](concept:{path_page(path.name)})*.*"
    heading, _, rest = page.text.partition("\n")
    text = f"{heading}\n\n{where} {station.asks}\n{rest.rstrip()}\n\n## To do at this station\n\n{station.do}\n"
    return replace(page, text=text)


def _begin(standing: Standing, titles: Mapping[str, str], others: Sequence[str]) -> Iterator[str]:
    yield (
        "Three paths lead through the lab. Each has some ten stations of ten minutes: a page, something to do in a "
        "panel, and a question about your own model. At its end you explain the whole from memory. Take them in this "
        "order, or begin with the one that answers your question."
    )
    yield (
        f"Are you new here? [Begin with the first hour](concept:{FIRST_PAGE}). It trains the model that the stations "
        "look at."
    )
    for name, state in standing.items():
        yield f"## [{state.path.title}](concept:{path_page(name)})"
        yield state.path.about
        yield _how_far(state, titles)
    yield _RULE
    yield "## Beside the paths"
    yield (
        "These concepts are on none of them. They, and all other pages, are in the list, and are found by any of their "
        "words."
    )
    yield ", ".join(f"[{titles[name]}](concept:{name})" for name in others) + "."


def _how_far(state: PathState, titles: Mapping[str, str]) -> str:
    upcoming = state.next()
    if upcoming is not None:
        said = f"[{titles.get(upcoming.page, upcoming.page)}](concept:{upcoming.page})"
        return (
            f"**{state.done} of {state.of} stations are done. Next:** {said}." if state.done else f"**Begin:** {said}."
        )
    explain = f"[Explain it back](concept:{explain_page(state.path.name)})"
    if not state.explained:
        return f"**{state.done} of {state.of} stations are done. Next:** {explain}."
    return f"**All {state.of} stations are done.** {explain} once more in some weeks, and compare."


def _path(state: PathState, titles: Mapping[str, str]) -> Iterator[str]:
    yield state.path.about
    yield _how_far(state, titles)
    upcoming = state.next()
    rows = [
        (titles.get(one.page, one.page), one.page, one.asks, how.done, how.words or _next(one is upcoming))
        for one, how in zip(state.path.stations, state.stations, strict=True)
    ]
    asks, last = "Can you explain the whole without the pages?", explain_page(state.path.name)
    explained = "done" if state.explained else _next(upcoming is None)
    rows.append(("Explain it back", last, asks, state.explained, explained))
    yield "\n".join(
        f"{number}. {'✓ ' if done else ''}[{title}](concept:{page}){words and f' ({words})'}\\\n   {asks}"
        for number, (title, page, asks, done, words) in enumerate(rows, 1)
    )
    yield _RULE


def _next(is_next: bool) -> str:
    return "**next**" if is_next else ""
