"""LoRA: a small change beside a frozen matrix."""

from torch import Tensor


def start(width_in: int, width_out: int, rank: int) -> tuple[Tensor, Tensor]:
    """A [rank, in], random, and B [out, rank], zeros."""
    raise NotImplementedError


def lora(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """x [..., in], weight [out, in], a [rank, in], b [out, rank] -> [..., out]: W x + (alpha / rank) B A x.

    With x = [1, 1, 1], W = [[1, 0, 0], [0, 1, 0]], A = [[1, 1, 1], [0, 0, 1]], B = [[1, 0], [1, 1]] and alpha 4 it is
    [7, 9].
    """
    raise NotImplementedError


def merged(weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """The one matrix [out, in] that does the same."""
    raise NotImplementedError
