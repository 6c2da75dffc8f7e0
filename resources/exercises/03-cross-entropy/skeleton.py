"""Cross-entropy: how surprising the right tokens were."""

from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits [N, V] and target ids [N] -> the mean of -ln p(target): a tensor of one number, in nats.

    cross_entropy(torch.tensor([[0.0, 1.0986]]), torch.tensor([1])) is 0.2877, which is -ln 0.75.
    Without torch.nn.functional.cross_entropy and log_softmax.
    """
    raise NotImplementedError
