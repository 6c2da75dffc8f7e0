"""The loss of a text: each token is the target of the position before it."""

from collections.abc import Callable

from torch import Tensor


def loss(
    model: Callable[[Tensor], Tensor], tokens: Tensor, cross_entropy: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """tokens [B, T + 1] -> the mean loss of B T predictions, a tensor of one number.

    model: ids [B, T] -> logits [B, T, V]. cross_entropy: logits [N, V], targets [N] -> their mean loss; your own.
    A model that expects token + 1 has no loss on the text 0 1 2 3.
    """
    raise NotImplementedError
