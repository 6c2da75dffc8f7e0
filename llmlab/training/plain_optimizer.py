"""torch's optimizers without its compiler.

torch 2.13 hides methods of optimizers from its compiler, and imports that by their first call, which takes a second or
more of a start in which nothing is compiled. What is compiled here, a model's loss, calls none of them: so these
classes have the methods themselves (`torch._compile._disable_dynamo` keeps each as `__wrapped__`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


def _itself(method: F) -> F:
    return getattr(method, "__wrapped__", method)


class PlainOptimizer(torch.optim.Optimizer):
    """An optimizer that nobody compiles."""

    add_param_group = _itself(torch.optim.Optimizer.add_param_group)
    state_dict = _itself(torch.optim.Optimizer.state_dict)
    load_state_dict = _itself(torch.optim.Optimizer.load_state_dict)
    zero_grad = _itself(torch.optim.Optimizer.zero_grad)


_STEP = _itself(torch.optim.Adam.step)  # without gradients; and AdamW's, which decays its weights otherwise


class AdamW(PlainOptimizer, torch.optim.AdamW):
    """torch's own."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step."""
        return _STEP(self, closure)
