"""The first fact that does not hold, in words with numbers: of two results that should be equal."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_WHOLE = 6  # so many numbers are shown together


def wrong_form(got: Any, want: Any) -> str:
    """How a result's type or shape differs from the right one; "" where it does not."""
    if got is None:
        return "It returns None. Is the `return` missing?"
    if isinstance(want, tuple):
        if not isinstance(got, (tuple, list)) or len(got) != len(want):
            things = ", ".join(described(one) for one in want)
            return f"It returns {described(got)}, and should return {len(want)} things: {things}."
        return next((f"Number {i + 1} of what it returns: {fact}" for i, fact in _each(wrong_form, got, want)), "")
    if isinstance(want, Tensor):
        if not isinstance(got, Tensor):
            return f"It returns {described(got)}, and should return {described(want)}."
        if got.shape != want.shape:
            return f"Its shape is {list(got.shape)}, and should be {list(want.shape)}."
        if got.dtype != want.dtype:
            return f"Its numbers are {_dtype(got)}, and should be {_dtype(want)}."
        return ""
    if isinstance(want, list):
        return "" if isinstance(got, list) else f"It returns {described(got)}, and should return a list."
    if isinstance(got, (int, float)) or (isinstance(got, Tensor) and got.dim() == 0):
        return ""
    return f"It returns {described(got)}, and should return a number."


def difference(got: Any, want: Any, axes: tuple[str, ...] = (), tolerance: float = 1e-4) -> str:
    """Where two results of the same form first differ; "" where they agree."""
    if fact := wrong_form(got, want):
        return fact
    if isinstance(want, tuple):
        names = (
            axes if len(axes) == len(want) else tuple(f"number {i + 1} of what it returns" for i in range(len(want)))
        )
        pairs = _each(lambda one, other: difference(one, other, (), tolerance), got, want)
        return next((f"{names[i][0].upper() + names[i][1:]}: {fact}" for i, fact in pairs), "")
    if isinstance(want, list):
        return "" if got == want else f"It gives {_short(got)}, and should give {_short(want)}."
    if not isinstance(want, Tensor):
        same = math.isclose(float(got), float(want), rel_tol=tolerance, abs_tol=1e-9)
        return "" if same else f"It gives {_number(float(got))}, and should give {_number(float(want))}."
    return _first_difference(got.detach(), want.detach(), axes, tolerance)


def agrees(got: Any, want: Any, tolerance: float = 1e-4) -> bool:
    return not difference(got, want, (), tolerance)


def described(value: Any) -> str:
    """A value by what it is."""
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return f"a tensor [{', '.join(map(str, value.shape))}]" if value.dim() else "a tensor of one number"
    if isinstance(value, (tuple, list)) and 0 < len(value) <= 3 and any(isinstance(one, Tensor) for one in value):
        return f"a {type(value).__name__} of {', '.join(described(one) for one in value)}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeinou' else 'a'} {name}"


def _each(what: Any, got: Any, want: Any) -> list[tuple[int, str]]:
    facts = [(i, what(one, other)) for i, (one, other) in enumerate(zip(got, want, strict=True))]
    return [(i, fact) for i, fact in facts if fact]


def _first_difference(got: Tensor, want: Tensor, axes: tuple[str, ...], tolerance: float) -> str:
    scale = float(want[want.isfinite()].abs().max()) if want.numel() and bool(want.isfinite().any()) else 1.0
    close = torch.isclose(got, want, rtol=tolerance, atol=tolerance * max(scale, 1e-3), equal_nan=True)
    if bool(close.all()):
        return ""
    if want.numel() <= _WHOLE:
        return f"It gives {_numbers(got)}, and should give {_numbers(want)}."
    at = tuple((~close).nonzero()[0].tolist())
    return f"{_place(at, axes)} it is {_number(got[at].item())}, and should be {_number(want[at].item())}."


def _place(at: tuple[int, ...], axes: tuple[str, ...]) -> str:
    if len(axes) == len(at):
        return "At " + ", ".join(f"{axis} {i}" for axis, i in zip(axes, at, strict=True))
    return f"At {list(at)}"


def _numbers(values: Tensor) -> str:
    return _row(values.tolist())


def _row(row: Any) -> str:
    return "[" + ", ".join(_row(one) for one in row) + "]" if isinstance(row, list) else _number(row)


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"


def _short(values: list[Any]) -> str:
    text = str(values)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
