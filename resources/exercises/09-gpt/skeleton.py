"""A GPT from its parts, and how it begins."""

from collections.abc import Callable

from torch import Tensor

Layer = Callable[[Tensor], Tensor]


def gpt(
    ids: Tensor, token_embedding: Tensor, position_embedding: Tensor, blocks: list[Layer], final_norm: Layer
) -> Tensor:
    """ids [B, T], embeddings [V, C] and [block_size, C] -> logits [B, T, V]; T is at most block_size.

    With token rows [1, 0] and [0, 1], positions [0, 0] and [1, 0], no blocks and no norm, ids 1 0 give the logits
    [0, 1] and [2, 0].
    """
    raise NotImplementedError


def initialise(parameters: dict[str, Tensor], n_layer: int) -> None:
    """Fills the parameters in place, by their names: `blocks.0.attention.out.weight` and so on."""
    raise NotImplementedError
