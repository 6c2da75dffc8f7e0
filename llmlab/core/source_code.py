"""The lab's own source, found by name: what a page shows is the code that runs."""

from __future__ import annotations

import ast
import functools
import textwrap
from dataclasses import dataclass
from pathlib import Path

import llmlab
from llmlab.core.errors import LabError

# Where `llmlab/...` and `llmlab_gui/...` begin: a checkout's root, or site-packages.
CODE_ROOT = Path(llmlab.__file__).resolve().parent.parent


@dataclass(frozen=True)
class Source:
    """Lines of a file that define one symbol, decorators included, without their common indentation."""

    path: str
    symbol: str
    first_line: int
    last_line: int
    code: str


def find_source(reference: str, root: Path = CODE_ROOT) -> Source:
    """The source that `llmlab/gpt/model.py::GPT.forward` names; a bare path names the whole file.

    LabError when there is no such file or symbol.
    """
    path, _, symbol = reference.partition("::")
    try:
        text = (root / path).read_text(encoding="utf-8")
        first, last = _span(text, reference)
    except (OSError, SyntaxError, ValueError) as error:
        raise LabError(f"The source {path} cannot be shown.", str(error)) from error
    code = textwrap.dedent("\n".join(text.splitlines()[first - 1 : last]))
    return Source(path, symbol, first, last, code)


@functools.lru_cache(maxsize=256)  # a page is made anew at each width and in each theme
def _span(text: str, reference: str) -> tuple[int, int]:
    """The first line of a symbol and its last; of the whole text where it names none."""
    node: ast.AST = ast.parse(text)
    symbol = reference.partition("::")[2]
    if not symbol:
        return 1, len(text.splitlines())
    for name in symbol.split("."):
        node = _child(node, name, reference)
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])  # type: ignore[attr-defined]
    return first, node.end_lineno  # type: ignore[attr-defined]


def _child(node: ast.AST, name: str, reference: str) -> ast.AST:
    """The class, function or assignment called `name` directly inside `node`."""
    for child in getattr(node, "body", []):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if child.name == name:
                return child
        elif isinstance(child, ast.Assign):
            if any(isinstance(target, ast.Name) and target.id == name for target in child.targets):
                return child
        elif isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name) and child.target.id == name:
            return child
    raise LabError(f"{reference} names nothing.", f"There is no {name!r} there.")
