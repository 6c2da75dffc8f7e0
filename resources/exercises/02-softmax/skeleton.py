"""Softmax: scores become probabilities."""

from torch import Tensor


def softmax(scores: Tensor) -> Tensor:
    """Scores [..., N] -> probabilities [..., N], over the last axis.

    softmax(torch.tensor([0.0, 1.0986])) is [0.25, 0.75], since 1.0986 is ln 3. Scores of 1000 must not overflow.
    Without torch.softmax and its like.
    """
    raise NotImplementedError
