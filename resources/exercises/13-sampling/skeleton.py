"""What the next token is drawn from: temperature and top-p."""

from torch import Tensor


def probabilities(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """Logits [V] -> probabilities [V] of the next token. temperature 0: the most likely alone. top_p 1: all.

    With logits ln 0.5, ln 0.3, ln 0.2, temperature 1 and top_p 0.7: 0.625, 0.375, 0.
    """
    raise NotImplementedError
