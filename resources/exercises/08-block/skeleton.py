"""A block: attention and feed-forward, each adds to the residual stream."""

from collections.abc import Callable

from torch import Tensor

Layer = Callable[[Tensor], Tensor]


def block(x: Tensor, attention_norm: Layer, attention: Layer, feed_forward_norm: Layer, feed_forward: Layer) -> Tensor:
    """The stream before [B, T, C] -> the stream after [B, T, C].

    With norms that change nothing, an attention that doubles and a feed-forward that adds 1, x = 1 becomes 7.
    """
    raise NotImplementedError
