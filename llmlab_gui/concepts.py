"""The concept pages: resources/concepts/*.md, read into blocks, and checked. (Results read like them, without tasks.)

A page is Markdown, with three kinds of lines of its own, each a paragraph:

    @code llmlab/gpt/model.py::GPT.forward      the live source of that symbol
    ? What happens to the loss when ...         a question to predict first
    ! [Train it](lab:run?preset=baby&...)       the run that answers it

Links: `concept:attention`, `dock:loss`, `lab:run?preset=baby&steps=300&model.n_layer=2`, or http(s).
Formulas are plain text in block quotes or code spans.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from llmlab.errors import LabError, UsageError
from llmlab.paths import resources_dir
from llmlab.settings import DEFAULT_PRESET, resolve_settings
from llmlab_gui.source_code import find_source

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

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
)
DOCK_IDS = (
    "runs",
    "setup",
    "loss",
    "learning_rate",
    "throughput",
    "samples",
    "checkpoints",
    "write",
    "log",
    "learn",
    "prompt",
    "attention",
    "contributions",
    "residual",
    "lens",
    "interventions",
    "compare",
    "evolution",
    "geometry",
    "parameters",
    "finetune_setup",
    "data",
    "adapter",
    "queue",
    "experiment",
    "experiment_losses",
    "experiment_result",
    "experiment_report",
    "experiments",
    "notebook",
)
# The short words of a `lab:run?` link, as on the command line.
_SHORT_SETTINGS = {"corpus": "data.corpus", "steps": "train.steps", "seed": "train.seed"}
_MARKS = {"@code ": "code", "? ": "question", "! ": "run"}


@dataclass(frozen=True)
class Block:
    """kind: `prose`, `question` and `run` hold Markdown; `code` holds `path::Symbol.method`."""

    kind: str
    text: str


@dataclass(frozen=True)
class Page:
    """One concept page. name: its file name without `.md`, as in `concept:<name>`."""

    name: str
    title: str
    text: str

    @property
    def blocks(self) -> list[Block]:
        """The page cut at its own kinds of lines; fenced code is left alone."""
        return list(_blocks(self.text))


def load_all() -> list[Page]:
    """The concept pages, then what was measured: resources/results/*.md."""
    return load_pages() + load_pages(resources_dir() / "results")


def load_pages(folder: Path | None = None) -> list[Page]:
    """The pages of a folder, the concepts' if None, in reading order; an unreadable file is left out."""
    paths = (folder or resources_dir() / "concepts").glob("*.md")
    order = {name: place for place, name in enumerate(READING_ORDER)}
    pages = []
    for path in sorted(paths, key=lambda path: (order.get(path.stem, len(order)), path.stem)):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        heading = re.search(r"^# (.+)$", text, re.MULTILINE)
        pages.append(Page(path.stem, heading[1].strip() if heading else path.stem, text))
    return pages


def run_link(url: str) -> dict[str, str]:
    """What a `lab:run?...` link asks for: `preset`, and `section.field` keys. UsageError when it cannot be."""
    parts = urlsplit(url)
    if parts.scheme != "lab" or parts.path != "run":
        raise UsageError(f"{url!r} leads nowhere.", "A run is written lab:run?preset=baby&steps=300.")
    values = {_SHORT_SETTINGS.get(key, key): value for key, value in parse_qsl(parts.query, keep_blank_values=True)}
    values.setdefault("preset", DEFAULT_PRESET)
    resolve_settings(values["preset"], overrides={key: value for key, value in values.items() if key != "preset"})
    return values


def check_pages(pages: list[Page]) -> list[str]:
    """What is wrong with the pages, one sentence each: dead links, code that is gone, missing parts."""
    names = {page.name for page in pages}
    return [f"{page.name}.md: {problem}" for page in pages for problem in _problems(page, names)]


def markdown() -> MarkdownIt:
    """The Markdown that pages are written in: CommonMark and tables, no HTML."""
    from markdown_it import MarkdownIt  # here, not above: the window opens without it

    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _problems(page: Page, names: set[str]) -> Iterator[str]:
    blocks = page.blocks
    if not page.text.startswith("# "):
        yield "does not begin with its title."
    for kind, meaning in (("code", "lines of our own code"), ("question", "question"), ("run", "run that answers")):
        if not any(block.kind == kind for block in blocks):
            yield f"has no {meaning}."
    for block in blocks:
        if block.kind == "code":
            try:
                find_source(block.text)
            except LabError as error:
                yield str(error)
        else:
            yield from filter(None, (_dead_link(link, names) for link in _links(block.text)))


def _links(text: str) -> Iterator[str]:
    for token in markdown().parse(text):
        for child in token.children or ():
            if child.type == "link_open":
                yield str(child.attrs["href"])


def _dead_link(link: str, names: set[str]) -> str | None:
    parts = urlsplit(link)
    if parts.scheme in ("http", "https"):
        return None
    if parts.scheme == "concept":
        return None if parts.path in names else f"{link} names no page."
    if parts.scheme == "dock":
        return None if parts.path in DOCK_IDS else f"{link} names no dock."
    try:
        run_link(link)
    except UsageError as error:
        return f"{link}: {error}"
    return None


def _blocks(text: str) -> Iterator[Block]:
    prose: list[str] = []
    lines = iter(text.splitlines())
    fenced = False
    for line in lines:
        fenced ^= line.startswith("```")
        mark = next((mark for mark in _MARKS if line.startswith(mark)), None)
        if fenced or mark is None:
            prose.append(line)
            continue
        if any(part.strip() for part in prose):
            yield Block("prose", "\n".join(prose).strip("\n"))
        prose = []
        paragraph = [line[len(mark) :]]
        if mark != "@code ":
            for more in lines:  # a call-out reaches to the end of its paragraph
                if not more.strip():
                    break
                paragraph.append(more)
        yield Block(_MARKS[mark], "\n".join(paragraph).strip())
    if any(part.strip() for part in prose):
        yield Block("prose", "\n".join(prose).strip("\n"))
