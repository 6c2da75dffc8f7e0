"""Numbers in formulas: short enough to read, and a sum as the sum it is."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from llmlab.core.signs import minus

# Terms of a sum that are written out before the dots.
_TERMS = 3


def number(value: float) -> str:
    """Four significant digits, with the minus sign of print."""
    return minus(f"{value:.4g}")


def vector(x: Tensor) -> str:
    """`(0.1, 0.2, -0.3, ... 12 in all)`."""
    shown = ", ".join(number(value) for value in x[:_TERMS].tolist())
    more = f", … {len(x):,} in all" if len(x) > _TERMS else ""
    return f"({shown}{more})"


def total(terms: Sequence[str], result: float, bias: float | None = None) -> str:
    """`a + b + c + … + z = sum`; bias: added at the end."""
    shown = list(terms) if len(terms) <= _TERMS + 1 else [*terms[:_TERMS], "…", terms[-1]]
    if bias is not None:
        shown.append(bracketed(bias))
    return f"{' + '.join(shown)} = {number(result)}"


def dot(a: Tensor, b: Tensor, result: float, bias: float | None = None) -> str:
    """The product of two vectors, term by term; bias: added at the end."""
    terms = [f"{bracketed(x)}·{bracketed(y)}" for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    return total(terms, result, bias)


def bracketed(value: float) -> str:
    """A negative number in brackets."""
    return f"({number(value)})" if value < 0 else number(value)
