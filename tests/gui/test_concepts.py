"""Concept pages: every page that is shipped holds together, and what would not is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmlab.errors import LabError, UsageError
from llmlab_gui.concepts import Block, Page, check_pages, load_pages, run_link
from llmlab_gui.source_code import colored_html, find_source

GOOD = """# Title

Prose with [a page](concept:good) and [a dock](dock:loss).

@code llmlab/errors.py::LabError.as_dict

? What will
happen?

! [Train](lab:run?preset=baby&steps=30&model.n_layer=2)

```
? not a question
```
"""


def test_every_shipped_page_holds_together() -> None:
    pages = load_pages()
    assert pages
    assert check_pages(pages) == []


def test_a_page_is_cut_at_its_own_lines_but_not_in_fences() -> None:
    blocks = Page("good", "Title", GOOD).blocks
    assert [block.kind for block in blocks] == ["prose", "code", "question", "run", "prose"]
    assert blocks[1] == Block("code", "llmlab/errors.py::LabError.as_dict")
    assert blocks[2].text == "What will\nhappen?"
    assert "? not a question" in blocks[4].text


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ("concept:gone", "concept:gone names no page"),
        ("dock:gone", "dock:gone names no dock"),
        ("lab:run?preset=baby&steps=-1", "train.steps cannot be"),
        ("lab:run?preset=babby", "no preset 'babby'"),
        ("lab:run?model.n_leyer=2", "no setting 'model.n_leyer'"),
        ("file:///etc/passwd", None),  # Markdown itself refuses it: there is no such link
        ("javascript:alert(1)", None),
        ("ftp://example.org/", "leads nowhere"),
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


def test_missing_parts_and_code_that_is_gone_are_found() -> None:
    problems = check_pages([Page("bare", "Bare", "# Bare\n\n@code llmlab/errors.py::Gone\n")])
    assert problems == [
        "bare.md: has no question.",
        "bare.md: has no run that answers.",
        "bare.md: llmlab/errors.py::Gone names nothing. There is no 'Gone' there.",
    ]


def test_a_run_link_becomes_settings() -> None:
    link = "lab:run?preset=nano&steps=30&corpus=tiny&model.n_layer=2"
    assert run_link(link) == {
        "preset": "nano",
        "train.steps": "30",
        "data.corpus": "tiny",
        "model.n_layer": "2",
    }
    assert run_link("lab:run") == {"preset": "baby"}
    with pytest.raises(UsageError):
        run_link("lab:delete?everything=1")


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
