"""MbLS: logits may differ by a margin, and pay for more."""

import torch
from torch import Tensor

from nacl._checks import check_number
from nacl._penalties import penalty_called
from nacl.losses._module import Loss
from nacl.losses._pixelwise import Pixels, pixel_loss
from nacl.losses.cross_entropy import cross_entropy_loss


def mbls_loss(
    logits: Tensor,
    target: Tensor,
    *,
    margin: float = 10.0,
    penalty: str = "l1",
    penalty_weight: float = 0.1,
    delta: float = 1.0,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Margin-based label smoothing: cross-entropy, and logits that fall no further than `margin` behind the largest.

    L_i = CE_i + penalty_weight * 1/C sum_k P(max(0, d_ik - margin)),  d_ik = max_j l_ij - l_ik

    P as in `nacl_loss`. With margin 0 and "l1" every distance pays, which is the constraint inside label smoothing.

    Args:
        logits, target, ignore_index, reduction: as in `cross_entropy_loss`.
        margin: m, in logits, not negative. (10 in the authors' code, 5 in some of their scripts.)
        penalty: "l1", "l2" or "huber".
        penalty_weight: lambda, not negative; 0 is cross-entropy. As in `nacl_loss` the classes are averaged.
        delta: where "huber" turns from square to linear, positive.

    Returns:
        The loss in float32, or in float64 for float64 logits.

    Raises:
        ValueError, TypeError: as `cross_entropy_loss`; also an unknown `penalty`, a negative `margin` or
            `penalty_weight`, `delta` not positive.

    Example:
        >>> logits = torch.tensor([12.0, 0.0]).view(1, 2, 1, 1)
        >>> mbls_loss(logits, torch.zeros(1, 1, 1, dtype=torch.long), margin=10.0, penalty_weight=0.1)
        tensor(0.1000)

    References:
        Liu et al., The devil is in the margin, CVPR 2022. Murugesan et al., Medical Image Analysis 87 (2023) 102826.

    Departures from the authors' code: where several logits are the largest, they share the gradient.
    """
    penalise = penalty_called(penalty, delta)
    check_number("margin", margin, low=0)
    check_number("penalty_weight", penalty_weight, low=0)

    def formula(pixels: Pixels):
        weight = penalty_weight / pixels.logits.shape[1]
        distance = pixels.logits.amax(dim=1, keepdim=True) - pixels.logits
        excess = (distance - margin).clamp(min=0)
        value = weight * penalise.value(excess).sum(dim=1) - pixels.label_log_prob

        def gradient() -> Tensor:
            slope = penalise.slope(excess)
            highest = 1 - distance.sign()
            highest = highest * (slope.sum(dim=1, keepdim=True) / highest.sum(dim=1, keepdim=True))
            return pixels.minus_label(torch.add(pixels.probs, highest - slope, alpha=weight))

        return value, gradient

    if penalty_weight == 0:
        return cross_entropy_loss(logits, target, ignore_index=ignore_index, reduction=reduction)
    return pixel_loss(formula, logits, target, ignore_index=ignore_index, reduction=reduction)


class MbLSLoss(Loss):
    """`mbls_loss` as a Module, with the same keywords."""

    function = staticmethod(mbls_loss)
