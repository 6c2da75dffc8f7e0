"""Where figures have their numbers from: the pages themselves, the lab's results, and the model that pages print."""

from __future__ import annotations

import re
from typing import Any, cast

from torch import Tensor

from llmlab.core.files import read_json
from llmlab.core.paths import resources_dir
from llmlab.gpt.model import GPT, Block


def page_table(page: str, first: str, number: int = 0) -> list[list[str]]:
    """The cells of a concept page's `number`th table whose first head is `first`, heads included, without bold."""
    pattern = rf"^\| {re.escape(first)} \|.*\n\| ---.*\n(?:\|.*\n)+"
    head, _, *rows = re.findall(pattern, _page(page), re.MULTILINE)[number].replace("*", "").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (head, *rows)]


def numbers(cells: list[str]) -> list[float]:
    """The numbers of a table's cells: `1,000`, `9.9e-6`."""
    return [float(cell.replace(",", "").replace("−", "-")) for cell in cells]


def printed(page: str, number: int = 0) -> list[str]:
    """The lines that the page's `number`th piece of code prints; a test holds that it does."""
    return re.findall(r"^```text\n(.*?)^```", _page(page), re.DOTALL | re.MULTILINE)[number].splitlines()


def said(page: str, pattern: str) -> str:
    """What the page says where the pattern, with one group, fits first."""
    found = re.search(pattern, _page(page), re.MULTILINE)
    if found is None:
        raise LookupError(f"the page {page} does not say {pattern!r}")
    return found[1]


def result(name: str) -> dict[str, Any]:
    """A committed result: `papers/grokking/verdict`, `experiments/scaling/results`."""
    found = read_json(resources_dir() / "results" / f"{name}.json")
    if found is None:
        raise LookupError(f"there is no result {name}")
    return found


def chart_of(charts: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The chart of that name."""
    return next(chart for chart in charts if chart["name"] == name)


def blocks_of(model: GPT) -> list[Block]:
    """Its blocks, as what they are."""
    return cast("list[Block]", list(model.blocks))


def stages(model: GPT, ids: Tensor) -> dict[str, Tensor]:
    """The stream [1, 5, 4] after its embeddings and after each part, by the names that the pages print."""
    x = model.token_embedding(ids) + model.position_embedding.weight
    found = {"embeddings": x}
    for layer, block in enumerate(blocks_of(model)):
        x = found[f"attention {layer}"] = x + block.attention(block.attention_norm(x))
        x = found[f"feed-forward {layer}"] = x + block.feed_forward(block.feed_forward_norm(x))
    return found


def _page(name: str) -> str:
    return (resources_dir() / "concepts" / f"{name}.md").read_text(encoding="utf-8")
