"""The bias that NACL buys its restraint with, undone: from what the network says to what it was taught."""

import torch
from torch import Tensor

from nacl._checks import check_logits, check_number


def without_bias(logits: Tensor, *, penalty_weight: float, doubt: float = 0.01) -> Tensor:
    """Logits of the forecast that L1-NACL had to bend: log q for a network that sits at the minimum of its objective.

    There q - s = c g with s = softmax(l), c = penalty_weight / K, every g_k in [-1, 1] and sum g = 0 (`nacl_minimum`):
    g_k is 1 for a class whose logit lies above its tau, -1 below, and between where it lies at tau. tau is not known
    when a network is used. But a class that q does not have has s_k <= c, and one that lies above its tau q_k - c; so
    the m classes with s_k > 2 c are taken to lie above, and the rest to share what they gave up:

    g_k = min(1, (K - m) / m) above, -min(1, m / (K - m)) else,  q_k = max(s_k + c g_k, 0), made to sum to 1.

    That is exact for a certain label inside an object, and for labels that are divided between m <= K / 2 classes with
    more than 3 c each, where the other classes are pushed up by c. Elsewhere it is an estimate. A class may come out at
    0, for which one wrong pixel would cost an infinite log-likelihood: a share `doubt` of s stays.

    Args:
        logits: (N, K, ...), of a network trained with `nacl_loss(penalty="l1")` on logits.
        penalty_weight: lambda that it was trained with, in the authors' convention, not negative. Pixels whose largest
            s is at most 2 c stay as they are.
        doubt: share of the network's own forecast that is kept, in (0, 1].

    Returns:
        log q (N, K, ...), in float32, or in float64 for float64 logits.

    Raises:
        ValueError: logits of another shape, a number out of range.
        TypeError: logits that are not floating.

    Example:
        >>> certain = torch.tensor([[0.975, 0.025 / 3, 0.025 / 3, 0.025 / 3]], dtype=torch.float64).view(1, 4, 1, 1)
        >>> without_bias(certain.log(), penalty_weight=0.1).softmax(dim=1).flatten()
        tensor([9.9975e-01, 8.3333e-05, 8.3333e-05, 8.3333e-05], dtype=torch.float64)
    """
    check_logits(logits)
    check_number("penalty_weight", penalty_weight, low=0)
    check_number("doubt", doubt, low=0, high=1, open_low=True)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    probs, classes = logits.softmax(dim=1), logits.shape[1]
    c = penalty_weight / classes
    above = probs > 2 * c
    m = above.sum(dim=1, keepdim=True).to(probs)
    rise, fall = ((classes - m) / m.clamp(min=1)).clamp(max=1), (m / (classes - m).clamp(min=1)).clamp(max=1)
    taught = (probs + c * torch.where(above, rise, -fall)).clamp(min=0)
    taught = taught / taught.sum(dim=1, keepdim=True)
    return torch.lerp(taught, probs, doubt).log()
