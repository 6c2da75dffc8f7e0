"""Byte pair encoding: text becomes tokens by merging pairs."""


def merge(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """`ids` with every occurrence of `pair` replaced by `new`, from left to right.

    merge([1, 2, 1, 2, 3], (1, 2), 9) is [9, 9, 3].
    """
    raise NotImplementedError


def encode(ids: list[int], merges: dict[tuple[int, int], int]) -> list[int]:
    """`ids` after all merges that fit, the one that was learned first (smallest new id) before the others.

    encode([0, 1, 2], {(1, 2): 3, (0, 1): 4}) is [0, 3].
    """
    raise NotImplementedError
