"""One step of AdamW."""

from torch import Tensor


def adamw(
    weight: Tensor,
    gradient: Tensor,
    m: Tensor,
    v: Tensor,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The new weight, m and v, all of one shape. step: 1 at the first step. The arguments stay as they are.

    Weight 1, gradient 0.5, m 0, v 0, step 1, lr 0.1, beta1 0.9, beta2 0.99, no decay: 0.9, 0.05, 0.0025.
    """
    raise NotImplementedError
