"""All pages of Learn, group by group, in the order in which they are best read."""

from __future__ import annotations

from pathlib import Path

from llmlab.core.paths import resources_dir
from llmlab_gui.pages.page import CONCEPTS, FIRST_HOUR, HOW_TO, RESULTS, Page, read_page
from llmlab_gui.pages.papers import load_paper_pages

# Results and guides that are read before the others, in this order.
_READ_FIRST = (
    "learnings",
    "window",
    "terminal",
    "settings",
    "runs",
    "inspecting",
    "fine-tuning",
    "experimenting",
    "checking-claims",
    "development",
)
# The order in which they are best read; a page that is not named here follows, by name.
READING_ORDER = (
    "tokens",
    "embeddings",
    "attention",
    "feed-forward",
    "residual-stream",
    "loss",
    "optimisation",
    "loss-curves",
    "checkpoints",
    "attention-patterns",
    "logit-lens",
    "direct-attribution",
    "ablation-and-patching",
    "induction-heads",
    "comparing-models",
    "fine-tuning",
    "lora",
    "quantisation",
    "chat-templates",
    "learning-rate",
    "forgetting",
    "predicting",
    "experiments",
    "scaling-laws",
    "statistics-of-claims",
    "bayesian-reasoning",
    "grokking",
)


def load_all() -> list[Page]:
    """Every page that comes with the lab, group by group."""
    root = resources_dir()
    results = load_tree(root / "results", "results", RESULTS)
    return [
        *load_tree(root / "first-hour", "first-hour", FIRST_HOUR),
        *load_pages(),
        *load_paper_pages(results),
        *results,
        *load_tree(root / "guides", "guides", HOW_TO),
    ]


def load_pages(folder: Path | None = None) -> list[Page]:
    """The concept pages of a folder, the lab's own if None, in reading order; an unreadable file is left out."""
    order = {name: place for place, name in enumerate(READING_ORDER)}
    paths = (folder or resources_dir() / "concepts").glob("*.md")
    in_order = sorted(paths, key=lambda path: (order.get(path.stem, len(order)), path.stem))
    return [page for path in in_order if (page := read_page(path, path.stem, CONCEPTS))]


def load_tree(folder: Path, name: str, group: str) -> list[Page]:
    """The pages of a folder and of those in it, each named by its way from there: those of the folder itself first."""

    def place(path: Path) -> tuple[int, int, str]:
        parts = path.relative_to(folder).parts
        first = _READ_FIRST.index(path.stem) if len(parts) == 1 and path.stem in _READ_FIRST else len(_READ_FIRST)
        return first, len(parts), str(path)

    found = ((path, f"{name}/{path.relative_to(folder).with_suffix('').as_posix()}") for path in folder.rglob("*.md"))
    in_order = sorted(found, key=lambda one: place(one[0]))
    return [page for path, full_name in in_order if (page := read_page(path, full_name, group))]
