"""Our own source, coloured."""

from __future__ import annotations

import html
from collections.abc import Mapping


def colored_html(code: str, colors: Mapping[str, str]) -> str:
    """Python as HTML spans. colors: CSS colours of `keyword`, `string`, `comment`, `number` and `name`."""
    from pygments import lex  # type: ignore[import-untyped]
    from pygments.lexers import PythonLexer  # type: ignore[import-untyped]
    from pygments.token import Comment, Keyword, Name, Number, Operator, String  # type: ignore[import-untyped]

    kinds = (
        (Comment, "comment"),
        (String, "string"),
        (Number, "number"),
        (Keyword, "keyword"),
        (Operator.Word, "keyword"),
        (Name.Function, "name"),
        (Name.Class, "name"),
        (Name.Decorator, "name"),
    )
    pieces = []
    for token, text in lex(code, PythonLexer(stripnl=False, ensurenl=False)):
        escaped = html.escape(text)
        kind = next((name for parent, name in kinds if token in parent), None)
        pieces.append(f'<span style="color:{colors[kind]}">{escaped}</span>' if kind else escaped)
    return "".join(pieces)
