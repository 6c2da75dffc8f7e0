"""Concept pages: every page that is shipped holds together, and what would not is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cases import each
from page_checks import check_pages

from llmlab.core.errors import LabError
from llmlab.core.source_code import find_source
from llmlab_gui.pages.html import colored_html
from llmlab_gui.pages.library import load_all, load_glossary, load_pages, load_tree, with_terms
from llmlab_gui.pages.links import read_link
from llmlab_gui.pages.page import (
    CONCEPTS,
    FIRST_HOUR,
    GROUPS,
    HOW_TO,
    RESULTS,
    Block,
    Page,
    anchor_of,
    figures_of,
    page_at,
)

GOOD = """# Title

Prose with [a page](concept:good) and [a dock](dock:loss).

@code llmlab/core/errors.py::LabError.as_dict

? What will
happen?

! [Train](lab:run?preset=baby&steps=30&model.n_layer=2)

```
? not a question
```
"""


def test_every_shipped_page_holds_together() -> None:
    pages = load_all()
    assert check_pages(pages) == []
    assert {page.group for page in pages} == set(GROUPS)
    groups = [page.group for page in pages]
    assert sorted(groups, key=GROUPS.index) == groups  # each group is in one piece


def test_no_two_pages_have_one_name() -> None:
    names = [page.name for page in load_all()]
    assert len(set(names)) == len(names)


def test_a_page_is_cut_at_its_own_lines_but_not_in_fences() -> None:
    blocks = Page("good", "Title", GOOD).blocks
    assert [block.kind for block in blocks] == ["prose", "code", "question", "run", "prose"]
    assert blocks[1] == Block("code", "llmlab/core/errors.py::LabError.as_dict")
    assert blocks[2].text == "What will\nhappen?"
    assert "? not a question" in blocks[4].text


@each(
    ("broken", "complaint"),
    [
        ("concept:gone", "concept:gone names no page"),
        ("concept:good#gone", "concept:good#gone names no term"),
        ("glossary:gone", "glossary:gone names no page"),
        ("dock:gone", "dock:gone names no dock"),
        ("lab:run?preset=baby&steps=-1", "train.steps cannot be"),
        ("lab:run?preset=babby", "no preset 'babby'"),
        ("lab:run?model.n_leyer=2", "no setting 'model.n_leyer'"),
        ("file:///etc/passwd", None),  # Markdown itself refuses it: there is no such link
        ("javascript:alert(1)", None),
        ("ftp://example.org/", "leads nowhere"),
        ("workspace:look-insde", "names no workspace"),
        ("workspace:train?modle=a", "not opened with 'modle'"),
        ("lab:run?workspace=gone", "names no workspace"),
        ("lab:finetune?method=fulll", "model.method"),
        ("lab:finetune?lora.rnk=3", "no setting 'lora.rnk'"),
        ("lab:experiment?kind=learning-rat", "Did you mean learning-rate"),
        ("lab:delete?everything=1", "leads nowhere"),
        ("paper:groking", "no paper 'groking'"),
        ("paper:grokking/gone", "no claim 'gone'"),
        ("paper:grokking?model=mine", "cannot be set up"),
        ("paper:attention-sinks/sink?modle=mine", "cannot be set up"),
        ("gone.md", "gone.md names no file"),
        ("../../pyproject.toml", "names no file"),  # beyond what comes with the lab
    ],
)
def test_a_dead_link_is_found(broken: str, complaint: str | None) -> None:
    page = Page("good", "Title", GOOD.replace("concept:good", broken))
    problems = check_pages([page])
    if complaint is None:
        assert problems == []
    else:
        (problem,) = problems
        assert complaint in problem


def test_a_term_has_one_entry_of_one_sentence_and_links_find_it() -> None:
    (page,) = load_glossary()
    entries = page.text.partition("## ")[2].split("\n\n")
    defined = [entry for entry in entries if entry.startswith("**")]
    assert len(set(map(anchor_of, page.terms))) == len(page.terms) == len(defined)
    sentence = re.compile(r"\*\*[^*]+\*\*( \(.+?\))?: [A-Ze0-9]([^.]|\.\d)+\.")
    assert [entry for entry in defined if not sentence.fullmatch(entry.strip())] == []
    links = " ".join(f"[it](glossary:{anchor_of(term)})" for term in [*page.terms, "tokken"])
    problems = check_pages([page, Page("p", "P", f"# P\n\n{links}\n", RESULTS)])
    assert [problem for problem in problems if problem.startswith("p.md")] == ["p.md: glossary:tokken names no term."]


@each(
    "term",
    [
        *("position", "token", "d_model", "feed-forward", "residual stream", "pre_attn", "post_attn", "post_ffn"),
        *("head output", "hook point", "logit attribution", "counterfactual token", "intervention", "zero ablation"),
        *("mean ablation", "activation patching", "patching sweep", "standard deviation", "sequence", "padding"),
        *("beginning-of-sequence token", "loss mask", "truncation", "parameters", "fine-tuned", "trial", "baseline"),
        "generation",
    ],
)
def test_the_glossary_has_the_words_of_the_field(term: str) -> None:
    assert term in load_glossary()[0].terms


def test_a_line_links_each_of_its_terms_once_and_the_longest_one() -> None:
    linked = with_terms("A counterfactual token is a token; tokens, tokenless, token.json and re-token: Logits.")
    assert linked == (
        'A <a href="glossary:counterfactual-token">counterfactual token</a> is a <a href="glossary:token">token</a>; '
        'tokens, tokenless, token.json and re-token: <a href="glossary:logit">Logits</a>.'
    )


def test_missing_parts_and_code_that_is_gone_are_found() -> None:
    problems = check_pages([Page("bare", "Bare", "# Bare\n\n@code llmlab/core/errors.py::Gone\n")])
    assert problems == [
        "bare.md: has no question.",
        "bare.md: has no run that answers.",
        "bare.md: llmlab/core/errors.py::Gone names nothing. There is no 'Gone' there.",
    ]


def test_what_a_kind_of_page_cannot_do_without() -> None:
    hour = [
        Page("first-hour/1", "One", "# One\n\n? Q\n\n! [Train](lab:run)\n", FIRST_HOUR),
        Page("first-hour/2", "Two", "# Two\n\n? Q\n\n! [Train](lab:run)\n", FIRST_HOUR),
    ]
    assert check_pages(hour) == ["first-hour/1.md: does not lead to first-hour/2."]
    assert check_pages([Page("guides/x", "X", "# X\n", HOW_TO)]) == ["guides/x.md: has no lines of our own code."]
    assert check_pages([Page("results/x", "X", "# X\n\n![gone](figures/gone.png)\n", RESULTS)]) == [
        "results/x.md: figures/gone.png is no figure."
    ]


def test_pages_of_a_tree_find_each_other_and_their_figures_by_file() -> None:
    pages = load_all()
    known = {page.name: page for page in pages}
    tuned, report = known["results/fine-tuning"], known["results/experiments/forgetting/report"]
    assert page_at(tuned, "experiments.md", pages) == known["results/experiments"]  # not the concept of that name
    assert page_at(report, "../../experiments.md#top", pages) == known["results/experiments"]
    assert page_at(tuned, "gone.md", pages) is None
    assert known["experiments"].group == CONCEPTS
    assert figures_of(report.text)[0] == "figures/learned-against-forgotten.png"


def test_a_tree_is_read_from_the_top(tmp_path: Path) -> None:
    for name in ("b/report", "z", "a/c/report", "learnings"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.md").write_text(f"# {name}\n")
    names = [page.name for page in load_tree(tmp_path, "results", RESULTS)]
    assert names == ["results/learnings", "results/z", "results/b/report", "results/a/c/report"]


def test_a_run_link_becomes_settings() -> None:
    link = read_link("lab:run?preset=nano&steps=30&corpus=tiny&model.n_layer=2&name=mine&workspace=look-inside")
    assert link.values == {
        "preset": "nano",
        "train.steps": "30",
        "data.corpus": "tiny",
        "model.n_layer": "2",
        "name": "mine",
    }
    assert (link.kind, link.workspace) == ("run", "Look inside")
    assert read_link("lab:run").values == {"preset": "baby"}
    tuned = read_link("lab:finetune?base=mine@final&method=full&steps=30")
    assert tuned.values == {
        "preset": "scratch",
        "model.base": "mine@final",
        "model.method": "full",
        "train.steps": "30",
    }


def test_a_workspace_link_brings_model_and_prompt() -> None:
    link = read_link("workspace:look-inside?model=mine@final&prompt=The%20king%20said")
    assert (link.kind, link.target) == ("workspace", "Look inside")
    assert link.values == {"model": "mine@final", "prompt": "The king said"}


def test_pages_come_in_reading_order(tmp_path: Path) -> None:
    for name in ("zebra", "loss", "attention", "apple"):
        (tmp_path / f"{name}.md").write_text(f"# The {name}\n")
    (tmp_path / "damaged.md").write_bytes(b"\xff\xfe")
    pages = load_pages(tmp_path)
    assert [page.name for page in pages] == ["attention", "loss", "apple", "zebra"]
    assert pages[0].title == "The attention"


def test_source_is_found_with_its_decorators_and_true_line_numbers(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(
        "X = 1\n\n\nclass A:\n    y: int = 2\n\n    @property\n    def b(self):\n        return 3\n"
    )
    source = find_source("code.py::A.b", tmp_path)
    assert (source.first_line, source.last_line) == (7, 9)
    assert source.code == "@property\ndef b(self):\n    return 3"
    assert find_source("code.py::X", tmp_path).code == "X = 1"
    assert find_source("code.py::A.y", tmp_path).code == "y: int = 2"
    assert find_source("code.py", tmp_path).last_line == 9
    for wrong in ("code.py::A.c", "code.py::B", "gone.py::A", "../code.py::Z"):
        with pytest.raises(LabError):
            find_source(wrong, tmp_path)


def test_colouring_loses_no_character() -> None:
    code = 'def f(x: int) -> str:\n    """<doc>"""\n    return f"{x:>3}" if x < 3 else None  # & so on\n'
    colors = dict.fromkeys(("keyword", "string", "comment", "number", "name"), "#123456")
    import html
    import re

    assert html.unescape(re.sub(r"</?span[^>]*>", "", colored_html(code, colors))) == code
