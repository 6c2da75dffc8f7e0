"""The logit lens: what the model would say after each layer."""

from collections.abc import Callable

from torch import Tensor


def logit_lens(streams: Tensor, final_norm: Callable[[Tensor], Tensor], unembedding: Tensor) -> Tensor:
    """streams [L, T, C], unembedding [V, C] -> probabilities [L, T, V] of the next token after each layer.

    With a norm that changes nothing and unembedding the identity, the stream [0, 1.0986] gives [0.25, 0.75].
    """
    raise NotImplementedError
