"""A paper as a page of Learn: the way to its workspace, its notes, its claims, and what checks of them found here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmlab.data.papers import PAPERS_DIR, Claim, Paper, readable_papers
from llmlab_gui.pages.page import PAPERS, Page


def load_paper_pages(results: Sequence[Page]) -> list[Page]:
    """A page for each paper that can be read. results: pages of results, to which they lead."""
    papers, _ = readable_papers()  # one that is being written keeps the others from nobody
    return [paper_page(paper, results) for paper in papers]


def paper_page(paper: Paper, results: Sequence[Page] = ()) -> Page:
    """The page papers/<name>."""
    title, notes = title_and_notes(paper)
    text = "\n\n".join([f"# {title}", *_about(paper, results), notes, "## Claims", *_claims(paper)])
    return Page(f"papers/{paper.name}", title, text, PAPERS, PAPERS_DIR / paper.name)


def title_and_notes(paper: Paper) -> tuple[str, str]:
    """The heading of its notes.md, and what follows."""
    heading, _, notes = paper.notes.partition("\n")
    return heading.removeprefix("#").strip(), notes.strip()


def _about(paper: Paper, results: Sequence[Page]) -> Iterator[str]:
    links = ", ".join(f"[{link.partition('://')[2]}]({link})" for link in paper.links)
    yield f"{paper.title}. {paper.authors}, {paper.year}. {links}"
    yield f"[Open it in the workspace Paper](paper:{paper.name}), or `llmlab-run paper show {paper.name}`."
    found = [page for page in results if paper.name in page.name.split("/")]
    if found:
        yield "What was found here: " + ", ".join(f"[{page.title}](concept:{page.name})" for page in found) + "."


def _claims(paper: Paper) -> Iterator[str]:
    for claim in paper.claims:
        yield f"### {claim.title}"
        yield f"[`{claim.id}`](paper:{paper.name}/{claim.id}) · {claim.where}"
        yield claim.statement
        yield "\n".join(f"- **{label}:** {words}" for label, words in _rows(claim) if words)


def _rows(claim: Claim) -> Iterator[tuple[str, str]]:
    yield "Supported by", claim.supports
    yield "Refuted by", claim.refutes
    yield "Tested here", claim.test
    yield "The paper's own bound", claim.papers_criterion
    yield "Contested", claim.contested
