"""Many heads of attention beside each other."""

from collections.abc import Callable

from torch import Tensor


def heads(
    x: Tensor, qkv: Tensor, out: Tensor, n_head: int, attention: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """x [B, T, C] -> [B, T, C].

    qkv [3C, C]: the projections to queries, keys and values, above each other. out [C, C]: the last one.
    attention: queries, keys, values [B, n_head, T, D] -> answers [B, n_head, T, D].
    With identity matrices and an attention that returns v, the result is x.
    """
    raise NotImplementedError
