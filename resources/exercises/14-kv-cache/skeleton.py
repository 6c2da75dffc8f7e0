"""The key-value cache: what was computed for earlier tokens is kept."""

from typing import Any

from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, kept: Any) -> tuple[Tensor, Any]:
    """Of the newest T tokens [B, H, T, D] -> their answers [B, H, T, D], and what to give as `kept` the next time.

    kept: None at the first call. New tokens see all earlier ones, and those among them up to themselves.
    """
    raise NotImplementedError
