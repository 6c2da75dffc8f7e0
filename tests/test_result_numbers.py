"""Numbers of pages that come from runs stand in what the runs gave: the lab's reports, and the results of the pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import combinations
from statistics import mean, stdev
from typing import Any

from cases import each
from page_runs import FILE, trials_of

from llmlab.core.paths import resources_dir
from llmlab.data.papers import read_paper

_ROOT = resources_dir()
# A page that sums up, and where its reports are; of a part without a link of its own, the report of the page.
_SUMMARIES = {
    "results/learnings": "",
    "results/experiments": "",
    "results/papers": "",
    "papers/attention-sinks/notes": "results/papers/attention-sinks",
    "papers/bayesian-geometry/notes": "results/papers/bayesian-geometry",
    "papers/grokking/notes": "results/papers/grokking",
}
_OUTCOMES = re.compile(r"^## What (?:came out|was found)\n(.*)", re.MULTILINE | re.DOTALL)
_SAID = re.compile(r"(?<![\w.])(\d+\.\d+|\d+(?:\.\d+)?(?= %))(?![\w.])(?!/)")
_LOSS = re.compile(r"(?<![\w.])\d+\.\d{3,4}(?![\w.])")  # three digits or more: a loss, or a difference of two
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")
_CODE_OR_ADDRESS = re.compile(r"`[^`]*`|\]\([^)]*\)")


def is_among(said: str, values: Iterable[float]) -> bool:
    """Whether one of them, or a hundred times that, is written so."""
    digits = len(said.partition(".")[2])
    return any(said in (f"{abs(value):.{digits}f}", f"{100 * abs(value):.{digits}f}") for value in values)


def numbers_of(report: str) -> list[float]:
    text = (_ROOT / f"{report}/report.md").read_text(encoding="utf-8")
    return [float(number.replace(",", "")) for number in _NUMBER.findall(text)]


def losses(experiment: str, **wanted: object) -> list[float]:
    """The validation losses of an experiment's trials that have these values, in the order of their seeds."""
    arms = json.loads((_ROOT / f"results/experiments/{experiment}/results.json").read_text(encoding="utf-8"))["arms"]
    chosen = [arm for arm in arms if all(arm[name] == value for name, value in wanted.items())]
    return [arm["val_loss"] for arm in sorted(chosen, key=lambda arm: arm["seed"])]


def derived() -> dict[str, list[float]]:
    """What the pages compute from a result, by its report."""
    one, four = (losses("depth", x=layers) for layers in (1.0, 4.0))
    pairs = [b - a for a, b in zip(one, four, strict=True)]
    least, *rest = (
        mean(losses("lora-rank", group=group, x=rank))
        for group, rank in (("all", 1.0), ("all", 64.0), ("attention", 64.0), ("feed_forward", 64.0))
    )
    return {
        "results/experiments/depth": [2.776 * stdev(pairs) / len(pairs) ** 0.5],  # Student's t, 4 degrees of freedom
        "results/experiments/lora-rank": [least, least - rest[0], rest[1] - rest[0], rest[2] - rest[0]],
    }


def parts_of(page: str) -> list[tuple[list[str], str]]:
    """The reports that each paragraph, row or section of a summary rests on, and its words."""
    text = (_ROOT / f"{page}.md").read_text(encoding="utf-8")
    if _SUMMARIES[page]:
        (outcomes,) = _OUTCOMES.findall(text)
        return [([_SUMMARIES[page]], outcomes.partition("\n## ")[0])]
    pieces = text.split("\n## ") if page == "results/papers" else re.split(r"\n\s*\n|\n(?=\| )", text)
    found = [(re.findall(r"\(((?:experiments|papers)/[\w-]+)/report\.md\)", piece), piece) for piece in pieces]
    return [([f"results/{name}" for name in names], piece) for names, piece in found if names]


@each("page", _SUMMARIES)
def test_what_a_summary_says_stands_in_its_reports(page: str) -> None:
    missing = []
    for reports, words in parts_of(page):
        values = [value for report in reports for value in (*numbers_of(report), *derived().get(report, ()))]
        said = _SAID.findall(_CODE_OR_ADDRESS.sub("", words))
        missing += [(number, reports) for number in said if not is_among(number, values)]
    assert missing == []


_RUNS: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["runs"]


def measured(words: str) -> list[float]:
    """What a page's run measured: its losses at each evaluation, and of its first steps."""
    run = _RUNS[words]
    return [*run["validation"].values(), *run["training"].values(), *run["batch_loss"]]


@each("page", sorted(path.stem for path in (_ROOT / "concepts").glob("*.md")))
def test_the_losses_that_a_page_tells_of_its_runs_are_what_they_measured(page: str) -> None:
    missing = []
    trials = trials_of((_ROOT / f"concepts/{page}.md").read_text(encoding="utf-8"))
    values = [value for _, commands in trials for words in commands if words in _RUNS for value in measured(words)]
    for block, commands in trials:
        if not commands or not set(commands) <= set(_RUNS):
            continue
        said = _LOSS.findall(_CODE_OR_ADDRESS.sub("", block))
        between = [a - b for a, b in combinations([float(number) for number in said], 2)]
        missing += [number for number in said if not is_among(number, (*values, *between))]
    assert missing == []


@each("paper", sorted(path.name for path in (_ROOT / "results/papers").iterdir()))
def test_a_report_quotes_the_claims_as_they_stand(paper: str) -> None:
    text = (_ROOT / f"results/papers/{paper}/report.md").read_text(encoding="utf-8")
    untested = {"softmax", "large-models"}
    judged = [claim for claim in read_paper(paper).claims if claim.id not in untested]
    quoted = [line for claim in judged for line in (f"## {claim.title}: ", f"The paper: {claim.statement}\n")]
    quoted += [f"- Contested: {claim.contested}\n" for claim in judged if claim.contested]
    assert [line for line in quoted if f"\n{line}" not in text] == []
