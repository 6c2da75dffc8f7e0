"""What a piece must do, as data: the right function, cases, and the mistakes that are known by what they compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class Draw:
    """Random arguments; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        """Normal numbers."""
        return torch.randn(shape, generator=self._generator)

    def ids(self, high: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to high - 1."""
        return torch.randint(high, shape, generator=self._generator)


@dataclass(frozen=True)
class Case:
    """Arguments, and what must come out; `expected` None: what the right function gives. name: said with the fact."""

    name: str
    args: tuple[Any, ...]
    expected: Any = None


@dataclass(frozen=True)
class Mistake:
    """A wrong function that people write. name: what it is. why: a sentence on what is wrong with it."""

    name: str
    why: str
    function: Callable[..., Any]


def plainly(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def result(args: tuple[Any, ...], returned: Any) -> Any:
    return returned


@dataclass(frozen=True)
class Part:
    """One function of a piece.

    right: the lab's own, or torch's where the lab calls that. make: arguments of a random case. axes: names of what is
    returned, for the facts. causal: which arguments have positions on their last axis but one, as what is returned has.
    large: arguments on which it may take `times` as long as the right one.
    call: how it is called, where that is not once with the arguments. see: what is compared, of the arguments after
    the call and what it returned. mutates: it is asked to change its arguments.
    """

    name: str
    right: Callable[..., Any]
    make: Callable[[Draw], tuple[Any, ...]]
    axes: tuple[str, ...] = ()
    by_hand: tuple[Case, ...] = ()
    edges: tuple[Case, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    causal: tuple[int, ...] = ()
    gradient: bool = True
    large: Callable[[Draw], tuple[Any, ...]] | None = None
    times: float = 20.0
    call: Callable[..., Any] = plainly
    see: Callable[[tuple[Any, ...], Any], Any] = result
    mutates: bool = False
    tolerance: float = 1e-4
