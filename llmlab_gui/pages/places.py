"""The panels and workspaces that pages lead to, and which pages explain a panel: one table for both directions."""

from __future__ import annotations

from dataclasses import replace

from llmlab.core.config import read_toml
from llmlab.core.paths import resources_dir
from llmlab_gui.pages.page import CONCEPTS, Page

TRAIN, LOOK_INSIDE, FINE_TUNE, EXPERIMENTS = "Train", "Look inside", "Fine-tune", "Experiments"
PAPER, COMPARE, WRITE, LEARN = "Paper", "Compare runs", "Write", "Learn"
WALK = "Walk"
DIAGNOSE = "Diagnose"
REBUILD = "Rebuild"
PRACTICE = "Practice"
WORKSPACES = (
    TRAIN,
    LOOK_INSIDE,
    FINE_TUNE,
    EXPERIMENTS,
    PAPER,
    COMPARE,
    WRITE,
    LEARN,
    WALK,
    DIAGNOSE,
    REBUILD,
    PRACTICE,
)
# By dock: its title, and the concept pages that its caption leads to, the chief one first.
DOCK_PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    dock: (known["title"], tuple(known["pages"]))
    for dock, known in read_toml(resources_dir() / "window" / "panels.toml").items()
}
DOCK_IDS = (*DOCK_PAGES, "learn")


def pages_of(dock_id: str) -> tuple[str, ...]:
    """The concept pages of a dock, the chief one first; none of Learn, which shows them all."""
    return DOCK_PAGES.get(dock_id, ("", ()))[1]


def panels_of(page: str) -> list[tuple[str, str]]:
    """Id and title of each dock in which a concept page's idea is seen; those that it is chiefly about first."""
    ranked = [(pages.index(page), dock, title) for dock, (title, pages) in DOCK_PAGES.items() if page in pages]
    return [(dock, title) for _, dock, title in sorted(ranked, key=lambda row: row[0])]


def with_panels(page: Page) -> Page:
    """A concept page with the way to its panels at the end; any other page as it is."""
    panels = panels_of(page.name) if page.group == CONCEPTS else []
    if not panels:
        return page
    links = " · ".join(f"[{title}](dock:{dock})" for dock, title in panels)
    return replace(page, text=f"{page.text.rstrip()}\n\n## Where to see it\n\n{links}\n")
